"""How the generated client is called: each line marked `# error` is wrong, all others are right."""

from __future__ import annotations

from typing import assert_type

from generated_client import Agent, AgentStats, Message, Organization, SyncTeamHub, TeamHub
from reactive_rpc.client import Page, State


async def right(hub: TeamHub) -> None:
    assert_type(await hub.agents.get_one(agent_id="a"), Agent)
    assert_type(await hub.agents.get_all(), list[Agent])
    assert_type(await hub.organizations.get_mine(), Organization)
    assert_type((await hub.agents.get_with_stats(agent_id="a")).message_count, int)
    assert_type(await hub.messages.get_all(agent_id="a", limit=3, after=None), Page[Message])
    assert_type((await hub.agents.update(agent_id="a", description=None)).description, str | None)
    async with hub.agents.get_with_stats.watch(agent_id="a") as live:
        assert_type(live.state, State[AgentStats])
        async for state in live:
            assert_type(state.data, AgentStats | None)
            assert_type(state.is_stale, bool)
    await hub.login(username="a", password="b")


def right_without_async(hub: SyncTeamHub) -> None:
    assert_type(hub.agents.get_one(agent_id="a"), Agent)
    with hub.agents.get_one.watch(agent_id="a") as live:
        for state in live:
            assert_type(state.data, Agent | None)


async def wrong(hub: TeamHub) -> None:
    await hub.agents.get_one(agent="a")  # error: wrong name
    await hub.agents.get_one(agent_id=1)  # error: wrong type
    await hub.agents.get_one()  # error: missing
    await hub.agents.get_one("a")  # error: by position
    await hub.agents.get_one(agent_id=None)  # error: null
    await hub.messages.get_all(agent_id="a", limit="3")  # error: wrong type of an optional argument
    await hub.organizations.get_mine(organization_id="o")  # error: it takes nothing
    _ = (await hub.agents.get_one(agent_id="a")).nam  # error: wrong attribute of the output
    _ = (await hub.agents.get_all()).name  # error: it is a list
    (await hub.agents.get_one(agent_id="a")).description.upper()  # error: it may be null
    _ = hub.agents.get_one(agent_id="a").name  # error: not awaited
    await hub.agents.get_some(agent_id="a")  # error: no such procedure
    await hub.agent.get_one(agent_id="a")  # error: no such namespace
    hub.agents.create.watch(name="n")  # error: a mutation is not watched
    hub.agents.get_one.watch(agent="a")  # error: wrong name in a watch
    with hub.agents.get_one.watch(agent_id="a"):  # error: needs async with
        pass
    async with hub.agents.get_one.watch(agent_id="a") as live:
        for one in live:  # error: needs async for
            str(one)
        _ = live.state.data.name  # error: there may be no data yet
        live.state.is_stale = False  # error: states are frozen
    await hub.login("a", "b")  # error: by position


async def wrong_without_async(hub: SyncTeamHub) -> None:
    await hub.agents.get_one(agent_id="a")  # error: a result is nothing to await
    async with hub.agents.get_one.watch(agent_id="a"):  # error: needs with
        pass
