/**
 * Mutations: sent once, shown at once.
 *
 * A mutation with optimistic updates waits for earlier ones that show in a same query, so that two quick toggles reach
 * the server in order. What shows is right without that too; the server's order would be its own.
 */

import type { Entry } from './entry.ts';
import { asError, ReactiveError } from './errors.ts';
import type { Action, Update } from './state.ts';
import type { Version } from './versions.ts';

/** How a mutation shows in queries until their answers contain it. */
export interface OptimisticUpdate {
  readonly path: string;
  /** Of the query; left out, it shows in all of the path. */
  readonly input?: unknown;
  // A method, whose parameter TypeScript compares both ways: updates of several types go into one list.
  update(data: unknown): unknown;
}

export interface MutationHost {
  /** Return the entries in which an update shows. */
  entriesOf(update: OptimisticUpdate): readonly Entry[];
  dispatch(entry: Entry, action: Action<unknown>): void;
  /** Up to where the stream has said everything. */
  readonly notifiedUpTo: Version | null;
}

export interface Sent<T> {
  readonly value: T;
  readonly version: Version | null;
}

export class Mutations {
  readonly #host: MutationHost;
  #count = 0;

  constructor(host: MutationHost) {
    this.#host = host;
  }

  /** Show the updates, send the mutation by `send`, and return its answer. */
  make<T>(updates: readonly OptimisticUpdate[], isParallel: boolean, send: () => Promise<Sent<T>>): Promise<T> {
    const id = `m${++this.#count}`;
    const entries = new Map<Entry, OptimisticUpdate[]>();
    for (const update of updates) {
      for (const entry of this.#host.entriesOf(update)) entries.set(entry, [...(entries.get(entry) ?? []), update]);
    }
    // Two updates of one query are one op: it leaves as a whole.
    for (const [entry, all] of entries) this.#host.dispatch(entry, { type: 'opMade', id, apply: composed(all) });
    const earlier = isParallel ? [] : [...entries.keys()].map((entry) => entry.lastMutation);
    const done = Promise.allSettled(earlier).then(() => this.#send(id, [...entries.keys()], send));
    for (const entry of entries.keys()) entry.lastMutation = done;
    return done;
  }

  async #send<T>(id: string, entries: readonly Entry[], send: () => Promise<Sent<T>>): Promise<T> {
    for (const entry of entries) this.#host.dispatch(entry, { type: 'opSent', id });
    try {
      const { value, version } = await send();
      for (const entry of entries) {
        const notifiedUpTo = entry.snapshot.covered ? this.#host.notifiedUpTo : null;
        this.#host.dispatch(entry, { type: 'opAnswered', id, version, notifiedUpTo });
      }
      return value;
    } catch (thrown) {
      const type = isRefusal(asError(thrown)) ? 'opRejected' : 'opLost';
      for (const entry of entries) this.#host.dispatch(entry, { type, id });
      throw thrown;
    }
  }
}

/** Tell whether the server has said that nothing was written. */
function isRefusal(error: Error): boolean {
  return error instanceof ReactiveError && error.status >= 400 && error.status < 500 && error.status !== 408;
}

function composed(updates: readonly OptimisticUpdate[]): Update<unknown> {
  return (data) => updates.reduce((now: unknown, one) => one.update(now), data);
}
