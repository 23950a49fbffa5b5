"""Schemas are mended so that signatures read as people write them."""

from __future__ import annotations

from typing import Any

from reactive_rpc.codegen.schemas import mend

REF = "#/components/schemas/"


def mended(components: dict[str, Any], *, returned: tuple[str, ...] = ()) -> dict[str, Any]:
    """Mend components that the root takes or returns, all of them; it returns those named."""
    root = {"properties": {name: {"$ref": REF + name} for name in components}}
    result = dict(mend({**components, "Root": root}, "Root", returned=returned))
    del result["Root"]
    return result


def test_what_is_returned_has_no_bounds() -> None:
    """A model that is returned, also inside another one, has no bounds; one that is only taken keeps them."""
    bounded = {"properties": {"x": {"type": "string", "maxLength": 9}}}
    holder = {"properties": {"b": {"$ref": REF + "B"}}}
    result = mended({"A": bounded, "B": bounded, "C": holder}, returned=("C",))
    assert result["A"] == bounded
    assert result["B"] == {"properties": {"x": {"type": "string"}}}


def test_twins_of_which_one_is_returned_stay_one() -> None:
    """The bounds of an input go too where its twin is returned, so that a result can be sent back."""
    bounded = {"properties": {"x": {"type": "string", "maxLength": 9}}}
    result = mended({"A-Input": bounded, "A-Output": bounded}, returned=("A-Output",))
    assert result == {"A": {"properties": {"x": {"type": "string"}}}}


def test_a_tuple_keeps_its_length() -> None:
    """The bounds of a tuple are its shape, also where it is returned."""
    pair = {"type": "array", "prefixItems": [{"type": "integer"}], "minItems": 1, "maxItems": 1}
    result = mended({"A": {"properties": {"x": pair}}}, returned=("A",))
    assert result["A"]["properties"]["x"] == pair


def test_twins_that_differ_in_how_a_decimal_may_be_spelled_are_one() -> None:
    """The mark says what it is, whatever pattern or branch stands beside it: a number too may be sent for one."""
    taken = {"anyOf": [{"type": "number"}, {"type": "string", "pattern": "x"}], "format": "decimal"}
    returned = {"type": "string", "pattern": "y", "format": "decimal"}
    twins = {"A-Input": {"properties": {"x": taken}}, "A-Output": {"properties": {"x": returned}}}
    result = mended(twins, returned=("A-Output",))
    assert result == {"A": {"properties": {"x": {"type": "string", "format": "decimal"}}}}


def test_an_object_within_another_is_named_by_where_it_stands() -> None:
    """Never by a number alone."""
    inner = {"type": "object", "properties": {"y": {"type": "string"}}}
    result = mended({"A": {"properties": {"some_part": {"type": "array", "items": inner}}}})
    assert result["A"]["properties"]["some_part"]["items"] == {"$ref": REF + "ASomePartItems"}
    assert result["ASomePartItems"] == inner
