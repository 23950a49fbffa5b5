"""Following the log, so that streams are notified of other processes' writes: it is read when something was committed.

While commits follow upon each other, or if the log cannot be woken now, it is read again and again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sized
from typing import Final, NoReturn

from reactive_rpc.changes.log import Batch
from reactive_rpc.changes.wake_up import WakeUp
from reactive_rpc.clock import Clock
from reactive_rpc.errors import ReactiveRPCError, reason_of
from reactive_rpc.health import Part

__all__ = ["IDLE_FACTOR", "LogFollower"]

logger = logging.getLogger(__name__)

IDLE_FACTOR: Final = 4
"""How much further apart reads of the log are while there are no streams to be told."""

LOG_STALLED_SECONDS: Final = 5.0
"""A worker whose log could not be read for so long is not ready: `/health/ready`."""

LOST_SECONDS: Final = 3.0
"""A log that could not be read for so long may be missing commits: streams that stay open would confirm the past."""

LOST_TICKS: Final = 10
"""In so many parts that time is counted, so that a worker without a core counts no more than one of them."""


class LogFollower:
    """Reads the log when it wakes, or in intervals. Used on one event loop.

    Args:
        sync: applies every commit acknowledged before the call.
        age_seconds: returns how long ago the last successful call of `sync` began; infinite before the first.
        wake_up: the log's.
        clock: waits.
        interval_seconds: how far apart reads are, if one follows another, while there are streams; else `IDLE_FACTOR`
            times as far.
        streams: those that are open at any time.
        on_lost: called if the log could not be read for `LOST_SECONDS`.
    """

    def __init__(
        self,
        sync: Callable[[], Awaitable[object]],
        age_seconds: Callable[[], float],
        *,
        wake_up: WakeUp,
        clock: Clock,
        interval_seconds: float,
        streams: Sized,
        on_lost: Callable[[], None],
    ) -> None:
        self._sync = sync
        self._age_seconds = age_seconds
        self._wake_up = wake_up
        self._clock = clock
        self._has_failed = False
        self._has_failed_to_wake = False
        self._has_changes = False
        self._ticks = 0
        self._ticking: asyncio.TimerHandle | None = None
        self._interval_seconds = interval_seconds
        self._streams = streams
        self._on_lost = on_lost

    def apply(self, batch: Batch) -> None:
        """Note that there are changes; to be subscribed to the log."""
        self._has_changes = True

    async def run(self) -> None:
        """Follow until cancelled; outlive any failure, loudly."""
        try:
            while True:
                try:
                    await self._follow()
                except Exception:
                    # It is polled then. Not logged again until it has slept: that may come with each interval.
                    if not self._has_failed_to_wake:
                        logger.exception("the log cannot be waited for, so it is read in intervals")
                    self._has_failed_to_wake = True
                    await self._pause()
        finally:
            if self._ticking is not None:
                self._ticking.cancel()

    async def _follow(self) -> NoReturn:
        while True:
            await self._read()
            await self._wake_up.disarm()
            # However often it is woken, reads are this far apart.
            await self._pause()
            while self._has_changes:
                # Whoever writes without a pause is polled: arming costs a read more, and writers the work of waking.
                if await self._brings_changes():
                    await self._pause()
            if await self._wake_up.arm():
                # INVARIANT (the log was read after it was armed, and before it waits): earlier commits wake nobody.
                while await self._read() and not await self._wake_up.wait():
                    pass
                self._has_failed_to_wake = False

    async def _pause(self) -> None:
        await self._clock.sleep(self._interval_seconds * (1 if self._streams else IDLE_FACTOR))

    async def _brings_changes(self) -> bool:
        """Read the log, and tell whether there was anything new."""
        self._has_changes = False
        await self._read()
        return self._has_changes

    async def _read(self) -> bool:
        """Read the log, and tell whether that could be done."""
        if self._ticking is None:
            # It goes on until the log has been read, however often that fails.
            self._ticking = asyncio.get_running_loop().call_later(LOST_SECONDS / LOST_TICKS, self._tick)
        try:
            await self._sync()
            self._has_failed = False
            self._ticking.cancel()
            self._ticking, self._ticks = None, 0
            return True
        except ReactiveRPCError as exc:
            if not self._has_failed:
                logger.error("the log cannot be followed, retrying: %s", reason_of(exc))
            self._has_failed = True
            self._report_lost()
        except Exception:
            logger.exception("the log cannot be followed, retrying")
        return False

    def health(self) -> Part:
        """Tell whether the log has been read lately."""
        age_seconds = self._age_seconds()
        if age_seconds <= LOG_STALLED_SECONDS + 2 * IDLE_FACTOR * self._interval_seconds:
            return Part(ok=True)
        if age_seconds == float("inf"):
            return Part(ok=False, detail="the log has not been read yet")
        return Part(ok=False, detail=f"the log was last read {age_seconds:.0f} s ago")

    def _tick(self) -> None:
        # INVARIANT (each tick waits for its turn on the event loop): while nothing runs here, no more than one comes.
        # Whoever counted by the clock alone would take a log for lost that was never asked.
        self._ticks += 1
        self._report_lost()
        self._ticking = asyncio.get_running_loop().call_later(LOST_SECONDS / LOST_TICKS, self._tick)

    def _report_lost(self) -> None:
        # Requests read the log, too: while they can, it is not lost.
        if self._ticks >= LOST_TICKS and self._age_seconds() > LOST_SECONDS:
            self._on_lost()
