"""Watches of the generated client on a server that stays up: what is shown follows every write, whoever made it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest

from generated_client import Agent, TeamHub
from reactive_rpc.client import State, Watch
from reactive_rpc.errors import ForbiddenError, NotFoundError, UnauthorizedError
from tests.support.waiting import until

from .conftest import Serve
from .teamhub import EMAIL, PASSWORD, SECRET, Recorded, Served, fresh, hub_of, play, shown

RENAME = "UPDATE agent SET name = ? WHERE id = ?"
INSERT = """INSERT INTO agent(id, organization_id, name, role, is_active, created_at)
VALUES (?, 'org-01', ?, 'tester', 1, '2026-01-01 00:00:00.000000')"""


def named(name: str) -> Any:
    """Match a state that shows an agent of this name as fresh."""
    return fresh(lambda agent: agent.name == name)


async def new_agent(hub: TeamHub, name: str = "Before") -> str:
    """Add an agent that no other test touches."""
    return (await hub.agents.create(name=name)).id


def test_a_watch_shows_mutations_and_the_writes_of_others(shared: Served) -> None:
    """The first result, then the change of a mutation, of another connection and of another process; none twice."""

    async def scenario() -> None:
        recorded = Recorded()
        async with hub_of(shared, recorded) as hub:
            id = await new_agent(hub)
            async with hub.agents.get_one.watch(agent_id=id) as live:
                assert await anext(live) == State(None, is_stale=True, is_loading=True, error=None)
                await shown(live, named("Before"))
                await hub.agents.update(agent_id=id, name="By a mutation")
                await shown(live, named("By a mutation"))
                shared.write(RENAME, "By a connection", id)
                await shown(live, named("By a connection"))
                await asyncio.to_thread(shared.write_elsewhere, RENAME, "By a process", id)
                await shown(live, named("By a process"))
        assert recorded.fetches("agents.get_one") == [200] * 4

    play(scenario)


def test_two_watches_share_one_stream(shared: Served) -> None:
    """Different queries are watched by one stream, equal ones by one subscription; what is left shrinks the set."""

    async def scenario() -> None:
        recorded = Recorded()
        async with hub_of(shared, recorded) as hub:
            id = await new_agent(hub)
            async with hub.agents.get_one.watch(agent_id=id) as one, hub.agents.get_one.watch(agent_id=id) as same:
                async with hub.organizations.get_mine.watch() as other:
                    await shown(other, fresh())
                    await shown(one, named("Before"))
                    await until(lambda: [sorted(paths) for paths in recorded.open_streams()] == [BOTH])
                    shared.write(RENAME, "After", id)
                    await shown(same, named("After"))
                    assert same.state is one.state
                    assert recorded.fetches("organizations.get_mine") == [200]
                await until(lambda: recorded.open_streams() == [["agents.get_one"]])
                shared.write(RENAME, "Later", id)
                await shown(one, named("Later"))

    play(scenario)


BOTH = ["agents.get_one", "organizations.get_mine"]


def test_what_does_not_exist_yet_appears(shared: Served) -> None:
    """A watch of a missing row shows NotFoundError, confirmed like a result by the stream that would tell of the row;
    it shows the row when it comes, and the error alone when it goes.
    """

    async def scenario() -> None:
        async with hub_of(shared) as hub, hub.agents.get_one.watch(agent_id="agent-later") as live:
            missing = await shown(live, lambda state: state.error and not state.is_stale)
            assert isinstance(missing.error, NotFoundError)
            assert (missing.data, missing.is_loading) == (None, False)
            await asyncio.to_thread(shared.write_elsewhere, INSERT, "agent-later", "Here")
            await shown(live, named("Here"))
            shared.write("DELETE FROM agent WHERE id = 'agent-later'")
            gone = await shown(live, lambda state: state.error)
            assert isinstance(gone.error, NotFoundError)
            assert (gone.data, gone.is_stale) == (None, False)
            shared.write(INSERT, "agent-later", "Again")
            await shown(live, named("Again"))

    play(scenario)


def token(expires: datetime) -> str:
    """Return a token of somebody who is known."""
    return jwt.encode({"sub": "user-01", "org": "org-01", "exp": expires}, SECRET, "HS256")


@asynccontextmanager
async def watching_for_a_while(hub: TeamHub, id: str) -> AsyncIterator[tuple[Watch[Agent], datetime]]:
    """Watch an agent by a token that is soon to expire, and late enough for the first result; return also when."""
    for seconds in (2, 8, 32):
        expires = datetime.now(UTC) + timedelta(seconds=seconds)
        hub.set_token(token(expires))
        async with hub.agents.get_one.watch(agent_id=id) as live:
            first = await shown(live, lambda state: state.error or named("Before")(state))
            if first.error is None:
                yield live, expires
                return
    raise AssertionError("the first result takes longer than any token lasts")


def test_an_expired_token_is_never_silent(shared: Served) -> None:
    """When the token has expired, the next change shows an error beside old data; a login revives the watch."""

    async def scenario() -> None:
        async with TeamHub(shared.url) as hub:
            await hub.login(username=EMAIL, password=PASSWORD)
            id = await new_agent(hub)
            async with watching_for_a_while(hub, id) as (live, expires):
                await until(lambda: datetime.now(UTC) > expires + timedelta(seconds=1))
                shared.write(RENAME, "After", id)
                expired = await shown(live, lambda state: state.error)
                assert isinstance(expired.error, UnauthorizedError)
                assert (expired.is_stale, expired.data and expired.data.name) == (True, "Before")
                await hub.login(username=EMAIL, password=PASSWORD)
                await shown(live, named("After"))
                hub.set_token("nonsense")
                refused = await shown(live, lambda state: state.is_stale and state.error)
                assert isinstance(refused.error, UnauthorizedError)
                hub.set_token(token(expires + timedelta(hours=1)))
                await shown(live, named("After"))

    play(scenario)


def test_another_caller_never_sees_what_was_held_for_the_first(shared: Served) -> None:
    """After a change of the caller the watch asks anew and shows that the row is not theirs."""

    async def scenario() -> None:
        async with hub_of(shared) as hub:
            id = await new_agent(hub)
            async with hub.agents.get_one.watch(agent_id=id) as live:
                await shown(live, named("Before"))
                await hub.login(username="ada@org-02.example", password=PASSWORD)
                refused = await shown(live, lambda state: state.error)
                assert isinstance(refused.error, NotFoundError)
                assert refused.data is None

    play(scenario)


def test_what_is_forbidden_says_so_and_comes_back(serve: Serve) -> None:
    """A watch whose right is taken away shows ForbiddenError, which its stream confirms; given back, it is told."""

    async def scenario() -> None:
        served = serve("tests.integration.client.served_permits:app")
        served.write("INSERT INTO permit(id) VALUES ('p')")
        async with hub_of(served) as hub, hub.agents.get_one.watch(agent_id="p") as live:
            await shown(live, named("permitted"))
            served.write("DELETE FROM permit")
            refused = await shown(live, lambda state: state.error)
            assert isinstance(refused.error, ForbiddenError)
            assert not refused.is_stale
            served.write("INSERT INTO permit(id) VALUES ('p')")
            await shown(live, named("permitted"))

    play(scenario)


def test_a_slow_consumer_skips_and_never_goes_back(serve: Serve) -> None:
    """Whoever looks rarely sees the newest state; no older one follows a newer, also past the server's queue."""

    async def scenario() -> None:
        served = serve(REACTIVE_RPC_STREAM_QUEUE_EVENTS="4")
        async with hub_of(served) as hub:
            id = await new_agent(hub, "000")
            async with hub.agents.get_one.watch(agent_id=id) as slow, hub.agents.get_one.watch(agent_id=id) as quick:
                await shown(slow, named("000"))
                seen: list[str] = []
                follower = asyncio.create_task(follow(quick, seen, until_name="199"))
                await asyncio.to_thread(write_names, served, id, 200)
                await follower
                assert (await anext(slow)).data == quick.state.data
                assert seen == sorted(seen)
                assert seen[-1] == "199"

    play(scenario)


def write_names(served: Served, id: str, count: int) -> None:
    """Rename the agent again and again, a commit each."""
    for number in range(1, count):
        served.write(RENAME, f"{number:03}", id)


async def follow(live: Watch[Agent], seen: list[str], *, until_name: str) -> None:
    """Note each name that is shown, until a fresh state shows the last one."""
    async for state in live:
        if state.data is not None:
            seen.append(state.data.name)
        if named(until_name)(state):
            return


@pytest.mark.parametrize("statement", ["ALTER TABLE agent ADD COLUMN extra TEXT", "CREATE INDEX i ON agent(role)"])
def test_a_change_of_the_schema_is_survived(serve: Serve, statement: str) -> None:
    """After DDL by another process, the watch is right again by itself and follows the next write."""

    async def scenario() -> None:
        served = serve()
        async with hub_of(served) as hub:
            id = await new_agent(hub)
            async with hub.agents.get_one.watch(agent_id=id) as live:
                await shown(live, named("Before"))
                await asyncio.to_thread(served.write_elsewhere, statement)
                served.write(RENAME, "After", id)
                await shown(live, named("After"))
                served.write(RENAME, "Later", id)
                await shown(live, named("Later"))

    play(scenario)


def test_fifty_watches_follow(shared: Served) -> None:
    """Fifty watches are kept right by one stream, and a write refetches only the one that it changes."""

    async def scenario() -> None:
        recorded = Recorded()
        async with hub_of(shared, recorded) as hub, AsyncExitStack() as stack:
            ids = [await new_agent(hub, "Before") for _ in range(50)]
            watches = [await stack.enter_async_context(hub.agents.get_one.watch(agent_id=id)) for id in ids]
            await asyncio.gather(*(shown(live, named("Before")) for live in watches))
            await until(lambda: [len(paths) for paths in recorded.open_streams()] == [50])
            recorded.forget()
            shared.write(RENAME, "One", ids[7])
            await shown(watches[7], named("One"))
            assert recorded.fetched() == ["agents.get_one"]
            shared.write("UPDATE agent SET name = 'All' WHERE id IN (SELECT value FROM json_each(?))", dumped(ids))
            await asyncio.gather(*(shown(live, named("All")) for live in watches))
            assert len(recorded.open_streams()) == 1

    play(scenario)


def dumped(ids: list[str]) -> str:
    """Return ids as a JSON array."""
    return "[" + ",".join(f'"{id}"' for id in ids) + "]"
