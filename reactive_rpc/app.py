"""The composition root: one object that holds the server's parts, in order, and opens and closes them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

from fastapi import FastAPI
from sqlalchemy import MetaData
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from reactive_rpc.backends.factory import LogURL, make_backend
from reactive_rpc.backends.redis.relay import Relay
from reactive_rpc.cache.auditor import Auditor
from reactive_rpc.cache.freshness import Freshness
from reactive_rpc.cache.noted_reads import NotedReads
from reactive_rpc.cache.reader import Reader
from reactive_rpc.cache.store import MemoryStore
from reactive_rpc.changes.capture_options import Capture
from reactive_rpc.changes.captured_schema import TableCapture
from reactive_rpc.changes.log import Batch
from reactive_rpc.clock import Clock, IdSource, RandomIds, SystemClock
from reactive_rpc.dependencies.relations import Relations, parse_relations
from reactive_rpc.dependencies.topics import KEY, stored_key
from reactive_rpc.errors import DefinitionError, ReactiveRPCError, ServiceUnavailableError, reason_of
from reactive_rpc.health import Health, Part
from reactive_rpc.procedures.caller import BoundCaller, Caller
from reactive_rpc.procedures.clock_dependence import clock_dependencies
from reactive_rpc.procedures.context_isolation import isolated_context
from reactive_rpc.procedures.execution import Executor, Observer
from reactive_rpc.procedures.procedure import Procedure
from reactive_rpc.procedures.registry import Functions, Registry
from reactive_rpc.procedures.running_call import refuse_announcement
from reactive_rpc.procedures.topics import Topic, stored_keys, topic
from reactive_rpc.settings import Settings
from reactive_rpc.subscriptions.holdings import Bounds
from reactive_rpc.subscriptions.hub import Hub
from reactive_rpc.subscriptions.limits import Limits
from reactive_rpc.subscriptions.reauthorization import Reauthorization
from reactive_rpc.tasks import Tasks
from reactive_rpc.web.routing.body import BodyLimits
from reactive_rpc.web.routing.dispatcher import ProcedureEndpoint
from reactive_rpc.web.routing.health import HealthEndpoint
from reactive_rpc.web.routing.metrics import MetricsEndpoint
from reactive_rpc.web.routing.placement import check_placement
from reactive_rpc.web.routing.responses import told_by
from reactive_rpc.web.routing.router import DEFAULT_PREFIX, RPCRouter
from reactive_rpc.web.routing.shortcut import install_shortcut
from reactive_rpc.web.streams.acks import AckEndpoint
from reactive_rpc.web.streams.events import EventsEndpoint
from reactive_rpc.web.streams.poll import PollEndpoint
from reactive_rpc.web.streams.sets import SetsEndpoint, StoredSets
from reactive_rpc.web.streams.streaming import StreamAnswers
from reactive_rpc.web.streams.subscribing import Subscriber
from reactive_rpc.web.streams.tickets import TicketEndpoint, Tickets

__all__ = ["ReactiveRPC", "Report"]

logger = logging.getLogger(__name__)

PRUNE_EVERY_SECONDS = 60.0

STALLED_SECONDS = 5.0
"""A log that could not be read for so long is told as dead: `Health`."""

TRIGGERS = Capture()

IDLE = 4
"""How much less often the log is looked at while there are no streams to be told."""

NOT_OPEN = (
    "ReactiveRPC is not open: give its lifespan to the outermost application, FastAPI(lifespan=rpc.lifespan), as that "
    "of a mounted one is never run; combine_lifespans(rpc.lifespan, another) makes one of several. Without an "
    "application, await rpc.open() before and rpc.aclose() after"
)

VOUCHED_SECONDS = 3.0
"""A log that could not be read for so long may be missing commits: streams that stay open would vouch for the past."""

REVOKED = topic("reactive_rpc:revoked")
"""The topic by which workers hear whose streams must end; its keys are identities."""


@dataclass(frozen=True, slots=True)
class Report:
    """What stands, for `reactive-rpc doctor`.

    Attributes:
        database: the file, or the URL without a password.
        guarantee: what capture sees of whose writes.
        epoch: of its log.
        tables: `{table: how it is captured}`.
        procedures: `{path: procedure}`.
        copies: where values are copied and how long they stay; empty where they are nowhere.
        read: the tables of which values are copied now, as somebody reads them.
    """

    database: str
    guarantee: str
    epoch: str
    tables: Mapping[str, TableCapture]
    procedures: Mapping[str, Procedure[..., Any]]
    copies: Mapping[str, float]
    read: frozenset[str]


class ReactiveRPC:
    """Procedures on one database, ready for a FastAPI application.

        rpc = ReactiveRPC("sqlite+aiosqlite:///team.db", functions={"agents": {"get_all": get_all}})
        app = FastAPI(lifespan=rpc.lifespan)
        app.include_router(rpc.router)

    Args:
        database: its URL, `sqlite+aiosqlite:///team.db`, or, of a PostgreSQL database, the application's own
            `AsyncEngine`, whose `connect_args`, pool and events then hold for handlers (docs/how-to/engines.md).
        functions: `{"group": {"name": decorated function}}`, nested as deep as you like.
        context: a FastAPI dependency that makes the context, resolved once a request; raise an HTTPException 401 in it
            to refuse. Procedures with `scope="public"` do without.
        relations: `{"agent": ["organization", "message.from_agent_id"]}`: what a change also counts as a change of;
            "auto" for every foreign key, both ways.
        metadata: its tables are created at start where they are missing; leave it out where migrations do that.
        capture: how writes are seen, and what of them is copied beside the tables; see `Capture`.
        log_url: of a PostgreSQL database, its own address, where `database` leads through a pooler in transaction mode
            or only an engine can connect; a URL, or a function that returns one with a password that is good now.
        settings: read from the environment where left out.
        prefix: of the router's paths.

    Attributes:
        auditor: holds what is served against what the handlers answer, see `Settings.audit_share`.
        health: how each part is; what `/health` tells.

    Raises:
        DefinitionError: something is declared wrongly; the message names it and the way out.
    """

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
        settings: Settings | None = None,
        prefix: str = DEFAULT_PREFIX,
        clock: Clock | None = None,
        ids: IdSource | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.registry = Registry(functions, context=context)
        self._clock = clock or SystemClock()
        self._ids = ids or RandomIds()
        self._relations: Relations = relations or {}
        self._metadata = metadata
        self._captured_as = capture
        if isinstance(database, AsyncEngine):
            self.registry.require_coroutines()
        source = make_backend(
            database,
            settings=self.settings,
            ids=self._ids,
            capture=capture,
            metadata=metadata,
            log_url=log_url,
            clock=self._clock,
        )
        self._database, self._capture, self._log = source.database, source.capture, source.log
        self._board, self._relay, self._shared = source.board, source.relay, source.shared
        self._poll_interval_seconds, self._probes = source.poll_interval_seconds, source.probes
        self._announce = source.announce
        self._freshness = Freshness(
            self._log, clock=self._clock, max_age_seconds=2 * IDLE * self._poll_interval_seconds
        )
        store = MemoryStore(self.settings.cache_max_bytes)
        self._reader = Reader(
            self._log,
            store,
            freshness=self._freshness,
            shared=self._shared,
            clock=self._clock,
            new_context=isolated_context,
            reads=NotedReads(self._capture.note_reads, clock=self._clock),
        )
        strict = self.settings.environment == "development"
        self.auditor = Auditor(self._freshness, self._reader.drop, share=self.settings.audit_share, samples=strict)
        self._reader.auditor = self.auditor
        self._log.subscribe(self._reader.apply)
        self._executor = Executor(
            self._database,
            self._log,
            strict=strict,
            isolation=self.settings.isolation,
            clock=self._clock,
            told_by=told_by,
        )
        self._answers = source.answers
        self._caller = Caller(self.registry, self._executor, self._reader, answers=source.answers)
        self._hub = Hub(
            self._reader,
            self._log,
            clock=self._clock,
            ids=self._ids,
            ephemeral_store=self._board,
            max_events=self.settings.stream_queue_events,
            max_bytes=self.settings.stream_queue_bytes,
            bounds=Bounds(
                max_watched_queries=self.settings.max_watched_queries,
                max_watched_queries_per_identity=self.settings.max_watched_queries_per_identity,
                max_watched_bytes=self.settings.max_watched_bytes,
                max_watched_bytes_per_identity=self.settings.max_watched_bytes_per_identity,
            ),
            max_resumed_changes=self.settings.max_resumed_changes,
            ack_retry_seconds=self.settings.ack_retry_seconds,
            reconnect_milliseconds=self.settings.reconnect_milliseconds,
            heartbeat_seconds=self.settings.heartbeat_seconds,
        )
        self._guard = Reauthorization(self._hub, clock=self._clock, recheck_seconds=self.settings.recheck_seconds)
        self._log.subscribe(self._heed)
        self.health = Health()
        self._opened: AsyncExitStack | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._body_limits = BodyLimits(self.settings.max_body_bytes, self.settings.body_seconds)
        self.router = self._make_router(prefix, context)

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Open with the application and close with it: `FastAPI(lifespan=rpc.lifespan)`.

        Raises:
            DefinitionError: beside what `open` says, the router stands where it, or something else, is never reached.
        """
        check_placement(app)
        await self.open()
        install_shortcut(app, self.router)
        try:
            yield
        finally:
            await self.aclose()

    async def open(self) -> None:
        """Create missing tables, install or verify capture, check every declaration, begin to follow the log.

        Raises:
            DefinitionError: a declaration names a table that is not there.
            CaptureError: nothing can be captured, with the way out.
            ServiceUnavailableError: the database cannot be read.
            ReactiveRPCError: it is open already.
        """
        if self._loop is not None:
            raise ReactiveRPCError(
                "this ReactiveRPC is open already: open it once, by the lifespan of one application or by open(), "
                "and aclose() it before it is opened again"
            )
        self._loop = asyncio.get_running_loop()
        try:
            await self._open()
        except BaseException:
            self._loop = None
            raise

    async def _open(self) -> None:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._database.aclose)
            stack.push_async_callback(self._board.aclose)
            await self._database.check()
            await self._board.open()
            if self._metadata is not None:
                await self._database.make_tables(self._metadata)
            if self._relay is not None:
                await self._open_relayed(stack, self._relay)
            await self._log.open()
            stack.push_async_callback(self._log.aclose)
            self._reader.open()
            self.registry.check_tables(self._log.schema.tables)
            self._captured_as.check(self._log.schema.tables, self._log.schema.names)
            self._reader.relations = parse_relations(self._relations, self._log.schema.tables)
            await self._reader.note_reads([name for name in self._declared if name in self._log.schema.tables])
            stack.push_async_callback(self._reader.aclose)
            stack.push_async_callback(self.auditor.aclose)
            stack.push_async_callback(self._hub.aclose)
            for name, probe in {"log": self._log_health, "database": self._database_health, **self._probes}.items():
                self.health.add(name, probe)
                stack.callback(self.health.remove, name)
            tasks = self._tasks(stack)
            tasks.keep(self._tail(), "tail")
            tasks.keep(self._prune(), "prune")
            tasks.keep(self._guard.run(), "guard")
            self._opened = stack.pop_all()

    async def run_relay(self) -> None:
        """Do nothing but relay changes to Redis, until cancelled: what `reactive-rpc relay` runs.

        Raises:
            DefinitionError: there is no Redis to relay to.
        """
        if self._relay is None:
            raise DefinitionError("there is no Redis to relay to: set REACTIVE_RPC_REDIS_URL (redis://host:6379/0)")
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._database.aclose)
            self._tasks(stack).keep(self._prune(), "prune")
            await self._relay.run()

    async def aclose(self) -> None:
        """Close in reverse order; idempotent."""
        if self._opened is not None:
            opened, self._opened = self._opened, None
            try:
                await opened.aclose()
            finally:
                self._loop = None

    def _require_open(self) -> None:
        """Let nothing be served before this is open, after it is closed, or on another event loop.

        Raises:
            ServiceUnavailableError: it is not open here; the message says how it is opened.
        """
        if self._opened is None:
            raise ServiceUnavailableError(NOT_OPEN)
        if asyncio.get_running_loop() is not self._loop:
            raise ServiceUnavailableError(
                "ReactiveRPC was opened on another event loop, to which its connections belong: open it on the one "
                "that serves (in tests: by the application's lifespan or by open(), in the loop that makes the calls)"
            )

    def caller(self, ctx: object = None) -> BoundCaller:
        """Return what calls procedures in this process, on behalf of `ctx`, as the server would."""
        return BoundCaller(self._caller, ctx, require_open=self._require_open)

    async def try_clock(self, path: str, input: Mapping[str, Any], ctx: object) -> tuple[str, ...]:
        """Return what a query asks of Python's clock, which is moved: for checks alone."""
        return await clock_dependencies(self._caller.subscribe(path, input, ctx), self._reader)

    async def invalidate(
        self, topic: Topic, *, keys: Iterable[str] | None = None, db: AsyncSession | None = None
    ) -> None:
        """Say that a topic has changed: every worker hears it, as of any write, and drops what depends on it.

        Args:
            topic: made by `topic("weather")`.
            keys: of it; left out, all of it has changed.
            db: of a mutation, to make this a part of its transaction. Inside a mutation it must be given; outside of
                one, what is left out is a transaction of its own, applied here when this returns.

        Raises:
            DefinitionError: it is no topic, or a key is no text.
            InternalServerError: a query announces something, or a mutation without its `db`.
            ServiceUnavailableError: the database cannot be written.
        """
        table, stored = stored_keys(topic, keys)
        refuse_announcement(table, in_transaction=db is not None)
        if db is not None:
            await db.run_sync(lambda session: self._announce(session.connection(), table, stored))
            return
        self._require_open()
        async with self._database.write() as session:
            await session.run_sync(lambda session: self._announce(session.connection(), table, stored))
        await self._log.fresh()

    def invalidate_sync(self, topic: Topic, *, keys: Iterable[str] | None = None, db: Session) -> None:
        """Do as `invalidate`, in a mutation that is no coroutine."""
        table, stored = stored_keys(topic, keys)
        refuse_announcement(table, in_transaction=True)
        self._announce(db.connection(), table, stored)

    async def revoke(self, identity: str, *, db: AsyncSession | None = None) -> None:
        """End every stream of an identity, in every worker, with `revoked`.

        It takes back what is open. That the identity is not let in again is up to the context dependency: revoke the
        token first, or in the same transaction.

        Args:
            identity: the `identity` of the context that the streams were opened with.
            db: of a mutation, to make this a part of its transaction. Inside a mutation it must be given.

        Raises:
            DefinitionError: it is no text.
            InternalServerError: a query revokes, or a mutation without its `db`.
            ServiceUnavailableError: the database cannot be written.
        """
        if not isinstance(identity, str):
            raise DefinitionError(f"revoke({identity!r}): an identity is a str, as Context.identity has it")
        await self.invalidate(REVOKED, keys=[identity], db=db)

    def stats(self) -> dict[str, float]:
        """Return the counters since the start, and how much is held now; see `web/routing/metrics.py` for each."""
        return {
            **asdict(self._reader.stats),
            **asdict(self.auditor.stats),
            "events": self._hub.stats.events,
            "events_with_results": self._hub.stats.results,
            "events_acknowledged": self._hub.stats.acknowledged,
            "events_retried": self._hub.stats.retried,
            "events_abandoned": self._hub.stats.abandoned,
            "gaps": self._hub.stats.gaps,
            "streams_opened": self._hub.stats.opened,
            "streams_refused": self._hub.stats.refused,
            "streams_revoked": self._hub.stats.revoked,
            "mutations_repeated": self._executor.attempts.repeated,
            "log_polls": self._freshness.polls,
            "log_errors": self._freshness.errors,
            "flights": self._reader.flights,
            "indexed": self._reader.indexed,
            "cached": self._reader.cached_entries,
            "cached_bytes": self._reader.cached_bytes,
            "streams": self._hub.streams,
            "watched_queries": self._hub.watched_queries,
            "watched_bytes": self._hub.watched_bytes,
            "waiting_bytes": self._hub.waiting_bytes,
            "rechecks": self._guard.rechecks,
            "recheck_failures": self._guard.failures,
            "log_version": self._log.version,
            "log_age_seconds": self._freshness.age_seconds,
        }

    @property
    def _declared(self) -> set[str]:
        """The tables that count before anything is read: of relations and declarations."""
        declared = (procedure.dependencies or () for procedure in self.registry.values())
        return set(self._reader.relations).union(*declared)

    def report(self) -> Report:
        """Return what stands; the application must be open. The database is asked, and waited for."""
        schema = self._log.schema
        return Report(
            self._database.name,
            self._capture.guarantee,
            schema.epoch,
            schema.tables,
            self.registry,
            self._copies,
            self._capture.noted_reads(),
        )

    @property
    def _copies(self) -> dict[str, float]:
        """Where values are copied, and for how many seconds."""
        if self._captured_as.mode == "session":
            return {}
        kept = {"outbox": self.settings.outbox_retention_seconds}
        return kept if self._relay is None else kept | {"Redis": self.settings.redis_stream_seconds}

    def observe(self, observer: Observer, *, stop: bool = False) -> None:
        """Call `observer` with what each run of a query read, or `stop` calling it."""
        if stop:
            self._executor.observers.remove(observer)
        else:
            self._executor.observers.append(observer)

    def _make_router(self, prefix: str, context: Callable[..., Any] | None) -> RPCRouter:
        router = RPCRouter(prefix, context=context, ids=self._ids, require_open=self._require_open)
        limit = self._body_limits
        for path, procedure in self.registry.items():
            by_token = (procedure.cache.freshness or self.settings.freshness) == "token"
            endpoint = ProcedureEndpoint(path, procedure, self._caller, self._ids, body=limit, by_token=by_token)
            router.add_procedure(path, procedure, endpoint)
        self._add_events(router)
        router.add_health(
            HealthEndpoint("health", self._ids, self.health, question="ready"),
            HealthEndpoint("health/live", self._ids, self.health, question="live"),
            HealthEndpoint("health/ready", self._ids, self.health, question="ready"),
        )
        if self.settings.metrics:
            reader = self._reader
            router.add_metrics(
                MetricsEndpoint(
                    "metrics",
                    self._ids,
                    stats=self.stats,
                    by_procedure=lambda: {"hits": reader.hits_by_path, "misses": reader.misses_by_path},
                )
            )
        return router

    def _add_events(self, router: RPCRouter) -> None:
        settings, ids = self.settings, self._ids
        limit, max_queries = self._body_limits, settings.max_queries_per_stream
        sets = StoredSets(self._board, clock=self._clock, ttl_seconds=settings.set_seconds)
        tickets = Tickets(self._board, ttl_seconds=settings.ticket_seconds)
        limits = Limits(
            clock=self._clock,
            max_streams=settings.max_streams,
            max_streams_per_identity=settings.max_streams_per_identity,
            stream_opens_per_second=settings.stream_opens_per_second,
        )
        opener = Subscriber(
            self._hub,
            self._caller,
            sets=sets,
            tickets=tickets,
            limits=limits,
            guard=self._guard,
            body=limit,
            max_queries=max_queries,
        )
        answers = StreamAnswers(self._hub, drain_seconds=settings.drain_seconds)
        router.add_events(
            EventsEndpoint("events", opener, answers, ids),
            poll=PollEndpoint(
                "events/poll", opener, answers, ids, clock=self._clock, wait_seconds=settings.poll_wait_seconds
            ),
            sets=SetsEndpoint("events/sets", sets, limits, ids, body=limit, max_queries=max_queries),
            ticket=TicketEndpoint("events/ticket", tickets, limits, ids, body=limit),
            ack=AckEndpoint("events/ack", self._hub, ids, body=limit),
        )

    async def _open_relayed(self, stack: AsyncExitStack, relay: Relay) -> None:
        """Begin to relay, or to wait for one's turn, and to share results."""
        if self.settings.relay:
            self._tasks(stack).keep(relay.run(), "relay candidate")
        if self._shared is not None:
            stack.push_async_callback(self._shared.aclose)
            await self._shared.open()

    def _tasks(self, stack: AsyncExitStack) -> Tasks:
        """Return what runs tasks until the stack is closed."""
        tasks = Tasks(health=self.health)
        stack.push_async_callback(tasks.aclose)
        return tasks

    def _database_health(self) -> Part:
        trouble = self._database.trouble
        return Part(ok=trouble is None, detail=trouble or "")

    def _log_health(self) -> Part:
        age_seconds = self._freshness.age_seconds
        if age_seconds <= STALLED_SECONDS + 2 * IDLE * self._poll_interval_seconds:
            return Part(ok=True)
        if age_seconds == float("inf"):
            return Part(ok=False, detail="the log has not been read yet")
        return Part(ok=False, detail=f"the log was last read {age_seconds:.0f} s ago")

    def _heed(self, batch: Batch) -> None:
        """End the streams of those who were revoked; called by the log, after the reader."""
        if batch.flush is not None:
            self._guard.recheck_all()  # what came with the flush may have been a revocation
        keys = set()
        for change in batch.changes:
            if change.table == REVOKED.table:
                keys.add(None if change.after is None else change.after.get(KEY))
        if not keys:
            return
        self._guard.recheck_openings()
        identities = {stream.identity for stream in self._hub.open_streams if stream.identity is not None}
        for identity in identities:
            if None in keys or stored_key(identity) in keys:
                self._hub.revoke(identity, "the server was told to end this caller's streams")

    async def _tail(self) -> None:
        """Follow the log, so that streams are told of other processes' writes; outlive any failure, loudly."""
        failed = False
        while True:
            too_long = asyncio.get_running_loop().call_later(VOUCHED_SECONDS, self._stop_vouching)
            try:
                await self._freshness.look()
                failed = False
            except ReactiveRPCError as exc:
                if not failed:
                    logger.error("the log cannot be followed, retrying: %s", reason_of(exc))
                failed = True
                self._stop_vouching()
            except Exception:
                logger.exception("the log cannot be followed, retrying")
            finally:
                too_long.cancel()
            await self._clock.sleep(self._poll_interval_seconds * (1 if self._hub.streams else IDLE))

    def _stop_vouching(self) -> None:
        """End the streams where nobody knows what they ought to be told; clients say stale, and resume by cursor."""
        if self._freshness.age_seconds > VOUCHED_SECONDS:
            for stream in tuple(self._hub.open_streams):
                self._hub.end(stream)

    async def _prune(self) -> None:
        while True:
            await self._clock.sleep(PRUNE_EVERY_SECONDS)
            if self._relay is not None and self._relay.status.role != "leading":
                continue  # whoever reads the outbox for all prunes it
            try:
                await asyncio.to_thread(self._capture.prune, self.settings.outbox_retention_seconds)
                if self._answers is not None:
                    await self._database.work(self._answers.prune)
            except Exception:
                logger.exception("what is kept of writes could not be pruned, retrying later")
