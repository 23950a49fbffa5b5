"""Changes and read sets as bytes: for a Redis that relays the ones and keeps the others.

JSON, because orjson writes and reads it at the speed of C, and because a person can read it. What JSON has no exact
form for is a list whose first item names the form: `["u"]` is `UNKNOWN`, `["d", "1.50"]` a `Decimal`, `["i", "…"]` an
integer past 64 bits, `["f", "inf"]` a number that is not finite, `["s", "…"]` text that UTF-8 cannot hold, in
hexadecimal, `["p", …]` the values of a row's parents. Everything else stands for itself.

A round trip is exact: a value comes back equal, of the same type, and with the same digits, or conditions would admit
other rows in the process that decodes than in the one that encoded. A text that was not encoded here is refused, never
guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final, TypeVar, get_args

import orjson

from reactive_rpc.dependencies.change import (
    UNKNOWN,
    Change,
    ChangeOperation,
    Image,
    Known,
    ParentValues,
    Unknown,
    Value,
)
from reactive_rpc.dependencies.expressions import (
    OPERATIONS,
    ColumnRef,
    Expression,
    FixedValue,
    Membership,
    OfParents,
    RowOperation,
)
from reactive_rpc.dependencies.lookup import Lookup
from reactive_rpc.dependencies.period import ALWAYS, Period
from reactive_rpc.dependencies.read_set import Between, Condition, Constraint, Equals, IsNull, NotNull, ReadSet, RowTest

__all__ = [
    "decode_changes",
    "decode_lookup",
    "decode_read_set",
    "encode_changes",
    "encode_lookup",
    "encode_read_set",
]

T = TypeVar("T")

_OPERATIONS: Final[Collection[str]] = frozenset(get_args(ChangeOperation))
_MIN, _MAX = -(2**63), 2**64 - 1
"""The integers that orjson can write."""


def encode_changes(changes: Iterable[Change]) -> bytes:
    """Return changes as bytes, in their order.

    >>> encode_changes([Change(table="t", operation="insert", after={"id": 1, "x": UNKNOWN}, keys=frozenset({1}))])
    b'[["t","insert",null,["id",1,"x",["u"]],null,[1]]]'
    """
    return orjson.dumps([_from_change(change) for change in changes])


def decode_changes(data: bytes) -> tuple[Change, ...]:
    """Return the changes that `data` tells.

    Raises:
        ValueError: `encode_changes` cannot have made it.
    """
    return tuple(_decoded(_to_change, item) for item in _list(orjson.loads(data)))


def encode_read_set(read_set: ReadSet) -> bytes:
    """Return a read set as bytes.

    >>> encode_read_set(ReadSet((Constraint("t", frozenset({"n"}), {"id": Equals(frozenset({1}))}),)))
    b'[null,[["t",["n"],["id",["=",1]],[],null]],null]'
    """
    constraints = [_from_constraint(constraint) for constraint in read_set.constraints]
    return orjson.dumps([_from_optional(read_set.opaque), constraints, _from_period(read_set.period)])


def decode_read_set(data: bytes) -> ReadSet:
    """Return the read set that `data` tells.

    Raises:
        ValueError: `encode_read_set` cannot have made it.
    """
    return _decoded(_to_read_set, orjson.loads(data))


def encode_lookup(lookup: Lookup) -> bytes:
    """Return a virtual column as bytes."""
    return orjson.dumps(_from_lookup(lookup))


def decode_lookup(data: bytes) -> Lookup:
    """Return the virtual column that `data` tells.

    Raises:
        ValueError: `encode_lookup` cannot have made it.
    """
    return _decoded(_to_lookup, orjson.loads(data))


def _decoded(decode: Callable[[Any], T], item: Any) -> T:
    try:
        return decode(item)
    except (TypeError, IndexError, InvalidOperation) as exc:
        raise ValueError(f"nothing that was encoded here: {str(item)[:80]}") from exc


def _from_change(change: Change) -> list[Any]:
    changed = None if change.changed is None else [_from_value(column) for column in sorted(change.changed)]
    keys = [_from_value(key) for key in change.keys]
    images = _from_image(change.before), _from_image(change.after)
    return [_from_value(change.table), change.operation, *images, changed, keys]


def _to_change(item: Any) -> Change:
    table, operation, before, after, changed, keys = _list(item)
    if operation not in _OPERATIONS:
        raise ValueError(f"no operation is called {operation!r}")
    return Change(
        table=_text(table),
        operation=operation,
        before=_to_image(before),
        after=_to_image(after),
        changed=None if changed is None else frozenset(map(_text, _list(changed))),
        keys=frozenset(_key(key) for key in _list(keys)),
    )


def _from_image(image: Image | None) -> list[Any] | None:
    if image is None:
        return None
    return [part for column, value in image.items() for part in (_from_value(column), _from_values(value))]


def _to_image(item: Any) -> Image | None:
    return None if item is None else _pairs(item, _to_values)


def _from_values(value: Value | Unknown | ParentValues) -> Any:
    return ["p", *map(_from_value, value)] if isinstance(value, frozenset) else _from_value(value)


def _to_values(item: Any) -> Value | Unknown | ParentValues:
    match item:
        case ["p", *values]:
            return frozenset(map(_bound, values))
    return _to_value(item)


def _to_read_set(item: Any) -> ReadSet:
    opaque, constraints, period = _list(item)
    reason = None if opaque is None else _text(opaque)
    return ReadSet(tuple(map(_to_constraint, _list(constraints))), reason, _to_period(period))


def _from_period(period: Period) -> list[Any] | None:
    return None if period == ALWAYS else [_from_value(period.since), _from_value(period.until), period.is_exact]


def _to_period(item: Any) -> Period:
    if item is None:
        return ALWAYS
    since, until, is_exact = _list(item)
    moments = _to_value(since), _to_value(until)
    if not all(isinstance(moment, float) for moment in moments) or not isinstance(is_exact, bool):
        raise ValueError(f"no period is {item!r}")
    return Period(*moments, is_exact)  # type: ignore[arg-type]  # floats, as was looked at


def _from_constraint(constraint: Constraint) -> list[Any]:
    columns = None if constraint.columns is None else [_from_value(column) for column in sorted(constraint.columns)]
    conditions: list[Any] = []
    for column, condition in constraint.conditions.items():
        conditions += (_from_value(column), _from_condition(condition))
    lookups = [_from_lookup(lookup) for lookup in constraint.lookups]
    return [_from_value(constraint.table), columns, conditions, lookups, _from_test(constraint.test)]


def _to_constraint(item: Any) -> Constraint:
    table, columns, conditions, lookups, test = _list(item)
    return Constraint(
        _text(table),
        None if columns is None else frozenset(map(_text, _list(columns))),
        _pairs(conditions, _to_condition),
        tuple(map(_to_lookup, _list(lookups))),
        _to_test(test),
    )


def _from_lookup(lookup: Lookup) -> list[Any]:
    names = (lookup.table, lookup.column, lookup.parent, lookup.key, lookup.value)
    return [*map(_from_value, names), None if lookup.further is None else _from_lookup(lookup.further)]


def _to_lookup(item: Any) -> Lookup:
    *names, further = _list(item)
    table, column, parent, key, value = map(_text, names)
    return Lookup(table, column, parent, key, value, None if further is None else _to_lookup(further))


def _from_test(test: RowTest | None) -> list[Any] | None:
    if test is None:
        return None
    columns = [_from_value(column) for column in sorted(test.columns)]
    parts = map(_from_expression, test.of_parents)
    aggregated = list(map(_from_expression, test.aggregated))
    return [_from_expression(test.predicate), columns, test.narrows, test.is_windowed, aggregated, *parts]


def _to_test(item: Any) -> RowTest | None:
    if item is None:
        return None
    predicate, columns, narrows, is_windowed, values, *parents = _list(item)
    if not isinstance(narrows, bool) or not isinstance(is_windowed, bool):
        raise ValueError(f"{narrows!r} or {is_windowed!r} is neither true nor false")
    of_parents = tuple(map(_to_condition_of_parents, parents))
    tested = frozenset(map(_text, _list(columns)))
    aggregated = tuple(map(_to_expression, _list(values)))
    return RowTest(_to_expression(predicate), tested, narrows, is_windowed, of_parents, aggregated)


def _to_condition_of_parents(item: Any) -> OfParents:
    found = _to_expression(item)
    if not isinstance(found, OfParents):
        raise ValueError(f"no condition on parents: {str(item)[:80]}")
    return found


def _from_expression(expression: Expression) -> list[Any]:
    match expression:
        case ColumnRef(name):
            return ["column", _from_value(name)]
        case FixedValue(value):
            return ["value", _from_value(value)]
        case Membership(of, values, has_null):
            return ["in", _from_expression(of), has_null, *map(_from_value, values)]
        case RowOperation(name, arguments):
            return ["of", name, *map(_from_expression, arguments)]
        case OfParents(virtual, column, condition):
            return ["parents", _from_value(virtual), _from_value(column), _from_expression(condition)]


def _to_expression(item: Any) -> Expression:
    match _list(item):
        case ["column", name]:
            return ColumnRef(_text(name))
        case ["value", value]:
            return FixedValue(_to_value(value))
        case ["in", of, bool() as has_null, *values]:
            return Membership(_to_expression(of), frozenset(map(_known, values)), has_null)
        case ["of", str() as name, *arguments] if name in OPERATIONS:
            return RowOperation(name, tuple(map(_to_expression, arguments)))
        case ["parents", virtual, column, condition]:
            return OfParents(_text(virtual), _text(column), _to_expression(condition))
    raise ValueError(f"no expression: {str(item)[:80]}")


def _from_condition(condition: Condition) -> list[Any]:
    match condition:
        case Equals(values):
            return ["=", *map(_from_value, values)]
        case Between(low, low_inclusive, high, high_inclusive):
            return ["between", _from_value(low), low_inclusive, _from_value(high), high_inclusive]
        case IsNull():
            return ["null"]
        case NotNull():
            return ["not null"]


def _to_condition(item: Any) -> Condition:
    match _list(item):
        case ["=", *values]:
            return Equals(frozenset(map(_known, values)))
        case ["between", low, bool() as low_inclusive, high, bool() as high_inclusive]:
            return Between(_bound(low), low_inclusive, _bound(high), high_inclusive)
        case ["null"]:
            return IsNull()
        case ["not null"]:
            return NotNull()
    raise ValueError(f"no condition: {str(item)[:80]}")


def _pairs(item: Any, decode: Callable[[Any], T]) -> Mapping[str, T]:
    """Return `{name: decoded}` of a list in which names and values take turns."""
    parts = _list(item)
    return {_text(name): decode(value) for name, value in zip(parts[::2], parts[1::2], strict=True)}


def _from_optional(text: str | None) -> Any:
    return None if text is None else _from_value(text)


def _from_value(value: Value | Unknown) -> Any:
    if isinstance(value, str):
        return value if _is_utf8(value) else ["s", value.encode("utf-8", "surrogatepass").hex()]
    if isinstance(value, int):
        return value if _MIN <= value <= _MAX else ["i", hex(value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else ["f", repr(value)]
    if isinstance(value, Decimal):
        return ["d", str(value)]
    return ["u"] if isinstance(value, Unknown) else None


def _to_value(item: Any) -> Value | Unknown:
    match item:
        case None | str() | int() | float():
            return item
        case ["u"]:
            return UNKNOWN
        case ["d", str() as digits]:
            return Decimal(digits)
        case ["i", str() as digits]:
            return int(digits, 16)
        case ["f", "inf" | "-inf" | "nan" as name]:
            return float(name)
        case ["s", str() as digits]:
            return bytes.fromhex(digits).decode("utf-8", "surrogatepass")
    raise ValueError(f"no value: {str(item)[:80]}")


def _key(item: Any) -> Known | Unknown:
    value = _to_value(item)
    if value is None:
        raise ValueError("NULL is no key")
    return value


def _bound(item: Any) -> Value:
    value = _to_value(item)
    if isinstance(value, Unknown):
        raise ValueError("no bound is unknown")
    return value


def _known(item: Any) -> Known:
    value = _bound(item)
    if value is None:
        raise ValueError("nothing equals NULL")
    return value


def _text(item: Any) -> str:
    value = _to_value(item)
    if not isinstance(value, str):
        raise ValueError(f"no name: {str(item)[:80]}")
    return value


def _list(item: Any) -> list[Any]:
    if not isinstance(item, list):
        raise ValueError(f"no list: {str(item)[:80]}")
    return item


def _is_utf8(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
