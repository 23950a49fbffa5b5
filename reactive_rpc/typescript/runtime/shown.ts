/** How a mutation that waits shows, also in queries that come later. */

import { composed, type MutationHost, type MutationTarget, type OptimisticUpdate } from './mutations.ts';
import type { Version } from './versions.ts';

/** Say how a mutation shows in a query, or in all of a path if `input` is null. */
export type On = (path: unknown, input: unknown, update: (data: unknown) => unknown) => void;

/** Return the updates that `optimistic` names. */
export function updatesOf(optimistic: (on: On) => void): OptimisticUpdate[] {
  const updates: OptimisticUpdate[] = [];
  optimistic((on, of, update) => {
    const apply = (data: unknown): unknown => (data === undefined ? data : update(data));
    updates.push({ path: String(on), ...(of !== null && { input: of }), update: apply });
  });
  return updates;
}

/** A mutation, as it shows in all that its updates name. */
export class ShownMutation<Target extends MutationTarget> {
  readonly targets = new Set<Target>();
  readonly #host: MutationHost<Target>;
  readonly #id: string;
  readonly #updates: readonly OptimisticUpdate[];
  #isSent = false;

  constructor(host: MutationHost<Target>, id: string, updates: readonly OptimisticUpdate[]) {
    this.#host = host;
    this.#id = id;
    this.#updates = updates;
    this.look();
  }

  /** Show it in queries that may have come since. */
  look(): void {
    for (const update of this.#updates) for (const target of this.#host.targetsOf(update)) this.#addTo(target);
  }

  /** Two updates of one query are one op, which leaves as a whole. */
  #addTo(target: Target): void {
    const updates = this.#updates.filter((update) => this.#host.targetsOf(update).includes(target));
    if (this.targets.has(target) || updates.length === 0) return;
    this.targets.add(target);
    this.#host.dispatch(target, { type: 'opMade', id: this.#id, apply: composed(updates) });
    if (this.#isSent) this.#host.dispatch(target, { type: 'opSent', id: this.#id });
  }

  /** It was sent; or was refused, so nothing was written; or whether it was made only a later fetch can tell. */
  become(type: 'opSent' | 'opRejected' | 'opLost'): void {
    this.#isSent = true;
    for (const target of this.targets) this.#host.dispatch(target, { type, id: this.#id });
  }

  /** It was made; `version` shows what it wrote. */
  answered(version: Version | null): void {
    for (const target of this.targets) {
      const notifiedUpTo = target.snapshot.covered ? this.#host.notifiedUpTo : null;
      this.#host.dispatch(target, { type: 'opAnswered', id: this.#id, version, notifiedUpTo });
    }
  }
}
