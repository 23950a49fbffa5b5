/**
 * What was shown last, an entry a query, so that a page shows it before it has asked anything. Never throws.
 *
 * An entry is `rx:<identity>:<buster>:<query>` -> `<time>|<scope>|<JSON>`: raw JSON, as the server sent it, and whose
 * the server said that it is. Synchronous, as the first render waits for nothing; so it is small, and what is too large
 * is not kept. Tabs share it: no entry is read to be written again, so none of them undoes another's.
 */

import { type Raw, textIn } from './json.ts';
import { formatVersion, parseVersion, type Version } from './versions.ts';

/** A result, as it is kept. */
export interface StoredResult extends Raw {
  readonly etag: string | null;
  readonly version: Version | null;
  /** Whose it is, as the server names its callers; null if the procedure does not ask who calls. */
  readonly scope: string | null;
}

/** The part of `Storage` that is used: `localStorage`, `sessionStorage`, or one of your own. */
export interface KeyValueStorage {
  readonly length: number;
  key(index: number): string | null;
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

export interface StoreOptions {
  /** Returns the storage; may throw where it is forbidden, and nothing is kept then. */
  readonly storage: () => KeyValueStorage | undefined;
  /** Whose results these are, as the page names them: those of any other are removed. Null: it names nobody. */
  readonly identity: string | null;
  /** The version of the API: results of any other are removed. */
  readonly buster: string;
  /** Tells whether a query's results may be kept; left out, all are. What was kept of others is removed. */
  readonly keeps?: (query: string) => boolean;
  /** The most characters of all entries. */
  readonly maxLength?: number;
  /** The most characters of one. */
  readonly maxEntryLength?: number;
  readonly now?: () => number;
  /** Calls back when there is time to write; returns what undoes it. */
  readonly schedule?: (write: () => void) => () => void;
}

const PREFIX = 'rx:';
const MAX_LENGTH = 1_000_000;
const MAX_ENTRY_LENGTH = 100_000;
const GATHER_MS = 300;
const IDLE_MS = 2000;

interface Entry {
  readonly length: number;
  usedAt: number;
}

export class Store {
  readonly #storage: KeyValueStorage | null;
  readonly #prefix: string;
  readonly #maxLength: number;
  readonly #maxEntryLength: number;
  readonly #keeps: (query: string) => boolean;
  readonly #now: () => number;
  readonly #schedule: (write: () => void) => () => void;
  readonly #entries = new Map<string, Entry>();
  readonly #waiting = new Map<string, () => StoredResult | null>();
  #length = 0;
  #scope: string | null = null;
  /** Nothing is kept any more. */
  #isEnded: boolean;
  #unschedule: (() => void) | null = null;

  constructor(options: StoreOptions) {
    const { identity, buster } = options;
    this.#prefix = `${PREFIX}${escaped(identity ?? '')}:${escaped(buster)}:`;
    // INVARIANT (nothing is kept of a caller whom nobody names): before its first answer, the next visit could not tell
    // whose it is, and would show it to whoever comes.
    this.#isEnded = !identity;
    this.#maxLength = options.maxLength ?? MAX_LENGTH;
    this.#maxEntryLength = options.maxEntryLength ?? MAX_ENTRY_LENGTH;
    this.#keeps = options.keeps ?? (() => true);
    this.#now = options.now ?? Date.now;
    this.#schedule = options.schedule ?? whenIdle;
    this.#storage = attempt(() => options.storage() ?? null, null);
    attempt(() => this.#open(), undefined);
  }

  /** Whose results were there at the start, as the server names its callers; null if it has named nobody. */
  get scope(): string | null {
    return this.#scope;
  }

  /** Return what was kept of a query. */
  get(query: string): StoredResult | null {
    if (this.#isEnded || !this.#keeps(query)) return null;
    const text = attempt(() => this.#storage?.getItem(this.#prefix + query) ?? null, null);
    const entry = this.#entries.get(query);
    if (entry !== undefined) entry.usedAt = this.#now();
    return text === null ? null : attempt(() => resultOf(text), null);
  }

  /** Return the queries of which something is kept, the last used first. */
  queries(): string[] {
    return [...this.#entries].toSorted(([, one], [, other]) => other.usedAt - one.usedAt).map(([query]) => query);
  }

  /** Keep a result, soon; `make` returns it then, or null to keep nothing. */
  put(query: string, make: () => StoredResult | null): void {
    if (this.#isEnded || !this.#keeps(query)) return;
    this.#waiting.set(query, make);
    this.#unschedule ??= this.#schedule(() => this.flush());
  }

  /** Write now what waits: the page is going. */
  flush(): void {
    this.#unschedule?.();
    this.#unschedule = null;
    for (const [query, make] of this.#waiting) this.#write(query, attempt(make, null));
    this.#waiting.clear();
  }

  /** Remove everything, also what waits, and keep nothing more: who comes next is not whom `identity` names. */
  end(): void {
    this.#isEnded = true;
    this.#scope = null;
    this.#unschedule?.();
    this.#unschedule = null;
    this.#waiting.clear();
    this.#removeAll();
  }

  /** Note what is there, and remove what is of another caller or version, is damaged, or may not be kept any more. */
  #open(): void {
    this.#removeWhere((key) => isResult(key) && !this.#isOwn(key));
    if (this.#isEnded) return;
    const scopes = new Set<string>();
    for (const key of keysOf(this.#storage)) {
      if (!key.startsWith(this.#prefix)) continue;
      const text = this.#storage?.getItem(key) ?? '';
      const head = headOf(text);
      if (head === null) this.#storage?.removeItem(key);
      else this.#note(key.slice(this.#prefix.length), key.length + text.length, head.usedAt);
      if (typeof head?.scope === 'string') scopes.add(head.scope);
    }
    // INVARIANT (results of two callers are never shown together): of two, nobody can tell whose page it is.
    if (scopes.size > 1) this.#removeAll();
    else this.#scope = [...scopes][0] ?? null;
  }

  /** Remove all of this identity, also what other tabs have kept, which this one has never seen. */
  #removeAll(): void {
    for (const query of this.queries()) this.#remove(query);
    attempt(() => this.#removeWhere((key) => key.startsWith(this.#prefix)), undefined);
  }

  #isOwn(key: string): boolean {
    return !this.#isEnded && key.startsWith(this.#prefix) && this.#keeps(key.slice(this.#prefix.length));
  }

  #removeWhere(matches: (key: string) => boolean): void {
    for (const key of keysOf(this.#storage).filter(matches)) this.#storage?.removeItem(key);
  }

  #write(query: string, result: StoredResult | null): void {
    if (this.#storage === null || result === null) return;
    const usedAt = this.#now();
    const text = attempt(() => textOf(usedAt, result), null);
    const length = this.#prefix.length + query.length + (text?.length ?? Infinity);
    this.#remove(query);
    if (text === null || length > this.#maxEntryLength) return;
    this.#makeRoom(length);
    // Another tab may have filled the storage meanwhile: the oldest entries give way.
    while (!this.#set(query, text)) if (!this.#removeOldest()) return;
    this.#note(query, length, usedAt);
  }

  #set(query: string, text: string): boolean {
    return attempt(() => {
      this.#storage?.setItem(this.#prefix + query, text);
      return true;
    }, false);
  }

  #makeRoom(length: number): void {
    while (this.#length + length > this.#maxLength && this.#removeOldest());
  }

  #removeOldest(): boolean {
    const oldest = this.queries().at(-1);
    if (oldest !== undefined) this.#remove(oldest);
    return oldest !== undefined;
  }

  #note(query: string, length: number, usedAt: number): void {
    this.#length += length - (this.#entries.get(query)?.length ?? 0);
    this.#entries.set(query, { length, usedAt });
  }

  #remove(query: string): void {
    this.#length -= this.#entries.get(query)?.length ?? 0;
    this.#entries.delete(query);
    attempt(() => this.#storage?.removeItem(this.#prefix + query), undefined);
  }
}

/** Call back after a while, when the page has nothing else to do. */
function whenIdle(write: () => void): () => void {
  const timer = setTimeout(() => {
    if (typeof requestIdleCallback === 'function') requestIdleCallback(write, { timeout: IDLE_MS });
    else write();
  }, GATHER_MS);
  return () => clearTimeout(timer);
}

/** Return what `try_` returns; `otherwise` if storage is full, forbidden, or holds something strange. */
export function attempt<T>(try_: () => T, otherwise: T): T {
  try {
    return try_();
  } catch {
    return otherwise;
  }
}

/** Return the names of all entries. */
export function keysOf(storage: KeyValueStorage | null): string[] {
  if (storage === null) return [];
  return Array.from({ length: storage.length }, (_, index) => storage.key(index)).filter((key) => key !== null);
}

/** Tell whether an entry is a kept result, and not, say, a mutation that waits. */
function isResult(key: string): boolean {
  return key.startsWith(PREFIX) && !WAITING.test(key);
}

/** `rx:<identity>:out:<mutation>`, which begins with a digit; a query, after the buster `out`, does not. */
export const WAITING = /^rx:[^:]*:out:\d/;

/** Return a part of a key, without what parts are separated by: else `a` with `b:c` were `a:b` with `c`. */
export function escaped(part: string): string {
  return part.replaceAll('%', '%25').replaceAll(':', '%3A');
}

/** In the place of a scope: the server has named nobody. */
const NOBODY = '?';
/** `<time>|<scope>|`. */
const HEAD = /^(\d+)\|(\?|[^|?]+)\|/;

interface Head {
  readonly usedAt: number;
  readonly scope: string | null;
  /** Where the JSON begins. */
  readonly length: number;
}

function textOf(usedAt: number, { json, isText, etag, version, scope }: StoredResult): string {
  const spelled = version === null ? null : formatVersion(version);
  const whose = scope === null ? NOBODY : encodeURIComponent(scope);
  return `${usedAt}|${whose}|${JSON.stringify({ json, ...(isText && { text: true }), etag, version: spelled })}`;
}

/** Return when an entry was used, and whose it is; null if it is damaged. */
function headOf(text: string): Head | null {
  const [head, usedAt, whose] = HEAD.exec(text) ?? [];
  if (head === undefined || whose === undefined) return null;
  const scope = whose === NOBODY ? null : attempt(() => decodeURIComponent(whose), '');
  return scope === '' ? null : { usedAt: Number(usedAt), scope, length: head.length };
}

function resultOf(text: string): StoredResult | null {
  const head = headOf(text);
  if (head === null) return null;
  const { json, text: isText, etag, version }: Readonly<Record<string, unknown>> = JSON.parse(text.slice(head.length));
  if (json === undefined) return null;
  return {
    json,
    isText: isText === true,
    scope: head.scope,
    etag: textIn(etag),
    version: parseVersion(textIn(version)),
  };
}
