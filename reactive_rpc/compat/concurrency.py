"""What asyncio and anyio let only those do who drive coroutines, or make threads, themselves."""

from __future__ import annotations

import asyncio
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Iterator
from contextlib import contextmanager

from anyio import CancelScope
from anyio._backends._asyncio import AsyncIOBackend
from anyio._core._eventloop import claim_worker_thread, threadlocals

__all__ = ["enter_task", "leave_task", "worker_thread"]

enter_task = _enter_task
"""Make a task the current one of its loop, which has none now. Documented for those who write tasks."""
leave_task = _leave_task
"""End that."""


@contextmanager
def worker_thread(loop: asyncio.AbstractEventLoop, scope: CancelScope) -> Iterator[None]:
    """Make `anyio.from_thread` work in this thread, as in those of anyio's pool.

    Args:
        scope: when it is cancelled, so are calls from here into the loop.
    """
    with claim_worker_thread(AsyncIOBackend, loop):
        threadlocals.current_cancel_scope = scope
        yield
