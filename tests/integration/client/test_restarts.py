"""Watches while the server is killed, stopped and started again: stale is said, and mended by itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from generated_client import Agent, AgentStats, Message, TeamHub
from reactive_rpc.client import Page, State, Watch
from reactive_rpc.errors import ConnectionFailedError
from tests.support.processes import Conversation
from tests.support.waiting import until

from .conftest import Serve
from .teamhub import Recorded, Served, fresh, hub_of, play, shown

RENAME = "UPDATE agent SET name = ? WHERE id = ?"
AGENTS = ("agent-0001", "agent-0002", "agent-0003")
ROUNDS = 1 + int(os.environ.get("REACTIVE_SOUNDNESS_CASES", "0")) // 2000
"""How many random runs, of some seconds each."""

PHASES = 2
BURST = 5
BURSTS = 8
CALM_SECONDS = 60.0
"""How long all watches may take to be right once nobody writes: a reconnection's pause, and then some."""

WRITER_PROCESS = """
import random, sqlite3, sys
database, seed, agents = sys.argv[1], sys.argv[2], sys.argv[3:]
rng = random.Random(seed)
connection = sqlite3.connect(database, timeout=30, isolation_level=None)
number = 0
print("ready", flush=True)
for line in sys.stdin:
    for _ in range(int(line)):
        number += 1
        agent, other, mark = rng.choice(agents), rng.choice(agents), f"{seed} {number}"
        kind = rng.randrange(5)
        connection.execute("BEGIN IMMEDIATE")
        if kind == 0:
            connection.execute("UPDATE agent SET name = ? WHERE id = ?", (mark, agent))
        elif kind == 1:
            connection.execute("UPDATE agent SET is_active = 1 - is_active WHERE id = ?", (agent,))
        elif kind == 2:
            connection.execute(
                "INSERT INTO message(id, from_agent_id, to_agent_id, body, created_at) VALUES (?, ?, ?, ?, ?)",
                (mark, agent, other, mark, f"2027-01-01 00:00:00.{rng.randrange(10**6):06}"),
            )
        elif kind == 3:
            connection.execute(
                "DELETE FROM message WHERE id = (SELECT id FROM message WHERE from_agent_id = ? LIMIT 1)", (agent,)
            )
        else:
            one = "(SELECT id FROM memory WHERE agent_id = ? LIMIT 1)"
            connection.execute(f"DELETE FROM memory WHERE id = {one}", (agent,))
        connection.execute("ROLLBACK" if rng.random() < 0.1 else "COMMIT")
    print("done", flush=True)
"""


def named(name: str) -> Callable[[State[Agent]], bool]:
    """Match a state that shows an agent of this name as fresh."""
    return fresh(lambda agent: agent.name == name)


def test_a_kill_is_survived(serve: Serve) -> None:
    """After SIGKILL every state says stale; on the same port again, it is right, and only what changed is sent anew."""

    async def scenario() -> None:
        served, recorded = serve(), Recorded()
        async with hub_of(served, recorded) as hub, AsyncExitStack() as stack:
            changed, same = [
                await stack.enter_async_context(hub.agents.get_one.watch(agent_id=id)) for id in AGENTS[:2]
            ]
            await asyncio.gather(shown(changed, fresh()), shown(same, fresh()))
            await until(lambda: [len(paths) for paths in recorded.open_streams()] == [2])
            kept = same.state.data
            served.end(signal.SIGKILL)
            stale = await shown(same, lambda state: state.is_stale)
            assert stale.data is kept
            await shown(changed, lambda state: state.is_stale and isinstance(state.error, ConnectionFailedError))
            served.write(RENAME, "While it was down", AGENTS[0])
            recorded.forget()
            await served.start_again()
            await shown(changed, named("While it was down"))
            back = await shown(same, fresh())
            assert back.data is kept
            assert recorded.fetches("agents.get_one") == [200]
            served.write(RENAME, "After", AGENTS[1])
            await shown(same, named("After"))

    play(scenario)


def test_a_stop_drains(serve: Serve) -> None:
    """On SIGTERM the server ends although streams are open, the watch says stale, and comes back with the next."""

    async def scenario() -> None:
        served = serve()
        async with hub_of(served) as hub, hub.agents.get_one.watch(agent_id=AGENTS[0]) as live:
            await shown(live, fresh())
            await asyncio.to_thread(served.end, signal.SIGTERM)
            await shown(live, lambda state: state.is_stale)
            await served.start_again()
            await shown(live, fresh())
            served.write(RENAME, "After", AGENTS[0])
            await shown(live, named("After"))

    play(scenario)


def test_a_watch_begun_while_the_server_is_down_comes_up_with_it(serve: Serve) -> None:
    """Watching a server that is not there shows the error and no data; when it starts, the result."""

    async def scenario() -> None:
        served = serve()
        async with hub_of(served) as hub:
            served.end(signal.SIGKILL)
            async with hub.agents.get_one.watch(agent_id=AGENTS[0]) as live:
                absent = await shown(live, lambda state: state.error)
                assert isinstance(absent.error, ConnectionFailedError)
                assert absent.data is None
                await served.start_again()
                await shown(live, fresh())

    play(scenario)


class Writer(Conversation):
    """A process that writes at random, in bursts, when it is told to; `bursts` counts those that are done."""

    def __init__(self, served: Served, seed: str) -> None:
        super().__init__("-c", WRITER_PROCESS, str(served.database), seed, *AGENTS)
        self.bursts = 0
        assert self.receive() == "ready"

    def write(self, bursts: int) -> None:
        """Commit (or roll back) `BURST` transactions so many times; return when the last one is acknowledged."""
        for _ in range(bursts):
            self.send(str(BURST))
            assert self.receive() == "done"
            self.bursts += 1


class Truth:
    """What the watches ought to show, read from the file."""

    def __init__(self, served: Served) -> None:
        self._served = served

    def rows(self, statement: str, *values: object) -> list[Any]:
        """Read by a connection of its own."""
        with closing(sqlite3.connect(self._served.database, timeout=30)) as connection:
            return connection.execute(statement, values).fetchall()

    def agent(self, id: str) -> object:
        """What `agents.get_one` tells of an agent."""
        return self.rows("SELECT name, is_active FROM agent WHERE id = ?", id)[0]

    def stats(self, id: str) -> object:
        """What `agents.get_with_stats` tells."""
        count = "(SELECT count(*) FROM {} WHERE {} = agent.id)"
        counts = f"{count.format('message', 'from_agent_id')}, {count.format('memory', 'agent_id')}"
        return self.rows(f"SELECT name, {counts} FROM agent WHERE id = ?", id)[0]

    def messages(self, id: str) -> object:
        """What `messages.get_all` tells."""
        order = "ORDER BY created_at DESC, id DESC LIMIT 20"
        return [
            row[0] for row in self.rows(f"SELECT id FROM message WHERE ? IN (from_agent_id, to_agent_id) {order}", id)
        ]


def of_agent(agent: Agent) -> object:
    """Return what `Truth.agent` returns."""
    return agent.name, agent.is_active


def of_stats(stats: AgentStats) -> object:
    """Return what `Truth.stats` returns."""
    return stats.agent.name, stats.message_count, stats.memory_count


def of_messages(page: Page[Message]) -> object:
    """Return what `Truth.messages` returns."""
    return [message.id for message in page.items]


@dataclass
class Checked:
    """A watch, how its data reads, and how the truth does."""

    live: Watch[Any]
    read: Callable[[Any], object]
    truth: Callable[[str], object]
    id: str

    def is_right(self) -> bool:
        """Tell whether the watch shows the truth of now as fresh."""
        return fresh(lambda data: self.read(data) == self.truth(self.id))(self.live.state)


async def watch_all(hub: TeamHub, truth: Truth, stack: AsyncExitStack) -> list[Checked]:
    """Watch three queries of each agent."""
    checked = []
    for id in AGENTS:
        one = await stack.enter_async_context(hub.agents.get_one.watch(agent_id=id))
        stats = await stack.enter_async_context(hub.agents.get_with_stats.watch(agent_id=id))
        messages = await stack.enter_async_context(hub.messages.get_all.watch(agent_id=id, limit=20))
        checked += [
            Checked(one, of_agent, truth.agent, id),
            Checked(stats, of_stats, truth.stats, id),
            Checked(messages, of_messages, truth.messages, id),
        ]
    return checked


async def disturb(served: Served, rng: random.Random, writer: Writer) -> None:
    """Kill or stop the server at one moment of the writing, and start it again at another, perhaps after its end."""
    kind = rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM))
    down_at = writer.bursts + rng.randrange(BURSTS)
    up_at = rng.choice((down_at, writer.bursts + BURSTS))
    await until(partial(has_written, writer, down_at))
    await asyncio.to_thread(served.end, kind)
    await until(partial(has_written, writer, up_at))
    await served.start_again()


async def all_right(checked: list[Checked]) -> None:
    """Wait until every watch shows the truth as fresh; tell which does not."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CALM_SECONDS):
            await until(lambda: all(one.is_right() for one in checked))
    wrong = [(one.live.state, one.truth(one.id)) for one in checked if not one.is_right()]
    assert not wrong


def has_written(writer: Writer, bursts: int) -> bool:
    """Tell whether a writer has done so many bursts."""
    return writer.bursts >= bursts


@pytest.mark.parametrize("round", range(ROUNDS))
def test_every_watch_shows_the_truth_in_the_end(serve: Serve, round: int, seed_of_run: int) -> None:
    """Processes write at random while the server is killed and started; whenever writing pauses, all becomes right."""
    rng = random.Random(f"{seed_of_run} {round}")
    served = serve()
    writers = [Writer(served, f"{seed_of_run}-{round}-{number}") for number in range(2)]

    async def scenario() -> None:
        async with hub_of(served) as hub, AsyncExitStack() as stack:
            checked = await watch_all(hub, Truth(served), stack)
            for _ in range(PHASES):
                writing = [asyncio.to_thread(writer.write, BURSTS) for writer in writers]
                await asyncio.gather(*writing, disturb(served, rng, writers[0]))
                await all_right(checked)

    try:
        play(scenario)
    finally:
        for writer in writers:
            writer.close()
