// TeamHub as an application with tRPC's own client calls it, typed by the generated AppRouter:
// node teamhub.ts URL [EMAIL PASSWORD]. Prints a line once all of it is right.

import { deepEqual, equal, ok, rejects } from 'node:assert/strict';
import * as newest from '@trpc/client';
import { EventSource } from 'eventsource';

import type { AppRouter } from '../../../generated_client/typescript/api.ts';

export async function logIn(url: string, username: string, password: string): Promise<string> {
  const body = new URLSearchParams({ username, password });
  const answer = await fetch(`${url}/login`, { method: 'POST', body });
  const { access_token: token } = (await answer.json()) as { access_token: string };
  return `Bearer ${token}`;
}

/** Every link at once, as an application would put them together. */
export function clientOf(lib: typeof newest, url: string, authorization: string) {
  const options = { url: `${url}/trpc`, headers: { authorization } };
  return lib.createTRPCClient<AppRouter>({
    links: [
      lib.retryLink({ retry: ({ attempts, error }) => attempts < 5 && error.data === null, retryDelayMs: () => 20 }),
      lib.splitLink({
        condition: (op) => op.type === 'subscription',
        true: lib.httpSubscriptionLink({ url: `${url}/trpc`, EventSource, connectionParams: { authorization } }),
        false: lib.splitLink({
          condition: (op) => op.context['link'] === 'http',
          true: lib.httpLink(options),
          false: lib.splitLink({
            condition: (op) => op.context['link'] === 'batch',
            true: lib.httpBatchLink(options),
            false: lib.httpBatchStreamLink(options),
          }),
        }),
      }),
    ],
  });
}

export type Client = ReturnType<typeof clientOf>;

async function calls(client: Client): Promise<void> {
  for (const link of ['http', 'batch', 'stream']) {
    const context = { link };
    const agent = await client.agents.create.mutate({ name: `Of ${link}` }, { context });
    equal(agent.role, 'assistant');
    const [one, all, nobody] = await Promise.allSettled([
      client.agents.get_one.query({ agent_id: agent.id }, { context }),
      client.agents.get_all.query(undefined, { context }),
      client.agents.get_one.query({ agent_id: 'nobody' }, { context }),
    ]);
    deepEqual(one.status === 'fulfilled' && one.value, agent);
    ok(all.status === 'fulfilled' && all.value.some(({ id }) => id === agent.id));
    equal(nobody.status === 'rejected' && nobody.reason.data.type, 'AgentNotFound');
    const renamed = await client.agents.update.mutate({ agent_id: agent.id, name: 'Renamed' }, { context });
    equal(renamed.name, 'Renamed');
    equal((await client.agents.get_one.query({ agent_id: agent.id }, { context })).name, 'Renamed');
    await client.agents.delete.mutate({ agent_id: agent.id }, { context });
    await rejects(client.agents.get_one.query({ agent_id: agent.id }, { context }));
  }
}

async function streams(client: Client): Promise<void> {
  const sender = await client.agents.create.mutate({ name: 'Sender' });
  const heard: string[] = [];
  const send = (body: string) => void client.messages.send.mutate({ from_agent_id: sender.id, body });
  await new Promise<void>((resolve, reject) => {
    const subscription = client.messages.events.subscribe(
      { agent_id: sender.id },
      {
        onData: ({ id, data }) => {
          ok(id.endsWith(`/${data.id}`)); // behind its time: one goes on after it, though it be deleted
          if (heard.push(data.body) < 2) return;
          subscription.unsubscribe();
          resolve();
        },
        onConnectionStateChange: ({ state }) => state === 'pending' && ['one', 'two'].forEach(send),
        onError: reject,
      },
    );
  });
  deepEqual([...heard].sort(), ['one', 'two']);
  const exported: string[] = [];
  for await (const message of await client.messages.export.query()) exported.push(message.body);
  ok(exported.includes('one'));
}

export async function run(lib: typeof newest, url: string, email: string, password: string): Promise<void> {
  const client = clientOf(lib, url, await logIn(url, email, password));
  await calls(client);
  await streams(client);
  await rejects(clientOf(lib, url, 'Bearer nobody').agents.get_all.query());
  console.log('all is right');
}

if (import.meta.main) {
  const [url = '', email = '', password = ''] = process.argv.slice(2);
  await run(newest, url, email, password);
}
