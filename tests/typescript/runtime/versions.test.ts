import fc from 'fast-check';
import { expect, test } from 'vitest';

import { formatVersion, isOlder, parseVersion, passes } from '../../../reactive_rpc/typescript/runtime/versions.ts';

test.each([
  ['Xk3:17', { epoch: 'Xk3', number: 17 }],
  ['Xk3:17:12:12:', { epoch: 'Xk3', number: 17 }],
  ['Xk3:17@5', { epoch: 'Xk3', number: 17 }],
  ['unknown', null],
  ['Xk3:', null],
  ['Xk3:-1', null],
  ['Xk3:1x', null],
  [`${'e'.repeat(101)}:1`, null],
  ['e:99999999999999999999', null],
  ['', null],
  [null, null],
  [undefined, null],
])('%s spells a version only if it can be compared', (text, version) => {
  expect(parseVersion(text)).toEqual(version);
});

const epochs = fc.constantFrom('a', 'b');
const versions = fc.option(fc.record({ epoch: epochs, number: fc.nat(3) }));

test('of two versions of one epoch one is the later or they are equal; all others do not compare', () => {
  fc.assert(
    fc.property(versions, versions, (one, other) => {
      const isComparable = one !== null && other !== null && one.epoch === other.epoch;
      expect(passes(one, other) || isOlder(one, other)).toBe(isComparable);
      expect(passes(one, other) && isOlder(one, other)).toBe(false);
    }),
  );
});

test('what is written is read', () => {
  fc.assert(
    fc.property(epochs, fc.maxSafeNat(), (epoch, number) => {
      expect(parseVersion(formatVersion({ epoch, number }))).toEqual({ epoch, number });
    }),
  );
});
