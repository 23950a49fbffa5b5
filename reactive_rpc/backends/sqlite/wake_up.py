"""Waking a SQLite log: whoever writes writes the `-wal` file, which is watched where the system can do that.

A commit shows only some time after its last write to that file, without another event: the shared index is set when the
file is on the disk. So what an event announces is looked for at short distances, and only so long: a transaction
that is rolled back, or a checkpoint, writes the file too. docs/internals/capture-sqlite.md ("Waking the log") says what
could be missed, and for how long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from reactive_rpc.backends.sqlite.wal_watch import WALWatch

__all__ = ["WALWakeUp"]

LONGEST_SLEEP_SECONDS: Final = 0.1
"""So late is a commit seen at most of which no event tells in time."""
SHOWS_SECONDS: Final = 0.05
"""How long after an event a commit is looked for."""
FIRST_LOOK_SECONDS: Final = 0.000_25
LAST_LOOK_SECONDS: Final = 0.005
LOOP_TIMER_SECONDS: Final = 0.001


class WALWakeUp:
    """Wakes one log; a `WakeUp`.

    Args:
        path: of the database.
        has_moved: tells whether there is anything that the log has not read; it reads a value in shared memory.
    """

    def __init__(self, path: str, has_moved: Callable[[], bool]) -> None:
        self._path = path
        self._has_moved = has_moved
        self._watch = WALWatch()

    async def arm(self) -> bool:
        """Watch the `-wal` file; False if there is none, or if it cannot be watched."""
        return self._watch.begin(_wal_of(self._path))

    async def wait(self) -> bool:
        """Return True when a commit shows, or nothing is watched any more; False if none did, for so long."""
        if await self._watch.written(LONGEST_SLEEP_SECONDS) and await self._shows():
            return True
        return not await self.arm()  # the file may be another one by now

    async def _shows(self) -> bool:
        """Tell whether the commit that an event announces shows in time."""
        loop = asyncio.get_running_loop()
        give_up_at, pause = loop.time() + SHOWS_SECONDS, FIRST_LOOK_SECONDS
        while not self._has_moved():
            # INVARIANT (each event that is forgotten is followed by looks for SHOWS_SECONDS): those that came since the
            # last look that found nothing may announce another commit than the one that shows first.
            if self._watch.clear():
                give_up_at = loop.time() + SHOWS_SECONDS
            elif loop.time() > give_up_at:
                return False
            await _slept(pause)
            pause = min(2 * pause, LAST_LOOK_SECONDS)
        return True

    async def disarm(self) -> None:
        """Do nothing: events cost writers nothing."""

    def close(self) -> None:
        """Let go of the watch; idempotent."""
        self._watch.close()


def _wal_of(path: str) -> str:
    # SQLite keeps it beside the file itself, also where the path is a link.
    return f"{Path(path).resolve()}-wal"


async def _slept(seconds: float) -> None:
    if seconds >= LOOP_TIMER_SECONDS:
        await asyncio.sleep(seconds)
        return
    # An event loop's own timers are whole milliseconds, rounded up.
    with suppress(TimeoutError):
        # INVARIANT (no thread is waited for): an application may keep all of the loop's own for as long as it likes.
        async with asyncio.timeout(LOOP_TIMER_SECONDS):
            await asyncio.to_thread(time.sleep, seconds)
