"""The composition root: one object that holds the server's parts, in order, and opens and closes them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Generic, Literal, overload

from fastapi import APIRouter, FastAPI
from sqlalchemy import MetaData
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session
from typing_extensions import TypeVar

from reactive_rpc.admin import Admin
from reactive_rpc.backends.factory import Backend, LogURL, make_backend
from reactive_rpc.cache.auditor import Auditor
from reactive_rpc.cache.freshness import Freshness
from reactive_rpc.cache.read_tables import ReadTableRegistry
from reactive_rpc.cache.reader import Reader
from reactive_rpc.cache.result_store import ResultStore
from reactive_rpc.cache.shared_results import SharedResults
from reactive_rpc.cache.store import MemoryStore
from reactive_rpc.changes.capture_options import Capture, refuse_missing_tables
from reactive_rpc.changes.follower import IDLE_FACTOR, LogFollower
from reactive_rpc.changes.pruning import Pruner
from reactive_rpc.clock import Clock, IdSource, RandomIds, SystemClock
from reactive_rpc.dependencies.relations import Relations, parse_relations
from reactive_rpc.errors import DefinitionError
from reactive_rpc.health import Health, Part
from reactive_rpc.lifecycle import Lifecycle
from reactive_rpc.procedures.announcements import Announcer
from reactive_rpc.procedures.caller import Caller
from reactive_rpc.procedures.calls import make_calls
from reactive_rpc.procedures.context import Login
from reactive_rpc.procedures.context_isolation import isolated_context
from reactive_rpc.procedures.dependencies import Overrides
from reactive_rpc.procedures.execution import Executor
from reactive_rpc.procedures.ongoing_calls import OngoingCalls
from reactive_rpc.procedures.registry import Functions, Registry, WireCase
from reactive_rpc.procedures.topics import Topic
from reactive_rpc.result_sharing import make_shared_results
from reactive_rpc.settings import Settings
from reactive_rpc.statements.database import Database
from reactive_rpc.subscriptions.holdings import Bounds
from reactive_rpc.subscriptions.hub import Hub
from reactive_rpc.subscriptions.reauthorization import Reauthorization
from reactive_rpc.subscriptions.revocation import REVOKED, Revocation
from reactive_rpc.tasks import Tasks
from reactive_rpc.web.routes import Served, make_operations, make_routers
from reactive_rpc.web.routing.placement import check_placement
from reactive_rpc.web.routing.responses import rpc_error_of
from reactive_rpc.web.routing.router import DEFAULT_PREFIX, DEFAULT_TRPC_PREFIX
from reactive_rpc.web.routing.shortcut import install_shortcut

__all__ = ["ReactiveRPC"]

L = TypeVar("L", bound=Login, default=Any)

TRIGGERS = Capture()


class ReactiveRPC(Generic[L]):
    """Procedures on one database, ready for a FastAPI application.

        rpc = ReactiveRPC("sqlite+aiosqlite:///team.db", functions={"agents": {"get_all": get_all}})
        app = FastAPI(lifespan=rpc.lifespan)
        app.include_router(rpc.router)

    Args:
        database: its URL, `sqlite+aiosqlite:///team.db`, or, of a PostgreSQL database, the application's own
            `AsyncEngine`, whose `connect_args`, pool and events then hold for handlers (docs/how-to/engines.md).
        functions: modules, each a group of the procedures that it defines; or `{"group": module, "v2": {"group":
            {"name": decorated function}}}`, nested as deep as you like.
        context: a FastAPI dependency that returns a `Login`, or a frozen dataclass that extends it; resolved once a
            request; raise an HTTPException 401 in it to refuse. Procedures with `public=True` do without.
        relations: `{"agent": ["organization", "message.from_agent_id"]}`: a change of the first counts as one of the
            others; "auto" for every foreign key, both ways.
        metadata: its tables are created at start if they are missing; leave it out if migrations do that. With
            `Capture(mode="installed")` none is created, and the start is refused if one is missing.
        capture: how writes are seen, and which values are copied beside the tables; see `Capture`.
        log_url: of a PostgreSQL database, its own address, where `database` leads through a pooler in transaction mode
            or only an engine can connect; a URL, or a function that returns one with a password that is good now.
        store: where workers share results, beside what each keeps in memory: a `ResultStore`. Left out, they share
            through the Redis of the settings, if there is one. Both need `Settings.build`.
        settings: read from the environment if left out.
        prefix: of the router's paths.
        trpc_prefix: of those under which tRPC's own clients call the procedures; None if none shall. Further ones, with
            options of their own, are made by `trpc_router`.
        wire_case: how names are spelled on the wire: as in Python, `get_all`, or in `"camel"` case, `getAll`. Models of
            your own say it themselves, by `ConfigDict(alias_generator=to_camel)`.

    Attributes:
        admin: opens, closes, counts and observes, see `Admin`.
        router: to be included into the application.
        functions: `{path: procedure}`; `functions["agents.get_one"].options` are its effective options.

    Raises:
        DefinitionError: something is declared wrongly; the message names it and the way out.
    """

    @overload
    def __init__(
        self: ReactiveRPC[Login],
        database: str | URL | AsyncEngine,
        *,
        functions: Functions,
        context: None = None,
        relations: Relations | None = None,
        metadata: MetaData | None = None,
        capture: Capture = TRIGGERS,
        log_url: LogURL | None = None,
        store: ResultStore | None = None,
        settings: Settings | None = None,
        prefix: str = DEFAULT_PREFIX,
        trpc_prefix: str | None = DEFAULT_TRPC_PREFIX,
        wire_case: WireCase = "python",
    ) -> None: ...
    @overload
    def __init__(
        self,
        database: str | URL | AsyncEngine,
        *,
        functions: Functions,
        context: Callable[..., L] | Callable[..., Awaitable[L]],
        relations: Relations | None = None,
        metadata: MetaData | None = None,
        capture: Capture = TRIGGERS,
        log_url: LogURL | None = None,
        store: ResultStore | None = None,
        settings: Settings | None = None,
        prefix: str = DEFAULT_PREFIX,
        trpc_prefix: str | None = DEFAULT_TRPC_PREFIX,
        wire_case: WireCase = "python",
    ) -> None: ...

    def __init__(
        self,
        database: str | URL | AsyncEngine,
        *,
        functions: Functions,
        context: Callable[..., Any] | None = None,
        relations: Relations | None = None,
        metadata: MetaData | None = None,
        capture: Capture = TRIGGERS,
        log_url: LogURL | None = None,
        store: ResultStore | None = None,
        settings: Settings | None = None,
        prefix: str = DEFAULT_PREFIX,
        trpc_prefix: str | None = DEFAULT_TRPC_PREFIX,
        wire_case: WireCase = "python",
    ) -> None:
        settings, health = settings or Settings(), Health()
        self.functions = _registry_for(database, functions, context=context, wire_case=wire_case)
        clock, ids = self._new_clock(), self._new_ids()
        self._relations: Relations = relations or {}
        self._metadata, self._captured_as = metadata, capture
        self._settings, self._health, self._lifecycle = settings, health, Lifecycle(self._open_parts)
        strict = settings.environment == "development"
        backend = self._backend = make_backend(
            database, settings=settings, ids=ids, capture=capture, metadata=metadata, log_url=log_url, clock=clock
        )
        self._shared = make_shared_results(store, backend, settings=settings, capture=capture, clock=clock)
        self._database, self._capture, self._log = backend.database, backend.capture, backend.log
        self._freshness = Freshness(
            self._log, clock=clock, max_age_seconds=2 * IDLE_FACTOR * backend.poll_interval_seconds
        )
        auditor = Auditor(self._freshness, share=settings.audit_share, samples=strict)
        self._reader = _make_reader(
            backend, settings, self._freshness, shared=self._shared, auditor=auditor, clock=clock
        )
        self._executor = _make_executor(backend, settings, strict=strict, clock=clock, spell=self.functions.spell)
        self._calls = make_calls(
            self.functions, self._executor, self._reader, store=backend.ephemeral_store,
            answers=backend.answers, health=health, clock=clock,
        )  # fmt: skip
        self._ongoing = OngoingCalls(self._calls, self._reader, recheck_seconds=settings.recheck_seconds)
        self._hub = _make_hub(backend, settings, reader=self._reader, clock=clock, ids=ids)
        self._reauthorization = Reauthorization(
            self._hub, self._reader, clock=clock, recheck_seconds=settings.recheck_seconds
        )
        self._log.subscribe(self._reader.apply)
        self._log.subscribe(Revocation(self._hub, self._reauthorization, self._ongoing).on_batch)
        self._follower = _make_follower(backend, self._freshness, hub=self._hub, ongoing=self._ongoing, clock=clock)
        self._pruner = _make_pruner(backend, settings, clock=clock)
        self._announcer = self._make_announcer(backend)
        self.admin = self._make_admin(auditor)
        served = self._served(clock=clock, ids=ids)
        self._routers = make_routers(served, prefix=prefix, trpc_prefix=trpc_prefix, context=context)
        self.router = self._routers.own

    def _make_announcer(self, backend: Backend) -> Announcer:
        return Announcer(
            self._database, self._log, announce=backend.announce, require_open=self._lifecycle.require_open
        )

    def _make_admin(self, auditor: Auditor) -> Admin:
        return Admin(
            settings=self._settings,
            health=self._health,
            auditor=auditor,
            lifecycle=self._lifecycle,
            backend=self._backend,
            capture=self._captured_as,
            metadata=self._metadata,
            pruner=self._pruner,
            calls=self._calls,
            ongoing=self._ongoing,
            reader=self._reader,
            executor=self._executor,
            counted=(self._reader, auditor, self._hub, self._executor, self._freshness, self._reauthorization),
        )

    def _served(self, *, clock: Clock, ids: IdSource) -> Served:
        self._operations = make_operations(
            self._calls,
            self._executor,
            self._reader,
            freshness=self._settings.freshness,
            require_open=self._lifecycle.require_open,
        )
        return Served(
            calls=self._calls,
            ongoing=self._ongoing,
            reader=self._reader,
            hub=self._hub,
            reauthorization=self._reauthorization,
            operations=self._operations,
            store=self._backend.ephemeral_store,
            health=self._health,
            stats=self.admin.stats,
            settings=self._settings,
            clock=clock,
            ids=ids,
            require_open=self._lifecycle.require_open,
        )

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Open with the application `app` and close with it: `FastAPI(lifespan=rpc.lifespan)`.

        Raises:
            DefinitionError: as for `admin.open`; or the router stands where it, or something else, is never reached;
                or an endpoint is decorated with `reactive` where its results cannot be kept.
        """
        check_placement(app)
        self._operations.add_all(app)
        self._calls.app_overrides = app.dependency_overrides
        await self.admin.open()
        for router in self._routers.all:
            install_shortcut(app, router)
        self._operations.open_with(app)
        try:
            yield
        finally:
            await self.admin.aclose()

    async def _open_parts(self, stack: AsyncExitStack) -> None:
        database, backend = self._database, self._backend
        stack.push_async_callback(database.aclose)
        stack.push_async_callback(backend.ephemeral_store.aclose)
        await database.check()
        await backend.ephemeral_store.open()
        if self._metadata is not None and self._captured_as.is_managed:
            await database.make_tables(self._metadata)
        if backend.relay is not None and self._settings.relay:
            self._tasks(stack).keep(backend.relay.run(), "relay candidate")
        if self._shared is not None:
            stack.push_async_callback(self._shared.aclose)
            await self._shared.open()
        await self._log.open()
        stack.push_async_callback(self._log.aclose)
        await self._check_declarations()
        stack.push_async_callback(self._reader.aclose)
        stack.push_async_callback(self.admin.auditor.aclose)
        stack.push_async_callback(self._hub.aclose)
        probes = {"log": self._follower.health, "database": lambda: _health_of(database), **backend.probes}
        for name, probe in probes.items():
            stack.callback(self._health.add(name, probe))
        tasks = self._tasks(stack)
        tasks.keep(self._follower.run(), "tail")
        tasks.keep(self._pruner.run(), "prune")
        tasks.keep(self._reauthorization.run(), "reauthorization")
        stack.enter_context(self._operations.opened(self))

    async def _check_declarations(self) -> None:
        tables = self._log.schema.tables
        if self._metadata is not None and not self._captured_as.is_managed:
            refuse_missing_tables(self._metadata, {*tables, *self._log.schema.names})
        self.functions.check_tables(tables)
        self._captured_as.check(tables, self._log.schema.names)
        relations = parse_relations(self._relations, tables)
        self._reader.open(relations)
        declared = self.functions.declared_tables.union(relations)
        await self._reader.register_read_tables([name for name in declared if name in tables])

    def _tasks(self, stack: AsyncExitStack) -> Tasks:
        """Return the supervisor that runs tasks until the stack is closed."""
        tasks = Tasks(health=self._health)
        stack.push_async_callback(tasks.aclose)
        return tasks

    def trpc_router(
        self,
        *,
        prefix: str,
        transformer: Literal["superjson"] | None = None,
        allow_batching: bool = True,
        max_batch_size: int = 100,
        allow_method_override: bool = False,
        connection_headers: Iterable[str] = ("authorization",),
    ) -> APIRouter:
        """Return a router by which tRPC's own clients call the procedures, beside the one of `trpc_prefix`.

            app.include_router(rpc.trpc_router(prefix="/partners/trpc", max_batch_size=10))

        Args:
            prefix: of its paths, which nothing else stands below.
            transformer: how values are spelled: as JSON spells them, or as superjson does, for clients that have it as
                their transformer. Of results it annotates the types for which JavaScript has one of its own.
            allow_batching: whether a request may hold several calls.
            max_batch_size: how many, at most.
            allow_method_override: whether queries and subscriptions may be sent by POST, for clients that say
                `methodOverride: "POST"`, as their inputs are too long for a URL.
            connection_headers: the headers that a subscription may give by `connectionParams`, as an EventSource sends
                none; they travel in the URL, which servers and proxies log.

        Raises:
            DefinitionError: an option is none that could be meant.
        """
        return self._routers.add_trpc(
            prefix=prefix,
            transformer=transformer,
            allow_batching=allow_batching,
            max_batch_size=max_batch_size,
            allow_method_override=allow_method_override,
            connection_headers=frozenset(connection_headers),
        )

    def caller(self, ctx: L | None = None, *, overrides: Overrides | None = None) -> Caller:
        """Return a caller, which calls procedures in this process as the server would.

        Args:
            ctx: the context on whose behalf, as the application's dependency returns it; None is nobody.
            overrides: `{function: the one that is called in its place}`, of dependencies of handlers and of steps, in
                these calls alone. Results that are made with them are given to no others.
        """
        return Caller(self._calls, self._ongoing, ctx, require_open=self._lifecycle.require_open, overrides=overrides)

    @property
    def overrides(self) -> dict[Callable[..., Any], Callable[..., Any]]:
        """`{function: the one that is called in its place}`, of dependencies of handlers and of steps, in every call.

        It is for tests, and changed in place. The application's `dependency_overrides` count too.
        """
        return self._calls.overrides

    @overload
    def invalidate(self, topic: Topic, *, keys: Iterable[str] | None = None, db: Session) -> None: ...
    @overload
    def invalidate(
        self, topic: Topic, *, keys: Iterable[str] | None = None, db: AsyncSession | None = None
    ) -> Coroutine[Any, Any, None]: ...

    def invalidate(
        self, topic: Topic, *, keys: Iterable[str] | None = None, db: AsyncSession | Session | None = None
    ) -> Coroutine[Any, Any, None] | None:
        """Say that a topic has changed: every worker hears it, as of a write, and drops the results that depend on it.

        It is awaited, unless `db` is the `Session` of a mutation that is no coroutine: then it is done on return.

        Args:
            topic: made by `topic("weather")`.
            keys: of it; left out, all of it has changed.
            db: of a mutation, to make this a part of its transaction. Inside a mutation it must be given; outside of
                one; left out, it is a transaction of its own, applied here when this has been awaited.

        Raises:
            DefinitionError: it is no topic, or a key is no text.
            InternalServerError: a query announces something, or a mutation without its `db`.
            ServiceUnavailableError: the database cannot be written.
        """
        if isinstance(db, Session):
            self._announcer.invalidate_now(topic, keys=keys, db=db)
            return None
        return self._announcer.invalidate(topic, keys=keys, db=db)

    @overload
    def revoke(self, identity: str, *, db: Session) -> None: ...
    @overload
    def revoke(self, identity: str, *, db: AsyncSession | None = None) -> Coroutine[Any, Any, None]: ...

    def revoke(self, identity: str, *, db: AsyncSession | Session | None = None) -> Coroutine[Any, Any, None] | None:
        """End every stream of an identity, in every worker, with `revoked`.

        It ends open streams. That the identity is not let in again is up to the context dependency: revoke the
        token first, or in the same transaction. It is awaited or not as `invalidate` is.

        Args:
            identity: the `identity` of the context that the streams were opened with.
            db: of a mutation, to make this a part of its transaction. Inside a mutation it must be given.

        Raises:
            DefinitionError: it is no text.
            InternalServerError: a query revokes, or a mutation without its `db`.
            ServiceUnavailableError: the database cannot be written.
        """
        if not isinstance(identity, str):
            raise DefinitionError(f"revoke({identity!r}): an identity is a str, as Login.identity has it")
        return self.invalidate(REVOKED, keys=[identity], db=db)

    def _new_clock(self) -> Clock:
        """Return the clock; `testing.fakes.faked` returns another."""
        return SystemClock()

    def _new_ids(self) -> IdSource:
        """Return what makes ids; `testing.fakes.faked` returns another."""
        return RandomIds()


def _registry_for(
    database: str | URL | AsyncEngine,
    functions: Functions,
    *,
    context: Callable[..., Any] | None,
    wire_case: WireCase,
) -> Registry:
    """Return the procedures; on an engine of the application's own, all must be coroutines."""
    registry = Registry(functions, context=context, wire_case=wire_case)
    if isinstance(database, AsyncEngine):
        registry.require_coroutines()
    return registry


def _make_reader(
    backend: Backend,
    settings: Settings,
    freshness: Freshness,
    *,
    shared: SharedResults | None,
    auditor: Auditor,
    clock: Clock,
) -> Reader:
    return Reader(
        backend.log,
        MemoryStore(settings.cache_max_bytes),
        freshness=freshness,
        shared=shared,
        clock=clock,
        new_context=isolated_context,
        reads=ReadTableRegistry(backend.capture.note_reads, clock=clock),
        auditor=auditor,
    )


def _make_executor(
    backend: Backend, settings: Settings, *, strict: bool, clock: Clock, spell: Callable[[str], str]
) -> Executor:
    return Executor(
        backend.database,
        backend.log,
        strict=strict,
        isolation=settings.isolation,
        clock=clock,
        translate_error=rpc_error_of,
        spell=spell,
    )


def _make_hub(backend: Backend, settings: Settings, *, reader: Reader, clock: Clock, ids: IdSource) -> Hub:
    return Hub(
        reader,
        backend.log,
        clock=clock,
        ids=ids,
        ephemeral_store=backend.ephemeral_store,
        max_events=settings.stream_queue_events,
        max_bytes=settings.stream_queue_bytes,
        bounds=Bounds(
            max_watched_queries=settings.max_watched_queries,
            max_watched_queries_per_identity=settings.max_watched_queries_per_identity,
            max_watched_bytes=settings.max_watched_bytes,
            max_watched_bytes_per_identity=settings.max_watched_bytes_per_identity,
        ),
        max_resumed_changes=settings.max_resumed_changes,
        ack_retry_seconds=settings.ack_retry_seconds,
        reconnect_milliseconds=settings.reconnect_milliseconds,
        heartbeat_seconds=settings.heartbeat_seconds,
    )


def _make_follower(
    backend: Backend, freshness: Freshness, *, hub: Hub, ongoing: OngoingCalls, clock: Clock
) -> LogFollower:
    def lose() -> None:
        hub.end_all()
        ongoing.recheck_all()

    follower = LogFollower(
        freshness.sync_to_head,
        lambda: freshness.age_seconds,
        wake_up=backend.log.wake_up,
        clock=clock,
        interval_seconds=backend.poll_interval_seconds,
        streams=hub.open_streams,
        on_lost=lose,
    )
    backend.log.subscribe(follower.apply)
    return follower


def _make_pruner(backend: Backend, settings: Settings, *, clock: Clock) -> Pruner:
    relay = backend.relay
    return Pruner(
        backend.capture,
        backend.database,
        answers=backend.answers,
        clock=clock,
        retention_seconds=settings.outbox_retention_seconds,
        # Whoever reads the outbox for all prunes it.
        is_due=lambda: relay is None or relay.status.role == "leading",
    )


def _health_of(database: Database) -> Part:
    return Part(ok=database.error is None, detail=database.error or "")
