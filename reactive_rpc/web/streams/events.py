"""`/rpc/events`: streams over SSE.

A stream carries its own set of queries, so any worker can serve it. `POST` takes the set in the body; a browser's
`EventSource` can only GET, so it stores the set first (`POST /rpc/events/sets`) and names it (`?set=`), and where it
has no cookie it brings a ticket (`?ticket=`). The bytes go out through `web/streams/streaming.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi.dependencies.models import Dependant
from starlette.types import Receive, Scope, Send

from reactive_rpc.clock import IdSource
from reactive_rpc.protocol.events import SubscriptionRequest
from reactive_rpc.web.routing.dispatcher import Endpoint
from reactive_rpc.web.routing.responses import Answer
from reactive_rpc.web.streams.streaming import StreamAnswers
from reactive_rpc.web.streams.subscribing import Subscriber, SubscribeRequest
from reactive_rpc.web.streams.tickets import take_ticket

__all__ = ["EventsEndpoint"]


class EventsEndpoint(Endpoint):
    """Opens a stream: POST with the set, GET with its name."""

    def __init__(self, path: str, subscriber: Subscriber, answers: StreamAnswers, ids: IdSource) -> None:
        super().__init__(path, ids)
        self._subscriber = subscriber
        self._answers = answers

    async def answer(self, scope: Scope, receive: Receive, dependencies: list[Dependant]) -> Answer:
        """Resolve the context, let go of what resolving it held, and stream."""
        ticket = take_ticket(scope)
        self.require_method(scope, ("POST", "GET"))
        reading = self._subscriber.reading(scope, receive, dependencies, SubscriptionRequest, ticket=ticket)
        async with reading as request:
            return await self._connected(request)

    async def watch(
        self, wanted: SubscriptionRequest, *, scope: Scope, body: bytes, dependencies: list[Dependant]
    ) -> Answer:
        """Return the stream of a request that another wire has read.

        Raises:
            Exception: whatever a dependency raises, or is wrong with the request.
        """
        admitting = self._subscriber.admitting(wanted, scope=scope, body=body, dependencies=dependencies)
        async with admitting as request:
            return await self._connected(request)

    async def _connected(self, request: SubscribeRequest[SubscriptionRequest]) -> Answer:
        release = self._subscriber.limits.admit(request.caller)
        try:
            self._subscriber.limits.count_open(request.caller)
            stream, first = await self._subscriber.connect(request, acks=request.wanted.acks)
        except BaseException:
            release()
            raise
        return _Admitted(request.found.add_to(self._answers.answer(stream, first)), release)


class _Admitted(Answer):
    """An answer that holds a place until it ends."""

    __slots__ = ("_answer", "_release")

    def __init__(self, answer: Answer, release: Callable[[], None]) -> None:
        super().__init__(answer.status, b"", [])
        self.background = answer.background
        self._answer = answer
        self._release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, and give the place back."""
        try:
            await self._answer(scope, receive, send)
        finally:
            self._release()
