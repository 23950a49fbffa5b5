"""The one place where the server makes tasks: each has a name, an owner that ends it, and a failure that is seen.

`Tasks` are those of one part, `OnDemand` is one that runs while there is work, `background` is that of a block of code.
docs/internals/tasks.md: which part needs which, and why a task group serves none of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from contextvars import Context
from functools import partial
from typing import Any, Final, TypeVar

from reactive_rpc.health import Health, Part

__all__ = ["OnDemand", "Tasks", "background", "end_task", "shielded", "to_its_end", "within"]

T = TypeVar("T")
logger = logging.getLogger(__name__)

ABANDONED_SECONDS: Final = 0.05
"""How long after `within` has cancelled its work, and it goes on, it is cancelled again."""


class Tasks:
    """The tasks of one part. Used on one event loop; after `aclose` it can be used again.

    Args:
        health: names the tasks that `keep` runs as parts.
        patience_seconds: how long the tasks may clean up at `aclose` before they are cancelled again, see `end_task`.
    """

    def __init__(self, *, health: Health | None = None, patience_seconds: float | None = None) -> None:
        self._health = health
        self._patience_seconds = patience_seconds
        self._running: set[asyncio.Task[Any]] = set()
        self._parts: list[Callable[[], None]] = []

    def start(
        self, work: Coroutine[Any, Any, T], name: str, *, context: Context | None = None, is_awaited: bool = False
    ) -> asyncio.Task[T]:
        """Run `work` until it ends or this is closed.

        Args:
            context: to run it in; a copy of the current one if left out.
            is_awaited: whoever awaits the task sees its failure, and nobody if all have gone; otherwise it is logged.
        """
        task = asyncio.create_task(work, name=f"reactive_rpc {name}", context=context)
        self._running.add(task)
        task.add_done_callback(self._forget if is_awaited else self._report)
        return task

    def keep(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run `work`, which has no end of its own, until this is closed; if it ends before, its part is dead."""
        task = self.start(work, name)
        if self._health is not None:
            self._parts.append(self._health.add(name, partial(_part_of, task)))

    def __len__(self) -> int:
        return len(self._running)

    async def aclose(self) -> None:
        """Cancel the tasks, and wait until all have ended; idempotent."""
        for remove in self._parts:
            remove()
        self._parts.clear()
        await end_task(*self._running, patience_seconds=self._patience_seconds)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # asyncio takes it as seen

    def _report(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s has died", task.get_name(), exc_info=error)


class OnDemand:
    """One task that runs while there is work for it, and ends by itself when there is none. Used on one event loop.

    It runs in an empty context: it is no part of the call in which the work came up.

    Args:
        work: does what there is to do, and returns when nothing is left.
        name: of the task.
    """

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        self._work = work
        self._name = name
        self._tasks = Tasks()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether there is work."""
        return self._task is not None and not self._task.done()

    def wake(self) -> None:
        """See that it runs."""
        if not self.is_running:
            self._task = self._tasks.start(self._work(), self._name, context=Context())

    async def wait(self, *, timeout_seconds: float | None = None) -> None:
        """Return when it has ended, or the time is up; a cancelled caller leaves it running."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=timeout_seconds)

    async def aclose(self) -> None:
        """Cancel it, and wait until it has ended; idempotent. It can be woken again."""
        await self._tasks.aclose()
        self._task = None


@asynccontextmanager
async def background(
    work: Coroutine[Any, Any, T], name: str, *, context: Context | None = None, patience_seconds: float | None = None
) -> AsyncIterator[asyncio.Task[T]]:
    """Run `work` beside the block, which sees its result or failure if it awaits the task; end it with the block."""
    task = asyncio.create_task(work, name=f"reactive_rpc {name}", context=context)
    try:
        yield task
    finally:
        await end_task(task, patience_seconds=patience_seconds)


async def end_task(*tasks: asyncio.Task[Any], patience_seconds: float | None = None) -> None:
    """Cancel tasks, and wait until all have ended; what they raise is for nobody any more.

    Args:
        patience_seconds: after so long, which must suffice to clean up, tasks that go on are cancelled again. That is
            for those that talk to Redis: its driver sends under `asyncio.wait_for`, which in Python 3.11 swallows a
            cancellation that comes in the very step in which the sending ends (python/cpython#86296). None, for all
            others, never interrupts the cleaning up.
    """
    while going := [task for task in tasks if not task.done()]:
        for task in going:
            task.cancel()
        await asyncio.wait(going, timeout=patience_seconds)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # asyncio takes it as seen


async def within(seconds: float, work: Coroutine[Any, Any, T], name: str) -> T:
    """Return what `work` returns; past the time, abandon it: it is cancelled until it ends, and not waited for.

    `asyncio.timeout` does not suffice for a driver that swallows a cancellation, see `end_task`: it would wait for the
    driver's own timeouts.

    Raises:
        TimeoutError: it took longer.
    """
    task = asyncio.create_task(work, name=f"reactive_rpc {name}")
    try:
        await asyncio.wait([task], timeout=seconds)
        if not task.done():
            raise TimeoutError(f"no answer within {seconds} s")
        return task.result()
    finally:
        _abandon(task)


async def shielded(work: Coroutine[Any, Any, T], name: str) -> T:
    """Return what `work` returns. A cancelled caller ends at once, and the work goes on without it."""
    return await asyncio.shield(asyncio.create_task(work, name=f"reactive_rpc {name}"))


async def to_its_end(work: Coroutine[Any, Any, T] | asyncio.Future[T], name: str) -> T:
    """Return what `work` returns. A cancelled caller ends as well only when the work has.

    Raises:
        asyncio.CancelledError: the caller was cancelled; the work has succeeded nevertheless.
    """
    task = work if isinstance(work, asyncio.Future) else asyncio.create_task(work, name=f"reactive_rpc {name}")
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as exc:
            cancelled = exc
    result = task.result()
    if cancelled is not None:
        raise cancelled
    return result


def _part_of(task: asyncio.Task[None]) -> Part:
    return Part(ok=False, detail="has ended", is_dead=True) if task.done() else Part(ok=True)


def _abandon(task: asyncio.Task[Any]) -> None:
    if not task.done():
        task.cancel()
        asyncio.get_running_loop().call_later(ABANDONED_SECONDS, _abandon, task)
    elif not task.cancelled():
        task.exception()
