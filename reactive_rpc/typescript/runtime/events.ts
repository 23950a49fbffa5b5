/** The events of a stream as the wire spells them: the twin of `reactive_rpc/protocol/events.py`. */

import { Digits } from './digits.ts';
import { ReactiveError } from './errors.ts';
import { formatExact } from './exact.ts';
import { isObject, type JsonObject, listOf, numberOf, objectOf, type Raw, textOf } from './json.ts';

/** A query, and the ETag of the result that is held. */
export interface QueryRef {
  readonly path: string;
  readonly input: unknown;
  readonly etag?: string;
}

/** The queries of one stream, and where to go on. */
export interface StreamRequest {
  readonly queries: readonly QueryRef[];
  readonly cursor: string | null;
}

/** A query whose result may have changed. */
export interface Affected {
  readonly path: string;
  readonly key: string;
}

/** Always first. */
export interface ConnectedEvent {
  readonly type: 'connected';
  readonly stream: string;
  readonly cursor: string;
  /** Keys in the request's order; null: refused. */
  readonly queries: readonly (string | null)[];
  readonly stale: readonly Affected[];
  /** Why queries are refused, by `refusalKey`. */
  readonly errors: ReadonlyMap<string, ReactiveError>;
  readonly version: string | null;
  readonly scope: string | null;
  readonly heartbeatSeconds: number | null;
}

/** One commit. */
export interface InvalidationEvent {
  readonly type: 'invalidation';
  readonly cursor: string;
  readonly affected: readonly Affected[];
  readonly version: string | null;
  /** The same when the event is sent again. */
  readonly eventId: string;
  readonly isRepeated: boolean;
}

/** The new result of one query, in the place of an invalidation. */
export interface ResultEvent extends Raw {
  readonly type: 'result';
  readonly cursor: string;
  readonly path: string;
  readonly key: string;
  readonly etag: string;
  readonly version: string | null;
  readonly eventId: string;
  readonly isRepeated: boolean;
}

/** Something was missed. */
export interface GapEvent {
  readonly type: 'gap';
  readonly cursor: string;
}

/** The caller may not listen any more. */
export interface RevokedEvent {
  readonly type: 'revoked';
  readonly reason: string;
}

export type WireEvent = ConnectedEvent | InvalidationEvent | ResultEvent | GapEvent | RevokedEvent;

type Reader = (data: JsonObject, isLong: boolean) => WireEvent;

const READERS: Readonly<Record<string, Reader>> = {
  connected: (data) => ({
    type: 'connected',
    stream: textOf(data['stream']),
    cursor: textOf(data['cursor']),
    queries: listOf(data['queries']).map((key) => (key === null ? null : textOf(key))),
    stale: listOf(data['stale']).map(affectedOf),
    errors: new Map(listOf(data['errors']).map(refusalOf)),
    version: optionalText(data['version']),
    scope: optionalText(data['scope']),
    heartbeatSeconds: data['heartbeat_seconds'] === undefined ? null : numberOf(data['heartbeat_seconds']),
  }),
  invalidation: (data) => ({
    type: 'invalidation',
    cursor: textOf(data['cursor']),
    affected: listOf(data['affected']).map(affectedOf),
    version: optionalText(data['version']),
    ...repetition(data),
  }),
  result: (data, isLong) => ({
    type: 'result',
    cursor: textOf(data['cursor']),
    path: textOf(data['path']),
    key: textOf(data['key']),
    json: isLong ? formatExact(data['data']) : data['data'],
    isText: isLong,
    etag: textOf(data['etag']),
    version: optionalText(data['version']),
    ...repetition(data),
  }),
  gap: (data) => ({ type: 'gap', cursor: textOf(data['cursor']) }),
  revoked: (data) => ({ type: 'revoked', reason: optionalText(data['reason']) ?? '' }),
};

/**
 * Return the event, in a list; an empty one if its name is not known here. Throws a WIRE_ERROR if the data does not fit
 * the name. `isLong`: there may be `Digits` in it.
 */
export function eventsOf(name: string, data: unknown, isLong = false): WireEvent[] {
  const read = Object.hasOwn(READERS, name) ? READERS[name] : undefined;
  return read === undefined ? [] : [read(objectOf(data), isLong)];
}

/** Return the text by which a refused query is found among the errors of `connected`. */
export function refusalKey(path: string, input: unknown): string {
  return JSON.stringify([path, sorted(input ?? null)]);
}

function refusalOf(json: unknown): [string, ReactiveError] {
  const refused = objectOf(json);
  const error = objectOf(refused['error']);
  const key = refusalKey(textOf(refused['path']), refused['input']);
  return [key, new ReactiveError(textOf(error['code']), textOf(error['message']))];
}

function affectedOf(json: unknown): Affected {
  const affected = objectOf(json);
  return { path: textOf(affected['path']), key: textOf(affected['key']) };
}

function repetition(data: Readonly<Record<string, unknown>>): {
  readonly eventId: string;
  readonly isRepeated: boolean;
} {
  return { eventId: textOf(data['event_id']), isRepeated: typeof data['retry'] === 'number' };
}

function optionalText(json: unknown): string | null {
  return json === undefined || json === null ? null : textOf(json);
}

/** Return the JSON with the names of objects in order, as the server may give them back in another. */
function sorted(json: unknown): unknown {
  if (Array.isArray(json)) return json.map(sorted);
  if (!isObject(json) || json instanceof Digits) return json;
  return Object.fromEntries(
    Object.keys(json)
      .toSorted()
      .map((name) => [name, sorted(json[name])]),
  );
}
