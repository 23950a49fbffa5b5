"""The log of a SQLite database: its outbox, read in the order of ids, gated by `PRAGMA data_version`.

SQLite has one writer at a time, so ids appear in the order of commits and an id is an exact cursor. `data_version`
moves whenever another connection has committed, so an unchanged one means that there is nothing to read.

`docs/internals/capture-sqlite.md` argues both, why requests may share a poll, and which ways were rejected ("The
log"). The INVARIANT comments mark the lines that it rests on.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import accumulate
from operator import itemgetter
from typing import Any, Final

from reactive_rpc.backends.sqlite.capture.backend import SQLiteCapture
from reactive_rpc.backends.sqlite.capture.images import (
    COUNTS_AFTER,
    ROWS_AFTER,
    ROWS_OF_AFTER,
    SQLiteOutboxRow,
    decode_value,
    quoted,
    value_sql,
)
from reactive_rpc.backends.sqlite.capture.replacements import Execute, without_kept_rows
from reactive_rpc.backends.sqlite.capture.tables import META, OUTBOX
from reactive_rpc.backends.sqlite.wake_up import WALWakeUp
from reactive_rpc.changes.base_log import DEFAULT_LIMITS, BaseLog, LogLimits
from reactive_rpc.changes.captured_schema import CaptureState
from reactive_rpc.changes.log import Batch
from reactive_rpc.changes.parent_values import (
    Parents,
    by_key,
    enriched,
    followed,
    keys_of,
    keys_to_look_up,
    lookups_of,
    most_parents,
)
from reactive_rpc.dependencies.change import Change, Known
from reactive_rpc.dependencies.lookup import Lookup
from reactive_rpc.errors import CaptureError, ServiceUnavailableError
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.statements.concealment import said_by

__all__ = ["SQLiteLog"]

RECONCILE_ATTEMPTS = 10

UNREADABLE = "the database cannot be read: try again later"
"""For callers; the cause is chained, for the log."""
READ_TIMEOUT_SECONDS = 0.25  # it blocks the event loop; a WAL reader waits only while the WAL is recovered or reset

_POSITION = (
    f"SELECT (SELECT value FROM \"{META}\" WHERE key = 'epoch'),"
    f" coalesce((SELECT CAST(value AS INTEGER) FROM \"{META}\" WHERE key = 'floor'), 0),"
    f" coalesce((SELECT seq FROM sqlite_sequence WHERE name = '{OUTBOX}'), 0)"
)

_place: Final = itemgetter(0)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _PollResult:
    """The result of one read transaction.

    Attributes:
        epoch: as meta holds it.
        floor: the highest id pruned.
        last: the highest id given out.
        changes: `(id, change)` after the position asked for.
    """

    epoch: str
    floor: int
    last: int
    changes: tuple[tuple[int, Change], ...]


class SQLiteLog(BaseLog):
    """The changes of one SQLite file; a `Log`. Used on one event loop; not safe across threads.

    Its version is the highest id of the outbox that is applied.

    Args:
        capture: installs, verifies and decodes.
        limits: of its history and of what is read at once; it waits for `READ_TIMEOUT_SECONDS`.
    """

    def __init__(self, capture: SQLiteCapture, limits: LogLimits = DEFAULT_LIMITS) -> None:
        super().__init__(limits)
        self._capture = capture
        self._path = str(capture.path)
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._data_version: int | None = None
        self._is_shared = False
        self._replaying = asyncio.Lock()
        self._wake_up = self._watching = WALWakeUp(self._path, self._has_moved)

    async def open(self) -> None:
        """Install (or verify, if capture does not manage the schema) and stand at the end of the log; idempotent.

        Raises:
            CaptureError: nothing can be captured, with the way out.
            ServiceUnavailableError: the database cannot be read.
        """
        if self._state is not None:
            return
        with _unavailable():
            state = await asyncio.to_thread(self._capture.install)
            self._connect()
            state, found = self._reconcile(state, None)
            self._state = state
            self._history.restart(found.last)
            self._version = found.last

    async def aclose(self) -> None:
        """Close the connection; idempotent. The log can be opened again."""
        self._disconnect()
        self._state = None

    async def sync_to_head(self) -> int:
        """Apply every commit acknowledged before this call and return the version.

        Raises:
            ServiceUnavailableError: the database cannot be read.
        """
        return self.sync_to_head_blocking()

    async def sync_to_head_for_server(self) -> int:
        """Do as `sync_to_head`, for a request that came in over a connection; many of them share one poll.

        Raises:
            ServiceUnavailableError: the database cannot be read.
        """
        if self._is_shared:
            return self._version
        loop = asyncio.get_running_loop()
        if loop.get_task_factory() is not None:
            return self.sync_to_head_blocking()
        # INVARIANT (the end of sharing is appended before the poll): a task that runs before that end was ready before
        # the poll, so its request had been read from its socket by then, and the poll covers it.
        loop.call_soon(self._end_sharing)
        version = self.sync_to_head_blocking()
        # INVARIANT (only once it has succeeded): a poll that has failed covers nobody.
        self._is_shared = True
        return version

    @property
    def is_look_shared(self) -> bool:
        """Whether `sync_to_head_for_server` would return at once, by the look of another request."""
        return self._is_shared

    def _end_sharing(self) -> None:
        self._is_shared = False

    def sync_to_head_blocking(self) -> int:
        """Do what `sync_to_head` does, without awaiting: about 10 us if nothing was committed.

        Raises:
            ServiceUnavailableError: the database cannot be read, or capture cannot be put in place again.
        """
        try:
            self._sync(self.schema)
        except (sqlite3.Error, OSError) as exc:
            raise ServiceUnavailableError(UNREADABLE) from exc
        except CaptureError as exc:
            raise ServiceUnavailableError("writes to the database cannot be captured any more") from exc
        return self._version

    async def read_after(self, cursor: Cursor, *, at_most: int | None = None) -> tuple[Change, ...] | None:
        """Return the changes committed after `cursor` up to `version`; None is a gap.

        A gap is: another epoch, a cursor ahead of `version`, one below the floor, or more than `at_most`.

        Changes that memory does not hold are read in a thread, over a connection of its own: the one here belongs to
        the event loop, and thousands of rows would hold that up.

        Raises:
            ServiceUnavailableError: the database cannot be read.
        """
        state, until = self.schema, self._version
        if cursor.epoch != state.epoch or cursor.version > until:
            return None
        reaches, remembered = self._remembered(cursor.version, at_most)
        if reaches or (at_most is not None and until - cursor.version > at_most):
            return remembered
        async with self._replaying:
            with _unavailable():
                found = await asyncio.to_thread(self._replay, state, cursor.version, until)
        since = self.changes_since(until)  # applied while we read
        if found is None or found.epoch != state.epoch or found.floor > cursor.version or self.epoch != state.epoch:
            return None
        if since is None or (at_most is not None and len(found.changes) + len(since) > at_most):
            return None
        return (*(change for _, change in found.changes), *since)

    def _replay(self, state: CaptureState, after: int, until: int) -> _PollResult | None:
        with closing(self._opened()) as connection:
            return self._read(state, after, until=until, connection=connection)

    def _has_moved(self) -> bool:
        """Tell whether somebody has committed since the last poll, or the next poll has anything else to tell."""
        try:
            return self._read_data_version() != self._data_version
        except (sqlite3.Error, ServiceUnavailableError):
            return True

    def _read_data_version(self) -> int:
        return int(self._execute("PRAGMA data_version").fetchone()[0])

    def _sync(self, state: CaptureState) -> None:
        self._follow_file()
        data_version = self._read_data_version()
        if data_version == self._data_version and self._invalidation_reason is None:
            return
        reconciled, found = self._reconcile(state, self._version)
        reason = self._invalidation_reason
        self._state = reconciled
        if reconciled.epoch != state.epoch:
            self._invalidation_reason = None
            self._history.restart(found.last)
            self._notify(Batch(found.last, flush=reason or "capture was installed anew, or another worker flushed"))
            self._version = found.last
        else:
            self._advance(found)
        # INVARIANT (the value from before the read transaction): a commit between the two is merely looked for again;
        # by a later value it would be missed.
        self._data_version = data_version

    def _advance(self, found: _PollResult) -> None:
        self._history.extend(found.changes)
        if found.changes:
            self._notify(Batch(found.last, tuple(change for _, change in found.changes)))
        self._version = found.last

    def _reconcile(self, state: CaptureState, after: int | None) -> tuple[CaptureState, _PollResult]:
        """Return a snapshot and the state that capture verified at the same schema version and epoch.

        Args:
            state: the last verified one.
            after: the version applied so far; None reads no rows.

        Raises:
            ServiceUnavailableError: schema or epoch changed again at every attempt.
        """
        known_epoch = state.epoch
        for _ in range(RECONCILE_ATTEMPTS):
            reason = self._invalidation_reason if state.epoch == known_epoch else None
            # The file may then hold another database: capture has to see to it before anything is read.
            found = None if reason else self._read(state, after)
            if found is not None and after is not None:
                reason = self._loss(found, after, known_epoch)
            if reason is None and found is not None and found.epoch == state.epoch:
                return state, found
            if reason is not None:
                _log.warning("a new epoch begins on %s: %s", self._capture.path, reason)
            state = self._capture.refresh(renew=reason is not None, at_least=after or 0)
            self._invalidation_reason = reason or self._invalidation_reason
        raise ServiceUnavailableError("the schema of the database keeps changing: try again later")

    def _loss(self, found: _PollResult, after: int, known_epoch: str) -> str | None:
        """Return why rows after `after` are lost; None if all are there."""
        if found.last < after:
            return "the database went back to an earlier state"
        if found.epoch == known_epoch and found.floor > after:
            return "changes were pruned before they were read"
        return None

    def _read(
        self,
        state: CaptureState,
        after: int | None,
        *,
        until: int | None = None,
        connection: sqlite3.Connection | None = None,
    ) -> _PollResult | None:
        """Read in one transaction; None if the schema is not the one of `state`.

        Without `until`, up to the end of the log, and with virtual columns: the rows are then those of a batch.

        Args:
            connection: to read over; left out, the log's own.
        """
        execute = self._execute if connection is None else connection.execute
        execute("BEGIN")
        try:
            # INVARIANT (the schema version is read in the snapshot that shows the rows): rows are decoded by the
            # columns that they were written with, or not at all.
            if execute("PRAGMA main.schema_version").fetchone()[0] != state.schema_fingerprint:
                return None
            epoch, floor, last = execute(_POSITION).fetchone()
            changes = () if after is None else self._changes(execute, state, after, last if until is None else until)
            if until is None:
                changes = self._enriched(state, changes)
            return _PollResult(epoch or "", floor, last, changes)
        finally:
            self._rollback(connection)

    def _changes(self, execute: Execute, state: CaptureState, after: int, until: int) -> tuple[tuple[int, Change], ...]:
        if after >= until:
            return ()
        rows: list[Sequence[Any]] = list(execute(ROWS_AFTER, (after, self._limits.bulk_threshold + 1)))
        bulk: list[tuple[int, Change]] = []
        if len(rows) > self._limits.bulk_threshold:
            rows, bulk = self._few_rows(execute, after)
        # All up to the end of the snapshot are looked at, since later ones tell which rows a REPLACE deleted.
        found = without_kept_rows([SQLiteOutboxRow(*row) for row in rows], state.tables, execute)
        # INVARIANT (a change of a whole table is told whatever `until` says): it stands at the last place where the
        # table was written in bulk, and an earlier row about it may be gone, which lay before `until`.
        shown = tuple((id_, change) for id_, change in found if id_ <= until or change.operation == "bulk")
        return tuple(sorted((*shown, *bulk), key=_place)) if bulk else shown

    def _few_rows(self, execute: Execute, after: int) -> tuple[list[Sequence[Any]], list[tuple[int, Change]]]:
        """Return rows after an id, and changes of whole tables in the place of the rows of those that have many.

        So few rows are decoded and matched that the event loop is not held up. The tables with the fewest keep theirs.
        """
        at_most = self._limits.bulk_threshold
        counts = list(execute(COUNTS_AFTER, (after,)))
        kept = len([total for total in accumulate(count for _, count, _ in counts) if total <= at_most])
        narrow = json.dumps([table for table, _, _ in counts[:kept]])
        rows = list(execute(ROWS_OF_AFTER, (after, narrow)))
        # INVARIANT (in the place of the table's last row): whoever asks for what came after an earlier one is told.
        return rows, [(last, Change(table=table, operation="bulk")) for table, _, last in counts[kept:]]

    def _enriched(self, state: CaptureState, found: tuple[tuple[int, Change], ...]) -> tuple[tuple[int, Change], ...]:
        """Add the virtual columns that are wanted; within the transaction that read the rows."""
        changes = [change for _, change in found]
        tables = dict.fromkeys(change.table for change in changes if change.operation != "bulk")
        lookups = lookups_of(tables, self._wanted, state)
        if not lookups:
            return found
        parents = {
            lookup: values
            for lookup, keys in keys_to_look_up(changes, lookups, state).items()
            if (values := self._parents(lookup, keys)) is not None
        }
        return tuple(zip((id_ for id_, _ in found), enriched(changes, parents, state), strict=True))

    def _parents(self, lookup: Lookup, keys: Collection[Known]) -> Parents | None:
        """Return `{key: the parents' values}`, or those of their own parents; None if they cannot be read."""
        found = self._values(lookup, keys)
        if found is None or lookup.further is None:
            return found
        steps = keys_of(found)
        further = None if steps is None else self._parents(lookup.further, steps)
        return None if further is None else followed(found, further)

    def _values(self, lookup: Lookup, keys: Collection[Known]) -> Parents | None:
        if not keys:
            return {}
        key, value = quoted(lookup.key), quoted(lookup.value)
        sql = (
            f"SELECT {value_sql(f'p.{key}')}, {value_sql(f'p.{value}')} FROM main.{quoted(lookup.parent)} AS p"
            f" WHERE p.{key} IN ({','.join('?' * len(keys))}) LIMIT {most_parents(keys) + 1}"
        )
        try:
            rows = self._execute(sql, tuple(keys)).fetchall()
            return by_key(((decode_value(found), decode_value(parent)) for found, parent in rows), most_parents(keys))
        except (sqlite3.Error, ValueError) as exc:
            _log.debug("%s cannot be looked up, so it counts as unknown: %s", lookup.name, said_by(exc))
            return None

    def _execute(self, sql: str, parameters: Sequence[Known] = ()) -> sqlite3.Cursor:
        if self._connection is None:
            raise ServiceUnavailableError("the database is not open")
        return self._connection.execute(sql, parameters)

    def _rollback(self, connection: sqlite3.Connection | None = None) -> None:
        # SQLite has ended the transaction itself after some errors; `rollback` is then a no-op.
        connection = connection or self._connection
        if connection is not None:
            connection.rollback()

    def _follow_file(self) -> None:
        """Stay on the file behind the path; a file that was gone or replaced begins a new epoch.

        Raises:
            FileNotFoundError: it is gone.
        """
        try:
            here = _identity(self._path)
        except OSError:
            self._disconnect()
            raise
        if self._connection is None or here != self._file:
            self._invalidation_reason = f"the file {self._capture.path} was replaced"
            self._connect()

    def _connect(self) -> None:
        self._disconnect()
        self._file = _identity(self._path)
        self._connection = self._opened()

    def _opened(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self._capture.path.as_uri()}?mode=rw", uri=True, timeout=READ_TIMEOUT_SECONDS, isolation_level=None
        )
        try:
            # INVARIANT (this connection never writes): its own commits would not move its `data_version`, and rows that
            # others committed just before would hide behind them.
            connection.execute("PRAGMA query_only=ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def _disconnect(self) -> None:
        self._watching.close()
        if self._connection is not None:
            self._connection.close()
        self._connection = self._file = self._data_version = None


def _identity(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


@contextmanager
def _unavailable() -> Iterator[None]:
    """Turn what the database and the file system raise into the one error of the contract."""
    try:
        yield
    except (sqlite3.Error, OSError) as exc:
        raise ServiceUnavailableError(UNREADABLE) from exc
