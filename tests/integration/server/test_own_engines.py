"""An application's own engine: what it makes of a connection holds for handlers, and what cannot is refused by name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, Final

import psycopg
import pytest
from pydantic import BaseModel
from sqlalchemy import create_engine, event, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import (
    Capture,
    DefinitionError,
    Login,
    ReactiveRPC,
    Settings,
    define_reactive_function,
)

from .postgresql_rooms import DRIVERS, Server, with_driver
from .rooms import METADATA, InRoom, Note, add, app_of, error_of, in_room_sync, opened

pytestmark = pytest.mark.anyio


class Statement(BaseModel):
    sql: str


@define_reactive_function
async def ask(db: AsyncSession, input: Statement) -> str:
    return str((await (await db.connection()).execute(text(input.sql))).scalar())


@define_reactive_function.mutation
async def run(db: AsyncSession, input: Statement) -> str:
    return str((await (await db.connection()).execute(text(input.sql))).scalar())


@define_reactive_function
async def texts(db: AsyncSession, input: InRoom) -> list[str]:
    return list(await db.exec(select(Note.text).where(Note.room == input.room).order_by(Note.text)))


@define_reactive_function
async def of_tenant(db: AsyncSession, ctx: Login) -> list[str]:
    """Say to the session whose rows it may see."""
    await (await db.connection()).execute(text(f"SET LOCAL app.tenant = '{ctx.tenant}'"))
    return list(await db.exec(select(Note.text).order_by(Note.text)))


FUNCTIONS: Final[Mapping[str, Any]] = {
    "notes": {"add": add, "texts": texts},
    "more": {"ask": ask, "run": run},
}


@asynccontextmanager
async def serving(
    engine: AsyncEngine, functions: Mapping[str, Any] = FUNCTIONS, **options: Any
) -> AsyncIterator[Server]:
    """Open an application on an engine, and dispose of the engine as its owner."""
    settings = Settings(**options.pop("settings", {}))
    rpc = ReactiveRPC(engine, functions=functions, settings=settings, **{"metadata": METADATA, **options})
    try:
        async with opened(rpc, app_of) as found:
            yield Server(found.rpc, found.app, found.client, engine.url.render_as_string(hide_password=False))
    finally:
        await engine.dispose()


@pytest.fixture(params=DRIVERS)
def url(request: pytest.FixtureRequest, postgresql_url: str) -> str:
    return with_driver(postgresql_url, request.param)


def administer(url: str, *statements: str) -> None:
    with psycopg.connect(with_driver(url, "postgresql"), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


async def test_queries_and_mutations_by_an_own_engine(url: str) -> None:
    """What handlers read is cached and told stale by writes of anybody; the engine's own sessions go on beside them."""
    engine = create_async_engine(url, pool_size=2, max_overflow=1, pool_pre_ping=True)
    async with serving(engine) as server:
        await server.answer("notes.add", {"room": "a", "text": "1"})
        for _ in range(2):
            assert await server.answer("notes.texts", {"room": "a"}) == ["1"]
        assert server.hits == 1
        async with AsyncSession(engine) as session:
            session.add(Note(room="a", text="2"))
            await session.commit()
            assert len((await session.exec(select(Note))).all()) == 2
        assert await server.answer("notes.texts", {"room": "a"}) == ["1", "2"]
        refused = error_of(await server.call("more.ask", {"sql": "DELETE FROM note RETURNING id"}))
        assert "may not write" in refused["message"]
        calls = [server.answer("notes.texts", {"room": str(number)}) for number in range(20)]
        assert await asyncio.gather(*calls) == [[]] * 20
    async with engine.connect() as connection:  # closing the application has not closed the engine
        assert (await connection.execute(text("SELECT count(*) FROM note"))).scalar() == 2
    await engine.dispose()


def set_role(engine: AsyncEngine, role: str) -> None:
    @event.listens_for(engine.sync_engine, "checkout")
    def checkout(dbapi_connection: Any, _record: object, _proxy: object) -> None:
        cursor = dbapi_connection.cursor()
        cursor.execute(f"SET ROLE {role}")
        cursor.close()
        dbapi_connection.commit()


async def test_a_role_set_on_checkout(url: str) -> None:
    """Queries and mutations run as that role, with its rights and no others."""
    role = f"reader_{make_url(url).database}"
    async with serving(create_async_engine(url)):
        pass
    administer(
        url,
        f"CREATE ROLE {role}",
        f"GRANT SELECT, INSERT ON note TO {role}",
        f"GRANT USAGE ON SEQUENCE note_id_seq TO {role}",
    )
    engine = create_async_engine(url)
    set_role(engine, role)
    try:
        async with serving(engine, metadata=None) as server:
            for name in ("more.ask", "more.run"):
                assert await server.answer(name, {"sql": "SELECT current_user"}) == role
            await server.answer("notes.add", {"room": "a", "text": "1"})
            for _ in range(2):
                assert await server.answer("notes.texts", {"room": "a"}) == ["1"]
            assert server.hits == 1
            assert (await server.call("more.run", {"sql": "DELETE FROM note RETURNING id"})).status_code >= 400
            assert server.rows() == [("a", "1")]
    finally:
        administer(url, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


async def test_a_password_that_is_good_for_a_while(url: str) -> None:
    """Each new connection asks for one, those of the log too; the old one has stopped working meanwhile."""
    role = f"token_{make_url(url).database}"
    password = ["first"]
    administer(url, f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'first'")
    asked: list[str] = []

    def fresh_url() -> str:
        asked.append(password[0])
        return make_url(url).set(username=role, password=password[0]).render_as_string(hide_password=False)

    engine = create_async_engine(make_url(url).set(username=role, password="stale"), pool_size=1)
    given: list[str] = []

    @event.listens_for(engine.sync_engine, "do_connect")
    def do_connect(_dialect: object, _record: object, _args: object, parameters: dict[str, Any]) -> None:
        given.append(password[0])
        parameters["password"] = password[0]

    try:
        async with serving(engine, log_url=fresh_url) as server:
            await server.answer("notes.add", {"room": "a", "text": "1"})
            password[0] = "second"
            administer(url, f"ALTER ROLE {role} PASSWORD 'second'", KILL.format(role))
            answers = [await server.call("notes.texts", {"room": "a"}) for _ in range(3)]
            assert answers[-1].json() == ["1"], [answer.text for answer in answers]
            assert given[-1] == asked[-1] == "second"
    finally:
        administer(url, KILL.format(role), f"REASSIGN OWNED BY {role} TO postgres", f"DROP OWNED BY {role}")
        administer(url, f"DROP ROLE {role}")


KILL: Final = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{}'"


async def test_a_search_path_of_the_engine(url: str) -> None:
    """Names mean the engine's tables, cached and told as such; where the log would mean others, it does not start."""
    administer(url, "CREATE SCHEMA app")
    asyncpg = make_url(url).drivername.endswith("asyncpg")
    arguments = {"server_settings": {"search_path": "app"}} if asyncpg else {"options": "-csearch_path=app"}
    with pytest.raises(DefinitionError, match="search_path"):
        async with serving(create_async_engine(url, connect_args=arguments)):
            pass
    engine = create_async_engine(url, connect_args=arguments)
    async with serving(engine, log_url=f"{url}?options=-csearch_path%3Dapp") as server:
        await server.answer("notes.add", {"room": "a", "text": "1"})
        for _ in range(2):
            assert await server.answer("notes.texts", {"room": "a"}) == ["1"]
        server.write("INSERT INTO app.note(tenant, room, text) VALUES ('t', 'a', '2')")
        assert await server.answer("notes.texts", {"room": "a"}) == ["1", "2"]
        assert server.hits == 1


TENANT: ContextVar[str] = ContextVar("tenant")

SECURED: Final = (
    "ALTER TABLE note ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY own ON note USING (tenant = current_setting('app.tenant', true))",
)


def tenant_of_checkout(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "checkout")
    def checkout(dbapi_connection: Any, _record: object, _proxy: object) -> None:
        cursor = dbapi_connection.cursor()
        cursor.execute(f"SELECT set_config('app.tenant', '{TENANT.get('nobody')}', false)")
        cursor.close()
        dbapi_connection.commit()


def tenant_of_begin(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql(f"SELECT set_config('app.tenant', '{TENANT.get('nobody')}', true)")


def tenant_of_handler(engine: AsyncEngine) -> None:
    """Leave it to the handler."""


@pytest.mark.parametrize("listen", [tenant_of_checkout, tenant_of_begin, tenant_of_handler])
async def test_rows_of_one_tenant_are_not_shared_with_another(url: str, listen: Callable[[AsyncEngine], None]) -> None:
    """Under row-level security by a session variable, nobody is served what was computed for somebody else."""
    role = f"tenant_{make_url(url).database}"
    async with serving(create_async_engine(url)) as server:
        for tenant in ("t1", "t2"):
            server.write("INSERT INTO note(tenant, room, text) VALUES (%s, 'a', %s)", tenant, f"of {tenant}")
    administer(url, *SECURED, f"CREATE ROLE {role}", f"GRANT SELECT ON note TO {role}")
    engine = create_async_engine(url)
    set_role(engine, role)
    listen(engine)

    async def context(tenant: str) -> Login:
        TENANT.set(tenant)
        return Login(tenant=tenant)

    try:
        functions: Mapping[str, Any] = {"notes": {"texts": texts, "of_tenant": of_tenant}}
        async with serving(engine, functions, metadata=None, context=context) as server:
            for _ in range(2):
                for tenant in ("t1", "t2"):
                    own = await server.client.post(f"/rpc/notes.of_tenant?tenant={tenant}", json={})
                    assert own.json() == [f"of {tenant}"], own.text
                    answer = await server.client.post(f"/rpc/notes.texts?tenant={tenant}", json={"room": "a"})
                    assert set(answer.json()) <= {f"of {tenant}"}, answer.text
            assert server.hits == 0
    finally:
        administer(url, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def without_autocommit(url: str) -> AsyncEngine:
    return create_async_engine(url).execution_options(isolation_level="AUTOCOMMIT")


def connecting_by_itself(url: str) -> AsyncEngine:
    engine = create_async_engine(url)
    event.listen(engine.sync_engine, "do_connect", lambda *_: None)
    return engine


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda url: create_engine(with_driver(url, "postgresql+psycopg")), "no AsyncEngine"),
        (without_autocommit, "isolation_level"),
        (lambda url: create_async_engine(url, isolation_level="AUTOCOMMIT"), "isolation_level"),
        (lambda url: create_async_engine(url, poolclass=StaticPool), "StaticPool"),
        (lambda _: create_async_engine("sqlite+aiosqlite:///notes.db"), "Give the URL"),
        (lambda url: create_async_engine(url, execution_options={"schema_translate_map": {None: "a"}}), "search_path"),
        (connecting_by_itself, "log_url"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    postgresql_url: str, make: Callable[[str], Any], words: str
) -> None:
    """The error names what is in the way, and the way out; nothing has been connected."""
    with pytest.raises(DefinitionError, match=words):
        ReactiveRPC(make(postgresql_url), functions=FUNCTIONS)


def test_handlers_that_are_no_coroutines(postgresql_url: str) -> None:
    """An async engine cannot serve them, and says which they are; nor can an engine go without triggers."""
    engine = create_async_engine(postgresql_url)
    with pytest.raises(DefinitionError, match=r"notes\.in_room_sync.*async def"):
        ReactiveRPC(engine, functions={"notes": {"in_room_sync": in_room_sync}})
    with pytest.raises(DefinitionError, match="session"):
        ReactiveRPC(engine, functions=FUNCTIONS, capture=Capture(mode="session"))


async def test_an_engine_of_another_database(postgresql_url: str) -> None:
    """What handlers write there would never be told here."""
    other = make_url(postgresql_url).set(database="postgres").render_as_string(hide_password=False)
    with pytest.raises(DefinitionError, match="two databases"):
        async with serving(create_async_engine(postgresql_url), log_url=other):
            pass
