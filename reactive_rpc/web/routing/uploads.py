"""Serving mutations that take files: `multipart/form-data`, files beside one JSON part `input`, or one file alone.

Who calls is asked before the body is read, so that a stranger fills no disk, and what that held is let go of; only a
dependency that reads the body itself has it read before, and is given the JSON part as the body. Files are closed, and
a place for another upload is free, once the answer is sent and the work for after the commit is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from fastapi.dependencies.models import Dependant
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive, Scope, Send

from reactive_rpc.clock import IdSource
from reactive_rpc.errors import ForbiddenError, RequestTimeoutError, RPCError, UnsupportedMediaTypeError
from reactive_rpc.procedures.calls import Calls
from reactive_rpc.procedures.declared_errors import DeclaredError
from reactive_rpc.procedures.exchange import Exchange
from reactive_rpc.procedures.procedure import AnyProcedure
from reactive_rpc.procedures.uploads import CallFiles, FileParameter
from reactive_rpc.protocol.headers import CURSOR, IDEMPOTENCY_KEY
from reactive_rpc.settings import RequestSettings
from reactive_rpc.subscriptions.limits import Places
from reactive_rpc.web.routing.body import BodyLimits
from reactive_rpc.web.routing.callers import caller_of, origin_of
from reactive_rpc.web.routing.dependencies import Resolved, resolved
from reactive_rpc.web.routing.dispatcher import ProcedureEndpoint
from reactive_rpc.web.routing.file_body import OCTETS, FileBody, sole_file
from reactive_rpc.web.routing.multipart import MultipartBody, too_large
from reactive_rpc.web.routing.responses import Answer

__all__ = ["Upload", "UploadEndpoint", "upload_places"]


class Upload:
    """The body of one request, which is read when somebody first asks for it.

    Raises:
        UnsupportedMediaTypeError: it is declared to be neither multipart nor one file for a mutation that takes one.
        PayloadTooLargeError: it is declared to be too large.
        ParseError: it has no boundary.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        parameters: Sequence[FileParameter],
        *,
        limits: BodyLimits,
        places: Places,
    ) -> None:
        headers = dict(scope["headers"])
        content_type: bytes = headers.get(b"content-type", b"")
        media_type = content_type.split(b";")[0].strip().lower().decode("latin-1")
        sole = sole_file(parameters) if media_type == OCTETS else None
        if sole is None and media_type != "multipart/form-data":
            found = f"the content type is {content_type.decode('latin-1')!r}" if content_type else "no content type"
            raise UnsupportedMediaTypeError(
                f"{found}: send the files as multipart/form-data, and the other inputs beside them as JSON, in one "
                "part called 'input'",
                headers=_CLOSE,
            )
        declared = headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > limits.uploads.max_bytes:
            raise too_large(limits.uploads.max_bytes)
        self._receive = receive
        self._seconds = limits.uploads.seconds
        is_digested = IDEMPOTENCY_KEY.encode() in headers
        self._body: MultipartBody | FileBody = (
            MultipartBody(content_type, parameters, limits, is_digested=is_digested)
            if sole is None
            else FileBody(sole, limits, is_digested=is_digested)
        )
        self._is_read = False
        self._places = places
        self._scope = scope
        self._release: Callable[[], None] | None = None

    def take_place(self, ctx: object) -> None:
        """Take one of the places for uploads, if that was not done before.

        Args:
            ctx: says who calls; None if nobody has asked yet: then the address counts.

        Raises:
            ServiceUnavailableError: this worker takes as many as it may.
            TooManyRequestsError: the caller sends as many as it may.
        """
        if self._release is None:
            try:
                self._release = self._places.take(caller_of(self._scope, ctx))
            except RPCError as error:
                error.headers = {**error.headers, **_CLOSE}
                raise

    async def read(self) -> MultipartBody | FileBody:
        """Return the whole body.

        Raises:
            RPCError: it is too large, broken, or not here in time.
            ClientDisconnect: the client went away before the end.
        """
        if self._is_read:
            return self._body
        self.take_place(None)  # a dependency may be the first to read, before anybody knows who calls
        try:
            async with asyncio.timeout(self._seconds):
                await self._read()
        except TimeoutError:
            raise RequestTimeoutError(
                f"the body has not arrived within {self._seconds:g} s (upload_seconds): send it faster, or less of it",
                headers=_CLOSE,
            ) from None
        self._is_read = True
        return self._body

    async def _read(self) -> None:
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            await self._body.take(message.get("body", b""))
            more = message.get("more_body", False)
        self._body.finish()

    async def receive_input(self) -> Message:
        """Give the JSON part as the body of the request, to a dependency that wants to read it."""
        body = await self.read()
        return {"type": "http.request", "body": body.input or b"{}", "more_body": False}

    def close(self) -> None:
        """Close the files, and give the place back."""
        self._body.close()
        if self._release is not None:
            self._release()


class UploadEndpoint(ProcedureEndpoint):
    """Serves one mutation that takes files.

    Args:
        places: for uploads, of all endpoints of the worker.
    """

    def __init__(
        self, path: str, procedure: AnyProcedure, calls: Calls, *, ids: IdSource, body: BodyLimits, places: Places
    ) -> None:
        super().__init__(path, procedure, calls, ids=ids, body=body, by_token=False)
        self._places = places

    async def __call__(self, scope: Scope, receive: Receive, send: Send, dependencies: list[Dependant]) -> None:
        """Serve one request."""
        opened: list[Upload] = []
        try:
            make = partial(self._answer_upload, scope, receive, dependencies, opened=opened.append)
            await self.respond(make, scope, receive=receive, send=send)
        finally:
            for upload in opened:
                upload.close()

    async def _answer_upload(
        self, scope: Scope, receive: Receive, dependencies: list[Dependant], *, opened: Callable[[Upload], object]
    ) -> Answer:
        self.require_method(scope, self._methods)
        return await self.call_with_files(scope, receive, dependencies, opened=opened)

    async def call_with_files(
        self, scope: Scope, receive: Receive, dependencies: list[Dependant], *, opened: Callable[[Upload], object]
    ) -> Answer:
        """Return the answer to a call whose body has not been read.

        Args:
            opened: is given the upload, which is to be closed once the answer is sent and its work is done.

        Raises:
            Exception: whatever goes wrong.
        """
        _require_own_page(scope)
        upload = Upload(scope, receive, self._procedure.handler.files, limits=self._body, places=self._places)
        opened(upload)
        found = await self._found(scope, upload, dependencies)
        upload.take_place(found.context)
        return found.add_to(await self._call_upload(scope, upload, found))

    async def _found(self, scope: Scope, upload: Upload, dependencies: list[Dependant]) -> Resolved:
        # INVARIANT (what the dependencies hold is let go of before the body is read): clients that send slowly would
        # else hold all connections of the application's pool, each for `upload_seconds`.
        try:
            async with resolved(Request(scope, upload.receive_input), dependencies) as found:
                pass
        except DeclaredError as error:
            self._calls.raised.require_declared(self.path, self._procedure.raises, error)
            raise
        return found

    async def _call_upload(self, scope: Scope, upload: Upload, found: Resolved) -> Answer:
        body = await upload.read()
        files = CallFiles(self.path, self._procedure.handler.files, body.files)
        exchange = Exchange(Request(scope, upload.receive_input)) if self._takes_exchange else None
        origin = origin_of(scope, exchange=exchange)
        answer = await self._mutate(scope, body.input, found.context, origin=origin, files=files, digest=body.digest)
        return answer if exchange is None else self.with_exchange(answer, exchange)


def upload_places(settings: RequestSettings) -> Places:
    """Return the places for uploads of one worker."""
    return Places(
        "uploads", settings.max_uploads, settings.max_uploads_per_identity, instead="send one after the other"
    )


_CLOSE: Final = {"connection": "close"}
_OWN = ("same-origin", "none")
_ASKED_FOR = (IDEMPOTENCY_KEY.encode(), CURSOR.encode())
"""Headers that a page of another site cannot send before its browser has asked us (CORS)."""


def _require_own_page(scope: Scope) -> None:
    """Refuse an upload that a page of another site may have made its visitor's browser send.

    JSON needs no such check: a browser asks first (a preflight) whether it may be sent. Of multipart it does not ask.

    Raises:
        ForbiddenError: it comes from such a page, and carries no header of which its browser had to ask.
    """
    headers = dict(scope["headers"])
    if any(name in headers for name in _ASKED_FOR):
        return
    site = headers.get(b"sec-fetch-site", b"").decode("latin-1")
    origin = headers.get(b"origin", b"").decode("latin-1")
    is_own = site in _OWN if site else not origin or urlsplit(origin).netloc == headers.get(b"host", b"").decode()
    if not is_own:
        raise ForbiddenError(
            "this upload comes from a page of another origin, which a browser does not ask us about: let the page send "
            "an Idempotency-Key, and CORS allow that header to its origin",
            headers=_CLOSE,
        )
