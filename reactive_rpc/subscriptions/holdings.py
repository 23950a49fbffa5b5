"""Holdings: how many queries are watched, for whom, and how much memory that takes.

A watched query cannot be evicted while a stream shows it. So it is counted, for the worker and for each caller, and
what comes past a bound is refused: that query alone, or the stream if its own request is too much. Queries count for
each stream that shows them; bytes once for the worker, and once for each caller (`docs/internals/subscriptions.md`).
Each worker counts for itself.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from reactive_rpc.errors import ServiceUnavailableError, TooManyRequestsError
from reactive_rpc.subscriptions.limits import RETRY_SECONDS, CallerKey, named, retry_after
from reactive_rpc.subscriptions.watched_query import WatchedQuery

__all__ = ["Bounds", "Holdings"]

SHOWN_BYTES = 300
"""The size of a note that a stream shows a query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much may be held, as `Settings` have it."""

    max_watched_queries: int
    max_watched_queries_per_identity: int
    max_watched_bytes: int
    max_watched_bytes_per_identity: int


@dataclass(slots=True)
class _Held:
    queries: int = 0
    size_bytes: int = 0


class Holdings:
    """The memory that the streams of a hub hold. Used on one event loop."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._all = _Held()
        self._by_caller: defaultdict[CallerKey, _Held] = defaultdict(_Held)

    @property
    def size_bytes(self) -> int:
        """The size of all, estimated."""
        return self._all.size_bytes

    def require_query(self, caller: CallerKey, query: WatchedQuery | None, size_bytes: int) -> None:
        """Let a caller watch one more query, if there is room.

        Args:
            query: None if it is not watched yet.
            size_bytes: its weight in that case.

        Raises:
            TooManyRequestsError: the caller watches as much as it may.
            ServiceUnavailableError: the worker does; another may have room.
        """
        bounds, theirs = self._bounds, self._by_caller.get(caller, _Held())
        if theirs.queries >= bounds.max_watched_queries_per_identity:
            raise TooManyRequestsError(
                f"{named(caller)} watches as many queries as it may: {bounds.max_watched_queries_per_identity} "
                "(max_watched_queries_per_identity); each stream's count for themselves; close one",
                headers=retry_after(RETRY_SECONDS),
            )
        if self._all.queries >= bounds.max_watched_queries:
            raise ServiceUnavailableError(
                f"this worker watches as many queries as it may: {bounds.max_watched_queries} (max_watched_queries); "
                "try again, another worker may have room",
                headers=retry_after(RETRY_SECONDS),
            )
        is_theirs = query is not None and caller in query.callers
        size_bytes = size_bytes if query is None else query.size_bytes
        for_them = SHOWN_BYTES + (0 if is_theirs else size_bytes)
        self.require_bytes(caller, for_them, SHOWN_BYTES + (size_bytes if query is None else 0))

    def require_bytes(self, caller: CallerKey, theirs: int, in_all: int) -> None:
        """Let a caller hold so many bytes more, if there is room.

        Raises:
            TooManyRequestsError: the caller holds as much as it may.
            ServiceUnavailableError: the worker does; another may have room.
        """
        bounds, held = self._bounds, self._by_caller.get(caller, _Held())
        if theirs and held.size_bytes + theirs > bounds.max_watched_bytes_per_identity:
            raise TooManyRequestsError(
                f"what {named(caller)} watches takes as much memory as it may: {bounds.max_watched_bytes_per_identity} "
                "bytes (max_watched_bytes_per_identity), inputs and what the results rest on together; watch less",
                headers=retry_after(RETRY_SECONDS),
            )
        if in_all and self._all.size_bytes + in_all > bounds.max_watched_bytes:
            raise ServiceUnavailableError(
                f"what this worker watches takes as much memory as it may: {bounds.max_watched_bytes} bytes "
                "(max_watched_bytes); try again, another worker may have room",
                headers=retry_after(RETRY_SECONDS),
            )

    def add_bytes(self, caller: CallerKey, size_bytes: int) -> None:
        """Count the bytes that a caller holds beside its queries; a negative number gives it back."""
        self._all.size_bytes += size_bytes
        self._by_caller[caller].size_bytes += size_bytes
        self._forget(caller)

    def add(self, caller: CallerKey, query: WatchedQuery) -> None:
        """Count one more stream of the caller's, which is about to show the query."""
        if not query.callers:
            self._all.size_bytes += query.size_bytes
        theirs = self._by_caller[caller]
        if caller not in query.callers:
            theirs.size_bytes += query.size_bytes
        self._all.queries += 1
        theirs.queries += 1
        self.add_bytes(caller, SHOWN_BYTES)

    def remove(self, caller: CallerKey, query: WatchedQuery) -> None:
        """Count one such stream less, which shows it no more."""
        theirs = self._by_caller[caller]
        if caller not in query.callers:
            theirs.size_bytes -= query.size_bytes
        if not query.callers:
            self._all.size_bytes -= query.size_bytes
        self._all.queries -= 1
        theirs.queries -= 1
        self.add_bytes(caller, -SHOWN_BYTES)

    def weigh(self, query: WatchedQuery, size_bytes: int) -> None:
        """Count a query by its weight now; small differences are let be: it may have thousands of callers."""
        before = query.size_bytes
        if before and before / 2 <= size_bytes <= before * 2:
            return
        query.size_bytes = size_bytes
        for caller in query.callers:
            self._by_caller[caller].size_bytes += size_bytes - before
        if query.callers:
            self._all.size_bytes += size_bytes - before

    def _forget(self, caller: CallerKey) -> None:
        held = self._by_caller[caller]
        if not held.queries and not held.size_bytes:
            del self._by_caller[caller]
