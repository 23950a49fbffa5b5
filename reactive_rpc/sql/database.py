"""One database: fresh sessions for queries and for mutations, async and sync.

Queries and mutations have engines of their own, because SQLite can then hold each to its promise:

- A query's connection is opened `mode=ro`, and `query_only` keeps it from temporary tables too: a query that writes is
  refused by the database itself, however it writes. It runs in one deferred transaction, so all its statements read
  one snapshot. (A read-only connection cannot make the WAL's shared memory; the log's own connection keeps it there.)
- A mutation's transaction begins with `BEGIN IMMEDIATE`: it has the write lock from its start, so it cannot fail half
  way because another process wrote after it had read (SQLITE_BUSY_SNAPSHOT). The pool of one makes the writers of a
  process queue up fairly instead of polling for the lock.

Python's own transaction handling is off (`isolation_level = None`): it begins too late, and not at all for a SELECT.
Every session is bound to a connection whose transaction belongs to this module. In a handler, `commit()` and
`rollback()` end a savepoint of it (SQLAlchemy's `join_transaction_mode`); the one real COMMIT comes when the handler
has returned.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
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


_WRITING: dict[str, Any] = {"expire_on_commit": False, "join_transaction_mode": "create_savepoint"}
"""A mutation's session works in savepoints of the one transaction, so a handler may roll back and go on."""


class Database:
    """Sessions on one SQLite file.

    Args:
        url: `sqlite:///team.db` or `sqlite+aiosqlite:///team.db`; both drivers are used, whichever is named.
        busy_timeout_seconds: how long to wait for the write lock.

    Attributes:
        path: the file, absolute.

    Raises:
        DefinitionError: the URL is none, or of a database that is not supported.
    """

    def __init__(self, url: str | URL, *, busy_timeout_seconds: float) -> None:
        self.path = Path(str(_sqlite_url(url).database)).absolute()
        self._busy_timeout_seconds = busy_timeout_seconds
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
    async def read(self, recorder: Recorder) -> AsyncIterator[AsyncSession]:
        """Give a fresh read-only session on one snapshot; `recorder` sees every statement."""
        with translated():
            async with self._async_reader.connect() as connection:
                await connection.execution_options(**{RECORDER_OPTION: recorder})
                async with connection.begin(), AsyncSession(connection, expire_on_commit=False) as session:
                    yield session

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
    def read_sync(self, recorder: Recorder) -> Iterator[Session]:
        """Do as `read`, in the calling thread."""
        with translated(), self._reader.connect() as connection:
            connection.execution_options(**{RECORDER_OPTION: recorder})
            with connection.begin(), Session(connection, expire_on_commit=False) as session:
                yield session

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

        @event.listens_for(engine, "checkout")
        def checkout(_dbapi_connection: object, record: ConnectionPoolEntry, _proxy: object) -> None:
            if record.info["file"] != self._file():
                raise DisconnectionError("the file was replaced")  # the pool connects anew

        @event.listens_for(engine, "begin")
        def begin_transaction(connection: Connection) -> None:
            _run(connection.connection, begin)

        if not writes:
            install(engine)


def _run(dbapi_connection: Any, *statements: str) -> None:
    """Execute below SQLAlchemy: these statements are not the handler's, so the recorder does not see them."""
    cursor = dbapi_connection.cursor()
    try:
        for statement in statements:
            cursor.execute(statement)
    finally:
        cursor.close()


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
