import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import * as product from '../../../reactive_rpc/typescript/runtime/pages.ts';
import { type Fault, withFaultOfPages } from './mutants.ts';
import {
  MOVES,
  type Move,
  type PagesModule,
  PagesWorld,
  type Reading,
  read,
  readByLimit,
  WrongError,
} from './pages_world.ts';

const GAMES = Number(process.env['REACTIVE_PAGE_GAMES'] ?? 3000);
const SEED = Number(process.env['REACTIVE_PAGE_SEED'] ?? 1);
const MAX_MOVES = 80;
const WRONG = /twice|is no frame|is confirmed|is not at rest|is another object/;

const move: fc.Arbitrary<Move> = fc.record({
  name: fc.constantFrom(...MOVES, 'answer', 'answer', 'request', 'notify', 'turn', 'open', 'more'),
  pick: fc.nat(50),
  flag: fc.boolean(),
});
const games = fc.array(move, { minLength: 5, maxLength: MAX_MOVES });

function twoPages(world: PagesWorld): void {
  world.comeToRest();
  world.step({ name: 'more', pick: 0, flag: true });
  world.comeToRest();
}

function play(pages: PagesModule, moves: readonly Move[], reading: Reading = read): number {
  const world = new PagesWorld(pages, reading, moves.length % 3 > 0);
  // Half of the games begin with two pages that are confirmed: few would come so far by themselves.
  if (moves.length % 2 === 0) twoPages(world);
  for (const one of moves) world.step(one);
  world.comeToRest();
  return world.frames;
}

test('each frame is the list of one moment with the own mutations that it lacks, and the last is the truth', {
  timeout: 600_000,
}, () => {
  let frames = 0;
  fc.assert(
    fc.property(games, (moves) => {
      frames += play(product, moves);
    }),
    { numRuns: GAMES, seed: SEED },
  );
  expect(frames).toBeGreaterThan(GAMES);
});

describe('a list whose places are no places any more', () => {
  test.each([true, false])('begins anew, and comes to rest; the server says at which version: %s', (isPlaced) => {
    const world = new PagesWorld(product);
    twoPages(world);
    // Into the second page, so the first is as it was long before what shows.
    world.step({ name: 'insert', pick: 4, flag: true });
    world.comeToRest();
    world.isPlaced = isPlaced;
    world.step({ name: 'reorder', pick: 0, flag: true });
    world.comeToRest();
  });
});

/** Games that showed what was never true, shrunk: `mutate7` picks 7. */
const WRONG_ONCE = {
  'a page comes back with a result of its own, without a mutation whose answer was lost':
    'insert mutate insert request answer mutate send mutate execute lose insert insert reorder insert insert',
  'a page comes back with a newer result than the first one is known to be of':
    'request leave insert notify answer answer request mutate7 reorder reply mutate37 send',
};

function gameOf(text: string): Move[] {
  return text.split(' ').map((word) => {
    const name = MOVES.find((one) => one === word.replace(/\d+$/, ''));
    if (name === undefined) throw new Error(`${word} is no move`);
    return { name, pick: Number(/\d+$/.exec(word)?.[0] ?? 0), flag: false };
  });
}

test.each(Object.entries(WRONG_ONCE))('a game that was wrong once: %s', (_, text) => {
  expect(play(product, gameOf(text))).toBeGreaterThan(0);
});

function find(pages: PagesModule, reading: Reading = read): string {
  const found = fc.check(
    fc.property(games, (moves) => void play(pages, moves, reading)),
    { numRuns: 20_000, seed: 2, endOnFailure: true },
  );
  const error = found.errorInstance;
  return error instanceof WrongError ? error.message : String(error);
}

const FAULTS: readonly Fault[] = [
  {
    name: 'pages are shown as they come',
    file: 'intervals.ts',
    line: 'if (shown.length === 1) return true;',
    broken: 'return true;',
  },
  {
    name: 'a page that is cut loses its rest',
    file: 'intervals.ts',
    line: 'return [closed, new Interval(page.next, one.until, [one])];',
    broken: 'return [closed];',
  },
  {
    name: 'the rest is shown before all pages are there',
    file: 'intervals.ts',
    line: 'if (shown.length === 0 || shown.some((one) => one.page === null)) return null;',
    broken: 'if (shown.length === 0) return null;',
  },
  {
    name: 'two pages become one that ends where the first did',
    file: 'intervals.ts',
    line: 'const joined = new Interval(first.after, second.until, [first, second]);',
    broken: 'const joined = new Interval(first.after, first.until, [first, second]);',
  },
  {
    name: 'a page that is asked again has held all the time',
    file: 'intervals.ts',
    line: '} else if (!this.isCurrent && version !== null && !passes(this.upTo, version)) {',
    broken: '} else if (false) {',
  },
  {
    name: 'a page that was invalidated holds as long as the others',
    file: 'pages.ts',
    line: 'const upTo = covered && isCurrent && passes(notifiedUpTo, base.version)',
    broken: 'const upTo = passes(notifiedUpTo, base.version)',
  },
  {
    name: 'pages that nobody has spoken of are not asked',
    file: 'pages.ts',
    line: 'if (behind.length === 0 || this.#rounds === MAX_ROUNDS) return;',
    broken: 'return;',
  },
  {
    name: 'a page that was shown before shows its result of then',
    file: 'pages.ts',
    line: 'if (this.#isBack(fitting, at)) return false;',
    broken: '',
  },
  {
    name: 'a page that began to hold before what shows waits for ever',
    file: 'pages.ts',
    line: '&& !fitting.every((one) => passes(one.upTo, this.#notBefore));',
    broken: ';',
  },
  {
    name: 'who begins anew believes what it knew of places',
    file: 'pages.ts',
    line: 'one.isRestored = !resolved || followed.isDoubted;',
    broken: 'one.isRestored = !resolved;',
  },
  {
    name: 'a failure of before counts when a query is a page again',
    file: 'pages.ts',
    line: ' && state.error !== failure',
    broken: '',
  },
  {
    name: 'a first page of before a restart shows without its mutations',
    file: 'pages.ts',
    line: ' || fitting.some((one) => this.#followed.get(one)?.isDoubted)',
    broken: '',
  },
  {
    name: 'the list of a mutation is in one page, and not in another',
    file: 'pages.ts',
    line: 'if (owing.some((lacking) => lacking > 0 && lacking < queries.length)) return false;',
    broken: '',
  },
  {
    name: 'a mutation stays',
    file: 'pages.ts',
    line: 'if (owing.includes(0)) this.#ops',
    broken: 'if (false) this.#ops',
  },
  {
    name: 'a mutation leaves before the pages that contain it show',
    file: 'pages.ts',
    line: 'const fitting = this.#list.fitting(this.#rounds === MAX_ROUNDS);',
    broken: `const left = this.#ops.filter(({ id }) => queries.some((query) => isOwing(query, id + this.#id)));
    if (left.length < this.#ops.length) this.#ops = left;
    const fitting = this.#list.fitting(this.#rounds === MAX_ROUNDS);`,
  },
  {
    name: 'pages are taken that may contain a mutation',
    file: 'pages.ts',
    line: 'const { base, covered, resolved } = snapshot;',
    broken: 'const { covered, resolved } = snapshot; const base = snapshot.held ?? snapshot.base;',
  },
  {
    name: 'a page that is new knows of no mutation',
    file: 'pages.ts',
    line: 'if (known !== undefined) for (const action of history(known)) this.#host.tell(query, action);',
    broken: '',
  },
  {
    name: 'a mutation that was refused stays',
    file: 'pages.ts',
    line: "if (action.type === 'opRejected') this.#ops",
    broken: 'if (false) this.#ops',
  },
  {
    name: 'a row that comes by another page is another object',
    file: 'pages.ts',
    line: 'this.#known.get(text) ?? this.#former.get(text) ?? row',
    broken: 'row',
  },
];

describe('the games find', { timeout: 600_000 }, () => {
  test('pages of so many rows after a place', () => {
    expect(find(product, readByLimit)).toMatch(WRONG);
  });

  test.each(FAULTS)('$name', async (fault) => {
    expect(await withFaultOfPages(fault, find)).toMatch(WRONG);
  });
});
