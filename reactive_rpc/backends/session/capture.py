"""Capture without triggers: the writes that mutations of this process make through SQLAlchemy, and no others.

Nothing is put into the database. While a mutation runs, its writes are noted (`backends/session/write_notes.py`); when
its COMMIT has ended, and before anybody is answered, they are handed to the log of this process
(`backends/session/log.py`). Writes of other processes are not seen.

`docs/internals/capture-session.md` argues it: writes that a statement does not name, writes below SQLAlchemy, and a
COMMIT without an answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any, Final

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from reactive_rpc.backends.session.write_notes import WriteNotes
from reactive_rpc.backends.session.written import written
from reactive_rpc.changes.captured_schema import CaptureState
from reactive_rpc.changes.catalog_tables import CatalogTables, ReadTables
from reactive_rpc.clock import IdSource
from reactive_rpc.dependencies.change import Change
from reactive_rpc.dependencies.topics import changes_of
from reactive_rpc.errors import InternalServerError, RPCError, ServiceUnavailableError
from reactive_rpc.statements.database import Database

__all__ = ["GUARANTEE", "SessionCapture"]

GUARANTEE: Final = (
    "Capture(mode='session') sees what the mutations of this process write through SQLAlchemy; "
    "writes by other processes are NOT seen, and results that they change stay stale"
)

_NOTES: Final = "reactive_rpc_notes"
"""The execution option of a mutation's connection that holds its `WriteNotes`."""

_TOTAL: Final = "reactive_rpc_total_changes"
"""The key in a SQLite connection's `info` of the number of rows that it had written after the last statement."""

_WRITTEN_TABLES: Final = """
SELECT n.nspname || '.' || c.relname,
       pg_catalog.pg_stat_get_xact_tuples_inserted(c.oid) + pg_catalog.pg_stat_get_xact_tuples_updated(c.oid)
       + pg_catalog.pg_stat_get_xact_tuples_deleted(c.oid){flush}
FROM pg_catalog.pg_locks AS l
JOIN pg_catalog.pg_class AS c ON c.oid = l.relation
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' AND c.relkind IN ('r', 'p')
  AND n.nspname <> 'reactive_rpc'
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
  AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
"""
"""Named by their schemas: a statement's `orders` may be another table than usual, by SET search_path."""

_FLUSH: Final = ", pg_catalog.pg_stat_force_next_flush()"
"""PostgreSQL counts on until it hands its counters on, which it does once a second, or when asked to (from 15 on). Rows
of an earlier transaction that it still counts make a table count whole: wider, never narrower."""

_log = logging.getLogger(__name__)


class SessionCapture:
    """Capture of the mutations on one `Database`; a `Capture`, and a `WriteObserver`.

    Args:
        database: whose mutations are followed.
        ids: names the epoch, which is another one at each start.
        read_tables: of this kind of database.
    """

    def __init__(self, database: Database, *, ids: IdSource, read_tables: ReadTables) -> None:
        self._database = database
        self._read_tables = read_tables
        self._ids = ids
        self._lock = Lock()
        self._committed: deque[tuple[Change, ...]] = deque()
        self._distrusted: set[str] = set()
        self._tables: CatalogTables | None = None
        self._state: CaptureState | None = None

    @property
    def guarantee(self) -> str:
        """Whose writes are seen."""
        return GUARANTEE

    @property
    def state(self) -> CaptureState:
        """The tables that are captured now.

        Raises:
            ServiceUnavailableError: nothing was read yet.
        """
        if self._state is None:
            raise ServiceUnavailableError("capture is not open: await open() first")
        return self._state

    def install(self) -> CaptureState:
        """Read the tables, follow the mutations, and return the state of a new epoch.

        Raises:
            ServiceUnavailableError: the database cannot be read.
        """
        state = self.verify()
        self._database.observe(self)
        _log.warning("%s: %s", self._database.name, GUARANTEE)
        return state

    def verify(self) -> CaptureState:
        """Read the tables and return the state of a new epoch.

        Raises:
            ServiceUnavailableError: the database cannot be read.
        """
        return self.refresh()

    def refresh(self, *, renew: bool = False, at_least: int = 0) -> CaptureState:
        """Read the tables again and return the state of a new epoch; both arguments are of no matter here.

        Raises:
            ServiceUnavailableError: the database cannot be read.
        """
        found = self._database.examine(self._read)
        with self._lock:
            self._tables = found
            self._state = CaptureState(
                epoch=self._ids.new_id(),
                schema_fingerprint=0,
                tables=found.tables,
                names=found.names,
                redefined=found.redefined,
            )
            self._uncapture_distrusted()
            return self._state

    def uninstall(self) -> None:
        """Do nothing: nothing stands in the database."""

    def script(self) -> str:
        """Return no SQL: nothing is put into the database."""
        return ""

    def note_reads(self, tables: Collection[str]) -> None:
        """Note nothing: nothing is copied into the database."""

    def noted_reads(self) -> frozenset[str]:
        """Return none: nothing is copied into the database."""
        return frozenset()

    def prune(self, older_than_seconds: float) -> int:
        """Delete nothing: nothing is kept in the database."""
        return 0

    def take(self) -> tuple[Change, ...] | None:
        """Return the changes of the next transaction in line, once; None if there is none."""
        try:
            return self._committed.popleft()
        except IndexError:
            return None

    def put(self, changes: Iterable[Change]) -> None:
        """Hand over committed changes. Safe in any thread."""
        self._committed.append(tuple(changes))

    def announce(self, connection: Connection, table: str, keys: Sequence[str] | None) -> None:
        """Announce stored keys of a topic, or all of it, with the mutation that runs on `connection`.

        Raises:
            InternalServerError: none does.
        """
        notes = _notes_of(connection)
        if notes is None:
            raise InternalServerError("a topic is announced with the db of a mutation")
        notes.announced.extend(changes_of(table, keys))

    def listen(self, engine: Engine) -> None:
        """Follow an engine that writes."""
        event.listen(engine, "before_cursor_execute", _before_statement)
        event.listen(engine, "after_cursor_execute", _after_statement)
        event.listen(engine, "rollback_savepoint", _savepoint_rolled_back)
        event.listen(engine, "commit", _commit)

    def begin(self, connection: Connection, session: Session) -> Callable[[BaseException | None], None]:
        """Note the writes on `connection` from here on."""
        tables = self._known_tables()
        notes = WriteNotes(self.state, connection.dialect, tables.unset)
        connection.execution_options(**{_NOTES: notes})
        connection.info[_TOTAL] = _total_changes(connection)
        notes.listen(session)

        def ended(error: BaseException | None) -> None:
            # INVARIANT (handed over only after COMMIT has ended): a reader that was notified before could compute from
            # the old rows, and keep the result for good.
            if notes.committing:
                self._end(notes, is_open=_is_open(error))

        return ended

    def changes(self, notes: WriteNotes) -> tuple[Change, ...]:
        """Return the changes of the transaction, with those that the database makes by itself."""
        tables = self._known_tables()
        whole = _with_actions(notes, tables)
        touched = whole | notes.rows.keys()
        if notes.everything is None and touched:
            if tables.rewritten is None:
                notes.refuse("a write on a database whose triggers cannot be told")
            elif touched & tables.rewritten:
                notes.refuse("a write to a table with a trigger")
        if notes.everything is not None:
            _log.debug("every table counts as changed: %s", notes.everything)
            return (*_bulk(tables.tables), *notes.announced)
        state = self.state
        rows = [
            row.change(state.tables[table].key_columns)
            for table, found in notes.rows.items()
            if table not in whole
            for row in found
        ]
        return (*_bulk(sorted(whole)), *rows, *notes.announced)

    def _end(self, notes: WriteNotes, *, is_open: bool) -> None:
        changes = self.changes(notes)
        if is_open:
            changes = tuple(_bulk(dict.fromkeys(change.table for change in changes)))
            with self._lock:
                self._distrusted.update(change.table for change in changes)
                self._uncapture_distrusted()
            _log.error("a COMMIT got no answer: %s are not cached until a restart", ", ".join(sorted(self._distrusted)))
        if changes:
            self.put(changes)

    def _uncapture_distrusted(self) -> None:
        if self._state is not None and self._distrusted:
            tables = {
                name: replace(table, captured=False, reason="a COMMIT of it got no answer: restart the server")
                if name in self._distrusted
                else table
                for name, table in self._state.tables.items()
            }
            self._state = replace(self._state, tables=tables)

    def _read(self, connection: Connection) -> CatalogTables:
        connection.execution_options(**{_NOTES: None})
        return self._read_tables(connection)

    def _known_tables(self) -> CatalogTables:
        if self._tables is None:
            raise ServiceUnavailableError("capture is not open: await open() first")
        return self._tables


def _is_open(error: BaseException | None) -> bool:
    """Tell whether the outcome of a COMMIT that was sent is open: its error is not the database's own answer."""
    if error is None or isinstance(error, asyncio.CancelledError | RPCError):
        return False
    return not isinstance(error, DBAPIError) or error.connection_invalidated


def _with_actions(notes: WriteNotes, tables: CatalogTables) -> set[str]:
    """Return the tables that count whole: those noted so, and those that foreign keys write in turn."""
    whole = {table for table in notes.bulk if table in tables.tables}
    pending = [(table, {"delete", "update"}) for table in whole]
    pending += [(table, {row.operation for row in rows}) for table, rows in notes.rows.items() if table not in whole]
    while pending:
        parent, operations = pending.pop()
        for action in tables.actions:
            acts = ("delete" in operations and action.on_delete) or ("update" in operations and action.on_update)
            if action.parent == parent and acts and action.child not in whole:
                whole.add(action.child)
                pending.append((action.child, {"delete", "update"}))
    return whole


def _bulk(tables: Iterable[str]) -> Iterator[Change]:
    return (Change(table=table, operation="bulk") for table in tables)


def _notes_of(connection: Connection) -> WriteNotes | None:
    notes = connection.get_execution_options().get(_NOTES)
    return notes if isinstance(notes, WriteNotes) else None


def _before_statement(
    connection: Connection,
    _cursor: object,
    statement: str,
    _parameters: object,
    context: DefaultExecutionContext | None,
    _executemany: bool,
) -> None:
    notes = _notes_of(connection)
    if notes is not None:
        _find_writes_below(connection, notes)
        notes.add(context, statement)
    elif _NOTES not in connection.get_execution_options():
        _refuse_stray_write(connection, statement)


def _refuse_stray_write(connection: Connection, statement: str) -> None:
    """Refuse a write on a connection that no mutation was given.

    Raises:
        InternalServerError: no change would be recorded.
    """
    found = written(statement, connection.dialect.name)
    if found is None or found.tables:
        raise InternalServerError(
            "a write through a connection of its own is not seen with Capture(mode='session'): use the db that is given"
        )


def _after_statement(
    connection: Connection,
    _cursor: object,
    _statement: str,
    _parameters: object,
    context: DefaultExecutionContext | None,
    _executemany: bool,
) -> None:
    notes = _notes_of(connection)
    if notes is not None:
        notes.count(context)
        connection.info[_TOTAL] = _total_changes(connection)


def _savepoint_rolled_back(connection: Connection, _name: str, _context: None) -> None:
    notes = _notes_of(connection)
    if notes is not None:
        notes.roll_back_savepoint()


def _commit(connection: Connection) -> None:
    """Compare the notes with the database's counts once more, right before COMMIT."""
    notes = _notes_of(connection)
    if notes is None:
        return
    _find_writes_below(connection, notes)
    if connection.dialect.name == "postgresql":
        major = (connection.dialect.server_version_info or (0,))[0]
        query = _WRITTEN_TABLES.format(flush=_FLUSH if int(major) >= 15 else "")
        with notes.apart():
            found = connection.exec_driver_sql(query).all()
        _hold_against(notes, found)
    notes.committing = True


def _hold_against(notes: WriteNotes, found: Iterable[Any]) -> None:
    """Let a table count whole of which PostgreSQL has written other rows than were noted."""
    counts: Counter[str] = Counter()
    for name, count, *_ in found:
        table = notes.schema.table(name)
        if table is None:
            notes.refuse(f"a write to {name!r}, which is no known table")
            return
        counts[table] += count  # the rows of a partitioned table are counted on its partitions
    notes.bulk.update(
        table for table, count in counts.items() if table not in notes.rows or notes.counts.get(table, 0) != count
    )


def _find_writes_below(connection: Connection, notes: WriteNotes) -> None:
    """Find writes below SQLAlchemy since the last statement; on SQLite alone."""
    total = _total_changes(connection)
    if total is not None and total != connection.info.get(_TOTAL):
        notes.refuse("a write below SQLAlchemy")


def _total_changes(connection: Connection) -> Any:
    return getattr(connection.connection.driver_connection, "total_changes", None)
