// What our runtime makes of the application in tests/integration/trpc/desk.py that no page of TeamHub needs: files, and
// links with a transformer. Each check says what was wrong, or null.

import { deepEqual, equal, rejects } from 'node:assert/strict';
import { createTRPCUntypedClient, httpBatchLink, httpLink, splitLink, type TRPCLink } from '@trpc/client';
import type { AnyRouter } from '@trpc/server';
import superjson from 'superjson';

import {
  bytes,
  type Codec,
  date,
  list,
  map,
  number,
  obj,
  scalar,
  set,
} from '../../../reactive_rpc/typescript/runtime/codec.ts';
import { bigint, exact } from '../../../reactive_rpc/typescript/runtime/exact.ts';
import {
  createReactive,
  type Reactive,
  type ReactiveOptions,
  reactiveFetch,
  reactiveHeaders,
} from '../../../reactive_rpc/typescript/runtime/index.ts';

const [url = ''] = process.argv.slice(2);
const AUTHORIZED = { authorization: 'Bearer ada' };
const VALUES = {
  at: new Date(2027, 1),
  big: 2n ** 60n + 1n,
  raw: new Uint8Array([0, 255]),
  tags: new Set(['a']),
  by_day: new Map([[1, new Date(2028, 1)]]),
};

interface Attach {
  readonly file: Blob;
  readonly title?: string;
}

interface Desk {
  readonly 'desk.attach': { readonly kind: 'mutation'; readonly input: Attach; readonly output: string };
  readonly 'desk.touch': { readonly kind: 'mutation'; readonly input: { file: Blob }; readonly output: unknown };
  readonly 'desk.echo': { readonly kind: 'query'; readonly input: { values: object }; readonly output: unknown };
}

const shout: Codec<string> = scalar(String, (text) => text.toUpperCase());
const VALUE = obj({ at: date, big: bigint, raw: bytes, tags: set(), by_day: map(number, date) });

function page(options: Partial<ReactiveOptions> = {}): Reactive<Desk> {
  const codecs = { 'desk.echo': { input: obj({ values: VALUE }) as Codec<unknown>, output: exact(list(VALUE)) } };
  return createReactive<Desk>({ url, credentials: () => AUTHORIZED, transport: 'off', codecs, ...options });
}

const FILE = new File(['hello'], 'a.txt');

const CHECKS: Readonly<Record<string, () => Promise<void>>> = {
  async 'a mutation with a file sends a form'() {
    equal(await page().call('desk.attach', { file: FILE, title: 'greeting' }), 'greeting:a.txt:5');
    equal(await page().call('desk.attach', { file: new Blob(['x']) }), ':blob:1');
  },

  async 'the other inputs pass their codecs'() {
    const codecs = { 'desk.attach': { input: obj<Attach>({ title: shout }) as Codec<unknown> } };
    equal(await page({ codecs }).call('desk.attach', { file: FILE, title: 'greeting' }), 'GREETING:a.txt:5');
  },

  async "a client of tRPC's may give files as its types say, or a form, or a file alone"() {
    const client = createTRPCUntypedClient({ links: page().links });
    const form = new FormData();
    form.set('file', FILE);
    equal(await client.mutation('desk.attach', { file: FILE, title: 'greeting' }), 'greeting:a.txt:5');
    equal(await client.mutation('desk.attach', form), ':a.txt:5');
    equal(await client.mutation('desk.attach', new Blob(['hello'])), ':None:5');
  },

  async 'a file where none is taken is refused'() {
    const refused = page().call('desk.touch', { file: FILE });
    await rejects(refused, { status: 415, code: 'UNSUPPORTED_MEDIA_TYPE', isTransient: false });
  },

  async 'files are not given up for how long they take'() {
    const signals: (AbortSignal | null | undefined)[] = [];
    const fetched: typeof fetch = (input, init) => {
      signals.push(init?.signal);
      return fetch(input, init);
    };
    const timeout = AbortSignal.timeout;
    let timers = 0;
    AbortSignal.timeout = (ms) => {
      timers += 1;
      return timeout.call(AbortSignal, ms);
    };
    await page({ fetch: fetched }).call('desk.attach', { file: FILE });
    equal(timers, 0);
    await page({ fetch: fetched }).query('desk.echo', { values: VALUES }).load();
    equal(timers, 1);
    AbortSignal.timeout = timeout;
  },

  async 'links of the page see and change each call, and may have a transformer'() {
    const seen: string[] = [];
    const logger: TRPCLink<AnyRouter> =
      () =>
      ({ op, next }) => {
        seen.push(`${op.type} ${op.path}`);
        return next(op);
      };
    // As an application says who calls: by the context of the operation, which the link that sends reads.
    const auth: TRPCLink<AnyRouter> =
      () =>
      ({ op, next }) =>
        next({ ...op, context: { ...op.context, token: 'ada' } });
    const about = {
      url: `${url}/super`,
      transformer: superjson,
      fetch: reactiveFetch(),
      headers: (called: Parameters<typeof reactiveHeaders>[0]) => {
        const [op] = 'op' in called ? [called.op] : called.opList;
        return { ...reactiveHeaders(called), authorization: `Bearer ${op?.context['token']}` };
      },
    };
    const links = [
      logger,
      auth,
      splitLink({ condition: ({ type }) => type === 'mutation', true: httpLink(about), false: httpBatchLink(about) }),
    ] as TRPCLink<AnyRouter>[];
    const input = { values: VALUES };
    const transformed = await page({ links, credentials: () => ({}) })
      .query('desk.echo', input)
      .load();
    const plain = await page().query('desk.echo', input).load();
    deepEqual(transformed, plain);
    const [values] = transformed as readonly { readonly big: unknown; readonly at: unknown }[];
    deepEqual([values?.big, values?.at], [VALUES.big, VALUES.at]);
    deepEqual(seen, ['query desk.echo']);
  },
};

for (const [name, check] of Object.entries(CHECKS)) {
  const fault = await check().then(
    () => null,
    (error: unknown) => String(error instanceof Error ? error.stack : error),
  );
  console.log(JSON.stringify({ name, fault }));
}
