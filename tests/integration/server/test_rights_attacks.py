"""Ways around a guard, one by one: none of them leads past it, and none leaves anything behind."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import Header
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import CallInfo, Context, ForbiddenError, Login, UnauthorizedError
from reactive_rpc import define_reactive_function as define
from reactive_rpc.testing import FakeClock
from tests.support.waiting import until

from .in_process import InProcessStream
from .rooms import Note, Server, error_of, serving

pytestmark = pytest.mark.anyio


async def who(caller: str = Header()) -> Login:
    return Login(identity=caller)


async def any_note(ctx: Context, db: AsyncSession) -> None:
    """Let everybody in while there are no secret notes."""
    if (await db.exec(select(Note).where(Note.room == "closed"))).first() is not None:
        raise ForbiddenError("closed")


def opened(server: Server, path: str, input: object = None, **headers: str) -> InProcessStream[None]:
    query = {"path": path} if input is None else {"path": path, "input": input}
    return InProcessStream(server.app, [query], {"caller": "ann", **headers}, note=lambda: None)


def watched(server: Server) -> int:
    """How many times results are watched."""
    return sum(result.watchers for result in server.rpc._reader._live._store)


def add(server: Server, room: str, text: str) -> None:
    with closing(sqlite3.connect(server.path)) as connection, connection:
        connection.execute("INSERT INTO note(tenant, room, text) VALUES ('t', ?, ?)", (room, text))


async def texts(db: AsyncSession, room: str) -> list[str]:
    return list((await db.exec(select(Note.text).where(Note.room == room))).all())


async def test_a_login_ends_in_the_middle_of_a_stream(file: Path) -> None:
    """Nothing else has the stream asked again; a login that a step has made ends likewise."""
    clock = FakeClock()
    ends_at = datetime.fromtimestamp(clock.time(), UTC) + timedelta(seconds=60)

    async def until_then(ctx: Login) -> Login:
        return Login(identity=ctx.identity, expires_at=ends_at)

    functions = {"n": {"texts": define.use(until_then).query(texts)}}
    async with serving(file, functions, context=who, clock=clock, settings={"recheck_seconds": 0.0}) as server:
        async with opened(server, "n.texts", {"room": "a"}) as stream:
            await until(lambda: stream.names == ["connected"])
            clock.advance(61)
            await until(stream.task.done)
        assert error_of(await server.call("n.texts", {"room": "a"}, caller="ann"))["code"] == "UNAUTHORIZED"


async def test_a_query_is_watched_by_the_context_that_it_is_called_by(file: Path) -> None:
    """A stream of another login is not let in where the query asks for a key."""

    async def machine(key: str = Header()) -> Login:
        if key != "k":
            raise UnauthorizedError("no such machine")
        return Login(identity="machine")

    functions = {"n": {"texts": define.context(machine).query(texts)}}
    async with serving(file, functions, context=who) as server:
        for key, refused in (("x", 1), ("k", 0)):
            async with opened(server, "n.texts", {"room": "a"}, key=key) as stream:
                await until(lambda stream=stream: stream.names == ["connected"])  # type: ignore[misc]  # bound now
                assert stream.body.decode().count("no such machine") == refused


async def test_a_step_that_changes_the_input_changes_nothing(file: Path) -> None:
    """Neither what the handler gets, nor under which key its result is kept, nor what the next step sees."""
    seen: list[str] = []

    def moves(ctx: Context, call: CallInfo) -> None:
        call.input.room = "b"

    def sees(ctx: Context, call: CallInfo) -> None:
        seen.append(call.input.room)

    functions = {"n": {"texts": define.use(moves).use(sees).query(texts)}}
    async with serving(file, functions) as server:
        add(server, "a", "in a")
        add(server, "b", "in b")
        for room in ("a", "b", "a", "b"):
            assert (await server.call("n.texts", {"room": room})).json() == [f"in {room}"]
        assert seen == ["a", "b", "a", "b"]


async def test_nothing_stays_watched_for_who_is_not_let_in(file: Path) -> None:
    """Streams past a limit, and those that have ended, leave no outcome of a step behind."""
    functions: dict[str, Any] = {"n": {"texts": define.use(any_note).query(texts)}}
    settings = {"max_streams_per_identity": 1, "stream_opens_per_second": 1000.0}
    async with serving(file, functions, context=who, settings=settings) as server:
        async with opened(server, "n.texts", {"room": "a"}) as stream:
            await until(lambda: stream.names == ["connected"])
            before = watched(server)
            for _ in range(20):
                async with opened(server, "n.texts", {"room": "a"}) as refused:
                    assert refused.status == 429
            assert watched(server) == before > 0
        assert watched(server) == 0


async def test_a_step_of_nobody_in_particular_is_asked_again(file: Path) -> None:
    """Without any login: a stream is held while the right is in doubt, goes on if it holds, and ends if it does not."""
    functions = {"n": {"texts": define.use(any_note).query(texts)}}
    async with (
        serving(file, functions, settings={"recheck_seconds": 0.0}) as server,
        opened(server, "n.texts", {"room": "closed"}) as stream,
    ):
        await until(lambda: stream.names == ["connected"])
        add(server, "closed", "secret")
        await until(stream.task.done)
        assert stream.names == ["connected"]
