/** A mutation that a component makes, and how it stands: what the shells of frameworks show of it. */

import { asError } from './errors.ts';
import type { Named } from './keys.ts';
import type { CallOptions, InputOf, MutationPath, OnQuery, OutputOf, Procedures, Reactive } from './reactive.ts';

export interface CallingOptions<P extends Procedures, Path> extends Omit<CallOptions<P>, 'optimistic' | 'signal'> {
  /** Says how the mutation shows until the queries' own answers contain it. */
  readonly optimistic?: (input: InputOf<P, Path>, on: OnQuery<P>) => void;
}

/** How it stands. */
export interface CallingState {
  /** One that was made is not answered yet. */
  readonly isPending: boolean;
  /** Why the last one that was made has failed; null if it has not. */
  readonly error: Error | null;
}

export class Calling<P extends Procedures, Path extends MutationPath<P>> {
  readonly #reactive: Reactive<P>;
  readonly #path: Path | Named<Path>;
  readonly #listeners = new Set<() => void>();
  #state: CallingState = { isPending: false, error: null };
  #waiting = 0;
  #made = 0;

  constructor(reactive: Reactive<P>, path: Path | Named<Path>) {
    this.#reactive = reactive;
    this.#path = path;
  }

  /** How it stands; the same object while nothing changes. */
  get state(): CallingState {
    return this.#state;
  }

  /** Call `listener` whenever that changes, until the function returned is called. */
  readonly watch = (listener: () => void): (() => void) => {
    const own = (): void => listener();
    this.#listeners.add(own);
    return () => this.#listeners.delete(own);
  };

  /** Make it; rejects with the error, which shows in the state, too. */
  async mutate(input: InputOf<P, Path>, options: CallingOptions<P, Path>): Promise<OutputOf<P, Path>> {
    const { optimistic, ...rest } = options;
    const about = optimistic ? { ...rest, optimistic: (on: OnQuery<P>) => optimistic(input, on) } : rest;
    this.#made += 1;
    const own = this.#made;
    this.#become(1, null);
    try {
      const output = await this.#reactive.call(this.#path, input, about);
      this.#become(-1, this.#state.error);
      return output;
    } catch (thrown) {
      this.#become(-1, own === this.#made ? asError(thrown) : this.#state.error);
      throw thrown;
    }
  }

  #become(more: 1 | -1, error: Error | null): void {
    this.#waiting += more;
    this.#state = { isPending: this.#waiting > 0, error };
    for (const listener of [...this.#listeners]) listener();
  }
}
