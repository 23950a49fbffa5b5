import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { Backoff } from '../../../reactive_rpc/typescript/runtime/backoff.ts';
import { type News, Streams, type WatchedQuery } from '../../../reactive_rpc/typescript/runtime/streams.ts';
import { nextTask } from '../../../reactive_rpc/typescript/runtime/tasks.ts';
import { Wire } from '../../../reactive_rpc/typescript/runtime/wire.ts';
import { PATIENCE_MS } from '../support/patience.ts';
import { Hub } from './hub.ts';

const ONE: WatchedQuery = { key: 'one', path: 'a.b', input: { n: 1 }, etag: '"A"' };
const TWO: WatchedQuery = { key: 'two', path: 'a.b', input: { n: 2 }, etag: null };

let hub: Hub;
let set: readonly WatchedQuery[];
let news: News[];
let streams: Streams;

beforeEach(async () => {
  hub = await Hub.open();
  set = [ONE];
  news = [];
  streams = new Streams({
    wire: new Wire({ url: hub.url }),
    queries: () => set,
    onNews: (one) => news.push(one),
    backoff: new Backoff(() => 0),
  });
});

afterEach(() => {
  vi.useRealTimers();
  streams.close();
  hub.close();
});

async function heard(type: News['type'], count = 1): Promise<void> {
  await expect.poll(() => news.filter((one) => one.type === type).length).toBe(count);
}

/** Let whatever the streams would ask for now reach the server, and a request that was made after it. */
async function roundTrip(): Promise<void> {
  await nextTask();
  await nextTask();
  await new Wire({ url: hub.url }).poll({ queries: [], cursor: null }, 0, AbortSignal.timeout(PATIENCE_MS));
}

async function open(): Promise<void> {
  streams.update();
  await heard('connected');
}

describe('a stream', () => {
  test('is asked for with ETags, and says what it confirms', async () => {
    hub.onStream = (stream) => stream.connect({ stale: [{ path: 'a.b', key: 'k1' }], version: 'e:1', scope: 'ada' });
    set = [ONE, TWO];
    await open();
    expect(hub.streams[0]?.body.queries).toEqual([
      { path: 'a.b', input: { n: 1 }, etag: '"A"' },
      { path: 'a.b', input: { n: 2 } },
    ]);
    const queries = [
      { key: 'one', sentEtag: '"A"', isStale: false, error: null },
      { key: 'two', sentEtag: null, isStale: true, error: null },
    ];
    expect(news).toEqual([
      { type: 'connected', cursor: 'e:1', version: { epoch: 'e', number: 1 }, scope: 'ada', queries },
    ]);
  });

  test('for another set takes over: the one before speaks until then, and ends', async () => {
    await open();
    hub.onStream = () => {};
    set = [ONE, TWO];
    streams.update();
    await expect.poll(() => hub.streams.length).toBe(2);
    const [before, after] = hub.streams;
    before?.say('invalidation', { cursor: 'e:2', affected: [{ path: 'a.b', key: 'k0' }], event_id: '1' });
    await heard('invalidated');
    expect(before?.isClosed).toBe(false);
    after?.connect();
    await heard('connected', 2);
    await expect.poll(() => before?.isClosed).toBe(true);
    expect(after?.isClosed).toBe(false);
  });

  test('for the same set is not opened again, whatever their order', async () => {
    set = [ONE, TWO];
    await open();
    set = [TWO, { ...ONE, etag: '"B"' }];
    streams.update();
    set = [TWO];
    streams.update();
    await heard('connected', 2);
    expect(hub.streams.map((stream) => stream.body.queries.length)).toEqual([2, 1]);
  });

  test('that nobody wants any more ends, also while it is being opened', async () => {
    hub.onStream = () => {};
    streams.update();
    await expect.poll(() => hub.streams.length).toBe(1);
    streams.close();
    await expect.poll(() => hub.streams[0]?.isClosed).toBe(true);
    expect(news).toEqual([]);
    // It was not ended by what asks after a stream that stays silent.
    expect(hub.polls).toEqual([]);
  });

  test('that breaks is opened again from its cursor', async () => {
    await open();
    hub.streams[0]?.say('gap', { cursor: 'e:7' });
    await heard('gap');
    hub.streams[0]?.end();
    await heard('connected', 2);
    expect(hub.streams[1]?.body.cursor).toBe('e:7');
    expect(news.map((one) => one.type)).toEqual(['connected', 'gap', 'down', 'connected']);
  });

  test('in a network that is gone has ended, though its socket has not; the next one begins from its cursor', async () => {
    await open();
    streams.lose();
    expect(news.at(-1)).toMatchObject({ type: 'down', error: { code: 'CONNECTION_FAILED' } });
    expect(streams.state).toBe('reconnecting');
    streams.nudge();
    await heard('connected', 2);
    expect(hub.streams[1]?.body.cursor).toBe('e:1');
    await expect.poll(() => hub.streams[0]?.isClosed).toBe(true);
  });

  test('that is being opened when the network goes is given up, so that the next one need not wait for it', async () => {
    hub.onStream = () => {};
    streams.update();
    await expect.poll(() => hub.streams.length).toBe(1);
    hub.onStream = (stream) => stream.connect();
    streams.lose();
    streams.nudge();
    await heard('connected');
    expect(hub.streams).toHaveLength(2);
  });

  test('is acknowledged up to its last event, once for all of a moment', async () => {
    await open();
    const before = hub.acks.length;
    for (const number of [2, 3, 4]) {
      hub.streams[0]?.say('invalidation', { cursor: `e:${number}`, affected: [], event_id: `${number}` });
    }
    await expect.poll(() => hub.acks.at(-1)).toEqual({ stream: 's', cursor: 'e:4' });
    expect(hub.acks.length).toBeLessThanOrEqual(before + 2);
  });
});

describe('a stream that says nothing', () => {
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'] });
    hub.onStream = (stream) => stream.connect({ heartbeat_seconds: 10 });
  });

  const arrives = (type: News['type'], count = 1): Promise<boolean> =>
    vi.waitUntil(() => news.filter((one) => one.type === type).length >= count, PATIENCE_MS);

  test('but beats is there, and says so', async () => {
    streams.update();
    await arrives('connected');
    for (const count of [1, 2, 3]) {
      await vi.advanceTimersByTimeAsync(20_000);
      hub.streams[0]?.beat();
      await arrives('alive', count);
    }
    expect(hub.streams).toHaveLength(1);
  });

  test('and misses two beats and a half is ended, and another one follows', async () => {
    streams.update();
    await arrives('connected');
    await vi.advanceTimersByTimeAsync(24_900);
    expect(news.map(({ type }) => type)).toEqual(['connected']);
    await vi.advanceTimersByTimeAsync(200);
    await arrives('connected', 2);
    expect(news.map(({ type }) => type)).toEqual(['connected', 'down', 'connected']);
  });

  test('from its beginning, though the server answers, is held back by a proxy: it is polled for five minutes', async () => {
    hub.onStream = () => {};
    streams.update();
    await vi.waitUntil(() => hub.streams.length === 1, PATIENCE_MS);
    await vi.advanceTimersByTimeAsync(5_000);
    await vi.waitUntil(() => hub.polls.length === 1, PATIENCE_MS);
    await roundTrip();
    await vi.advanceTimersByTimeAsync(2_000);
    await vi.waitUntil(() => streams.state === 'polling', PATIENCE_MS);
    hub.onStream = (stream) => stream.connect();
    await vi.advanceTimersByTimeAsync(299_000);
    expect(hub.streams).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(2_000);
    await vi.waitUntil(() => streams.state === 'live', PATIENCE_MS);
  });

  test('is followed by the next no sooner than the server has asked for', async () => {
    streams.update();
    await arrives('connected');
    await vi.advanceTimersByTimeAsync(6_000);
    hub.streams[0]?.ask(4_000);
    await arrives('alive');
    hub.streams[0]?.end();
    await arrives('down');
    await vi.advanceTimersByTimeAsync(1_900);
    expect(hub.streams).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(200);
    await arrives('connected', 2);
  });
});

describe('an event', () => {
  const result = { cursor: 'e:2', path: 'a.b', key: 'k0', etag: '"B"', version: 'e:2', data: 5, event_id: '1' };

  test('that is sent again does nothing twice', async () => {
    await open();
    hub.streams[0]?.say('result', result);
    hub.streams[0]?.say('result', { ...result, retry: 1 });
    hub.streams[0]?.say('gap', { cursor: 'e:3' });
    await heard('gap');
    expect(news.map((one) => one.type)).toEqual(['connected', 'pushed', 'gap']);
  });

  test('that was never seen and is sent again may be older than what was: it only invalidates', async () => {
    await open();
    hub.streams[0]?.say('result', { ...result, retry: 1 });
    await heard('invalidated');
    expect(news.at(-1)).toEqual({ type: 'invalidated', cursor: 'e:2', version: null, keys: ['one'] });
  });

  test('with a key that was never announced means all of its path', async () => {
    set = [ONE, TWO];
    await open();
    hub.streams[0]?.say('result', { ...result, key: 'another' });
    await heard('invalidated');
    expect(news.at(-1)).toMatchObject({ keys: ['one', 'two'] });
  });

  test('of a name that is not known here is ignored', async () => {
    await open();
    hub.streams[0]?.say('constructor', {});
    hub.streams[0]?.say('gap', { cursor: 'e:2' });
    await heard('gap');
    expect(streams.state).toBe('live');
  });
});

describe('what does not work', () => {
  test('three streams that end at once: it is polled, from the cursor', async () => {
    hub.onStream = (stream) => {
      stream.connect();
      stream.end();
    };
    streams.update();
    await expect.poll(() => streams.state).toBe('polling');
    expect(hub.streams).toHaveLength(3);
    expect(hub.polls[0]).toMatchObject({ cursor: 'e:1', wait: 0 });
    await expect.poll(() => hub.polls.length).toBe(2);
    expect(hub.polls[1]).toMatchObject({ queries: [{ path: 'a.b', input: { n: 1 } }], cursor: 'e:1' });
  });

  test('an attempt that has failed is not probed: nothing is asked for it later', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'] });
    hub.onStream = (stream) => (hub.streams.length === 1 ? stream.refuse(503) : stream.connect());
    streams.update();
    await vi.waitUntil(() => news.some(({ type }) => type === 'connected'), PATIENCE_MS);
    await vi.advanceTimersByTimeAsync(10_000);
    await roundTrip();
    expect(hub.polls).toHaveLength(1);
  });

  test('a server that asks to be left alone is left alone', async () => {
    const at: number[] = [];
    hub.onStream = (stream) => {
      at.push(performance.now());
      if (at.length === 1) stream.refuse(503, { 'retry-after': '1' });
      else stream.connect();
    };
    await open();
    expect(news[0]).toMatchObject({ type: 'down', error: { code: 'SERVICE_UNAVAILABLE' } });
    expect((at[1] ?? 0) - (at[0] ?? 0)).toBeGreaterThan(950);
  });

  test.each([401, 403])('%i: nothing more is asked until there are other credentials', async (status) => {
    hub.onStream = (stream) => stream.refuse(status);
    streams.update();
    await heard('refused');
    set = [TWO];
    streams.update();
    await roundTrip();
    expect(hub.streams).toHaveLength(1);
    hub.onStream = (stream) => stream.connect();
    streams.reidentify();
    await heard('connected');
    expect(hub.streams).toHaveLength(2);
  });

  test('413: a set that is too large is asked for once, and another one is', async () => {
    hub.onStream = (stream) => (stream.body.queries.length > 1 ? stream.refuse(413) : stream.connect());
    set = [ONE, TWO];
    streams.update();
    await heard('refused');
    expect(news.at(-1)).toMatchObject({ error: { code: 'PAYLOAD_TOO_LARGE' } });
    set = [TWO, ONE];
    streams.update();
    await roundTrip();
    expect(hub.streams).toHaveLength(1);
    set = [ONE];
    await open();
    expect(hub.streams).toHaveLength(2);
    set = [ONE, TWO];
    streams.update();
    await roundTrip();
    expect(hub.streams).toHaveLength(2);
    expect(hub.streams[1]?.isClosed).toBe(false);
  });

  test('revoked: neither; and the next caller begins without a cursor', async () => {
    await open();
    hub.streams[0]?.say('revoked', { reason: 'logged out' });
    await heard('refused');
    await expect.poll(() => hub.streams[0]?.isClosed).toBe(true);
    streams.reidentify();
    await heard('connected', 2);
    expect(hub.streams[1]?.body.cursor).toBeNull();
  });

  test('a query that is refused for now is asked for again', async () => {
    const error = { code: 'SERVICE_UNAVAILABLE', message: 'later' };
    hub.onStream = (stream) => {
      const isFirst = hub.streams.length === 1;
      const refused = { queries: [null], errors: [{ path: 'a.b', input: { n: 1 }, error }] };
      stream.connect(isFirst ? refused : {});
    };
    await open();
    expect(news[0]).toMatchObject({ queries: [{ error: { code: 'SERVICE_UNAVAILABLE' } }] });
    await heard('connected', 2);
  });

  test.each([
    ['another first event', (hubOf: Hub) => hubOf.streams[0]?.say('gap', { cursor: 'e:1' })],
    ['an answer for another set', (hubOf: Hub) => hubOf.streams[0]?.connect({ queries: [] })],
    ['no JSON', (hubOf: Hub) => hubOf.streams[0]?.say('connected', [] as object)],
  ])('%s is tried again', async (_, speak) => {
    hub.onStream = (stream) => (hub.streams.length === 1 ? speak(hub) : stream.connect());
    await open();
    expect(news.map((one) => one.type)).toEqual(['down', 'connected']);
  });
});
