"""The dispatcher: serves procedure calls without FastAPI's route machinery on the way.

FastAPI's routes declare the OpenAPI document and say what a call depends on; the calls themselves take the short way:
one look-up by path, the dependencies if there are any, the input, the reader, and bytes that were encoded once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from urllib.parse import parse_qsl

from fastapi.dependencies.models import Dependant
from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive, Scope, Send

from reactive_rpc.cache.entry import Entry
from reactive_rpc.clock import IdSource
from reactive_rpc.errors import BadRequestError, MethodNotSupportedError
from reactive_rpc.rpc.call import decode_json_input, decode_text_input
from reactive_rpc.rpc.caller import Caller
from reactive_rpc.rpc.canonical import is_pure
from reactive_rpc.rpc.procedure import Procedure
from reactive_rpc.web.body import read_json_body, replay
from reactive_rpc.web.dependencies import resolved
from reactive_rpc.web.flat import is_flat
from reactive_rpc.web.responses import error_of, send_bytes, send_error

__all__ = ["Endpoint", "ProcedureEndpoint", "methods_of", "parameters_of"]

MAX_QUERY_STRING_BYTES = 16 * 1024

MAX_SEEN = 1024
"""How many texts of inputs one procedure remembers with their canonical form; all are forgotten past it."""

MAX_SEEN_BYTES = 1024
"""The longest text that is remembered."""


def methods_of(procedure: Procedure[..., object]) -> tuple[str, ...]:
    """Return the HTTP methods of a procedure, the documented one first.

    >>> from reactive_rpc.rpc.procedure import define_reactive_function
    >>> def ping() -> str: ...
    >>> methods_of(define_reactive_function(ping))
    ('GET', 'POST')
    """
    if procedure.kind == "mutation":
        return ("POST",)
    return ("GET", "POST") if is_flat(procedure.handler.input_model) else ("POST",)


class Endpoint(ABC):
    """What serves one path. Errors become envelopes here, and nowhere else."""

    def __init__(self, path: str, ids: IdSource) -> None:
        self.path = path
        self._ids = ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send, dependencies: list[Dependant]) -> None:
        """Serve one request; `dependencies` are what FastAPI says it depends on."""
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.serve(scope, receive, send_and_note, dependencies)
        except ClientDisconnect:
            return
        except Exception as exc:
            error = error_of(exc, self.path, self._ids)
            if started:
                raise
            await send_error(send, error)

    @abstractmethod
    async def serve(self, scope: Scope, receive: Receive, send: Send, dependencies: list[Dependant]) -> None:
        """Serve one request; raise what goes wrong."""

    def require_method(self, scope: Scope, methods: tuple[str, ...]) -> None:
        """Let only `methods` through.

        Raises:
            MethodNotSupportedError: the request's is another.
        """
        if scope["method"] not in methods:
            raise MethodNotSupportedError(
                f"{scope['method']} does not call {self.path}: use {' or '.join(methods)}",
                headers={"allow": ", ".join(methods)},
            )


class ProcedureEndpoint(Endpoint):
    """Serves one procedure: GET and POST for a query, POST for a mutation."""

    def __init__(
        self, path: str, procedure: Procedure[..., object], caller: Caller, ids: IdSource, *, max_body_bytes: int
    ) -> None:
        super().__init__(path, ids)
        self._procedure = procedure
        self._caller = caller
        self._max_body_bytes = max_body_bytes
        self._methods = methods_of(procedure)
        self._is_pure = is_pure(procedure.handler.input_model)
        self._seen: dict[tuple[bool, bytes], bytes] = {}

    async def serve(self, scope: Scope, receive: Receive, send: Send, dependencies: list[Dependant]) -> None:
        """Resolve the context, decode the input, call, send."""
        self.require_method(scope, self._methods)
        text: bytes = scope["query_string"]
        if scope["method"] == "POST":
            text = await read_json_body(scope, receive, max_bytes=self._max_body_bytes)
        if not dependencies:
            await self._call(scope, text, send, None)
            return
        async with resolved(Request(scope, replay(text)), dependencies) as found:
            await self._call(scope, text, found.sending(send), found.context)
        await found.finish()

    async def _call(self, scope: Scope, text: bytes, send: Send, ctx: object) -> None:
        if self._procedure.kind == "mutation":
            input = decode_json_input(self.path, self._procedure, text)
            body = await self._caller.mutate(self.path, self._procedure, input, ctx)
            await send_bytes(send, 200, body, [(b"content-type", b"application/json"), (b"cache-control", b"no-store")])
            return
        entry = await self._entry(text, ctx, by_post=scope["method"] == "POST")
        await _send_entry(scope, send, entry, entry.computed.answer())

    async def _entry(self, text: bytes, ctx: object, *, by_post: bool) -> Entry:
        """Return the entry of a query: by the input's text alone where that has been seen before and is stored."""
        seen = self._seen.get((by_post, text))
        if seen is not None:
            entry = await self._caller.cached(self.path, self._procedure, seen, ctx)
            if entry is not None:
                return entry
        decode = decode_json_input if by_post else _decode_query_string
        call = self._caller.bind(self.path, self._procedure, decode(self.path, self._procedure, text), ctx)
        if self._is_pure and len(text) <= MAX_SEEN_BYTES:
            if len(self._seen) >= MAX_SEEN:
                self._seen.clear()
            self._seen[by_post, text] = call.key[1]
        return await self._caller.get(call)


def _decode_query_string(path: str, procedure: Procedure[..., object], query_string: bytes) -> BaseModel | None:
    return decode_text_input(path, procedure, parameters_of(query_string))


def parameters_of(query_string: bytes) -> dict[str, str]:
    """Return the parameters of a query string.

    Raises:
        BadRequestError: it is malformed, too long, or gives a parameter twice.
    """
    if not query_string:
        return {}
    if len(query_string) > MAX_QUERY_STRING_BYTES:
        raise BadRequestError(f"the query string is over {MAX_QUERY_STRING_BYTES} bytes: send the input by POST")
    try:
        pairs = parse_qsl(query_string.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict")
    except ValueError as exc:
        raise BadRequestError("the query string is malformed: percent-encode it as UTF-8") from exc
    parameters = dict(pairs)
    if len(parameters) < len(pairs):
        raise BadRequestError("a parameter is given twice")
    return parameters


async def _send_entry(scope: Scope, send: Send, entry: Entry, body: bytes) -> None:
    etag = entry.etag.encode()
    headers = [(b"etag", etag), (b"cache-control", b"private, no-cache")]
    for name, value in scope["headers"]:
        if name == b"if-none-match" and etag in [tag.strip().removeprefix(b"W/") for tag in value.split(b",")]:
            await send_bytes(send, 304, b"", headers)
            return
    await send_bytes(send, 200, body, [(b"content-type", b"application/json"), *headers])
