"""The matcher: whether a change touches a result, by its read set, the declared relations and `invalidate_when`.

The read set alone decides; a predicate of `invalidate_when` may then say that the change is harmless: it is ignored. A
predicate that raises, or one that would be asked about a whole table, narrows nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence

from reactive_rpc.cache.result import CachedResult, Computable
from reactive_rpc.cache.stats import Stats
from reactive_rpc.changes.log import Batch, Log
from reactive_rpc.dependencies.change import Change
from reactive_rpc.dependencies.index import Index
from reactive_rpc.dependencies.net_changes import net_changes
from reactive_rpc.dependencies.relations import Relation, widen

__all__ = ["ChangeMatcher"]

MATCHED_AT_ONCE = 200
"""So many changes that a client has missed are held against its queries before the event loop goes round."""


class ChangeMatcher:
    """Holds changes against results.

    Args:
        log: remembers the latest changes.
        on_ignored: called with a live result that a predicate has kept; it must neither await nor raise.
        stats: counts the ignored changes.

    Attributes:
        relations: `{table: the tables and columns that a change of it also counts as a change of}`.
    """

    def __init__(self, log: Log, on_ignored: Callable[[CachedResult], None], *, stats: Stats) -> None:
        self.relations: dict[str, list[Relation]] = {}
        self._log = log
        self._on_ignored = on_ignored
        self._stats = stats

    def touched_since(self, version: int, result: CachedResult) -> bool:
        """Tell whether anything applied after `version` touches the result; True if memory does not reach back."""
        changes = self._log.changes_since(version)
        return changes is None or self._touched(changes, result, is_later=version >= result.version)

    @property
    def version(self) -> int:
        """The log's: what it leads to has been held against every live result."""
        return self._log.version

    def touched_twice_since(self, version: int, results: Collection[CachedResult]) -> bool:
        """Tell whether two changes applied after `version` touch any of the results; True if memory ends before."""
        changes = self._log.changes_since(version)
        if changes is None:
            return True
        all = (*changes, *widen(changes, self.relations))
        touches = (change for change in all if any(result.read_set.touched_by([change]) for result in results))
        return next(touches, None) is not None and next(touches, None) is not None

    def touched_by(self, changes: Iterable[Change], result: CachedResult) -> bool:
        """Tell whether one of `changes`, which came before the result or after, touches it."""
        return self._touched(changes, result, is_later=False)

    async def touched_among(self, changes: Sequence[Change], results: Iterable[CachedResult]) -> set[CachedResult]:
        """Return which results `changes` touch, which came before them; the event loop goes round meanwhile."""
        index: Index[CachedResult] = Index()
        for result in results:
            index.add(result, result.read_set)
        touched: set[CachedResult] = set()
        for start in range(0, len(changes), MATCHED_AT_ONCE):
            if not len(index):
                break
            if start:
                await asyncio.sleep(0)
            some = changes[start : start + MATCHED_AT_ONCE]
            for change in [*some, *widen(some, self.relations)]:
                for result in index.match(change):
                    if not self._is_ignored(change, result.query):
                        touched.add(result)
                        index.remove(result)
        return touched

    def match(self, batch: Batch, index: Index[CachedResult]) -> dict[CachedResult, set[str]]:
        """Return which results of an index a batch touches, each with the tables whose changes do.

        Args:
            index: of results that are right at the version before the batch.
        """
        touched: dict[CachedResult, set[str]] = {}
        # INVARIANT (only live results meet the net effect): one that is being computed may be of a state inside the
        # batch, of which the log remembers every change.
        changes = batch.changes if len(batch.changes) < 2 else net_changes(batch.changes, self._log.schema)
        # A relation is declared for what is written: what a row comes to in the end is no matter.
        for change in [*changes, *widen(batch.changes, self.relations)]:
            for result in index.match(change):
                if change.table in touched.get(result, ()):
                    continue
                if self._is_ignored(change, result.query):
                    self._note_ignored(result, change.table)
                else:
                    touched.setdefault(result, set()).add(change.table)
        return touched

    def _touched(self, changes: Iterable[Change], result: CachedResult, *, is_later: bool) -> bool:
        """Tell whether one of `changes` touches the result; those that came later and are ignored are audited."""
        direct = list(changes)
        for change in [*direct, *widen(direct, self.relations)]:
            if not result.read_set.touched_by([change]):
                continue
            if not self._is_ignored(change, result.query):
                return True
            if is_later:
                self._note_ignored(result, change.table)
        return False

    def _note_ignored(self, result: CachedResult, table: str) -> None:
        result.ignored_tables |= {table}
        if result.live:
            self._on_ignored(result)

    def _is_ignored(self, change: Change, query: Computable) -> bool:
        if query.keep is None or change.operation == "bulk" or not query.keep(change):
            return False
        self._stats.kept += 1
        return True
