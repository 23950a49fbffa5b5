"""`/rpc/events`: streams over SSE, sets for EventSource, acknowledgements.

A stream carries its own set of queries, so any worker can serve it. `POST` takes the set in the body; a browser's
`EventSource` can only GET, so it stores the set first (`POST /rpc/events/sets`) and names it (`?set=`). The bytes go
out through sse-starlette, which ends open streams when the server is told to stop; its pings are off unless heartbeats
are configured, as a stream says nothing when nothing happens.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from hashlib import blake2b
from typing import TypeVar

from fastapi.dependencies.models import Dependant
from pydantic import BaseModel, Field, ValidationError
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from reactive_rpc.clock import IdSource
from reactive_rpc.delivery.hub import Hub, Subscription
from reactive_rpc.delivery.stream import Stream
from reactive_rpc.errors import BadRequestError, NotFoundError, ParseError, PayloadTooLargeError, RPCError
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.protocol.events import Ack, QueryRef, SubscriptionRequest
from reactive_rpc.rpc.caller import Caller
from reactive_rpc.web.body import read_json_body, replay
from reactive_rpc.web.dependencies import CONTEXT, resolved
from reactive_rpc.web.dispatcher import Endpoint, parameters_of
from reactive_rpc.web.responses import Answer

__all__ = ["AckEndpoint", "EventsEndpoint", "QuerySet", "SetsEndpoint", "StoredSet", "StoredSets"]

M = TypeVar("M", bound=BaseModel)

HEARTBEAT = ServerSentEvent(comment="", sep="\n")
"""What an idle stream says where heartbeats are configured: a comment, which no client dispatches."""

GOODBYE_SECONDS = 1.0
"""How long an open stream may take to send what waits when the server stops."""


class QuerySet(BaseModel):
    """The queries of a stream, to be named in a URL."""

    queries: list[QueryRef] = Field(default_factory=list)


class StoredSet(BaseModel):
    """A stored set of queries."""

    set: str = Field(description="Names the set: GET /rpc/events?set=...")


class StoredSets:
    """Sets under their hash, the least recently used forgotten first.

    A set is no secret and grants nothing: whoever names it subscribes on their own behalf.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._size_bytes = 0
        self._sets: OrderedDict[str, bytes] = OrderedDict()

    def put(self, queries: Sequence[QueryRef]) -> str:
        """Store a set and return its name; equal sets have one name. ETags are dropped: they would grow old."""
        content = json.dumps([query.model_dump(exclude={"etag"}) for query in queries], sort_keys=True).encode()
        name = blake2b(content, digest_size=16).hexdigest()
        if name not in self._sets:
            self._sets[name] = content
            self._size_bytes += len(content)
        self._sets.move_to_end(name)
        while self._size_bytes > self._max_bytes and len(self._sets) > 1:
            self._size_bytes -= len(self._sets.popitem(last=False)[1])
        return name

    def get(self, name: str) -> list[QueryRef]:
        """Return a set.

        Raises:
            NotFoundError: it was never stored here, or is forgotten.
        """
        content = self._sets.get(name)
        if content is None:
            raise NotFoundError(f"no set {name[:64]!r} is stored here: store it again (POST /rpc/events/sets)")
        self._sets.move_to_end(name)
        return [QueryRef.model_validate(query) for query in json.loads(content)]


class _StreamAnswer(Answer):
    """A stream as an answer: it lasts until either side ends it, and is then forgotten."""

    __slots__ = ("_first", "_hub", "_stream")

    def __init__(self, hub: Hub, stream: Stream, first: bytes) -> None:
        super().__init__(200, b"", [(b"cache-control", b"no-store, no-transform")])
        self._hub = hub
        self._stream = stream
        self._first = first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the frames as they come."""
        response = EventSourceResponse(
            self._frames(),
            ping=self._hub.heartbeat_seconds,
            ping_message_factory=lambda: HEARTBEAT,
            shutdown_event=self,  # type: ignore[arg-type]  # all that is done with it is `set`
            shutdown_grace_period=GOODBYE_SECONDS,
        )
        del response.headers["cache-control"]
        response.raw_headers.extend(self.headers)
        try:
            await response(scope, receive, send)
        finally:
            self._hub.disconnect(self._stream)

    def set(self) -> None:
        """End the stream by itself, completely: sse-starlette asks for it when the server is told to stop."""
        self._stream.close()

    async def _frames(self) -> AsyncIterator[bytes]:
        yield self._first
        async for frame in self._stream.frames():
            yield frame


class EventsEndpoint(Endpoint):
    """Opens a stream: POST with the set, GET with its name."""

    def __init__(
        self,
        path: str,
        hub: Hub,
        caller: Caller,
        sets: StoredSets,
        ids: IdSource,
        *,
        max_body_bytes: int,
        max_queries: int,
    ) -> None:
        super().__init__(path, ids)
        self._hub = hub
        self._caller = caller
        self._sets = sets
        self._max_body_bytes = max_body_bytes
        self._max_queries = max_queries

    async def answer(self, scope: Scope, receive: Receive, dependencies: list[Dependant]) -> Answer:
        """Resolve the context, let go of what resolving it held, and stream."""
        self.require_method(scope, ("POST", "GET"))
        body = b""
        if scope["method"] == "POST":
            body = await read_json_body(scope, receive, max_bytes=self._max_body_bytes)
        wanted = self._request(scope, body)
        _require_at_most(self._max_queries, wanted.queries)
        cursor = None if wanted.cursor is None else Cursor.parse(wanted.cursor)
        async with resolved(Request(scope, replay(body)), self._needed(wanted.queries, dependencies)) as found:
            subscriptions = [self._subscription(ref, found.context) for ref in wanted.queries]
        stream, first = await self._hub.connect(subscriptions, cursor, acks=wanted.acks)
        return found.add_to(_StreamAnswer(self._hub, stream, first))

    def _request(self, scope: Scope, body: bytes) -> SubscriptionRequest:
        last_event_id = dict(scope["headers"]).get(b"last-event-id")
        if scope["method"] == "POST":
            wanted = _decode(SubscriptionRequest, body)
        else:
            parameters = parameters_of(scope["query_string"])
            if "set" not in parameters:
                raise BadRequestError("name a stored set: GET /rpc/events?set=... (POST /rpc/events/sets stores one)")
            wanted = SubscriptionRequest(
                queries=self._sets.get(parameters["set"]),
                cursor=parameters.get("cursor"),
                acks=parameters.get("acks") == "1",
            )
        if last_event_id:
            wanted.cursor = last_event_id.decode("latin-1")
        return wanted

    def _needed(self, queries: Sequence[QueryRef], dependencies: list[Dependant]) -> list[Dependant]:
        """Return what must be resolved: not the context, where every query is public."""
        procedures = [self._caller.registry.get(query.path) for query in queries]
        if queries and all(procedure is not None and procedure.scope == "public" for procedure in procedures):
            return [dependency for dependency in dependencies if dependency.name != CONTEXT]
        return dependencies

    def _subscription(self, ref: QueryRef, ctx: object) -> Subscription:
        try:
            return Subscription(ref, call=self._caller.subscribe(ref.path, ref.input, ctx))
        except RPCError as exc:
            return Subscription(ref, error=exc)


class SetsEndpoint(Endpoint):
    """Stores a set of queries under its hash."""

    def __init__(self, path: str, sets: StoredSets, ids: IdSource, *, max_body_bytes: int, max_queries: int) -> None:
        super().__init__(path, ids)
        self._sets = sets
        self._max_body_bytes = max_body_bytes
        self._max_queries = max_queries

    async def answer(self, scope: Scope, receive: Receive, dependencies: list[Dependant]) -> Answer:
        """Store the set, for callers whom the context lets through."""
        self.require_method(scope, ("POST",))
        body = await read_json_body(scope, receive, max_bytes=self._max_body_bytes)
        async with resolved(Request(scope, replay(body)), dependencies) as found:
            queries = _decode(QuerySet, body).queries
            _require_at_most(self._max_queries, queries)
            stored = StoredSet(set=self._sets.put(queries)).model_dump_json().encode()
        return found.add_to(Answer(200, stored, [(b"content-type", b"application/json")]))


class AckEndpoint(Endpoint):
    """Takes acknowledgements. A stream's id cannot be guessed, so it is all that an acknowledgement needs."""

    def __init__(self, path: str, hub: Hub, ids: IdSource, *, max_body_bytes: int) -> None:
        super().__init__(path, ids)
        self._hub = hub
        self._max_body_bytes = max_body_bytes

    async def answer(self, scope: Scope, receive: Receive, dependencies: list[Dependant]) -> Answer:
        """Acknowledge everything up to the cursor."""
        self.require_method(scope, ("POST",))
        body = await read_json_body(scope, receive, max_bytes=self._max_body_bytes)
        async with resolved(Request(scope, replay(body)), dependencies) as found:
            ack = _decode(Ack, body)
            self._hub.acknowledge(ack.stream, Cursor.parse(ack.cursor))
        return found.add_to(Answer(204, b"", []))


def _require_at_most(limit: int, queries: Sequence[QueryRef]) -> None:
    if len(queries) > limit:
        raise PayloadTooLargeError(f"{len(queries)} queries in one set: the limit is {limit}")


def _decode(model: type[M], body: bytes) -> M:
    try:
        return model.model_validate_json(body)
    except ValidationError as exc:
        faults = [
            {"loc": list(e["loc"]), "message": e["msg"], "type": e["type"]} for e in exc.errors(include_url=False)
        ]
        if faults[0]["type"] == "json_invalid":
            raise ParseError(f"the body is no JSON: {faults[0]['message']}") from exc
        raise BadRequestError(f"the body is no {model.__name__}", details=faults) from exc
