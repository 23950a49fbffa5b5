"""A database as the rest sees it: fresh sessions for queries and for mutations, async and sync.

Every session is bound to a connection whose transaction belongs to the database. In a handler, `commit()` and
`rollback()` end a savepoint of it (SQLAlchemy's `join_transaction_mode`); the one real COMMIT comes when the handler
has returned.

Opening a transaction is one step, and ending it another, with the last of the handler's own work. Both are written
once, without `await`: threads take them as they are, the event loop in a greenlet each; see "Few greenlets" in
`docs/internals/procedures.md`.

Three things differ between databases, and stand in the subclasses: how a connection is made that cannot write, how a
read transaction begins and proves that its snapshot is late enough, and how it is found out at its end whether more was
read than the recorder was told.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from functools import cached_property
from itertools import count
from time import monotonic
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Engine, MetaData, RootTransaction
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.ext.asyncio import AsyncSession as SQLAlchemyAsyncSession
from sqlalchemy.orm import Session as SQLAlchemySession
from sqlalchemy.util import await_only, greenlet_spawn
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc.errors import ServiceUnavailableError
from reactive_rpc.statements.fair_lock import FairLock
from reactive_rpc.statements.faults import ImpairedError, UnprovenError, connecting, translated
from reactive_rpc.statements.isolation import Isolation, level_of
from reactive_rpc.statements.recorder import RECORDER_OPTION, Recorder, install
from reactive_rpc.statements.sessions import WRITING, AnyAsyncSession, AnySession, in_greenlet
from reactive_rpc.statements.text_reads import Oracle
from reactive_rpc.tasks import shielded, to_its_end

__all__ = ["Database", "Handle", "WriteObserver"]

T = TypeVar("T")

Handle = Callable[[SQLAlchemyAsyncSession], Awaitable[Callable[[], T]]]
"""Uses a session and returns its end: the rest, which awaits nothing. That runs in a greenlet, so it may use the
session's own session (`sync_session`), and the transaction ends in the same greenlet."""

Begin = Callable[[Connection, Recorder, int], bool]

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
    _write_lock: FairLock | nullcontext[None] = nullcontext()
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

    def _begin_unproved(self, connection: Connection, recorder: Recorder, at_least: int) -> bool:
        """Do as `_begin_read`, for a handler that can be run again: a database may leave the proof to `_end_read`."""
        return self._begin_read(connection, recorder, at_least)

    @abstractmethod
    def _end_read(self, connection: Connection, recorder: Recorder) -> None:
        """Compare the database's statements with those recorded; also after an error, which is a result too.

        Raises:
            UnprovenError: the snapshot was to be proved now, and is not.
        """

    async def read(
        self,
        recorder: Recorder,
        handle: Handle[T],
        *,
        at_least: int,
        session_class: AnyAsyncSession = AsyncSession,
        is_repeatable: bool = False,
    ) -> T:
        """Return the result of `handle` with a fresh read-only session on one snapshot.

        Args:
            recorder: of this call; it sees every statement.
            handle: uses the session, and returns its own end.
            at_least: the version that the snapshot must show.
            session_class: of the session, see `statements/sessions.py`.
            is_repeatable: whether it can be run again, with another recorder, if the snapshot turns out not to show
                that version. Then nobody has to know before it runs.

        Raises:
            UnprovenError: it must be run again, and proved first; only if it is repeatable.
            ServiceUnavailableError: the database cannot be reached, or shows only earlier states.
        """
        engine, session = self._async_reader, None
        with translated(writes=False):
            begin = self._begin_of(is_repeatable=is_repeatable)
            connection = await greenlet_spawn(self._open_read, engine.sync_engine, recorder, at_least, begin=begin)
            try:
                session = session_class(AsyncConnection(engine, connection), expire_on_commit=False)
                end = await handle(session)
            except BaseException as exc:
                # Whoever is cancelled is told that, and nothing of a result.
                with suppress(*() if isinstance(exc, Exception) else (UnprovenError,)):
                    # INVARIANT (shielded): a caller who is cancelled once more leaves no connection behind.
                    await shielded(greenlet_spawn(self._close_read, connection, recorder, session), "closing")
                raise
            return await greenlet_spawn(self._finish_read, connection, recorder, session=session, end=end)

    def _transaction_options(self, isolation: Isolation) -> dict[str, Any]:
        """Return the options that isolate a connection's next transaction so, as SQLAlchemy's execution options."""
        return {"isolation_level": level_of(isolation)}

    @contextmanager
    def _handling(self) -> Iterator[None]:
        """Say more of an error that a mutation's handler ends with, while its transaction is open."""
        yield

    async def write(
        self,
        handle: Handle[T],
        *,
        session_class: AnyAsyncSession = AsyncSession,
        isolation: Isolation = "read_committed",
    ) -> T:
        """Return the result of `handle` with a fresh session in one transaction, which is committed by then.

        If `handle` or its end raises, nothing has been written; nor if the caller is cancelled before COMMIT. A caller
        who is cancelled meanwhile ends when COMMIT has.
        """
        engine, session = self._async_writer, None
        with self._noting(), translated():
            async with self._write_lock:
                transaction = await greenlet_spawn(self._open_write, engine.sync_engine, isolation)
                connection = transaction.connection
                try:
                    session = session_class(AsyncConnection(engine, connection), **WRITING)
                    with self._observed(connection, session.sync_session):
                        with self._handling():
                            end = await handle(session)
                        return await greenlet_spawn(self._finish_write, transaction, session, end)
                except BaseException:
                    # INVARIANT (shielded): a caller who is cancelled once more leaves no connection behind.
                    await shielded(greenlet_spawn(_close_write, connection, session), "closing")
                    raise

    @contextmanager
    def read_sync(
        self, recorder: Recorder, *, at_least: int, session_class: AnySession = Session, is_repeatable: bool = False
    ) -> Iterator[SQLAlchemySession]:
        """Do as `read`, in the calling thread."""
        begin = self._begin_of(is_repeatable=is_repeatable)
        with translated(writes=False):
            connection = self._open_read(self._reader, recorder, at_least, begin=begin)
            try:
                with session_class(connection, expire_on_commit=False) as session:
                    yield session
            finally:
                self._close_read(connection, recorder, None)

    @contextmanager
    def write_sync(
        self, session_class: AnySession = Session, *, isolation: Isolation = "read_committed"
    ) -> Iterator[SQLAlchemySession]:
        """Do as `write`, in the calling thread."""
        with self._noting(), translated(), self._write_lock:
            transaction = self._open_write(self._writer, isolation)
            with (
                transaction.connection as connection,
                session_class(connection, **WRITING) as session,
                self._observed(connection, session),
            ):
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
    def _observed(self, connection: Connection, session: SQLAlchemySession) -> Iterator[None]:
        if self._observer is None:
            yield
            return
        ended = self._observer.begin(connection, session)
        try:
            yield
        except BaseException as exc:
            ended(exc)
            raise
        ended(None)

    def _begin_of(self, *, is_repeatable: bool) -> Begin:
        """Return how to begin; an observer's versions are no snapshot's, so nothing is left to be proved by them."""
        return self._begin_unproved if is_repeatable and self._observer is None else self._begin_read

    def _open_read(self, engine: Engine, recorder: Recorder, at_least: int, *, begin: Begin) -> Connection:
        """Return a connection in a read transaction that shows `at_least`, whose statements `recorder` sees."""
        for attempt in count(1):
            with connecting():
                connection = engine.connect()
            try:
                if self._start_read(connection, recorder, at_least, begin=begin):
                    return connection
                _give_up_after(attempt)
                connection.invalidate()  # it shows the past
            except BaseException as exc:
                if not isinstance(exc, Exception):
                    # INVARIANT (no connection that was cancelled in a statement below SQLAlchemy is used again): its
                    # driver may take a BEGIN for not sent, and an old snapshot would be found open by the next query.
                    connection.invalidate()
                self._close_read(connection, recorder, None)
                raise
            connection.close()
        raise AssertionError("counted to the end")

    def _start_read(self, connection: Connection, recorder: Recorder, at_least: int, *, begin: Begin) -> bool:
        if self._observer is not None:
            # Versions then count this process's commits, which no snapshot can show; one begun after a commit has it.
            at_least = 0
        is_late_enough = begin(connection, recorder, at_least)
        # Only now: what an application's listener does as a transaction begins is not the handler's.
        recorder.oracle = self.oracle
        connection.execution_options(**{RECORDER_OPTION: recorder})
        if self._observer is not None:
            recorder.shows = None
        return is_late_enough

    def _finish_read(
        self, connection: Connection, recorder: Recorder, *, session: SQLAlchemyAsyncSession, end: Callable[[], T]
    ) -> T:
        try:
            return end()
        finally:
            self._close_read(connection, recorder, session)

    def _close_read(self, connection: Connection, recorder: Recorder, session: SQLAlchemyAsyncSession | None) -> None:
        try:
            if session is not None:
                in_greenlet(session, "close")
        finally:
            try:
                self._end_read(connection, recorder)
            finally:
                if self._observer is not None:
                    recorder.shows = None  # versions count this process's commits: what it has read is no such one
                connection.close()

    def _open_write(self, engine: Engine, isolation: Isolation) -> RootTransaction:
        """Return a transaction isolated so, on a connection of its own."""
        with connecting():
            connection = engine.connect()
        try:
            if options := self._transaction_options(isolation):
                connection.execution_options(**options)
            return connection.begin()
        except BaseException:
            connection.close()
            raise

    def _finish_write(self, transaction: RootTransaction, session: SQLAlchemyAsyncSession, end: Callable[[], T]) -> T:
        with self._handling():
            result = end()
        in_greenlet(session, "commit")
        # INVARIANT (the caller ends after COMMIT only): nobody may be told of it before.
        self._commit(transaction)
        _close_write(transaction.connection, session)
        return result

    def _commit(self, transaction: RootTransaction) -> None:
        """Commit, in a greenlet; a caller who is cancelled meanwhile ends when COMMIT has."""
        await_only(to_its_end(greenlet_spawn(transaction.commit), "commit"))


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


def _close_write(connection: Connection, session: SQLAlchemyAsyncSession | None) -> None:
    try:
        if session is not None:
            in_greenlet(session, "close")
    finally:
        connection.close()


def _give_up_after(attempt: int) -> None:
    """Let a read try again on another connection, so often.

    Raises:
        ServiceUnavailableError: fresh connections see the past too: the database was put back to an earlier state.
    """
    if attempt == SNAPSHOT_ATTEMPTS:
        raise ServiceUnavailableError("the database shows an earlier state than before: try again")
