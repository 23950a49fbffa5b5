/**
 * One event stream for a set of queries: opened, replaced and resumed for as long as anybody watches.
 *
 * A change of the set opens a new stream, with ETags and cursor, while the old one still speaks. 401, 403 and `revoked`
 * stop until the caller has other credentials, 413 until the set is another; all else is tried again, with backoff. A
 * stream that misses heartbeats is ended. If streams end at once again and again, or one says nothing while a long poll
 * is answered, something on the way holds them back: then long polls do their work, and a stream is tried again later.
 *
 * `docs/internals/client.md` argues why nothing is missed. The twin of `reactive_rpc/client/lane.py`.
 */

import { Backoff } from './backoff.ts';
import { type Channel, pollChannel, streamChannel } from './channels.ts';
import { asReactiveError, ReactiveError } from './errors.ts';
import {
  type ConnectedEvent,
  type InvalidationEvent,
  type QueryRef,
  type ResultEvent,
  refusalKey,
  type WireEvent,
} from './events.ts';
import type { Raw } from './json.ts';
import { Flag, nextTask, pause } from './tasks.ts';
import { parseVersion, type Version } from './versions.ts';
import type { Wire } from './wire.ts';

/** A query that somebody shows. */
export interface WatchedQuery {
  /** The client's own name of it. */
  readonly key: string;
  readonly path: string;
  readonly input: unknown;
  /** Of the newest outcome that is held. */
  readonly etag: string | null;
}

/** What `connected` says of one query. */
export interface ConnectedQuery {
  readonly key: string;
  readonly sentEtag: string | null;
  readonly isStale: boolean;
  /** Why the stream does not watch it; null if it does. */
  readonly error: ReactiveError | null;
}

/** What a stream says, in the client's keys. */
export type News =
  | {
      readonly type: 'connected';
      readonly cursor: string;
      readonly version: Version | null;
      readonly scope: string | null;
      readonly queries: readonly ConnectedQuery[];
      /** A stream of another tab watches these already; of others nothing is said. */
      readonly isPartial?: boolean;
    }
  | {
      readonly type: 'invalidated';
      readonly cursor: string;
      readonly version: Version | null;
      readonly keys: readonly string[];
    }
  | (Raw & {
      readonly type: 'pushed';
      readonly cursor: string;
      readonly version: Version | null;
      readonly keys: readonly string[];
      readonly etag: string;
    })
  | { readonly type: 'gap'; readonly cursor: string }
  /** The server is there, and has nothing to say. */
  | { readonly type: 'alive' }
  /** No stream is up; another is tried. */
  | { readonly type: 'down'; readonly error: ReactiveError | null }
  /** There will be none until the caller has other credentials. */
  | { readonly type: 'refused'; readonly error: ReactiveError };

export type StreamState = 'idle' | 'live' | 'reconnecting' | 'polling' | 'refused';

export interface StreamOptions {
  readonly wire: Wire;
  /** Returns the set; asked when a stream is opened, so that ETags are those of then. */
  readonly queries: () => readonly WatchedQuery[];
  readonly onNews: (news: News) => void;
  readonly onState?: (state: StreamState) => void;
  readonly cursor?: string | null;
  /** Tell the server up to where events have arrived, so that it sends again what was lost on the way. */
  readonly acks?: boolean;
  /** `auto` polls if streams do not get through. */
  readonly transport?: 'auto' | 'poll';
  readonly backoff?: Backoff;
}

/** How long a stream may take to begin. */
const OPEN_MS = 30_000;
/** How long a new stream may say nothing before a long poll asks whether the server is there. */
const UNHEARD_MS = 5_000;
/** How long it may go on saying nothing after that was answered. */
const PROBE_GRACE_MS = 2_000;
/** How many heartbeats may be missing before the stream counts as dead: one may be lost, another late. */
const HEARTBEATS_MISSED = 2.5;
/** A promise of heartbeats is believed between these: no stream is given up within an instant, nor kept for ever. */
const HEARTBEAT_SECONDS = { min: 1, max: 600 };
/** How long a stream lasts before the backoff starts over. */
const STABLE_MS = 5_000;
/** A stream that lasts for less is *short*; so many of them in a row, and it is polled. */
const SHORT_MS = 1_000;
const MAX_SHORT = 3;
/** How long it is polled before a stream is tried again. */
const POLLING_MS = 300_000;
/** By how many ids events that are sent again are known. */
const REMEMBERED_EVENTS = 1000;
/** Why a server does not watch a query that it may watch later. */
const DEFERRING: ReadonlySet<string> = new Set([
  'PRECONDITION_FAILED',
  'SERVICE_UNAVAILABLE',
  'TOO_MANY_REQUESTS',
  'TIMEOUT',
  'INTERNAL_SERVER_ERROR',
]);
const DEFERRED_BASE_MS = 2_000;
const DEFERRED_CAP_MS = 60_000;

/** One stream, from its request to its end. */
interface Stream {
  readonly control: AbortController;
  readonly channel: Channel;
  readonly queries: readonly WatchedQuery[];
  /** The client's keys, by the server's; two queries may have one key there: `{}` and `{"limit": 10}`. */
  readonly keys: Map<string, string[]>;
  id: string;
  cursor: string;
  connectedAt: number | null;
  silenceMs: number;
  /** It says nothing, though a long poll was answered. */
  isHeldBack: boolean;
}

/** Where the news of the queries come from: a stream of this page's own, or one that tabs share. */
export interface NewsSource {
  /** Look at the set again. */
  update(): void;
  /** Try now what waits for its turn. */
  nudge(): void;
  /** The server is there: try now, unless it has asked to wait. */
  hurry(): void;
  /** Distrust a stream that seems to be up. */
  replace(): void;
  /** Take the stream for ended: the network is gone. */
  lose(): void;
  /** Begin anew for a caller of other credentials, whose `scope` may be known. */
  reidentify(cause: Cause, scope: string | null): void;
  close(): void;
  /** The server has named the caller. */
  identified?(scope: string): void;
  /** Time has passed, in a page. */
  tick?(): void;
  /** The page is frozen, or left; it may come back. */
  suspend?(): void;
  resume?(): void;
  /** Offer a result to other tabs. */
  share?(result: SharedResult): void;
  /** How long a fetch should wait for another tab's result. */
  readonly patienceMs?: number;
}

/** Why a source begins anew: other credentials; a logout, here or in another tab; the server has named another. */
export type Cause = 'credentials' | 'forget' | 'forgotten' | 'another';

/** A result that a tab has fetched, as JSON. */
export interface SharedResult extends Raw {
  readonly key: string;
  readonly etag: string;
  readonly version: Version;
  /** Whose it is, as the server names its callers; null if it names none. */
  readonly scope: string | null;
}

export class Streams implements NewsSource {
  /** Up to where everything was said. */
  cursor: string | null;
  readonly #options: StreamOptions;
  readonly #backoff: Backoff;
  readonly #deferred = new Backoff(Math.random, DEFERRED_BASE_MS, DEFERRED_CAP_MS);
  readonly #changed = new Flag();
  readonly #seen = new Set<string>();
  readonly #acks: Acknowledger;
  #isRunning = false;
  #isClosed = false;
  #state: StreamState = 'idle';
  #active: Stream | null = null;
  #opening: Stream | null = null;
  /** Ends the pause before the next try. */
  #turn = new AbortController();
  #notBefore = 0;
  /** The server has asked for no try before. */
  #heldOffUntil = 0;
  #refusal: ReactiveError | null = null;
  /** The set that is too large for the server, by its keys: it is not asked for again. */
  #tooLarge: string | null = null;
  /** The active stream refuses a query that it may watch later. */
  #isOutdated = false;
  /** Nobody knows whether the active stream is up. */
  #isDistrusted = false;
  #short = 0;
  #pollsUntil = 0;

  constructor(options: StreamOptions) {
    this.#options = options;
    this.#backoff = options.backoff ?? new Backoff();
    this.cursor = options.cursor ?? null;
    this.#acks = new Acknowledger(options.wire);
  }

  get state(): StreamState {
    return this.#state;
  }

  get #isAcknowledged(): boolean {
    return this.#options.acks ?? true;
  }

  /** Look at the set again: open, replace or end the stream, whichever makes it fit. */
  update(): void {
    if (this.#isClosed) return;
    this.#changed.set();
    if (this.#isRunning) return;
    this.#isRunning = true;
    void this.#run();
  }

  /** Try now what waits for its turn: the page is online, or seen again. */
  nudge(): void {
    this.#backoff.reset();
    this.#notBefore = 0;
    this.#turn.abort();
  }

  /** Try now: the server has answered something else. A time that it has asked for is kept, and the backoff goes on. */
  hurry(): void {
    this.#notBefore = Math.min(this.#notBefore, this.#heldOffUntil);
    this.#turn.abort();
  }

  /** Open another stream although one seems to be up: after a sleep nobody knows whether it is. */
  replace(): void {
    this.nudge();
    this.#isDistrusted = this.#active !== null;
    this.update();
  }

  /** Take the stream for ended: the network is gone, and its sockets may not say so for a minute. */
  lose(): void {
    // An attempt that hangs in it would keep the next one waiting.
    this.#opening?.control.abort();
    if (this.#active === null) return;
    this.#active.control.abort();
    this.#active = null;
    this.#down(new ReactiveError('CONNECTION_FAILED', 'the network is gone'));
    this.#holdOff(this.#backoff.nextDelay());
  }

  /** Begin anew with other credentials. */
  reidentify(): void {
    this.#refusal = this.#tooLarge = null;
    this.cursor = null;
    this.#seen.clear();
    this.#end();
    this.nudge();
    this.update();
  }

  /** End everything. */
  close(): void {
    this.#isClosed = true;
    this.#end();
    this.nudge();
    this.#changed.set();
  }

  /** End the stream that is up, and the one that is being opened. */
  #end(): void {
    for (const stream of [this.#active, this.#opening]) stream?.control.abort();
    this.#active = this.#opening = null;
  }

  async #run(): Promise<void> {
    while (!this.#isClosed) {
      await this.#changed.wait();
      await this.#waitForTurn();
      // Changes of one moment gather.
      await nextTask();
      const queries = this.#options.queries();
      if (this.#isClosed || this.#refusal !== null || this.#fits(queries)) continue;
      if (namesOf(queries) === this.#tooLarge) continue;
      if (queries.length === 0) this.#idle();
      else await this.#connect(queries);
    }
  }

  #idle(): void {
    this.#end();
    // INVARIANT (nothing is confirmed that nobody would tell of): who shows it again must not take it for fresh.
    this.#options.onNews({ type: 'down', error: null });
    this.#become('idle');
  }

  #fits(queries: readonly WatchedQuery[]): boolean {
    if (this.#active === null) return queries.length === 0 && this.#state === 'idle';
    const watched = new Set(this.#active.queries.map((query) => query.key));
    return (
      !this.#isOutdated &&
      !this.#isDistrusted &&
      watched.size === queries.length &&
      queries.every((query) => watched.has(query.key))
    );
  }

  /** Keep the distance that the backoff wants. */
  async #waitForTurn(): Promise<void> {
    for (let left = this.#notBefore - Date.now(); left > 0; left = this.#notBefore - Date.now()) {
      this.#turn = new AbortController();
      await pause(left, this.#turn.signal);
    }
  }

  /** Try again after a while, of which the server has asked for `askedMs`. */
  #holdOff(milliseconds: number, askedMs = 0): void {
    this.#notBefore = Date.now() + askedMs + milliseconds;
    this.#heldOffUntil = Date.now() + askedMs + Math.min(this.#backoff.floorMs, milliseconds);
    this.#changed.set();
  }

  /** Open one stream; it is read in the background once it is connected. */
  async #connect(queries: readonly WatchedQuery[]): Promise<void> {
    const stream = this.#newStream(queries);
    this.#opening = stream;
    if (this.#active === null) this.#become('reconnecting');
    await new Promise<void>((resolve) => void this.#read(stream, resolve).then(resolve));
    if (this.#opening === stream) this.#opening = null;
  }

  #newStream(queries: readonly WatchedQuery[]): Stream {
    const { wire, transport = 'auto' } = this.#options;
    const isPolling = transport === 'poll' || Date.now() < this.#pollsUntil;
    return {
      control: new AbortController(),
      channel: isPolling ? pollChannel(wire) : streamChannel(wire, this.#isAcknowledged),
      queries,
      keys: new Map(),
      id: '',
      cursor: '',
      connectedAt: null,
      silenceMs: OPEN_MS,
      isHeldBack: false,
    };
  }

  /** Read a stream to its end, and see to it that another one follows. */
  async #read(stream: Stream, onConnected: () => void): Promise<void> {
    const request = { queries: stream.queries.map(refOf), cursor: this.cursor };
    const { signal } = stream.control;
    const watchdog = new Watchdog(() => stream.control.abort());
    watchdog.expect(stream.silenceMs);
    if (stream.channel.isStream) void this.#probe(stream);
    let failure: ReactiveError | null = null;
    try {
      for await (const { events, retryMs } of stream.channel.open(request, signal)) {
        if (retryMs !== null) this.#backoff.floorMs = retryMs;
        for (const event of events) this.#hear(stream, event, onConnected);
        if (events.length === 0 && stream === this.#active) this.#options.onNews({ type: 'alive' });
        watchdog.expect(stream.silenceMs);
        if (signal.aborted) break;
      }
    } catch (error) {
      if (!(error instanceof ReactiveError)) console.error('an event of the stream could not be applied', error);
      failure = asReactiveError(error);
    }
    watchdog.stop();
    // Whatever waits for it: the probe of an attempt that has failed would ask for nothing.
    stream.control.abort();
    if (stream.connectedAt === null) this.#unconnected(stream, failure);
    else this.#ended(stream, stream.connectedAt, failure);
  }

  #hear(stream: Stream, event: WireEvent, onConnected: () => void): void {
    if (stream.control.signal.aborted) return;
    if (stream.connectedAt === null) {
      this.#begin(stream, event);
      onConnected();
    } else if (stream === this.#active) {
      // INVARIANT (only the active stream is heard): the next one's `connected` was made after these events.
      this.#take(stream, event);
    }
    if (stream.channel.isStream && this.#isAcknowledged) this.#acks.add(stream.id, stream.cursor);
  }

  // -- the first event

  /** Make `stream` the one that counts, and end the one before. */
  #begin(stream: Stream, event: WireEvent): void {
    if (event.type === 'revoked') throw new ReactiveError('UNAUTHORIZED', event.reason, { status: 401 });
    if (event.type !== 'connected' || event.queries.length !== stream.queries.length) {
      throw new ReactiveError('WIRE_ERROR', `the event stream began with "${event.type}", or for another set`);
    }
    for (const [index, query] of stream.queries.entries()) {
      const key = event.queries[index];
      if (key) stream.keys.set(key, [...(stream.keys.get(key) ?? []), query.key]);
    }
    stream.id = event.stream;
    stream.cursor = this.cursor = event.cursor;
    stream.connectedAt = Date.now();
    stream.silenceMs = stream.channel.isStream ? silenceMs(event.heartbeatSeconds) : Infinity;
    // INVARIANT (no await from here to the end of the stream before): its events cannot arrive after `connected`.
    this.#active?.control.abort();
    this.#active = stream;
    const queries = connectedQueries(stream, event);
    this.#deferIfRefused(stream, queries);
    this.#become(stream.channel.isStream ? 'live' : 'polling');
    if (this.#pollsUntil > 0 && !stream.channel.isStream) this.#replaceAfter(stream, this.#pollsUntil - Date.now());
    const { cursor, scope } = event;
    this.#options.onNews({ type: 'connected', cursor, scope, version: parseVersion(event.version), queries });
  }

  /** If the stream refuses a query for a reason that may pass, open another one after a while. */
  #deferIfRefused(stream: Stream, queries: readonly ConnectedQuery[]): void {
    this.#isOutdated = this.#isDistrusted = false;
    if (!queries.some(({ error }) => error !== null && DEFERRING.has(error.code))) return this.#deferred.reset();
    this.#replaceAfter(stream, this.#deferred.nextDelay());
  }

  #replaceAfter(stream: Stream, milliseconds: number): void {
    void pause(milliseconds, stream.control.signal).then(() => {
      if (stream !== this.#active) return;
      this.#isOutdated = true;
      this.update();
    });
  }

  // -- further events

  #take(stream: Stream, event: WireEvent): void {
    switch (event.type) {
      case 'invalidation':
      case 'result':
        return this.#takeChange(stream, event);
      case 'gap':
        stream.cursor = this.cursor = event.cursor;
        return this.#options.onNews({ type: 'gap', cursor: event.cursor });
      case 'revoked':
        return this.#refuse(new ReactiveError('UNAUTHORIZED', event.reason, { status: 401 }));
      case 'connected':
        return;
    }
  }

  /** Apply an event, unless it was applied before. */
  #takeChange(stream: Stream, event: InvalidationEvent | ResultEvent): void {
    // INVARIANT (a repeated event does not move the cursor): the acknowledged one is the last in the stream's order.
    if (event.isRepeated && this.#seen.has(event.eventId)) return;
    this.#remember(event.eventId);
    stream.cursor = this.cursor = event.cursor;
    const { cursor } = event;
    const version = parseVersion(event.version);
    const affected = event.type === 'result' ? [event] : event.affected;
    const keys = [...new Set(affected.flatMap(({ key, path }) => keysOf(stream, key, path)))];
    // INVARIANT (a repeated result that is not remembered is not taken): it may be older than one that was.
    if (event.type === 'invalidation' || event.isRepeated || !stream.keys.has(event.key)) {
      this.#options.onNews({ type: 'invalidated', cursor, version: event.isRepeated ? null : version, keys });
    } else {
      const { json, isText, etag } = event;
      this.#options.onNews({ type: 'pushed', cursor, version, keys, json, isText, etag });
    }
  }

  #remember(eventId: string): void {
    this.#seen.add(eventId);
    const [oldest] = this.#seen;
    if (this.#seen.size > REMEMBERED_EVENTS && oldest !== undefined) this.#seen.delete(oldest);
  }

  // -- ends

  #unconnected(stream: Stream, failure: ReactiveError | null): void {
    // INVARIANT (an answer counts only for the caller who asked): `reidentify` and `close` give up the attempt, but its
    // answer may be here by then.
    if (stream !== this.#opening) return;
    if (stream.isHeldBack) {
      this.#pollsUntil = Date.now() + POLLING_MS;
      return this.#changed.set();
    }
    // Polling, which was only tried, does not work either.
    this.#pollsUntil = 0;
    if (failure?.status === 413) return this.#giveUp(stream, failure);
    this.#failed(failure ?? new ReactiveError('CONNECTION_FAILED', 'the event stream ended before it was connected'));
  }

  /** Ask for a set no more, until it is another one: the stream before goes on, if there is one. */
  #giveUp(stream: Stream, error: ReactiveError): void {
    this.#tooLarge = namesOf(stream.queries);
    if (this.#active !== null) return;
    this.#become('refused');
    this.#options.onNews({ type: 'refused', error });
  }

  #failed(error: ReactiveError): void {
    if (error.status === 401 || error.status === 403) return this.#refuse(error);
    // The server may be unable to read the cursor: the ETags suffice.
    if (error.status === 400) this.cursor = null;
    // INVARIANT (a distrusted stream is believed no longer than until the next one fails): nothing else would end it
    // before its heartbeats are missed.
    if (this.#isDistrusted) this.#end();
    if (this.#active === null) this.#down(error);
    this.#holdOff(this.#backoff.nextDelay(), error.retryAfterSeconds * 1000);
  }

  /** Go on after a stream that was connected has ended, by whichever side. */
  #ended(stream: Stream, connectedAt: number, failure: ReactiveError | null): void {
    if (stream !== this.#active) return;
    this.#active = null;
    const lastedMs = Date.now() - connectedAt;
    this.#short = stream.channel.isStream && lastedMs < SHORT_MS ? this.#short + 1 : 0;
    if (this.#short >= MAX_SHORT) this.#pollsUntil = Date.now() + POLLING_MS;
    this.#down(failure);
    this.#holdOff(this.#pauseAfter(failure, lastedMs));
  }

  #down(error: ReactiveError | null): void {
    this.#become('reconnecting');
    this.#options.onNews({ type: 'down', error });
  }

  #pauseAfter(failure: ReactiveError | null, lastedMs: number): number {
    if (lastedMs < STABLE_MS) return this.#backoff.nextDelay();
    this.#backoff.reset();
    // The server has ended a stream that was well, because it stops: nothing has failed.
    return failure === null ? this.#backoff.resumptionDelay() : this.#backoff.nextDelay();
  }

  #refuse(error: ReactiveError): void {
    this.#refusal = error;
    this.#end();
    this.#become('refused');
    this.#options.onNews({ type: 'refused', error });
  }

  /** Find out whether a stream that says nothing is held back by something on the way. */
  async #probe(stream: Stream): Promise<void> {
    const { signal } = stream.control;
    await pause(UNHEARD_MS, signal);
    if (stream.connectedAt !== null || signal.aborted) return;
    const request = { queries: stream.queries.map(refOf), cursor: this.cursor };
    const isAnswered = await this.#options.wire.poll(request, 0, signal).then(
      () => true,
      () => false,
    );
    await pause(PROBE_GRACE_MS, signal);
    if (!isAnswered || stream.connectedAt !== null || signal.aborted) return;
    stream.isHeldBack = true;
    stream.control.abort();
  }

  #become(state: StreamState): void {
    if (state === this.#state) return;
    this.#state = state;
    this.#options.onState?.(state);
  }
}

/** Sends the newest acknowledgement of a stream; those that come meanwhile are one. A lost one is no harm. */
class Acknowledger {
  readonly #wire: Wire;
  #next: { readonly stream: string; readonly cursor: string } | null = null;
  #isSending = false;

  constructor(wire: Wire) {
    this.#wire = wire;
  }

  add(stream: string, cursor: string): void {
    this.#next = { stream, cursor };
    if (this.#isSending) return;
    this.#isSending = true;
    void this.#send();
  }

  async #send(): Promise<void> {
    for (let ack = this.#next; ack !== null; ack = this.#next) {
      // All that come in a quarter of a second are one, behind the event's other receivers. A hidden page's timers are
      // late, and the server sends again what is not acknowledged within 2 s.
      await (globalThis.document?.hidden ? nextTask() : new Promise((resolve) => setTimeout(resolve, 250)));
      ack = this.#next ?? ack;
      this.#next = null;
      await this.#wire.acknowledge(ack.stream, ack.cursor).catch(() => {});
    }
    this.#isSending = false;
  }
}

/** Ends what has not been heard of for a time. */
class Watchdog {
  readonly #onSilence: () => void;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(onSilence: () => void) {
    this.#onSilence = onSilence;
  }

  expect(milliseconds: number): void {
    this.stop();
    if (milliseconds !== Infinity) this.#timer = setTimeout(this.#onSilence, milliseconds);
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}

export function refOf({ path, input, etag }: WatchedQuery): QueryRef {
  return etag === null ? { path, input } : { path, input, etag };
}

function namesOf(queries: readonly WatchedQuery[]): string {
  return queries
    .map(({ key }) => key)
    .toSorted()
    .join();
}

function connectedQueries(stream: Stream, event: ConnectedEvent): ConnectedQuery[] {
  const stale = new Set(event.stale.flatMap(({ key, path }) => keysOf(stream, key, path)));
  return stream.queries.map(({ key, path, input, etag }, index) => {
    const refusal = event.errors.get(refusalKey(path, input)) ?? null;
    const isWatched = typeof event.queries[index] === 'string';
    const error = isWatched
      ? null
      : (refusal ?? new ReactiveError('BAD_REQUEST', 'the server does not watch this query'));
    return { key, sentEtag: etag, isStale: stale.has(key), error };
  });
}

/** Return the client's keys of a query that an event names; for a key that was never announced, all of its path. */
function keysOf(stream: Stream, key: string, path: string): readonly string[] {
  return stream.keys.get(key) ?? stream.queries.filter((query) => query.path === path).map((query) => query.key);
}

function silenceMs(heartbeatSeconds: number | null): number {
  if (heartbeatSeconds === null) return Infinity;
  const { min, max } = HEARTBEAT_SECONDS;
  return HEARTBEATS_MISSED * 1000 * Math.min(Math.max(heartbeatSeconds, min), max);
}
