"""Whether a SQLite text may ask a date function, `date()` and its kin, for the clock, which is the date 'now'.

SQLite says which functions a text calls and not with which arguments, so here the text is parsed. Each call's date must
be a literal or a parameter that does not hold 'now', a number, a column declared as a date or a number, or be made of
such; anything else may be 'now'.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Final

import sqlglot
from sqlglot import exp
from sqlglot.dialects import SQLite
from sqlglot.errors import SqlglotError

from reactive_rpc.statements.functions import date_functions
from reactive_rpc.statements.text_dates import Dates

__all__ = ["DATE_FUNCTIONS", "asked_for_now", "may_be_now"]

DATE_FUNCTIONS: Final = date_functions("sqlite")

_NUMBERED: Final = re.compile(r"\?\d+")
_DECLARED: Final = re.compile(r"DATE|TIME|INT|REAL|FLOA|DOUB|NUM|DEC", re.I)
_NUMBERS: Final = (exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod, exp.Neg)
_NUMERIC_TYPES: Final = frozenset({"BIGINT", "DECIMAL", "DOUBLE", "FLOAT", "INT", "REAL", "SMALLINT", "TINYINT"})


def may_be_now(value: object) -> bool:
    """Tell whether `value`, or a part of it, may be the text 'now'.

    >>> may_be_now("NOW"), may_be_now("2024-01-01"), may_be_now(1)
    (True, False, False)
    """
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    return isinstance(text, str) and "now" in text.lower()


class _PlainParser(SQLite.Parser):  # type: ignore[misc]  # sqlglot does not type its dialects
    """Calls date functions by their names."""

    FUNCTIONS: ClassVar = {
        name: build for name, build in SQLite.Parser.FUNCTIONS.items() if name.lower() not in DATE_FUNCTIONS
    }


class _Plain(SQLite):  # type: ignore[misc]  # the same
    """SQLite's grammar, without sqlglot's rewriting of the date functions: their arguments stay in order."""

    Parser = _PlainParser


def asked_for_now(connection: sqlite3.Connection, statement: str, reads: Iterable[str]) -> str | None:
    """Return which date function may be asked for the clock; None if none can be.

    Args:
        connection: on which the statement is about to run.
        statement: the text.
        reads: the tables and views that it reads, as the database spells them.
    """
    declared = _declared(connection, reads)
    texts = [statement, *_views(connection, reads)]
    return next(filter(None, (_doubtful(text, declared) for text in texts)), None)


def _doubtful(text: str, declared: Mapping[str, set[str]]) -> str | None:
    try:
        trees: list[Any] = sqlglot.parse(_NUMBERED.sub("?", text), dialect=_Plain)
    except (SqlglotError, RecursionError):
        return "date"
    calls = [(tree, call) for tree in trees if tree is not None for call in tree.find_all(exp.Anonymous)]
    of_dates = [(tree, call) for tree, call in calls if call.name.lower() in DATE_FUNCTIONS]
    return next((str(call.name).lower() for tree, call in of_dates if not _is_safe(call, tree, declared)), None)


def _is_safe(call: Any, tree: Any, declared: Mapping[str, set[str]]) -> bool:
    place = DATE_FUNCTIONS[call.name.lower()]
    if len(call.expressions) <= place:  # no date is today
        return False
    dates = Dates(tree, _is_date, name_of=_name_of)
    return dates.hold(call.expressions[place]) and all(
        _is_declared(declared.get(name, set()), is_given=name in dates.given) for name in dates.columns
    )


def _is_declared(types: set[str], *, is_given: bool) -> bool:
    return (bool(types) or is_given) and all(map(_DECLARED.search, types))


def _is_date(value: Any) -> bool | None:
    if isinstance(value, exp.Literal):
        return not may_be_now(value.this)
    if isinstance(value, exp.Anonymous):
        # Which is looked at where it stands; what strftime() makes may be any text.
        return value.name.lower() in DATE_FUNCTIONS.keys() - {"strftime"}
    if isinstance(value, exp.Cast):
        return str(value.to.this.name) in _NUMERIC_TYPES if isinstance(value.to.this, exp.DataType.Type) else False
    return isinstance(value, (*_NUMBERS, exp.Null, exp.Parameter, exp.Placeholder)) or None


def _name_of(identifier: Any) -> str:
    return str(identifier.name).lower()


def _declared(connection: sqlite3.Connection, reads: Iterable[str]) -> dict[str, set[str]]:
    """Return `{column in lower case: the types that it is declared with}`."""
    found: dict[str, set[str]] = {}
    for name in reads:
        for column, type_ in connection.execute("SELECT name, type FROM pragma_table_xinfo(?)", (name,)):
            found.setdefault(column.lower(), set()).add(type_)
    return found


def _views(connection: sqlite3.Connection, reads: Iterable[str]) -> Iterator[str]:
    for name in reads:
        query = "SELECT sql FROM sqlite_schema WHERE type = 'view' AND name = ? COLLATE NOCASE"
        yield from (sql for (sql,) in connection.execute(query, (name,)))
