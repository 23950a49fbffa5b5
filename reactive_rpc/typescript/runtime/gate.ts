/**
 * The link that stands before all others of a tRPC client: each call of a query passes the reducer.
 *
 * What is told of a result beside it comes in its data (`reactive: 1`, `docs/how-to/trpc.md`), as links see no headers
 * of a batch. A link sets no headers either, so `reactiveHeaders` does, which is given to the link that sends.
 */

import type { Operation, TRPCLink } from '@trpc/client';
import type { AnyRouter } from '@trpc/server';
import { observable } from '@trpc/server/observable';

import { isObject, type JsonObject } from './json.ts';

interface CallWishes {
  readonly etag?: string | null | undefined;
  readonly key?: string | null;
  readonly scope?: string | null | undefined;
  readonly isExact?: boolean;
}

/** What one call says beside its input; it travels in the context of its operation. */
export class CallMarks {
  /** Of the outcome that is held. */
  readonly etag: string | null;
  /** Names a mutation: sent again under the same key, it is made once. */
  readonly key: string | null;
  /** The scope of the caller who made a mutation: from anybody else the server refuses it. */
  readonly scope: string | null;
  /** A result with whole numbers that JavaScript rounds is to come as text of JSON. */
  readonly isExact: boolean;
  /** The marks were asked for: the result stands in `d`. */
  isAsked = false;

  constructor({ etag = null, key = null, scope = null, isExact = false }: CallWishes = {}) {
    this.etag = etag;
    this.key = key;
    this.scope = scope;
    this.isExact = isExact;
  }

  /** Return the marks, and the result as `d`, of what a link has answered. */
  read(data: unknown): JsonObject {
    return this.isAsked && isObject(data) ? data : { d: data };
  }
}

/** Who takes what passes. */
export interface GateHost {
  /** Whether results of a procedure are wanted as text of JSON where JavaScript would round their numbers. */
  isExact(path: string): boolean;
  /** Somebody has called a query, and this is the answer. */
  answered(path: string, input: unknown, marks: JsonObject): void;
}

type Called = { readonly op: Operation } | { readonly opList: readonly Operation[] };

/**
 * Return the headers of a request: `httpBatchLink({ url, headers: reactiveHeaders })`. Add your own to them.
 *
 * Without them nothing is known of an answer beside its data: updates show correctly, and are fetched once more.
 */
export function reactiveHeaders(called: Called): Record<string, string> {
  const marks = ('op' in called ? [called.op] : called.opList).map((op) => marksOf(op));
  const isKnown = (one: CallMarks | null): one is CallMarks => one !== null;
  if (!marks.every(isKnown)) return {};
  for (const one of marks) one.isAsked = true;
  const keys = byIndex(marks.map(({ key }) => key));
  const etags = byIndex(marks.map(({ etag }) => etag));
  const exact = marks.flatMap(({ isExact }, index) => (isExact ? [index] : []));
  const scope = marks.find((one) => one.scope !== null)?.scope;
  return {
    reactive: '1',
    // An event's cursor may lie below the change that it names, so the server must look into its log.
    'reactive-cursor': 'unknown',
    ...(etags && { 'reactive-etags': JSON.stringify(etags) }),
    ...(keys &&
      (marks.length === 1 ? { 'idempotency-key': keys[0] ?? '' } : { 'reactive-keys': JSON.stringify(keys) })),
    ...(exact.length > 0 && { 'reactive-exact': exact.join() }),
    ...(scope && { 'reactive-scope': scope }),
  };
}

/** Return the first link of a client; the engine's own calls pass it with their marks, all others get some. */
export function gateLink(host: GateHost): TRPCLink<AnyRouter> {
  return () =>
    ({ op, next }) => {
      if (op.type === 'subscription' || marksOf(op) !== null) return next(op);
      return observable((observer) => {
        const marks = new CallMarks(op.type === 'mutation' ? { key: newKey() } : { isExact: host.isExact(op.path) });
        return next({ ...op, context: { ...op.context, reactive: marks } }).subscribe({
          next: (envelope) => {
            const { result } = envelope;
            if (result.type !== undefined && result.type !== 'data') return observer.next(envelope);
            const read = marks.read(result.data);
            if (op.type === 'query') host.answered(op.path, op.input, read);
            // Who called knows nothing of digits, and gets numbers, as from any server.
            const data = read['text'] === true ? JSON.parse(String(read['d'])) : read['d'];
            observer.next({ ...envelope, result: { ...result, data } });
          },
          error: (error) => observer.error(error),
          complete: () => observer.complete(),
        });
      });
    };
}

/** Return a key that no other mutation has. */
export function newKey(): string {
  // `crypto.randomUUID` exists in secure contexts only, not on `http://192.168.…`.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function marksOf({ context }: Operation): CallMarks | null {
  const marks = context['reactive'];
  return marks instanceof CallMarks ? marks : null;
}

function byIndex(texts: readonly (string | null)[]): Record<number, string> | null {
  const given = [...texts.entries()].filter((entry): entry is [number, string] => entry[1] !== null);
  return given.length > 0 ? Object.fromEntries(given) : null;
}
