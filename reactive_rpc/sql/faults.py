"""From what the database raises to what a caller is told. The driver's own words are logged, never sent."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from reactive_rpc.errors import BadRequestError, ConflictError, InternalServerError, RPCError, ServiceUnavailableError

__all__ = ["QueryWroteError", "translated"]

logger = logging.getLogger(__name__)

_UNAVAILABLE = frozenset({
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_PROTOCOL,
})  # fmt: skip
"""Primary result codes that say the database is in the way, not the statement. Source: sqlite.org/rescode.html."""


class QueryWroteError(InternalServerError):
    """A query tried to write; the database refused."""


@contextmanager
def translated() -> Iterator[None]:
    """Turn a driver's error into an `RPCError`; let anything unexpected through as it is.

    Raises:
        BadRequestError: a number does not fit into the database.
        ConflictError: a unique, foreign key, check or NOT NULL constraint is violated.
        ServiceUnavailableError: the database is locked, gone, full or broken.
        QueryWroteError: a read-only session was asked to write.
    """
    try:
        yield
    except PoolTimeoutError as exc:
        raise ServiceUnavailableError("the database is busy: no connection came free in time; try again") from exc
    except OverflowError as exc:
        if "SQLite" not in str(exc):
            raise
        raise BadRequestError("a number is beyond the 64 bits that the database holds") from exc
    except (DBAPIError, sqlite3.Error) as exc:
        error = _translate(exc)
        if error is None:
            raise
        level = logging.INFO if isinstance(error, ConflictError) else logging.WARNING
        logger.log(level, "%s: %s", error.code, getattr(exc, "orig", exc))
        raise error from exc


def _translate(error: DBAPIError | sqlite3.Error) -> RPCError | None:
    """Return what a caller is told; None for a fault of the statement. Below SQLAlchemy, errors come bare."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.IntegrityError):
        return ConflictError("the write contradicts a unique, foreign key, check or NOT NULL constraint")
    code = getattr(cause, "sqlite_errorcode", None)
    if code is None:
        return None
    if code & 0xFF == sqlite3.SQLITE_READONLY:
        return QueryWroteError("a query may not write: define the function with kind='mutation'")
    if code & 0xFF in _UNAVAILABLE:
        return ServiceUnavailableError("the database is locked or cannot be reached; try again")
    return None
