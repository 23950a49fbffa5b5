/**
 * What rules are made of in TypeScript: comparisons that answer as the database does.
 *
 * They take values as JSON carries them. Rules come in normal form, without a NOT above a comparison, so that a
 * comparison with null is simply false.
 */

/** A record or a user, as JSON carries it; an association that is not loaded is not there. */
export type Row = Readonly<Record<string, unknown>>;

/** Whether a rule is true of a record for a user; `unknown` is what those parts are that a client cannot decide. */
export type Decide = (record: Row, user: Row, unknown?: boolean) => boolean;

/** Orders two values of one kind, of which none is null: below zero, zero, above zero. */
export type Order = (a: unknown, b: unknown) => number;

/** Booleans, dates, UUIDs and members of enums, of which `1` and `"1"` may be two. */
export const plain: Order = (a, b) => (scalar(a) === scalar(b) ? 0 : compare(scalar(a), scalar(b)) || 1);

/** Text, by its code points. */
export const text: Order = (a, b) => byCodePoints(string(a), string(b));

/** Integers: beyond 2^53, as their digits. */
export const integer: Order = (a, b) => compare(whole(a), whole(b));

/** Decimal numbers, as text. As PostgreSQL has it, NaN is equal to itself and greater than all numbers. */
export const decimal: Order = (a, b) => {
  const [x, y] = [decimalOf(a), decimalOf(b)];
  if (typeof x === 'number' || typeof y === 'number') return compare(rankOf(x), rankOf(y));
  return compare(scaled(x, y.exponent), scaled(y, x.exponent));
};

/** Moments with an offset, to the microsecond: a `Date` has milliseconds only. */
export const moment: Order = (a, b) => compare(instant(string(a)), instant(string(b)));

/** Moments without an offset. */
export const local: Order = (a, b) => compare(instant(`${string(a)}Z`), instant(`${string(b)}Z`));

export const eq = (order: Order, a: unknown, b: unknown): boolean => known(a, b) && order(a, b) === 0;
export const ne = (order: Order, a: unknown, b: unknown): boolean => known(a, b) && order(a, b) !== 0;
export const lt = (order: Order, a: unknown, b: unknown): boolean => known(a, b) && order(a, b) < 0;
export const lte = (order: Order, a: unknown, b: unknown): boolean => known(a, b) && order(a, b) <= 0;
export const gt = (order: Order, a: unknown, b: unknown): boolean => known(a, b) && order(a, b) > 0;
export const gte = (order: Order, a: unknown, b: unknown): boolean => known(a, b) && order(a, b) >= 0;

export const isNull = (a: unknown): boolean => a === null || a === undefined;
export const notNull = (a: unknown): boolean => !isNull(a);

/** IN: of a list that is null, and of a null, nobody knows. */
export function isIn(order: Order, a: unknown, values: unknown): boolean {
  return known(a, values) && list(values).some((value) => eq(order, a, value));
}

/** NOT IN: true of all if the list is empty, and of nothing if a null is in it. */
export function notIn(order: Order, a: unknown, values: unknown): boolean {
  return notNull(values) && list(values).every((value) => ne(order, a, value));
}

/** Whether a row of an association satisfies a rule; `unknown`, if it is not loaded. */
export function some(rows: unknown, rule: (row: Row) => boolean, unknown: boolean): boolean {
  return rows === undefined ? unknown : rowsOf(rows).some(rule);
}

/** Whether no row of an association satisfies a rule; `unknown`, if it is not loaded. */
export function none(rows: unknown, rule: (row: Row) => boolean, unknown: boolean): boolean {
  return rows === undefined ? unknown : !rowsOf(rows).some(rule);
}

function known(a: unknown, b: unknown): boolean {
  return notNull(a) && notNull(b);
}

type Scalar = string | number | bigint | boolean;

function compare(a: Scalar, b: Scalar): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** UTF-16 puts the surrogates, which spell what lies above U+FFFF, before U+E000: they are shifted behind it. */
function byCodePoints(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let at = 0; at < length; at += 1) {
    const [x, y] = [a.charCodeAt(at), b.charCodeAt(at)];
    if (x !== y) return shifted(x) - shifted(y);
  }
  return a.length - b.length;
}

function shifted(unit: number): number {
  if (unit < 0xd800) return unit;
  return unit >= 0xe000 ? unit - 0x800 : unit + 0x2000;
}

const DECIMAL = /^(-?\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/;
const MOST_DIGITS = 1000;

interface Scaled {
  readonly digits: bigint;
  readonly exponent: number;
}

/** Return a number, or the rank of what is none among numbers. */
function decimalOf(value: unknown): Scaled | number {
  const spelled = String(value);
  if (/^-?s?NaN$/.test(spelled)) return 2;
  if (/^-?Infinity$/.test(spelled)) return spelled.startsWith('-') ? -1 : 1;
  const [, integer = '', fraction = '', exponent = '0'] = DECIMAL.exec(spelled) ?? misfit(value, 'a decimal');
  const scale = Number(exponent) - fraction.length;
  return Math.abs(scale) > MOST_DIGITS
    ? misfit(value, 'a decimal of so few digits')
    : { digits: BigInt(integer + fraction), exponent: scale };
}

function rankOf(value: Scaled | number): number {
  return typeof value === 'number' ? value : 0;
}

function scaled(value: Scaled, other: number): bigint {
  return value.digits * 10n ** BigInt(Math.max(0, value.exponent - other));
}

const MOMENT = /^(.+?:\d\d)(?:\.(\d{1,6}))?(Z|[+-]\d\d:\d\d)$/;
const YEAR_ONE_SECONDS = 62_135_596_800;

/** Return a text that orders as moments do: the seconds since the year 1, and six digits. */
function instant(spelled: string): string {
  const [, whole, fraction = '', offset] = MOMENT.exec(spelled) ?? misfit(spelled, 'a moment');
  const seconds = Date.parse(`${whole}${offset}`) / 1000;
  if (Number.isNaN(seconds)) return misfit(spelled, 'a moment');
  return `${String(seconds + YEAR_ONE_SECONDS + 86_400).padStart(13, '0')}.${fraction.padEnd(6, '0')}`;
}

function whole(value: unknown): number | bigint {
  if (typeof value === 'bigint' || (typeof value === 'number' && Number.isSafeInteger(value))) return value;
  return typeof value === 'string' && /^-?\d+$/.test(value)
    ? BigInt(value)
    : misfit(value, 'an integer, or its digits');
}

function scalar(value: unknown): string | number | boolean {
  const isScalar = typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean';
  return isScalar ? value : misfit(value, 'a text, a number or a boolean');
}

function string(value: unknown): string {
  return typeof value === 'string' ? value : misfit(value, 'a text');
}

function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : misfit(value, 'a list');
}

function rowsOf(value: unknown): readonly Row[] {
  if (Array.isArray(value)) return value;
  return value === null ? [] : [value as Row];
}

function misfit(value: unknown, expected: string): never {
  throw new TypeError(`${String(value)} is not ${expected}: was the client generated anew?`);
}
