/** A query, or a list, that waits for another one: what stands in the place of its input, and what it shows. */

import type { PagesState } from './pages.ts';
import type { State } from './state.ts';

/** The type of `skip`. */
export interface Skip {
  readonly isSkipped: true;
}

/** In the place of an input: the query waits for another one, and nothing is asked. */
export const skip: Skip = { isSkipped: true };

export const SKIPPED: State<never> = {
  data: undefined,
  isStale: true,
  isLoading: false,
  isPending: false,
  error: null,
};

export const SKIPPED_PAGES: PagesState<never> = {
  rows: undefined,
  hasMore: false,
  isLoadingMore: false,
  isStale: true,
  isPending: false,
  error: null,
  loadMore: () => {},
};
