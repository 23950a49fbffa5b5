import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { compileModule } from 'svelte/compiler';
import { afterEach, expect, test } from 'vitest';

import type { Reactive } from '../../../reactive_rpc/typescript/runtime/index.ts';
import { Caller, Counter, Pages, type TeamHub } from './teamhub.ts';

/** A component's script, as Svelte compiles it: it shows one agent, and which one may change. */
const COMPONENT = `
import { live, liveStatus } from '${fileURLToPath(new URL('../../../reactive_rpc/typescript/runtime/svelte/index.ts', import.meta.url))}';
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
