"""The error envelope of `/rpc`: `{"error": {"code", "type", "message", "details", "path", "request_id"}}`.

A success has no envelope: the body is the procedure's output, as OpenAPI declares it.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field, ValidationError

from reactive_rpc.errors import RPCError, WireError, rpc_error
from reactive_rpc.protocol.codes import CODES

__all__ = ["ErrorBody", "ErrorEnvelope", "body_of", "decode_error", "encode_error", "error_of_body", "http_status"]


class ErrorBody(BaseModel):
    """An error."""

    code: str = Field(description="Stable, for programs: a key of the code table, NOT_FOUND for example.")
    type: str | None = Field(default=None, description="The name of a declared error; null of any other.")
    message: str = Field(description="One sentence for people.")
    details: Any = Field(default=None, description="For programs: a declared error's fields, or an input's faults.")
    path: str | None = Field(default=None, description="The procedure that was called.")
    request_id: str | None = Field(default=None, description="Finds the request in the server's logs.")


class ErrorEnvelope(BaseModel):
    """Every answer that is no success."""

    error: ErrorBody


def body_of(error: RPCError) -> ErrorBody:
    """Return what is told of an error."""
    return ErrorBody(
        code=error.code,
        type=error.type,
        message=error.message,
        details=error.details,
        path=error.path,
        request_id=error.request_id,
    )


def error_of_body(body: ErrorBody) -> RPCError:
    """Return the error that is told, as an instance of its code's class."""
    return rpc_error(
        body.code,
        body.message,
        details=body.details,
        type=body.type,
        path=body.path,
        request_id=body.request_id,
    )


def encode_error(error: RPCError) -> bytes:
    """Return the envelope of `error` as JSON; a detail that JSON cannot hold is named by its type."""
    return (
        ErrorEnvelope(error=body_of(error)).model_dump_json(fallback=lambda value: f"<{type(value).__name__}>").encode()
    )


def decode_error(body: bytes) -> RPCError:
    """Return the error that an envelope tells, as an instance of its class.

    Raises:
        WireError: the body is no envelope (a proxy's own page, for example).
    """
    try:
        return error_of_body(ErrorEnvelope.model_validate_json(body).error)
    except ValidationError as exc:
        start = body[:200].decode(errors="replace")
        raise WireError(f"the server's error is no reactive_rpc envelope: {start!r}") from exc


def http_status(error: RPCError) -> int:
    """Return the HTTP status of an error; 500 for a code of the application's own."""
    code = CODES.get(error.code)
    return code.http if code else 500
