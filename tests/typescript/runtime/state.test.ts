import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';

import { initial, reduce } from '../../../reactive_rpc/typescript/runtime/state.ts';
import { actionOf, type Rows, seenOf, type Vector } from './acting.ts';

const FILE = new URL('../../vectors/state.json', import.meta.url);
const { vectors }: { vectors: readonly Vector[] } = JSON.parse(readFileSync(FILE, 'utf8'));

describe('the reducer does as the vectors say, which the Python client passes too', () => {
  test.each(vectors.map((vector) => [vector.name, vector] as const))('%s', (_, vector) => {
    let snapshot = initial<Rows>();
    for (const [number, step] of vector.steps.entries()) {
      snapshot = reduce(snapshot, actionOf(step.do));
      const seen = seenOf(snapshot);
      const wanted = step.then ?? {};
      const named = Object.fromEntries(Object.keys(wanted).map((name) => [name, seen[name]]));
      expect(named, `step ${number}: ${JSON.stringify(step.do)}`).toEqual(wanted);
    }
  });
});

describe('what nothing changes', () => {
  test('is the same snapshot, so that nobody is woken', () => {
    const s = initial<Rows>();
    expect(reduce(s, { type: 'advanced', version: { epoch: 'e', number: 1 } })).toBe(s);
    expect(reduce(s, { type: 'holdExpired' })).toBe(s);
  });

  test('is the same data: an answer with the ETag that is shown, and a move of the version, render nothing', () => {
    const rows = ['a'];
    let s = reduce(initial<Rows>(), { type: 'fetchStarted' });
    s = reduce(s, { type: 'fetched', data: rows, etag: 'A', version: { epoch: 'e', number: 1 } });
    s = reduce(s, { type: 'fetchStarted' });
    s = reduce(s, { type: 'unchanged', version: { epoch: 'e', number: 4 } });
    s = reduce(s, { type: 'pushed', data: ['a'], etag: 'A', version: { epoch: 'e', number: 5 } });
    expect(s.shown).toBe(rows);
    expect(s.base.version).toEqual({ epoch: 'e', number: 5 });
  });
});

test('an update that throws shows nothing, and hides nothing else', () => {
  const said: unknown[] = [];
  const { error } = console;
  console.error = (...words) => said.push(words);
  try {
    let s = reduce(initial<Rows>(), { type: 'restored', data: ['a'], etag: 'A', version: null });
    s = reduce(s, { type: 'opMade', id: 'broken', apply: () => fail() });
    s = reduce(s, { type: 'opMade', id: 'good', apply: (rows) => [...(rows ?? []), 'b'] });
    expect(s.shown).toEqual(['a', 'b']);
    expect(said).not.toEqual([]);
  } finally {
    console.error = error;
  }
});

function fail(): never {
  throw new TypeError('an update of a page');
}
