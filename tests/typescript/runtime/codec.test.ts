import { replaceEqualDeep } from '@tanstack/query-core';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { either, plain, whole } from '../../../reactive_rpc/typescript/runtime/choices.ts';
import {
  bytes,
  type Codec,
  date,
  decimal,
  list,
  map,
  number,
  obj,
  oneOf,
  open,
  opt,
  record,
  scalar,
  set,
  tuple,
} from '../../../reactive_rpc/typescript/runtime/codec.ts';
import { bigint, exact } from '../../../reactive_rpc/typescript/runtime/exact.ts';

const moments = fc.date({ noInvalidDate: true });

/** Each codec, with values of its type. */
const CODECS: Readonly<Record<string, [Codec<unknown>, fc.Arbitrary<unknown>]>> = {
  date: [date, moments],
  bigint: [bigint, fc.bigInt()],
  bytes: [bytes, fc.uint8Array()],
  decimal: [decimal, fc.constantFrom('0.10', '1E+30', '-7')],
  'opt(date)': [opt(date), fc.option(moments)],
  'list(date)': [list(date), fc.array(moments)],
  'tuple(date, JSON)': [tuple([date, null]), fc.tuple(moments, fc.string())],
  set: [set(), fc.array(fc.string()).map((all) => new Set(all))],
  'set(bytes)': [set(bytes), fc.array(fc.uint8Array()).map((all) => new Set(all))],
  'map(number, date)': [map(number, date), fc.array(fc.tuple(fc.integer(), moments)).map((all) => new Map(all))],
  map: [map(null), fc.array(fc.tuple(fc.string(), fc.integer())).map((all) => new Map(all))],
  'record(date)': [record(date), fc.dictionary(fc.string(), moments, { noNullPrototype: true })],
  'tuple(JSON, ...date)': [
    tuple([null], date),
    fc.tuple(fc.string(), fc.array(moments)).map(([first, rest]) => [first, ...rest]),
  ],
  'open(date)': [
    open({ size: opt(bigint) }, ['size', 'name'], date),
    fc
      .tuple(
        fc.record({ size: fc.bigInt(), name: fc.string() }),
        fc.dictionary(fc.string(), moments, { noNullPrototype: true }),
      )
      .map(([fields, more]) => ({ ...more, ...fields })),
  ],
  'obj with fields of hostile names': [
    obj({ ['__proto__']: date, constructor: opt(date) }),
    fc.tuple(moments, moments).map(([one, other]) =>
      Object.fromEntries([
        ['__proto__', one],
        ['constructor', other],
      ]),
    ),
  ],
  obj: [obj({ at: date, size: opt(bigint) }), fc.record({ at: moments, name: fc.string() })],
  oneOf: [
    oneOf('kind', { message: obj({ at: date }) }),
    fc.oneof(fc.record({ kind: fc.constant('message'), at: moments }), fc.record({ kind: fc.constant('valueOf') })),
  ],
};

test.each(Object.entries(CODECS))('%s: what is written is read as it was', (_, [codec, values]) => {
  fc.assert(
    fc.property(values, (value) => {
      const json: unknown = JSON.parse(JSON.stringify(codec.encode(value)));
      expect(codec.decode(json)).toEqual(value);
    }),
  );
});

interface Thread {
  readonly at: Date;
  readonly answers: readonly Thread[];
}

const thread: Codec<Thread> = obj<Thread>({ at: date, answers: list((): Codec<Thread> => thread) });

describe('one node of JSON is one value', () => {
  const rows = obj<{ readonly id: number; readonly at: Date }>({ at: date });
  const read = list(rows);

  test('an unchanged row is the same object after a refetch', () => {
    const at = '2027-01-15T12:00:00Z';
    const before = [
      { id: 1, at },
      { id: 2, at },
    ];
    const after = replaceEqualDeep(before, [
      { id: 1, at },
      { id: 2, at: '2027-01-16T12:00:00Z' },
    ]);
    const [first, second] = [read.decode(before), read.decode(after)];
    expect(second[0]).toBe(first[0]);
    expect(second[1]).not.toBe(first[1]);
    expect(read.decode(before)).toBe(first);
  });

  test('two codecs that read one node read it each in its own way', () => {
    const node = ['2027-01-15T12:00:00Z'];
    expect(list(date).decode(node)).toEqual([new Date('2027-01-15T12:00:00Z')]);
    expect(list(scalar(String, String)).decode(node)).toEqual(node);
  });

  test('a type may refer to itself', () => {
    const at = '2027-01-15T12:00:00.000Z';
    const json = { at, answers: [{ at, answers: [] }] };
    expect(thread.decode(json).answers[0]?.at).toEqual(new Date(at));
    expect(thread.encode(thread.decode(json))).toEqual(json);
  });

  test('JSON is not changed', () => {
    const json = [{ id: 1, at: '2027-01-15T12:00:00Z' }];
    const before = structuredClone(json);
    read.decode(json);
    expect(json).toEqual(before);
  });
});

describe('integers that a number cannot hold', () => {
  const codec = exact(obj<{ readonly n: bigint; readonly label: string }>({ n: bigint }));

  test('are read whole, from the text of the answer', () => {
    fc.assert(
      fc.property(fc.bigInt(), fc.string(), (n, label) => {
        const source = `{"n": ${n}, "label": ${JSON.stringify(label)}}`;
        expect(codec.decode(codec.parse?.(source))).toEqual({ n, label });
      }),
    );
  });

  test('leave floats and texts as they are', () => {
    const source = '{"a": 1e300, "b": 0.1234567890123456789, "c": "12345678901234567890"}';
    expect(codec.parse?.(source)).toEqual(JSON.parse(source));
  });

  test('are numbers wherever no bigint is said to stand, as their types are', () => {
    const one = '{"n": 12345678901234567890, "m": 12345678901234567890, "more": [{"k": -12345678901234567890}, 1]}';
    const decoded = codec.decode(codec.parse?.(one));
    expect(decoded).toEqual({
      n: 12345678901234567890n,
      m: Number('12345678901234567890'),
      more: [{ k: Number('-12345678901234567890') }, 1],
    });
    const inside = exact(map<string, Set<number>>(null, set()));
    const values = inside.decode(inside.parse?.('{"a": [12345678901234567890, 1]}'));
    expect(values).toEqual(new Map([['a', new Set([Number('12345678901234567890'), 1])]]));
  });

  test('are told from text, beside which they may stand', () => {
    const union = exact(either<bigint | string>(whole(true), plain('string')));
    const both = exact(list(union));
    expect(both.decode(both.parse?.('[12345678901234567890, "12345678901234567890"]'))).toEqual([
      12345678901234567890n,
      '12345678901234567890',
    ]);
  });

  test('are equal if their digits are, so an unchanged row is the same object', () => {
    const rows = exact(list(obj<{ readonly n: bigint }>({ n: bigint })));
    const parsed = (last: number): unknown => rows.parse?.(`[{"n": 12345678901234567890}, {"n": ${last}}]`);
    const before = parsed(1);
    const first = rows.decode(before);
    const second = rows.decode(replaceEqualDeep(before, parsed(2)));
    expect(second).toEqual([{ n: 12345678901234567890n }, { n: 2n }]);
    expect(second[0]).toBe(first[0]);
  });
});

test('both alphabets of base64 are read', () => {
  expect(bytes.decode('-_8=')).toEqual(bytes.decode('+/8='));
});

test.each([
  [date, 5],
  [list(date), {}],
  [obj({}), null],
  [obj({}), []],
  [map(null), new Map()],
  [record(date), new Set()],
  [bytes, null],
])('what does not fit the schema is said so', (codec, json) => {
  expect(() => codec.decode(json)).toThrow(/generated anew/);
});
