import { type DehydratedState, hydrate, QueryClient } from '@tanstack/query-core';
import { Window } from 'happy-dom';
import type { ReactNode } from 'react';
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { dehydrateReactive, type Reactive } from '../../../reactive_rpc/typescript/runtime/index.ts';
import type { Skip } from '../../../reactive_rpc/typescript/runtime/react/index.ts';
import { optionsOf } from '../trpc_11_22/options.ts';
import { type Agent, Caller, Counter, Gate, Memory, Pages, type TeamHub } from './teamhub.ts';

// React looks whether there is a DOM when it is imported; `fetch` stays Node's own, which reaches a server.
const window = new Window({ url: 'http://127.0.0.1/' });
Object.assign(globalThis, { window, document: window.document });
const { Component, createElement: h, StrictMode, Suspense, useState } = await import('react');
const { createRoot, hydrateRoot } = await import('react-dom/client');
const { renderToString } = await import('react-dom/server');
const { HydrationBoundary, QueryClientProvider, useQuery, useSuspenseQuery } = await import('@tanstack/react-query');
const { createHooks, skip } = await import('../../../reactive_rpc/typescript/runtime/react/index.ts');
const { createInfiniteHook } = await import('../../../reactive_rpc/typescript/runtime/react/pages.ts');

const {
  ReactiveProvider,
  useReactive,
  useReactiveClient,
  useReactiveMutation,
  useReactivePriorities,
  useReactiveStatus,
} = createHooks<TeamHub>();
const useReactiveInfinite = createInfiniteHook(useReactiveClient);

let ada: Caller;
let agent: Agent;
let place: HTMLElement;
const pages = new Pages();
const unmounts: (() => void)[] = [];

beforeAll(async () => {
  ada = await Caller.logIn('ada@org-01.example');
});

beforeEach(async () => {
  agent = await ada.newAgent();
  place = document.createElement('main');
  document.body.append(place);
});

function unmountAll(): void {
  for (const unmount of unmounts.splice(0)) unmount();
}

afterEach(() => {
  unmountAll();
  pages.closeAll();
  place.remove();
});

function render(page: Reactive<TeamHub>, ...children: ReactNode[]): void {
  const root = createRoot(place);
  unmounts.push(() => root.unmount());
  root.render(h(StrictMode, null, h(ReactiveProvider, { reactive: page }, ...children)));
}

/** Wait until the page reads so. */
async function reads(text: string): Promise<void> {
  await expect.poll(() => place.textContent).toBe(text);
}

function Name({ agentId = agent.id }: { readonly agentId?: string | Skip }): ReactNode {
  const { data, isStale, error } = useReactive(
    'agents.get_one',
    typeof agentId === 'string' ? { agent_id: agentId } : skip,
  );
  return h('p', null, error?.message ?? data?.name ?? 'nothing', isStale ? '?' : '!');
}

function Suspended({ agentId }: { readonly agentId: string }): ReactNode {
  return h('p', null, useReactive('agents.get_one', { agent_id: agentId }, { suspense: true }).data?.name);
}

class Boundary extends Component<{ readonly children?: ReactNode }, { readonly code: unknown }> {
  override state = { code: null };
  static getDerivedStateFromError(error: { readonly code?: unknown }): { readonly code: unknown } {
    return { code: error.code };
  }
  override render(): ReactNode {
    return this.state.code === null ? this.props.children : `failed: ${this.state.code}`;
  }
}

let rename: (name: string) => Promise<unknown>;

function Rename(): ReactNode {
  const { mutate, isPending, error } = useReactiveMutation('agents.update', {
    optimistic: ({ agent_id, name = '' }, on) => on('agents.get_one', { agent_id }, (one) => ({ ...one, name })),
  });
  rename = (name) => mutate({ agent_id: agent.id, name });
  return h('p', null, isPending ? 'saving' : '', error === null ? '' : 'refused');
}

function Soon(): ReactNode {
  useReactivePriorities([['agents.get_one', { agent_id: agent.id }]]);
  return useReactiveStatus().state;
}

/** How often each component was rendered. */
const rendered = { data: 0, all: 0 };
const show: { whole?: (isWhole: boolean) => void } = {};
let many: readonly Agent[] = [];

function Stock({ agentId }: { readonly agentId: string }): ReactNode {
  const { agents } = optionsOf(useReactiveClient().client);
  const { data, isStale } = useQuery(agents.get_one.queryOptions({ agent_id: agentId }));
  return h('p', null, data?.name ?? 'nothing', isStale ? '?' : '!');
}

function StockSuspended({ agentId }: { readonly agentId: string }): ReactNode {
  const { agents } = optionsOf(useReactiveClient().client);
  return h('p', null, useSuspenseQuery(agents.get_one.queryOptions({ agent_id: agentId })).data.name);
}

function NameAlone(): ReactNode {
  rendered.data += 1;
  return useReactive('agents.get_one', { agent_id: agent.id }).data?.name;
}

function Everything(): ReactNode {
  rendered.all += 1;
  return JSON.stringify(useReactive('agents.get_one', { agent_id: agent.id })).includes('"isStale":false') && '!';
}

function Sometimes(): ReactNode {
  const [isWhole, setWhole] = useState(false);
  show.whole = setWhole;
  const state = useReactive('agents.get_one', { agent_id: agent.id });
  return isWhole ? `${state.data?.name}${state.isStale ? '?' : '!'}` : state.data?.name;
}

function Many(): ReactNode {
  useReactivePriorities(many.map(({ id }) => ['agents.get_one', { agent_id: id }] as const));
  return null;
}

describe('useReactive', () => {
  test('two components, rendered twice by StrictMode: one fetch, one stream; leaving ends it', async () => {
    const counter = new Counter();
    const page = pages.open(ada, { fetch: counter.fetch });
    render(page, h(Name), h(Name));
    await reads('Test!Test!');
    expect(counter.counts).toMatchObject({ 'agents.get_one': 1, events: 1 });
    await ada.call('agents.update', { agent_id: agent.id, name: 'Grace' });
    await reads('Grace!Grace!');
    expect(counter.counts).toMatchObject({ 'agents.get_one': 2, events: 1 });
    unmountAll();
    await expect.poll(() => page.status.state).toBe('idle');
  });

  test('an input that is skipped asks nothing; another input is another query', async () => {
    const counter = new Counter();
    const page = pages.open(ada, { fetch: counter.fetch });
    const root = createRoot(place);
    unmounts.push(() => root.unmount());
    const show = (agentId: string | Skip): void =>
      root.render(h(ReactiveProvider, { reactive: page }, h(Name, { agentId })));
    show(skip);
    await reads('nothing?');
    expect(counter.counts).toEqual({});
    show(agent.id);
    await reads('Test!');
    const other = await ada.newAgent();
    await ada.call('agents.update', { agent_id: other.id, name: 'Other' });
    show(other.id);
    await reads('Other!');
  });

  test('suspends until there is data, once', async () => {
    const counter = new Counter();
    const page = pages.open(ada, { fetch: counter.fetch });
    render(page, h(Suspense, { fallback: 'waiting' }, h(Suspended, { agentId: agent.id })));
    await reads('Test');
    expect(counter.counts['agents.get_one']).toBe(1);
  });

  test('throws an error that there is in the place of data', async () => {
    const said = vi.spyOn(console, 'error').mockImplementation(() => {});
    render(
      pages.open(ada),
      h(Boundary, null, h(Suspense, { fallback: 'waiting' }, h(Suspended, { agentId: 'no such agent' }))),
    );
    await reads('failed: NOT_FOUND');
    said.mockRestore();
  });
});

test('what a server has rendered is hydrated without a difference, and without a fetch', async () => {
  const { html, state } = await renderedByServer();
  expect(html).toContain('Test');
  const counter = new Counter();
  const client = new QueryClient();
  hydrate(client, state);
  const page = pages.open(ada, { client, fetch: counter.fetch });
  place.innerHTML = html;
  const said = vi.spyOn(console, 'error');
  const root = hydrateRoot(place, h(ReactiveProvider, { reactive: page }, h(Name)));
  unmounts.push(() => root.unmount());
  await reads('Test!');
  expect(said).not.toHaveBeenCalled();
  expect(counter.counts['agents.get_one']).toBeUndefined();
  said.mockRestore();
});

test('a hydrated page shows what was rendered, whatever its storage has, and then the truth', async () => {
  const storage = new Memory();
  const visit = pages.open(ada, { storage });
  await visit.prefetch('agents.get_one', { agent_id: agent.id });
  visit.close();
  await ada.call('agents.update', { agent_id: agent.id, name: 'Grace' });
  const { html, state } = await renderedByServer();
  await ada.call('agents.update', { agent_id: agent.id, name: 'Hopper' });

  const client = new QueryClient();
  const page = pages.open(ada, { client, storage });
  place.innerHTML = html;
  const said = vi.spyOn(console, 'error');
  const root = hydrateRoot(
    place,
    h(
      QueryClientProvider,
      { client },
      h(HydrationBoundary, { state }, h(ReactiveProvider, { reactive: page }, h(Name))),
    ),
  );
  unmounts.push(() => root.unmount());
  expect(place.textContent).toMatch(/^Grace/);
  await reads('Hopper!');
  expect(said).not.toHaveBeenCalled();
  said.mockRestore();
});

test('what storage alone has shows once the page is hydrated', async () => {
  const storage = new Memory();
  const visit = pages.open(ada, { storage });
  await visit.prefetch('agents.get_one', { agent_id: agent.id });
  visit.close();
  const page = pages.open(ada, { storage, transport: 'off', fetch: () => new Promise(() => {}) });
  const { html } = await renderedByServer(false);
  place.innerHTML = html;
  const said = vi.spyOn(console, 'error');
  const root = hydrateRoot(place, h(ReactiveProvider, { reactive: page }, h(Name)));
  unmounts.push(() => root.unmount());
  expect(place.textContent).toBe('nothing?');
  await reads('Test?');
  expect(said).not.toHaveBeenCalled();
  said.mockRestore();
});

describe('the hooks of TanStack, with the options of tRPC', () => {
  test('show the same entry: one fetch, one stream, live', async () => {
    const counter = new Counter();
    const client = new QueryClient();
    const page = pages.open(ada, { client, namespaces: ['agents'], fetch: counter.fetch });
    const stock = h(QueryClientProvider, { client }, h(Stock, { agentId: agent.id }));
    render(page, stock, h(Name));
    await reads('Test!Test!');
    expect(counter.counts).toMatchObject({ 'agents.get_one': 1, events: 1 });
    await ada.call('agents.update', { agent_id: agent.id, name: 'Grace' });
    await reads('Grace!Grace!');
    expect(counter.counts).toMatchObject({ 'agents.get_one': 2, events: 1 });
  });

  test('suspend, and refetch what is marked as invalid', async () => {
    const counter = new Counter();
    const client = new QueryClient();
    const page = pages.open(ada, { client, namespaces: ['agents'], fetch: counter.fetch });
    const suspended = h(Suspense, { fallback: 'waiting' }, h(StockSuspended, { agentId: agent.id }));
    render(page, h(QueryClientProvider, { client }, suspended));
    await reads('Test');
    expect(counter.counts).toMatchObject({ 'agents.get_one': 1 });
    await client.invalidateQueries(optionsOf(client).agents.get_one.queryFilter({ agent_id: agent.id }));
    await expect.poll(() => counter.counts['agents.get_one']).toBe(2);
  });

  test('are hydrated without a difference, and without a fetch', async () => {
    const { html, state } = await renderedByServer();
    const counter = new Counter();
    const client = new QueryClient();
    const page = pages.open(ada, { client, namespaces: ['agents'], fetch: counter.fetch });
    place.innerHTML = html;
    const said = vi.spyOn(console, 'error');
    const stock = h(HydrationBoundary, { state }, h(Stock, { agentId: agent.id }));
    const root = hydrateRoot(place, h(ReactiveProvider, { reactive: page }, h(QueryClientProvider, { client }, stock)));
    unmounts.push(() => root.unmount());
    await reads('Test!');
    expect(said).not.toHaveBeenCalled();
    expect(counter.counts['agents.get_one']).toBeUndefined();
    said.mockRestore();
  });
});

describe('a component', () => {
  test('renders again only for fields that it reads', async () => {
    rendered.data = rendered.all = 0;
    const page = pages.open(ada);
    const root = createRoot(place);
    unmounts.push(() => root.unmount());
    root.render(h(ReactiveProvider, { reactive: page }, h(NameAlone), h(Everything)));
    await reads('Test!');
    // Nothing, loading, the result, confirmed: of these, the name is another one twice.
    expect(rendered.data).toBe(2);
    expect(rendered.all).toBeGreaterThan(2);
    await ada.call('agents.update', { agent_id: agent.id, name: 'Grace' });
    await reads('Grace!');
    expect(rendered.data).toBe(3);
  });

  test('that renders for another reason sees all fields as they are', async () => {
    const page = pages.open(ada);
    const query = page.query('agents.get_one', { agent_id: agent.id });
    render(page, h(Sometimes));
    await reads('Test');
    await expect.poll(() => query.state.isStale).toBe(false);
    const frames: (string | null)[] = [];
    new window.MutationObserver(() => frames.push(place.textContent)).observe(place as never, {
      childList: true,
      characterData: true,
      subtree: true,
    });
    show.whole?.(true);
    await reads('Test!');
    expect(frames).not.toContain('Test?');
  });

  test('that leaves before its data is there: the fetch ends, and begins anew when it is back', async () => {
    const gate = new Gate('agents.get_one');
    const page = pages.open(ada, { fetch: gate.fetch });
    render(page, h(Name));
    await expect.poll(() => gate.underWay).toBe(1);
    unmountAll();
    await expect.poll(() => gate.aborted).toBe(1);
    expect(page.query('agents.get_one', { agent_id: agent.id }).state.isLoading).toBe(false);
    gate.open();
    render(page, h(Name));
    await reads('Test!');
    expect(gate.asked).toBe(2);
  });

  test('that is back at once goes on with the same fetch', async () => {
    const gate = new Gate('agents.get_one');
    const page = pages.open(ada, { fetch: gate.fetch });
    render(page, h(Name));
    await expect.poll(() => gate.underWay).toBe(1);
    unmountAll();
    render(page, h(Name));
    await reads('nothing?');
    gate.open();
    await reads('Test!');
    expect(gate).toMatchObject({ asked: 1, aborted: 0 });
  });
});

/** Render the name of the agent as a server does, and return what it sends to the browser. */
async function renderedByServer(isLoaded = true): Promise<{ html: string; state: DehydratedState }> {
  const server = pages.open(ada, { client: new QueryClient() });
  if (isLoaded) await server.prefetch('agents.get_one', { agent_id: agent.id });
  return dehydrated(server, h(Name));
}

function dehydrated(server: Reactive<TeamHub>, page: ReactNode): { html: string; state: DehydratedState } {
  vi.stubGlobal('document', undefined);
  const html = renderToString(h(ReactiveProvider, { reactive: server }, page));
  vi.unstubAllGlobals();
  const state: DehydratedState = JSON.parse(JSON.stringify(dehydrateReactive(server)));
  server.close();
  return { html, state };
}

let loadMore: () => void;

function Messages({ agentId = agent.id }: { readonly agentId?: string | Skip }): ReactNode {
  const list = useReactiveInfinite('messages.get_all', typeof agentId === 'string' ? { agent_id: agentId } : skip, {
    limit: 2,
  });
  loadMore = list.loadMore;
  const texts = (list.rows ?? []).map(({ body }) => body).join(',');
  return h('p', null, texts, list.hasMore ? '…' : '.', list.isStale ? '?' : '!');
}

describe('useReactiveInfinite', () => {
  async function say(...texts: string[]): Promise<void> {
    for (const body of texts) await ada.call('messages.send', { from_agent_id: agent.id, body });
  }

  test('shows a list page by page; two components, rendered twice by StrictMode, fetch each page once', async () => {
    await say('a', 'b', 'c');
    const counter = new Counter();
    const page = pages.open(ada, { fetch: counter.fetch });
    render(page, h(Messages), h(Messages));
    await reads('c,b…!c,b…!');
    loadMore();
    await reads('c,b,a.!c,b,a.!');
    expect(counter.counts).toMatchObject({ 'messages.get_all': 2 });
    await say('d');
    await reads('d,c,b,a.!d,c,b,a.!');
    unmountAll();
    await expect.poll(() => page.status.state).toBe('idle');
  });

  test('an input that is skipped asks nothing', async () => {
    const counter = new Counter();
    const page = pages.open(ada, { fetch: counter.fetch });
    render(page, h(Messages, { agentId: skip }));
    await reads('.?');
    expect(counter.counts).toEqual({});
  });

  test('what a server has rendered is hydrated without a difference, and without a fetch', async () => {
    await say('a', 'b', 'c');
    const server = pages.open(ada, { client: new QueryClient() });
    await server.prefetch('messages.get_all', { agent_id: agent.id, limit: 2 });
    const { html, state } = dehydrated(server, h(Messages));
    expect(html).toContain('c,b');
    const counter = new Counter();
    const client = new QueryClient();
    hydrate(client, state);
    const page = pages.open(ada, { client, fetch: counter.fetch });
    place.innerHTML = html;
    const said = vi.spyOn(console, 'error');
    const root = hydrateRoot(place, h(ReactiveProvider, { reactive: page }, h(Messages)));
    unmounts.push(() => root.unmount());
    await reads('c,b…!');
    expect(said).not.toHaveBeenCalled();
    expect(counter.counts['messages.get_all']).toBeUndefined();
    said.mockRestore();
    loadMore();
    await reads('c,b,a.!');
    expect(counter.counts['messages.get_all']).toBe(1);
  });
});

describe('useReactiveMutation', () => {
  test('shows before the server has answered, says that it saves, and stays', async () => {
    const gate = new Gate('agents.update');
    render(pages.open(ada, { fetch: gate.fetch }), h(Name), h(Rename));
    await reads('Test!');
    const made = rename('Grace');
    await expect.poll(() => place.textContent).toMatch(/^Grace.saving$/);
    await expect.poll(() => gate.underWay).toBe(1);
    gate.open();
    await made;
    await reads('Grace!');
  });

  test('that is refused shows until then, rolls back, and says so', async () => {
    const gate = new Gate('agents.update');
    render(pages.open(ada, { fetch: gate.fetch }), h(Name), h(Rename));
    await reads('Test!');
    const made = rename('');
    await expect.poll(() => place.textContent).toMatch(/^.saving$/);
    gate.open();
    await expect(made).rejects.toMatchObject({ code: 'BAD_REQUEST' });
    await reads('Test!refused');
  });

  test('is sent with the key that it is given, and gives up waiting at a signal', async () => {
    const keys: (string | null)[] = [];
    const counter = new Counter((init) => keys.push(new Headers(init?.headers).get('idempotency-key')));
    const page = pages.open(ada, { fetch: counter.fetch });
    await page.call('agents.update', { agent_id: agent.id, name: 'Grace' }, { key: 'once' });
    await page.call('agents.update', { agent_id: agent.id, name: 'Grace' }, { key: 'once' });
    expect(keys).toEqual(['once', 'once']);
    const control = new AbortController();
    const gate = new Gate('agents.update');
    const waiting = pages
      .open(ada, { client: new QueryClient(), fetch: gate.fetch })
      .call('agents.update', { agent_id: agent.id, name: 'Ida' }, { signal: control.signal });
    await expect.poll(() => gate.underWay).toBe(1);
    control.abort();
    await expect(waiting).rejects.toThrow();
    expect(gate.aborted).toBe(1);
  });

  test('waits for one before it that shows in the same query, unless it may be made beside it', async () => {
    const gate = new Gate('agents.update');
    const page = pages.open(ada, { fetch: gate.fetch });
    render(page, h(Name));
    await reads('Test!');
    const renamed = (name: string, parallel: boolean): Promise<unknown> =>
      page.call(
        'agents.update',
        { agent_id: agent.id, name },
        { parallel, optimistic: (on) => on('agents.get_one', { agent_id: agent.id }, (one) => ({ ...one, name })) },
      );
    const made = [renamed('Grace', false), renamed('Ida', false)];
    await expect.poll(() => place.textContent).toMatch(/^Ida/);
    await expect.poll(() => gate.underWay).toBe(1);
    made.push(renamed('Joan', true));
    await expect.poll(() => gate.underWay).toBe(2);
    gate.open();
    await Promise.all(made);
    expect(gate.most).toBe(2);
  });
});

test('what has priority is kept right before it is shown, and the status says how it stands', async () => {
  const counter = new Counter();
  const page = pages.open(ada, { fetch: counter.fetch });
  render(page, h(Soon));
  await reads('live');
  expect(counter.counts['agents.get_one']).toBe(1);
  expect(page.query('agents.get_one', { agent_id: agent.id }).state).toMatchObject({ data: { name: 'Test' } });
});

test('what has priority is fetched three at a time, after what is shown', async () => {
  many = await Promise.all(Array.from({ length: 7 }, () => ada.newAgent()));
  const gate = new Gate('agents.get_one');
  const page = pages.open(ada, { fetch: gate.fetch });
  const root = createRoot(place);
  unmounts.push(() => root.unmount());
  root.render(h(ReactiveProvider, { reactive: page }, h(Many), h(Name)));
  await expect.poll(() => gate.underWay).toBe(4);
  expect(gate.inputs[0]).toEqual({ agent_id: agent.id });
  gate.open();
  await reads('Test!');
  const states = (): unknown[] => many.map(({ id }) => page.query('agents.get_one', { agent_id: id }).state.isStale);
  await expect.poll(states).toEqual(many.map(() => false));
  expect(gate).toMatchObject({ most: 4, asked: 8 });
});

describe('results of the last visit that nobody shows', () => {
  async function lastVisit(storage: Memory): Promise<readonly Agent[]> {
    const agents = await Promise.all(Array.from({ length: 3 }, () => ada.newAgent()));
    const visit = pages.open(ada, { storage });
    for (const { id } of agents) await visit.prefetch('agents.get_one', { agent_id: id });
    visit.close();
    return agents;
  }

  test('are brought up to date one at a time, once the page is live', async () => {
    const storage = new Memory();
    const agents = await lastVisit(storage);
    await ada.call('agents.update', { agent_id: agents[0]?.id, name: 'Grace' });
    const gate = new Gate('agents.get_one', true);
    const page = pages.open(ada, { storage, fetch: gate.fetch });
    render(page, h(Soon));
    await reads('live');
    await expect.poll(() => gate.asked).toBe(4);
    const first = page.query('agents.get_one', { agent_id: agents[0]?.id ?? '' });
    await expect.poll(() => first.state.data?.name).toBe('Grace');
    expect(gate.most).toBe(1);
    // Nobody shows them, so the stream is not about them.
    expect(gate.streams.every((queries) => queries.length === 1)).toBe(true);
  });
});
