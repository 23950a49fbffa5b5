"""Writing to many connections at once, without waking a task for each.

The flusher, one callback of the loop for all streams, begins each send itself. A send that ends without having waited
is done; one that waits is left as it is and finished by the stream's own task. `docs/internals/subscriptions.md`
argues why that is safe, and names the rejected ways.
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

__all__ = ["Flusher", "Send", "Write", "Writer"]

Send = Callable[[bytes], Awaitable[None]]
Write = Callable[[bytes], bool]

STREAMS_AT_ONCE = 250
"""So many streams are written to before the event loop goes round: about two milliseconds."""


class Flushable(Protocol):
    """A stream that the flusher writes out."""

    def flush(self, now: float) -> None:
        """Write the waiting frames, as far as that goes without waiting; must not raise."""
        ...


class Flusher:
    """Writes to the streams that have something to say, in the order in which they came. Used on one event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ready: deque[Flushable] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None  # that will write; None where nobody waits

    def add(self, stream: Flushable) -> None:
        """Write to `stream` soon; it must not be waiting for that already."""
        # Until Python 3.12, to ask for the running loop is a call of the system: it would be one for each stream.
        if self._loop is None or self._loop.is_closed():
            self._ready.clear()  # who waited on a loop that has ended is gone with it
            self._loop = asyncio.get_running_loop()
            self._loop.call_soon(self._flush)
        self._ready.append(stream)

    def _flush(self) -> None:
        now = self._clock.monotonic()
        try:
            for _ in range(min(len(self._ready), STREAMS_AT_ONCE)):
                self._ready.popleft().flush(now)
        finally:
            if self._ready and self._loop is not None:
                self._loop.call_soon(self._flush)
            else:
                self._loop = None


class Writer:
    """The way out to one connection. Made in the task that owns the connection, which then waits in `rest`.

    Args:
        send: hands bytes to the connection.
        is_plain: it asks nothing of the task and of the context that it runs in.
        write: writes as `send` would, if that needs no waiting, and tells whether it has; None if there is none.

    Attributes:
        task: the one that owns the connection.
    """

    __slots__ = (
        "_context",
        "_failure",
        "_is_plain",
        "_is_woken",
        "_loop",
        "_pending",
        "_send",
        "_steps",
        "_waiter",
        "_write",
        "task",
    )  # fmt: skip

    def __init__(self, send: Send, *, is_plain: bool = False, write: Write | None = None) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a writer belongs to a task")
        self._send = send
        self._is_plain = is_plain
        self._write = write
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
        """Begin to send; return whether that has ended already. If not, the task is woken to finish it, or to fail.

        Called with no current task, while no send is standing.
        """
        if self._write is not None and self._write(chunk):
            return True
        try:
            self._pending = self._begin(chunk) if self._is_plain else self._begin_in_task(chunk)
        except StopIteration:
            self._steps = None
            return True
        except (Exception, asyncio.CancelledError) as exc:
            self._steps = None
            self._failure = exc
        self.wake()
        return False

    def wake(self) -> None:
        """Let `rest` return; at once if it is not being awaited yet."""
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

    def _begin_in_task(self, chunk: bytes) -> Any:
        # INVARIANT (no await between here and `leave_task`): the stream's task is the current one, and is suspended in
        # `rest`: whatever the send asks of its task, it asks of the one that finishes it.
        enter_task(self._loop, self.task)
        try:
            return self._context.run(self._begin, chunk)
        finally:
            leave_task(self._loop, self.task)


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
