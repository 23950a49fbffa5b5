"""Results and errors as tRPC's clients read them.

    {"result": {"data": X}}
    {"error": {"message", "code": -32004, "data": {"code": "NOT_FOUND", "httpStatus": 404, "path", "request_id", ...}}}

Source: tRPC v11, `packages/server/src/unstable-core-do-not-import/error/formatter.ts` and `rpc/envelopes.ts`. A client
that finds no integer `code` in an error takes the whole answer for no answer, so every error is told so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic_core import to_json

from reactive_rpc.errors import RPCError
from reactive_rpc.protocol.codes import CODES
from reactive_rpc.web.routing.responses import Headers

__all__ = ["JSON", "UNSTORED", "VARY", "URITooLongError", "shape_of", "status_of"]

VARY: Final = b"trpc-accept, accept, reactive, reactive-etags, reactive-exact"
"""The headers of a request that an answer may depend on."""

JSON: Final[Headers] = [(b"content-type", b"application/json"), (b"vary", VARY)]
UNSTORED: Final[Headers] = [*JSON, (b"cache-control", b"no-store")]
"""Of an answer that no cache may keep."""

URI_TOO_LONG: Final = 414
"""Of a request whose URL is too long; tRPC has no code of its own for it."""

_OTHER: Final = CODES["INTERNAL_SERVER_ERROR"]


def status_of(error: RPCError) -> int:
    """Return the HTTP status of an error; 500 for a code of the application's own."""
    if isinstance(error, URITooLongError):
        return URI_TOO_LONG
    return CODES.get(error.code, _OTHER).http


def shape_of(error: RPCError, marks: Mapping[str, Any] | None = None) -> bytes:
    """Return the shape of an error; a detail that JSON cannot hold is named by its type.

    Its `data` has, beside the reference server's fields, the `type` and the `details` of the error where it has such,
    and the `request_id` by which it is found in the server's logs.

    Args:
        marks: what else the client has asked for, told as `reactive`.
    """
    data: dict[str, Any] = {"code": error.code, "httpStatus": status_of(error)}
    if marks is not None:
        data["reactive"] = marks
    for name in ("path", "type", "details", "request_id"):
        value = getattr(error, name)
        if value is not None and value != "":
            data[name] = value
    shape = {"message": error.message, "code": CODES.get(error.code, _OTHER).json_rpc, "data": data}
    return to_json(shape, fallback=lambda value: f"<{type(value).__name__}>", inf_nan_mode="null")


class URITooLongError(RPCError):
    """The URL is longer than this server reads."""

    code = "PAYLOAD_TOO_LARGE"
