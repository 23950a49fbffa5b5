"""Which parts belong to a database: its sessions, its capture, its log. The one place that tells databases apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from sqlalchemy import make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError

from reactive_rpc.capture.announcements import Announce, announce_on_postgresql, announce_on_sqlite
from reactive_rpc.capture.capture import Capture
from reactive_rpc.capture.postgresql import PostgreSQLCapture
from reactive_rpc.capture.session import SessionCapture
from reactive_rpc.capture.sqlite import POSITION, SQLiteCapture
from reactive_rpc.clock import IdSource
from reactive_rpc.errors import DefinitionError
from reactive_rpc.log.local import LocalLog
from reactive_rpc.log.log import Log
from reactive_rpc.log.postgresql import PostgreSQLLog
from reactive_rpc.log.sqlite import SQLiteLog
from reactive_rpc.settings import Settings
from reactive_rpc.sql.database import Database
from reactive_rpc.sql.generic_database import GenericDatabase
from reactive_rpc.sql.postgresql_database import PostgreSQLDatabase
from reactive_rpc.sql.sqlite_database import SQLiteDatabase

__all__ = ["CaptureMode", "Source", "make_source"]

_NO_URL: Final = (
    "this is no database URL (it is not shown, as it may hold a password): sqlite+aiosqlite:///team.db is one, and "
    "postgresql+asyncpg://user:password@host:5432/team, where signs like @ / : in a password are percent-encoded"
)

CaptureMode = Literal["triggers", "session"]
"""`triggers` sees every write, whoever wrote it. `session` sees what this process writes through its mutations."""


@dataclass(frozen=True, slots=True)
class Source:
    """One database, and how topics are announced on it."""

    database: Database
    capture: Capture
    log: Log
    announce: Announce


def make_source(url: str | URL, *, settings: Settings, ids: IdSource, capture: CaptureMode = "triggers") -> Source:
    """Return the parts for the database at `url`; nothing is connected yet.

    Raises:
        DefinitionError: the URL is none, or of a database that is not supported.
    """
    parsed = _parsed(url)
    if capture not in get_args(CaptureMode):
        raise DefinitionError(f"capture={capture!r}: say 'triggers' or 'session'")
    if capture == "session":
        return _by_session(parsed, settings, ids)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(parsed, settings, ids)
    if parsed.get_backend_name() == "postgresql":
        return _postgresql(parsed, settings, ids)
    raise DefinitionError(
        f"{parsed.render_as_string()}: triggers are known for SQLite (sqlite+aiosqlite:///team.db) and PostgreSQL "
        "(postgresql+asyncpg://user@host/team); use one of them, or capture='session'"
    )


def _sqlite(url: URL, settings: Settings, ids: IdSource) -> Source:
    timeout = settings.busy_timeout_seconds
    database = SQLiteDatabase(url, busy_timeout_seconds=timeout, position=POSITION)
    capture = SQLiteCapture(database.path, ids=ids, busy_timeout_seconds=timeout)
    return Source(database, capture, SQLiteLog(capture), announce_on_sqlite)


def _postgresql(url: URL, settings: Settings, ids: IdSource) -> Source:
    database = _postgresql_database(url, settings)
    capture = PostgreSQLCapture(url, ids=ids)
    return Source(database, capture, PostgreSQLLog(capture, url), announce_on_postgresql)


def _postgresql_database(url: URL, settings: Settings) -> PostgreSQLDatabase:
    return PostgreSQLDatabase(url, pool_size=settings.pool_size, pool_timeout_seconds=settings.pool_timeout_seconds)


def _by_session(url: URL, settings: Settings, ids: IdSource) -> Source:
    """Return the parts for any database of SQLAlchemy's, of which nothing is asked but tables."""
    database: Database
    if url.get_backend_name() == "sqlite":
        database = SQLiteDatabase(url, busy_timeout_seconds=settings.busy_timeout_seconds, position=None)
    elif url.get_backend_name() == "postgresql":
        database = _postgresql_database(url, settings)
    else:
        database = GenericDatabase(url)
    capture = SessionCapture(database, ids=ids)
    return Source(database, capture, LocalLog(capture, ids=ids), capture.announce)


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
    return parsed
