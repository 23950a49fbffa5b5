"""Procedures that yield, over HTTP: subscriptions as server-sent events, streamed queries as lines of JSON.

The call runs in a task of its own, which its answer ends: so it is cancelled as the client goes, and its steps, its
wrappers and its handler are all in one task. It answers with a status until its answer begins, and in its own words
after that: the event `failed`, or a last line that begins with `{"error":`. A subscription's answer begins as soon as
its caller is let through, that of a streamed query with the first value. `docs/explanation/events.md` shows both.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Protocol, Self

from anyio import create_memory_object_stream
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from fastapi.dependencies.models import Dependant
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from reactive_rpc.clock import IdSource
from reactive_rpc.errors import RPCError
from reactive_rpc.procedures.call import decode_json_input, decode_text_input
from reactive_rpc.procedures.procedure import LAST_EVENT_ID, AnyProcedure
from reactive_rpc.procedures.rights import RightGuard
from reactive_rpc.procedures.streamed import StreamedItem
from reactive_rpc.protocol.envelopes import encode_error
from reactive_rpc.protocol.headers import HEARTBEAT_SECONDS
from reactive_rpc.protocol.json_lines import encode_line
from reactive_rpc.protocol.sse import encode_event
from reactive_rpc.subscriptions.frame import Frame
from reactive_rpc.subscriptions.limits import CallerKey
from reactive_rpc.subscriptions.stream import READER_STALLED_SECONDS
from reactive_rpc.subscriptions.written_stream import WrittenStream
from reactive_rpc.tasks import Tasks, end_task
from reactive_rpc.web.routing.body import BodyLimits, read_json_body
from reactive_rpc.web.routing.dispatcher import Endpoint, methods_of, parameters_of
from reactive_rpc.web.routing.responses import Answer, Headers, error_of
from reactive_rpc.web.streams.streaming import StreamAnswers, until_gone
from reactive_rpc.web.streams.subscribing import StreamedRequest, Subscriber
from reactive_rpc.web.streams.tickets import take_ticket

__all__ = ["StreamedQueryEndpoint", "SubscriptionEndpoint"]

logger = logging.getLogger(__name__)


class _StreamedEndpoint(Endpoint):
    """Serves one procedure that yields.

    Attributes:
        procedure: the one.
    """

    def __init__(
        self,
        path: str,
        procedure: AnyProcedure,
        ids: IdSource,
        *,
        subscriber: Subscriber,
        answers: StreamAnswers,
        body: BodyLimits,
    ) -> None:
        super().__init__(path, ids)
        self.procedure = procedure
        self._subscriber = subscriber
        self._answers = answers
        self._body = body
        self._methods = methods_of(procedure)

    async def answer(self, scope: Scope, receive: Receive, dependencies: list[Dependant]) -> Answer:
        """Let the caller through, and answer with what the call yields from then on."""
        self.require_method(scope, self._methods)
        await self._authenticate(scope, dependencies)
        body = b""
        if scope["method"] == "POST":
            body = await read_json_body(scope, receive, limits=self._body)
        return await self.call(scope, self._input(scope, body), body=body, dependencies=dependencies)

    async def call(
        self, scope: Scope, input: BaseModel | None, *, body: bytes, dependencies: list[Dependant]
    ) -> Answer:
        """Return the answer that a call's values go into.

        Args:
            body: the input as it came, for a dependency that wants to read it.

        Raises:
            Exception: whatever goes wrong before it begins.
        """
        opened: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        run = self._run(scope, input, opened, body=body, dependencies=dependencies)
        task = self._answers.tasks.start(run, f"call of {self.path}", is_awaited=True)
        try:
            either: list[asyncio.Future[Any]] = [task, opened]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not opened.done():
                await task  # it has failed, and raises why
            return await opened
        except BaseException:
            await end_task(task)
            raise

    async def _run(
        self,
        scope: Scope,
        input: BaseModel | None,
        opened: asyncio.Future[Answer],
        *,
        body: bytes,
        dependencies: list[Dependant],
    ) -> None:
        """Make the call; `opened` is set to its answer as soon as that begins."""
        sink: _Sink | None = None

        async def serve(request: StreamedRequest) -> None:
            nonlocal sink
            release = self._admit(request.caller)
            try:
                with self._sink(request, opened) as sink:
                    await request.call.stream(sink.emit)
            finally:
                release()

        try:
            await self._subscriber.stream_call(
                self.path, self.procedure, input, scope=scope, body=body, dependencies=dependencies, serve=serve
            )
        except Exception as exc:
            if sink is None or not opened.done():
                raise
            await sink.fail(error_of(exc, self.path, self._ids))
        else:
            if sink is not None:
                await sink.end()

    async def _authenticate(self, scope: Scope, dependencies: list[Dependant]) -> None:
        """Read who calls, if that is not in the headers already."""

    def _input(self, scope: Scope, body: bytes) -> BaseModel | None:
        if scope["method"] == "POST":
            return decode_json_input(self.path, self.procedure, body)
        return decode_text_input(self.path, self.procedure, parameters_of(scope["query_string"]))

    def _admit(self, caller: CallerKey) -> Callable[[], None]:
        """Take a place among the calls of a caller; the returned function gives it back."""
        return self._subscriber.limits.admit(caller)

    @abstractmethod
    def _sink(self, request: StreamedRequest, opened: asyncio.Future[Answer]) -> _Sink:
        """Return what the values of a call go into; called in the task of the call. It sets its answer in `opened`."""


class SubscriptionEndpoint(_StreamedEndpoint):
    """Serves a subscription: each value is an event."""

    async def _authenticate(self, scope: Scope, dependencies: list[Dependant]) -> None:
        ticket = take_ticket(scope)
        if ticket is not None:
            await self._subscriber.redeem(ticket, scope, dependencies)

    def _input(self, scope: Scope, body: bytes) -> BaseModel | None:
        input = super()._input(scope, body)
        last_event_id = dict(scope["headers"]).get(b"last-event-id")
        if input is None or last_event_id is None or LAST_EVENT_ID not in type(input).model_fields:
            return input
        return input.model_copy(update={LAST_EVENT_ID: last_event_id.decode("latin-1")})

    def _sink(self, request: StreamedRequest, opened: asyncio.Future[Answer]) -> _Sink:
        self._subscriber.limits.count_open(request.caller)
        stream, first = self._subscriber.connect_writer(request)
        seconds = self._subscriber.hub.heartbeat_seconds
        headers = [(HEARTBEAT_SECONDS.encode(), b"%g" % seconds)] if seconds else []
        answer = self._answers.answer(stream, first, headers=headers, writer=asyncio.current_task())
        opened.set_result(request.found.add_to(answer))
        return _EventSink(stream)


class StreamedQueryEndpoint(_StreamedEndpoint):
    """Serves a streamed query: each value is a line of JSON."""

    def _admit(self, caller: CallerKey) -> Callable[[], None]:
        return self._subscriber.limits.admit_streamed_query(caller)

    def _sink(self, request: StreamedRequest, opened: asyncio.Future[Answer]) -> _Sink:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call runs in a task")
        send, receive = create_memory_object_stream[bytes](0)
        answer = _LinesAnswer(receive, self._answers.tasks, task)

        def begin() -> None:
            opened.set_result(request.found.add_to(answer))

        def close(_: object) -> None:  # also of a task that was cancelled
            send.close()
            if not opened.done():
                receive.close()

        task.add_done_callback(close)
        return _LineSink(send, self._subscriber.guard(request), answer, begin=begin)


class _Sink(Protocol):
    """Takes what a call yields, one value after another, as fast as the client does."""

    async def emit(self, item: StreamedItem) -> None:
        """Send a value; return when the client has room for the next."""
        ...

    async def fail(self, error: RPCError) -> None:
        """End with an error."""
        ...

    async def end(self) -> None:
        """End well."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class _EventSink:
    """Sends events; the hub holds or ends the stream as the right to it is lost."""

    def __init__(self, stream: WrittenStream) -> None:
        self._stream = stream

    async def emit(self, item: StreamedItem) -> None:
        await self._stream.put(_frame("message", item.body, id=item.id))

    async def fail(self, error: RPCError) -> None:
        await self._last(_frame("failed", encode_error(error)))

    async def end(self) -> None:
        await self._last(_frame("ended", b"null"))

    async def _last(self, frame: Frame) -> None:
        await self._stream.put(frame)
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass


class _LineSink:
    """Sends lines, each as long as the right to it holds.

    Args:
        begin: begins the answer.
    """

    def __init__(
        self,
        send: MemoryObjectSendStream[bytes],
        guard: RightGuard,
        answer: _LinesAnswer,
        *,
        begin: Callable[[], None],
    ) -> None:
        self._answer = answer
        self._send = send
        self._guard = guard
        self._begin = begin
        self._has_begun = False

    async def emit(self, item: StreamedItem) -> None:
        await self._guard.require()
        self._require_begun()
        await self._send.send(encode_line(item.body))

    async def fail(self, error: RPCError) -> None:
        await self._send.send(encode_error(error) + b"\n")

    async def end(self) -> None:
        self._require_begun()
        self._answer.is_whole.set()

    def _require_begun(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._begin()

    def __enter__(self) -> Self:
        self._guard.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._guard.__exit__(kind, error, traceback)


class _LinesAnswer(Answer):
    """Lines, sent as they come. One that fails is left unfinished, so that nobody takes it for the whole.

    Args:
        lines: until its other end is closed.
        tasks: those of the answers.
        writer: makes the lines; it is ended with the answer.

    Attributes:
        is_whole: set before the lines end, if they are all there are.
    """

    __slots__ = ("_lines", "_tasks", "_writer", "is_whole")

    def __init__(self, lines: MemoryObjectReceiveStream[bytes], tasks: Tasks, writer: asyncio.Task[Any]) -> None:
        super().__init__(200, b"", _LINES)
        self.is_whole = asyncio.Event()
        self._lines = lines
        self._tasks = tasks
        self._writer = writer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the lines, each as soon as the one before has left."""
        leaving = self._tasks.start(until_gone(receive), "disconnect", is_awaited=True)
        leaving.add_done_callback(lambda _: self._writer.cancel())
        try:
            await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
            with self._lines:
                async for line in self._lines:
                    async with asyncio.timeout(READER_STALLED_SECONDS):
                        await send({"type": "http.response.body", "body": line, "more_body": True})
            if self.is_whole.is_set():
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            logger.warning(
                "a client has taken nothing of a streamed query for %g s: it is given up", READER_STALLED_SECONDS
            )
        finally:
            await end_task(leaving, self._writer)


_LINES: Final[Headers] = [(b"content-type", b"application/jsonl"), (b"cache-control", b"no-store, no-transform")]


def _frame(name: str, data: bytes, *, id: str | None = None) -> Frame:
    return Frame(name, 0, "", encode_event(name, data, id=id))
