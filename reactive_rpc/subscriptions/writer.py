"""Writing to many connections at once, without waking a task for each.

A task that waits for a queue costs two turns of the event loop and a walk down its stack of coroutines for each event,
and with thousands of streams that is most of the time which an event takes. Nearly always it is for nothing: `send`
ends without having waited, as the transport takes the bytes into its buffer. So the flusher, one callback of the loop
for all streams, begins each send itself. What ends at once is done. What waits (the buffer is past its high-water mark,
a middleware hands the message to another task) is left where it stands and finished by the stream's own task.

*Why this is safe.* An awaitable is a generator that somebody drives; `asyncio.Task` is one driver, and nothing ties a
generator to the driver that began it but what it asks about its surroundings:

- the current task: the flusher enters the stream's own task around each step (`asyncio._enter_task`, documented for
  those who write tasks), and the same task finishes the rest. So a time limit or a cancel scope of anyio that a
  middleware puts around its send concerns the stream's task, begins in it and ends in it. That task is then suspended
  in `rest`, so it does not run at the same time, and being cancelled meanwhile it throws away what was left standing.
- the context: every step runs in one copy of the task's context, so a `ContextVar` set in a send can be reset in it.
- the loop: a callback of the same one. What a send waits for is a future of this loop, which the task awaits in its
  place.

*One sender at a time.* A stream is either idle, or in the flusher's queue, or has one send standing that its task
finishes, after which it is queued again. So frames neither mix nor overtake each other. An error of a send goes to the
task, which raises it where an ordinary `await send(...)` would have.

*Fairness.* The flusher writes to `STREAMS_AT_ONCE` streams, then lets the loop go round: an event for ten thousand
streams takes a tenth of a second, in which requests are still answered.

Rejected: a queue and a task a stream (three times the time and half as much memory again); writing to the transport
itself, past ASGI (middleware and other servers would break); tasks that begin eagerly (Python 3.12, and one a frame).
"""

from __future__ import annotations

import asyncio
import types
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Protocol

from reactive_rpc.clock import Clock
from reactive_rpc.compat.concurrency import enter_task, leave_task

__all__ = ["Flusher", "Send", "Writer"]

Send = Callable[[bytes], Awaitable[None]]

STREAMS_AT_ONCE = 250
"""So many streams are written to before the event loop goes round: about two milliseconds."""


class Flushable(Protocol):
    """What the flusher writes out."""

    def flush(self, now: float) -> None:
        """Write what waits, as far as that goes without waiting; must not raise."""
        ...


class Flusher:
    """Writes to the streams that have something to say, in the order in which they came. Used on one event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ready: deque[Flushable] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None  # that will write; None where nobody waits

    def add(self, stream: Flushable) -> None:
        """Write to `stream` soon; it must not be waiting for that already."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # who waited on a loop that has ended is gone with it
            self._ready.clear()
            self._loop = loop
            loop.call_soon(self._flush)
        self._ready.append(stream)

    def _flush(self) -> None:
        now = self._clock.monotonic()
        try:
            for _ in range(min(len(self._ready), STREAMS_AT_ONCE)):
                self._ready.popleft().flush(now)
        finally:
            if self._ready:
                asyncio.get_running_loop().call_soon(self._flush)
            else:
                self._loop = None


class Writer:
    """The way out to one connection. Made in the task that owns the connection, which then waits in `rest`.

    Args:
        send: hands bytes to the connection.

    Attributes:
        task: the one that owns the connection.
    """

    __slots__ = ("_context", "_failure", "_is_woken", "_loop", "_pending", "_send", "_steps", "_waiter", "task")

    def __init__(self, send: Send) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a writer belongs to a task")
        self._send = send
        self.task = task
        self._loop = asyncio.get_running_loop()
        self._context: Context = copy_context()
        self._steps: Generator[Any, Any, None] | None = None
        self._pending: Any = None
        self._failure: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._is_woken = False

    @property
    def is_sending(self) -> bool:
        """Whether a send was begun and is not finished."""
        return self._steps is not None

    def start(self, chunk: bytes) -> bool:
        """Begin to send; tell whether that has ended already. If not, the task is woken to finish it, or to fail.

        Called with no current task, while no send is standing.
        """
        enter_task(self._loop, self.task)
        try:
            self._pending = self._context.run(self._begin, chunk)
        except StopIteration:
            self._steps = None
            return True
        except (Exception, asyncio.CancelledError) as exc:
            self._steps = None
            self._failure = exc
        finally:
            leave_task(self._loop, self.task)
        self.wake()
        return False

    def wake(self) -> None:
        """Let `rest` return; at once where it is not being awaited yet."""
        self._is_woken = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def interrupt(self) -> None:
        """Cancel the task, which is in `rest`."""
        self.task.cancel()

    async def rest(self) -> None:
        """Wait until woken, and finish the send that is standing.

        Raises:
            Exception: whatever the send raised.
        """
        try:
            if not self._is_woken:
                self._waiter = self._loop.create_future()
                await self._waiter
            if self._steps is not None:
                await _finish(self._steps, self._pending, self._context)
        finally:
            self._is_woken = False
            self._waiter = self._pending = None
            steps, self._steps = self._steps, None
            if steps is not None:
                self._context.run(steps.close)
        if self._failure is not None:
            raise self._failure

    def _begin(self, chunk: bytes) -> Any:
        self._steps = self._send(chunk).__await__()
        return next(self._steps)


@types.coroutine
def _finish(steps: Generator[Any, Any, None], pending: Any, context: Context) -> Generator[Any, Any, None]:
    """Drive `steps` on, which waits for `pending`, as `await` would."""
    while True:
        resume: Callable[[], Any]
        try:
            resume = partial(steps.send, (yield pending))
        except BaseException as exc:
            resume = partial(steps.throw, exc)
        try:
            pending = context.run(resume)
        except StopIteration:
            return
