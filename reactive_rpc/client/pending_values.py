"""Values on their way from the task that reads them to the one that wants them.

There is no bound here: the reader waits until all are taken before it reads on (`emptied`). So a slow consumer slows
the server down, and memory holds the values of one chunk.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

__all__ = ["PendingValues"]

T = TypeVar("T")


class PendingValues(Generic[T]):
    """Values in order, and how they end.

    Attributes:
        is_over: nothing comes any more, beside the values that are here.
    """

    def __init__(self) -> None:
        self.is_over = False
        self._values: deque[T] = deque()
        self._error: Exception | None = None
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()

    def append(self, value: T) -> None:
        """Hand a value on."""
        self._values.append(value)
        self._filled.set()

    async def emptied(self) -> None:
        """Wait until every value was taken."""
        while self._values:
            self._emptied.clear()
            await self._emptied.wait()

    def clear(self) -> None:
        """Drop the values that nobody has taken."""
        self._values.clear()
        self._emptied.set()

    def finish(self, error: Exception | None) -> None:
        """End it; idempotent, the first time counts.

        Args:
            error: raised after the last value, once; None if all has been said.
        """
        if not self.is_over:
            self.is_over, self._error = True, error
            self._filled.set()

    async def filled(self) -> None:
        """Wait until `pop` has an answer."""
        while not (self._values or self.is_over):
            self._filled.clear()
            await self._filled.wait()

    def pop(self) -> T:
        """Return the next value, which is there.

        Raises:
            StopAsyncIteration: it is over.
            Exception: that with which it has ended; once.
        """
        if not self._values:
            error, self._error = self._error, None
            raise error or StopAsyncIteration
        value = self._values.popleft()
        if not self._values:
            self._emptied.set()
        return value

    def check(self) -> None:
        """Raise the error with which it has ended, if no value stands before it."""
        if not self._values and self._error is not None:
            self.pop()
