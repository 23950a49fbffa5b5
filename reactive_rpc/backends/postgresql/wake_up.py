"""Waking a PostgreSQL log: it is notified by the transactions that write while it sleeps.

It uses the log's own connection: a sleeper's lock belongs to the session that listens, and goes with it.
"""

from __future__ import annotations

import asyncio
from typing import Final

from reactive_rpc.backends.postgresql.connection import FAULTS
from reactive_rpc.backends.postgresql.outbox import Outbox

__all__ = ["NotifiedWakeUp"]

LONGEST_SLEEP_SECONDS: Final = 0.25
"""DDL, and whoever deletes or inserts rows of the outbox by hand, notify nobody."""


class NotifiedWakeUp:
    """Wakes one log; a `WakeUp`.

    Args:
        outbox: of the log.
        lock: held by whoever uses it.
    """

    def __init__(self, outbox: Outbox, lock: asyncio.Lock) -> None:
        self._outbox = outbox
        self._lock = lock

    async def arm(self) -> bool:
        """Ask to be notified, unless the connection is lost, somebody writes just now, or writers may not notify."""
        async with self._lock:
            return self._outbox.is_connected and await self._tried(armed=True)

    async def wait(self) -> bool:
        """Return True when a writer has committed, or the connection was lost; False after `LONGEST_SLEEP_SECONDS`."""
        # INVARIANT (nobody sleeps who is not armed): whoever read the log since may have met a lost connection and made
        # another one, of which no writer knows.
        return not self._outbox.is_armed or await self._outbox.notified(LONGEST_SLEEP_SECONDS)

    async def disarm(self) -> None:
        """Give the sleeper's lock back."""
        async with self._lock:
            if self._outbox.is_armed:
                await self._tried(armed=False)

    async def _tried(self, *, armed: bool) -> bool:
        try:
            return await (self._outbox.arm() if armed else self._outbox.disarm())
        except FAULTS:  # the next read of the log meets them too, and reports them
            self._outbox.terminate()
            return False
        except BaseException:
            self._outbox.terminate()
            raise
