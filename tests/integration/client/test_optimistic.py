"""Optimistic updates against a real TeamHub: while it is killed, while others write, in two clients at once."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from generated_client import Agent, AgentNotFound, Message, TeamHub
from reactive_rpc.client import OptimisticUpdate, Page, State, Watch
from reactive_rpc.clock import SystemClock
from reactive_rpc.errors import ConnectionFailedError
from tests.support.waiting import until

from .conftest import Serve
from .teamhub import Served, hub_of, play

AGENT, OTHER = "agent-0001", "agent-0002"
RENAME = "UPDATE agent SET name = ? WHERE id = ?"
SENDS = 25
LIMIT = 200


def named(hub: TeamHub, name: str) -> OptimisticUpdate:
    """Show an agent under a name."""
    return hub.agents.get_one.bind(agent_id=AGENT).changed(lambda agent: agent.model_copy(update={"name": name}))


def sent(hub: TeamHub, body: str) -> OptimisticUpdate:
    """Show a message in front of the others, as the server will."""

    def change(page: Page[Message]) -> Page[Message]:
        now = datetime.now(UTC)
        row = Message(id=f"of {body}", from_agent_id=AGENT, to_agent_id=OTHER, body=body, created_at=now)
        return page.model_copy(update={"items": [row, *page.items]})

    return hub.messages.get_all.bind(agent_id=AGENT, limit=LIMIT).changed(change)


@asynccontextmanager
async def frames_of(live: Watch[Page[Message]]) -> AsyncIterator[list[list[str]]]:
    """Collect the texts of each state that a watch shows."""
    frames: list[list[str]] = []

    async def collect() -> None:
        async for state in live:
            frames.append([message.body for message in _messages(state)])

    task = asyncio.create_task(collect())
    yield frames
    task.cancel()
    await asyncio.wait([task])


def check(frames: list[list[str]], mine: list[str]) -> None:
    """No message shows twice, none that has shown vanishes, and own ones show in their order."""
    shown: set[str] = set()
    for frame in frames:
        marked = [body for body in frame if body.startswith("#")]
        assert len(marked) == len(set(marked)), frame
        assert shown <= set(marked), shown - set(marked)
        shown = set(marked)
        own = [body for body in reversed(frame) if body in mine]
        assert own == [body for body in mine if body in own]


def test_rows_never_vanish_nor_show_twice(shared: Served, seed_of_run: int) -> None:
    """Two clients send into one conversation as quickly as they can, while somebody else writes beside the server."""

    async def scenario() -> None:
        dice = random.Random(seed_of_run)
        async with (
            hub_of(shared) as ours,
            hub_of(shared, events="poll") as theirs,
            ours.messages.get_all.watch(agent_id=AGENT, limit=LIMIT) as here,
            theirs.messages.get_all.watch(agent_id=AGENT, limit=LIMIT) as there,
        ):
            await until(lambda: _is_fresh(here.state) and _is_fresh(there.state), within_seconds=60)
            async with frames_of(here) as ours_seen, frames_of(there) as theirs_seen:
                mine = [f"#ours {number}" for number in range(SENDS)]
                yours = [f"#theirs {number}" for number in range(SENDS)]
                async with asyncio.TaskGroup() as group:
                    group.create_task(_send(ours, mine, dice))
                    group.create_task(_send(theirs, yours, dice))
                    group.create_task(asyncio.to_thread(shared.write_elsewhere, RENAME, "Meanwhile", OTHER))
                await until(lambda: _rests(here.state) and _rests(there.state), within_seconds=60)
            check(ours_seen, mine)
            check(theirs_seen, yours)
            assert {*mine, *yours} <= {message.body for message in _messages(here.state)}

    play(scenario)


async def _send(hub: TeamHub, bodies: list[str], dice: random.Random) -> None:
    """Make all of them, some before the ones before are answered."""
    async with asyncio.TaskGroup() as group:
        for body in bodies:
            call = hub.messages.send(from_agent_id=AGENT, to_agent_id=OTHER, body=body, optimistic=sent(hub, body))
            group.create_task(call)
            for _ in range(dice.randrange(40)):
                await asyncio.sleep(0)


def _messages(state: State[Page[Message]]) -> list[Message]:
    return [] if state.data is None else state.data.items


def _rests(state: State[Page[Message]]) -> bool:
    bodies = [message.body for message in _messages(state) if message.body.startswith("#")]
    return not (state.is_stale or state.is_pending) and len(bodies) == 2 * SENDS


def test_what_the_server_refuses_is_rolled_back(shared: Served) -> None:
    """A declared error; the result that shows is the true one, in the turn in which the call raises."""

    async def scenario() -> None:
        async with hub_of(shared) as hub, hub.agents.get_one.watch(agent_id=AGENT) as live:
            await until(lambda: _is_fresh(live.state))
            before = live.state.data
            call = asyncio.create_task(hub.agents.update(agent_id="nobody", name="n", optimistic=named(hub, "Wrong")))
            await until(lambda: live.state.is_pending)
            assert _name(live.state) == "Wrong"
            try:
                await call
            except AgentNotFound:
                assert (live.state.data, live.state.is_pending) == (before, False)
            else:
                raise AssertionError("an agent that does not exist was updated")

    play(scenario)


def test_the_server_is_killed_under_a_mutation(serve: Serve) -> None:
    """Nobody knows whether it was done: it shows as pending until the server is back, and then the truth does."""

    async def scenario() -> None:
        served = serve()
        async with (
            hub_of(served) as hub,
            hub_of(served) as onlooker,
            hub.agents.get_one.watch(agent_id=AGENT) as live,
            onlooker.agents.get_one.watch(agent_id=AGENT) as other,
        ):
            await until(lambda: _is_fresh(live.state) and _is_fresh(other.state))
            served.pause()
            call = asyncio.create_task(hub.agents.update(agent_id=AGENT, name="Mine", optimistic=named(hub, "Mine")))
            await until(lambda: live.state.is_pending)
            await asyncio.to_thread(served.end, signal.SIGKILL)
            try:
                await call
            except ConnectionFailedError:
                assert (_name(live.state), live.state.is_pending) == ("Mine", True)
            else:
                raise AssertionError("a server that was killed has answered")
            assert _name(other.state) != "Mine"
            await served.start_again()
            await until(lambda: _is_fresh(live.state) and not live.state.is_pending, within_seconds=60)
            [[truth]] = served.rows("SELECT name FROM agent WHERE id = ?", AGENT)
            assert _name(live.state) == truth
            await hub.agents.update(agent_id=AGENT, name="Again", optimistic=named(hub, "Again"))
            await until(lambda: _is_fresh(other.state) and _name(other.state) == "Again", within_seconds=60)

    play(scenario)


class Patient(SystemClock):
    """Time in which each pause lasts until the server is back, however long that takes.

    Attributes:
        is_back: set when it is.
    """

    def __init__(self) -> None:
        self.is_back = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        """Wait for the server."""
        await self.is_back.wait()
        await super().sleep(min(seconds, 0.05))


def test_with_a_key_it_is_made_once_though_the_server_was_killed(serve: Serve) -> None:
    """It is sent again until it is answered, and shows all the while."""

    async def scenario() -> None:
        served, clock = serve(), Patient()
        clock.is_back.set()
        async with (
            hub_of(served, retry_mutations=True, clock=clock) as hub,
            hub.messages.get_all.watch(agent_id=AGENT, limit=LIMIT) as live,
        ):
            await until(lambda: _is_fresh(live.state))
            async with frames_of(live) as frames:
                served.pause()
                once = hub.messages.send(
                    from_agent_id=AGENT, to_agent_id=OTHER, body="#once", optimistic=sent(hub, "#once")
                )
                call = asyncio.create_task(once)
                await until(lambda: live.state.is_pending)
                clock.is_back.clear()
                await asyncio.to_thread(served.end, signal.SIGKILL)
                await served.start_again()
                clock.is_back.set()
                await call
                await until(lambda: _is_fresh(live.state) and not live.state.is_pending, within_seconds=60)
            check(frames, ["#once"])
        assert served.rows("SELECT count(*) FROM message WHERE body = '#once'") == [(1,)]

    play(scenario)


def _is_fresh(state: State[Any]) -> bool:
    return not state.is_stale and state.error is None and state.data is not None


def _name(state: State[Agent]) -> str | None:
    return None if state.data is None else state.data.name
