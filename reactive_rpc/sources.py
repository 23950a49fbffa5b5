"""Which parts belong to a database: its sessions, its capture, its log. The one place that tells databases apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError

from reactive_rpc.capture.capture import Capture
from reactive_rpc.capture.sqlite import POSITION, SQLiteCapture
from reactive_rpc.clock import IdSource
from reactive_rpc.errors import DefinitionError
from reactive_rpc.log.log import Log
from reactive_rpc.log.sqlite import SQLiteLog
from reactive_rpc.settings import Settings
from reactive_rpc.sql.database import Database
from reactive_rpc.sql.sqlite_database import SQLiteDatabase

__all__ = ["CaptureMode", "Source", "make_source"]

CaptureMode = Literal["triggers", "session"]
"""`triggers` sees every write, whoever wrote it. `session` sees what this process writes through its mutations."""


@dataclass(frozen=True, slots=True)
class Source:
    """One database."""

    database: Database
    capture: Capture
    log: Log


def make_source(url: str | URL, *, settings: Settings, ids: IdSource, capture: CaptureMode = "triggers") -> Source:
    """Return the parts for the database at `url`; nothing is connected yet.

    Raises:
        DefinitionError: the URL is none, or of a database that is not supported.
    """
    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(parsed, settings, ids)
    raise DefinitionError(
        f"{parsed.render_as_string()}: {parsed.get_backend_name()} is not supported yet; "
        "use SQLite: sqlite+aiosqlite:///team.db"
    )


def _sqlite(url: URL, settings: Settings, ids: IdSource) -> Source:
    timeout = settings.busy_timeout_seconds
    database = SQLiteDatabase(url, busy_timeout_seconds=timeout, position=POSITION)
    capture = SQLiteCapture(database.path, ids=ids, busy_timeout_seconds=timeout)
    return Source(database, capture, SQLiteLog(capture))


def _parsed(url: str | URL) -> URL:
    try:
        return make_url(url)
    except ArgumentError as exc:
        raise DefinitionError(f"{url!r} is no database URL: sqlite+aiosqlite:///team.db is one") from exc
