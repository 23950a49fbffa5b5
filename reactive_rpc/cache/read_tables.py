"""The registry of read tables: capture copies the values of no other table (`changes/image_policy.py`).

A table is registered before the first result that depends on it is stored, so capture describes later changes with
their values. A change in between is captured as one of the whole table, which is wider and drops the result. If a name
cannot be written, results are right, and dropped more often until it can.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Final

from reactive_rpc.clock import Clock
from reactive_rpc.dependencies.topics import PREFIX
from reactive_rpc.errors import CaptureError, ServiceUnavailableError

__all__ = ["ReadTableRegistry"]

REPEAT_SECONDS: Final = 24 * 3600.0
"""How often a table is registered again; capture forgets those that nobody has repeated for 30 days."""

RETRY_SECONDS: Final = 5.0

_log = logging.getLogger(__name__)


class ReadTableRegistry:
    """Registers read tables in the database. Used on one event loop.

    Args:
        write: writes names of tables into the database; it may block.
    """

    def __init__(self, write: Callable[[Collection[str]], None], *, clock: Clock) -> None:
        self._write = write
        self._clock = clock
        self._due: dict[str, float] = {}

    async def add(self, tables: Collection[str]) -> None:
        """Register tables, unless that was done lately; if it fails, it is tried again later."""
        now = self._clock.monotonic()
        due = [table for table in tables if self._due.get(table, now) <= now and not table.startswith(PREFIX)]
        if not due:
            return
        wait = REPEAT_SECONDS
        try:
            await asyncio.to_thread(self._write, due)
        except (ServiceUnavailableError, CaptureError) as exc:
            _log.info("not noted that %s are read, so their changes are told without values: %s", due, exc)
            wait = RETRY_SECONDS
        self._due.update(dict.fromkeys(due, now + wait))

    def clear(self) -> None:
        """Register every table again: capture was installed again, or it is another database."""
        self._due.clear()
