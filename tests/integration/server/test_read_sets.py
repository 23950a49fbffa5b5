"""Read sets of handlers that read in unusual ways: whatever they rest on counts, or the answer is not kept."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import column, text
from sqlalchemy import select as core_select
from sqlmodel import Session, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import NotFoundError, define_reactive_function
from tests.support.waiting import until

from .rooms import Note, NoteId, Server, Visit, serving

pytestmark = pytest.mark.anyio

NOTE_TABLE: Any = Note.__table__  # type: ignore[attr-defined]  # a table model has one
INSERT = "INSERT INTO note(tenant, room, text) VALUES ('t', ?, ?)"


async def get(server: Server, name: str, /, **parameters: Any) -> Any:
    answer = await server.client.get(f"/rpc/{name}", params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


@define_reactive_function
async def first_async(db: AsyncSession) -> str:
    """Look at one table as SQLAlchemy does, and at another behind its back."""
    await db.exec(select(Visit))
    raw = await (await db.connection()).get_raw_connection()
    assert raw.driver_connection is not None
    cursor = await raw.driver_connection.execute("SELECT text FROM note")
    row = await cursor.fetchone()
    await cursor.close()
    if row is None:
        raise NotFoundError("no note yet")
    return str(row[0])


@define_reactive_function
def first_sync(db: Session) -> str:
    """The same in a thread."""
    db.exec(select(Visit))
    row = db.connection().connection.cursor().execute("SELECT text FROM note").fetchone()
    if row is None:
        raise NotFoundError("no note yet")
    return str(row[0])


@pytest.mark.parametrize("name", ["first_async", "first_sync"])
async def test_an_answer_that_rests_on_a_raw_read_is_not_kept(file: Path, name: str) -> None:
    """What is read below SQLAlchemy is not analysed: neither error nor value outlives the call that read it."""
    async with serving(file, {"raw": {"first_async": first_async, "first_sync": first_sync}}) as server:
        assert (await server.client.get(f"/rpc/raw.{name}")).status_code == 404
        server.write("INSERT INTO note(tenant, room, text) VALUES ('t', 'a', 'one')")
        assert (await server.client.get(f"/rpc/raw.{name}")).json() == "one"
        server.write("UPDATE note SET text = 'two'")
        assert (await server.client.get(f"/rpc/raw.{name}")).json() == "two"


@define_reactive_function
async def by_engine(db: AsyncSession) -> int:
    await db.exec(select(Visit))
    async with AsyncSession(db.bind.engine) as other:  # type: ignore[union-attr, arg-type]  # a connection
        return len((await other.exec(select(Note))).all())


@define_reactive_function
def by_engine_sync(db: Session) -> int:
    db.exec(select(Visit))
    with Session(db.get_bind().engine) as other:
        return len(other.exec(select(Note)).all())


@define_reactive_function
async def by_driver(db: AsyncSession) -> int:
    await db.exec(select(Visit))
    raw = await (await db.connection()).get_raw_connection()
    assert raw.driver_connection is not None
    async with raw.driver_connection.execute("SELECT count(*) FROM note") as cursor:
        return int((await cursor.fetchone())[0])


@define_reactive_function
def by_driver_sync(db: Session) -> int:
    db.exec(select(Visit))
    cursor = db.connection().connection.cursor()
    return int(cursor.execute("SELECT count(*) FROM note").fetchone()[0])


@pytest.mark.parametrize(
    "procedure",
    [by_engine, by_engine_sync, by_driver, by_driver_sync],
    ids=lambda procedure: procedure.name,
)
async def test_a_read_by_any_way_that_db_gives_is_seen(file: Path, procedure: Any) -> None:
    """A result that was read around the session, through what the session hands out, does not go stale."""
    async with serving(file, {"n": {"q": procedure}}) as server:
        assert await get(server, "n.q") == 0
        server.write(INSERT, "a", "x")
        assert await get(server, "n.q") == 1


@define_reactive_function
async def title_by_bare_column(db: AsyncSession, input: NoteId) -> list[str]:
    statement: Any = core_select(column("text")).select_from(NOTE_TABLE).where(NOTE_TABLE.c.id == input.id)
    return list((await (await db.connection()).execute(statement)).scalars())


async def test_a_column_without_a_table_counts_as_read(file: Path) -> None:
    """`column("text")` renders a column of some table of the FROM: an update of it changes the result."""
    async with serving(file, {"n": {"q": title_by_bare_column}}) as server:
        server.write(INSERT, "a", "old")
        assert await get(server, "n.q", id=1) == ["old"]
        server.write("UPDATE note SET text = 'new'")
        assert await get(server, "n.q", id=1) == ["new"]


async def test_a_read_of_an_uncaptured_table_joins_no_computation_from_before_the_request(file: Path) -> None:
    """A write to a virtual table moves no version: a request that comes after it must not get a result of before."""
    started, go = asyncio.Event(), asyncio.Event()

    @define_reactive_function
    async def found(db: AsyncSession) -> int:
        count = int((await (await db.connection()).execute(text("SELECT count(*) FROM doc"))).scalar_one())
        started.set()
        await go.wait()
        return count

    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE VIRTUAL TABLE doc USING fts5(body)")
    async with serving(file, {"n": {"q": found}}) as server:
        first = asyncio.create_task(get(server, "n.q"))
        await started.wait()
        server.write("INSERT INTO doc(body) VALUES ('x')")
        second = asyncio.create_task(get(server, "n.q"))
        await until(lambda: server.rpc.admin.stats()["joined"] + server.rpc.admin.stats()["misses"] == 2)
        go.set()
        assert await first == 0
        assert await second == 1


@define_reactive_function
async def now() -> float:
    return time.monotonic()


async def test_a_query_that_reads_no_table_is_not_kept(file: Path) -> None:
    """Nothing would ever invalidate it: nobody knows what it reads (the time, another service)."""
    async with serving(file, {"clock": {"now": now}}) as server:
        first, second = [await get(server, "clock.now") for _ in range(2)]
    assert first != second
