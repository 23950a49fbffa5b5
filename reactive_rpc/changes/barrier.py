"""The barrier of a log: whoever waits for it gets an answer to a question that was asked after it began to wait.

One question is asked at a time, and all who come while it is under way share the next. docs/internals/logs.md says why
that is enough for a log's promise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

from reactive_rpc.tasks import Tasks

__all__ = ["Barrier"]


class Barrier:
    """Asks on behalf of many. Used on one event loop.

    Args:
        ask: asks once, and returns when it is answered; its error is raised by everyone who waits for this answer.
        name: of the tasks in which it runs.
    """

    def __init__(self, ask: Callable[[], Coroutine[object, object, None]], name: str) -> None:
        self._ask = ask
        self._name = name
        self._tasks = Tasks()
        self._running: asyncio.Task[None] | None = None
        self._queued: asyncio.Task[None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a question is under way, or waits for its turn."""
        return bool(self._unanswered)

    async def wait(self) -> None:
        """Return when a question has been answered that was asked after this call.

        A caller that is cancelled ends at once; the question goes on, as it belongs to nobody.

        Raises:
            Exception: the question's own.
        """
        if self._queued is None or self._queued.done():
            self._queued = self._tasks.start(self._ask_after(self._running), self._name, is_awaited=True)
        await asyncio.shield(self._queued)

    async def drain(self) -> None:
        """Return when the questions that were there at this call have been answered, or have failed."""
        if self._unanswered:
            await asyncio.wait(self._unanswered)

    @property
    def _unanswered(self) -> list[asyncio.Task[None]]:
        return [task for task in (self._running, self._queued) if task is not None and not task.done()]

    async def _ask_after(self, previous: asyncio.Task[None] | None) -> None:
        if previous is not None and not previous.done():
            await asyncio.wait([previous])
        previous = None  # an error keeps this frame: in an outage each would keep the one before
        # INVARIANT (no await between here and the question): whoever comes later starts the next one.
        self._running, self._queued = self._queued, None
        await self._ask()
