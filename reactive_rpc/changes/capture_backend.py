"""The contract of capture: what sees every write to a database and puts it into the log."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from reactive_rpc.changes.captured_schema import CaptureState

__all__ = ["CaptureBackend"]


class CaptureBackend(Protocol):
    """Triggers and an outbox in one database. Every call may block; safe in any thread.

    Where an administrator owns the schema (`manage=False`), no DDL is run, and `install` is `verify`.
    """

    @property
    def guarantee(self) -> str:
        """What is seen of whose writes, in one sentence, for `doctor`."""
        ...

    def install(self) -> CaptureState:
        """Put everything in place and return the state; idempotent, and safe when several processes start at once.

        Raises:
            CaptureError: it cannot be put in place; the message holds the way out, with the SQL for an administrator.
            ServiceUnavailableError: the database cannot be reached.
        """
        ...

    def verify(self) -> CaptureState:
        """Check that everything is in place, run no DDL, and return the state.

        Raises:
            CaptureError: something is missing; the message holds the SQL to run.
            ServiceUnavailableError: the database cannot be reached.
        """
        ...

    def refresh(self, *, renew: bool = False, at_least: int = 0) -> CaptureState:
        """Look again after a schema change, and repair what `manage` allows; what it does not is marked uncaptured.

        Args:
            renew: begin a new epoch whatever is found.
            at_least: a version that the new epoch must exceed.

        Raises:
            CaptureError: capture is gone and cannot be put back.
            ServiceUnavailableError: the database cannot be reached.
        """
        ...

    def uninstall(self) -> None:
        """Take everything out of the database again; idempotent.

        Raises:
            CaptureError: the administrator owns the schema; the message holds the SQL to run.
            ServiceUnavailableError: the database cannot be reached.
        """
        ...

    def script(self) -> str:
        """Return the SQL that `install` would run now, for an administrator; empty where all is in place.

        Raises:
            ServiceUnavailableError: the database cannot be reached.
        """
        ...

    def note_reads(self, tables: Collection[str]) -> None:
        """Let the values of these tables be told from now on, for as long as somebody repeats this.

        Raises:
            ServiceUnavailableError: the database cannot be reached, or stays locked.
        """
        ...

    def noted_reads(self) -> frozenset[str]:
        """Return the tables whose values are told now, for `doctor`.

        Raises:
            ServiceUnavailableError: the database cannot be reached.
        """
        ...

    def prune(self, older_than_seconds: float) -> int:
        """Delete what everybody could read for so long, and return how many rows went.

        Raises:
            ServiceUnavailableError: the database cannot be reached; what was deleted stays deleted.
        """
        ...
