"""The error envelope of `/rpc`: `{"error": {"code", "message", "details", "path", "request_id"}}`.

A success has no envelope: the body is the procedure's output, as OpenAPI declares it.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field, ValidationError

from reactive_rpc.errors import RPCError, WireError, rpc_error
from reactive_rpc.protocol.codes import CODES

__all__ = ["ErrorBody", "ErrorEnvelope", "decode_error", "encode_error", "http_status"]


class ErrorBody(BaseModel):
    """An error."""

    code: str = Field(description="Stable, for programs: a key of the code table, NOT_FOUND for example.")
    message: str = Field(description="One sentence for people.")
    details: Any = Field(default=None, description="For programs: the faults of an input, for example.")
    path: str | None = Field(default=None, description="The procedure that was called.")
    request_id: str | None = Field(default=None, description="Finds the request in the server's logs.")


class ErrorEnvelope(BaseModel):
    """Every answer that is no success."""

    error: ErrorBody


def encode_error(error: RPCError) -> bytes:
    """Return the envelope of `error` as JSON; a detail that JSON cannot hold is named by its type."""
    body = ErrorBody(
        code=error.code,
        message=error.message,
        details=error.details,
        path=error.path,
        request_id=error.request_id,
    )
    return ErrorEnvelope(error=body).model_dump_json(fallback=lambda value: f"<{type(value).__name__}>").encode()


def decode_error(body: bytes) -> RPCError:
    """Return the error that an envelope tells, as an instance of its class.

    Raises:
        WireError: the body is no envelope (a proxy's own page, for example).
    """
    try:
        error = ErrorEnvelope.model_validate_json(body).error
    except ValidationError as exc:
        start = body[:200].decode(errors="replace")
        raise WireError(f"the server's error is no reactive_rpc envelope: {start!r}") from exc
    return rpc_error(error.code, error.message, details=error.details, path=error.path, request_id=error.request_id)


def http_status(error: RPCError) -> int:
    """Return the HTTP status of an error; 500 for a code of the application's own."""
    code = CODES.get(error.code)
    return code.http if code else 500
