"""Computations in flight: a request whose query is being computed may wait for that one (single flight)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from dataclasses import dataclass
from typing import Any

from reactive_rpc.cache.result import Computable, ReadResult, ResultKey
from reactive_rpc.errors import ServiceUnavailableError
from reactive_rpc.tasks import Tasks

__all__ = ["Computation", "InFlight"]


@dataclass(slots=True)
class Computation:
    """One computation in flight.

    Attributes:
        started_at: the version of the log before it began; its snapshot holds at least this.
        depth: of the query that it was started for.
    """

    started_at: int
    depth: int
    task: asyncio.Task[ReadResult]

    async def wait(self) -> ReadResult:
        """Return its result. If the waiting task is cancelled, the computation goes on.

        Raises:
            ServiceUnavailableError: the computation was abandoned, which is no cancellation of those who wait.
            Exception: whatever the computation raised.
        """
        await asyncio.wait([self.task])
        if self.task.cancelled():
            raise ServiceUnavailableError("the server is about to stop: ask again, another one")
        return self.task.result()


class InFlight:
    """The computations in flight, at most one to join for each key. Used on one event loop.

    Args:
        new_context: makes the `contextvars.Context` that a computation runs in: not that of whoever asked, as others
            are given its result too.
    """

    def __init__(self, new_context: Callable[[], Context]) -> None:
        self._new_context = new_context
        self._joinable: dict[ResultKey, Computation] = {}
        self._tasks = Tasks()

    def __len__(self) -> int:
        return len(self._tasks)

    def find(self, query: Computable, *, version: int) -> Computation | None:
        """Return a computation that a request may join; None if it must start its own.

        Args:
            version: of the log, read after the request arrived: the snapshot must hold at least this.
        """
        found = self._joinable.get(query.key)
        # INVARIANT (a call joins only computations begun as deep inside or deeper): any other may be waiting for its
        # turn behind the very call that would wait here.
        if found is None or found.started_at < version or found.depth < query.depth:
            return None
        return found

    def start(self, query: Computable, started_at: int, work: Coroutine[Any, Any, ReadResult]) -> Computation:
        """Run `work`, the computation of `query`, in a task; later requests for its key join this one."""
        name = f"computation {query.key[0]}"
        task = self._tasks.start(work, name, context=self._new_context(), is_awaited=True)
        started = self._joinable[query.key] = Computation(started_at, query.depth, task)

        def on_done(_: asyncio.Task[ReadResult]) -> None:
            if self._joinable.get(query.key) is started:
                del self._joinable[query.key]

        task.add_done_callback(on_done)
        return started

    async def aclose(self) -> None:
        """Abandon every computation; idempotent."""
        await self._tasks.aclose()
