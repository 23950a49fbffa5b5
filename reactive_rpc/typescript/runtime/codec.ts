/**
 * Values that JSON has not, by the schema of each procedure.
 *
 * Generated code composes these by name; what nobody names is not bundled. `docs/explanation/types.md` has the table.
 * A codec reads raw JSON *after* structural sharing, and remembers what it made of each node: a row that is the same
 * node as before is the same object afterwards. Storage, tabs and server rendering carry raw JSON.
 */

/** Reads values of one type from JSON, and writes them. */
export interface Codec<T> {
  // Methods, whose parameters TypeScript compares both ways: a `Codec<Date>` is a `Codec<unknown>`.
  decode(json: unknown): T;
  encode(value: T): unknown;
  /** Reads and writes the text of JSON, if `JSON` alone would lose digits of it. */
  parse?(text: string): unknown;
  format?(json: unknown): string;
}

/** A codec, or a function that returns it, for a type that refers to itself. */
export type Lazy<T> = Codec<T> | (() => Codec<T>);

type Fields = Readonly<Record<string, unknown>>;

/** A moment. A Date has milliseconds: the microseconds of Python are lost. */
export const date: Codec<Date> = {
  decode: (json) => new Date(text(json)),
  encode: (value) => value.toISOString(),
};

/** Bytes, as URL-safe base64 with padding; the other alphabet is read too. */
export const bytes: Codec<Uint8Array> = {
  decode: (json) => {
    const binary = atob(text(json).replace(/-/g, '+').replace(/_/g, '/'));
    return Uint8Array.from(binary, (character) => character.charCodeAt(0));
  },
  encode: (value) => btoa(binaryOf(value)).replace(/\+/g, '-').replace(/\//g, '_'),
};

/** A value of a class of your own, which JSON spells as text: `scalar((text) => new Decimal(text), String)`. */
export function scalar<T>(decode: (text: string) => T, encode: (value: T) => string): Codec<T> {
  return { decode: (json) => decode(String(json)), encode };
}

/** An exact decimal number: its text, which no float rounds. `scalar` gives it a class. */
export const decimal: Codec<string> = scalar(String, String);

/** A value, or null; or left out. */
export function opt<T>(inner: Lazy<T>): Codec<T | null | undefined> {
  return {
    decode: (json) => (json === null || json === undefined ? json : resolved(inner).decode(json)),
    encode: (value) => (value === null || value === undefined ? value : resolved(inner).encode(value)),
  };
}

/** An array of one type. */
export function list<T>(inner: Lazy<T>): Codec<T[]> {
  return {
    decode: once((json) => items(json).map((item) => resolved(inner).decode(item))),
    encode: (value) => value.map((item) => resolved(inner).encode(item)),
  };
}

/** An array with a type for each place, and one for all further places; a place without a codec is JSON. */
export function tuple(places: readonly (Lazy<unknown> | null)[], rest: Lazy<unknown> | null = null): Codec<unknown[]> {
  const each = (values: readonly unknown[], how: 'decode' | 'encode'): unknown[] =>
    values.map((value, index) => {
      const inner = index < places.length ? places[index] : rest;
      return inner ? resolved(inner)[how](value) : value;
    });
  return { decode: once((json) => each(items(json), 'decode')), encode: (value) => each(value, 'encode') };
}

/** A Set, an array in JSON. */
export function set<T>(inner: Lazy<T> | null = null): Codec<Set<T>> {
  return {
    decode: once((json) => new Set(items(json).map((item) => (inner ? resolved(inner).decode(item) : (item as T))))),
    encode: (value) => [...value].map((item) => (inner ? resolved(inner).encode(item) : item)),
  };
}

/** A Map, an object in JSON, whose keys are texts there: `map(number, date)`. */
export function map<K, V>(keys: Lazy<K> | null, values: Lazy<V> | null = null): Codec<Map<K, V>> {
  const keyOf = (name: string): K => (keys ? resolved(keys).decode(name) : (name as K));
  const itemOf = (json: unknown): V => (values ? resolved(values).decode(json) : (json as V));
  const written = ([key, value]: [K, V]): [string, unknown] => [
    String(keys ? resolved(keys).encode(key) : key),
    values ? resolved(values).encode(value) : value,
  ];
  return {
    decode: once((json) => new Map(Object.entries(fields(json)).map(([name, value]) => [keyOf(name), itemOf(value)]))),
    encode: (value) => Object.fromEntries([...value].map(written)),
  };
}

/** A number that is the key of a `map`. */
export const number: Codec<number> = { decode: Number, encode: (value) => value };

/** An object with any names, and values of one type. */
export function record<T>(inner: Lazy<T>): Codec<Record<string, T>> {
  const each = (values: Fields, how: (value: unknown) => unknown): Record<string, T> =>
    Object.fromEntries(Object.entries(values).map(([name, value]) => [name, how(value) as T]));
  return {
    decode: once((json) => each(fields(json), (value) => resolved(inner).decode(value))),
    encode: (value) => each(value, (item) => resolved(inner).encode(item as T)),
  };
}

/** An object: only the fields that need a codec are named, the others are JSON. */
export function obj<T extends object>(named: Readonly<Record<string, Lazy<unknown>>>): Codec<T> {
  const names = Object.keys(named);
  return fieldwise(
    (values) => names.filter((name) => Object.hasOwn(values, name)),
    (name) => fieldOf(named, name),
  );
}

/** An object with further fields of one type; `known` are the fields that are none of these. */
export function open<T extends object>(
  named: Readonly<Record<string, Lazy<unknown>>>,
  known: readonly string[],
  rest: Lazy<unknown>,
): Codec<T> {
  const isKnown = new Set(known);
  return fieldwise(
    (values) => Object.keys(values).filter((name) => Object.hasOwn(named, name) || !isKnown.has(name)),
    (name) => (Object.hasOwn(named, name) ? fieldOf(named, name) : resolved(rest)),
  );
}

function fieldwise<T extends object>(
  namesOf: (values: Fields) => readonly string[],
  codecOf: (name: string) => Codec<unknown>,
): Codec<T> {
  const each = (values: Fields, how: 'decode' | 'encode'): Fields => {
    const copy: Record<string, unknown> = { ...values };
    for (const name of namesOf(values)) {
      const value = codecOf(name)[how](values[name]);
      // A field may be called `__proto__`, and assigned, it would be the prototype.
      Object.defineProperty(copy, name, { value, enumerable: true, writable: true, configurable: true });
    }
    return copy;
  };
  return {
    decode: once((json) => each(fields(json), 'decode') as T),
    encode: (value) => each(fields(value), 'encode'),
  };
}

/** One of several objects, told apart by the text in one field; one without a codec is JSON. */
export function oneOf<T extends object>(tag: string, kinds: Readonly<Record<string, Lazy<unknown>>>): Codec<T> {
  const each = (value: unknown, how: 'decode' | 'encode'): unknown => {
    const kind = String(fields(value)[tag]);
    return Object.hasOwn(kinds, kind) ? fieldOf(kinds, kind)[how](value) : value;
  };
  return { decode: (json) => each(json, 'decode') as T, encode: (value) => each(value, 'encode') };
}

// -- how

/** Return a function that is called once for each node of JSON. One memory for each codec: two may read one node. */
function once<T>(decode: (json: object) => T): (json: unknown) => T {
  const made = new WeakMap<object, { readonly value: T }>();
  return (json) => {
    const node = objectOf(json);
    const known = made.get(node) ?? { value: decode(node) };
    made.set(node, known);
    return known.value;
  };
}

function resolved<T>(lazy: Lazy<T>): Codec<T> {
  return typeof lazy === 'function' ? lazy() : lazy;
}

function fieldOf(named: Readonly<Record<string, Lazy<unknown>>>, name: string): Codec<unknown> {
  return resolved(named[name] ?? misfit(name, 'a field'));
}

function binaryOf(value: Uint8Array): string {
  let binary = '';
  for (const byte of value) binary += String.fromCharCode(byte);
  return binary;
}

function text(json: unknown): string {
  return typeof json === 'string' ? json : misfit(json, 'a text');
}

function items(json: unknown): readonly unknown[] {
  return Array.isArray(json) ? json : misfit(json, 'an array');
}

/** Return an object of JSON: a Map or a Set is a value already, in which a codec would find no field. */
function fields(json: unknown): Fields {
  const isOther = Array.isArray(json) || json instanceof Map || json instanceof Set;
  return isOther ? misfit(json, 'an object') : (objectOf(json) as Fields);
}

function objectOf(json: unknown): object {
  return typeof json === 'object' && json !== null ? json : misfit(json, 'an object');
}

function misfit(json: unknown, expected: string): never {
  throw new TypeError(`${JSON.stringify(json)} is not ${expected}: was the client generated anew?`);
}
