"""Short statements run on the event loop, and none keeps it for long."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from reactive_rpc.backends.sqlite import driver as of_driver
from reactive_rpc.backends.sqlite.capture.backend import POSITION, SQLiteCapture
from reactive_rpc.backends.sqlite.database import SQLiteDatabase
from reactive_rpc.backends.sqlite.driver import (
    BUDGET_SECONDS,
    MAX_RESTS,
    STEPS,
    Driver,
    LongStatements,
    ReadingConnection,
)
from reactive_rpc.clock import RandomIds
from reactive_rpc.statements.recorder import Recorder
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

ROWS = 2_000
COUNTED = "SELECT id, noted(id) FROM thing ORDER BY id"
"""Notes each row that it passes, and the thread in which it does."""
LONG = "SELECT count(*) FROM thing AS a, thing AS b WHERE a.id + b.id >= 0"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a database with rows."""
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE thing (id INTEGER PRIMARY KEY, name TEXT)")
        connection.executemany("INSERT INTO thing VALUES (?, 'x')", [(number,) for number in range(ROWS)])
    return path


@pytest.fixture
async def engine(file: Path) -> AsyncIterator[AsyncEngine]:
    """Return an engine whose connections only read."""
    made = create_async_engine(f"sqlite+aiosqlite:///file:{file}?mode=ro&uri=true", module=Driver(ReadingConnection))
    yield made
    await made.dispose()


def with_clock(engine: AsyncEngine, clock: Callable[[], float]) -> None:
    """Have the budget of an engine's statements measured by another clock."""
    dialect: Any = engine.dialect
    dialect.dbapi.long_statements = LongStatements(clock)


class Noted:
    """The rows that statements have passed, and where."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, bool]] = []

    async def listen(self, connection: AsyncConnection) -> None:
        """Define `noted(id)` on a connection."""
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        here = threading.get_ident()
        await raw.create_function("noted", 1, lambda id: self.rows.append((id, threading.get_ident() == here)))

    def take(self) -> list[tuple[int, bool]]:
        """Return `(id, whether on the event loop)` of each row since the last call."""
        taken, self.rows = self.rows, []
        return taken


async def test_a_short_statement_takes_no_thread(engine: AsyncEngine) -> None:
    """Its rows are all made on the event loop, once."""
    with_clock(engine, lambda: 0.0)
    noted = Noted()
    async with engine.connect() as connection:
        await noted.listen(connection)
        assert len((await connection.execute(text(COUNTED))).all()) == ROWS
    assert noted.take() == [(number, True) for number in range(ROWS)]


async def test_a_long_statement_is_run_again_whole_in_the_thread(engine: AsyncEngine) -> None:
    """It is interrupted at the first look past its budget; its result is that of one run."""
    seconds = count(0.0, BUDGET_SECONDS * 2)
    with_clock(engine, lambda: next(seconds))
    noted = Noted()
    async with engine.connect() as connection:
        await noted.listen(connection)
        rows = (await connection.execute(text(COUNTED))).all()
        assert [row[0] for row in rows] == list(range(ROWS))
        passed = noted.take()
        here = [number for number, is_here in passed if is_here]
        assert 0 < len(here) <= STEPS
        assert [number for number, is_here in passed if not is_here] == list(range(ROWS))
        # It is known now.
        assert len((await connection.execute(text(COUNTED))).all()) == ROWS
        assert noted.take() == [(number, False) for number in range(ROWS)]


async def test_a_statement_that_is_interrupted_keeps_its_snapshot(engine: AsyncEngine, file: Path) -> None:
    """The second run reads the rows of the first, though others were committed in between."""
    seconds = count(0.0, BUDGET_SECONDS * 2)
    with_clock(engine, lambda: next(seconds))
    async with engine.connect() as connection:
        await connection.exec_driver_sql("BEGIN")
        assert (await connection.execute(text("SELECT count(*) FROM thing WHERE id < 3"))).scalar() == 3
        with closing(sqlite3.connect(file)) as other, other:
            other.execute("DELETE FROM thing")
        assert len((await connection.execute(text("SELECT id FROM thing"))).all()) == ROWS
        assert len((await connection.execute(text("SELECT id FROM thing"))).all()) == ROWS


def test_a_long_statement_is_tried_again_ever_more_rarely() -> None:
    """After one run in the thread, after two, four and so on; one that was short is no longer rested."""
    long = LongStatements()

    def rests() -> int:
        long.add("a")
        return next(number for number in count() if long.are_tried("a"))

    found = [rests() for _ in range(13)]
    assert found == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, MAX_RESTS, MAX_RESTS, MAX_RESTS]
    assert long.are_tried("b")
    long.discard("a")
    assert rests() == 1


def test_the_statements_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one more than that all are forgotten, and found again."""
    monkeypatch.setattr(of_driver, "MAX_REMEMBERED", 2)
    long = LongStatements()
    for name in ("a", "b", "c"):
        long.add(name)
    assert [long.are_tried(name) for name in ("a", "b", "c")] == [True, True, False]


@contextmanager
def opened(file: Path) -> Iterator[tuple[SQLiteDatabase, Callable[[], Recorder]]]:
    schema = SQLiteCapture(file, ids=RandomIds()).install()
    yield (
        SQLiteDatabase(make_url(f"sqlite:///{file}"), busy_timeout_seconds=5.0, position=POSITION),
        lambda: Recorder(schema),
    )


async def hold_stall(file: Path) -> None:
    """Run a statement of hundreds of milliseconds, and hold that the event loop goes on meanwhile."""
    with opened(file) as (database, recorder):
        turns = 0

        async def long(session: AsyncSession) -> Callable[[], int]:
            found = (await session.execute(text(LONG))).scalar_one()
            return lambda: int(found)

        def is_over() -> bool:
            nonlocal turns
            turns += 1
            return reading.done()

        for _ in range(2):
            turns = 0
            reading = asyncio.create_task(database.read(recorder(), long, at_least=0, session_class=AsyncSession))
            await until(is_over)
            assert reading.result() == ROWS * ROWS
            assert turns > 10, "the event loop stood still"
        await database.aclose()


async def test_the_event_loop_goes_on_while_a_long_statement_runs(file: Path) -> None:
    """The first time too: but for the budget it has its turns."""
    await hold_stall(file)


async def test_a_statement_that_is_run_again_counts_once(file: Path) -> None:
    """What was read is still known: nothing has run below SQLAlchemy."""
    with opened(file) as (database, recorder):
        made = recorder()

        async def long(session: AsyncSession) -> Callable[[], int]:
            await session.execute(text(LONG))
            return lambda: 0

        await database.read(made, long, at_least=0, session_class=AsyncSession)
        assert made.read_set().opaque is None
        await database.aclose()


@pytest.mark.seeded_bug
async def test_a_budget_that_nobody_looks_at_is_found(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop stands still for as long as the statement takes."""
    monkeypatch.setattr(of_driver, "BUDGET_SECONDS", 3600.0)
    with pytest.raises(AssertionError, match="stood still"):
        await hold_stall(file)


@pytest.mark.seeded_bug
async def test_a_statement_that_counts_twice_is_found(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its second run would pass for one below SQLAlchemy."""
    monkeypatch.setattr(of_driver.ReadingConnection, "_run_again", lambda _self, work, raw: work(raw))
    with pytest.raises(AssertionError):
        await test_a_statement_that_is_run_again_counts_once(file)
