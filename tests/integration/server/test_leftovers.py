"""What a handler leaves on its connection: the next caller's handler finds none of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import BaseModel
from sqlalchemy import select, text
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import define_reactive_function

from .postgresql_rooms import DRIVERS, Server, serving, with_driver
from .rooms import InRoom, Note
from .rooms import serving as serving_file

pytestmark = pytest.mark.anyio

NOTE_TABLE: Any = Note.__table__  # type: ignore[attr-defined]  # a table model has one
INSERT = "INSERT INTO note(tenant, room, text) VALUES ('t', 'a', ?)"


class Statements(BaseModel):
    sql: list[str]


@define_reactive_function.mutation
async def run(db: AsyncSession, input: Statements) -> str:
    return str(await _last(db, input))


async def _last(db: AsyncSession, input: Statements) -> Any:
    connection = await db.connection()
    for sql in input.sql[:-1]:
        await connection.execute(text(sql))
    return (await connection.execute(text(input.sql[-1]))).scalar()


@define_reactive_function.mutation
def run_sync(db: Session, input: Statements) -> str:
    for sql in input.sql[:-1]:
        db.connection().execute(text(sql))
    return str(db.connection().execute(text(input.sql[-1])).scalar())


@define_reactive_function
async def look(db: AsyncSession, input: Statements) -> str:
    return str(await _last(db, input))


FUNCTIONS: Final[Mapping[str, Any]] = {"more": {"run": run, "run_sync": run_sync, "look": look}}

FOUND: Final = """
SELECT concat_ws('/', nullif(current_setting('app.tenant', true), ''), current_user, current_setting('search_path'),
  current_setting('statement_timeout'), current_setting('client_encoding'), to_regclass('pg_temp.left_behind'),
  (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
  (SELECT count(*) FROM pg_listening_channels()), (SELECT count(*) FROM pg_cursors WHERE is_holdable))
"""
LEFT: Final = [
    "SET app.tenant = 'a'",
    "SELECT set_config('statement_timeout', '4321', false)",
    "SET search_path = pg_catalog",
    "CREATE TEMP TABLE left_behind (secret text)",
    "SELECT pg_advisory_lock(5)",
    "LISTEN left_behind",
    "DECLARE left_behind CURSOR WITH HOLD FOR SELECT 1",
    "SET ROLE pg_monitor",
    "SELECT current_user",
]


@pytest.fixture(params=DRIVERS)
async def server(request: pytest.FixtureRequest, postgresql_url: str, anyio_backend: str) -> AsyncIterator[Server]:
    async with serving(with_driver(postgresql_url, request.param), FUNCTIONS, settings={"pool_size": 1}) as opened:
        yield opened


@pytest.mark.parametrize("name", ["more.run", "more.run_sync"])
async def test_a_mutation_finds_nothing_of_another(server: Server, name: str) -> None:
    """Settings, the role, temporary tables, locks, channels and cursors of a session end with the mutation."""
    process = "SELECT pg_backend_pid()"
    fresh, first = await server.answer(name, {"sql": [FOUND]}), await server.answer(name, {"sql": [process]})
    assert await server.answer(name, {"sql": LEFT}) == "pg_monitor"
    assert await server.answer(name, {"sql": [FOUND]}) == fresh
    assert await server.answer(name, {"sql": [process]}) == first


async def test_a_query_that_ends_its_transaction_leaves_nothing(server: Server) -> None:
    """What a query sets for its session past a COMMIT of its own is gone for the next."""
    fresh = await server.answer("more.look", {"sql": [FOUND]})
    await server.answer("more.look", {"sql": ["COMMIT", "SET app.tenant = 'a'", "SELECT pg_advisory_lock(5)"]})
    assert await server.answer("more.look", {"sql": [FOUND]}) == fresh
    assert await server.answer("more.look", {"sql": ["SHOW default_transaction_read_only"]}) == "on"


SQLITE_LEFT: Final = [
    ["PRAGMA recursive_triggers = OFF", "SELECT 1"],
    ["CREATE TEMP TABLE note (id INTEGER)", "SELECT 1"],
    ["PRAGMA case_sensitive_like = ON", "SELECT 1"],
]
SQLITE_FOUND: Final = """
SELECT (SELECT recursive_triggers FROM pragma_recursive_triggers) || '/' || (SELECT count(*) FROM temp.sqlite_schema)
  || '/' || ('a' LIKE 'A')
"""


@pytest.mark.parametrize("name", ["more.run", "more.run_sync", "more.look"])
@pytest.mark.parametrize("left", SQLITE_LEFT, ids=["pragma", "temporary", "like"])
async def test_a_handler_finds_nothing_of_another_on_sqlite(tmp_path: Path, name: str, left: list[str]) -> None:
    """Pragmas and temporary tables, which would shadow real ones, end with the call."""
    async with serving_file(tmp_path / "a.db", FUNCTIONS) as server:
        fresh = await server.call(name, {"sql": [SQLITE_FOUND]})
        assert fresh.status_code == 200, fresh.text
        await server.call(name, {"sql": left})
        assert (await server.call(name, {"sql": [SQLITE_FOUND]})).text == fresh.text


HELD: list[Any] = []


@define_reactive_function
def peek_held(db: Session, input: InRoom) -> str | None:
    result = db.connection().execute(select(NOTE_TABLE.c.text).order_by(NOTE_TABLE.c.id.desc()))
    HELD.append(result)
    for row in result:
        return str(row[0])
    return None


@define_reactive_function
async def peek_stream(db: AsyncSession, input: InRoom) -> str | None:
    result = await (await db.connection()).stream(select(NOTE_TABLE.c.text).order_by(NOTE_TABLE.c.id.desc()))
    HELD.append(result)
    async for row in result:
        return str(row[0])
    return None


@pytest.mark.parametrize("procedure", [peek_held, peek_stream], ids=lambda procedure: procedure.name)
async def test_a_result_that_was_not_read_to_its_end_holds_no_snapshot(file: Path, procedure: Any) -> None:
    """The next call on the same pooled connection begins a snapshot of its own."""
    async with serving_file(file, {"n": {"q": procedure}}) as server:
        for n in range(3):
            server.write(INSERT, str(n))
        for n in range(3, 6):
            assert (await server.client.get("/rpc/n.q", params={"room": f"r{n}"})).status_code == 200
            server.write(INSERT, str(n))
            assert (await server.client.get("/rpc/n.q", params={"room": f"s{n}"})).json() == str(n)
    HELD.clear()
