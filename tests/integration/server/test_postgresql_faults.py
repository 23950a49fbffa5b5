"""What a caller is told when PostgreSQL refuses, fails or goes away: by both drivers, from coroutines and threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import httpx
import psycopg
import pytest
from pydantic import BaseModel
from sqlalchemy import String, column, select, table, text, update
from sqlmodel import Session
from sqlmodel import select as sqlmodel_select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import define_reactive_function
from reactive_rpc.errors import ServiceUnavailableError
from reactive_rpc.procedures.procedure import AnyProcedure
from reactive_rpc.statements.faults import ImpairedError, connecting
from reactive_rpc.testing.postgresql import PostgreSQLServer
from tests.support.waiting import until

from .postgresql_rooms import DRIVERS, Server, serving, with_driver
from .rooms import ROOMS, NewNote, Note, NoteId, error_of

pytestmark = pytest.mark.anyio

EXTRAS: Final = b"CREATE TABLE short(id int PRIMARY KEY, word varchar(3)); INSERT INTO short VALUES (1, 'one')"
SHORT: Final = table("short", column("id"), column("word", String))


class Word(BaseModel):
    word: str


class Statement(BaseModel):
    sql: str


class Pair(BaseModel):
    first: int
    second: int


@define_reactive_function.mutation
def add_sync(db: Session, input: NewNote) -> Note:
    """Add a note from a thread."""
    note = Note(room=input.room, text=input.text)
    db.add(note)
    return note


@define_reactive_function
def one_sync(db: Session, input: NoteId) -> str:
    """Look for a note from a thread."""
    note = db.get(Note, input.id)
    return "nothing" if note is None else note.text


@define_reactive_function.mutation
async def set_word(db: AsyncSession, input: Word) -> str:
    await (await db.connection()).execute(update(SHORT).values(word=input.word))
    return input.word


@define_reactive_function.mutation
def set_word_sync(db: Session, input: Word) -> str:
    db.connection().execute(update(SHORT).values(word=input.word))
    return input.word


@define_reactive_function.mutation
async def run(db: AsyncSession, input: Statement) -> str:
    await (await db.connection()).execute(text(input.sql))
    return "done"


@define_reactive_function.mutation
async def run_in_parts(db: AsyncSession, input: Statement) -> str:
    """Run statements one by one: asyncpg prepares only one at a time."""
    for part in input.sql.split("; "):
        await (await db.connection()).execute(text(part))
    return "done"


@define_reactive_function.mutation
def run_sync(db: Session, input: Statement) -> str:
    db.connection().execute(text(input.sql))
    return "done"


@define_reactive_function
async def everything(db: AsyncSession) -> str:
    rows = await (await db.connection()).execute(select(text("*")).select_from(SHORT))
    return repr([tuple(row) for row in rows])


@define_reactive_function
def everything_sync(db: Session) -> str:
    return repr([tuple(row) for row in db.connection().execute(select(text("*")).select_from(SHORT))])


FUNCTIONS: Mapping[str, Any] = {
    **ROOMS,
    "more": {
        "add_sync": add_sync,
        "one_sync": one_sync,
        "set_word": set_word,
        "set_word_sync": set_word_sync,
        "run": run,
        "run_in_parts": run_in_parts,
        "run_sync": run_sync,
        "everything": everything,
        "everything_sync": everything_sync,
    },
}


@pytest.fixture(params=DRIVERS)
async def server(request: pytest.FixtureRequest, postgresql_url: str, anyio_backend: str) -> AsyncIterator[Server]:
    with psycopg.connect(with_driver(postgresql_url, "postgresql"), autocommit=True) as connection:
        connection.execute(EXTRAS)
    async with serving(with_driver(postgresql_url, request.param), FUNCTIONS) as opened:
        yield opened


def assert_refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Return the error, which must be of this kind and hold no word of the driver's."""
    error = error_of(response)
    assert (response.status_code, error["code"]) == (status, code), response.text
    for word in ("asyncpg", "psycopg", "sqlalche", "SQL:", "SELECT", "Key ("):
        assert word not in response.text
    return error


NOTE = {"room": "a", "text": "x"}
REFUSED = {
    "unique": (NOTE, ("notes.add", "more.add_sync"), 409, "CONFLICT"),
    "NUL": ({"room": "a", "text": "x\0y"}, ("notes.add", "more.add_sync"), 400, "BAD_REQUEST"),
    "a number out of range": ({"id": 2**40}, ("notes.one", "more.one_sync"), 400, "BAD_REQUEST"),
    "a number out of all ranges": ({"id": 2**80}, ("notes.one", "more.one_sync"), 400, "BAD_REQUEST"),
    "a text too long": ({"word": "seven"}, ("more.set_word", "more.set_word_sync"), 400, "BAD_REQUEST"),
    "a programming error": ({"sql": "SELECT nonsense"}, ("more.run", "more.run_sync"), 500, "INTERNAL_SERVER_ERROR"),
    "a timeout": (
        {"sql": "SET LOCAL statement_timeout = 20; SELECT pg_sleep(9)"},
        ("more.run_in_parts", "more.run_sync"),
        503,
        "SERVICE_UNAVAILABLE",
    ),
}


async def test_what_the_database_refuses(server: Server) -> None:
    """A caller learns what is wrong with the call, by its code alone, and a refused mutation writes nothing."""
    await server.answer("notes.add", NOTE)
    for case, (input, names, status, code) in REFUSED.items():
        for name in names:
            response = await server.call(name, input)
            assert response.status_code == status, (case, name, response.text)
            assert_refused(response, status, code)
    assert server.rows() == [("a", "x")]
    assert server.rows("SELECT word FROM short") == [("one",)]


LACKING = {
    "53100": "the database's disk is full: nothing was written",
    "53200": "out of memory",
    "53300": "takes no more connections",
    "58030": "disk cannot be read or written",
}
RAISING: Final = "DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{}'; END $$"


async def test_what_the_database_lacks_is_said_and_told_by_health(server: Server) -> None:
    """Not "try again": a full disk by its name, and not ready, until a write succeeds."""
    cases = {RAISING.format(state): words for state, words in LACKING.items()}
    cases["SET TRANSACTION READ ONLY; UPDATE short SET word = 'two'"] = "the database is read-only: nothing was written"
    for number, (sql, words) in enumerate(cases.items()):
        for name in ("more.run_in_parts" if "SET TRANSACTION" in sql else "more.run", "more.run_sync"):
            error = assert_refused(await server.call(name, {"sql": sql}), 503, "SERVICE_UNAVAILABLE")
            assert words in error["message"], (sql, name)
            ready = await server.client.get("/rpc/health/ready")
            assert (ready.status_code, words in ready.json()["parts"]["database"]["detail"]) == (503, True)
            assert (await server.client.get("/rpc/health/live")).status_code == 200
        await server.answer("notes.add", {"room": "b", "text": str(number)})
        assert (await server.client.get("/rpc/health")).json()["parts"]["database"] == {"ok": True}


def test_no_connection_left_is_told_by_name() -> None:
    """By either driver's words; libpq keeps no SQLSTATE of a connection that was refused."""
    for refused in (
        asyncpg.TooManyConnectionsError("sorry, too many clients already"),
        psycopg.OperationalError("connection failed: FATAL:  sorry, too many clients already"),
        psycopg.OperationalError("FATAL:  remaining connection slots are reserved for roles with SUPERUSER"),
    ):
        with pytest.raises(ImpairedError, match="no more connections"), connecting():
            raise refused
    with pytest.raises(ServiceUnavailableError, match="cannot be reached") as answered, connecting():
        raise psycopg.OperationalError("connection refused")
    assert not isinstance(answered.value, ImpairedError)


NUL: Final = {
    "a call": ("notes.in_room", {"room": "a\0"}),
    "a call from a thread": ("notes.in_room_sync", {"room": "\0"}),
    "a list": ("notes.in_rooms", {"rooms": ["a", "\0b"]}),
}


async def test_a_nul_is_a_bad_request_wherever_it_is_read(server: Server) -> None:
    """In queries as in mutations, by POST, by GET and by subscription."""
    for path, input in NUL.values():
        response = await server.call(path, input)
        assert assert_refused(response, 400, "BAD_REQUEST")["message"].startswith("a text has"), path
    response = await server.client.get("/rpc/notes.in_room", params={"room": "a\0"})
    assert_refused(response, 400, "BAD_REQUEST")
    queries = [{"path": path, "input": input} for path, input in NUL.values()]
    polled = await server.call("events/poll", {"queries": queries})
    answered = polled.json()["events"][0]["data"]
    assert {refused["error"]["code"] for refused in answered["errors"]} <= {"BAD_REQUEST"}
    stored = (await server.call("events/sets", {"queries": queries})).json()["set"]
    polled = await server.client.get("/rpc/events/poll", params={"set": stored})
    assert polled.json()["events"][0]["data"]["queries"] == answered["queries"]
    for parameters in ({"set": "\0"}, {"set": stored, "cursor": "\0"}, {"ticket": "\0"}):
        assert (await server.client.get("/rpc/events/poll", params=parameters)).status_code in (400, 401, 404)
    response = await server.call("events/ack", {"stream": "\0", "cursor": "e:1"})
    assert response.status_code == 204


def crossing(barrier: threading.Barrier, meeting: asyncio.Barrier) -> dict[str, AnyProcedure]:
    """Return mutations that update the notes `first` and then `second`, and meet in between."""

    def touch(id: int) -> Any:
        return update(Note.__table__).values(room="b").where(Note.__table__.c.id == id)  # type: ignore[attr-defined]  # SQLModel makes it

    @define_reactive_function.mutation(attempts=1)
    async def cross(db: AsyncSession, input: Pair) -> str:
        connection = await db.connection()
        await connection.execute(touch(input.first))
        await meeting.wait()
        await connection.execute(touch(input.second))
        return "done"

    @define_reactive_function.mutation(attempts=1)
    def cross_sync(db: Session, input: Pair) -> str:
        db.connection().execute(touch(input.first))
        barrier.wait()
        db.connection().execute(touch(input.second))
        return "done"

    return {"cross": cross, "cross_sync": cross_sync}


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("name", ["cross", "cross_sync"])
async def test_a_deadlock_may_be_tried_again(postgresql_url: str, driver: str, name: str) -> None:
    """Of two mutations that wait for each other one is whole, and the other, which may not run twice, is told so."""
    with psycopg.connect(with_driver(postgresql_url, "postgresql"), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET deadlock_timeout = '50ms'".encode())
    functions: Mapping[str, Any] = {**ROOMS, "more": crossing(threading.Barrier(2), asyncio.Barrier(2))}
    async with serving(with_driver(postgresql_url, driver), functions) as server:
        ids = [(await server.answer("notes.add", {"room": "a", "text": each}))["id"] for each in "xy"]
        pairs = [{"first": ids[0], "second": ids[1]}, {"first": ids[1], "second": ids[0]}]
        responses = await asyncio.gather(*(server.call(f"more.{name}", pair) for pair in pairs))
        won, lost = sorted(responses, key=lambda response: response.status_code)
        assert won.status_code == 200
        assert assert_refused(lost, 409, "CONFLICT")["details"] == {"retry": True}
        assert server.rows("SELECT room FROM note") == [("b",), ("b",)]


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_serialization_failure_may_be_tried_again(postgresql_url: str, driver: str) -> None:
    """Where a mutation that may not run twice was overtaken by another write, the caller is told to try again."""
    started, go_on = asyncio.Event(), asyncio.Event()

    @define_reactive_function.mutation(attempts=1)
    async def overtaken(db: AsyncSession) -> str:
        connection = await db.connection()
        await connection.execute(text("SELECT count(*) FROM note"))
        started.set()
        await go_on.wait()
        await connection.execute(text("UPDATE note SET room = 'b'"))
        return "done"

    async with serving(with_driver(postgresql_url, driver), {**ROOMS, "more": {"overtaken": overtaken}}) as server:
        await server.answer("notes.add", NOTE)
        calling = asyncio.create_task(server.call("more.overtaken"))
        await started.wait()
        server.write("UPDATE note SET room = 'c'")
        go_on.set()
        assert assert_refused(await calling, 409, "CONFLICT")["details"] == {"retry": True}


async def test_statements_that_were_prepared_survive_ddl(server: Server) -> None:
    """After a column was added, each kind of query shows it at once, also on connections that have prepared it."""
    for name in ("more.everything", "more.everything_sync"):
        for number in range(8):  # psycopg prepares what it runs more often than five times
            server.write("UPDATE short SET word = %s", str(number))
            assert await server.answer(name) == repr([(1, str(number))])
    server.write("ALTER TABLE short ADD COLUMN more int")
    for name in ("more.everything", "more.everything_sync"):
        assert await server.answer(name) == repr([(1, "7", None)])


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_server_that_is_killed_and_comes_back(own_postgresql: PostgreSQLServer, driver: str) -> None:
    """While it is down every call is told so, one under way too; then calls of every kind succeed at once."""
    url = own_postgresql.new_database(driver=driver)
    calls = [("notes.in_room", {"room": "a"}), ("notes.in_room_sync", {"room": "a"})]
    writes = [("notes.add", "b"), ("more.add_sync", "c")]
    async with serving(url, FUNCTIONS) as server:
        await server.answer("notes.add", NOTE)
        await server.answer("more.add_sync", {"room": "b", "text": "y"})
        for name, input in calls:
            await server.answer(name, input)
        sleeping = asyncio.create_task(server.call("more.run", {"sql": "SELECT pg_sleep(30)"}))
        await wait_for_sleeper(url)
        own_postgresql.stop(how="kill")
        assert_refused(await sleeping, 503, "SERVICE_UNAVAILABLE")
        for name, input in calls:
            assert_refused(await server.call(name, input), 503, "SERVICE_UNAVAILABLE")
        for name, word in writes:
            assert_refused(await server.call(name, {"room": "a", "text": word}), 503, "SERVICE_UNAVAILABLE")
        own_postgresql.start()
        for name, word in writes:
            await server.answer(name, {"room": "a", "text": word})
        for name, input in calls:
            found = [note["text"] for note in await server.answer(name, input)]
            # This server does not wait for its disk: the kill may have taken the commits just before it along.
            assert found == sorted(text for room, text in server.rows() if room == "a")
            assert found[:2] == ["b", "c"]


DEATHS = ("before the call", "after a statement", "as the handler ends")
"""Where the connection of a handler is lost, whose server is there again at once."""


@dataclass
class Killer:
    """Ends the sessions of handlers.

    Attributes:
        place: where, the next time that a handler comes there.
        runs: how often a handler has begun.
    """

    url: str = ""
    place: str = ""
    runs: int = 0

    def reached(self, place: str) -> None:
        """End them if this is the place, once."""
        self.runs += place == "after a statement"
        if place == self.place:
            self.place = ""
            with psycopg.connect(with_driver(self.url, "postgresql"), autocommit=True) as connection:
                connection.execute(
                    b"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database()"
                    b" AND application_name NOT LIKE 'reactive_rpc%' AND pid <> pg_backend_pid()"
                )


KILLER = Killer()


@define_reactive_function
async def texts(db: AsyncSession) -> list[str]:
    found = [note.text for note in (await db.exec(sqlmodel_select(Note))).all()]
    KILLER.reached("after a statement")
    await db.exec(sqlmodel_select(Note.id))
    KILLER.reached("as the handler ends")
    return found


@define_reactive_function
def texts_sync(db: Session) -> list[str]:
    found = [note.text for note in db.exec(sqlmodel_select(Note)).all()]
    KILLER.reached("after a statement")
    db.exec(sqlmodel_select(Note.id))
    KILLER.reached("as the handler ends")
    return found


@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("name", ["texts", "texts_sync"])
@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_query_whose_connection_is_lost_runs_again(
    postgresql_url: str, driver: str, name: str, death: str
) -> None:
    """Wherever it is lost, the call is answered right, once: by another connection, which is proved first."""
    KILLER.url, KILLER.runs = postgresql_url, 0
    functions = {**ROOMS, "lost": {"texts": texts, "texts_sync": texts_sync}}
    async with serving(with_driver(postgresql_url, driver), functions) as server:
        assert await server.answer(f"lost.{name}") == []
        server.write("INSERT INTO note(tenant, room, text) VALUES ('t', 'a', 'x')")
        KILLER.place = death
        KILLER.reached("before the call")
        assert await server.answer(f"lost.{name}") == ["x"]
        assert KILLER.place == ""
        assert KILLER.runs == (2 if death == "before the call" else 3)
        hits = server.hits
        assert await server.answer(f"lost.{name}") == ["x"]
        assert server.hits == hits + 1


async def wait_for_sleeper(url: str) -> None:
    """Wait until somebody sleeps in the database."""
    query = b"SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()"
    with psycopg.connect(with_driver(url, "postgresql"), autocommit=True) as connection:
        await until(lambda: connection.execute(query).fetchone() != (0,))


async def test_mutations_wait_for_a_connection_so_long(server: Server) -> None:
    """With every connection in use a mutation is told to try again; queries are not kept waiting by mutations."""
    await server.answer("notes.add", NOTE)
    waiting = (
        b"SELECT count(*) FROM pg_locks JOIN pg_database AS d ON d.oid = database"
        b" WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"
    )
    with server.connect() as connection:
        connection.execute(b"SELECT pg_advisory_lock(7)")
        held = [
            asyncio.create_task(server.call("more.run", {"sql": "SELECT pg_advisory_xact_lock(7)"})) for _ in range(4)
        ]
        await until(lambda: connection.execute(waiting).fetchone() == (4,))
        assert_refused(await server.call("notes.add", {"room": "a", "text": "y"}), 503, "SERVICE_UNAVAILABLE")
        assert len(await server.answer("notes.in_room", {"room": "a"})) == len(server.rows()) == 1
    assert [response.status_code for response in await asyncio.gather(*held)] == [200] * 4
