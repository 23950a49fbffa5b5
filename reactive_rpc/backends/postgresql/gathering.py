"""A connection of asyncpg's that sends statements without an answer along with others, in one round trip.

What cleans the session goes before BEGIN, the savepoint of a mutation's session after it, and its release before
COMMIT. docs/internals/postgresql.md says why each is where it is ("Round trips of a mutation").
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # it ships no types
from sqlalchemy import Connection, Engine, event

from reactive_rpc.compat.sqlalchemy import begin_now, has_begun

__all__ = ["GatheringConnection", "gather_savepoints"]


class GatheringConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg is not typed
    """Sends a statement along with those that were left with it.

    Attributes:
        cleaning: the statements that clean the session before the next transaction; empty where nothing is to be.
        savepoint: the name of one that is set as the transaction begins; empty where none is.
        released: the name of one that is to be released, before COMMIT at the latest; empty where none is.
    """

    cleaning: str = ""
    savepoint: str = ""
    released: str = ""

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:  # noqa: ASYNC109  # asyncpg's
        """Do as asyncpg does."""
        if args or not (self.cleaning or self.savepoint or self.released):
            return str(await super().execute(query, *args, timeout=timeout))
        if query.startswith("BEGIN"):
            return await self._begin(query, timeout)
        if query.startswith("COMMIT"):
            return await self._commit(query, timeout)
        if query.startswith("ROLLBACK;"):
            self.released = ""
        return str(await super().execute(query, timeout=timeout))

    async def _begin(self, query: str, timeout_seconds: float | None) -> str:
        cleaning, self.cleaning = self.cleaning, ""
        savepoint, self.savepoint = self.savepoint, ""
        before = f"BEGIN; {cleaning}; COMMIT; " if cleaning else ""
        after = f" SAVEPOINT {savepoint}" if savepoint else ""
        try:
            return str(await super().execute(f"{before}{query}{after}", timeout=timeout_seconds))
        except BaseException:
            self.terminate()  # what it holds is not known, and nobody else may be given it
            raise

    async def _commit(self, query: str, timeout_seconds: float | None) -> str:
        released, self.released = self.released, ""
        before = f"RELEASE SAVEPOINT {released}; " if released else ""
        try:
            return str(await super().execute(f"{before}{query}", timeout=timeout_seconds))
        except Exception:
            # INVARIANT (no COMMIT without its RELEASE): a transaction that has failed refuses the release, and the rest
            # of the message with it. COMMIT alone would roll it back without a word.
            if self.is_in_transaction():
                with suppress(Exception):
                    await super().execute("ROLLBACK")
            raise


def gather_savepoints(engine: Engine) -> None:
    """Have an engine of ours, on asyncpg, set the first savepoint with BEGIN, and release the last with COMMIT."""
    dialect: Any = engine.dialect  # whose methods are not meant to be exchanged, by its types
    set_alone, release_alone = dialect.do_savepoint, dialect.do_release_savepoint
    roll_back_to = dialect.do_rollback_to_savepoint

    def set_savepoint(connection: Connection, name: str) -> None:
        driver = _driver(connection)
        if not has_begun(connection):
            driver.savepoint = name
            begin_now(connection)
            return
        if driver.released:
            # Or a handler that commits in a loop would nest its savepoints without end.
            released, driver.released = driver.released, ""
            release_alone(connection, released)
        set_alone(connection, name)

    def release(connection: Connection, name: str) -> None:
        # If one within it still waits, that is released along with it.
        _driver(connection).released = name

    def rollback_to(connection: Connection, name: str) -> None:
        _driver(connection).released = ""  # it was set after this one, so it ends with what is rolled back
        roll_back_to(connection, name)

    def begin(connection: Connection) -> None:
        _driver(connection).released = ""

    dialect.do_savepoint, dialect.do_release_savepoint = set_savepoint, release
    dialect.do_rollback_to_savepoint = rollback_to
    event.listen(engine, "begin", begin)


def _driver(connection: Connection) -> GatheringConnection:
    driver = connection.connection.driver_connection
    if not isinstance(driver, GatheringConnection):
        raise TypeError(f"{driver!r} is not of an engine that gathers")
    return driver
