/**
 * Random games of mutations that wait: real queues of several tabs over one storage, and a server that honours
 * idempotency keys for a day. Tabs crash between any two steps, answers are lost, callers change, time passes. Each
 * mutation is made once at most, in order, and is confirmed, told of as not made, or still stored; at rest nothing waits.
 */

import { QueryClient } from '@tanstack/query-core';
import fc from 'fast-check';
import { vi } from 'vitest';

import * as errors from '../../../reactive_rpc/typescript/runtime/errors.ts';
import type { MutationHost, MutationTarget } from '../../../reactive_rpc/typescript/runtime/mutations.ts';
import type { EngineOfQueue, QueuePlace } from '../../../reactive_rpc/typescript/runtime/offline.ts';
import * as queues from '../../../reactive_rpc/typescript/runtime/queue.ts';
import { settle, Texts, task } from './browser.ts';

/** What the games play: the product's own modules, or mutants of them. */
export type QueueModules = Pick<typeof queues, 'queue'> & Pick<typeof errors, 'ReactiveError'>;

const PRODUCT: QueueModules = { ...queues, ...errors };
const MAX_MOVES = 25;
const MAX_TABS = 3;
const DAY_MS = 24 * 3600 * 1000;
const ROUND_MS = 20_000;
const ROUNDS_TO_REST = 12;

const NOTHING = { etag: null, version: null, isStale: false, scope: null, isTransformed: false };
const SHOWN = { path: 'a.b', update: (data: unknown) => data };

export class WrongQueueError extends Error {
  override readonly name = 'WrongQueueError';
}

const MOVES = {
  add: 8,
  addUnwelcome: 2,
  up: 3,
  down: 3,
  loseAnswers: 3,
  run: 2,
  refuse: 2,
  forbid: 2,
  challenge: 1,
  offline: 2,
  online: 2,
  open: 1,
  close: 1,
  crash: 4,
  suspend: 1,
  resume: 2,
  nudge: 2,
  pass: 2,
  passDay: 1,
  setBack: 1,
  fill: 1,
  empty: 1,
  swap: 1,
  logOut: 1,
};

type MoveName = keyof typeof MOVES;

export interface QueueMove {
  readonly name: MoveName;
  readonly pick: number;
  /** How many tasks may pass before the next move; null: all that are under way. */
  readonly tasks: number | null;
}

export interface QueueGame {
  readonly moves: readonly QueueMove[];
  /** If not, locks keep nobody out: what holds then holds by the keys alone. */
  readonly isLocked: boolean;
}

const NAMES = (Object.keys(MOVES) as MoveName[]).flatMap((name) => Array<MoveName>(MOVES[name]).fill(name));
const move: fc.Arbitrary<QueueMove> = fc.record({
  name: fc.constantFrom(...NAMES),
  pick: fc.nat(11),
  tasks: fc.option(fc.nat(8), { freq: 2 }),
});

/** A page ends while it takes in a refusal, and the server thinks otherwise later. */
const REFUSED = ['crash', 'forbid', 'add', 'up', 'open'] as const;
const round = fc.tuple(...REFUSED.map((name) => move.map((one) => ({ ...one, name }))));

export const queueGames: fc.Arbitrary<QueueGame> = fc.record({
  moves: fc.oneof(
    { weight: 4, arbitrary: fc.array(move, { minLength: 5, maxLength: MAX_MOVES }) },
    { weight: 1, arbitrary: fc.array(round, { minLength: 1, maxLength: 3 }).map((rounds) => rounds.flat()) },
  ),
  isLocked: fc.oneof({ weight: 4, arbitrary: fc.constant(true) }, { weight: 1, arbitrary: fc.constant(false) }),
});

/** Play one game to its end. */
export async function playQueue(game: QueueGame, modules: QueueModules = PRODUCT): Promise<void> {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'], now: 1_800_000_000_000 });
  const world = new QueueWorld(modules, game);
  try {
    for (const one of game.moves) await world.step(one);
    await world.comeToRest();
  } finally {
    world.close();
    await settle();
    vi.useRealTimers();
  }
}

interface Made {
  readonly key: string;
  readonly owner: string;
  /** The caller's promise was answered. */
  isConfirmed: boolean;
  isDiscarded: boolean;
  /** What tabs have told of it. */
  readonly told: string[];
}

interface Request {
  readonly path: string;
  readonly json: unknown;
  readonly key: string;
  readonly scope: string | null;
}

/** A server that makes each key once, and forgets it after a day. */
class KeyedServer {
  mode: 'up' | 'down' | 'losing' | 'refusing' | 'forbidding' | 'challenging' = 'up';
  /** Calls that run for a while before they are made. */
  isSlow = false;
  readonly made: { readonly key: string; readonly owner: string; readonly caller: string }[] = [];
  readonly #known = new Map<string, number>();
  readonly #running = new Set<string>();
  readonly #modules: QueueModules;

  constructor(modules: QueueModules) {
    this.#modules = modules;
  }

  async answer({ path, json, key, scope }: Request, caller: string): Promise<number> {
    await task();
    if (this.mode === 'down') throw this.#error(0, 'CONNECTION_FAILED');
    if (this.mode === 'refusing') throw this.#error(503, 'SERVICE_UNAVAILABLE');
    if (this.mode === 'challenging') throw this.#error(401, 'UNAUTHORIZED');
    if (scope !== null && scope !== `scope of ${caller}`)
      throw this.#error(412, 'PRECONDITION_FAILED', { caller: 'another' });
    if (path === 'too.large') throw this.#error(413);
    if (this.mode === 'forbidding') throw this.#error(403);
    const known = this.#known.get(key) ?? -Infinity;
    if (Date.now() - known >= DAY_MS) await this.#make(key, String(json), caller);
    await task();
    if (this.mode === 'losing') throw this.#error(0, 'CONNECTION_FAILED');
    return this.made.findIndex((one) => one.key === key);
  }

  async #make(key: string, owner: string, caller: string): Promise<void> {
    if (this.#running.has(key)) throw this.#error(409, 'CONFLICT', { retry: true });
    this.#running.add(key);
    if (this.isSlow) for (let count = 0; count < 20; count++) await task();
    this.#running.delete(key);
    this.made.push({ key, owner, caller });
    this.#known.set(key, Date.now());
  }

  #error(status: number, code = 'REFUSED', details: unknown = null): Error {
    return new this.#modules.ReactiveError(code, `answered ${status}`, { status, details });
  }
}

/** A tab; from the step at which it crashes on, nothing of it has an effect. */
class QueueTab {
  readonly queue: queues.Queue;
  readonly owner: string;
  /** How many steps it does before it crashes. */
  stepsLeft = Infinity;
  isDead = false;
  isSuspended = false;
  /** What was said last of each mutation that shows. */
  readonly shown = new Map<string, string>();
  readonly #target = { lastMutation: Promise.resolve(), snapshot: { covered: false } } as never;
  readonly #world: QueueWorld;

  constructor(world: QueueWorld) {
    this.#world = world;
    this.owner = world.caller;
    this.queue = world.modules.queue({
      mutations: { 'a.b': true, 'too.large': true } as object,
      onRejected: (mutation, error) => {
        const { key, mayBeMade } = mutation as { readonly key: string; readonly mayBeMade: boolean };
        this.#step(() => world.hearRejected(key, error.code, mayBeMade), undefined);
      },
    })(this.#engine(), this.#place(), this.#shows()) as queues.Queue;
  }

  die(): void {
    if (this.isDead) return;
    this.isDead = true;
    this.#world.forget(this);
  }

  #engine(): EngineOfQueue {
    const world = this.#world;
    return {
      scope: `scope of ${this.owner}`,
      get status() {
        return { isOnline: world.isOnline, stream: 'idle' as const };
      },
      client: new QueryClient(),
      calls: {
        mutate: async (path, json, { key = '', scope = null } = {}) => {
          const sent = this.#step(() => world.server.answer({ path, json, key, scope }, world.caller), null);
          const made = await (sent ?? forever());
          return this.isDead ? forever() : { ...NOTHING, json: made };
        },
      },
      reidentify: () => {
        this.#step(() => world.hearAnother(this), undefined);
        this.queue.reidentify(true);
      },
      count: () => {},
      onStatus: () => () => {},
    };
  }

  #shows(): MutationHost<MutationTarget> {
    return {
      targetsOf: () => [this.#target],
      dispatch: (_, action) => {
        if ('id' in action) this.shown.set(action.id, action.type);
      },
      notifiedUpTo: null,
    };
  }

  #place(): QueuePlace {
    const world = this.#world;
    return {
      identity: this.owner,
      storage: this.#storage(),
      browser: {
        locks: { request: this.#request as LockManager['request'], query: () => Promise.reject(new Error()) },
        openChannel: (name, onMessage) => world.openChannel(this, name, onMessage),
      },
    };
  }

  /** Do a step that others can see, unless the tab has crashed. */
  #step<T>(act: () => T, otherwise: T): T {
    if (this.stepsLeft-- <= 0) this.die();
    return this.isDead ? otherwise : act();
  }

  post(act: () => void): void {
    this.#step(act, undefined);
  }

  #storage(): Texts {
    const { storage } = this.#world;
    return {
      texts: storage.texts,
      get length(): number {
        return storage.length;
      },
      key: (index) => storage.key(index),
      getItem: (name) => storage.getItem(name),
      setItem: (name, text) =>
        this.#step(() => {
          if (this.#world.isFull && !storage.texts.has(name)) throw new DOMException('', 'QuotaExceededError');
          storage.setItem(name, text);
        }, undefined),
      removeItem: (name) => this.#step(() => storage.removeItem(name), undefined),
    };
  }

  readonly #request = (name: string, { signal }: LockOptions, callback: () => Promise<unknown>): Promise<unknown> =>
    this.#world.lock(this, name, signal as AbortSignal, callback);
}

interface Lock {
  readonly tab: QueueTab;
  readonly name: string;
  grant: () => void;
}

class QueueWorld {
  readonly modules: QueueModules;
  readonly storage = new Texts();
  readonly server: KeyedServer;
  caller = 'ada';
  isOnline = true;
  isFull = false;
  readonly #isLocked: boolean;
  #tabs: QueueTab[] = [];
  #locks: Lock[] = [];
  readonly #channels: { readonly tab: QueueTab; readonly name: string; hear(data: unknown): void }[] = [];
  /** By their keys, in the order they were made. */
  readonly #all = new Map<string, Made>();
  #count = 0;
  /** A day has passed: what was sent before is told of as unknown. */
  #isTimeOff = false;
  /** A tab may have removed one, and had no time to tell. */
  #hasCrashed = false;
  #wrong: string | null = null;

  constructor(modules: QueueModules, { isLocked }: QueueGame) {
    this.modules = modules;
    this.server = new KeyedServer(modules);
    this.#isLocked = isLocked;
    this.#open();
    this.#open();
  }

  async step({ name, pick, tasks }: QueueMove): Promise<void> {
    const tab = this.#tabs[pick % Math.max(1, this.#tabs.length)];
    // No request is under way for a day, and no message for seconds.
    if (name === 'passDay' || name === 'pass') await settle();
    this.#moves[name](tab, pick);
    for (let count = 0; tasks !== null && count < tasks; count++) await task();
    if (tasks === null) await settle();
    this.#check();
  }

  async comeToRest(): Promise<void> {
    this.server.mode = 'up';
    this.server.isSlow = this.isFull = false;
    this.isOnline = true;
    for (const tab of this.#tabs) {
      tab.stepsLeft = Infinity;
      tab.isSuspended = false;
      tab.queue.resume();
    }
    if (this.#tabs.length === 0) this.#open();
    for (let round = 0; round < ROUNDS_TO_REST; round++) {
      for (const tab of this.#tabs) tab.queue.nudge();
      await this.#pass(ROUND_MS);
    }
    this.#check();
    const waiting = [...this.storage.texts].filter(([name]) =>
      this.#tabs.some(({ owner }) => name.startsWith(`rx:${owner}:out:`)),
    );
    if (waiting.length > 0) this.#fail('at rest, something waits');
    for (const one of this.#all.values()) {
      const isStored = [...this.storage.texts.values()].some((text) => text.includes(`"${one.key}"`));
      if (isStored || one.isDiscarded || one.told.length > 0 || this.#isMade(one.key)) continue;
      this.#fail(`${one.key} is lost without a word`);
    }
    for (const tab of this.#tabs) {
      if (tab.queue.size > 0) this.#fail('at rest, a tab counts something');
      const isOver = (said: string): boolean => ['opAnswered', 'opRejected', 'opLost'].includes(said);
      if (![...tab.shown.values()].every(isOver)) this.#fail('at rest, something shows');
    }
  }

  close(): void {
    for (const tab of this.#tabs) {
      tab.queue.close();
      tab.die();
    }
  }

  // -- what tabs do

  openChannel(
    tab: QueueTab,
    name: string,
    hear: (data: unknown) => void,
  ): { postMessage(data: unknown): void; close(): void } {
    const member = { tab, name, hear };
    this.#channels.push(member);
    const close = (): void => void this.#channels.splice(this.#channels.indexOf(member) >>> 0, 1);
    const post = (data: unknown): void => {
      for (const other of [...this.#channels]) {
        if (other.tab === tab || other.name !== name) continue;
        void task().then(() => {
          if (this.#channels.includes(other) && !other.tab.isDead && !other.tab.isSuspended) other.hear(data);
        });
      }
    };
    return { postMessage: (data) => tab.post(() => post(structuredClone(data))), close };
  }

  async lock(tab: QueueTab, name: string, signal: AbortSignal, act: () => Promise<unknown>): Promise<unknown> {
    if (tab.isDead) return forever();
    if (!this.#isLocked) return act();
    const own = { tab, name, grant: () => {} };
    await new Promise<void>((resolve, reject) => {
      own.grant = () => void task().then(resolve);
      this.#locks.push(own);
      if (this.#locksOf(name)[0] === own) own.grant();
      signal.addEventListener('abort', () => {
        if (this.#locksOf(name).indexOf(own) <= 0) return;
        this.#locks = this.#locks.filter((one) => one !== own);
        reject(new DOMException('aborted', 'AbortError'));
      });
    });
    try {
      return await (tab.isDead ? forever() : act());
    } finally {
      this.#release(own);
    }
  }

  #locksOf(name: string): readonly Lock[] {
    return this.#locks.filter((one) => one.name === name);
  }

  #release(lock: Lock): void {
    const isHeld = this.#locksOf(lock.name)[0] === lock;
    this.#locks = this.#locks.filter((one) => one !== lock);
    if (isHeld) this.#locksOf(lock.name)[0]?.grant();
  }

  forget(tab: QueueTab): void {
    // Those that wait first: none of them is to be granted what another of the same tab holds.
    for (const lock of this.#locks.toReversed()) if (lock.tab === tab) this.#release(lock);
    this.#tabs = this.#tabs.filter((one) => one !== tab);
  }

  hearRejected(key: string, code: string, mayBeMade: boolean): void {
    const one = this.#all.get(key);
    one?.told.push(mayBeMade ? 'MAYBE' : code);
    const isUnknown = this.#isTimeOff || this.#hasCrashed || one?.isDiscarded === true;
    if (code !== 'REFUSED' && !(code === 'OUTCOME_UNKNOWN' && isUnknown))
      this.#wrong ??= `${key} was given up: ${code}`;
  }

  /** The server has said that somebody else calls: all that waits of the former is gone. */
  hearAnother(tab: QueueTab): void {
    if (this.#tabs.includes(tab)) this.#discard(tab.owner);
  }

  // -- moves

  readonly #moves: Record<MoveName, (tab: QueueTab | undefined, pick: number) => void> = {
    add: (tab) => this.#add(tab, 'a.b'),
    addUnwelcome: (tab) => this.#add(tab, 'too.large'),
    up: () => {
      this.server.mode = 'up';
      this.server.isSlow = false;
    },
    down: () => this.#become('down'),
    loseAnswers: () => this.#become('losing'),
    refuse: () => this.#become('refusing'),
    forbid: () => this.#become('forbidding'),
    challenge: () => this.#become('challenging'),
    run: () => {
      this.server.isSlow = true;
    },
    offline: () => {
      this.isOnline = false;
    },
    online: () => {
      this.isOnline = true;
      for (const tab of this.#tabs) tab.queue.nudge();
    },
    open: () => {
      if (this.#tabs.length < MAX_TABS) this.#open();
    },
    close: (tab) => {
      tab?.queue.close();
      tab?.die();
    },
    crash: (tab, pick) => {
      if (tab) tab.stepsLeft = pick;
      this.#hasCrashed = true;
    },
    suspend: (tab) => {
      tab?.queue.suspend();
      if (tab) tab.isSuspended = true;
    },
    resume: (tab) => {
      if (tab) tab.isSuspended = false;
      tab?.queue.resume();
    },
    nudge: (tab) => tab?.queue.nudge(),
    pass: () => void vi.advanceTimersByTime(ROUND_MS),
    passDay: () => {
      this.#isTimeOff = true;
      vi.setSystemTime(Date.now() + DAY_MS);
    },
    setBack: () => void vi.setSystemTime(Date.now() - 10_000),
    fill: () => {
      this.isFull = true;
    },
    empty: () => {
      this.isFull = false;
    },
    swap: () => this.#swap(),
    logOut: (tab) => this.#logOut(tab),
  };

  #become(mode: KeyedServer['mode']): void {
    this.server.mode = mode;
  }

  #add(tab: QueueTab | undefined, path: string): void {
    if (tab === undefined || tab.isSuspended) return;
    const key = `key ${++this.#count}`;
    const made: Made = { key, owner: tab.owner, isConfirmed: false, isDiscarded: false, told: [] };
    const before = this.storage.length;
    const done = tab.queue.add(path, tab.owner, [SHOWN], { key });
    // It was not taken, or the tab crashed before it was.
    if (done === null || this.storage.length === before) return void done?.catch(() => {});
    this.#all.set(key, made);
    done.then(
      () => {
        made.isConfirmed = true;
        if (!tab.isDead && !this.#isMade(key)) this.#wrong ??= `${key} is confirmed, and was not made`;
      },
      (error) => {
        // Its tab has heard only now that the caller is gone.
        if (error.code === 'ABORTED') made.isDiscarded = true;
      },
    );
  }

  /** Somebody else's session is in the place of the former's, and no page knows. */
  #swap(): void {
    this.caller = this.caller === 'ada' ? 'grace' : 'ada';
    for (const tab of this.#tabs) tab.queue.nudge();
  }

  /** The caller logs out in one tab; all pages are loaded again, for another one. */
  #logOut(tab: QueueTab | undefined): void {
    if (tab === undefined || tab.isSuspended) return;
    tab.queue.reidentify(true);
    this.#discard(tab.owner);
    if (!tab.isDead && [...this.storage.texts.keys()].some((name) => name.startsWith(`rx:${tab.owner}:out:`)))
      this.#fail('after a logout, something of the caller is left');
    for (const one of [...this.#tabs]) {
      one.queue.close();
      one.die();
    }
    this.caller = this.caller === 'ada' ? 'grace' : 'ada';
    this.#open();
  }

  /** Open a page, whose caller may be another one than before. */
  #open(): void {
    this.#tabs.push(new QueueTab(this));
    const isOthers = (name: string): boolean => !name.startsWith(`rx:${this.caller}:out:`);
    if ([...this.storage.texts.keys()].some(isOthers)) this.#fail('the next caller can read what waits of the former');
    for (const one of this.#all.values()) if (one.owner !== this.caller) one.isDiscarded = true;
  }

  #discard(owner: string): void {
    for (const one of this.#all.values()) if (one.owner === owner) one.isDiscarded = true;
  }

  async #pass(milliseconds: number): Promise<void> {
    await settle();
    vi.advanceTimersByTime(milliseconds);
    await settle();
  }

  // -- what must hold

  #isMade(key: string): boolean {
    return this.server.made.some((one) => one.key === key);
  }

  #check(): void {
    if (this.#wrong !== null) this.#fail(this.#wrong);
    const keys = this.server.made.map(({ key }) => key);
    if (new Set(keys).size < keys.length) this.#fail(`made twice: ${keys}`);
    const order = [...this.#all.keys()];
    const places = keys.map((key) => order.indexOf(key)).filter((place) => place >= 0);
    const isOrdered = places.every((place, index) => place > (places[index - 1] ?? -1));
    if (!isOrdered && this.#isLocked) this.#fail(`made in another order: ${keys}`);
    for (const { key, owner, caller } of this.server.made) {
      if (owner !== caller) this.#fail(`${key} of ${owner} was made by ${caller}`);
      const isTold = this.#all.get(key)?.told.some((code) => code !== 'MAYBE') ?? false;
      // Of two who send at once, one may be refused, and the other not: which is why there are locks.
      if (isTold && this.#isLocked) this.#fail(`${key} was made, and told of as rejected`);
    }
  }

  #fail(what: string): never {
    throw new WrongQueueError(what);
  }
}

function forever<T>(): Promise<T> {
  return new Promise(() => {});
}
