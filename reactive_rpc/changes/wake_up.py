"""Waking whoever follows a log when something is committed, in the place of reading it again and again.

    if await wake_up.arm():
        await log.sync_to_head()
        await wake_up.wait()

It only saves reads: nothing is fresh because nobody was woken. docs/internals/logs.md says why none is lost.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["NoWakeUp", "WakeUp"]


class WakeUp(Protocol):
    """Of one log, for its one follower. Used on one event loop."""

    async def arm(self) -> bool:
        """See to it that commits wake `wait`; False if that cannot be promised now, so that the log must be polled.

        Commits of before wake nobody: the log must be read once more between this and `wait`.
        """
        ...

    async def wait(self) -> bool:
        """Return True when something may have been committed; False after a time that bounds every error of ours.

        After False it is still armed.
        """
        ...

    async def disarm(self) -> None:
        """Spare writers the work of waking; idempotent."""
        ...


class NoWakeUp:
    """Of a log that cannot be woken: it is polled."""

    async def arm(self) -> bool:
        """Promise nothing."""
        return False

    async def wait(self) -> bool:
        """Return at once: it was never armed."""
        return True

    async def disarm(self) -> None:
        """Do nothing."""
