// An application on TanStack Query, by tRPC's own integration, which hears of changes: node tanstack.ts URL EMAIL PASSWORD

import { deepEqual, equal } from 'node:assert/strict';
import { QueryClient, QueryObserver } from '@tanstack/query-core';
import { createTRPCClient, httpBatchStreamLink, httpSubscriptionLink, splitLink } from '@trpc/client';
import { createTRPCOptionsProxy } from '@trpc/tanstack-react-query';
import { EventSource } from 'eventsource';

import type { AppRouter } from '../../../generated_client/typescript/api.ts';

const [base = '', username = '', password = ''] = process.argv.slice(2);
const login = await fetch(`${base}/login`, { method: 'POST', body: new URLSearchParams({ username, password }) });
const { access_token: token } = (await login.json()) as { access_token: string };
const authorization = `Bearer ${token}`;
const url = `${base}/trpc`;

const client = createTRPCClient<AppRouter>({
  links: [
    splitLink({
      condition: (op) => op.type === 'subscription',
      true: httpSubscriptionLink({ url, EventSource, connectionParams: { authorization } }),
      false: httpBatchStreamLink({ url, headers: { authorization } }),
    }),
  ],
});
const queryClient = new QueryClient({ defaultOptions: { queries: { staleTime: Number.POSITIVE_INFINITY } } });
queryClient.mount();
const trpc = createTRPCOptionsProxy<AppRouter>({ client, queryClient });

const agent = await client.agents.create.mutate({ name: 'Before' });
// One takes no input, one is told all of its input, and of one the server fills in what is left out.
const inputs = { one: { agent_id: agent.id }, messages: { agent_id: agent.id } };
const all = new QueryObserver(queryClient, trpc.agents.get_all.queryOptions());
const one = new QueryObserver(queryClient, trpc.agents.get_one.queryOptions(inputs.one));
const messages = new QueryObserver(queryClient, trpc.messages.get_after.queryOptions(inputs.messages));
const fetched: string[] = [];
queryClient.getQueryCache().subscribe(({ type, query }) => {
  if (type === 'updated' && query.state.fetchStatus === 'fetching') fetched.push(JSON.stringify(query.queryKey));
});

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) {
    await new Promise<void>((resolve) => {
      const leave = queryClient.getQueryCache().subscribe(() => {
        leave();
        resolve();
      });
    });
  }
}

for (const observer of [all, one, messages]) observer.subscribe(() => {});
await until(() => [all, one, messages].every((observer) => observer.getCurrentResult().isSuccess));

const heard: string[] = [];
const queries = [
  { path: 'agents.get_all' },
  { path: 'agents.get_one', input: inputs.one },
  { path: 'messages.get_after', input: inputs.messages },
];
const subscription = client.reactive.events.subscribe(
  { queries },
  {
    onData: ({ data }) => {
      heard.push(data.type);
      for (const { path, input } of data.affected) {
        const queryKey = [path.split('.'), { ...(input != null && { input }), type: 'query' }];
        void queryClient.invalidateQueries({ queryKey });
      }
    },
  },
);

// What is shown may be older than the stream: all of it is fetched again, once.
await until(() => heard.length > 0 && queryClient.isFetching() === 0 && new Set(fetched).size === 3);

const other = createTRPCClient<AppRouter>({ links: [httpBatchStreamLink({ url, headers: { authorization } })] });
await other.agents.update.mutate({ agent_id: agent.id, name: 'After' });
await until(() => one.getCurrentResult().data?.name === 'After');
await until(() => Boolean(all.getCurrentResult().data?.some(({ name }) => name === 'After')));
await other.messages.send.mutate({ from_agent_id: agent.id, body: 'hello' });
await until(() => messages.getCurrentResult().data?.at(-1)?.body === 'hello');
equal(heard[0], 'connected');
deepEqual([...new Set(heard.slice(1))], ['invalidation']);
subscription.unsubscribe();
queryClient.unmount();
queryClient.clear();
console.log('all is right');
