/** Calls of procedures through tRPC's client: what is asked, answered and told beside it, and errors of this project. */

import { type TRPCLink, TRPCUntypedClient } from '@trpc/client';
import type { AnyRouter } from '@trpc/server';

import { asError, codeOfStatus, ReactiveError, secondsOf } from './errors.ts';
import { type CallMarks, newKey, readMarked } from './gate.ts';
import { fieldOf, isObject, type JsonObject, parseJson, type Raw, textIn } from './json.ts';
import { parseVersion, type Version } from './versions.ts';

/** The outcome of a query: its result, whose JSON is undefined if it is unchanged, or an error; an error that lasts until the data changes, or "as before". */
export interface Answer extends Told, Raw {
  /** The result is the one whose ETag was sent. */
  readonly isUnchanged: boolean;
  readonly error: ReactiveError | null;
}

/** What is told beside the data. */
export interface Told {
  readonly etag: string | null;
  /** Of a query: which version of the log it reflects exactly. Of a mutation: one that shows what was written. */
  readonly version: Version | null;
  /** The server itself cannot confirm it: its database cannot be read. */
  readonly isStale: boolean;
  readonly scope: string | null;
  /** The link has a transformer: it is no JSON, but values already. */
  readonly isTransformed: boolean;
}

/** The answer to a mutation. */
export interface Written extends Told {
  readonly json: unknown;
}

/** Reads JSON with digits that JavaScript rounds; if it is given, such JSON is asked for as text. */
export type Parse = (text: string) => unknown;

export interface QueryOptions {
  /** Of the outcome that is held. */
  readonly etag?: string | null;
  /** Of a result with digits that JavaScript rounds, the text is wanted. */
  readonly isExact?: boolean;
  readonly signal?: AbortSignal | undefined;
}

export interface MutationOptions {
  readonly key?: string | undefined;
  /** Of the caller who made it, if it may be another than the one who calls now. */
  readonly scope?: string | null;
  readonly parse?: Parse | undefined;
  readonly signal?: AbortSignal | undefined;
}

export class Calls {
  readonly #client: TRPCUntypedClient<AnyRouter>;
  /** The server keeps no answers of them, and has refused their keys. */
  readonly #keyless = new Set<string>();

  constructor(links: TRPCLink<AnyRouter>[]) {
    this.#client = new TRPCUntypedClient({ links });
  }

  /** Ask for the outcome of a query. Throws a ReactiveError if there is none. */
  async query(path: string, input: unknown, { signal, ...marks }: QueryOptions = {}): Promise<Answer> {
    try {
      return answerOf(readMarked(marks, await this.#client.query(path, input, options(marks, signal))));
    } catch (thrown) {
      const error = errorOf(thrown, path);
      const told = toldOf(markOf(thrown));
      // An error with an ETag is the outcome until the data changes; any other is no outcome.
      if (told.etag === null) throw error;
      return { ...told, ...NO_JSON, isUnchanged: false, error };
    }
  }

  /** Make a mutation, once however often it is sent under the same `key`. */
  async mutate(path: string, input: unknown, about: MutationOptions = {}): Promise<Written> {
    const { key = newKey(), parse, scope, signal } = about;
    const isExact = parse !== undefined;
    const marks: CallMarks = { key: this.#keyless.has(path) ? undefined : key, scope, isExact };
    try {
      const read = readMarked(marks, await this.#client.mutation(path, input, options(marks, signal)));
      const { json, isText } = rawOf(read);
      return { ...toldOf(read), json: isText ? (parse ?? parseJson)(String(json)) : json };
    } catch (thrown) {
      const error = errorOf(thrown, path);
      // Nobody has asked for a key, and nothing was done: it is made without one.
      if (about.key !== undefined || marks.key === undefined || !isKeyRefused(error)) throw error;
      this.#keyless.add(path);
      return this.mutate(path, input, about);
    }
  }
}

const NO_JSON: Raw = { json: undefined, isText: false };

/** Return the outcome that marks tell of. */
export function answerOf(read: JsonObject): Answer {
  const isUnchanged = read['same'] === true;
  return { ...toldOf(read), ...(isUnchanged ? NO_JSON : rawOf(read)), isUnchanged, error: null };
}

function rawOf({ d, text }: JsonObject): Raw {
  return { json: d, isText: text === true };
}

function options(marks: CallMarks, signal: AbortSignal | undefined): object {
  return { context: { reactive: marks }, ...(signal && { signal }) };
}

function toldOf(marks: JsonObject): Told {
  const { etag, version, scope, stale, transformed } = marks;
  return {
    etag: textIn(etag),
    version: parseVersion(textIn(version)),
    scope: textIn(scope),
    isStale: stale === true,
    isTransformed: transformed === true,
  };
}

/** Return what an error tells beside its message. */
function dataOf(thrown: unknown): JsonObject | null {
  const data = fieldOf(thrown, 'data');
  return isObject(data) ? data : null;
}

function markOf(thrown: unknown): JsonObject {
  const marks = dataOf(thrown)?.['reactive'];
  return isObject(marks) ? marks : {};
}

/** Return the error that a call has ended with. Browsers word failures of the network each otherwise. */
function errorOf(thrown: unknown, path: string): ReactiveError {
  const { message, cause } = asError(thrown);
  const response = responseOf(thrown);
  const data = dataOf(thrown);
  if (cause instanceof ReactiveError) return cause;
  if (data === null) {
    const status = response?.status ?? 0;
    const unanswered = cause instanceof SyntaxError ? 'WIRE_ERROR' : 'CONNECTION_FAILED';
    const code = status > 0 ? codeOfStatus(status) : unanswered;
    return new ReactiveError(code, `no answer to ${path}: ${message}`, { status, cause });
  }
  const { type, details, httpStatus, request_id: requestId } = data;
  return new ReactiveError(String(data['code']), message, {
    status: Number(httpStatus) || 0,
    type: textIn(type),
    details,
    requestId: textIn(requestId),
    retryAfterSeconds: secondsOf(markOf(thrown)['retry_after'] ?? response?.headers?.get('retry-after')),
  });
}

type Answered = Pick<Response, 'status' | 'headers'>;

function responseOf(thrown: unknown): Answered | null {
  const response = fieldOf(fieldOf(thrown, 'meta'), 'response');
  return typeof fieldOf(response, 'status') === 'number' ? (response as Answered) : null;
}

function isKeyRefused({ code, details }: ReactiveError): boolean {
  return code === 'PRECONDITION_FAILED' && fieldOf(details, 'idempotency_key') === 'unsupported';
}
