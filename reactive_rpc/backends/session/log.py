"""The log of one process: the commits of its own mutations, in memory. See `backends/session/capture.py`.

A version counts commits and announcements of this process; the epoch is another one at each start, so a client that
comes back after a restart gets a gap. `docs/internals/capture-session.md` argues the two promises of a log.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from reactive_rpc.backends.session.capture import SessionCapture
from reactive_rpc.changes.base_log import DEFAULT_LIMITS, BaseLog, LogLimits
from reactive_rpc.changes.captured_schema import CaptureState
from reactive_rpc.changes.log import Batch, WantedLookups
from reactive_rpc.clock import IdSource
from reactive_rpc.dependencies.change import Change
from reactive_rpc.protocol.cursors import Cursor

__all__ = ["LocalLog"]


class LocalLog(BaseLog):
    """The commits of this process's mutations; a `Log`. Used on one event loop.

    Args:
        capture: hands over committed changes.
        ids: names the epoch that begins if a subscriber fails.
        limits: of its history; it reads nothing and waits for nothing.
    """

    def __init__(self, capture: SessionCapture, limits: LogLimits = DEFAULT_LIMITS, *, ids: IdSource) -> None:
        super().__init__(limits)
        self._capture = capture
        self._ids = ids
        self._epoch: str | None = None
        self._is_open = False

    @property
    def schema(self) -> CaptureState:
        """The tables that are captured now.

        Raises:
            ServiceUnavailableError: the log is not open.
        """
        state = self._capture.state
        return state if self._epoch is None else replace(state, epoch=self._epoch)

    def enrich_with(self, wanted: WantedLookups) -> None:
        """Do nothing: no snapshot shows the rows of a batch, so no image gets virtual columns."""

    async def open(self) -> None:
        """Read the tables and begin an epoch; idempotent.

        Raises:
            ServiceUnavailableError: the database cannot be read.
        """
        if not self._is_open:
            await asyncio.to_thread(self._capture.install)
            self._epoch = None
            self._is_open = True

    async def aclose(self) -> None:
        """Forget nothing, hold nothing open; idempotent. The log can be opened again."""
        self._is_open = False

    async def sync_to_head(self) -> int:
        """Apply every commit acknowledged before this call and return the version."""
        while (changes := self._capture.take()) is not None:
            self._advance(changes)
        if self._invalidation_reason is not None:
            self._flush(self._invalidation_reason)
        return self._version

    async def read_after(self, cursor: Cursor, *, at_most: int | None = None) -> tuple[Change, ...] | None:
        """Return the changes committed after `cursor` up to `version`, from memory; None is a gap."""
        changes = None if cursor.epoch != self.epoch else self.changes_since(cursor.version)
        return None if changes is None or (at_most is not None and len(changes) > at_most) else changes

    def _advance(self, changes: tuple[Change, ...]) -> None:
        version = self._version + 1
        self._history.append(version, changes)
        self._notify(Batch(version, changes))
        self._version = version

    def _flush(self, reason: str) -> None:
        self._invalidation_reason = None
        self._epoch = self._ids.new_id()
        version = self._version + 1
        self._history.restart(version)
        self._notify(Batch(version, flush=reason))
        self._version = version
