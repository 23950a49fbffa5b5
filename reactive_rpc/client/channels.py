"""How a stream's events come: as server-sent events, or as the answers to one long poll after another.

Both give the same: batches of events, `connected` first. One code stands behind them, `live.py`. By long poll a stream
is a chain of requests: the first names ETags and does not wait, each next one goes on from the cursor of the answer
before. `docs/internals/client.md` says why nothing is missed between two polls.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from reactive_rpc.client.transport import Transport
from reactive_rpc.clock import Clock
from reactive_rpc.errors import WireError
from reactive_rpc.protocol.events import (
    Connected,
    Event,
    Invalidation,
    Polled,
    QueryRef,
    SubscriptionRequest,
    decode_event,
)
from reactive_rpc.protocol.sse import ServerSentEvent, SSEDecoder

__all__ = ["POLL_DISTANCE_SECONDS", "POLL_SECONDS", "Channel", "EventBatch", "LongPoll", "ServerSentEvents"]

POLL_SECONDS: Final = 25.0
"""How long the server may keep a poll waiting; it may answer sooner."""

POLL_DISTANCE_SECONDS: Final = 0.2
"""How long after the start of one poll the next one may start."""

POLL_RETRY_SECONDS: Final = 1.0
"""How long clients that poll wait before they come back: no answer to a poll carries a `retry:`."""


@dataclass(frozen=True, slots=True)
class EventBatch:
    """The events that came at once; without any, nothing but a sign of life.

    Attributes:
        events: those of them that are known here.
        retry_seconds: how long the server wants clients to wait before they come back; None if it has not said.
    """

    events: list[Event]
    retry_seconds: float | None = None


class Channel(Protocol):
    """Opens streams. Leaving the context ends the stream; it is also over when the iteration ends.

    `connected` is the first event of the first batch that has any; whoever reads checks that. Errors are those of
    `Transport.call`, while opening and while reading.

    Attributes:
        acks: whether the server wants acknowledgements.
        has_heartbeats: whether silence breaks the promise that `connected` makes of heartbeats.
    """

    acks: bool
    has_heartbeats: bool

    def open(self, request: SubscriptionRequest) -> AbstractAsyncContextManager[AsyncIterator[EventBatch]]:
        """Open a stream for the queries of `request`."""
        ...


class ServerSentEvents:
    """One response that does not end."""

    acks = True
    has_heartbeats = True

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @asynccontextmanager
    async def open(self, request: SubscriptionRequest) -> AsyncIterator[AsyncIterator[EventBatch]]:
        """Open a stream; see `Channel`."""
        async with self._transport.events(request) as chunks, aclosing(_decoded(chunks)) as batches:
            yield batches


class LongPoll:
    """One request after another."""

    acks = False
    has_heartbeats = False

    def __init__(self, transport: Transport, clock: Clock) -> None:
        self._transport = transport
        self._clock = clock

    @asynccontextmanager
    async def open(self, request: SubscriptionRequest) -> AsyncIterator[AsyncIterator[EventBatch]]:
        """Begin a chain of polls; see `Channel`."""
        async with aclosing(self._batches(request)) as batches:
            yield batches

    async def _batches(self, request: SubscriptionRequest) -> AsyncGenerator[EventBatch]:
        answer = await self._transport.poll(request, wait_seconds=0.0)
        first, *events = _events(answer)
        yield EventBatch([first, *events], POLL_RETRY_SECONDS)
        if not isinstance(first, Connected):
            return
        keys = [key for key in first.queries if key is not None]
        pairs = zip(request.queries, first.queries, strict=True)
        queries = [QueryRef(path=query.path, input=query.input) for query, key in pairs if key is not None]
        while True:
            began_at = self._clock.monotonic()
            # INVARIANT (a cursor and no ETag): up to it everything was told. With ETags, a result that cannot be
            # fetched just now would be told again by each poll, at once.
            going_on = SubscriptionRequest(queries=queries, cursor=answer.cursor)
            answer = await self._transport.poll(going_on, wait_seconds=POLL_SECONDS)
            connected, *events = _events(answer)
            if not isinstance(connected, Connected):
                yield EventBatch([connected, *events])
                return
            # INVARIANT (the very same queries under the same keys): if not, another chain begins, with ETags.
            if connected.queries != keys:
                return
            yield EventBatch([_missed(connected), *events])
            await self._clock.sleep(max(0.0, began_at + POLL_DISTANCE_SECONDS - self._clock.monotonic()))


async def _decoded(chunks: AsyncIterator[bytes]) -> AsyncGenerator[EventBatch]:
    """Yield the events that each chunk completes."""
    decoder = SSEDecoder()
    async for chunk in chunks:
        events = [event for event in map(decode_event, decoder.feed(chunk)) if event is not None]
        yield EventBatch(events, None if decoder.retry_ms is None else decoder.retry_ms / 1000)


def _events(answer: Polled) -> list[Event]:
    """Return the events of an answer that are known here; one at least.

    Raises:
        WireError: there is none, or one does not fit its name.
    """
    texts = (ServerSentEvent(one.event, json.dumps(one.data), one.id or "") for one in answer.events)
    events = [event for event in map(decode_event, texts) if event is not None]
    if not events:
        raise WireError("the long poll was answered without an event: 'connected' is always the first")
    return events


def _missed(connected: Connected) -> Invalidation:
    """Return the changes between two polls as the event that a stream would have sent."""
    return Invalidation(cursor=connected.cursor, affected=connected.stale, event_id="", version=connected.version)
