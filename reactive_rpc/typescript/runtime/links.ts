/** The links of a client that is given none: queries in batches, mutations each by itself. */

import { httpBatchLink, httpLink, splitLink, type TRPCLink } from '@trpc/client';
import type { AnyRouter } from '@trpc/server';

import { type Credentials, headersOf } from './credentials.ts';
import { codeOfStatus } from './errors.ts';
import { reactiveHeaders } from './gate.ts';
import { fieldOf, isObject } from './json.ts';

export interface LinkOptions {
  /** Where the server is: `/`, or `https://api.example.com`. */
  readonly url: string;
  /** The path that tRPC's clients call. */
  readonly trpcPrefix?: string;
  readonly credentials?: Credentials;
  readonly fetch?: typeof fetch;
  /** How long an answer may take. */
  readonly timeoutMs?: number;
}

type Fetch = NonNullable<NonNullable<Parameters<typeof httpLink>[0]>['fetch']>;

const TIMEOUT_MS = 30_000;
/** Below what a mount lets pass, and few enough that one slow query delays not many others. */
const MAX_BATCH = 20;

export function defaultLinks({
  url,
  trpcPrefix = '/trpc',
  credentials = () => ({}),
  fetch,
  timeoutMs,
}: LinkOptions): TRPCLink<AnyRouter>[] {
  const about = {
    url: url.replace(/\/+$/, '') + trpcPrefix,
    fetch: reactiveFetch(fetch, timeoutMs),
    headers: async (called: Parameters<typeof reactiveHeaders>[0]) => ({
      ...reactiveHeaders(called),
      ...(await headersOf(credentials)),
    }),
  };
  return [
    splitLink({
      // A mutation by itself: that another is refused or slow is nothing to it.
      condition: (op) => op.type === 'mutation',
      true: httpLink(about),
      // By POST: no URL is too long, and no input stands in a log.
      false: httpBatchLink({ ...about, methodOverride: 'POST', maxItems: MAX_BATCH }),
    }),
  ];
}

/** Return a `fetch` for links: it gives up after a while, and tells the page of a gateway as the error that it is. */
export function reactiveFetch(own?: typeof fetch, timeoutMs: number = TIMEOUT_MS): Fetch {
  return async (url, init) => {
    const { body, signal } = (init ?? {}) as RequestInit;
    // JSON is a text. Nobody knows how long files take.
    const isTimed = timeoutMs > 0 && typeof body !== 'object';
    const signals = [signal, isTimed ? AbortSignal.timeout(timeoutMs) : null].filter((one) => one != null);
    // `no-store`: the browser's own cache must not answer. A page may replace `fetch` later, so it is looked up here.
    const about = { ...init, cache: 'no-store', signal: AbortSignal.any(signals) } as RequestInit;
    const response = await (own ?? globalThis.fetch)(String(url), about);
    if (response.ok) return response;
    const read = (): Promise<unknown> => response.text().then((text) => JSON.parse(text));
    return Object.assign(response, {
      json: () =>
        read()
          .catch(() => null)
          .then((json) => errorsIn(json, response)),
    });
  };
}

/** Return the JSON of an answer that failed; an error of its status where that is none of tRPC's. */
function errorsIn(json: unknown, { status, url }: Response): unknown {
  if (Array.isArray(json) || isObject(fieldOf(json, 'error'))) return json;
  const data = { code: codeOfStatus(status), httpStatus: status };
  return { error: { message: `${url} answered ${status}`, code: -32603, data } };
}
