/**
 * A world that is played at random against the reducer: two queries, a server, streams, own mutations, other tabs.
 *
 * After every step, what a query shows is `fold(truth(v), own mutations not in truth(v))` for some version `v` not below
 * that of its last frame; what is confirmed is the truth, or the event that says otherwise is on its way; and at rest
 * what shows is the truth. The twin of `tests/unit/client/games.py`, with streams that take over, pushes of half a
 * commit, restored sessions, other tabs and new epochs.
 */

import type * as coverage from '../../../reactive_rpc/typescript/runtime/coverage.ts';
import type * as state from '../../../reactive_rpc/typescript/runtime/state.ts';
import type { Version } from '../../../reactive_rpc/typescript/runtime/versions.ts';
import { type Rows, type SpelledUpdate, type Step, seenOf, spelled, updateOf } from './acting.ts';

/** What is played against: the product's own modules, or mutants of them. */
export type Reducer = Pick<typeof state, 'initial' | 'isStale' | 'newestOf' | 'reduce'> &
  Pick<typeof coverage, 'connectedActions'>;

export interface Rules {
  /** Results come on the stream, in the place of invalidations. */
  readonly pushes: boolean;
  /** The world begins with what storage held. */
  readonly isRestored: boolean;
  /** A fault of who drives the reducer, on purpose. */
  readonly fault?: 'cursor for version' | 'half a commit';
}

export interface Move {
  readonly name: MoveName;
  /** Which of those that the move could take. */
  readonly pick: number;
  readonly flag: boolean;
}

type Action = state.Action<Rows>;

const QUERIES = 2;
const MAX_ROUNDS = 200;
const MAX_FREE = 8;

interface Mutation {
  readonly id: string;
  readonly kind: 'append' | 'set' | 'nothing' | 'refused';
  readonly queries: readonly number[];
  readonly update: SpelledUpdate;
  phase: 'queued' | 'sent' | 'arrived' | 'done';
  /** The version that shows it. */
  commit: number | null;
  /** It shows no more: refused, or made by a caller who is gone. */
  isOut: boolean;
  isLost: boolean;
}

interface Fetch {
  readonly query: number;
  readonly etag: string | null;
  readAt: number | null;
}

type StreamEvent =
  | { readonly type: 'connected'; readonly at: number; readonly stale: readonly number[]; readonly isNamed: boolean }
  | {
      readonly type: 'invalidated';
      readonly at: number;
      readonly queries: readonly number[];
      readonly isNamed: boolean;
    }
  | { readonly type: 'pushed'; readonly at: number; readonly query: number; readonly isLast: boolean }
  | { readonly type: 'gap'; readonly at: number };

interface Stream {
  readonly etags: readonly (string | null)[];
  readonly cursor: number | null;
  readonly events: StreamEvent[];
  isAccepted: boolean;
  isConnected: boolean;
}

export class WrongError extends Error {
  override readonly name = 'WrongError';
}

export class World {
  /** Everything that was dispatched to each query, as the vectors spell it, and what showed after it. */
  readonly played: Step[][] = eachQuery(() => []);
  readonly #reducer: Reducer;
  readonly #rules: Rules;
  readonly #truths: Rows[][] = eachQuery(() => [[], ['z']]);
  readonly #epochsBegin: number[] = [1];
  readonly #snapshots: state.Snapshot<Rows>[];
  readonly #shownVersions: number[] = eachQuery(() => 0);
  readonly #waiting = new Set<number>();
  #mutations: Mutation[] = [];
  #fetches: Fetch[] = [];
  #stream: Stream | null = null;
  /** A stream that is to take over. */
  #next: Stream | null = null;
  #notifiedUpTo: number | null = null;
  #names = 0;

  constructor(reducer: Reducer, rules: Rules) {
    this.#reducer = reducer;
    this.#rules = rules;
    this.#snapshots = eachQuery(() => reducer.initial<Rows>());
    if (rules.isRestored) this.#restore();
  }

  /** Make one move, let the client go on, and look at everything. */
  step(move: Move): void {
    this.#moves[move.name](move);
    this.#run();
    this.#checkConfirmed();
  }

  /** Let all that is under way end well, and look whether the truth shows. */
  comeToRest(): void {
    for (let round = 0; round < MAX_ROUNDS && this.#isBusy(); round++) {
      for (const name of CLOSING_MOVES) {
        if (name === 'open' && this.#stream !== null) continue;
        this.step({ name, pick: name === 'retry' ? round : 0, flag: this.#next !== null });
      }
    }
    for (const [query, s] of this.#snapshots.entries()) {
      const isTruth = same(s.shown, this.#truth(query));
      if (!isTruth || this.#isStale(query) || s.ops.length > 0 || s.loading)
        this.#fail(`query ${query} is not at rest`);
    }
  }

  #isBusy(): boolean {
    const isIdle = this.#fetches.length === 0 && this.#waiting.size === 0 && this.#next === null;
    const isDone = this.#mutations.every((one) => one.phase === 'done');
    return !(isIdle && isDone && this.#stream?.isConnected === true && this.#stream.events.length === 0);
  }

  // -- the client

  #dispatch(query: number, action: Action, update: SpelledUpdate | null = null): void {
    const before = this.#at(query);
    const after = this.#reducer.reduce(before, action);
    this.#snapshots[query] = after;
    // biome-ignore lint/suspicious/noThenProperty: the vectors are spelled so
    this.played[query]?.push({ do: spelled(action, update), then: seenOf(after) });
    if (action.type === 'confirmed' || (action.type === 'invalidated' && after !== before)) this.#waiting.delete(query);
    this.#checkFrame(query);
  }

  #run(): void {
    for (const [query, s] of this.#snapshots.entries()) {
      if (s.wanted && !s.loading && !this.#waiting.has(query)) this.#fetch(query);
    }
  }

  #fetch(query: number): void {
    this.#fetches.push({ query, etag: this.#newest(query).etag, readAt: null });
    this.#dispatch(query, { type: 'fetchStarted' });
  }

  #at(query: number): state.Snapshot<Rows> {
    return this.#snapshots[query] ?? this.#fail(`there is no query ${query}`);
  }

  #newest(query: number): state.Base<Rows> {
    return this.#reducer.newestOf(this.#at(query));
  }

  #isStale(query: number): boolean {
    return this.#reducer.isStale(this.#at(query));
  }

  #restore(): void {
    for (let query = 0; query < QUERIES; query++) {
      this.#waiting.add(query);
      this.#dispatch(query, { type: 'restored', ...this.#answer(query, 1), version: this.#version(1) });
    }
    this.#write(0);
  }

  // -- what must hold

  /** Hold that some truth shows, none before that of the last frame, and exactly the own mutations it lacks. */
  #checkFrame(query: number): void {
    const { shown } = this.#at(query);
    if (shown === undefined) return;
    const own = this.#ownOf(query);
    for (let version = this.#shownVersions[query] ?? 0; version <= this.#now; version++) {
      if (this.#frames(query, version, own).some((frame) => same(frame, shown))) {
        this.#shownVersions[query] = version;
        return;
      }
    }
    this.#fail(`query ${query} shows ${JSON.stringify(shown)}, which is no frame`);
  }

  #ownOf(query: number): Mutation[] {
    return this.#mutations.filter((one) => one.queries.includes(query) && !one.isOut);
  }

  #frames(query: number, version: number, own: readonly Mutation[]): Rows[] {
    let frames: Rows[] = [this.#truth(query, version)];
    for (const one of own) {
      if (one.commit !== null && one.commit <= version && one.kind !== 'nothing') continue;
      const withIt = frames.map((rows) => updateOf(one.update)(rows) ?? []);
      frames = isFree(one) && frames.length < 1 << MAX_FREE ? [...frames, ...withIt] : withIt;
    }
    return frames;
  }

  #checkConfirmed(): void {
    for (let query = 0; query < QUERIES; query++) {
      if (this.#isStale(query)) continue;
      if (this.#stream?.isAccepted !== true) this.#fail(`query ${query} is confirmed, and nobody listens`);
      if (this.#stream?.events.some((event) => concerns(event, query)) === true) continue;
      const { base, shown } = this.#at(query);
      const isTruth = same(base.data, this.#truth(query));
      const isFrame = this.#frames(query, this.#now, this.#ownOf(query)).some((frame) => same(shown, frame));
      if (!isTruth || !isFrame) this.#fail(`query ${query} is confirmed, and not the truth`);
    }
  }

  #fail(message: string): never {
    const { mutations, fetches, stream } = { mutations: this.#mutations, fetches: this.#fetches, stream: this.#stream };
    const all = { truths: this.#truths, mutations, fetches, stream, snapshots: this.#snapshots };
    throw new WrongError(`${message}: ${JSON.stringify(all)}`);
  }

  // -- the server

  get #now(): number {
    return (this.#truths[0]?.length ?? 0) - 1;
  }

  #truth(query: number, version = this.#now): Rows {
    return this.#truths[query]?.[version] ?? [];
  }

  #version(number: number): Version {
    const epoch = this.#epochsBegin.findLastIndex((begin) => begin <= number);
    return { epoch: `e${epoch}`, number };
  }

  /** Return a result as it comes over the wire: a new object each time. */
  #answer(query: number, version: number): { data: Rows; etag: string } {
    return { data: [...this.#truth(query, version)], etag: this.#etag(query, version) };
  }

  #etag(query: number, version: number): string {
    return this.#truth(query, version).join();
  }

  #commit(change: (query: number) => Rows | null): void {
    const changes = eachQuery(change);
    const before = this.#now;
    for (const [query, rows] of changes.entries()) this.#truths[query]?.push(rows ?? this.#truth(query, before));
    const touched = changes.flatMap((rows, query) => (rows === null ? [] : [query]));
    for (const stream of [this.#stream, this.#next]) this.#announce(stream, touched);
  }

  #announce(stream: Stream | null, touched: readonly number[]): void {
    if (stream?.isAccepted !== true || touched.length === 0) return;
    const at = this.#now;
    if (!this.#rules.pushes) {
      stream.events.push({ type: 'invalidated', at, queries: touched, isNamed: at % 5 !== 0 });
      return;
    }
    for (const query of touched) stream.events.push({ type: 'pushed', at, query, isLast: query === touched.at(-1) });
  }

  #isUnchangedSince(query: number, version: number): boolean {
    return this.#truths[query]?.slice(version).every((rows) => same(rows, this.#truth(query, version))) === true;
  }

  #write(pick: number): void {
    const query = pick % QUERIES;
    const row = `w${++this.#names}`;
    const rows = pick > 4 ? ['z'] : [...this.#truth(query), row];
    this.#commit((one) => (one === query ? rows : null));
  }

  // -- moves

  readonly #moves: Record<MoveName, (move: Move) => void> = {
    write: ({ pick }) => this.#write(pick),
    mutate: (move) => this.#mutate(move),
    send: ({ pick }) => this.#send(pick),
    arrive: ({ pick }) => this.#arrive(pick),
    answerMutation: (move) => this.#answerMutation(move),
    lose: ({ pick }) => this.#lose(pick),
    read: ({ pick }) => this.#read(pick),
    answer: (move) => this.#answerFetch(move),
    outage: ({ pick }) => this.#outage(pick),
    fail: ({ pick }) => this.#failFetch(pick),
    retry: ({ pick }) => this.#retry(pick % QUERIES),
    open: () => this.#open(),
    accept: ({ flag }) => this.#accept(flag),
    hear: ({ flag }) => this.#hear(flag),
    cut: () => this.#cut(),
    gap: () => this.#gap(),
    share: (move) => this.#share(move),
    reidentify: ({ flag }) => this.#reidentify(flag),
    newEpoch: () => this.#newEpoch(),
  };

  #mutate({ pick, flag }: Move): void {
    const kind = (['append', 'set', 'nothing', 'refused'] as const)[pick % 4] ?? 'append';
    const id = `m${++this.#names}`;
    const one: Mutation = {
      id,
      kind,
      queries: flag ? [0, 1] : [pick % QUERIES],
      update: kind === 'set' ? { set: id } : { append: id },
      phase: 'queued',
      commit: null,
      isOut: false,
      isLost: false,
    };
    this.#mutations.push(one);
    for (const query of one.queries) {
      this.#dispatch(query, { type: 'opMade', id, apply: updateOf(one.update) }, one.update);
    }
  }

  #ofPhase(pick: number, ...phases: readonly Mutation['phase'][]): Mutation | undefined {
    return picked(
      pick,
      this.#mutations.filter((one) => phases.includes(one.phase)),
    );
  }

  #dispatchOf(one: Mutation, action: Action): void {
    if (!one.isOut) for (const query of one.queries) this.#dispatch(query, action);
  }

  #send(pick: number): void {
    const one = this.#ofPhase(pick, 'queued');
    if (one === undefined) return;
    one.phase = 'sent';
    this.#dispatchOf(one, { type: 'opSent', id: one.id });
  }

  #arrive(pick: number): void {
    const one = this.#ofPhase(pick, 'sent');
    if (one === undefined) return;
    one.phase = 'arrived';
    if (one.kind === 'nothing') one.commit = this.#now;
    if (one.kind !== 'append' && one.kind !== 'set') return;
    one.commit = this.#now + 1;
    this.#commit((query) => (one.queries.includes(query) ? (updateOf(one.update)(this.#truth(query)) ?? []) : null));
  }

  #answerMutation({ pick, flag }: Move): void {
    const one = this.#ofPhase(pick, 'arrived');
    if (one === undefined) return;
    one.phase = 'done';
    if (one.kind === 'refused') {
      const wasOut = one.isOut;
      one.isOut = true;
      if (!wasOut) for (const query of one.queries) this.#dispatch(query, { type: 'opRejected', id: one.id });
      return;
    }
    const version = flag ? (pick % 2 === 0 ? this.#version(this.#now) : null) : this.#version(one.commit ?? this.#now);
    const notified = this.#stream?.isConnected === true ? this.#notifiedUpTo : null;
    const notifiedUpTo = notified === null ? null : this.#version(notified);
    this.#dispatchOf(one, { type: 'opAnswered', id: one.id, version, notifiedUpTo });
  }

  #lose(pick: number): void {
    const one = this.#ofPhase(pick, 'sent', 'arrived');
    if (one === undefined) return;
    one.phase = 'done';
    one.isLost = true;
    this.#dispatchOf(one, { type: 'opLost', id: one.id });
  }

  #read(pick: number): void {
    const fetch = picked(
      pick,
      this.#fetches.filter((one) => one.readAt === null),
    );
    if (fetch !== undefined) fetch.readAt = this.#now;
  }

  #ended(pick: number, isRead: boolean): Fetch | undefined {
    const fetch = picked(
      pick,
      this.#fetches.filter((one) => !isRead || one.readAt !== null),
    );
    this.#fetches = this.#fetches.filter((one) => one !== fetch);
    return fetch;
  }

  #answerFetch({ pick, flag }: Move): void {
    const fetch = this.#ended(pick, true);
    if (fetch === undefined || fetch.readAt === null) return;
    const { query, readAt } = fetch;
    const isStill = this.#isUnchangedSince(query, readAt);
    const number = isStill || this.#rules.fault === 'cursor for version' ? this.#now : readAt;
    const version = flag && pick % 2 === 1 ? null : this.#version(number);
    const answer = this.#answer(query, readAt);
    const isUnchanged = fetch.etag === answer.etag;
    this.#dispatch(query, isUnchanged ? { type: 'unchanged', version } : { type: 'fetched', ...answer, version });
  }

  /** Answer with what some worker has stored, as stale. */
  #outage(pick: number): void {
    const fetch = this.#ended(pick, false);
    if (fetch === undefined) return;
    const at = Math.min(this.#now, (this.#shownVersions[fetch.query] ?? 0) + (pick % 2));
    this.#waiting.add(fetch.query);
    const answer = this.#answer(fetch.query, Math.max(1, at));
    this.#dispatch(fetch.query, { type: 'fetched', ...answer, version: null, isStale: true });
  }

  #failFetch(pick: number): void {
    const fetch = this.#ended(pick, false);
    if (fetch === undefined) return;
    this.#waiting.add(fetch.query);
    this.#dispatch(fetch.query, { type: 'fetchFailed', error: new Error('no answer') });
  }

  #retry(query: number): void {
    if (!this.#waiting.delete(query)) return;
    if (!this.#at(query).current) this.#dispatch(query, { type: 'invalidated', version: null });
  }

  #open(): void {
    const etags = this.#snapshots.map((s) => this.#reducer.newestOf(s).etag);
    const fresh: Stream = { etags, cursor: this.#notifiedUpTo, events: [], isAccepted: false, isConnected: false };
    if (this.#stream === null) this.#stream = fresh;
    else if (this.#next === null && this.#stream.isConnected) this.#next = fresh;
  }

  #accept(isNamed: boolean): void {
    const stream = this.#next ?? this.#stream;
    if (stream === null || stream.isAccepted) return;
    stream.isAccepted = true;
    const stale = eachQuery((query) => query).filter((query) => this.#isStaleFor(stream, query));
    stream.events.push({ type: 'connected', at: this.#now, stale, isNamed });
  }

  /** Tell whether the server says that a query is stale: by the ETag that was sent, or by the cursor if none was. */
  #isStaleFor(stream: Stream, query: number): boolean {
    const etag = stream.etags[query] ?? null;
    if (etag !== null) return etag !== this.#etag(query, this.#now);
    return stream.cursor === null || !this.#isUnchangedSince(query, stream.cursor);
  }

  #hear(isNext: boolean): void {
    const stream = isNext && this.#next !== null ? this.#next : this.#stream;
    const event = stream?.events.shift();
    if (stream === null || event === undefined) return;
    const isHalf = event.type === 'pushed' && !event.isLast && this.#rules.fault !== 'half a commit';
    // The cursor of an event lies below its commit as long as something else of that commit was not said.
    const cursor = isHalf ? Math.max(this.#notifiedUpTo ?? 0, 0) : event.at;
    this.#notifiedUpTo = cursor;
    this.#take(stream, event);
    if (event.type === 'connected' || event.type === 'gap' || isHalf) return;
    for (const [query, s] of this.#snapshots.entries()) {
      if (s.ops.length > 0) this.#dispatch(query, { type: 'advanced', version: this.#version(cursor) });
    }
  }

  #take(stream: Stream, event: StreamEvent): void {
    const version = this.#version(event.at);
    switch (event.type) {
      case 'connected':
        return this.#connected(stream, event);
      case 'invalidated':
        for (const query of event.queries) {
          this.#dispatch(query, { type: 'invalidated', version: event.isNamed ? version : null });
        }
        return;
      case 'pushed':
        return this.#dispatch(event.query, { type: 'pushed', ...this.#answer(event.query, event.at), version });
      case 'gap':
        for (let query = 0; query < QUERIES; query++) this.#dispatch(query, { type: 'invalidated', version: null });
    }
  }

  #connected(stream: Stream, event: Extract<StreamEvent, { type: 'connected' }>): void {
    stream.isConnected = true;
    this.#stream = stream;
    if (stream === this.#next) this.#next = null;
    const version = event.isNamed ? this.#version(event.at) : null;
    for (const [query, sentEtag] of stream.etags.entries()) {
      const connection = { sentEtag, isStale: event.stale.includes(query), version };
      for (const action of this.#reducer.connectedActions(this.#at(query), connection)) this.#dispatch(query, action);
    }
  }

  #cut(): void {
    if (this.#stream === null) return;
    this.#stream = this.#next = null;
    for (let query = 0; query < QUERIES; query++) this.#dispatch(query, { type: 'uncovered' });
  }

  #gap(): void {
    const stream = this.#stream;
    if (stream?.isConnected === true && stream.events.length > 0) {
      stream.events.splice(0, stream.events.length, { type: 'gap', at: this.#now });
    }
  }

  #share({ pick, flag }: Move): void {
    const query = pick % QUERIES;
    const at = Math.max(1, this.#now - (flag ? 0 : pick >> 1));
    const isNotified = this.#stream?.isConnected === true && this.#notifiedUpTo !== null;
    const notifiedUpTo = isNotified ? this.#version(this.#notifiedUpTo ?? 0) : null;
    this.#dispatch(query, { type: 'shared', ...this.#answer(query, at), version: this.#version(at), notifiedUpTo });
  }

  #reidentify(forget: boolean): void {
    this.#stream = this.#next = null;
    this.#notifiedUpTo = null;
    for (const one of this.#mutations) one.isOut = true;
    const given = this.#fetches.splice(0);
    for (let query = 0; query < QUERIES; query++) {
      this.#waiting.delete(query);
      // Who has seen nothing yet has seen nothing later either.
      if (forget) this.#shownVersions[query] = 0;
      this.#dispatch(query, { type: 'reidentified', forget });
    }
    for (const { query } of given) this.#fetch(query);
  }

  #newEpoch(): void {
    this.#commit(() => null);
    this.#epochsBegin.push(this.#now);
    this.#cut();
  }
}

const MOVES = {
  write: 2,
  mutate: 2,
  send: 2,
  arrive: 2,
  answerMutation: 2,
  lose: 1,
  read: 3,
  answer: 3,
  outage: 1,
  fail: 1,
  retry: 1,
  open: 2,
  accept: 2,
  hear: 3,
  cut: 1,
  gap: 1,
  share: 2,
  reidentify: 1,
  newEpoch: 1,
};

export type MoveName = keyof typeof MOVES;

/** The names of all moves, each as often as it is likely. */
export const MOVE_NAMES = (Object.keys(MOVES) as MoveName[]).flatMap((name) => Array<MoveName>(MOVES[name]).fill(name));

const CLOSING_MOVES: readonly MoveName[] = [
  'send',
  'arrive',
  'answerMutation',
  'open',
  'accept',
  'hear',
  'retry',
  'read',
  'answer',
];

/** The moves that bring up a stream and the first results, so that games need not find them. */
export const WARM_UP: readonly Move[] = (
  ['open', 'accept', 'read', 'read', 'answer', 'answer', 'hear', 'read', 'read', 'answer', 'answer'] as const
).map((name) => ({ name, pick: 0, flag: false }));

/** Whether no truth will ever show that it was done: it may show or not. */
function isFree(one: Mutation): boolean {
  return one.kind === 'nothing' || (one.isLost && one.commit === null);
}

function concerns(event: StreamEvent, query: number): boolean {
  switch (event.type) {
    case 'connected':
      return event.stale.includes(query) || event.isNamed;
    case 'invalidated':
      return event.queries.includes(query);
    case 'pushed':
      return event.query === query;
    case 'gap':
      return true;
  }
}

function eachQuery<V>(make: (query: number) => V): V[] {
  return Array.from({ length: QUERIES }, (_, query) => make(query));
}

function picked<V>(pick: number, from: readonly V[]): V | undefined {
  return from[pick % from.length];
}

function same(one: Rows | undefined, other: Rows): boolean {
  return one !== undefined && one.length === other.length && one.every((row, index) => row === other[index]);
}
