"""Transactions of handlers: what they commit and roll back, and what is left where their callers are cancelled.

A caller is cancelled at every place where a query or a mutation waits: nothing is left behind, nothing is half done. A
task is cancelled as it begins to wait for the n-th time, or when that which it waits for is there and it has not gone
on yet, for every n until it ends by itself.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

import pytest
from sqlalchemy import Connection, create_engine, event, make_url, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import QueuePool
from sqlalchemy.util import await_only

from reactive_rpc.backends.postgresql.capture.backend import PostgreSQLCapture
from reactive_rpc.backends.postgresql.database import PostgreSQLDatabase
from reactive_rpc.backends.postgresql.gathering import GatheringConnection
from reactive_rpc.backends.sqlite.capture.backend import POSITION, SQLiteCapture
from reactive_rpc.backends.sqlite.database import SQLiteDatabase
from reactive_rpc.backends.sqlite.driver import OneStepConnection
from reactive_rpc.clock import RandomIds
from reactive_rpc.dependencies.schema import Schema
from reactive_rpc.statements.database import Database
from reactive_rpc.statements.recorder import Recorder
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

When = Literal["as it begins to wait", "as it has waited"]
WHEN: list[When] = ["as it begins to wait", "as it has waited"]
SQLITE = "sqlite+aiosqlite"
DRIVERS = [SQLITE, "postgresql+asyncpg", "postgresql+psycopg"]


class Base(DeclarativeBase):
    """Tables of this module."""


class Row(Base):
    __tablename__ = "row_of_cancelled"
    id: Mapped[int] = mapped_column(primary_key=True)
    run: Mapped[int]


class Interrupted:
    """Awaits work, and has the task cancelled at the n-th place where it waits.

    Attributes:
        waits: at how many places it has waited.
    """

    def __init__(self, work: Coroutine[Any, Any, Any], *, place: int, when: When) -> None:
        self._work = work
        self._place = place
        self._when = when
        self.waits = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        waiting = self._work.__await__()
        answer: Callable[[], Any] = lambda: next(waiting)  # noqa: E731  # exchanged below for one that raises
        while True:
            try:
                awaited = answer()
            except StopIteration as ended:
                return ended.value
            self.waits += 1
            if self.waits == self._place:
                self._cancel(awaited)
            try:
                yield awaited
            except BaseException as exc:
                answer = _thrower(waiting, exc)
            else:
                answer = lambda: next(waiting)  # noqa: E731

    def _cancel(self, awaited: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._when == "as it begins to wait" or awaited is None:
            task.cancel()
        else:
            # Called before the task's own callback, which is added later.
            awaited.add_done_callback(lambda _: task.cancel())


def _thrower(waiting: Any, error: BaseException) -> Callable[[], Any]:
    return lambda: waiting.throw(error)


@dataclass(slots=True)
class Place:
    """A database, and a plain connection that looks into it.

    Attributes:
        database: that is tested.
        schema: what is captured there.
        ids: reads which rows of a run are committed.
    """

    database: Database
    schema: Schema
    ids: Callable[[int], set[int]]

    def rows(self, run: int) -> int:
        """Return how many rows of a run are committed."""
        return len(self.ids(run))

    def checked_out(self) -> int:
        """Return how many connections are out of their pools."""
        made = vars(self.database)
        pools = [made[name].pool for name in ("_async_reader", "_async_writer") if name in made]
        return sum(pool.checkedout() for pool in pools if isinstance(pool, QueuePool))


@pytest.fixture(params=DRIVERS)
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """Return a database on each driver."""
    driver: str = request.param
    file = tmp_path / "a.db"
    database: Database
    schema: Schema
    if driver.startswith("sqlite"):
        plain = create_engine(f"sqlite:///{file}")
        Base.metadata.create_all(plain)
        schema = SQLiteCapture(file, ids=RandomIds()).install()
        database = SQLiteDatabase(make_url(f"sqlite:///{file}"), busy_timeout_seconds=5.0, position=POSITION)
    else:
        url = make_url(request.getfixturevalue("postgresql_url"))
        plain = create_engine(url.set(drivername="postgresql+psycopg"))
        Base.metadata.create_all(plain)
        schema = PostgreSQLCapture(url, ids=RandomIds()).install()
        database = PostgreSQLDatabase(url.set(drivername=driver), pool_size=1, pool_timeout_seconds=5.0)

    def ids(run: int) -> set[int]:
        with plain.connect() as connection:
            statement = text("SELECT id FROM row_of_cancelled WHERE run = :run")
            return set(connection.execute(statement, {"run": run}).scalars())

    yield Place(database, schema, ids)
    await database.aclose()
    plain.dispose()


def two_rows(run: int) -> Callable[[AsyncSession], Coroutine[Any, Any, Callable[[], int]]]:
    """Return a handler of a mutation: two rows, one of them between two commits of its own."""

    async def handle(session: AsyncSession) -> Callable[[], int]:
        session.add(Row(run=run))
        await session.commit()
        session.add(Row(run=run))
        await session.flush()
        return lambda: run

    return handle


async def look(session: AsyncSession) -> Callable[[], int]:
    """Read twice, the second time as the handler has ended."""
    await session.execute(select(Row))
    return lambda: len(session.sync_session.scalars(select(Row)).all())


async def interrupted(work: Coroutine[Any, Any, Any], *, place: int, when: When) -> tuple[bool, int]:
    """Run work that is interrupted; return whether it was cancelled, and at how many places it has waited."""

    async def run() -> int:
        interruption = Interrupted(work, place=place, when=when)
        try:
            await interruption
        finally:
            waits.append(interruption.waits)
        return 0

    waits: list[int] = []
    task = asyncio.create_task(run())
    await asyncio.wait([task])
    return task.cancelled(), waits[0]


async def hold_mutations(place: Place, when: When) -> None:
    """Cancel a mutation at each place, and hold what is left against what may be."""
    database = place.database
    await database.write(two_rows(0))
    for number in count(1):
        was_cancelled, waits = await interrupted(database.write(two_rows(number)), place=number, when=when)
        rows = place.rows(number)
        assert rows == 2 if not was_cancelled else rows in (0, 2), f"at place {number}"
        await until(lambda: place.checked_out() == 0)
        assert await database.write(two_rows(-number)) == -number
        assert place.rows(-number) == 2
        assert place.rows(number) == rows, "committed after its caller was told that it was cancelled"
        if waits < number:
            break
    assert not was_cancelled


async def hold_commit(place: Place) -> None:
    """Cancel a caller as COMMIT begins, and hold against it that both rows are there when that is told."""
    writing = asyncio.create_task(place.database.write(two_rows(1)))

    def cancel(_: Connection) -> None:
        writing.cancel()

    engine = place.database._async_writer.sync_engine
    event.listen(engine, "commit", cancel)
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert place.rows(1) == 2
    event.remove(engine, "commit", cancel)
    assert await place.database.write(two_rows(2)) == 2
    assert place.rows(2) == 2


async def hold_waiting(place: Place) -> None:
    """Cancel a mutation while it waits for SQLite's write lock, and have another one take it."""
    assert isinstance(place.database, SQLiteDatabase)
    await place.database.write(two_rows(0))
    with closing(sqlite3.connect(place.database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writing = asyncio.create_task(place.database.write(two_rows(1)))
        await until(lambda: place.checked_out() == 1)
        writing.cancel()
        await asyncio.sleep(0)
        other.execute("ROLLBACK")
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert await place.database.write(two_rows(2)) == 2
    assert (place.rows(1), place.rows(2)) == (0, 2)


@pytest.mark.parametrize("place", [SQLITE], indirect=True)
async def test_who_is_cancelled_while_it_waits_for_the_lock_leaves_it(place: Place) -> None:
    """The thread gets the lock later, for nobody, and gives it back before the connection is used again."""
    await hold_waiting(place)


@pytest.mark.parametrize("when", WHEN)
async def test_a_mutation_that_is_cancelled_is_whole_or_nothing(place: Place, when: When) -> None:
    """Both rows are there or none, at once; who is told that it succeeded has them; and the next one runs."""
    await hold_mutations(place, when)


async def test_a_commit_that_has_begun_is_made(place: Place) -> None:
    """A caller who is cancelled as COMMIT begins is told so when both rows are there."""
    await hold_commit(place)


WORDS = ("add", "flush", "commit", "rollback", "nested", "nested undone", "nested with commit")


async def follow(session: AsyncSession, words: list[str], run: int) -> None:
    """Do as a handler that commits, rolls back and nests as these words say."""
    for number, word in enumerate(words):
        row = Row(id=run * 100 + number, run=run)
        if word == "add":
            session.add(row)
        elif word == "nested":
            async with session.begin_nested():
                session.add(row)
        elif word == "nested undone":
            nested = await session.begin_nested()
            session.add(row)
            await session.flush()
            await nested.rollback()
        elif word == "nested with commit":
            await session.begin_nested()
            session.add(row)
            await session.commit()
        else:
            await getattr(session, word)()


def followed(words: list[str], run: int) -> set[int]:
    """Return the rows that such a handler leaves: commits keep what stands, rollbacks undo what came after."""
    kept: set[int] = set()
    pending: set[int] = set()
    for number, word in enumerate(words):
        if word in ("add", "nested", "nested with commit"):
            pending.add(run * 100 + number)
        if word in ("commit", "nested with commit"):
            kept |= pending
            pending = set()
        if word == "rollback":
            pending = set()
    return kept | pending


async def hold_sequences(place: Place, *, seed: int, sequences: int) -> None:
    """Run generated handlers, and hold the rows that each leaves against those that it should."""
    draw = random.Random(seed)
    for run in range(1, sequences + 1):
        words = draw.choices(WORDS, k=draw.randint(1, 9))

        async def handle(session: AsyncSession, words: list[str] = words, run: int = run) -> Callable[[], None]:
            await follow(session, words, run)
            return lambda: None

        await place.database.write(handle)
        assert place.ids(run) == followed(words, run), f"seed {seed}, run {run}: {words}"


@pytest.mark.parametrize("seed", range(3))
async def test_commits_and_rollbacks_of_a_handler_are_its_savepoints(place: Place, seed: int) -> None:
    """Whatever a handler commits, rolls back and nests, in whatever order, it leaves the rows that it should."""
    await hold_sequences(place, seed=seed, sequences=60)


@pytest.mark.seeded_bug
@pytest.mark.parametrize("place", [SQLITE], indirect=True)
async def test_a_savepoint_that_is_not_set_is_found(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollback then has nothing to go back to."""

    def here(connection: OneStepConnection, statement: str, run: Any = OneStepConnection.here) -> Any:
        return None if "SAVEPOINT" in statement else run(connection, statement)

    monkeypatch.setattr(OneStepConnection, "here", here)
    with pytest.raises((AssertionError, DBAPIError)):
        await hold_sequences(place, seed=0, sequences=60)


async def hold_failed(place: Place) -> None:
    """Run a mutation that goes on after a statement which has failed its transaction, and another one after it."""

    async def handle(session: AsyncSession) -> Callable[[], int]:
        session.add(Row(run=1))
        await session.flush()
        with suppress(DBAPIError):
            await (await session.connection()).execute(text("SELECT 1 / 0"))
        return lambda: 1

    with pytest.raises(DBAPIError, match="transaction is aborted"):
        await place.database.write(handle)
    assert place.rows(1) == 0
    assert await place.database.write(two_rows(2)) == 2
    assert place.rows(2) == 2


@pytest.mark.parametrize("place", DRIVERS[1:], indirect=True)
async def test_a_transaction_that_has_failed_is_not_taken_for_committed(place: Place) -> None:
    """PostgreSQL answers its COMMIT by rolling back: the mutation fails, and its connection is as good as new."""
    await hold_failed(place)


async def commit_alone(connection: GatheringConnection, query: str, timeout_seconds: float | None) -> str:
    """Send COMMIT without the release of the savepoint: a bug."""
    connection.released = ""
    return str(await connection.execute(query, timeout=timeout_seconds))


@pytest.mark.seeded_bug
@pytest.mark.parametrize("place", DRIVERS[1:2], indirect=True)
async def test_a_commit_without_its_release_is_found(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutation succeeds, and has written nothing."""
    monkeypatch.setattr(GatheringConnection, "_commit", commit_alone)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        await hold_failed(place)


async def begin_alone(connection: GatheringConnection, query: str, timeout_seconds: float | None) -> str:
    """Send BEGIN without the savepoint: a bug."""
    connection.cleaning = connection.savepoint = ""
    return str(await connection.execute(query, timeout=timeout_seconds))


@pytest.mark.seeded_bug
@pytest.mark.parametrize("place", DRIVERS[1:2], indirect=True)
async def test_a_begin_without_its_savepoint_is_found(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollback then has nothing to go back to."""
    monkeypatch.setattr(GatheringConnection, "_begin", begin_alone)
    with pytest.raises((AssertionError, DBAPIError)):
        await hold_sequences(place, seed=0, sequences=60)


@pytest.mark.parametrize("when", WHEN)
async def test_a_query_that_is_cancelled_leaves_nothing(place: Place, when: When) -> None:
    """Its connection is back, or thrown away, and the next query sees what was committed since."""
    database = place.database

    async def read() -> int:
        return await database.read(Recorder(place.schema), look, at_least=0, session_class=AsyncSession)

    assert await read() == 0
    for number in count(1):
        was_cancelled, waits = await interrupted(read(), place=number, when=when)
        await until(lambda: place.checked_out() == 0)
        await database.write(two_rows(number))
        assert await read() == 2 * number
        if waits < number:
            break
    assert not was_cancelled


def commit_late(connection: OneStepConnection) -> None:
    """Wait before COMMIT, and so be cancelled there: a bug."""
    await_only(asyncio.sleep(0))
    connection.in_thread(sqlite3.Connection.commit)


@pytest.mark.seeded_bug
@pytest.mark.parametrize("place", [SQLITE], indirect=True)
async def test_a_commit_that_is_cancelled_is_found(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows are not there, though COMMIT had begun."""
    monkeypatch.setattr(OneStepConnection, "commit", commit_late)
    with pytest.raises(AssertionError):
        await hold_commit(place)


@pytest.mark.seeded_bug
@pytest.mark.parametrize("place", [SQLITE], indirect=True)
async def test_a_driver_that_forgets_abandoned_work_is_found(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A BEGIN goes on whose caller was cancelled, and a rollback that overtakes it leaves the transaction open."""
    forgets = property(lambda _: False, lambda _self, _value: None)
    monkeypatch.setattr(OneStepConnection, "_is_abandoned", forgets)
    with pytest.raises(sqlite3.OperationalError, match="within a transaction"):
        await hold_waiting(place)
