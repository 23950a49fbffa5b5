"""`Capture(mode="installed")`: an administrator has put the triggers in place, and the server runs no DDL."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import Capture, CaptureError, DefinitionError, ReactiveRPC, Settings, define_reactive_function
from reactive_rpc.backends.factory import make_backend
from reactive_rpc.backends.postgresql.url import libpq_url
from reactive_rpc.clock import RandomIds
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

ROLE = "installed_app"
OWNER = "installed_owner"
INSTALLED = Capture(mode="installed")
NOTE = "CREATE TABLE installed_note (id INTEGER PRIMARY KEY, room VARCHAR(20) NOT NULL, text VARCHAR(20) NOT NULL)"


class Base(SQLModel, registry=registry()):
    """Keeps the table out of the shared metadata."""


class Note(Base, table=True):
    __tablename__ = "installed_note"

    id: int | None = Field(default=None, primary_key=True)
    room: str
    text: str


@define_reactive_function
async def texts(db: AsyncSession, room: str) -> list[str]:
    """The notes of a room."""
    return list((await db.exec(select(Note.text).where(Note.room == room).order_by(col(Note.id)))).all())


@define_reactive_function.mutation
async def add(db: AsyncSession, id: int, room: str, text: str) -> None:
    """Put a note into a room."""
    db.add(Note(id=id, room=room, text=text))


@dataclass
class Place:
    """A database that an administrator owns.

    Attributes:
        admin: by which the administrator connects.
        app: by which the application does, which may write rows and nothing else.
    """

    admin: str
    app: str

    def run(self, *statements: str) -> None:
        """Run statements as the administrator, in one transaction."""
        if self.admin.startswith("sqlite"):
            with closing(sqlite3.connect(make_url(self.admin).database or "")) as connection:
                for statement in statements:
                    connection.execute(statement)
                connection.commit()
        else:
            with psycopg.connect(libpq_url(make_url(self.admin))) as connection:
                for statement in statements:
                    connection.execute(statement.encode())

    def objects(self) -> list[Any]:
        """Return all that DDL could make."""
        if self.admin.startswith("sqlite"):
            with closing(sqlite3.connect(make_url(self.admin).database or "")) as connection:
                return sorted(connection.execute("SELECT type, name, sql FROM sqlite_schema").fetchall(), key=str)
        with psycopg.connect(libpq_url(make_url(self.admin))) as connection:
            relations = "SELECT 'r', oid::text, relname::text FROM pg_class WHERE oid >= 16384 AND relkind = 'r'"
            triggers = "SELECT 't', oid::text, tgname::text FROM pg_trigger WHERE NOT tgisinternal"
            return sorted(connection.execute(f"{relations} UNION ALL {triggers}".encode()).fetchall())

    def rpc(self, capture: Capture = INSTALLED, url: str | None = None, **options: Any) -> ReactiveRPC[Any]:
        functions = {"notes": {"texts": texts, "add": add}}
        settings = Settings(environment="production")
        url = url or self.app
        return ReactiveRPC(
            url, functions=functions, metadata=Base.metadata, capture=capture, settings=settings, **options
        )

    @asynccontextmanager
    async def opened(self, capture: Capture = INSTALLED) -> AsyncIterator[ReactiveRPC[Any]]:
        rpc = self.rpc(capture)
        await rpc.admin.open()
        try:
            yield rpc
        finally:
            await rpc.admin.aclose()

    async def refusal(self, capture: Capture = INSTALLED) -> CaptureError:
        """Return the error with which the start is refused."""
        rpc = self.rpc(capture)
        with pytest.raises(CaptureError) as refused:
            await rpc.admin.open()
        await rpc.admin.aclose()
        return refused.value

    def install(self, capture: Capture = INSTALLED) -> None:
        """Do what `reactive-rpc db install --rpc main:rpc URL` does, and grant what the application's role needs."""
        self.rpc(capture).admin.backend_on(self.admin).capture.install()
        grants = self.rpc(capture).admin.backend_on(self.app).capture.script()
        if grants:
            self.run(*grants.split(";\n"))


def make_role(name: str) -> str:
    """Return the SQL that makes a role, if the server has none of that name."""
    exists = f"EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}')"
    return f"DO $$ BEGIN IF NOT {exists} THEN CREATE ROLE {name} LOGIN; END IF; END $$"


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "sqlite":
        url = f"sqlite+aiosqlite:///{tmp_path / 'notes.db'}"
        made = Place(url, url)
        made.run("PRAGMA journal_mode=WAL", NOTE)
        yield made
        return
    url = request.getfixturevalue("postgresql_url")
    app = make_url(url).set(username=ROLE).render_as_string(hide_password=False)
    made = Place(url, app)
    made.run(
        make_role(ROLE),
        NOTE,
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO " + ROLE,
    )
    yield made
    made.run(f"DROP OWNED BY {ROLE}")


def is_ours(name: object) -> bool:
    """Tell whether it is the name of a trigger of ours on the table."""
    return "reactive_rpc" in str(name) and str(name).isidentifier() and "outbox" not in str(name)


async def test_a_start_without_capture_is_refused_and_installs_nothing(place: Place) -> None:
    """The error has the SQL; whoever runs it has installed capture."""
    before = place.objects()
    refused = await place.refusal()
    assert "reactive-rpc db install --rpc main:rpc" in str(refused) or "Let an administrator run" in str(refused)
    assert place.objects() == before
    place.run(*refused.statements)
    async with place.opened() as rpc:
        assert rpc.admin.report().tables["installed_note"].captured


async def test_what_an_administrator_installed_is_used(place: Place) -> None:
    """Results are kept, everybody's writes are seen, and no DDL is run, neither at the start nor at the end."""
    place.install()
    before = place.objects()
    async with place.opened() as rpc:
        call = rpc.caller()
        await call(add, id=1, room="a", text="one")
        assert [await call(texts, room="a") for _ in range(2)] == [["one"]] * 2
        assert rpc.admin.stats()["hits"] == 1
        place.run("INSERT INTO installed_note VALUES (2, 'a', 'two')")
        assert await call(texts, room="a") == ["one", "two"]
        place.run("INSERT INTO installed_note VALUES (3, 'b', 'elsewhere')")
        assert await call(texts, room="a") == ["one", "two"]
        assert rpc.admin.stats()["hits"] == 2
    assert place.objects() == before


async def test_a_schema_change_is_answered_and_not_repaired(place: Place) -> None:
    """Until the administrator installs again, queries of the table are right and not kept."""
    place.install()
    async with place.opened() as rpc:
        call = rpc.caller()
        assert await call(texts, room="a") == []
        trigger = next(
            name for kind, *names in place.objects() if kind in ("t", "trigger") for name in names if is_ours(name)
        )
        on = "" if place.admin.startswith("sqlite") else " ON installed_note"
        place.run(f'DROP TRIGGER "{trigger}"{on}')
        before = place.objects()
        for number in range(1, 4):
            place.run(f"INSERT INTO installed_note VALUES ({number}, 'a', 'n')")
            assert await call(texts, room="a") == ["n"] * number
        assert (rpc.admin.stats()["hits"], place.objects()) == (0, before)
        place.install()

        async def is_kept() -> bool:
            await call(texts, room="a")
            return rpc.admin.stats()["hits"] > 0

        await until(is_kept)
        place.run("INSERT INTO installed_note VALUES (4, 'a', 'n')")
        assert await call(texts, room="a") == ["n"] * 4
    assert rpc.admin.backend_on(place.admin).capture.script() == ""


async def test_triggers_of_other_copies_are_refused(place: Place) -> None:
    """What `exclude` names must not be copied, and the triggers that stand copy it; the SQL of the error mends that."""
    place.install()
    stricter = Capture(mode="installed", exclude=["installed_note.text"])
    refused = await place.refusal(stricter)
    assert refused.statements
    place.install(stricter)
    async with place.opened(stricter) as rpc:
        assert rpc.admin.report().tables["installed_note"].withheld == {"text"}


async def test_tables_are_not_made(place: Place) -> None:
    """A table of the application's that is missing stops the start; in another mode the start would make it."""
    place.run("ALTER TABLE installed_note RENAME TO other")
    place.install()
    rpc = place.rpc()
    with pytest.raises(DefinitionError, match=r"these tables are missing.*: installed_note\. Let an administrator"):
        await rpc.admin.open()
    await rpc.admin.aclose()


async def test_the_relay_runs_no_ddl_either(redis_server_url: str, redis_namespace: str) -> None:
    """A relay reads the outbox with a capture of its own, which is managed as the application's is."""
    settings = Settings(redis_url=redis_server_url, redis_namespace=redis_namespace)
    for capture in (INSTALLED, Capture()):
        url = "postgresql+asyncpg://nobody@127.0.0.1:1/none"
        backend: Any = make_backend(url, settings=settings, ids=RandomIds(), capture=capture)
        assert backend.relay is not None
        assert backend.capture.manage is capture.is_managed
        assert backend.relay._make_log()._capture.manage is capture.is_managed


async def test_an_ordinary_owner_may_install(postgresql_url: str) -> None:
    """A role that migrates, and is neither the database's owner nor a superuser, is trusted once somebody says so."""
    owner = make_url(postgresql_url).set(username=OWNER).render_as_string(hide_password=False)
    place = Place(postgresql_url, make_url(postgresql_url).set(username=ROLE).render_as_string(hide_password=False))
    place.run(*map(make_role, (ROLE, OWNER)), f"GRANT CREATE ON SCHEMA public TO {OWNER}")
    place.run(f"DO $$ BEGIN EXECUTE 'GRANT CREATE ON DATABASE ' || current_database() || ' TO {OWNER}'; END $$")
    by_owner = Place(owner, place.app)
    by_owner.run(NOTE, f"GRANT SELECT, INSERT, UPDATE, DELETE ON installed_note TO {ROLE}")
    try:
        by_owner.rpc().admin.backend_on(owner).capture.install()
        trust = f'GRANT "{ROLE}" TO "{OWNER}"'
        assert trust in str(await place.refusal())
        place.run(trust)
        place.run(*(await place.refusal()).statements)
        async with place.opened() as rpc:
            assert [await rpc.caller()(texts, room="a") for _ in range(2)] == [[], []]
            assert rpc.admin.stats()["hits"] == 1
    finally:
        place.run(f"DROP OWNED BY {ROLE}, {OWNER} CASCADE", f"REVOKE {ROLE} FROM {OWNER}")
