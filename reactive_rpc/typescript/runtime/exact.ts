/**
 * JSON with all digits of whole numbers that a number of JavaScript cannot hold: read from its text, and written.
 *
 * JSON with such numbers travels as its text, whatever carries it: links, tabs and storage would round them, or forget
 * what they are. They are marked in the text as strings that begin with a random word, as not all browsers have
 * `JSON.rawJSON` and the source text of a reviver.
 */

import type { Codec } from './codec.ts';
import { Digits, integer } from './digits.ts';
import { textOf } from './json.ts';

const LONG = /\d{16}/;
const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d[\d.eE+-]*/g;
const INTEGER = /^-?\d+$/;
const MOST_DIGITS = 10_000;

/** A whole number of any size. */
export const bigint: Codec<bigint> = {
  decode: (json) => BigInt(json instanceof Digits ? json.text : typeof json === 'number' ? json : textOf(json)),
  encode: (value) => integer(value),
};

/** The codec of an output with a `bigint` in it: its integers are read with all digits. */
export function exact<T>(inner: Codec<T>): Codec<T> {
  const seen = new WeakSet<object>();
  const known = new Map<string, Digits>();
  return {
    encode: (value) => inner.encode(value),
    decode: (json) => rounded(inner.decode(json), seen) as T,
    parse: (source) => parseExact(source, (text) => digitsOf(text, known)),
    format: formatExact,
  };
}

/** Tell whether JSON may have such numbers in it. */
export function hasLong(text: string): boolean {
  return LONG.test(text);
}

/** Parse JSON with all digits. */
export function parseExact(
  text: string,
  digitsOf: (digits: string) => Digits = (digits) => new Digits(digits),
): unknown {
  if (!hasLong(text)) return JSON.parse(text);
  const mark = newMark();
  const isLong = (token: string): boolean => INTEGER.test(token) && !Number.isSafeInteger(Number(token));
  const marked = text.replace(TOKEN, (token) => (isLong(token) ? `"${mark}${token}"` : token));
  return JSON.parse(marked, (_, value: unknown) =>
    typeof value === 'string' && value.startsWith(mark) ? digitsOf(value.slice(mark.length)) : value,
  );
}

/** Return the text of JSON with all digits. */
export function formatExact(json: unknown): string {
  const mark = newMark();
  return JSON.stringify(withMarks(json, mark)).replaceAll(new RegExp(`"${mark}(-?\\d+)"`, 'g'), '$1');
}

function withMarks(json: unknown, mark: string): unknown {
  if (json instanceof Digits) return mark + json.text;
  if (Array.isArray(json)) return json.map((item) => withMarks(item, mark));
  if (typeof json !== 'object' || json === null) return json;
  return Object.fromEntries(Object.entries(json).map(([name, value]) => [name, withMarks(value, mark)]));
}

/** Return a word that no text has. */
function newMark(): string {
  return `${crypto.getRandomValues(new Uint32Array(4)).join(',')}:`;
}

/** Return the digits: equal ones are the same object, so that structural sharing knows a row that did not change. */
function digitsOf(text: string, known: Map<string, Digits>): Digits {
  if (known.size > MOST_DIGITS) known.clear();
  const digits = known.get(text) ?? new Digits(text);
  known.set(text, digits);
  return digits;
}

/** Return a value in which each integer that no codec has read is a number, as its type says: in place, once. */
function rounded(value: unknown, seen: WeakSet<object>): unknown {
  if (value instanceof Digits) return Number(value.text);
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value) || seen.has(value)) return value;
  seen.add(value);
  // INVARIANT (nobody has seen it yet): a codec has made it just now, or it is a node of JSON that this one alone reads.
  if (value instanceof Map) for (const [key, one] of value) value.set(key, rounded(one, seen));
  else if (value instanceof Set) replaceItems(value, seen);
  else for (const [key, one] of Object.entries(value)) if (typeof one === 'object') roundField(value, key, one, seen);
  return value;
}

function roundField(holder: object, name: string, value: unknown, seen: WeakSet<object>): void {
  const now = rounded(value, seen);
  if (now !== value) Object.defineProperty(holder, name, { value: now });
}

function replaceItems(items: Set<unknown>, seen: WeakSet<object>): void {
  const now = [...items].map((item) => rounded(item, seen));
  items.clear();
  for (const item of now) items.add(item);
}
