"""One call of a request: which procedure it asks for, by which method it may be, and how it ended, as an envelope.

Each call goes to the endpoint that serves `/rpc` too, with its own context, as if it had come alone: so the cache,
steps, wrappers, limits and idempotency are the same, whichever wire a call comes by.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from fastapi.dependencies.models import Dependant
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from reactive_rpc.clock import IdSource
from reactive_rpc.errors import (
    BadRequestError,
    MethodNotSupportedError,
    NotFoundError,
    ParseError,
    RPCError,
    UnsupportedMediaTypeError,
)
from reactive_rpc.procedures.options import ProcedureKind
from reactive_rpc.procedures.procedure import AnyProcedure
from reactive_rpc.web.routing.dispatcher import CallRequest, Endpoint, ProcedureEndpoint
from reactive_rpc.web.routing.responses import Answer, Headers, error_of
from reactive_rpc.web.routing.uploads import Upload, UploadEndpoint
from reactive_rpc.web.trpc.envelopes import shape_of, status_of
from reactive_rpc.web.trpc.marks import ResultMarks
from reactive_rpc.web.trpc.transformers import Transformer

__all__ = [
    "METHODS",
    "OVERRIDDEN_METHODS",
    "Callee",
    "Ended",
    "TRPCCall",
    "end_of",
    "ended_by",
    "given_input",
]

METHODS: Final[Mapping[ProcedureKind, tuple[str, ...]]] = {
    "mutation": ("POST",),
    "query": ("GET",),
    "subscription": ("GET",),
}
_OF_PLAIN_RESULTS: Final = (b"etag", b"cache-control")
"""Headers that would have caches keep a result that is told with marks."""

_NO_MARKS: Final = ResultMarks()

OVERRIDDEN_METHODS: Final[Mapping[ProcedureKind, tuple[str, ...]]] = {
    "mutation": ("POST",),
    "query": ("GET", "POST"),
    "subscription": ("GET", "POST"),
}
"""With `allow_method_override`; a mutation is never made by GET, which any page of any site may have a browser send."""


@dataclass(frozen=True, slots=True)
class Callee:
    """A procedure, as it is served.

    Attributes:
        procedure: None of the stream of invalidations, which is called like a subscription.
        endpoint: that of `/rpc`.
        context: the dependency that makes its context.
    """

    path: str
    procedure: AnyProcedure | None
    endpoint: Endpoint
    context: tuple[Dependant, ...]

    @property
    def kind(self) -> ProcedureKind:
        """Of the procedure."""
        return "subscription" if self.procedure is None else self.procedure.kind

    def require_method(self, method: str, methods: Mapping[ProcedureKind, tuple[str, ...]]) -> None:
        """Let only the methods of its kind through.

        Raises:
            MethodNotSupportedError: it is another.
        """
        kind = self.kind
        if method not in methods[kind]:
            raise MethodNotSupportedError(
                f'Unsupported {method}-request to {kind} procedure at path "{self.path}"',
                headers={"allow": ", ".join(methods[kind])},
            )


@dataclass(frozen=True, slots=True)
class TRPCCall:
    """One call of a request.

    Attributes:
        callee: None if there is no such procedure.
        text: its input as JSON; empty if it gives none.
        fault: why there is no telling the input, of a batch.
        scope: of the request, for this call alone: dependencies leave things in it.
        dependencies: all that it depends on before its handler.
        is_alone: whether the request is a single call and not a batch.
        is_from_server: see `CallRequest`.
        transformer: of the mount.
        marks: how much is told of its result, beside it.
    """

    path: str
    callee: Callee | None
    text: bytes
    fault: BadRequestError | None
    scope: Scope
    dependencies: list[Dependant]
    is_alone: bool
    is_from_server: bool
    transformer: Transformer
    marks: ResultMarks

    def found(self) -> Callee:
        """Return its procedure.

        Raises:
            NotFoundError: there is none.
        """
        if self.callee is None:
            raise NotFoundError(f'No procedure found on path "{self.path[:200]}"')
        return self.callee

    def input_text(self) -> bytes:
        """Return the input as our JSON.

        Raises:
            BadRequestError: there is no telling it, and the procedure takes one.
        """
        procedure = self.found().procedure
        if self.fault is not None and (procedure is None or procedure.input is not None):
            raise self.fault
        return given_input(procedure, self.transformer, self.text)

    async def answer(self) -> Answer:
        """Make the call, of a procedure that answers with one result.

        Raises:
            Exception: whatever goes wrong.
        """
        callee = self.found()
        _require_one_result(callee)
        endpoint = callee.endpoint
        if not isinstance(endpoint, ProcedureEndpoint) or isinstance(endpoint, UploadEndpoint):
            raise UnsupportedMediaTypeError(
                f"{self.path} takes files: send a FormData with the files and, as JSON in one part called 'input', the "
                "other inputs"
            )
        is_conditional = self.is_alone and not self.marks.is_asked_for and self.scope["method"] == "GET"
        request = CallRequest(self.scope, self.input_text(), True, is_conditional, self.is_from_server)
        return await endpoint.call(request, self.dependencies)

    async def answer_with_files(self, receive: Receive, opened: Callable[[Upload], object]) -> Answer:
        """Make the call, of a mutation that takes a form.

        Args:
            opened: is given the upload, which is to be closed once the answer is sent and its work is done.

        Raises:
            Exception: whatever goes wrong.
        """
        endpoint = self.found().endpoint
        if not isinstance(endpoint, UploadEndpoint):
            raise UnsupportedMediaTypeError(f"{self.path} takes no files: send its input as application/json")
        return await endpoint.call_with_files(self.scope, receive, self.dependencies, opened=opened)


@dataclass(slots=True)
class Ended:
    """How a call ended.

    Attributes:
        data: its result as JSON; nothing if the client has it already, or if it failed.
        marks: what the client is told beside the data, as members of an object of JSON; nothing if it has not asked.
        shape: of its error; nothing if there is none.
        path: of its procedure; empty if there is none.
        background: work for after the answer is sent.
    """

    data: bytes
    marks: bytes
    shape: bytes
    path: str
    status: int
    headers: Headers
    background: Sequence[Callable[[], Awaitable[None]]] = field(default_factory=list)

    def envelope(self, transformer: Transformer) -> bytes:
        """Return the end as an answer spells it."""
        if self.shape:
            return b'{"error":%b}' % transformer.value(self.shape)
        if self.marks:
            before, after, at = self._marked()
            value = transformer.enclosed(before, self.data, after, path=self.path, at=at)
            return b'{"result":{"data":%b}}' % value
        return b'{"result":{"data":%b}}' % transformer.value(self.data, self.path) if self.data else b""

    def line(self, number: int, transformer: Transformer) -> bytes:
        """Return the end as a line of a batch that is streamed spells it, in which the call has a number."""
        if self.shape:
            return transformer.line(b'[%d,0,[[{"error":' % number, self.shape, b"}]]]")
        before, after, at = self._marked()
        return transformer.line(
            b'[%d,0,[[{"result":{"data":%b' % (number, before), self.data, b"%b}}]]]" % after,
            path=self.path, at=".".join(filter(None, ("2.0.0.result.data", at))),
        )  # fmt: skip

    def _marked(self) -> tuple[bytes, bytes, str]:
        """Return the JSON around the data, and the place of the data in it."""
        if not self.marks:
            return b"", b"", ""
        return (b'{"d":', b",%b}" % self.marks, "d") if self.data else (b"{%b" % self.marks, b"}", "")


async def end_of(call: TRPCCall, ids: IdSource, *, by: Callable[[], Awaitable[Answer]] | None = None) -> Ended:
    """Make a call, and return how it ended, well or not.

    Args:
        by: makes it; left out, `call.answer`.

    Raises:
        ClientDisconnect: the client went away before all of its request was there.
    """
    try:
        answer = await (by or call.answer)()
    except ClientDisconnect:
        raise
    except Exception as exc:
        return ended_by(exc, call.path if call.callee is not None else "", ids, marks=call.marks)
    if answer.status == HTTPStatus.NOT_MODIFIED:
        return Ended(b"", b"", b"", call.path, answer.status, answer.headers, answer.background)
    if not call.marks.is_asked_for:
        return Ended(answer.body, b"", b"", call.path, HTTPStatus.OK, answer.headers, answer.background)
    is_transformed = not call.transformer.is_plain
    data, marks = call.marks.of(answer.body, answer.headers, is_transformed=is_transformed)
    headers = [each for each in answer.headers if each[0] not in _OF_PLAIN_RESULTS]
    return Ended(data, marks, b"", call.path, HTTPStatus.OK, headers, answer.background)


def ended_by(exc: Exception, path: str, ids: IdSource, *, marks: ResultMarks = _NO_MARKS) -> Ended:
    """Return the end of a call that failed; its path is empty if there is no such procedure.

    An input that is no JSON is told as a bad request, as by the reference server: the request itself was read.
    """
    error = error_of(exc, path, ids)
    if isinstance(exc, ParseError):
        error.code = BadRequestError.code
    headers = error_headers(error)
    shape = shape_of(error, marks.of_error(headers))
    return Ended(b"", b"", shape, path, status_of(error), headers)


def error_headers(error: RPCError) -> Headers:
    """Return the headers of an error's answer."""
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in error.headers.items()]
    if error.code == "SERVICE_UNAVAILABLE" and b"retry-after" not in dict(headers):
        headers.append((b"retry-after", b"1"))
    return headers


def given_input(procedure: AnyProcedure | None, transformer: Transformer, text: bytes) -> bytes:
    """Return an input as our JSON; nothing if the procedure takes none, or where it is null, by which JSON says none.

    Args:
        procedure: None of the stream of invalidations, which takes one.
        text: as it was sent.

    Raises:
        BadRequestError: it is none that the client's transformer has written.
    """
    if procedure is not None and procedure.input is None:
        return b""
    given = transformer.read(text)
    return b"" if given.strip() == b"null" else given


def _require_one_result(callee: Callee) -> None:
    """Let only a procedure through whose result is one value of JSON.

    Raises:
        BadRequestError: it is a subscription.
        UnsupportedMediaTypeError: it is any other.
    """
    procedure = callee.procedure
    if procedure is None or procedure.kind == "subscription":
        raise BadRequestError("Cannot batch subscription calls")
    if procedure.is_streamed:
        raise UnsupportedMediaTypeError(
            "Cannot use stream-like response in non-streaming request - use httpBatchStreamLink"
        )
    if procedure.response_class is not None:
        raise UnsupportedMediaTypeError(
            f"{callee.path} answers a {procedure.response_class.__name__}, which no link of tRPC's reads: fetch it "
            "from the path under which the procedures are served without tRPC"
        )
