"""What the logs have in common: subscribers, history, and the flush if a subscriber fails.

A log reads its database in its own way, in `open` and `sync_to_head`, and keeps the changes here. Three rules hold:

- **Notified, then counted.** A batch goes to `_notify` before `_version` is set to the batch's version. So `version`
  never names what has not been applied, and within a subscriber's call it still names the version before.
- **A subscriber must not raise.** If one does, it may know anything. `_notify` goes on with the others and notes an
  `_invalidation_reason`. The next `sync_to_head` that sees it sends a flush, and clears it first: the subscriber may
  fail again.
- **Memory ends at a flush.** The history is restarted at the version of the flush, so `changes_since` returns None for
  all before it.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from reactive_rpc.changes.captured_schema import CaptureState
from reactive_rpc.changes.history import History
from reactive_rpc.changes.log import Applier, Batch, WantedLookups
from reactive_rpc.changes.wake_up import NoWakeUp, WakeUp
from reactive_rpc.dependencies.change import Change
from reactive_rpc.dependencies.lookup import Lookup
from reactive_rpc.errors import ServiceUnavailableError
from reactive_rpc.protocol.cursors import Cursor

__all__ = ["DEFAULT_LIMITS", "BaseLog", "LogLimits"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLimits:
    """How much a log remembers and reads at once, and how long it waits.

    Attributes:
        history_changes: how many changes `changes_since` reaches back, at most.
        bulk_threshold: if more changes than this are read at once, the tables that have the most get one bulk change
            each instead. Decoding and matching so many takes the event loop about 5 ms.
        timeout_seconds: how long a log may wait for the server that it reads.
    """

    history_changes: int = 20_000
    bulk_threshold: int = 500
    timeout_seconds: float = 5.0


DEFAULT_LIMITS: Final = LogLimits()


class BaseLog(ABC):
    """The part of a `Log` that all share. Used on one event loop; not safe across threads.

    A subclass sets `_state` when it opens and to None when it closes, moves `_version`, appends to `_history`, hands
    batches to `_notify`, asks `_wanted` for the virtual columns of a table, and sets `_wake_up` if it can be woken.

    Args:
        limits: those of this log.
    """

    def __init__(self, limits: LogLimits) -> None:
        self._limits = limits
        self._history = History(limits.history_changes)
        self._wake_up: WakeUp = NoWakeUp()
        self._appliers: list[Applier] = []
        self._wanted: WantedLookups = lambda table: ()
        self._version = 0
        self._state: CaptureState | None = None
        self._invalidation_reason: str | None = None

    @property
    def epoch(self) -> str:
        """Within an epoch versions can be compared."""
        state = self._state
        return self.schema.epoch if state is None else state.epoch

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

    @property
    def wake_up(self) -> WakeUp:
        """Wakes whoever follows this log."""
        return self._wake_up

    def subscribe(self, apply: Applier) -> None:
        """Hand every further batch to `apply`."""
        self._appliers.append(apply)

    def enrich_with(self, wanted: WantedLookups) -> None:
        """Add the virtual columns that `wanted` names to the images of every further batch."""
        self._wanted = wanted

    def want(self, lookups: Collection[Lookup]) -> None:  # noqa: B027  # only a log of foreign images has to hear of it
        """Do nothing: a log that makes its images itself asks `wanted` when it does."""

    def cursor_at(self, version: int) -> Cursor:
        """Return the cursor of a version."""
        return Cursor(self.epoch, version)

    def changes_since(self, version: int) -> tuple[Change, ...] | None:
        """Return the changes applied after `version`, from memory; None where memory does not reach back that far."""
        return self._history.since(version) if version <= self._version else None

    def _remembered(self, version: int, at_most: int | None) -> tuple[bool, tuple[Change, ...] | None]:
        """Tell whether memory suffices for what came after `version`, and what that is; None where it is too much."""
        changes = None if at_most is None else self.changes_since(version)
        if at_most is None or changes is None:
            return False, None
        return True, changes if len(changes) <= at_most else None

    @abstractmethod
    async def sync_to_head(self) -> int:
        """Apply every commit acknowledged before this call and return the version.

        Raises:
            ServiceUnavailableError: the database cannot be read.
        """

    def expect_changes(self) -> None:  # noqa: B027  # only a log that asks first whether there are any
        """Do nothing."""

    async def sync_to_head_for_server(self) -> int:
        """Do as `sync_to_head`: either it is cheap, or many requests share one look already.

        Raises:
            ServiceUnavailableError: the database cannot be read.
        """
        return await self.sync_to_head()

    @property
    def is_look_shared(self) -> bool:
        """Whether `sync_to_head_for_server` would return at once, by the look of another request."""
        return False

    def _notify(self, batch: Batch) -> None:
        """Hand a batch to every subscriber; if one fails, everything is flushed."""
        for apply in self._appliers:
            try:
                apply(batch)
            except Exception:  # must not happen; what the applier knows is then worth nothing
                _log.exception("applying a batch failed: everything is flushed with the next poll")
                self._invalidation_reason = "a subscriber failed"
