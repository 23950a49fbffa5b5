/** Which results may be kept for the next visit. Pure. */

import { queryNameOf } from './keys.ts';

/** By the names of queries and namespaces: `{ memory: false, 'memory.recent': true }`. */
export type Wishes = Readonly<Record<string, boolean | undefined>>;

/** Tell whether results of a query, which is named by the hash of its key, may be kept: the longest name decides. */
export function isKept(query: string, wishes: Wishes): boolean {
  const path = pathOf(query);
  // The page names its keys otherwise: it cannot be told which query it is.
  if (path === null) return !Object.values(wishes).includes(false);
  for (let name = path; name !== ''; name = name.slice(0, Math.max(name.lastIndexOf('.'), 0))) {
    const wish = Object.hasOwn(wishes, name) ? wishes[name] : undefined;
    if (wish !== undefined) return wish;
  }
  return true;
}

function pathOf(query: string): string | null {
  try {
    const key: unknown = JSON.parse(query);
    return Array.isArray(key) ? (queryNameOf(key)?.path ?? null) : null;
  } catch {
    return null;
  }
}
