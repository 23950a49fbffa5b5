"""The ephemeral store of a single process: in its memory, bounded."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from reactive_rpc.changes.ephemeral_store import KINDS, NOBODY, Budget, EntryKind, count_content, weight_of
from reactive_rpc.clock import Clock

__all__ = ["InMemoryEphemeralStore"]


@dataclass(frozen=True, slots=True)
class _StoredValue:
    content: bytes
    expires_at: float
    owner: str


@dataclass(slots=True)
class _Kind:
    """The entries of one kind, those put first in front, and the keys of each owner in the same order."""

    entries: OrderedDict[str, _StoredValue] = field(default_factory=OrderedDict)
    by_owner: defaultdict[str, OrderedDict[str, None]] = field(default_factory=lambda: defaultdict(OrderedDict))
    sizes: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    size_bytes: int = 0

    def add(self, key: str, entry: _StoredValue) -> None:
        self.entries[key] = entry
        self.by_owner[entry.owner][key] = None
        self._count(entry.owner, key, entry.content, 1)

    def remove(self, key: str) -> _StoredValue | None:
        entry = self.entries.pop(key, None)
        if entry is not None:
            del self.by_owner[entry.owner][key]
            self._count(entry.owner, key, entry.content, -1)
            if not self.by_owner[entry.owner]:
                del self.by_owner[entry.owner], self.sizes[entry.owner]
        return entry

    def forget_expired(self, now: float) -> None:
        while self.entries:
            key, entry = next(iter(self.entries.items()))
            if entry.expires_at > now:
                return
            self.remove(key)

    def free(self, owner: str, size_bytes: int) -> None:
        """Forget of the owner's entries those that were put first."""
        aim = self.size_bytes - size_bytes
        while self.size_bytes > aim:
            self.remove(next(iter(self.by_owner[owner])))

    def _count(self, owner: str, key: str, content: bytes, sign: int) -> None:
        weight = sign * (len(key) + weight_of(content))
        self.sizes[owner] += weight
        self.size_bytes += weight


class InMemoryEphemeralStore:
    """An `EphemeralStore` that only this process sees. Used on one event loop."""

    def __init__(self, clock: Clock, *, budget: Budget | None = None) -> None:
        self._clock = clock
        self._budget = budget or Budget()
        self._kinds: dict[EntryKind, _Kind] = {kind: _Kind() for kind in KINDS}

    async def open(self) -> None:
        """Do nothing: it is ready."""

    async def aclose(self) -> None:
        """Forget everything; idempotent."""
        for kind in self._kinds:
            self._kinds[kind] = _Kind()

    async def put(
        self, kind: EntryKind, entries: Mapping[str, bytes], *, ttl_seconds: float, owner: str = NOBODY
    ) -> None:
        """Put `{key: content}`, each in the place of what was there, within the owner's budget.

        Raises:
            PayloadTooLargeError: it is more than the owner may have.
            ServiceUnavailableError: there is no room.
        """
        found, now = self._kinds[kind], self._clock.monotonic()
        found.forget_expired(now)
        replaced = {key: entry for key in entries if (entry := found.remove(key)) is not None}
        given = sum(len(key) + weight_of(content) for key, content in entries.items())
        own = found.sizes.get(owner, 0)
        try:
            found.free(owner, self._budget.to_free(owner, given, own=own, all_of_kind=found.size_bytes))
        except Exception:
            for key, entry in replaced.items():
                found.add(key, entry)
            raise
        for key, content in entries.items():
            first = replaced[key].owner if key in replaced else owner
            found.add(key, _StoredValue(content, now + ttl_seconds, first))

    async def get(self, kind: EntryKind, key: str) -> bytes | None:
        """Return the content at `key`; None where there is none, or where it has expired."""
        found = self._kinds[kind].entries.get(key)
        return found.content if found is not None and found.expires_at > self._clock.monotonic() else None

    async def take(self, kind: EntryKind, keys: Collection[str]) -> dict[str, bytes]:
        """Remove what stands at `keys` and return it."""
        now = self._clock.monotonic()
        taken = {key: self._kinds[kind].remove(key) for key in keys}
        return {key: found.content for key, found in taken.items() if found is not None and found.expires_at > now}

    async def count(self, key: str, more: int, *, ttl_seconds: float) -> int:
        """Add to the count at `key`, which begins at nought; return the sum."""
        entries, now = self._kinds["count"].entries, self._clock.monotonic()
        found = entries.get(key)
        if found is None or found.expires_at <= now:
            await self.put("count", {key: count_content(more)}, ttl_seconds=ttl_seconds)
            return more
        total = int(found.content) + more
        entries[key] = replace(found, content=count_content(total))
        return total
