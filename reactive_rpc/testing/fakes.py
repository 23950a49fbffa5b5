"""A `ReactiveRPC` whose time and ids a test steers."""

from __future__ import annotations

from typing import Any

from reactive_rpc.app import ReactiveRPC
from reactive_rpc.clock import Clock, IdSource, RandomIds, SystemClock

__all__ = ["faked"]


def faked(*, clock: Clock | None = None, ids: IdSource | None = None) -> type[ReactiveRPC[Any]]:
    """Return a `ReactiveRPC` class whose instances go by this clock and these ids.

        clock = FakeClock()
        rpc = faked(clock=clock)("sqlite+aiosqlite:///team.db", functions=functions)

    Args:
        clock: the time and its waiting; the system's if left out.
        ids: makes the ids of requests, streams and epochs; random ones if left out.
    """

    class FakedRPC(ReactiveRPC[Any]):
        """A `ReactiveRPC` that goes by a test's clock and ids."""

        def _new_clock(self) -> Clock:
            return clock or SystemClock()

        def _new_ids(self) -> IdSource:
            return ids or RandomIds()

    return FakedRPC
