/** What a page makes once: the client of one server. */

import { QueryClient, QueryObserver } from '@tanstack/query-core';
import type { TRPCLink } from '@trpc/client';
import type { AnyRouter } from '@trpc/server';
import type { Credentials } from './credentials.ts';
import { Engine, type EngineStatus, type ProcedureCodecs } from './engine.ts';
import type { Entry } from './entry.ts';
import type { ReactiveError } from './errors.ts';
import type { Named, QueryName } from './keys.ts';
import { defaultLinks } from './links.ts';
import type { OptimisticUpdate } from './mutations.ts';
import type { Offline } from './offline.ts';
import { followPage, isPage } from './page.ts';
import { isKept, type Wishes } from './persist.ts';
import type { State } from './state.ts';
import { type KeyValueStorage, Store } from './store.ts';

/** The procedures of a server, by their paths: what each takes and answers. The generated client has it. */
export type Procedures = object;

interface AnyProcedure {
  readonly kind: string;
  readonly input: unknown;
  readonly output: unknown;
}

type PathsOf<P extends Procedures, Kind extends string> = {
  [Path in keyof P]: P[Path] extends { readonly kind: Kind } ? Path & string : never;
}[keyof P];
type Field<P extends Procedures, Path, Name extends keyof AnyProcedure> = Path extends keyof P
  ? P[Path] extends Record<Name, infer Value>
    ? Value
    : unknown
  : unknown;

export type QueryPath<P extends Procedures> = PathsOf<P, 'query'>;
export type MutationPath<P extends Procedures> = PathsOf<P, 'mutation'>;
export type InputOf<P extends Procedures, Path> = Field<P, Path, 'input'>;
export type OutputOf<P extends Procedures, Path> = Field<P, Path, 'output'>;
/** The arguments of a call: the input may be left out if it may be empty. */
export type Args<Input> = undefined extends Input
  ? readonly [input?: Input]
  : object extends Input
    ? readonly [input?: Input]
    : readonly [input: Input];

/** Queries, each with its input: `[['agents.get_one', { agent_id }], ['agents.get_all']]`. */
export type QueryList<P extends Procedures, Paths extends readonly QueryPath<P>[]> = {
  readonly [Index in keyof Paths]: readonly [
    path: Paths[Index] | Named<Paths[Index]>,
    ...Args<InputOf<P, Paths[Index]>>,
  ];
};

/** Makes a change show in queries before the server has answered: `on('agents.get_one', { agent_id }, update)`. */
export type OnQuery<P extends Procedures> = <Path extends QueryPath<P>>(
  path: Path | Named<Path>,
  input: InputOf<P, Path> | null,
  update: (data: OutputOf<P, Path>) => OutputOf<P, Path>,
) => void;

export interface CallOptions<P extends Procedures> {
  /** Says how the mutation shows until the queries' own answers contain it. An `input` of null means all of a path. */
  readonly optimistic?: (on: OnQuery<P>) => void;
  /** Do not wait for earlier mutations that show in the same queries. */
  readonly parallel?: boolean;
  /** Names the mutation: sent again under the same key, it is made once. */
  readonly key?: string;
  readonly signal?: AbortSignal;
}

/** The name of each query, and of each namespace that has one. */
type NameOf<Path extends string> = Path extends `${infer First}.${infer Rest}`
  ? First | `${First}.${NameOf<Rest>}`
  : Path;

/** Whether results are kept for the next visit, by query or namespace; of two names that fit, the longer one decides. */
export type Persist<P extends Procedures> = keyof P extends never
  ? Wishes
  : { readonly [Name in NameOf<QueryPath<P>>]?: boolean };

export interface ReactiveOptions<P extends Procedures = Procedures> {
  /** Where the server is: `/`, or `https://api.example.com`. */
  readonly url: string;
  /** The path that streams are under. */
  readonly prefix?: string;
  /** The path that tRPC's clients call. */
  readonly trpcPrefix?: string;
  /** The links that calls go through; the one that sends has `headers: reactiveHeaders`. Left out, they are batched. */
  readonly links?: readonly TRPCLink<AnyRouter>[];
  /** The QueryClient of the page; left out, there is one of its own. */
  readonly client?: QueryClient;
  /** Returns the headers that say who calls; asked at each request. */
  readonly credentials?: Credentials;
  readonly fetch?: typeof fetch;
  /** Where results are kept for the next visit, if `identity` says whose they are: `session` ends with the tab. */
  readonly storage?: 'local' | 'session' | 'none' | KeyValueStorage;
  /** What is not to be kept there: `{ memory: false, 'memory.recent': true }`. */
  readonly persist?: Persist<P>;
  /**
   * Who is logged in, tenant included, if the page knows before it asks. Without it nothing is kept in storage: a page
   * shows what was kept before the server has said who calls, and would show it to whoever comes next.
   */
  readonly identity?: string;
  /** Results that were kept under another one are not used: the version of the API. */
  readonly buster?: string;
  /** How changes are heard of: by a stream, or by long polls if there is none; `off`: not at all. */
  readonly transport?: 'auto' | 'poll' | 'off';
  /** Tell the server up to where a stream's events have arrived, so that none is lost on the way; if not, it trusts. */
  readonly acks?: boolean;
  /** The first parts of the API's paths: their keys in the QueryClient are live, whoever makes them. */
  readonly namespaces?: readonly string[];
  readonly codecs?: Readonly<Record<string, ProcedureCodecs>>;
  /** Which mutations wait for the network, as `queue` says; all others fail at once if there is none. */
  readonly offline?: Offline;
  /** Called when the server wants other credentials; give them, and call `reidentify`. */
  readonly onUnauthorized?: (error: ReactiveError) => void;
  /** Called when nothing of the caller's is left here: they logged out in another tab, or are somebody else by now. */
  readonly onSignedOut?: () => void;
}

/** How it stands with the server. */
export interface Status {
  /** `live`: changes come at once. `polling`: a little later. `idle`: nothing is watched. */
  readonly state: 'idle' | 'live' | 'reconnecting' | 'polling' | 'offline' | 'refused';
  /** When the server was last heard of; null if it never was. */
  readonly lastSync: Date | null;
  /** How many mutations were made and are not answered yet. */
  readonly waiting: number;
  /** Why changes are not heard of; null if they are. */
  readonly error: ReactiveError | null;
}

/** A query of the page, shared by all who show it. */
export class LiveQuery<T> {
  readonly #engine: Engine;
  readonly #name: QueryName;

  constructor(engine: Engine, name: QueryName) {
    this.#engine = engine;
    this.#name = name;
  }

  /** The same for the same path and input. */
  get key(): string {
    return this.#entry.key;
  }

  /** What shows just now; the same object while nothing changes. */
  get state(): State<T> {
    return this.#entry.state as State<T>;
  }

  /** What a server renders of it; in a page, what one has rendered, which shows while the page is hydrated. */
  get renderedState(): State<T> {
    return typeof document === 'undefined' ? this.state : (this.#entry.renderedState as State<T>);
  }

  /** Call `listener` with the state, now and whenever it changes; returns what ends that. The query is kept right. */
  subscribe(listener: (state: State<T>) => void): () => void {
    const stop = this.watch(() => listener(this.state));
    listener(this.state);
    return stop;
  }

  /** Call `listener` whenever the state changes, and keep the query right until the function returned is called. */
  watch(listener: () => void): () => void {
    const entry = this.#entry;
    const stop = entry.listen(listener);
    // An observer of TanStack's, so that its tools and its garbage collection know that somebody shows it.
    const options = { ...this.#engine.queryDefaults(), queryKey: entry.query.queryKey };
    const leave = new QueryObserver(this.#engine.client, options).subscribe(() => {});
    return () => {
      stop();
      leave();
    };
  }

  /** Resolve with the data once it is there; reject if the server answers an error. */
  load(): Promise<T> {
    return this.#engine.load(this.#entry) as Promise<T>;
  }

  get #entry(): Entry {
    return this.#engine.entry(this.#name);
  }
}

/** The client of one server. */
export class Reactive<P extends Procedures> {
  readonly client: QueryClient;
  readonly #engine: Engine;
  readonly #end: (() => void) | null;
  #status: { readonly of: EngineStatus; readonly value: Status } | null = null;

  constructor(options: ReactiveOptions<P>) {
    this.client = options.client ?? new QueryClient();
    this.client.mount();
    this.#engine = new Engine({
      ...options,
      client: this.client,
      wire: options,
      links: options.links ?? defaultLinks(options),
      store: storeOf(options),
      load: () => import('./live.ts'),
    });
    this.#end = isPage() ? followPage(this.#engine) : null;
  }

  /** What keeps the queries right; for `pages.ts`, which a page without lists does not load. */
  get engine(): Engine {
    return this.#engine;
  }

  /** For a client of tRPC's that shares what is known here: `createTRPCClient<AppRouter>({ links: reactive.links })`. */
  get links(): TRPCLink<AnyRouter>[] {
    return this.#engine.links;
  }

  /** Return a query; nothing is asked before somebody subscribes. */
  query<Path extends QueryPath<P>>(
    path: Path | Named<Path>,
    ...[input]: Args<InputOf<P, Path>>
  ): LiveQuery<OutputOf<P, Path>> {
    return this.queryOf(path, input as InputOf<P, Path>);
  }

  /** Return a query; as `query`, with an input that is always given. */
  queryOf<Path extends QueryPath<P>>(path: Path | Named<Path>, input: InputOf<P, Path>): LiveQuery<OutputOf<P, Path>> {
    return new LiveQuery(this.#engine, { path: String(path), input });
  }

  /** Call a mutation. */
  call<Path extends MutationPath<P>>(
    path: Path | Named<Path>,
    input: InputOf<P, Path>,
    options: CallOptions<P> = {},
  ): Promise<OutputOf<P, Path>> {
    const { optimistic, parallel = false, key, signal } = options;
    const updates: OptimisticUpdate[] = [];
    optimistic?.((on, of, update) => {
      const apply = (data: unknown): unknown =>
        data === undefined ? data : update(data as Parameters<typeof update>[0]);
      updates.push({ path: String(on), ...(of !== null && { input: of }), update: apply });
    });
    const about = { isParallel: parallel, signal, ...(key !== undefined && { key }) };
    return this.#engine.mutate({ path: String(path), input }, updates, about) as Promise<OutputOf<P, Path>>;
  }

  /** Have a query's data before anybody shows it. */
  async prefetch<Path extends QueryPath<P>>(path: Path | Named<Path>, ...args: Args<InputOf<P, Path>>): Promise<void> {
    await this.query(path, ...args).load();
  }

  /** Keep queries right that will be shown soon, after those that are shown; until the function returned is called. */
  hold<const Paths extends readonly QueryPath<P>[]>(queries: QueryList<P, Paths>): () => void {
    const releases = queries.map(([path, input]) =>
      this.#engine.hold(this.#engine.entry({ path: String(path), input }), true),
    );
    return () => {
      for (const release of releases.splice(0)) release();
    };
  }

  /** How it stands with the server; the same object while nothing changes. */
  get status(): Status {
    const of = this.#engine.status;
    if (this.#status?.of !== of) this.#status = { of, value: statusOf(of) };
    return this.#status.value;
  }

  /** Call `listener` whenever the status changes. */
  onStatus(listener: () => void): () => void {
    return this.#engine.onStatus(listener);
  }

  /** Try now what waits for its turn, and what has failed: for a button that says so; all else is tried by itself. */
  retry(): void {
    this.#engine.retry();
  }

  /** The same caller has other credentials. */
  reidentify(): void {
    this.#engine.reidentify('credentials');
  }

  /** The caller has logged out: nothing of theirs stays, in memory or in storage, of this tab or of their others. */
  forget(): void {
    this.#engine.reidentify('forget');
  }

  /** End everything. */
  close(): void {
    this.#end?.();
    this.#engine.close();
    this.client.unmount();
  }
}

/** Return the client of a server; `Procedures` is in the generated code. */
export function createReactive<P extends Procedures>(options: ReactiveOptions<P>): Reactive<P> {
  return new Reactive<P>(options);
}

function statusOf({ stream, isOnline, heardAt, waiting, error }: EngineStatus): Status {
  const lastSync = heardAt === null ? null : new Date(heardAt);
  return { state: !isOnline && stream !== 'live' ? 'offline' : stream, lastSync, waiting, error };
}

function storeOf(options: ReactiveOptions): Store | null {
  const { storage = 'local', identity = null, buster = '', persist = {} } = options;
  if (storage === 'none') return null;
  // Looked up when it is used: where storage is forbidden, the mere name throws. Elsewhere than in a page there is none.
  const place = (): KeyValueStorage | undefined =>
    typeof storage === 'string' ? pageStorage(`${storage}Storage`) : storage;
  return new Store({ storage: place, identity, buster, keeps: (query) => isKept(query, persist) });
}

export function pageStorage(name: 'localStorage' | 'sessionStorage'): KeyValueStorage | undefined {
  return typeof document === 'undefined' ? undefined : globalThis[name];
}
