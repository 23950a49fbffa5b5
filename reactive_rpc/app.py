"""The composition root: one object that holds the server's parts, in order, and opens and closes them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

from fastapi import FastAPI
from sqlalchemy import MetaData
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from reactive_rpc.cache.auditor import Auditor
from reactive_rpc.cache.freshness import Freshness
from reactive_rpc.cache.reader import Reader
from reactive_rpc.cache.store import MemoryStore
from reactive_rpc.capture.schema import TableCapture
from reactive_rpc.clock import Clock, IdSource, RandomIds, SystemClock
from reactive_rpc.delivery.hub import Hub
from reactive_rpc.errors import ReactiveRPCError
from reactive_rpc.reactive.relations import Relations, parse_relations
from reactive_rpc.rpc.caller import BoundCaller, Caller
from reactive_rpc.rpc.execution import Executor, Observer
from reactive_rpc.rpc.procedure import Procedure
from reactive_rpc.rpc.registry import Functions, Registry
from reactive_rpc.rpc.running import refuse_announcement
from reactive_rpc.rpc.topics import Topic, stored_keys
from reactive_rpc.settings import Settings
from reactive_rpc.sources import CaptureMode, make_source
from reactive_rpc.web.dispatcher import ProcedureEndpoint
from reactive_rpc.web.events import AckEndpoint, EventsEndpoint, SetsEndpoint, StoredSets
from reactive_rpc.web.metrics import MetricsEndpoint
from reactive_rpc.web.router import RPCRouter
from reactive_rpc.web.shortcut import install_shortcut

__all__ = ["ReactiveRPC", "Report"]

logger = logging.getLogger(__name__)

PRUNE_EVERY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Report:
    """What stands, for `reactive-rpc doctor`.

    Attributes:
        database: the file, or the URL without a password.
        guarantee: what capture sees of whose writes.
        epoch: of its log.
        tables: `{table: how it is captured}`.
        procedures: `{path: procedure}`.
    """

    database: str
    guarantee: str
    epoch: str
    tables: Mapping[str, TableCapture]
    procedures: Mapping[str, Procedure[..., Any]]


class ReactiveRPC:
    """Procedures on one database, ready for a FastAPI application.

        rpc = ReactiveRPC("sqlite+aiosqlite:///team.db", functions={"agents": {"get_all": get_all}})
        app = FastAPI(lifespan=rpc.lifespan)
        app.include_router(rpc.router)

    Args:
        url: of the database: `sqlite+aiosqlite:///team.db`.
        functions: `{"group": {"name": decorated function}}`, nested as deep as you like.
        context: a FastAPI dependency that makes the context, resolved once a request; raise an HTTPException 401 in it
            to refuse. Procedures with `scope="public"` do without.
        relations: `{"agent": ["organization", "message.from_agent_id"]}`: what a change also counts as a change of;
            "auto" for every foreign key, both ways.
        metadata: its tables are created at start where they are missing; leave it out where migrations do that.
        capture: how writes are seen: `triggers` in the database, which see every writer, or, where the database may not
            have triggers, `session`: what the mutations of this process write, and nothing else.
        settings: read from the environment where left out.
        prefix: of the router's paths.

    Attributes:
        auditor: holds what is served against what the handlers answer, see `Settings.audit_share`.

    Raises:
        DefinitionError: something is declared wrongly; the message names it and the way out.
    """

    def __init__(
        self,
        url: str | URL,
        *,
        functions: Functions,
        context: Callable[..., Any] | None = None,
        relations: Relations | None = None,
        metadata: MetaData | None = None,
        capture: CaptureMode = "triggers",
        settings: Settings | None = None,
        prefix: str = "/rpc",
        clock: Clock | None = None,
        ids: IdSource | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.registry = Registry(functions, has_context=context is not None)
        self._clock = clock or SystemClock()
        self._ids = ids or RandomIds()
        self._relations: Relations = relations or {}
        self._metadata = metadata
        source = make_source(url, settings=self.settings, ids=self._ids, capture=capture)
        self._database, self._capture, self._log = source.database, source.capture, source.log
        self._announce = source.announce
        self._freshness = Freshness(
            self._log, clock=self._clock, max_age_seconds=2 * self.settings.poll_interval_seconds
        )
        self._reader = Reader(self._log, MemoryStore(self.settings.cache_max_bytes), freshness=self._freshness)
        self.auditor = Auditor(self._freshness, self._reader.drop, share=self.settings.audit_share)
        self._reader.auditor = self.auditor
        self._log.subscribe(self._reader.apply)
        strict = self.settings.environment == "development"
        self._executor = Executor(self._database, self._log, strict=strict)
        self._caller = Caller(self.registry, self._executor, self._reader)
        self._hub = Hub(
            self._reader,
            self._log,
            clock=self._clock,
            ids=self._ids,
            max_events=self.settings.stream_queue_events,
            heartbeat_seconds=self.settings.heartbeat_seconds,
        )
        self._opened: AsyncExitStack | None = None
        self.router = self._make_router(prefix, context)

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Open with the application and close with it: `FastAPI(lifespan=rpc.lifespan)`."""
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
        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._database.aclose)
            if self._metadata is not None:
                await asyncio.to_thread(self._database.create_tables, self._metadata)
            await self._log.open()
            stack.push_async_callback(self._log.aclose)
            self.registry.check_tables(self._log.schema.tables)
            self._reader.relations = parse_relations(self._relations, self._log.schema.tables)
            stack.push_async_callback(self._reader.aclose)
            stack.push_async_callback(self.auditor.aclose)
            stack.push_async_callback(self._hub.aclose)
            self._supervise(stack, "tail", self._tail())
            self._supervise(stack, "prune", self._prune())
            self._opened = stack.pop_all()

    async def aclose(self) -> None:
        """Close in reverse order; idempotent."""
        if self._opened is not None:
            opened, self._opened = self._opened, None
            await opened.aclose()

    def caller(self, ctx: object = None) -> BoundCaller:
        """Return what calls procedures in this process, on behalf of `ctx`, as the server would."""
        return BoundCaller(self._caller, ctx)

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
        async with self._database.write() as session:
            await session.run_sync(lambda session: self._announce(session.connection(), table, stored))
        await self._log.fresh()

    def invalidate_sync(self, topic: Topic, *, keys: Iterable[str] | None = None, db: Session) -> None:
        """Do as `invalidate`, in a mutation that is no coroutine."""
        table, stored = stored_keys(topic, keys)
        refuse_announcement(table, in_transaction=True)
        self._announce(db.connection(), table, stored)

    def stats(self) -> dict[str, float]:
        """Return the counters since the start, and how much is held now; `web/metrics.py` says what each means."""
        return {
            **asdict(self._reader.stats),
            **asdict(self.auditor.stats),
            "log_polls": self._freshness.polls,
            "log_errors": self._freshness.errors,
            "flights": self._reader.flights,
            "indexed": self._reader.indexed,
            "cached": self._reader.cached_entries,
            "cached_bytes": self._reader.cached_bytes,
            "streams": self._hub.streams,
            "watches": self._hub.watches,
            "log_version": self._log.version,
            "log_age_seconds": self._freshness.age_seconds,
        }

    def report(self) -> Report:
        """Return what stands; the application must be open."""
        schema = self._log.schema
        return Report(self._database.name, self._capture.guarantee, schema.epoch, schema.tables, self.registry)

    def observe(self, observer: Observer, *, stop: bool = False) -> None:
        """Call `observer` with what each run of a query read, or `stop` calling it."""
        if stop:
            self._executor.observers.remove(observer)
        else:
            self._executor.observers.append(observer)

    def _make_router(self, prefix: str, context: Callable[..., Any] | None) -> RPCRouter:
        router = RPCRouter(prefix, context=context, ids=self._ids)
        limit = self.settings.max_body_bytes
        for path, procedure in self.registry.items():
            by_token = (procedure.freshness or self.settings.freshness) == "token"
            endpoint = ProcedureEndpoint(
                path, procedure, self._caller, self._ids, max_body_bytes=limit, by_token=by_token
            )
            router.add_procedure(path, procedure, endpoint)
        sets = StoredSets(16 * 1024 * 1024)
        router.add_events(
            EventsEndpoint(
                "events",
                self._hub,
                self._caller,
                sets,
                self._ids,
                max_body_bytes=limit,
                max_queries=self.settings.max_queries_per_stream,
            ),
            SetsEndpoint(
                "events/sets",
                sets,
                self._ids,
                max_body_bytes=limit,
                max_queries=self.settings.max_queries_per_stream,
            ),
            AckEndpoint("events/ack", self._hub, self._ids, max_body_bytes=limit),
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

    def _supervise(self, stack: AsyncExitStack, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=f"reactive_rpc {name}")

        async def stop() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        stack.push_async_callback(stop)

    async def _tail(self) -> None:
        """Follow the log, so that streams are told of other processes' writes; outlive any failure, loudly."""
        failed = False
        while True:
            try:
                await self._freshness.look()
                failed = False
            except ReactiveRPCError as exc:
                if not failed:
                    logger.error("the log cannot be followed, retrying: %s", exc.__cause__ or exc)
                failed = True
            except Exception:
                logger.exception("the log cannot be followed, retrying")
            await self._clock.sleep(self.settings.poll_interval_seconds)

    async def _prune(self) -> None:
        while True:
            await self._clock.sleep(PRUNE_EVERY_SECONDS)
            try:
                await asyncio.to_thread(self._capture.prune, self.settings.outbox_retention_seconds)
            except Exception:
                logger.exception("the outbox could not be pruned, retrying later")
