"""A PostgreSQL database that an application reaches by an engine of its own.

Mutations run on the engine itself, so whatever its `connect_args`, pool and events make of a connection holds for them.
Queries run on another engine made from it, with the same way to connect and the same listeners, but with a pool, a
dialect and a cache of compiled statements of its own. Capture, log, locks and the ephemeral store have connections of
their own, by the engine's URL or by `log_url`. docs/internals/postgresql.md says why.
"""

from __future__ import annotations

from typing import NoReturn

from sqlalchemy import Engine, MetaData, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool, StaticPool

from reactive_rpc.backends.postgresql.database import DRIVERS, TABLES_LOCK, PostgreSQLDatabase
from reactive_rpc.backends.postgresql.url import Place
from reactive_rpc.compat.sqlalchemy import copy_engine, has_default_isolation_level
from reactive_rpc.errors import DefinitionError
from reactive_rpc.statements.faults import connecting, translated

__all__ = ["EngineDatabase", "refuse_engine"]


def refuse_engine(engine: AsyncEngine | Engine, *, has_log_url: bool, capture: str) -> None:
    """Let an engine pass with which every promise can be kept.

    Raises:
        DefinitionError: what is in the way, and the way out.
    """
    if isinstance(engine, Engine):
        raise DefinitionError(
            f"{engine!r} is no AsyncEngine: give its URL (engine.url), or make it with create_async_engine. "
            "The engine may go on beside it; what is written by it is seen"
        )
    if engine.dialect.name != "postgresql":
        raise DefinitionError(
            f"{engine!r}: an engine of your own is taken for PostgreSQL only. Give the URL: on {engine.dialect.name} "
            "queries and mutations need connections opened in ways of their own. The engine may go on beside it; "
            "what is written by it is seen"
        )
    if engine.url.drivername not in DRIVERS:
        raise DefinitionError(f"{engine!r}: use postgresql+asyncpg or postgresql+psycopg")
    if capture == "session":
        raise DefinitionError(f"Capture(mode={capture!r}) follows connections of its own: give the URL, not an engine")
    if isinstance(engine.pool, StaticPool):
        raise DefinitionError(
            f"{engine!r} has a StaticPool, one connection for all: queries and mutations need several"
        )
    options = engine.sync_engine.get_execution_options()
    if "isolation_level" in options or has_default_isolation_level(engine):
        raise DefinitionError(
            f"{engine!r} has an isolation_level, and transactions here have one of their own: leave it out, and say "
            "Settings(isolation=...) or define_reactive_function.mutation(isolation=...)"
        )
    if options.get("schema_translate_map"):
        raise DefinitionError(
            f"{engine!r} has a schema_translate_map: what is read could not be told by name. Use search_path"
        )
    if not has_log_url and len(engine.dialect.dispatch.do_connect):
        raise DefinitionError(
            f"{engine!r} connects by a do_connect listener, which the connections of capture and log have not: give "
            "log_url=, a URL, or a function that returns one with a password that is good now"
        )


class EngineDatabase(PostgreSQLDatabase):
    """Sessions on the database of an engine, which stays the application's: it is never disposed of here.

    Args:
        engine: which `refuse_engine` has let pass.
        direct: where capture and log connect.
        is_shared: whether it may lead through a pooler in transaction mode.
    """

    def __init__(
        self, engine: AsyncEngine, direct: Place, *, pool_size: int, pool_timeout_seconds: float, is_shared: bool
    ) -> None:
        super().__init__(engine.url, pool_size=pool_size, pool_timeout_seconds=pool_timeout_seconds, direct=direct)
        self._engine = engine
        self._is_shared = is_shared
        if isinstance(engine.pool, QueuePool):
            self.queries_at_once = max(1, engine.pool.size())

    async def make_tables(self, metadata: MetaData) -> None:
        """Create the tables that are missing, by the engine, one process at a time.

        Raises:
            ServiceUnavailableError: the database cannot be reached.
        """
        with translated(), connecting():
            async with self._engine.begin() as connection:
                await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": TABLES_LOCK})
                await connection.run_sync(metadata.create_all)

    async def aclose(self) -> None:
        """Close the connections of queries; the engine's own are the application's. Idempotent."""
        vars(self).pop("_async_writer", None)
        await super().aclose()
        vars(self).pop("_async_reader", None)

    def _make_async_engine(self, *, writes: bool) -> AsyncEngine:
        if writes:
            return self._engine
        engine = copy_engine(self._engine.sync_engine)
        self._prepare(engine, writes=False)
        return AsyncEngine(engine)

    def _make_engine(self, *, writes: bool) -> NoReturn:
        raise DefinitionError("an engine of your own serves coroutines: write the handler as async def")
