"""Migrations of a database that a server captures, by the real Alembic: they run, and nothing is stale afterwards."""

from __future__ import annotations

import asyncio
import sqlite3
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Integer,
    MetaData,
    NullPool,
    String,
    Table,
    create_engine,
    make_url,
)
from sqlalchemy.exc import OperationalError, SAWarning, SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import Capture, CaptureError, ReactiveRPC, Settings, define_reactive_function
from reactive_rpc.alembic import install, migrating
from reactive_rpc.backends.factory import Backend, make_backend
from reactive_rpc.clock import RandomIds

from .conftest import Migrations

pytestmark = pytest.mark.anyio


class Of(BaseModel):
    table: str


@define_reactive_function
async def rows(db: AsyncSession, input: Of) -> list[dict[str, Any]]:
    """All rows of a table, as it is now."""
    connection = await db.connection()
    found = await connection.exec_driver_sql(f"SELECT * FROM {input.table} ORDER BY id")
    return [dict(row) for row in found.mappings()]


class Migration(NamedTuple):
    """A migration there and back, and what is written when it has run."""

    name: str
    up: str
    down: str
    writes: tuple[str, ...] = (
        "INSERT INTO team(id, name) VALUES (3, 'green')",
        "UPDATE member SET role = 'guest'",
    )


MIGRATIONS = [
    Migration("add a column", "op.add_column('team', sa.Column('motto', sa.String(9)))",
              "op.drop_column('team', 'motto')",
              ("UPDATE team SET motto = 'go'", "INSERT INTO member(id, team_id) VALUES (2, 2)")),
    Migration("drop a column", "op.drop_column('team', 'size')",
              "op.add_column('team', sa.Column('size', sa.Integer))"),
    Migration("drop a column in text", "op.execute('ALTER TABLE team DROP COLUMN size')",
              "op.execute('ALTER TABLE \"team\" ADD COLUMN size INTEGER')"),
    Migration("rename a column", "op.alter_column('team', 'size', new_column_name='extent')",
              "op.alter_column('team', 'extent', new_column_name='size')",
              ("UPDATE team SET extent = extent + 1", "DELETE FROM member")),
    Migration("add a table", "op.create_table('prize', sa.Column('id', sa.Integer, primary_key=True))",
              "op.drop_table('prize')", ("INSERT INTO prize(id) VALUES (1)", "UPDATE team SET size = 0")),
    Migration("drop a table", "op.drop_table('member')",
              "op.create_table('member', sa.Column('id', sa.Integer, primary_key=True),"
              " sa.Column('role', sa.String(40)), "
              "sa.Column('team_id', sa.Integer, sa.ForeignKey('team.id', name='of_team')))",
              ("UPDATE team SET size = 0",)),
    Migration("rename a table", "op.rename_table('member', 'person')", "op.rename_table('person', 'member')",
              ("UPDATE person SET role = 'guest'", "UPDATE team SET size = 0")),
    Migration("swap two tables",
              "op.rename_table('member', 'm')\nop.rename_table('team', 'member')\nop.rename_table('m', 'team')",
              "op.rename_table('member', 'm')\nop.rename_table('team', 'member')\nop.rename_table('m', 'team')",
              ("UPDATE team SET role = 'guest'", "UPDATE member SET size = 0")),
    Migration("batch mode",
              "with op.batch_alter_table('team') as batch:\n"
              "    batch.drop_column('size')\n"
              "    batch.alter_column('name', new_column_name='title')\n"
              "    batch.add_column(sa.Column('rank', sa.Integer, server_default='1'))",
              "with op.batch_alter_table('team') as batch:\n"
              "    batch.alter_column('title', new_column_name='name')\n"
              "    batch.add_column(sa.Column('size', sa.Integer))\n"
              "    batch.drop_column('rank')",
              ("UPDATE team SET title = title || '!'", "UPDATE member SET role = 'x'")),
    Migration("batch mode of what refers to it",
              "with op.batch_alter_table('member') as batch:\n"
              "    batch.drop_constraint('of_team', type_='foreignkey')\n"
              "    batch.alter_column('role', type_=sa.Text, nullable=True)",
              "with op.batch_alter_table('member') as batch:\n"
              "    batch.create_foreign_key('of_team', 'team', ['team_id'], ['id'])"),
    Migration("data",
              "op.execute(\"UPDATE team SET name = upper(name)\")\nop.execute(\"INSERT INTO member(id) VALUES (7)\")",
              "op.execute(\"UPDATE team SET name = lower(name)\")\nop.execute(\"DELETE FROM member WHERE id = 7\")"),
    Migration("data and a column in one",
              "op.execute(\"UPDATE team SET name = name || size\")\nop.drop_column('team', 'size')\n"
              "op.execute(\"UPDATE member SET role = 'moved'\")",
              "op.add_column('team', sa.Column('size', sa.Integer))\nop.execute('UPDATE team SET size = 1')"),
    Migration("an index, unique",
              "op.create_index('by_size', 'team', ['size'], unique=True)", "op.drop_index('by_size', 'team')"),
]  # fmt: skip


class Server:
    """An application that is open, beside the truth."""

    def __init__(self, migrations: Migrations, client: httpx.AsyncClient, rpc: ReactiveRPC) -> None:
        self.migrations = migrations
        self.client = client
        self.rpc = rpc

    async def check(self) -> None:
        """Ask for each table twice: the answer is what the database holds, the second time out of the cache."""
        for table in ("team", "member", "person", "prize"):
            truth = self.migrations.rows(table)
            for _ in range(2):
                answer = await self.client.post("/rpc/table.rows", json={"table": table})
                assert (answer.json() if answer.status_code == 200 else None) == truth, (table, answer.text)
            before = self.rpc.admin.stats()["hits"]
            await self.client.post("/rpc/table.rows", json={"table": table})
            assert self.rpc.admin.stats()["hits"] == before + (truth is not None), table


@asynccontextmanager
async def serving(migrations: Migrations) -> AsyncIterator[Server]:
    url = make_url(migrations.url)
    rpc = ReactiveRPC(
        url.set(drivername="sqlite+aiosqlite" if migrations.is_sqlite else "postgresql+asyncpg"),
        functions={"table": {"rows": rows}},
    )
    app = FastAPI(lifespan=rpc.lifespan)
    app.include_router(rpc.router)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with rpc.lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield Server(migrations, client, rpc)


async def _there_and_back(migrations: Migrations, migration: Migration, server: Server) -> None:
    """Run a migration up and down beside a server that runs."""
    await server.check()
    await asyncio.to_thread(migrations.upgrade)
    await server.check()
    migrations.write(*migration.writes)
    await server.check()
    await asyncio.to_thread(migrations.downgrade, "r1")
    await server.check()
    migrations.write("UPDATE team SET name = name || '?'")
    await server.check()


async def test_migrations_while_the_server_runs(migrations: Migrations) -> None:
    """What was cached before one is not served after, and what is written then is told; there and back."""
    async with serving(migrations) as server:
        for migration in MIGRATIONS:
            with migrations.added(migration.up, migration.down), _named(migration):
                await _there_and_back(migrations, migration, server)


async def test_migrations_while_no_server_runs(migrations: Migrations) -> None:
    """They find the triggers that the last server left, and the next one finds the tables as they are."""
    for migration in MIGRATIONS:
        with migrations.added(migration.up, migration.down), _named(migration):
            async with serving(migrations) as server:
                await server.check()
            migrations.upgrade()
            migrations.write(*migration.writes)
            async with serving(migrations) as server:
                await server.check()
            migrations.downgrade("r1")
    async with serving(migrations) as server:
        await server.check()


@contextmanager
def _named(migration: Migration) -> Iterator[None]:
    try:
        yield
    except BaseException as exc:
        exc.add_note(f"in the migration: {migration.name}")
        raise


def _models() -> MetaData:
    found = MetaData()
    team = ("id", Integer, True), ("name", String(40), False), ("size", Integer, False)
    Table("team", found, *(Column(name, type_, primary_key=key, nullable=name == "size", unique=name == "name" or None)
                           for name, type_, key in team))  # fmt: skip
    Table(
        "member", found, Column("id", Integer, primary_key=True),
        Column("team_id", Integer, ForeignKey("team.id", name="of_team")), Column("role", String(40)),
    )  # fmt: skip
    return found


def _source(migrations: Migrations) -> Backend:
    return make_backend(migrations.url, settings=Settings(), ids=RandomIds())


def _installed(migrations: Migrations) -> None:
    _source(migrations).capture.install()


def test_autogenerate_finds_nothing_of_ours(migrations: Migrations) -> None:
    """With the filter a revision is empty once capture is installed; without it, it would drop what is ours."""
    migrations.metadata = _models()
    _installed(migrations)
    assert "op." not in migrations.generate().replace("from alembic import op", "")
    migrations.upgrade()
    migrations.filters = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SAWarning)  # there are types that SQLAlchemy does not know
        assert "op.drop_table" in migrations.generate()


def test_a_migration_installs_for_a_server_that_does_not(migrations: Migrations) -> None:
    """After the revision `install` puts triggers on the tables as they are now, twice as well as once."""
    options: dict[str, Any] = {"functions": {}, "capture": Capture(mode="installed", exclude=["team.name"])}
    rpc: ReactiveRPC[Any] = ReactiveRPC(migrations.url, **options)
    with pytest.raises(CaptureError, match=r"capture is not in place|is not in WAL mode"):
        asyncio.run(rpc.admin.open())
    engine = create_engine(migrations.url.replace("+asyncpg", "+psycopg"), poolclass=NullPool)
    with engine.connect() as connection:
        with connection.begin():
            connection.exec_driver_sql("CREATE TABLE prize (id INTEGER PRIMARY KEY)")
        for _ in range(2):
            install(connection.engine.url, rpc)

    async def tables() -> dict[str, Any]:
        await rpc.admin.open()
        try:
            return dict(rpc.admin.report().tables)
        finally:
            await rpc.admin.aclose()

    found = asyncio.run(tables())
    assert {name for name, table in found.items() if table.captured} >= {"team", "member", "prize"}
    assert found["team"].withheld == {"name"}


DROP_SIZE = "ALTER TABLE team DROP COLUMN size"


def _drop_size(connection: Connection) -> None:
    with migrating(connection):
        connection.exec_driver_sql(DROP_SIZE)


@pytest.mark.parametrize("is_async", [False, True], ids=["sqlite3", "aiosqlite"])
@pytest.mark.parametrize("begins", [False, True], ids=["by itself", "after a write"])
async def test_a_column_that_triggers_name_is_dropped(sqlite: Migrations, is_async: bool, begins: bool) -> None:
    """SQLite refuses that, and within `migrating` it is done, in the transaction that there is or in one of its own."""
    _installed(sqlite)
    with pytest.raises(sqlite3.OperationalError, match="_reactive_rpc_"):
        sqlite.write(DROP_SIZE)

    def work(connection: Connection) -> None:
        if begins:
            connection.exec_driver_sql("UPDATE team SET name = 'x' WHERE id = 1")
        _drop_size(connection)

    if is_async:
        engine = create_async_engine(sqlite.url.replace("sqlite:", "sqlite+aiosqlite:"))
        async with engine.begin() as asynchronous:
            await asynchronous.run_sync(work)
        await engine.dispose()
    else:
        with create_engine(sqlite.url, poolclass=NullPool).connect() as connection:
            work(connection)
            connection.commit()
    assert sqlite.rows("team") == [{"id": 1, "name": "x" if begins else "red"}, {"id": 2, "name": "blue"}]


async def test_a_column_that_cannot_be_dropped_leaves_the_triggers(sqlite: Migrations) -> None:
    """What fails is rolled back with all that was done for it."""
    _installed(sqlite)
    with create_engine(sqlite.url, poolclass=NullPool).connect() as connection:
        with pytest.raises(OperationalError, match="no such column"), migrating(connection):
            connection.exec_driver_sql("ALTER TABLE team DROP COLUMN missing")
        connection.rollback()
    assert _source(sqlite).capture.script() == ""


async def test_a_migration_that_drops_what_is_ours(migrations: Migrations) -> None:
    """Made without the filters, it fails on PostgreSQL, and on SQLite takes the triggers along: no writer fails."""
    migrations.metadata, migrations.filters = _models(), False
    _installed(migrations)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SAWarning)
        migrations.generate()
    if migrations.is_sqlite:
        migrations.upgrade()
    else:
        with pytest.raises(SQLAlchemyError, match="other objects depend on it"):
            migrations.upgrade()
    migrations.write("UPDATE team SET size = 0")
    async with serving(migrations) as server:
        await server.check()


LOSSES = ["DROP TABLE reactive_rpc.outbox CASCADE", "DROP SCHEMA reactive_rpc CASCADE"]


@pytest.mark.parametrize("loss", LOSSES)
async def test_no_writer_fails_for_want_of_an_outbox(postgresql_migrations: Migrations, loss: str) -> None:
    """Whoever drops it drops the triggers; a server that runs, or starts, puts all back and forgets what it knew."""
    migrations = postgresql_migrations
    async with serving(migrations) as server:
        await server.check()
        migrations.write(loss, "UPDATE team SET size = 0")
        await server.check()
    migrations.write(loss, "UPDATE team SET size = 1")
    async with serving(migrations) as server:
        await server.check()
        migrations.write("UPDATE team SET size = 2")
        await server.check()


async def test_an_outbox_that_was_dropped_by_hand_on_sqlite(sqlite: Migrations) -> None:
    """A server that runs puts it back before its next answer; where none runs, writers fail until one starts."""
    async with serving(sqlite) as server:
        await server.check()
        sqlite.write("DROP TABLE _reactive_rpc_outbox")
        await server.check()
        sqlite.write("UPDATE team SET size = 0")
        await server.check()
    sqlite.write("DROP TABLE _reactive_rpc_outbox")
    with pytest.raises(sqlite3.OperationalError, match=r"no such table: main\._reactive_rpc_outbox"):
        sqlite.write("UPDATE team SET size = 1")
    async with serving(sqlite) as server:
        sqlite.write("UPDATE team SET size = 2")
        await server.check()
