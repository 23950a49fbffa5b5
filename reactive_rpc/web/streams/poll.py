"""`/rpc/events/poll`: the events of a stream without a stream, where something on the way does not let one through.

One poll is a stream that is open until it has something to tell, or until its time is over. Between two polls nobody
watches for the client, and nothing is lost: the next one resumes by the cursor of the last answer, and `connected`
lists what has changed since.

It answers **at once** where there is something to say already: a result is stale, or a query was refused. And where the
client has no cursor: it has seen nothing yet, so it must hear from where on it is told before it fetches anything.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi.dependencies.models import Dependant
from pydantic import Field
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from reactive_rpc.clock import Clock, IdSource
from reactive_rpc.errors import ServiceUnavailableError
from reactive_rpc.protocol.events import Connected, Event, Polled, PolledEvent, SubscriptionRequest
from reactive_rpc.protocol.sse import SSEDecoder
from reactive_rpc.subscriptions.stream import Stream
from reactive_rpc.tasks import background
from reactive_rpc.web.routing.dispatcher import Endpoint
from reactive_rpc.web.routing.responses import Answer
from reactive_rpc.web.streams.streaming import StreamAnswers, until_gone
from reactive_rpc.web.streams.subscribing import Subscriber, SubscribeRequest
from reactive_rpc.web.streams.tickets import take_ticket

__all__ = ["PollEndpoint", "PollRequest"]

T = TypeVar("T")


class PollRequest(SubscriptionRequest):
    """The queries of one long poll, and where the client stands."""

    wait: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Answer after so many seconds at the latest; left out, or too long, as late as the server allows.",
    )


class PollEndpoint(Endpoint):
    """Answers with `connected` and what happens next: POST with the set, GET with its name.

    Args:
        answers: ends what waits when the server is told to stop.
        wait_seconds: how long a poll waits at most.
    """

    def __init__(
        self,
        path: str,
        subscriber: Subscriber,
        answers: StreamAnswers,
        ids: IdSource,
        *,
        clock: Clock,
        wait_seconds: float,
    ) -> None:
        super().__init__(path, ids)
        self._subscriber = subscriber
        self._answers = answers
        self._clock = clock
        self._wait_seconds = wait_seconds

    async def answer(self, scope: Scope, receive: Receive, dependencies: list[Dependant]) -> Answer:
        """Resolve the context, wait, and tell everything at once; nothing, where the client has gone away."""
        ticket = take_ticket(scope)
        self.require_method(scope, ("POST", "GET"))
        async with self._subscriber.reading(scope, receive, dependencies, PollRequest, ticket=ticket) as request:
            release = self._subscriber.limits.admit(request.caller)
            try:
                polled = await _while_connected(receive, self._poll(request))
            finally:
                release()
        return request.found.add_to(Answer(200, polled.model_dump_json().encode(), [*_HEADERS]))

    async def _poll(self, request: SubscribeRequest[PollRequest]) -> Polled:
        await self._clock.sleep(self._subscriber.limits.pace_poll(request.caller))
        stream, first = await self._subscriber.connect(request, acks=False, is_poll=True)
        connected = _connected(first)
        stream.say(first)
        self._answers.opened()
        try:
            events = [_polled(event) for event in await stream.collect(self._seconds(request, connected, stream))]
            # INVARIANT (no await between here and the answer's being made): what is told may be told.
            if stream.take_said():
                events.insert(0, connected)
        finally:
            self._answers.ended(stream)
        if not events:
            raise ServiceUnavailableError(
                "what this caller may see was changing, and nothing can be told of it yet: poll again",
                headers={"retry-after": "1"},
            )
        cursors = [event.id for event in (connected, *events) if event.id]
        return Polled(cursor=cursors[-1], events=events)

    def _seconds(self, request: SubscribeRequest[PollRequest], connected: PolledEvent, stream: Stream) -> float:
        if stream.is_held:
            return self._wait_seconds
        if request.cursor is None or connected.data["stale"] or connected.data["errors"]:
            return 0.0
        wait_seconds = request.wanted.wait
        return self._wait_seconds if wait_seconds is None else min(wait_seconds, self._wait_seconds)


def _connected(frame: bytes) -> PolledEvent:
    [event] = SSEDecoder().feed(frame)
    return PolledEvent(event=Connected.name, id=event.id, data=json.loads(event.data))


def _polled(event: Event) -> PolledEvent:
    return PolledEvent(event=event.name, id=getattr(event, "cursor", None), data=event.model_dump(mode="json"))


async def _while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns.

    Raises:
        ClientDisconnect: the client went away first; the work is cancelled.
    """
    async with background(work, "poll") as working, background(until_gone(receive), "disconnect") as listening:
        await asyncio.wait({working, listening}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()


_HEADERS = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
