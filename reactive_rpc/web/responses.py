"""Answers as ASGI messages: bytes that were encoded once, and errors as envelopes."""

from __future__ import annotations

import logging
from http import HTTPStatus

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import Send

from reactive_rpc.clock import IdSource
from reactive_rpc.errors import BadRequestError, InternalServerError, RPCError, rpc_error
from reactive_rpc.protocol.codes import code_for_status
from reactive_rpc.protocol.envelopes import encode_error, http_status

__all__ = ["error_of", "send_bytes", "send_error"]

logger = logging.getLogger(__name__)

Headers = list[tuple[bytes, bytes]]


async def send_bytes(send: Send, status: int, body: bytes, headers: Headers) -> None:
    """Send a whole answer."""
    if status != HTTPStatus.NOT_MODIFIED:
        headers = [(b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_error(send: Send, error: RPCError) -> None:
    """Send an error as its envelope, with the status of its code."""
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in error.headers.items()]
    headers.append((b"content-type", b"application/json"))
    if error.code == "SERVICE_UNAVAILABLE":
        headers.append((b"retry-after", b"1"))
    await send_bytes(send, http_status(error), encode_error(error), headers)


def error_of(exc: Exception, path: str, ids: IdSource) -> RPCError:
    """Return what a caller is told of `exc`: an `RPCError` as it is, FastAPI's own translated, the rest nothing.

    What nobody raised on purpose is logged in full under a fresh request id, and the caller gets the id alone.
    """
    if isinstance(exc, RPCError):
        error = exc.detached(path=path)
    elif isinstance(exc, HTTPException):
        message = exc.detail if isinstance(exc.detail, str) else HTTPStatus(exc.status_code).phrase
        details = None if isinstance(exc.detail, str) else exc.detail
        error = rpc_error(code_for_status(exc.status_code), message, details=details, path=path)
        error.headers = dict(exc.headers or {})
    elif isinstance(exc, RequestValidationError):
        faults = [{"loc": list(e["loc"]), "message": e["msg"], "type": e["type"]} for e in exc.errors()]
        error = BadRequestError("the request does not fit what its context asks for", details=faults, path=path)
    else:
        error = InternalServerError("something went wrong on the server; it is logged under this request id", path=path)
    error.request_id = ids.new_id()
    if http_status(error) >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("%s failed, request %s", path, error.request_id, exc_info=exc)
    return error
