"""A server in the client's own event loop, for answers that come bit by bit: the test writes them, and cuts them."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from pydantic import BaseModel

from reactive_rpc.client import AsyncClient, EventIterator, ItemIterator, Procedure, TypedError
from reactive_rpc.errors import ConflictError, RPCError, ServiceUnavailableError
from reactive_rpc.protocol.envelopes import encode_error, http_status
from reactive_rpc.protocol.sse import encode_event
from tests.support.waiting import until

from .watching import FakeClock

__all__ = [
    "EVENTS",
    "ROWS",
    "URL",
    "OpenAnswer",
    "ScriptedServer",
    "SeatGone",
    "SeatTaken",
    "events",
    "refused",
    "rows",
]

URL = "http://server.test"


class Room(BaseModel):
    """The input of both procedures."""

    room: str
    last_event_id: str | None = None


class Seat(BaseModel):
    """The fields of the declared errors."""

    seat: str


class SeatTaken(TypedError, ConflictError):
    """A declared error."""

    type = "SeatTaken"
    details_model = Seat
    seat: str


class SeatGone(TypedError, ServiceUnavailableError):
    """A declared error with the code of one that passes."""

    type = "SeatGone"
    details_model = Seat
    seat: str


EVENTS: Procedure[int | None] = Procedure(
    "seats.events", "/rpc/seats.events", "GET", Room, int | None, (SeatTaken, SeatGone)
)
ROWS: Procedure[dict[str, Any]] = Procedure("seats.rows", "/rpc/seats.rows", "GET", Room, dict[str, Any], (SeatTaken,))


def refused(error: RPCError, headers: dict[str, str] | None = None) -> httpx.Response:
    """Return an error as an answer before the start."""
    return httpx.Response(http_status(error), content=encode_error(error), headers=headers)


class OpenAnswer(httpx.AsyncByteStream):
    """One answer; the test says what comes.

    Attributes:
        is_closed: the client has closed the connection.
    """

    def __init__(self, request: httpx.Request) -> None:
        self.request = request
        self.is_closed = False
        self.chunks: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()

    def send(self, *chunks: bytes) -> None:
        """Send each as a chunk of its own."""
        for chunk in chunks:
            self.chunks.put_nowait(chunk)

    def value(self, value: Any, id: str | None = None) -> None:
        """Send a value as an event."""
        self.send((f"id: {id}\n" if id else "").encode() + f"data: {json.dumps(value)}\n\n".encode())

    def event(self, name: str, data: bytes = b"null") -> None:
        """Send a named event."""
        self.send(encode_event(name, data))

    def end(self) -> None:
        """End the answer as HTTP ends one."""
        self.chunks.put_nowait(None)

    def cut(self) -> None:
        """Cut the connection."""
        self.chunks.put_nowait(httpx.ReadError("cut"))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (chunk := await self.chunks.get()) is not None:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk

    async def aclose(self) -> None:
        """Note it."""
        self.is_closed = True


class ScriptedServer(httpx.AsyncBaseTransport):
    """Answers every call with an open answer.

    Attributes:
        answers: those that were begun.
        requests: all of them.
        refusals: with which the next requests are answered instead, in order.
        headers: of the answers.
        hold: no answer begins before it is set.
    """

    def __init__(self, *refusals: httpx.Response | Exception, **headers: str) -> None:
        self.answers: list[OpenAnswer] = []
        self.requests: list[httpx.Request] = []
        self.refusals = deque(refusals)
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.hold = asyncio.Event()
        self.hold.set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Begin an answer, or refuse."""
        self.requests.append(request)
        await self.hold.wait()
        if self.refusals:
            refusal = self.refusals.popleft()
            if isinstance(refusal, Exception):
                raise refusal
            return refusal
        answer = OpenAnswer(request)
        self.answers.append(answer)
        kind = "text/event-stream" if request.url.path == EVENTS.url else "application/jsonl"
        return httpx.Response(200, headers={"content-type": kind, **self.headers}, stream=answer)

    async def answer(self, number: int = 0) -> OpenAnswer:
        """Wait for an answer to be begun."""
        await until(lambda: len(self.answers) > number)
        return self.answers[number]

    @property
    def resumed_from(self) -> list[str | None]:
        """The `Last-Event-ID` of each request."""
        return [request.headers.get("last-event-id") for request in self.requests]

    @property
    def callers(self) -> list[str | None]:
        """The credentials of each request."""
        return [request.headers.get("authorization") for request in self.requests]


@asynccontextmanager
async def _client(server: ScriptedServer, **options: Any) -> AsyncIterator[AsyncClient]:
    options.setdefault("clock", FakeClock())
    async with (
        httpx.AsyncClient(transport=server) as http,
        AsyncClient(URL, http=http, random=lambda: 1.0, **options) as client,
    ):
        yield client


@asynccontextmanager
async def events(
    server: ScriptedServer, *, last_event_id: str | None = None, **options: Any
) -> AsyncIterator[tuple[AsyncClient, EventIterator[int | None]]]:
    """Give a client and the events of a room, which nobody has asked for yet."""
    async with _client(server, **options) as client:
        arguments = {"room": "r"} if last_event_id is None else {"room": "r", "last_event_id": last_event_id}
        yield client, client.iterate_events(EVENTS, arguments)


@asynccontextmanager
async def rows(
    server: ScriptedServer, **options: Any
) -> AsyncIterator[tuple[AsyncClient, ItemIterator[dict[str, Any]]]]:
    """Give a client and the rows of a room, which nobody has asked for yet."""
    async with _client(server, **options) as client:
        yield client, client.iterate_items(ROWS, {"room": "r"})
