import {
  createTRPCClient,
  httpBatchLink,
  httpBatchStreamLink,
  httpLink,
  type Operation,
  type TRPCLink,
} from '@trpc/client';
import type { AnyRouter } from '@trpc/server';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';

import type { AppRouter } from '../../../generated_client/typescript/api.ts';
import { reactiveFetch, reactiveHeaders } from '../../../reactive_rpc/typescript/runtime/index.ts';
import { type Agent, Caller, Counter, Pages, Shown, URL_OF_SERVER } from './teamhub.ts';

let ada: Caller;
const pages = new Pages();

beforeAll(async () => {
  ada = await Caller.logIn('ada@org-01.example');
});

afterEach(() => pages.closeAll());

type Called = Parameters<typeof reactiveHeaders>[0];

function about() {
  const headers = (called: Called) => ({ ...reactiveHeaders(called), ...ada.headers });
  return { url: `${URL_OF_SERVER}/trpc`, headers, fetch: reactiveFetch() };
}

describe.each([
  ['httpLink', () => httpLink(about())],
  ['httpBatchLink', () => httpBatchLink(about())],
  ['httpBatchStreamLink', () => httpBatchStreamLink(about())],
  // Nothing is known of its answers beside their data.
  ['a link without our headers', () => httpBatchLink({ url: `${URL_OF_SERVER}/trpc`, headers: () => ada.headers })],
] as const)('%s', (_, sending) => {
  test('serves the runtime, and other links see each call', async () => {
    const agent = await ada.newAgent();
    const seen: Operation[] = [];
    const logger: TRPCLink<AnyRouter> =
      () =>
      ({ op, next }) => {
        seen.push(op);
        return next(op);
      };
    const page = pages.open(ada, { links: [logger, sending()] });
    const shown = new Shown(page.query('agents.get_one', { agent_id: agent.id }));
    const list = new Shown(page.query('messages.get_after', { agent_id: agent.id }));
    await Promise.all([shown.fresh(), list.fresh()]);

    await page.call(
      'agents.update',
      { agent_id: agent.id, name: 'Grace' },
      { optimistic: (on) => on('agents.get_one', { agent_id: agent.id }, (one) => ({ ...one, name: 'Grace' })) },
    );
    await shown.fresh();
    expect(shown.now.data?.name).toBe('Grace');
    const names = shown.states.flatMap(({ data }) => data?.name ?? []);
    expect(names.filter((one, at) => one !== names[at - 1])).toEqual(['Test', 'Grace']);
    expect(new Set(seen.map(({ path }) => path))).toEqual(
      new Set(['agents.get_one', 'messages.get_after', 'agents.update']),
    );
    await expect(page.query('agents.get_one', { agent_id: 'nobody' }).load()).rejects.toMatchObject({
      code: 'NOT_FOUND',
      status: 404,
      type: 'AgentNotFound',
    });
  });
});

test('calls of one moment are one request', async () => {
  const agent = await ada.newAgent();
  const counter = new Counter();
  const page = pages.open(ada, { fetch: counter.fetch });
  const all = [
    new Shown(page.query('agents.get_one', { agent_id: agent.id })),
    new Shown(page.query('messages.get_after', { agent_id: agent.id })),
  ];
  await Promise.all(all.map((one) => one.fresh()));
  expect(counter.urls.filter((url) => url.includes('/trpc/'))).toHaveLength(1);
});

describe("a client of tRPC's on the same links", () => {
  test('hands what it was answered to what is shown', async () => {
    const agent = await ada.newAgent();
    // Nobody tells the page of changes: what shows is what the client has asked for.
    const page = pages.open(ada, { transport: 'off' });
    const client = createTRPCClient<AppRouter>({ links: page.links });
    const shown = new Shown(page.query('agents.get_one', { agent_id: agent.id }));
    await shown.until(({ data }) => data?.name === 'Test');
    await ada.call('agents.update', { agent_id: agent.id, name: 'Grace' });
    const answered: Agent = await client.agents.get_one.query({ agent_id: agent.id });
    expect(answered.name).toBe('Grace');
    expect(shown.now.data?.name).toBe('Grace');
  });

  test('makes mutations under keys, and is told errors by their types', async () => {
    const keys: unknown[] = [];
    const counter = new Counter((init) => keys.push(new Headers(init?.headers).get('idempotency-key')));
    const page = pages.open(ada, { fetch: counter.fetch });
    const client = createTRPCClient<AppRouter>({ links: page.links });
    const [one, other] = await Promise.all([
      client.agents.create.mutate({ name: 'Test', role: 'tester' }),
      client.agents.create.mutate({ name: 'Test', role: 'tester' }),
    ]);
    expect(one.id).not.toBe(other.id);
    expect(new Set(keys.filter((key) => typeof key === 'string' && key.length >= 20)).size).toBe(2);
    await expect(client.agents.get_one.query({ agent_id: 'nobody' })).rejects.toMatchObject({
      data: { code: 'NOT_FOUND', type: 'AgentNotFound' },
    });
  });
});

test("a gateway's own page is the error of its status", async () => {
  const tooLarge = () =>
    Promise.resolve(new Response('<h1>413</h1>', { status: 413, headers: { 'retry-after': '7' } }));
  const page = pages.open(ada, { fetch: tooLarge as typeof fetch, transport: 'off' });
  const sending = page.call('agents.create', { name: 'Test', role: 'tester' });
  await expect(sending).rejects.toMatchObject({ code: 'PAYLOAD_TOO_LARGE', status: 413, retryAfterSeconds: 7 });
});
