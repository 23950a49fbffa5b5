"""A database as the rest sees it: fresh sessions for queries and for mutations, async and sync.

Every session is bound to a connection whose transaction belongs to the database. In a handler, `commit()` and
`rollback()` end a savepoint of it (SQLAlchemy's `join_transaction_mode`); the one real COMMIT comes when the handler
has returned.

Three things differ between databases, and stand in the subclasses: how a connection is made that cannot write, how a
read transaction begins and proves that its snapshot is late enough, and how it is found out at its end whether more was
read than the recorder was told.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cached_property
from itertools import count
from time import monotonic
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Engine, MetaData
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.ext.asyncio import AsyncSession as SQLAlchemyAsyncSession
from sqlalchemy.orm import Session as SQLAlchemySession
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc.errors import ServiceUnavailableError
from reactive_rpc.statements.faults import ImpairedError, connecting, translated
from reactive_rpc.statements.isolation import Isolation, level_of
from reactive_rpc.statements.recorder import RECORDER_OPTION, Recorder, install
from reactive_rpc.statements.sessions import WRITING, AnyAsyncSession, AnySession
from reactive_rpc.statements.text_reads import Oracle
from reactive_rpc.tasks import shielded, to_its_end

__all__ = ["Database", "WriteObserver"]

T = TypeVar("T")

SNAPSHOT_ATTEMPTS = 10
"""How many connections a read tries until one shows a snapshot that is late enough."""


ERROR_SECONDS = 30.0
"""How long a server says that it is not ready once a write has failed as its disk is full, for example."""


class WriteObserver(Protocol):
    """Follows the mutations of this process, if no triggers do."""

    def listen(self, engine: Engine) -> None:
        """Follow an engine that writes; called before its first mutation."""
        ...

    def begin(self, connection: Connection, session: SQLAlchemySession) -> Callable[[BaseException | None], None]:
        """Note the writes from here on; the result is called when the transaction has ended, with its error."""
        ...


class Database(ABC):
    """Sessions on one database. Engines are made when they are first needed.

    Attributes:
        name: the database without a password, for people.
        dialect: whose types images are read with, by its name in SQLAlchemy.
        queries_at_once: how many queries should run at a time, not counting those inside of others.
        oracle: tells the reads of a text; None if nobody can.
    """

    name: str
    dialect: str
    queries_at_once: int = 32
    oracle: Oracle | None = None
    _observer: WriteObserver | None = None
    _error: tuple[str, float] = ("", 0.0)

    @abstractmethod
    def create_tables(self, metadata: MetaData) -> None:
        """Create the tables that are missing, as `metadata.create_all` does. Blocks.

        Raises:
            ServiceUnavailableError: the database cannot be reached, or is locked.
        """

    async def check(self) -> None:
        """Refuse a database that cannot work, if that shows only once connected; called before anything else is asked.

        Raises:
            DefinitionError: names the fault, and the way out.
            ServiceUnavailableError: the database cannot be reached.
        """
        return

    async def make_tables(self, metadata: MetaData) -> None:
        """Do as `create_tables`, without blocking."""
        await asyncio.to_thread(self.create_tables, metadata)

    @abstractmethod
    def _make_async_engine(self, *, writes: bool) -> AsyncEngine:
        """Return an engine; one that does not write must not be able to."""

    @abstractmethod
    def _make_engine(self, *, writes: bool) -> Engine:
        """Return an engine for handlers that are no coroutines."""

    @abstractmethod
    def _begin_read(self, connection: Connection, recorder: Recorder, at_least: int) -> bool:
        """Begin a read transaction on one snapshot, note its version, and tell whether it shows that version."""

    @abstractmethod
    def _end_read(self, connection: Connection, recorder: Recorder) -> None:
        """Compare the database's statements with those recorded; also after an error, which is a result too."""

    @asynccontextmanager
    async def read(
        self, recorder: Recorder, *, at_least: int, session_class: AnyAsyncSession = AsyncSession
    ) -> AsyncIterator[SQLAlchemyAsyncSession]:
        """Give a fresh read-only session on one snapshot; `recorder` sees every statement.

        Args:
            recorder: of this call.
            at_least: the version that the snapshot must show.
            session_class: of the session, see `statements/sessions.py`.

        Raises:
            ServiceUnavailableError: the database cannot be reached, or shows only earlier states.
        """
        with translated(writes=False):
            with connecting():
                connection = await self._async_reader.connect()
            try:
                for attempt in count(1):
                    if await connection.run_sync(self._start_read, recorder, at_least):
                        break
                    _give_up_after(attempt)
                    connection = await self._replaced(connection)
                async with session_class(connection, expire_on_commit=False) as session:
                    yield session
            finally:
                try:
                    await connection.run_sync(self._end_read, recorder)
                finally:
                    await connection.close()

    def _transaction_options(self, isolation: Isolation) -> dict[str, Any]:
        """Return the options that isolate a connection's next transaction so, as SQLAlchemy's execution options."""
        return {"isolation_level": level_of(isolation)}

    @contextmanager
    def _handling(self) -> Iterator[None]:
        """Say more of an error that a mutation's handler ends with, while its transaction is open."""
        yield

    @asynccontextmanager
    async def write(
        self, session_class: AnyAsyncSession = AsyncSession, *, isolation: Isolation = "read_committed"
    ) -> AsyncIterator[SQLAlchemyAsyncSession]:
        """Give a fresh session in one transaction: committed on leaving, rolled back on an exception."""
        with self._noting(), translated():
            async with _connected(self._async_writer) as connection:
                await connection.execution_options(**self._transaction_options(isolation))
                transaction = await connection.begin()
                async with session_class(connection, **WRITING) as session:
                    with self._observed(connection.sync_connection, session.sync_session):
                        with self._handling():
                            yield session
                        await session.commit()
                        # INVARIANT (the caller ends after COMMIT only): nobody may be told of it before.
                        await to_its_end(transaction.commit(), "commit")

    @contextmanager
    def read_sync(
        self, recorder: Recorder, *, at_least: int, session_class: AnySession = Session
    ) -> Iterator[SQLAlchemySession]:
        """Do as `read`, in the calling thread."""
        with translated(writes=False):
            with connecting():
                connection = self._reader.connect()
            try:
                for attempt in count(1):
                    if self._start_read(connection, recorder, at_least):
                        break
                    _give_up_after(attempt)
                    connection.invalidate()
                    connection.close()
                    with connecting():
                        connection = self._reader.connect()
                with session_class(connection, expire_on_commit=False) as session:
                    yield session
            finally:
                try:
                    self._end_read(connection, recorder)
                finally:
                    connection.close()

    @contextmanager
    def write_sync(
        self, session_class: AnySession = Session, *, isolation: Isolation = "read_committed"
    ) -> Iterator[SQLAlchemySession]:
        """Do as `write`, in the calling thread."""
        with self._noting(), translated(), _connected_sync(self._writer) as connection:
            connection.execution_options(**self._transaction_options(isolation))
            transaction = connection.begin()
            with session_class(connection, **WRITING) as session, self._observed(connection, session):
                with self._handling():
                    yield session
                session.commit()
                transaction.commit()

    def examine(self, work: Callable[[Connection], T]) -> T:
        """Return the result of `work` on a connection that is no mutation's. Blocks.

        Raises:
            ServiceUnavailableError: the database cannot be reached.
        """
        with self._noting(), translated(), _connected_sync(self._writer) as connection:
            return work(connection)

    async def work(self, work: Callable[[Connection], T]) -> T:
        """Do as `examine`, without blocking, on a connection of the mutations that are coroutines."""
        with translated():
            async with _connected(self._async_writer) as connection:
                return await connection.run_sync(work)

    def observe(self, observer: WriteObserver) -> None:
        """Have `observer` follow every mutation that begins after this call; at most one can."""
        self._observer = observer
        made = vars(self)
        if "_async_writer" in made:
            observer.listen(made["_async_writer"].sync_engine)
        if "_writer" in made:
            observer.listen(made["_writer"])

    async def aclose(self) -> None:
        """Close every connection; idempotent. Connections are made anew when asked for again."""
        made = vars(self)
        for name in ("_async_reader", "_async_writer"):
            if name in made:
                await made[name].dispose()
        for name in ("_reader", "_writer"):
            if name in made:
                made[name].dispose()

    @property
    def error(self) -> str | None:
        """Why writes have lately failed, if that does not pass by itself: a full disk, for example; None normally.

        It is forgotten with the next write that succeeds, or after `ERROR_SECONDS`: if nobody is sent here any
        more, nothing else would find out that there is room again.
        """
        message, until = self._error
        return message if message and monotonic() < until else None

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except ImpairedError as exc:
            self._error = exc.message, monotonic() + ERROR_SECONDS
            raise
        self._error = "", 0.0

    @cached_property
    def _async_reader(self) -> AsyncEngine:
        engine = self._make_async_engine(writes=False)
        install(engine.sync_engine)
        return engine

    @cached_property
    def _async_writer(self) -> AsyncEngine:
        engine = self._make_async_engine(writes=True)
        if self._observer is not None:
            self._observer.listen(engine.sync_engine)
        return engine

    @cached_property
    def _reader(self) -> Engine:
        engine = self._make_engine(writes=False)
        install(engine)
        return engine

    @cached_property
    def _writer(self) -> Engine:
        engine = self._make_engine(writes=True)
        if self._observer is not None:
            self._observer.listen(engine)
        return engine

    @contextmanager
    def _observed(self, connection: Connection | None, session: SQLAlchemySession) -> Iterator[None]:
        if self._observer is None or connection is None:
            yield
            return
        ended = self._observer.begin(connection, session)
        try:
            yield
        except BaseException as exc:
            ended(exc)
            raise
        ended(None)

    def _start_read(self, connection: Connection, recorder: Recorder, at_least: int) -> bool:
        if self._observer is not None:
            # Versions then count this process's commits, which no snapshot can show; one begun after a commit has it.
            at_least = 0
        is_late_enough = self._begin_read(connection, recorder, at_least)
        # Only now: what an application's listener does as a transaction begins is not the handler's.
        recorder.oracle = self.oracle
        connection.execution_options(**{RECORDER_OPTION: recorder})
        if self._observer is not None:
            recorder.shows = None
        return is_late_enough

    async def _replaced(self, connection: AsyncConnection) -> AsyncConnection:
        """Throw a connection away that shows the past, and return another."""
        await connection.invalidate()
        await connection.close()
        with connecting():
            return await self._async_reader.connect()


@asynccontextmanager
async def _connected(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    with connecting():
        connection = await engine.connect()
    try:
        yield connection
    finally:
        await shielded(connection.close(), "closing")  # a cancelled caller leaves none behind


@contextmanager
def _connected_sync(engine: Engine) -> Iterator[Connection]:
    with connecting():
        connection = engine.connect()
    with connection:
        yield connection


def _give_up_after(attempt: int) -> None:
    """Let a read try again on another connection, so often.

    Raises:
        ServiceUnavailableError: fresh connections see the past too: the database was put back to an earlier state.
    """
    if attempt == SNAPSHOT_ATTEMPTS:
        raise ServiceUnavailableError("the database shows an earlier state than before: try again")
