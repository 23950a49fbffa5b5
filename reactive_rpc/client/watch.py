"""A watch: the latest state of one query, again and again.

A watch holds no queue. It remembers the state that its consumer has seen, and hands out the present one when that is
another: a slow consumer skips the states between, and never sees an old state after a newer one.

A watch that is entered and dropped without being left would keep its query subscribed for as long as the client lives:
it warns, and gives the query back. Nothing of the client refers to the watch itself, so that it can be dropped.
"""

from __future__ import annotations

import asyncio
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from reactive_rpc.client.live import Live
from reactive_rpc.client.procedure import Procedure
from reactive_rpc.client.state import State
from reactive_rpc.client.subscriptions import QueryEntry

__all__ = ["Watch"]

T = TypeVar("T")


class Watch(Generic[T]):
    """Follow one query: `async with hub.agents.get_all.watch() as live: async for state in live: ...`.

    The first state comes at once, while the first fetch runs (`data` is None, `is_loading` True). The iteration ends
    when the client closes. A watch is entered once.

    Args:
        live: the streams of the client.
        procedure: the query.
        fields: its input as JSON values, `{field: value}`; None if it takes none.
    """

    def __init__(self, live: Live, procedure: Procedure[T], fields: dict[str, Any] | None) -> None:
        self._live = live
        self._procedure = procedure
        self._fields = fields
        self._entry: QueryEntry[T] | None = None
        self._loop: asyncio.AbstractEventLoop
        self._left = False
        self._seen: State[T] | None = None
        self._news = asyncio.Event()

    @property
    def state(self) -> State[T]:
        """The present state.

        Raises:
            RuntimeError: the watch is not entered.
        """
        return self._entered().state

    async def __aenter__(self) -> Self:
        if self._entry is not None or self._left:
            raise RuntimeError("a watch is entered once: call watch() again for another")
        self._loop = asyncio.get_running_loop()
        self._entry = self._live.acquire(self._procedure, self._fields)
        self._entry.listen(self._news.set)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        entry, self._entry, self._left = self._entry, None, True
        self._news.set()
        if entry is not None:
            _give_back(self._live, entry, self._news.set)

    def __del__(
        self,
        _warn: Callable[..., None] = warnings.warn,
        _is_finalizing: Callable[[], bool] = sys.is_finalizing,
    ) -> None:
        entry = getattr(self, "_entry", None)
        if entry is None or entry.ended or _is_finalizing():
            return
        _warn(f"a watch of {self._procedure.path} was not left: use `async with`", ResourceWarning, source=self)
        # The garbage collector may run on any thread; a loop that is closed has no client left to give it back to.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_give_back, self._live, entry, self._news.set)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> State[T]:
        state = await self.next_state()
        if state is None:
            raise StopAsyncIteration
        return state

    async def next_state(self) -> State[T] | None:
        """Wait for a state that was not handed out yet and return it; None when the watch is over.

        Raises:
            RuntimeError: the watch was never entered.
        """
        if not self._left:
            self._entered()
        while self._entry is not None and not self._entry.ended:
            self._news.clear()
            if self._entry.state is not self._seen:
                self._seen = self._entry.state
                return self._seen
            await self._news.wait()
        return None

    def _entered(self) -> QueryEntry[T]:
        if self._entry is None:
            raise RuntimeError(f"enter the watch of {self._procedure.path} first: `async with ....watch() as live:`")
        return self._entry


def _give_back(live: Live, entry: QueryEntry[Any], listener: Callable[[], None]) -> None:
    entry.unlisten(listener)
    live.release(entry)
