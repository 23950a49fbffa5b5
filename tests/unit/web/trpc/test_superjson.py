"""superjson's format: what is annotated is read again as it was, and nothing but it is taken."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import pytest
from annotated_types import Ge
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, TypeAdapter

from reactive_rpc.errors import BadRequestError
from reactive_rpc.web.routing.openapi_marks import marked_schema
from reactive_rpc.web.trpc import superjson
from reactive_rpc.web.trpc.superjson import annotator_of, plain_input, prefixed, wrapped
from reactive_rpc.web.trpc.transformers import SuperJSON


class Leaf(BaseModel):
    """One of each type that superjson has a word for."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    at: datetime
    big: Annotated[int, Ge(2**60)]
    raw: bytes
    tags: set[str]
    by_day: dict[int, datetime]
    by_name: dict[str, list[datetime]]
    either: int | datetime | None = None
    inner: list[Leaf] = []


moments = st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC))
leaves = st.builds(
    Leaf,
    at=moments,
    big=st.integers(2**60, 2**80),
    raw=st.binary(max_size=8),
    tags=st.sets(st.text(max_size=3), max_size=3),
    by_day=st.dictionaries(st.integers(-3, 3), moments, max_size=2),
    by_name=st.dictionaries(st.text(".\\a", max_size=3), st.lists(moments, max_size=2), max_size=2),
    either=st.one_of(st.none(), st.integers(0, 9), moments),
)
values = st.builds(lambda leaf, inner: leaf.model_copy(update={"inner": inner}), leaves, st.lists(leaves, max_size=2))


def transformer() -> SuperJSON:
    schema = marked_schema(TypeAdapter(Leaf))
    return SuperJSON(lambda path: schema if path == "leaf" else None)


def search() -> None:
    """Draw values until one is read otherwise than it was written."""
    made = transformer()

    @settings(deadline=None)
    @given(values)
    @example(
        Leaf(
            at=datetime(2027, 1, 1, tzinfo=UTC), big=2**70, raw=b"\xff\xfe", tags={"a"},
            by_day={7: datetime(2027, 1, 1, tzinfo=UTC)}, by_name={"a.b\\": [datetime(2027, 1, 1, tzinfo=UTC)]},
        )
    )  # fmt: skip
    def hold(value: Leaf) -> None:
        written = value.model_dump_json().encode()
        read = made.read(made.value(written, "leaf"))
        assert Leaf.model_validate_json(read) == value

    hold()


def test_what_is_annotated_is_read_again_as_it_was() -> None:
    """Moments, long integers, bytes, sets and maps, inside one another, at names that hold dots and backslashes."""
    search()


@pytest.mark.seeded_bug
def test_paths_that_are_not_escaped_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The property above can fail."""
    monkeypatch.setattr(superjson, "_escaped", lambda key: key)
    with pytest.raises((AssertionError, BadRequestError)):
        search()


def test_annotations_are_those_of_superjson() -> None:
    """As `SuperJSON.serialize` writes them: a tree by paths, a type with what stands inside of it."""
    moment = "2027-01-15T08:00:00Z"
    annotate = annotator_of(marked_schema(TypeAdapter(Leaf)))
    assert annotate is not None
    value, tree = annotate(
        {
            "at": moment,
            "big": 2**70,
            "raw": "AP8=",
            "tags": ["x"],
            "by_day": {"7": moment},
            "by_name": {"a.b": [moment]},
        }
    )
    assert value == {
        "at": moment, "big": str(2**70), "raw": [0, 255], "tags": ["x"], "by_day": [[7, moment]],
        "by_name": {"a.b": [moment]},
    }  # fmt: skip
    assert tree == {
        "at": ["Date"], "big": ["bigint"], "raw": [["typed-array", "Uint8Array"]], "tags": ["set"],
        "by_day": ["map", {"0.1": ["Date"]}], "by_name.a\\.b.0": ["Date"],
    }  # fmt: skip
    assert annotate({"at": "2027-01-15T08:00:00"}) == ({"at": "2027-01-15T08:00:00"}, None)
    assert annotator_of(marked_schema(TypeAdapter(list[str]))) is None


def test_a_tree_moves_with_its_value() -> None:
    """To the place that a line gives it; nothing stays nothing."""
    assert prefixed(["Date"], "2.0.0") == {"2.0.0": ["Date"]}
    assert prefixed({"a": ["Date"]}, "x") == {"x.a": ["Date"]}
    assert prefixed(None, "x") is None
    assert wrapped(b"1", None) == b'{"json":1}'


@pytest.mark.parametrize(
    ("annotations", "value", "read"),
    [
        (["Date"], "2027-01-15T08:00:00.000Z", "2027-01-15T08:00:00.000Z"),
        (["bigint"], "7", 7),
        (["set"], [1, 2], [1, 2]),
        (["map"], [["a", 1], [7, 2]], {"a": 1, "7": 2}),
        (["map", {"0.1": ["bigint"]}], [["a", "1"]], {"a": 1}),
        ([["typed-array", "Uint8Array"]], [0, 255], "AP8="),
        (["number"], "-0", -0.0),
        (["number"], "Infinity", "Infinity"),
        (["URL"], "https://a.example/", "https://a.example/"),
        ({"a\\.b": ["bigint"]}, {"a.b": "1"}, {"a.b": 1}),
        ({"a": ["undefined"]}, {"a": None, "b": 1}, {"b": 1}),
        ({"0": ["undefined"]}, [None, 1], [None, 1]),
    ],
)
def test_an_input_is_read_by_its_annotations(annotations: Any, value: Any, read: Any) -> None:
    """Each type that superjson writes and JSON has a place for."""
    text = json.dumps({"json": value, "meta": {"values": annotations, "v": 1}}).encode()
    assert json.loads(plain_input(text)) == read


def test_undefined_is_no_input() -> None:
    """Neither an empty body nor one that superjson calls undefined."""
    assert plain_input(b"") == b""
    assert plain_input(b'{"json":null,"meta":{"values":["undefined"]}}') == b""


@pytest.mark.parametrize(
    "text",
    [
        b"{", b"1", b"[]", b"{}", b'{"json":' + b"[" * 10_000,
        b'{"json":1,"meta":{"values":["function"]}}',
        b'{"json":1,"meta":{"values":{"a.b":["Date"]}}}',
        b'{"json":{"a":"x"},"meta":{"values":{"a":["bigint"]}}}',
        b'{"json":[300],"meta":{"values":[["typed-array","Uint8Array"]]}}',
        b'{"json":{"a":null},"meta":{"referentialEqualities":{"b":["a"]}}}',
        b'{"json":{"a":1},"meta":{"referentialEqualities":[["a"]]}}',
        b'{"json":1,"meta":7}',
    ],
)  # fmt: skip
def test_what_superjson_has_not_written_is_refused(text: bytes) -> None:
    """As a bad request: no JSON, unknown types, paths that lead nowhere, values that do not fit."""
    with pytest.raises(BadRequestError):
        plain_input(text)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=4), st.sampled_from(["Date", "map", "bigint"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text("a0.\\", max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(json_values, json_values, json_values)
def test_no_input_fails_otherwise_than_by_a_bad_request(value: Any, annotations: Any, equalities: Any) -> None:
    """Whatever its annotations say."""
    meta = {"values": annotations, "referentialEqualities": equalities}
    try:
        read = plain_input(json.dumps({"json": value, "meta": meta}).encode())
    except BadRequestError:
        return
    if read:
        json.loads(read)
