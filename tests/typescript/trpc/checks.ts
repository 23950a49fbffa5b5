// What an unmodified client of tRPC's must see of the application in tests/integration/trpc/desk.py: the same checks for
// each version of the client, which is given with its links.

import { deepEqual, equal, ok, rejects } from 'node:assert/strict';
import type * as client from '@trpc/client';
import { EventSource } from 'eventsource';
import superjson from 'superjson';

export type Library = typeof client;
type Link = client.TRPCLink<never>;

const AUTHORIZED = { authorization: 'Bearer ada' };

class World {
  readonly lib: Library;
  readonly url: string;

  constructor(lib: Library, url: string) {
    this.lib = lib;
    this.url = url;
  }

  // Every link that the client has, and each as an application would use it.
  links(options: { headers?: Record<string, string>; transformer?: object } = {}): Record<string, Link[]> {
    const { httpBatchLink, httpBatchStreamLink, httpLink } = this.lib;
    const common = { url: this.url, headers: AUTHORIZED, ...options } as never;
    return { http: [httpLink(common)], batch: [httpBatchLink(common)], stream: [httpBatchStreamLink(common)] };
  }

  // A client whose subscriptions say who calls by connectionParams.
  listener(params: Record<string, string> | null = AUTHORIZED, url = this.url) {
    return this.lib.createTRPCUntypedClient({
      links: [
        this.lib.httpSubscriptionLink({ url, EventSource, ...(params && { connectionParams: params }) } as never),
      ],
    });
  }

  of(links: Link[]) {
    return this.lib.createTRPCUntypedClient({ links });
  }
}

interface Refused {
  message: string;
  data: Record<string, unknown> | null;
  shape: { code: number } | null;
}

async function refused(promise: Promise<unknown>): Promise<Refused> {
  let found: Refused | undefined;
  await rejects(promise, (error) => {
    found = error as Refused;
    return true;
  });
  return found as Refused;
}

interface Heard {
  data: unknown[];
  error: Refused | null;
  isComplete: boolean;
  states: string[];
}

// Subscribe until `enough` says so, the subscription ends, or it fails.
function hear(
  from: ReturnType<World['of']>,
  path: string,
  input: unknown,
  enough: (heard: Heard) => boolean = () => false,
): Promise<Heard> {
  const heard: Heard = { data: [], error: null, isComplete: false, states: [] };
  return new Promise((resolve) => {
    const subscription = from.subscription(path, input, {
      onData: (value) => {
        heard.data.push(value);
        if (enough(heard)) {
          subscription.unsubscribe();
          resolve(heard);
        }
      },
      onConnectionStateChange: (state) => {
        heard.states.push(state.state);
      },
      onComplete: () => {
        heard.isComplete = true;
        resolve(heard);
      },
      onError: (error) => {
        heard.error = error as unknown as Refused;
        resolve(heard);
      },
    });
  });
}

async function calls(world: World, name: string, links: Link[]) {
  const { query, mutation } = bound(world.of(links));
  equal(await query('desk.ping'), 'pong');
  equal(await query('desk.whoami'), 'ada');
  const desk = `calls-${name}-${Date.now()}`;
  const memo = (await mutation('desk.add', { desk, text: 'hé "quoted"' })) as { id: number };
  deepEqual(await query('desk.memos', { desk }), [{ ...memo, desk, text: 'hé "quoted"', author: 'ada' }]);
  equal(await mutation('desk.touch'), null);
  equal(await query('desk.many', { ids: [1, 2, 3] }), 6);
  const both = await Promise.all([query('desk.ping'), query('desk.one', { id: memo.id }), query('desk.whoami')]);
  deepEqual(both, ['pong', { ...memo, desk, text: 'hé "quoted"', author: 'ada' }, 'ada']);
}

function bound(client: ReturnType<World['of']>) {
  return { query: client.query.bind(client), mutation: client.mutation.bind(client) };
}

async function errors(world: World, links: Link[]) {
  const { query, mutation } = bound(world.of(links));
  const missing = await refused(query('desk.one', { id: 999_999 }));
  equal(missing.message, 'no memo 999999');
  equal(missing.data?.['code'], 'NOT_FOUND');
  equal(missing.data?.['httpStatus'], 404);
  equal(missing.data?.['path'], 'desk.one');
  equal(missing.shape?.code, -32004);
  const full = await refused(mutation('desk.add', { desk: 'full', text: '' }));
  deepEqual(
    [full.data?.['code'], full.data?.['type'], full.data?.['details']],
    ['CONFLICT', 'DeskFull', { desk: 'full' }],
  );
  const unfit = await refused(query('desk.one', { id: 'x' }));
  deepEqual([unfit.data?.['code'], unfit.shape?.code], ['BAD_REQUEST', -32600]);
  const unknown = await refused(query('desk.nope'));
  deepEqual([unknown.data?.['code'], unknown.message], ['NOT_FOUND', 'No procedure found on path "desk.nope"']);
  const broken = await refused(query('desk.broken'));
  equal(broken.data?.['code'], 'INTERNAL_SERVER_ERROR');
  ok(!broken.message.includes('hunter2'));
  const mixed = await Promise.allSettled([query('desk.ping'), query('desk.nope'), query('desk.one', { id: 'x' })]);
  deepEqual(
    mixed.map((each) => each.status),
    ['fulfilled', 'rejected', 'rejected'],
  );
}

async function strangers(world: World) {
  for (const links of Object.values(world.links({ headers: {} }))) {
    const { query } = bound(world.of(links));
    const [nobody, anybody] = await Promise.allSettled([query('desk.whoami'), query('desk.ping')]);
    equal(nobody.status === 'rejected' && nobody.reason.data.code, 'UNAUTHORIZED');
    equal(anybody.status === 'fulfilled' && anybody.value, 'pong');
  }
}

async function iterables(world: World) {
  const { http, stream } = world.links() as Record<'http' | 'stream', Link[]>;
  const { query } = bound(world.of(stream));
  const [counted, pong] = await Promise.all([query('desk.count', { upto: 4 }), query('desk.ping')]);
  equal(pong, 'pong');
  deepEqual(await all(counted as AsyncIterable<number>), [0, 1, 2, 3]);
  const seen: number[] = [];
  const failed = await refused(
    (async () => {
      for await (const number of (await query('desk.count', { upto: 9, fail_at: 2 })) as AsyncIterable<number>) {
        seen.push(number);
      }
    })(),
  );
  deepEqual([seen, failed.message, failed.data?.['code']], [[0, 1], 'no number 2', 'NOT_FOUND']);
  const atOnce = await refused(query('desk.count', { upto: 'x' }));
  equal(atOnce.data?.['code'], 'BAD_REQUEST');
  const whole = await refused(bound(world.of(http)).query('desk.count', { upto: 1 }));
  equal(whole.data?.['code'], 'UNSUPPORTED_MEDIA_TYPE');
}

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of items) found.push(item);
  return found;
}

async function subscriptions(world: World) {
  const listener = world.listener();
  const ticks = await hear(listener, 'desk.ticks', { upto: 3 });
  deepEqual([ticks.data, ticks.isComplete, ticks.error], [[0, 1, 2], true, null]);
  const failing = await hear(listener, 'desk.ticks', { upto: 1, fail: true });
  deepEqual([failing.data, failing.error?.data?.['code'], failing.error?.message], [[0], 'NOT_FOUND', 'no more']);
  const desk = `heard-${Date.now()}`;
  const { mutation } = bound(world.of(world.links()['http'] as Link[]));
  await mutation('desk.add', { desk, text: 'one' });
  const hearing = hear(listener, 'desk.added', { desk }, ({ data }) => data.length === 2);
  await mutation('desk.add', { desk, text: 'two' });
  const heard = (await hearing).data as { id: string; data: { id: number; text: string } }[];
  deepEqual(
    heard.map(({ id, data }) => [id, data.text]),
    [
      [String(heard[0]?.data.id), 'one'],
      [String(heard[1]?.data.id), 'two'],
    ],
  );
  const resumed = await hear(listener, 'desk.added', { desk, lastEventId: heard[0]?.id }, () => true);
  equal((resumed.data[0] as { id: string }).id, heard[1]?.id);
}

async function refusedSubscriptions(world: World) {
  const stranger = await hear(world.listener(null), 'desk.added', { desk: 'a' });
  equal(stranger.error?.data?.['code'], 'UNAUTHORIZED');
  const other = await hear(world.listener({ cookie: 'a=b', 'x-user': 'ada' }), 'desk.added', { desk: 'a' });
  equal(other.error?.data?.['code'], 'UNAUTHORIZED');
  const unfit = await hear(world.listener(), 'desk.added', { desk: 7 });
  equal(unfit.error?.data?.['code'], 'BAD_REQUEST');
}

async function overridden(world: World) {
  const url = world.url.replace('/trpc', '/posted');
  const { http } = new World(world.lib, url).links({ methodOverride: 'POST' } as never);
  equal(await world.of(http as Link[]).query('desk.method'), 'POST');
  const here = world.links({ methodOverride: 'POST' } as never)['http'] as Link[];
  equal((await refused(world.of(here).query('desk.method'))).data?.['code'], 'METHOD_NOT_SUPPORTED');
}

async function split(world: World) {
  const { http, stream } = world.links() as Record<'http' | 'stream', Link[]>;
  const { splitLink, retryLink, httpSubscriptionLink } = world.lib;
  let tries = 0;
  const client = world.of([
    retryLink({
      retry: ({ attempts, error }) => {
        tries = attempts;
        return attempts < 3 && error.data === null;
      },
    }),
    splitLink({
      condition: ({ type }) => type === 'subscription',
      true: httpSubscriptionLink({ url: world.url, EventSource, connectionParams: AUTHORIZED } as never),
      false: splitLink({ condition: ({ context }) => Boolean(context['skipBatch']), true: http, false: stream }),
    }),
  ] as Link[]);
  deepEqual(
    await Promise.all([
      client.query('desk.ping'),
      client.query('desk.whoami', undefined, { context: { skipBatch: true } }),
    ]),
    ['pong', 'ada'],
  );
  deepEqual((await hear(client, 'desk.ticks', { upto: 2 })).data, [0, 1]);
  equal((await refused(client.query('desk.nope'))).data?.['code'], 'NOT_FOUND');
  equal(tries, 1);
}

// Links send no URL that is too long and no batch of too many, and the server says so of those that do.
async function bounded(world: World) {
  const ids = Array.from({ length: 300 }, (_, number) => 100_000 + number);
  const sum = ids.reduce((one, other) => one + other);
  for (const options of [{ maxURLLength: 6000 }, { maxItems: 2 }]) {
    const sent: string[] = [];
    const counted = (url: unknown, init: object) => {
      sent.push(String(url));
      return fetch(String(url), init as RequestInit);
    };
    for (const links of Object.values(world.links({ ...options, fetch: counted } as never)).slice(1)) {
      const { query } = bound(world.of(links));
      const asked = [1, 2, 3].map(() => query('desk.many', { ids }));
      deepEqual(await Promise.all(asked), [sum, sum, sum]);
    }
    ok(sent.length >= 4);
    ok(sent.every((url) => url.length <= 6000 || 'maxItems' in options));
  }
  const { http } = world.links() as Record<'http', Link[]>;
  const long = await refused(world.of(http).query('desk.many', { ids: Array.from({ length: 8 }, () => ids).flat() }));
  deepEqual([long.data?.['code'], long.data?.['httpStatus']], ['PAYLOAD_TOO_LARGE', 414]);
}

async function forms(world: World) {
  const { http } = world.links() as Record<'http', Link[]>;
  const form = new FormData();
  form.set('file', new File(['hello'], 'a.txt'));
  form.set('input', JSON.stringify({ title: 'greeting' }));
  equal(await world.of(http).mutation('desk.attach', form), 'greeting:a.txt:5');
  equal(await world.of(http).mutation('desk.attach', new Uint8Array([0, 1, 2])), ':None:3');
  equal(await world.of(http).mutation('desk.attach', new Blob(['hello'])), ':None:5');
  equal((await refused(world.of(http).mutation('desk.touch', new Blob(['x'])))).data?.['httpStatus'], 415);
  const bare = await refused(world.of(http).mutation('desk.attach', { title: 'x' }));
  equal(bare.data?.['code'], 'UNSUPPORTED_MEDIA_TYPE');
}

async function aborted(world: World) {
  for (const links of Object.values(world.links())) {
    const leaving = new AbortController();
    const waiting = world.of(links).query('desk.wait', undefined, { signal: leaving.signal });
    setTimeout(() => leaving.abort(), 50);
    await rejects(waiting);
    equal(await world.of(links).query('desk.ping'), 'pong');
  }
}

interface News {
  id: string;
  data: { type: string; affected: { path: string; input: unknown; key: string }[] };
}

// The stream of invalidations, as an application that knows nothing else of it listens.
async function invalidations(world: World) {
  const desk = `news-${Date.now()}`;
  const { mutation } = bound(world.of(world.links()['http'] as Link[]));
  const queries = [
    { path: 'desk.memos', input: { desk } },
    { path: 'desk.memos', input: { desk: `${desk}-other` } },
  ];
  const news: News[] = [];
  const enough = ({ data }: Heard) => {
    news.splice(0, news.length, ...(data as News[]));
    if (data.length === 1) void mutation('desk.add', { desk, text: 'x' });
    return data.length === 2;
  };
  const { error } = await hear(world.listener(), 'reactive.events', { queries }, enough);
  equal(error, null);
  deepEqual(
    news.map(({ data }) => [data.type, data.affected.map(({ input }) => input)]),
    [
      ['connected', queries.map(({ input }) => input)], // nobody knows yet how old what the client shows is
      ['invalidation', [{ desk }]],
    ],
  );
  await mutation('desk.add', { desk: `${desk}-other`, text: 'y' });
  const input = { queries, lastEventId: news[1]?.id };
  const resumed = await hear(world.listener(), 'reactive.events', input, () => true);
  deepEqual(
    (resumed.data as News[]).map(({ data }) => data.affected.map((query) => query.input)),
    [[{ desk: `${desk}-other` }]],
  );
  const stranger = await hear(world.listener(null), 'reactive.events', { queries });
  equal(stranger.error?.data?.['code'], 'UNAUTHORIZED');
  const unfit = await hear(world.listener(), 'reactive.events', { queries: 7 });
  equal(unfit.error?.data?.['code'], 'BAD_REQUEST');
}

// A mount with superjson gives and takes the values that JSON has not, by every link.
async function transformed(world: World) {
  const url = world.url.replace('/trpc', '/super');
  const there = new World(world.lib, url);
  const leaf = {
    at: new Date('2027-01-15T08:00:00.123Z'),
    local: null,
    big: 2n ** 70n,
    raw: new Uint8Array([0, 1, 255]),
    tags: new Set(['a.b', 'c']),
    by_day: new Map([[7, new Date(0)]]),
    inner: [],
  };
  const values = { ...leaf, inner: [leaf, { ...leaf, tags: new Set<string>() }] };
  for (const [name, links] of Object.entries(there.links({ transformer: superjson }))) {
    const { query } = bound(there.of(links));
    const echoed = (await query('desk.echo', { values, times: 2 })) as unknown[];
    deepEqual(echoed, [values, values], name);
    equal(await query('desk.ping'), 'pong');
    equal(await query('desk.many', { ids: [1, 2] }), 3);
    const missing = await refused(query('desk.one', { id: 999_999 }));
    deepEqual([missing.data?.['code'], missing.shape?.code], ['NOT_FOUND', -32004]);
    equal((await refused(query('desk.nope'))).data?.['code'], 'NOT_FOUND');
  }
  const stream = world.of(there.links({ transformer: superjson })['stream'] as Link[]);
  const yielded = await all((await stream.query('desk.echoed', { values })) as AsyncIterable<unknown>);
  deepEqual(yielded, [values]);
  const failing = await refused(
    (async () => all((await stream.query('desk.count', { upto: 2, fail_at: 1 })) as AsyncIterable<unknown>))(),
  );
  equal(failing.data?.['code'], 'NOT_FOUND');
}

async function transformedEvents(world: World) {
  const url = world.url.replace('/trpc', '/super');
  const { httpSubscriptionLink } = world.lib;
  const options = { url, EventSource, connectionParams: AUTHORIZED, transformer: superjson };
  const listener = world.of([httpSubscriptionLink(options as never)] as Link[]);
  const values = {
    at: new Date(1),
    local: null,
    big: 2n ** 61n,
    raw: new Uint8Array(0),
    tags: new Set(['x']),
    by_day: new Map(),
    inner: [],
  };
  deepEqual((await hear(listener, 'desk.echoes', { values })).data, [{ id: '1', data: values }]);
  deepEqual((await hear(listener, 'desk.ticks', { upto: 2 })).data, [0, 1]);
  equal((await hear(listener, 'desk.ticks', { upto: 'x' })).error?.data?.['code'], 'BAD_REQUEST');
  const queries = [{ path: 'desk.memos', input: { desk: 'a' } }];
  const [news] = (await hear(listener, 'reactive.events', { queries }, () => true)).data as News[];
  equal(news?.data.type, 'connected');
}

function checksOf(world: World): Record<string, () => Promise<void>> {
  const checks: Record<string, () => Promise<void>> = {};
  for (const [name, links] of Object.entries(world.links())) {
    checks[`calls by ${name}`] = () => calls(world, name, links);
    checks[`errors by ${name}`] = () => errors(world, links);
  }
  for (const check of [
    strangers,
    iterables,
    subscriptions,
    refusedSubscriptions,
    overridden,
    split,
    bounded,
    forms,
    aborted,
    invalidations,
    transformed,
    transformedEvents,
  ]) {
    checks[check.name] = () => check(world);
  }
  return checks;
}

// Run every check against the server at `url` but those left out, and print each with what was wrong, if anything was.
export async function run(lib: Library, url: string, ...leftOut: string[]): Promise<void> {
  for (const [name, check] of Object.entries(checksOf(new World(lib, url)))) {
    if (leftOut.includes(name)) continue;
    const fault = await check().then(
      () => null,
      (error: unknown) => (error instanceof Error ? (error.stack ?? error.message) : String(error)),
    );
    console.log(JSON.stringify({ name, fault }));
  }
}
