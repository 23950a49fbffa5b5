"""Through a real PgBouncer: sessions as it comes, transactions with the log past it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import psycopg
import pytest
from sqlalchemy import text
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import CaptureError, DefinitionError, define_reactive_function
from reactive_rpc.testing.postgresql import PostgreSQL

from .pgbouncer import PGBOUNCER, pgbouncer
from .postgresql_rooms import DRIVERS, Server, serving, with_driver
from .rooms import ROOMS, NewNote, Note, error_of

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(PGBOUNCER is None, reason="PgBouncer is not installed: apt-get install pgbouncer"),
]

KEY: Final = "8e03978e-40d5-43dd-bc93-6894a57f9324"


@define_reactive_function.mutation
def add_sync(db: Session, input: NewNote) -> str:
    db.add(Note(room=input.room, text=input.text))
    return input.text


@define_reactive_function.mutation
async def increment(db: AsyncSession) -> str:
    note = await db.get_one(Note, 1)
    note.text = str(int(note.text) + 1)
    return note.text


@define_reactive_function
async def writing(db: AsyncSession) -> None:
    await (await db.connection()).execute(text("DELETE FROM note"))


FUNCTIONS: Final[Mapping[str, Any]] = {
    **ROOMS,
    "more": {"add_sync": add_sync, "increment": increment, "writing": writing},
}


@asynccontextmanager
async def through(url: str, **options: Any) -> AsyncIterator[Server]:
    options["settings"] = {"pool_timeout_seconds": 60.0, **options.get("settings", {})}
    async with serving(url, FUNCTIONS, **options) as server:
        yield server


async def exercise(server: Server, database: str) -> None:
    """Call what there is, many at once, while somebody else writes past the pooler."""
    with psycopg.connect(with_driver(database, "postgresql"), autocommit=True) as outside:
        outside.execute("INSERT INTO note(id, tenant, room, text) VALUES (1, 't', 'z', '0')")
        outside.execute("SELECT setval('note_id_seq', 1)")
        for round in range(3):
            calls = [server.answer("notes.add", {"room": f"{n % 3}", "text": f"a{round}.{n}"}) for n in range(12)]
            calls += [server.answer("more.add_sync", {"room": f"{n % 3}", "text": f"s{round}.{n}"}) for n in range(12)]
            calls += [server.answer("notes.in_room", {"room": f"{n % 3}"}) for n in range(12)]
            calls += [server.answer("notes.in_room_sync", {"room": f"{n % 3}"}) for n in range(12)]
            calls += [server.answer("more.increment") for _ in range(4)]
            await asyncio.gather(*calls)
            outside.execute("INSERT INTO note(tenant, room, text) VALUES ('t', '0', %s)", [f"o{round}"])
            for room in "012":
                expected = outside.execute("SELECT text FROM note WHERE room = %s ORDER BY text", [room]).fetchall()
                for name in ("notes.in_room", "notes.in_room_sync"):
                    found = await server.answer(name, {"room": room})
                    assert sorted(note["text"] for note in found) == sorted(name for (name,) in expected)
        assert outside.execute("SELECT text FROM note WHERE id = 1").fetchall() == [("12",)]
        hits = server.hits
        await server.answer("notes.in_room", {"room": "0"})
        assert server.hits == hits + 1
        refused = error_of(await server.call("more.writing"))
        assert "may not write" in refused["message"]
        for _ in range(2):
            again = await server.call("notes.add", {"room": "k", "text": "k"}, **{"idempotency-key": KEY})
            assert again.status_code == 200, again.text
        assert outside.execute("SELECT count(*) FROM note WHERE room = 'k'").fetchone() == (1,)


@pytest.fixture
def database(postgresql: PostgreSQL) -> Iterator[str]:
    url = postgresql.new_database()
    yield url
    postgresql.drop_database(url)


@pytest.mark.parametrize("driver", DRIVERS)
async def test_session_mode_as_it_comes(database: str, driver: str) -> None:
    """Everything goes through it, the log too: nothing is asked of it that it refuses."""
    with pgbouncer(with_driver(database, driver), "session") as url:
        async with through(url) as server:
            await exercise(server, database)


@pytest.mark.parametrize("driver", DRIVERS)
async def test_transaction_mode_with_the_log_past_it(database: str, driver: str) -> None:
    """Handlers of every kind share fewer sessions than they have connections, and nothing of one is met by another."""
    with pgbouncer(with_driver(database, driver), "transaction") as url:
        async with through(url, log_url=database) as server:
            await exercise(server, database)


async def test_transaction_mode_is_noticed(database: str) -> None:
    """Without a way past it the server does not start, and says what to give it."""
    with pgbouncer(database, "transaction") as url:
        with pytest.raises(CaptureError, match="log_url"):
            async with through(url):
                pass
        with pytest.raises(CaptureError, match="log_url"):
            async with through(database, log_url=url):
                pass


async def test_a_log_url_of_another_database(postgresql: PostgreSQL, database: str) -> None:
    """Nothing written through the one would be told by the other: refused, with both names."""
    other = postgresql.new_database()
    with pytest.raises(DefinitionError, match="two databases"):
        async with through(database, log_url=other):
            pass
    with pytest.raises(DefinitionError, match="search_path"):
        async with through(database, log_url=f"{database}?options=-csearch_path%3Dpg_catalog"):
            pass
