/**
 * A list in pages, the queries of its pages as the reducer has them, and a server whose answers and events come late: the
 * moves of random games, and whether what shows was ever true.
 */

import { connectedActions } from '../../../reactive_rpc/typescript/runtime/coverage.ts';
import type { FollowedList } from '../../../reactive_rpc/typescript/runtime/engine.ts';
import { ReactiveError } from '../../../reactive_rpc/typescript/runtime/errors.ts';
import type { Page } from '../../../reactive_rpc/typescript/runtime/intervals.ts';
import type { QueryName } from '../../../reactive_rpc/typescript/runtime/keys.ts';
import type { PageQuery, Pages, PagesHost, PagesState } from '../../../reactive_rpc/typescript/runtime/pages.ts';
import {
  type Action,
  type Base,
  initial,
  newestOf,
  reduce,
  type Snapshot,
  type State,
  stateOf,
} from '../../../reactive_rpc/typescript/runtime/state.ts';
import { parseVersion, type Version } from '../../../reactive_rpc/typescript/runtime/versions.ts';

export const LIMIT = 3;
/** The module of pages, or a broken copy of it. */
export interface PagesModule {
  readonly Pages: typeof Pages;
}
export class WrongError extends Error {}

export interface Row {
  readonly id: string;
}

interface Ranked extends Row {
  readonly rank: number;
}

interface PlaceOfPage {
  readonly after?: string;
  readonly until?: string;
}

export type Reading = (rows: readonly Ranked[], place: PlaceOfPage) => Page<Row>;

function spelled({ rank, id }: Ranked): string {
  return `${rank}/${id}`;
}

function isBehind(row: Ranked, cursor: string): boolean {
  const [rank = '', id = ''] = cursor.split('/');
  return row.rank > Number(rank) || (row.rank === Number(rank) && row.id > id);
}

function cut(rows: readonly Ranked[], limit: number): Page<Row> {
  const items = rows.slice(0, limit);
  const last = items.at(-1);
  return { items: items.map(({ id }) => ({ id })), next: last && rows.length > limit ? spelled(last) : null };
}

/** Answer as `keyset` does. */
export const read: Reading = (rows, { after, until }) => {
  const behind = rows.filter((row) => after === undefined || isBehind(row, after));
  if (until === undefined) return cut(behind, LIMIT);
  const between = behind.filter((row) => !isBehind(row, until));
  return between.length > 2 * LIMIT ? cut(between, LIMIT) : { ...cut(between, between.length), next: until };
};

/** Answer so many rows after a place, wherever the page ended when it was read first. */
export const readByLimit: Reading = (rows, { after, until }) => {
  const page = cut(
    rows.filter((row) => after === undefined || isBehind(row, after)),
    LIMIT,
  );
  return { ...page, next: until ?? page.next };
};

class Query implements PageQuery {
  readonly place: PlaceOfPage;
  snapshot: Snapshot<unknown> = initial();
  share: (before: unknown, json: unknown) => unknown = (_, json) => json;
  readonly listeners = new Set<() => void>();
  /** A request: not read yet, or with its answer. */
  request: { answer: { readonly page: Page<Row>; readonly version: number } | null } | null = null;
  isPaused = false;
  #state: State<unknown> = stateOf(this.snapshot);

  constructor(place: PlaceOfPage) {
    this.place = place;
  }

  get state(): State<unknown> {
    return this.#state;
  }

  get renderedState(): State<unknown> {
    return this.#state;
  }

  dispatch(action: Action<unknown>): void {
    this.snapshot = reduce(this.snapshot, action);
    const state = stateOf(this.snapshot);
    const before = this.#state;
    if ((Object.keys(state) as (keyof State<unknown>)[]).every((name) => state[name] === before[name])) return;
    this.#state = state;
    for (const listener of [...this.listeners]) listener();
  }
}

interface Stream {
  readonly etags: ReadonlyMap<Query, string | null>;
  readonly events: ((world: PagesWorld) => void)[];
}

interface Mutation {
  readonly id: string;
  readonly effect: 'insert' | 'delete' | 'none' | 'refused';
  readonly row: string;
  phase: 'made' | 'sent' | 'executed' | 'over' | 'rejected' | 'lost';
  /** The commit that contains it; null if there is none. */
  commit: number | null;
}

export const MOVES = [
  'insert',
  'remove',
  'shift',
  'many',
  'request',
  'answer',
  'notify',
  'open',
  'cut',
  'more',
  'turn',
  'mutate',
  'send',
  'execute',
  'reply',
  'lose',
  'leave',
  'reorder',
] as const;

export interface Move {
  readonly name: (typeof MOVES)[number];
  readonly pick: number;
  readonly flag: boolean;
}

export class PagesWorld {
  readonly #read: Reading;
  /** Whether the server can say at which version an answer that has not changed, or a set, is the truth. */
  isPlaced: boolean;
  readonly #queries = new Map<string, Query>();
  readonly #list: Pages<Row>;
  readonly #lists = new Set<FollowedList>();
  #rows: readonly Ranked[] = [];
  /** Queries of places that the server does not know any more. */
  #refused: ReadonlySet<Query> = new Set();
  #isReordered = false;
  readonly #truth: (readonly string[])[] = [[]];
  #stream: Stream | null = null;
  #opening: Stream | null = null;
  #notifiedUpTo: number | null = null;
  readonly #mutations: Mutation[] = [];
  #tasks: (() => void)[] = [];
  #stop: () => void = () => {};
  #count = 0;
  #shownAt = 0;
  readonly #known = new Map<string, Row>();
  frames = 0;

  constructor({ Pages: List }: PagesModule, reading: Reading = read, isPlaced = true) {
    this.#read = reading;
    this.isPlaced = isPlaced;
    this.#list = new List<Row>(this.#host(), { path: 'rows', input: undefined }, LIMIT);
    for (let rank = 0; rank < 8; rank += 1) this.#insert(rank);
    this.#watch();
  }

  #host(): PagesHost {
    const world = this;
    return {
      entry: (name) => world.#query(name),
      keyOf: (name) => JSON.stringify(name),
      isKept: (name) => world.#queries.has(JSON.stringify(name)),
      watch: (name, listener) => {
        const query = world.#query(name);
        const own = (): void => listener();
        query.listeners.add(own);
        return () => query.listeners.delete(own);
      },
      tell: (query: Query, action) => query.dispatch(action),
      inherit: (query: Query, base) => world.#inherit(query, base),
      get notifiedUpTo() {
        return world.#version(world.#notifiedUpTo);
      },
      lists: world.#lists,
      soon: (act) => world.#tasks.push(act),
    };
  }

  #version(number: number | null): Version | null {
    return number === null ? null : parseVersion(`e:${number}`);
  }

  #query(name: QueryName): Query {
    const key = JSON.stringify(name);
    const query = this.#queries.get(key) ?? new Query(name.input as PlaceOfPage);
    this.#queries.set(key, query);
    return query;
  }

  #inherit(query: Query, { data, etag, version }: Base<unknown>): void {
    const outcome = { data, etag, version };
    if (newestOf(query.snapshot).data === undefined) query.dispatch({ type: 'restored', ...outcome });
    else query.dispatch({ type: 'shared', ...outcome, notifiedUpTo: this.#version(this.#notifiedUpTo) });
    query.isPaused = !query.snapshot.resolved && newestOf(query.snapshot).etag !== null;
  }

  #watch(): void {
    this.#stop = this.#list.watch(() => this.#check(this.#list.state));
    this.#check(this.#list.state);
  }

  /** Order the list by something else: no place of before is one any more, and each page would be another. */
  #reorder(): void {
    this.#isReordered = true;
    this.#refused = new Set([...this.#queries.values()].filter(({ place }) => place.after ?? place.until));
    for (const query of this.#refused) query.dispatch({ type: 'invalidated', version: null });
  }

  // -- moves

  step({ name, pick, flag }: Move): void {
    this.#do(name, pick, flag);
    if (flag) this.#turn();
    this.#checkNow();
  }

  #do(name: Move['name'], pick: number, flag: boolean): void {
    const rank = pick % 11;
    switch (name) {
      case 'insert':
        return this.#insert(rank);
      case 'remove':
        return this.#commit(this.#rows.toSpliced(pick % (this.#rows.length || 1), 1));
      case 'shift':
        return this.#commit(
          this.#rows.map((row, place) => (place === pick % this.#rows.length ? { ...row, rank } : row)),
        );
      case 'many': {
        const added = Array.from({ length: 7 }, () => this.#newRow(rank));
        const kept = this.#rows.filter((_, place) => place < rank || place > rank + 5);
        return this.#commit(flag ? kept : [...this.#rows, ...added]);
      }
      case 'request':
        return this.#request(pick);
      case 'answer':
        return this.#answer(pick, flag);
      case 'notify':
        return this.#notify();
      case 'open':
        return this.#open();
      case 'cut':
        return this.#cut();
      case 'more':
        return this.#list.state.loadMore();
      case 'turn':
        return this.#turn();
      case 'reorder':
        return this.#reorder();
      case 'mutate':
        return this.#mutate(pick);
      case 'leave':
        this.#stop();
        return this.#watch();
      default:
        return this.#advance(name, pick, flag);
    }
  }

  #newRow(rank: number): Ranked {
    this.#count += 1;
    return { id: `r${String(this.#count).padStart(3, '0')}`, rank };
  }

  #insert(rank: number): void {
    this.#commit([...this.#rows, this.#newRow(rank)]);
  }

  #commit(rows: readonly Ranked[]): void {
    const before = [...this.#queries.values()].map((query) => [query, this.#etag(query)] as const);
    this.#rows = rows.toSorted((one, other) => (isBehind(one, spelled(other)) ? 1 : -1));
    const version = this.#truth.push(this.#rows.map(({ id }) => id)) - 1;
    const changed = new Set(before.filter(([query, etag]) => this.#etag(query) !== etag).map(([query]) => query));
    for (const stream of [this.#stream, this.#opening]) {
      // A server says nothing of a commit that concerns none of the set: the cursor stays where it is.
      const concerned = [...changed].filter((query) => stream?.etags.has(query));
      if (concerned.length > 0) stream?.events.push((world) => world.#invalidated(concerned, version));
    }
  }

  #etag(query: Query): string {
    return JSON.stringify(this.#read(this.#rows, query.place));
  }

  #invalidated(changed: readonly Query[], number: number): void {
    this.#notifiedUpTo = number;
    const version = this.#version(number);
    for (const query of changed) {
      query.dispatch({ type: 'invalidated', version });
      query.isPaused = false;
    }
    for (const query of this.#queries.values())
      if (query.snapshot.ops.length > 0) query.dispatch({ type: 'advanced', version });
  }

  #request(pick: number): void {
    const due = [...this.#queries.values()].filter(
      (one) => one.snapshot.wanted && !one.request && one.listeners.size > 0 && !one.isPaused,
    );
    const query = due[pick % due.length];
    if (query === undefined) return;
    query.dispatch({ type: 'fetchStarted' });
    query.request = { answer: null };
  }

  /** Have the database read for a request, or bring its answer. */
  #answer(pick: number, isReading: boolean): void {
    const waiting = [...this.#queries.values()].filter(({ request }) => request !== null);
    const query = waiting[pick % waiting.length];
    if (!query?.request) return this.#request(pick);
    if (this.#refused.has(query)) {
      query.request = null;
      const error = new ReactiveError('BAD_REQUEST', 'no such place', { status: 400 });
      return query.dispatch({ type: 'fetchFailed', error, answered: true });
    }
    // What begins anew is given places of the new order; here those are spelled as before.
    if (query.place.until === undefined) this.#refused = new Set();
    const version = this.#truth.length - 1;
    query.request.answer ??= { page: this.#read(this.#rows, query.place), version };
    if (isReading) return;
    const { answer } = query.request;
    query.request = null;
    const etag = JSON.stringify(answer.page);
    const at = this.#version(answer.version);
    if (etag === query.snapshot.asked.etag) query.dispatch({ type: 'unchanged', version: this.isPlaced ? at : null });
    else query.dispatch({ type: 'fetched', data: query.share(null, answer.page), etag, version: at });
  }

  #notify(): void {
    const event = this.#stream?.events.shift();
    if (event !== undefined) event(this);
    else if (this.#opening !== null) this.#connect(this.#opening);
  }

  #open(): void {
    const watched = [...this.#queries.values()].filter(
      ({ listeners, snapshot }) => listeners.size > 0 && (snapshot.resolved || newestOf(snapshot).etag !== null),
    );
    const etags = new Map(watched.map((query) => [query, newestOf(query.snapshot).etag]));
    const version = this.#truth.length - 1;
    const stale = new Set(watched.filter((query) => this.#etag(query) !== etags.get(query)));
    this.#opening = { etags, events: [(world) => world.#connected(etags, stale, version)] };
  }

  #connect(stream: Stream): void {
    this.#stream = stream;
    this.#opening = null;
    stream.events.shift()?.(this);
  }

  #connected(etags: Stream['etags'], stale: ReadonlySet<Query>, number: number): void {
    this.#notifiedUpTo = number;
    for (const query of this.#queries.values()) {
      const sentEtag = etags.get(query);
      const about = {
        sentEtag: sentEtag ?? null,
        isStale: stale.has(query),
        version: this.#version(this.isPlaced ? number : null),
      };
      if (sentEtag === undefined) query.dispatch({ type: 'uncovered' });
      else for (const action of connectedActions(query.snapshot, about)) query.dispatch(action);
      if (sentEtag !== undefined) query.isPaused = false;
    }
  }

  #cut(): void {
    this.#stream = null;
    for (const query of this.#queries.values()) query.dispatch({ type: 'uncovered' });
  }

  #turn(): void {
    const tasks = this.#tasks;
    this.#tasks = [];
    for (const task of tasks) task();
  }

  // -- own mutations

  #mutate(pick: number): void {
    const effect = (['insert', 'insert', 'delete', 'none', 'refused'] as const)[pick % 5] ?? 'none';
    const id = `m${this.#mutations.length}`;
    const row = effect === 'delete' ? (this.#rows[pick % (this.#rows.length || 1)]?.id ?? '') : id;
    const mutation: Mutation = { id, effect, row, phase: 'made', commit: null };
    this.#mutations.push(mutation);
    const apply = (page: unknown): unknown => {
      const { items, next } = page as Page<Row>;
      return { items: folded(items, mutation), next };
    };
    for (const list of this.#lists) list.tell({ type: 'opMade', id, apply });
  }

  #advance(name: 'send' | 'execute' | 'reply' | 'lose', pick: number, flag: boolean): void {
    const from = { send: ['made'], execute: ['sent'], reply: ['executed'], lose: ['sent', 'executed'] }[name];
    // One after another, as the runtime sends those that show in the same list.
    const mutation = this.#mutations.find(({ phase }) => ['made', 'sent', 'executed'].includes(phase));
    if (mutation === undefined || !from.includes(mutation.phase)) return;
    const { id } = mutation;
    if (name === 'send') {
      mutation.phase = 'sent';
      this.#tell({ type: 'opSent', id });
    } else if (name === 'execute') this.#execute(mutation);
    else if (name === 'lose') {
      mutation.phase = 'lost';
      this.#tell({ type: 'opLost', id });
    } else if (mutation.effect === 'refused') {
      mutation.phase = 'rejected';
      this.#tell({ type: 'opRejected', id });
    } else {
      mutation.phase = 'over';
      const latest = this.#truth.length - 1;
      const at = flag ? null : pick % 2 === 0 ? latest : (mutation.commit ?? latest);
      this.#tell({ type: 'opAnswered', id, version: this.#version(at) });
    }
  }

  #tell(action: Action<unknown>): void {
    for (const list of this.#lists) list.tell(action);
  }

  #execute(mutation: Mutation): void {
    mutation.phase = 'executed';
    const { effect, row } = mutation;
    if (effect === 'insert') this.#commit([{ id: row, rank: -1 - this.#truth.length }, ...this.#rows]);
    if (effect === 'delete') this.#commit(this.#rows.filter(({ id }) => id !== row));
    if (effect === 'insert' || effect === 'delete') mutation.commit = this.#truth.length - 1;
  }

  // -- what shows

  #checkNow(): void {
    this.#check(this.#list.state);
  }

  #check(state: PagesState<Row>): void {
    const { rows } = state;
    if (rows === undefined && this.frames > 0 && state.error === null) throw new WrongError('nothing is no frame');
    if (rows === undefined) return;
    this.frames += 1;
    const ids = rows.map(({ id }) => id);
    if (new Set(ids).size < ids.length) throw new WrongError(`a row is shown twice: ${ids}`);
    const from = this.#shownAt;
    const found = this.#truth.findIndex((_, at) => at >= from && this.#wasTrue(ids, state, at));
    if (found < 0) throw new WrongError(`${ids} is no frame from ${from}`);
    this.#shownAt = found;
    if (!state.isStale && !state.isPending) this.#checkFresh(ids);
    // Who begins anew shows a first page of long ago, if it holds still.
    if (!this.#isReordered) this.#checkIdentity(rows);
  }

  /** Tell whether the truth at a version shows so, with those own mutations that it lacks. */
  #wasTrue(ids: readonly string[], { hasMore }: PagesState<Row>, at: number): boolean {
    const all = this.#truth[at] ?? [];
    const lacking = this.#mutations.filter(
      ({ phase, commit }) => phase !== 'rejected' && (commit === null || commit > at),
    );
    // Of one whose answer was lost, or that has changed nothing, only a later fetch tells.
    const sure = lacking.filter(({ phase, commit }) => commit !== null || (phase !== 'lost' && phase !== 'over'));
    return [lacking, sure].some((ops) =>
      prefixes(all, hasMore).some((items) => {
        const rows: readonly Row[] = items.map((id) => ({ id }));
        const shown = ops.reduce((now, op) => folded(now, op), rows);
        return shown.length === ids.length && shown.every(({ id }, place) => id === ids[place]);
      }),
    );
  }

  /** What is confirmed is the truth, or its event is on the way. */
  #checkFresh(ids: readonly string[]): void {
    if (this.#tasks.length > 0) return; // it has not looked yet
    if (this.#stream === null) throw new WrongError('is confirmed without a stream');
    if (this.#stream.events.length > 0 || this.#opening !== null) return;
    if (this.#truth.at(-1)?.slice(0, ids.length).join() !== ids.join()) throw new WrongError(`${ids} is confirmed`);
  }

  #checkIdentity(rows: readonly Row[]): void {
    const shown = new Map(rows.map((row) => [row.id, row]));
    for (const [id, row] of shown) {
      const before = this.#known.get(id);
      if (before !== undefined && before !== row && !id.startsWith('m'))
        throw new WrongError(`${id} is another object`);
    }
    this.#known.clear();
    for (const [id, row] of shown) this.#known.set(id, row);
  }

  /** Let everything happen that is still to happen: then the truth shows. */
  comeToRest(): void {
    for (let round = 0; round < 400 && this.#isRestless(); round += 1) {
      const next = this.#mutations.find(({ phase }) => ['made', 'sent', 'executed'].includes(phase))?.phase;
      if (next !== undefined) {
        const name = { made: 'send', sent: 'execute', executed: 'reply' }[next as 'made' | 'sent' | 'executed'];
        this.#do(name as Move['name'], 0, false);
      }
      const isUnwatched = [...this.#queries.values()].some(
        (query) => query.listeners.size > 0 && !query.snapshot.covered,
      );
      if (isUnwatched && this.#opening === null) this.#open();
      this.#notify();
      // By halves, or each second round would begin the same fetch.
      this.#answer(Math.floor(round / 2), false);
      this.#turn();
      this.#checkNow();
    }
    const { rows = [], hasMore, isStale, isPending, isLoadingMore } = this.#list.state;
    const ids = rows.map(({ id }) => id);
    const truth = this.#truth.at(-1) ?? [];
    const isRight = truth.slice(0, ids.length).join() === ids.join() && (hasMore || ids.length === truth.length);
    if (isStale || isPending || isLoadingMore || !isRight)
      throw new WrongError(`is not at rest: ${JSON.stringify({ ids, truth, isStale, isPending, isLoadingMore })}`);
  }

  #isRestless(): boolean {
    const { isStale, isPending, isLoadingMore, rows } = this.#list.state;
    if (this.#tasks.length > 0) return true; // it has not looked yet
    return isStale || isPending || isLoadingMore || rows === undefined || (this.#stream?.events.length ?? 0) > 0;
  }
}

function folded(rows: readonly Row[], { effect, row }: Mutation): readonly Row[] {
  if (effect === 'delete') return rows.filter(({ id }) => id !== row);
  return effect === 'insert' || effect === 'refused' ? [{ id: row }, ...rows] : rows;
}

/** Return what may be loaded of a list: all of it, if nothing follows; rows that followed may have been deleted. */
function prefixes(all: readonly string[], hasMore: boolean): (readonly string[])[] {
  return hasMore ? [...all.map((_, end) => all.slice(0, end)), all] : [all];
}
