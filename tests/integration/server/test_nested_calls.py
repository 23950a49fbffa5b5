"""A handler may call another procedure; what that one read counts."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import ReactiveRPC, RPCError, define_reactive_function
from tests.support.calls import by_path

from .rooms import METADATA, InRoom, NewNote, Note, Visit, add, in_room, serving

pytestmark = pytest.mark.anyio

ANSWER_SECONDS = 60.0


def nesting(file: Path) -> ReactiveRPC:
    """Return procedures that call `in_room` and `add` through a caller of the same server."""

    @define_reactive_function
    async def count(input: InRoom) -> int:
        return len(await by_path(rpc)("notes.in_room", room=input.room))

    @define_reactive_function
    async def count_and_add(input: InRoom) -> int:
        await by_path(rpc)("notes.add", room=input.room, text="sneaked in")
        return 1

    @define_reactive_function.mutation
    async def add_twice(db: AsyncSession, input: NewNote) -> None:
        await by_path(rpc)("notes.add", room=input.room, text=input.text)

    functions = {
        "notes": {"in_room": in_room, "add": add},
        "nested": {"count": count, "count_and_add": count_and_add, "add_twice": add_twice},
    }
    rpc = ReactiveRPC(f"sqlite:///{file}", functions=functions, metadata=METADATA)
    return rpc


async def test_what_an_inner_query_reads_counts_for_the_outer(file: Path) -> None:
    """The outer result is cached, and invalidated by what only the inner query read."""
    rpc = nesting(file)
    await rpc.admin.open()
    try:
        call = by_path(rpc)
        assert await call("nested.count", room="a") == 0
        hits = rpc.admin.stats()["hits"]
        assert await call("nested.count", room="a") == 0
        assert rpc.admin.stats()["hits"] == hits + 1
        await call("notes.add", room="a", text="x")
        assert await call("nested.count", room="a") == 1
    finally:
        await rpc.admin.aclose()


async def test_what_an_inner_call_had_read_counts_if_it_fails_by_accident(file: Path) -> None:
    """An outer query that catches what an inner one raised depends on what that one had read."""

    @define_reactive_function
    async def inner(db: AsyncSession) -> int:
        return 1 // len((await db.exec(select(Note))).all())

    @define_reactive_function
    async def outer(db: AsyncSession) -> int:
        await db.exec(select(Visit))
        try:
            return int(await by_path(server.rpc)("n.inner"))
        except ZeroDivisionError:
            return -1

    async with serving(file, {"n": {"inner": inner, "outer": outer}}) as server:
        assert (await server.client.get("/rpc/n.outer")).json() == -1
        server.write("INSERT INTO note(tenant, room, text) VALUES ('t', 'a', 'x')")
        assert (await server.client.get("/rpc/n.outer")).json() == 1


async def test_many_calls_with_calls_inside_do_not_wait_for_each_other(file: Path) -> None:
    """Outer calls that hold every connection of the pool leave some for the calls inside them."""
    gate = asyncio.Barrier(15)

    @define_reactive_function
    async def inner(db: AsyncSession, input: InRoom) -> int:
        return len((await db.exec(select(Note).where(Note.room == input.room))).all())

    @define_reactive_function
    async def outer(db: AsyncSession, input: InRoom) -> int:
        await db.exec(select(Visit))
        await gate.wait()
        return int(await by_path(server.rpc)("n.inner", room=input.room))

    async with serving(file, {"n": {"inner": inner, "outer": outer}}) as server:
        calls = [asyncio.create_task(server.client.get("/rpc/n.outer", params={"room": str(n)})) for n in range(15)]
        _, waiting = await asyncio.wait(calls, timeout=ANSWER_SECONDS)
        for call in waiting:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert not waiting


async def test_a_query_that_calls_itself_is_refused(file: Path) -> None:
    """A call that would wait for its own computation fails, instead of waiting for ever."""

    @define_reactive_function
    async def again(db: AsyncSession) -> int:
        return int(await by_path(server.rpc)("n.again"))

    async with serving(file, {"n": {"again": again}}) as server:
        async with asyncio.timeout(ANSWER_SECONDS):
            answer = await server.client.get("/rpc/n.again")
        assert answer.status_code == 500


@pytest.mark.parametrize(
    ("path", "input", "fault"),
    [
        (
            "nested.count_and_add",
            {"room": "a"},
            "a query may not write; define it with define_reactive_function.mutation",
        ),
        ("nested.add_twice", {"room": "a", "text": "x"}, "call the decorated function itself"),
    ],
)
async def test_a_mutation_inside_a_call_is_refused(
    file: Path, path: str, input: dict[str, str], fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Inside a query it would be a write, inside a mutation it would wait for its own lock: both say so at once."""
    caplog.set_level(logging.CRITICAL)
    rpc = nesting(file)
    await rpc.admin.open()
    try:
        with pytest.raises(RPCError, match=fault):
            await by_path(rpc)(path, **input)
        assert await by_path(rpc)("notes.in_room", room="a") == []
    finally:
        await rpc.admin.aclose()
