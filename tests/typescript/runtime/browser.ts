/**
 * A browser and a server in memory: tabs with locks and channels that are closed, crash, freeze and hang when they are
 * told to. Everything happens in tasks of its own, one after another, and time passes by fake timers alone.
 */

import { QueryClient } from '@tanstack/query-core';
import { httpLink } from '@trpc/client';

import * as engine from '../../../reactive_rpc/typescript/runtime/engine.ts';
import * as gate from '../../../reactive_rpc/typescript/runtime/gate.ts';
import type { TabHost } from '../../../reactive_rpc/typescript/runtime/group.ts';
import * as links from '../../../reactive_rpc/typescript/runtime/links.ts';
import * as reactive from '../../../reactive_rpc/typescript/runtime/reactive.ts';
import * as rendering from '../../../reactive_rpc/typescript/runtime/rendering.ts';
import type { State } from '../../../reactive_rpc/typescript/runtime/state.ts';
import * as store from '../../../reactive_rpc/typescript/runtime/store.ts';
import * as tabs from '../../../reactive_rpc/typescript/runtime/tabs.ts';
import * as wire from '../../../reactive_rpc/typescript/runtime/wire.ts';

/** What pages are made of: the product's own modules, or mutants of them. */
export type Runtime = Pick<typeof engine, 'Engine'> &
  Pick<typeof gate, 'reactiveHeaders'> &
  Pick<typeof links, 'reactiveFetch'> &
  Pick<typeof reactive, 'createReactive' | 'LiveQuery'> &
  Pick<typeof rendering, 'dehydrateReactive'> &
  Pick<typeof store, 'Store'> &
  Pick<typeof tabs, 'Tabs'> &
  Pick<typeof wire, 'Wire'>;

const PRODUCT: Runtime = { ...engine, ...gate, ...links, ...reactive, ...rendering, ...store, ...tabs, ...wire };

/** How many tasks may pass before what is waited for counts as never coming. */
const PATIENCE_TASKS = 20_000;
/** After so many tasks without time passing, nothing is under way any more. */
const SETTLED_TASKS = 60;

export function task(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** Let everything that is under way happen, but for what waits for time. */
export async function settle(): Promise<void> {
  for (let count = 0; count < SETTLED_TASKS; count++) await task();
}

export async function until(holds: () => boolean): Promise<void> {
  for (let count = 0; !holds(); count++) {
    if (count > PATIENCE_TASKS) throw new Error(`never was ${holds}`);
    await task();
  }
}

/** What a query answers: how often it was written. */
export interface Row {
  readonly path: string;
  readonly count: number;
}

interface Asked {
  readonly path: string;
  readonly etag?: string;
}

interface Request {
  readonly queries?: readonly Asked[];
  readonly cursor?: string | null;
  readonly wait?: number;
}

/** A stream that is open at the server. */
class ServedStream {
  readonly tab: Tab;
  readonly paths: readonly string[];
  readonly body: ReadableStream<Uint8Array>;
  readonly #waiting: string[] = [];
  #controller: ReadableStreamDefaultController<Uint8Array> | null = null;

  constructor(tab: Tab, paths: readonly string[]) {
    this.tab = tab;
    this.paths = paths;
    this.body = new ReadableStream({
      start: (controller) => {
        this.#controller = controller;
      },
    });
  }

  say(event: string, data: object | string): void {
    this.#waiting.push(`event: ${event}\ndata: ${typeof data === 'string' ? data : JSON.stringify(data)}\n\n`);
    void this.#deliver();
  }

  break(): void {
    this.#controller?.error(new TypeError('the connection is gone'));
    this.#controller = null;
  }

  async #deliver(): Promise<void> {
    await this.tab.whenItRuns();
    const text = this.#waiting.shift();
    if (text !== undefined) this.#controller?.enqueue(new TextEncoder().encode(text));
  }
}

/** A server of queries whose results are how often they were written. */
export class MemoryServer {
  readonly streams = new Set<ServedStream>();
  readonly counts = new Map<string, number>();
  /** What queries answer in the place of their counts, as text of JSON. */
  readonly texts = new Map<string, string>();
  /** Every request, as `path` or `events`. */
  readonly asked: string[] = [];
  /** The status that requests are refused with; 0: nobody answers. */
  refusal: number | null = null;
  /** Called with the path of each request. */
  onAsked: (path: string) => void = () => {};
  readonly #changedAt = new Map<string, number>();
  /** Polls that wait for a change, or for the text of an event. */
  readonly #polls = new Set<(event?: string) => void>();
  #version = 1;
  #events = 0;

  write(path: string): void {
    this.#version += 1;
    this.counts.set(path, (this.counts.get(path) ?? 0) + 1);
    this.#changedAt.set(path, this.#version);
    for (const answer of this.#polls) answer();
    this.#polls.clear();
    const about = { cursor: `e:${this.#version}`, version: `e:${this.#version}`, event_id: `${++this.#events}` };
    for (const stream of this.streams) {
      if (stream.paths.includes(path)) stream.say('invalidation', { ...about, affected: [{ path, key: path }] });
    }
  }

  /** Write the text that a query answers, and push it to whoever listens. */
  push(path: string, text: string): void {
    this.texts.set(path, text);
    this.#version += 1;
    this.counts.set(path, (this.counts.get(path) ?? 0) + 1);
    const version = `"e:${this.#version}"`;
    const etag = JSON.stringify(this.#etag(path));
    const about = `"cursor":${version},"path":"${path}","key":"${path}","etag":${etag},"version":${version}`;
    const event = `{${about},"data":${text},"event_id":"${++this.#events}"}`;
    for (const answer of this.#polls) answer(event);
    this.#polls.clear();
    for (const stream of this.streams) if (stream.paths.includes(path)) stream.say('result', event);
  }

  truth(path: string): Row {
    return { path, count: this.counts.get(path) ?? 0 };
  }

  /** Break all connections, and answer nobody. */
  goDown(): void {
    this.refusal = 0;
    for (const stream of this.streams) this.#end(stream);
    for (const answer of this.#polls) answer();
    this.#polls.clear();
  }

  /** Break the connections of a tab that is gone. */
  forget(tab: Tab): void {
    for (const stream of this.streams) if (stream.tab === tab) this.#end(stream);
  }

  /** Answer a request of a tab. */
  async answer(tab: Tab, url: string, init: RequestInit): Promise<Response> {
    const path = url.replace(/^\/t?rpc\//, '');
    const { signal = null } = init;
    this.asked.push(path);
    this.onAsked(path);
    await tab.whenItRuns();
    await task();
    signal?.throwIfAborted();
    if (this.refusal === 0 || tab.isDead) throw new TypeError('Load failed');
    if (this.refusal !== null) return new Response('{}', { status: this.refusal });
    const body = JSON.parse(String(init.body ?? '{}')) as Request;
    if (path === 'events') {
      await tab.whenAnswersArrive();
      signal?.throwIfAborted();
      return this.#open(tab, body, signal);
    }
    if (path === 'events/ack') return new Response(null, { status: 204 });
    if (path === 'events/poll') return this.#poll(tab, body, signal);
    const etag = this.#etag(path);
    const about = { etag, version: `e:${this.#version}`, scope: tab.caller };
    const etags: Readonly<Record<string, string>> = JSON.parse(new Headers(init.headers).get('reactive-etags') ?? '{}');
    const text = this.texts.get(path);
    const told = JSON.stringify(etags[0] === etag ? { ...about, same: true } : { ...about, d: this.truth(path) });
    const isExact = new Headers(init.headers).has('reactive-exact');
    const exactly = `{"d":${isExact ? `${JSON.stringify(text)},"text":true` : text},${JSON.stringify(about).slice(1)}`;
    const answer = new Response(`{"result":{"data":${text === undefined || etags[0] === etag ? told : exactly}}}`);
    await tab.whenAnswersArrive();
    return answer;
  }

  #etag(path: string): string {
    return `"${path} ${this.truth(path).count}"`;
  }

  #connected(tab: Tab, { queries = [], cursor: from = null }: Request): object {
    const cursor = `e:${this.#version}`;
    const since = Number(from?.split(':')[1] ?? 0);
    const isStale = ({ path, etag }: Asked): boolean =>
      etag === undefined ? (this.#changedAt.get(path) ?? 1) > since : etag !== this.#etag(path);
    const stale = queries.filter(isStale).map(({ path }) => ({ path, key: path }));
    const paths = queries.map(({ path }) => path);
    return { stream: 's', cursor, version: cursor, scope: tab.caller, errors: [], queries: paths, stale };
  }

  /** Answer the first poll of a chain at once, and the next ones when something changes. */
  async #poll(tab: Tab, request: Request, signal: AbortSignal | null): Promise<Response> {
    let event: string | undefined;
    if ((request.wait ?? 0) > 0) {
      event = await new Promise<string | undefined>((resolve, reject) => {
        this.#polls.add(resolve);
        signal?.addEventListener('abort', () => reject(new TypeError('aborted')));
      });
      await tab.whenItRuns();
    }
    if (this.refusal !== null) throw new TypeError('Load failed');
    const data = this.#connected(tab, request);
    const results = event === undefined ? '' : `,{"event":"result","data":${event}}`;
    const connected = JSON.stringify({ event: 'connected', data });
    return new Response(`{"cursor":"e:${this.#version}","events":[${connected}${results}]}`);
  }

  #open(tab: Tab, request: Request, signal: AbortSignal | null): Response {
    const paths = (request.queries ?? []).map(({ path }) => path);
    const stream = new ServedStream(tab, paths);
    this.streams.add(stream);
    signal?.addEventListener('abort', () => this.#end(stream));
    stream.say('connected', this.#connected(tab, request));
    return new Response(stream.body, { headers: { 'content-type': 'text/event-stream' } });
  }

  #end(stream: ServedStream): void {
    this.streams.delete(stream);
    stream.break();
  }
}

interface LockRequest {
  readonly tab: Tab;
  readonly grant: () => void;
  readonly reject: (error: Error) => void;
}

/** The locks of a browser. */
export class MemoryLocks {
  readonly #held = new Map<string, LockRequest>();
  readonly #queues = new Map<string, LockRequest[]>();

  /** Return the locks, as a tab sees them. */
  of(tab: Tab): TabHost['locks'] {
    const request = (name: string, options: LockOptions, callback: (lock: Lock | null) => unknown): Promise<unknown> =>
      new Promise((resolve, reject) => {
        const grant = async (): Promise<void> => {
          await tab.whenItRuns();
          await callback({ name, mode: 'exclusive' });
          if (this.#held.get(name) === own) this.#release(name);
          resolve(undefined);
        };
        const rejected = async (error: Error): Promise<void> => {
          await tab.whenItRuns();
          reject(error);
        };
        const own: LockRequest = { tab, grant: () => void grant(), reject: (error) => void rejected(error) };
        const { signal, steal = false } = options;
        signal?.addEventListener('abort', () => this.#leave(name, own));
        if (steal) {
          this.#held.get(name)?.reject(new DOMException('stolen', 'AbortError'));
          this.#grant(name, own);
        } else {
          this.#queues.set(name, [...(this.#queues.get(name) ?? []), own]);
          if (!this.#held.has(name)) this.#next(name);
        }
      });
    const query = (): Promise<LockManagerSnapshot> =>
      Promise.resolve({ held: [...this.#held.keys()].map((name) => ({ name })), pending: [] });
    return { request: request as LockManager['request'], query };
  }

  /** Release everything of a tab that is gone. */
  forget(tab: Tab): void {
    for (const [name, queue] of this.#queues)
      this.#queues.set(
        name,
        queue.filter((one) => one.tab !== tab),
      );
    for (const [name, holder] of [...this.#held]) if (holder.tab === tab) this.#release(name);
  }

  #leave(name: string, own: LockRequest): void {
    const queue = this.#queues.get(name) ?? [];
    if (!queue.includes(own)) return;
    this.#queues.set(
      name,
      queue.filter((one) => one !== own),
    );
    own.reject(new DOMException('aborted', 'AbortError'));
  }

  #release(name: string): void {
    this.#held.delete(name);
    this.#next(name);
  }

  #next(name: string): void {
    const next = this.#queues.get(name)?.shift();
    if (next !== undefined) this.#grant(name, next);
  }

  #grant(name: string, own: LockRequest): void {
    this.#held.set(name, own);
    void task().then(own.grant);
  }
}

/** What the tabs of one browser share. */
export class MemoryBrowser {
  readonly runtime: Runtime;
  readonly server = new MemoryServer();
  readonly locks = new MemoryLocks();
  readonly tabs: Tab[] = [];
  readonly channels = new Map<string, Map<Tab, (data: unknown) => void>>();
  readonly storage = new Texts();
  /** What tabs have left for those that hear nothing. */
  readonly words = new Map<string, string>();

  constructor(runtime: Runtime = PRODUCT) {
    this.runtime = runtime;
  }

  open(options: TabSetting = {}): Tab {
    const tab = new Tab(this, options);
    this.tabs.push(tab);
    return tab;
  }

  /** The tabs that are there and run. */
  get running(): readonly Tab[] {
    return this.tabs.filter((tab) => !tab.isDead && tab.isRunning);
  }

  async post(name: string, from: Tab, message: unknown): Promise<void> {
    const data: unknown = structuredClone(message);
    if (from.isDead) return;
    for (const [tab, hear] of [...(this.channels.get(name) ?? [])]) {
      if (tab !== from) void tab.whenItHears().then(() => this.channels.get(name)?.get(tab) === hear && hear(data));
    }
  }

  /** Let time pass in all tabs that run: one tick of each, then what comes of it. */
  async tick(): Promise<void> {
    for (const tab of this.running) tab.engine.tick();
    await settle();
  }

  close(): void {
    for (const tab of this.tabs) if (!tab.isDead) tab.close();
  }
}

export class Texts implements store.KeyValueStorage {
  readonly texts = new Map<string, string>();

  get length(): number {
    return this.texts.size;
  }

  key(index: number): string | null {
    return [...this.texts.keys()][index] ?? null;
  }

  getItem(key: string): string | null {
    return this.texts.get(key) ?? null;
  }

  setItem(key: string, value: string): void {
    this.texts.set(key, value);
  }

  removeItem(key: string): void {
    this.texts.delete(key);
  }
}

export interface TabSetting
  extends Partial<Pick<engine.EngineOptions, 'onSignedOut' | 'onUnauthorized' | 'transport' | 'acks' | 'codecs'>> {
  readonly caller?: string;
  readonly identity?: string;
  readonly isHidden?: boolean;
  readonly hasLocks?: boolean;
  readonly isStored?: boolean;
  /** When the code that hears of changes is there. */
  readonly arrives?: Promise<void>;
  /** Whether it can be loaded. */
  readonly isReachable?: () => boolean;
}

/** A tab with one page. */
export class Tab {
  caller: string;
  isHidden: boolean;
  isDead = false;
  /** Its tasks, timers and requests stand still; messages are heard. */
  isFrozen = false;
  /** Nothing of it runs. */
  isHung = false;
  /** Its network is slow: what the server has answered is under way, and so is what asks for a stream. */
  isStalled = false;
  readonly engine: engine.Engine;
  /** Everything that each query has shown. */
  readonly frames = new Map<string, State<Row>[]>();
  readonly #browser: MemoryBrowser;
  readonly #stops = new Map<string, () => void>();
  #runs: (() => void)[] = [];

  constructor(browser: MemoryBrowser, setting: TabSetting) {
    const { caller = 'ada', identity = null, isHidden = false, hasLocks = true, isStored = false, ...others } = setting;
    const { arrives, isReachable = () => true, ...about } = others;
    this.#browser = browser;
    this.caller = caller;
    this.isHidden = isHidden;
    const word = (name: string, said?: string): string | null => {
      if (said !== undefined) browser.words.set(name, said);
      return browser.words.get(name) ?? null;
    };
    const own: tabs.Browser = { isHidden: () => this.isHidden, nextTask: () => this.whenItRuns(), word };
    const shared: TabHost & tabs.Browser = {
      ...own,
      locks: browser.locks.of(this),
      openChannel: (name, onMessage) => {
        const members = browser.channels.get(name) ?? new Map<Tab, (data: unknown) => void>();
        browser.channels.set(name, members.set(this, onMessage));
        const close = (): void => void (members.get(this) === onMessage && members.delete(this));
        return { postMessage: (message) => void browser.post(name, this, message), close };
      },
    };
    const fetch = ((url: string, init: RequestInit) =>
      browser.server.answer(this, url, init)) as typeof globalThis.fetch;
    const schedule = (write: () => void): (() => void) => {
      write();
      return () => {};
    };
    const { Engine, Store, Tabs, Wire, reactiveFetch, reactiveHeaders } = browser.runtime;
    const sent = { url: '/trpc', fetch: reactiveFetch(fetch), headers: reactiveHeaders };
    const kept = isStored ? new Store({ storage: () => browser.storage, identity, buster: '', schedule }) : null;
    this.engine = new Engine({
      client: new QueryClient(),
      wire: { url: '/', fetch },
      // No batches: a timer gathers them, and time stands still here.
      links: [httpLink({ ...sent, methodOverride: 'POST' })],
      store: kept,
      load: async () => {
        await arrives;
        if (!isReachable()) throw new TypeError('the chunk is gone');
        const wire = new Wire({ url: '/', fetch });
        return { listen: (options) => new Tabs({ ...options, wire }, hasLocks ? shared : own, identity) };
      },
      ...about,
    });
  }

  get isRunning(): boolean {
    return !this.isFrozen && !this.isHung && !this.isDead;
  }

  /** How many streams this tab has at the server. */
  get streams(): number {
    return [...this.#browser.server.streams].filter((stream) => stream.tab === this).length;
  }

  show(path: string): void {
    if (this.#stops.has(path)) return;
    const frames: State<Row>[] = [];
    this.frames.set(path, frames);
    const query = new this.#browser.runtime.LiveQuery<Row>(this.engine, { path, input: undefined });
    this.#stops.set(
      path,
      query.subscribe((state) => frames.push(state)),
    );
  }

  hide(path: string): void {
    this.#stops.get(path)?.();
    this.#stops.delete(path);
  }

  get shown(): readonly string[] {
    return [...this.#stops.keys()];
  }

  now(path: string): State<Row> | undefined {
    return this.frames.get(path)?.at(-1);
  }

  /** Whether the query shows the truth of now, and says so. */
  isRight(path: string): boolean {
    const now = this.now(path);
    return now !== undefined && !now.isStale && now.data?.count === this.#browser.server.truth(path).count;
  }

  close(): void {
    this.engine.close();
    this.#die();
  }

  crash(): void {
    this.#die();
    // What is left of it in this process says nothing any more.
    this.engine.close();
  }

  #die(): void {
    this.isDead = true;
    for (const members of this.#browser.channels.values()) members.delete(this);
    this.#browser.locks.forget(this);
    this.#browser.server.forget(this);
  }

  /** Let everything go on. */
  wake(): void {
    this.isFrozen = this.isHung = this.isStalled = false;
    for (const run of this.#runs.splice(0)) run();
  }

  async whenItRuns(): Promise<void> {
    await task();
    while (this.isFrozen || this.isHung) await new Promise<void>((resolve) => this.#runs.push(resolve));
  }

  async whenAnswersArrive(): Promise<void> {
    await this.whenItRuns();
    while (this.isStalled) await new Promise<void>((resolve) => this.#runs.push(resolve));
  }

  async whenItHears(): Promise<void> {
    await task();
    while (this.isHung) await new Promise<void>((resolve) => this.#runs.push(resolve));
  }
}
