"""Subscribe requests: who asks for which queries, and whether they may. SSE and long poll have this in common.

The order matters. The ticket is used up first, so that it is worth nothing to whoever reads it in a log. The context is
resolved next, and what resolving it held is let go of before the stream begins: a stream lasts for hours, and the
database session of a `yield` dependency must not. Limits come after that, because they count by identity. Queries that
have a context of their own are watched by that one, as they are called.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import copy_context
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Generic, TypeVar

from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_dependant
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Receive, Scope

from reactive_rpc.cache.result import CachedResult, lasts
from reactive_rpc.errors import BadRequestError, InternalServerError, RPCError, rpc_error
from reactive_rpc.procedures.call import QueryCall
from reactive_rpc.procedures.calls import Calls
from reactive_rpc.procedures.exchange import Exchange
from reactive_rpc.procedures.ongoing_calls import OngoingCall, OngoingCalls
from reactive_rpc.procedures.options import ProcedureKind
from reactive_rpc.procedures.procedure import AnyProcedure
from reactive_rpc.procedures.rights import RightGuard, Rights, watching
from reactive_rpc.procedures.steps import CallOrigin
from reactive_rpc.protocol.codes import code_for_status
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.protocol.events import QueryRef, StreamLimits, SubscriptionRequest
from reactive_rpc.protocol.faults import faults_of, places_of
from reactive_rpc.statements.concealment import concealed
from reactive_rpc.subscriptions.hub import Hub
from reactive_rpc.subscriptions.limits import CallerKey, Limits
from reactive_rpc.subscriptions.reauthorization import REFUSALS, SEEN_BYTES, UNDECIDED, Reauthorization, StreamView
from reactive_rpc.subscriptions.stream import Recheck, Stream
from reactive_rpc.subscriptions.watched_query import RequestedQuery
from reactive_rpc.subscriptions.written_stream import WrittenStream
from reactive_rpc.tasks import background
from reactive_rpc.web.operations.operations import Operations
from reactive_rpc.web.routing.answer_headers import scope_of
from reactive_rpc.web.routing.body import BodyLimits, decode_json_body, read_json_body, replay
from reactive_rpc.web.routing.callers import caller_of, identity_of, origin_of
from reactive_rpc.web.routing.dependencies import CONTEXT, Resolved, resolved
from reactive_rpc.web.routing.dispatcher import parameters_of
from reactive_rpc.web.streams.sets import StoredSets, require_at_most
from reactive_rpc.web.streams.tickets import Tickets

__all__ = ["StreamedRequest", "SubscribeRequest", "Subscriber"]

logger = logging.getLogger(__name__)

W = TypeVar("W", bound=SubscriptionRequest)
OwnContext = Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscribeRequest(Generic[W]):
    """A request for events, of a caller who has been let through.

    Attributes:
        wanted: the body, or the parameters of the URL.
        cursor: where it stands; None where it has seen nothing yet.
        subscriptions: its queries, bound to the caller.
        caller: whom limits count.
        identity: whom `revoke` names.
        found: what the dependencies made; its headers go with the answer.
        recheck: resolves the dependencies and runs the steps again; None if there are none.
        request_bytes: the size of the body, the headers, and the outcomes of steps, which that keeps in memory.
        view: what its callers may see, as `recheck` tells it again.
        generation: of `Reauthorization`, before the dependencies were resolved.
    """

    wanted: W
    cursor: Cursor | None
    subscriptions: list[RequestedQuery]
    caller: CallerKey
    identity: str | None
    found: Resolved
    recheck: Recheck | None
    request_bytes: int
    view: StreamView
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamedRequest:
    """A call of a procedure that yields, of a caller who has been let through; see `SubscribeRequest`.

    Attributes:
        call: with the context that its steps have made.
    """

    call: QueryCall
    caller: CallerKey
    identity: str | None
    found: Resolved
    recheck: Recheck | None
    request_bytes: int
    view: StreamView
    generation: int


@dataclass(frozen=True, slots=True)
class Needed:
    """What must be resolved to let a caller watch.

    Attributes:
        dependencies: the router's, and the application's context if any query begins with it.
        contexts: the dependencies of queries that have a context of their own.
    """

    dependencies: list[Dependant]
    contexts: tuple[OwnContext, ...]


@dataclass(frozen=True, slots=True)
class ResolvedContexts:
    """The contexts of a request.

    Attributes:
        found: what the dependencies made: the application's context, or None.
        own: those of queries that have one of their own, or why it was refused.
        passed: the outcomes that they rest on, if they are queries themselves.
    """

    found: Resolved
    own: dict[OwnContext, object]
    passed: Sequence[CachedResult | None]

    def of(self, dependency: OwnContext | None) -> object:
        """Return the context of a query; raise if it was refused."""
        found = self.found.context if dependency is None else self.own[dependency]
        if isinstance(found, Exception):
            raise found
        return found

    @property
    def caller(self) -> object:
        """The context that says who calls: the application's, or else the first other."""
        known = [self.found.context, *(ctx for ctx in self.own.values() if not isinstance(ctx, Exception))]
        return next((ctx for ctx in known if ctx is not None), None)


class Subscriber:
    """Turns requests into streams.

    Args:
        operations: asks the application who may watch a URL.
        dependency_of: returns what FastAPI can solve in the place of a function that makes a context.
    """

    def __init__(
        self,
        hub: Hub,
        calls: Calls,
        ongoing: OngoingCalls,
        *,
        sets: StoredSets,
        tickets: Tickets,
        limits: Limits,
        reauthorization: Reauthorization,
        operations: Operations,
        body: BodyLimits,
        max_queries: int,
        dependency_of: Callable[[OwnContext], OwnContext],
    ) -> None:
        self.hub = hub
        self.limits = limits
        self._calls = calls
        self._ongoing = ongoing
        self.sets = sets
        self.tickets = tickets
        self._reauthorization = reauthorization
        self._operations = operations
        self._body = body
        self._max_queries = max_queries
        self._dependency_of = dependency_of
        self._stream_limits = StreamLimits(
            queries=max_queries, body_bytes=body.max_bytes, streams=limits.max_streams_per_identity
        )

    @asynccontextmanager
    async def reading(
        self, scope: Scope, receive: Receive, dependencies: list[Dependant], model: type[W], *, ticket: str | None
    ) -> AsyncIterator[SubscribeRequest[W]]:
        """Read a request, GET or POST, let its caller through, and give it, to be connected within the block.

        Raises:
            UnauthorizedError: the ticket is no good.
            Exception: whatever else is wrong with the request, and whatever a dependency raises.
        """
        if ticket is not None:
            await self.redeem(ticket, scope, dependencies)
        body = b""
        if scope["method"] == "POST":
            body = await read_json_body(scope, receive, limits=self._body)
        wanted = await self._wanted(scope, body, model)
        require_at_most(self._max_queries, wanted.queries)
        cursor = None if wanted.cursor is None else Cursor.parse(wanted.cursor)
        needed = self._needed(wanted.queries, dependencies)
        generation = self._reauthorization.generation
        origin = origin_of(scope, "stream")
        with self._reauthorization.watching() as rights:
            async with self._resolved(scope, body, needed, rights=rights) as contexts:
                bound = await self._subscribed(wanted.queries, contexts, origin, rights=rights)
            subscriptions, view = await self._with_urls(
                wanted.queries, bound, contexts=contexts, scope=scope, rights=rights
            )
            # INVARIANT (whatever a stream rests on is asked again): a step without a context may refuse later, too.
            is_asked = bool(needed.dependencies or needed.contexts or self._have_steps(wanted.queries))
            yield SubscribeRequest(
                wanted=wanted,
                cursor=cursor,
                subscriptions=subscriptions,
                caller=caller_of(scope, contexts.caller),
                identity=identity_of(contexts.caller),
                found=contexts.found,
                recheck=self._recheck(scope, body, needed, tuple(wanted.queries)) if is_asked else None,
                request_bytes=_size_of(scope, body) + rights.held_bytes if is_asked else 0,
                view=view,
                generation=generation,
            )

    async def stream_call(
        self,
        path: str,
        procedure: AnyProcedure,
        input: BaseModel | None,
        *,
        scope: Scope,
        body: bytes,
        dependencies: list[Dependant],
        serve: Callable[[StreamedRequest], Awaitable[None]],
    ) -> None:
        """Let the caller of a procedure that yields through, and have `serve` make all of the call.

        Its wrappers enclose that. What resolving the context held is let go of before.

        Raises:
            Exception: whatever a dependency, a step, a wrapper or `serve` raised.
        """
        ref = QueryRef(path=path, input=None if input is None else input.model_dump(mode="json", by_alias=True))
        needed = self._needed([ref], dependencies)
        is_asked = bool(needed.dependencies or needed.contexts or procedure.chain.steps)
        generation = self._reauthorization.generation
        exchange = Exchange(Request(scope, replay(body)))
        origin = origin_of(scope, exchange=exchange)
        with self._reauthorization.watching() as rights:
            async with self._resolved(scope, body, needed, rights=rights) as contexts:
                ctx = contexts.of(None if procedure.options.public else procedure.chain.dependency)
                rights.expires_at = min(rights.expires_at, self._calls.require_current(ctx))

            async def served(call: QueryCall) -> None:
                await serve(
                    StreamedRequest(
                        call=call,
                        caller=caller_of(scope, contexts.caller),
                        identity=identity_of(contexts.caller),
                        found=contexts.found,
                        recheck=self._recheck(scope, body, needed, (ref,), called=procedure.kind) if is_asked else None,
                        request_bytes=_size_of(scope, body) + rights.held_bytes if is_asked else 0,
                        view=StreamView(_seen_by(contexts.caller, [RequestedQuery(ref, call)]), rights),
                        generation=generation,
                    )
                )

            await self._ongoing.stream(OngoingCall(path, procedure, input, ctx, origin), serve=served, rights=rights)

    def connect_writer(self, request: StreamedRequest) -> tuple[WrittenStream, bytes]:
        """Open the stream of a call and return it with its first frame; see `connect`."""
        stream, first = self.hub.connect_writer(
            identity=request.identity,
            caller=request.caller,
            recheck=request.recheck,
            request_bytes=request.request_bytes,
        )
        self._reauthorization.admit(stream, request.view, generation=request.generation)
        return stream, first

    def guard(self, request: StreamedRequest) -> RightGuard:
        """Return a guard of values that are sent without a stream of the hub's."""

        async def renew(rights: Rights) -> object:
            if request.recheck is None:
                return request.view.seen
            return (await request.recheck(rights)).seen

        guard = self._ongoing.guards.guard(request.call.path, renew, request.view.rights)
        guard.seen = request.view.seen
        return guard

    async def redeem(self, ticket: str, scope: Scope, dependencies: list[Dependant]) -> None:
        """Let a request have the headers that a ticket stands for.

        Raises:
            UnauthorizedError: the ticket is no good.
        """
        scope["headers"] = await self.tickets.redeem(ticket, scope["headers"], dependencies)

    async def connect(self, request: SubscribeRequest[W], *, acks: bool) -> tuple[Stream, bytes]:
        """Open the stream that was asked for and return it with its first frame; whoever gets it must disconnect it.

        Raises:
            ServiceUnavailableError: the database cannot be read, this worker holds as much as it may, or it is about to
                stop.
            TooManyRequestsError: the caller holds as much as it may.
        """
        stream, first = await self.hub.connect(
            request.subscriptions,
            request.cursor,
            acks=acks,
            identity=request.identity,
            caller=request.caller,
            recheck=request.recheck,
            request_bytes=request.request_bytes,
            scope=scope_of(request.found.context),
            limits=self._stream_limits,
        )
        request.subscriptions.clear()  # a long poll would hold the inputs a second time, uncounted
        request.wanted.queries.clear()
        self._reauthorization.admit(stream, request.view, generation=request.generation)
        return stream, first

    async def _wanted(self, scope: Scope, body: bytes, model: type[W]) -> W:
        if scope["method"] == "POST":
            wanted = decode_json_body(model, body)
        else:
            wanted = await self._named(parameters_of(scope["query_string"]), scope["path"], model)
        last_event_id = dict(scope["headers"]).get(b"last-event-id")
        if last_event_id:
            wanted.cursor = last_event_id.decode("latin-1")
        return wanted

    async def _named(self, parameters: dict[str, str], path: str, model: type[W]) -> W:
        """Return the request that the parameters of a URL spell."""
        if "set" not in parameters:
            raise BadRequestError(f"name a stored set: GET {path}?set=... (POST /rpc/events/sets stores one)")
        spelled: dict[str, Any] = {name: parameters[name] for name in model.model_fields if name in parameters}
        try:
            return model.model_validate({**spelled, "queries": await self.sets.get(parameters["set"])})
        except ValidationError as exc:
            faults = faults_of(exc.errors())
            raise BadRequestError(f"the parameters of the URL do not fit: {places_of(faults)}", details=faults) from exc

    def _needed(self, queries: Sequence[QueryRef], dependencies: list[Dependant]) -> Needed:
        """Return the dependencies that must be resolved: not the application's context, if no query begins with it."""
        procedures = [self._calls.registry.get(query.path) for query in queries]
        own = {p.chain.dependency: None for p in procedures if p is not None and not p.options.public}
        is_shared = not queries or None in procedures or None in own
        contexts = tuple(dependency for dependency in own if dependency is not None)
        if is_shared:
            return Needed(dependencies, contexts)
        return Needed([dependency for dependency in dependencies if dependency.name != CONTEXT], contexts)

    def _have_steps(self, queries: Sequence[QueryRef]) -> bool:
        """Tell whether steps stand before one of the queries, or the application before a URL."""
        if any(map(_is_url, queries)):
            return True
        procedures = [self._calls.registry.get(query.path) for query in queries]
        return any(procedure is not None and procedure.chain.steps for procedure in procedures)

    @asynccontextmanager
    async def _resolved(
        self, scope: Scope, body: bytes, needed: Needed, *, rights: Rights
    ) -> AsyncIterator[ResolvedContexts]:
        """Give the contexts of a request; one of some queries' own that is refused refuses these alone.

        Raises:
            Exception: what a dependency raised.
        """
        async with AsyncExitStack() as stack:
            stack.enter_context(watching(rights))
            own: dict[OwnContext, object] = {}
            request = Request(scope, replay(body))
            found = await stack.enter_async_context(resolved(request, needed.dependencies))
            for dependency in needed.contexts:
                # INVARIANT (a query is watched by the context that it is called by): another's would skip its guard.
                asked = get_dependant(path=scope["path"], call=self._dependency_of(dependency), name=CONTEXT)
                try:
                    made = await stack.enter_async_context(resolved(Request(dict(scope), replay(body)), [asked]))
                    own[dependency] = made.context
                except (HTTPException, RPCError, RequestValidationError) as exc:
                    own[dependency] = exc
            yield ResolvedContexts(found, own, rights.passed)

    async def _subscribed(
        self,
        queries: Sequence[QueryRef],
        contexts: ResolvedContexts,
        origin: CallOrigin,
        *,
        rights: Rights,
        kind: ProcedureKind = "query",
    ) -> list[RequestedQuery | None]:
        """Return each query, bound to the caller or refused; None for a URL."""
        for ctx in (contexts.found.context, *contexts.own.values()):
            rights.expires_at = min(rights.expires_at, self._calls.require_current(ctx))
        return [
            None if _is_url(ref) else await self._subscription(ref, contexts, origin, rights=rights, kind=kind)
            for ref in queries
        ]

    async def _with_urls(
        self,
        queries: Sequence[QueryRef],
        bound: Sequence[RequestedQuery | None],
        *,
        contexts: ResolvedContexts,
        scope: Scope,
        rights: Rights,
    ) -> tuple[list[RequestedQuery], StreamView]:
        """Return all that was asked for, its URLs too, and the caller's view of it."""
        # INVARIANT (after the contexts have let go of what they held): the application is asked with sessions of its
        # own pool, which many streams that open at once would else wait for in vain.
        subscriptions = [
            await self._watched_url(ref, scope, rights=rights) if found is None else found
            for ref, found in zip(queries, bound, strict=True)
        ]
        return subscriptions, _view_of(contexts.caller, subscriptions, rights)

    async def _watched_url(self, ref: QueryRef, scope: Scope, *, rights: Rights) -> RequestedQuery:
        passed: list[CachedResult | None] = []
        rights.passed = passed
        try:
            if ref.input is not None:
                raise BadRequestError("a URL has its input in its query string: leave the input out", path=ref.path)
            call = await self._operations.watch(ref.path, scope, rights)
        except RPCError as exc:
            return RequestedQuery(ref, error=exc, is_refused_by_input=True)
        return RequestedQuery(ref, call=call, passed=tuple(passed))

    async def _subscription(
        self, ref: QueryRef, contexts: ResolvedContexts, origin: CallOrigin, *, rights: Rights, kind: ProcedureKind
    ) -> RequestedQuery:
        procedure = self._calls.registry.get(ref.path)
        rights.passed = passed = [*contexts.passed]
        rights.is_by_input = False
        try:
            ctx = contexts.of(None if procedure is None or procedure.options.public else procedure.chain.dependency)
            call = await self._calls.subscribe(ref.path, ref.input, ctx, origin=origin, rights=rights, kind=kind)
            return RequestedQuery(ref, call=call, passed=tuple(passed))
        except HTTPException as exc:
            return RequestedQuery(ref, error=rpc_error(code_for_status(exc.status_code), str(exc.detail)))
        except RequestValidationError as exc:
            details = faults_of(exc.errors())
            error = BadRequestError("the request does not fit what its context asks for", details=details)
            return RequestedQuery(ref, error=error)
        except RPCError as exc:
            return RequestedQuery(ref, error=exc, is_refused_by_input=rights.is_by_input)
        except Exception as exc:  # as where a handler fails: the other queries are none the worse for it
            logger.error("a step of %s failed for a stream", ref.path, exc_info=concealed(exc))
            return RequestedQuery(ref, error=InternalServerError(path=ref.path))

    def _recheck(
        self,
        scope: Scope,
        body: bytes,
        needed: Needed,
        queries: Sequence[QueryRef],
        *,
        called: ProcedureKind | None = None,
    ) -> Recheck:
        """Return a function that resolves the dependencies and runs the steps again, from the request of the stream.

        Where it is a call, of such a procedure, that raises what its steps do; else a query that is refused is one of
        several, and the others go on.

        They find the `ContextVar`s that the application's middlewares had set for it. The headers that they set and the
        work that they leave behind belong to an answer, and there is none.
        """
        context, origin = copy_context(), origin_of(scope, "stream")

        async def recheck(rights: Rights) -> StreamView:
            async with background(resolve(rights), "recheck", context=context.copy()) as resolving:
                return await resolving

        async def resolve(rights: Rights) -> StreamView:
            try:
                async with self._resolved(dict(scope), body, needed, rights=rights) as contexts:
                    bound = await self._subscribed(queries, contexts, origin, rights=rights, kind=called or "query")
                for refused in bound if called else ():
                    if refused is not None and refused.error is not None:
                        raise refused.error
                return (await self._with_urls(queries, bound, contexts=contexts, scope=scope, rights=rights))[1]
            except HTTPException as exc:
                raise rpc_error(code_for_status(exc.status_code), str(exc.detail)) from exc

        return recheck


def _is_url(ref: QueryRef) -> bool:
    return ref.path.startswith("/")


def _view_of(ctx: object, subscriptions: Sequence[RequestedQuery], rights: Rights) -> StreamView:
    return StreamView(_seen_by(ctx, subscriptions), rights, _refusal_of(ctx, subscriptions))


def _seen_by(ctx: object, subscriptions: Iterable[RequestedQuery]) -> bytes:
    """Return bytes that differ if the context is another caller's, or a query is seen otherwise, or is refused."""
    return b"".join((_digest(identity_of(ctx)), *map(_seen, subscriptions)))


def _seen(subscription: RequestedQuery) -> bytes:
    call = subscription.call
    if call is not None:
        return _digest(call.key[2])
    error = subscription.error or InternalServerError()
    return _digest(error.code) if lasts(error) else UNDECIDED


def _refusal_of(ctx: object, subscriptions: Sequence[RequestedQuery]) -> str | None:
    """Return why a caller who is known may see nothing at all, whatever the input; None if that is not so."""
    refusals = [
        each.error
        for each in subscriptions
        if each.error is not None and each.error.code in REFUSALS and not each.is_refused_by_input
    ]
    if identity_of(ctx) is None or not refusals or len(refusals) < len(subscriptions):
        return None
    return refusals[0].message


def _digest(seen: object) -> bytes:
    return blake2b(repr(seen).encode(), digest_size=SEEN_BYTES).digest()


def _size_of(scope: Scope, body: bytes) -> int:
    return len(body) + sum(len(name) + len(value) for name, value in scope["headers"])
