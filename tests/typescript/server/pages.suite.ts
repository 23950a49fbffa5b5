import { DatabaseSync } from 'node:sqlite';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Reactive } from '../../../reactive_rpc/typescript/runtime/index.ts';
import { infinite, type Pages as List, type PagesState } from '../../../reactive_rpc/typescript/runtime/pages.ts';
import type { KeyValueStorage } from '../../../reactive_rpc/typescript/runtime/store.ts';
import { PATIENCE_MS } from '../support/patience.ts';
import { type Agent, Caller, Counter, type Message, Pages, Shown, type TeamHub } from './teamhub.ts';

const INSERT = "INSERT INTO message(id, from_agent_id, body, created_at) VALUES (?, ?, 'x', ?)";
const MOVE = 'UPDATE message SET created_at = ? WHERE id = ?';
const TRUTH = 'SELECT id FROM message WHERE from_agent_id = ? ORDER BY created_at DESC, id DESC';

let ada: Caller;
let agent: Agent;
let database: DatabaseSync;
const pages = new Pages();

beforeAll(async () => {
  ada = await Caller.logIn('ada@org-01.example');
  database = new DatabaseSync(process.env['TEAMHUB_DATABASE'] ?? '', { timeout: PATIENCE_MS });
});

afterEach(() => pages.closeAll());
afterAll(() => database.close());

/** The n-th moment, as TeamHub stores it. */
function moment(number: number): string {
  return new Date(Date.UTC(2026, 0, 1) + number * 1000).toISOString().replace('T', ' ').replace('Z', '000');
}

/** Write by a connection that the server knows nothing of. */
function write(statement: string, ...values: (string | number)[]): void {
  database.prepare(statement).run(...values);
}

function idOf(number: number | string): string {
  return `${agent.id}-${String(number).padStart(3, '0')}`;
}

/** Add an agent that has sent so many messages, ten seconds apart. */
async function agentWith(count: number): Promise<void> {
  agent = await ada.newAgent();
  for (let number = 0; number < count; number += 1) write(INSERT, idOf(number), agent.id, moment(10 * number));
}

function truth(): string[] {
  return database
    .prepare(TRUTH)
    .all(agent.id)
    .map(({ id }) => String(id));
}

function listOf(page: Reactive<TeamHub>, limit: number): List<Message> {
  return infinite(page, 'messages.get_all', { agent_id: agent.id }, { limit });
}

function ids({ rows }: PagesState<Message>): string[] {
  return (rows ?? []).map(({ id }) => id);
}

/** Wait until the list shows the first rows of the truth as confirmed; no state on the way showed a row twice. */
async function shows(shown: Shown<PagesState<Message>>, count = Infinity): Promise<PagesState<Message>> {
  const state = await shown.until((one) => {
    const now = truth().slice(0, count);
    return !one.isStale && !one.isPending && ids(one).join() === now.join();
  });
  for (const one of shown.states) expect(new Set(ids(one)).size).toBe(ids(one).length);
  return state;
}

describe.each(['auto', 'poll'] as const)('a list, by %s', (transport) => {
  test('is loaded page by page, and follows rows that are inserted, deleted and moved', async () => {
    await agentWith(11);
    const counter = new Counter();
    const list = listOf(pages.open(ada, { transport, fetch: counter.fetch }), 4);
    const shown = new Shown(list);
    expect(shown.now).toMatchObject({ rows: undefined, isStale: true, hasMore: false });
    expect((await shows(shown, 4)).hasMore).toBe(true);
    expect(counter.counts['messages.get_all']).toBe(1);
    shown.now.loadMore();
    expect(shown.now.isLoadingMore).toBe(true);
    await shows(shown, 8);
    expect(counter.counts['messages.get_all']).toBe(2);

    write(INSERT, idOf('new'), agent.id, moment(200));
    await shows(shown, 9);
    write(MOVE, moment(55), idOf(10)); // from the first page into the second
    await shows(shown, 9);
    shown.now.loadMore();
    expect((await shows(shown)).hasMore).toBe(false);
    write('DELETE FROM message WHERE id IN (?, ?, ?)', idOf(4), idOf(5), idOf(6));
    await shows(shown);
    write(INSERT, idOf('old'), agent.id, moment(0));
    await shows(shown);
  });
});

describe('a list', () => {
  test('splits a page that grows and joins those that shrink; rows stay the same objects', async () => {
    await agentWith(6);
    const shown = new Shown(listOf(pages.open(ada), 3));
    const [first] = (await shows(shown, 3)).rows ?? [];
    for (let number = 0; number < 20; number += 1)
      write(INSERT, idOf(`grown-${number}`), agent.id, moment(300 + number));
    await shows(shown, 23);
    write('DELETE FROM message WHERE id LIKE ? AND created_at > ?', `${agent.id}-grown-%`, moment(301));
    const { rows = [] } = await shows(shown, 5);
    expect(rows.find(({ id }) => id === first?.id)).toBe(first);
  });

  test('shows an own mutation at once, in the whole list, until the pages contain it', async () => {
    await agentWith(9);
    const page = pages.open(ada);
    const shown = new Shown(listOf(page, 4));
    await shows(shown, 4);
    shown.now.loadMore();
    await shows(shown, 8);
    shown.states.splice(0, shown.states.length - 1);
    const sent = Array.from({ length: 5 }, (_, number) => {
      const draft = { id: `draft ${number}`, body: `text ${number}` };
      return page.call(
        'messages.send',
        { from_agent_id: agent.id, body: draft.body },
        {
          optimistic: (on) =>
            on('messages.get_all', { agent_id: agent.id }, (all) => ({ ...all, items: [draft, ...all.items] })),
        },
      );
    });
    const texts = ['text 4', 'text 3', 'text 2', 'text 1', 'text 0'];
    const bodies = ({ rows = [] }: PagesState<Message>): string[] => rows.map(({ body }) => body);
    expect(bodies(shown.now).slice(0, 5)).toEqual(texts);
    expect(shown.now.isPending).toBe(true);
    await Promise.all(sent);
    await shows(shown, 13);
    const after = shown.states.slice(5).map((state) => bodies(state).filter((body) => body !== 'x'));
    for (const frame of after) expect(frame).toEqual(texts);
  });

  test('takes back what is refused', async () => {
    await agentWith(3);
    const page = pages.open(ada);
    const shown = new Shown(listOf(page, 4));
    await shows(shown);
    const made = page.call(
      'messages.send',
      { from_agent_id: agent.id, body: '' },
      { optimistic: (on) => on('messages.get_all', null, (all) => ({ ...all, items: all.items.slice(1) })) },
    );
    expect(shown.now.rows).toHaveLength(2);
    await expect(made).rejects.toMatchObject({ code: 'BAD_REQUEST' });
    await shows(shown);
  });

  test('is one for all who show it, and as far as it was loaded for who comes back', async () => {
    await agentWith(9);
    const counter = new Counter();
    const page = pages.open(ada, { fetch: counter.fetch });
    const shown = new Shown(listOf(page, 4));
    await shows(shown, 4);
    shown.now.loadMore();
    await shows(shown, 8);
    const other = new Shown(listOf(page, 4));
    expect(other.now).toBe(shown.now);
    shown.stop();
    other.stop();
    await expect.poll(() => page.status.state).toBe('idle');
    write(INSERT, idOf('new'), agent.id, moment(200));
    const again = new Shown(listOf(page, 4));
    expect(again.now).toMatchObject({ isStale: true });
    expect(again.now.rows).toHaveLength(8);
    await shows(again, 9);
    expect(counter.counts['messages.get_all']).toBe(3);
  });

  test('of somebody else shows nothing, not even for a moment', async () => {
    await agentWith(3);
    const page = pages.open(ada);
    const shown = new Shown(listOf(page, 4));
    await shows(shown);
    page.forget();
    expect(shown.now).toMatchObject({ rows: undefined, isStale: true });
    await shows(shown);
  });

  test('that may not be seen any more shows the error in its place', async () => {
    await agentWith(6);
    const shown = new Shown(listOf(pages.open(ada), 4));
    await shows(shown, 4);
    await ada.call('agents.delete', { agent_id: agent.id });
    const gone = await shown.until(({ error, isLoadingMore }) => error !== null && !isLoadingMore);
    expect(gone).toMatchObject({ rows: undefined, hasMore: false, error: { code: 'NOT_FOUND' } });
  });

  test('whose next page does not come says why, and asks again', async () => {
    await agentWith(6);
    let isDown = false;
    const shown = new Shown(
      listOf(
        pages.open(ada, {
          fetch: (url, init) =>
            isDown && String(init?.body).includes('after')
              ? Promise.resolve(new Response('{}', { status: 403 }))
              : fetch(url, init),
        }),
        4,
      ),
    );
    await shows(shown, 4);
    isDown = true;
    shown.now.loadMore();
    const failed = await shown.until(({ error }) => error !== null);
    expect(failed).toMatchObject({ isLoadingMore: false, hasMore: true });
    expect(failed.rows).toHaveLength(4);
    isDown = false;
    shown.now.loadMore();
    await shows(shown);
  });

  test('starts from what was loaded before, and from what storage has', async () => {
    await agentWith(6);
    const texts = new Map<string, string>();
    const disk: KeyValueStorage = {
      get length() {
        return texts.size;
      },
      key: (index) => [...texts.keys()][index] ?? null,
      getItem: (key) => texts.get(key) ?? null,
      setItem: (key, value) => void texts.set(key, value),
      removeItem: (key) => void texts.delete(key),
    };
    const before = pages.open(ada, { storage: disk });
    await before.prefetch('messages.get_all', { agent_id: agent.id, limit: 4 });
    expect(ids(listOf(before, 4).state)).toEqual(truth().slice(0, 4));
    before.close();

    const counter = new Counter();
    const same = pages.open(ada, { storage: disk, fetch: counter.fetch });
    const shown = new Shown(listOf(same, 4));
    expect(shown.now).toMatchObject({ isStale: true });
    expect(shown.now.rows).toHaveLength(4);
    await shows(shown, 4);
    expect(counter.counts['messages.get_all']).toBeUndefined();
    same.close();

    for (let number = 0; number < 12; number += 1) write(INSERT, idOf(`new-${number}`), agent.id, moment(200 + number));
    const later = new Shown(listOf(pages.open(ada, { storage: disk }), 4));
    expect(later.now).toMatchObject({ isStale: true });
    expect(later.now.rows).toHaveLength(4);
    // Not all that has come since, up to where the page once ended.
    await shows(later, 4);
  });
});
