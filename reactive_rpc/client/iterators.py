"""What a call gives whose answer comes bit by bit: an iterator over typed values.

Nothing of the client refers to an iterator, so one that is dropped closes its connection: `break` in a loop over a call
drops it. Whoever keeps it in a variable closes it, with `async with` or `aclose`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, Self, TypeVar

from reactive_rpc.client.answer_reader import AnswerReader
from reactive_rpc.client.event_reader import EventReader
from reactive_rpc.client.item_reader import ItemReader
from reactive_rpc.client.live import Live

__all__ = ["AnswerIterator", "EventIterator", "ItemIterator"]

T = TypeVar("T")


class AnswerIterator(Generic[T]):
    """Hands out the values of one call; the connection is opened when the first one is wanted, or by `async with`.

    Args:
        live: runs the reader.
        reader: reads the answer.
    """

    def __init__(self, live: Live, reader: AnswerReader[T]) -> None:
        self._live = live
        self._reader = reader
        self._loop: asyncio.AbstractEventLoop | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        self._start()
        return await self._reader.take()

    async def __aenter__(self) -> Self:
        """Open the connection.

        Raises:
            RPCError: the server refuses the call; as a call raises it.
            ConnectionFailedError: no answer came.
            WireError: the answer is none of this protocol.
        """
        self._start()
        try:
            await self._reader.opened.wait()
            self._reader.pending.check()
        except BaseException:
            self._reader.stop()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection; the iteration is over, also for a task that waits in it. Idempotent."""
        self._reader.stop()
        await self._reader.ended.wait()

    def pop_left(self) -> T:
        """Return a value that was read before the client was closed; errors as in `PendingValues.pop`."""
        self._reader.end()
        return self._reader.pop()

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        loop: asyncio.AbstractEventLoop | None = getattr(self, "_loop", None)
        if loop is None or self._reader.ended.is_set() or _is_finalizing():
            return
        # The garbage collector may run on any thread; a loop that is closed has no connection left.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(self._reader.stop)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._reader.path}>"

    def _start(self) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._live.read(self._reader)


class EventIterator(AnswerIterator[T]):
    """The values of a subscription: `async for message in hub.messages.sent(room="kitchen"): ...`.

    A connection that is cut is replaced by another, which goes on from the last id. The iteration ends when the
    handler returns or the client is closed; it raises the error with which the handler has failed, or by which the
    server refuses the caller. A slow consumer slows the server down: hardly anything is read ahead.

    Args:
        live: runs the reader.
        reader: reads the answers.
    """

    def __init__(self, live: Live, reader: EventReader[T]) -> None:
        super().__init__(live, reader)
        self._events = reader

    @property
    def last_event_id(self) -> str | None:
        """The id of the last value that was handed out and has one; None if none has.

        Another process goes on after it with the argument `last_event_id`, if the procedure has one.
        """
        return self._events.last_event_id


class ItemIterator(AnswerIterator[T]):
    """The values of a streamed query: `async for row in hub.exports.rows(year=2026): ...`.

    The iteration ends after the last value. It raises the error with which the handler has failed, and
    `ConnectionFailedError` if the answer was cut, or the client closed, before that: a part is never taken for the
    whole. Nothing is asked for again. A slow consumer slows the server down: hardly anything is read ahead.

    Args:
        live: runs the reader.
        reader: reads the answer.
    """

    def __init__(self, live: Live, reader: ItemReader[T]) -> None:
        super().__init__(live, reader)
