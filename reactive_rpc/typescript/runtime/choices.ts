/**
 * The codec of a union: which of its members a value is, in JSON and as a value.
 *
 * A text is a moment only if it is spelled exactly as the server writes one, so that a text which merely looks like one
 * stays a text; the server reads it by the same rule (`docs/explanation/types.md`).
 */

import { bytes, type Codec, date, type Lazy } from './codec.ts';
import { Digits, integer } from './digits.ts';
import { bigint } from './exact.ts';

/** A member of a union: whether JSON, or a value, is of it; without a codec, JSON is the value. */
export interface Choice {
  readonly codec: Lazy<unknown> | null;
  fits(json: unknown): boolean;
  has(value: unknown): boolean;
}

const MOMENT = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?(Z|[+-]\d\d:\d\d(:\d\d)?)?$/;

/** One of several types, the first that fits. */
export function either<T>(...choices: readonly Choice[]): Codec<T> {
  const codecOf = (choice: Choice | undefined): Codec<unknown> | null | undefined =>
    typeof choice?.codec === 'function' ? choice.codec() : choice?.codec;
  return {
    decode: (json) => (codecOf(choices.find((one) => one.fits(json)))?.decode(json) ?? json) as T,
    encode: (value) => codecOf(choices.find((one) => one.has(value)))?.encode(value) ?? value,
  };
}

/** A text, a number or a boolean, as it is. */
export function plain(kind: 'string' | 'number' | 'boolean'): Choice {
  const is = (value: unknown): boolean => typeof value === kind;
  return { codec: null, fits: is, has: is };
}

/** A Date, which is written as the server writes it. */
export const moment: Choice = {
  codec: { decode: (json) => date.decode(json), encode: (value) => canonical(value as Date) },
  fits: (json) => typeof json === 'string' && MOMENT.test(json),
  has: (value) => value instanceof Date,
};

/** Bytes, which are never in a union with text. */
export const binary: Choice = {
  codec: bytes,
  fits: (json) => typeof json === 'string',
  has: (value) => value instanceof Uint8Array,
};

/** A `bigint`. Beside text it cannot be sent as text, so there it is a number, or refused. */
export function whole(isBesideText: boolean): Choice {
  return {
    codec: { decode: (json) => bigint.decode(json), encode: (value) => integer(value as bigint, isBesideText) },
    fits: (json) => typeof json === 'number' || json instanceof Digits || (typeof json === 'string' && !isBesideText),
    has: (value) => typeof value === 'bigint',
  };
}

/** A list, a tuple or a Set. */
export function array(codec: Lazy<unknown> | null): Choice {
  return { codec, fits: Array.isArray, has: (value) => Array.isArray(value) || value instanceof Set };
}

/** An object with these fields, of which some have a constant value. */
export function model(
  codec: Lazy<unknown> | null,
  required: readonly string[],
  constants: Readonly<Record<string, unknown>> = {},
): Choice {
  const is = (value: unknown): boolean =>
    isPlain(value) &&
    required.every((name) => Object.hasOwn(value, name)) &&
    Object.entries(constants).every(([name, one]) => !Object.hasOwn(value, name) || value[name] === one);
  return { codec, fits: is, has: is };
}

/** An object with any names, or a Map. */
export function dictionary(codec: Lazy<unknown> | null): Choice {
  return { codec, fits: isPlain, has: (value) => isPlain(value) || value instanceof Map };
}

/** A key of a Map that is true or false. */
export const boolean: Codec<boolean> = { decode: (json) => json === 'true', encode: (value) => value };

function isPlain(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !isOfClass(value);
}

function isOfClass(value: object): boolean {
  return [Date, Set, Map, Uint8Array, Digits].some((one) => value instanceof one);
}

/** Return a moment as the server spells it: without milliseconds that are none, with six digits otherwise. */
function canonical(value: Date): string {
  const text = value.toISOString();
  return text.endsWith('.000Z') ? text.replace('.000Z', 'Z') : text.replace('Z', '000Z');
}
