/** The requests of streams and long polls; calls go through tRPC's client. Credentials are asked for at each request. */

import { type Credentials, headersOf } from './credentials.ts';
import { codeOfStatus, ReactiveError, secondsOf } from './errors.ts';
import type { StreamRequest } from './events.ts';
import { fieldOf, isObject, textIn } from './json.ts';

export interface WireOptions {
  /** Where the server is: `/`, or `https://api.example.com`. */
  readonly url: string;
  /** The path that streams are under. */
  readonly prefix?: string;
  readonly credentials?: Credentials;
  readonly fetch?: typeof fetch;
  /** How long an answer may take. */
  readonly timeoutMs?: number;
}

interface Call {
  readonly body: unknown;
  readonly signal?: AbortSignal | undefined;
  readonly headers?: Readonly<Record<string, string>>;
  /** It must be sent even while the page goes away. */
  readonly keepalive?: boolean;
  readonly timeoutMs?: number;
}

const TIMEOUT_MS = 30_000;
/** How much longer than it was asked to wait the answer to a long poll may take. */
const POLL_GRACE_MS = 20_000;

export class Wire {
  /** What all addresses begin with. */
  readonly base: string;
  readonly #credentials: Credentials;
  readonly #fetch: typeof fetch;
  readonly #timeoutMs: number;

  constructor({ url, prefix = '/rpc', credentials = () => ({}), fetch, timeoutMs = TIMEOUT_MS }: WireOptions) {
    this.base = url.replace(/\/+$/, '') + prefix;
    this.#credentials = credentials;
    // A browser's `fetch` is called on nothing, or it refuses; and a page may replace it later.
    this.#fetch = fetch ?? ((input, init) => globalThis.fetch(input, init));
    this.#timeoutMs = timeoutMs;
  }

  /** Open an event stream; its bytes come for as long as `signal` is not aborted. */
  async events(request: StreamRequest, acks: boolean, signal: AbortSignal): Promise<ReadableStream<Uint8Array>> {
    const headers = { accept: 'text/event-stream' };
    const response = await this.#send('/events', { body: { ...request, acks }, headers, signal, timeoutMs: 0 });
    if (!response.ok) throw await errorOf(response);
    const found = response.headers.get('content-type') ?? '';
    if (response.body !== null && found.startsWith('text/event-stream')) return response.body;
    throw new ReactiveError('WIRE_ERROR', `no event stream, but "${found}"`);
  }

  /** Ask once for the events of a set; the server may wait for them. Returns JSON. */
  async poll(request: StreamRequest, waitSeconds: number, signal: AbortSignal): Promise<string> {
    const timeoutMs = waitSeconds * 1000 + POLL_GRACE_MS;
    const response = await this.#send('/events/poll', { body: { ...request, wait: waitSeconds }, signal, timeoutMs });
    if (!response.ok) throw await errorOf(response);
    return textOfBody(response);
  }

  /** Say up to where a stream's events have arrived. */
  async acknowledge(stream: string, cursor: string): Promise<void> {
    await this.#send('/events/ack', { body: { stream, cursor }, keepalive: true });
  }

  async #send(path: string, call: Call): Promise<Response> {
    const own = await headersOf(this.#credentials);
    const headers = { 'content-type': 'application/json', ...call.headers, ...own };
    const timeoutMs = call.timeoutMs ?? this.#timeoutMs;
    const signal = AbortSignal.any([
      ...(call.signal ? [call.signal] : []),
      ...(timeoutMs > 0 ? [AbortSignal.timeout(timeoutMs)] : []),
    ]);
    const body = JSON.stringify(call.body ?? {});
    const url = this.base + path;
    try {
      // `no-store`: the browser's own cache would answer, and hide a 304.
      const init = { method: 'POST', cache: 'no-store', body, headers, signal, keepalive: call.keepalive ?? false };
      return await this.#fetch(url, init as RequestInit);
    } catch (cause) {
      throw connectionFailed(url, cause);
    }
  }
}

/** Return the error that an answer spells; a proxy's own page has the code of its status. */
async function errorOf(response: Response): Promise<ReactiveError> {
  const { status } = response;
  const retryAfterSeconds = secondsOf(response.headers.get('retry-after'));
  const text = await response.text().catch(() => '');
  const error = envelopeOf(text);
  if (error === null) {
    return new ReactiveError(codeOfStatus(status), `${response.url} answered ${status}`, { status, retryAfterSeconds });
  }
  const type = textIn(error['type']);
  const requestId = textIn(error['request_id']);
  const about = { status, retryAfterSeconds, type, details: error['details'], requestId };
  return new ReactiveError(String(error['code']), String(error['message']), about);
}

function envelopeOf(text: string): Readonly<Record<string, unknown>> | null {
  try {
    const json: unknown = JSON.parse(text);
    const error = fieldOf(json, 'error');
    return isObject(error) ? error : null;
  } catch {
    return null;
  }
}

async function textOfBody(response: Response): Promise<string> {
  try {
    return await response.text();
  } catch (cause) {
    throw connectionFailed(response.url, cause);
  }
}

/** Return the error of a request that has no answer. Each browser words it otherwise, so nothing is read of it. */
function connectionFailed(url: string, cause: unknown): ReactiveError {
  return new ReactiveError('CONNECTION_FAILED', `no answer from ${url}: ${String(cause)}`, { cause });
}
