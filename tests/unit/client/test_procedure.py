"""Inputs and outputs between Python and JSON."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

import reactive_rpc.client
from reactive_rpc.client import UNSET, Procedure
from reactive_rpc.errors import BadRequestError, WireError


class Filter(BaseModel):
    """An input."""

    class_: str = Field(alias="class", default="x")
    limit: int | None = 10
    ratio: float = 0.5


def procedure(method: Literal["GET", "POST"] = "POST") -> Procedure[dict[str, int]]:
    """Return a procedure that takes a Filter."""
    return Procedure(path="a.b", url="/rpc/a/b", method=method, input=Filter, output=dict[str, int])


def test_what_is_not_given_is_not_sent() -> None:
    """UNSET leaves the server's default in force; None is a value."""
    given: dict[str, Any] = {"class": UNSET, "limit": None}
    assert procedure().encode_input(given) == {"limit": None}
    assert not UNSET


def test_a_query_string_cannot_say_none() -> None:
    """Over GET, None is not sent; the stream is told the same input."""
    assert procedure("GET").encode_input({"class": "y", "limit": None}) == {"class": "y"}


@pytest.mark.parametrize("arguments", [{"limit": "many"}, {"ratio": float("nan")}])
def test_what_does_not_fit_is_a_bad_request(arguments: dict[str, Any]) -> None:
    """A wrong type, and a number that JSON cannot spell, are refused in the client."""
    with pytest.raises(BadRequestError):
        procedure().encode_input(arguments)


def test_another_shape_is_a_wire_error_that_says_where() -> None:
    """The error names the procedure and the place."""
    with pytest.raises(WireError, match=r"a\.b answered .*\(b: "):
        procedure().decode_output(b'{"a": 1, "b": []}')


def test_everything_exported_exists() -> None:
    """`__all__` of the runtime names what generated code imports."""
    assert all(hasattr(reactive_rpc.client, name) for name in reactive_rpc.client.__all__)
