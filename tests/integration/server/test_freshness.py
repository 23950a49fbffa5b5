"""Freshness over HTTP: what the header `reactive-cursor` says, and what it spares and costs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import Cache, DefinitionError, define_reactive_function
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.protocol.headers import CURSOR

from .rooms import ROOMS, InRoom, Note, Server, add, in_room, lines, serving

pytestmark = pytest.mark.anyio

IN_R = {"room": "r"}


@define_reactive_function(cache=Cache(freshness="token"))
async def by_token(db: AsyncSession, input: InRoom) -> list[Note]:
    """The notes of a room, as new as the caller's token."""
    return list((await db.exec(select(Note).where(Note.room == input.room).order_by(Note.text))).all())


FUNCTIONS: Mapping[str, Any] = {"notes": {"by_token": by_token, "in_room": in_room, "add": add}}
SELDOM = {"poll_interval_seconds": 3600.0}
"""Nobody looks at the log but for a request."""


@asynccontextmanager
async def two_workers(file: Path) -> AsyncIterator[tuple[Server, Server]]:
    """Give two applications on one file, as two processes would be."""
    async with (
        serving(file, FUNCTIONS, settings=SELDOM) as one,
        serving(file, FUNCTIONS, settings=SELDOM) as other,
    ):
        for server in (one, other):
            await server.call("notes.in_room", IN_R)
            await server.call("notes.by_token", IN_R)
        yield one, other


async def test_every_answer_names_its_cursor(server: Server) -> None:
    """A query's by 200, by 304 and by an error of the handler's; a mutation's is one that shows what it wrote."""
    before = await server.call("notes.in_room", IN_R)
    written = await server.call("notes.add", {"room": "r", "text": "a"})
    after = await server.call("notes.in_room", IN_R)
    unchanged = await server.call("notes.in_room", IN_R, **{"if-none-match": after.headers["etag"]})
    missing = await server.call("notes.one", {"id": 99})
    assert (unchanged.status_code, missing.status_code) == (304, 404)
    cursors = [Cursor.parse(each.headers[CURSOR]) for each in (before, written, after, unchanged, missing)]
    assert len({cursor.epoch for cursor in cursors}) == 1
    assert cursors[0].version < cursors[1].version <= cursors[2].version == cursors[3].version == cursors[4].version


async def test_a_token_brings_ones_own_write_on_another_worker(file: Path) -> None:
    """Without it the other worker answers from its store, which is what spares the look; with it, it catches up."""
    async with two_workers(file) as (one, other):
        written = await one.call("notes.add", {"room": "r", "text": "a"})
        assert list(lines(await one.call("notes.by_token", IN_R))) == ["a"]
        assert list(lines(await other.call("notes.by_token", IN_R))) == []
        token = {CURSOR: written.headers[CURSOR]}
        answer = await other.call("notes.by_token", IN_R, **token)
        assert list(lines(answer)) == ["a"]
        assert answer.headers[CURSOR] == written.headers[CURSOR]


async def test_strict_needs_no_token(file: Path) -> None:
    """The default shows every write that was acknowledged before, whoever asks."""
    async with two_workers(file) as (one, other):
        await one.call("notes.add", {"room": "r", "text": "a"})
        assert list(lines(await other.call("notes.in_room", IN_R))) == ["a"]


async def test_a_hit_by_token_is_no_look_at_the_log(file: Path) -> None:
    """Neither with a token that is reached, nor without one; in either spelling of the input."""
    async with serving(file, FUNCTIONS, settings=SELDOM) as server:
        token = {CURSOR: (await server.call("notes.by_token", IN_R)).headers[CURSOR]}
        polls = server.rpc.admin.stats()["log_polls"]
        for headers in ({}, token):
            assert (await server.call("notes.by_token", IN_R, **headers)).status_code == 200
            assert (await server.client.get("/rpc/notes.by_token?room=r", headers=headers)).status_code == 200
        assert server.rpc.admin.stats()["log_polls"] == polls
        assert server.rpc.admin.stats()["hits"] == 4


@pytest.mark.parametrize("version", ["9" * 20, "9" * 5000, "x", "", "-1"])
async def test_a_strange_token_costs_one_look(file: Path, version: str) -> None:
    """It is answered at once, as under strict, and shows what was written."""
    async with two_workers(file) as (one, other):
        await one.call("notes.add", {"room": "r", "text": "a"})
        epoch = Cursor.parse((await one.call("notes.in_room", IN_R)).headers[CURSOR]).epoch
        token = {CURSOR: f"{epoch}:{version}"}
        assert list(lines(await other.call("notes.by_token", IN_R, **token))) == ["a"]
        polls = other.rpc.admin.stats()["log_polls"]
        assert list(lines(await other.call("notes.by_token", IN_R, **token))) == ["a"]
        assert other.rpc.admin.stats()["log_polls"] == polls + 1


async def test_two_tokens_are_strict(file: Path) -> None:
    """A header given twice (by a proxy, by an attacker) means nothing, and the answer is right."""
    async with two_workers(file) as (one, other):
        token = (await one.call("notes.by_token", IN_R)).headers[CURSOR]
        await one.call("notes.add", {"room": "r", "text": "a"})
        answer = await other.client.get("/rpc/notes.by_token?room=r", headers=[(CURSOR, token), (CURSOR, token)])
        assert list(lines(answer)) == ["a"]


async def test_the_settings_say_what_a_procedure_does_not(file: Path) -> None:
    """`REACTIVE_RPC_FRESHNESS=token` makes every procedure one by token that does not say strict."""
    async with serving(file, ROOMS, settings={**SELDOM, "freshness": "token"}) as server:
        await server.call("notes.in_room", IN_R)
        polls = server.rpc.admin.stats()["log_polls"]
        await server.call("notes.in_room", IN_R)
        assert server.rpc.admin.stats()["log_polls"] == polls


async def test_wrong_options_are_refused() -> None:
    """At the definition, with the way out."""
    with pytest.raises(DefinitionError, match="say 'strict' or 'token'"):
        Cache(freshness="loose")  # type: ignore[arg-type]  # what is refused
    with pytest.raises(DefinitionError, match="0 for never"):
        Cache(stale_if_error_seconds=-1)
    with pytest.raises(DefinitionError, match="cache= is no option of a mutation"):
        define_reactive_function.mutation(cache=Cache(stale_if_error_seconds=5))(add.function)  # type: ignore[call-overload]
