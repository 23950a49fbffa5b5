/**
 * News from a source whose code is loaded meanwhile: a page shows its first data before it has the code of streams.
 *
 * While that cannot be loaded (the network is gone, or a deployment has removed it), nothing is confirmed, and what
 * shows is asked for again with each try.
 */

import { Backoff } from './backoff.ts';
import { ReactiveError } from './errors.ts';
import type { LiveOptions } from './live.ts';
import type { Cause, NewsSource, StreamState } from './streams.ts';
import { pause } from './tasks.ts';

/** Loads what opens a source. */
export type LoadLive = () => Promise<{ readonly listen: (options: LiveOptions) => NewsSource }>;

/** How long it waits before the code is loaded again: up to the first, and later up to the second. */
const RETRY_MS = 10_000;
const RETRY_CAP_MS = 60_000;

export class Later {
  /** The source, once it is there: what concerns open streams, or other tabs, needs not be said to a later one. */
  source: NewsSource | null = null;
  readonly #load: LoadLive;
  readonly #options: Omit<LiveOptions, 'signal'>;
  readonly #closed = new AbortController();
  /** What the source must know once it is there, by names, so that it stays short: each once a caller. */
  readonly #noted = new Map<string, (source: NewsSource) => void>();
  #callers = 0;
  #isBegun = false;

  constructor(load: LoadLive, options: Omit<LiveOptions, 'signal'>) {
    this.#load = load;
    this.#options = options;
  }

  /** Somebody is about to show something: load the code. */
  begin(): void {
    if (this.#isBegun) return;
    this.#isBegun = true;
    void this.#run(this.#closed.signal);
  }

  update(): void {
    this.#tell('update', (source) => source.update());
  }

  identified(scope: string): void {
    this.#tell(scope, (source) => source.identified?.(scope));
  }

  reidentify(cause: Cause, scope: string | null): void {
    // INVARIANT (in order): a logout is told to the tabs of the caller whom the notes before have named.
    this.#callers += 1;
    this.#tell(cause, (source) => source.reidentify(cause, scope));
  }

  close(): void {
    this.#closed.abort();
    this.source?.close();
  }

  #tell(name: string, act: (source: NewsSource) => void): void {
    if (this.source !== null) act(this.source);
    else {
      this.#noted.set(`${this.#callers}:${name}`, act);
      this.begin();
    }
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { onState, onNews } = this.#options;
    const backoff = new Backoff(Math.random, RETRY_MS, RETRY_CAP_MS);
    let load = this.#load;
    while (!signal.aborted) {
      try {
        const { listen } = await load();
        if (!signal.aborted) this.#start(listen({ ...this.#options, signal }));
        return;
      } catch (cause) {
        const error = new ReactiveError('CONNECTION_FAILED', `cannot load the stream: ${cause}`, { cause });
        load = again(load, error);
        onState?.('reconnecting');
        onNews({ type: 'down', error });
      }
      await pause(backoff.nextDelay(), signal);
      // Nobody tells what has changed.
      if (!signal.aborted) onNews({ type: 'gap', cursor: '' });
    }
  }

  #start(source: NewsSource): void {
    this.source = source;
    for (const act of this.#noted.values()) act(source);
    this.#noted.clear();
  }
}

/**
 * Return what loads the code another time. Chromium remembers that a module could not be fetched, and never asks for
 * it again; but its error names the address, and under another one it asks.
 */
function again(load: LoadLive, { message }: Error): LoadLive {
  const [address] = /https?:[^\s?#]+/.exec(message) ?? [];
  if (address === undefined) return load;
  return () => import(/* @vite-ignore */ /* webpackIgnore: true */ `${address}?${Date.now()}`);
}

/** Tell whether changes are heard of. */
export function isUp(stream: StreamState): boolean {
  return stream === 'live' || stream === 'polling';
}
