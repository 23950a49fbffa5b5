"""A stream as an answer: server-sent events that last until either side ends them.

sse-starlette gives the headers of such an answer, and notices that the server is told to stop: uvicorn waits for open
connections before it says so to the application. Its response class is not used for each stream, for what it costs
there: a task group with three or four tasks, each with its cancel scope, is a third of what a connection weighs, and an
asynchronous generator that a task resumes for every event is most of the time that the event takes. Here a connection
has the task it came with, which writes (`subscriptions/writer.py`), and one that waits for the client to go; the end of
the server is listened for once for all streams.

An open connection past its last frame is ended like any answer, by an empty chunk, so that the client comes back over
the same connection where it may. One whose client takes nothing is left to the server to close.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any

from sse_starlette import EventSourceResponse
from starlette.types import Receive, Scope, Send

from reactive_rpc.compat.sse_starlette import server_exit
from reactive_rpc.compat.uvicorn import is_servers_own, write_of
from reactive_rpc.subscriptions.hub import Hub
from reactive_rpc.subscriptions.stream import GOODBYE_SECONDS, Stream
from reactive_rpc.tasks import Tasks, end_task
from reactive_rpc.web.routing.responses import Answer, Headers
from reactive_rpc.web.routing.shortcut import SERVER_SEND

__all__ = ["StreamAnswers", "until_gone"]

logger = logging.getLogger(__name__)


_HEADERS = [(name, value) for name, value in EventSourceResponse(iter(())).raw_headers if name != b"cache-control"] + [
    (b"cache-control", b"no-store, no-transform")
]


class StreamAnswers:
    """Makes answers of streams, and ends all of them, one after another, when the server is told to stop.

    Args:
        drain_seconds: over how long they are ended.

    Attributes:
        tasks: those of the answers, which end with them.
    """

    def __init__(self, hub: Hub, *, drain_seconds: float) -> None:
        self._hub = hub
        self._drain_seconds = drain_seconds
        self._open = 0
        self.tasks = Tasks()
        self._draining: asyncio.Task[None] | None = None

    def answer(
        self, stream: Stream, first: bytes, *, headers: Headers = (), writer: asyncio.Task[Any] | None = None
    ) -> Answer:
        """Return the answer that is a stream of the hub; it is disconnected when the answer has ended.

        Args:
            stream: not written to by anybody else.
            first: its first frame.
            headers: beside those of every stream.
            writer: a task that puts events into the stream, which is ended with the answer; None if the hub does.
        """
        return _StreamAnswer(self, stream, first, headers=headers, writer=writer)

    def opened(self) -> None:
        """Count an answer that begins."""
        self._open += 1
        if self._draining is None:
            self._draining = self.tasks.start(self._drain(), "drain")

    def ended(self, stream: Stream) -> None:
        """Count an answer that has ended, and forget its stream."""
        self._hub.disconnect(stream)
        self._open -= 1
        if not self._open and self._draining is not None:
            self._draining.cancel()
            self._draining = None

    async def _drain(self) -> None:
        await server_exit()
        logger.info("the server is told to stop: %d streams are ended", self._open)
        await self._hub.drain(self._drain_seconds)


class _StreamAnswer(Answer):
    __slots__ = ("_answers", "_stream", "_writer")

    def __init__(
        self,
        answers: StreamAnswers,
        stream: Stream,
        first: bytes,
        *,
        headers: Headers,
        writer: asyncio.Task[Any] | None,
    ) -> None:
        super().__init__(200, b"", [*_HEADERS, *headers])
        self._answers = answers
        self._writer = writer
        self._stream = stream
        stream.say(first)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the frames as they come."""
        stream = self._stream
        self._answers.opened()
        leaving = self._answers.tasks.start(until_gone(receive), "disconnect", is_awaited=True)
        leaving.add_done_callback(lambda _: stream.abort())
        try:
            await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
            # FastAPI's layers have noted that the answer has begun, and take no interest in what it holds.
            send_chunk: Send = scope.get(SERVER_SEND, send)
            await stream.write_to(
                lambda chunk: _sent(send_chunk, chunk), is_plain=is_servers_own(send_chunk), write=write_of(send_chunk)
            )
            if not stream.aborted:
                await _ended(send)
        finally:
            self._answers.ended(stream)
            await end_task(leaving, *filter(None, (self._writer,)))


async def until_gone(receive: Receive) -> None:
    """Return when the client has gone away; its request has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _sent(send: Send, chunk: bytes) -> Awaitable[None]:
    return send({"type": "http.response.body", "body": chunk, "more_body": True})


async def _ended(send: Send) -> None:
    try:
        async with asyncio.timeout(GOODBYE_SECONDS):
            await send({"type": "http.response.body", "body": b"", "more_body": False})
    except TimeoutError:
        logger.warning("a stream's client takes nothing; its connection is left to the server")
