/**
 * The hooks of React: thin, over `LiveQuery`. The generated client makes them once, with its types:
 * `export const { ReactiveProvider, useReactive, useReactiveMutation } = createHooks<Procedures>()`.
 */

import {
  createContext,
  createElement,
  type ReactNode,
  useCallback,
  useContext,
  useEffect,
  useMemo,
  useRef,
  useSyncExternalStore,
} from 'react';

import { Calling, type CallingOptions, type CallingState } from '../calling.ts';
import type { Named } from '../keys.ts';
import type {
  InputOf,
  LiveQuery,
  MutationPath,
  OutputOf,
  Procedures,
  QueryList,
  QueryPath,
  Reactive,
  Status,
} from '../reactive.ts';
import { type Skip, skip } from '../skip.ts';
import type { State } from '../state.ts';
import { Reading } from './reading.ts';

export type { Skip } from '../skip.ts';
export { skip } from '../skip.ts';

export interface UseReactiveOptions {
  /** Suspend until there is data, and throw an error that there is in its place. */
  readonly suspense?: boolean;
}

/** The input, which may be left out if it may be empty, and options. */
export type HookArgs<Input> = undefined extends Input
  ? readonly [input?: Input | Skip, options?: UseReactiveOptions]
  : object extends Input
    ? readonly [input?: Input | Skip, options?: UseReactiveOptions]
    : readonly [input: Input | Skip, options?: UseReactiveOptions];

export type UseMutationOptions<P extends Procedures, Path> = CallingOptions<P, Path>;

/** A mutation of a component. */
export interface MutationState<P extends Procedures, Path> {
  /** Make it; rejects with the error, which shows in `error` too. */
  readonly mutate: (input: InputOf<P, Path>) => Promise<OutputOf<P, Path>>;
  readonly isPending: boolean;
  readonly error: Error | null;
}

/** What a suspended query shows: there is always data. */
export type SuspendedState<T> = State<T> & { readonly data: T };

export interface UseReactive<P extends Procedures> {
  <Path extends QueryPath<P>>(
    path: Path | Named<Path>,
    input: InputOf<P, Path>,
    options: { readonly suspense: true },
  ): SuspendedState<OutputOf<P, Path>>;
  <Path extends QueryPath<P>>(path: Path | Named<Path>, ...args: HookArgs<InputOf<P, Path>>): State<OutputOf<P, Path>>;
}

/** The hooks of one client. */
export interface Hooks<P extends Procedures> {
  /** Give the client to the components below. */
  readonly ReactiveProvider: (props: { readonly reactive: Reactive<P>; readonly children?: ReactNode }) => ReactNode;
  /** Return the client. */
  readonly useReactiveClient: () => Reactive<P>;
  /** Show a query. */
  readonly useReactive: UseReactive<P>;
  readonly useReactiveMutation: <Path extends MutationPath<P>>(
    path: Path | Named<Path>,
    options?: UseMutationOptions<P, Path>,
  ) => MutationState<P, Path>;
  /** Keep queries right that will be shown soon. */
  readonly useReactivePriorities: <const Paths extends readonly QueryPath<P>[]>(queries: QueryList<P, Paths>) => void;
  /** How it stands with the server. */
  readonly useReactiveStatus: () => Status;
}

/** Return the hooks of a client with these procedures. */
export function createHooks<P extends Procedures>(): Hooks<P> {
  const Context = createContext<Reactive<P> | null>(null);

  function useReactiveClient(): Reactive<P> {
    const reactive = useContext(Context);
    if (reactive === null) throw new Error('there is no client: wrap the page in <ReactiveProvider reactive={...}>');
    return reactive;
  }

  function useReactive<Path extends QueryPath<P>>(
    path: Path | Named<Path>,
    ...[input, { suspense = false } = {}]: HookArgs<InputOf<P, Path>>
  ): State<OutputOf<P, Path>> {
    const query = useQuery(useReactiveClient(), path, input);
    const reading = useMemo(() => new Reading(query), [query]);
    const snapshot = useSyncExternalStore(reading.subscribe, reading.snapshot, reading.renderedSnapshot);
    const state = reading.state(snapshot);
    if (suspense && query !== null && state.data === undefined) suspend(query, state);
    return reading.view(state);
  }

  function useReactiveMutation<Path extends MutationPath<P>>(
    path: Path | Named<Path>,
    options: UseMutationOptions<P, Path> = {},
  ): MutationState<P, Path> {
    const reactive = useReactiveClient();
    const calling = useMemo(() => new Calling(reactive, path), [reactive, path]);
    const latest = useRef(options);
    latest.current = options;
    const mutate = useCallback((input: InputOf<P, Path>) => calling.mutate(input, latest.current), [calling]);
    const now = (): CallingState => calling.state;
    return { mutate, ...useSyncExternalStore(calling.watch, now, now) };
  }

  function useReactivePriorities<const Paths extends readonly QueryPath<P>[]>(queries: QueryList<P, Paths>): void {
    const reactive = useReactiveClient();
    const latest = useRef(queries);
    latest.current = queries;
    const key = queries.map(([path, input]) => reactive.engine.keyOf({ path: String(path), input })).join();
    // By what the queries are, and not by the array, which is another one in each render.
    useEffect(() => reactive.hold(latest.current), [reactive, key]);
  }

  function useReactiveStatus(): Status {
    const reactive = useReactiveClient();
    const subscribe = useCallback((listener: () => void) => reactive.onStatus(listener), [reactive]);
    const status = (): Status => reactive.status;
    return useSyncExternalStore(subscribe, status, status);
  }

  return {
    ReactiveProvider: ({ reactive, children }) => createElement(Context.Provider, { value: reactive }, children),
    useReactiveClient,
    // It has suspended until there is data, or thrown, where the type says that there is some.
    useReactive: useReactive as UseReactive<P>,
    useReactiveMutation,
    useReactivePriorities,
    useReactiveStatus,
  };
}

/** Return the query, the same object in each render with the same path and input. */
function useQuery<P extends Procedures, Path extends QueryPath<P>>(
  reactive: Reactive<P>,
  path: Path | Named<Path>,
  input: InputOf<P, Path> | Skip | undefined,
): LiveQuery<OutputOf<P, Path>> | null {
  const query = input === skip ? null : reactive.queryOf(path, input as InputOf<P, Path>);
  const key = query?.key;
  // The key stands for path and input.
  return useMemo(() => query, [reactive, key]);
}

/** Throw what React waits for, or the error that there is in the place of data. */
function suspend<T>(query: LiveQuery<T>, state: State<T>): void {
  if (state.error !== null && !state.isLoading) throw state.error;
  throw query.load().catch(nothing);
}

function nothing(): void {}
