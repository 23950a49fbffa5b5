"""Which endpoint stands at which path of the router."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_dependant

from reactive_rpc.cache.reader import Reader
from reactive_rpc.changes.ephemeral_store import EphemeralStore
from reactive_rpc.clock import Clock, IdSource
from reactive_rpc.health import Health
from reactive_rpc.procedures.cache_options import FreshnessMode
from reactive_rpc.procedures.calls import Calls
from reactive_rpc.procedures.context_query import ContextDependencies
from reactive_rpc.procedures.execution import Executor
from reactive_rpc.procedures.ongoing_calls import OngoingCalls
from reactive_rpc.procedures.procedure import AnyProcedure
from reactive_rpc.procedures.registry import Registry
from reactive_rpc.settings import Settings
from reactive_rpc.subscriptions.hub import Hub
from reactive_rpc.subscriptions.limits import Limits
from reactive_rpc.subscriptions.reauthorization import Reauthorization
from reactive_rpc.web.operations.operations import Operations
from reactive_rpc.web.routing.body import BodyLimits, UploadLimits
from reactive_rpc.web.routing.dependencies import CONTEXT
from reactive_rpc.web.routing.dispatcher import Endpoint, ProcedureEndpoint
from reactive_rpc.web.routing.health import HealthEndpoint
from reactive_rpc.web.routing.metrics import MetricsEndpoint
from reactive_rpc.web.routing.openapi_marks import marked_schema
from reactive_rpc.web.routing.router import RPCRouter
from reactive_rpc.web.routing.table_router import TableRouter
from reactive_rpc.web.routing.uploads import UploadEndpoint, upload_places
from reactive_rpc.web.streams.acks import AckEndpoint
from reactive_rpc.web.streams.admission import Admissions
from reactive_rpc.web.streams.events import EventsEndpoint
from reactive_rpc.web.streams.poll import PollEndpoint
from reactive_rpc.web.streams.sets import SetsEndpoint, StoredSets
from reactive_rpc.web.streams.streamed_calls import StreamedQueryEndpoint, SubscriptionEndpoint
from reactive_rpc.web.streams.streaming import StreamAnswers
from reactive_rpc.web.streams.subscribing import Subscriber
from reactive_rpc.web.streams.tickets import TicketEndpoint, Tickets
from reactive_rpc.web.trpc.calls import Callee
from reactive_rpc.web.trpc.mount import TRPCMount
from reactive_rpc.web.trpc.options import TransformerName, TRPCOptions
from reactive_rpc.web.trpc.transformers import PLAIN, SuperJSON, Transformer
from reactive_rpc.web.trpc.watching import EVENTS

__all__ = ["Routers", "Served", "make_operations", "make_routers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What the endpoints serve.

    Attributes:
        store: holds stored sets and tickets.
        stats: returns the counters, see `MetricsEndpoint`.
        require_open: raises if nothing can be served.
    """

    calls: Calls
    ongoing: OngoingCalls
    reader: Reader
    hub: Hub
    reauthorization: Reauthorization
    operations: Operations
    store: EphemeralStore
    health: Health
    stats: Callable[[], Mapping[str, float]]
    settings: Settings
    clock: Clock
    ids: IdSource
    require_open: Callable[[], None]

    @property
    def body_limits(self) -> BodyLimits:
        """What a request body may be."""
        given = self.settings
        uploads = UploadLimits(given.max_upload_bytes, given.max_upload_files, given.upload_seconds)
        return BodyLimits(given.max_body_bytes, given.body_seconds, uploads)


def make_operations(
    calls: Calls,
    executor: Executor,
    reader: Reader,
    *,
    freshness: FreshnessMode,
    require_open: Callable[[], None],
) -> Operations:
    """Return the path operations of an application.

    Args:
        calls: watches the outcomes that rights rest on.
        executor: runs endpoints.
        reader: keeps their results.
        freshness: of results whose `Cache` does not say it.
        require_open: raises if nothing can be served.
    """
    return Operations(executor, reader, freshness=freshness, watch=calls.watch, require_open=require_open)


class Routers:
    """The routers of an application.

    Args:
        own: serves the procedures at their paths, and whatever is mounted beside them.
        mount: makes a mount of tRPC's wire.
        make: makes a router without anything.

    Attributes:
        own: as given.
        all: that one, and those of further mounts.
    """

    def __init__(
        self, own: RPCRouter, mount: Callable[[TRPCOptions], TRPCMount], make: Callable[[], TableRouter]
    ) -> None:
        self.own = own
        self.all: list[TableRouter] = [own]
        self._mount = mount
        self._make = make

    def add_trpc(self, **options: Any) -> TableRouter:
        """Return a router that is a further mount of tRPC's wire; `options` are those of `TRPCOptions`."""
        router = self._make()
        router.add_mount(self._mount(TRPCOptions(**options)))
        self.all.append(router)
        return router


def make_routers(
    served: Served, *, prefix: str, trpc_prefix: str | None, context: Callable[..., Any] | None
) -> Routers:
    """Return the routers of an application.

    Args:
        prefix: of its paths.
        trpc_prefix: of the mount of tRPC's wire beside them; None if there is none.
        context: the dependency that makes the context, which may take a session; None if there is none.
    """
    contexts = ContextDependencies(served.calls.context_of)
    router = RPCRouter(
        prefix,
        context=None if context is None else contexts.dependency_of(context),
        contexts=contexts,
        ids=served.ids,
        require_open=served.require_open,
    )
    subscriber = _make_subscriber(served, contexts)
    answers = StreamAnswers(served.hub, drain_seconds=served.settings.drain_seconds)
    endpoints = _add_procedures(router, served, subscriber=subscriber, answers=answers)
    events = _add_events(router, served, subscriber=subscriber, answers=answers)
    ids, health = served.ids, served.health
    router.add_health(
        HealthEndpoint("health", ids, health, question="ready"),
        HealthEndpoint("health/live", ids, health, question="live"),
        HealthEndpoint("health/ready", ids, health, question="ready"),
    )
    if served.settings.metrics:
        reader = served.reader
        router.add_metrics(
            MetricsEndpoint(
                "metrics",
                ids,
                stats=served.stats,
                by_procedure=lambda: {"hits": reader.hits_by_path, "misses": reader.misses_by_path},
            )
        )
    callees = _callees(served, endpoints, router.context_of)
    callees[EVENTS] = Callee(EVENTS, None, events, _solved_by(router.context))
    transformers: dict[TransformerName | None, Transformer] = {
        None: PLAIN,
        "superjson": SuperJSON(partial(_result_schema, served.calls.registry)),
    }

    def mount(options: TRPCOptions) -> TRPCMount:
        return TRPCMount(
            callees,
            options,
            transformer=transformers[options.transformer],
            ids=served.ids,
            body=served.body_limits,
            tasks=answers.tasks,
            heartbeat_seconds=served.settings.heartbeat_seconds,
            require_open=served.require_open,
        )

    if trpc_prefix is not None:
        router.add_mount(mount(TRPCOptions(prefix=trpc_prefix)))
    return Routers(router, mount, partial(TableRouter, ids=served.ids, require_open=served.require_open))


def _result_schema(registry: Registry, path: str) -> dict[str, Any] | None:
    procedure = registry.get(path)
    return None if procedure is None else marked_schema(procedure.output.adapter)


def _callees(
    served: Served,
    endpoints: Mapping[str, Endpoint],
    context_of: Callable[[AnyProcedure], Callable[..., Any] | None],
) -> dict[str, Callee]:
    """Return the procedures as a wire below a mount calls them, by their paths."""
    registry = served.calls.registry
    if EVENTS in registry:
        raise registry[EVENTS].fault(
            f"{EVENTS} is the stream of invalidations on tRPC's wire: give this procedure another name"
        )
    return {
        path: Callee(path, procedure, endpoints[path], _solved_by(context_of(procedure)))
        for path, procedure in registry.items()
    }


def _solved_by(context: Callable[..., Any] | None) -> tuple[Dependant, ...]:
    """Return the dependency that makes a context, as FastAPI solves it."""
    return () if context is None else (get_dependant(path="", call=context, name=CONTEXT),)


def _add_procedures(
    router: RPCRouter, served: Served, *, subscriber: Subscriber, answers: StreamAnswers
) -> dict[str, Endpoint]:
    """Serve every procedure, and return the endpoints by their paths."""
    endpoints: dict[str, Endpoint] = {}
    body, places = served.body_limits, upload_places(served.settings)
    for path, procedure in served.calls.registry.items():
        endpoint: Endpoint
        if procedure.is_streamed:
            made = SubscriptionEndpoint if procedure.kind == "subscription" else StreamedQueryEndpoint
            endpoint = made(path, procedure, served.ids, subscriber=subscriber, answers=answers, body=body)
        elif procedure.handler.files:
            endpoint = UploadEndpoint(path, procedure, served.calls, ids=served.ids, body=body, places=places)
        else:
            by_token = (procedure.cache.freshness or served.settings.freshness) == "token"
            endpoint = ProcedureEndpoint(path, procedure, served.calls, ids=served.ids, body=body, by_token=by_token)
        router.add_procedure(path, procedure, endpoint)
        endpoints[path] = endpoint
    return endpoints


def _make_subscriber(served: Served, contexts: ContextDependencies) -> Subscriber:
    settings, clock = served.settings, served.clock
    plans = [each.plans for each in served.calls.registry.values() if each.plans is not None]
    keyed_headers = frozenset(name for each in plans for name in each.plain.headers)
    return Subscriber(
        served.hub,
        Admissions(served.calls, served.operations, contexts.dependency_of),
        served.ongoing,
        sets=StoredSets(served.store, clock=clock, ttl_seconds=settings.set_seconds),
        tickets=Tickets(
            served.store,
            ttl_seconds=settings.ticket_seconds,
            keyed_headers=keyed_headers,
            endpoint_headers=served.operations.header_names,
        ),
        limits=Limits(
            clock=clock,
            max_streams=settings.max_streams,
            max_streams_per_identity=settings.max_streams_per_identity,
            max_streamed_queries_per_identity=settings.max_streamed_queries_per_identity,
            stream_opens_per_second=settings.stream_opens_per_second,
        ),
        reauthorization=served.reauthorization,
        body=served.body_limits,
        max_queries=settings.max_queries_per_stream,
    )


def _add_events(router: RPCRouter, served: Served, *, subscriber: Subscriber, answers: StreamAnswers) -> EventsEndpoint:
    settings, hub, ids, clock = served.settings, served.hub, served.ids, served.clock
    body, limits, max_queries = served.body_limits, subscriber.limits, settings.max_queries_per_stream
    events = EventsEndpoint("events", subscriber, answers, ids)
    router.add_events(
        events,
        poll=PollEndpoint(
            "events/poll", subscriber, answers, ids, clock=clock, wait_seconds=settings.poll_wait_seconds
        ),
        sets=SetsEndpoint("events/sets", subscriber.sets, limits, ids, body=body, max_queries=max_queries),
        ticket=TicketEndpoint("events/ticket", subscriber.tickets, limits, ids, body=body),
        ack=AckEndpoint("events/ack", hub, ids, body=body),
    )
    return events
