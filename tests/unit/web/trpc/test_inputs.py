"""The inputs of a batch: cut out of one object as they were spelled."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reactive_rpc.errors import BadRequestError
from reactive_rpc.web.trpc import inputs
from reactive_rpc.web.trpc.inputs import split_inputs

json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=10,
)
spaces = st.text(" \t\n\r", max_size=3)
members = st.lists(
    st.tuples(st.one_of(st.integers(0, 12).map(str), st.sampled_from(["", "-1", "00", "x", "1e1"])), json_values),
    max_size=5,
)


@st.composite
def spelled(draw: st.DrawFn) -> str:
    """Return an object of JSON with spaces where it may have them, in which a name may stand twice."""
    parts = [
        f"{draw(spaces)}{json.dumps(name)}{draw(spaces)}:{draw(spaces)}{json.dumps(value)}{draw(spaces)}"
        for name, value in draw(members)
    ]
    return f"{draw(spaces)}{{{','.join(parts) or draw(spaces)}}}{draw(spaces)}"


def search() -> None:
    """Draw objects until one is split otherwise than a parser of JSON reads it."""

    @given(spelled())
    @example('{"0":1,"0":2}')
    def hold(text: str) -> None:
        read: dict[str, Any] = json.loads(text)
        found = {index: json.loads(value) for index, value in split_inputs(text.encode()).items()}
        assert found == {int(name): value for name, value in read.items() if name.isascii() and name in map(str, found)}
        assert {int(name) for name in read if name == "0" or (name.isdecimal() and name[0] != "0")} == set(found)

    hold()


def test_values_are_those_that_a_parser_of_json_reads() -> None:
    """With spaces anywhere, names that are no index, and names that are given twice, of which the last counts."""
    search()


@pytest.mark.seeded_bug
def test_a_split_that_forgets_spaces_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The property above can fail."""
    monkeypatch.setattr(inputs, "_after_space", lambda text, at: at)
    with pytest.raises((AssertionError, BadRequestError, BaseExceptionGroup)):
        search()


@given(st.one_of(st.binary(max_size=30), st.text('{}[]:,"0123 \\eE-.ntf', max_size=20).map(str.encode)))
def test_whatever_else_is_refused(body: bytes) -> None:
    """What is split is an object of JSON; everything else is a bad request, and no other error."""
    try:
        found = split_inputs(body)
    except BadRequestError:
        return
    assert not body or isinstance(json.loads(body), dict)
    for value in found.values():
        json.loads(value)


def test_values_stay_as_they_are_spelled() -> None:
    """A long number keeps its digits, and one of a million digits costs no more than its length."""
    long = b"9" * 1_000_000
    assert split_inputs(b'{"0": 1.10, "3":%b, "1" : "\\u00e9" }' % long) == {0: b"1.10", 3: long, 1: b'"\\u00e9"'}


@pytest.mark.parametrize(
    "body", [b"[]", b"1", b"null", b'"x"', b'{"0":NaN}', b'{"0":Infinity}', b'{"0":' + b"[" * 10_000, b'{"0":1}{}']
)
def test_no_object_is_a_bad_request(body: bytes) -> None:
    """Nor numbers that JSON has not, nor nesting past any use."""
    with pytest.raises(BadRequestError):
        split_inputs(body)
