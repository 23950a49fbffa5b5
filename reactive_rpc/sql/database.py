"""What a database is to the rest: fresh sessions for queries and for mutations, async and sync.

Every session is bound to a connection whose transaction belongs to the database. In a handler, `commit()` and
`rollback()` end a savepoint of it (SQLAlchemy's `join_transaction_mode`); the one real COMMIT comes when the handler
has returned.

Three things differ between databases, and stand in the subclasses: how a connection is made that cannot write, how a
read transaction begins and proves that its snapshot is late enough, and how it is found out at its end whether more was
read than the recorder was told.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cached_property
from itertools import count
from typing import Any, Literal

from sqlalchemy import Connection, Engine, MetaData
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.ext.asyncio import AsyncSession as SQLAlchemyAsyncSession
from sqlalchemy.orm import Session as SQLAlchemySession
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc.errors import ServiceUnavailableError
from reactive_rpc.sql.faults import translated
from reactive_rpc.sql.recorder import RECORDER_OPTION, Recorder, install

__all__ = ["Database", "session_mode"]

SNAPSHOT_ATTEMPTS = 10
"""How many connections a read tries until one shows a snapshot that is late enough."""

_WRITING: dict[str, Any] = {"expire_on_commit": False, "join_transaction_mode": "create_savepoint"}
"""A mutation's session works in savepoints of the one transaction, so a handler may roll back and go on."""


class Database(ABC):
    """Sessions on one database. Engines are made when they are first needed.

    Attributes:
        name: the database without a password, for people.
    """

    name: str

    @abstractmethod
    def create_tables(self, metadata: MetaData) -> None:
        """Create the tables that are missing, as `metadata.create_all` does. Blocks.

        Raises:
            ServiceUnavailableError: the database cannot be reached, or is locked.
        """

    @abstractmethod
    def _make_async_engine(self, *, writes: bool) -> AsyncEngine:
        """Return an engine; one that does not write must not be able to."""

    @abstractmethod
    def _make_engine(self, *, writes: bool) -> Engine:
        """Return an engine for handlers that are no coroutines."""

    @abstractmethod
    def _begin_read(self, connection: Connection, recorder: Recorder, at_least: int) -> bool:
        """Begin a read transaction on one snapshot; tell whether it shows what it must."""

    @abstractmethod
    def _end_read(self, connection: Connection, recorder: Recorder) -> None:
        """Hold what the database ran against what was recorded. Asked also after an error, which is a result too."""

    @asynccontextmanager
    async def read(self, recorder: Recorder, *, at_least: int) -> AsyncIterator[AsyncSession]:
        """Give a fresh read-only session on one snapshot; `recorder` sees every statement.

        Args:
            recorder: of this call.
            at_least: the version that the snapshot must show.

        Raises:
            ServiceUnavailableError: the database cannot be reached, or shows only earlier states.
        """
        with translated():
            connection = await self._async_reader.connect()
            try:
                for attempt in count(1):
                    if await connection.run_sync(self._start_read, recorder, at_least):
                        break
                    _give_up_after(attempt)
                    connection = await self._replaced(connection)
                async with AsyncSession(connection, expire_on_commit=False) as session:
                    yield session
            finally:
                await connection.run_sync(self._end_read, recorder)
                await connection.close()

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """Give a fresh session in one transaction: committed on leaving, rolled back on an exception."""
        with translated():
            async with (
                self._async_writer.begin() as connection,
                AsyncSession(connection, **_WRITING) as session,
            ):
                yield session
                await session.commit()

    @contextmanager
    def read_sync(self, recorder: Recorder, *, at_least: int) -> Iterator[Session]:
        """Do as `read`, in the calling thread."""
        with translated():
            connection = self._reader.connect()
            try:
                for attempt in count(1):
                    if self._start_read(connection, recorder, at_least):
                        break
                    _give_up_after(attempt)
                    connection.invalidate()
                    connection.close()
                    connection = self._reader.connect()
                with Session(connection, expire_on_commit=False) as session:
                    yield session
            finally:
                self._end_read(connection, recorder)
                connection.close()

    @contextmanager
    def write_sync(self) -> Iterator[Session]:
        """Do as `write`, in the calling thread."""
        with (
            translated(),
            self._writer.begin() as connection,
            Session(connection, **_WRITING) as session,
        ):
            yield session
            session.commit()

    async def aclose(self) -> None:
        """Close every connection; idempotent. Connections are made anew when asked for again."""
        made = vars(self)
        for name in ("_async_reader", "_async_writer"):
            if name in made:
                await made[name].dispose()
        for name in ("_reader", "_writer"):
            if name in made:
                made[name].dispose()

    @cached_property
    def _async_reader(self) -> AsyncEngine:
        engine = self._make_async_engine(writes=False)
        install(engine.sync_engine)
        return engine

    @cached_property
    def _async_writer(self) -> AsyncEngine:
        return self._make_async_engine(writes=True)

    @cached_property
    def _reader(self) -> Engine:
        engine = self._make_engine(writes=False)
        install(engine)
        return engine

    @cached_property
    def _writer(self) -> Engine:
        return self._make_engine(writes=True)

    def _start_read(self, connection: Connection, recorder: Recorder, at_least: int) -> bool:
        connection.execution_options(**{RECORDER_OPTION: recorder})
        return self._begin_read(connection, recorder, at_least)

    async def _replaced(self, connection: AsyncConnection) -> AsyncConnection:
        """Throw a connection away that shows the past, and return another."""
        await connection.invalidate()
        await connection.close()
        return await self._async_reader.connect()


def _give_up_after(attempt: int) -> None:
    """Let a read try again on another connection, so often.

    Raises:
        ServiceUnavailableError: fresh connections see the past too: the database was put back to an earlier state.
    """
    if attempt == SNAPSHOT_ATTEMPTS:
        raise ServiceUnavailableError("the database shows an earlier state than before: try again")


def session_mode(annotation: object) -> Literal["async", "sync"] | None:
    """Tell which kind of session class `annotation` is; None where it is none."""
    if not isinstance(annotation, type):
        return None
    if issubclass(annotation, SQLAlchemyAsyncSession):
        return "async"
    return "sync" if issubclass(annotation, SQLAlchemySession) else None
