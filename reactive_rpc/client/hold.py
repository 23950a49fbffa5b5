"""A hold: one query kept subscribed, whether or not somebody watches it.

A hold that is entered and dropped without being left would keep its query subscribed for as long as the client lives:
it warns, and gives the query back. Nothing of the client refers to the hold itself, so that it can be dropped.
"""

from __future__ import annotations

import asyncio
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar

from reactive_rpc.client.live import Live
from reactive_rpc.client.procedure import Procedure
from reactive_rpc.client.subscriptions import QueryEntry

__all__ = ["Hold"]

T = TypeVar("T")


class Hold(Generic[T]):
    """Keep one query right: `async with hub.agents.get_all.bind().hold(): ...`.

    A watch of the same query that begins meanwhile shows the result at once, and fetches nothing. A hold is entered
    once.

    Args:
        live: the streams of the client.
        procedure: the query.
        fields: its input as JSON values, `{field: value}`; None if it takes none.
    """

    kind: ClassVar[str] = "hold"
    """The word for it in messages."""

    def __init__(self, live: Live, procedure: Procedure[T], fields: dict[str, Any] | None) -> None:
        self._live = live
        self._procedure = procedure
        self._fields = fields
        self._entry: QueryEntry[T] | None = None
        self._loop: asyncio.AbstractEventLoop
        self._left = False
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        if self._entry is not None or self._left:
            raise RuntimeError(f"a {self.kind} is entered once: call {self.kind}() again for another")
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
        path = self._procedure.path
        _warn(f"a {self.kind} of {path} was not left: use `async with`", ResourceWarning, source=self)
        # The garbage collector may run on any thread; a loop that is closed has no client left to give it back to.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_give_back, self._live, entry, self._news.set)

    async def resolved(self) -> None:
        """Wait for the first outcome, or the first failure; return at once if there was one, or when it is over."""
        while self._entry is not None and not (self._entry.ended or self._entry.snapshot.resolved):
            self._news.clear()
            await self._news.wait()


def _give_back(live: Live, entry: QueryEntry[Any], listener: Callable[[], None]) -> None:
    entry.unlisten(listener)
    live.release(entry)
