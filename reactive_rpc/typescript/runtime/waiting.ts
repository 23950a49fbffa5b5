/**
 * Mutations that wait, in storage: each is there before it is sent, and until its outcome is known. Never throws.
 *
 * An entry is `rx:<identity>:out:<time>-<id>` -> `<time of the first try>|<JSON>`, so that names in order are mutations
 * in the order they were made. Tabs share it: each entry is written by itself, so none of them undoes another's.
 */

import type { ReactiveError } from './errors.ts';
import { newKey } from './gate.ts';
import { isObject } from './json.ts';
import { attempt, escaped, type KeyValueStorage, keysOf, WAITING } from './store.ts';

/** A mutation, as it is kept until its outcome is known. */
export interface Waiting {
  /** Says which one it is, in each tab and after a reload. */
  readonly id: string;
  readonly path: string;
  /** Its input, as JSON. */
  readonly json: unknown;
  /** Under which the server makes it once, however often it is sent. */
  readonly key: string;
  /** Whose it is, as the server named the caller; null if it had named nobody yet. */
  readonly scope: string | null;
  readonly madeAt: number;
  /** When it was sent first; null if it never was. */
  readonly triedAt: number | null;
  /** Why it was not made, until the page has been told; null while it waits. */
  readonly refusal: Refusal | null;
}

/** Why one was not made, as far as can be told. */
export interface Refusal {
  readonly error: Pick<ReactiveError, 'code' | 'message' | 'status' | 'type' | 'details'>;
  /** It may have been made nevertheless: an earlier try had no answer, or this one tells nothing. */
  readonly mayBeMade: boolean;
}

export interface WaitingStoreOptions {
  /** Returns the storage; may throw where it is forbidden, and nothing can wait then. */
  readonly storage: () => KeyValueStorage | undefined;
  /** Whose page it is: what waits of anybody else is removed. Null: nobody is named, and nothing can wait. */
  readonly identity: string | null;
  readonly now?: () => number;
  readonly newId?: () => string;
}

const MAX_WAITING = 1000;
const MAX_LENGTH = 100_000;
/** A time has as many digits, so that texts are in the order of times, and one takes the place of another. */
const DIGITS = 15;
const ID = /^(\d{15})-./;
const NEVER = '000000000000000';

export class WaitingStore {
  readonly #storage: KeyValueStorage | null;
  readonly #prefix: string;
  readonly #now: () => number;
  readonly #newId: () => string;

  constructor({ storage, identity, now = Date.now, newId = newKey }: WaitingStoreOptions) {
    this.#storage = identity ? attempt(() => storage() ?? null, null) : null;
    this.#prefix = `rx:${escaped(identity ?? '')}:out:`;
    this.#now = now;
    this.#newId = newId;
    this.#removeWhere((name) => WAITING.test(name) && !name.startsWith(this.#prefix));
  }

  /** Return all that wait, the first one first. What somebody has damaged is removed: nobody could send it. */
  all(): Waiting[] {
    const names = attempt(() => keysOf(this.#storage), []).filter((name) => name.startsWith(this.#prefix));
    return names.toSorted().flatMap((name) => {
      const id = name.slice(this.#prefix.length);
      const found = attempt(() => waitingOf(id, this.#storage?.getItem(name) ?? ''), null);
      if (found === null) this.remove(id);
      return found ?? [];
    });
  }

  /** Keep a mutation; null if that cannot be: nothing is stored then. */
  add(mutation: Pick<Waiting, 'path' | 'json' | 'scope'> & { readonly key?: string | undefined }): Waiting | null {
    const earlier = this.all();
    const unique = this.#newId();
    // INVARIANT (a later mutation has a later name): the clock may have been set back, or stand still.
    const madeAt = Math.max(this.#now(), (earlier.at(-1)?.madeAt ?? 0) + 1);
    const { path, json, scope, key = unique } = mutation;
    const id = `${spelled(madeAt)}-${unique}`;
    const waiting = { id, path, json, key, scope, madeAt, triedAt: null, refusal: null };
    return earlier.length < MAX_WAITING && this.#write(waiting) ? waiting : null;
  }

  /** Note that it is about to be sent for the first time; null if that cannot be noted: then it must not be. */
  try(waiting: Waiting): Waiting | null {
    if (waiting.triedAt !== null) return waiting;
    const tried = { ...waiting, triedAt: this.#now() };
    return this.#write(tried) ? tried : null;
  }

  /** Note that it is not to be sent any more. */
  refuse(waiting: Waiting, refusal: Refusal): void {
    this.#write({ ...waiting, refusal });
  }

  remove(id: string): void {
    attempt(() => this.#storage?.removeItem(this.#prefix + id), undefined);
  }

  /** Remove everything of this caller. */
  clear(): void {
    this.#removeWhere((name) => name.startsWith(this.#prefix));
  }

  #write(waiting: Waiting): boolean {
    return attempt(() => {
      const name = this.#prefix + waiting.id;
      const text = textOf(waiting);
      if (this.#storage === null || text.length > MAX_LENGTH) return false;
      this.#storage.setItem(name, text);
      return this.#storage.getItem(name) === text;
    }, false);
  }

  #removeWhere(matches: (name: string) => boolean): void {
    const names = attempt(() => keysOf(this.#storage), []).filter(matches);
    for (const name of names) attempt(() => this.#storage?.removeItem(name), undefined);
  }
}

function spelled(time: number): string {
  return String(Math.trunc(time)).padStart(DIGITS, '0');
}

function textOf({ path, json, key, scope, triedAt, refusal }: Waiting): string {
  const tried = triedAt === null ? NEVER : spelled(triedAt);
  return `${tried}|${JSON.stringify({ path, json, key, scope, ...(refusal && { refusal }) }, onlyJson)}`;
}

/** Refuse what JSON has not, and would silently be without, as a file. */
function onlyJson(_: string, value: unknown): unknown {
  const isPlain = !isObject(value) || [Object.prototype, null].includes(Object.getPrototypeOf(value));
  if (!isPlain) throw new TypeError('only JSON can be kept');
  return value;
}

function waitingOf(id: string, text: string): Waiting | null {
  const madeAt = ID.exec(id)?.[1];
  const triedAt = text.slice(0, DIGITS);
  const read: Readonly<Record<string, unknown>> = JSON.parse(text.slice(DIGITS + 1));
  const { path, json, key, scope, refusal } = read;
  if (madeAt === undefined || !/^\d+$/.test(triedAt) || typeof path !== 'string' || typeof key !== 'string')
    return null;
  if (scope !== null && typeof scope !== 'string') return null;
  return {
    id,
    path,
    json,
    key,
    scope,
    madeAt: Number(madeAt),
    triedAt: triedAt === NEVER ? null : Number(triedAt),
    refusal: isObject(refusal) ? (refusal as unknown as Refusal) : null,
  };
}
