"""Asking the application whether the caller of a stream may GET a URL, by one request of ASGI.

Its middlewares, its routing and its dependencies answer, with the credentials of the stream. The endpoint is not run:
it leaves its call in the `Question`, and whatever refuses before it, or answers in its place, leaves none.
docs/internals/endpoints.md argues why that is enough.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

from reactive_rpc.errors import (
    BadRequestError,
    InternalServerError,
    PreconditionFailedError,
    RPCError,
    ServiceUnavailableError,
    rpc_error,
)
from reactive_rpc.procedures.context_isolation import isolated_context
from reactive_rpc.procedures.operation_call import OperationCall
from reactive_rpc.procedures.rights import Rights
from reactive_rpc.protocol.codes import code_for_status
from reactive_rpc.statements.concealment import concealed
from reactive_rpc.tasks import background

__all__ = ["ASKED", "Question", "StateKeeper", "ask"]

logger = logging.getLogger(__name__)

ASKED: Final = "reactive_rpc.asked"
"""The key of a scope under which the endpoint finds that it is asked, and not called."""

_STATE: Final = "reactive_rpc.lifespan_state"
"""The key of a scope under which stands what the application's lifespan has yielded."""

TIMEOUT_SECONDS = 10.0

MAX_REFUSAL_BYTES = 16 * 1024

MAX_URL_CHARACTERS = 8000

MAX_NAMED_CHARACTERS = 200

_AS_SENT: Final = re.compile(r"(?:[!$&-;=?-Z_a-z~\[\]|^`{}]|%[0-9A-Fa-f]{2})+")
"""The characters that a URL may have on the wire from the path on, with those that browsers leave as they are."""

_LEFT_OUT: Final = frozenset({
    b"accept", b"accept-encoding", b"content-encoding", b"content-length", b"content-type", b"expect",
    b"idempotency-key", b"if-match", b"if-none-match", b"last-event-id", b"range", b"transfer-encoding",
})  # fmt: skip
"""The headers that say something of the request for events, and nothing of who makes it."""


@dataclass(slots=True)
class Question:
    """A question to an endpoint, and its answer.

    Attributes:
        by: whose streams watch it.
        rights: takes the outcomes that the answer rests on, watched.
        call: that a GET would make; None until the endpoint is reached.
        refusal: why there is none although the endpoint was reached.
    """

    by: object
    rights: Rights
    call: OperationCall | None = None
    refusal: str = ""


class StateKeeper:
    """The outermost layer of an application: notes `request.state` as it is before a middleware adds to it.

    Args:
        app: the layers below.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if "state" in scope:
            scope[_STATE] = dict(scope["state"])
        await self.app(scope, receive, send)


class _Answer:
    """The answer of the application, as it is sent."""

    def __init__(self, is_reached: Callable[[], bool]) -> None:
        self._is_reached = is_reached
        self.status = 0
        self.location = ""
        self.body = b""
        self.is_foreign = asyncio.Event()

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = {bytes(name).lower(): bytes(value) for name, value in message.get("headers", ())}
            self.location = headers.get(b"location", b"").decode("latin-1")
            if self.status < HTTPStatus.BAD_REQUEST and not self._is_reached():
                self.is_foreign.set()  # it may send for ever
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")
            if len(self.body) > MAX_REFUSAL_BYTES:
                self.is_foreign.set()


async def ask(app: ASGIApp, url: str, *, scope: Scope, question: Question) -> OperationCall:
    """Return the call that a GET of `url` makes, by the caller of a request for events.

    Args:
        url: its path, and its query after a `?`.
        scope: of that request.
        question: takes the answer.

    Raises:
        RPCError: the caller may not GET it, or nobody can watch it.
    """
    _require_plain(url)
    if ASKED in scope:
        raise BadRequestError(f"{url} is watched by a request that asks for a URL itself", path=url)
    answer = _Answer(lambda: question.call is not None or bool(question.refusal))
    failure: BaseException | None = None
    work = _run(app, _scope_of(url, scope, question), answer)
    # INVARIANT (nothing that middlewares have left goes along: their ContextVars, their `state`): a caller whose token
    # has expired since would be taken for who it was when the stream began.
    async with (
        background(work, "asked for a URL", context=isolated_context()) as running,
        background(answer.is_foreign.wait(), "answered") as other,
    ):
        await asyncio.wait({running, other}, timeout=TIMEOUT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        is_done = running.done()
        failure = running.exception() if is_done and not running.cancelled() else None
    if failure is not None and not (HTTPStatus.BAD_REQUEST <= answer.status < HTTPStatus.INTERNAL_SERVER_ERROR):
        if isinstance(failure, RPCError):
            raise failure
        logger.error("%s failed for a stream", url.partition("?")[0], exc_info=concealed(failure))
        raise InternalServerError(path=url) from failure
    if not is_done and not answer.is_foreign.is_set():
        raise ServiceUnavailableError(f"the application has not answered in {TIMEOUT_SECONDS:g} s", path=url)
    # INVARIANT (the answer arrived as the endpoint gave it): a middleware may refuse after the endpoint.
    if question.call is not None and answer.status == HTTPStatus.NO_CONTENT:
        return question.call
    raise _refusal(url, answer, question.refusal)


async def _run(app: ASGIApp, scope: Scope, answer: _Answer) -> None:
    is_read = False

    async def receive() -> Any:
        nonlocal is_read
        if is_read:
            await asyncio.Event().wait()  # the client stays
        is_read = True
        return {"type": "http.request", "body": b"", "more_body": False}

    await app(scope, receive, answer.send)


def _scope_of(url: str, scope: Scope, question: Question) -> Scope:
    """Return the scope of a GET as a server makes it."""
    path, _, query = url.partition("?")
    kept = {
        name: scope[name] for name in ("type", "asgi", "http_version", "scheme", "client", "server") if name in scope
    }
    return {
        **kept,
        "method": "GET",
        "root_path": scope.get("app_root_path", scope.get("root_path", "")),
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name, value) for name, value in scope["headers"] if name not in _LEFT_OUT],
        "extensions": {},
        **({"state": dict(scope[_STATE])} if _STATE in scope else {}),
        ASKED: question,
    }


def _refusal(url: str, answer: _Answer, said: str) -> RPCError:
    status = answer.status
    if status >= HTTPStatus.BAD_REQUEST:
        return rpc_error(code_for_status(status), _detail_of(answer) or HTTPStatus(status).phrase, path=url)
    if answer.location:
        return PreconditionFailedError(f"it is answered by a redirect: watch {answer.location}", path=url)
    said = said or "it is answered by something else than an endpoint with @reactive"
    return PreconditionFailedError(f"it cannot be watched: {said}", path=url)


def _require_plain(url: str) -> None:
    """Hold a URL against what a client would GET.

    Raises:
        BadRequestError: a server would be sent another one, or none of this application; the message says which.
    """
    path = url.partition("?")[0]
    decoded = unquote(path)
    fault = ""
    if len(url) > MAX_URL_CHARACTERS:
        fault = f"it is longer than {MAX_URL_CHARACTERS} characters"
    elif not _AS_SENT.fullmatch(url):
        fault = "it is not spelled as it is sent: percent-encode it, and leave out what follows a #"
    elif path.startswith("//"):
        fault = "it names another host: begin with the path, /api/..."
    elif "\\" in decoded or any(part in (".", "..") for part in decoded.split("/")):
        fault = "clients resolve . and .. and \\ before they send a URL: write the path that is left"
    elif not decoded.isprintable() or "\ufffd" in decoded:
        fault = "its path has characters that no path has"
    if fault:
        raise BadRequestError(f"a URL that cannot be watched: {fault}", path=url[:MAX_NAMED_CHARACTERS])


def _detail_of(answer: _Answer) -> str:
    with suppress(ValueError):
        said = json.loads(answer.body)
        detail = said.get("detail") if isinstance(said, dict) else None
        if isinstance(detail, str):
            return detail
    return ""
