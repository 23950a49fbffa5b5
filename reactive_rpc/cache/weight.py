"""The weight of values in memory, estimated: limits and metrics count objects, not their text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from sys import getsizeof
from typing import Any, Final

from pydantic import BaseModel

from reactive_rpc.dependencies.expressions import Expression, FixedValue, Membership, RowOperation
from reactive_rpc.dependencies.read_set import Between, Equals, ReadSet

__all__ = ["weight_of", "weight_of_read_set"]

CONSTRAINT_BYTES: Final = 550
"""A constraint and its place in the index (`docs/measurements/benchmarks.md`); values come on top."""

INDEXED_BYTES: Final = 100
"""The bytes that the index keeps for each value beside the value."""


def weight_of(value: object) -> int:
    """Return the bytes that `value` and all that it holds take: JSON's types, models, dataclasses.

    A value that is held twice counts twice. Anything else counts by its own size alone.

    >>> weight_of({"name": "a" * 1000}) > 1000, weight_of([[]] * 1000) > 50_000, weight_of(None) < 50
    (True, True, True)
    """
    total = 0
    waiting = [value]
    while waiting:  # no recursion: a client may nest its input deeply
        each = waiting.pop()
        total += getsizeof(each)
        waiting.extend(_held_by(each))
    return total


def weight_of_read_set(read_set: ReadSet) -> int:
    """Return the size of a read set, with its places in the index."""
    total = CONSTRAINT_BYTES * len(read_set.constraints)
    for constraint in read_set.constraints:
        for condition in constraint.conditions.values():
            if isinstance(condition, Equals):
                total += sum(map(getsizeof, condition.values)) + INDEXED_BYTES * len(condition.values)
            elif isinstance(condition, Between):
                total += getsizeof(condition.low) + getsizeof(condition.high)
        total += 0 if constraint.test is None else _weight_of_expression(constraint.test.predicate)
    return total


def _weight_of_expression(expression: Expression) -> int:
    """Return the size of an expression without its names, which the statement's template holds."""
    total = getsizeof(expression)
    if isinstance(expression, FixedValue):
        return total + getsizeof(expression.value)
    if isinstance(expression, Membership):
        return total + sum(map(getsizeof, expression.values)) + _weight_of_expression(expression.of)
    if isinstance(expression, RowOperation):
        return total + getsizeof(expression.arguments) + sum(map(_weight_of_expression, expression.arguments))
    return total


def _held_by(value: Any) -> Iterable[Any]:
    if value is None or isinstance(value, str | bytes | int | float):
        return ()
    if isinstance(value, Mapping):
        return (*value, *value.values())
    if isinstance(value, Sequence | Set):
        return value
    if isinstance(value, BaseModel):
        return value.__dict__.values()
    if is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name, None) for field in fields(value)]
    return ()
