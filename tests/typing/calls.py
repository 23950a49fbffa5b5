"""How the generated client is called: each line marked `# error` is wrong, all others are right."""

from __future__ import annotations

from typing import assert_type

from generated_client import Agent, AgentStats, Message, Organization, SyncTeamHub, TeamHub
from reactive_rpc.client import BoundQuery, OptimisticUpdate, Page, PagesState, State, SyncBoundQuery


async def right(hub: TeamHub) -> None:
    assert_type(await hub.agents.get_one(agent_id="a"), Agent)
    assert_type(await hub.agents.get_all(), list[Agent])
    assert_type(await hub.organizations.get_mine(), Organization)
    assert_type((await hub.agents.get_with_stats(agent_id="a")).message_count, int)
    assert_type(await hub.messages.get_all(agent_id="a", limit=3, after=None), Page[Message])
    async with hub.messages.get_all.pages(agent_id="a", limit=3) as pages:
        assert_type(pages.state, PagesState[Message])
        assert_type(pages.load_more(), None)
        async for shown in pages:
            assert_type(shown.rows, list[Message] | None)
    assert_type((await hub.agents.update(agent_id="a", description=None)).description, str | None)
    async with hub.agents.get_with_stats.watch(agent_id="a") as live:
        assert_type(live.state, State[AgentStats])
        async for state in live:
            assert_type(state.data, AgentStats | None)
            assert_type(state.is_stale, bool)
    await hub.login(username="a", password="b")


async def right_optimistically(hub: TeamHub) -> None:
    agent, agents = hub.agents.get_one.bind(agent_id="a"), hub.agents.get_all.bind()
    assert_type(agent, BoundQuery[Agent])
    renamed = agent.changed(lambda one: assert_type(one, Agent).model_copy(update={"name": "n"}))
    assert_type(renamed, OptimisticUpdate)
    assert_type(await hub.agents.update(agent_id="a", name="n", optimistic=renamed), Agent)
    listed = agents.changed(lambda all: [one for one in assert_type(all, list[Agent]) if one.id != "a"])
    await hub.agents.delete(agent_id="a", optimistic=[listed, renamed])
    await hub.agents.update.in_parallel()(agent_id="a", name="n", optimistic=(renamed,))
    async with agent.hold(), agents.hold():
        await agents.prefetch(keep_seconds=5)


def right_without_async(hub: SyncTeamHub) -> None:
    assert_type(hub.agents.get_one(agent_id="a"), Agent)
    with hub.agents.get_one.watch(agent_id="a") as live:
        for state in live:
            assert_type(state.data, Agent | None)
    agent = hub.agents.get_one.bind(agent_id="a")
    assert_type(agent, SyncBoundQuery[Agent])
    renamed = agent.changed(lambda one: one.model_copy(update={"name": "n"}))
    assert_type(hub.agents.update(agent_id="a", name="n", optimistic=renamed), Agent)
    with agent.hold():
        agent.prefetch()


async def wrong_optimistically(hub: TeamHub, sync: SyncTeamHub) -> None:
    agent, agents = hub.agents.get_one.bind(agent_id="a"), hub.agents.get_all.bind()
    hub.agents.get_one.bind(agent="a")  # error: wrong name
    hub.agents.get_one.bind()  # error: missing
    hub.agents.update.bind(agent_id="a")  # error: a mutation is not bound
    agent.changed(lambda one: one.nam)  # error: wrong attribute of the result
    agent.changed(lambda one: None)  # error: a change returns a result
    agent.changed(lambda one: [one])  # error: of another query
    agents.changed(lambda all: all.append(all[0]))  # error: it changes what it is given, and returns nothing
    agents.changed(lambda one: one.model_copy())  # error: it is a list
    agent.changed()  # error: missing
    renamed = agent.changed(lambda one: one.model_copy(update={"name": "n"}))
    await hub.agents.update(agent_id="a", optimistic=agent)  # error: bound, and not changed
    await hub.agents.update(agent_id="a", optimistic=[agent])  # error: the same in a list
    await hub.agents.update(agent_id="a", optimistic=lambda one: one)  # error: of which query?
    await hub.agents.update(agent_id="a", optimistic={"name": "n"})  # error: no update
    await hub.agents.get_one(agent_id="a", optimistic=renamed)  # error: a query changes nothing
    with agent.hold():  # error: needs async with
        pass
    async with sync.agents.get_all.bind().hold():  # error: needs with
        pass


async def wrong(hub: TeamHub) -> None:
    await hub.agents.get_one(agent="a")  # error: wrong name
    await hub.agents.get_one(agent_id=1)  # error: wrong type
    await hub.agents.get_one()  # error: missing
    await hub.agents.get_one("a")  # error: by position
    await hub.agents.get_one(agent_id=None)  # error: null
    await hub.messages.get_all(agent_id="a", limit="3")  # error: wrong type of an optional argument
    hub.messages.get_all.pages(agent_id="a", after="x")  # error: a list has no place to begin at
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
