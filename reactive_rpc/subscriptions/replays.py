"""Replays: the changes that clients which resume have missed, read once for all that stand at the same place.

The changes after a cursor, up to the version reached then, do not alter within an epoch. So whoever asks while they are
read waits for that reading, and the last few readings are kept. Past `at_most` changes there is a gap.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from reactive_rpc.changes.log import Log
from reactive_rpc.dependencies.change import Change
from reactive_rpc.errors import ServiceUnavailableError
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.tasks import Tasks

__all__ = ["Missed", "Replays"]

MAX_KEPT = 8
"""So many readings are kept."""

MAX_SINCE = 100
"""A reading is made anew if more changes came since."""


@dataclass(frozen=True, slots=True)
class Missed:
    """The changes after a cursor.

    Attributes:
        changes: in commit order; None is a gap.
        until: the version up to which they were read.
        epoch: of the log.
    """

    changes: tuple[Change, ...] | None
    until: int
    epoch: str


class Replays:
    """Readings of a log. Used on one event loop.

    Args:
        at_most: more changes than that are a gap.
        tasks: those that the hub ends.
    """

    def __init__(self, log: Log, *, at_most: int, tasks: Tasks) -> None:
        self._log = log
        self._at_most = at_most
        self._tasks = tasks
        self._reading: dict[Cursor, tuple[asyncio.Task[None], asyncio.Future[Missed]]] = {}
        self._kept: OrderedDict[Cursor, Missed] = OrderedDict()

    async def after(self, cursor: Cursor) -> Missed:
        """Return the changes after a cursor, up to a version of not long ago.

        Raises:
            ServiceUnavailableError: it cannot be read.
        """
        kept = self._kept.get(cursor)
        if kept is not None and self._is_recent(kept):
            self._kept.move_to_end(cursor)
            return kept
        if cursor not in self._reading:
            made: asyncio.Future[Missed] = asyncio.get_running_loop().create_future()
            task = self._tasks.start(self._read(cursor, made), "replay")
            task.add_done_callback(lambda _: self._reading.pop(cursor, None))
            self._reading[cursor] = task, made
        task, reading = self._reading[cursor]
        await asyncio.wait([task])
        if not reading.done():
            raise ServiceUnavailableError("the server is about to stop: connect again, to another one")
        return reading.result()

    def _is_recent(self, missed: Missed) -> bool:
        if missed.epoch != self._log.epoch:
            return False
        since = self._log.changes_since(missed.until)
        return since is not None and len(since) <= MAX_SINCE

    async def _read(self, cursor: Cursor, reading: asyncio.Future[Missed]) -> None:
        try:
            changes = await self._log.read_after(cursor, at_most=self._at_most)
            missed = Missed(changes, self._log.version, self._log.epoch)
        except Exception as exc:
            reading.set_exception(exc)
            reading.exception()  # noted: whoever waited may have gone
        else:
            reading.set_result(missed)
            self._kept[cursor] = missed
            self._kept.move_to_end(cursor)
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
