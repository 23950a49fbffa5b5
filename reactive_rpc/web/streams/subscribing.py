"""Subscribe requests: who asks for which queries, and whether they may. SSE and long poll have this in common.

The order matters. The ticket is used up first, so that it is worth nothing to whoever reads it in a log. The context is
resolved next, and what resolving it held is let go of before the stream begins: a stream lasts for hours, and the
database session of a `yield` dependency must not. Limits come after that, because they count by identity.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from contextvars import copy_context
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Generic, TypeVar

from fastapi.dependencies.models import Dependant
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Receive, Scope

from reactive_rpc.errors import BadRequestError, RPCError, rpc_error
from reactive_rpc.procedures.call import QueryCall
from reactive_rpc.procedures.calls import Calls, Rights, watching
from reactive_rpc.procedures.context import Login
from reactive_rpc.procedures.steps import CallOrigin
from reactive_rpc.protocol.codes import code_for_status
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.protocol.events import QueryRef, StreamLimits, SubscriptionRequest
from reactive_rpc.protocol.faults import faults_of, places_of
from reactive_rpc.subscriptions.hub import Hub
from reactive_rpc.subscriptions.limits import CallerKey, Limits
from reactive_rpc.subscriptions.reauthorization import Reauthorization, StreamView
from reactive_rpc.subscriptions.stream import Recheck, Stream
from reactive_rpc.subscriptions.watched_query import Subscription
from reactive_rpc.tasks import background
from reactive_rpc.web.routing.answer_headers import scope_of
from reactive_rpc.web.routing.body import BodyLimits, decode_json_body, read_json_body, replay
from reactive_rpc.web.routing.callers import caller_of, identity_of, origin_of
from reactive_rpc.web.routing.dependencies import CONTEXT, Resolved, resolved
from reactive_rpc.web.routing.dispatcher import parameters_of
from reactive_rpc.web.streams.sets import StoredSets, require_at_most
from reactive_rpc.web.streams.tickets import Tickets

__all__ = ["SubscribeRequest", "Subscriber"]

W = TypeVar("W", bound=SubscriptionRequest)


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
        request_bytes: the size of the body and the headers, which that keeps in memory.
        view: what its callers may see, as `recheck` tells it again.
        generation: of `Reauthorization`, before the dependencies were resolved.
    """

    wanted: W
    cursor: Cursor | None
    subscriptions: list[Subscription]
    caller: CallerKey
    identity: str | None
    found: Resolved
    recheck: Recheck | None
    request_bytes: int
    view: StreamView
    generation: int


class Subscriber:
    """Turns requests into streams."""

    def __init__(
        self,
        hub: Hub,
        calls: Calls,
        *,
        sets: StoredSets,
        tickets: Tickets,
        limits: Limits,
        reauthorization: Reauthorization,
        body: BodyLimits,
        max_queries: int,
    ) -> None:
        self.hub = hub
        self.limits = limits
        self._calls = calls
        self._sets = sets
        self._tickets = tickets
        self._reauthorization = reauthorization
        self._body = body
        self._max_queries = max_queries
        self._stream_limits = StreamLimits(
            queries=max_queries, body_bytes=body.max_bytes, streams=limits.max_streams_per_identity
        )

    async def read(
        self, scope: Scope, receive: Receive, dependencies: list[Dependant], model: type[W], *, ticket: str | None
    ) -> SubscribeRequest[W]:
        """Read a request, GET or POST, and let its caller through.

        Raises:
            UnauthorizedError: the ticket is no good.
            Exception: whatever else is wrong with the request, and whatever a dependency raises.
        """
        if ticket is not None:
            scope["headers"] = await self._tickets.redeem(ticket, scope["headers"], dependencies)
        body = b""
        if scope["method"] == "POST":
            body = await read_json_body(scope, receive, limits=self._body)
        wanted = await self._wanted(scope, body, model)
        require_at_most(self._max_queries, wanted.queries)
        cursor = None if wanted.cursor is None else Cursor.parse(wanted.cursor)
        needed = self._needed(wanted.queries, dependencies)
        generation = self._reauthorization.generation
        origin = origin_of(scope, "stream")
        request = Request(scope, replay(body))
        # INVARIANT (who rests on a step can be asked again): nothing else would release a stream that is held.
        is_asked = bool(needed) or self._have_steps(wanted.queries)
        async with self._subscribed(request, needed, wanted.queries, origin=origin) as (found, subscriptions, view):
            return SubscribeRequest(
                wanted=wanted,
                cursor=cursor,
                subscriptions=subscriptions,
                caller=caller_of(scope, found.context),
                identity=identity_of(found.context),
                found=found,
                recheck=self._recheck(scope, body, needed, tuple(wanted.queries)) if is_asked else None,
                request_bytes=_size_of(scope, body) if is_asked else 0,
                view=view,
                generation=generation,
            )

    async def connect(self, request: SubscribeRequest[W], *, acks: bool) -> tuple[Stream, bytes]:
        """Open the stream that was asked for and return it with its first frame; whoever gets it must disconnect it.

        Raises:
            ServiceUnavailableError: the database cannot be read, this worker holds as much as it may, or it is about to
                stop.
            TooManyRequestsError: the caller holds as much as it may.
        """
        try:
            stream, first = await self._connected(request, acks=acks)
        except BaseException:
            self._reauthorization.forget(request.view)
            raise
        self._reauthorization.admit(stream, request.view, generation=request.generation)
        return stream, first

    async def _connected(self, request: SubscribeRequest[W], *, acks: bool) -> tuple[Stream, bytes]:
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
            return model.model_validate({**spelled, "queries": await self._sets.get(parameters["set"])})
        except ValidationError as exc:
            faults = faults_of(exc.errors())
            raise BadRequestError(f"the parameters of the URL do not fit: {places_of(faults)}", details=faults) from exc

    def _needed(self, queries: Sequence[QueryRef], dependencies: list[Dependant]) -> list[Dependant]:
        """Return the dependencies that must be resolved: not the context, where every query is public."""
        procedures = [self._calls.registry.get(query.path) for query in queries]
        if queries and all(procedure is not None and procedure.options.public for procedure in procedures):
            return [dependency for dependency in dependencies if dependency.name != CONTEXT]
        return dependencies

    def _have_steps(self, queries: Sequence[QueryRef]) -> bool:
        """Tell whether steps stand before one of the queries."""
        procedures = [self._calls.registry.get(query.path) for query in queries]
        return any(procedure is not None and procedure.chain.steps for procedure in procedures)

    @asynccontextmanager
    async def _subscribed(
        self, request: Request, needed: list[Dependant], queries: Sequence[QueryRef], *, origin: CallOrigin
    ) -> AsyncIterator[tuple[Resolved, list[Subscription], StreamView]]:
        """Give what the dependencies make, each query, bound to the caller or refused, and the caller's view by that.

        Whoever takes the view forgets it; if anything fails in here, it is forgotten.
        """
        rights = Rights()
        try:
            with watching(rights):
                async with resolved(request, needed) as found:
                    ctx = found.context
                    self._calls.require_current(ctx)
                    subscriptions = [await self._subscription(ref, ctx, origin, rights) for ref in queries]
                    view = StreamView(_digest(ctx, subscriptions), rights, expires_at=_expiry_of(ctx))
                    yield found, subscriptions, view
        except BaseException:
            self._reauthorization.forget(StreamView(b"", rights))
            raise

    async def _subscription(self, ref: QueryRef, ctx: object, origin: CallOrigin, rights: Rights) -> Subscription:
        try:
            call = await self._calls.subscribe(ref.path, ref.input, ctx, origin=origin, rights=rights)
            return Subscription(ref, call=call)
        except HTTPException as exc:
            return Subscription(ref, error=rpc_error(code_for_status(exc.status_code), str(exc.detail)))
        except RPCError as exc:
            return Subscription(ref, error=exc)

    def _recheck(self, scope: Scope, body: bytes, needed: list[Dependant], queries: Sequence[QueryRef]) -> Recheck:
        """Return a function that resolves the dependencies and runs the steps again, from the request of the stream.

        They find the `ContextVar`s that the application's middlewares had set for it. The headers that they set and the
        work that they leave behind belong to an answer, and there is none.
        """
        context, origin = copy_context(), origin_of(scope, "stream")

        async def recheck() -> StreamView:
            async with background(resolve(), "recheck", context=context.copy()) as resolving:
                return await resolving

        async def resolve() -> StreamView:
            try:
                request = Request(dict(scope), replay(body))
                async with self._subscribed(request, needed, queries, origin=origin) as (_, _, view):
                    return view
            except HTTPException as exc:
                raise rpc_error(code_for_status(exc.status_code), str(exc.detail)) from exc

        return recheck


def _digest(ctx: object, subscriptions: Sequence[Subscription]) -> bytes:
    """Return bytes that differ if the context is another caller's, or a query is seen otherwise, or is refused."""
    seen: list[object] = [identity_of(ctx), *map(_seen, subscriptions)]
    return blake2b(repr(seen).encode(), digest_size=16).digest()


def _seen(subscription: Subscription) -> object:
    call: QueryCall | None = subscription.call
    if call is not None:
        return call.key[2]
    return None if subscription.error is None else subscription.error.code


def _expiry_of(ctx: object) -> float | None:
    expires_at = ctx.expires_at if isinstance(ctx, Login) else None
    return None if expires_at is None else expires_at.timestamp()


def _size_of(scope: Scope, body: bytes) -> int:
    return len(body) + sum(len(name) + len(value) for name, value in scope["headers"])
