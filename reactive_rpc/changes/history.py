"""What a log remembers: the newest changes by version, and where each version lies in the database's own terms.

Both are bounded. What has been let go is never guessed: `since` then says None, and `position_at` says nothing, which
whoever holds it must take for a gap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import takewhile

from reactive_rpc.dependencies.change import Change

__all__ = ["History"]

MAX_POSITIONS = 1_000


class History:
    """The changes applied last, and the positions of the versions applied last.

    >>> history = History(max_changes=2)
    >>> history.restart(7)
    >>> history.append(8, [Change(table="a", operation="bulk")], position="8:8:")
    >>> [change.table for change in history.since(7)], history.since(8), history.since(6)
    (['a'], (), None)
    >>> history.position_at(9), history.position_at(7)
    ('8:8:', '')

    Args:
        max_changes: how many changes are kept.
    """

    def __init__(self, max_changes: int) -> None:
        self._max_changes = max_changes
        self._changes: deque[tuple[int, Change]] = deque()
        self._positions: deque[tuple[int, str]] = deque(maxlen=MAX_POSITIONS)
        self._floor = 0

    def restart(self, version: int, *, position: str = "") -> None:
        """Forget everything: what comes next lies after `version`, and `since` says None for anything before it."""
        self._changes.clear()
        self._positions.clear()
        self._floor = version
        if position:
            self._positions.append((version, position))

    def append(self, version: int, changes: Iterable[Change], *, position: str = "") -> None:
        """Add the changes that lead to `version`, which is higher than any before."""
        self.extend((version, change) for change in changes)
        if position:
            self._positions.append((version, position))

    def extend(self, changes: Iterable[tuple[int, Change]]) -> None:
        """Add changes, each with the version that it leads to, in ascending order."""
        self._changes.extend(changes)
        while len(self._changes) > self._max_changes:
            self._floor = self._changes.popleft()[0]

    def since(self, version: int) -> tuple[Change, ...] | None:
        """Return the changes after `version`, in order; None where memory does not reach back that far."""
        if version < self._floor:
            return None
        newer = list(takewhile(lambda entry: entry[0] > version, reversed(self._changes)))
        return tuple(change for _, change in reversed(newer))

    def position_at(self, version: int) -> str:
        """Return the position of `version`, or of the last one noted before it; empty where none is remembered."""
        return next((position for noted, position in reversed(self._positions) if noted <= version), "")

    def is_at(self, version: int, position: str) -> bool:
        """Tell whether `position` was noted as that of `version`, exactly."""
        return any(noted == version and at == position for noted, at in reversed(self._positions))
