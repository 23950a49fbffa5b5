"""Attempts: a mutation whose transaction conflicts with another write runs again, from its start.

The database has rolled the transaction back (SQLSTATE 40001 or 40P01), so running it again is what would have happened
if it had come later. Further attempts back off by a random time, and those of one path take turns;
`docs/internals/procedures.md` argues both. SQLite needs none of this: its mutations begin with the write lock
(`backends/sqlite/database.py`).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar
from weakref import WeakValueDictionary

from reactive_rpc.clock import Clock
from reactive_rpc.errors import ConflictError
from reactive_rpc.statements.faults import OvertakenError, was_overtaken

__all__ = ["DEFAULT_ATTEMPTS", "Attempts"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

DEFAULT_ATTEMPTS: Final = 10
FIRST_WAIT_SECONDS: Final = 0.002
LONGEST_WAIT_SECONDS: Final = 0.25


class Attempts:
    """Runs mutations, again where they were overtaken.

    Args:
        clock: what waits between attempts.

    Attributes:
        repeated: how many attempts followed another.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.repeated = 0

    async def run(self, path: str, work: Callable[[], Awaitable[T]], *, at_most: int) -> T:
        """Return what `work` returns, begun anew until it was not overtaken.

        Raises:
            ConflictError: it was, `at_most` times; `details` is `{"retry": True}`.
            Exception: whatever else `work` raises.
        """
        for attempt in range(1, at_most):
            try:
                return await self._attempt(path, work, attempt)
            except Exception as exc:
                if not was_overtaken(exc):
                    raise
            longest_seconds = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**attempt)
            await self._clock.sleep(random.random() * longest_seconds)  # noqa: S311  # jitter, no secret
            self.repeated += 1
        try:
            return await self._attempt(path, work, at_most)
        except OvertakenError as exc:
            raise _exhausted(path, at_most) from exc

    async def _attempt(self, path: str, work: Callable[[], Awaitable[T]], attempt: int) -> T:
        if attempt == 1:
            return await work()
        async with self._turns.setdefault(path, asyncio.Lock()):
            return await work()


def _exhausted(path: str, attempts: int) -> ConflictError:
    logger.warning(
        "%s was overtaken by other writes %d times and gave up: let it touch fewer rows or end sooner, give it more "
        "attempts=, or isolation='read_committed' and lock what it reads with SELECT ... FOR UPDATE",
        path,
        attempts,
    )
    times = "" if attempts == 1 else f" at each of {attempts} attempts"
    return ConflictError(
        f"another write came in between{times}, nothing was written: try again", details={"retry": True}
    )
