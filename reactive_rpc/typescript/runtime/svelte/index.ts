/**
 * Queries for Svelte 5, over `LiveQuery`: `const agent = live(reactive, 'agents.get_one', () => ({ agent_id }))`, and
 * `agent.data` in the markup. The stream ends with the last effect that reads.
 *
 * Each getter is one read of one state: read a field through `$derived`, or an effect runs for changes of the others too.
 */

import { createSubscriber } from 'svelte/reactivity';

import { Calling, type CallingOptions, type CallingState } from '../calling.ts';
import type { Named } from '../keys.ts';
import type {
  InputOf,
  LiveQuery,
  MutationPath,
  OutputOf,
  Procedures,
  QueryPath,
  Reactive,
  Status,
} from '../reactive.ts';
import { SKIPPED, type Skip, skip } from '../skip.ts';
import type { State } from '../state.ts';

export type { Skip } from '../skip.ts';
export { skip } from '../skip.ts';

/** A mutation of a component. */
export interface MutationState<P extends Procedures, Path> extends CallingState {
  /** Make it; rejects with the error, which shows in `error` too. */
  readonly mutate: (input: InputOf<P, Path>) => Promise<OutputOf<P, Path>>;
}

/**
 * Return a query whose fields are live in effects and in markup; `input` may read state, and change. While it returns
 * `skip`, nothing is asked.
 */
export function live<P extends Procedures, Path extends QueryPath<P>>(
  reactive: Reactive<P>,
  path: Path | Named<Path>,
  input: () => InputOf<P, Path> | Skip = () => undefined as InputOf<P, Path>,
): State<OutputOf<P, Path>> {
  return new LiveState(() => {
    const given = input();
    return given === skip ? null : reactive.queryOf(path, given as InputOf<P, Path>);
  });
}

/** Return a mutation whose fields are live in effects and in markup: `const rename = liveMutation(reactive, 'agents.update')`. */
export function liveMutation<P extends Procedures, Path extends MutationPath<P>>(
  reactive: Reactive<P>,
  path: Path | Named<Path>,
  options: CallingOptions<P, Path> = {},
): MutationState<P, Path> {
  const calling = new Calling(reactive, path);
  const subscribe = createSubscriber(calling.watch);
  const now = (): CallingState => {
    subscribe();
    return calling.state;
  };
  return {
    mutate: (input) => calling.mutate(input, options),
    get isPending() {
      return now().isPending;
    },
    get error() {
      return now().error;
    },
  };
}

/** Return how it stands with the server, live in effects and in markup. */
export function liveStatus<P extends Procedures>(reactive: Reactive<P>): { readonly current: Status } {
  const subscribe = createSubscriber((update) => reactive.onStatus(update));
  return {
    get current() {
      subscribe();
      return reactive.status;
    },
  };
}

class LiveState<T> implements State<T> {
  /** Null while it is skipped. */
  readonly #find: () => LiveQuery<T> | null;
  /** How each query that was read is subscribed to, as the input may change. */
  readonly #subscribers = new Map<string, () => void>();

  constructor(find: () => LiveQuery<T> | null) {
    this.#find = find;
  }

  get data(): T | undefined {
    return this.#read().data;
  }

  get isStale(): boolean {
    return this.#read().isStale;
  }

  get isLoading(): boolean {
    return this.#read().isLoading;
  }

  get isPending(): boolean {
    return this.#read().isPending;
  }

  get error(): Error | null {
    return this.#read().error;
  }

  #read(): State<T> {
    const query = this.#find();
    if (query === null) return SKIPPED;
    const { key } = query;
    const subscribe = this.#subscribers.get(key) ?? this.#subscriber(query);
    this.#subscribers.set(key, subscribe);
    subscribe();
    return query.state;
  }

  #subscriber(query: LiveQuery<T>): () => void {
    const { key } = query;
    return createSubscriber((update) => {
      const stop = query.watch(update);
      return () => {
        stop();
        this.#subscribers.delete(key);
      };
    });
  }
}
