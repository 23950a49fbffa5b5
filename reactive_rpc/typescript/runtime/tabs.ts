/**
 * One stream a browser: who shares it with whom, and when a page takes part.
 *
 * Tabs of one caller form a group; so a tab asks the server who its caller is before it joins one. A page that is
 * frozen, or kept by the back and forward cache, has left. Where there are no locks or no channels, a page that is seen
 * has a stream of its own, and one that is hidden has none: streams of many tabs would take all connections.
 */

import { Group, type GroupOptions, type TabHost } from './group.ts';
import { type Cause, type NewsSource, type SharedResult, type StreamOptions, Streams } from './streams.ts';

export interface TabOptions extends StreamOptions, Pick<GroupOptions, 'onShared' | 'onSignedOut'> {
  /** The server has named the caller; null: it names none. */
  readonly onScope: (scope: string | null) => void;
}

/** What is there of a browser. */
export interface Browser
  extends Pick<TabHost, 'isHidden' | 'nextTask'>,
    Partial<Pick<TabHost, 'locks' | 'openChannel'>> {
  /** Returns the word that was left for tabs that hear nothing; leaves another one, if it is given. */
  readonly word: (name: string, said?: string) => string | null;
}

/** How long a page may be hidden before it ends a stream of its own. */
const HIDDEN_MS = 5000;
/** How long a hidden page waits for another tab's result before it fetches. */
const PATIENCE_MS = 300;

export class Tabs implements NewsSource {
  readonly #options: TabOptions;
  readonly #browser: Browser;
  /** Whose tabs these are; null while nobody knows. */
  #scope: string | null;
  #group: Group | null = null;
  /** A stream of the page's own, without a group; or what asks who calls. */
  #own: Streams | null = null;
  #cursor: string | null = null;
  #isBroken = false;
  #isAway = false;
  #steals = false;
  #seenAt = Date.now();
  /** The word of a logout that was there when this page was frozen, or left. */
  #word: string | null = null;

  /** `identity` is whose page it is, if it knows. */
  constructor(options: TabOptions, browser: Browser, identity: string | null) {
    this.#options = options;
    this.#browser = browser;
    this.#scope = identity;
  }

  update(): void {
    if (this.#isAway) return;
    if (this.#group === null && this.#own === null) this.#begin();
    this.#own?.update();
    this.#group?.update();
  }

  nudge(): void {
    this.tick();
    (this.#group ?? this.#own)?.nudge();
  }

  hurry(): void {
    (this.#group ?? this.#own)?.hurry();
  }

  replace(): void {
    (this.#group ?? this.#own)?.replace();
  }

  lose(): void {
    (this.#group ?? this.#own)?.lose();
  }

  identified(scope: string): void {
    if (this.#scope !== null) return;
    this.#leave();
    this.#scope = scope;
    this.update();
  }

  reidentify(cause: Cause, scope: string | null): void {
    if (cause === 'forget') {
      this.#group?.say('signedOut');
      this.#logouts(String(Date.now() + Math.random()));
    }
    if (cause === 'another') this.#group?.say('doubt');
    this.#leave();
    this.#cursor = null;
    this.#scope = scope;
    // Who has new credentials leads: the others' may be the old ones.
    this.#steals = cause === 'credentials';
    this.update();
  }

  suspend(): void {
    if (this.#isAway) return;
    this.#isAway = true;
    this.#word = this.#logouts();
    this.#leave();
    this.#options.onNews({ type: 'down', error: null });
  }

  resume(): void {
    this.#isAway = false;
    // INVARIANT (nothing of a caller who has logged out shows): this page was in no group, and has heard nothing of it.
    if (this.#logouts() !== this.#word) this.#options.onSignedOut();
    else this.update();
  }

  close(): void {
    this.#isAway = true;
    this.#leave();
  }

  tick(): void {
    if (!this.#browser.isHidden()) this.#seenAt = Date.now();
    this.#own?.update();
    this.#group?.tick();
  }

  share(result: SharedResult): void {
    this.#group?.share(result);
  }

  get patienceMs(): number {
    return this.#group?.hasOthers && this.#browser.isHidden() ? PATIENCE_MS * (1 + Math.random()) : 0;
  }

  /** Return the word of the last logout of this caller, which `said` becomes. It says nothing of who that is. */
  #logouts(said?: string): string | null {
    if (this.#scope === null) return null;
    return this.#browser.word(`rx-out:${shortHash(this.#groupName(this.#scope))}`, said);
  }

  #groupName(scope: string): string {
    return `rx1:${this.#options.wire.base}:${scope}`;
  }

  #leave(): void {
    if (this.#group !== null) this.#cursor = this.#group.cursor;
    this.#group?.close();
    this.#own?.close();
    this.#group = this.#own = null;
  }

  #begin(): void {
    const { locks, openChannel } = this.#browser;
    if (locks === undefined || openChannel === undefined || this.#isBroken) this.#own = this.#alone();
    else if (this.#scope === null) this.#own = this.#asking();
    else this.#join(this.#scope, { ...this.#browser, locks, openChannel });
  }

  #alone(): Streams {
    const isSeen = (): boolean => !this.#browser.isHidden() || Date.now() - this.#seenAt < HIDDEN_MS;
    const queries = (): ReturnType<TabOptions['queries']> => (isSeen() ? this.#options.queries() : []);
    return new Streams({ ...this.#options, cursor: this.#cursor, queries });
  }

  /** Ask the server who calls, by one poll, until it answers. */
  #asking(): Streams {
    const onNews: TabOptions['onNews'] = (news) => {
      // INVARIANT (what it confirms is not told): nobody would say that it has changed, before the group does.
      if (news.type !== 'connected') return this.#options.onNews(news);
      this.#options.onScope(news.scope);
      this.identified(news.scope ?? '');
    };
    return new Streams({ ...this.#options, transport: 'poll', onNews });
  }

  #join(scope: string, host: TabHost): void {
    const options: GroupOptions = {
      ...this.#options,
      cursor: this.#cursor,
      onDoubt: () => this.#again(null),
      onBroken: () => {
        this.#isBroken = true;
        this.#again(scope);
      },
    };
    this.#group = new Group(this.#groupName(scope), options, host, this.#steals);
    this.#steals = false;
  }

  #again(scope: string | null): void {
    this.suspend();
    this.#scope = scope;
    this.resume();
  }
}

/** Return a number of 16 bits: nobody can tell from it who somebody is, and two callers of a browser rarely share it. */
function shortHash(text: string): number {
  return [...text].reduce((hash, letter) => (hash * 31 + (letter.codePointAt(0) ?? 0)) % 65_521, 7);
}
