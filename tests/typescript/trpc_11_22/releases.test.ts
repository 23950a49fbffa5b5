import { QueryClient } from '@tanstack/query-core';
import { createTRPCClient, httpLink } from '@trpc/client';
import { initTRPC } from '@trpc/server';
import { createTRPCOptionsProxy } from '@trpc/tanstack-react-query';
import { expect, expectTypeOf, test } from 'vitest';

import newest from '../node_modules/@trpc/client/package.json' with { type: 'json' };
import asked from './node_modules/@trpc/client/package.json' with { type: 'json' };

const t = initTRPC.create();
const router = t.router({ add: t.procedure.query(() => 3) });

test('the integration with TanStack Query stands on the release of tRPC that it asks for', async () => {
  expect([asked.version, newest.version]).toEqual(['11.22.1', '11.25.2']);
  const answer = new Response(JSON.stringify({ result: { data: 3 } }));
  const client = createTRPCClient<typeof router>({ links: [httpLink({ url: 'http://x', fetch: async () => answer })] });
  const queryClient = new QueryClient();
  const trpc = createTRPCOptionsProxy<typeof router>({ client, queryClient });
  const added = await queryClient.fetchQuery(trpc.add.queryOptions());
  expectTypeOf(added).toEqualTypeOf<number>();
  expect(added).toBe(3);
});
