"""From the database's error to the one that a caller is told. The driver's own words are logged, never sent.

Three kinds of errors arrive here: SQLAlchemy's, which hold the driver's as `orig`; those of a driver itself, from
statements run below SQLAlchemy; and those of SQLAlchemy's adapter around asyncpg, whose cause is asyncpg's. PostgreSQL
names the fault in a SQLSTATE (`postgresql.org/docs/current/errcodes-appendix.html`); a driver that fails by itself
(a connection that is gone, a value that cannot be sent) says it in its class and its words.
"""

from __future__ import annotations

import logging
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import psycopg
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from reactive_rpc.errors import BadRequestError, ConflictError, InternalServerError, RPCError, ServiceUnavailableError
from reactive_rpc.statements.concealment import said_by
from reactive_rpc.statements.constraints import conflict_of_postgresql, conflict_of_sqlite

__all__ = [
    "ImpairedError",
    "OvertakenError",
    "QueryWroteError",
    "SchemaMovedError",
    "UnprovenError",
    "connecting",
    "holding_write_lock",
    "query_wrote",
    "translated",
    "was_overtaken",
]

logger = logging.getLogger(__name__)

_AsyncpgError = AsyncAdapt_asyncpg_dbapi.Error
"""An error of asyncpg, as SQLAlchemy hands it on."""

_UNAVAILABLE = frozenset({
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_PROTOCOL,
})  # fmt: skip
"""Primary result codes that say the database is in the way, not the statement. Source: sqlite.org/rescode.html."""

_OF_DATABASES: Final[tuple[type[Exception], ...]] = (
    DBAPIError,
    _AsyncpgError,
    sqlite3.Error,
    psycopg.Error,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
)
_OF_CONNECTING: Final[tuple[type[Exception], ...]] = (*_OF_DATABASES, OSError)

_READ_ONLY: Final = "25006"
_IN_TRANSACTION: Final = "25001"
_AGAIN: Final = ("40001", "40P01")
_UNAVAILABLE_STATES: Final = ("08", "53", "57P", "57014", "55P03", "25P03", "25P04")
"""Connections, resources, a server that stops, cancelled by a timeout, lock not available, idle or too long."""
_BAD_VALUES: Final = {
    "22001": "too_long",
    "22003": "out_of_range",
    "22008": "out_of_range",
    "22021": "encoding",
    "22P05": "encoding",
}
"""Texts, numbers and dates that a column does not hold, and text that the database's encoding does not (NUL)."""
_VALUE_FAULTS: Final = {
    "too_long": "a text is too long for its column",
    "out_of_range": "a number or a date is out of the range of its column",
    "encoding": "a text has characters that the database's encoding does not hold",
    "nul": "a text has a NUL, which the database does not hold",
}
_VALUE_TYPE: Final = re.compile(
    r"for type ([\w ]+(?:\(\d+(?:,\d+)?\))?)$|(?:^|: )([a-z ]+) out of range$|value out of (\w+) range"
)
"""The type that it would have to be, in the words of either driver or of the server."""
_READ_ONLY_COMMAND: Final = re.compile(r"cannot execute (.+?) in a read-only transaction")
_SCHEMA_MOVED: Final = ("cached plan must not change result type", "cached statement plan is invalid")
"""The server's words, and asyncpg's; SQLAlchemy or psycopg forgets the statements then, and the next call succeeds."""

_ASYNCPG_BAD_VALUES: Final = ("out of range", "out of int", "value out of", "surrogates not allowed")
_PSYCOPG_BAD_VALUES: Final = ("NUL (0x00)", "too large", "too small", "out of range")
_ASYNCPG_GONE: Final = ("connection is closed", "connection was closed", "cannot switch to state")
"""A statement meets the last if the loss of its connection caught it between two messages."""

_GONE_MESSAGE: Final = "the database is locked or cannot be reached; try again"

_OWN_LOCK_MESSAGE: Final = (
    "the database stayed locked while this mutation had its write lock: probably its handler writes by another "
    "connection, an engine of the application's own for example, and that one waits for the mutation to end. Write by "
    "the session that the handler is given, or after the mutation"
)

_FULL: Final = "the database's disk is full: nothing was written; it needs room"
_FAILING: Final = "the database's disk cannot be read or written"
_UNWRITABLE: Final = "the database is read-only: nothing was written; it is a standby, or its files are protected"
_NO_MEMORY: Final = "the database is out of memory; try again later"
_NO_CONNECTIONS: Final = "the database takes no more connections; try again, or give this server a smaller pool_size"
_SQLITE_IMPAIRED: Final = {
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_IOERR: _FAILING,
    sqlite3.SQLITE_NOMEM: _NO_MEMORY,
}
_IMPAIRED_STATES: Final = {"53100": _FULL, "53200": _NO_MEMORY, "53300": _NO_CONNECTIONS, "58030": _FAILING}
_NO_CONNECTIONS_WORDS: Final = ("too many clients", "too many connections", "remaining connection slots")
"""The words of libpq, which keeps no SQLSTATE of a connection that was refused."""


class QueryWroteError(InternalServerError):
    """A query tried to write; the database refused."""


class ImpairedError(ServiceUnavailableError):
    """The database answers, and cannot do its work until somebody gives it more: room, memory, rights.

    Trying again at once is no way out, so a server that meets it is not ready; see `Database.error`.
    """


class OvertakenError(ConflictError):
    """Two transactions got into each other's way; this one was rolled back, and may be run again."""


class SchemaMovedError(ServiceUnavailableError):
    """A statement was prepared before a change of the schema; this connection has forgotten it now."""


class UnprovenError(ServiceUnavailableError):
    """Nobody can tell any more whether a query's snapshot was late enough: run it again, on one that is proved first.

    Attributes:
        by_handler: whether it is likely to be so each time: the handler ended its transaction, or a statement failed.
    """

    def __init__(self, message: str, *, by_handler: bool) -> None:
        super().__init__(message)
        self.by_handler = by_handler


@contextmanager
def translated(*, writes: bool = True) -> Iterator[None]:
    """Turn a driver's error into an `RPCError`; let anything unexpected through as it is.

    Args:
        writes: whether the transaction may write. One that only reads contradicts nobody: if it gets into the way
            of others, that passes with time, and must not be taken for an answer.

    Raises:
        BadRequestError: a value does not fit into the database.
        ConflictError: a unique, foreign key, check or NOT NULL constraint is violated; or two transactions got into
            each other's way (`OvertakenError`), and `details` is `{"retry": True}`.
        InternalServerError: a handler sets the isolation of the transaction that it was given.
        ServiceUnavailableError: the database is locked, gone or broken.
        ImpairedError: its disk is full, for example; the message names it.
        SchemaMovedError: a prepared statement is out of date, and forgotten now.
        QueryWroteError: a read-only session was asked to write.
    """
    try:
        yield
    except PoolTimeoutError as exc:
        raise ServiceUnavailableError("the database is busy: no connection came free in time; try again") from exc
    except OverflowError as exc:
        if "SQLite" not in str(exc):
            raise
        raise _bad_value("out_of_range", "(value out of int64 range)") from exc
    except InvalidRequestError as exc:
        if "isolation_level may not be altered" not in str(exc):
            raise
        raise _sets_isolation(writes) from exc
    except _OF_DATABASES as exc:
        error = _translate(exc, writes)
        if error is None:
            raise
        level = logging.INFO if isinstance(error, ConflictError) else logging.WARNING
        logger.log(level, "%s: %s", error.code, said_by(exc))
        raise error from exc


@contextmanager
def holding_write_lock() -> Iterator[None]:
    """Say of SQLite's lock who probably holds it, where a handler meets it while its own transaction has it.

    The extended codes of SQLITE_BUSY are left out: a snapshot that is too old, for example, is no lock.

    Raises:
        ServiceUnavailableError: another connection has waited for the write lock in vain.
    """
    try:
        yield
    except (DBAPIError, sqlite3.Error) as exc:
        cause = exc.orig if isinstance(exc, DBAPIError) else exc
        if getattr(cause, "sqlite_errorcode", None) != sqlite3.SQLITE_BUSY:
            raise
        logger.warning("%s: %s", said_by(exc), _OWN_LOCK_MESSAGE)
        raise ServiceUnavailableError(_OWN_LOCK_MESSAGE) from exc


def was_overtaken(error: BaseException) -> bool:
    """Tell whether `error` is, or grew out of, a serialization failure or a deadlock.

    A handler may have caught the driver's error and raised one of its own: the transaction is lost all the same.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, OvertakenError) or getattr(cause, "sqlstate", None) in _AGAIN:
            return True
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return False


@contextmanager
def connecting() -> Iterator[None]:
    """Turn whatever keeps a connection from being made into a ServiceUnavailableError.

    Raises:
        ServiceUnavailableError: refused, timed out, no such database, no right to it; the log says which.
    """
    try:
        yield
    except PoolTimeoutError:
        raise
    except _OF_CONNECTING as exc:
        cause = getattr(exc, "orig", exc)
        logger.warning("no connection to the database: %s", cause)
        state = _IMPAIRED_STATES.get(_sqlstate(cause) or "")
        if state is None and any(part in str(cause) for part in _NO_CONNECTIONS_WORDS):
            state = _NO_CONNECTIONS
        raise (ServiceUnavailableError(_GONE_MESSAGE) if state is None else ImpairedError(state)) from exc


def _translate(error: Exception, writes: bool) -> RPCError | None:
    """Return the error for the caller; None for a fault of the statement."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return ServiceUnavailableError(_GONE_MESSAGE)
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.Error):
        return _of_sqlite(cause, writes)
    state = _sqlstate(cause)
    # asyncpg gives a value that it cannot send a SQLSTATE of its own choice.
    return (None if state is None else _of_sqlstate(state, cause, writes)) or _of_driver(cause)


def _of_sqlite(cause: sqlite3.Error, writes: bool) -> RPCError | None:
    if isinstance(cause, sqlite3.IntegrityError):
        return conflict_of_sqlite(cause)
    code = getattr(cause, "sqlite_errorcode", None)
    if code is None:
        return None
    if code == sqlite3.SQLITE_READONLY_DBMOVED:
        return ServiceUnavailableError(_GONE_MESSAGE)
    if code & 0xFF == sqlite3.SQLITE_READONLY:
        return ImpairedError(_UNWRITABLE) if writes else query_wrote(str(cause))
    if code & 0xFF in _SQLITE_IMPAIRED:
        return ImpairedError(_SQLITE_IMPAIRED[code & 0xFF])
    return ServiceUnavailableError(_GONE_MESSAGE) if code & 0xFF in _UNAVAILABLE else None


def _sqlstate(cause: BaseException | None) -> str | None:
    """Return the server's code; SQLAlchemy's adapter keeps some of asyncpg's errors only as its cause."""
    while cause is not None:
        state = getattr(cause, "sqlstate", None)
        if isinstance(state, str):
            return state
        cause = cause.__cause__
    return None


def _of_sqlstate(state: str, cause: BaseException | None, writes: bool) -> RPCError | None:
    words = str(cause)
    if state.startswith("23"):
        return conflict_of_postgresql(state, cause)
    if state == _READ_ONLY:
        return ImpairedError(_UNWRITABLE) if writes else query_wrote(words)
    if state in _IMPAIRED_STATES:
        return ImpairedError(_IMPAIRED_STATES[state])
    if state == _IN_TRANSACTION and "ISOLATION" in words:
        return _sets_isolation(writes)
    if state in _AGAIN and writes:
        return OvertakenError("another write came in between, nothing was written: try again", details={"retry": True})
    if state in _AGAIN or state.startswith(_UNAVAILABLE_STATES):
        return ServiceUnavailableError(_GONE_MESSAGE)
    if state in _BAD_VALUES:
        return _bad_value(_BAD_VALUES[state], words)
    if any(part in words for part in _SCHEMA_MOVED):
        return SchemaMovedError("the database's tables have just been changed; try again")
    return None


def _of_driver(cause: BaseException | None) -> RPCError | None:
    """Read the error of a driver alone, without the server."""
    words = str(cause)
    if isinstance(cause, psycopg.OperationalError) and cause.sqlstate is None:
        return ServiceUnavailableError(_GONE_MESSAGE)
    if isinstance(cause, psycopg.DataError) and any(part in words for part in _PSYCOPG_BAD_VALUES):
        return _bad_value("nul" if "NUL" in words else "out_of_range", words)
    if isinstance(cause, _AsyncpgError | asyncpg.PostgresError | asyncpg.InterfaceError):
        if any(part in words for part in _ASYNCPG_GONE):
            return ServiceUnavailableError(_GONE_MESSAGE)
        if any(part in words for part in _ASYNCPG_BAD_VALUES):
            return _bad_value("encoding" if "surrogates" in words else "out_of_range", words)
    return None


def _bad_value(kind: str, words: str) -> BadRequestError:
    """Return the error for the caller, without the value; `details` is `{"kind", "type"}`."""
    found = _VALUE_TYPE.search(words)
    type_name = next((part for part in found.groups() if part), None) if found else None
    message = _VALUE_FAULTS[kind] + (f", which is {type_name}" if type_name else "")
    return BadRequestError(message, details={"kind": kind, "type": type_name})


def _sets_isolation(writes: bool) -> InternalServerError:
    if not writes:
        return InternalServerError("a query runs on one snapshot, REPEATABLE READ: it may not set its own isolation")
    return InternalServerError(
        "the transaction of a mutation has begun before its handler runs, so its isolation is declared: "
        "define_reactive_function.mutation(isolation='serializable' | 'repeatable_read' | 'read_committed')"
    )


def query_wrote(words: str) -> QueryWroteError:
    """Return the error for a query that wrote, or took locks; `words` are the database's."""
    found = _READ_ONLY_COMMAND.search(words)
    command = found[1] if found else None
    if command is not None and command.startswith("SELECT FOR"):
        return QueryWroteError(
            f"a query may not lock rows, and this one executes {command}: what it reads is one snapshot as it is. "
            "Leave with_for_update() out, or define the function with define_reactive_function.mutation"
        )
    what = f", and this one executes {command}" if command else ""
    return QueryWroteError(f"a query may not write{what}: define the function with define_reactive_function.mutation")
