"""`now`: the time, as something that a result depends on."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from reactive_rpc.clock import SystemClock
from reactive_rpc.dependencies.period import tick_of
from reactive_rpc.errors import DefinitionError
from reactive_rpc.procedures.running_call import current_call

__all__ = ["now"]

MIN_SECONDS = 1.0
"""The shortest tick: at each one, every watched query that asked is computed again and its clients are told."""


def now(*, every: float) -> datetime:
    """Return the current moment in UTC, rounded down to a multiple of `every` seconds since 1970.

    >>> now(every=86400).hour
    0

        deadline = now(every=60) - timedelta(days=7)
        recent = select(Message).where(Message.created_at > deadline)

    In a query it counts as read: the result holds until the next tick. Then it leaves the cache, and whoever watches it
    is told. In a mutation, and outside of any call, as in a unit test of the handler, it only tells the time.

    Ask in the handler's own task or thread, or in one that inherits its context (`asyncio.to_thread` does,
    `loop.run_in_executor` does not): elsewhere nothing ties the question to the call.

    Args:
        every: seconds; at least 1. Ticks are multiples of it in UTC: a day (86400) ends at midnight in UTC. Where a day
            in another time zone matters, ask `now(every=900)`, in whose multiples every zone's midnight lies.

    Raises:
        DefinitionError: `every` is no such number.
    """
    if isinstance(every, bool) or not isinstance(every, int | float) or not MIN_SECONDS <= every < math.inf:
        raise DefinitionError(f"now(every={every!r}): give a number of seconds, at least 1")
    call = current_call()
    clock = SystemClock() if call is None else call.clock
    tick = tick_of(clock.time(), every)
    if call is not None:
        call.note_time(tick)
    return datetime.fromtimestamp(tick.since, UTC)
