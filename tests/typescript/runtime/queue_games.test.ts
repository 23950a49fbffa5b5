import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { type Fault, withFaultOfQueue } from './mutants.ts';
import { playQueue, type QueueModules, queueGames, WrongQueueError } from './queue_games.ts';

const GAMES = Number(process.env['REACTIVE_QUEUE_GAMES'] ?? 300);
const SEED = Number(process.env['REACTIVE_QUEUE_SEED'] ?? 1);
const MAX_GAMES = 1000;

test('whatever happens, each mutation is made once at most, in order, and is confirmed, told of or stored', async () => {
  await fc.assert(
    fc.asyncProperty(queueGames, (game) => playQueue(game)),
    { numRuns: GAMES, seed: SEED },
  );
});

const FAULTS: readonly (Fault & { readonly found: RegExp })[] = [
  {
    name: 'each try has a key of its own',
    file: 'queue.ts',
    line: 'mutate(path, json, { key, scope,',
    broken: 'mutate(path, json, { key: String(Math.random()), scope,',
    found: /lost without a word|is confirmed, and was not made|made by/,
  },
  {
    name: 'the time of the first try is not noted',
    file: 'waiting.ts',
    line: 'return this.#write(tried) ? tried : null;',
    broken: 'return tried;',
    found: /made twice|told of as rejected/,
  },
  {
    name: 'it is sent again, however long ago it was sent',
    file: 'queue.ts',
    line: 'if (!this.#isRemembered(held.waiting)) {',
    broken: 'if (held === undefined) {',
    found: /made twice/,
  },
  {
    name: 'it is removed before it is sent',
    file: 'queue.ts',
    line: 'this.#update(held, tried);',
    broken: 'this.#update(held, tried); this.#store.remove(tried.id);',
    found: /lost without a word|was given up: OUTCOME_UNKNOWN/,
  },
  {
    name: 'it is removed before it is told of',
    file: 'queue.ts',
    line: "this.#say({ type: 'refused', id: held.waiting.id, refusal });",
    broken: 'this.#store.remove(held.waiting.id);',
    found: /lost without a word|was given up: OUTCOME_UNKNOWN/,
  },
  {
    name: 'it is told of before that is noted',
    file: 'queue.ts',
    line: 'this.#store.refuse(held.waiting, refusal);',
    broken: '',
    found: /was made, and told of as rejected/,
  },
  {
    name: 'a refusal counts as one of all tries',
    file: 'queue.ts',
    line: '!isFirst || mayBeMade(outcome)',
    broken: 'mayBeMade(outcome)',
    found: /was made, and told of as rejected/,
  },
  {
    name: 'what lost its answer counts as refused',
    file: 'queue.ts',
    line: 'return (error.isTransient && !isUnreadable) ||',
    broken: 'return (error.isTransient && error.status > 0) ||',
    found: /was given up: CONNECTION_FAILED/,
  },
  {
    name: 'a call that is still running counts as refused',
    file: 'queue.ts',
    line: '|| isRunning;',
    broken: ';',
    found: /was given up: CONFLICT/,
  },
  {
    name: 'what is too large is sent again and again',
    file: 'queue.ts',
    line: '|| isRunning;',
    broken: '|| isRunning || error.status === 413;',
    found: /at rest, something waits/,
  },
  {
    name: 'a later one has an earlier name',
    file: 'waiting.ts',
    line: 'Math.max(this.#now(), (earlier.at(-1)?.madeAt ?? 0) + 1)',
    broken: 'this.#now()',
    found: /made in another order/,
  },
  {
    name: 'the one that was made last is sent first',
    file: 'waiting.ts',
    line: 'names.toSorted()',
    broken: 'names.toSorted().toReversed()',
    found: /made in another order/,
  },
  {
    name: 'it does not say whose it is',
    file: 'queue.ts',
    line: 'scope: this.#engine.scope, key',
    broken: 'scope: null, key',
    found: /was made by/,
  },
  {
    name: 'a logout leaves what waits',
    file: 'queue.ts',
    line: 'this.#store.clear();',
    broken: '',
    found: /after a logout|at rest, something waits/,
  },
  {
    name: 'whoever comes next finds what waits of the former',
    file: 'waiting.ts',
    line: 'WAITING.test(name) && !name.startsWith(this.#prefix)',
    broken: 'name === this.#prefix',
    found: /the next caller can read/,
  },
  {
    name: 'another caller before the server is a refusal like others',
    file: 'queue.ts',
    line: "else if (isOfAnother(outcome)) this.#engine.reidentify('another', null);",
    broken: '',
    found: /was given up: PRECONDITION_FAILED/,
  },
  {
    name: 'tabs do not hear that one was made',
    file: 'queue.ts',
    line: "this.#say({ type: 'made', id: held.waiting.id, answer });",
    broken: '',
    found: /was given up: OUTCOME_UNKNOWN/,
  },
  {
    name: 'a tab does not look for what another has stored',
    file: 'queue.ts',
    line: 'if (this.#look().length === 0) return;',
    broken: 'if (this.#held.size === 0) return;',
    found: /at rest, something waits/,
  },
  {
    name: 'a page that comes back does not look',
    file: 'queue.ts',
    line: 'this.#control = new AbortController();\n    this.#look();',
    broken: 'this.#look();',
    found: /at rest, something waits/,
  },
  {
    name: 'a lock that was left is not asked for again',
    file: 'queue.ts',
    line: 'this.#isWorking = false;\n      this.#work();',
    broken: '',
    found: /at rest, something waits/,
  },
];

async function find(modules: QueueModules): Promise<string> {
  const found = await fc.check(
    fc.asyncProperty(queueGames, (game) => playQueue(game, modules)),
    { numRuns: MAX_GAMES, seed: 2, endOnFailure: true },
  );
  return found.errorInstance instanceof WrongQueueError ? found.errorInstance.message : String(found.errorInstance);
}

describe('the games find a seeded fault', () => {
  test.each(FAULTS)('$name', async ({ found, ...fault }) => {
    expect(await withFaultOfQueue(fault, find)).toMatch(found);
  });
});
