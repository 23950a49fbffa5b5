/**
 * The state that a query shows, and the one place in which it changes. Pure: no clock and no I/O.
 *
 * `Snapshot` holds all that is known of one query, and `reduce` is the only way from one snapshot to the next. A
 * **base** is an outcome as the server answered it: a result, or an error that lasts until the data changes. An **op**
 * is an own mutation's optimistic update. Shown is the base with the ops folded over it. The base is confirmed
 * (`isStale` is false) only while it is both *covered* (a stream that is up has this query in its set, so any change
 * would be said) and *current* (no invalidation came since).
 *
 * The twin of `reactive_rpc/client/state.py`, rule by rule; `docs/internals/client.md` has the rules, and
 * `tests/vectors/state.json` are the examples that both pass.
 */

import { isComparable, isOlder, passes, type Version } from './versions.ts';

/** The state that a query shows at one moment. */
export interface State<T> {
  /** The last result; undefined until the first one, and if the query's outcome is an error that lasts. */
  readonly data: T | undefined;
  /** Whether nobody can confirm `data`: it may have changed, or the stream that would say so is down. */
  readonly isStale: boolean;
  /** Whether a fetch is under way. */
  readonly isLoading: boolean;
  /** Whether an own mutation shows in `data` that the server's answer does not contain yet. */
  readonly isPending: boolean;
  /** The query's outcome, if that is an error; or the failure of the last fetch, or of the stream. */
  readonly error: Error | null;
}

/** An outcome as the server answered it. */
export interface Base<T> {
  /** The result; undefined if the outcome is an error, or if there is none yet. */
  readonly data: T | undefined;
  /** Names the outcome; null if there is none, or the server has not said. */
  readonly etag: string | null;
  /** Which version of the log it reflects exactly; null if nobody can tell. */
  readonly version: Version | null;
  /** The ops that were over before its fetch began. */
  readonly seen: readonly string[];
  /** The outcome, if that is an error. */
  readonly error: Error | null;
}

/** Returns the data with an own mutation; must not change its argument. */
export type Update<T> = (data: T | undefined) => T | undefined;

/** An own mutation, as it shows in this query until the server's answers contain it. */
export interface Op<T> {
  readonly id: string;
  readonly apply: Update<T>;
  /** Not sent yet; sent; answered; sent, and no answer will come. */
  readonly phase: 'queued' | 'sent' | 'answered' | 'lost';
  /** A version that shows the mutation's writes; null if none is known to. */
  readonly at: Version | null;
}

/** Everything that is known of one query. */
export interface Snapshot<T> {
  /** The outcome that is shown, but for the ops. */
  readonly base: Base<T>;
  /** A newer one, that must not be shown yet. */
  readonly held: Base<T> | null;
  /** Own mutations that the base does not contain, in the order they were made. */
  readonly ops: readonly Op<T>[];
  /** The base's data with the ops; the same object while neither changes. */
  readonly shown: T | undefined;
  /** A stream that is up watches the query. */
  readonly covered: boolean;
  /** Nothing has invalidated the newest outcome. */
  readonly current: boolean;
  /** A fetch should begin as soon as none is running. */
  readonly wanted: boolean;
  /** A fetch is running. */
  readonly loading: boolean;
  /** There is an outcome of a fetch or a stream, or a failure. */
  readonly resolved: boolean;
  /** The newest version at which it was invalidated since the running fetch began; null: one that named none. */
  readonly invalidatedAt: Version | null | undefined;
  /** The newest outcome when that fetch began, whose ETag was sent. */
  readonly asked: Base<T>;
  /** The ops that were over when that fetch began. */
  readonly seen: readonly string[];
  /** Why the last fetch failed. */
  readonly fetchError: Error | null;
  /** Why no stream covers the query. */
  readonly streamError: Error | null;
}

/** What a fetch, or its end, does to a query. */
export type FetchAction<T> =
  /** A request is about to be sent. */
  | { readonly type: 'fetchStarted' }
  /** An outcome came; `isStale` if the server itself cannot confirm it, `error` if it is one that lasts. */
  | ({ readonly type: 'fetched'; readonly isStale?: boolean; readonly error?: Error | null } & Outcome<T>)
  /** The result is the one whose ETag was sent (304). */
  | { readonly type: 'unchanged'; readonly version: Version | null; readonly isStale?: boolean }
  /** No outcome came; `answered` if the server has refused, and would again. */
  | { readonly type: 'fetchFailed'; readonly error: Error; readonly answered?: boolean }
  /** It was given up, as nobody waits for it: as if it had not begun. */
  | { readonly type: 'fetchAbandoned' };

/** What a stream, or its end, does to a query. */
export type StreamAction<T> =
  /** The result may have changed; one that reflects `version` shows the change. Without it, none is known to. */
  | { readonly type: 'invalidated'; readonly version: Version | null }
  /** The stream that covers the query has brought its result. */
  | ({ readonly type: 'pushed' } & Outcome<T>)
  /** The stream has said everything up to `version`, and nothing of this query since it was last mentioned. */
  | { readonly type: 'advanced'; readonly version: Version | null }
  /** A stream watches the query from now on, and the result held is the truth at `version`, if that is known. */
  | { readonly type: 'confirmed'; readonly version: Version | null }
  /** A stream watches the query from now on. */
  | { readonly type: 'covered' }
  /** The stream has ended; another will be tried. */
  | { readonly type: 'uncovered' }
  /** The stream could not be had, is over for good, or refuses this query. */
  | { readonly type: 'streamFailed'; readonly error: Error }
  /** The caller has other credentials; `forget` if it is surely somebody else, who may not see the result held. */
  | { readonly type: 'reidentified'; readonly forget: boolean };

/** What an own mutation does to a query that shows it. */
export type OpAction<T> =
  /** It was made, and shows at once. */
  | { readonly type: 'opMade'; readonly id: string; readonly apply: Update<T> }
  /** It was sent: from now on an outcome may contain it. */
  | { readonly type: 'opSent'; readonly id: string }
  /** It succeeded; `version` shows its writes. The stream that covers the query is at `notifiedUpTo`. */
  | {
      readonly type: 'opAnswered';
      readonly id: string;
      readonly version: Version | null;
      readonly notifiedUpTo?: Version | null;
    }
  /** The server refused it: nothing was written. */
  | { readonly type: 'opRejected'; readonly id: string }
  /** No answer came: whether it was done only a later fetch can tell. */
  | { readonly type: 'opLost'; readonly id: string };

/** Results that came from elsewhere. */
export type ElsewhereAction<T> =
  /** One was found in storage, before anything else was known. */
  | ({ readonly type: 'restored' } & Outcome<T>)
  /** Another tab has fetched it; the stream that covers the query here is at `notifiedUpTo`. */
  | ({ readonly type: 'shared'; readonly notifiedUpTo: Version | null } & Outcome<T>);

interface Outcome<T> {
  readonly data: T | undefined;
  readonly etag: string | null;
  readonly version: Version | null;
}

export type Action<T> =
  | FetchAction<T>
  | StreamAction<T>
  | OpAction<T>
  | ElsewhereAction<T>
  /** The result that is held has waited long enough for a mutation that hangs. */
  | { readonly type: 'holdExpired' };

const EMPTY: Base<never> = { data: undefined, etag: null, version: null, seen: [], error: null };

/** Return the snapshot of a query of which nothing is known. */
export function initial<T>(): Snapshot<T> {
  return {
    base: EMPTY,
    held: null,
    ops: [],
    shown: undefined,
    covered: false,
    current: false,
    wanted: true,
    loading: false,
    resolved: false,
    invalidatedAt: undefined,
    asked: EMPTY,
    seen: [],
    fetchError: null,
    streamError: null,
  };
}

/** Return the newest outcome, shown or not. */
export function newestOf<T>(s: Snapshot<T>): Base<T> {
  return s.held ?? s.base;
}

/** Tell whether nobody confirms the base. */
export function isStale<T>(s: Snapshot<T>): boolean {
  return !(s.covered && s.current) || s.held !== null;
}

/** Return the state that is shown of a snapshot. */
export function stateOf<T>(s: Snapshot<T>): State<T> {
  return {
    data: s.shown,
    isStale: isStale(s),
    isLoading: s.loading,
    isPending: s.ops.length > 0,
    error: s.fetchError ?? s.streamError ?? s.base.error,
  };
}

/** Return the snapshot after `action`, `s` itself if nothing changed; never throws. */
export function reduce<T>(s: Snapshot<T>, action: Action<T>): Snapshot<T> {
  const stepped = step(s, action);
  return stepped === s ? s : tidied(s, stepped);
}

function step<T>(s: Snapshot<T>, action: Action<T>): Snapshot<T> {
  switch (action.type) {
    case 'fetchStarted':
      return fetchStarted(s);
    case 'fetched':
      return fetched(ended(s), action);
    case 'unchanged':
      return unchanged(ended(s), action);
    case 'fetchFailed':
      return fetchFailed(ended(s), action);
    case 'fetchAbandoned':
      return { ...s, loading: false, wanted: true };
    case 'pushed':
      return pushed(s, action);
    case 'restored':
      return s.resolved || !isEmpty(newestOf(s)) ? s : { ...s, base: outcome(action) };
    case 'shared':
      return shared(s, action);
    case 'holdExpired':
      return s.held === null ? s : { ...s, base: s.held, held: null };
    case 'opMade':
    case 'opSent':
    case 'opAnswered':
    case 'opRejected':
    case 'opLost':
      return ofOp(s, action);
    default:
      return ofStream(s, action);
  }
}

// -- fetches

function fetchStarted<T>(s: Snapshot<T>): Snapshot<T> {
  const seen = s.ops.filter(isOver).map((op) => op.id);
  return { ...s, wanted: false, loading: true, invalidatedAt: undefined, asked: newestOf(s), seen };
}

function ended<T>(s: Snapshot<T>): Snapshot<T> {
  return { ...s, loading: false, resolved: true };
}

function fetched<T>(s: Snapshot<T>, action: ActionOf<T, 'fetched'>): Snapshot<T> {
  const isOutage = action.isStale ?? false;
  return answered(s, { ...outcome(action), seen: isOutage ? [] : s.seen }, isOutage);
}

/** Take an answer, unless it is none that can be taken; current only if nothing is said that it does not show. */
function answered<T>(s: Snapshot<T>, answer: Base<T>, isOutage: boolean): Snapshot<T> {
  // INVARIANT (an answer that the server calls stale replaces nothing): it may be older than the newest outcome.
  if (isOutage && !isEmpty(newestOf(s))) {
    return { ...s, current: s.current && !isSame(newestOf(s), s.asked), fetchError: null };
  }
  // INVARIANT (nothing older than the newest outcome is taken): time would run backwards in what is shown.
  if (isOvertaken(s, answer)) return wantedUnlessCurrent(s);
  // INVARIANT (an invalidation that came while the fetch ran outlives its answer): unless the answer reflects the
  // version that the invalidation named.
  const isClear = !s.wanted || passes(answer.version, s.invalidatedAt ?? null);
  return {
    ...s,
    held: answer,
    current: isClear && !isOutage,
    wanted: s.wanted && !isClear,
    invalidatedAt: undefined,
    fetchError: null,
  };
}

/** Tell whether the newest outcome is a later one than the answer, or came since the fetch began and may be. */
function isOvertaken<T>(s: Snapshot<T>, answer: Base<T>): boolean {
  const newest = newestOf(s);
  if (answer.version === null) return !isSame(newest, s.asked);
  if (newest.version === null || isComparable(answer.version, newest.version)) {
    return isOlder(answer.version, newest.version);
  }
  // INVARIANT (an answer of another epoch counts only if the newest outcome was there when its fetch began): versions
  // of two epochs do not compare, so nothing else says which is the later.
  return s.asked.version?.epoch !== newest.version.epoch;
}

function unchanged<T>(s: Snapshot<T>, action: ActionOf<T, 'unchanged'>): Snapshot<T> {
  const newest = newestOf(s);
  // INVARIANT (a 304 speaks of the ETag that was sent): it says nothing of an outcome that came since.
  if (!isSame(newest, s.asked)) {
    // The result that was asked about is the truth at `version`, and another one is held.
    const isLater = action.version !== null && !passes(newest.version, action.version);
    return isLater ? { ...s, current: false, wanted: true } : wantedUnlessCurrent(s);
  }
  const isKnown = action.version !== null && !isOlder(action.version, newest.version);
  const version = isKnown ? action.version : newest.version;
  return answered(s, { ...newest, version, seen: s.seen }, action.isStale ?? false);
}

/** Show the error, unless the result that is held is confirmed nevertheless. */
function fetchFailed<T>(s: Snapshot<T>, action: ActionOf<T, 'fetchFailed'>): Snapshot<T> {
  const ops = action.answered ? s.ops.filter((op) => !s.seen.includes(op.id)) : s.ops;
  return { ...s, ops, fetchError: s.current ? s.fetchError : action.error };
}

function wantedUnlessCurrent<T>(s: Snapshot<T>): Snapshot<T> {
  return s.current ? s : { ...s, wanted: true };
}

// -- streams

function ofStream<T>(s: Snapshot<T>, action: Exclude<StreamAction<T>, { type: 'pushed' }>): Snapshot<T> {
  switch (action.type) {
    case 'invalidated':
      return invalidated(s, action.version);
    case 'confirmed':
      return confirmed(s, action.version);
    case 'advanced':
      // INVARIANT (covered and current only): then a change up to `version` would have been said.
      return s.covered && s.current ? moved(s, action.version) : s;
    case 'covered':
      return { ...s, covered: true, streamError: null };
    case 'uncovered':
      return { ...s, covered: false };
    case 'streamFailed':
      return { ...s, covered: false, streamError: action.error };
    case 'reidentified':
      return reidentified(s, action.forget);
  }
}

function invalidated<T>(s: Snapshot<T>, version: Version | null): Snapshot<T> {
  // INVARIANT (only a version makes an invalidation needless): the newest outcome shows that change already.
  if (passes(newestOf(s).version, version)) return s;
  const isFirst = s.invalidatedAt === undefined || !s.loading;
  const invalidatedAt = isFirst ? version : laterOf(s.invalidatedAt ?? null, version);
  return { ...s, current: false, wanted: true, invalidatedAt };
}

function laterOf(one: Version | null, other: Version | null): Version | null {
  if (passes(one, other)) return one;
  return passes(other, one) ? other : null;
}

function pushed<T>(s: Snapshot<T>, action: ActionOf<T, 'pushed'>): Snapshot<T> {
  const newest = newestOf(s);
  const { version } = action;
  if (isOlder(version, newest.version)) return s;
  // INVARIANT (a pushed result that cannot be compared is never taken): it may be older, so it is a reason to fetch.
  if (!isEmpty(newest) && !isComparable(version, newest.version)) {
    return invalidated(s, newest.version === null ? version : null);
  }
  const data = newest.etag === action.etag && newest.error === null ? newest.data : action.data;
  return { ...settled(s), held: { ...outcome(action), data } };
}

/** Note that the newest outcome is the truth: there is nothing to fetch, and nothing has failed. */
function settled<T>(s: Snapshot<T>): Snapshot<T> {
  return { ...s, current: true, wanted: false, resolved: true, invalidatedAt: undefined, fetchError: null };
}

function confirmed<T>(s: Snapshot<T>, version: Version | null): Snapshot<T> {
  // An own mutation may have come and gone meanwhile: then this waits, like any other newer outcome.
  const isSure = s.ops.every((op) => op.phase === 'queued');
  const now = moved(isSure ? s : { ...s, held: newestOf(s) }, version);
  return { ...settled(now), covered: true, streamError: null };
}

/** Note that the newest outcome is the truth at `version` too. One without a version stays without. */
function moved<T>(s: Snapshot<T>, version: Version | null): Snapshot<T> {
  const newest = newestOf(s);
  if (version === null || newest.version === null || passes(newest.version, version)) return s;
  const now = { ...newest, version };
  return s.held === null ? { ...s, base: now } : { ...s, held: now };
}

/**
 * Invalidate the answers to the former caller; its own mutations are none of this one's.
 *
 * A fetch that runs was the former's too: whoever runs it gives it up.
 */
function reidentified<T>(s: Snapshot<T>, forget: boolean): Snapshot<T> {
  const base: Base<T> = forget ? EMPTY : { ...s.base, etag: null, version: null };
  const { loading } = s;
  return { ...initial<T>(), base, shown: base.data, loading, asked: base, resolved: s.resolved && !forget };
}

// -- own mutations

function ofOp<T>(s: Snapshot<T>, action: OpAction<T>): Snapshot<T> {
  const { id } = action;
  switch (action.type) {
    case 'opMade':
      return { ...s, ops: [...s.ops, { id, apply: action.apply, phase: 'queued', at: null }] };
    case 'opSent':
      return withOp(s, id, { phase: 'sent' });
    case 'opAnswered': {
      const done = withOp(s, id, { phase: 'answered', at: action.version });
      return ofStream(done, { type: 'advanced', version: action.notifiedUpTo ?? null });
    }
    case 'opRejected':
      return { ...s, ops: s.ops.filter((op) => op.id !== id) };
    case 'opLost':
      return withOp(s, id, { phase: 'lost' });
  }
}

function withOp<T>(s: Snapshot<T>, id: string, changes: Partial<Op<T>>): Snapshot<T> {
  return { ...s, ops: s.ops.map((op) => (op.id === id ? { ...op, ...changes } : op)) };
}

/** Tell whether the server has done with it, as far as can be told from here. */
function isOver<T>(op: Op<T>): boolean {
  return op.phase === 'answered' || op.phase === 'lost';
}

// -- from elsewhere

function shared<T>(s: Snapshot<T>, action: ActionOf<T, 'shared'>): Snapshot<T> {
  const isFresh = passes(action.version, action.notifiedUpTo);
  if (s.loading || !isLaterThan(newestOf(s), action) || (s.current && !isFresh)) return s;
  return { ...s, held: outcome(action), current: isFresh, wanted: !isFresh, resolved: true };
}

/** Tell whether a shared result is a later one; of another epoch it is, if that is the stream's. */
function isLaterThan<T>(newest: Base<T>, { version, notifiedUpTo }: ActionOf<T, 'shared'>): boolean {
  if (version === null || newest.version === null) return version !== null && isEmpty(newest);
  if (newest.version.epoch === version.epoch) return isOlder(newest.version, version);
  return notifiedUpTo?.epoch === version.epoch;
}

// -- outcomes

type ActionOf<T, K extends Action<T>['type']> = Extract<Action<T>, { type: K }>;

function outcome<T>(from: Outcome<T> & { readonly error?: Error | null }): Base<T> {
  const error = from.error ?? null;
  return { data: error === null ? from.data : undefined, etag: from.etag, version: from.version, seen: [], error };
}

function isEmpty(base: Base<unknown>): boolean {
  return base.data === undefined && base.etag === null && base.error === null;
}

function isSame(one: Base<unknown>, other: Base<unknown>): boolean {
  return one.etag === other.etag && one.data === other.data && one.error === other.error;
}

// -- after each step

/** Show the held result once it can be told, drop the ops that the base contains, see to it that others will be. */
function tidied<T>(before: Snapshot<T>, stepped: Snapshot<T>): Snapshot<T> {
  let s = stepped;
  const { held } = s;
  // INVARIANT (the base contains no op that was sent and is still listed): else its row would show twice.
  if (held !== null && s.ops.every((op) => op.phase === 'queued' || contains(held, op))) {
    s = { ...s, base: held, held: null };
  }
  const { base } = s;
  if (s.ops.some((op) => contains(base, op))) s = { ...s, ops: s.ops.filter((op) => !contains(base, op)) };
  // INVARIANT (an op that is over and that the base lacks wants a fetch): nothing else would end it.
  if (!s.wanted && !s.loading && s.ops.some(isOver)) s = { ...s, wanted: true };
  const shown =
    base.data === before.base.data && isSameOps(s.ops, before.ops) ? before.shown : folded(base.data, s.ops);
  return shown === s.shown ? s : { ...s, shown };
}

function contains<T>(base: Base<T>, op: Op<T>): boolean {
  // INVARIANT (an op leaves by a proof only): the base reflects its version, or was fetched after its answer.
  if (op.phase === 'answered' && passes(base.version, op.at)) return true;
  return isOver(op) && base.seen.includes(op.id);
}

function isSameOps<T>(ops: readonly Op<T>[], others: readonly Op<T>[]): boolean {
  return ops.length === others.length && ops.every((op, index) => op.id === others[index]?.id);
}

function folded<T>(data: T | undefined, ops: readonly Op<T>[]): T | undefined {
  return ops.reduce((now, op) => applied(now, op), data);
}

function applied<T>(data: T | undefined, op: Op<T>): T | undefined {
  try {
    return op.apply(data);
  } catch (error) {
    console.error('an optimistic update failed; it shows nothing', error);
    return data;
  }
}
