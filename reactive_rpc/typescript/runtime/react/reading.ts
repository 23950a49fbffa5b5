/**
 * What one component reads of a query: it renders again only if a field that it has read is another one. As
 * `trackResult` of TanStack's observers, and with one answer more: what is rendered is never a mixture of two states.
 */

import type { LiveQuery } from '../reactive.ts';
import { SKIPPED } from '../skip.ts';
import type { State } from '../state.ts';

type Field = keyof State<unknown>;

const FIELDS: readonly Field[] = ['data', 'isStale', 'isLoading', 'isPending', 'error'];

export class Reading<T> {
  /** Null if the query is skipped. */
  readonly query: LiveQuery<T> | null;
  readonly #read = new Set<Field>();
  /** What was rendered last, or is about to be. */
  #shown: State<T> | null = null;
  /** Another one for each change that matters. */
  #snapshot: State<T> = SKIPPED;
  #isHydrating = false;
  #view: { readonly of: State<T>; readonly value: State<T> } | null = null;

  constructor(query: LiveQuery<T> | null) {
    this.query = query;
  }

  /** Return a snapshot for `useSyncExternalStore`: the same one until a field that was read is another one. */
  readonly snapshot = (): State<T> => {
    this.#isHydrating = false;
    const state = this.query?.state ?? SKIPPED;
    const shown = this.#shown;
    if (shown !== null && this.#watched().every((name) => shown[name] === state[name])) return this.#snapshot;
    this.#shown = this.#snapshot = state;
    return state;
  };

  /** Return the snapshot that a server renders, and that its page is hydrated with. */
  readonly renderedSnapshot = (): State<T> => {
    this.#isHydrating = true;
    this.#shown = this.#snapshot = this.query?.renderedState ?? SKIPPED;
    return this.#snapshot;
  };

  /** Call `listener` whenever the query changes. */
  readonly subscribe = (listener: () => void): (() => void) => this.query?.watch(listener) ?? (() => {});

  /** Return the state to render. */
  state(snapshot: State<T>): State<T> {
    // INVARIANT (all fields of one state): the snapshot may be from before a change of fields that nobody has read, and
    // one of them beside a newer one would show data as confirmed that is not.
    this.#shown = this.#isHydrating ? snapshot : (this.query?.state ?? SKIPPED);
    return this.#shown;
  }

  /** Return the state as a component gets it; whatever is read of it is noted. */
  view(state: State<T>): State<T> {
    if (this.#view?.of !== state) this.#view = { of: state, value: this.#tracked(state) };
    return this.#view.value;
  }

  /** The fields that matter: all, as long as none was read, as a component may hand the whole to another one. */
  #watched(): readonly Field[] {
    return this.#read.size === 0 ? FIELDS : [...this.#read];
  }

  #tracked(state: State<T>): State<T> {
    const view = {};
    for (const name of FIELDS) {
      const get = (): unknown => {
        this.#read.add(name);
        return state[name];
      };
      Object.defineProperty(view, name, { get, enumerable: true });
    }
    return view as State<T>;
  }
}
