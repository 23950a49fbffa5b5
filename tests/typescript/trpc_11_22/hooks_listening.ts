// A page of tRPC's integration with TanStack Query that stays open: node hooks_listening.ts URL. Prints a line each time
// that it shows other memos of desk `a`, and for each state of its stream.

import './dom.ts';

import { QueryClient, QueryClientProvider, useQuery } from '@tanstack/react-query';
import { createTRPCClient, httpBatchLink, httpSubscriptionLink, retryLink, splitLink } from '@trpc/client';
import { createTRPCContext, useSubscription } from '@trpc/tanstack-react-query';
import { EventSource } from 'eventsource';
import { createElement as h, type ReactNode, useEffect } from 'react';
import { createRoot } from 'react-dom/client';
import type { DeskRouter } from './desk_router.ts';
import { place } from './dom.ts';

const [url = ''] = process.argv.slice(2);
const headers = { authorization: 'Bearer ada' };
const { TRPCProvider, useTRPC } = createTRPCContext<DeskRouter>();
const queryClient = new QueryClient({ defaultOptions: { queries: { retry: false } } });
const trpcClient = createTRPCClient<DeskRouter>({
  links: [
    // The server may be away for as long as it takes to start again.
    retryLink({ retry: ({ error, op }) => op.type === 'query' && error.data === null, retryDelayMs: () => 50 }),
    splitLink({
      condition: ({ type }) => type === 'subscription',
      true: httpSubscriptionLink({ url, EventSource, connectionParams: headers }),
      false: httpBatchLink({ url, headers }),
    }),
  ],
});

function say(what: string): void {
  process.stdout.write(`${what}\n`);
}

function Memos(): ReactNode {
  const trpc = useTRPC();
  const { data, error } = useQuery(trpc.desk.memos.queryOptions({ desk: 'a' }));
  const queries = [{ path: 'desk.memos', input: { desk: 'a' } }];
  const { status } = useSubscription(
    trpc.reactive.events.subscriptionOptions(
      { queries },
      {
        onData: ({ data }) =>
          void data.affected.map(({ path, input }) =>
            queryClient.invalidateQueries({ queryKey: [path.split('.'), { input, type: 'query' }] }),
          ),
      },
    ),
  );
  const shown = data?.map(({ text }) => text).join(' ');
  useEffect(() => say(`stream ${status}`), [status]);
  useEffect(() => say(`shown ${error?.message ?? shown}`), [shown, error]);
  return null;
}

const children = h(Memos);
const page = h(TRPCProvider, { trpcClient, queryClient, children });
createRoot(place).render(h(QueryClientProvider, { client: queryClient }, page));
