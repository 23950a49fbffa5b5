"""A SQLite file as a database.

Queries and mutations have engines of their own, because SQLite can then hold each to its promise: the database itself
refuses a query that writes, and a mutation has the write lock from its start. Python's own transaction handling is off.
A snapshot is checked, not trusted; SQLite counts the statements that ran below SQLAlchemy; a connection on which a
handler left something is replaced.

`docs/internals/capture-sqlite.md` argues each ("Sessions").
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, MetaData, RootTransaction, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from reactive_rpc.backends.sqlite.driver import Driver, OneStepConnection, ReadingConnection
from reactive_rpc.backends.sqlite.oracle import EXPLAIN, SQLiteOracle
from reactive_rpc.errors import DefinitionError, ServiceUnavailableError
from reactive_rpc.statements.database import Database
from reactive_rpc.statements.fair_lock import FairLock
from reactive_rpc.statements.faults import holding_write_lock, translated
from reactive_rpc.statements.isolation import Isolation
from reactive_rpc.statements.recorder import Recorder

__all__ = ["SQLiteDatabase"]

TRACED = "reactive_rpc_traced"
"""The key in a connection's `info` that counts the statements that SQLite ran."""

LEFT = "reactive_rpc_left"
"""Set in the `info` of a connection that is not what it was when it was made."""

_LEAVES: Final = frozenset({
    sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_CREATE_TEMP_TABLE, sqlite3.SQLITE_CREATE_TEMP_TRIGGER,
    sqlite3.SQLITE_CREATE_TEMP_VIEW, sqlite3.SQLITE_CREATE_VTABLE, sqlite3.SQLITE_DETACH,
})  # fmt: skip
"""Actions whose effect stays on the connection; so does a pragma's that is given a value."""

_READS: Final = ("SELECT", "WITH", "VALUES")
"""How a statement begins that leaves nothing on a connection which cannot write."""

_UNCOUNTED = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", EXPLAIN)
"""Statements that the count leaves out."""


class SQLiteDatabase(Database):
    """Sessions on one SQLite file.

    Args:
        url: `sqlite:///team.db` or `sqlite+aiosqlite:///team.db`; both drivers are used, whichever is named.
        busy_timeout_seconds: how long to wait for the write lock.
        position: SQL that returns the version a snapshot shows; None if none can: each read then has a connection
            of its own, on which nothing can hold an old snapshot open.

    Attributes:
        path: the file, absolute.

    Raises:
        DefinitionError: the database is in memory.
    """

    dialect = "sqlite"

    def __init__(self, url: URL, *, busy_timeout_seconds: float, position: str | None) -> None:
        self.path = _path(url)
        self.name = str(self.path)
        self._busy_timeout_seconds = busy_timeout_seconds
        self._position = position
        self.oracle = SQLiteOracle()
        # Coroutines and threads have an engine each: by SQLite's own lock, which is asked for now and then, the ones
        # would starve while the others write without a pause.
        self._write_lock = FairLock(busy_timeout_seconds)

    def create_tables(self, metadata: MetaData) -> None:
        """Create the file if it is missing, and the tables that are, as `metadata.create_all` does.

        Raises:
            ServiceUnavailableError: the file cannot be made, or is locked.
        """
        try:
            self.path.touch()
        except OSError as exc:
            raise ServiceUnavailableError(f"{self.path} cannot be made: {exc.strerror}") from exc
        with translated():
            metadata.create_all(self._writer)

    def _begin_read(self, connection: Connection, recorder: Recorder, at_least: int) -> bool:
        connection.begin()
        connection.info[TRACED] = 0
        if self._position is None:
            return True
        (version,) = _run(connection.connection.dbapi_connection, self._position)
        connection.info[TRACED] = 0
        recorder.shows = version
        return bool(version >= at_least)

    def _end_read(self, connection: Connection, recorder: Recorder) -> None:
        """Compare SQLite's count with the recorder's; a connection used behind our back is not used again."""
        if not connection.invalidated and connection.info.get(TRACED, 0) > recorder.statements:
            recorder.refuse("runs statements below SQLAlchemy, which are not analysed")
            connection.invalidate()

    def _commit(self, transaction: RootTransaction) -> None:
        """Commit; the driver sees to it that nobody who is cancelled ends before COMMIT has."""
        transaction.commit()

    def _make_async_engine(self, *, writes: bool) -> AsyncEngine:
        url = self._url("sqlite+aiosqlite", writes=writes)
        # INVARIANT (what runs on the event loop waits for no lock): a database without capture need not be in WAL mode.
        kind = OneStepConnection if writes or self._position is None else ReadingConnection
        engine = create_async_engine(url, **self._options(writes=writes), module=Driver(kind))
        self._prepare(engine.sync_engine, writes=writes)
        if writes:
            dialect: Any = engine.dialect  # whose methods are not meant to be exchanged, by its types
            dialect.do_savepoint = _set_savepoint
            dialect.do_release_savepoint = _release_savepoint
        return engine

    def _make_engine(self, *, writes: bool) -> Engine:
        engine = create_engine(self._url("sqlite", writes=writes), **self._options(writes=writes))
        self._prepare(engine, writes=writes)
        return engine

    def _transaction_options(self, isolation: Isolation) -> dict[str, Any]:
        """Return nothing: who has the write lock from the start is alone, and that is serializable."""
        return {}

    @contextmanager
    def _handling(self) -> Iterator[None]:
        """Say of a lock that the handler met that it is probably its own: BEGIN IMMEDIATE has taken it."""
        with holding_write_lock():
            yield

    def _url(self, driver: str, *, writes: bool) -> URL:
        """Return a URL that opens the file and never makes one: a database that is gone must not come back empty."""
        return URL.create(driver, database=self.path.as_uri(), query={"mode": "rw" if writes else "ro", "uri": "true"})

    def _options(self, *, writes: bool) -> dict[str, Any]:
        options: dict[str, Any] = {"hide_parameters": True, "connect_args": {"timeout": self._busy_timeout_seconds}}
        if writes:
            return options | {"pool_size": 1, "max_overflow": 0, "pool_timeout": self._busy_timeout_seconds}
        if self._position is None:
            return options | {"poolclass": NullPool}
        # A call inside a call must not wait for one outside; who calls is bounded above.
        return options | {"max_overflow": -1}

    def _file(self) -> tuple[int, int] | None:
        """Return the identity of the file behind the path: an open connection outlives a file that is replaced."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _prepare(self, engine: Engine, *, writes: bool) -> None:
        pragmas = ["foreign_keys=ON", "recursive_triggers=ON", f"query_only={'OFF' if writes else 'ON'}"]
        begin = "BEGIN IMMEDIATE" if writes else "BEGIN"

        @event.listens_for(engine, "connect")
        def connect(dbapi_connection: Any, record: ConnectionPoolEntry) -> None:
            record.info["file"] = self._file()
            dbapi_connection.isolation_level = None
            for pragma in pragmas:
                _run(dbapi_connection, f"PRAGMA {pragma}")
            if writes:
                _notice_what_is_left(dbapi_connection, record.info)
            else:
                _count_statements(dbapi_connection, record.info)

        @event.listens_for(engine, "checkout")
        def checkout(_dbapi_connection: object, record: ConnectionPoolEntry, _proxy: object) -> None:
            if record.info["file"] != self._file():
                raise DisconnectionError("the file was replaced")  # the pool connects anew
            if record.info.get(LEFT):
                raise DisconnectionError("a handler has left something on the connection")

        @event.listens_for(engine, "begin")
        def begin_transaction(connection: Connection) -> None:
            _run(connection.connection.dbapi_connection, begin)


def _run(dbapi_connection: Any, statement: str) -> Any:
    """Execute below SQLAlchemy: the statement is not the handler's. Return its first row."""
    if isinstance(dbapi_connection, OneStepConnection):
        return dbapi_connection.first_row(statement)
    with closing(dbapi_connection.execute(statement)) as cursor:
        return cursor.fetchone()


def _set_savepoint(connection: Connection, name: str) -> None:
    """Set a savepoint in the calling thread: within a transaction it touches nothing but memory."""
    _one_step(connection).here(f"SAVEPOINT {name}")


def _release_savepoint(connection: Connection, name: str) -> None:
    """Release a savepoint in the calling thread, likewise: the transaction around it goes on."""
    _one_step(connection).here(f"RELEASE SAVEPOINT {name}")


def _one_step(connection: Connection) -> OneStepConnection:
    driver = connection.connection.dbapi_connection
    if not isinstance(driver, OneStepConnection):
        raise TypeError(f"{driver!r} is not of the driver for coroutines")
    return driver


def _count_statements(dbapi_connection: Any, info: dict[str, Any]) -> None:
    """Have SQLite count the statements of a connection in its `info`, but for those that are not the handler's.

    Its authorizer is the oracle's, so what leaves something is noticed here too.
    """

    def count(statement: str) -> None:
        if not statement.startswith(_UNCOUNTED):
            info[TRACED] = info.get(TRACED, 0) + 1
            if not statement.lstrip()[:6].upper().startswith(_READS):
                info[LEFT] = True

    if isinstance(dbapi_connection, OneStepConnection):
        dbapi_connection.trace(count)
    else:
        dbapi_connection.set_trace_callback(count)


def _notice_what_is_left(dbapi_connection: Any, info: dict[str, Any]) -> None:
    """Have SQLite say in a connection's `info` that a statement is compiled which leaves something on it."""

    def authorize(action: int, _first: str | None, value: str | None, _schema: str | None, _by: str | None) -> int:
        if action in _LEAVES or (action == sqlite3.SQLITE_PRAGMA and value is not None):
            info[LEFT] = True
        return sqlite3.SQLITE_OK

    if hasattr(dbapi_connection, "run_async"):
        dbapi_connection.run_async(lambda connection: connection.set_authorizer(authorize))
    else:
        dbapi_connection.set_authorizer(authorize)


def _path(url: URL) -> Path:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise DefinitionError(
            f"{url.render_as_string()}: a database in memory is another one for each connection; "
            "use a file (for tests, in a temporary folder): sqlite+aiosqlite:///team.db"
        )
    return Path(url.database).absolute()
