"""A PostgreSQL database, with engines for queries and for mutations.

A query's transaction is REPEATABLE READ, so all its statements read one snapshot, and READ ONLY, so the server itself
refuses a write, however it is made. A mutation's transaction has the isolation that it or the settings declare.
Coroutines use the driver that the URL names, threads use psycopg.

docs/internals/postgresql.md says how a snapshot is checked, how reads are found that no statement names, and why
queries never wait for a connection here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Literal, LiteralString
from uuid import uuid4

import psycopg
from sqlalchemy import Connection, Engine, MetaData, create_engine, event, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection
from sqlalchemy.sql.compiler import SQLCompiler

from reactive_rpc.backends.postgresql.gathering import GatheringConnection, gather_savepoints
from reactive_rpc.backends.postgresql.leftovers import clean_after_each, leaves_something
from reactive_rpc.backends.postgresql.locks import ASK_LOCKED, ASK_SHOWN, Shown, account_for, read_locked
from reactive_rpc.backends.postgresql.oracle import PostgreSQLOracle
from reactive_rpc.backends.postgresql.url import Place, dsn_of, libpq_url, place_name
from reactive_rpc.compat.asyncpg import TypeLookups
from reactive_rpc.compat.sqlalchemy import use_connection_class
from reactive_rpc.errors import DefinitionError, ServiceUnavailableError
from reactive_rpc.statements.analysis import template_of
from reactive_rpc.statements.concealment import said_by
from reactive_rpc.statements.database import Database
from reactive_rpc.statements.faults import UnprovenError, connecting, translated
from reactive_rpc.statements.recorder import Recorder

__all__ = ["DRIVERS", "TABLES_LOCK", "PostgreSQLDatabase"]

logger = logging.getLogger(__name__)

_PLACE: Final[LiteralString] = """
SELECT (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) OPERATOR(pg_catalog.||) '/'
  OPERATOR(pg_catalog.||) (SELECT oid::text FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()),
  pg_catalog.array_to_string(pg_catalog.current_schemas(false), ', ')
"""
"""SQL: the database, whatever it is called, and the schemas of the search path that are there."""
_READ_ONLY: Final = "default_transaction_read_only"
TABLES_LOCK: Final = 0x7265_6163_7469_7665
"""The advisory lock that processes take which create the tables at once: "reactive"."""
DRIVERS: Final[dict[str, Literal["asyncpg", "psycopg"]]] = {
    "postgresql": "asyncpg",
    "postgresql+asyncpg": "asyncpg",
    "postgresql+psycopg": "psycopg",
    "postgresql+psycopg_async": "psycopg",
}
_OF_SQLALCHEMY: Final = ("prepared_statement_cache_size",)
"""What a URL says to SQLAlchemy's adapter around asyncpg, and not to asyncpg."""


class PostgreSQLDatabase(Database):
    """Sessions on one PostgreSQL database.

    Args:
        url: `postgresql+asyncpg://user@host/team` or `postgresql+psycopg://...`, which says what coroutines use.
        pool_size: how many connections are kept for queries, and how many at most there are for mutations; twice that,
            where there are handlers that are no coroutines.
        pool_timeout_seconds: how long a mutation waits for a connection.
        direct: where capture and log connect, if that is elsewhere: each transaction here may then meet another session
            of the server's, as through a pooler in transaction mode, and nothing is left to the session: no prepared
            statement, no setting.

    Raises:
        DefinitionError: the URL names another driver.
    """

    dialect = "postgresql"

    def __init__(self, url: URL, *, pool_size: int, pool_timeout_seconds: float, direct: Place | None = None) -> None:
        if url.drivername not in DRIVERS:
            raise DefinitionError(
                f"{url.render_as_string()}: {url.drivername} is not supported; "
                "use postgresql+asyncpg or postgresql+psycopg"
            )
        self.name = url.render_as_string()
        self.queries_at_once = pool_size
        self._driver = DRIVERS[url.drivername]
        self._libpq_url = libpq_url(url)
        self._adapter_options = {name: url.query[name] for name in _OF_SQLALCHEMY if name in url.query}
        if direct is not None:
            self._adapter_options["prepared_statement_cache_size"] = "0"
        self._pool_size = pool_size
        self._direct = direct
        self._is_shared = direct is not None
        self._pool_timeout_seconds = pool_timeout_seconds
        self.oracle = PostgreSQLOracle()

    def create_tables(self, metadata: MetaData) -> None:
        """Create the tables that are missing, as `metadata.create_all` does; one process at a time.

        Raises:
            ServiceUnavailableError: the database cannot be reached.
        """
        with translated(), connecting():
            connection = self._writer.connect()
        with translated(), connection, connection.begin():
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": TABLES_LOCK})
            metadata.create_all(connection)

    async def check(self) -> None:
        """Hold where handlers connect against where capture and log do, if that is elsewhere.

        Raises:
            DefinitionError: that is another database, or its tables go by other names.
            ServiceUnavailableError: one of them cannot be reached.
        """
        if self._direct is None:
            return
        place, names = await self.work(lambda connection: connection.execute(text(_PLACE)).one())
        direct, direct_names = await asyncio.to_thread(_find_place, self._direct)
        there = place_name(self._direct)
        if place != direct:
            raise DefinitionError(f"{self.name} and {there}, where capture and log connect, are two databases")
        if names != direct_names:
            raise DefinitionError(
                f"the search_path of handlers is {names!r}, and at {there}, where capture and log connect, it is "
                f"{direct_names!r}: one name would mean two tables. Give the same there: "
                "log_url='postgresql://...?options=-csearch_path%3D...'"
            )

    def _begin_read(self, connection: Connection, recorder: Recorder, at_least: int) -> bool:
        reading = _reading(connection)
        reading.begin()
        try:
            _note(reading, recorder, Shown.read(reading.value(ASK_SHOWN)))
        except Exception:
            if not reading.invalidated:
                raise
            return False
        reading.recorder = recorder
        return recorder.shows is not None and recorder.shows >= at_least

    def _begin_unproved(self, connection: Connection, recorder: Recorder, at_least: int) -> bool:
        """Ask nothing: which snapshot it is can be asked at any time before it ends, and is, along with its locks."""
        reading = _reading(connection)
        reading.begin()
        reading.at_least, reading.recorder = at_least, recorder
        return True

    def _end_read(self, connection: Connection, recorder: Recorder) -> None:
        """Hold the locks of the transaction against the record, and its snapshot against the version that it must show.

        Raises:
            UnprovenError: that is too early, or nobody can tell.
            ServiceUnavailableError: it was of a standby.
        """
        reading = _reading(connection)
        if reading.recorder is None:
            return
        try:
            _account(reading, recorder)
            _prove(reading, recorder)
        finally:
            reading.recorder = None
            if recorder.read_set().opaque is not None and not (connection.invalidated or connection.closed):
                # It may have ended the transaction that would take back what it has set.
                leaves_something(connection.connection)

    def _make_async_engine(self, *, writes: bool) -> AsyncEngine:
        options = self._options(writes=writes)
        if self._driver == "psycopg":
            url = make_url(self._libpq_url).set(drivername="postgresql+psycopg_async")
            engine = create_async_engine(
                url, **options, connect_args=self._psycopg_options, pool_pre_ping=self._pings(writes=writes)
            )
        else:
            arguments = {"dsn": self._libpq_url, "connection_class": _Introspecting}
            if self._is_shared:
                arguments |= {"statement_cache_size": 0, "prepared_statement_name_func": _new_name}
            url = URL.create("postgresql+asyncpg", query=self._adapter_options)
            engine = create_async_engine(url, **options, connect_args=arguments)
            event.listen(engine.sync_engine, "checkout", _refuse_closed)
            if writes:
                gather_savepoints(engine.sync_engine)
            if self._is_shared:
                _set_up_in_one_transaction(engine.sync_engine)
        self._prepare(engine.sync_engine, writes=writes)
        self._clean(engine.sync_engine, writes=writes)
        return engine

    def _make_engine(self, *, writes: bool) -> Engine:
        url = make_url(self._libpq_url).set(drivername="postgresql+psycopg")
        engine = create_engine(
            url,
            **self._options(writes=writes),
            connect_args=self._psycopg_options,
            pool_pre_ping=self._pings(writes=writes),
        )
        self._prepare(engine, writes=writes)
        self._clean(engine, writes=writes)
        return engine

    def _pings(self, *, writes: bool) -> bool:
        """Tell whether a connection must be asked whether it is there; cleaning it finds that out, too."""
        return writes and self._is_shared

    def _clean(self, engine: Engine, *, writes: bool) -> None:
        if not self._is_shared:  # its sessions are the pooler's to clean
            clean_after_each(engine, always=writes)

    @property
    def _psycopg_options(self) -> dict[str, Any]:
        return {"prepare_threshold": None} if self._is_shared else {}

    def _options(self, *, writes: bool) -> dict[str, Any]:
        options: dict[str, Any] = {"pool_size": self._pool_size, "hide_parameters": True}
        if writes:
            return options | {"max_overflow": 0, "pool_timeout": self._pool_timeout_seconds}
        return options | {"max_overflow": -1}

    def _prepare(self, engine: Engine, *, writes: bool) -> None:
        if writes:
            return
        use_connection_class(engine, _ReadingConnection)

        @event.listens_for(engine, "connect")
        def connect(dbapi_connection: Any, _record: ConnectionPoolEntry) -> None:
            if not self._is_shared:
                # Said here and not as the connection begins: PgBouncer would refuse it.
                _run(dbapi_connection, f"SET {_READ_ONLY} = on")
            dialect: Any = engine.dialect
            dialect.set_isolation_level(dbapi_connection, "REPEATABLE READ")
            dialect.set_readonly(dbapi_connection, True)

        @event.listens_for(engine, "rollback_savepoint")
        def rollback_savepoint(connection: Connection, _name: str, _context: object) -> None:
            reading = _reading(connection)
            if reading.recorder is not None:
                # Its locks go with it, and with them what it read.
                _account(reading, reading.recorder)

        @event.listens_for(engine, "rollback")
        @event.listens_for(engine, "commit")
        def end(connection: Connection) -> None:
            # INVARIANT (what is asked at the end is asked of the transaction that was read in): see `_prove`.
            _reading(connection).has_ended = True

        @event.listens_for(engine, "before_cursor_execute")
        def before_cursor_execute(connection: Connection, _cursor: Any, statement: str, *others: Any) -> None:
            reading, (_parameters, context, _many) = _reading(connection), others
            recorder = reading.recorder
            if recorder is not None and recorder.shows is None and _may_end_transaction(statement, context):
                _note(reading, recorder, Shown.read(reading.value(ASK_SHOWN)))


class _ReadingConnection(Connection):
    """Tells the recorder of a handler that reaches for the driver's own connection.

    Attributes:
        recorder: while a handler has the connection.
        began: when the transaction began, which says which one it is; empty until it was asked.
        at_least: the version that it must show, if that was not asked as it began.
        has_ended: whether the transaction has, or may have, before it was asked.
    """

    recorder: Recorder | None = None
    began: str = ""
    at_least: int = 0
    has_ended: bool = False

    @property
    def connection(self) -> PoolProxiedConnection:
        """Return the pool's connection, through which statements run that nobody hears of."""
        if self.recorder is not None:
            self.has_ended = True
            self.recorder.refuse("runs statements below SQLAlchemy, which are not analysed: use the db it is given")
        return super().connection

    def value(self, statement: str) -> str:
        """Return the one value of a statement, executed below SQLAlchemy: it is not the handler's."""
        cursor = super().connection.cursor()
        try:
            cursor.execute(statement)
            (value,) = cursor.fetchone() or ("",)
            return str(value)
        except BaseException as exc:
            if not isinstance(exc, Exception):
                # INVARIANT (no connection that was cancelled in a statement below SQLAlchemy is used again): its driver
                # may take a BEGIN for not sent, and an old snapshot would be found open by the next query.
                self.invalidate()
            elif self._is_lost(exc):
                # The server was restarted: the pool's other connections are gone too.
                self.invalidate()
                self.engine.dispose()
            raise
        finally:
            cursor.close()

    def _is_lost(self, error: Exception) -> bool:
        """Tell whether `error` says that the server has hung up."""
        dialect: Any = self.dialect
        return bool(dialect.is_disconnect(error, super().connection.dbapi_connection, None))


def _reading(connection: Connection) -> _ReadingConnection:
    if not isinstance(connection, _ReadingConnection):
        raise TypeError(f"{connection!r} is not of an engine that only reads")
    return connection


def _account(connection: _ReadingConnection, recorder: Recorder) -> None:
    """Hold what the transaction has locked against what was recorded, unless that is opaque already."""
    if connection.invalidated:
        recorder.refuse("lost its connection")
    if recorder.read_set().opaque is not None:
        return
    try:
        shown, locked = read_locked(connection.value(ASK_LOCKED))
        if recorder.shows is None and not connection.has_ended:
            _note(connection, recorder, shown)
        if shown.began != connection.began:
            recorder.refuse("ends the transaction that it was given: leave commit and rollback to the caller")
        else:
            account_for(recorder, locked)
    except ServiceUnavailableError:
        raise
    except Exception as exc:  # a failed transaction, a lost connection: what was read is not known
        logger.debug("what a query read cannot be told: %s", said_by(exc))
        recorder.refuse("goes on after a statement that failed, so what it read cannot be told")


def _note(connection: _ReadingConnection, recorder: Recorder, shown: Shown) -> None:
    """Note which snapshot a transaction reads.

    Raises:
        ServiceUnavailableError: a standby's.
    """
    if shown.is_standby:
        raise ServiceUnavailableError("the database is a standby, which shows the past: name the primary in the URL")
    recorder.shows, connection.began = shown.version, shown.began


def _prove(connection: _ReadingConnection, recorder: Recorder) -> None:
    """See that the snapshot which a handler has read was late enough, and is known.

    Raises:
        UnprovenError: it is not.
    """
    # INVARIANT (asked late, but never of another transaction): one snapshot is that of all statements of a REPEATABLE
    # READ transaction, whenever it is asked for. Three things end the transaction within a handler: a text, before
    # which it was asked; SQLAlchemy's rollback or commit, and the driver's own connection, after which nothing is.
    if recorder.shows is None and not connection.has_ended and not connection.invalidated:
        with suppress(Exception):  # the transaction has failed
            _note(connection, recorder, Shown.read(connection.value(ASK_SHOWN)))
    if recorder.shows is None:
        by_handler = not connection.invalidated
        raise UnprovenError("a query lost the transaction that it was given: try again", by_handler=by_handler)
    if recorder.shows < connection.at_least:
        connection.invalidate()  # it shows the past
        raise UnprovenError("the database shows an earlier state than before: try again", by_handler=False)


def _may_end_transaction(statement: str, context: Any) -> bool:
    """Tell whether a statement is, or holds, text: no construct of SQLAlchemy's that reads ends a transaction."""
    compiled = None if context is None else context.compiled
    if not isinstance(compiled, SQLCompiler) or ";" in statement:
        return True
    template = template_of(compiled)
    return template.textual is not None or template.opaque is not None


def _find_place(place: Place) -> tuple[str, str]:
    """Return which database is at `place`, and whose tables go by bare names there.

    Raises:
        ServiceUnavailableError: it cannot be reached.
    """
    with translated(), connecting(), psycopg.connect(dsn_of(place), autocommit=True) as connection:
        found, names = connection.execute(_PLACE).fetchone() or ("", "")
        return found, names


def _run(dbapi_connection: Any, statement: str) -> None:
    """Execute a statement below SQLAlchemy, in a transaction of its own."""
    cursor = dbapi_connection.cursor()
    cursor.execute(statement)
    cursor.close()
    dbapi_connection.commit()


def _set_up_in_one_transaction(engine: Engine) -> None:
    """Keep what asyncpg looks up as it connects in one session: it asks in steps that need each other."""

    def begin(dbapi_connection: Any, _record: ConnectionPoolEntry) -> None:
        cursor = dbapi_connection.cursor()
        cursor.execute("SELECT 1")
        cursor.close()

    def commit(dbapi_connection: Any, _record: ConnectionPoolEntry) -> None:
        dbapi_connection.commit()

    event.listen(engine, "connect", begin, insert=True)
    event.listen(engine, "connect", commit)


def _new_name() -> str:
    """Name a prepared statement as no other connection does, as the server's session may be theirs next."""
    return f"__reactive_rpc_{uuid4()}__"


def _refuse_closed(dbapi_connection: Any, _record: ConnectionPoolEntry, _proxy: PoolProxiedConnection) -> None:
    """Notice what asyncpg has heard while the connection was idle: the server has hung up."""
    if dbapi_connection.driver_connection.is_closed():
        raise DisconnectionError("the server has hung up")  # the pool connects anew


class _Introspecting(TypeLookups, GatheringConnection):
    """Looks types up without keeping locks on the catalogs it finds them in."""

    async def look_up_types(self, look_up: Callable[[], Any]) -> Any:
        """Roll back to before the look-up, in a transaction."""
        if not self.is_in_transaction():
            return await look_up()
        await self.execute("SAVEPOINT reactive_rpc_types")
        try:
            return await look_up()
        finally:
            await self.execute("ROLLBACK TO SAVEPOINT reactive_rpc_types; RELEASE SAVEPOINT reactive_rpc_types")
