// TeamHub by the hooks of tRPC's integration with TanStack Query, rendered by React and typed by the generated
// AppRouter: node hooks_teamhub.ts URL EMAIL PASSWORD. Prints a line once all of it is right.

import './dom.ts';

import { equal } from 'node:assert/strict';
import { QueryClient, QueryClientProvider, useMutation, useQuery } from '@tanstack/react-query';
import * as client from '@trpc/client';
import { createTRPCContext, useSubscription } from '@trpc/tanstack-react-query';
import { createElement as h, type ReactNode } from 'react';
import { createRoot } from 'react-dom/client';
import type { AppRouter } from '../../../generated_client/typescript/api.ts';
import { clientOf, logIn } from '../trpc/teamhub.ts';
import { found, place, until } from './dom.ts';

const [url = '', email = '', password = ''] = process.argv.slice(2);
const authorization = await logIn(url, email, password);
const { TRPCProvider, useTRPC } = createTRPCContext<AppRouter>();

/** Fetch again what a commit has changed. */
function useFresh(queryClient: QueryClient, queries: { path: string; input?: unknown }[]): string {
  const fetchAgain = ({ path, input }: { path: string; input?: unknown }) => {
    const queryKey = [path.split('.'), { ...(input != null && { input }), type: 'query' }];
    return queryClient.invalidateQueries({ queryKey });
  };
  const onData = ({ data }: { data: { affected: { path: string; input?: unknown }[] } }) =>
    void data.affected.map(fetchAgain);
  return useSubscription(useTRPC().reactive.events.subscriptionOptions({ queries }, { onData })).status;
}

function Agent({ id, queryClient }: { id: string; queryClient: QueryClient }): ReactNode {
  const trpc = useTRPC();
  const agent = useQuery(trpc.agents.get_one.queryOptions({ agent_id: id }));
  const all = useQuery(trpc.agents.get_all.queryOptions());
  const { mutate, error } = useMutation(trpc.agents.update.mutationOptions());
  const status = useFresh(queryClient, [
    { path: 'agents.get_one', input: { agent_id: id } },
    { path: 'agents.get_all' },
  ]);
  const rename = (agent_id: string) => () => mutate({ agent_id, name: 'Of the page' });
  return h(
    'section',
    null,
    h('h1', null, agent.data?.name),
    h('h2', null, all.data?.find((each) => each.id === id)?.name),
    h('h3', null, error?.data?.type ?? 'no error'),
    h('h4', null, status),
    h('button', { type: 'button', onClick: rename(id) }),
    h('button', { type: 'button', onClick: rename('nobody'), id: 'wrong' }),
  );
}

const trpcClient = clientOf(client as never, url, authorization);
const queryClient = new QueryClient();
const { id } = await trpcClient.agents.create.mutate({ name: 'New' });
const page = h(Agent, { id, queryClient });
const provided = h(TRPCProvider, { trpcClient: trpcClient as never, queryClient, children: page });
createRoot(place).render(h(QueryClientProvider, { client: queryClient }, provided));

const shows = (name: string) => [found('h1'), found('h2')].every(({ textContent }) => textContent === name);
await until(() => place.querySelector('h4')?.textContent === 'pending' && shows('New'), 'the agent is not shown');
found('button').click();
await until(() => shows('Of the page'), 'what the page wrote is not shown');
await trpcClient.agents.update.mutate({ agent_id: id, name: 'Of another' });
await until(() => shows('Of another'), 'what another wrote is not shown');
equal(found('h3').textContent, 'no error');
found('#wrong').click();
await until(() => found('h3').textContent === 'AgentNotFound', 'the refusal is not told');
console.log('all is right');
process.exit(0);
