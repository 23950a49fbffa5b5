"""The outcome of a path operation as it is stored: an answer of HTTP, or the HTTPException in its place."""

from __future__ import annotations

from contextlib import suppress
from copy import copy, deepcopy
from dataclasses import dataclass
from http import HTTPStatus

import orjson
from starlette.exceptions import HTTPException
from starlette.responses import Response

from reactive_rpc.errors import InternalServerError, RPCError
from reactive_rpc.protocol.codes import code_for_status

__all__ = ["HTTPOutcomeError", "PassedOnError", "StoredAnswer"]


class HTTPOutcomeError(RPCError):
    """The HTTPException that an endpoint has raised, kept as an outcome.

    Args:
        exception: as it was raised.
    """

    def __init__(self, exception: HTTPException) -> None:
        self.exception = _detached(exception)
        detail, status = exception.detail, exception.status_code
        message = detail if isinstance(detail, str) else f"status {status}"
        code = code_for_status(status) if status >= HTTPStatus.BAD_REQUEST else "PRECONDITION_FAILED"
        # INVARIANT (all that a client can be told is in the ETag): else a stream takes another redirect for the same.
        details = orjson.dumps(vars(exception), default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
        super().__init__(message, code=code, details=details)

    def again(self, headers: dict[str, str]) -> HTTPException:
        """Return the exception, to be raised once more, with further headers."""
        again = _detached(self.exception)
        own = again.headers or {}
        names = {name.lower() for name in own}
        again.headers = {**{name: value for name, value in headers.items() if name not in names}, **own}
        return again


class PassedOnError(Exception):
    """The HTTPException of a server that has failed: raised for whoever waits for the result, and not kept.

    Args:
        exception: as the endpoint raised it.
    """

    def __init__(self, exception: HTTPException) -> None:
        super().__init__(exception.detail)
        self._exception = exception

    def again(self) -> HTTPException:
        """Return a copy of the exception: several requests may wait for one result."""
        return _detached(self._exception)


def _detached(exception: HTTPException) -> HTTPException:
    """Return a copy of the same class, for which the application may have a handler, without the traceback."""
    again = type(exception).__new__(type(exception), *exception.args)
    again.__dict__.update(exception.__dict__)
    with suppress(Exception):  # what cannot be copied is shared
        again.detail = deepcopy(exception.detail)
    again.headers = None if exception.headers is None else dict(copy(exception.headers))
    return again


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """An answer as its route made it.

    Attributes:
        status: of HTTP.
        headers: without the content length.
        body: the bytes as they go out.
        is_own: whether the endpoint itself made it, and no dependency adds to it.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    is_own: bool

    @classmethod
    def of(cls, response: Response, name: str, *, is_own: bool) -> StoredAnswer:
        """Return a response as it is stored.

        Raises:
            InternalServerError: it cannot be stored; the message says why and the way out.
        """
        body = getattr(response, "body", None)
        if not isinstance(body, bytes | memoryview) or type(response).__call__ is not Response.__call__:
            raise InternalServerError(
                f"{name} returned a {type(response).__name__}, which is streamed and cannot be stored: return data or "
                "a Response with a body, or leave @reactive out"
            )
        headers = [(key.decode("latin-1"), value.decode("latin-1")) for key, value in response.raw_headers]
        if any(key == "set-cookie" for key, _ in headers):
            raise InternalServerError(
                f"{name} returned a response that sets a cookie, and others are given it too: set cookies in a "
                "dependency, which runs for each request"
            )
        if response.background is not None:
            raise InternalServerError(
                f"{name} returned a response with a background task, and a stored answer runs nothing: add the task in "
                "a dependency, which runs for each request"
            )
        kept = tuple(header for header in headers if header[0] != "content-length")
        return cls(response.status_code, kept, bytes(body), is_own)

    @property
    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers as ASGI has them."""
        return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self.headers]

    def encode(self) -> bytes:
        """Return a line of JSON, and the body after it."""
        return b"%b\n%b" % (orjson.dumps([self.status, self.headers, self.is_own]), self.body)

    @classmethod
    def decode(cls, stored: bytes) -> StoredAnswer:
        """Return the answer that `encode` has encoded."""
        head, _, body = stored.partition(b"\n")
        status, headers, is_own = orjson.loads(head)
        return cls(status, tuple((key, value) for key, value in headers), body, is_own)
