/**
 * Keeps the queries of a QueryClient right. The cache stays TanStack's; what is true of each query is ours.
 *
 * Every query of this API in the cache is adopted, whoever made it, so a stock `useQuery` on such a key is live too.
 * The engine fetches by itself and writes by `query.setState`, once a change: two calls would give observers two
 * results. Query-core fetches only what has no data yet, by our `queryFn`, and hears of it from the same fetch.
 *
 * `docs/internals/typescript.md` argues why.
 */

import {
  hashKey,
  type Query,
  type QueryCacheNotifyEvent,
  type QueryClient,
  type QueryKey,
  type QueryState,
} from '@tanstack/query-core';
import type { TRPCLink } from '@trpc/client';
import type { AnyRouter } from '@trpc/server';

import { Backoff } from './backoff.ts';
import { type Answer, answerOf, Calls, type MutationOptions, type Told } from './calls.ts';
import type { Codec } from './codec.ts';
import { connectedActions } from './coverage.ts';
import { Entry } from './entry.ts';
import { asReactiveError, ReactiveError } from './errors.ts';
import { filesIn } from './forms.ts';
import { type GateHost, gateLink } from './gate.ts';
import { isObject, type JsonObject, type Raw, textIn } from './json.ts';
import { type QueryName, queryKeyOf, queryNameOf } from './keys.ts';
import { isUp, Later, type LoadLive } from './later.ts';
import type { LiveOptions } from './live.ts';
import { type MutationHost, Mutations, type MutationTarget, type OptimisticUpdate } from './mutations.ts';
import type { MutationQueue, Offline, QueuePlace } from './offline.ts';
import { type Action, type Base, isStale, newestOf } from './state.ts';
import type { Store, StoredResult } from './store.ts';
import type { Cause, ConnectedQuery, News, SharedResult, StreamState, WatchedQuery } from './streams.ts';
import { pause } from './tasks.ts';
import { Turns } from './turns.ts';
import { formatVersion, parseVersion, type Version } from './versions.ts';
import type { WireOptions } from './wire.ts';

/** How the values of a procedure are read and written. */
export interface ProcedureCodecs {
  readonly input?: Codec<unknown>;
  readonly output?: Codec<unknown>;
}

export interface EngineOptions {
  readonly client: QueryClient;
  /** Where streams are opened, and as whom. */
  readonly wire: WireOptions;
  /** Of tRPC's client, which calls go through. */
  readonly links: readonly TRPCLink<AnyRouter>[];
  readonly store: Store | null;
  /** The first parts of the paths of this API; left out, every key that looks like tRPC's is adopted. */
  readonly namespaces?: readonly string[] | undefined;
  readonly codecs?: Readonly<Record<string, ProcedureCodecs>> | undefined;
  readonly transport?: 'auto' | 'poll' | 'off' | undefined;
  readonly acks?: boolean | undefined;
  /** Whose page it is, if it knows. */
  readonly identity?: string | undefined;
  /** How long a result that was restored waits for a stream to confirm it, before it is fetched; for tests. */
  readonly confirmMs?: number | undefined;
  /** Loads what hears of changes. */
  readonly load: LoadLive;
  /** Returns the mutations that wait for the network; left out, none does. */
  readonly offline?: Offline | undefined;
  /** Where these are kept. */
  readonly storage?: QueuePlace['storage'] | undefined;
  readonly onUnauthorized?: ((error: ReactiveError) => void) | undefined;
  readonly onSignedOut?: (() => void) | undefined;
}

export interface EngineStatus {
  readonly stream: StreamState;
  /** The browser believes that there is a network. */
  readonly isOnline: boolean;
  /** When the server was last heard of, as `Date.now()` counts; null if it never was. */
  readonly heardAt: number | null;
  /** How many mutations were made and are not answered yet, those that wait in storage too. */
  readonly waiting: number;
  /** Why there is no stream. */
  readonly error: ReactiveError | null;
}

/** A stream takes so long on a slow network; without one, what was restored would show as stale for longer. */
const CONFIRM_MS = 1000;
/** How long a fetch that nobody waits for any more goes on. */
const ABANDON_MS = 1000;
/** How long a newer result is held for a mutation that hangs. */
const HOLD_MS = 5000;

/** What TanStack must leave to the engine: when to fetch, and whether to try again. */
const LEFT_TO_US = {
  networkMode: 'always',
  retry: false,
  retryOnMount: false,
  staleTime: Infinity,
  refetchOnMount: false,
  refetchOnWindowFocus: false,
  refetchOnReconnect: false,
} as const;

/** A list in pages, of which each is a query: an own mutation shows in the list, and not in a page by itself. */
export interface FollowedList extends MutationTarget {
  isShownBy(update: OptimisticUpdate): boolean;
  tell(action: Action<unknown>): void;
}

export class Engine {
  readonly client: QueryClient;
  /** The lists in pages that are followed. */
  readonly lists = new Set<FollowedList>();
  /** Mutations that wait for the network, if any may. */
  readonly queue: MutationQueue | undefined;
  /** For clients of tRPC's, whose calls of queries pass the reducer as the engine's own do. */
  readonly links: TRPCLink<AnyRouter>[];
  /** Sends a query, or a mutation, once: neither the state nor what shows has a part in it. */
  readonly calls: Calls;
  readonly #options: EngineOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #mutations: Mutations<Entry | FollowedList>;
  readonly #news: Later | null;
  readonly #statusListeners = new Set<() => void>();
  readonly #holds = new WeakMap<Entry, ReturnType<typeof setTimeout>>();
  readonly #patient = new Turns((key) => this.#fetchPatiently(key));
  readonly #unsubscribe: () => void;
  #status: EngineStatus = { stream: 'idle', isOnline: true, heardAt: null, waiting: 0, error: null };
  #notifiedUpTo: Version | null = null;
  /** Whose everything here is, as the server names its callers: by its last answer, or by what storage has. */
  #scope: string | null;
  /** How often somebody else may have come. */
  #callers = 0;
  /** The page was told that it needs other credentials. */
  #isUnauthorized = false;
  /** A fetch has failed, or the stream was lost, since the server has answered. */
  #isMissing = false;
  /** The engine itself writes into the cache just now. */
  #isWriting = false;

  constructor(options: EngineOptions) {
    this.client = options.client;
    this.#options = options;
    const host: GateHost = {
      isExact: (path) => this.#codecs(path).output?.parse !== undefined,
      answered: (path, input, marks) => this.#answered(path, input, marks),
    };
    this.links = [gateLink(host), ...options.links];
    this.calls = new Calls(this.links);
    const shows = this.#mutationHost();
    this.#mutations = new Mutations(shows);
    this.queue = options.offline?.(this, options, shows);
    this.#scope = options.store?.scope ?? null;
    this.#news = options.transport === 'off' ? null : new Later(options.load, this.#liveOptions());
    // By namespace: the user's other queries keep their defaults.
    for (const namespace of options.namespaces ?? []) {
      this.client.setQueryDefaults([[namespace]], this.queryDefaults());
    }
    const cache = this.client.getQueryCache();
    this.#unsubscribe = cache.subscribe((event) => this.#onCache(event));
    for (const query of cache.getAll()) this.#adopt(query);
  }

  /** The caller, as the server named it last; null if it has named nobody. */
  get scope(): string | null {
    return this.#scope;
  }

  get status(): EngineStatus {
    return this.#status;
  }

  /** Up to where the stream has said everything. */
  get notifiedUpTo(): Version | null {
    return this.#notifiedUpTo;
  }

  onStatus(listener: () => void): () => void {
    const own = (): void => listener();
    this.#statusListeners.add(own);
    return () => this.#statusListeners.delete(own);
  }

  /** The options of every query of this API. */
  queryDefaults(): typeof LEFT_TO_US & {
    readonly queryFn: (context: { readonly queryKey: readonly unknown[] }) => Promise<unknown>;
  } {
    // It does not read `context.signal`: query-core would then cancel and revert the load at the first unmount, which
    // React's StrictMode always makes.
    return { ...LEFT_TO_US, queryFn: ({ queryKey }) => this.#load(queryKey) };
  }

  /** Return the key that a query has in the QueryClient. */
  keyOf(name: QueryName): string {
    return hashKey(queryKeyOf(this.#encoded(name)));
  }

  /** Return data of a query as JSON. */
  rawOf(key: string, data: unknown): Raw {
    const entry = this.#entries.get(key);
    return entry === undefined || data === undefined ? { json: data, isText: false } : entry.encode(data);
  }

  /** Return the entry of a query, made if there is none. */
  entry(name: QueryName): Entry {
    return this.#entryAt(queryKeyOf(this.#encoded(name))) ?? foreignKey(name);
  }

  #entryAt(queryKey: QueryKey): Entry | null {
    const options = this.client.defaultQueryOptions({ ...this.queryDefaults(), queryKey });
    const query = this.client.getQueryCache().build(this.client, options);
    return this.#entries.get(query.queryHash) ?? this.#adopt(query as Query);
  }

  /** Keep a query right although nobody shows it, until the function that is returned is called. */
  hold(entry: Entry, isPatient = false): () => void {
    const count = (more: number): void => {
      entry.holders += more;
      if (isPatient) entry.patient += more;
      this.#look(entry);
    };
    count(1);
    return () => count(-1);
  }

  /** Tell a query what has happened to it elsewhere than at a stream, or a fetch of its own. */
  tell(entry: Entry, action: Action<unknown>): void {
    this.#dispatch(entry, action);
  }

  /** Give a query the result of another one that has the same answer; a stream or a fetch confirms it. */
  inherit(entry: Entry, { data, etag, version }: Base<unknown>): void {
    const isNew = newestOf(entry.snapshot).data === undefined;
    const notifiedUpTo = this.#notifiedUpTo;
    const outcome = { data, etag, version };
    this.#dispatch(entry, isNew ? { type: 'restored', ...outcome } : { type: 'shared', ...outcome, notifiedUpTo });
    this.#awaitStream(entry);
  }

  /** Resolve with the data of a query once there is some; reject with the error if its fetch fails. */
  async load(entry: Entry): Promise<unknown> {
    const release = this.hold(entry);
    try {
      return await settled(entry);
    } finally {
      release();
    }
  }

  /** Make a mutation. */
  mutate(
    { path, input }: QueryName,
    updates: readonly OptimisticUpdate[],
    options: MutationOptions & { readonly isParallel?: boolean },
  ): Promise<unknown> {
    const { input: inputCodec, output } = this.#codecs(path);
    const json = encoded(input, inputCodec);
    const waits = this.queue?.add(path, json, updates, options);
    if (waits) return waits;
    this.count(1);
    const caller = this.#callers;
    const made = this.#mutations.make(updates, options.isParallel ?? false, async () => {
      // INVARIANT (a mutation is never sent as another caller's): it may have waited for one before it.
      if (caller !== this.#callers)
        throw new ReactiveError('ABORTED', `${path} was not sent: its caller is gone`, { isUnsent: true });
      const written = await this.calls.mutate(path, json, { ...options, parse: output?.parse });
      this.#notice(written.scope);
      const isJson = output !== undefined && !written.isTransformed;
      return { value: isJson ? output.decode(written.json) : written.json, version: written.version };
    });
    return made.finally(() => this.count(-1));
  }

  /** The caller is another one, whose scope may be known, or has other credentials. */
  reidentify(cause: Cause, scope: string | null = null): void {
    const forget = cause !== 'credentials';
    this.queue?.reidentify(forget);
    if (forget) {
      this.#options.store?.end();
      this.#scope = scope;
      this.#callers += 1;
    }
    this.#isUnauthorized = false;
    this.#notifiedUpTo = null;
    for (const entry of this.#entries.values()) {
      entry.giveUp();
      this.#dispatch(entry, { type: 'reidentified', forget });
      // In the place of the fetch that was given up: its answer would have been the former caller's.
      if (entry.snapshot.loading && entry.fetch === null) void this.#refresh(entry);
    }
    this.#news?.reidentify(cause, scope);
    if (cause === 'forgotten' || cause === 'another') this.#options.onSignedOut?.();
  }

  /** Try now what waits: the page is online, or seen again. */
  nudge(): void {
    this.#news?.source?.nudge();
    this.queue?.nudge();
    for (const entry of this.#entries.values()) entry.pause?.abort();
  }

  /** As `nudge`; also ask again for what has failed, though the server would not be asked by itself. */
  retry(): void {
    this.nudge();
    for (const entry of this.#entries.values()) {
      if (entry.snapshot.fetchError !== null) this.#dispatch(entry, { type: 'invalidated', version: null });
    }
  }

  /** Distrust a stream that seems to be up: the page slept. */
  distrust(): void {
    this.nudge();
    this.#news?.source?.replace();
  }

  /** The network has come, or gone, and with it the stream, whatever its sockets say. */
  setOnline(isOnline: boolean): void {
    this.#become({ isOnline });
    if (isOnline) this.nudge();
    else this.#news?.source?.lose();
  }

  tick(): void {
    this.#news?.source?.tick?.();
  }

  /** The page is frozen, or left: it may come back, or not. */
  suspend(): void {
    this.#options.store?.flush();
    this.#news?.source?.suspend?.();
  }

  resume(): void {
    this.nudge();
    this.#news?.source?.resume?.();
  }

  close(): void {
    this.#unsubscribe();
    this.#news?.close();
    this.queue?.close();
    for (const entry of this.#entries.values()) {
      entry.giveUp();
      clearTimeout(this.#holds.get(entry));
    }
    this.#options.store?.flush();
  }

  // -- the cache

  #onCache(event: QueryCacheNotifyEvent): void {
    const entry = this.#entries.get(event.query.queryHash);
    if (event.type === 'added') this.#adopt(event.query);
    if (entry === undefined || entry.query !== event.query) return;
    switch (event.type) {
      case 'removed':
        entry.giveUp();
        this.#entries.delete(entry.key);
        this.#news?.update();
        break;
      case 'observerAdded':
      case 'observerRemoved':
      case 'observerOptionsUpdated':
        this.#look(entry);
        break;
      case 'updated':
        this.#onUpdated(entry, event.action);
    }
  }

  #onUpdated(entry: Entry, action: Extract<QueryCacheNotifyEvent, { type: 'updated' }>['action']): void {
    if (this.#isWriting) return;
    if (action.type === 'invalidate') this.#dispatch(entry, { type: 'invalidated', version: null });
    const isForeign = action.type === 'setState' || (action.type === 'success' && action.manual === true);
    if (isForeign && entry.query.state.data !== entry.snapshot.shown) {
      // It shows, and is corrected by the next answer.
      entry.foreign = { data: entry.query.state.data, over: newestOf(entry.snapshot) };
      this.#dispatch(entry, { type: 'invalidated', version: null });
    }
    // A success resets `isInvalidated`, whatever is known of the query.
    if (action.type === 'success' || action.type === 'error') this.#show(entry);
  }

  #adopt(query: Query): Entry | null {
    const name = queryNameOf(query.queryKey);
    if (name === null || !this.#isOurs(name.path)) return null;
    const { path, input } = name;
    this.#takeOver(query);
    const entry = new Entry(query, path, input, this.#codecs(path).output);
    this.#entries.set(entry.key, entry);
    this.#restore(entry);
    return entry;
  }

  /**
   * Have a query fetched by the engine, whatever function its observers bring: those of `@trpc/tanstack-react-query`
   * would ask a second time, and bring a result without ETag and version.
   */
  #takeOver(query: Query): void {
    const setOptions = query.setOptions.bind(query);
    query.setOptions = (options) => {
      // An observer's options have not what was noted of the result.
      const meta = { ...query.meta, ...options?.meta };
      setOptions({ ...options, ...this.queryDefaults(), meta });
    };
    query.setOptions(query.options);
    // Query-core says nothing of an invalidation of what counts as invalid already, as all does that is not confirmed.
    const invalidate = query.invalidate.bind(query);
    query.invalidate = () => {
      if (!query.state.isInvalidated) return invalidate();
      this.client.getQueryCache().notify({ type: 'updated', query, action: { type: 'invalidate' } });
    };
  }

  #isOurs(path: string): boolean {
    const { namespaces } = this.#options;
    return namespaces === undefined || namespaces.includes(path.split('.')[0] ?? '');
  }

  /** Show what was rendered by a server, or what storage has. In `cache.build`, so it is in the first render. */
  #restore(entry: Entry): void {
    const { data } = entry.query.state;
    const { isText, ...rendered } = renderedOf(entry.query);
    const stored = data === undefined ? (this.#options.store?.get(entry.key) ?? null) : null;
    if (data !== undefined)
      this.#dispatch(entry, { type: 'restored', data: hydrated(entry, { json: data, isText }), ...rendered });
    entry.renderedState = entry.state;
    // INVARIANT (nothing of two callers shows): another tab may have kept it since this page was opened.
    const isMine = stored !== null && (stored.scope === null || stored.scope === this.#scope);
    if (isMine) this.#restoreStored(entry, stored);
    this.#awaitStream(entry);
  }

  /** A stream may confirm what was restored without a fetch; if none comes, it is fetched. */
  #awaitStream(entry: Entry): void {
    const { snapshot } = entry;
    if (!snapshot.resolved && newestOf(snapshot).etag !== null && this.#news !== null)
      this.#pause(entry, this.#options.confirmMs ?? CONFIRM_MS);
  }

  #restoreStored(entry: Entry, stored: StoredResult): void {
    const { etag, version } = stored;
    try {
      this.#dispatch(entry, { type: 'restored', data: entry.decode(stored), etag, version });
    } catch {
      // Of another schema, whatever the buster says: as if it were not there.
    }
  }

  #dispatch(entry: Entry, action: Action<unknown>): void {
    const base = entry.snapshot.base;
    if (!entry.dispatch(action)) return;
    this.#show(entry);
    entry.publish();
    if (entry.snapshot.base !== base && entry.snapshot.resolved) this.#keep(entry);
    this.#watchHold(entry);
    this.#look(entry);
  }

  /** Write what shows into the query of TanStack, in one step. */
  #show(entry: Entry): void {
    const { query, snapshot } = entry;
    if (entry.foreign?.over !== newestOf(snapshot)) entry.foreign = null;
    const shown = entry.foreign === null ? snapshot.shown : entry.foreign.data;
    const failure = snapshot.base.error ?? snapshot.fetchError;
    const next = {
      data: shown,
      isInvalidated: shown !== undefined && isStale(snapshot),
      status: statusOf(shown, failure),
      error: failure,
    };
    const { state } = query;
    if ((Object.keys(next) as (keyof typeof next)[]).every((name) => next[name] === state[name])) return;
    const counted = { dataUpdatedAt: Date.now(), dataUpdateCount: state.dataUpdateCount + 1 };
    this.#isWriting = true;
    query.setState({ ...next, ...(shown !== state.data && counted) });
    this.#isWriting = false;
  }

  /** Keep a result for the next visit, and say of it what a page must know that a server renders. */
  #keep(entry: Entry): void {
    const { query, snapshot } = entry;
    const version = snapshot.base.version && formatVersion(snapshot.base.version);
    const reactive = { etag: snapshot.base.etag, version };
    query.setOptions({ ...query.options, meta: { ...query.meta, reactive } });
    this.#options.store?.put(entry.key, () => {
      const { data, etag, version } = entry.snapshot.base;
      return data === undefined ? null : { ...entry.encode(data), etag, version, scope: this.#scope };
    });
  }

  /** A newer result waits for a mutation; not for ever. */
  #watchHold(entry: Entry): void {
    const timer = this.#holds.get(entry);
    const isHeld = entry.snapshot.held !== null;
    if (isHeld === (timer !== undefined)) return;
    clearTimeout(timer);
    this.#holds.delete(entry);
    if (isHeld)
      this.#holds.set(
        entry,
        setTimeout(() => this.#dispatch(entry, { type: 'holdExpired' }), HOLD_MS),
      );
  }

  // -- fetches

  /** See to it that what is wanted is fetched and watched, and nothing else. */
  #look(entry: Entry): void {
    const isWatched = entry.isWanted && isConfirmable(entry);
    const isOther = isWatched !== entry.isWatched;
    entry.isWatched = isWatched;
    // Before there is something to watch: its code is loaded beside the first request.
    if (entry.isWanted) this.#news?.begin();
    if (isOther) this.#news?.update();
    this.#watchAbandoned(entry);
    const { wanted, loading } = entry.snapshot;
    if (!wanted || loading || entry.fetch !== null || entry.pause !== null || !entry.isWanted) return;
    if (entry.isPatient) this.#patient.add(entry.key);
    else void this.#refresh(entry);
  }

  /** See to it that a fetch which nobody waits for any more ends soon: a component may be back at once. */
  #watchAbandoned(entry: Entry): void {
    const isAbandoned = entry.fetch !== null && !entry.isWanted;
    if (isAbandoned === (entry.abandoned !== null)) return;
    if (entry.abandoned !== null) clearTimeout(entry.abandoned);
    entry.abandoned = isAbandoned ? setTimeout(() => this.#abandon(entry), ABANDON_MS) : null;
  }

  #abandon(entry: Entry): void {
    entry.giveUp();
    this.#dispatch(entry, { type: 'fetchAbandoned' });
    // Query-core may have waited for it, too; what it goes back to may be older than what shows.
    this.#isWriting = true;
    void entry.query.cancel({ revert: true });
    this.#isWriting = false;
    this.#show(entry);
  }

  /** Fetch what is wanted by somebody who can wait, in its turn. */
  async #fetchPatiently(key: string): Promise<void> {
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    const { wanted, loading } = entry.snapshot;
    if (wanted && !loading && entry.fetch === null && entry.pause === null && entry.isWanted)
      await this.#refresh(entry);
  }

  /** Fetch until the result is current, or the server has given an answer that no second try would change. */
  async #refresh(entry: Entry): Promise<void> {
    const control = new AbortController();
    entry.fetch = control;
    const backoff = new Backoff();
    this.#dispatch(entry, { type: 'fetchStarted' });
    while (!control.signal.aborted) {
      const failure = await this.#fetch(entry, control.signal);
      if (control.signal.aborted) return;
      if (failure?.isTransient === true && !entry.snapshot.current) {
        entry.isHeldOff = failure.retryAfterSeconds > 0;
        entry.isRetrying = true;
        await this.#pause(entry, failure.retryAfterSeconds * 1000 + backoff.nextDelay());
        entry.isRetrying = false;
        if (control.signal.aborted) return;
        if (!entry.snapshot.current) this.#dispatch(entry, { type: 'invalidated', version: null });
      }
      if (!entry.snapshot.wanted || !entry.isWanted) break;
      this.#dispatch(entry, { type: 'fetchStarted' });
    }
    if (entry.fetch === control) entry.fetch = null;
    this.#look(entry);
  }

  /** Fetch a result of the last visit once, without a stream that watches it; returns whether it is one of now. */
  async #refreshStored(key: string, signal: AbortSignal): Promise<boolean> {
    const entry = this.#entryAt(JSON.parse(key));
    if (entry === null || entry.isWanted || entry.snapshot.resolved || entry.fetch !== null) return true;
    const control = new AbortController();
    entry.fetch = control;
    this.#dispatch(entry, { type: 'fetchStarted' });
    const failure = await this.#fetch(entry, AbortSignal.any([control.signal, signal]));
    if (entry.fetch === control) entry.fetch = null;
    this.#look(entry);
    return failure === null && !signal.aborted;
  }

  /** Fetch once; returns the failure, which also shows in the state: as an error, or as a stale result. */
  async #fetch(entry: Entry, signal: AbortSignal): Promise<ReactiveError | null> {
    const { path, input, codec } = entry;
    try {
      const { etag } = entry.snapshot.asked;
      const answer = await this.calls.query(path, input, { etag, signal, isExact: codec.parse !== undefined });
      if (signal.aborted) return null;
      this.#become({ heardAt: Date.now() });
      this.#notice(answer.scope);
      // INVARIANT (an answer counts only for the caller who asked): `notice` may have found that it is another.
      if (signal.aborted) return null;
      this.#dispatch(entry, fetchedAction(entry, answer));
      this.#share(entry, answer);
      this.#found();
      return answer.isStale
        ? new ReactiveError('SERVICE_UNAVAILABLE', 'the database cannot be read', { status: 503 })
        : null;
    } catch (thrown) {
      if (signal.aborted) return null;
      const error = asReactiveError(thrown);
      this.#isMissing ||= error.isTransient;
      this.#dispatch(entry, { type: 'fetchFailed', error, answered: error.status > 0 && !error.isTransient });
      this.#hearRefusal(error);
      return error;
    }
  }

  /**
   * A fetch was answered: if the server was missed before, the stream's next try need not wait for its turn. Once only,
   * or a server that answers, but opens no streams, would be asked for one with each fetch.
   */
  #found(): void {
    if (!this.#isMissing) return;
    this.#isMissing = false;
    this.#news?.source?.hurry();
  }

  /** Offer a result to the other tabs, which fetch it no more. */
  #share(entry: Entry, answer: Answer): void {
    const { json, etag, version, isStale, error } = answer;
    if (json === undefined || etag === null || version === null || isStale || error !== null) return;
    this.#news?.source?.share?.({ key: entry.key, ...rawIn(entry, answer), etag, version, scope: this.#scope });
  }

  /** A client of tRPC's has called a query: what is in the cache takes the answer if it is a later one. */
  #answered(path: string, input: unknown, marks: JsonObject): void {
    const answer = answerOf(marks);
    this.#notice(answer.scope);
    const entry = this.#entries.get(hashKey(queryKeyOf({ path, input })));
    // An answer that nobody can confirm says nothing of what is there.
    if (entry === undefined || answer.isStale) return;
    const { snapshot } = entry;
    const { etag, version } = answer;
    // Where nobody says what has changed, the later of two answers of one epoch is as good as any.
    const isAlone = snapshot.current && newestOf(snapshot).version?.epoch === version?.epoch;
    const notifiedUpTo = snapshot.covered ? this.#notifiedUpTo : isAlone ? version : null;
    this.#dispatch(entry, { type: 'shared', data: entry.decode(rawIn(entry, answer)), etag, version, notifiedUpTo });
  }

  /** Let an entry wait before its next fetch; shorter if a stream has news of it, or the page comes back. */
  async #pause(entry: Entry, milliseconds: number): Promise<void> {
    const control = new AbortController();
    entry.pause = control;
    await pause(milliseconds, control.signal);
    if (entry.pause !== control) return;
    entry.pause = null;
    if (this.#entries.get(entry.key) === entry) this.#look(entry);
  }

  /** Query-core wants the data of a query that has none, or is to be fetched anew. */
  #load(queryKey: readonly unknown[]): Promise<unknown> {
    const entry = this.#entries.get(hashKey(queryKey));
    if (entry === undefined) return Promise.reject(new ReactiveError('ABORTED', 'the query is gone'));
    const isThere = entry.snapshot.resolved && !entry.snapshot.loading && !entry.snapshot.wanted;
    if (isThere) this.#dispatch(entry, { type: 'invalidated', version: null });
    // Who has an observer waits for as long as it has one; who has none waits until the end.
    return entry.query.isActive() ? settled(entry) : this.load(entry);
  }

  // -- the stream

  #liveOptions(): Omit<LiveOptions, 'signal'> {
    return {
      identity: this.#options.identity || null,
      background: {
        queries: () => this.#options.store?.queries() ?? [],
        isBusy: () => [...this.#entries.values()].some(({ fetch, isWanted }) => fetch !== null && isWanted),
        refresh: (key, signal) => this.#refreshStored(key, signal),
      },
      wire: this.#options.wire,
      queries: () => this.#watched(),
      onNews: (news) => this.#hear(news),
      onState: (stream) => this.#onStream(stream),
      transport: this.#options.transport === 'poll' ? 'poll' : 'auto',
      acks: this.#options.acks ?? true,
      onShared: (result) => this.#hearShared(result),
      onScope: (scope) => this.#notice(scope),
      onSignedOut: () => this.reidentify('forgotten'),
    };
  }

  #onStream(stream: StreamState): void {
    const wasUp = isUp(this.#status.stream);
    this.#become({ stream });
    this.#isMissing ||= wasUp && !isUp(stream);
  }

  #watched(): WatchedQuery[] {
    const watched = [...this.#entries.values()].filter((entry) => entry.isWatched);
    return watched.map(({ key, path, input, snapshot }) => ({
      key,
      path,
      input: input ?? {},
      etag: newestOf(snapshot).etag,
    }));
  }

  #hear(news: News): void {
    if (news.type !== 'down') this.#become({ heardAt: Date.now() });
    if ('cursor' in news) this.#notifiedUpTo = parseVersion(news.cursor);
    switch (news.type) {
      case 'connected':
        return this.#connected(news);
      case 'invalidated':
        this.#change(news.keys, () => ({ type: 'invalidated', version: news.version }));
        return this.#advance();
      case 'pushed':
        this.#change(news.keys, (entry) => pushedAction(entry, news));
        return this.#advance();
      case 'gap':
        return this.#each((entry) => this.#dispatch(entry, { type: 'invalidated', version: null }));
      case 'alive':
        return;
      case 'down':
        return this.#down(news.error);
      case 'refused':
        this.#become({ error: news.error });
        this.#each((entry) => this.#dispatch(entry, { type: 'streamFailed', error: news.error }));
        this.#hearRefusal(news.error);
    }
  }

  #change(keys: readonly string[], actionOf: (entry: Entry) => Action<unknown>): void {
    const patienceMs = this.#news?.source?.patienceMs ?? 0;
    for (const entry of keys.flatMap((key) => this.#entries.get(key) ?? [])) {
      // Nobody sees the page: a tab that is seen fetches it, and shares it.
      const isPatient = patienceMs > 0 && entry.fetch === null && entry.pause === null;
      if (isPatient) void this.#pause(entry, patienceMs);
      this.#dispatch(entry, actionOf(entry));
      if (!isPatient) hurry(entry);
    }
  }

  #hearShared({ key, json, isText, etag, version, scope }: SharedResult): void {
    const entry = this.#entries.get(key);
    this.#scope ??= scope;
    // INVARIANT (a result counts only for the caller who asked): a page may name its caller wrongly, and so its group.
    if (entry === undefined || scope !== this.#scope) return;
    const notifiedUpTo = entry.snapshot.covered ? this.#notifiedUpTo : null;
    try {
      this.#dispatch(entry, { type: 'shared', data: entry.decode({ json, isText }), etag, version, notifiedUpTo });
    } catch {
      // Of another schema: that tab is of another release.
    }
  }

  /** Tell the page once that it needs other credentials. */
  #hearRefusal(error: ReactiveError): void {
    if (error.status !== 401 || this.#isUnauthorized) return;
    this.#isUnauthorized = true;
    this.#options.onUnauthorized?.(error);
  }

  #connected({ version, scope, queries, isPartial = false }: Extract<News, { type: 'connected' }>): void {
    this.#become({ error: null });
    if (this.#notice(scope)) return;
    // The server is there again: queries that wait for their next try need not, each up to its own backoff's cap.
    this.#each((entry) => entry.isRetrying && hurry(entry));
    const watched = new Map(queries.map((query) => [query.key, query]));
    this.#each((entry) => {
      const query = watched.get(entry.key);
      // What a leader answers a tab speaks of what it does not cover yet.
      if (isPartial && (query === undefined || entry.snapshot.covered)) return;
      if (query !== undefined) this.#connectedOne(entry, query, version);
      else if (entry.snapshot.covered) this.#dispatch(entry, { type: 'uncovered' });
    });
  }

  #connectedOne(entry: Entry, { sentEtag, isStale: stale, error }: ConnectedQuery, version: Version | null): void {
    const actions: Action<unknown>[] =
      error === null
        ? connectedActions(entry.snapshot, { sentEtag, isStale: stale, version })
        : [{ type: 'streamFailed', error }];
    for (const action of actions) this.#dispatch(entry, action);
    hurry(entry);
  }

  #down(error: ReactiveError | null): void {
    if (error !== null) this.#become({ error });
    this.#each((entry) => {
      if (entry.snapshot.covered) this.#dispatch(entry, { type: 'uncovered' });
      else if (error !== null) this.#dispatch(entry, { type: 'streamFailed', error });
    });
  }

  /** What was not named is the truth also up to here; that matters to own mutations that wait. */
  #advance(): void {
    this.#each((entry) => {
      if (entry.snapshot.ops.length > 0) this.#dispatch(entry, { type: 'advanced', version: this.#notifiedUpTo });
    });
  }

  // -- who calls

  /** Another scope than before is another caller: nothing of the former's may show. Returns whether it is one. */
  #notice(scope: string | null): boolean {
    if (scope === null) return false;
    const isOther = this.#scope !== null && scope !== this.#scope;
    this.#scope = scope;
    if (isOther) this.reidentify('another', scope);
    else this.#news?.identified(scope);
    return isOther;
  }

  // -- small things

  #become(change: Partial<EngineStatus>): void {
    const before = this.#status;
    this.#status = { ...before, ...change };
    const names = ['stream', 'isOnline', 'waiting', 'error'] as const;
    if (names.some((name) => this.#status[name] !== before[name]))
      for (const listener of [...this.#statusListeners]) listener();
  }

  /** Count a mutation that is made, or answered. */
  count(more: number): void {
    this.#become({ waiting: this.#status.waiting + more });
  }

  #mutationHost(): MutationHost<Entry | FollowedList> {
    const engine = this;
    return {
      targetsOf: (update) => {
        const { path, input } = update;
        const all = [...this.#entries.values()].filter((entry) => entry.path === path);
        const lists = [...this.lists].filter((list) => list.isShownBy(update));
        if (input === undefined) return [...all, ...lists];
        const key = this.keyOf({ path, input });
        return [...all.filter((entry) => entry.key === key), ...lists];
      },
      dispatch: (target, action) => (target instanceof Entry ? this.#dispatch(target, action) : target.tell(action)),
      get notifiedUpTo() {
        return engine.#notifiedUpTo;
      },
    };
  }

  #each(act: (entry: Entry) => void): void {
    for (const entry of [...this.#entries.values()]) act(entry);
  }

  #codecs(path: string): ProcedureCodecs {
    const { codecs = {} } = this.#options;
    return (Object.hasOwn(codecs, path) ? codecs[path] : undefined) ?? {};
  }

  /** Keys hold JSON, so that a query has one key however its input is written. */
  #encoded({ path, input }: QueryName): QueryName {
    return { path, input: encoded(input, this.#codecs(path).input) };
  }
}

function statusOf(data: unknown, failure: Error | null): QueryState['status'] {
  if (data !== undefined) return 'success';
  return failure === null ? 'pending' : 'error';
}

function fetchedAction(entry: Entry, answer: Answer): Action<unknown> {
  const { version, isStale: stale, etag, error } = answer;
  if (answer.isUnchanged) return { type: 'unchanged', version, isStale: stale };
  const data = error === null ? entry.decode(rawIn(entry, answer)) : undefined;
  return { type: 'fetched', data, etag, version, isStale: stale, error };
}

/** Return an input as JSON, and files, alone. Throws a TypeError if it has a number that would arrive as text. */
function encoded(input: unknown, codec: Codec<unknown> | undefined): unknown {
  if (input === undefined || codec === undefined) return input;
  const json = codec.encode(input);
  return { ...JSON.parse(JSON.stringify(json)), ...Object.fromEntries(filesIn(json)) };
}

/** Return the JSON of an answer, also of one that a link's transformer has made values of. */
function rawIn(entry: Entry, { json, isText, isTransformed }: Told & Raw): Raw {
  return isTransformed ? entry.encode(json) : { json, isText };
}

/** Tell whether a stream should watch it: its first fetch has ended, or it was restored, so an ETag can confirm it. */
function isConfirmable({ snapshot }: Entry): boolean {
  return snapshot.resolved || newestOf(snapshot).etag !== null;
}

/** A result of another shape than was generated is asked for. */
function pushedAction(entry: Entry, news: Extract<News, { type: 'pushed' }>): Action<unknown> {
  const { etag, version } = news;
  try {
    return { type: 'pushed', data: entry.decode(news), etag, version };
  } catch {
    return { type: 'invalidated', version: null };
  }
}

/** There is news of it: what waits for the next try, or for a stream, waits no longer; unless the server has asked. */
function hurry(entry: Entry): void {
  if (!entry.isHeldOff) entry.pause?.abort();
}

/** Resolve with the data once nothing is fetched any more, or reject with the failure. */
function settled(entry: Entry): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const look = (): boolean => {
      const { loading, wanted, resolved, base, fetchError, shown } = entry.snapshot;
      if (loading || !resolved || (wanted && fetchError === null)) return false;
      const failure = base.error ?? (shown === undefined ? fetchError : null);
      if (failure !== null) reject(failure);
      else resolve(shown);
      return true;
    };
    if (look()) return;
    const stop = entry.listen(() => {
      if (look()) stop();
    });
  });
}

/** Return what a server that rendered the page has said of the result: `meta: { reactive: { etag, version } }`. */
function renderedOf(query: Query): Omit<StoredResult, 'json' | 'scope'> {
  const about = query.meta?.['reactive'];
  const { etag, version, text } = isObject(about) ? about : {};
  return {
    isText: text === true,
    etag: textIn(etag),
    version: parseVersion(textIn(version)),
  };
}

/** Return data that a server has rendered as values: as JSON it came, unless whoever carried it knows more than JSON. */
function hydrated(entry: Entry, raw: Raw): unknown {
  try {
    return entry.decode(raw);
  } catch {
    return raw.json;
  }
}

function foreignKey({ path }: QueryName): never {
  throw new ReactiveError('BAD_REQUEST', `${path} is in no namespace`);
}
