/** What the engine and a queue of mutations know of each other; a page that has no queue loads neither. */

import type { QueryClient } from '@tanstack/query-core';

import type { Calls, MutationOptions } from './calls.ts';
import type { EngineStatus, ProcedureCodecs } from './engine.ts';
import type { TabHost } from './group.ts';
import type { MutationHost, MutationTarget, OptimisticUpdate } from './mutations.ts';
import type { ReactiveOptions } from './reactive.ts';

/** What a queue needs of the engine. */
export interface EngineOfQueue {
  /** The caller, as the server named it last; null if it has named nobody. */
  readonly scope: string | null;
  readonly status: Pick<EngineStatus, 'isOnline' | 'stream'>;
  readonly calls: Pick<Calls, 'mutate'>;
  readonly client: QueryClient;
  /** The caller is another one. */
  reidentify(cause: 'another', scope: string | null): void;
  /** So many more wait. */
  count(more: number): void;
  onStatus(listener: () => void): () => void;
}

/** What a queue needs of the options of a page. */
export interface QueuePlace {
  readonly identity?: string | undefined;
  readonly storage?: ReactiveOptions['storage'] | undefined;
  readonly codecs?: Readonly<Record<string, ProcedureCodecs>> | undefined;
  /** Left out, it is that of the page. */
  readonly browser?: Pick<TabHost, 'locks' | 'openChannel'>;
}

/** Mutations that wait. */
export interface MutationQueue {
  /** Have a mutation wait, and resolve with its answer; null if it is none of those that may, or cannot. */
  add(
    path: string,
    json: unknown,
    updates: readonly OptimisticUpdate[],
    options: Pick<MutationOptions, 'key' | 'signal'>,
  ): Promise<unknown> | null;
  /** A list is there now: what waits shows in it. */
  appeared(): void;
  /** Try now. */
  nudge(): void;
  /** The caller has other credentials; or is gone, and nothing of theirs stays. */
  reidentify(isGone: boolean): void;
  close(): void;
}

/** Returns the queue of a page; `queue` makes one. `shows` is where own mutations show. */
export type Offline = (engine: EngineOfQueue, place: QueuePlace, shows: MutationHost<MutationTarget>) => MutationQueue;
