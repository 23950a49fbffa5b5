"""Who rests on which outcomes: each hears in the step that drops one that it may be another now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from reactive_rpc.cache.invalidation import InvalidatedResults
from reactive_rpc.cache.reader import Reader
from reactive_rpc.cache.result import CachedResult
from reactive_rpc.procedures.rights import Rights

__all__ = ["Resting"]

W = TypeVar("W")


class Resting(Generic[W]):
    """Those who rest on the outcomes of rights. Used on one event loop.

    Args:
        reader: watches the outcomes.
        notify: called with each who rests on an outcome that may be another; must neither await nor raise.
    """

    def __init__(self, reader: Reader, notify: Callable[[W], object]) -> None:
        self._reader = reader
        self._notify = notify
        self._by_result: dict[CachedResult, dict[W, None]] = {}
        reader.invalidations.add(self._on_invalidated)

    def __len__(self) -> int:
        return len(self._by_result)

    @property
    def everyone(self) -> set[W]:
        """Those who rest on anything."""
        return {who for those in self._by_result.values() for who in those}

    def add(self, who: W, rights: Rights) -> None:
        """Have somebody rest on rights, whose outcomes are watched."""
        for result in rights.results:
            self._by_result.setdefault(result, {})[who] = None

    def remove(self, who: W, rights: Rights) -> None:
        """Have somebody rest on rights no more, and let go of them."""
        for result in rights.results:
            those = self._by_result.get(result, {})
            those.pop(who, None)
            if not those:
                self._by_result.pop(result, None)
        rights.let_go(self._reader)

    def _on_invalidated(self, invalidated: InvalidatedResults) -> None:
        for result in invalidated.results:
            for who in self._by_result.get(result, ()):
                self._notify(who)
