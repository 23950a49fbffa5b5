import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import type { Runtime } from './browser.ts';
import { type Fault, withFaultOfRuntime } from './mutants.ts';
import { playTabs, tabGames, WrongTabError } from './tab_games.ts';

const GAMES = Number(process.env['REACTIVE_TAB_GAMES'] ?? 60);
const SEED = Number(process.env['REACTIVE_TAB_SEED'] ?? 1);
const MAX_GAMES = 150;

test('whatever happens to tabs, none shows what is wrong, and at rest all show the truth by one stream', async () => {
  await fc.assert(
    fc.asyncProperty(tabGames, (moves) => playTabs(moves)),
    { numRuns: GAMES, seed: SEED },
  );
});

const FAULTS: readonly Fault[] = [
  {
    name: 'a result counts as the truth however old it is',
    file: 'ledger.ts',
    line: 'if (passes(version, parseVersion(this.#cursor))) this.#truths.set(key, etag);',
    broken: 'this.#truths.set(key, etag);',
  },
  {
    name: 'what the stream says against a result is not noted',
    file: 'ledger.ts',
    line: 'for (const key of news.keys) this.#truths.delete(key);',
    broken: '',
  },
  {
    name: 'who leads does not look what is watched for others',
    file: 'group.ts',
    line: 'if (news !== null) this.#options.onNews(news);',
    broken: '',
  },
  {
    name: 'who was robbed goes on',
    file: 'group.ts',
    line: 'this.#streams.close();\n    this.#streams = null;\n    // INVARIANT',
    broken: 'return;\n    // INVARIANT',
  },
  {
    name: 'a tab that is left stays in the group',
    file: 'tabs.ts',
    line: 'this.#group?.close();',
    broken: '',
  },
];

async function find(runtime: Runtime): Promise<string> {
  const found = await fc.check(
    fc.asyncProperty(tabGames, (moves) => playTabs(moves, runtime)),
    { numRuns: MAX_GAMES, seed: 2, endOnFailure: true },
  );
  return found.errorInstance instanceof WrongTabError ? found.errorInstance.message : String(found.errorInstance);
}

describe('the games find a seeded fault', () => {
  test.each(FAULTS)('$name', async (fault) => {
    expect(await withFaultOfRuntime(fault, find)).toMatch(/went back|as fresh|is not at rest/);
  });
});
