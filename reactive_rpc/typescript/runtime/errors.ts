/** The errors of this client, by the codes of `reactive_rpc/protocol/codes.py`. */

/** The answer to a call that failed, or the reason why there is none. */
export class ReactiveError extends Error {
  override readonly name = 'ReactiveError';
  /** Stable, for programs: `NOT_FOUND` for example; `CONNECTION_FAILED` if there was no answer, `WIRE_ERROR` if it
   * could not be read. */
  readonly code: string;
  /** The HTTP status; 0 if there was no answer. */
  readonly status: number;
  /** The name of a declared error; null of any other. */
  readonly type: string | null;
  /** For programs: a declared error's fields, or an input's faults. */
  readonly details: unknown;
  /** How long the server asked to be left alone; 0 if it did not. */
  readonly retryAfterSeconds: number;
  /** Nothing was sent, so nothing was done: there were no credentials, for example. */
  readonly isUnsent: boolean;
  /** By which the server's log has it; null unless the server failed. */
  readonly requestId: string | null;

  constructor(code: string, message: string, about: ErrorDetails = {}) {
    super(message, about);
    const {
      status = 0,
      type = null,
      details = null,
      retryAfterSeconds = 0,
      isUnsent = false,
      requestId = null,
    } = about;
    this.code = code;
    this.status = status;
    this.type = type;
    this.details = details;
    this.retryAfterSeconds = retryAfterSeconds;
    this.isUnsent = isUnsent;
    this.requestId = requestId;
  }

  /** Whether the same request may do better a little later. */
  get isTransient(): boolean {
    return this.code === 'CONNECTION_FAILED' || this.code === 'WIRE_ERROR' || TRANSIENT_STATUSES.has(this.status);
  }
}

/** What is known of an error beside its code and message. */
export interface ErrorDetails {
  readonly status?: number;
  readonly type?: string | null;
  readonly details?: unknown;
  readonly retryAfterSeconds?: number;
  readonly isUnsent?: boolean;
  readonly requestId?: string | null;
  readonly cause?: unknown;
}

const TRANSIENT_STATUSES: ReadonlySet<number> = new Set([408, 429, 502, 503, 504]);
const CODES: Readonly<Record<number, string>> = {
  400: 'BAD_REQUEST',
  401: 'UNAUTHORIZED',
  403: 'FORBIDDEN',
  404: 'NOT_FOUND',
  408: 'TIMEOUT',
  413: 'PAYLOAD_TOO_LARGE',
  429: 'TOO_MANY_REQUESTS',
  502: 'BAD_GATEWAY',
  503: 'SERVICE_UNAVAILABLE',
  504: 'GATEWAY_TIMEOUT',
};

/** Return the code of an answer without an envelope: a proxy's own page, for example. */
export function codeOfStatus(status: number): string {
  return CODES[status] ?? (status < 500 ? 'BAD_REQUEST' : 'INTERNAL_SERVER_ERROR');
}

/** Return what was thrown as an error of this client; what is none of it is a fault in reading an answer. */
export function asReactiveError(thrown: unknown): ReactiveError {
  if (thrown instanceof ReactiveError) return thrown;
  return new ReactiveError('WIRE_ERROR', asError(thrown).message, { cause: thrown });
}

/** Return what was thrown as an `Error`. */
export function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}

/** The longest `Retry-After` that is honoured: a page must not sleep for a day because of one wrong header. */
const MAX_RETRY_AFTER_SECONDS = 600;

/** Return how long a server asks to be left alone, by the text of its header. */
export function secondsOf(header: unknown): number {
  const seconds = Number(header ?? 0);
  return Number.isFinite(seconds) ? Math.min(Math.max(seconds, 0), MAX_RETRY_AFTER_SECONDS) : 0;
}
