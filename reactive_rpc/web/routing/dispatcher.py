"""The dispatcher: serves procedure calls without FastAPI's route machinery on the way.

FastAPI's routes declare the OpenAPI document and say what a call depends on; the calls themselves take the short way:
one look-up by path, the dependencies if there are any, the input, the reader, and bytes that were encoded once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple
from urllib.parse import parse_qsl

from fastapi.dependencies.models import Dependant
from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from reactive_rpc.cache.freshness import SYNCED, ByToken, InOutage, Strict, Synced
from reactive_rpc.cache.result import CachedResult, ResultKey
from reactive_rpc.clock import IdSource
from reactive_rpc.errors import (
    BadRequestError,
    MethodNotSupportedError,
    PreconditionFailedError,
    RPCError,
    ServiceUnavailableError,
)
from reactive_rpc.procedures.after_commit import run_after_commit
from reactive_rpc.procedures.call import EncodedInput, decode_json_input, decode_text_input, query_key
from reactive_rpc.procedures.calls import NOBODY, Calls
from reactive_rpc.procedures.canonical import is_pure
from reactive_rpc.procedures.declared_errors import DeclaredError
from reactive_rpc.procedures.exchange import Exchange
from reactive_rpc.procedures.idempotency import claim_of
from reactive_rpc.procedures.procedure import AnyProcedure
from reactive_rpc.procedures.steps import LOCAL, CallOrigin
from reactive_rpc.procedures.uploads import CallFiles
from reactive_rpc.protocol.headers import CURSOR, IDEMPOTENCY_KEY, REPLAYED, SCOPE, STALE, STALE_SECONDS
from reactive_rpc.web.routing.answer_headers import Marks, scope_mark, scope_of
from reactive_rpc.web.routing.body import BodyLimits, read_json_body, replay
from reactive_rpc.web.routing.callers import origin_of
from reactive_rpc.web.routing.conditions import is_held, is_server_request, required_freshness
from reactive_rpc.web.routing.dependencies import CONTEXT, NOTHING_RESOLVED, Resolved, by_plan, resolved
from reactive_rpc.web.routing.dependency_plan import DependencyPlans
from reactive_rpc.web.routing.query_string import fits_query_string
from reactive_rpc.web.routing.responses import (
    JSON,
    REVALIDATE,
    Answer,
    Headers,
    ResponseAnswer,
    error_answer,
    error_of,
)
from reactive_rpc.web.routing.stored_answers import BEGUN, Begun, ReadyAnswer, StoredAnswers

__all__ = ["CallRequest", "Endpoint", "ProcedureEndpoint", "methods_of", "parameters_of"]

MAX_QUERY_STRING_BYTES = 16 * 1024

MAX_SEEN = 1024
"""How many texts of inputs one procedure remembers with their canonical form; all are forgotten past it."""

MAX_SEEN_BYTES = 1024
"""The longest text that is remembered."""


def methods_of(procedure: AnyProcedure) -> tuple[str, ...]:
    """Return the HTTP methods of a procedure, the documented one first.

    >>> from reactive_rpc import define_reactive_function
    >>> async def ping() -> str: ...
    >>> methods_of(define_reactive_function(ping))
    ('GET', 'POST')
    """
    if procedure.kind == "mutation":
        return ("POST",)
    return ("GET", "POST") if fits_query_string(procedure.input) else ("POST",)


class Endpoint(ABC):
    """What serves one path. Errors become envelopes here, and nowhere else.

    Attributes:
        require_open: raises where nothing can be served; set by the router that the endpoint is added to.
    """

    require_open: Callable[[], None]

    def __init__(self, path: str, ids: IdSource) -> None:
        self.path = path
        self._ids = ids

    begins = False
    """Whether its calls by GET may be begun before the layers of the application, see `begin`."""

    def begin(self, scope: Scope, dependencies: list[Dependant]) -> Awaitable[Begun]:
        """Return the answer to a request, if it is stored; else how far its call has come, to be left in its scope."""
        return _nothing()

    async def __call__(self, scope: Scope, receive: Receive, send: Send, dependencies: list[Dependant]) -> None:
        """Serve one request, which may have been begun before; `dependencies` are what FastAPI says it depends on."""
        if self.begins and scope["method"] == "GET" and BEGUN not in scope:
            begun = await self.begin(scope, dependencies)
            if type(begun) is ReadyAnswer:
                await begun(send)
                return
            scope[BEGUN] = begun
        await self.respond(partial(self.answer, scope, receive, dependencies), scope, receive=receive, send=send)

    async def respond(
        self, make: Callable[[], Awaitable[Answer]], scope: Scope, *, receive: Receive, send: Send
    ) -> None:
        """Send the answer that `make` returns, or the error that it raises; then do the work for after it."""
        try:
            self.require_open()
            answer = await make()
        except ClientDisconnect:
            return
        except Exception as exc:
            answer = error_answer(error_of(exc, self.path, self._ids))
        await answer(scope, receive, send)
        for work in answer.background:
            await work()

    @abstractmethod
    async def answer(self, scope: Scope, receive: Receive, dependencies: list[Dependant]) -> Answer:
        """Return the answer to one request; raise what goes wrong."""

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


async def _nothing() -> None:
    """Begin nothing."""


class CallRequest(NamedTuple):
    """One call, as a wire has read it off a request.

    Attributes:
        scope: of the request.
        text: the input.
        is_json: whether that is JSON, or else a query string.
        is_conditional: whether the headers of the request speak of this call's result, as there is no other in it.
        is_from_server: see `is_server_request`; asked in the task that the request came with.
    """

    scope: Scope
    text: bytes
    is_json: bool
    is_conditional: bool
    is_from_server: bool


class ProcedureEndpoint(Endpoint):
    """Serves one procedure: GET and POST for a query, POST for a mutation.

    Args:
        by_token: whether a stored result may be served without reading the log, see `cache/freshness.py`.

    Attributes:
        by_token: the same.
        reader: keeps the results of the procedure, and of all others.
        is_found_by_input: whether its stored results are found by the input alone, see `key_of`.
    """

    def __init__(
        self,
        path: str,
        procedure: AnyProcedure,
        calls: Calls,
        *,
        ids: IdSource,
        body: BodyLimits,
        by_token: bool,
    ) -> None:
        super().__init__(path, ids)
        self._procedure = procedure
        self._calls = calls
        self.reader = calls.reader
        self._body = body
        self._methods = methods_of(procedure)
        if "GET" in self._methods and procedure.response_class is not None:
            self._methods += ("HEAD",)
        self._asks_origin = procedure.asks_origin
        self._has_steps = bool(procedure.calls)
        self._takes_exchange = procedure.plans is not None and not procedure.is_cached
        vary = "" if procedure.plans is None or not procedure.is_cached else procedure.plans.plain.vary
        self._vary = [(b"vary", vary.encode("latin-1"))] if vary else []
        self._is_pure = is_pure(procedure.handler.input_model)
        self.by_token = by_token
        self.is_found_by_input = _is_found_by_input(procedure)
        self._seen: dict[tuple[bool, bytes], EncodedInput] = {}
        self._marks = Marks()
        self._plans = DependencyPlans(context=CONTEXT)
        stored = StoredAnswers(
            calls, path=path, procedure=procedure, seen=self._seen, marks=self._marks, plans=self._plans
        )
        self._stored = stored
        self.begins = stored.is_possible and not by_token and "GET" in self._methods

    def begin(self, scope: Scope, dependencies: list[Dependant]) -> Awaitable[Begun]:
        """Return the answer to a request by GET, if it is stored; else how far its call has come."""
        try:
            self.require_open()
        except Exception:
            return super().begin(scope, dependencies)  # `respond` says so
        return self._stored.begin(scope, dependencies)

    async def answer(self, scope: Scope, receive: Receive, dependencies: list[Dependant]) -> Answer:
        """Resolve the context, decode the input, call."""
        if scope["method"] not in self._methods:  # asked here first, as all but a few pass
            self.require_method(scope, self._methods)
        text: bytes = scope["query_string"]
        is_posted = scope["method"] == "POST"
        if is_posted:
            text = await read_json_body(scope, receive, limits=self._body)
        is_from_server = self._procedure.kind == "query" and is_server_request()
        request = CallRequest(scope, text, is_posted, is_conditional=True, is_from_server=is_from_server)
        return await self.call(request, dependencies, begun=scope.pop(BEGUN, None))

    async def call(
        self, request: CallRequest, dependencies: list[Dependant], *, begun: Resolved | Exception | None = None
    ) -> Answer:
        """Return the answer to a call, by whichever wire it came.

        Args:
            dependencies: all that it depends on before its handler, the context among it.
            begun: how far it has come, see `begin`; None if nothing has been done for it.

        Raises:
            Exception: whatever goes wrong.
        """
        # INVARIANT (every wire comes by here): its caller is let through, counted and served alike by each of them. But
        # for whoever is answered by what is stored, see `stored_answers.py`.
        if begun is None and not dependencies:
            begun = NOTHING_RESOLVED
        try:
            if begun is None:
                begun = await self._planned(request.scope, dependencies)
            if isinstance(begun, Exception):
                raise begun
            if begun is not None:
                return await self._call(request, begun)
            async with resolved(Request(request.scope, replay(request.text)), dependencies) as found:
                return found.add_to(await self._call(request, found))
        except DeclaredError as error:  # a context may refuse, too
            self._calls.raised.require_declared(self.path, self._procedure.raises, error)
            raise

    async def _planned(self, scope: Scope, dependencies: list[Dependant]) -> Resolved | None:
        """Return what the dependencies make, by their plan; None if they have none that fits this request."""
        plan = self._plans.of(dependencies)
        if plan is None or scope["app"].dependency_overrides:
            return None
        values = plan.read(scope)
        return None if values is None else await by_plan(plan, values)

    def _call(self, request: CallRequest, found: Resolved) -> Awaitable[Answer]:
        scope = request.scope
        asked = found.asked
        if self._takes_exchange:
            return self._call_with_exchange(request, found)
        is_asked_for = self._asks_origin or asked is not None or (self._has_steps and self._is_overridden(scope))
        origin = origin_of(scope, asked=asked) if is_asked_for else LOCAL
        return self._call_with(request, found, origin=origin)

    def _is_overridden(self, scope: Scope) -> bool:
        """Tell whether another function may stand in the place of a step: one that asks where a call comes from."""
        return self._calls.is_overridden or bool(getattr(scope.get("app"), "dependency_overrides", None))

    async def _call_with_exchange(self, request: CallRequest, found: Resolved) -> Answer:
        exchange = Exchange(Request(request.scope, replay(request.text)))
        origin = origin_of(request.scope, exchange=exchange, asked=found.asked)
        return self.with_exchange(await self._call_with(request, found, origin=origin), exchange)

    async def _call_with(self, request: CallRequest, found: Resolved, *, origin: CallOrigin) -> Answer:
        text, is_json, ctx = request.text, request.is_json, found.context
        if self._procedure.kind == "mutation":
            return await self._mutate(request.scope, text, ctx, origin=origin)
        input = self._seen.get((is_json, text)) or self._decoded(text, is_json=is_json)
        freshness: Strict | Synced | ByToken = SYNCED
        if not found.is_log_read:
            freshness = required_freshness(request.scope, by_token=self.by_token, is_shared=request.is_from_server)
        try:
            if found.outage is not None:
                raise found.outage
            result = await self._calls.query(self.path, self._procedure, input, ctx, origin=origin, freshness=freshness)
        except ServiceUnavailableError as outage:
            return await self._in_outage(request, input, ctx, origin=origin, outage=outage)
        if self._is_pure and not isinstance(input, EncodedInput):
            self._remember(text, result.query.key[1], is_json=is_json)
        if self._procedure.response_class is not None:
            result.answer()  # or its error
            return Answer(200, b"", [REVALIDATE, *scope_mark(ctx)])
        return self.answer_with(result, request, ctx)

    def answer_with(self, result: CachedResult, request: CallRequest, ctx: object) -> Answer:
        """Return the answer to a call that has this result; to be asked in the step that found it.

        Raises:
            RPCError: the handler answered an error.
        """
        # INVARIANT (no await between here and the return): what is said of the result holds for the answer.
        marks = self.said_of(result)
        return _answer_of(result, request, marks if ctx is None else [*marks, *scope_mark(ctx)])

    def said_of(self, result: CachedResult) -> Headers:
        """Return what is said of a result to whoever calls, the same object as long as it is the same.

        To be asked in the step that found the result.
        """
        reader = self.reader
        marks = self._marks.of(reader.freshness.token, reader.version_of(result))
        return [*marks, *self._vary] if self._vary else marks

    def key_of(self, text: bytes) -> ResultKey | None:
        """Return the key of the result for an input, JSON; None if the input has not been decoded lately.

        For a procedure that is `is_found_by_input`, whose call depends on nothing before its handler.
        """
        input = self._seen.get((True, text))
        if not isinstance(input, EncodedInput):
            return None
        return query_key(self.path, self._procedure, input.canonical, ctx=NOBODY)

    async def _mutate(
        self,
        scope: Scope,
        text: bytes,
        ctx: object,
        *,
        origin: CallOrigin,
        files: CallFiles | None = None,
        digest: bytes = b"",
    ) -> Answer:
        """Run the mutation; `digest` is that of the files."""
        made_by = [value for name, value in scope["headers"] if name == _SCOPE]
        if made_by:
            _require_caller(made_by, ctx)
        input = decode_json_input(self.path, self._procedure, text)
        key = idempotency_key_of(scope)
        claim = None if key is None else claim_of(self.path, ctx, key, text, files=digest)
        done = await self._calls.mutate(self.path, self._procedure, input, ctx, origin=origin, claim=claim, files=files)
        replayed = _REPLAYED if done.replayed else ()
        answer = Answer(200, done.body, [*_UNCACHED, (_CURSOR, done.token.encode()), *scope_mark(ctx), *replayed])
        if done.after:
            answer.background.append(partial(run_after_commit, self.path, done.after))
        return answer

    def with_exchange(self, answer: Answer, exchange: Exchange) -> Answer:
        """Return an answer with the headers and the status that were set on the response, and the background tasks.

        If the handler has returned a response itself, that is the answer, with these headers.
        """
        answer.headers.extend(exchange.headers)
        if exchange.returned is not None:
            fault = partial(error_of, path=self.path, ids=self._ids)
            answer = ResponseAnswer(exchange.returned, answer, fault=fault)
        else:
            answer.status = exchange.response.status_code or answer.status
        background = exchange.take_background()
        if background:
            answer.background.append(partial(run_after_commit, self.path, background))
        return answer

    def _decoded(self, text: bytes, *, is_json: bool) -> BaseModel | None:
        decode = decode_json_input if is_json else _decode_query_string
        return decode(self.path, self._procedure, text)

    def _remember(self, text: bytes, canonical: bytes, *, is_json: bool) -> None:
        """Remember the canonical form of an input: seen again, its text is decoded only if somebody needs it."""
        if len(text) > MAX_SEEN_BYTES:
            return
        if len(self._seen) >= MAX_SEEN:
            self._seen.clear()
        self._seen[is_json, text] = EncodedInput(canonical, partial(self._decoded, text, is_json=is_json))

    async def _in_outage(
        self,
        request: CallRequest,
        input: BaseModel | EncodedInput | None,
        ctx: object,
        *,
        origin: CallOrigin,
        outage: ServiceUnavailableError,
    ) -> Answer:
        """Answer with the result that is stored, marked as stale, if the procedure allows it.

        Raises:
            ServiceUnavailableError: `outage`, in every other case.
        """
        within_seconds = self._procedure.cache.stale_if_error_seconds
        if not within_seconds:
            raise outage
        allowed = InOutage(within_seconds, outage)
        result = await self._calls.query(self.path, self._procedure, input, ctx, origin=origin, freshness=allowed)
        if result.error is not None:
            raise outage
        seconds = b"%d" % math.ceil(self._calls.outage_seconds)
        marks = [(_STALE, b"true"), (_STALE_SECONDS, seconds), *scope_mark(ctx), *self._vary]
        return _answer_of(result, request, marks)


def _is_found_by_input(procedure: AnyProcedure) -> bool:
    """Tell whether nothing but its input decides which stored result answers a call: not who calls, nor from where."""
    return (
        procedure.is_cached
        and not procedure.calls
        and not procedure.asks_origin
        and not procedure.asks_who_calls
        and procedure.handler.context is None
        and procedure.plans is None
        and procedure.response_class is None
    )


def _answer_of(result: CachedResult, request: CallRequest, headers: Headers) -> Answer:
    """Return the answer that a result is, with further headers; no body where the client has it already.

    Raises:
        RPCError: the handler answered an error; it carries the headers, and the ETag where it lasts until the data
            changes: it is then an outcome like a result, and a stream says when it is another.
    """
    try:
        body = result.answer()
    except RPCError as error:
        is_watchable = result.outcome is not None and result.outcome.is_watchable
        lasting = [(b"etag", result.etag.encode())] if is_watchable else []
        error.headers = {**error.headers, **{name.decode(): value.decode() for name, value in (*lasting, *headers)}}
        raise
    etag = result.etag.encode()
    if request.is_conditional and is_held(request.scope, etag):
        return Answer(304, b"", [(b"etag", etag), REVALIDATE, *headers])
    return Answer(200, body, [JSON, (b"etag", etag), REVALIDATE, *headers])


_CURSOR = CURSOR.encode()
_SCOPE = SCOPE.encode()
_STALE = STALE.encode()
_STALE_SECONDS = STALE_SECONDS.encode()
_IDEMPOTENCY_KEY = IDEMPOTENCY_KEY.encode()
_REPLAYED = [(REPLAYED.encode(), b"true")]
_UNCACHED = [JSON, (b"cache-control", b"no-store")]


def idempotency_key_of(scope: Scope) -> str | None:
    """Return the key that a request gives, bare or as a quoted string (RFC 8941); None where it gives none.

    Raises:
        BadRequestError: it gives several.
    """
    found = [value for name, value in scope["headers"] if name == _IDEMPOTENCY_KEY]
    if len(found) > 1:
        raise BadRequestError(f"{IDEMPOTENCY_KEY} is given twice")
    if not found:
        return None
    key: str = found[0].decode("latin-1").strip()
    return key[1:-1] if len(key) > 1 and key[0] == key[-1] == '"' else key


def _require_caller(made_by: list[bytes], ctx: object) -> None:
    """Refuse a mutation that somebody else has made: it waited in storage, and another has logged in meanwhile.

    Raises:
        PreconditionFailedError: it names another scope than the caller's (`scope_of`).
    """
    if made_by != [(scope_of(ctx) or "").encode()]:
        raise PreconditionFailedError(
            f"the mutation names another caller than this one ({SCOPE}): nothing was done",
            details={"caller": "another"},
        )


def _decode_query_string(path: str, procedure: AnyProcedure, query_string: bytes) -> BaseModel | None:
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
