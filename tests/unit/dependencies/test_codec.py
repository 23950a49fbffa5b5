"""Changes and read sets as bytes, and back."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_rpc.dependencies.change import UNKNOWN, Change, Unknown, Value
from reactive_rpc.dependencies.codec import decode_changes, decode_read_set, encode_changes, encode_read_set
from reactive_rpc.dependencies.expressions import (
    OPERATIONS,
    ColumnRef,
    Expression,
    FixedValue,
    Membership,
    RowOperation,
)
from reactive_rpc.dependencies.lookup import Lookup
from reactive_rpc.dependencies.read_set import Between, Constraint, Equals, IsNull, NotNull, ReadSet, RowTest

TEXTS = st.text(st.characters(exclude_categories=())) | st.text("ab\0\ud800\udfff😀", max_size=4)
KNOWN = (
    st.integers()
    | st.integers(2**63 - 2, 2**63 + 2)
    | st.integers(2**64 - 2, 2**64 + 2)
    | st.floats(allow_nan=False)
    | st.decimals(allow_nan=False)
    | TEXTS
)
VALUES = KNOWN | st.none()
IMAGES = st.dictionaries(TEXTS, VALUES | st.just(UNKNOWN), max_size=4)
CHANGES = st.builds(
    Change,
    table=TEXTS,
    operation=st.sampled_from(["insert", "update", "delete", "bulk"]),
    before=st.none() | IMAGES,
    after=st.none() | IMAGES,
    changed=st.none() | st.frozensets(TEXTS, max_size=3),
    keys=st.frozensets(KNOWN | st.just(UNKNOWN), max_size=3),
)
CONDITIONS = (
    st.builds(Equals, st.frozensets(KNOWN, max_size=3))
    | st.builds(Between, VALUES, st.booleans(), VALUES, st.booleans())
    | st.builds(IsNull)
    | st.builds(NotNull)
)
EXPRESSIONS: st.SearchStrategy[Expression] = st.recursive(
    st.builds(ColumnRef, TEXTS) | st.builds(FixedValue, VALUES | st.just(UNKNOWN)),
    lambda inner: (
        st.builds(Membership, inner, st.frozensets(KNOWN, max_size=3), st.booleans())
        | st.builds(RowOperation, st.sampled_from(sorted(OPERATIONS)), st.lists(inner, max_size=3).map(tuple))
    ),
    max_leaves=5,
)
TESTS = st.builds(RowTest, EXPRESSIONS, st.frozensets(TEXTS, max_size=3), st.booleans(), st.booleans())
NAMES = (TEXTS, TEXTS, TEXTS, TEXTS, TEXTS)
LOOKUPS = st.recursive(st.builds(Lookup, *NAMES), lambda further: st.builds(Lookup, *NAMES, further), max_leaves=3)
CONSTRAINTS = st.builds(
    Constraint,
    TEXTS,
    st.none() | st.frozensets(TEXTS, max_size=3),
    st.dictionaries(TEXTS, CONDITIONS, max_size=3),
    st.lists(LOOKUPS, max_size=2).map(tuple),
    st.none() | TESTS,
)
READ_SETS = st.builds(ReadSet, st.lists(CONSTRAINTS, max_size=3).map(tuple), st.none() | TEXTS)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text("tu=si-", max_size=3),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=12,
)


def spelled(value: Any) -> Any:
    """Return what tells apart also what Python calls equal: 1, 1.0, Decimal(1) and Decimal("1.0"), 0.0 and -0.0."""
    match value:
        case Change():
            return "change", [spelled(getattr(value, name)) for name in Change.__slots__]
        case ReadSet():
            return spelled(value.constraints), value.opaque
        case Constraint():
            parts = spelled(value.columns), spelled(value.conditions), value.lookups
            return value.table, parts, None if value.test is None else spelled(value.test)
        case RowTest():
            return spelled(value.predicate), spelled(value.columns), value.narrows, value.is_windowed
        case ColumnRef():
            return "column", value.name
        case FixedValue():
            return "value", spelled(value.value)
        case Membership():
            return "in", spelled(value.of), spelled(value.values), value.has_null
        case RowOperation():
            return value.name, spelled(value.arguments)
        case Equals():
            return "=", spelled(value.values)
        case Between():
            return spelled(value.low), value.low_inclusive, spelled(value.high), value.high_inclusive
        case frozenset():
            return "set", sorted(map(repr, map(spelled, value)))
        case tuple() | list():
            return [spelled(item) for item in value]
        case dict():
            return [(name, spelled(item)) for name, item in value.items()]
        case Unknown():
            return "unknown"
    return type(value).__name__, repr(value)


@given(st.lists(CHANGES, max_size=4))
def test_changes_come_back_as_they_were(changes: list[Change]) -> None:
    """In order, each value equal and of its type; whatever text, number or digits it is."""
    found = decode_changes(encode_changes(changes))
    assert found == tuple(changes)
    assert spelled(found) == spelled(changes)


@given(READ_SETS)
def test_read_sets_come_back_as_they_were(read_set: ReadSet) -> None:
    """With every condition, look-up and reason."""
    found = decode_read_set(encode_read_set(read_set))
    assert found == read_set
    assert spelled(found) == spelled(read_set)


def test_what_json_has_no_form_for() -> None:
    """Numbers that are not finite or too long, digits behind the point, half a surrogate pair, and the unknown."""
    numbers: list[Value | Unknown] = [math.inf, -math.inf, 2**64, -(2**70), Decimal("1.50"), -0.0, 1e300]
    values = [*numbers, Decimal("-Infinity"), "\ud800", UNKNOWN]
    change = Change(table="t", operation="insert", after={str(place): value for place, value in enumerate(values)})
    (found,) = decode_changes(encode_changes([change]))
    assert found.after is not None
    assert [repr(value) for value in found.after.values()] == [repr(value) for value in values]


def test_not_a_number_stays_one() -> None:
    """A NaN equals nothing, not even itself: it is compared by its name."""
    change = Change(table="t", operation="delete", before={"f": math.nan, "d": Decimal("NaN")})
    (found,) = decode_changes(encode_changes([change]))
    assert found.before is not None
    assert [repr(value) for value in found.before.values()] == ["nan", "Decimal('NaN')"]


@pytest.mark.parametrize(
    "rubbish",
    [
        b"",
        b"{",
        b"null",
        b"7",
        b'{"t": 1}',
        b"[7]",
        b"[[]]",
        b'[["t", "upsert", null, null, null, []]]',
        b'[["t", "insert", null, ["id"], null, []]]',
        b'[["t", "insert", null, {"id": 1}, null, []]]',
        b'[["t", "insert", null, ["id", ["d", "x"]], null, []]]',
        b'[["t", "insert", null, ["id", ["i", "z"]], null, []]]',
        b'[["t", "insert", null, ["id", ["s", "ff"]], null, []]]',
        b'[["t", "insert", null, ["id", ["f", "1.5"]], null, []]]',
        b'[["t", "insert", null, ["id", ["?"]], null, []]]',
        b'[["t", "insert", null, null, "id", []]]',
        b'[["t", "insert", null, null, null, [null]]]',
        b'[[1, "insert", null, null, null, []]]',
        b'[["t", ["insert"], null, null, null, []]]',
        b'[["t", "insert", null, null, null, []]] ]',
        b"\xff\xfe",
    ],
)
def test_rubbish_is_refused(rubbish: bytes) -> None:
    """Whoever reads it can tell that it is none, and take it for a gap."""
    with pytest.raises(ValueError, match=r"."):
        decode_changes(rubbish)


@pytest.mark.parametrize(
    "rubbish",
    [
        b"[]",
        b"[null]",
        b"[7, []]",
        b"[null, [[]]]",
        b'[null, [["t", null, ["id", ["~"]], []]]]',
        b'[null, [["t", null, ["id", ["=", null]], []]]]',
        b'[null, [["t", null, ["id", ["=", ["u"]]], []]]]',
        b'[null, [["t", null, ["id", ["between", 1, 1, 2, true]], []]]]',
        b'[null, [["t", null, ["id", ["between", ["u"], true, 2, true]], []]]]',
        b'[null, [["t", null, [], [["a", "b"]]]]]',
        b'[null, [["t", 5, [], []]]]',
    ],
)
def test_rubbish_is_no_read_set(rubbish: bytes) -> None:
    """A condition that is not understood might narrow."""
    with pytest.raises(ValueError, match=r"."):
        decode_read_set(rubbish)


@given(JSON)
def test_nothing_but_a_value_error_comes_of_rubbish(item: object) -> None:
    """Whatever JSON it is: it is decoded, or refused by the one error that readers expect."""
    import orjson

    data = orjson.dumps(item)
    for decode in (decode_changes, decode_read_set):
        try:
            decode(data)
        except ValueError:
            continue
