"""A small real server for the client's tests: uvicorn in a thread, streams that the test writes to and cuts."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from reactive_rpc import testing
from reactive_rpc.errors import RPCError
from reactive_rpc.protocol.envelopes import encode_error, http_status
from reactive_rpc.protocol.events import (
    Ack,
    Affected,
    Connected,
    Event,
    Invalidation,
    Polled,
    PolledEvent,
    Result,
    StreamLimits,
    SubscriptionRequest,
    decode_event,
)
from reactive_rpc.protocol.headers import CURSOR, VERSION
from reactive_rpc.protocol.sse import SSEDecoder

__all__ = ["FakeServer", "Stream", "running"]


class Stream:
    """One open event stream; the test says what goes onto it."""

    def __init__(self, number: int, request: SubscriptionRequest) -> None:
        self.id = f"s{number}"
        self.request = request
        self.closed = False
        self.chunks: asyncio.Queue[bytes | None] = asyncio.Queue()

    @property
    def names(self) -> set[str]:
        """The `name` inputs of its queries."""
        return {query.input["name"] for query in self.request.queries}


class FakeServer:
    """A server with one query, `items.get(name)`, and one mutation, `items.add(name, by)`.

    Lives on its own event loop, so tests use `do` to touch it.

    Attributes:
        values: `{name: result}`; a name that is absent answers 404.
        refuse_streams: what the next streams are answered with instead; the last one stays.
        refuse_polls: what polls are answered with instead, where streams are not.
        refuse_names: names that no stream watches.
        is_buffering: whether streams, like behind a proxy, say nothing at all.
        polls: what each poll asked for, and for how many seconds it may wait.
        poll_seconds: the longest that a poll waits here.
        limits: what the streams tell of the server's limits.
        max_queries: of larger sets something on the way says 413, in its own words.
        too_large: names that make any set too large.
        heartbeat_seconds: what the streams promise; the test keeps the promise.
        refusal_headers: go with every refusal.
        answer_headers: go with every answer of the query.
        cursors: the `reactive-cursor` of each fetch.
        hold: fetches wait for this event where it is set.
        adds: the `by` of each mutation that has come, in order.
        refuse_adds: what mutations are answered with instead; nothing is written.
        hold_adds: the answers of mutations wait for this event where it is set; what they write is there before.
        cut_adds: the answers of mutations are cut.
    """

    def __init__(self) -> None:
        self.values: dict[str, Any] = {"a": 1, "b": 1}
        self.streams: list[Stream] = []
        self.attempts = 0
        self.fetches: list[tuple[str, int]] = []
        self.tokens: list[str | None] = []
        self.acks: list[Ack] = []
        self.refuse_streams: RPCError | None = None
        self.refuse_polls: RPCError | None = None
        self.refuse_fetches: RPCError | None = None
        self.refuse_names: dict[str, RPCError] = {}
        self.is_buffering = False
        self.polls: list[tuple[SubscriptionRequest, float]] = []
        self.poll_seconds = 10.0
        self.hold: asyncio.Event | None = None
        self.adds: list[int] = []
        self.refuse_adds: RPCError | None = None
        self.hold_adds: asyncio.Event | None = None
        self.cut_adds = False
        self.retry_ms: int | None = None
        self.heartbeat_seconds: float | None = None
        self.limits: StreamLimits | None = None
        self.max_queries: int | None = None
        self.too_large: set[str] = set()
        self.refusal_headers: dict[str, str] = {}
        self.answer_headers: dict[str, str] = {}
        self.cursors: list[str | None] = []
        self.version = 0
        self.changed_at: dict[str, int] = {}
        self.url = ""
        self.loop: asyncio.AbstractEventLoop | None = None

    @property
    def open_streams(self) -> list[Stream]:
        """Streams that neither side has closed."""
        return [stream for stream in self.streams if not stream.closed]

    def do(self, action: Callable[[], object]) -> None:
        """Run `action` on the server's event loop and wait for it."""

        async def run() -> None:
            action()

        assert self.loop is not None
        asyncio.run_coroutine_threadsafe(run(), self.loop).result(10)

    def send(self, stream: Stream, chunk: bytes | None) -> None:
        """Put a chunk onto a stream; None ends it cleanly, an empty one cuts it."""
        self.do(lambda: stream.chunks.put_nowait(chunk))

    def change(self, name: str, value: Any, *, event_id: str | None = None) -> Invalidation:
        """Write a value, tell every open stream that watches it, and return what was told."""
        event = self._changed(name, value, event_id=event_id)
        self.tell(name, event)
        return event

    def _changed(self, name: str, value: Any, *, event_id: str | None = None) -> Invalidation:
        self._write(name, value)
        affected = [Affected(path="items.get", input={"name": name}, key=f"items.get:{name}")]
        return Invalidation(
            cursor=f"e:{self.version}",
            affected=affected,
            event_id=event_id or f"i{self.version}",
            tables=["item"],
            version=f"e:{self.version}",
        )

    def push(self, name: str, value: Any) -> Result:
        """Write a value, bring it to every open stream that watches it, and return what was told."""
        self._write(name, value)
        event = Result(
            cursor=f"e:{self.version}",
            path="items.get",
            input={"name": name},
            key=f"items.get:{name}",
            etag=self.etag(name),
            version=f"e:{self.version}",
            data=value,
            event_id=f"r{self.version}",
        )
        self.tell(name, event)
        return event

    def tell(self, name: str, event: Event) -> None:
        """Send an event to every open stream that watches `name`."""
        for stream in self.open_streams:
            if name in stream.names:
                self.send(stream, event.encode())

    def _write(self, name: str, value: Any) -> None:
        self.version += 1
        self.values[name] = value
        self.changed_at[name] = self.version

    def etag(self, name: str) -> str:
        """Return the ETag of the value as it is now."""
        return f'"{self.values.get(name)}"'

    async def get(self, request: Request) -> Response:
        """Answer the query."""
        name = request.query_params["name"]
        value, etag = self.values.get(name), self.etag(name)
        marks = {"etag": etag, VERSION: f"e:{self.version}", **self.answer_headers}
        self.tokens.append(request.headers.get("authorization"))
        self.cursors.append(request.headers.get(CURSOR))
        if self.hold is not None:
            await self.hold.wait()
        if self.refuse_fetches is not None:
            status = http_status(self.refuse_fetches)
            self.fetches.append((name, status))
            return Response(encode_error(self.refuse_fetches), status, self.refusal_headers)
        if value is None:
            self.fetches.append((name, 404))
            return Response(encode_error(RPCError(code="NOT_FOUND")), 404, {**marks, **self.refusal_headers})
        if request.headers.get("if-none-match") == etag:
            self.fetches.append((name, 304))
            return Response(status_code=304, headers=marks)
        self.fetches.append((name, 200))
        return Response(json.dumps(value), headers=marks, media_type="application/json")

    async def add(self, request: Request) -> Response:
        """Answer the mutation."""
        asked = json.loads(await request.body())
        name, by = asked["name"], asked["by"]
        self.adds.append(by)
        if self.refuse_adds is not None:
            return Response(encode_error(self.refuse_adds), http_status(self.refuse_adds))
        if by:
            event = self._changed(name, self.values[name] + by)
            for stream in self.open_streams:
                stream.chunks.put_nowait(event.encode() if name in stream.names else b": nothing\n\n")
        if self.hold_adds is not None:
            await self.hold_adds.wait()
        marks = {CURSOR: f"e:{self.version}"}
        if self.cut_adds:
            return StreamingResponse(_cut(), headers=marks)
        return Response(json.dumps(self.values[name]), headers=marks, media_type="application/json")

    async def events(self, request: Request) -> Response:
        """Open a stream."""
        self.attempts += 1
        if self.refuse_streams is not None:
            status = http_status(self.refuse_streams)
            return Response(encode_error(self.refuse_streams), status, self.refusal_headers)
        asked = SubscriptionRequest.model_validate_json(await request.body())
        stream = Stream(len(self.streams), asked)
        if len(asked.queries) > (self.max_queries or math.inf) or stream.names & self.too_large:
            return Response("<html>too large</html>", 413)
        self.streams.append(stream)
        if not self.is_buffering:
            stream.chunks.put_nowait(self._connected(stream).encode(retry_ms=self.retry_ms))
        return StreamingResponse(self._chunks(stream), media_type="text/event-stream")

    def connect_streams(self) -> None:
        """Say the first word on every open stream, where the server was buffering."""
        for stream in self.open_streams:
            self.send(stream, self._connected(stream).encode())

    def _connected(self, stream: Stream) -> Connected:
        keys: list[str | None] = []
        stale, errors = [], []
        for query in stream.request.queries:
            name = query.input["name"]
            about = {"path": query.path, "input": query.input, "key": f"items.get:{name}"}
            if name in self.refuse_names:
                error = json.loads(encode_error(self.refuse_names[name]))["error"]
                errors.append({**about, "key": None, "error": error})
                keys.append(None)
                continue
            keys.append(f"items.get:{name}")
            if query.etag not in (None, self.etag(name)) or self._has_missed(name, stream.request.cursor):
                stale.append(about)
        return Connected.model_validate(
            {
                "stream": stream.id,
                "cursor": f"e:{self.version}",
                "queries": keys,
                "stale": stale,
                "errors": errors,
                "version": f"e:{self.version}",
                "limits": self.limits,
                "heartbeat_seconds": self.heartbeat_seconds,
            }
        )

    def _has_missed(self, name: str, cursor: str | None) -> bool:
        return cursor is not None and self.changed_at.get(name, 0) > int(cursor.removeprefix("e:"))

    async def poll(self, request: Request) -> Response:
        """Answer a long poll, once there is something to tell."""
        self.attempts += 1
        refusal = self.refuse_polls or self.refuse_streams
        if refusal is not None:
            return Response(encode_error(refusal), http_status(refusal), self.refusal_headers)
        body = await request.body()
        asked, wait_seconds = SubscriptionRequest.model_validate_json(body), json.loads(body)["wait"]
        self.polls.append((asked, wait_seconds))
        stream = Stream(len(self.streams), asked)
        self.streams.append(stream)
        connected = self._connected(stream)
        chunk: bytes | None = b""
        if not connected.stale and not connected.errors and wait_seconds:
            chunk = await self._first_chunk(stream, request, min(wait_seconds, self.poll_seconds))
        stream.closed = True
        events: list[Event] = [connected, *_decoded(chunk or b"")]
        cursor = getattr(events[-1], "cursor", connected.cursor)
        polled = [PolledEvent(event=event.name, data=event.model_dump(mode="json")) for event in events]
        answer = Polled(cursor=cursor, events=polled).model_dump_json()
        return Response(answer, media_type="application/json")

    async def _first_chunk(self, stream: Stream, request: Request, seconds: float) -> bytes | None:
        """Wait for the test to say something, for the client to go, or for the time to pass."""
        said = asyncio.ensure_future(stream.chunks.get())
        gone = asyncio.ensure_future(request.receive())
        try:
            await asyncio.wait({said, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            return said.result() if said.done() else None
        finally:
            said.cancel()
            gone.cancel()

    async def _chunks(self, stream: Stream) -> AsyncIterator[bytes]:
        try:
            while (chunk := await stream.chunks.get()) is not None:
                if not chunk:
                    raise ConnectionAbortedError("the test cuts the stream")
                yield chunk
        finally:
            stream.closed = True

    async def ack(self, request: Request) -> Response:
        """Take an acknowledgement."""
        self.acks.append(Ack.model_validate_json(await request.body()))
        return Response(status_code=204)

    async def login(self, request: Request) -> Response:
        """Hand out a token that says who asked."""
        form = (await request.body()).decode()
        return Response(json.dumps({"access_token": form, "token_type": "bearer"}))

    def app(self) -> Starlette:
        """Return the application."""
        routes: list[tuple[str, Callable[[Request], Coroutine[Any, Any, Response]], str]] = [
            ("/rpc/items/get", self.get, "GET"),
            ("/rpc/items/add", self.add, "POST"),
            ("/rpc/events", self.events, "POST"),
            ("/rpc/events/ack", self.ack, "POST"),
            ("/rpc/events/poll", self.poll, "POST"),
            ("/token", self.login, "POST"),
        ]
        return Starlette(
            routes=[Route(path, handler, methods=[method]) for path, handler, method in routes], lifespan=self._lifespan
        )

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.loop = asyncio.get_running_loop()
        yield


async def _cut() -> AsyncIterator[bytes]:
    yield b"1"
    raise ConnectionAbortedError("the test cuts the answer")


def _decoded(chunk: bytes) -> list[Event]:
    return [event for event in map(decode_event, SSEDecoder().feed(chunk)) if event is not None]


@contextmanager
def running(server: FakeServer) -> Iterator[FakeServer]:
    """Serve on a free port, in a thread of its own."""
    with testing.running(server.app()) as server.url:
        try:
            yield server
        finally:
            for stream in server.open_streams:
                server.send(stream, None)
