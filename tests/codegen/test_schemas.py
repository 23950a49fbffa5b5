"""Schemas are mended so that signatures read as people write them."""

from __future__ import annotations

from typing import Any

from reactive_rpc.codegen.schemas import mend

REF = "#/components/schemas/"


def mended(components: dict[str, Any], *, returned: dict[str, Any]) -> dict[str, Any]:
    """Mend components that the root takes or returns, all of them."""
    root = {"properties": {name: {"$ref": REF + name} for name in components}}
    result = dict(mend({**components, "Root": root}, "Root", returned=returned))
    del result["Root"]
    return result


def test_bounds_move_beside_null() -> None:
    """A bounded text or null stays a text or null; what describes the field as a whole is kept."""
    field = {"anyOf": [{"type": "string", "maxLength": 9}, {"type": "null"}], "description": "d", "default": None}
    taken = mended({"A": {"properties": {"x": field}}}, returned={})
    expected = {"type": ["string", "null"], "maxLength": 9, "description": "d", "default": None}
    assert taken == {"A": {"properties": {"x": expected}}}


def test_bounds_go_from_unions() -> None:
    """A bounded branch of any other union loses its bounds."""
    field = {"anyOf": [{"type": "string", "maxLength": 9}, {"type": "integer", "minimum": 1}]}
    taken = mended({"A": {"properties": {"x": field}}}, returned={})
    assert taken == {"A": {"properties": {"x": {"anyOf": [{"type": "string"}, {"type": "integer"}]}}}}


def test_what_is_returned_has_no_bounds() -> None:
    """A model that is returned, also inside another one, has no bounds; one that is only taken keeps them."""
    bounded = {"properties": {"x": {"type": "string", "maxLength": 9}}}
    holder = {"properties": {"b": {"$ref": REF + "B"}}}
    result = mended({"A": bounded, "B": bounded, "C": holder}, returned={"one": {"$ref": REF + "C"}})
    assert result["A"] == bounded
    assert result["B"] == {"properties": {"x": {"type": "string"}}}


def test_twins_of_which_one_is_returned_stay_one() -> None:
    """The bounds of an input go too where its twin is returned, so that a result can be sent back."""
    bounded = {"properties": {"x": {"type": "string", "maxLength": 9}}}
    result = mended({"A-Input": bounded, "A-Output": bounded}, returned={"one": {"$ref": REF + "A-Output"}})
    assert result == {"A": {"properties": {"x": {"type": "string"}}}}


def test_a_tuple_keeps_its_length() -> None:
    """The bounds of a tuple are its shape, also where it is returned."""
    pair = {"type": "array", "prefixItems": [{"type": "integer"}], "minItems": 1, "maxItems": 1}
    result = mended({"A": {"properties": {"x": pair}}}, returned={"one": {"$ref": REF + "A"}})
    assert result["A"]["properties"]["x"] == pair
