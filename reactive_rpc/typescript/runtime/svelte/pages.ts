/**
 * Endless lists for Svelte 5: `const messages = liveInfinite(reactive, 'messages.get_all', () => ({ agent_id }), { limit: 50 })`,
 * and `messages.rows` in the markup. Apart from the other queries, so that a page without lists does not load what they
 * need.
 */

import { createSubscriber } from 'svelte/reactivity';

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

/** Return a list whose fields are live in effects and in markup; `input` may read state, and change. */
export function liveInfinite<P extends Procedures, Path extends PagesPath<P>>(
  reactive: Reactive<P>,
  path: Path | Named<Path>,
  input: () => PagesInput<P, Path> | Skip,
  options: PagesOptions,
): PagesState<RowOf<P, Path>> {
  return new LivePages(() => {
    const given = input();
    return given === skip ? null : infinite(reactive, path, given as PagesInput<P, Path>, options);
  });
}

class LivePages<T> implements PagesState<T> {
  /** Null while it is skipped. */
  readonly #find: () => Pages<T> | null;
  /** How each list that was read is subscribed to, as the input may change. */
  readonly #subscribers = new Map<string, () => void>();
  /** Load the page that follows; nothing if one is under way, or if none follows. */
  readonly loadMore = (): void => this.#find()?.state.loadMore();

  constructor(find: () => Pages<T> | null) {
    this.#find = find;
  }

  get rows(): readonly T[] | undefined {
    return this.#read().rows;
  }

  get hasMore(): boolean {
    return this.#read().hasMore;
  }

  get isLoadingMore(): boolean {
    return this.#read().isLoadingMore;
  }

  get isStale(): boolean {
    return this.#read().isStale;
  }

  get isPending(): boolean {
    return this.#read().isPending;
  }

  get error(): Error | null {
    return this.#read().error;
  }

  #read(): PagesState<T> {
    const list = this.#find();
    if (list === null) return SKIPPED_PAGES;
    const { key } = list;
    const subscribe = this.#subscribers.get(key) ?? this.#subscriber(list);
    this.#subscribers.set(key, subscribe);
    subscribe();
    return list.state;
  }

  #subscriber(list: Pages<T>): () => void {
    return createSubscriber((update) => {
      const stop = list.watch(update);
      return () => {
        stop();
        this.#subscribers.delete(list.key);
      };
    });
  }
}
