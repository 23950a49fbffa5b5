// The hooks of tRPC's integration with TanStack Query, rendered by React, against tests/integration/trpc/desk.py:
// node hooks.ts URL. Prints a line once all of it is right.

import './dom.ts';

import { deepEqual, equal } from 'node:assert/strict';
import {
  QueryClient,
  QueryClientProvider,
  skipToken,
  useMutation,
  useQuery,
  useSuspenseQuery,
} from '@tanstack/react-query';
import {
  createTRPCClient,
  httpBatchLink,
  httpBatchStreamLink,
  httpLink,
  httpSubscriptionLink,
  splitLink,
} from '@trpc/client';
import { createTRPCContext, useSubscription } from '@trpc/tanstack-react-query';
import { EventSource } from 'eventsource';
import { createElement as h, type ReactNode, StrictMode, Suspense } from 'react';
import { createRoot } from 'react-dom/client';
import type { DeskRouter } from './desk_router.ts';
import { found, place, until } from './dom.ts';

const [url = ''] = process.argv.slice(2);
const headers = { authorization: 'Bearer ada' };
const { TRPCProvider, useTRPC } = createTRPCContext<DeskRouter>();

function clientBy(link: typeof httpLink | typeof httpBatchLink | typeof httpBatchStreamLink) {
  const connected = httpSubscriptionLink({ url, EventSource, connectionParams: headers });
  const isStream = ({ type }: { type: string }) => type === 'subscription';
  return createTRPCClient<DeskRouter>({
    links: [splitLink({ condition: isStream, true: connected, false: link({ url, headers }) })],
  });
}

function Memos({ desk, queryClient }: { desk: string; queryClient: QueryClient }): ReactNode {
  const trpc = useTRPC();
  const { data = [] } = useQuery(trpc.desk.memos.queryOptions({ desk }));
  const newest = data.at(-1);
  const one = useQuery(trpc.desk.one.queryOptions(newest === undefined ? skipToken : { id: newest.id }));
  const nobody = useQuery(trpc.desk.one.queryOptions({ id: -1 }, { retry: false }));
  const { mutate, isSuccess } = useMutation(trpc.desk.add.mutationOptions());
  const added = useSubscription(trpc.desk.added.subscriptionOptions({ desk }));
  const queries = [{ path: 'desk.memos', input: { desk } }];
  const told = useSubscription(
    trpc.reactive.events.subscriptionOptions(
      { queries },
      {
        onData: ({ data }) => {
          for (const { path, input } of data.affected) {
            void queryClient.invalidateQueries({ queryKey: [path.split('.'), { input, type: 'query' }] });
          }
        },
      },
    ),
  );
  return h(
    'section',
    null,
    h('ul', null, ...data.map(({ id, text, author }) => h('li', { key: id }, `${text} by ${author}`))),
    h('h1', null, one.data?.text ?? one.fetchStatus),
    h('h2', null, nobody.error?.data?.code ?? nobody.status),
    h('h3', null, added.data?.data.text ?? 'nothing'),
    h('h4', null, `${told.status} ${isSuccess}`),
    h('button', { type: 'button', onClick: () => mutate({ desk, text: 'from the page' }) }),
  );
}

function Caller(): ReactNode {
  return h('h5', null, useSuspenseQuery(useTRPC().desk.whoami.queryOptions()).data);
}

const shown = () => [...place.querySelectorAll('li')].map((item) => item.textContent);

for (const [name, link] of Object.entries({ httpLink, httpBatchLink, httpBatchStreamLink })) {
  const desk = `hooks of ${name}`;
  const trpcClient = clientBy(link);
  const queryClient = new QueryClient();
  const root = createRoot(place);
  const page = h(Suspense, { fallback: 'waiting' }, h(Caller), h(Memos, { desk, queryClient }));
  const provided = h(TRPCProvider, { trpcClient, queryClient, children: page });
  root.render(h(StrictMode, null, h(QueryClientProvider, { client: queryClient }, provided)));
  await until(() => place.querySelector('h4')?.textContent === 'pending false', 'the stream is not there');
  equal(found('h5').textContent, 'ada');
  equal(found('h1').textContent, 'idle');
  await until(() => found('h2').textContent === 'NOT_FOUND', 'no error is told');

  found('button').click();
  await until(() => shown().length === 1, 'what the page wrote is not shown');
  await until(() => found('h1').textContent === 'from the page', 'the query that waited is not made');
  await until(() => found('h3').textContent === 'from the page', 'the subscription says nothing');
  equal(found('h4').textContent, 'pending true');

  await clientBy(httpLink).desk.add.mutate({ desk, text: 'from another' });
  await until(() => shown().length === 2, 'what another wrote is not shown');
  deepEqual(shown(), ['from the page by ada', 'from another by ada']);
  await until(() => found('h1').textContent === 'from another', 'the query of the newest is not made');
  root.unmount();
  queryClient.clear();
}
console.log('all is right');
process.exit(0);
