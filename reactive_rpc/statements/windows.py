"""Which rows a LIMIT lets through: none that stands after the last one that it showed.

`ORDER BY created DESC, id DESC LIMIT 50` that found 50 rows shows the same ones for as long as the rows up to its last
one stay. So the statement reads as if its WHERE ended in `AND (created, id) is not after the last row's`, of which
`order_of` finds the order when the template is made, and `shown_rows` the values when the rows are there. A window that
is not full is read without it: any row that passes the WHERE would be shown.

`docs/internals/read-sets.md` argues why that suffices; the INVARIANT comments mark the lines that it rests on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy.engine import Dialect
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.elements import BindParameter, Label, Over, UnaryExpression
from sqlalchemy.sql.functions import FunctionElement

from reactive_rpc.compat.sqlalchemy import (
    has_column_expression,
    limit_of,
    order_by_clauses,
    unlabelled_order,
    yields_each_row,
)
from reactive_rpc.dependencies.change import Known
from reactive_rpc.dependencies.expressions import ColumnRef, Expression, FixedValue, RowOperation
from reactive_rpc.dependencies.schema import ColumnKind
from reactive_rpc.statements.bodies import Body
from reactive_rpc.statements.comparable_values import comparable, ordered
from reactive_rpc.statements.predicates import Field, Parameter, field_of
from reactive_rpc.statements.recording_compiler import SelectBody
from reactive_rpc.statements.template import SortKey, Window

__all__ = ["ColumnOf", "is_limited", "order_of", "shown_rows"]

ColumnOf = Callable[[Field], tuple[str, ColumnKind | None]]
"""The spelling and the kind of a column; no kind if it is not exact."""

_OF_ONE_ROW: Final = frozenset({"abs", "coalesce", "length", "lower", "nullif", "round", "substr", "trim", "upper"})
"""Functions that are no aggregates on either database."""


def is_limited(select: SelectBody | None) -> bool:
    """Tell whether a SELECT has a LIMIT."""
    return select is not None and limit_of(select.statement) is not None


def order_of(
    select: SelectBody, body: Body, *, name_of: Callable[[BindParameter[Any]], str | None], dialect: Dialect
) -> Window | None:
    """Return the order of the rows that a whole statement yields, and its LIMIT; None if it is not known.

    Args:
        select: the statement's outermost SELECT.
        body: the same, read.
        name_of: the names of its parameters, as of `PredicateReader`.
    """
    limit = limit_of(select.statement)
    name = name_of(limit) if isinstance(limit, BindParameter) else None
    if name is None or not _rows_are_joined_rows(select.statement):
        return None
    places = _places(select.statement, dialect)
    keys = tuple(_keys(select.statement, body, places=places, dialect=dialect))
    return Window(keys, Parameter(name), len(places)) if keys else None


def _rows_are_joined_rows(select: Any) -> bool:
    """Tell whether each row that a SELECT yields is made of one joined row, whatever the others are."""
    # INVARIANT (a row sees no other one): an aggregate, a window function or DISTINCT sees rows after the last one.
    parts = [*select.inner_columns, *order_by_clauses(select)]
    elements = [each for part in parts for each in visitors.iterate(part)]
    return yields_each_row(select) and not any(map(_may_see_other_rows, elements))


def _may_see_other_rows(element: Any) -> bool:
    if isinstance(element, Over):
        return True
    return isinstance(element, FunctionElement) and str(getattr(element, "name", "")).lower() not in _OF_ONE_ROW


def _places(select: Any, dialect: Dialect) -> list[Field | None]:
    """Return the column at each place of the rows; None if anything else stands there."""
    columns = [each.element if isinstance(each, Label) else each for each in select.inner_columns]
    # INVARIANT (what is stored is what is shown): a type that puts SQL around its column shows something else.
    return [None if has_column_expression(each.type, dialect) else field_of(each) for each in columns]


def _keys(select: Any, body: Body, *, places: Sequence[Field | None], dialect: Dialect) -> Iterator[SortKey]:
    """Yield the first columns that the rows are ordered by, as far as one table's row has them and shows them."""
    identities = {occurrence: identity for identity, occurrence in body.occurrences.items()}
    first: Field | None = None
    for clause in order_by_clauses(select):
        column, descending, nulls_first = _order(clause, dialect)
        field = field_of(column)
        # INVARIANT (the keys before it suffice): rows that differ in them are ordered, whatever the further ones say.
        if field is None or field not in places or field.source not in identities:
            return
        first = first or field
        identity = identities[field.source]
        # INVARIANT (every joined row has a row of it): one that an outer join left out has no place in the order.
        if field.source != first.source or body.sources[identity].nullable:
            return
        yield SortKey(field, identity, places.index(field), descending, nulls_first)


def _order(clause: Any, dialect: Dialect) -> tuple[Any, bool, bool]:
    """Return what is ordered by, whether downwards, and whether NULLs come first."""
    element, descending, nulls_first = unlabelled_order(clause), False, None
    while isinstance(element, UnaryExpression) and element.modifier in _MODIFIERS:
        descending = descending or element.modifier is operators.desc_op
        if nulls_first is None and element.modifier in _NULLS:
            nulls_first = _NULLS[element.modifier]
        element = unlabelled_order(element.element)
    # NULLs are the least on SQLite, and the greatest on PostgreSQL.
    by_itself = descending == (dialect.name == "postgresql")
    return element, descending, by_itself if nulls_first is None else nulls_first


_NULLS: Final[Mapping[Any, bool]] = {operators.nulls_first_op: True, operators.nulls_last_op: False}
_MODIFIERS: Final = (operators.asc_op, operators.desc_op, *_NULLS)


def shown_rows(
    window: Window, rows: Sequence[Sequence[Any]], *, limit: object, column_of: ColumnOf, dialect: str
) -> Expression | None:
    """Return that a row does not stand after the last of `rows`; None if that is not known, or the window not full.

    Args:
        rows: all that the statement yields, as the driver has them.
        limit: the value of its LIMIT.
    """
    # INVARIANT (only of a full window): into any other, a row after its last one would come.
    if type(limit) is not int or not rows or len(rows) != limit or len(rows[-1]) != window.width:
        return None
    found: list[tuple[SortKey, str, Known | None]] = []
    for key in window.keys:
        name, kind = column_of(key.field)
        value = rows[-1][key.place]
        known = None if kind is None or value is None else comparable(value, kind, dialect)
        # INVARIANT (compared as the database orders): a column whose order is its locale's says nothing, and neither
        # does what comes after it.
        if kind is None or not ordered(kind) or (known is None and value is not None):
            break
        found.append((key, name, known))
    return _not_after(found) if found else None


def _not_after(keys: Sequence[tuple[SortKey, str, Known | None]]) -> Expression:
    """Return that a row stands before the last one, or beside it: rows that tie may be shown in its place."""
    *first, last = keys
    found: Expression = RowOperation("or", (_before(*last), _same(*last)))
    for each in reversed(first):
        found = RowOperation("or", (_before(*each), RowOperation("and", (_same(*each), found))))
    return found


def _same(_key: SortKey, name: str, value: Known | None) -> Expression:
    column = ColumnRef(name)
    return _is_null(column) if value is None else RowOperation("=", (column, FixedValue(value)))


def _before(key: SortKey, name: str, value: Known | None) -> Expression:
    column = ColumnRef(name)
    if value is None:
        return FixedValue(0) if key.nulls_first else RowOperation("not", (_is_null(column),))
    sooner = RowOperation(">" if key.descending else "<", (column, FixedValue(value)))
    return RowOperation("or", (_is_null(column), sooner)) if key.nulls_first else sooner


def _is_null(column: ColumnRef) -> Expression:
    return RowOperation("is null", (column,))
