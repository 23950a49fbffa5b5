/** Random games: the moves, and how one that fails is shortened. */

import fc from 'fast-check';

import { MOVE_NAMES, type Move, type Reducer, type Rules, WARM_UP, World } from './world.ts';

const MAX_MOVES = 60;

export interface Game extends Rules {
  readonly isWarm: boolean;
  readonly moves: readonly Move[];
}

const move: fc.Arbitrary<Move> = fc.record({
  name: fc.constantFrom(...MOVE_NAMES),
  pick: fc.nat(7),
  flag: fc.integer({ min: 0, max: 3 }).map((roll) => roll === 0),
});

export const games: fc.Arbitrary<Game> = fc.record({
  pushes: fc.boolean(),
  isRestored: fc.boolean(),
  isWarm: fc.boolean(),
  moves: fc.array(move, { minLength: 5, maxLength: MAX_MOVES }),
});

/** Play one game to its end; throws at the first frame that was never true. Returns the world, for what was played. */
export function play(reducer: Reducer, game: Game, fault: Rules['fault'] | null = null): World {
  const { pushes, isRestored } = game;
  const world = new World(reducer, { pushes, isRestored, ...(fault && { fault }) });
  for (const one of game.isWarm ? [...WARM_UP, ...game.moves] : game.moves) world.step(one);
  world.comeToRest();
  return world;
}
