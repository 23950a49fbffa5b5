import { dehydrate, hydrate, QueryClient } from '@tanstack/query-core';
import { Window } from 'happy-dom';
import type { ReactNode } from 'react';
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import type { Reactive } from '../../../reactive_rpc/typescript/runtime/index.ts';
import type { Skip } from '../../../reactive_rpc/typescript/runtime/react/index.ts';
import { type Agent, Caller, Counter, Pages, type TeamHub } from './teamhub.ts';

// React looks whether there is a DOM when it is imported; `fetch` stays Node's own, which reaches a server.
const window = new Window({ url: 'http://127.0.0.1/' });
Object.assign(globalThis, { window, document: window.document });
const { Component, createElement: h, StrictMode, Suspense } = await import('react');
const { createRoot, hydrateRoot } = await import('react-dom/client');
const { renderToString } = await import('react-dom/server');
const { createHooks, skip } = await import('../../../reactive_rpc/typescript/runtime/react/index.ts');

const { ReactiveProvider, useReactive, useReactiveMutation, useReactivePriorities, useReactiveStatus } =
  createHooks<TeamHub>();

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
  await expect.poll(() => place.textContent, { timeout: 20_000 }).toBe(text);
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
  const server = pages.open(ada, { client: new QueryClient() });
  await server.prefetch('agents.get_one', { agent_id: agent.id });
  vi.stubGlobal('document', undefined);
  const html = renderToString(h(ReactiveProvider, { reactive: server }, h(Name)));
  vi.unstubAllGlobals();
  expect(html).toContain('Test');
  const state: ReturnType<typeof dehydrate> = JSON.parse(JSON.stringify(dehydrate(server.client)));
  server.close();

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

describe('useReactiveMutation', () => {
  test('shows at once, and stays', async () => {
    render(pages.open(ada), h(Name), h(Rename));
    await reads('Test!');
    const made = rename('Grace');
    await expect.poll(() => place.textContent, { interval: 1 }).toMatch(/^Grace/);
    await made;
    await reads('Grace!');
  });

  test('that is refused rolls back, and says so', async () => {
    render(pages.open(ada), h(Name), h(Rename));
    await reads('Test!');
    await expect(rename('')).rejects.toMatchObject({ code: 'BAD_REQUEST' });
    await reads('Test!refused');
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
