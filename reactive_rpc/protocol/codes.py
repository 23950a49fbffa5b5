"""One table of error codes: key, JSON-RPC number, HTTP status.

Source: tRPC v11, `packages/server/src/unstable-core-do-not-import/rpc/codes.ts` and `http/getHTTPStatusCode.ts`.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["CODES", "Code", "code_for_status"]


class Code(NamedTuple):
    """The two numbers of an error code."""

    json_rpc: int
    http: int


CODES: dict[str, Code] = {
    "PARSE_ERROR": Code(-32700, 400),
    "BAD_REQUEST": Code(-32600, 400),
    "INTERNAL_SERVER_ERROR": Code(-32603, 500),
    "NOT_IMPLEMENTED": Code(-32603, 501),
    "BAD_GATEWAY": Code(-32603, 502),
    "SERVICE_UNAVAILABLE": Code(-32603, 503),
    "GATEWAY_TIMEOUT": Code(-32603, 504),
    "UNAUTHORIZED": Code(-32001, 401),
    "PAYMENT_REQUIRED": Code(-32002, 402),
    "FORBIDDEN": Code(-32003, 403),
    "NOT_FOUND": Code(-32004, 404),
    "METHOD_NOT_SUPPORTED": Code(-32005, 405),
    "TIMEOUT": Code(-32008, 408),
    "CONFLICT": Code(-32009, 409),
    "PRECONDITION_FAILED": Code(-32012, 412),
    "PAYLOAD_TOO_LARGE": Code(-32013, 413),
    "UNSUPPORTED_MEDIA_TYPE": Code(-32015, 415),
    "UNPROCESSABLE_CONTENT": Code(-32022, 422),
    "PRECONDITION_REQUIRED": Code(-32028, 428),
    "TOO_MANY_REQUESTS": Code(-32029, 429),
    "CLIENT_CLOSED_REQUEST": Code(-32099, 499),
}

_BY_STATUS = {code.http: key for key, code in reversed(CODES.items())}


def code_for_status(status: int) -> str:
    """Return the code of an HTTP status; the nearest general one if the table has none.

    >>> code_for_status(404), code_for_status(418), code_for_status(599)
    ('NOT_FOUND', 'BAD_REQUEST', 'INTERNAL_SERVER_ERROR')
    """
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return "BAD_REQUEST" if 400 <= status < 500 else "INTERNAL_SERVER_ERROR"
