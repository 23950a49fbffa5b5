/**
 * Random games of tabs: real engines over a browser and a server in memory, whose tabs are opened, closed, crashed,
 * frozen, hung and woken, while others write and streams break. In no order of sharing, take-over and answers may a tab
 * show time running backwards, or count as fresh what is not the truth once everything that was said has arrived; and
 * at rest each shows the truth by one stream.
 */

import fc from 'fast-check';
import { vi } from 'vitest';

import { MemoryBrowser, type Runtime, settle, type Tab, task } from './browser.ts';

const PATHS = ['a.b', 'c.d'];
const MAX_TABS = 4;
const MAX_MOVES = 25;
/** Longer than a leader may take to answer, than a fetch waits for another tab's, and than most pauses. */
const ROUND_MS = 3000;
const ROUNDS_TO_REST = 12;

export class WrongTabError extends Error {
  override readonly name = 'WrongTabError';
}

const MOVES = {
  open: 3,
  show: 3,
  conceal: 1,
  write: 5,
  close: 1,
  crash: 1,
  freeze: 1,
  hang: 1,
  wake: 2,
  suspend: 2,
  resume: 2,
  hide: 1,
  see: 1,
  distrust: 1,
  stall: 1,
  glance: 3,
  cut: 2,
  goDown: 1,
  comeUp: 2,
  pass: 3,
};

type MoveName = keyof typeof MOVES;

export interface TabMove {
  readonly name: MoveName;
  /** Which of those that the move could take. */
  readonly pick: number;
  /** How many tasks may pass before the next move; null: all that are under way. */
  readonly tasks: number | null;
}

function movesOf(names: readonly MoveName[]): fc.Arbitrary<TabMove> {
  return fc.record({
    name: fc.constantFrom(...names),
    pick: fc.nat(7),
    tasks: fc.option(fc.nat(12), { freq: 2 }),
  });
}

const ANY = movesOf((Object.keys(MOVES) as MoveName[]).flatMap((name) => Array<MoveName>(MOVES[name]).fill(name)));
/** A result comes late, to a tab that wants it no more, and a tab that has heard nothing meanwhile comes back. */
const LATE = ['suspend', 'glance', 'write', 'wake', 'resume'] as const;
const ROUND = fc.tuple(...LATE.map((name) => movesOf([name])));

/** A third of the games are rounds of what comes late: among all moves, those are rarely in the order that it takes. */
export const tabGames: fc.Arbitrary<readonly TabMove[]> = fc.oneof(
  { weight: 2, arbitrary: fc.array(ANY, { minLength: 5, maxLength: MAX_MOVES }) },
  { weight: 1, arbitrary: fc.array(ROUND, { minLength: 2, maxLength: 5 }).map((rounds) => rounds.flat()) },
);

/** Play one game to its end. */
export async function playTabs(moves: readonly TabMove[], runtime?: Runtime): Promise<void> {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'Date'] });
  const game = new TabGame(runtime);
  try {
    for (const move of moves) await game.step(move);
    await game.comeToRest();
  } finally {
    game.browser.close();
    await settle();
    vi.useRealTimers();
  }
}

function one<T>(pick: number, of: readonly T[]): T | undefined {
  return of[pick % Math.max(1, of.length)];
}

class TabGame {
  readonly browser: MemoryBrowser;
  /** Those that are frozen or left for a while, and may come back. */
  readonly #suspended = new Set<Tab>();

  constructor(runtime: Runtime | undefined) {
    this.browser = new MemoryBrowser(runtime);
    for (const pick of [0, 0, 1]) this.#open(pick);
  }

  async step({ name, pick, tasks }: TabMove): Promise<void> {
    const tab = one(pick, this.#tabs);
    if (name === 'pass') await this.#pass();
    else this.#moves[name](pick, tab);
    if (tasks !== null) {
      for (let count = 0; count < tasks; count++) await task();
      this.#checkFrames();
      return;
    }
    await settle();
    this.#checkFrames();
    this.#checkFresh();
  }

  /** Let all that stands go on, and time pass; then every tab shows the truth, by one stream. */
  async comeToRest(): Promise<void> {
    this.browser.server.refusal = null;
    for (const tab of this.#tabs) {
      tab.wake();
      tab.engine.resume();
    }
    for (let round = 0; round < ROUNDS_TO_REST && !this.#isAtRest(); round++) await this.#pass();
    this.#checkFrames();
    if (!this.#isAtRest()) this.#fail('is not at rest');
  }

  readonly #moves: Record<Exclude<MoveName, 'pass'>, (pick: number, tab: Tab | undefined) => void> = {
    open: (pick) => {
      if (this.#tabs.length < MAX_TABS) this.#open(pick);
    },
    show: (pick, tab) => tab?.show(PATHS[pick >> 2] ?? 'a.b'),
    conceal: (pick, tab) => tab?.hide(PATHS[pick >> 2] ?? 'a.b'),
    write: (pick) => this.browser.server.write(PATHS[pick >> 2] ?? 'a.b'),
    close: (_, tab) => tab?.close(),
    crash: (_, tab) => tab?.crash(),
    freeze: (_, tab) => {
      if (tab) tab.isFrozen = true;
    },
    hang: (_, tab) => {
      if (tab) tab.isHung = true;
    },
    wake: (pick) =>
      one(
        pick,
        this.#tabs.filter((tab) => tab.isStalled || !tab.isRunning),
      )?.wake(),
    suspend: (_, tab) => {
      if (!tab?.isRunning) return;
      this.#suspended.add(tab);
      tab.engine.suspend();
    },
    resume: (pick) => {
      const tab = one(
        pick,
        this.#tabs.filter((found) => found.isRunning && this.#suspended.has(found)),
      );
      if (tab === undefined) return;
      this.#suspended.delete(tab);
      tab.engine.resume();
    },
    hide: (_, tab) => {
      if (tab) tab.isHidden = true;
    },
    see: (_, tab) => {
      if (!tab) return;
      tab.isHidden = false;
      if (tab.isRunning) tab.engine.nudge();
    },
    stall: (_, tab) => {
      if (tab) tab.isStalled = true;
    },
    // Shown for an instant only: what it asks for is answered late, and nobody waits for it any more.
    glance: (pick) => {
      const path = PATHS[pick >> 2] ?? 'a.b';
      const tab = one(
        pick,
        this.#tabs.filter(({ shown }) => !shown.includes(path)),
      );
      if (tab === undefined) return;
      tab.isStalled = true;
      tab.show(path);
      tab.hide(path);
    },
    distrust: (_, tab) => tab?.isRunning && tab.engine.distrust(),
    cut: () => {
      for (const tab of this.#tabs) this.browser.server.forget(tab);
    },
    goDown: () => this.browser.server.goDown(),
    comeUp: () => {
      this.browser.server.refusal = null;
    },
  };

  get #tabs(): readonly Tab[] {
    return this.browser.tabs.filter((tab) => !tab.isDead);
  }

  #open(pick: number): void {
    this.browser.open({ isHidden: pick % 3 === 2, isStored: pick > 3 }).show(PATHS[pick % 2] ?? 'a.b');
  }

  async #pass(): Promise<void> {
    await this.browser.tick();
    vi.advanceTimersByTime(ROUND_MS);
    await settle();
  }

  #isAtRest(): boolean {
    const isShown = this.#tabs.some((tab) => tab.shown.length > 0);
    const isPolled = this.#tabs.some((tab) => tab.engine.status.stream === 'polling');
    const isOne = this.browser.server.streams.size === (isShown && !isPolled ? 1 : 0);
    return isOne && this.#tabs.every((tab) => tab.shown.every((path) => tab.isRight(path)));
  }

  /** Time does not run backwards in what a tab shows. */
  #checkFrames(): void {
    for (const tab of this.browser.tabs) {
      for (const [path, frames] of tab.frames) {
        const counts = frames.flatMap(({ data }) => (data === undefined ? [] : [data.count]));
        if (counts.some((count, index) => count < (counts[index - 1] ?? 0))) this.#fail(`${path} went back: ${counts}`);
      }
    }
  }

  /** What counts as fresh is the truth, if everybody who has something to say runs. */
  #checkFresh(): void {
    if (this.#tabs.some((tab) => !tab.isRunning)) return;
    for (const [index, tab] of this.#tabs.entries()) {
      for (const path of tab.shown) {
        const now = tab.now(path);
        const { count } = this.browser.server.truth(path);
        if (now?.isStale === false && now.data?.count !== count) {
          this.#fail(`tab ${index} counts ${path} as fresh at ${now.data?.count}, and it is ${count}`);
        }
      }
    }
  }

  #fail(message: string): never {
    const tabs = this.#tabs.map((tab) => [tab.streams, tab.shown.map((path) => [path, tab.now(path)])]);
    throw new WrongTabError(`${message}: ${JSON.stringify({ tabs, counts: [...this.browser.server.counts] })}`);
  }
}
