/** What a server puts into the page that it has rendered, so that the page begins with its data, and asks nothing. */

import { type DehydratedState, type DehydrateOptions, dehydrate } from '@tanstack/query-core';

import { isObject } from './json.ts';
import type { Procedures, Reactive } from './reactive.ts';

/**
 * Return the queries of a client for `hydrate` or `<HydrationBoundary>` of TanStack's.
 *
 * As `dehydrate` of TanStack's; what JSON has not (a Date, a Set, a bigint) is written as the server does, so that all
 * of it is JSON, and a result with a `bigint` in its type as text of JSON.
 */
export function dehydrateReactive<P extends Procedures>(
  reactive: Reactive<P>,
  options: DehydrateOptions = {},
): DehydratedState {
  const dehydrated = dehydrate(reactive.client, options);
  const queries = dehydrated.queries.map((query) => {
    const { json, isText } = reactive.engine.rawOf(query.queryHash, query.state.data);
    const about = query.meta?.['reactive'];
    const meta = { ...query.meta, reactive: { ...(isObject(about) && about), text: true } };
    return { ...query, state: { ...query.state, data: json }, ...(isText && { meta }) };
  });
  return { ...dehydrated, queries };
}
