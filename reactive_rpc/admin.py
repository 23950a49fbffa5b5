"""`rpc.admin`: what whoever runs, watches or tests a server asks of it, and no caller does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, Protocol

from sqlalchemy import MetaData
from sqlalchemy.engine import URL

from reactive_rpc.backends.factory import Backend, make_backend
from reactive_rpc.cache.auditor import Auditor
from reactive_rpc.cache.reader import Reader
from reactive_rpc.cache.result import HandlerOutcome
from reactive_rpc.changes.capture_options import Capture
from reactive_rpc.changes.pruning import Pruner
from reactive_rpc.clock import RandomIds
from reactive_rpc.errors import DefinitionError
from reactive_rpc.health import Health
from reactive_rpc.lifecycle import Lifecycle
from reactive_rpc.procedures.caller import Caller
from reactive_rpc.procedures.calls import Calls
from reactive_rpc.procedures.clock_dependence import clock_dependencies
from reactive_rpc.procedures.execution import Executor, Observer
from reactive_rpc.procedures.ongoing_calls import OngoingCalls
from reactive_rpc.procedures.undeclared_reads import undeclared_reads
from reactive_rpc.report import Report
from reactive_rpc.settings import Settings
from reactive_rpc.statements.recorder import Trace
from reactive_rpc.tasks import Tasks

__all__ = ["Admin", "Counted"]


class Counted(Protocol):
    """A part that keeps counters."""

    def counters(self) -> Mapping[str, float]:
        """Return them as `/metrics` shows them: `{name: value}`."""
        ...


class Admin:
    """Opening and closing, counters, health and observation of one `ReactiveRPC`, as `rpc.admin`.

        await rpc.admin.open()
        print(rpc.admin.stats()["hits"])
        await rpc.admin.aclose()

    Attributes:
        settings: as they were read.
        health: how each part is, as `/health` answers it.
        auditor: holds served results against those of the handlers, see `Settings.audit_share`.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        health: Health,
        auditor: Auditor,
        lifecycle: Lifecycle,
        backend: Backend,
        capture: Capture,
        metadata: MetaData | None,
        pruner: Pruner,
        calls: Calls,
        ongoing: OngoingCalls,
        reader: Reader,
        executor: Executor,
        counted: Sequence[Counted],
    ) -> None:
        self.settings = settings
        self.health = health
        self.auditor = auditor
        self._lifecycle = lifecycle
        self._backend = backend
        self._captured_as = capture
        self._metadata = metadata
        self._pruner = pruner
        self._calls = calls
        self._ongoing = ongoing
        self._reader = reader
        self._executor = executor
        self._counted = counted

    async def open(self) -> None:
        """Create missing tables, install or verify capture, check every declaration, begin to follow the log.

        `rpc.lifespan` does so for an application; this is for programs without one.

        Raises:
            DefinitionError: a declaration names a table that is not there.
            CaptureError: nothing can be captured, with the way out.
            ServiceUnavailableError: the database cannot be read.
            ReactiveRPCError: it is open already.
        """
        await self._lifecycle.open()

    async def aclose(self) -> None:
        """Close in reverse order; idempotent."""
        await self._lifecycle.aclose()

    def stats(self) -> dict[str, float]:
        """Return the counters since the start, and how much is held now; see `web/routing/metrics.py` for each."""
        return {name: value for part in self._counted for name, value in part.counters().items()}

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Call `observer` with the tables that each run of a query read; return a function that ends it.

        Args:
            observer: called in the event loop; it must neither await nor raise.
        """
        return self._executor.observe(observer)

    def report(self) -> Report:
        """Return the report of `doctor`; the application must be open. The database is asked, and waited for."""
        backend = self._backend
        schema = backend.log.schema
        return Report(
            backend.database.name,
            backend.capture.guarantee,
            schema.epoch,
            schema.tables,
            self._calls.registry,
            _copies(backend, self._captured_as, self.settings),
            backend.capture.noted_reads(),
            undeclared_reads(self._calls.registry, self._calls.registry.context),
        )

    def backend_on(self, url: str | URL) -> Backend:
        """Return the parts of another address of the database, whose capture installs for this application.

        Args:
            url: by which somebody connects who may create triggers.

        Raises:
            DefinitionError: it is no URL of a supported database.
        """
        capture = replace(self._captured_as, mode="triggers")
        return make_backend(url, settings=self.settings, ids=RandomIds(), capture=capture, metadata=self._metadata)

    async def run_relay(self) -> None:
        """Do nothing but relay changes to Redis, until cancelled: `reactive-rpc relay` runs this.

        Raises:
            DefinitionError: there is no Redis to relay to.
        """
        backend = self._backend
        if backend.relay is None:
            raise DefinitionError("there is no Redis to relay to: set REACTIVE_RPC_REDIS_URL (redis://host:6379/0)")
        async with AsyncExitStack() as stack:
            stack.push_async_callback(backend.database.aclose)
            tasks = Tasks(health=self.health)
            stack.push_async_callback(tasks.aclose)
            tasks.keep(self._pruner.run(), "prune")
            await backend.relay.run()

    async def try_call(self, path: str, input: Mapping[str, Any], ctx: object) -> Any:
        """Call the procedure at `path` as a client does, on behalf of `ctx`: for checks alone.

        Args:
            path: of the procedure.
            input: as a client gives it.
            ctx: None is nobody.
        """
        caller = Caller(self._calls, self._ongoing, ctx, require_open=self._lifecycle.require_open)
        return await caller.call(path, self._calls.registry.find(path), input)

    async def trace_query(self, path: str, input: Mapping[str, Any], *, ctx: object) -> tuple[HandlerOutcome, Trace]:
        """Compute a query, whatever is stored, and return the outcome and the statements that it ran: for tools alone.

        Args:
            path: of the query.
            input: as a client gives it.
            ctx: None is nobody.
        """
        trace: Trace = []
        call = await self._calls.subscribe(path, input, ctx)
        return await call.compute(trace=trace), trace

    async def try_clock(self, path: str, input: Mapping[str, Any], ctx: object) -> tuple[str, ...]:
        """Return in which way a query depends on Python's clock, which is moved for that: for checks alone.

        Args:
            path: of the query.
            input: as a client gives it.
            ctx: None is nobody.
        """
        return await clock_dependencies(await self._calls.subscribe(path, input, ctx), self._reader)


def _copies(backend: Backend, capture: Capture, settings: Settings) -> dict[str, float]:
    """Return where values are copied, and for how many seconds."""
    if capture.mode == "session":
        return {}
    kept = {"outbox": settings.outbox_retention_seconds}
    return kept if backend.relay is None else kept | {"Redis": settings.redis_stream_seconds}
