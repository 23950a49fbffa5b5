"""Subscribe requests, and calls of procedures that yield: read, and let through. SSE and long poll have this in common.

The order matters. The ticket is used up first, so that it is worth nothing to whoever reads it in a log. The caller is
let through next (`web/streams/admission.py`). Limits come after that, because they count by identity.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fastapi.dependencies.models import Dependant
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.types import Receive, Scope

from reactive_rpc.errors import BadRequestError
from reactive_rpc.procedures.call import QueryCall
from reactive_rpc.procedures.exchange import Exchange
from reactive_rpc.procedures.ongoing_calls import OngoingCall, OngoingCalls
from reactive_rpc.procedures.procedure import AnyProcedure
from reactive_rpc.procedures.rights import RightGuard, Rights
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.protocol.events import QueryRef, StreamLimits, SubscriptionRequest
from reactive_rpc.protocol.faults import faults_of, places_of
from reactive_rpc.subscriptions.hub import Hub
from reactive_rpc.subscriptions.limits import CallerKey, Limits
from reactive_rpc.subscriptions.reauthorization import Reauthorization, StreamView
from reactive_rpc.subscriptions.stream import Recheck, Stream
from reactive_rpc.subscriptions.watched_query import RequestedQuery
from reactive_rpc.subscriptions.written_stream import WrittenStream
from reactive_rpc.web.routing.answer_headers import scope_of
from reactive_rpc.web.routing.body import BodyLimits, decode_json_body, read_json_body, replay
from reactive_rpc.web.routing.callers import caller_of, identity_of, origin_of
from reactive_rpc.web.routing.dependencies import Resolved
from reactive_rpc.web.routing.dispatcher import parameters_of
from reactive_rpc.web.streams.admission import Admissions, view_of
from reactive_rpc.web.streams.sets import StoredSets, require_at_most
from reactive_rpc.web.streams.tickets import Tickets

__all__ = ["StreamedRequest", "SubscribeRequest", "Subscriber"]

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


class Subscriber:
    """Turns requests into streams.

    Args:
        admissions: find out who may watch.
        ongoing: makes the calls of procedures that yield.
    """

    def __init__(
        self,
        hub: Hub,
        admissions: Admissions,
        ongoing: OngoingCalls,
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
        self._admissions = admissions
        self._ongoing = ongoing
        self.sets = sets
        self.tickets = tickets
        self._reauthorization = reauthorization
        self._body = body
        self._max_queries = max_queries
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
        async with self.admitting(wanted, scope=scope, body=body, dependencies=dependencies) as request:
            yield request

    @asynccontextmanager
    async def admitting(
        self, wanted: W, *, scope: Scope, body: bytes, dependencies: list[Dependant]
    ) -> AsyncIterator[SubscribeRequest[W]]:
        """Let the caller of a request through that has been read, and give it, to be connected within the block.

        Raises:
            Exception: whatever a dependency raises, or is wrong with the request.
        """
        require_at_most(self._max_queries, wanted.queries)
        generation = self._reauthorization.generation
        admission = self._admissions.of(wanted.queries, dependencies, scope=scope, body=body)
        with self._reauthorization.watching() as rights:
            cursor = None if wanted.cursor is None else Cursor.parse(wanted.cursor)
            async with admission.resolved(rights) as contexts:
                bound = await admission.bound(contexts, rights)
            subscriptions, view = await admission.with_urls(bound, contexts, rights)
            yield SubscribeRequest(
                wanted=wanted,
                cursor=cursor,
                subscriptions=subscriptions,
                caller=caller_of(admission.scope, contexts.caller),
                identity=identity_of(contexts.caller),
                found=contexts.found,
                recheck=admission.recheck(),
                request_bytes=admission.request_bytes(rights),
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
        admission = self._admissions.of([ref], dependencies, scope=scope, body=body, called=procedure.kind)
        generation = self._reauthorization.generation
        exchange = Exchange(Request(scope, replay(body)))
        origin = origin_of(scope, exchange=exchange)
        with self._reauthorization.watching() as rights:
            async with admission.resolved(rights) as contexts:
                ctx = contexts.of(procedure)
                admission.require_current(ctx, rights)

            async def served(call: QueryCall) -> None:
                await serve(
                    StreamedRequest(
                        call=call,
                        caller=caller_of(scope, contexts.caller),
                        identity=identity_of(contexts.caller),
                        found=contexts.found,
                        recheck=admission.recheck(),
                        request_bytes=admission.request_bytes(rights),
                        view=view_of(contexts.caller, [RequestedQuery(ref, call)], rights),
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

    async def connect(self, request: SubscribeRequest[W], *, acks: bool, is_poll: bool = False) -> tuple[Stream, bytes]:
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
            is_poll=is_poll,
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
