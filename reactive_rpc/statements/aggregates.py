"""The aggregates that a SELECT shows: through which of a row's values it sees it, and whether through them alone.

`count(*) FILTER (WHERE status = 'open')` and `sum(CASE WHEN status = 'open' THEN points ELSE 0 END)` see a row through
the value that they take up of it: NULL is passed over. `docs/internals/read-sets.md` argues which writes cannot matter
to them; the INVARIANT comments mark the lines that it rests on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import (
    BinaryExpression,
    BindParameter,
    Case,
    Cast,
    ClauseElement,
    ClauseList,
    ColumnClause,
    FunctionFilter,
    Grouping,
    Label,
    Null,
    Over,
    TypeClause,
    UnaryExpression,
    WithinGroup,
)
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import SelectBase

from reactive_rpc.compat.sqlalchemy import yields_each_row
from reactive_rpc.statements.formulas import NULL, Applied, Formula, FormulaReader, is_plain_call
from reactive_rpc.statements.predicates import Constant, Parameter, ungrouped

__all__ = ["aggregates_of", "has_rows_counted", "is_aggregated", "seen_value"]

_PASSING_NULL_OVER: Final = frozenset({"avg", "count", "max", "min", "sum"})
_OF_ONE_ROW: Final = frozenset({"abs", "coalesce", "nullif", "round"})
_MADE_OF_PARTS: Final = (BinaryExpression, Case, Cast, ClauseList, Grouping, Label, UnaryExpression)
_VALUES: Final = (BindParameter, Null, TypeClause)


def aggregates_of(select: Any) -> tuple[Any, ...]:
    """Return the aggregates among the columns of a SELECT that pass NULL over, each as often as it is rendered."""
    return tuple(each for column in select.inner_columns for each in _outermost(column))


def is_aggregated(select: Any) -> bool:
    """Tell whether a SELECT yields one row, made of `aggregates_of` and of values alone."""
    # INVARIANT (nothing else sees the rows): a column beside an aggregate is that of some row, a group is there for as
    # long as it has a row, and another aggregate may take NULL up.
    return bool(aggregates_of(select)) and yields_each_row(select) and all(map(_is_made, select.inner_columns))


def seen_value(aggregate: Any, reader: FormulaReader) -> Formula:
    """Return the value of a row that an aggregate takes up, or NULL, as it is about the reader's occurrence."""
    if not isinstance(aggregate, FunctionFilter):
        return _argument(aggregate, reader)
    return Applied("case", (reader.truth(aggregate.criterion), _argument(aggregate.func, reader), NULL))


def has_rows_counted(value: Formula) -> Formula:
    """Return a condition without which a value is NULL."""
    match value:
        case Applied("case", (*parts, last)) if last == NULL:
            conditions = tuple(parts[::2])
            return conditions[0] if len(conditions) == 1 else Applied("or", conditions)
        case Parameter() | Constant():
            return Constant(1)
    return _not_null(value)


def _not_null(value: Formula) -> Formula:
    return Applied("not", (Applied("is same", (value, NULL)),))


def _argument(function: Any, reader: FormulaReader) -> Formula:
    argument = next(map(ungrouped, function.clauses), None)
    if argument is None or (isinstance(argument, ColumnClause) and argument.is_literal):
        return Constant(1)
    is_distinct = isinstance(argument, UnaryExpression) and argument.operator is operators.distinct_op
    value = reader.read(argument.element if is_distinct else argument)
    if _name(function) != "count" or is_distinct or (isinstance(value, Applied) and value.name == "case"):
        return value
    return Applied("case", (_not_null(value), Constant(1), NULL))


def _outermost(element: ClauseElement) -> Iterator[Any]:
    # INVARIANT (a row's own part in a group): a window function sees the rows around it, a SELECT its own.
    if isinstance(element, Over | WithinGroup | SelectBase | ColumnClause):
        return
    if _is_aggregate(element):
        yield element
        return
    for child in element.get_children():
        yield from _outermost(child)


def _is_made(element: ClauseElement) -> bool:
    if _is_aggregate(element) or isinstance(element, _VALUES):
        return True
    is_function = isinstance(element, FunctionElement) and _name(element) in _OF_ONE_ROW
    return (is_function or isinstance(element, _MADE_OF_PARTS)) and all(map(_is_made, element.get_children()))


def _is_aggregate(element: Any) -> bool:
    function = element.func if isinstance(element, FunctionFilter) else element
    if not isinstance(function, FunctionElement) or not is_plain_call(function):
        return False
    arguments = list(function.clauses)
    # INVARIANT (of one argument): min and max of several are functions of one row on SQLite.
    if (
        _name(function) not in _PASSING_NULL_OVER
        or len(arguments) > 1
        or (not arguments and _name(function) != "count")
    ):
        return False
    return not any(isinstance(each, ColumnClause) and each.is_literal and each.name != "*" for each in arguments)


def _name(function: Any) -> str:
    return str(getattr(function, "name", "")).lower()
