"""Which parts belong to a database: its sessions, its capture, its log. The one place that tells databases apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Engine, MetaData, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine

from reactive_rpc.backends.postgresql.capture.announcement import announce_on_postgresql
from reactive_rpc.backends.postgresql.capture.answers import answers_on_postgresql
from reactive_rpc.backends.postgresql.capture.backend import PostgreSQLCapture
from reactive_rpc.backends.postgresql.capture.catalog_tables import catalog_tables_on_postgresql
from reactive_rpc.backends.postgresql.database import PostgreSQLDatabase
from reactive_rpc.backends.postgresql.engine import EngineDatabase, refuse_engine
from reactive_rpc.backends.postgresql.ephemeral_store import PostgreSQLEphemeralStore
from reactive_rpc.backends.postgresql.log import PostgreSQLLog
from reactive_rpc.backends.postgresql.relay_lock import relay_lock
from reactive_rpc.backends.postgresql.url import Place
from reactive_rpc.backends.redis.ephemeral_store import RedisEphemeralStore
from reactive_rpc.backends.redis.log import UNREACHABLE, RedisLog
from reactive_rpc.backends.redis.relay import Relay
from reactive_rpc.backends.redis.stream import RedisStream
from reactive_rpc.backends.session.capture import SessionCapture
from reactive_rpc.backends.session.database import GenericDatabase
from reactive_rpc.backends.session.log import LocalLog
from reactive_rpc.backends.session.tables import inspected_tables
from reactive_rpc.backends.sqlite.capture.announcement import announce_on_sqlite
from reactive_rpc.backends.sqlite.capture.answers import answers_on_sqlite
from reactive_rpc.backends.sqlite.capture.backend import POSITION, SQLiteCapture
from reactive_rpc.backends.sqlite.capture.catalog_tables import catalog_tables_on_sqlite
from reactive_rpc.backends.sqlite.database import SQLiteDatabase
from reactive_rpc.backends.sqlite.ephemeral_store import SQLiteEphemeralStore
from reactive_rpc.backends.sqlite.log import SQLiteLog
from reactive_rpc.changes.announcement import Announce
from reactive_rpc.changes.answers import Answers
from reactive_rpc.changes.capture_backend import CaptureBackend
from reactive_rpc.changes.capture_options import Capture
from reactive_rpc.changes.catalog_tables import ReadTables
from reactive_rpc.changes.ephemeral_store import Budget, EphemeralStore
from reactive_rpc.changes.image_policy import ImagePolicy
from reactive_rpc.changes.log import Log
from reactive_rpc.changes.memory_store import InMemoryEphemeralStore
from reactive_rpc.clock import Clock, IdSource, SystemClock
from reactive_rpc.errors import DefinitionError
from reactive_rpc.health import Part, Probe
from reactive_rpc.settings import Settings
from reactive_rpc.statements.database import Database

__all__ = ["Backend", "LogURL", "make_backend"]

LogURL = str | URL | Callable[[], str | URL]

_HIDDEN: Final = "***"
_NO_URL: Final = (
    "this is no database URL (it is not shown, as it may hold a password): sqlite+aiosqlite:///team.db is one, and "
    "postgresql+asyncpg://user:password@host:5432/team, where signs like @ / : in a password are percent-encoded"
)

RELAYED_POLL_SECONDS: Final = 0.25
"""How often a worker asks the relay by itself: changes are pushed, so this shows only that it lives."""


@dataclass(frozen=True, slots=True)
class Backend:
    """One database, how topics are announced on it, and where its workers meet.

    Attributes:
        poll_interval_seconds: how often the log is looked at when nobody asks and streams are open.
        answers: of mutations, kept to be given again; None where the database has no place for them.
        relay: feeds the log of all workers, here or in another process; None where each worker reads the database.
        role: names what a connection is: another role may see other rows.
        probes: of the parts that the log depends on beside the database, by name.
    """

    database: Database
    capture: CaptureBackend
    log: Log
    announce: Announce
    ephemeral_store: EphemeralStore
    poll_interval_seconds: float
    answers: Answers | None = None
    relay: Relay | None = None
    role: str = ""
    probes: Mapping[str, Probe] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Places:
    """Where a PostgreSQL database is.

    Attributes:
        handlers: where handlers reach it: a URL, or an engine of the application's.
        direct: where sessions of our own stand.
        is_shared: whether `handlers` may lead through a pooler in transaction mode.
    """

    handlers: URL | AsyncEngine
    direct: Place
    is_shared: bool

    @property
    def url(self) -> URL:
        """Name the database."""
        return self.handlers if isinstance(self.handlers, URL) else self.handlers.url

    @property
    def role(self) -> str:
        """Name what a connection is: another role may see other rows."""
        return f"{self.url.username} {sorted(self.url.query.items())}"


@dataclass(frozen=True, slots=True)
class _Capturing:
    """How triggers are made.

    Attributes:
        policy: which values images hold; None is the recorded one.
        manage: whether they are put in place here.
    """

    policy: ImagePolicy | None
    manage: bool = True


def make_backend(
    database: str | URL | AsyncEngine,
    *,
    settings: Settings,
    ids: IdSource,
    capture: Capture | None = None,
    metadata: MetaData | None = None,
    log_url: LogURL | None = None,
    clock: Clock | None = None,
) -> Backend:
    """Return the parts for a database; nothing is connected yet.

    Args:
        database: its URL, or an engine that the application has made.
        log_url: its own address, where `database` leads through a pooler or only an engine can connect.
        capture: None takes the policy that the database has recorded, for commands without an application.
        metadata: the application's tables, whose types may say secret.

    Raises:
        DefinitionError: the URL is none, or of a database that is not supported, or one that no relay reads.
    """
    if capture is not None and not isinstance(capture, Capture):
        raise DefinitionError(
            f"capture={capture!r}: give Capture(mode='triggers'), Capture(mode='installed') or Capture(mode='session')"
        )
    mode = "triggers" if capture is None else capture.mode
    if isinstance(database, AsyncEngine | Engine):
        refuse_engine(database, has_log_url=(log_url or settings.log_url) is not None, capture=mode)
    parsed = _parsed(database.url if isinstance(database, AsyncEngine) else database)
    places = _places(database, parsed, log_url or settings.log_url)
    clock = clock or SystemClock()
    how = _Capturing(None) if capture is None else _Capturing(capture.policy(metadata), manage=capture.is_managed)
    if settings.redis_url is not None and (mode == "session" or parsed.get_backend_name() != "postgresql"):
        raise DefinitionError(
            "REACTIVE_RPC_REDIS_URL is set, and what is relayed through Redis is the log of a PostgreSQL database with "
            f"triggers; this is {parsed.get_backend_name()} with Capture(mode={mode!r}): unset it"
        )
    if mode == "session":
        return _by_session(parsed, settings, ids, clock)
    if settings.redis_url is not None and parsed.get_backend_name() == "postgresql":
        return _relayed(places, settings, ids, clock, how)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(parsed, settings, ids, how)
    if parsed.get_backend_name() == "postgresql":
        return _postgresql(places, settings, ids, how)
    raise DefinitionError(
        f"{parsed.render_as_string()}: triggers are known for SQLite (sqlite+aiosqlite:///team.db) and PostgreSQL "
        "(postgresql+asyncpg://user@host/team); use one of them, or capture=Capture(mode='session')"
    )


def _sqlite(url: URL, settings: Settings, ids: IdSource, how: _Capturing) -> Backend:
    timeout = settings.busy_timeout_seconds
    database = SQLiteDatabase(url, busy_timeout_seconds=timeout, position=POSITION)
    capture = SQLiteCapture(database.path, ids=ids, busy_timeout_seconds=timeout, policy=how.policy, manage=how.manage)
    store = SQLiteEphemeralStore(database.path, budget=_budget(settings))
    return Backend(
        database,
        capture,
        SQLiteLog(capture),
        announce_on_sqlite,
        store,
        settings.poll_interval_seconds,
        answers_on_sqlite(settings.idempotency_seconds),
    )


def _places(database: str | URL | AsyncEngine, parsed: URL, log_url: LogURL | None) -> _Places:
    """Return where a database is reached.

    Raises:
        DefinitionError: a `log_url` was given that is no URL, or of no PostgreSQL database.
    """
    handlers = database if isinstance(database, AsyncEngine) else parsed
    if log_url is None:
        return _Places(handlers, parsed, is_shared=False)
    if parsed.get_backend_name() != "postgresql":
        raise DefinitionError(
            f"log_url is for PostgreSQL, where handlers go through a pooler; this is {parsed.get_backend_name()}: "
            "leave it out"
        )
    given = log_url
    direct: Place = _parsed(given) if not callable(given) else lambda: _parsed(given())
    return _Places(handlers, direct, is_shared=True)


def _postgresql(places: _Places, settings: Settings, ids: IdSource, how: _Capturing) -> Backend:
    database, url = _postgresql_database(places, settings), places.direct
    capture = PostgreSQLCapture(url, ids=ids, policy=how.policy, manage=how.manage)
    log, store = PostgreSQLLog(capture, url), PostgreSQLEphemeralStore(url, budget=_budget(settings))
    answers = answers_on_postgresql(settings.idempotency_seconds)
    return Backend(
        database,
        capture,
        log,
        announce_on_postgresql,
        store,
        settings.poll_interval_seconds,
        answers,
        role=places.role,
    )


def _relayed(places: _Places, settings: Settings, ids: IdSource, clock: Clock, how: _Capturing) -> Backend:
    """Return the parts for a database that one relay reads for all."""
    redis_url = settings.redis_url or ""

    def new_stream() -> RedisStream:
        return RedisStream(
            redis_url,
            settings.redis_namespace,
            shards=settings.redis_shards,
            scope_column=settings.redis_scope_column,
            max_entries=settings.redis_stream_entries,
            max_age_seconds=settings.redis_stream_seconds,
        )

    url = places.direct
    capture = PostgreSQLCapture(url, ids=ids, policy=how.policy, manage=how.manage)
    relay = Relay(
        lambda: PostgreSQLLog(PostgreSQLCapture(url, ids=ids, policy=how.policy, manage=how.manage), url),
        new_stream,
        relay_lock(url, settings.redis_namespace),
        poll_interval_seconds=settings.poll_interval_seconds,
        clock=clock,
    )
    log = RedisLog(capture, new_stream())
    return Backend(
        _postgresql_database(places, settings),
        capture,
        log,
        announce_on_postgresql,
        RedisEphemeralStore(redis_url, settings.redis_namespace, budget=_budget(settings)),
        RELAYED_POLL_SECONDS,
        answers_on_postgresql(settings.idempotency_seconds),
        relay,
        places.role,
        {"redis": lambda: _redis_health(log), "relay": lambda: _relay_health(log)},
    )


def _redis_health(log: RedisLog) -> Part:
    return Part(ok=log.error != UNREACHABLE, detail=UNREACHABLE if log.error == UNREACHABLE else "")


def _relay_health(log: RedisLog) -> Part:
    """Tell whether what some relay writes can be followed; without Redis nobody can tell."""
    if log.error is None or log.error == UNREACHABLE:
        return Part(ok=True)
    return Part(ok=False, detail=log.error[:200])


def _postgresql_database(places: _Places, settings: Settings) -> PostgreSQLDatabase:
    sizes: Any = {"pool_size": settings.pool_size, "pool_timeout_seconds": settings.pool_timeout_seconds}
    if isinstance(places.handlers, AsyncEngine):
        return EngineDatabase(places.handlers, places.direct, **sizes, is_shared=places.is_shared)
    direct = places.direct if places.is_shared else None
    return PostgreSQLDatabase(places.handlers, **sizes, direct=direct)


def _by_session(url: URL, settings: Settings, ids: IdSource, clock: Clock) -> Backend:
    """Return the parts for any database of SQLAlchemy's, of which nothing is asked but tables."""
    database: Database
    read_tables: ReadTables
    if url.get_backend_name() == "sqlite":
        read_tables = catalog_tables_on_sqlite
        database = SQLiteDatabase(url, busy_timeout_seconds=settings.busy_timeout_seconds, position=None)
    elif url.get_backend_name() == "postgresql":
        read_tables = catalog_tables_on_postgresql
        database = _postgresql_database(_Places(url, url, is_shared=settings.log_url is not None), settings)
    else:
        read_tables = inspected_tables
        database = GenericDatabase(url)
    capture = SessionCapture(database, ids=ids, read_tables=read_tables)
    log = LocalLog(capture, ids=ids)
    return Backend(
        database,
        capture,
        log,
        capture.announce,
        InMemoryEphemeralStore(clock, budget=_budget(settings)),
        settings.poll_interval_seconds,
    )


def _parsed(url: str | URL) -> URL:
    """Return the URL, its password where `render_as_string` hides it. What cannot be parsed may hold one: none is told.

    Raises:
        DefinitionError: it is no URL, or one that SQLAlchemy has another name for.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # a ValueError is a port that is no number, and quotes it
        raise DefinitionError(_NO_URL) from None
    if parsed.drivername == "postgres":
        raise DefinitionError("postgres:// is called postgresql:// here: write postgresql+asyncpg://user@host/team")
    password = parsed.query.get("password")
    if isinstance(password, str):
        parsed = parsed.set(password=password).difference_update_query(["password"])
    if parsed.password == _HIDDEN:
        raise DefinitionError(
            f"{parsed}: the password is {_HIDDEN}, which str() of a URL writes in its place. Give the URL itself "
            "(engine.url), or url.render_as_string(hide_password=False)"
        )
    return parsed


def _budget(settings: Settings) -> Budget:
    return Budget(max_bytes=settings.max_stored_bytes, max_bytes_per_owner=settings.max_stored_bytes_per_identity)
