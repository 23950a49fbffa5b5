/** Readers of JSON from the wire: each gives the type that it names, or throws a WIRE_ERROR. */

import { ReactiveError } from './errors.ts';

export type JsonObject = Readonly<Record<string, unknown>>;

/** JSON of a result; its text if it has digits that JavaScript rounds. */
export interface Raw {
  readonly json: unknown;
  readonly isText: boolean;
}

export function isObject(json: unknown): json is JsonObject {
  return typeof json === 'object' && json !== null && !Array.isArray(json);
}

/** Return a field of what may be an object. */
export function fieldOf(json: unknown, name: string): unknown {
  return isObject(json) ? json[name] : undefined;
}

/** Return a text, null in the place of anything else. */
export function textIn(json: unknown): string | null {
  return typeof json === 'string' ? json : null;
}

export function objectOf(json: unknown): JsonObject {
  return isObject(json) ? json : misfit(json, 'an object');
}

export function listOf(json: unknown): readonly unknown[] {
  return Array.isArray(json) ? json : misfit(json, 'an array');
}

export function textOf(json: unknown): string {
  return typeof json === 'string' ? json : misfit(json, 'a text');
}

export function numberOf(json: unknown): number {
  return typeof json === 'number' ? json : misfit(json, 'a number');
}

/** Parse a text; throws a WIRE_ERROR if it is no JSON. */
export function parseJson(text: string, parse: (text: string) => unknown = JSON.parse): unknown {
  try {
    return parse(text);
  } catch (cause) {
    throw new ReactiveError('WIRE_ERROR', `the server's answer is no JSON: ${text.slice(0, 200)}`, { cause });
  }
}

function misfit(json: unknown, expected: string): never {
  const found = JSON.stringify(json)?.slice(0, 200);
  throw new ReactiveError('WIRE_ERROR', `the server sent ${found}, not ${expected}`);
}
