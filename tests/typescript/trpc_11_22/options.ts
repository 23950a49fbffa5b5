// What `@trpc/tanstack-react-query` makes of a path and an input: the real package, for suites that stand elsewhere.

import type { QueryClient } from '@tanstack/query-core';
import { createTRPCClient, httpLink, type TRPCLink } from '@trpc/client';
import { createTRPCOptionsProxy, type TRPCOptionsProxy } from '@trpc/tanstack-react-query';

import type { AppRouter } from '../../../generated_client/typescript/api.ts';

/** Return the proxy of a client whose own requests all fail: whoever asks by it, is found. */
export function optionsOf(queryClient: QueryClient): TRPCOptionsProxy<AppRouter> {
  const links: TRPCLink<AppRouter>[] = [httpLink({ url: 'http://127.0.0.1:9' })];
  return createTRPCOptionsProxy<AppRouter>({ client: createTRPCClient<AppRouter>({ links }), queryClient });
}
