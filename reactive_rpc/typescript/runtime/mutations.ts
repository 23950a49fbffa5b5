/**
 * Mutations: sent once, shown at once.
 *
 * A mutation with optimistic updates waits for earlier ones that show in a same query, so that two quick toggles reach
 * the server in order. What shows is right without that too; the server's order would be its own.
 */

import { ReactiveError } from './errors.ts';
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

/** What a mutation shows in: a query, or a list in pages. */
export interface MutationTarget {
  /** The last mutation that shows in it: the next one is sent after it. */
  lastMutation: Promise<unknown>;
  readonly snapshot: { readonly covered: boolean };
}

export interface MutationHost<Target extends MutationTarget> {
  /** Return all that an update shows in. */
  targetsOf(update: OptimisticUpdate): readonly Target[];
  dispatch(target: Target, action: Action<unknown>): void;
  /** Up to where the stream has said everything. */
  readonly notifiedUpTo: Version | null;
}

export interface Sent<T> {
  readonly value: T;
  readonly version: Version | null;
}

export class Mutations<Target extends MutationTarget> {
  readonly #host: MutationHost<Target>;
  #count = 0;

  constructor(host: MutationHost<Target>) {
    this.#host = host;
  }

  /** Show the updates, send the mutation by `send`, and return its answer. */
  make<T>(updates: readonly OptimisticUpdate[], isParallel: boolean, send: () => Promise<Sent<T>>): Promise<T> {
    const id = `m${++this.#count}`;
    const targets = new Map<Target, OptimisticUpdate[]>();
    for (const update of updates) {
      for (const target of this.#host.targetsOf(update)) targets.set(target, [...(targets.get(target) ?? []), update]);
    }
    // Two updates of one query are one op: it leaves as a whole.
    for (const [target, all] of targets) this.#host.dispatch(target, { type: 'opMade', id, apply: composed(all) });
    const earlier = isParallel ? [] : [...targets.keys()].map((target) => target.lastMutation);
    const done = Promise.allSettled(earlier).then(() => this.#send(id, [...targets.keys()], send));
    for (const target of targets.keys()) target.lastMutation = done;
    return done;
  }

  async #send<T>(id: string, targets: readonly Target[], send: () => Promise<Sent<T>>): Promise<T> {
    for (const target of targets) this.#host.dispatch(target, { type: 'opSent', id });
    try {
      const { value, version } = await send();
      for (const target of targets) {
        const notifiedUpTo = target.snapshot.covered ? this.#host.notifiedUpTo : null;
        this.#host.dispatch(target, { type: 'opAnswered', id, version, notifiedUpTo });
      }
      return value;
    } catch (thrown) {
      const type = isRefusal(thrown) ? 'opRejected' : 'opLost';
      for (const target of targets) this.#host.dispatch(target, { type, id });
      throw thrown;
    }
  }
}

/** Tell whether nothing was written: it was not sent, or the server says so. */
export function isRefusal(error: unknown): boolean {
  if (!(error instanceof ReactiveError)) return false;
  return error.isUnsent || (error.status >= 400 && error.status < 500 && error.status !== 408);
}

/** Return two updates of one query as one: they are one op, which leaves as a whole. */
export function composed(updates: readonly OptimisticUpdate[]): Update<unknown> {
  return (data) => updates.reduce((now: unknown, one) => one.update(now), data);
}
