"""One database: fresh sessions for queries and for mutations, async and sync.

Queries and mutations have engines of their own, because SQLite can then hold each to its promise:

- A query's connection is opened `mode=ro`, and `query_only` keeps it from temporary tables too: a query that writes is
  refused by the database itself, however it writes. It runs in one deferred transaction, so all its statements read
  one snapshot. (A read-only connection cannot make the WAL's shared memory; the log's own connection keeps it there.)
- A mutation's transaction begins with `BEGIN IMMEDIATE`: it has the write lock from its start, so it cannot fail half
  way because another process wrote after it had read (SQLITE_BUSY_SNAPSHOT). The pool of one makes the writers of a
  process queue up fairly instead of polling for the lock.

Python's own transaction handling is off (`isolation_level = None`): it begins too late, and not at all for a SELECT.
**A snapshot is checked, not trusted.** A result that a handler left half read keeps its statement open, and an open
statement keeps SQLite's read snapshot open past COMMIT and ROLLBACK: the next call on that connection would read the
past. So each read transaction begins by asking for the version that it sees; one that is behind is thrown away with
its connection.

**What SQLAlchemy does not see.** A raw cursor runs statements that no recorder hears of. SQLite itself counts them: its
trace callback hears every statement of a connection. Where more ran than were recorded, the result is opaque.

Every session is bound to a connection whose transaction belongs to this module. In a handler, `commit()` and
`rollback()` end a savepoint of it (SQLAlchemy's `join_transaction_mode`); the one real COMMIT comes when the handler
has returned.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, Engine, MetaData, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.ext.asyncio import AsyncSession as SQLAlchemyAsyncSession
from sqlalchemy.orm import Session as SQLAlchemySession
from sqlalchemy.pool import ConnectionPoolEntry
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc.errors import DefinitionError, ServiceUnavailableError
from reactive_rpc.sql.faults import translated
from reactive_rpc.sql.recorder import RECORDER_OPTION, Recorder, install

__all__ = ["Database", "session_mode"]


SNAPSHOT_ATTEMPTS = 10
"""How many connections a read tries until one shows a snapshot that is late enough."""

TRACED = "reactive_rpc_traced"
"""Where a connection's `info` counts the statements that SQLite ran."""

_TRANSACTIONAL = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE")
"""What the count leaves out."""

_WRITING: dict[str, Any] = {"expire_on_commit": False, "join_transaction_mode": "create_savepoint"}
"""A mutation's session works in savepoints of the one transaction, so a handler may roll back and go on."""


class Database:
    """Sessions on one SQLite file.

    Args:
        url: `sqlite:///team.db` or `sqlite+aiosqlite:///team.db`; both drivers are used, whichever is named.
        busy_timeout_seconds: how long to wait for the write lock.
        position: SQL that returns the version a snapshot shows.

    Attributes:
        path: the file, absolute.

    Raises:
        DefinitionError: the URL is none, or of a database that is not supported.
    """

    def __init__(self, url: str | URL, *, busy_timeout_seconds: float, position: str) -> None:
        self.path = Path(str(_sqlite_url(url).database)).absolute()
        self._busy_timeout_seconds = busy_timeout_seconds
        self._position = position
        self._async_reader = self._async_engine(writes=False)
        self._async_writer = self._async_engine(writes=True)
        self._reader = self._engine(writes=False)
        self._writer = self._engine(writes=True)

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

    @asynccontextmanager
    async def read(self, recorder: Recorder, *, at_least: int) -> AsyncIterator[AsyncSession]:
        """Give a fresh read-only session on one snapshot; `recorder` sees every statement.

        Args:
            recorder: of this call.
            at_least: the version that the snapshot must show.
        """
        with translated():
            connection = await self._async_reader.connect()
            try:
                for attempt in count(1):
                    if await connection.run_sync(self._begin_read, recorder, at_least):
                        break
                    _give_up_after(attempt)
                    await connection.invalidate()
                    await connection.close()
                    connection = await self._async_reader.connect()
                async with AsyncSession(connection, expire_on_commit=False) as session:
                    yield session
            finally:
                await connection.run_sync(_end_read, recorder)
                await connection.close()

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """Give a fresh session in one transaction: committed on leaving, rolled back on an exception."""
        with translated():
            async with (
                self._async_writer.begin() as connection,
                AsyncSession(connection, **_WRITING) as session,
            ):
                yield session
                await session.commit()

    @contextmanager
    def read_sync(self, recorder: Recorder, *, at_least: int) -> Iterator[Session]:
        """Do as `read`, in the calling thread."""
        with translated():
            connection = self._reader.connect()
            try:
                for attempt in count(1):
                    if self._begin_read(connection, recorder, at_least):
                        break
                    _give_up_after(attempt)
                    connection.invalidate()
                    connection.close()
                    connection = self._reader.connect()
                with Session(connection, expire_on_commit=False) as session:
                    yield session
            finally:
                _end_read(connection, recorder)
                connection.close()

    @contextmanager
    def write_sync(self) -> Iterator[Session]:
        """Do as `write`, in the calling thread."""
        with (
            translated(),
            self._writer.begin() as connection,
            Session(connection, **_WRITING) as session,
        ):
            yield session
            session.commit()

    def _begin_read(self, connection: Connection, recorder: Recorder, at_least: int) -> bool:
        """Begin a read transaction; tell whether its snapshot shows what it must."""
        connection.execution_options(**{RECORDER_OPTION: recorder})
        connection.begin()
        (version,) = _run(connection.connection, self._position)
        connection.info[TRACED] = 0
        return bool(version >= at_least)

    async def aclose(self) -> None:
        """Close every connection; idempotent. Connections are made anew when asked for again."""
        await self._async_reader.dispose()
        await self._async_writer.dispose()
        self._reader.dispose()
        self._writer.dispose()

    def _async_engine(self, *, writes: bool) -> AsyncEngine:
        engine = create_async_engine(self._url("sqlite+aiosqlite", writes=writes), **self._options(writes=writes))
        self._prepare(engine.sync_engine, writes=writes)
        return engine

    def _engine(self, *, writes: bool) -> Engine:
        engine = create_engine(self._url("sqlite", writes=writes), **self._options(writes=writes))
        self._prepare(engine, writes=writes)
        return engine

    def _url(self, driver: str, *, writes: bool) -> URL:
        """Return a URL that opens the file and never makes one: a database that is gone must not come back empty."""
        return URL.create(driver, database=self.path.as_uri(), query={"mode": "rw" if writes else "ro", "uri": "true"})

    def _options(self, *, writes: bool) -> dict[str, Any]:
        options: dict[str, Any] = {"connect_args": {"timeout": self._busy_timeout_seconds}}
        if writes:
            options |= {"pool_size": 1, "max_overflow": 0, "pool_timeout": self._busy_timeout_seconds}
        else:
            options |= {
                "max_overflow": -1
            }  # a call inside a call must not wait for one outside; who calls is bounded above
        return options

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
            _run(dbapi_connection, *(f"PRAGMA {pragma}" for pragma in pragmas))
            if not writes:
                _count_statements(dbapi_connection, record.info)

        @event.listens_for(engine, "checkout")
        def checkout(_dbapi_connection: object, record: ConnectionPoolEntry, _proxy: object) -> None:
            if record.info["file"] != self._file():
                raise DisconnectionError("the file was replaced")  # the pool connects anew

        @event.listens_for(engine, "begin")
        def begin_transaction(connection: Connection) -> None:
            _run(connection.connection, begin)

        if not writes:
            install(engine)


def _give_up_after(attempt: int) -> None:
    """Let a read try again on another connection, so often.

    Raises:
        ServiceUnavailableError: fresh connections see the past too: the database was put back to an earlier state.
    """
    if attempt == SNAPSHOT_ATTEMPTS:
        raise ServiceUnavailableError("the database shows an earlier state than before: try again")


def _run(dbapi_connection: Any, *statements: str) -> Any:
    """Execute below SQLAlchemy: these statements are not the handler's. Return the first row of the last."""
    cursor = dbapi_connection.cursor()
    try:
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchone()
    finally:
        cursor.close()


def _count_statements(dbapi_connection: Any, info: dict[str, Any]) -> None:
    """Have SQLite count the statements of a connection in its `info`, but for those that begin and end transactions."""

    def count(statement: str) -> None:
        if not statement.startswith(_TRANSACTIONAL):
            info[TRACED] = info.get(TRACED, 0) + 1

    if hasattr(dbapi_connection, "run_async"):
        dbapi_connection.run_async(lambda connection: connection.set_trace_callback(count))
    else:
        dbapi_connection.set_trace_callback(count)


def _end_read(connection: Connection, recorder: Recorder) -> None:
    """Hold what SQLite ran against what was recorded; a connection used behind our back is not used again.

    An error that the handler answered is a result like any other, so this is asked after one, too.
    """
    if not connection.invalidated and connection.info.get(TRACED, 0) > recorder.statements:
        recorder.refuse("runs statements below SQLAlchemy, which are not analysed")
        connection.invalidate()


def _sqlite_url(url: str | URL) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as exc:
        raise DefinitionError(f"{url!r} is no database URL: sqlite+aiosqlite:///team.db is one") from exc
    if parsed.get_backend_name() != "sqlite":
        raise DefinitionError(
            f"{parsed.render_as_string()}: {parsed.get_backend_name()} is not supported yet; "
            "use SQLite: sqlite+aiosqlite:///team.db"
        )
    if not parsed.database or parsed.database == ":memory:" or parsed.database.startswith("file:"):
        raise DefinitionError(
            f"{parsed.render_as_string()}: a database in memory is another one for each connection; "
            "use a file (for tests, in a temporary folder): sqlite+aiosqlite:///team.db"
        )
    return parsed


def session_mode(annotation: object) -> Literal["async", "sync"] | None:
    """Tell which kind of session class `annotation` is; None where it is none."""
    if not isinstance(annotation, type):
        return None
    if issubclass(annotation, SQLAlchemyAsyncSession):
        return "async"
    return "sync" if issubclass(annotation, SQLAlchemySession) else None
