"""Answers as ASGI messages: bytes that were encoded once, and errors as envelopes."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Final

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response
from starlette.types import Message, Receive, Scope, Send

from reactive_rpc.clock import IdSource
from reactive_rpc.errors import BadRequestError, InternalServerError, RPCError, reason_of, rpc_error
from reactive_rpc.protocol.codes import code_for_status
from reactive_rpc.protocol.envelopes import encode_error, http_status
from reactive_rpc.protocol.faults import faults_of
from reactive_rpc.statements.concealment import concealed

__all__ = ["JSON", "REVALIDATE", "Answer", "Headers", "ResponseAnswer", "error_answer", "error_of", "rpc_error_of"]

logger = logging.getLogger(__name__)

Headers = Sequence[tuple[bytes, bytes]]

JSON: Final = (b"content-type", b"application/json")
REVALIDATE: Final = (b"cache-control", b"private, no-cache")
"""Of a result that is kept by its client, who asks each time whether it is still right."""

_WITHOUT_BODY: Final = frozenset({int(HTTPStatus.NO_CONTENT), int(HTTPStatus.NOT_MODIFIED)})


class Answer:
    """A whole answer, ready to be sent.

    Args:
        status: of HTTP.
        body: the bytes as they go out.
        headers: without the content length, which is added where the status allows a body.

    Attributes:
        background: work for after it is sent, in order.
    """

    __slots__ = ("background", "body", "headers", "status")

    def __init__(self, status: int, body: bytes, headers: Headers) -> None:
        self.status = status
        self.body = body
        self.headers = [*headers]  # a copy: a middleware may change the list that it is sent
        self.background: list[Callable[[], Awaitable[None]]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        if self.status not in _WITHOUT_BODY:
            self.headers.append((b"content-length", b"%d" % len(self.body)))
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body})


class ResponseAnswer(Answer):
    """A response that a handler has returned, ready to be sent.

    Args:
        response: also one that is sent in parts, or by parts (`Range`).
        beside: the answer that it takes the place of; of its headers those are added that the response does not say.
        fault: makes the error of what fails before anything is sent: a file that is not there.
    """

    __slots__ = ("_fault", "_response")

    def __init__(self, response: Response, beside: Answer, *, fault: Callable[[Exception], RPCError]) -> None:
        said = {name for name, _ in response.raw_headers} - {b"set-cookie"} | {b"content-type"}
        super().__init__(response.status_code, b"", [each for each in beside.headers if each[0] not in said])
        self.background = beside.background
        self._response = response
        self._fault = fault

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, or the error that came before its start; to HEAD without its body."""
        is_started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal is_started
            if message["type"] == "http.response.start":
                is_started = True
                message = {**message, "headers": [*message["headers"], *self.headers]}
            await send(message)

        try:
            if scope["method"] == "HEAD" and not isinstance(self._response, FileResponse):  # which knows what to do
                await self._send_head(send_with_headers)
            else:
                await self._response(scope, receive, send_with_headers)
        except Exception as exc:
            if is_started:
                raise
            await error_answer(self._fault(exc))(scope, receive, send)

    async def _send_head(self, send: Send) -> None:
        response = self._response
        start = {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
        await send(start)
        await send({"type": "http.response.body", "body": b""})
        if response.background is not None:
            await response.background()


def error_answer(error: RPCError) -> Answer:
    """Return an error as its envelope, with the status of its code."""
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in error.headers.items()]
    headers += [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    if error.code == "SERVICE_UNAVAILABLE" and b"retry-after" not in dict(headers):
        headers.append((b"retry-after", b"1"))
    return Answer(http_status(error), encode_error(error), headers)


def rpc_error_of(exc: Exception) -> RPCError | None:
    """Return an `HTTPException` as an `RPCError`; None for any other exception."""
    if not isinstance(exc, HTTPException):
        return None
    message = exc.detail if isinstance(exc.detail, str) else HTTPStatus(exc.status_code).phrase
    details = None if isinstance(exc.detail, str) else exc.detail
    error = rpc_error(code_for_status(exc.status_code), message, details=details)
    error.headers = dict(exc.headers or {})
    return error


def error_of(exc: Exception, path: str, ids: IdSource) -> RPCError:
    """Return what a caller is told of `exc`: an `RPCError` as it is, FastAPI's own translated, the rest nothing.

    What nobody raised on purpose is logged under a fresh request id, without values (`statements/concealment.py`), and
    the caller gets the id alone. What an outage does to every call takes a line of the log each.
    """
    if isinstance(exc, RPCError):
        error = exc.detached(path=path)
    elif (translated := rpc_error_of(exc)) is not None:
        error = translated.detached(path=path)
    elif isinstance(exc, RequestValidationError):
        faults = faults_of(exc.errors())
        error = BadRequestError("the request does not fit what its context asks for", details=faults, path=path)
    else:
        error = InternalServerError("something went wrong on the server; it is logged under this request id", path=path)
    error.request_id = ids.new_id()
    if error.code == "SERVICE_UNAVAILABLE":
        logger.warning("%s failed, request %s: %s", path, error.request_id, reason_of(exc))
    elif http_status(error) >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("%s failed, request %s", path, error.request_id, exc_info=concealed(exc))
    return error
