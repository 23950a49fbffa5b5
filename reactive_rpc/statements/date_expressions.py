"""Which of SQLAlchemy's expressions are dates, so that no clock is read if they are taken for one.

As `text_dates.py` does for a parsed text, so does this for an expression: a date is a column or a parameter of a date's
type, and anything made of dates alone. (PostgreSQL's parameters are also looked at by value when they are bound.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from sqlalchemy.sql import operators, sqltypes
from sqlalchemy.sql.elements import (
    BinaryExpression,
    BindParameter,
    Case,
    Cast,
    ColumnClause,
    FunctionFilter,
    Grouping,
    Label,
    Null,
    Over,
    TypeCoerce,
)
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import ScalarSelect, Select
from sqlalchemy.types import TypeDecorator

__all__ = ["is_date"]

_TYPES: Final = (sqltypes.Date, sqltypes.DateTime, sqltypes.Time)
_NUMBERS: Final = (sqltypes.Integer, sqltypes.Numeric, sqltypes.Float, sqltypes.Interval)
_ONE_OF_ITS_ARGUMENTS: Final = frozenset({
    "any_value", "coalesce", "first_value", "greatest", "ifnull", "lag", "last_value", "lead", "least", "max", "min",
    "nth_value", "nullif",
})  # fmt: skip
_RETURNS_DATES: Final[Mapping[str, frozenset[str]]] = {
    # Each of them refuses text itself, or is refused where its argument may be text.
    "sqlite": frozenset({"date", "datetime", "julianday", "time", "unixepoch"}),
    "postgresql": frozenset({
        "age", "date", "date_add", "date_bin", "date_subtract", "date_trunc", "generate_series", "make_date",
        "make_time", "make_timestamp", "make_timestamptz", "timezone", "to_date", "to_timestamp",
    }),
}  # fmt: skip


def is_date(expression: Any, database: str) -> bool:
    """Tell whether an expression is surely a date, or NULL.

    Args:
        expression: of SQLAlchemy.
        database: by its name in SQLAlchemy.
    """
    if isinstance(expression, ColumnClause | Cast):  # a cast to a date is looked at where it stands
        return _holds_dates(expression.type)
    if isinstance(expression, BindParameter):
        return _holds_dates(expression.type) or isinstance(expression.type, _NUMBERS)
    if isinstance(expression, Null):
        return True
    if isinstance(expression, BinaryExpression):
        return _is_moved(expression, database)
    parts = _parts(expression, database)
    return parts is not None and all(is_date(part, database) for part in parts)


def _holds_dates(type_: Any) -> bool:
    """Tell whether a type takes dates and nothing else, perhaps under a name of the application's own."""
    if isinstance(type_, TypeDecorator):
        return type(type_).bind_processor is TypeDecorator.bind_processor and _holds_dates(type_.impl_instance)
    return isinstance(type_, _TYPES)


def _is_moved(expression: BinaryExpression[Any], database: str) -> bool:
    """Tell whether a date is moved by an interval, or to a time zone: nothing of the kind can be done to a text."""
    operator: Any = expression.operator
    if operator in (operators.add, operators.sub):
        return True
    sign = operator.opstring.strip().upper() if isinstance(operator, operators.custom_op) else ""
    return sign == "AT TIME ZONE" and database == "postgresql"


def _parts(expression: Any, database: str) -> Iterable[Any] | None:
    """Return the expressions one of which `expression` is; none for one that is a date anyway; None: not known."""
    if isinstance(expression, FunctionElement):
        name = str(getattr(expression, "name", "")).lower()
        if name in _RETURNS_DATES.get(database, ()):
            return ()
        return list(expression.clauses) if name in _ONE_OF_ITS_ARGUMENTS else None
    unwrap = next((take for kind, take in _UNWRAPPED.items() if isinstance(expression, kind)), None)
    return None if unwrap is None else unwrap(expression)


def _selected(expression: ScalarSelect[Any]) -> Iterable[Any] | None:
    select: Any = expression.element
    while isinstance(select, Grouping):
        select = select.element
    columns = list(select.selected_columns) if isinstance(select, Select) else []
    return columns if len(columns) == 1 else None


_UNWRAPPED: Final[Mapping[type, Callable[[Any], Iterable[Any] | None]]] = {
    Grouping: lambda each: [each.element],
    Label: lambda each: [each.element],
    Over: lambda each: [each.element],
    FunctionFilter: lambda each: [each.func],
    TypeCoerce: lambda each: [each.clause],
    Case: lambda each: [*(result for _, result in each.whens), *([] if each.else_ is None else [each.else_])],
    ScalarSelect: _selected,
}
