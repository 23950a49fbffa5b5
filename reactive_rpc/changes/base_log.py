"""What the logs have in common: who is told, what is remembered, and what a subscriber that fails does to all of it.

A log reads its database in its own way, in `open` and `fresh`, and keeps here what it found. Three rules hold for each:

- **Told, then counted.** A batch goes to `_tell` before `_version` is set to the batch's version. So `version` never
  names what has not been applied, and within a subscriber's call it still names the version before.
- **A subscriber must not raise.** Where one does, what it knows is worth nothing. `_tell` goes on with the others and
  notes a doubt, and the next `fresh` that sees `_doubt` tells a flush, and takes the doubt away before it does: the
  subscriber may fail again.
- **Memory ends at a flush.** The history is restarted at the version of the flush, so that `changes_since` says None
  for all before it.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

from reactive_rpc.changes.captured_schema import CaptureState
from reactive_rpc.changes.history import History
from reactive_rpc.changes.log import Applier, Batch, WantedLookups
from reactive_rpc.dependencies.change import Change
from reactive_rpc.errors import ServiceUnavailableError
from reactive_rpc.protocol.cursors import Cursor

__all__ = ["DEFAULT_LIMITS", "BaseLog", "LogLimits"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLimits:
    """How much a log remembers and reads at once, and how long it waits.

    Attributes:
        history_changes: how many changes `changes_since` reaches back, at most.
        bulk_threshold: if more changes than this are read at once, each of their tables gets one bulk change instead.
        timeout_seconds: how long a log may wait for the server that it reads.
    """

    history_changes: int = 20_000
    bulk_threshold: int = 10_000
    timeout_seconds: float = 5.0


DEFAULT_LIMITS: Final = LogLimits()


class BaseLog(ABC):
    """What every `Log` keeps. Used on one event loop; not safe across threads.

    A subclass sets `_state` when it opens and to None when it closes, moves `_version`, appends to `_history`, hands
    batches to `_tell`, and asks `_wanted` for the virtual columns of a table.

    Args:
        limits: those of this log.
    """

    def __init__(self, limits: LogLimits) -> None:
        self._limits = limits
        self._history = History(limits.history_changes)
        self._appliers: list[Applier] = []
        self._wanted: WantedLookups = lambda table: ()
        self._version = 0
        self._state: CaptureState | None = None
        self._doubt: str | None = None

    @property
    def epoch(self) -> str:
        """Within an epoch versions can be compared."""
        return self.schema.epoch

    @property
    def version(self) -> int:
        """The version applied so far."""
        return self._version

    @property
    def schema(self) -> CaptureState:
        """What is captured now.

        Raises:
            ServiceUnavailableError: the log is not open.
        """
        if self._state is None:
            raise ServiceUnavailableError("the log is not open: await open() first")
        return self._state

    def subscribe(self, apply: Applier) -> None:
        """Hand every further batch to `apply`."""
        self._appliers.append(apply)

    def enrich_with(self, wanted: WantedLookups) -> None:
        """Add the virtual columns that `wanted` names to the images of every further batch."""
        self._wanted = wanted

    def cursor_at(self, version: int) -> Cursor:
        """Return the cursor of a version."""
        return Cursor(self.epoch, version)

    def changes_since(self, version: int) -> tuple[Change, ...] | None:
        """Return what was applied after `version`, from memory; None where memory does not reach back that far."""
        return self._history.since(version) if version <= self._version else None

    def _remembered(self, version: int, at_most: int | None) -> tuple[bool, tuple[Change, ...] | None]:
        """Tell whether memory suffices for what came after `version`, and what that is; None where it is too much."""
        changes = None if at_most is None else self.changes_since(version)
        if at_most is None or changes is None:
            return False, None
        return True, changes if len(changes) <= at_most else None

    @abstractmethod
    async def fresh(self) -> int:
        """Apply every commit acknowledged before this call and return the version.

        Raises:
            ServiceUnavailableError: the database cannot be read.
        """

    async def fresh_for_arrivals(self) -> int:
        """Do as `fresh`: either it is cheap, or many requests share one look already.

        Raises:
            ServiceUnavailableError: the database cannot be read.
        """
        return await self.fresh()

    def _tell(self, batch: Batch) -> None:
        """Hand a batch to every subscriber; one that fails puts all in doubt."""
        for apply in self._appliers:
            try:
                apply(batch)
            except Exception:  # must not happen; what the applier knows is then worth nothing
                _log.exception("applying a batch failed: everything is flushed with the next poll")
                self._doubt = "a subscriber failed"
