"""Which tables results rest on, told to capture: it keeps no values of any other (`changes/image_policy.py`).

A name is noted before the first result that rests on the table is kept, so a change that comes later is told with its
values. What a change in between is told as (the whole table) is wider, and drops the result. Nothing else waits: where
the note cannot be written, results are right and forgotten more often, until it can.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Final

from reactive_rpc.clock import Clock
from reactive_rpc.dependencies.topics import PREFIX
from reactive_rpc.errors import CaptureError, ServiceUnavailableError

__all__ = ["NotedReads"]

REPEAT_SECONDS: Final = 24 * 3600.0
"""How often a note is repeated; capture forgets those that nobody has repeated for 30 days."""

RETRY_SECONDS: Final = 5.0

_log = logging.getLogger(__name__)


class NotedReads:
    """What has been noted. Used on one event loop.

    Args:
        note: writes names of tables into the database; it may block.
    """

    def __init__(self, note: Callable[[Collection[str]], None], *, clock: Clock) -> None:
        self._note = note
        self._clock = clock
        self._due: dict[str, float] = {}

    async def add(self, tables: Collection[str]) -> None:
        """Note tables, where that has not been done for long; what fails is tried again later."""
        now = self._clock.monotonic()
        due = [table for table in tables if self._due.get(table, now) <= now and not table.startswith(PREFIX)]
        if not due:
            return
        wait = REPEAT_SECONDS
        try:
            await asyncio.to_thread(self._note, due)
        except (ServiceUnavailableError, CaptureError) as exc:
            _log.info("not noted that %s are read, so their changes are told without values: %s", due, exc)
            wait = RETRY_SECONDS
        self._due.update(dict.fromkeys(due, now + wait))

    def forget(self) -> None:
        """Begin anew: capture was installed again, or it is another database."""
        self._due.clear()
