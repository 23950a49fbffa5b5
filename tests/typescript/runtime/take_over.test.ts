/**
 * What the engine relies on in query-core beyond its documented interface: that an observer's options reach a query by
 * the `setOptions` of that query, and an invalidation by its `invalidate`, so both can be taken over. If a new release
 * of query-core fails here, `#takeOver` in `engine.ts` has to find another way.
 */

import { type Query, QueryObserver } from '@tanstack/query-core';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { queryKeyOf } from '../../../reactive_rpc/typescript/runtime/keys.ts';
import { MemoryBrowser, type Row, settle, type Tab, until } from './browser.ts';

let browser: MemoryBrowser;
let tab: Tab;
const foreign = vi.fn(() => Promise.resolve<Row>({ path: 'elsewhere', count: -1 }));
const queryKey = queryKeyOf({ path: 'a.b', input: undefined });
const options = { queryKey, queryFn: foreign, staleTime: 0, retry: 3 };

beforeEach(() => {
  browser = new MemoryBrowser();
  tab = browser.open();
  foreign.mockClear();
});

afterEach(() => browser.close());

function asked(): number {
  return browser.server.asked.filter((path) => path === 'a.b').length;
}

test('whatever function and options observers bring, the engine fetches, and the stream is followed', async () => {
  const observer = new QueryObserver<Row>(tab.engine.client, options);
  const stop = observer.subscribe(() => {});
  await until(() => observer.getCurrentResult().data?.count === 0);
  observer.setOptions({ ...options, gcTime: 7 });
  expect((await observer.refetch()).data?.count).toBe(0);
  browser.server.write('a.b');
  await until(() => observer.getCurrentResult().data?.count === 1);
  const second = new QueryObserver<Row>(tab.engine.client, { ...options, refetchOnMount: 'always' });
  const stopSecond = second.subscribe(() => {});
  await settle();
  expect(second.getCurrentResult().data?.count).toBe(1);
  stop();
  stopSecond();
  expect(foreign).not.toHaveBeenCalled();
  expect(browser.server.streams.size).toBeLessThanOrEqual(1);
});

test('so it is for who asks the client without an observer', async () => {
  const { client } = tab.engine;
  expect(await client.fetchQuery<Row>(options)).toMatchObject({ count: 0 });
  browser.server.write('a.b');
  expect(await client.fetchQuery<Row>(options)).toMatchObject({ count: 1 });
  await client.prefetchQuery(options);
  expect(foreign).not.toHaveBeenCalled();
});

test('an invalidation of what is stale anyway is heard of: it is asked for once more', async () => {
  const observer = new QueryObserver<Row>(tab.engine.client, options);
  const stop = observer.subscribe(() => {});
  await until(() => observer.getCurrentResult().data?.count === 0 && browser.server.streams.size === 1);
  tab.engine.suspend();
  expect(observer.getCurrentQuery().state.isInvalidated).toBe(true);
  const before = asked();
  browser.server.write('a.b');
  await tab.engine.client.invalidateQueries({ queryKey, refetchType: 'none' });
  await until(() => observer.getCurrentResult().data?.count === 1);
  expect(asked()).toBe(before + 1);
  stop();
});

test('the observers that query-core makes call the methods of the query itself, which stand in its prototype', async () => {
  const query: Query<Row> = tab.engine.client.getQueryCache().build(tab.engine.client, { queryKey });
  const prototype: object = Object.getPrototypeOf(query);
  for (const name of ['setOptions', 'invalidate'] as const) {
    expect(Object.hasOwn(prototype, name), name).toBe(true);
    expect(Object.hasOwn(query, name), name).toBe(true);
  }
  await settle();
});
