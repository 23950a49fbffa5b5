// Whether tRPC's client can read answers: node readable.ts FILE, a file of JSON lines, each one answer, its body in
// base64. Prints a line for each that it cannot read, and one with how many it was given.

import { readFile } from 'node:fs/promises';
import {
  createTRPCUntypedClient,
  httpBatchLink,
  httpBatchStreamLink,
  httpLink,
  type TRPCClientError,
} from '@trpc/client';
import superjson from 'superjson';

interface Answer {
  link: 'http' | 'batch' | 'stream';
  calls: number;
  isTransformed: boolean;
  status: number;
  type: string;
  body: string;
}

const links = { http: httpLink, batch: httpBatchLink, stream: httpBatchStreamLink };

/** Return what the client says that it could not read: an error that no server has told has no data. */
async function faultsOf({ link, calls, isTransformed, status, type, body }: Answer): Promise<string[]> {
  const fetch = async () => new Response(Buffer.from(body, 'base64'), { status, headers: { 'content-type': type } });
  const options = { url: 'http://server', fetch, ...(isTransformed && { transformer: superjson }) };
  const client = createTRPCUntypedClient({ links: [links[link](options as never)] });
  const ends = await Promise.allSettled(Array.from({ length: calls }, (_, index) => client.query(`call.${index}`)));
  const errors = ends.flatMap((end) => (end.status === 'rejected' ? [end.reason as TRPCClientError<never>] : []));
  return errors.filter(({ shape }) => !Number.isInteger(shape?.['code'])).map(({ message }) => message);
}

const lines = (await readFile(process.argv[2] ?? '', 'utf-8')).split('\n').filter(Boolean);
for (const line of lines) {
  const answer = JSON.parse(line) as Answer;
  for (const fault of await faultsOf(answer)) console.log(`${fault}: ${Buffer.from(answer.body, 'base64')}`);
}
console.log(`${lines.length} were read`);
