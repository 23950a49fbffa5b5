"""`cache=False` on a real server: every call runs the handler, and nothing is kept, shared or watched."""

from __future__ import annotations

import asyncio
import logging
from itertools import count
from pathlib import Path

import pytest
from sqlmodel import func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import Cache, DefinitionError, PreconditionFailedError, ReactiveRPC, define_reactive_function
from tests.support.calls import by_path

from .rooms import METADATA, Note, add, app_of, opened

pytestmark = pytest.mark.anyio


def counting(file: Path) -> ReactiveRPC:
    """Return procedures of which `each` is not cached and `outer` calls it."""
    runs = count(1)

    @define_reactive_function(cache=False)
    async def each(db: AsyncSession) -> list[int]:
        """How many notes there are, and which run this is."""
        found = (await db.exec(select(func.count()).select_from(Note))).one()
        return [found, next(runs)]

    @define_reactive_function
    async def outer(db: AsyncSession) -> list[int]:
        """What `each` says."""
        await db.exec(select(Note.id))
        found: list[int] = await by_path(rpc)("notes.each")
        return found

    functions = {"notes": {"each": each, "outer": outer, "add": add}}
    rpc = ReactiveRPC(f"sqlite:///{file}", functions=functions, metadata=METADATA)
    return rpc


async def test_every_call_runs_the_handler(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is stored, two calls at once share nothing, and nobody is warned: it was asked for."""
    async with opened(counting(file), app_of) as server:
        with caplog.at_level(logging.WARNING):
            answers = [(await server.client.get("/rpc/notes.each")).json() for _ in range(3)]
            both = await asyncio.gather(*(server.client.get("/rpc/notes.each") for _ in range(2)))
        assert [run for _, run in answers] == [1, 2, 3]
        assert sorted(answer.json()[1] for answer in both) == [4, 5]
        assert not caplog.records
        stats = server.rpc.admin.stats()
        assert (stats["hits"], stats["stored"], stats["uncacheable"], stats["indexed"]) == (0, 0, 0, 0)


async def test_what_calls_it_is_not_cached_either(file: Path) -> None:
    """A cached query would keep what was not to be kept; its reason names the inner one."""
    async with opened(counting(file), app_of) as server:
        runs = [(await server.client.get("/rpc/notes.outer")).json()[1] for _ in range(2)]
        assert runs == [1, 2]
        assert server.rpc.admin.stats()["uncacheable"] == 2


async def test_a_watch_is_refused_with_the_way_out(file: Path) -> None:
    """Nobody could tell when its result changes; no handler runs to find that out."""
    async with opened(counting(file), app_of) as server:
        answer = await server.client.post("/rpc/events/poll", json={"queries": [{"path": "notes.each"}]})
        [refused] = answer.json()["events"][0]["data"]["errors"]
        assert refused["error"]["code"] == PreconditionFailedError.code
        assert "cache=False" in refused["error"]["message"]
        assert "Cache(ttl_seconds=...)" in refused["error"]["message"]
        assert (await server.client.get("/rpc/notes.each")).json()[1] == 1


def test_what_cache_may_not_be() -> None:
    """A mutation is not cached; and predicates have nothing to keep where nothing is kept."""

    async def handler(db: AsyncSession) -> int:
        return 0

    with pytest.raises(DefinitionError, match="give Cache"):
        define_reactive_function(cache=True)(handler)  # type: ignore[call-overload]  # what is refused
    with pytest.raises(DefinitionError, match="cache= is no option of a mutation"):
        define_reactive_function.mutation(cache=False)(handler)  # type: ignore[call-overload]  # what is refused
    with pytest.raises(DefinitionError, match="drop one of them"):
        define_reactive_function(cache=False, invalidate_when={"note": lambda change, input: True})(handler)
    with pytest.raises(DefinitionError, match="number of seconds"):
        Cache(stale_if_error_seconds=True)
