/**
 * An endless list, page by page: its rows now and after every change. `intervals.ts` decides which pages there are; here
 * each of them is a query that the client keeps right, and the list shows them as they were at one moment.
 *
 * An own mutation shows in the list as a whole, as if that were one page. INVARIANT (no row of a mutation is shown twice,
 * and none vanishes in between): each page has the mutation as an op that changes nothing, so the rules of its state
 * decide whether the page contains it; the list takes pages that all do, or of which none does.
 * `docs/internals/typescript.md`, "Lists in pages", argues it.
 */

import type { Engine, FollowedList } from './engine.ts';
import type { Entry } from './entry.ts';
import type { ReactiveError } from './errors.ts';
import { type Interval, latestOf, type Page, PageList } from './intervals.ts';
import type { Named, QueryName } from './keys.ts';
import type { OptimisticUpdate } from './mutations.ts';
import { type InputOf, LiveQuery, type OutputOf, type Procedures, type QueryPath, type Reactive } from './reactive.ts';
import { type Action, type Base, isStale, type Op, type Snapshot, type State, type Update } from './state.ts';
import { isOlder, passes, type Version } from './versions.ts';

/** The state of a list at one moment. */
export interface PagesState<T> {
  /** Of all pages that are loaded, in order, as they were at one moment; undefined until the first page is there. */
  readonly rows: readonly T[] | undefined;
  /** Whether rows may follow those that are loaded. */
  readonly hasMore: boolean;
  /** Whether a page that was asked for is not there yet. */
  readonly isLoadingMore: boolean;
  /** Whether nobody can confirm the rows: some may have changed, and not all answers are in, or no stream would tell. */
  readonly isStale: boolean;
  /** Whether an own mutation shows in the rows that the server's answers do not contain yet. */
  readonly isPending: boolean;
  /** Why a page cannot be shown, or followed; null while all is well. */
  readonly error: Error | null;
  /** Load the page that follows; nothing if one is under way, or if none follows. */
  readonly loadMore: () => void;
}

/** The queries of a server that answer a page of a list. */
export type PagesPath<P extends Procedures> = {
  [Path in QueryPath<P>]: OutputOf<P, Path> extends Page<unknown>
    ? PlaceName extends keyof InputOf<P, Path>
      ? Path
      : never
    : never;
}[QueryPath<P>];
type PlaceName = 'after' | 'until' | 'limit';
/** What a list takes: the input of a page without its place. */
export type PagesInput<P extends Procedures, Path> = Omit<InputOf<P, Path>, PlaceName>;
/** A row of a list. */
export type RowOf<P extends Procedures, Path> = OutputOf<P, Path> extends Page<infer Row> ? Row : never;

export interface PagesOptions {
  /** How many rows a page has when it is loaded. */
  readonly limit: number;
}

/** What a list needs to know of the query of a page. */
export interface PageQuery {
  readonly snapshot: Snapshot<unknown>;
  readonly state: State<unknown>;
  readonly renderedState: State<unknown>;
  share: (before: unknown, json: unknown) => unknown;
  readonly codec?: { format?(json: unknown): string };
}

/** Who keeps the queries of a list right. */
export interface PagesHost {
  /** Return the query, made if there is none. */
  entry(name: QueryName): PageQuery;
  /** Return the key that the query has in the QueryClient, which need not have it. */
  keyOf(name: QueryName): string;
  /** Tell whether the QueryClient has the query. */
  isKept(name: QueryName): boolean;
  /** Call `listener` whenever it changes, and keep it right until the function returned is called. */
  watch(name: QueryName, listener: () => void): () => void;
  tell(query: PageQuery, action: Action<unknown>): void;
  /** Give a query the result of another one that has the same answer. */
  inherit(query: PageQuery, base: Base<unknown>): void;
  /** Up to where the stream has said everything. */
  readonly notifiedUpTo: Version | null;
  /** The lists that own mutations show in. */
  readonly lists: { add(list: FollowedList): unknown; delete(list: FollowedList): unknown };
  /** Call `act` once what has just happened is over: one event may tell of several pages. */
  soon(act: () => void): void;
}

interface Followed {
  readonly query: PageQuery;
  /** What it had failed with before it was a page, which says nothing of its place now. */
  readonly failure: Error | null;
  /** Its result may be of an order of before: it is no page until it is confirmed. */
  isDoubted: boolean;
  /** It has had a result. */
  hasData: boolean;
  /** Null while nobody shows the list. */
  stop: (() => void) | null;
}

/**
 * So often pages are asked whether they still hold, while others write without a pause. From then on it suffices that the
 * stream has told of no change in any of them for as long as that took.
 */
const MAX_ROUNDS = 3;
let count = 0;

/** An endless list of the page, shared by all who show it. */
export class Pages<T> {
  /** The same for the same path, input and limit. */
  readonly key: string;
  readonly #host: PagesHost;
  readonly #name: QueryName;
  readonly #list: PageList<T>;
  readonly #followed = new Map<Interval<T>, Followed>();
  readonly #listeners = new Set<() => void>();
  readonly #pool = new RowPool();
  readonly #target: FollowedList;
  readonly #id = `/${++count}`;
  #ops: readonly Pick<Op<Page<T>>, 'id' | 'apply'>[] = [];
  /** The pages of the list as it was at one moment. */
  #frame: readonly Page<T>[] = [];
  /** What shows is never older; null if nobody can tell. */
  #notBefore: Version | null = null;
  #folded: { readonly frame: readonly Page<T>[]; readonly ops: unknown; readonly page: Page<T> } | null = null;
  #isDue = false;
  #isMoreWanted = false;
  #rounds = 0;
  #isRestarted = false;
  #state: PagesState<T>;
  readonly #rendered: PagesState<T>;

  constructor(host: PagesHost, { path, input }: QueryName, limit: number) {
    this.#host = host;
    this.#name = { path, input };
    this.#list = new PageList(limit);
    this.key = host.keyOf(nameOfList({ path, input }, limit));
    const loadMore = (): void => this.#loadMore();
    const nothing = { rows: undefined, hasMore: false, isLoadingMore: false, isPending: false, error: null };
    this.#state = { ...nothing, isStale: true, loadMore };
    this.#target = this.#mutationTarget();
    this.#follow();
    const rendered = this.#queries[0]?.renderedState;
    const page = rendered?.data as Page<T> | undefined;
    const shown = page && { rows: page.items, hasMore: page.next !== null };
    this.#rendered = { ...this.#state, ...shown, error: rendered?.error ?? null };
  }

  /** What shows just now; the same object while nothing changes. */
  get state(): PagesState<T> {
    // Others may have loaded its first page.
    if (this.#listeners.size === 0) this.#look();
    return this.#state;
  }

  /** What a server renders of it; in a page, what one has rendered, which shows while the page is hydrated. */
  get renderedState(): PagesState<T> {
    return typeof document === 'undefined' ? this.state : this.#rendered;
  }

  /** Call `listener` with the state, now and whenever it changes; returns what ends that. The list is kept right. */
  subscribe(listener: (state: PagesState<T>) => void): () => void {
    const stop = this.watch(() => listener(this.#state));
    listener(this.#state);
    return stop;
  }

  /** Call `listener` whenever the state changes, and keep the list right until the function returned is called. */
  watch(listener: () => void): () => void {
    const own = (): void => listener();
    this.#listeners.add(own);
    if (this.#listeners.size === 1) this.#begin();
    return () => {
      if (this.#listeners.delete(own) && this.#listeners.size === 0) this.#end();
    };
  }

  /** Whether nobody shows it, and the QueryClient has forgotten its pages. */
  get isForgotten(): boolean {
    return this.#listeners.size === 0 && !this.#list.intervals.some((one) => this.#host.isKept(this.#nameOf(one)));
  }

  #begin(): void {
    // The QueryClient may have forgotten some of its pages meanwhile.
    for (const [one, { query }] of this.#followed) if (this.#query(one) !== query) this.#followed.delete(one);
    this.#settle();
    // Once it has pages: what waits to be sent shows in them from now on.
    this.#host.lists.add(this.#target);
  }

  #end(): void {
    this.#host.lists.delete(this.#target);
    for (const followed of this.#followed.values()) {
      followed.stop?.();
      followed.stop = null;
    }
  }

  #loadMore(): void {
    const last = this.#list.intervals.at(-1);
    const query = last && this.#followed.get(last)?.query;
    const isFailed = query?.state.error != null && !query.snapshot.loading;
    const isUnconfirmed = last?.isRestored === true && last.page?.next != null;
    this.#isMoreWanted ||= this.#list.next != null && !this.#list.isLoadingMore;
    // Whatever is behind a page that failed, or was restored, waits for its answer.
    if (query !== undefined && (isFailed || isUnconfirmed))
      this.#host.tell(query, { type: 'invalidated', version: null });
    if (this.#listeners.size > 0) this.#settle();
  }

  // -- its pages

  #wake(followed: Followed): void {
    // INVARIANT (nothing of a former caller shows, not even for a moment): what was forgotten leaves at once.
    if (isForgotten(followed)) this.#settle();
    if (this.#isDue) return;
    this.#isDue = true;
    this.#host.soon(() => {
      this.#isDue = false;
      if (this.#listeners.size > 0) this.#settle();
    });
  }

  #settle(): void {
    for (const [one, followed] of this.#followed) {
      if (isNoPlace(one, followed)) this.#restart();
      if (!isForgotten(followed)) continue;
      this.#frame = [];
      this.#notBefore = null;
      this.#ops = [];
      this.#list.restart();
    }
    this.#take();
    this.#list.settle();
    // Before pages are joined: what they show together would wait for the answer of one.
    this.#takeFrame();
    this.#list.join();
    if (this.#list.next === null) this.#isMoreWanted = false;
    if (this.#isMoreWanted && this.#list.intervals.at(-1)?.until != null) {
      this.#isMoreWanted = false;
      this.#list.loadMore();
    }
    this.#follow();
    this.#askBehind();
    this.#look();
  }

  /** Have a query for each page, and none for another; new ones first, so that one of both stays watched. */
  #follow(): void {
    const { intervals } = this.#list;
    for (const one of intervals) {
      const followed = this.#followed.get(one) ?? this.#newlyFollowed(one);
      this.#followed.set(one, followed);
      if (this.#listeners.size > 0) followed.stop ??= this.#host.watch(this.#nameOf(one), () => this.#wake(followed));
    }
    for (const one of intervals) one.from = [];
    for (const [one, { query, stop }] of this.#followed) {
      if (intervals.includes(one)) continue;
      this.#followed.delete(one);
      stop?.();
      // It hears no more of them.
      for (const { id } of this.#ops) this.#host.tell(query, { type: 'opRejected', id: id + this.#id });
    }
    this.#take();
  }

  #newlyFollowed(one: Interval<T>): Followed {
    const query = this.#query(one);
    const { error } = query.state;
    const before = this.#before(one);
    const hasOwn = !this.#takeOver(query, one, before) && query.snapshot.base.data !== undefined;
    // INVARIANT (what shows never goes back): it was a page of this list before, and may have its result of then, which
    // lacks what others contain by now; whatever its version, it is asked, and not shown before. Where nothing shows yet,
    // it is what a server has rendered, or storage has.
    const isDoubted = (hasOwn && this.#frame.length > 0) || this.#isRestarted;
    this.#isRestarted = false;
    if (hasOwn) {
      this.#notBefore = this.#latest ?? this.#notBefore;
      this.#host.tell(query, { type: 'invalidated', version: isDoubted ? null : this.#latest });
    }
    this.#tellOps(query, before, isDoubted);
    return { query, failure: error, isDoubted, hasData: false, stop: null };
  }

  /** Begin anew: the server does not know a place, so what the first page says of places may be of before, too. */
  #restart(): void {
    this.#list.restart();
    this.#isRestarted = true;
  }

  /** Give the query of a page that is new what those have whose rows it takes over; returns whether it has that now. */
  #takeOver(query: PageQuery, one: Interval<T>, before: readonly PageQuery[]): boolean {
    query.share = (_, json) => this.#pool.share(query, json);
    const same = before.find(({ snapshot }) => one.page !== null && snapshot.base.data === one.page);
    if (same === undefined) return false;
    this.#pool.inherit(query, same);
    this.#host.inherit(query, same.snapshot.base);
    // What it has of its own may be newer, as versions say, or kept until a mutation is answered.
    return query.snapshot.base.data === same.snapshot.base.data;
  }

  /** Tell a query that is new of the mutations that show, as far as the pages before it lack them. */
  #tellOps(query: PageQuery, before: readonly PageQuery[], isDoubted: boolean): void {
    const ops = (before.length > 0 ? before : this.#queries).flatMap(({ snapshot }) => snapshot.ops);
    for (const { id } of this.#ops) {
      const named = { id: id + this.#id };
      // INVARIANT (a mutation is in what shows, or over it): those before may contain it, or have let go of it when they
      // were refused; a result of another time does not say so before it is asked again.
      const known = ops.find((op) => op.id === named.id) ?? (isDoubted ? { ...named, ...LOST } : undefined);
      if (known !== undefined) for (const action of history(known)) this.#host.tell(query, action);
    }
  }

  /** Return the queries of the pages whose rows this one takes over. */
  #before(one: Interval<T>): readonly PageQuery[] {
    return one.from.flatMap((former) => this.#followed.get(former)?.query ?? this.#before(former));
  }

  /** The latest version at which a page began to hold that is followed already. */
  get #latest(): Version | null {
    return latestOf([...this.#followed.keys()]);
  }

  get #queries(): readonly PageQuery[] {
    return [...this.#followed.values()].map(({ query }) => query);
  }

  #query(one: Interval<T>): PageQuery {
    return this.#host.entry(this.#nameOf(one));
  }

  #nameOf({ after, until }: Interval<T>): QueryName {
    const { path, input } = nameOfList(this.#name, this.#list.limit);
    return { path, input: { ...input, ...(after !== null && { after }), ...(until !== null && { until }) } };
  }

  /** Tell each interval what is known of it. */
  #take(): void {
    for (const [one, followed] of this.#followed) {
      const { snapshot } = followed.query;
      const { base, covered, resolved } = snapshot;
      const isCurrent = !isStale(snapshot);
      followed.hasData = base.data !== undefined;
      followed.isDoubted &&= !snapshot.current;
      one.isRestored = !resolved || followed.isDoubted;
      const { notifiedUpTo } = this.#host;
      const upTo = covered && isCurrent && passes(notifiedUpTo, base.version) ? notifiedUpTo : base.version;
      if (base.data === undefined) one.isCurrent = false;
      else one.take(base.data as Page<T>, base.version, upTo, isCurrent);
    }
  }

  /** Ask of pages that nobody has spoken of whether they hold at the version of the others: a 304, mostly. */
  #askBehind(): void {
    if (this.#queries.some(({ snapshot }) => snapshot.loading || snapshot.wanted)) return; // that may answer it
    const { latest } = this.#list;
    const version = isOlder(latest, this.#notBefore) ? this.#notBefore : latest;
    const behind = this.#list.behind(version);
    if (behind.length === 0) this.#rounds = 0;
    if (behind.length === 0 || this.#rounds === MAX_ROUNDS) return;
    this.#rounds += 1;
    for (const one of behind) {
      const query = this.#followed.get(one)?.query;
      if (query !== undefined) this.#host.tell(query, { type: 'invalidated', version });
      one.isCurrent = false;
    }
  }

  // -- what shows

  #look(): void {
    if (this.#listeners.size === 0) this.#take();
    const isTaken = this.#takeFrame();
    const { shown } = this.#list;
    const last = this.#list.intervals.at(-1);
    const states = [...this.#followed].map(([one, { query }]) => ({ one, state: query.state }));
    const isFailed = states.some(({ one, state }) => one === last && state.error !== null && !state.isLoading);
    const page = this.#fold();
    this.#show({
      rows: page?.items,
      hasMore: page !== null && page.next !== null,
      isLoadingMore: (this.#list.isLoadingMore || this.#isMoreWanted) && !isFailed,
      isStale: !isTaken || !shown.every((one) => one.isCurrent),
      isPending: this.#ops.length > 0,
      error: states.find(({ state }) => state.error !== null)?.state.error ?? null,
    });
  }

  /** Take the pages into what shows, if they fit together; returns whether they do. */
  #takeFrame(): boolean {
    const queries = this.#list.shown.map((one) => this.#followed.get(one)?.query ?? this.#before(one)[0]);
    if (queries.some((query) => query !== undefined && query.snapshot.base.error !== null)) {
      this.#frame = []; // an outcome that lasts, in the place of data
      return false;
    }
    const fitting = this.#list.fitting(this.#rounds === MAX_ROUNDS);
    if (fitting === null || fitting.some((one) => this.#followed.get(one)?.isDoubted)) return false;
    const owing = this.#ops.map(({ id }) => queries.filter((query) => isOwing(query, id + this.#id)).length);
    if (owing.some((lacking) => lacking > 0 && lacking < queries.length)) return false;
    const at = latestOf(fitting);
    if (this.#isBack(fitting, at)) return false;
    if (!isOlder(at, this.#notBefore)) this.#notBefore = at;
    if (owing.includes(0)) this.#ops = this.#ops.filter((_, place) => owing[place] !== 0);
    const frame = fitting.flatMap(({ page }) => page ?? []);
    if (isSameList(frame, this.#frame)) return true;
    this.#frame = frame;
    this.#pool.trim(this.#queries);
    return true;
  }

  /**
   * Tell whether pages may be older than what is shown; the latest of them began to hold `at` a version.
   *
   * INVARIANT (what shows never goes back): a query that was a page before may have its result of then. If that holds
   * still, it has held up to what shows, however long ago it began.
   */
  #isBack(fitting: readonly Interval<T>[], at: Version | null): boolean {
    if (at === null) return this.#frame.length > 0 && !fitting.every((one) => one.isCurrent);
    return isOlder(at, this.#notBefore) && !fitting.every((one) => passes(one.upTo, this.#notBefore));
  }

  /** Return what shows as one page: that of the list, with the own mutations that it does not contain. */
  #fold(): Page<T> | null {
    const frame = this.#frame;
    const ops = this.#ops;
    const last = frame.at(-1);
    if (last === undefined) return null;
    if (this.#folded?.frame !== frame || this.#folded.ops !== ops) {
      const list: Page<T> = { items: frame.flatMap(({ items }) => items), next: last.next };
      this.#folded = { frame, ops, page: ops.reduce(applied, list) };
    }
    return this.#folded.page;
  }

  #show(change: Omit<PagesState<T>, 'loadMore'>): void {
    const before = this.#state;
    const { rows } = change;
    const isSame = rows !== undefined && before.rows !== undefined && isSameList(rows, before.rows);
    const next = { ...before, ...change, rows: isSame ? before.rows : rows };
    if ((Object.keys(next) as (keyof typeof next)[]).every((name) => next[name] === before[name])) return;
    this.#state = next;
    for (const listener of [...this.#listeners]) listener();
  }

  // -- own mutations

  #mutationTarget(): FollowedList {
    return {
      lastMutation: Promise.resolve(),
      snapshot: { covered: false },
      isShownBy: (update) => this.#isShownBy(update),
      tell: (action) => this.#tell(action),
    };
  }

  /** Tell whether an update is one of this list: of its path, and of its input wherever in the list. */
  #isShownBy({ path, input }: OptimisticUpdate): boolean {
    if (path !== this.#name.path) return false;
    return input === undefined || this.#host.keyOf(nameOfList({ path, input }, this.#list.limit)) === this.key;
  }

  #tell(action: Action<unknown>): void {
    if (!('id' in action)) return;
    if (action.type === 'opMade') {
      const { id, apply } = action;
      this.#ops = [...this.#ops, { id, apply: apply as Update<Page<T>> }];
    }
    if (action.type === 'opRejected') this.#ops = this.#ops.filter(({ id }) => id !== action.id);
    for (const query of this.#queries) {
      const notifiedUpTo = query.snapshot.covered ? this.#host.notifiedUpTo : null;
      const about = { ...('apply' in action && { apply: unchanged }), ...('version' in action && { notifiedUpTo }) };
      this.#host.tell(query, { ...action, ...about, id: action.id + this.#id });
    }
    if (this.#listeners.size > 0) this.#settle();
  }
}

/** The rows of pages as JSON, by their text: one that comes again by another page, or elsewhere, is the same object. */
class RowPool {
  /** Those that each query has now. */
  readonly #rows = new Map<PageQuery, Map<string, unknown>>();
  /** Those of now, and others that came since rows were forgotten last. */
  #known = new Map<string, unknown>();
  #former = new Map<string, unknown>();

  share(query: PageQuery, json: unknown): unknown {
    const { items } = json as { readonly items?: unknown };
    if (!Array.isArray(items)) return json;
    const format = query.codec?.format ?? JSON.stringify;
    const rows = items.map((row: unknown) => {
      const text = format(row);
      return [text, this.#known.get(text) ?? this.#former.get(text) ?? row] as const;
    });
    for (const [text, row] of rows) this.#known.set(text, row);
    this.#rows.set(query, new Map(rows));
    return { ...(json as object), items: rows.map(([, row]) => row) };
  }

  /** One query shows the result of another. */
  inherit(query: PageQuery, from: PageQuery): void {
    this.#rows.set(query, this.#rows.get(from) ?? new Map());
  }

  /** Keep the rows of these queries, and others for a while. */
  trim(queries: readonly PageQuery[]): void {
    for (const query of this.#rows.keys()) if (!queries.includes(query)) this.#rows.delete(query);
    const rows = [...this.#rows.values()].flatMap((some) => [...some]);
    if (this.#known.size <= 2 * rows.length) return;
    this.#former = this.#known;
    this.#known = new Map(rows);
  }
}

/** The server may have made it: only a later answer tells. */
const LOST = { phase: 'lost', at: null } as const;

function unchanged<T>(data: T): T {
  return data;
}

/** Return what has happened to an op, for a query that is to have it too. */
function history({ id, phase, at }: Pick<Op<unknown>, 'id' | 'phase' | 'at'>): Action<unknown>[] {
  const made: Action<unknown>[] = [{ type: 'opMade', id, apply: unchanged }];
  if (phase !== 'queued') made.push({ type: 'opSent', id });
  if (phase === 'answered') made.push({ type: 'opAnswered', id, version: at });
  if (phase === 'lost') made.push({ type: 'opLost', id });
  return made;
}

function applied<T>(page: Page<T>, { id, apply }: Pick<Op<Page<T>>, 'id' | 'apply'>): Page<T> {
  try {
    return apply(page) ?? page;
  } catch (error) {
    console.error(`the optimistic update of ${id} failed; it shows nothing`, error);
    return page;
  }
}

/** Tell whether the result of a query does not contain an op. */
function isOwing(query: PageQuery | undefined, id: string): boolean {
  return query?.snapshot.ops.some((op) => op.id === id) ?? false;
}

/** Tell whether the result that there was is gone: another caller may not see it. */
function isForgotten({ hasData, query }: Followed): boolean {
  const { data, error } = query.snapshot.base;
  return hasData && data === undefined && error === null;
}

/** Tell whether the server does not know a place that it has given: the list's order is another now. */
function isNoPlace({ after, until }: Interval<unknown>, { query: { state }, failure }: Followed): boolean {
  const isFirst = after === null && until === null;
  return !isFirst && state.error !== failure && (state.error as Partial<ReactiveError> | null)?.code === 'BAD_REQUEST';
}

/** Return the query of a list's first page. */
function nameOfList({ path, input }: QueryName, limit: number): { readonly path: string; readonly input: object } {
  return { path, input: { ...(input as object | undefined), limit } };
}

function isSameList(some: readonly unknown[], others: readonly unknown[]): boolean {
  return some.length === others.length && some.every((one, place) => one === others[place]);
}

// -- lists of a client

const listsOf = new WeakMap<Engine, Map<string, Pages<unknown>>>();

/**
 * Return the endless list that a query answers page by page; nothing is asked before somebody subscribes.
 *
 * It is the same for all who show it, as far as it is loaded too.
 */
export function infinite<P extends Procedures, Path extends PagesPath<P>>(
  reactive: Reactive<P>,
  path: Path | Named<Path>,
  input: PagesInput<P, Path>,
  { limit }: PagesOptions,
): Pages<RowOf<P, Path>> {
  const { engine } = reactive;
  const lists = listsOf.get(engine) ?? new Map<string, Pages<unknown>>();
  listsOf.set(engine, lists);
  for (const [key, list] of lists) if (list.isForgotten) lists.delete(key);
  const name = { path: String(path), input };
  const key = engine.keyOf(nameOfList(name, limit));
  const list = lists.get(key) ?? new Pages<unknown>(hostOf(engine), name, limit);
  lists.set(key, list);
  return list as Pages<RowOf<P, Path>>;
}

function hostOf(engine: Engine): PagesHost {
  return {
    entry: (name) => engine.entry(name),
    keyOf: (name) => engine.keyOf(name),
    isKept: (name) => engine.client.getQueryCache().get(engine.keyOf(name)) !== undefined,
    watch: (name, listener) => new LiveQuery(engine, name).watch(listener),
    tell: (query: Entry, action) => engine.tell(query, action),
    inherit: (query: Entry, base) => engine.inherit(query, base),
    get notifiedUpTo() {
      return engine.notifiedUpTo;
    },
    lists: {
      add: (list) => {
        engine.lists.add(list);
        engine.queue?.appeared();
      },
      delete: (list) => engine.lists.delete(list),
    },
    // A browser calls it on nothing, or refuses.
    soon: (act) => queueMicrotask(act),
  };
}
