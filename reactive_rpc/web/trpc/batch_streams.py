r"""A batch whose calls are answered each as soon as it has ended: lines of JSON, in the order in which they end.

    {"0":[[0],[null,0,0]],"1":[[0],[null,0,1]]}              the calls, each a promise of its own number
    [1,0,[[{"result":{"data":"pong"}}]]]                     a promise is kept; errors are kept promises too
    [0,0,[[{"result":0}],["result",0,2]]]                    a streamed query promises an iterable in two steps
    [2,0,[[{"data":0}],["data",1,3]]]
    [3,1,[["first"]]]   [3,0,[[]]]   [3,2,{"message",...}]   and that yields, returns, or fails

Source: tRPC v11, `packages/server/src/unstable-core-do-not-import/stream/jsonl.ts`. If its client goes away, nobody
waits for its queries any more; mutations are made to their ends, as over any other wire. While nothing ends, a space
now and then keeps proxies from taking the connection for dead: it begins the next line, and JSON does not mind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Final

from starlette.types import Message, Receive, Scope, Send

from reactive_rpc.protocol.envelopes import decode_error
from reactive_rpc.protocol.json_lines import is_error
from reactive_rpc.tasks import Tasks, end_task
from reactive_rpc.web.routing.responses import Answer, Headers
from reactive_rpc.web.streams.streaming import until_gone
from reactive_rpc.web.trpc.calls import Ended, TRPCCall
from reactive_rpc.web.trpc.envelopes import VARY, shape_of
from reactive_rpc.web.trpc.transformers import Transformer

__all__ = ["BatchStream", "Opened"]

_HEADERS: Final[Headers] = [
    (b"content-type", b"application/json"),
    (b"vary", VARY),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
]

Opened = Callable[[TRPCCall], Awaitable[Ended | Answer]]
"""Makes a call, and returns how it ended; or, of a streamed query, the answer that is its lines."""


class BatchStream(Answer):
    """The answer to a batch, a line after another.

    Args:
        calls: of the batch.
        make: makes one.
        tasks: those of the answers.
        transformer: of the mount.
        heartbeat_seconds: how long it may be silent; 0 is for ever.
    """

    __slots__ = ("_calls", "_chunks", "_gone", "_heartbeat_seconds", "_lines", "_make", "_tasks", "_transformer")

    def __init__(
        self,
        calls: Sequence[TRPCCall],
        make: Opened,
        *,
        tasks: Tasks,
        transformer: Transformer,
        heartbeat_seconds: float,
    ) -> None:
        super().__init__(200, b"", _HEADERS)
        self._heartbeat_seconds = heartbeat_seconds
        self._calls = calls
        self._make = make
        self._tasks = tasks
        self._transformer = transformer
        self._gone = asyncio.Event()
        self._chunks = count(len(calls))
        # INVARIANT (a line waits only while whoever has put it in waits, or is one of the calls): so this is bounded.
        self._lines: asyncio.Queue[tuple[bytes, asyncio.Future[None] | None] | None] = asyncio.Queue()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the lines, each as soon as it is there."""
        leaving = self._tasks.start(until_gone(receive), "disconnect", is_awaited=True)
        leaving.add_done_callback(lambda _: self._leave())
        making = [self._tasks.start(self._run(number, call), call.path) for number, call in enumerate(self._calls)]
        for task in making:
            task.add_done_callback(lambda _: self._lines.put_nowait(None) if all(t.done() for t in making) else None)
        try:
            await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
            await _send_line(send, self._transformer.line(_head(len(self._calls)), b"", b""))
            while (line := await self._next_line()) is not None:
                text, sent = line
                await _send_line(send, text)
                if sent is not None and not sent.done():
                    sent.set_result(None)
            if not self._gone.is_set():
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._leave()
            await end_task(leaving, *(task for task, call in zip(making, self._calls, strict=True) if _may_end(call)))
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*making, return_exceptions=True)

    async def _next_line(self) -> tuple[bytes, asyncio.Future[None] | None] | None:
        """Return the next line, or a space if none comes in time; None past the last."""
        try:
            async with asyncio.timeout(self._heartbeat_seconds or None):
                return await self._lines.get()
        except TimeoutError:
            return _PING, None

    def _leave(self) -> None:
        """Have whoever still makes something for the client stop it."""
        self._gone.set()
        self._lines.put_nowait(None)

    async def _run(self, number: int, call: TRPCCall) -> None:
        """Make one call, and say how it ended; then do the work for after it."""
        made = await self._make(call)
        if isinstance(made, Ended):
            self._lines.put_nowait((made.line(number, self._transformer), None))
        else:
            await made(call.scope, self._until_gone, partial(self._iterate, self._promise(number), call.path))
        for work in made.background:
            await work()

    def _promise(self, number: int) -> int:
        """Say that a call's result is an iterable, and return its number."""
        result, iterable = next(self._chunks), next(self._chunks)
        line = self._transformer.line
        self._lines.put_nowait((line(b'[%d,0,[[{"result":0}],["result",0,%d]]]' % (number, result), b"", b""), None))
        self._lines.put_nowait((line(b'[%d,0,[[{"data":0}],["data",1,%d]]]' % (result, iterable), b"", b""), None))
        return iterable

    async def _iterate(self, number: int, path: str, message: Message) -> None:
        """Send a message of a streamed query's answer as a line; return when it has left."""
        if message["type"] != "http.response.body":
            return
        line: bytes = message["body"].strip()
        if is_error(message["body"]):
            text = self._transformer.line(b"[%d,2," % number, shape_of(decode_error(line)), b"]")
        elif line:
            text = self._transformer.line(b"[%d,1,[[" % number, line, b"]]]", path=path, at="2.0.0")
        elif not message.get("more_body"):
            text = self._transformer.line(b"[%d,0,[[]]]" % number, b"", b"")
        else:
            return
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.put_nowait((text, sent))
        await sent

    async def _until_gone(self) -> Message:
        await self._gone.wait()
        return {"type": "http.disconnect"}


_PING: Final = b" "


def _head(calls: int) -> bytes:
    return b"{%b}" % b",".join(b'"%d":[[0],[null,0,%d]]' % (number, number) for number in range(calls))


def _may_end(call: TRPCCall) -> bool:
    """Tell whether a call may be cancelled: a mutation may have been made, and then has work to do."""
    return call.callee is None or call.callee.kind != "mutation"


async def _send_line(send: Send, text: bytes) -> None:
    await send({"type": "http.response.body", "body": text, "more_body": True})
