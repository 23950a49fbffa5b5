"""Any database that SQLAlchemy has a dialect for, with capture in the session.

A query's transaction is REPEATABLE READ, READ ONLY if the database knows that; elsewhere a guard reads each statement
first. Every read sees `at_least`, and nothing notices reads below SQLAlchemy: `docs/internals/capture-session.md`
argues both ("The log and snapshots").
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection, Engine, MetaData, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import NoSuchModuleError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from reactive_rpc.backends.session.written import written
from reactive_rpc.errors import DefinitionError
from reactive_rpc.statements.database import Database
from reactive_rpc.statements.faults import query_wrote, translated
from reactive_rpc.statements.isolation import Isolation, level_among
from reactive_rpc.statements.recorder import Recorder

__all__ = ["GenericDatabase"]

_SET_READ_ONLY: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
_SETS_READ_ONLY: Final = frozenset({"mysql", "mariadb", "postgresql"})

_TWINS: Final = (
    ("aiomysql", "pymysql"),
    ("asyncmy", "pymysql"),
    ("aiosqlite", "pysqlite"),
    ("asyncpg", "psycopg"),
    ("aioodbc", "pyodbc"),
    ("oracledb_async", "oracledb"),
)
"""`(driver for coroutines, driver for threads)`; psycopg is both."""

_OPTIONS: Final[dict[str, Any]] = {"pool_pre_ping": True, "max_overflow": -1, "hide_parameters": True}


class GenericDatabase(Database):
    """Sessions on a database by its URL.

    Args:
        url: names a driver for coroutines or one for threads; its twin serves the other kind of handler.

    Raises:
        DefinitionError: there is no such dialect, or its driver is not installed.
    """

    def __init__(self, url: URL) -> None:
        self.name = url.render_as_string()
        self._url = url
        self.dialect = url.get_backend_name()
        try:
            url.get_dialect().import_dbapi()
        except (NoSuchModuleError, ImportError) as exc:
            raise DefinitionError(f"{self.name}: install its dialect or driver: {exc}") from exc

    def create_tables(self, metadata: MetaData) -> None:
        """Create the tables that are missing, as `metadata.create_all` does. Blocks.

        Raises:
            ServiceUnavailableError: the database cannot be reached, or is locked.
        """
        with translated():
            metadata.create_all(self._writer)

    def _transaction_options(self, isolation: Isolation) -> dict[str, Any]:
        """Return the weakest level that the database offers and that is enough; none where it offers no levels."""
        try:
            offered = self._writer.dialect.get_isolation_level_values(None)  # type: ignore[arg-type]  # none looks at it
        except NotImplementedError:
            return {}
        level = level_among(offered, isolation)
        return {} if level is None else {"isolation_level": level}

    def _make_async_engine(self, *, writes: bool) -> AsyncEngine:
        engine = create_async_engine(self._driven(is_async=True), **_OPTIONS)
        self._guard(engine.sync_engine, writes=writes)
        return engine

    def _make_engine(self, *, writes: bool) -> Engine:
        engine = create_engine(self._driven(is_async=False), **_OPTIONS)
        self._guard(engine, writes=writes)
        return engine

    def _guard(self, engine: Engine, *, writes: bool) -> None:
        if not writes and self.dialect not in _SETS_READ_ONLY:
            event.listen(engine, "before_cursor_execute", _refuse_write)

    def _begin_read(self, connection: Connection, recorder: Recorder, at_least: int) -> bool:
        connection.begin()
        if self.dialect in _SETS_READ_ONLY:
            cursor = connection.connection.cursor()
            cursor.execute(_SET_READ_ONLY)
            cursor.close()
        return True

    def _end_read(self, connection: Connection, recorder: Recorder) -> None:
        """Ask nothing: see the head of the module."""

    def _driven(self, *, is_async: bool) -> URL:
        """Return the URL with the driver of this kind."""
        driver = self._url.get_driver_name()
        for pair in _TWINS:
            if driver in pair:
                return self._url.set(drivername=f"{self.dialect}+{pair[0 if is_async else 1]}")
        return self._url


def _refuse_write(_connection: Connection, _cursor: object, statement: str, *_: Any) -> None:
    """Refuse a statement that writes, or may.

    Raises:
        QueryWroteError: it does.
    """
    found = written(statement, _connection.dialect.name)
    if found is None or found.tables:
        raise query_wrote(f"cannot execute {statement.split(maxsplit=1)[0].upper()} in a read-only transaction")
