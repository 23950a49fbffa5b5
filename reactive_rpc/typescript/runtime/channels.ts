/**
 * How a stream's events come: as server-sent events, or as the answers to one long poll after another.
 *
 * Both give the same: batches of events, `connected` first. By long poll a stream is a chain of requests: the first
 * names ETags and does not wait, each next one goes on from the cursor of the answer before. `docs/internals/client.md`
 * says why nothing is missed between two polls. The twin of `reactive_rpc/client/channels.py`.
 */

import { ReactiveError } from './errors.ts';
import { type ConnectedEvent, eventsOf, type StreamRequest, type WireEvent } from './events.ts';
import { hasLong, parseExact } from './exact.ts';
import { listOf, objectOf, parseJson, textOf } from './json.ts';
import { SseDecoder } from './sse.ts';
import { pause } from './tasks.ts';
import type { Wire } from './wire.ts';

/** The events that came at once; without any, nothing but a sign of life. */
export interface EventBatch {
  readonly events: readonly WireEvent[];
  /** How long the server wants clients to wait before they come back; null if it has not said. */
  readonly retryMs: number | null;
}

/** Opens streams; one is over when the iteration ends, or `signal` is aborted. */
export interface Channel {
  /** Whether the server wants acknowledgements, and promises heartbeats. */
  readonly isStream: boolean;
  open(request: StreamRequest, signal: AbortSignal): AsyncIterable<EventBatch>;
}

/** How long the server may keep a poll waiting; it may answer sooner. */
const POLL_SECONDS = 25;
/** How long after the start of one poll the next one may start. */
const POLL_DISTANCE_MS = 200;
/** How long clients that poll wait before they come back: no answer to a poll carries a `retry:`. */
const POLL_RETRY_MS = 1000;

/** One response that does not end. */
export function streamChannel(wire: Wire, acks: boolean): Channel {
  return { isStream: true, open: (request, signal) => streamed(wire.events(request, acks, signal)) };
}

/** One request after another. */
export function pollChannel(wire: Wire): Channel {
  return { isStream: false, open: (request, signal) => polled(wire, request, signal) };
}

async function* streamed(body: Promise<ReadableStream<Uint8Array>>): AsyncGenerator<EventBatch> {
  const reader = (await body).getReader();
  const decoder = new SseDecoder();
  try {
    for (let chunk = await chunkOf(reader); chunk !== null; chunk = await chunkOf(reader)) {
      const events = decoder
        .feed(chunk)
        .flatMap(({ event, data }) => eventsOf(event, parseJson(data, parseExact), hasLong(data)));
      yield { events, retryMs: decoder.retryMs };
    }
  } finally {
    // The body is cancelled, not only let go: the connection would stay open until it is collected.
    reader.cancel().catch(() => {});
  }
}

/** Return the next chunk, null at the end. */
async function chunkOf(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<Uint8Array | null> {
  try {
    return (await reader.read()).value ?? null;
  } catch (cause) {
    throw new ReactiveError('CONNECTION_FAILED', `the event stream broke: ${String(cause)}`, { cause });
  }
}

async function* polled(wire: Wire, request: StreamRequest, signal: AbortSignal): AsyncGenerator<EventBatch> {
  let answer = polledOf(await wire.poll(request, 0, signal));
  yield { events: answer.events, retryMs: POLL_RETRY_MS };
  const [first] = answer.events;
  if (first?.type !== 'connected') return;
  const keys = first.queries.filter((key) => key !== null);
  // A refusal is something to say, so each poll that names a refused query would return at once.
  const watched = request.queries.filter((_, index) => first.queries[index] !== null);
  // INVARIANT (a cursor and no ETag): up to it everything was said. With ETags, a result that cannot be fetched just
  // now would be named again by each poll, at once.
  const queries = watched.map(({ path, input }) => ({ path, input }));
  while (!signal.aborted) {
    const distance = pause(POLL_DISTANCE_MS, signal);
    answer = polledOf(await wire.poll({ queries, cursor: answer.cursor }, POLL_SECONDS, signal));
    const [connected, ...events] = answer.events;
    if (connected?.type !== 'connected') {
      yield { events: answer.events, retryMs: null };
      return;
    }
    // INVARIANT (the very same queries under the same keys): if not, another chain begins, with ETags.
    if (connected.queries.join() !== keys.join()) return;
    yield { events: [missed(connected), ...events], retryMs: null };
    await distance;
  }
}

/** The answer to a long poll. */
interface Polled {
  readonly cursor: string;
  readonly events: readonly WireEvent[];
}

function polledOf(text: string): Polled {
  const { cursor, events } = objectOf(parseJson(text, parseExact));
  const read = listOf(events).map(objectOf);
  return {
    cursor: textOf(cursor),
    events: read.flatMap(({ event, data }) => eventsOf(textOf(event), data, hasLong(text))),
  };
}

/** Return the changes between two polls as the event that a stream would have sent. */
function missed({ cursor, stale, version }: ConnectedEvent): WireEvent {
  return { type: 'invalidation', cursor, affected: stale, version, eventId: '', isRepeated: false };
}
