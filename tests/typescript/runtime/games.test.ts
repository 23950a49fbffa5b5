import { writeFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import * as coverage from '../../../reactive_rpc/typescript/runtime/coverage.ts';
import * as state from '../../../reactive_rpc/typescript/runtime/state.ts';
import type { Vector } from './acting.ts';
import { games, play } from './games.ts';
import { type Fault, withFault } from './mutants.ts';
import { type Reducer, type Rules, WrongError } from './world.ts';

const GAMES = Number(process.env['REACTIVE_STATE_GAMES'] ?? 20_000);
const SEED = Number(process.env['REACTIVE_STATE_SEED'] ?? 1);
const MAX_GAMES = 200_000;
/** Where the games are written that another language plays again; unset, none are. */
const PLAYED = process.env['REACTIVE_STATE_PLAYED'];
const PLAYED_GAMES = 200;

const product: Reducer = { ...state, ...coverage };

test('every frame is true, and the last is the truth', { timeout: 600_000 }, () => {
  fc.assert(
    fc.property(games, (game) => void play(product, game)),
    { numRuns: GAMES, seed: SEED },
  );
});

const FAULTS: readonly Fault[] = [
  {
    name: 'an op leaves at its answer',
    file: 'state.ts',
    line: "const done = withOp(s, id, { phase: 'answered', at: action.version });",
    broken: 'const done = { ...s, ops: s.ops.filter((op) => op.id !== id) };',
  },
  {
    name: 'an op leaves without a proof',
    file: 'state.ts',
    line: "if (op.phase === 'answered' && passes(base.version, op.at)) return true;",
    broken: "if (op.phase === 'answered') return true;",
  },
  {
    name: 'a fetch proves ops that were answered after it began',
    file: 'state.ts',
    line: 'const seen = s.ops.filter(isOver).map((op) => op.id);',
    broken: 'const seen = s.ops.map((op) => op.id);',
  },
  {
    name: 'nothing is held',
    file: 'state.ts',
    line: "if (held !== null && s.ops.every((op) => op.phase === 'queued' || contains(held, op))) {",
    broken: 'if (held !== null) {',
  },
  {
    name: 'no fetch for an op that is over',
    file: 'state.ts',
    line: 'if (!s.wanted && !s.loading && s.ops.some(isOver)) s = { ...s, wanted: true };',
    broken: '',
  },
  {
    name: 'an invalidation while loading ends with the answer',
    file: 'state.ts',
    line: 'const isClear = !s.wanted || passes(answer.version, s.invalidatedAt ?? null);',
    broken: 'const isClear = true;',
  },
  {
    name: 'an invalidation without a version is known already',
    file: 'state.ts',
    line: 'if (passes(newestOf(s).version, version)) return s;',
    broken: 'if (version === null || passes(newestOf(s).version, version)) return s;',
  },
  {
    name: 'the end of a stream is ignored',
    file: 'state.ts',
    line: 'return { ...s, covered: false };',
    broken: 'return s;',
  },
  {
    name: 'an older answer is taken',
    file: 'state.ts',
    line: 'if (isOvertaken(s, answer)) return wantedUnlessCurrent(s);',
    broken: '',
  },
  {
    name: 'an older push is taken',
    file: 'state.ts',
    line: 'if (isOlder(version, newest.version)) return s;',
    broken: '',
  },
  {
    name: 'a push of another epoch is taken',
    file: 'state.ts',
    line: 'if (!isEmpty(newest) && !isComparable(version, newest.version)) {',
    broken: 'if (false) {',
  },
  {
    name: 'a late answer of a former epoch is taken',
    file: 'state.ts',
    line: 'return s.asked.version?.epoch !== newest.version.epoch;',
    broken: 'return false;',
  },
  {
    name: 'a 304 speaks of whatever is held',
    file: 'state.ts',
    line: 'if (!isSame(newest, s.asked)) {',
    broken: 'if (false) {',
  },
  {
    name: "an outage's answer counts",
    file: 'state.ts',
    line: 'if (isOutage && !isEmpty(newestOf(s))) {',
    broken: 'if (false) {',
  },
  {
    name: 'what nobody covers advances',
    file: 'state.ts',
    line: 'return s.covered && s.current ? moved(s, action.version) : s;',
    broken: 'return moved(s, action.version);',
  },
  {
    name: "another tab's answer is taken whatever was said here",
    file: 'state.ts',
    line: 'const isFresh = passes(action.version, action.notifiedUpTo);',
    broken: 'const isFresh = true;',
  },
  {
    name: "another tab's answer is taken though it is older",
    file: 'state.ts',
    line: 'return isOlder(newest.version, version);',
    broken: 'return true;',
  },
  {
    name: 'a caller who is gone leaves their mutations',
    file: 'state.ts',
    line: 'return { ...initial<T>(), base, shown: base.data,',
    broken: 'return { ...initial<T>(), ops: s.ops, base, shown: s.shown,',
  },
  {
    name: 'a stream confirms what was sent meanwhile',
    file: 'state.ts',
    line: "const isSure = s.ops.every((op) => op.phase === 'queued');",
    broken: 'const isSure = true;',
  },
  {
    name: 'a stream confirms everything',
    file: 'coverage.ts',
    line: 'if (passes(newest.version, version) || (isCompared && !isStale && isUndoubted(s))) {',
    broken: 'if (true) {',
  },
  {
    name: 'a stream confirms what is being fetched',
    file: 'coverage.ts',
    line: 'if (s.loading) return false;',
    broken: '',
  },
];

function find(reducer: Reducer, fault: Rules['fault'] | null = null): string {
  const found = fc.check(
    fc.property(games, (game) => void play(reducer, game, fault)),
    { numRuns: MAX_GAMES, seed: 2, endOnFailure: true },
  );
  const error = found.errorInstance;
  return error instanceof WrongError ? error.message : String(error);
}

describe('the games find a seeded fault', { timeout: 600_000 }, () => {
  test.each(FAULTS)('$name', async (fault) => {
    expect(await withFault(fault, find)).toMatch(/is no frame|is confirmed|is not at rest/);
  });

  test.each(['cursor for version', 'half a commit'] as const)('the driver takes a %s', (fault) => {
    expect(find(product, fault)).toMatch(/is no frame|is confirmed|is not at rest/);
  });
});

test.runIf(PLAYED !== undefined)('games are written for the reducers of other languages', () => {
  const played: Vector[] = [];
  fc.assert(
    fc.property(games, (game) => {
      const world = play(product, game);
      for (const [query, steps] of world.played.entries())
        played.push({ name: `game ${played.length}.${query}`, steps });
    }),
    { numRuns: PLAYED_GAMES, seed: SEED },
  );
  writeFileSync(PLAYED ?? '', JSON.stringify({ vectors: played }));
  expect(played).toHaveLength(2 * PLAYED_GAMES);
});
