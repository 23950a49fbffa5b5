"""What operators do to a database that is being served: names, settings, maintenance, outages."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Final

import httpx
import psycopg
import pytest
from pydantic import BaseModel
from sqlalchemy import Column, Integer, MetaData, Table, Text, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import ReactiveRPC, ServiceUnavailableError, define_reactive_function
from reactive_rpc.testing import running
from reactive_rpc.testing.postgresql import PostgreSQLServer

from .postgresql_rooms import rpc_on, serving, with_driver
from .rooms import METADATA, ROOMS, app_of, error_of
from .streams import heard

pytestmark = pytest.mark.anyio

INSERT: Final = "INSERT INTO note(tenant, room, text) VALUES ('t', %s, %s)"
IN_A: Final = {"room": "a"}
ODD: Final = Table(
    "Order Item", MetaData(), Column("Id", Integer, primary_key=True), Column("user", Text), schema="Sales Dept"
)


class By(BaseModel):
    user: str


@define_reactive_function
async def orders(db: AsyncSession, input: By) -> list[int]:
    return list((await (await db.connection()).execute(select(ODD.c.Id).where(ODD.c.user == input.user))).scalars())


async def test_a_schema_whose_name_needs_quotes(postgresql_url: str) -> None:
    """Its tables are stored and exact like any other's."""
    with psycopg.connect(with_driver(postgresql_url, "postgresql"), autocommit=True) as connection:
        connection.execute(b'CREATE SCHEMA "Sales Dept"')
    async with serving(postgresql_url, {"odd": {"orders": orders}}, metadata=ODD.metadata) as server:
        ada = {"user": "ada"}
        assert await server.answer("odd.orders", ada) == []
        server.write('INSERT INTO "Sales Dept"."Order Item" VALUES (1, %s)', "bob")
        assert await server.answer("odd.orders", ada) == []
        assert server.hits == 1
        server.write('INSERT INTO "Sales Dept"."Order Item" VALUES (2, %s)', "ada")
        assert await server.answer("odd.orders", ada) == [2]


async def test_an_outbox_that_is_truncated_hides_nothing(postgresql_url: str) -> None:
    """A write that lost its row of the outbox before anybody read it still shows."""
    async with serving(postgresql_url, settings={"poll_interval_seconds": 60}) as server:
        assert await server.answer("notes.in_room", IN_A) == []
        server.write(INSERT, "a", "lost")
        server.write("TRUNCATE reactive_rpc.outbox")
        assert [note["text"] for note in await server.answer("notes.in_room", IN_A)] == ["lost"]


async def test_settings_of_the_database_do_not_stop_capture(postgresql_url: str) -> None:
    """Neither a read-only default nor timeouts for others keep it from being installed, or repaired."""
    settings = ("default_transaction_read_only = on", "lock_timeout = '1ms'", "statement_timeout = '1s'")
    with psycopg.connect(with_driver(postgresql_url, "postgresql"), autocommit=True) as connection:
        connection.execute(b"CREATE TABLE note(id serial PRIMARY KEY, tenant text, room text, text text UNIQUE)")
        for setting in settings:
            connection.execute(f"ALTER DATABASE {connection.info.dbname} SET {setting}".encode())
        async with serving(postgresql_url, metadata=None) as server:
            assert await server.answer("notes.in_room", IN_A) == []
            connection.execute(b"ALTER TABLE note ADD COLUMN more int")
            connection.execute(INSERT.encode(), ["a", "x"])
            assert [note["text"] for note in await server.answer("notes.in_room", IN_A)] == ["x"]


async def test_an_outage_is_a_line_in_the_log_and_no_address_to_callers(
    own_postgresql: PostgreSQLServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Each refused call takes one line, which tells the cause; the caller is not told where the database is."""
    url = own_postgresql.new_database()
    async with serving(url) as server:
        await server.answer("notes.in_room", IN_A)
        own_postgresql.stop()
        with caplog.at_level(logging.WARNING):
            refused = await server.call("notes.in_room", IN_A)
        assert error_of(refused)["code"] == "SERVICE_UNAVAILABLE"
        assert "127.0.0.1" not in refused.text
        lines = [record for record in caplog.records if record.name == "reactive_rpc.web.routing.responses"]
        assert [record.exc_info for record in lines] == [None]
        assert "cannot be read" not in lines[0].getMessage()  # what the caller is told anyway


async def test_a_repair_that_fails_tells_callers_no_address(own_postgresql: PostgreSQLServer) -> None:
    """Where capture has to look again and cannot, the answer says so without naming server or role."""
    url = own_postgresql.new_database()
    async with serving(url) as server:
        await server.answer("notes.in_room", IN_A)
        with server.connect() as connection:
            connection.execute(b"CREATE ROLE limited LOGIN CONNECTION LIMIT 0")
            server.rpc._capture.url = server.rpc._capture.url.set(username="limited")  # type: ignore[attr-defined]  # of PostgreSQL's
            connection.execute(b"ALTER TABLE note ADD COLUMN more int")
        refused = await server.call("notes.in_room", IN_A)
        assert error_of(refused)["code"] == "SERVICE_UNAVAILABLE"
        assert "limited" not in refused.text
        assert "127.0.0.1" not in refused.text


async def test_a_start_that_fails_names_database_and_cause(own_postgresql: PostgreSQLServer) -> None:
    """Whoever reads the last line of the server's log knows which database it was, and what is wrong with it."""
    cases = {
        own_postgresql.url("absent"): 'database "absent" does not exist',
        own_postgresql.url("postgres").replace("postgres@", "stranger@"): 'role "stranger" does not exist',
        "postgresql+asyncpg://postgres@127.0.0.1:1/team": "127.0.0.1",
    }
    for url, cause in cases.items():
        rpc = ReactiveRPC(url, functions=ROOMS)
        with pytest.raises(ServiceUnavailableError) as raised:
            await rpc.admin.open()
        assert str(raised.value).startswith(f"{url} cannot be read")
        assert cause in str(raised.value).removeprefix(url)


def test_the_sql_that_a_command_prints_can_be_run(postgresql_url: str, tmp_path: Path) -> None:
    """What a role without rights is told to have run, copied from the terminal, is all that was missing."""
    with psycopg.connect(with_driver(postgresql_url, "postgresql"), autocommit=True) as connection:
        connection.execute(b"CREATE TABLE note(id int PRIMARY KEY, tags text[], room text, text text)")
        connection.execute(b"DROP ROLE IF EXISTS plain")
        connection.execute(b"CREATE ROLE plain LOGIN")
        plain_url = postgresql_url.replace("postgres@", "plain@")

        def run(*words: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-c", "from reactive_rpc.cli import main; main()", "db", *words, plain_url]
            return subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)

        try:
            refused = run("verify")
            assert refused.returncode == 1
            assert "--sql" in refused.stdout + refused.stderr
            connection.execute(run("install", "--sql").stdout.encode())
            verified = run("verify")
            assert (verified.returncode, verified.stderr) == (0, "")
            left = run("install", "--sql")
            assert (left.returncode, left.stdout.strip()) == (0, "")
        finally:
            connection.execute(b"DROP OWNED BY plain")
            connection.execute(b"DROP ROLE plain")


def test_a_query_that_cannot_be_computed_at_first_is_watched_all_the_same(postgresql_url: str) -> None:
    """A stream that connects while a query fails for want of the database is told of its changes later."""
    down = [True]

    @define_reactive_function
    async def shaky(db: AsyncSession) -> int:
        rows = await (await db.connection()).execute(select(METADATA.tables["note"].c.id))
        if down[0]:
            raise ServiceUnavailableError("no connection came free in time")
        return len(rows.all())

    queries = [{"path": "notes.shaky"}, {"path": "notes.in_room", "input": IN_A}]
    rpc = rpc_on(postgresql_url, {"notes": {**ROOMS["notes"], "shaky": shaky}})
    with (
        running(app_of(rpc)) as served,
        heard(served, json={"queries": queries}) as stream,
    ):
        connected = stream.next()[1]
        assert (connected["errors"], [one["path"] for one in connected["stale"]]) == ([], ["notes.shaky"])
        down[0] = False
        with httpx.Client(base_url=served) as client, psycopg.connect(with_driver(postgresql_url, "postgresql")) as db:
            assert client.post("/rpc/notes.shaky", json={}).json() == 0
            db.execute(INSERT.encode(), ("b", "x"))
            db.commit()
            invalidation = stream.next()[1]
        assert [one["path"] for one in invalidation["affected"]] == ["notes.shaky"]
