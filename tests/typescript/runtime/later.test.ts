import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { Later, type LoadLive } from '../../../reactive_rpc/typescript/runtime/later.ts';
import type { LiveOptions } from '../../../reactive_rpc/typescript/runtime/live.ts';
import type { News, NewsSource } from '../../../reactive_rpc/typescript/runtime/streams.ts';
import { MemoryBrowser, settle, until } from './browser.ts';

/** Longer than any pause before the code is loaded again. */
const RETRIED_MS = 60_000;

let browser: MemoryBrowser;
let said: string[];
let news: News[];
let states: string[];
let loads: number;
/** Let the code come, or not. */
let answers: {
  readonly resolve: (live: Awaited<ReturnType<LoadLive>>) => void;
  readonly reject: (why: Error) => void;
}[];

const SOURCE: NewsSource = {
  update: () => void said.push('update'),
  nudge: () => void said.push('nudge'),
  hurry: () => void said.push('hurry'),
  replace: () => void said.push('replace'),
  lose: () => void said.push('lose'),
  reidentify: (cause, scope) => void said.push(`${cause} ${scope}`),
  identified: (scope) => void said.push(`identified ${scope}`),
  close: () => void said.push('close'),
};
const LIVE = { listen: (): NewsSource => SOURCE };

function load(): ReturnType<LoadLive> {
  loads += 1;
  return new Promise((resolve, reject) => answers.push({ resolve, reject }));
}

function later(): Later {
  const options: Omit<LiveOptions, 'signal'> = {
    wire: { url: '/' },
    queries: () => [],
    onNews: (one) => void news.push(one),
    onState: (state) => void states.push(state),
    onShared: () => {},
    onSignedOut: () => {},
    onScope: () => {},
    identity: null,
    background: { queries: () => [], isBusy: () => false, refresh: () => Promise.resolve(true) },
  };
  return new Later(load, options);
}

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'Date'] });
  browser = new MemoryBrowser();
  [said, news, states, loads, answers] = [[], [], [], 0, []];
});

afterEach(() => {
  browser.close();
  vi.useRealTimers();
});

test('the code is loaded once, and not before something is shown', async () => {
  const source = later();
  expect(loads).toBe(0);
  source.begin();
  source.begin();
  source.update();
  answers[0]?.resolve(LIVE);
  await settle();
  expect(loads).toBe(1);
  expect(said).toEqual(['update']);
  expect(source.source).toBe(SOURCE);
});

test('what is said meanwhile is said again, in order, and each once a caller', async () => {
  const source = later();
  for (let count = 0; count < 3; count++) {
    source.update();
    source.identified('ada');
  }
  source.reidentify('forget', null);
  source.update();
  source.identified('bob');
  expect(said).toEqual([]);
  answers[0]?.resolve(LIVE);
  await settle();
  expect(said).toEqual(['update', 'identified ada', 'forget null', 'update', 'identified bob']);
  source.update();
  expect(said.at(-1)).toBe('update');
  expect(said).toHaveLength(6);
});

test('one that is closed before opens nothing', async () => {
  const source = later();
  source.update();
  source.close();
  answers[0]?.resolve(LIVE);
  await settle();
  expect(said).toEqual([]);
  answers = [];
  const failing = later();
  failing.update();
  failing.close();
  answers[0]?.reject(new Error('gone'));
  await settle();
  vi.advanceTimersByTime(RETRIED_MS);
  await settle();
  expect(loads).toBe(2);
});

test('code that cannot be loaded is tried again; meanwhile what shows is asked for, and nothing is confirmed', async () => {
  const source = later();
  source.update();
  answers[0]?.reject(new TypeError('Failed to fetch dynamically imported module'));
  await settle();
  expect(states).toEqual(['reconnecting']);
  expect(news).toMatchObject([{ type: 'down', error: { code: 'CONNECTION_FAILED' } }]);
  vi.advanceTimersByTime(RETRIED_MS);
  await settle();
  expect(news.map(({ type }) => type)).toEqual(['down', 'gap']);
  expect(loads).toBe(2);
  answers[1]?.resolve(LIVE);
  await settle();
  expect(said).toEqual(['update']);
});

test('a page whose code cannot be loaded shows what the server answers, as stale, and is live once it can', async () => {
  let isThere = false;
  const tab = browser.open({ isReachable: () => isThere });
  tab.show('a.b');
  await until(() => tab.now('a.b')?.data?.count === 0);
  browser.server.write('a.b');
  await settle();
  expect(tab.now('a.b')).toMatchObject({ data: { count: 0 }, isStale: true, error: { code: 'CONNECTION_FAILED' } });
  vi.advanceTimersByTime(RETRIED_MS);
  await until(() => tab.now('a.b')?.data?.count === 1);
  expect(tab.frames.get('a.b')?.every(({ isStale }) => isStale)).toBe(true);
  isThere = true;
  vi.advanceTimersByTime(RETRIED_MS);
  await until(() => tab.isRight('a.b'));
  expect(tab.now('a.b')?.error).toBeNull();
});

test('a logout while the code is loaded empties the other tabs', async () => {
  const other = browser.open({ identity: 'ada' });
  other.show('a.b');
  await until(() => other.isRight('a.b'));
  let arrive = (): void => {};
  const arrived = new Promise<void>((resolve) => (arrive = resolve));
  const tab = browser.open({ identity: 'ada', arrives: arrived });
  tab.show('a.b');
  await until(() => tab.now('a.b')?.data !== undefined);
  browser.server.refusal = 401;
  tab.engine.reidentify('forget');
  await settle();
  expect(other.now('a.b')?.data).toBeDefined();
  arrive();
  await until(() => other.now('a.b')?.data === undefined);
});
