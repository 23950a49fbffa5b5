"""Outages: a result that nobody can confirm is not served, or is marked; afterwards everything is fresh again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import httpx
import pytest
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import Cache, NotFoundError, ReactiveRPC, define_reactive_function
from reactive_rpc.procedures.registry import Functions
from reactive_rpc.protocol.headers import CURSOR, STALE, STALE_SECONDS
from reactive_rpc.testing import FakeClock
from reactive_rpc.testing.postgresql import PostgreSQLServer

from .rooms import METADATA, InRoom, Note, NoteId, Server, add, app_of, error_of, in_room, lines, serving

pytestmark = pytest.mark.anyio

IN_R = {"room": "r"}


@define_reactive_function(cache=Cache(stale_if_error_seconds=60))
async def bridged(db: AsyncSession, input: InRoom) -> list[Note]:
    """The notes of a room, for a minute without the database."""
    return list((await db.exec(select(Note).where(Note.room == input.room).order_by(Note.text))).all())


@define_reactive_function(cache=Cache(freshness="token"))
async def by_token(db: AsyncSession, input: InRoom) -> list[Note]:
    """The notes of a room, as new as the caller's token."""
    return list((await db.exec(select(Note).where(Note.room == input.room))).all())


@define_reactive_function(cache=Cache(stale_if_error_seconds=60))
async def one(db: AsyncSession, input: NoteId) -> Note:
    """One note."""
    note = await db.get(Note, input.id)
    if note is None:
        raise NotFoundError(f"no note {input.id}")
    return note


FUNCTIONS: Functions = {"notes": {"bridged": bridged, "by_token": by_token, "in_room": in_room, "one": one, "add": add}}


@contextmanager
def gone(file: Path) -> Iterator[None]:
    """Take the database away for a while."""
    away = file.with_suffix(".away")
    file.rename(away)
    try:
        yield
    finally:
        away.rename(file)


async def test_a_stored_result_is_not_served_silently(file: Path) -> None:
    """Neither by a strict procedure nor by one by token; after the outage both answer what is true then."""
    async with serving(file, FUNCTIONS, clock=FakeClock()) as server:
        for name in ("notes.in_room", "notes.by_token"):
            assert list(lines(await server.call(name, IN_R))) == []
        with gone(file):
            assert (await server.call("notes.in_room", IN_R)).status_code == 503
            answer = await server.call("notes.by_token", IN_R)
            assert (answer.status_code, error_of(answer)["code"]) == (503, "SERVICE_UNAVAILABLE")
            assert STALE not in answer.headers
        server.write("INSERT INTO note (tenant, room, text) VALUES ('t', 'r', 'a')")
        for name in ("notes.in_room", "notes.by_token"):
            assert list(lines(await server.call(name, IN_R))) == ["a"]
        assert server.rpc.admin.stats()["log_errors"] >= 2


async def test_an_outage_is_not_described(server: Server) -> None:
    """The path of the file and the system's words stay in the log."""
    with gone(server.path):
        answers = [
            await server.client.get("/rpc/notes.in_room", params={"room": "a"}),
            await server.call("events", {"queries": []}),
        ]
    for answer in answers:
        assert answer.status_code == 503
        assert str(server.path.parent) not in answer.text
        assert "Errno" not in answer.text


async def test_an_outage_is_bridged_with_a_mark(file: Path) -> None:
    """Where the procedure allows it: by 200 and 304, for its seconds, and no longer; only what is stored."""
    clock = FakeClock()
    async with serving(file, FUNCTIONS, clock=clock) as server:
        fresh = await server.call("notes.bridged", IN_R)
        assert STALE not in fresh.headers
        with gone(file):
            clock.advance(30)
            stale = await server.call("notes.bridged", IN_R)
            assert (stale.status_code, stale.content) == (200, fresh.content)
            assert (stale.headers[STALE], stale.headers[STALE_SECONDS]) == ("true", "30")
            assert CURSOR not in stale.headers
            held = await server.call("notes.bridged", IN_R, **{"if-none-match": fresh.headers["etag"]})
            assert (held.status_code, held.headers[STALE]) == (304, "true")
            assert (await server.call("notes.bridged", {"room": "never asked"})).status_code == 503
            clock.advance(31)
            assert (await server.call("notes.bridged", IN_R)).status_code == 503
        assert server.rpc.admin.stats()["served_stale"] == 2
        server.write("INSERT INTO note (tenant, room, text) VALUES ('t', 'r', 'a')")
        again = await server.call("notes.bridged", IN_R)
        assert list(lines(again)) == ["a"]
        assert STALE not in again.headers


async def test_an_error_of_the_handler_is_not_bridged(file: Path) -> None:
    """An envelope has no place for the mark: "not found" is served only if it can be confirmed."""
    async with serving(file, FUNCTIONS, clock=FakeClock()) as server:
        assert (await server.call("notes.one", {"id": 7})).status_code == 404
        with gone(file):
            assert (await server.call("notes.one", {"id": 7})).status_code == 503


async def test_an_outage_of_postgresql(own_postgresql: PostgreSQLServer) -> None:
    """Killed, it is bridged with a mark or answered 503; started again, all is fresh without a restart."""
    url = own_postgresql.new_database()
    rpc = ReactiveRPC(url, functions=FUNCTIONS, metadata=METADATA)
    app = app_of(rpc)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with rpc.lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://test") as client:

        async def ask(name: str) -> httpx.Response:
            return await client.post(f"/rpc/notes.{name}", json=IN_R)

        names = ("bridged", "by_token", "in_room")
        assert [(await ask(name)).status_code for name in names] == [200, 200, 200]
        await asyncio.to_thread(own_postgresql.stop, how="kill")
        answers = [await ask(name) for name in names]
        assert [answer.status_code for answer in answers] == [200, 503, 503]
        assert [answer.headers.get(STALE) for answer in answers] == ["true", None, None]
        await asyncio.to_thread(own_postgresql.start)
        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        try:
            await connection.execute("INSERT INTO note (tenant, room, text) VALUES ('t', 'r', 'a')")
        finally:
            await connection.close()
        for name in names:
            answer = await ask(name)
            assert (list(lines(answer)), STALE in answer.headers) == (["a"], False)
