"""The table of codes and the tree of errors say the same."""

from __future__ import annotations

import pytest

from reactive_rpc import errors
from reactive_rpc.errors import RPCError, rpc_error
from reactive_rpc.protocol.codes import CODES, code_for_status
from reactive_rpc.protocol.envelopes import decode_error, encode_error, http_status


@pytest.mark.parametrize("code", sorted(CODES))
def test_an_error_survives_the_wire(code: str) -> None:
    """Its class, code, message, details, path and request id arrive as they were."""
    error = rpc_error(code, "no", details=[{"loc": ["a"]}], path="a.b", request_id="r1")
    back = decode_error(encode_error(error))
    assert type(back) is type(error)
    assert (back.code, back.message, back.details, back.path, back.request_id) == (
        code, "no", [{"loc": ["a"]}], "a.b", "r1",
    )  # fmt: skip
    assert http_status(back) == CODES[code].http


def test_every_error_class_has_a_row_in_the_table() -> None:
    """And is what its code makes."""
    classes = [getattr(errors, name) for name in errors.__all__]
    for error_class in classes:
        if isinstance(error_class, type) and issubclass(error_class, RPCError) and error_class is not RPCError:
            assert error_class.code in CODES
            assert type(rpc_error(error_class.code, "")) is error_class


@pytest.mark.parametrize("code", sorted(CODES))
def test_a_status_has_a_code_of_that_status(code: str) -> None:
    """The most general one of those that share it."""
    assert CODES[code_for_status(CODES[code].http)].http == CODES[code].http


def test_an_unknown_code_is_kept() -> None:
    """An application's own code stays on the base class and answers 500."""
    error = rpc_error("OUT_OF_TEA", "no tea")
    assert (type(error), error.code, http_status(error)) == (RPCError, "OUT_OF_TEA", 500)
