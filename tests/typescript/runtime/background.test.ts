import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { refreshInBackground } from '../../../reactive_rpc/typescript/runtime/background.ts';

class Page extends EventTarget {
  visibilityState = 'visible';
}

const LONG_MS = 60_000;
let page: Page;
let refreshed: string[];
let isBusy: boolean;
let works: boolean;

function begin(): () => void {
  const refresh = (query: string): Promise<boolean> => {
    refreshed.push(query);
    return Promise.resolve(works);
  };
  return refreshInBackground({ queries: () => ['a', 'b', 'c'], isBusy: () => isBusy, refresh });
}

beforeEach(() => {
  [page, refreshed, isBusy, works] = [new Page(), [], false, true];
  vi.useFakeTimers();
  vi.stubGlobal('document', page);
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

test('each is refreshed once, in order', async () => {
  begin();
  await vi.advanceTimersByTimeAsync(LONG_MS);
  expect(refreshed).toEqual(['a', 'b', 'c']);
});

test('a hidden page waits until it is seen', async () => {
  page.visibilityState = 'hidden';
  begin();
  await vi.advanceTimersByTimeAsync(LONG_MS);
  expect(refreshed).toEqual([]);
  page.visibilityState = 'visible';
  page.dispatchEvent(new Event('visibilitychange'));
  await vi.advanceTimersByTimeAsync(LONG_MS);
  expect(refreshed).toEqual(['a', 'b', 'c']);
});

test('a page that fetches for somebody goes first', async () => {
  isBusy = true;
  begin();
  await vi.advanceTimersByTimeAsync(LONG_MS);
  expect(refreshed).toEqual([]);
  isBusy = false;
  await vi.advanceTimersByTimeAsync(LONG_MS);
  expect(refreshed).toEqual(['a', 'b', 'c']);
});

test('nothing is refreshed for somebody who saves data, nor where there is no page', async () => {
  vi.stubGlobal('navigator', { connection: { saveData: true } });
  begin();
  vi.unstubAllGlobals();
  begin();
  await vi.advanceTimersByTimeAsync(LONG_MS);
  expect(refreshed).toEqual([]);
});

test('a failure ends it, and so does who has begun it', async () => {
  works = false;
  begin();
  await vi.advanceTimersByTimeAsync(LONG_MS);
  expect(refreshed).toEqual(['a']);
  begin()();
  await vi.advanceTimersByTimeAsync(LONG_MS);
  expect(refreshed).toEqual(['a']);
});
