"""The memory store: results by key, bounded in bytes, the least recently used forgotten first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Protocol

from reactive_rpc.cache.result import CachedResult, ResultKey

__all__ = ["MemoryStore", "Store"]


class Store(Protocol):
    """Holds results. Used on one event loop; `put` returns the results that it had to forget."""

    @property
    def size_bytes(self) -> int:
        """The weight of its results, see `CachedResult.size_bytes`."""
        ...

    def get(self, key: ResultKey) -> CachedResult | None:
        """Return the result at `key`, or None."""
        ...

    def put(self, result: CachedResult) -> list[CachedResult]:
        """Hold `result` in the place of any other at its key; return the results that are no longer held."""
        ...

    def discard(self, result: CachedResult) -> None:
        """Forget `result`; nothing happens if it is not held."""
        ...

    def clear(self) -> None:
        """Forget everything."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[CachedResult]: ...


class MemoryStore:
    """A store in this process's memory.

    Args:
        max_bytes: the sum of `CachedResult.size_bytes` never exceeds it; a larger result is not held at all.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._size_bytes = 0
        # Not cachetools.LRUCache: a hit takes 0.5 us here and 1.1 us there, and `put` must tell what it evicts.
        self._results: OrderedDict[ResultKey, CachedResult] = OrderedDict()

    def __len__(self) -> int:
        return len(self._results)

    def __iter__(self) -> Iterator[CachedResult]:
        return iter(self._results.values())

    @property
    def size_bytes(self) -> int:
        """The sum of its results' `size_bytes`."""
        return self._size_bytes

    def get(self, key: ResultKey) -> CachedResult | None:
        """Return the result at `key` and count it as used."""
        result = self._results.get(key)
        if result is not None:
            self._results.move_to_end(key)
        return result

    def put(self, result: CachedResult) -> list[CachedResult]:
        """Hold `result`; return the results that had to go, `result` itself perhaps among them."""
        gone = []
        if old := self._results.get(result.query.key):
            self.discard(old)
            gone.append(old)
        self._results[result.query.key] = result
        self._size_bytes += result.size_bytes
        while self._size_bytes > self.max_bytes:
            oldest = next(iter(self._results.values()))
            self.discard(oldest)
            gone.append(oldest)
        return gone

    def discard(self, result: CachedResult) -> None:
        """Forget `result`."""
        if self._results.get(result.query.key) is result:
            del self._results[result.query.key]
            self._size_bytes -= result.size_bytes

    def clear(self) -> None:
        """Forget everything."""
        self._results.clear()
        self._size_bytes = 0
