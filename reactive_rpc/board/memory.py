"""The board of a single process: in its memory, bounded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from reactive_rpc.board.board import BoardKind
from reactive_rpc.clock import Clock

__all__ = ["MemoryBoard"]

MAX_BYTES = 64 * 1024 * 1024
ENTRY_BYTES = 300
"""What an entry weighs beside its key and content."""


@dataclass(slots=True)
class _Kind:
    """The entries of one kind, `{key: (content, expires at)}`, those put first in front."""

    entries: OrderedDict[str, tuple[bytes, float]] = field(default_factory=OrderedDict)
    size_bytes: int = 0

    def put(self, key: str, content: bytes, expires_at: float) -> None:
        self.remove(key)
        self.entries[key] = content, expires_at
        self.size_bytes += _weight(key, content)

    def remove(self, key: str) -> tuple[bytes, float] | None:
        found = self.entries.pop(key, None)
        if found is not None:
            self.size_bytes -= _weight(key, found[0])
        return found

    def shrink(self, max_bytes: int, now: float) -> None:
        """Remove from the front what has expired, and whatever is past the bound."""
        while self.entries:
            key, (_, expires_at) = next(iter(self.entries.items()))
            if expires_at > now and self.size_bytes <= max_bytes:
                return
            self.remove(key)


class MemoryBoard:
    """A `Board` that only this process sees. Used on one event loop.

    Args:
        max_bytes: of the entries of each kind; past it, those that were put first are forgotten, so that many of one
            kind never drive out another's.
    """

    def __init__(self, clock: Clock, *, max_bytes: int = MAX_BYTES) -> None:
        self._clock = clock
        self._max_bytes = max_bytes
        self._kinds: dict[BoardKind, _Kind] = {"ack": _Kind(), "ticket": _Kind(), "set": _Kind()}

    async def open(self) -> None:
        """Do nothing: it is ready."""

    async def aclose(self) -> None:
        """Forget everything; idempotent."""
        for kind in self._kinds:
            self._kinds[kind] = _Kind()

    async def put(self, kind: BoardKind, entries: Mapping[str, bytes], *, ttl_seconds: float) -> None:
        """Put `{key: content}`, each in the place of what was there."""
        found, now = self._kinds[kind], self._clock.monotonic()
        for key, content in entries.items():
            found.put(key, content, now + ttl_seconds)
        found.shrink(self._max_bytes, now)

    async def get(self, kind: BoardKind, key: str) -> bytes | None:
        """Return the content at `key`; None where there is none, or where it has expired."""
        content, expires_at = self._kinds[kind].entries.get(key, (None, 0.0))
        return content if expires_at > self._clock.monotonic() else None

    async def take(self, kind: BoardKind, keys: Collection[str]) -> dict[str, bytes]:
        """Remove what stands at `keys` and return it."""
        now = self._clock.monotonic()
        taken = {key: self._kinds[kind].remove(key) for key in keys}
        return {key: found[0] for key, found in taken.items() if found is not None and found[1] > now}


def _weight(key: str, content: bytes) -> int:
    return len(key) + len(content) + ENTRY_BYTES
