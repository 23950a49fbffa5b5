"""Time and ids, injected: tests drive them and never sleep."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Protocol

__all__ = ["Clock", "IdSource", "RandomIds", "SystemClock"]


class Clock(Protocol):
    """What tells the time and waits. All durations are in seconds."""

    def monotonic(self) -> float:
        """Return seconds that never go back; only differences mean anything."""
        ...

    def time(self) -> float:
        """Return the seconds since 1970 in UTC; they may jump, either way, when the clock is set."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`; cancellable."""
        ...


class IdSource(Protocol):
    """What makes ids that nobody can guess or meet twice."""

    def new_id(self) -> str:
        """Return a fresh id: URL-safe, at most 32 characters."""
        ...


class SystemClock:
    """The real time."""

    def monotonic(self) -> float:
        """Return `time.monotonic()`."""
        return time.monotonic()

    def time(self) -> float:
        """Return `time.time()`."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Wait on the running event loop."""
        await asyncio.sleep(seconds)


class RandomIds:
    """Ids of 96 random bits."""

    def new_id(self) -> str:
        """Return 16 URL-safe characters."""
        return secrets.token_urlsafe(12)
