import { hashKey } from '@tanstack/query-core';
import { describe, expect, test } from 'vitest';

import { queryKeyOf } from '../../../reactive_rpc/typescript/runtime/keys.ts';
import { isKept } from '../../../reactive_rpc/typescript/runtime/persist.ts';
import { createReactive, type ReactiveOptions } from '../../../reactive_rpc/typescript/runtime/reactive.ts';
import type { KeyValueStorage } from '../../../reactive_rpc/typescript/runtime/store.ts';
import { Hub } from './hub.ts';

function hashOf(path: string, input?: unknown): string {
  return hashKey(queryKeyOf({ path, input }));
}

describe('a result may be kept', () => {
  test.each([
    ['all are by default', {}, true],
    ['not of that namespace', { memory: false }, false],
    ['not of that query', { 'memory.of.agents': false }, false],
    ['the longer name decides', { memory: false, 'memory.of': true }, true],
    ['a namespace below one', { 'memory.of': false, memory: true }, false],
    ['of another one', { memo: false, 'memory.o': false, agents: false }, true],
    ['a name of none', { memory: undefined }, true],
  ])('%s', (_, wishes, expected) => {
    expect(isKept(hashOf('memory.of.agents', { id: 1 }), wishes)).toBe(expected);
  });

  test.each(['', '{', 'null', '[]', '[["a"],{"type":"infinite"}]', 'by-a-function-of-the-page'])(
    'a key that names no query, %j: only if nothing is excepted',
    (query) => {
      expect(isKept(query, {})).toBe(true);
      expect(isKept(query, { memory: false })).toBe(false);
    },
  );
});

describe('a page with a storage of its own', () => {
  function mapStorage(texts: Map<string, string>): KeyValueStorage {
    return {
      get length() {
        return texts.size;
      },
      key: (index) => [...texts.keys()][index] ?? null,
      getItem: (key) => texts.get(key) ?? null,
      setItem: (key, value) => void texts.set(key, value),
      removeItem: (key) => void texts.delete(key),
    };
  }

  /** Show a query of each namespace, and leave. */
  async function visit(hub: Hub, options: Partial<ReactiveOptions>): Promise<void> {
    const page = createReactive<Procedures>({ url: hub.url, identity: 'ada', ...options });
    await Promise.all([page.query('agents.get').load(), page.query('memory.get').load()]);
    page.close();
  }

  interface Procedures {
    'agents.get': { readonly kind: 'query'; readonly input: undefined; readonly output: number };
    'memory.get': { readonly kind: 'query'; readonly input: undefined; readonly output: number };
  }

  test('keeps nothing there that it excepts, and removes what it kept before', async () => {
    const hub = await Hub.open();
    hub.result = 7;
    const texts = new Map<string, string>();
    const storage = mapStorage(texts);
    await visit(hub, { storage });
    expect([...texts.keys()].toSorted()).toEqual(['agents.get', 'memory.get'].map((path) => `rx:ada::${hashOf(path)}`));
    await visit(hub, { storage, persist: { memory: false } });
    expect([...texts.keys()]).toEqual([`rx:ada::${hashOf('agents.get')}`]);
    await visit(hub, { storage: 'none' });
    expect(texts.size).toBe(1);
    hub.close();
  });
});
