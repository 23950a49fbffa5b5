"""The task that reads an answer which comes bit by bit, for one iterator."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import anyio

from reactive_rpc.client.pending_values import PendingValues

__all__ = ["AnswerReader"]

T = TypeVar("T")


class AnswerReader(ABC, Generic[T]):
    """Reads values. Belongs to one event loop; refers to no iterator, so that one that is dropped can be noticed.

    Attributes:
        pending: the values that were read, and not taken yet.
        path: of the procedure.
        opened: the answer has begun, or will not.
        ended: nothing is read any more, and the connection is closed.
    """

    def __init__(self, path: str) -> None:
        self.pending: PendingValues[Any] = PendingValues()
        self.path = path
        self.opened = asyncio.Event()
        self.ended = asyncio.Event()
        self._life: anyio.CancelScope | None = None

    async def run(self) -> None:
        """Read to the end. If the task is cancelled, whoever does that calls `end` afterwards."""
        error: Exception | None = None
        with anyio.CancelScope() as self._life:
            if not self.pending.is_over:
                error = await self._read()
        self._finish(error)

    def stop(self) -> None:
        """Read no more, and close the connection: nobody wants the rest."""
        self.pending.clear()
        self.pending.finish(None)
        if self._life is None:
            self._finish(None)
        else:
            self._life.cancel()

    def end(self) -> None:
        """Hear that the client is closed."""
        self._finish(self._closed())

    def reidentify(self) -> None:
        """Hear that the caller is another from now on."""

    def pop(self) -> T:
        """Return the next value, which is there; see `PendingValues.pop`."""
        value: T = self.pending.pop()
        return value

    async def take(self) -> T:
        """Wait for the next value and return it; errors as in `PendingValues.pop`."""
        await self.pending.filled()
        return self.pop()

    @abstractmethod
    async def _read(self) -> Exception | None:
        """Read the values; return the error with which that has ended."""

    @abstractmethod
    def _closed(self) -> Exception | None:
        """Return the error that a consumer gets whose client was closed; None if the iteration just ends."""

    def _finish(self, error: Exception | None) -> None:
        self.pending.finish(error)
        self.opened.set()
        self.ended.set()
