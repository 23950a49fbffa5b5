"""The contract of a log: the changes of a database, in commit order, with a version.

The reader protocol (`cache/`) rests on two promises:

1. `await log.sync_to_head()` returns when every commit that was acknowledged to anybody before the call has been
   applied, that is: handed to every subscriber, in order. `log.version` never names what has not been applied.
2. A transaction that begins after `log.version` was read sees at least that version.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from reactive_rpc.changes.captured_schema import CaptureState
from reactive_rpc.changes.wake_up import WakeUp
from reactive_rpc.dependencies.change import Change
from reactive_rpc.dependencies.lookup import Lookup
from reactive_rpc.protocol.cursors import Cursor

__all__ = ["Applier", "Batch", "Log", "WantedLookups"]


@dataclass(frozen=True, slots=True)
class Batch:
    """The changes of one poll.

    Attributes:
        version: the log's version once the batch is applied.
        changes: in commit order.
        flush: why nothing that was known before can be trusted (new triggers, a restored database); None normally.
            With it come no changes and, unless the reason concerns this log alone, a new epoch.
    """

    version: int
    changes: tuple[Change, ...] = ()
    flush: str | None = None


WantedLookups = Callable[[str], Collection[Lookup]]
"""Tell which virtual columns the images of a table should hold, now."""

Applier = Callable[[Batch], None]
"""Called on the event loop, without awaiting, once a batch, in order; must not raise."""


class Log(Protocol):
    """The changes of one database. Used on one event loop; not safe across threads."""

    @property
    def epoch(self) -> str:
        """Within an epoch versions can be compared."""
        ...

    @property
    def version(self) -> int:
        """The version applied so far."""
        ...

    @property
    def schema(self) -> CaptureState:
        """What is captured now."""
        ...

    @property
    def wake_up(self) -> WakeUp:
        """Wakes whoever follows this log."""
        ...

    def subscribe(self, apply: Applier) -> None:
        """Hand every further batch to `apply`."""
        ...

    def enrich_with(self, wanted: WantedLookups) -> None:
        """Add the virtual columns that `wanted` names to the images of every further batch, see
        `dependencies/lookup.py`.

        They are read in the snapshot that shows the batch. An image that lacks one is as good as unknown there.
        """
        ...

    def want(self, lookups: Collection[Lookup]) -> None:
        """Take in that results rest on further virtual columns now, which `wanted` names from here on.

        For logs whose images are made elsewhere. Called on the event loop, without awaiting; must not raise.
        """
        ...

    def cursor_at(self, version: int) -> Cursor:
        """Return the cursor of a version that was once `version` here, or of an earlier one, which tells more."""
        ...

    async def sync_to_head(self) -> int:
        """Apply every commit acknowledged before this call and return the version.

        Raises:
            ServiceUnavailableError: the database cannot be read.
        """
        ...

    def expect_changes(self) -> None:
        """Take in that whoever reads the log next has just written; a hint, which may spare a question.

        Called on the event loop, without awaiting; must not raise.
        """
        ...

    async def sync_to_head_for_server(self) -> int:
        """Do as `sync_to_head`, for a request that came in over a connection; such requests may share one look.

        The caller must run in a task of its own, begun after the request was read: a task that writes and then asks,
        without ever giving way to the event loop, must use `sync_to_head`.

        Raises:
            ServiceUnavailableError: the database cannot be read.
        """
        ...

    @property
    def is_look_shared(self) -> bool:
        """Whether `sync_to_head_for_server` would return at once, by the look of another request."""
        ...

    def changes_since(self, version: int) -> tuple[Change, ...] | None:
        """Return the changes applied after `version`, from memory; None where memory does not reach back that far."""
        ...

    async def read_after(self, cursor: Cursor, *, at_most: int | None = None) -> tuple[Change, ...] | None:
        """Return the changes committed after `cursor` up to `version`, from the database; None is a gap.

        Neither `sync_to_head` nor the event loop waits for it.

        Args:
            at_most: more changes than that are a gap too, found out without reading them all, and what memory holds is
                not read again; None tells of many as changes of whole tables.
        """
        ...

    async def open(self) -> None:
        """Verify capture and stand at the end of the log.

        Raises:
            CaptureError: nothing can be captured, with the way out.
            ServiceUnavailableError: the database cannot be read.
        """
        ...

    async def aclose(self) -> None:
        """Let go of the database; idempotent."""
        ...
