"""Announcing topics: in a mutation's transaction, or in one of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from reactive_rpc.changes.announcement import Announce
from reactive_rpc.changes.log import Log
from reactive_rpc.procedures.running_call import refuse_announcement
from reactive_rpc.procedures.topics import Topic, stored_keys
from reactive_rpc.statements.database import Database

__all__ = ["Announcer"]


class Announcer:
    """Announces topics on one database, see `ReactiveRPC.invalidate`.

    Args:
        database: of the transactions of their own.
        log: applies what they announce.
        announce: writes an announcement.
        require_open: raises if nothing can be written.
    """

    def __init__(self, database: Database, log: Log, *, announce: Announce, require_open: Callable[[], None]) -> None:
        self._database = database
        self._log = log
        self._announce = announce
        self._require_open = require_open

    async def invalidate(self, topic: Topic, *, keys: Iterable[str] | None, db: AsyncSession | None) -> None:
        """Announce in the transaction of `db`; None is one of its own, applied here when this returns.

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

        async def announce(session: AsyncSession) -> Callable[[], None]:
            return lambda: self._announce(session.sync_session.connection(), table, stored)

        await self._database.write(announce)
        await self._log.sync_to_head()

    def invalidate_now(self, topic: Topic, *, keys: Iterable[str] | None, db: Session) -> None:
        """Do as `invalidate` in a transaction that exists."""
        table, stored = stored_keys(topic, keys)
        refuse_announcement(table, in_transaction=True)
        self._announce(db.connection(), table, stored)
