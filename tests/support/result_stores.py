"""A store of results in a dict, for workers of one process, and the wrong stores that the tests of stores must find."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from reactive_rpc.cache.result_store import FoundResult, StoredResult

__all__ = ["WRONG_STORES", "DictStore", "HasNoLeases", "Shelves"]


@dataclass
class Shelves:
    """The place that the stores of several workers share.

    Attributes:
        results: `{name: (result, until when it is kept)}`.
        leases: `{name: (version, until when it holds)}`.
    """

    results: dict[str, tuple[StoredResult, float]] = field(default_factory=dict)
    leases: dict[str, tuple[int, float]] = field(default_factory=dict)


class DictStore:
    """A `ResultStore` in memory."""

    def __init__(self, shelves: Shelves) -> None:
        self._shelves = shelves

    async def open(self) -> None:
        """Nothing to open."""

    async def aclose(self) -> None:
        """Nothing to close."""

    async def find(
        self, name: str, *, after: int, version: int, lease_seconds: float, wait_seconds: float
    ) -> FoundResult:
        found = self.kept(name, after)
        if found is not None:
            return found.content
        leased, until = self._shelves.leases.get(name, (-1, 0.0))
        if leased > after and time.monotonic() < until:
            return "wait"
        self._shelves.leases[name] = (version, time.monotonic() + lease_seconds)
        return "compute"

    async def put(self, results: Sequence[StoredResult], *, released: Sequence[str]) -> None:
        for result in results:
            self._shelves.results[result.name] = (result, time.monotonic() + result.ttl_seconds)
        for name in released:
            self._shelves.leases.pop(name, None)

    def kept(self, name: str, after: int) -> StoredResult | None:
        """Return the result of a name that is above a version."""
        result, until = self._shelves.results.get(name, (None, 0.0))
        return result if result is not None and result.version > after and time.monotonic() < until else None


class _KeepsText(DictStore):
    """A seeded bug: contents are text."""

    async def find(
        self, name: str, *, after: int, version: int, lease_seconds: float, wait_seconds: float
    ) -> FoundResult:
        found = await super().find(
            name, after=after, version=version, lease_seconds=lease_seconds, wait_seconds=wait_seconds
        )
        return found.decode("utf-8", "replace").encode() if isinstance(found, bytes) else found


class _GivesViews(DictStore):
    """A seeded bug: contents are as the driver of the database returns them."""

    async def find(
        self, name: str, *, after: int, version: int, lease_seconds: float, wait_seconds: float
    ) -> FoundResult:
        found = await super().find(
            name, after=after, version=version, lease_seconds=lease_seconds, wait_seconds=wait_seconds
        )
        return memoryview(found) if isinstance(found, bytes) else found  # type: ignore[return-value]  # the bug


class _CutsNames(DictStore):
    """A seeded bug: a column of the database is too short for names."""

    async def find(
        self, name: str, *, after: int, version: int, lease_seconds: float, wait_seconds: float
    ) -> FoundResult:
        return await super().find(
            name[:63], after=after, version=version, lease_seconds=lease_seconds, wait_seconds=wait_seconds
        )

    async def put(self, results: Sequence[StoredResult], *, released: Sequence[str]) -> None:
        cut = [StoredResult(each.name[:63], each.version, each.content, each.ttl_seconds) for each in results]
        await super().put(cut, released=[name[:63] for name in released])


class _KeepsTheFirst(DictStore):
    """A seeded bug: INSERT OR IGNORE."""

    async def put(self, results: Sequence[StoredResult], *, released: Sequence[str]) -> None:
        await super().put([each for each in results if each.name not in self._shelves.results], released=released)


class _GivesOutdated(DictStore):
    """A seeded bug: nobody looks at the version."""

    def kept(self, name: str, after: int) -> StoredResult | None:
        return super().kept(name, -1)


class _ComparesTexts(DictStore):
    """A seeded bug: versions are compared as texts."""

    def kept(self, name: str, after: int) -> StoredResult | None:
        found = super().kept(name, -1)
        return found if found is not None and str(found.version) > str(after) else None


class _KeepsForEver(DictStore):
    """A seeded bug: nothing ends."""

    def kept(self, name: str, after: int) -> StoredResult | None:
        result, _ = self._shelves.results.get(name, (None, 0.0))
        return result if result is not None and result.version > after else None


class _EndsTooEarly(DictStore):
    """A seeded bug: a result that is put anew ends with the one before."""

    async def put(self, results: Sequence[StoredResult], *, released: Sequence[str]) -> None:
        ends = {name: until for name, (_, until) in self._shelves.results.items()}
        await super().put(results, released=released)
        for name, until in ends.items():
            self._shelves.results[name] = (self._shelves.results[name][0], until)


class HasNoLeases(DictStore):
    """A seeded bug: everybody computes."""

    async def find(
        self, name: str, *, after: int, version: int, lease_seconds: float, wait_seconds: float
    ) -> FoundResult:
        found = self.kept(name, after)
        return "compute" if found is None else found.content


class _LeasesForEver(DictStore):
    """A seeded bug: a lease ends when it is given back, and only then."""

    async def find(
        self, name: str, *, after: int, version: int, lease_seconds: float, wait_seconds: float
    ) -> FoundResult:
        return await super().find(name, after=after, version=version, lease_seconds=1e9, wait_seconds=wait_seconds)


class _LeasesToOutdated(DictStore):
    """A seeded bug: a lease is a lease, whatever its version."""

    async def find(
        self, name: str, *, after: int, version: int, lease_seconds: float, wait_seconds: float
    ) -> FoundResult:
        return await super().find(
            name, after=after, version=2**62, lease_seconds=lease_seconds, wait_seconds=wait_seconds
        )


class _ReleasesNothing(DictStore):
    """A seeded bug: leases that are given back are kept."""

    async def put(self, results: Sequence[StoredResult], *, released: Sequence[str]) -> None:
        await super().put(results, released=())


class _IsItsOwn(DictStore):
    """A seeded bug: each worker has a place of its own."""

    def __init__(self, shelves: Shelves) -> None:
        super().__init__(Shelves())


class _FailsOnNothing(DictStore):
    """A seeded bug: DELETE ... WHERE name IN (), and whoever releases must hold a lease."""

    async def put(self, results: Sequence[StoredResult], *, released: Sequence[str]) -> None:
        for name in released:
            del self._shelves.leases[name]
        await super().put(results, released=())


class _OpensOnce(DictStore):
    """A seeded bug: what was closed stays closed."""

    _is_closed = False

    async def aclose(self) -> None:
        self._is_closed = True

    async def find(
        self, name: str, *, after: int, version: int, lease_seconds: float, wait_seconds: float
    ) -> FoundResult:
        if self._is_closed:
            raise RuntimeError("closed")
        return await super().find(
            name, after=after, version=version, lease_seconds=lease_seconds, wait_seconds=wait_seconds
        )


class _WaitsForNobody(DictStore):
    """A seeded bug: whoever finds nothing is told that somebody is at it."""

    async def find(
        self, name: str, *, after: int, version: int, lease_seconds: float, wait_seconds: float
    ) -> FoundResult:
        found = self.kept(name, after)
        return "wait" if found is None else found.content


class _TakesOne(DictStore):
    """A seeded bug: of many results the first is kept."""

    async def put(self, results: Sequence[StoredResult], *, released: Sequence[str]) -> None:
        await super().put(results[:1], released=released)


WRONG_STORES: tuple[Callable[[Shelves], DictStore], ...] = (
    _KeepsText,
    _GivesViews,
    _CutsNames,
    _KeepsTheFirst,
    _GivesOutdated,
    _ComparesTexts,
    _KeepsForEver,
    _EndsTooEarly,
    HasNoLeases,
    _LeasesForEver,
    _LeasesToOutdated,
    _ReleasesNothing,
    _IsItsOwn,
    _FailsOnNothing,
    _OpensOnce,
    _TakesOne,
    _WaitsForNobody,
)
