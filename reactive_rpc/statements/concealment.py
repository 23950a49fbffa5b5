"""Errors that hold values, as they are logged: their words, without the values.

A server's log is read by more people than its database, and kept for longer. Three kinds of errors put values into
their words: a statement's (its parameters, which engines hide by `hide_parameters=True`, and what the database quotes
of them), pydantic's (`input_value=`), and those of a driver that cannot send a value. Of these are logged: the kind of
the error, the SQLSTATE, the first line where no value can stand in it, the place and the type of each fault. What an
application's own exceptions say is the application's own affair.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from typing import Final

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import psycopg
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import DBAPIError, StatementError

__all__ = ["concealed", "said_by"]

MAX_WORDS: Final = 300
MAX_FAULTS: Final = 20

_OF_DRIVERS: Final[tuple[type[BaseException], ...]] = (
    AsyncAdapt_asyncpg_dbapi.Error,
    sqlite3.Error,
    psycopg.Error,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
)
_HOLDS_VALUES: Final[tuple[type[BaseException], ...]] = (
    StatementError,  # and DBAPIError, which is one
    ValidationError,
    PydanticSerializationError,
    *_OF_DRIVERS,
)
_FIELD: Final = re.compile(r"field_name='(\w+)'")
_KEEPS_QUIET: Final = ("08", "23", "25", "40", "42", "53", "54", "55", "57", "58")
"""Classes of SQLSTATE whose first line names objects of the schema or states of the server, and no values."""


def concealed(error: BaseException) -> BaseException:
    """Return the error to log in the place of `error`: it, or a likeness without values, with the same traceback."""
    if not any(isinstance(each, _HOLDS_VALUES) for each in _chain(error)):
        return error
    return _likeness(error, {})


def said_by(error: BaseException) -> str:
    """Return an error's words in one line, without the values in it."""
    if isinstance(error, ValidationError):
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        described = [
            f"{'.'.join(map(str, fault['loc'])) or 'the whole'}: {fault['type']}" for fault in faults[:MAX_FAULTS]
        ]
        more = len(faults) - len(described)
        return "; ".join(described)[: 3 * MAX_WORDS] + (f"; and {more} more" if more else "")
    if isinstance(error, PydanticSerializationError):
        fields = sorted(set(_FIELD.findall(str(error)))) or ["the output"]
        return f"{', '.join(fields)}: not of the declared type"
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, StatementError):
        return f"a parameter of a statement cannot be sent: {type(cause.orig).__name__}"
    if not isinstance(cause, _OF_DRIVERS):
        return str(error) if error is cause else type(cause).__name__
    state = _sqlstate(cause)
    if state is None and not isinstance(cause, sqlite3.Error):
        return _name_of(cause)
    if state is not None and not state.startswith(_KEEPS_QUIET):
        return f"{_name_of(cause)} ({state})"
    return f"{_name_of(cause)}: {str(cause).partition(chr(10))[0][:MAX_WORDS]}"


def _likeness(error: BaseException, made: dict[int, BaseException]) -> BaseException:
    if id(error) in made:
        return made[id(error)]
    kind = type(error)
    words = said_by(error) if isinstance(error, _HOLDS_VALUES) else str(error)
    shown = type(kind.__name__, (Exception,), {"__module__": kind.__module__, "__qualname__": kind.__qualname__})
    like: BaseException = shown(words).with_traceback(error.__traceback__)
    made[id(error)] = like
    like.__cause__ = None if error.__cause__ is None else _likeness(error.__cause__, made)
    like.__context__ = None if error.__context__ is None else _likeness(error.__context__, made)
    like.__suppress_context__ = error.__suppress_context__
    return like


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting.extend(other for other in (each.__cause__, each.__context__) if other is not None)


def _sqlstate(cause: BaseException | None) -> str | None:
    while cause is not None:
        state = getattr(cause, "sqlstate", None)
        if isinstance(state, str):
            return state
        cause = cause.__cause__
    return None


def _name_of(cause: BaseException) -> str:
    """Return the name of the driver's own error, which SQLAlchemy's adapter may wrap."""
    if isinstance(cause, AsyncAdapt_asyncpg_dbapi.Error) and cause.__cause__ is not None:
        cause = cause.__cause__
    return type(cause).__name__
