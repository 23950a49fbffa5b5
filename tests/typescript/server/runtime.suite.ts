import { QueryClient, QueryObserver } from '@tanstack/query-core';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';

import { queryKeyOf } from '../../../reactive_rpc/typescript/runtime/keys.ts';
import type { State } from '../../../reactive_rpc/typescript/runtime/state.ts';
import type { KeyValueStorage } from '../../../reactive_rpc/typescript/runtime/store.ts';
import { nextTask } from '../../../reactive_rpc/typescript/runtime/tasks.ts';
import { type Agent, Caller, Counter, type Message, Pages, Shown, Way } from './teamhub.ts';

let ada: Caller;
let neighbour: Caller;
const pages = new Pages();

beforeAll(async () => {
  [ada, neighbour] = await Promise.all([Caller.logIn('ada@org-01.example'), Caller.logIn('ada@org-02.example')]);
});

afterEach(() => pages.closeAll());

function bodies(messages: readonly Message[] | undefined): string[] {
  return (messages ?? []).map((message) => message.body);
}

describe.each(['auto', 'poll'] as const)('a query, by %s', (transport) => {
  test('loads, is confirmed, and follows what others write', async () => {
    const agent = await ada.newAgent();
    const page = pages.open(ada, { transport });
    const shown = new Shown(page.query('agents.get_one', { agent_id: agent.id }));
    expect(shown.now).toMatchObject({ data: undefined, isStale: true, isLoading: true });
    expect((await shown.fresh()).data?.name).toBe('Test');
    expect(page.status.state).toBe(transport === 'poll' ? 'polling' : 'live');

    await ada.call('agents.update', { agent_id: agent.id, name: 'Grace' });
    expect((await shown.until(({ data, isStale }) => data?.name === 'Grace' && !isStale)).error).toBeNull();
  });

  test('that answers an error which lasts shows it, and follows', async () => {
    const agent = await ada.newAgent();
    const shown = new Shown(pages.open(ada, { transport }).query('agents.get_one', { agent_id: agent.id }));
    await shown.fresh();
    await ada.call('agents.delete', { agent_id: agent.id });
    const gone = await shown.until(({ error, isStale }) => error !== null && !isStale);
    expect(gone).toMatchObject({ data: undefined, error: { code: 'NOT_FOUND' } });
  });
});

describe('one entry in the QueryClient', () => {
  test('is shared by all who show it, stock observers too: one fetch, one stream', async () => {
    const agent = await ada.newAgent();
    const counter = new Counter();
    const client = new QueryClient();
    const page = pages.open(ada, { client, namespaces: ['agents'], fetch: counter.fetch });
    const name = { path: 'agents.get_one', input: { agent_id: agent.id } };
    const stock = new QueryObserver<Agent>(client, { queryKey: queryKeyOf(name) });
    const seen: (string | undefined)[] = [];
    const stop = stock.subscribe(({ data }) => seen.push(data?.name));
    const shown = new Shown(page.query('agents.get_one', { agent_id: agent.id }));
    await shown.fresh();
    expect(counter.counts).toMatchObject({ 'agents.get_one': 1, events: 1 });

    await ada.call('agents.update', { agent_id: agent.id, name: 'Grace' });
    await shown.until(({ data, isStale }) => data?.name === 'Grace' && !isStale);
    await expect.poll(() => stock.getCurrentResult()).toMatchObject({ data: { name: 'Grace' }, isStale: false });
    expect(counter.counts).toMatchObject({ 'agents.get_one': 2, events: 1 });
    expect(new Set(seen)).toEqual(new Set([undefined, 'Test', 'Grace']));
    stop();
  });

  test('is fetched anew once it is shown, if it was marked as invalid before; it was stale anyway', async () => {
    const agent = await ada.newAgent();
    const counter = new Counter();
    const client = new QueryClient();
    pages.open(ada, { client, namespaces: ['agents'], fetch: counter.fetch });
    const queryKey = queryKeyOf({ path: 'agents.get_one', input: { agent_id: agent.id } });
    await client.fetchQuery({ queryKey });
    await expect.poll(() => client.getQueryState(queryKey)?.isInvalidated).toBe(true);
    await client.invalidateQueries({ queryKey });
    expect(counter.counts['agents.get_one']).toBe(1);
    const stop = new QueryObserver(client, { queryKey }).subscribe(() => {});
    await expect.poll(() => counter.counts['agents.get_one']).toBe(2);
    stop();
  });

  test("leaves the page's other queries alone", async () => {
    const client = new QueryClient();
    pages.open(ada, { client, namespaces: ['agents'] });
    const value = await client.fetchQuery({ queryKey: ['todos'], queryFn: () => Promise.resolve(5) });
    expect(value).toBe(5);
    expect(client.defaultQueryOptions({ queryKey: ['todos'] }).staleTime).toBeUndefined();
  });

  test('data that somebody puts there shows, and is corrected', async () => {
    const agent = await ada.newAgent();
    const page = pages.open(ada);
    const query = page.query('agents.get_one', { agent_id: agent.id });
    const shown = new Shown(query);
    await shown.fresh();
    const key = queryKeyOf({ path: 'agents.get_one', input: { agent_id: agent.id } });
    page.client.setQueryData(key, { ...agent, name: 'Nobody' });
    expect(page.client.getQueryData<Agent>(key)?.name).toBe('Nobody');
    await shown.until(({ isStale }) => isStale);
    await shown.fresh();
    expect(page.client.getQueryData<Agent>(key)?.name).toBe('Test');
  });
});

describe('an optimistic mutation', () => {
  async function conversation(
    options = {},
  ): Promise<{ agent: Agent; page: ReturnType<Pages['open']>; shown: Shown<State<readonly Message[]>> }> {
    const agent = await ada.newAgent();
    const page = pages.open(ada, options);
    const shown = new Shown(page.query('messages.get_after', { agent_id: agent.id }));
    await shown.fresh();
    return { agent, page, shown };
  }

  test('shows at once, and in no frame twice or not at all, in the order of many', async () => {
    const { agent, page, shown } = await conversation();
    const from = shown.states.length;
    const sent = Array.from({ length: 12 }, (_, index) => `message ${index}`);
    const answers = sent.map((body) =>
      page.call(
        'messages.send',
        { from_agent_id: agent.id, body },
        {
          optimistic: (on) =>
            on('messages.get_after', { agent_id: agent.id }, (messages) => [...messages, { id: body, body }]),
        },
      ),
    );
    expect(bodies(shown.now.data)).toEqual(sent);
    await Promise.all(answers);
    await shown.until(({ isStale, isPending }) => !isStale && !isPending);
    expect(bodies(shown.now.data)).toEqual(sent);
    const frames = shown.states.slice(from).map((state) => bodies(state.data));
    for (const [index, frame] of frames.entries()) {
      // Each frame is a beginning of what was sent, and none shorter than the one before.
      expect(frame).toEqual(sent.slice(0, frame.length));
      expect(frame.length).toBeGreaterThanOrEqual(frames[index - 1]?.length ?? 0);
    }
  });

  test('that the server refuses rolls back', async () => {
    const { agent, page, shown } = await conversation();
    const sending = page.call(
      'messages.send',
      { from_agent_id: agent.id, body: '' },
      { optimistic: (on) => on('messages.get_after', null, (messages) => [...messages, { id: 'x', body: 'x' }]) },
    );
    expect(bodies(shown.now.data)).toEqual(['x']);
    await expect(sending).rejects.toMatchObject({ code: 'BAD_REQUEST' });
    await shown.fresh();
    expect(bodies(shown.now.data)).toEqual([]);
  });

  test('whose answer is lost shows until a fetch tells whether it was made', async () => {
    const way = await Way.open();
    try {
      const { agent, page, shown } = await conversation({ url: way.url });
      way.cut();
      const sending = page.call(
        'messages.send',
        { from_agent_id: agent.id, body: 'lost' },
        { optimistic: (on) => on('messages.get_after', null, (messages) => [...messages, { id: 'x', body: 'lost' }]) },
      );
      await expect(sending).rejects.toMatchObject({ code: 'CONNECTION_FAILED' });
      expect(shown.now).toMatchObject({ isPending: true, isStale: true });
      way.mend();
      await shown.fresh();
      expect(bodies(shown.now.data)).toEqual([]);
    } finally {
      way.close();
    }
  });
});

describe('an outage', () => {
  test('is shown at once; what was written meanwhile shows when it is over', async () => {
    const agent = await ada.newAgent();
    const way = await Way.open();
    try {
      const page = pages.open(ada, { url: way.url });
      const shown = new Shown(page.query('agents.get_one', { agent_id: agent.id }));
      await shown.fresh();
      way.cut();
      const stale = await shown.until(({ isStale }) => isStale);
      expect(stale.data?.name).toBe('Test');
      await expect.poll(() => page.status.state).toBe('reconnecting');
      await ada.call('agents.update', { agent_id: agent.id, name: 'Grace' });
      way.mend();
      await shown.until(({ data, isStale }) => data?.name === 'Grace' && !isStale);
      expect(shown.now.error).toBeNull();
    } finally {
      way.close();
    }
  });

  test('while a stream is being opened leaves no connection behind', async () => {
    const agent = await ada.newAgent();
    const way = await Way.open();
    try {
      const page = pages.open(ada, { url: way.url });
      const shown = new Shown(page.query('agents.get_one', { agent_id: agent.id }));
      await shown.until(({ data }) => data !== undefined);
      page.close();
      const { count } = way;
      await ada.call('agents.update', { agent_id: agent.id, name: 'Grace' });
      expect(shown.now.data?.name).toBe('Test');
      expect(way.count).toBe(count);
    } finally {
      way.close();
    }
  });
});

describe('what has failed', () => {
  test.each([
    ['is tried later, as the server has asked,', 503, { 'retry-after': '3600' }],
    ['the server would refuse again', 500, {}],
  ])('and %s is asked for at once by `retry`', async (_, status, headers) => {
    const agent = await ada.newAgent();
    let isBroken = true;
    const fetchBroken: typeof fetch = async (input, init) =>
      isBroken ? Response.json({ error: 'INTERNAL', message: 'broken' }, { status, headers }) : fetch(input, init);
    const page = pages.open(ada, { fetch: fetchBroken, transport: 'off' });
    const shown = new Shown(page.query('agents.get_one', { agent_id: agent.id }));
    await shown.until(({ error }) => error !== null);
    isBroken = false;
    page.retry();
    expect((await shown.until(({ data }) => data !== undefined)).data?.name).toBe('Test');
  });
});

describe('who calls', () => {
  test('without credentials nothing is asked again and again, until there are others', async () => {
    const agent = await ada.newAgent();
    const counter = new Counter();
    let headers: Readonly<Record<string, string>> = {};
    const page = pages.open(ada, { credentials: () => headers, fetch: counter.fetch });
    const shown = new Shown(page.query('agents.get_one', { agent_id: agent.id }));
    expect((await shown.until(({ error }) => error !== null)).error).toMatchObject({ code: 'UNAUTHORIZED' });
    await expect.poll(() => page.status.state).toBe('refused');
    expect(counter.counts['agents.get_one']).toBe(1);
    headers = ada.headers;
    page.reidentify();
    expect((await shown.fresh()).data?.name).toBe('Test');
    expect(page.status.state).toBe('live');
  });

  test('is asked at each request and each stream, and may take its time', async () => {
    const agent = await ada.newAgent();
    const sent: (string | null)[] = [];
    const look = (init: RequestInit | undefined): void => {
      sent.push(new Headers(init?.headers).get('x-turn'));
    };
    let turn = 0;
    const credentials = async (): Promise<Readonly<Record<string, string>>> => {
      await nextTask();
      turn += 1;
      return { ...ada.headers, 'x-turn': `${turn}` };
    };
    const page = pages.open(ada, { credentials, fetch: new Counter(look).fetch });
    const shown = new Shown(page.query('agents.get_one', { agent_id: agent.id }));
    await shown.fresh();
    await page.call('agents.update', { agent_id: agent.id, name: 'Grace' });
    await shown.until(({ data, isStale }) => data?.name === 'Grace' && !isStale);
    expect(turn).toBeGreaterThanOrEqual(4);
    // Each request has its own: none is said twice, and none says nothing.
    expect(new Set(sent).size).toBe(sent.length);
    expect(sent).not.toContain(null);
  });

  test('who cannot say so sends nothing: a mutation is taken back at once, and all goes on once they can', async () => {
    const agent = await ada.newAgent();
    let isDown = false;
    const credentials = (): Readonly<Record<string, string>> => {
      if (isDown) throw new Error('the place that gives tokens is closed');
      return ada.headers;
    };
    const counter = new Counter();
    const page = pages.open(ada, { credentials, fetch: counter.fetch });
    const shown = new Shown(page.query('agents.get_one', { agent_id: agent.id }));
    await shown.fresh();
    isDown = true;
    const refused = page.call(
      'agents.update',
      { agent_id: agent.id, name: 'Grace' },
      { optimistic: (on) => on('agents.get_one', { agent_id: agent.id }, (one) => ({ ...one, name: 'Grace' })) },
    );
    const error = await refused.catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ name: 'ReactiveError', code: 'CONNECTION_FAILED', isUnsent: true });
    expect(String(error)).toContain('the place that gives tokens is closed');
    expect(counter.counts['agents.update']).toBeUndefined();
    expect(shown.now).toMatchObject({ data: { name: 'Test' }, isPending: false });
    expect(shown.states.some(({ data }) => data?.name === 'Grace')).toBe(true);

    const other = new Shown(page.query('agents.get_all'));
    expect((await other.until(({ error: failed }) => failed !== null)).error).toMatchObject({ isUnsent: true });
    isDown = false;
    page.retry();
    await other.fresh();
    expect(page.status.state).toBe('live');
  });

  test('another one sees nothing of the former: not even for a moment', async () => {
    const page = pages.open(ada);
    const shown = new Shown(page.query('agents.get_all'));
    const mine = (await shown.fresh()).data ?? [];
    const other = pages.open(neighbour, { client: new QueryClient() });
    const theirs = (await new Shown(other.query('agents.get_all')).fresh()).data ?? [];
    expect(theirs.map(({ id }) => id)).not.toContain(mine[0]?.id);

    page.forget();
    expect(shown.now).toMatchObject({ data: undefined, isStale: true });
  });

  test('an answer that names another scope than before forgets everything of the former', async () => {
    let who = ada;
    const page = pages.open(ada, { credentials: () => who.headers });
    const shown = new Shown(page.query('agents.get_all'));
    const mine = (await shown.fresh()).data ?? [];
    who = neighbour;
    await page.call('agents.create', { name: 'Test', role: 'tester' });
    expect(shown.now.data?.[0]?.id).not.toBe(mine[0]?.id);
    const theirs = (await shown.fresh()).data ?? [];
    expect(theirs.map(({ id }) => id)).not.toContain(mine[0]?.id);
  });
});

describe('what storage has', () => {
  function storage(): KeyValueStorage & { readonly texts: Map<string, string> } {
    const texts = new Map<string, string>();
    return {
      texts,
      get length() {
        return texts.size;
      },
      key: (index) => [...texts.keys()][index] ?? null,
      getItem: (key) => texts.get(key) ?? null,
      setItem: (key, value) => void texts.set(key, value),
      removeItem: (key) => void texts.delete(key),
    };
  }

  async function visited(agent: Agent, disk: KeyValueStorage): Promise<void> {
    const page = pages.open(ada, { storage: disk });
    await new Shown(page.query('agents.get_one', { agent_id: agent.id })).fresh();
    page.close();
  }

  test('shows at once on the next visit, and costs no fetch if nothing has changed', async () => {
    const agent = await ada.newAgent();
    const disk = storage();
    await visited(agent, disk);
    const counter = new Counter();
    const page = pages.open(ada, { storage: disk, fetch: counter.fetch });
    const shown = new Shown(page.query('agents.get_one', { agent_id: agent.id }));
    expect(shown.now).toMatchObject({ data: { name: 'Test' }, isStale: true });
    await shown.fresh();
    expect(counter.counts['agents.get_one']).toBeUndefined();
  });

  test('is corrected if it has changed', async () => {
    const agent = await ada.newAgent();
    const disk = storage();
    await visited(agent, disk);
    await ada.call('agents.update', { agent_id: agent.id, name: 'Grace' });
    const page = pages.open(ada, { storage: disk });
    const shown = new Shown(page.query('agents.get_one', { agent_id: agent.id }));
    expect(shown.now).toMatchObject({ data: { name: 'Test' }, isStale: true });
    expect((await shown.fresh()).data?.name).toBe('Grace');
  });

  test('is gone after a logout', async () => {
    const agent = await ada.newAgent();
    const disk = storage();
    await visited(agent, disk);
    expect(disk.texts.size).toBe(1);
    pages.open(ada, { storage: disk }).forget();
    expect(disk.texts.size).toBe(0);
  });
});

test('a prefetch is there when somebody shows it', async () => {
  const agent = await ada.newAgent();
  const counter = new Counter();
  const page = pages.open(ada, { fetch: counter.fetch });
  await page.prefetch('agents.get_one', { agent_id: agent.id });
  const shown = new Shown(page.query('agents.get_one', { agent_id: agent.id }));
  expect(shown.now.data?.name).toBe('Test');
  await shown.fresh();
  expect(counter.counts['agents.get_one']).toBe(1);
});

test('nobody watches, nothing is open, and nothing is confirmed', async () => {
  const agent = await ada.newAgent();
  const page = pages.open(ada);
  const shown = new Shown(page.query('agents.get_one', { agent_id: agent.id }));
  await shown.fresh();
  shown.stop();
  await expect.poll(() => page.status.state).toBe('idle');
  await ada.call('agents.update', { agent_id: agent.id, name: 'Grace' });
  const again = new Shown(page.query('agents.get_one', { agent_id: agent.id }));
  expect(again.now).toMatchObject({ data: { name: 'Test' }, isStale: true });
  expect((await again.fresh()).data?.name).toBe('Grace');
});
