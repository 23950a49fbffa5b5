/** One query of the page, shared by all who show it: its snapshot, who listens, and what its fetch waits for. */

import { type Query, replaceEqualDeep } from '@tanstack/query-core';

import type { Codec } from './codec.ts';
import { parseJson, type Raw } from './json.ts';
import { type Action, initial, reduce, type Snapshot, type State, stateOf } from './state.ts';

/** Reads JSON as it is. */
const PLAIN: Codec<unknown> = { decode: (json) => json, encode: (value) => value };

export class Entry {
  readonly key: string;
  readonly path: string;
  readonly input: unknown;
  readonly query: Query;
  readonly codec: Codec<unknown>;
  /** All that is known; changed by `dispatch` only. */
  snapshot: Snapshot<unknown> = initial();
  /** What shows; the same object while nothing changes. */
  state: State<unknown>;
  /** What a server has rendered of it; storage has no part in it, or a hydrated page would not match. */
  renderedState: State<unknown>;
  /** The fetch that runs; aborting it gives it up. */
  fetch: AbortController | null = null;
  /** What a fetch waits for: the next try, or that a stream confirms what was restored. Null if for nothing. */
  pause: AbortController | null = null;
  /** That is the next try after a failure. */
  isRetrying = false;
  /** The server has asked for that pause (`Retry-After`): no news ends it. */
  isHeldOff = false;
  /** A stream should watch it. */
  isWatched = false;
  /** Others than observers that want it kept right: `prefetch`, priorities, a load of query-core's own. */
  holders = 0;
  /** Runs while a fetch is under way that nobody waits for any more. */
  abandoned: ReturnType<typeof setTimeout> | null = null;
  /** Those of `holders` who can wait: they want it soon, after what is shown. */
  patient = 0;
  /** The last mutation that shows in it: the next one is sent after it. */
  lastMutation: Promise<unknown> = Promise.resolve();
  /** Data that somebody else has put into the QueryClient: it shows until the next outcome. */
  foreign: { readonly data: unknown; readonly over: unknown } | null = null;
  /** Shares what is equal with the JSON before; rows of a list may have come by another page. */
  share: (before: unknown, json: unknown) => unknown = replaceEqualDeep;
  readonly #listeners = new Set<() => void>();
  #json: unknown;

  constructor(query: Query, path: string, input: unknown, codec: Codec<unknown> | undefined) {
    this.key = query.queryHash;
    this.path = path;
    this.input = input;
    this.query = query;
    this.codec = codec ?? PLAIN;
    this.state = this.renderedState = stateOf(this.snapshot);
  }

  /** Whether somebody shows it, or wants it kept right. */
  get isWanted(): boolean {
    return this.holders > 0 || this.query.isActive();
  }

  /** Whether it is wanted by those alone who can wait. */
  get isPatient(): boolean {
    return this.patient > 0 && this.holders === this.patient && !this.query.isActive();
  }

  /** Change the snapshot; returns whether anything changed. */
  dispatch(action: Action<unknown>): boolean {
    const before = this.snapshot;
    this.snapshot = reduce(before, action);
    return this.snapshot !== before;
  }

  /** Look at the state again, and wake who listens if it changed. */
  publish(): void {
    const state = stateOf(this.snapshot);
    const isSame = (Object.keys(state) as (keyof State<unknown>)[]).every((name) => state[name] === this.state[name]);
    if (isSame) return;
    this.state = state;
    for (const listener of [...this.#listeners]) listener();
  }

  listen(listener: () => void): () => void {
    // A listener of its own each time: one function may listen twice.
    const own = (): void => listener();
    this.#listeners.add(own);
    return () => this.#listeners.delete(own);
  }

  /**
   * Return the value of raw JSON.
   *
   * What is equal to the JSON before is shared with it, and the codec remembers what it made of each node: rows that
   * did not change are the same objects.
   */
  decode({ json, isText }: Raw): unknown {
    const read = isText ? (this.codec.parse ?? parseJson)(String(json)) : json;
    this.#json = this.share(this.#json, read);
    return this.codec.decode(this.#json);
  }

  /** Return raw JSON of a value. */
  encode(data: unknown): Raw {
    const { codec } = this;
    const json = codec.encode(data);
    return codec.format ? { json: codec.format(json), isText: true } : { json, isText: false };
  }

  /** Give up what is under way: it was another caller's, or nobody wants it. */
  giveUp(): void {
    this.fetch?.abort();
    this.pause?.abort();
    if (this.abandoned !== null) clearTimeout(this.abandoned);
    this.fetch = this.pause = this.abandoned = null;
    this.isHeldOff = this.isRetrying = false;
  }
}
