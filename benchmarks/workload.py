"""TeamHub at work: how often a result is there already while one call in ten writes, beside a cache that knows all.

Callers of several organizations open the page's queries, some agents far more often than others. The counts are the
server's own. A result is dropped needlessly if it was computed again and came out the same; a cache that dropped only
results that really change would have had a hit there.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from sqlmodel import SQLModel

from app.database import database_url
from app.functions import agents, memory, messages, organizations, search, tools
from app.seed import seed
from reactive_rpc import Login, ReactiveRPC
from reactive_rpc.procedures.caller import Caller

__all__ = ["Workload", "run"]

ORGANIZATIONS = 8
AGENTS = 20
CALLS = 6_000
WRITES = 0.1
ROUNDS = 5


Read = Callable[[Caller, str], Awaitable[Any]]

READS: tuple[tuple[int, Read], ...] = (
    (1, lambda call, _: call(organizations.get_mine)),
    (1, lambda call, _: call(tools.available)),
    (2, lambda call, _: call(agents.get_all)),
    (2, lambda call, _: call(agents.get_overview)),
    (2, lambda call, _: call(messages.get_latest)),
    (4, lambda call, agent: call(agents.get_one, agent_id=agent)),
    (4, lambda call, agent: call(agents.get_with_stats, agent_id=agent)),
    (4, lambda call, agent: call(messages.get_all, agent_id=agent)),
    (4, lambda call, agent: call(memory.recent, agent_id=agent)),
)
"""The page's queries, and how often it asks for each."""


@dataclass
class Workload:
    """One worker, and whoever calls it.

    Attributes:
        rng: draws callers, agents and calls.
    """

    rpc: ReactiveRPC
    rng: random.Random
    callers: Sequence[Caller] = field(default_factory=list)

    def read(self) -> Read:
        """Return a query of the page, as often as the page asks for it."""
        return self.rng.choices(READS, [weight for weight, _ in READS])[0][1]

    async def warm_up(self) -> None:
        """Ask for everything once: an empty cache is not what is measured."""
        for number, caller in enumerate(self.callers):
            for place in range(AGENTS):
                for _, read in READS:
                    await read(caller, _agent(number, place))

    async def write(self, call: Caller, agent: str) -> None:
        """Do something that people do: mostly, say something."""
        text = f"about {self.rng.random()}"
        kind = self.rng.choices(("send", "edit", "remember", "update"), (6, 2, 3, 1))[0]
        if kind == "send":
            await call(messages.send, from_agent_id=agent, body=text)
        elif kind == "edit":
            message = (await call(messages.get_all, agent_id=agent)).items[0]  # whoever edits one sees it
            await call(messages.edit, message_id=message.id, body=text, expected=message.body)
        elif kind == "remember":
            await call(memory.add, agent_id=agent, content=text)
        else:
            await call(agents.update, agents.AgentUpdate(agent_id=agent, description=text))

    async def call(self, calls: int) -> None:
        """Make so many calls, one after another."""
        weights = [1 / (place + 1) for place in range(AGENTS)]
        for _ in range(calls):
            number = self.rng.randrange(ORGANIZATIONS)
            place = self.rng.choices(range(AGENTS), weights)[0]
            agent = _agent(number, place)
            caller = self.callers[number]
            if self.rng.random() < WRITES:
                await self.write(caller, agent)
            else:
                await self.read()(caller, agent)


async def measure(folder: Path, seed_number: int) -> dict[str, float]:
    """Return the counters of one run, from a warm cache on."""
    database = folder / f"workload-{seed_number}.db"
    seed(database)
    functions: dict[str, Any] = {
        "agents": agents, "messages": messages, "memory": memory, "search": search, "tools": tools,
        "organizations": organizations,
    }  # fmt: skip
    rpc = ReactiveRPC(database_url(str(database)), functions=functions, context=_context, metadata=SQLModel.metadata)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(rpc.lifespan(FastAPI()))
        callers = [
            rpc.caller(Login(identity=f"user-{number:02}", tenant=f"org-{number:02}"))
            for number in range(1, ORGANIZATIONS + 1)
        ]
        workload = Workload(rpc, random.Random(seed_number), callers)
        await workload.warm_up()
        before = rpc.admin.stats()
        await workload.call(CALLS)
        after = rpc.admin.stats()
    return {name: after[name] - before[name] for name in ("hits", "misses", "invalidated", "needless")}


def _agent(organization: int, place: int) -> str:
    return f"agent-{organization * AGENTS + place + 1:04}"


def _context() -> Login:
    raise NotImplementedError("the callers bring their own")


def run(folder: Path, *, rounds: int = ROUNDS) -> None:
    """Measure and print."""
    print(f"TeamHub, {CALLS:,} calls, {WRITES:.0%} of them writes; load of the machine {os.getloadavg()[0]:.1f}:\n")
    print("| seed | hits | if only truth dropped them | results dropped | of these needlessly |\n|---|---|---|---|---|")
    for number in range(1, rounds + 1):
        counts = asyncio.run(measure(folder, number))
        reads = counts["hits"] + counts["misses"]
        rate, best = counts["hits"] / reads, (counts["hits"] + counts["needless"]) / reads
        needless = counts["needless"] / max(1, counts["invalidated"])
        print(f"| {number} | **{rate:.1%}** | {best:.1%} | {counts['invalidated']:,.0f} | {needless:.1%} |", flush=True)
    print()
