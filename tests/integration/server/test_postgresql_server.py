"""An application on PostgreSQL, by both drivers, with handlers that are coroutines and handlers that are not."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import psycopg
import pytest
from pydantic import BaseModel
from sqlalchemy import (
    Boolean,
    Column,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    Uuid,
    make_url,
    select,
)
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import define_reactive_function
from reactive_rpc.backends.postgresql.database import PostgreSQLDatabase
from reactive_rpc.testing import running
from tests.support.calls import CallByPath, by_path
from tests.support.waiting import until

from .postgresql_rooms import DRIVERS, Server, rpc_on, serving, with_driver
from .rooms import METADATA, ROOMS, InRoom, app_of
from .streams import heard

pytestmark = pytest.mark.anyio

INSERT: Final = "INSERT INTO note(tenant, room, text) VALUES ('t', %s, %s)"


@pytest.fixture(params=DRIVERS)
def url(request: pytest.FixtureRequest, postgresql_url: str) -> str:
    return with_driver(postgresql_url, request.param)


@pytest.fixture
async def server(url: str, anyio_backend: str) -> AsyncIterator[Server]:
    async with serving(url) as opened:
        yield opened


@pytest.mark.parametrize("name", ["notes.in_room", "notes.in_room_sync"])
async def test_a_stored_answer_is_right_whoever_writes(server: Server, name: str) -> None:
    """An answer is stored, outlives writes to other rows, and is computed again after a write by anybody."""
    assert await server.answer(name, {"room": "a"}) == []
    server.write(INSERT, "b", "elsewhere")
    assert await server.answer(name, {"room": "a"}) == []
    assert server.hits == 1
    server.write(INSERT, "a", "by psycopg")
    assert [note["text"] for note in await server.answer(name, {"room": "a"})] == ["by psycopg"]
    await server.answer("notes.add", {"room": "a", "text": "by a mutation"})
    assert [note["text"] for note in await server.answer(name, {"room": "a"})] == ["by a mutation", "by psycopg"]
    server.write("UPDATE note SET room = 'c' WHERE text = 'by psycopg'")
    assert [note["text"] for note in await server.answer(name, {"room": "a"})] == ["by a mutation"]
    server.write("TRUNCATE note")
    assert await server.answer(name, {"room": "a"}) == []
    assert server.hits == 1


def test_a_stream_is_told_of_a_write_by_anybody(url: str) -> None:
    """Who watches a query is told when somebody else's commit changes its result."""
    queries = [{"path": "notes.in_room", "input": {"room": "a"}}]
    with (
        running(app_of(rpc_on(url))) as served,
        heard(served, json={"queries": queries}) as stream,
    ):
        assert stream.next()[0] == "connected"
        with psycopg.connect(with_driver(url, "postgresql")) as connection:
            connection.execute(INSERT.encode(), ("b", "elsewhere"))
            connection.commit()
            connection.execute(INSERT.encode(), ("a", "here"))
        invalidation = stream.next()[1]
    assert [affected["path"] for affected in invalidation["affected"]] == ["notes.in_room"]
    assert invalidation["tables"] == ["note"]


class Size(enum.Enum):
    small = 1
    large = 2


ITEMS: Final = Table(
    "item",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("badge", Uuid),
    Column("size", Enum(Size, name="size")),
    Column("day", Date),
    Column("local", DateTime),
    Column("moment", DateTime(timezone=True)),
    Column("price", Numeric(10, 2)),
    Column("weight", Float),
    Column("done", Boolean),
    Column("word", String(9)),
)
ONE: Final[dict[str, Any]] = {
    "badge": UUID(int=1),
    "size": Size.small,
    "day": date(2024, 1, 31),
    "local": datetime(2024, 1, 31, 12, 0, 0, 1),
    "moment": datetime(2024, 1, 31, 12, tzinfo=UTC),
    "price": Decimal("9.90"),
    "weight": 0.1,
    "done": True,
    "word": "one",
}
TWO: Final[dict[str, Any]] = {
    "badge": UUID(int=2),
    "size": Size.large,
    "day": date(1969, 12, 31),
    "local": datetime(1969, 12, 31, 23, 59),
    "moment": datetime(2024, 1, 31, 12, 0, 1, tzinfo=UTC),
    "price": Decimal("9.91"),
    "weight": 0.2,
    "done": False,
    "word": "two",
}


class By(BaseModel):
    column: str
    is_range: bool = False


def _wanted(input: By) -> Any:
    column = ITEMS.c[input.column]
    condition = column.between(ONE[input.column], ONE[input.column]) if input.is_range else column == ONE[input.column]
    return select(ITEMS.c.id).where(condition).order_by(ITEMS.c.id)


@define_reactive_function
async def items(db: AsyncSession, input: By) -> list[int]:
    return list((await (await db.connection()).execute(_wanted(input))).scalars())


@define_reactive_function
def items_sync(db: Session, input: By) -> list[int]:
    return list(db.connection().execute(_wanted(input)).scalars())


def insert_item(url: str, id: int, values: dict[str, Any]) -> None:
    """Insert by psycopg."""
    plain = [value.name if isinstance(value, Size) else value for value in values.values()]
    columns, marks = ", ".join(["id", *values]), ", ".join(["%s"] * (len(values) + 1))
    with psycopg.connect(with_driver(url, "postgresql"), autocommit=True) as connection:
        connection.execute(f"INSERT INTO item({columns}) VALUES ({marks})".encode(), [id, *plain])


async def test_each_type_finds_its_rows(url: str) -> None:
    """A query for a value is stored, invalidated by a row that holds it, and by no other; a range likewise."""
    functions = {"items": {"by": items, "by_sync": items_sync}}
    unordered = {"size", "word", "done"}
    inputs: list[dict[str, Any]] = [{"column": name} for name in ONE]
    inputs += [{"column": name, "is_range": True} for name in ONE if name not in unordered]
    calls = [(f"items.{name}", input) for name in ("by", "by_sync") for input in inputs]
    async with serving(url, functions, metadata=ITEMS.metadata) as server:
        for name, input in calls:
            assert await server.answer(name, input) == []
        insert_item(url, 2, TWO)
        for name, input in calls:
            hits = server.hits
            assert await server.answer(name, input) == []
            assert server.hits == hits + 1, (name, input)
        insert_item(url, 1, ONE)
        for name, input in calls:
            assert await server.answer(name, input) == [1], (name, input)
        server.write("DELETE FROM item WHERE id = 1")
        for name, input in calls:
            assert await server.answer(name, input) == [], (name, input)


async def test_a_predicate_sees_what_the_orm_would_give(url: str) -> None:
    """`invalidate_when` gets values of the types that the table declares."""
    seen: list[dict[str, Any]] = []

    def note(change: Any, _input: object) -> bool:
        seen.append({name: change.after[name] for name in ONE})
        return bool(change.after["done"])

    @define_reactive_function(invalidate_when={ITEMS: note})
    async def ids(db: AsyncSession) -> list[int]:
        return list((await (await db.connection()).execute(select(ITEMS.c.id).order_by(ITEMS.c.id))).scalars())

    async with serving(url, {"items": {"ids": ids}}, metadata=ITEMS.metadata) as server:
        assert await server.answer("items.ids") == []
        insert_item(url, 2, TWO)
        assert await server.answer("items.ids") == []  # the predicate said that it does not matter
        insert_item(url, 1, ONE)
        assert await server.answer("items.ids") == [1, 2]
    assert seen[0] == TWO
    assert ONE in seen
    assert [type(value) for value in seen[0].values()] == [type(value) for value in TWO.values()]


async def test_calls_inside_calls_never_wait_for_those_outside(url: str) -> None:
    """With every connection held by calls that wait for one more, the call inside still gets its own."""
    entered: list[str] = []
    callers: list[CallByPath] = []
    go_on = asyncio.Event()

    @define_reactive_function
    async def outer(db: AsyncSession, input: InRoom) -> int:
        await db.connection()
        entered.append(input.room)
        await go_on.wait()
        return len(await callers[0]("notes.in_room", room="a"))

    few = {"pool_size": 2, "pool_timeout_seconds": 60.0}
    async with serving(url, {**ROOMS, "nested": {"outer": outer}}, settings=few) as server:
        callers.append(by_path(server.rpc))
        server.write(INSERT, "a", "x")
        calls = [asyncio.create_task(server.answer("nested.outer", {"room": room})) for room in "abc"]
        await until(lambda: len(entered) == 2)
        # This one waits for its turn behind the calls that are about to ask for the same.
        outside = asyncio.create_task(server.answer("notes.in_room", {"room": "a"}))
        await until(lambda: server.rpc.admin.stats()["computing"] == 4)
        go_on.set()
        async with asyncio.timeout(60):
            assert await asyncio.gather(*calls) == [1, 1, 1]
            assert len(await outside) == 1


def test_tables_are_made_once_by_many(postgresql_url: str) -> None:
    """Processes that start at once do not stumble over each other's tables."""
    databases = [PostgreSQLDatabase(make_url(postgresql_url), pool_size=1, pool_timeout_seconds=60.0) for _ in range(6)]
    with ThreadPoolExecutor(len(databases)) as threads:
        list(threads.map(lambda database: database.create_tables(METADATA), databases))
    for database in databases:
        asyncio.run(database.aclose())
    with psycopg.connect(with_driver(postgresql_url, "postgresql")) as connection:
        assert connection.execute(b"SELECT count(*) FROM note").fetchone() == (0,)
