/** The keys of queries in a QueryClient: those of `@trpc/tanstack-react-query`, so that both mean the same query. */

import type { QueryKey } from '@tanstack/query-core';

/** A query of the API. */
export interface QueryName {
  readonly path: string;
  readonly input: unknown;
}

/** Names a procedure as its path does: `api.agents.get_one` for 'agents.get_one'. */
export interface Named<Path extends string> {
  [Symbol.toPrimitive](hint: string): Path;
}

/** Return the object whose members, and theirs, name procedures: `String(names.agents.get_one)` is their path. */
export function procedureNames<Tree extends object>(path = ''): Tree {
  const get = (_: object, name: string | symbol): unknown => {
    if (typeof name === 'string') return procedureNames(path === '' ? name : `${path}.${name}`);
    return name === Symbol.toPrimitive ? () => path : undefined;
  };
  return new Proxy({}, { get }) as Tree;
}

/** Return the key of a query: `[['agents', 'get_one'], { input, type: 'query' }]`. */
export function queryKeyOf({ path, input }: QueryName): QueryKey {
  const about = input === undefined ? { type: 'query' } : { input, type: 'query' };
  return [path.split('.'), about];
}

/** Return the query that a key names; null if it is none of an API. */
export function queryNameOf(key: QueryKey): QueryName | null {
  const [path, about = {}] = key;
  if (!isPath(path) || typeof about !== 'object' || about === null) return null;
  const { type = 'query', input }: { readonly type?: unknown; readonly input?: unknown } = about;
  return type === 'query' ? { path: path.join('.'), input } : null;
}

function isPath(part: unknown): part is readonly string[] {
  return Array.isArray(part) && part.length > 0 && part.every((name) => typeof name === 'string');
}
