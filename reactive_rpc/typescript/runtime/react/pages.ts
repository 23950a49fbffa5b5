/**
 * The hook for endless lists; apart from the others, so that a page without lists does not load what they need. The
 * generated client makes it once, with its types: `export const useReactiveInfinite = createInfiniteHook(useReactiveClient)`.
 */

import { useCallback, useMemo, useSyncExternalStore } from 'react';

import type { Named } from '../keys.ts';
import {
  infinite,
  type Pages,
  type PagesInput,
  type PagesOptions,
  type PagesPath,
  type PagesState,
  type RowOf,
} from '../pages.ts';
import type { Procedures, Reactive } from '../reactive.ts';
import { SKIPPED_PAGES, type Skip, skip } from '../skip.ts';

/** Show a list page by page: `const { rows, hasMore, loadMore } = useReactiveInfinite('messages.get_all', { agent_id }, { limit: 50 })`. */
export type UseReactiveInfinite<P extends Procedures> = <Path extends PagesPath<P>>(
  path: Path | Named<Path>,
  input: PagesInput<P, Path> | Skip,
  options: PagesOptions,
) => PagesState<RowOf<P, Path>>;

/** Return the hook of a client; `useReactiveClient` is that of `createHooks`. */
export function createInfiniteHook<P extends Procedures>(useReactiveClient: () => Reactive<P>): UseReactiveInfinite<P> {
  return function useReactiveInfinite<Path extends PagesPath<P>>(
    path: Path | Named<Path>,
    input: PagesInput<P, Path> | Skip,
    options: PagesOptions,
  ): PagesState<RowOf<P, Path>> {
    const list = useList(useReactiveClient(), path, input, options);
    return useSyncExternalStore(
      useCallback((listener) => list?.watch(listener) ?? nothing, [list]),
      () => list?.state ?? SKIPPED_PAGES,
      () => list?.renderedState ?? SKIPPED_PAGES,
    );
  };
}

/** Return the list, the same object in each render with the same path, input and limit. */
function useList<P extends Procedures, Path extends PagesPath<P>>(
  reactive: Reactive<P>,
  path: Path | Named<Path>,
  input: PagesInput<P, Path> | Skip,
  options: PagesOptions,
): Pages<RowOf<P, Path>> | null {
  const list = input === skip ? null : infinite(reactive, path, input as PagesInput<P, Path>, options);
  const key = list?.key;
  // The key stands for path, input and limit.
  return useMemo(() => list, [reactive, key]);
}

function nothing(): void {}
