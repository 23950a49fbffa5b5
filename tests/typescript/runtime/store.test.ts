import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { type KeyValueStorage, Store, type StoredResult } from '../../../reactive_rpc/typescript/runtime/store.ts';

const RESULT: StoredResult = {
  json: [{ id: 1 }],
  isText: false,
  etag: '"A"',
  version: { epoch: 'e', number: 7 },
  scope: 's1',
};

/** A storage with a quota, which fails when it is told to. */
class Disk implements KeyValueStorage {
  readonly texts = new Map<string, string>();
  isBroken = false;
  readonly #quota: number;

  constructor(quota = Infinity) {
    this.#quota = quota;
  }

  get length(): number {
    this.#check();
    return this.texts.size;
  }

  get used(): number {
    return [...this.texts].reduce((sum, [key, text]) => sum + key.length + text.length, 0);
  }

  key(index: number): string | null {
    this.#check();
    return [...this.texts.keys()][index] ?? null;
  }

  getItem(key: string): string | null {
    this.#check();
    return this.texts.get(key) ?? null;
  }

  setItem(key: string, value: string): void {
    this.#check();
    const before = key.length + (this.texts.get(key)?.length ?? -key.length);
    if (this.used - before + key.length + value.length > this.#quota) throw new DOMException('', 'QuotaExceededError');
    this.texts.set(key, value);
  }

  removeItem(key: string): void {
    this.#check();
    this.texts.delete(key);
  }

  #check(): void {
    if (this.isBroken) throw new DOMException('', 'SecurityError');
  }
}

interface Given {
  readonly identity?: string | null;
  readonly buster?: string;
  readonly maxLength?: number;
  readonly maxEntryLength?: number;
  readonly now?: () => number;
}

function open(disk: Disk, { identity = 'ada', buster = '1', ...bounds }: Given = {}): Store {
  return new Store({ storage: () => disk, identity, buster, schedule: () => () => {}, ...bounds });
}

function keep(store: Store, query: string, json: unknown): void {
  store.put(query, () => ({ ...RESULT, json }));
  store.flush();
}

test('what one page keeps the next one finds, with its ETag and version', () => {
  const disk = new Disk();
  const store = open(disk);
  store.put('q', () => RESULT);
  expect(disk.texts.size).toBe(0);
  store.flush();
  expect(open(disk).get('q')).toEqual(RESULT);
  expect(open(disk).queries()).toEqual(['q']);
});

test('of several results of one query, the last is written, once there is time', () => {
  const disk = new Disk();
  const store = open(disk);
  store.put('q', () => ({ ...RESULT, json: 1 }));
  store.put('q', () => ({ ...RESULT, json: 2 }));
  store.flush();
  expect(open(disk).get('q')?.json).toBe(2);
});

describe('nothing of another is ever found', () => {
  test.each([
    ['another caller', { identity: 'grace' }],
    ['another version of the API', { buster: '2' }],
  ])('%s: it is removed at the start', (_, other) => {
    const disk = new Disk();
    keep(open(disk), 'q', 1);
    expect(open(disk, other).get('q')).toBeNull();
    expect(disk.texts.size).toBe(0);
  });

  test('after a logout nothing is left, also of what waits and of what another tab has kept', () => {
    const disk = new Disk();
    const store = open(disk);
    keep(store, 'q', 1);
    keep(open(disk), 'of another tab', 1);
    store.put('r', () => RESULT);
    store.end();
    store.flush();
    expect(disk.texts.size).toBe(0);
  });

  test.each([null, ''])(
    'what has no name (%j) is neither kept nor found, and what was kept before goes',
    (identity) => {
      const disk = new Disk();
      keep(open(disk), 'q', 1);
      const store = open(disk, { identity });
      expect(disk.texts.size).toBe(0);
      keep(store, 'q', 2);
      expect(disk.texts.size).toBe(0);
      disk.texts.set('rx::1:q', '1|s1|{"json":3}');
      expect([store.get('q'), store.queries(), store.scope]).toEqual([null, [], null]);
    },
  );

  test('who has logged out keeps nothing more, though the page goes on', () => {
    const disk = new Disk();
    const store = open(disk);
    store.end();
    keep(store, 'q', 1);
    keep(open(disk), 'q', 2);
    expect(store.get('q')).toBeNull();
  });

  test('it tells whose results there are, as the server named them', () => {
    const disk = new Disk();
    expect(open(disk).scope).toBeNull();
    const store = open(disk);
    store.put('q', () => ({ ...RESULT, scope: null }));
    store.flush();
    expect([open(disk).scope, open(disk).get('q')?.scope]).toEqual([null, null]);
    store.put('r', () => ({ ...RESULT, scope: 'a|b' }));
    store.flush();
    expect([open(disk).scope, open(disk).get('r')?.scope]).toEqual(['a|b', 'a|b']);
  });

  test('of two callers that the server has named, nothing is found', () => {
    const disk = new Disk();
    for (const scope of ['s1', 's2']) {
      const store = open(disk);
      store.put(scope, () => ({ ...RESULT, scope }));
      store.flush();
    }
    expect(disk.texts.size).toBe(2);
    expect([open(disk).scope, open(disk).queries(), disk.texts.size]).toEqual([null, [], 0]);
  });

  test('where a name ends is never in doubt', () => {
    const disk = new Disk();
    keep(open(disk, { identity: 'a:b', buster: 'c' }), 'q', 1);
    expect(open(disk, { identity: 'a', buster: 'b:c' }).get('q')).toBeNull();
  });

  test("a page's own entries, and mutations that wait, stay", () => {
    const disk = new Disk();
    disk.texts.set('theme', 'dark').set('rx:ada:out:1-a', '{}');
    open(disk, { identity: 'grace' }).end();
    expect([...disk.texts.keys()]).toEqual(['theme', 'rx:ada:out:1-a']);
  });
});

test('what may not be kept is neither written nor found, and what was kept of it goes', () => {
  const disk = new Disk();
  for (const query of ['q', 'secret']) keep(open(disk), query, 1);
  const store = new Store({ storage: () => disk, identity: 'ada', buster: '1', keeps: (query) => query !== 'secret' });
  expect(disk.texts.size).toBe(1);
  keep(store, 'secret', 2);
  keep(store, 'q', 2);
  expect(store.get('secret')).toBeNull();
  expect([...disk.texts.keys()]).toEqual(['rx:ada:1:q']);
  // Another tab runs the release before, which keeps it.
  keep(open(disk), 'secret', 3);
  expect(store.get('secret')).toBeNull();
  store.end();
  expect(disk.texts.size).toBe(0);
});

describe('bounds', () => {
  test('the least recently used goes first; to read is to use', () => {
    let time = 0;
    const store = open(new Disk(), { maxLength: 250, now: () => ++time });
    for (const query of ['a', 'b', 'c']) keep(store, query, 'x'.repeat(20));
    store.get('a');
    keep(store, 'd', 'x'.repeat(20));
    expect(store.queries()).toContain('a');
    expect(store.queries()).not.toContain('b');
  });

  test('what is too large is not kept, and neither is its older self', () => {
    const store = open(new Disk(), { maxEntryLength: 200 });
    keep(store, 'q', 1);
    keep(store, 'q', 'x'.repeat(200));
    expect(store.get('q')).toBeNull();
  });

  test('a full disk: older entries give way, and what does not fit alone is not kept', () => {
    const disk = new Disk(250);
    const store = open(disk);
    for (const query of ['a', 'b', 'c', 'd']) keep(store, query, 'x'.repeat(20));
    expect(store.get('d')).not.toBeNull();
    keep(store, 'e', 'x'.repeat(300));
    expect(store.get('e')).toBeNull();
  });

  test('whatever is kept, nothing throws, the bounds hold, and what is found is what was kept last', () => {
    const moves = fc.array(fc.tuple(fc.constantFrom('put', 'get', 'break', 'mend', 'other'), fc.nat(4), fc.nat(90)));
    fc.assert(
      fc.property(moves, (played) => {
        const disk = new Disk(600);
        const store = open(disk, { maxLength: 400, maxEntryLength: 150 });
        const kept = new Map<string, unknown>();
        for (const [move, which, size] of played) {
          const query = `q${which}`;
          if (move === 'break' || move === 'mend') disk.isBroken = move === 'break';
          else if (move === 'other' && !disk.isBroken) disk.texts.set(`page${which}`, 'x'.repeat(size));
          else if (move === 'put') {
            if (!disk.isBroken) kept.set(query, 'x'.repeat(size));
            keep(store, query, 'x'.repeat(size));
          } else {
            const found = store.get(query);
            if (found !== null && !disk.isBroken) expect(kept.get(query)).toBe(found.json);
          }
        }
        const own = [...disk.texts].filter(([key]) => key.startsWith('rx:'));
        // What a broken disk did not remove is there until the next page opens the store.
        const wasBroken = played.some(([move]) => move === 'break');
        const length = own.reduce((sum, [key, text]) => sum + key.length + text.length, 0);
        expect(length).toBeLessThanOrEqual(wasBroken ? 600 : 400);
      }),
      { numRuns: 2000 },
    );
  });
});

describe('a storage that is of no use is none', () => {
  test.each<[string, () => KeyValueStorage | undefined]>([
    ['forbidden', () => forbidden()],
    ['absent', () => undefined],
    ['broken', () => Object.assign(new Disk(), { isBroken: true })],
  ])('%s', (_, storage) => {
    const store = new Store({ storage, identity: 'ada', buster: '1' });
    keep(store, 'q', 1);
    expect(store.get('q')).toBeNull();
    store.end();
  });

  function forbidden(): never {
    throw new DOMException('', 'SecurityError');
  }

  test.each(['', '17', '17|', '17|{', '17|s1|{', '17|s1|null', '17|s1|{"etag":7,"version":"x"}', 'x|s1|{"json":1}'])(
    'an entry that reads %j',
    (text) => {
      const disk = new Disk();
      disk.texts.set('rx:ada:1:q', text);
      expect(open(disk).get('q')).toBeNull();
    },
  );

  test.each(['17||{"json":1}', '17|{"json":1}', '17|%|{"json":1}', '17|a?|{"json":1}'])(
    'an entry of which nobody can tell whose it is: %j',
    (text) => {
      const disk = new Disk();
      const store = open(disk);
      disk.texts.set('rx:ada:1:q', text);
      expect(store.get('q')).toBeNull();
      expect([open(disk).queries(), open(disk).scope]).toEqual([[], null]);
    },
  );

  test('a result that cannot be written takes no other one with it', () => {
    const disk = new Disk();
    const store = open(disk);
    store.put('q', () => {
      throw new Error('no codec writes this');
    });
    keep(store, 'r', 1);
    expect([...disk.texts.keys()]).toEqual(['rx:ada:1:r']);
  });

  test('a result that is no JSON', () => {
    const disk = new Disk();
    keep(open(disk), 'q', 5n);
    expect(disk.texts.size).toBe(0);
  });
});
