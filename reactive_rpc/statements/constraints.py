"""Which constraint a write contradicts, as far as the database tells: its kind, its name, its table and columns.

Never the values: PostgreSQL writes them beside the columns, and they may be another caller's.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, Final

import psycopg

from reactive_rpc.errors import ConflictError

__all__ = ["conflict_of_postgresql", "conflict_of_sqlite"]

_SQLITE_KINDS: Final = {
    sqlite3.SQLITE_CONSTRAINT_UNIQUE: "unique",
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY: "unique",
    sqlite3.SQLITE_CONSTRAINT_ROWID: "unique",
    sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY: "foreign_key",
    sqlite3.SQLITE_CONSTRAINT_CHECK: "check",
    sqlite3.SQLITE_CONSTRAINT_NOTNULL: "not_null",
    sqlite3.SQLITE_CONSTRAINT_TRIGGER: "trigger",
    3091: "type",  # SQLITE_CONSTRAINT_DATATYPE, of STRICT tables; Python has no name for it
}
_SQLITE_COLUMNS: Final = re.compile(r"(?:UNIQUE|NOT NULL) constraint failed: (?!index )(.+)")
_SQLITE_INDEX: Final = re.compile(r"UNIQUE constraint failed: index '(.+)'")
_SQLITE_CHECK: Final = re.compile(r"CHECK constraint failed: (.+)")
_SQLITE_TYPED: Final = re.compile(r"cannot store \w+ value in \w+ column (.+)")

_POSTGRESQL_KINDS: Final = {
    "23502": "not_null",
    "23503": "foreign_key",
    "23001": "foreign_key",
    "23505": "unique",
    "23514": "check",
    "23P01": "exclusion",
}
_KEY: Final = re.compile(r"\((.+?)\)=\(")
"""In `Key (team_id, "Odd, name")=(1, 2) already exists.`, in whatever language."""
_COLUMN: Final = re.compile(r'("(?:[^"]|"")+"|[^\s,()":]+)(?:, |$)')


def conflict_of_sqlite(cause: sqlite3.Error) -> ConflictError:
    """Return the error for a caller who contradicts a constraint of SQLite's."""
    words = str(cause)
    kind = _SQLITE_KINDS.get(getattr(cause, "sqlite_errorcode", 0), "other")
    if found := _SQLITE_COLUMNS.fullmatch(words) or _SQLITE_TYPED.fullmatch(words):
        places = [place.rpartition(".") for place in found[1].split(", ")]
        return _conflict(kind, table=places[0][0], columns=[column for _, _, column in places])
    named = _SQLITE_INDEX.fullmatch(words) or _SQLITE_CHECK.fullmatch(words)
    return _conflict(kind, name=named[1] if named else None)


def conflict_of_postgresql(state: str, cause: BaseException | None) -> ConflictError:
    """Return the error for a caller who contradicts a constraint of PostgreSQL's, by either driver."""
    fields = _server_fields(cause)
    kind = _POSTGRESQL_KINDS.get(state, "other")
    return _conflict(
        kind,
        name=fields.get("constraint_name"),
        table=fields.get("table_name"),
        columns=_columns(kind, fields),
    )


def _server_fields(cause: BaseException | None) -> dict[str, str]:
    """Return the fields beside the server's message; SQLAlchemy's adapter keeps asyncpg's error as its cause."""
    while cause is not None:
        source: Any = cause.diag if isinstance(cause, psycopg.Error) else cause
        names = ("constraint_name", "table_name", "column_name")
        found = {name: getattr(source, name, None) for name in names}
        if any(found.values()):
            detail = source.message_detail if isinstance(cause, psycopg.Error) else getattr(cause, "detail", None)
            message = source.message_primary if isinstance(cause, psycopg.Error) else str(cause)
            return {name: text for name, text in {**found, "detail": detail, "message": message}.items() if text}
        cause = cause.__cause__
    return {}


def _columns(kind: str, fields: dict[str, str]) -> list[str]:
    if "column_name" in fields:
        return [fields["column_name"]]
    # A row that others refer to: the columns named are its own, the table is theirs.
    if kind == "foreign_key" and not fields.get("message", "").startswith("insert or update"):
        return []
    key = _KEY.search(fields.get("detail", ""))
    return [] if key is None else _names(key[1])


def _names(spelled: str) -> list[str]:
    """Return the columns of a key; none if it holds expressions.

    >>> _names('team_id, "Odd, name"'), _names("lower(name), n")
    (['team_id', 'Odd, name'], [])
    """
    names, end = [], 0
    for found in _matches(spelled):
        names.append(found[1].strip('"').replace('""', '"'))
        end = found.end()
    return names if end == len(spelled) else []


def _matches(spelled: str) -> Iterator[re.Match[str]]:
    at = 0
    while found := _COLUMN.match(spelled, at):
        yield found
        at = found.end()


def _conflict(
    kind: str, *, name: str | None = None, table: str | None = None, columns: Sequence[str] = ()
) -> ConflictError:
    """Return the error, whose `details` are `{"kind", "constraint", "table", "columns"}`."""
    spelled = kind.upper().replace("_", " ") if kind in ("not_null", "check") else kind.replace("_", " ")
    article = "an" if kind in ("other", "exclusion") else "a"
    message = f"the write contradicts {article} {spelled} constraint"
    if name:
        message += f", {name}"
    if table:
        message += f" of {table}" + (f" ({', '.join(columns)})" if columns else "")
    details = {"kind": kind, "constraint": name, "table": table, "columns": list(columns)}
    return ConflictError(message, details=details)
