"""Live results: those in the index, so that every change that touches one finds it.

A result is live while the store holds it or a stream watches it. Nothing else may be served again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

from reactive_rpc.cache.expiries import Expiries
from reactive_rpc.cache.result import CachedResult, ResultKey
from reactive_rpc.cache.stats import Stats
from reactive_rpc.cache.store import Store
from reactive_rpc.clock import Clock
from reactive_rpc.dependencies.index import Index
from reactive_rpc.dependencies.lookup import Lookup
from reactive_rpc.dependencies.period import ALWAYS

__all__ = ["LiveResults"]


class LiveResults:
    """The index, the store and the timer, which are kept in step. Used on one event loop.

    Args:
        expire: called with results that time has ended; it must neither await nor raise.
        stats: counts the results that are stored and evicted.
        want: `Log.want`.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        expire: Callable[[Sequence[CachedResult]], None],
        *,
        stats: Stats,
        want: Callable[[Collection[Lookup]], None] | None = None,
    ) -> None:
        self.index: Index[CachedResult] = Index(want)
        self.expiries = Expiries(clock, expire)
        self._store = store
        self._clock = clock
        self._stats = stats
        self._holders: Counter[ResultKey] = Counter()
        self._held: dict[ResultKey, list[CachedResult]] = {}

    def __len__(self) -> int:
        return len(self.index)

    @property
    def stored(self) -> int:
        """How many results the store holds."""
        return len(self._store)

    @property
    def stored_bytes(self) -> int:
        """Their weight."""
        return self._store.size_bytes

    def get(self, key: ResultKey) -> CachedResult | None:
        """Return the result that is stored at `key`, unless time has ended it."""
        result = self._store.get(key)
        return None if result is None or self.is_over(result) else result

    def is_over(self, result: CachedResult) -> bool:
        """Tell whether time has ended a result, if the timer has not said so yet."""
        period = result.read_set.period
        return period is not ALWAYS and not period.holds(self._clock.time())

    def add(self, result: CachedResult) -> None:
        """Index and store a result that nothing has touched until now.

        The caller awaits nothing between that check and this call.
        """
        self.index.add(result, result.read_set)
        self.expiries.add(result)
        result.live = result.cached = True
        self._stats.stored += 1
        for evicted in self._store.put(result):
            self._stats.evicted += 1
            evicted.cached, evicted.outcome = False, None
            self.release(evicted)

    def release(self, result: CachedResult) -> None:
        """Take a result out of the index once neither store nor stream needs it there; later, while its key is held."""
        if not result.live or result.cached or result.watchers > 0:
            return
        if result.query.key in self._held:
            self._held[result.query.key].append(result)
            return
        result.live = False
        self.index.remove(result)
        self.expiries.remove(result)

    @contextmanager
    def holding(self, key: ResultKey) -> Iterator[None]:
        """Release no result of `key` meanwhile: one may be evicted in the very step that stores it."""
        held = self._held.setdefault(key, [])
        self._holders[key] += 1
        try:
            yield
        finally:
            self._holders[key] -= 1
            if not self._holders[key]:
                del self._holders[key], self._held[key]
                for result in held:
                    self.release(result)

    def remove(self, result: CachedResult) -> None:
        """Take a result out of everything, watched or not."""
        self.index.remove(result)
        self.expiries.remove(result)
        self._store.discard(result)
        _mark_dead(result)

    def clear(self) -> list[CachedResult]:
        """Remove every result and return them."""
        results = self.index.clear()
        self.expiries.clear()
        self._store.clear()
        for result in results:
            _mark_dead(result)
        return results


def _mark_dead(result: CachedResult) -> None:
    result.live = result.cached = False
    result.outcome = None
