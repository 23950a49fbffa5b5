import { expect, test } from 'vitest';

import { Turns } from '../../../reactive_rpc/typescript/runtime/turns.ts';

test('three at a time, in the order they were asked for, each once', async () => {
  const begun: string[] = [];
  const ends: (() => void)[] = [];
  const turns = new Turns((key) => {
    begun.push(key);
    return new Promise((resolve) => ends.push(resolve));
  });
  for (const key of ['a', 'b', 'a', 'c', 'd', 'e']) turns.add(key);
  await expect.poll(() => begun).toEqual(['a', 'b', 'c']);
  ends[1]?.();
  await expect.poll(() => begun).toEqual(['a', 'b', 'c', 'd']);
  for (const end of ends.splice(0)) end();
  await expect.poll(() => begun).toEqual(['a', 'b', 'c', 'd', 'e']);
});
