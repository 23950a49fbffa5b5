"""Columns that two read sets of one query compare with different values, though nothing was written between them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from reactive_rpc.dependencies.change import Value
from reactive_rpc.dependencies.expressions import Expression, RowOperation, columns_of, values_in
from reactive_rpc.dependencies.read_set import Between, Condition, Constraint, Equals, IsNull, NotNull, ReadSet

__all__ = ["compares_moments", "moved_columns"]

_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")
_MICROSECONDS: Final = range(10**15, 4 * 10**15)
"""From 2001 to 2096."""


def moved_columns(one: ReadSet, other: ReadSet) -> tuple[str, ...]:
    """Return `table.column` of each condition that only one of two read sets has.

    >>> from reactive_rpc.dependencies.read_set import Between, Constraint
    >>> after = [Constraint("note", conditions={"at": Between(low, False, None, False)}) for low in (1.0, 2.0)]
    >>> moved_columns(ReadSet((after[0],)), ReadSet((after[1],)))
    ('note.at',)
    >>> moved_columns(ReadSet((after[0],)), ReadSet((after[0],)))
    ()
    """
    return tuple(sorted({f"{table}.{column}" for table, column, _ in _conditions(one) ^ _conditions(other)}))


def _conditions(read_set: ReadSet) -> set[tuple[str, str, Condition | Expression]]:
    return {
        (constraint.table, column, condition)
        for constraint in read_set.constraints
        for column, condition in (*constraint.conditions.items(), *_tested(constraint))
    }


def _tested(constraint: Constraint) -> Iterator[tuple[str, Expression]]:
    test = constraint.test
    if test is None:
        return
    predicate = test.predicate
    parts = predicate.arguments if isinstance(predicate, RowOperation) and predicate.name == "and" else ()
    # Where a window ends follows from the data, and is no value that the query compares with.
    for part in (*(parts[:-1] if test.is_windowed else parts), *test.of_parents, *test.aggregated):
        for column in columns_of(part):
            yield column, part


def compares_moments(read_set: ReadSet) -> bool:
    """Tell whether a query compares something with a date or a time, by its look: it may be one of a clock.

    >>> from reactive_rpc.dependencies.read_set import Constraint
    >>> compares_moments(ReadSet((Constraint("note", conditions={"at": Between("2026-11-29", True, None, False)}),)))
    True
    >>> compares_moments(ReadSet((Constraint("note", conditions={"id": Equals(frozenset({7}))}),)))
    False
    """
    return any(_is_moment(value) for _, _, condition in _conditions(read_set) for value in _values(condition))


def _values(condition: Condition | Expression) -> Iterator[Value]:
    if isinstance(condition, Between):
        yield from (condition.low, condition.high)
    elif isinstance(condition, Equals):
        yield from condition.values
    elif not isinstance(condition, IsNull | NotNull):
        yield from values_in(condition)


def _is_moment(value: Value) -> bool:
    if isinstance(value, str):
        return _DATE.match(value) is not None
    return isinstance(value, int) and value in _MICROSECONDS
