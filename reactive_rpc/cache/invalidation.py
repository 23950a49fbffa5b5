"""Invalidation: who is notified when results may have changed, and which invalidations turn out to be needless."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from reactive_rpc.cache.result import CachedResult, Computable

__all__ = ["DroppedResults", "InvalidatedResults", "InvalidationObservers"]

MAX_DROPPED = 10_000
"""Of so many dropped results the ETag is remembered, to tell which need not have been dropped."""


@dataclass(frozen=True, slots=True)
class InvalidatedResults:
    """The results that one batch of changes, or time, has invalidated.

    Attributes:
        version: the log's version.
        results: those that may have changed, each with the tables whose changes touched it, none if time has ended it;
            not indexed any more.
        flush: why everything is gone; None normally.
    """

    version: int
    results: dict[CachedResult, set[str]]
    flush: str | None = None


class InvalidationObservers:
    """Notifies observers, in the order in which they came."""

    def __init__(self) -> None:
        self._observers: list[Callable[[InvalidatedResults], None]] = []

    def add(self, observer: Callable[[InvalidatedResults], None]) -> None:
        """Call `observer`, which must neither await nor raise, after each invalidation."""
        self._observers.append(observer)

    def notify(self, invalidation: InvalidatedResults) -> None:
        """Call every observer, in this step of the event loop."""
        for observer in self._observers:
            observer(invalidation)


@dataclass(frozen=True, slots=True)
class _Dropped:
    """One dropped result: the change that touched it lies in (`after`, `version`]."""

    etag: str
    after: int
    version: int


class DroppedResults:
    """Remembers the latest dropped results, by the hash of their keys: a key may be large."""

    def __init__(self) -> None:
        self._dropped: dict[int, _Dropped] = {}

    def add(self, result: CachedResult, *, after: int, version: int) -> None:
        """Remember a result that a change in (`after`, `version`] has touched."""
        self._dropped[hash(result.query.key)] = _Dropped(result.etag, after, version)
        if len(self._dropped) > MAX_DROPPED:
            del self._dropped[next(iter(self._dropped))]

    def outdated_until(self, query: Computable) -> int:
        """Return the version up to which results of `query` are known to be outdated; -1 if none is."""
        dropped = self._dropped.get(hash(query.key))
        return -1 if dropped is None else dropped.after

    def pop_if_needless(self, result: CachedResult) -> bool:
        """Tell whether the drop of the result's predecessor was needless: it is the same on a snapshot after it."""
        name = hash(result.query.key)
        dropped = self._dropped.get(name)
        if dropped is None or result.version < dropped.version:
            return False
        del self._dropped[name]
        return dropped.etag == result.etag

    def clear(self) -> None:
        """Forget everything."""
        self._dropped.clear()
