import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { compileModule } from 'svelte/compiler';
import { afterEach, expect, test } from 'vitest';

import type { Reactive } from '../../../reactive_rpc/typescript/runtime/index.ts';
import { Caller, Counter, Gate, Pages, type TeamHub } from './teamhub.ts';

/** A component's script, as Svelte compiles it: it shows one agent, and which one may change. */
const COMPONENT = `
import { live, liveMutation, liveStatus, skip } from '${fileURLToPath(new URL('../../../reactive_rpc/typescript/runtime/svelte/index.ts', import.meta.url))}';
import { liveInfinite } from '${fileURLToPath(new URL('../../../reactive_rpc/typescript/runtime/svelte/pages.ts', import.meta.url))}';
export function mountList(reactive, first, frames) {
  let id = $state(first);
  const list = liveInfinite(reactive, 'messages.get_all', () => ({ agent_id: id }), { limit: 2 });
  const unmount = $effect.root(() => {
    $effect(() => {
      const texts = (list.rows ?? []).map(({ body }) => body).join(',');
      frames.push(texts + (list.hasMore ? '…' : '.') + (list.isStale ? '?' : '!'));
    });
  });
  return { unmount, more: () => list.loadMore(), show: (other) => { id = other; } };
}
export function mount(reactive, first, frames) {
  let id = $state(first);
  const agent = live(reactive, 'agents.get_one', () => ({ agent_id: id }));
  const status = liveStatus(reactive);
  const unmount = $effect.root(() => {
    $effect(() => { frames.push((agent.data?.name ?? 'nothing') + (agent.isStale ? '?' : '!')); });
    $effect(() => { frames.status = status.current.state; });
  });
  return { unmount, show: (other) => { id = other; } };
}
export function mountWaiting(reactive, frames, listFrames) {
  let id = $state(undefined);
  const agent = live(reactive, 'agents.get_one', () => (id === undefined ? skip : { agent_id: id }));
  const input = () => (id === undefined ? skip : { agent_id: id });
  const list = liveInfinite(reactive, 'messages.get_all', input, { limit: 2 });
  const unmount = $effect.root(() => {
    $effect(() => { frames.push((agent.data?.name ?? 'nothing') + (agent.isStale ? '?' : '!') + (agent.isLoading ? '…' : '')); });
    $effect(() => { listFrames.push((list.rows === undefined ? 'nothing' : 'rows') + (list.isStale ? '?' : '!')); });
  });
  return { unmount, show: (other) => { id = other; }, more: () => list.loadMore() };
}
export function mountMutation(reactive, id, frames) {
  const agent = live(reactive, 'agents.get_one', () => ({ agent_id: id }));
  const rename = liveMutation(reactive, 'agents.update', {
    optimistic: ({ agent_id, name }, on) => on('agents.get_one', { agent_id }, (shown) => ({ ...shown, name })),
  });
  const unmount = $effect.root(() => {
    const name = $derived(agent.data?.name ?? 'nothing');
    const saving = $derived((rename.isPending ? 'saving' : 'idle') + (rename.error === null ? '' : ': ' + rename.error.code));
    $effect(() => { frames.push(name); });
    $effect(() => { frames.push(saving); });
  });
  return { unmount, mutate: rename.mutate };
}
export function mountPriorities(reactive, first) {
  let id = $state(first);
  const unmount = $effect.root(() => {
    $effect(() => reactive.hold([['agents.get_one', { agent_id: id }]]));
  });
  return { unmount, show: (other) => { id = other; } };
}
`;

interface Frames extends Array<string> {
  status?: string;
}

interface Mounted {
  readonly unmount: () => void;
  readonly show: (agentId: string) => void;
}

interface Compiled {
  mountList(reactive: Reactive<TeamHub>, first: string, frames: string[]): Mounted & { readonly more: () => void };
  mount(reactive: Reactive<TeamHub>, first: string, frames: Frames): Mounted;
  mountWaiting(
    reactive: Reactive<TeamHub>,
    frames: string[],
    listFrames: string[],
  ): Omit<Mounted, 'show'> & { readonly show: (agentId: string | undefined) => void; readonly more: () => void };
  mountMutation(
    reactive: Reactive<TeamHub>,
    id: string,
    frames: string[],
  ): Pick<Mounted, 'unmount'> & { readonly mutate: (input: object) => Promise<unknown> };
  mountPriorities(reactive: Reactive<TeamHub>, first: string): Mounted;
}

const pages = new Pages();

afterEach(() => pages.closeAll());

/** Compile the component into a module, and import it. */
async function compiled(): Promise<Compiled> {
  const folder = await mkdtemp(join(tmpdir(), 'reactive-svelte-'));
  try {
    const path = `${folder}/component.svelte.js`;
    await writeFile(path, compileModule(COMPONENT, { filename: path, generate: 'client' }).js.code);
    return (await import(pathToFileURL(path).href)) as Compiled;
  } finally {
    await rm(folder, { recursive: true });
  }
}

test('a component shows a query, follows it and its input, and the stream ends with its effects', async () => {
  const ada = await Caller.logIn('ada@org-01.example');
  const [agent, other] = await Promise.all([ada.newAgent(), ada.newAgent()]);
  await ada.call('agents.update', { agent_id: other.id, name: 'Other' });
  const counter = new Counter();
  const page = pages.open(ada, { fetch: counter.fetch });
  const frames: Frames = [];
  const { mount } = await compiled();
  const component = mount(page, agent.id, frames);
  await expect.poll(() => frames.at(-1)).toBe('Test!');
  expect(counter.counts).toMatchObject({ 'agents.get_one': 1, events: 1 });
  expect(frames.status).toBe('live');

  await ada.call('agents.update', { agent_id: agent.id, name: 'Grace' });
  await expect.poll(() => frames.at(-1)).toBe('Grace!');
  component.show(other.id);
  await expect.poll(() => frames.at(-1)).toBe('Other!');
  component.unmount();
  await expect.poll(() => page.status.state).toBe('idle');
});

test('a component shows a list page by page, follows it and its input, and the stream ends with its effects', async () => {
  const ada = await Caller.logIn('ada@org-01.example');
  const [agent, other] = await Promise.all([ada.newAgent(), ada.newAgent()]);
  const say = (body: string): Promise<unknown> => ada.call('messages.send', { from_agent_id: agent.id, body });
  for (const body of ['a', 'b', 'c']) await say(body);
  const page = pages.open(ada);
  const frames: string[] = [];
  const { mountList } = await compiled();
  const component = mountList(page, agent.id, frames);
  await expect.poll(() => frames.at(-1)).toBe('c,b…!');
  component.more();
  await expect.poll(() => frames.at(-1)).toBe('c,b,a.!');
  await say('d');
  await expect.poll(() => frames.at(-1)).toBe('d,c,b,a.!');
  component.show(other.id);
  await expect.poll(() => frames.at(-1)).toBe('.!');
  component.unmount();
  await expect.poll(() => page.status.state).toBe('idle');
});

test('an input that is skipped asks nothing, until there is one', async () => {
  const ada = await Caller.logIn('ada@org-01.example');
  const agent = await ada.newAgent();
  const counter = new Counter();
  const page = pages.open(ada, { fetch: counter.fetch });
  const [frames, listFrames]: [string[], string[]] = [[], []];
  const { mountWaiting } = await compiled();
  const component = mountWaiting(page, frames, listFrames);
  await expect.poll(() => listFrames).toEqual(['nothing?']);
  component.more();
  expect(frames).toEqual(['nothing?']);
  expect(counter.counts).toEqual({});
  component.show(agent.id);
  await expect.poll(() => frames.at(-1)).toBe('Test!');
  await expect.poll(() => listFrames.at(-1)).toBe('rows!');
  component.show(undefined);
  await expect.poll(() => frames.at(-1)).toBe('nothing?');
  await expect.poll(() => page.status.state).toBe('idle');
  component.unmount();
});

test('a mutation shows at once, is pending until it is answered, and says why it has failed', async () => {
  const ada = await Caller.logIn('ada@org-01.example');
  const agent = await ada.newAgent();
  const gate = new Gate('agents.update');
  const page = pages.open(ada, { fetch: gate.fetch });
  const frames: string[] = [];
  const { mountMutation } = await compiled();
  const { mutate, unmount } = mountMutation(page, agent.id, frames);
  await expect.poll(() => frames).toEqual(['nothing', 'idle', 'Test']);
  const renamed = mutate({ agent_id: agent.id, name: 'Grace' });
  await expect.poll(() => frames.slice(3).toSorted()).toEqual(['Grace', 'saving']);
  gate.open();
  expect(await renamed).toMatchObject({ name: 'Grace' });
  await expect.poll(() => frames.slice(5)).toEqual(['idle']);
  await expect(mutate({ agent_id: 'nobody', name: 'Ada' })).rejects.toMatchObject({ code: 'NOT_FOUND' });
  await expect.poll(() => frames.at(-1)).toBe('idle: NOT_FOUND');
  unmount();
});

test('an effect that holds queries has them fetched, follows its input, and lets go', async () => {
  const ada = await Caller.logIn('ada@org-01.example');
  const [agent, other] = await Promise.all([ada.newAgent(), ada.newAgent()]);
  const gate = new Gate('agents.get_one', true);
  const page = pages.open(ada, { fetch: gate.fetch });
  const { mountPriorities } = await compiled();
  const component = mountPriorities(page, agent.id);
  await expect.poll(() => page.query('agents.get_one', { agent_id: agent.id }).state.isStale).toBe(false);
  component.show(other.id);
  await expect.poll(() => page.query('agents.get_one', { agent_id: other.id }).state.isStale).toBe(false);
  await expect.poll(() => page.query('agents.get_one', { agent_id: agent.id }).state.isStale).toBe(true);
  component.unmount();
  await expect.poll(() => page.status.state).toBe('idle');
  expect(gate.inputs).toEqual([{ agent_id: agent.id }, { agent_id: other.id }]);
});
