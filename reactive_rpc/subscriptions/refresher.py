"""The refresher: has watched queries computed again, a few at a time, the callers in turns.

Each caller has a line of its own, and the next query is taken from the next line. A query that several callers show
stands in the line of each; one that many show, in a line that belongs to all. There is no task for a query that waits.
`docs/internals/subscriptions.md` says why.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from reactive_rpc.clock import Clock
from reactive_rpc.subscriptions.limits import CallerKey
from reactive_rpc.subscriptions.watched_query import WatchedQuery
from reactive_rpc.tasks import Tasks

__all__ = ["AT_ONCE", "EACH_AT_ONCE", "RETRY_SECONDS", "Refresher"]

RETRY_SECONDS = 1.0
"""How long to wait before a watched query that failed by accident is computed again."""

AT_ONCE = 8
"""How many watched queries are computed again at a time, so that callers need not queue behind a large commit."""

EACH_AT_ONCE = 6
"""How many of them are one caller's, whether or not others wait: those who come while these run find a place."""

MANY = 4
"""A query of more callers stands in the line that belongs to all."""

Line: TypeAlias = CallerKey | None


class Refresher:
    """Lines of queries that are to be computed again. Used on one event loop.

    Args:
        recompute: computes one; it returns whether to try it again, after a while.
        tasks: those that the hub ends.

    Attributes:
        at_once: how many are computed at a time.
    """

    def __init__(self, recompute: Callable[[WatchedQuery], Awaitable[bool]], *, clock: Clock, tasks: Tasks) -> None:
        self.at_once = AT_ONCE
        self._recompute = recompute
        self._clock = clock
        self._tasks = tasks
        self._lines: OrderedDict[Line, dict[WatchedQuery, None]] = OrderedDict()
        self._standing: dict[WatchedQuery, tuple[Line, ...]] = {}
        self._running: Counter[Line] = Counter()
        self._failed: dict[WatchedQuery, None] = {}
        self._retrying: asyncio.Task[None] | None = None
        self._starting: asyncio.Handle | None = None

    @property
    def waiting(self) -> int:
        """How many queries stand in line."""
        return len(self._standing)

    def add(self, query: WatchedQuery) -> None:
        """Have a query computed in its turn; nothing happens if it stands in line already."""
        if query in self._standing:
            return
        lines: tuple[Line, ...] = tuple(query.callers) if len(query.callers) <= MANY else (None,)
        self._standing[query] = lines = lines or (None,)
        for line in lines:
            self._lines.setdefault(line, {})[query] = None
        self.start_soon()

    def discard(self, query: WatchedQuery) -> None:
        """Let a query leave the line, and try it no more; idempotent."""
        self._failed.pop(query, None)
        for line in self._standing.pop(query, ()):
            waiting = self._lines[line]
            del waiting[query]
            if not waiting:
                del self._lines[line]

    def clear(self) -> None:
        """Forget who waits; the tasks that run are the hub's to end."""
        self._lines.clear()
        self._standing.clear()
        self._failed.clear()
        self._running.clear()
        self._retrying = None

    def start_soon(self) -> None:
        """Begin with whoever stands in line, as far as there is room."""
        if self._starting is None:
            self._starting = asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self._starting = None
        while self._lines and self._running.total() < self.at_once and (taken := self._take()) is not None:
            line, query = taken
            self._running[line] += 1
            self._tasks.start(self._run(line, query), f"refresh {query.query.path}")

    def _take(self) -> tuple[Line, WatchedQuery] | None:
        """Return whose turn it is and the query that stands first in that line, which goes to the end."""
        for line in self._lines:
            if self._running[line] < EACH_AT_ONCE:
                query = next(iter(self._lines[line]))
                self.discard(query)
                if line in self._lines:
                    self._lines.move_to_end(line)
                return line, query
        return None

    async def _run(self, line: Line, query: WatchedQuery) -> None:
        try:
            if await self._recompute(query):
                self._try_later(query)
        finally:
            self._running[line] -= 1
            if not self._running[line]:
                del self._running[line]
            if self._lines:
                self.start_soon()

    def _try_later(self, query: WatchedQuery) -> None:
        self._failed[query] = None
        if self._retrying is None or self._retrying.done():
            self._retrying = self._tasks.start(self._retry(), "retries")

    async def _retry(self) -> None:
        """Put failed queries in line again; one clock for all, as a table that is gone may fail ten thousand."""
        while self._failed:
            await self._clock.sleep(RETRY_SECONDS)
            failed, self._failed = self._failed, {}
            for query in failed:
                self.add(query)
