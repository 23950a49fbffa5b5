/**
 * The tabs of one caller, of which the one that has the lock leads: it opens the stream for the queries of all.
 *
 * All tabs talk over one BroadcastChannel, and each notes what all want. A leader that is closed or crashes loses the
 * lock, and the next tab has it; one that is frozen or hangs keeps the lock, so a visible tab that gets no answer steals
 * it. `docs/internals/typescript.md`, "One stream a browser", argues each step.
 */

import { ReactiveError } from './errors.ts';
import { Ledger } from './ledger.ts';
import {
  type News,
  type SharedResult,
  type StreamOptions,
  type StreamState,
  Streams,
  type WatchedQuery,
} from './streams.ts';

/** What tabs need of their browser. */
export interface TabHost {
  readonly locks: Pick<LockManager, 'request' | 'query'>;
  /** Calls `onMessage` with what other tabs post to the same name. */
  readonly openChannel: (name: string, onMessage: (data: unknown) => void) => TabChannel;
  readonly isHidden: () => boolean;
  /** Resolves in a task that a frozen page does not run. */
  readonly nextTask: () => Promise<void>;
}

/** The part of a BroadcastChannel that is used. */
export interface TabChannel {
  postMessage(message: unknown): void;
  close(): void;
}

export interface GroupOptions extends StreamOptions {
  /** Another tab has fetched it. */
  readonly onShared: (result: SharedResult) => void;
  /** The caller has logged out in another tab. */
  readonly onSignedOut: () => void;
  /** Another tab has met another caller; it may be that all are. */
  readonly onDoubt: () => void;
  /** Locks are forbidden here. */
  readonly onBroken: () => void;
}

type Message =
  | { readonly type: 'want'; readonly queries: readonly WatchedQuery[] }
  /** To all: it leads from now on. To one: it does. */
  | { readonly type: 'lead'; readonly state: StreamState }
  | { readonly type: 'state'; readonly state: StreamState }
  | { readonly type: 'news'; readonly news: News }
  | { readonly type: 'shared'; readonly result: SharedResult }
  | { readonly type: 'ping'; readonly wish: Wish | null }
  | { readonly type: 'pong' }
  | { readonly type: 'resign' | 'bye' | 'signedOut' | 'doubt' };

/** What a tab asks of the leader's stream. */
type Wish = 'nudge' | 'hurry' | 'replace';

type Sent = Message & { readonly from: string; readonly to: string | null };

/** How long the leader may take to answer, and by how much tabs differ, so that one of them steals the lock. */
const PONG_MS = 1000;
const PONG_SPREAD_MS = 500;

export class Group {
  readonly #name: string;
  readonly #options: GroupOptions;
  readonly #host: TabHost;
  readonly #id = newId();
  readonly #ledger = new Ledger();
  readonly #channel: TabChannel;
  /** Aborted when this tab leaves. */
  readonly #gone = new AbortController();
  /** This tab's place in the queue for the lock, and then the lock itself. */
  #turn = new AbortController();
  #leader: string | null = null;
  /** The stream of all, while this tab leads. */
  #streams: Streams | null = null;
  /** Ends the wait for the leader's answer. */
  #overdue: ReturnType<typeof setTimeout> | undefined;

  constructor(name: string, options: GroupOptions, host: TabHost, steals: boolean) {
    this.#name = name;
    this.#options = options;
    this.#host = host;
    this.#channel = host.openChannel(name, (data) => this.#hear(data as Sent));
    // INVARIANT (nothing is wanted before the tab's own lock is held): who leads forgets tabs without one.
    this.#lock(this.#lockOf(this.#id), { signal: this.#gone.signal }, this.#gone.signal, () => this.#want());
    this.#queue(steals);
    this.#ping(null);
  }

  update(): void {
    if (this.#streams === null) return this.#want();
    this.#streams.update();
    void this.#host.nextTask().then(() => this.#coverOwn());
  }

  nudge(): void {
    if (this.#streams !== null) this.#streams.nudge();
    else this.#ping('nudge');
  }

  hurry(): void {
    if (this.#streams !== null) this.#streams.hurry();
    else this.#ping('hurry');
  }

  replace(): void {
    if (this.#streams !== null) this.#streams.replace();
    else this.#ping('replace');
  }

  /** Every tab hears that the network is gone: who leads does what is to be done. */
  lose(): void {
    this.#streams?.lose();
  }

  close(): void {
    this.#post({ type: 'bye' });
    this.#calm();
    this.#channel.close();
    this.#gone.abort();
    this.#turn.abort();
    this.#streams?.close();
    this.#streams = null;
  }

  /** See to it that somebody leads; who leads looks who is left. */
  tick(): void {
    if (this.#streams !== null) void this.#prune();
    else if (!this.#host.isHidden()) this.#ping(null);
  }

  share(result: SharedResult): void {
    this.#ledger.share(result);
    this.#post({ type: 'shared', result });
  }

  say(type: 'signedOut' | 'doubt'): void {
    this.#post({ type });
  }

  get cursor(): string | null {
    return this.#ledger.cursor;
  }

  get hasOthers(): boolean {
    return this.#streams === null || this.#ledger.tabs.length > 0;
  }

  // -- the lock

  #lockOf(tab: string): string {
    return `${this.#name}:tab:${tab}`;
  }

  /** Hold a lock until `until` is aborted. Who steals it makes the promise of `request` reject. */
  #lock(name: string, options: LockOptions, until: AbortSignal, onHeld: () => void, onRobbed?: () => void): void {
    const held = this.#host.locks.request(name, options, () => {
      if (!until.aborted) onHeld();
      return new Promise<void>((resolve) => {
        until.addEventListener('abort', () => resolve());
        if (until.aborted) resolve();
      });
    });
    held.catch((thrown: unknown) => {
      if (until.aborted) return;
      if (thrown instanceof DOMException && thrown.name === 'AbortError') onRobbed?.();
      else this.#options.onBroken();
    });
  }

  #queue(steal: boolean): void {
    this.#turn.abort();
    this.#turn = new AbortController();
    const { signal } = this.#turn;
    const onRobbed = (): void => {
      this.#resign();
      this.#queue(false);
    };
    this.#lock(this.#name, steal ? { steal } : { signal }, signal, () => this.#lead(), onRobbed);
  }

  #lead(): void {
    this.#calm();
    this.#leader = this.#id;
    // INVARIANT (what the leader before has said is not known to hold): this tab's stream is not up yet.
    this.#ledger.hear({ type: 'down', error: null });
    const { onState } = this.#options;
    const streams = new Streams({
      ...this.#options,
      cursor: this.#ledger.cursor ?? this.#options.cursor ?? null,
      queries: () => this.#ledger.union(this.#options.queries()),
      onNews: (news) => this.#tell(news),
      onState: (state) => {
        this.#post({ type: 'state', state });
        onState?.(state);
      },
    });
    this.#streams = streams;
    this.#post({ type: 'lead', state: streams.state });
    // Pruned first, or the stream would be opened for tabs that are gone, and then again.
    void this.#prune().then(() => streams.update());
  }

  /** Give up the lead: another tab has the lock. */
  #resign(): void {
    if (this.#streams === null) return;
    this.#streams.close();
    this.#streams = null;
    // INVARIANT (who follows a tab that resigns is told): it would count its results as confirmed, and hear nothing.
    this.#post({ type: 'resign' });
    this.#lose();
  }

  /** Forget the tabs that are gone without a word. */
  async #prune(): Promise<void> {
    const { held = [] } = await this.#host.locks.query().catch(() => ({}) as LockManagerSnapshot);
    const alive = new Set(held.map((lock) => lock.name));
    const gone = this.#ledger.tabs.filter((tab) => !alive.has(this.#lockOf(tab)));
    for (const tab of gone) this.#ledger.drop(tab);
    if (gone.length > 0) this.#streams?.update();
  }

  // -- the leader

  #tell(news: News): void {
    this.#ledger.hear(news);
    this.#post({ type: 'news', news: withErrors(news, plainOf) });
    this.#options.onNews(news);
  }

  /** Say how the stream stands with what a tab wants. */
  #welcome(tab: string, queries: readonly WatchedQuery[], { state }: Streams): void {
    this.#post({ type: 'lead', state }, tab);
    const news = this.#ledger.standing(queries);
    if (news !== null) this.#post({ type: 'news', news }, tab);
  }

  /** What this tab shows anew may be watched for others already: then no stream is opened that would say so. */
  #coverOwn(): void {
    const news = this.#streams === null ? null : this.#ledger.standing(this.#options.queries());
    if (news !== null) this.#options.onNews(news);
  }

  // -- who follows

  #want(): void {
    this.#post({ type: 'want', queries: this.#options.queries() });
  }

  #follow(tab: string, state: StreamState): void {
    this.#calm();
    // INVARIANT (what one leader has confirmed the next has not): it may know less than was said to this tab.
    if (this.#leader !== tab) this.#options.onNews({ type: 'down', error: null });
    this.#leader = tab;
    this.#options.onState?.(state);
  }

  #lose(): void {
    this.#leader = null;
    this.#options.onNews({ type: 'down', error: null });
    this.#options.onState?.('reconnecting');
    this.#ping(null);
  }

  #ping(wish: Wish | null): void {
    if (this.#leader === this.#id) return;
    this.#post({ type: 'ping', wish });
    this.#overdue ??= setTimeout(() => void this.#giveUp(), PONG_MS + Math.random() * PONG_SPREAD_MS);
  }

  #calm(): void {
    clearTimeout(this.#overdue);
    this.#overdue = undefined;
  }

  /** Steal the lock of a leader that does not answer. */
  async #giveUp(): Promise<void> {
    const overdue = this.#overdue;
    // It may have answered, and this tab's own thread was busy: let what has arrived be heard first.
    await this.#host.nextTask();
    await this.#host.nextTask();
    if (this.#overdue !== overdue) return;
    this.#overdue = undefined;
    this.#leader = null;
    this.#options.onNews({ type: 'down', error: null });
    this.#queue(true);
  }

  // -- messages

  #post(message: Message, to: string | null = null): void {
    if (!this.#gone.signal.aborted) this.#channel.postMessage({ ...message, from: this.#id, to });
  }

  #hear(message: Sent): void {
    const { from, to } = message;
    if (this.#gone.signal.aborted) return;
    if (to !== null && to !== this.#id) return;
    switch (message.type) {
      case 'want':
        this.#ledger.want(from, message.queries);
        if (this.#streams === null) return;
        this.#welcome(from, message.queries, this.#streams);
        return this.#streams.update();
      case 'bye':
        this.#ledger.drop(from);
        this.#streams?.update();
        return this.#hearResigned(from);
      case 'resign':
        return this.#hearResigned(from);
      case 'lead':
        return this.#hearLead(message);
      case 'ping':
        return this.#hearPing(from, message.wish);
      case 'shared':
        this.#ledger.share(message.result);
        return this.#options.onShared(message.result);
      case 'signedOut':
        return this.#options.onSignedOut();
      case 'doubt':
        return this.#options.onDoubt();
      default:
        return this.#hearLeader(message);
    }
  }

  #hearLead({ from, to, state }: Extract<Sent, { type: 'lead' }>): void {
    if (to !== null) {
      if (this.#streams === null) this.#follow(from, state);
      return;
    }
    if (this.#streams !== null) {
      // The lock was stolen, and the word of it is still on its way.
      this.#resign();
      this.#queue(false);
    }
    this.#follow(from, state);
    this.#want();
  }

  #hearResigned(tab: string): void {
    if (tab === this.#leader) this.#lose();
  }

  #hearPing(from: string, wish: Wish | null): void {
    if (this.#streams === null) return;
    if (wish !== null) this.#streams[wish]();
    // INVARIANT (answered in a task, and not here): a frozen page still hears messages, and can do nothing else.
    void this.#host.nextTask().then(() => {
      if (this.#streams !== null) this.#post({ type: 'pong' }, from);
    });
  }

  #hearLeader(message: Extract<Sent, { type: 'news' | 'state' | 'pong' }>): void {
    if (this.#streams !== null) return;
    // INVARIANT (only the leader is believed): one that was robbed and wakes may tell old news. Who leads will answer.
    if (message.from !== this.#leader) return this.#want();
    this.#calm();
    if (message.type === 'state') this.#options.onState?.(message.state);
    if (message.type === 'news') this.#hearNews(withErrors(message.news, errorOf), message.to !== null);
  }

  #hearNews(news: News, isMine: boolean): void {
    if (!isMine) this.#ledger.hear(news);
    this.#options.onNews(news);
    if (news.type !== 'connected' || isMine) return;
    // The leader has forgotten this tab, or heard too late what it wants.
    const watched = new Set(news.queries.map(({ key }) => key));
    if (this.#options.queries().some(({ key }) => !watched.has(key))) this.#want();
  }
}

/** `crypto.randomUUID` is there in secure contexts only; so are locks, but tests have neither. */
function newId(): string {
  return [...crypto.getRandomValues(new Uint32Array(4))].map((part) => part.toString(36)).join('-');
}

/** Return the news with its errors as `of` makes them: a channel carries no errors of our own. */
function withErrors<N extends object>(news: N, of: (error: ReactiveError) => ReactiveError): N {
  const { error, queries }: { error?: ReactiveError | null; queries?: readonly object[] } = news;
  const read = queries?.map((query) => withErrors(query, of));
  return { ...news, ...(error && { error: of(error) }), ...(read && { queries: read }) };
}

/** Return what a channel carries of an error: its fields. */
function plainOf(error: ReactiveError): ReactiveError {
  return { ...error, message: error.message } as ReactiveError;
}

function errorOf(plain: ReactiveError): ReactiveError {
  return new ReactiveError(plain.code, plain.message, plain);
}
