"""Expiries: results that time ends, and the one timer that waits for all of them.

Results that end at the same moment stand together, as those of one tick do, so a heap of moments is all the order there
is. It may hold moments whose results have gone; they are passed over, and swept out when they are most of it.

Nothing right depends on the timer: whoever serves a result asks its period first. `docs/internals/cache.md` says why
observers are notified a little after a tick.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable, Sequence
from contextvars import Context

from reactive_rpc.cache.result import CachedResult
from reactive_rpc.clock import Clock
from reactive_rpc.tasks import Tasks

__all__ = ["GRACE_SECONDS", "Expiries"]

GRACE_SECONDS = 0.1
"""How long after a result's end the timer says so."""

LONGEST_SLEEP_SECONDS = 60.0
"""How late at most a clock that was set forward is noticed."""

AT_ONCE = 200
"""So many results are ended in one step of the event loop: a tick may end thousands, and others have work too."""


class Expiries:
    """Tells when the period of results is over. Used on one event loop.

    Args:
        expire: called with results whose period has ended; it must neither await nor raise, and skip those that went.
    """

    def __init__(self, clock: Clock, expire: Callable[[Sequence[CachedResult]], None]) -> None:
        self._clock = clock
        self._expire = expire
        self._ending: dict[float, dict[CachedResult, None]] = {}
        self._moments: list[float] = []
        self._ends_now = math.inf
        self._tasks = Tasks()
        self._task: asyncio.Task[None] | None = None
        self._is_sleeping = False

    def __len__(self) -> int:
        return sum(map(len, self._ending.values()))

    def add(self, result: CachedResult) -> None:
        """Wait for the end of `result`, if it has one."""
        if result.period.until < math.inf:
            self._wait(result, result.period.until)

    def watch(self, result: CachedResult) -> None:
        """Have `result`, which is about to be watched, end early if its tick has only just begun.

        Whoever is told of it fetches at once, perhaps from a host that still answers for the tick before.
        """
        if result.period.is_exact and result.period.since > self._clock.time() - GRACE_SECONDS:
            self._wait(result, result.period.since)

    def remove(self, result: CachedResult) -> None:
        """Wait for `result` no more; nothing happens if nobody does."""
        ending = self._ending.get(result.period.until)
        if ending is None:
            return
        ending.pop(result, None)
        if not ending:
            del self._ending[result.period.until]
            if len(self._moments) > 2 * len(self._ending) + 64:
                self._moments = list(self._ending)
                heapq.heapify(self._moments)

    def clear(self) -> None:
        """Wait for nothing."""
        self._ending.clear()
        self._moments.clear()

    @property
    def notified_until(self) -> float:
        """A moment: what ends before it has ended on every host, and watchers were notified."""
        return min(self._clock.time() - GRACE_SECONDS, self._ends_now, *self._moments[:1])

    async def aclose(self) -> None:
        """Stop waiting; idempotent. Results that are added later are waited for again."""
        self._task = None
        await self._tasks.aclose()

    def _wait(self, result: CachedResult, moment: float) -> None:
        if moment not in self._ending:
            self._ending[moment] = {}
            heapq.heappush(self._moments, moment)
            if self._moments[0] == moment:
                self._wake()
        self._ending[moment][result] = None

    def _wake(self) -> None:
        """Have the timer look at the heap again: its first moment is another one."""
        if self._task is not None and not self._is_sleeping:
            return  # it is about to
        if self._task is not None:
            self._task.cancel()
        self._is_sleeping = False
        # In an empty context: the timer is no part of the call that is running here.
        self._task = self._tasks.start(self._work(), "ticks", context=Context())

    async def _work(self) -> None:
        while self._moments:
            wait_seconds = self._moments[0] + GRACE_SECONDS - self._clock.time()
            if wait_seconds > 0:
                self._is_sleeping = True
                await self._clock.sleep(min(wait_seconds, LONGEST_SLEEP_SECONDS))
                self._is_sleeping = False
                continue
            await self._end(heapq.heappop(self._moments))
        self._task = None

    async def _end(self, moment: float) -> None:
        """Expire the results that end at `moment`, a few in each step."""
        results = list(self._ending.pop(moment, ()))
        while results:
            some, results = results[:AT_ONCE], results[AT_ONCE:]
            self._ends_now = moment if results else math.inf  # the last ones are told of in this very step
            self._expire([result for result in some if result.live])
            await asyncio.sleep(0)
