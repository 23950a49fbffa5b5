/** A TeamHub that another process serves: callers of it, and a way to it that can be cut. */

import { connect, createServer, type Server, type Socket } from 'node:net';

import {
  createReactive,
  type KeyValueStorage,
  type Reactive,
  type ReactiveOptions,
} from '../../../reactive_rpc/typescript/runtime/index.ts';
import type { Page } from '../../../reactive_rpc/typescript/runtime/intervals.ts';
import { PATIENCE_MS } from '../support/patience.ts';

export const URL_OF_SERVER = process.env['TEAMHUB_URL'] ?? '';
const PASSWORD = 'teamhub';

export interface Agent {
  readonly id: string;
  readonly name: string;
  readonly role: string;
}

export interface Message {
  readonly id: string;
  readonly body: string;
}

interface MessagesInput {
  readonly agent_id: string;
  readonly after?: string | null;
  readonly until?: string | null;
  readonly limit?: number;
}

interface Kind<K extends string, Input, Output> {
  readonly kind: K;
  readonly input: Input;
  readonly output: Output;
}

export interface TeamHub {
  'agents.get_all': Kind<'query', undefined, readonly Agent[]>;
  'agents.get_one': Kind<'query', { readonly agent_id: string }, Agent>;
  'messages.get_after': Kind<'query', { readonly agent_id: string }, readonly Message[]>;
  'messages.get_all': Kind<'query', MessagesInput, Page<Message>>;
  'agents.create': Kind<'mutation', { readonly name: string; readonly role: string }, Agent>;
  'agents.update': Kind<'mutation', { readonly agent_id: string; readonly name?: string }, Agent>;
  'agents.delete': Kind<'mutation', { readonly agent_id: string }, unknown>;
  'messages.send': Kind<'mutation', { readonly from_agent_id: string; readonly body: string }, Message>;
}

/** Somebody who is logged in: they call the server without the runtime. */
export class Caller {
  readonly email: string;
  readonly #token: string;

  private constructor(email: string, token: string) {
    this.email = email;
    this.#token = token;
  }

  static async logIn(email: string): Promise<Caller> {
    const body = new URLSearchParams({ username: email, password: PASSWORD });
    const { access_token }: { access_token: string } = await bodyOf(
      await fetch(`${URL_OF_SERVER}/login`, { method: 'POST', body }),
    );
    return new Caller(email, access_token);
  }

  get headers(): Readonly<Record<string, string>> {
    return { authorization: `Bearer ${this.#token}` };
  }

  async call<T>(path: string, input: object): Promise<T> {
    const headers = { ...this.headers, 'content-type': 'application/json' };
    return bodyOf(
      await fetch(`${URL_OF_SERVER}/rpc/${path}`, { method: 'POST', headers, body: JSON.stringify(input) }),
    );
  }

  /** Add an agent that no other test touches. */
  newAgent(): Promise<Agent> {
    return this.call('agents.create', { name: 'Test', role: 'tester' });
  }
}

async function bodyOf<T>(response: Response): Promise<T> {
  if (!response.ok) throw new Error(`${response.url}: ${response.status} ${await response.text()}`);
  return response.json() as Promise<T>;
}

/** A `fetch` that counts what it is asked for: `{ 'messages.get_after': 2, events: 1 }`. */
export class Counter {
  readonly counts: Record<string, number> = {};
  readonly urls: string[] = [];
  readonly #look: (init: RequestInit | undefined) => void;

  constructor(look: (init: RequestInit | undefined) => void = () => {}) {
    this.#look = look;
  }

  readonly fetch: typeof fetch = (input, init) => {
    this.urls.push(String(input));
    this.#look(init);
    for (const path of pathsOf(input)) this.counts[path] = (this.counts[path] ?? 0) + 1;
    return fetch(input, init);
  };
}

/** Return the paths that a request calls: a batch names all of its calls. */
function pathsOf(input: Parameters<typeof fetch>[0]): string[] {
  return new URL(String(input)).pathname.replace(/^\/(rpc|trpc)\//, '').split(',');
}

/** A `fetch` that lets the requests of one procedure wait until it is opened, and counts them. */
export class Gate {
  readonly inputs: unknown[] = [];
  /** The queries of each stream. */
  readonly streams: unknown[][] = [];
  underWay = 0;
  /** The most that were under way at once. */
  most = 0;
  aborted = 0;
  readonly #path: string;
  readonly #opened: Promise<void>;
  readonly open: () => void;

  constructor(path: string, isOpen = false) {
    this.#path = path;
    let open = (): void => {};
    this.#opened = new Promise((resolve) => (open = resolve));
    this.open = open;
    if (isOpen) open();
  }

  get asked(): number {
    return this.inputs.length;
  }

  readonly fetch: typeof fetch = async (input, init) => {
    const paths = pathsOf(input);
    if (paths[0] === 'events') this.streams.push(JSON.parse(String(init?.body)).queries);
    const calls = paths.filter((path) => path === this.#path).length;
    if (calls === 0) return fetch(input, init);
    const inputs: Readonly<Record<number, unknown>> = JSON.parse(String(init?.body));
    this.inputs.push(...paths.flatMap((path, index) => (path === this.#path ? [inputs[index]] : [])));
    this.underWay += calls;
    this.most = Math.max(this.most, this.underWay);
    try {
      await Promise.race([this.#opened, new Promise((_, reject) => init?.signal?.addEventListener('abort', reject))]);
      return await fetch(input, init);
    } catch (error) {
      this.aborted += calls;
      throw error;
    } finally {
      this.underWay -= calls;
    }
  };
}

/** Storage in memory. */
export class Memory implements KeyValueStorage {
  readonly #items = new Map<string, string>();
  get length(): number {
    return this.#items.size;
  }
  key(index: number): string | null {
    return [...this.#items.keys()][index] ?? null;
  }
  getItem(key: string): string | null {
    return this.#items.get(key) ?? null;
  }
  setItem(key: string, value: string): void {
    this.#items.set(key, value);
  }
  removeItem(key: string): void {
    this.#items.delete(key);
  }
}

/** What was restored is not fetched because a stream is late on this machine: a test that counts fetches would fail. */
const LONG_CONFIRMED = { confirmMs: PATIENCE_MS };

/** Runtimes of one test, which are closed after it. */
export class Pages {
  readonly #open: Reactive<TeamHub>[] = [];

  open(caller: Caller, options: Partial<ReactiveOptions> = {}): Reactive<TeamHub> {
    const who = { identity: caller.email, credentials: () => caller.headers };
    const page = createReactive<TeamHub>({ url: URL_OF_SERVER, ...who, ...LONG_CONFIRMED, ...options });
    this.#open.push(page);
    return page;
  }

  closeAll(): void {
    for (const page of this.#open.splice(0)) page.close();
  }
}

/** Everything that a query, or a list, shows, for as long as the test lasts. */
export class Shown<S extends { readonly isStale: boolean; readonly isPending: boolean }> {
  readonly states: S[] = [];
  readonly stop: () => void;
  #looks: (() => void)[] = [];

  constructor(query: { subscribe(listener: (state: S) => void): () => void }) {
    this.stop = query.subscribe((state) => {
      this.states.push(state);
      for (const look of this.#looks.splice(0)) look();
    });
  }

  get now(): S {
    const last = this.states.at(-1);
    if (last === undefined) throw new Error('nothing was shown');
    return last;
  }

  /** Resolve with the next state that is so; the one of now counts. */
  async until(holds: (state: S) => boolean): Promise<S> {
    while (!holds(this.now)) await new Promise<void>((resolve) => this.#looks.push(resolve));
    return this.now;
  }

  fresh(): Promise<S> {
    return this.until((state) => !state.isStale && !state.isPending);
  }
}

/** A way to the server that can be cut: connections end, and new ones are refused. */
export class Way {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  isCut = false;
  /** How many connections were made. */
  count = 0;

  private constructor() {
    const { hostname, port } = new URL(URL_OF_SERVER);
    this.#server = createServer((inward) => {
      this.count += 1;
      if (this.isCut) {
        inward.destroy();
        return;
      }
      const outward = connect(Number(port), hostname);
      for (const [one, other] of [
        [inward, outward],
        [outward, inward],
      ] as const) {
        this.#sockets.add(one);
        one.on('error', () => {}).on('close', () => other.destroy());
        one.pipe(other);
      }
    });
  }

  static async open(): Promise<Way> {
    const way = new Way();
    await new Promise<void>((resolve) => way.#server.listen(0, '127.0.0.1', resolve));
    return way;
  }

  get url(): string {
    const address = this.#server.address();
    return typeof address === 'object' && address !== null ? `http://127.0.0.1:${address.port}` : '';
  }

  cut(): void {
    this.isCut = true;
    for (const socket of this.#sockets) socket.destroy();
    this.#sockets.clear();
  }

  mend(): void {
    this.isCut = false;
  }

  close(): void {
    this.cut();
    this.#server.close();
  }
}
