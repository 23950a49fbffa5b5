/** What pages of the tests have in common: they do as the fragment of their address says, and note what they show. */

import type { Procedures } from '../../../generated_client/typescript/api.ts';
import {
  createReactive,
  type Reactive,
  type ReactiveOptions,
  type State,
} from '../../../generated_client/typescript/index.ts';
import { PATIENCE_MS } from '../support/patience.ts';

/** What was restored is not fetched because a stream is late on this machine: a test that counts fetches would fail. */
const LONG_CONFIRMED = { confirmMs: PATIENCE_MS };

/** The fragment of the address, as JSON. */
export interface Orders {
  /** Who calls; a test may give another one later. */
  readonly token?: string;
  /** What is shown from the start: `[path, input]`. */
  readonly show?: readonly (readonly [path: string, input?: unknown])[];
  readonly options?: Partial<ReactiveOptions>;
}

/** What a query showed at a moment. */
export interface Frame {
  readonly path: string;
  readonly state: State<unknown>;
  /** Since the page was opened, in milliseconds. */
  readonly at: number;
}

export class Page {
  token: string;
  readonly hub: Reactive<Procedures>;
  /** Everything that was shown, in order. */
  readonly frames: Frame[] = [];
  /** How often the server was asked for each: `{ 'agents.get_one': 2, events: 1 }`. */
  readonly asked: Record<string, number> = {};
  /** How often the server has wanted other credentials. */
  unauthorized = 0;
  /** How often the caller was gone, by another tab's word or the server's. */
  signedOut = 0;
  readonly #stops = new Map<string, () => void>();
  readonly #looks: (() => void)[] = [];
  readonly #orders: Orders;

  /** `own` are options that no address can name. */
  constructor(orders: Orders, own: Partial<ReactiveOptions<Procedures>> = {}) {
    this.#orders = orders;
    this.token = orders.token ?? '';
    this.hub = createReactive({
      ...LONG_CONFIRMED,
      url: '/',
      credentials: () => ({ authorization: `Bearer ${this.token}` }),
      onUnauthorized: () => {
        this.unauthorized += 1;
      },
      onSignedOut: () => {
        this.signedOut += 1;
      },
      fetch: (input, init) => {
        // A batch names all of its calls.
        const paths = new URL(String(input), location.href).pathname.replace(/^\/(rpc|trpc)\//, '').split(',');
        for (const path of paths) this.asked[path] = (this.asked[path] ?? 0) + 1;
        return fetch(input, init);
      },
      ...orders.options,
      ...own,
    });
    for (const [path, input] of orders.show ?? []) this.show(path, input);
  }

  /** Begin anew, as a page does that is loaded again. */
  again(): Page {
    this.hub.close();
    return new Page(this.#orders);
  }

  /** Show a query; it is named by its path. */
  show(path: string, input?: unknown): void {
    const query = this.hub.queryOf(path as 'agents.get_all', input as undefined);
    this.#stops.set(
      path,
      query.subscribe((state) => {
        this.frames.push({ path, state, at: performance.now() });
        for (const look of this.#looks) look();
      }),
    );
  }

  /** Call back whenever something is shown, and now. */
  whenever(look: () => void): void {
    this.#looks.push(look);
    look();
  }

  hide(path: string): void {
    this.#stops.get(path)?.();
    this.#stops.delete(path);
  }

  /** What a query shows just now. */
  now(path: string): State<unknown> | undefined {
    return this.frames.findLast((frame) => frame.path === path)?.state;
  }

  /** Whether a query shows the truth: data that is not stale. */
  isFresh(path: string): boolean {
    const state = this.now(path);
    return state !== undefined && !state.isStale && !state.isPending && !state.isLoading;
  }
}

/** Return what the fragment of the address says. */
export function orders(): Orders {
  return location.hash === '' ? {} : JSON.parse(decodeURIComponent(location.hash.slice(1)));
}
