"""The driver for SQLite does what aiosqlite's own dialect does: one matrix of operations, run on both and compared."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import Connection, Integer, String, bindparam, column, insert, select, table, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from reactive_rpc.backends.sqlite.driver import Driver, OneStepConnection, OneStepCursor, ReadingConnection

pytestmark = pytest.mark.anyio

Operation = Callable[[AsyncConnection], Awaitable[object]]

THING = table("thing", column("id", Integer), column("name", String), column("amount"))

STATEMENTS: Final[Mapping[str, tuple[str, Any]]] = {
    "rows": ("SELECT id, name, amount AS much FROM thing ORDER BY id", None),
    "one row": ("SELECT name FROM thing WHERE id = ?", (2,)),
    "named": ("SELECT name FROM thing WHERE id = :id", {"id": 2}),
    "no row": ("SELECT name FROM thing WHERE id = ?", (99,)),
    "values": ("VALUES (1, 'a'), (2, NULL), (3, x'00ff')", ()),
    "insert": ("INSERT INTO thing (name, amount) VALUES (?, ?)", ("new", 1.5)),
    "insert returning": ("INSERT INTO thing (name) VALUES ('x'), ('y') RETURNING id, name", ()),
    "update": ("UPDATE thing SET amount = amount + 1 WHERE id > ?", (1,)),
    "update nothing": ("UPDATE thing SET amount = 0 WHERE id = 99", ()),
    "update returning": ("UPDATE thing SET amount = 7 WHERE id < 3 RETURNING amount", ()),
    "delete": ("DELETE FROM thing WHERE id = 1", ()),
    "ddl": ("CREATE TABLE other (x)", ()),
    "pragma": ("PRAGMA table_info(thing)", ()),
    "savepoint": ("SAVEPOINT mine", ()),
    "taken": ("INSERT INTO thing (id) VALUES (1)", ()),
    "not null": ("INSERT INTO strict_thing (x) VALUES (NULL)", ()),
    "foreign key": ("INSERT INTO part (thing_id) VALUES (99)", ()),
    "no such table": ("SELECT * FROM nothing", ()),
    "syntax": ("SELEKT 1", ()),
    "two statements": ("SELECT 1; SELECT 2", ()),
    "too few values": ("SELECT ?, ?", (1,)),
    "unknown type": ("SELECT ?", (object(),)),
    "too large": ("SELECT ?", (2**70,)),
    "surrogate": ("SELECT ?", ("\ud800",)),
    "fails at a row": ("SELECT abs(-9223372036854775808 + id - 1) FROM thing", ()),
    "nothing": ("", ()),
}
"""`{name: (statement, its parameters)}`."""

MANY: Final[Mapping[str, tuple[str, Any]]] = {
    "insert": ("INSERT INTO thing (name) VALUES (?)", [("a",), ("b",), ("c",)]),
    "update": ("UPDATE thing SET amount = 5 WHERE id = ?", [(1,), (2,), (99,)]),
    "nobody": ("INSERT INTO thing (name) VALUES (?)", []),
    "taken at the second": ("INSERT INTO thing (id) VALUES (?)", [(50,), (50,)]),
    "select": ("SELECT ?", [(1,), (2,)]),
}

FETCHES: Final[Mapping[str, Callable[[Any], object]]] = {
    "none": lambda cursor: None,
    "one by one": lambda cursor: [cursor.fetchone() for _ in range(5)],
    "many": lambda cursor: [cursor.fetchmany(), cursor.fetchmany(2), cursor.fetchmany(9), cursor.fetchmany(1)],
    "all twice": lambda cursor: [cursor.fetchall(), cursor.fetchall()],
    "one and the rest": lambda cursor: [cursor.fetchone(), cursor.fetchall(), cursor.fetchone()],
    "iterated": lambda cursor: [list(cursor), cursor.fetchone()],
    "closed": lambda cursor: [cursor.close(), cursor.fetchall()],
}


def seen_of(error: BaseException) -> object:
    """Return all that a caller can see of an error."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return type(error).__name__, type(cause).__name__, str(cause), getattr(cause, "sqlite_errorcode", None)


async def outcome(operation: Operation, connection: AsyncConnection) -> object:
    """Return the result of an operation, or what is seen of its error."""
    try:
        return await operation(connection)
    except Exception as exc:
        return seen_of(exc)


def on_cursor(statement: str, parameters: Any, fetch: Callable[[Any], object], *, many: bool) -> Operation:
    """Run a statement on a cursor of the driver's, twice, and tell all that the cursor tells."""

    def run(connection: Connection) -> object:
        cursor: Any = connection.connection.cursor()
        seen: list[object] = [cursor.description, cursor.rowcount, cursor.lastrowid, cursor.arraysize]
        for _ in range(2):
            try:
                _executed(cursor, statement, parameters, many=many)
            except Exception as exc:
                seen.append(seen_of(exc))
            else:
                seen += [cursor.description, cursor.rowcount, cursor.lastrowid, fetch(cursor), cursor.rowcount]
        cursor.close()
        return seen

    return lambda connection: connection.run_sync(run)


def _executed(cursor: Any, statement: str, parameters: Any, *, many: bool) -> None:
    if many:
        cursor.executemany(statement, parameters)
    elif parameters is None:
        cursor.execute(statement)
    else:
        cursor.execute(statement, parameters)


async def streamed(connection: AsyncConnection) -> object:
    async with connection.stream(select(THING).order_by(THING.c.id)) as result:
        return [tuple(row) async for row in result]


async def half_streamed(connection: AsyncConnection) -> object:
    result = await connection.stream(select(THING.c.id).order_by(THING.c.id))
    first = await result.fetchone()
    await result.close()
    return None if first is None else tuple(first)


async def returning_many(connection: AsyncConnection) -> object:
    rows = [{"name": f"n{n}"} for n in range(3)]
    return [tuple(row) for row in await connection.execute(insert(THING).returning(THING.c.id, THING.c.name), rows)]


async def inserted_key(connection: AsyncConnection) -> object:
    return (await connection.execute(insert(THING).values(name="k"))).lastrowid


async def savepoints(connection: AsyncConnection) -> object:
    async with connection.begin_nested():
        await connection.execute(insert(THING).values(name="kept"))
    inner = await connection.begin_nested()
    await connection.execute(insert(THING).values(name="lost"))
    await inner.rollback()
    return (await connection.execute(text("SELECT name FROM thing WHERE id > 3"))).scalars().all()


async def rolled_back(connection: AsyncConnection) -> object:
    await connection.execute(insert(THING).values(name="lost"))
    await connection.rollback()
    return (await connection.execute(text("SELECT count(*) FROM thing"))).scalar()


async def committed(connection: AsyncConnection) -> object:
    await connection.execute(insert(THING).values(name="kept"))
    await connection.commit()
    await connection.rollback()
    return (await connection.execute(text("SELECT count(*) FROM thing"))).scalar()


async def by_driver(connection: AsyncConnection) -> object:
    driver = (await connection.get_raw_connection()).driver_connection
    assert driver is not None
    async with driver.execute("SELECT name FROM thing ORDER BY id") as cursor:
        names = [row[0] async for row in cursor]
    inserted = await driver.execute_insert("INSERT INTO thing (name) VALUES ('driver')")
    return type(driver).__module__, names, inserted, driver.in_transaction, driver.total_changes > 0


async def by_adapter(connection: AsyncConnection) -> object:
    adapter: Any = (await connection.get_raw_connection()).dbapi_connection

    def run(_: Connection) -> object:
        adapter.create_function("twice", 1, lambda value: value * 2)
        before, adapter.isolation_level = adapter.isolation_level, "IMMEDIATE"
        version = adapter.run_async(lambda driver: driver.execute_fetchall("SELECT twice(4)"))
        return before, adapter.isolation_level, list(version), adapter.execute("SELECT twice(5)").fetchall()

    return await connection.run_sync(run)


async def by_session(connection: AsyncConnection) -> object:
    async with AsyncSession(connection, join_transaction_mode="create_savepoint") as session:
        await session.execute(insert(THING).values(name="s"))
        await session.commit()
        await session.execute(insert(THING).values(name="t"))
        await session.rollback()
        return (await session.execute(text("SELECT name FROM thing WHERE id > 3"))).scalars().all()


async def by_exec_driver_sql(connection: AsyncConnection) -> object:
    result = await connection.exec_driver_sql("SELECT name FROM thing WHERE id = ?", (2,))
    return result.keys(), result.fetchall()


async def late_bound(connection: AsyncConnection) -> object:
    statement = select(THING.c.name).where(THING.c.id.in_(bindparam("ids", expanding=True))).order_by(THING.c.id)
    return (await connection.execute(statement, {"ids": [1, 3]})).scalars().all()


async def cancelled(connection: AsyncConnection) -> object:
    long = text("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300000) SELECT count(*) FROM n")
    task = asyncio.ensure_future(connection.execute(long))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return connection.invalidated


async def closed(connection: AsyncConnection) -> object:
    adapter: Any = (await connection.get_raw_connection()).dbapi_connection

    def run(_: Connection) -> object:
        adapter.close()
        adapter.close()
        return adapter.rollback(), adapter.commit()

    ended = await connection.run_sync(run)
    try:
        await connection.execute(text("SELECT 1"))
    except DBAPIError as exc:
        return ended, str(exc.orig).lower().replace("no active connection", "connection closed"), connection.invalidated
    return "runs on"


THROUGH_SQLALCHEMY: Final[Mapping[str, Operation]] = {
    each.__name__: each
    for each in (
        streamed, half_streamed, returning_many, inserted_key, savepoints, rolled_back, committed, by_driver,
        by_adapter, by_session, by_exec_driver_sql, late_bound, cancelled, closed,
    )
}  # fmt: skip


def operations() -> Iterator[tuple[str, Operation]]:
    """Yield each operation with its name."""
    for (name, (statement, parameters)), (how, fetch) in product(STATEMENTS.items(), FETCHES.items()):
        yield f"{name}, {how}", on_cursor(statement, parameters, fetch, many=False)
    for (name, (statement, parameters)), (how, fetch) in product(MANY.items(), FETCHES.items()):
        yield f"{name} many, {how}", on_cursor(statement, parameters, fetch, many=True)
    yield from THROUGH_SQLALCHEMY.items()


async def observed(make_engine: Callable[[str], AsyncEngine], path: Path) -> dict[str, object]:
    """Return `{operation: its outcome, and the rows after it}`, each on a new file."""
    found: dict[str, object] = {}
    for number, (name, operation) in enumerate(operations()):
        file = path / f"{number}.db"
        prepare(file)
        engine = make_engine(f"sqlite+aiosqlite:///{file}")
        async with engine.connect() as connection:
            result = await outcome(operation, connection)
        async with engine.connect() as connection:
            left = (await connection.execute(text("SELECT id, name, amount FROM thing ORDER BY id"))).fetchall()
        await engine.dispose()
        found[name] = repr((result, left))
    return found


def prepare(file: Path) -> None:
    """Make the tables."""
    connection = sqlite3.connect(file)
    connection.executescript(
        "PRAGMA synchronous = OFF;"
        "CREATE TABLE thing (id INTEGER PRIMARY KEY, name TEXT, amount);"
        "INSERT INTO thing VALUES (1, 'one', 1), (2, 'two', 2.5), (3, NULL, x'00');"
        "CREATE TABLE strict_thing (x NOT NULL); CREATE TABLE part (thing_id REFERENCES thing (id));"
    )
    connection.close()


def of_driver(driver: Driver) -> Callable[[str], AsyncEngine]:
    """Return what makes an engine that connects by a driver."""
    return lambda url: create_async_engine(url, module=driver)


def differences(theirs: dict[str, object], ours: dict[str, object]) -> dict[str, tuple[object, object]]:
    """Return the operations whose outcomes differ."""
    return {name: (theirs[name], ours[name]) for name in theirs if theirs[name] != ours[name]}


async def test_each_operation_ends_as_with_aiosqlite(tmp_path: Path) -> None:
    """Rows, descriptions, counts, keys, errors and what is left in the file, whatever is run and however it is read."""
    for name in ("theirs", "ours"):
        (tmp_path / name).mkdir()
    theirs = await observed(create_async_engine, tmp_path / "theirs")
    ours = await observed(of_driver(Driver(OneStepConnection)), tmp_path / "ours")
    assert differences(theirs, ours) == {}


async def test_reads_end_as_with_aiosqlite_on_a_connection_that_only_reads(tmp_path: Path) -> None:
    """Its transactions begin and end on the event loop: that shows in no result."""
    prepare(tmp_path / "a.db")
    found = []
    for options in ({}, {"module": Driver(ReadingConnection)}):
        engine = create_async_engine(f"sqlite+aiosqlite:///file:{tmp_path}/a.db?mode=ro&uri=true", **options)
        seen: dict[str, object] = {}
        for name, operation in operations():
            async with engine.connect() as connection:
                seen[name] = repr(await outcome(operation, connection))
        await engine.dispose()
        found.append(seen)
    assert differences(*found) == {}


class LosesRows(OneStepCursor):
    """Returns what is left of the rows but for the last."""

    __slots__ = ()

    def fetchall(self) -> Any:
        return super().fetchall()[:-1]


class LosesCounts(OneStepCursor):
    """Does not know how many rows were written."""

    __slots__ = ()

    @property
    def rowcount(self) -> int:
        return -1


class KeepsWrites(OneStepConnection):
    """Commits where it should roll back."""

    __slots__ = ()

    def rollback(self) -> None:
        self.commit()


def _with_cursor(kind: type[OneStepCursor]) -> type[OneStepConnection]:
    class Faulty(OneStepConnection):
        __slots__ = ()

        def cursor(self, server_side: bool = False) -> Any:
            return super().cursor(server_side=True) if server_side else kind(self)

    return Faulty


@pytest.mark.seeded_bug
@pytest.mark.parametrize("fault", [_with_cursor(LosesRows), _with_cursor(LosesCounts), KeepsWrites])
async def test_a_driver_that_differs_is_found(fault: type[OneStepConnection], tmp_path: Path) -> None:
    """Rows that are lost, counts that are wrong and writes that are not taken back are all seen."""
    for name in ("theirs", "ours"):
        (tmp_path / name).mkdir()

    class FaultyDriver(Driver):
        def connect(self, *args: Any, **options: Any) -> OneStepConnection:
            return fault(self, super().connect(*args, **options).driver_connection)

    theirs = await observed(create_async_engine, tmp_path / "theirs")
    ours = await observed(of_driver(FaultyDriver(OneStepConnection)), tmp_path / "ours")
    assert differences(theirs, ours) != {}
