import { expect, test } from 'vitest';

import { Backoff } from '../../../reactive_rpc/typescript/runtime/backoff.ts';

function delays(random: number, count: number): number[] {
  const backoff = new Backoff(() => random);
  return Array.from({ length: count }, () => backoff.nextDelay());
}

test('each failure doubles what may be waited, up to 15 seconds', () => {
  expect(delays(1, 8)).toEqual([250, 500, 1000, 2000, 4000, 8000, 15_000, 15_000]);
  expect(delays(1, 100).at(-1)).toBe(15_000);
});

test('many clients that failed at once do not come back at once: each waits anything from nothing to that', () => {
  expect(delays(0, 3)).toEqual([0, 0, 0]);
  expect(delays(0.5, 3)).toEqual([125, 250, 500]);
});

test('a success begins anew', () => {
  const backoff = new Backoff(() => 1);
  backoff.nextDelay();
  backoff.nextDelay();
  backoff.reset();
  expect(backoff.nextDelay()).toBe(250);
});

test('what the server asks for is the least, but a minute is the most that it may ask for', () => {
  const backoff = new Backoff(() => 0);
  backoff.floorMs = 3000;
  expect(backoff.nextDelay()).toBe(3000);
  backoff.floorMs = 86_400_000;
  expect(backoff.nextDelay()).toBe(60_000);
});

test('after a success, clients come back spread over half of what the server asks for', () => {
  const [first, last] = [0, 1].map((random) => new Backoff(() => random));
  for (const one of [first, last]) if (one !== undefined) one.floorMs = 3000;
  expect([first?.resumptionDelay(), last?.resumptionDelay()]).toEqual([1500, 3000]);
});
