/**
 * The link that stands before all others of a tRPC client: each call of a query passes the reducer.
 *
 * What is told of a result beside it comes in its data (`reactive: 1`, `docs/how-to/trpc.md`), as links see no headers
 * of a batch. A link sets no headers either, so `reactiveHeaders` does, which is given to the link that sends.
 */

import type { Operation, TRPCLink } from '@trpc/client';
import type { AnyRouter } from '@trpc/server';
import { observable } from '@trpc/server/observable';

import { formOf } from './forms.ts';
import { isObject, type JsonObject } from './json.ts';

/** What one call says beside its input; it travels in the context of its operation. */
export interface CallMarks {
  /** Of the outcome that is held. */
  readonly etag?: string | null | undefined;
  /** Names a mutation: sent again under the same key, it is made once. */
  readonly key?: string | undefined;
  /** The scope of the caller who made a mutation: from anybody else the server refuses it. */
  readonly scope?: string | null | undefined;
  /** A result with whole numbers that JavaScript rounds is to come as text of JSON. */
  readonly isExact?: boolean;
  /** The marks were asked for: the result stands in `d`. */
  isAsked?: true;
}

/** Return the marks, and the result as `d`, of what a link has answered. */
export function readMarked({ isAsked }: CallMarks, data: unknown): JsonObject {
  return isAsked && isObject(data) ? data : { d: data };
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
  if (!marks.every((one) => one !== undefined)) return {};
  for (const one of marks) one.isAsked = true;
  const keys = byIndex(marks.map(({ key }) => key));
  const etags = byIndex(marks.map(({ etag }) => etag));
  const exact = marks.flatMap(({ isExact }, index) => (isExact ? [index] : []));
  const scope = marks.find((one) => one.scope)?.scope;
  return {
    reactive: '1',
    // An event's cursor may lie below the change that it names, so the server must look into its log.
    'reactive-cursor': 'unknown',
    ...(etags && { 'reactive-etags': etags }),
    ...(keys && (marks.length === 1 ? { 'idempotency-key': marks[0]?.key ?? '' } : { 'reactive-keys': keys })),
    ...(exact.length > 0 && { 'reactive-exact': exact.join() }),
    ...(scope && { 'reactive-scope': scope }),
  };
}

/** Return the first link of a client; the engine's own calls pass it with their marks, all others get some. */
export function gateLink(host: GateHost): TRPCLink<AnyRouter> {
  return () =>
    ({ op: { input, ...about }, next }) => {
      const op = { ...about, input: about.type === 'mutation' ? formOf(input) : input };
      if (op.type === 'subscription' || marksOf(op) !== undefined) return next(op);
      return observable((observer) => {
        const marks: CallMarks = op.type === 'mutation' ? { key: newKey() } : { isExact: host.isExact(op.path) };
        return next({ ...op, context: { ...op.context, reactive: marks } }).subscribe({
          ...observer,
          next: (envelope) => {
            const { result } = envelope;
            if (result.type !== undefined && result.type !== 'data') return observer.next(envelope);
            const read = readMarked(marks, result.data);
            if (op.type === 'query') host.answered(op.path, op.input, read);
            // Who called knows nothing of digits, and gets numbers, as from any server.
            const data = read['text'] === true ? JSON.parse(String(read['d'])) : read['d'];
            observer.next({ ...envelope, result: { ...result, data } });
          },
        });
      });
    };
}

/** Return a key that no other mutation has. */
export function newKey(): string {
  // `crypto.randomUUID` exists in secure contexts only, not on `http://192.168.…`.
  return crypto.getRandomValues(new Uint32Array(4)).join('-');
}

function marksOf({ context }: Operation): CallMarks | undefined {
  // Nobody else has a field of this name in the context.
  return context['reactive'] as CallMarks | undefined;
}

/** Return the texts by the indexes of their calls, as JSON; empty if there are none. */
function byIndex(texts: readonly (string | null | undefined)[]): string {
  const json = JSON.stringify({ ...texts.map((text) => text ?? undefined) });
  return json === '{}' ? '' : json;
}
