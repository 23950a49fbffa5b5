/** What a server puts into the page that it has rendered, so that the page begins with its data, and asks nothing. */

import { type DehydratedState, type DehydrateOptions, dehydrate } from '@tanstack/query-core';

import type { Procedures, Reactive } from './reactive.ts';

/**
 * Return the queries of a client for `hydrate` or `<HydrationBoundary>` of TanStack's.
 *
 * As `dehydrate` of TanStack's; what JSON has not (a Date, a Set, a bigint) is written as the server does, so that all
 * of it is JSON.
 */
export function dehydrateReactive<P extends Procedures>(
  reactive: Reactive<P>,
  options: DehydrateOptions = {},
): DehydratedState {
  const dehydrated = dehydrate(reactive.client, options);
  const queries = dehydrated.queries.map((query) => ({
    ...query,
    state: { ...query.state, data: reactive.jsonOf(query.queryHash, query.state.data) },
  }));
  return { ...dehydrated, queries };
}
