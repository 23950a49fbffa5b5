"""A handler may call another procedure; what that one read counts."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import ReactiveRPC, RPCError, define_reactive_function

from .rooms import METADATA, InRoom, NewNote, add, in_room

pytestmark = pytest.mark.anyio


def nesting(file: Path) -> ReactiveRPC:
    """Return procedures that call `in_room` and `add` through a caller of the same server."""

    @define_reactive_function
    async def count(input: InRoom) -> int:
        return len(await rpc.caller()("notes.in_room", room=input.room))

    @define_reactive_function
    async def count_and_add(input: InRoom) -> int:
        await rpc.caller()("notes.add", room=input.room, text="sneaked in")
        return 1

    @define_reactive_function(kind="mutation")
    async def add_twice(input: NewNote, db: AsyncSession) -> None:
        await rpc.caller()("notes.add", room=input.room, text=input.text)

    functions = {
        "notes": {"in_room": in_room, "add": add},
        "nested": {"count": count, "count_and_add": count_and_add, "add_twice": add_twice},
    }
    rpc = ReactiveRPC(f"sqlite:///{file}", functions=functions, metadata=METADATA)
    return rpc


async def test_what_an_inner_query_reads_counts_for_the_outer(file: Path) -> None:
    """The outer result is cached, and invalidated by what only the inner query read."""
    rpc = nesting(file)
    await rpc.open()
    try:
        call = rpc.caller()
        assert await call("nested.count", room="a") == 0
        hits = rpc.stats()["hits"]
        assert await call("nested.count", room="a") == 0
        assert rpc.stats()["hits"] == hits + 1
        await call("notes.add", room="a", text="x")
        assert await call("nested.count", room="a") == 1
    finally:
        await rpc.aclose()


@pytest.mark.parametrize(
    ("path", "input", "fault"),
    [
        ("nested.count_and_add", {"room": "a"}, "a query may not write"),
        ("nested.add_twice", {"room": "a", "text": "x"}, "call the decorated function itself"),
    ],
)
async def test_a_mutation_inside_a_call_is_refused(
    file: Path, path: str, input: dict[str, str], fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Inside a query it would be a write, inside a mutation it would wait for its own lock: both say so at once."""
    caplog.set_level(logging.CRITICAL)
    rpc = nesting(file)
    await rpc.open()
    try:
        with pytest.raises(RPCError, match=fault):
            await rpc.caller()(path, **input)
        assert await rpc.caller()("notes.in_room", room="a") == []
    finally:
        await rpc.aclose()
