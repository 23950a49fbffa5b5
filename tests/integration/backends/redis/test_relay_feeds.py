"""Several relays at once, none elected, and a Redis that loses things: an edge is told of every row, or of a gap."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from reactive_rpc.backends.redis.connection import PATIENCE_SECONDS
from reactive_rpc.backends.redis.relay import Feed
from reactive_rpc.tasks import end_task
from tests.support.waiting import until

from .rig import Edge, Rig, Writer, prepare

KEYS = ("state", "log", "reports", "questions")


@dataclass(eq=False)
class Story:
    """Random steps of a writer, two feeds, an edge that asks, and Redis.

    Whatever is answered was asked of the edge; `check` holds that it knows by then what was written before.
    """

    rig: Rig
    seed: int
    writer: Writer
    feeds: list[Feed]
    edge: Edge
    client: Any
    copy: dict[str, bytes] = field(default_factory=dict)
    asking: set[asyncio.Task[None]] = field(default_factory=set)
    answered: int = 0
    steps: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.questions = self.rig.stream()
        self.taken: list[list[str]] = [[] for _ in self.feeds]

    async def play(self, steps: int, *, may_lose: bool) -> None:
        """Take random steps, then let everything come to rest."""
        actions = [self.write] * 6 + [self.sync_to_head] * 4 + [self.append] * 6 + [self.ask] * 3
        actions += [self.rest] * 2 + [self.fall_behind, self.catch_up]
        if may_lose:
            actions += [self.lose, self.remember, self.go_back, self.trim]
        for _ in range(steps):
            action = self.random.choice(actions)
            self.steps.append(action.__name__)
            await action()
            assert not self.edge.missing, (self.edge.missing, self.steps)
        await self.come_to_rest()

    async def write(self) -> None:
        self.writer.write()

    async def sync_to_head(self) -> None:
        """Take the questions, then look at the database; what comes of it may be appended much later."""
        number = self.random.randrange(len(self.feeds))
        self.taken[number] += await self.questions.take_questions(0.01)
        await self.feeds[number].sync_to_head()

    async def append(self) -> None:
        number = self.random.randrange(len(self.feeds))
        answered, self.taken[number] = self.taken[number], []
        await self.feeds[number].append(answered, must_report=self.random.random() < 0.3)

    async def ask(self) -> None:
        self.asking.add(asyncio.create_task(self.asked(set(self.writer.versions))))
        await asyncio.sleep(0)

    async def asked(self, written: set[int]) -> None:
        await self.edge.log.sync_to_head()
        late = {n for n in written if self.writer.versions[n] > self.edge.log.version}
        assert not late, (late, self.steps)
        assert not self.edge.missing, (self.edge.missing, self.steps)
        self.answered += 1

    async def fall_behind(self) -> None:
        self.edge.gate.clear()

    async def catch_up(self) -> None:
        self.edge.gate.set()

    async def rest(self) -> None:
        """Let the edge come as far as the last report."""
        self.edge.gate.set()
        report = await self.questions.last_report()
        if report is not None:
            await until(lambda: self.edge.log.version >= report.version, f"version {report.version}")

    async def lose(self) -> None:
        """Delete some keys, or all."""
        names = self.random.sample(KEYS, self.random.randint(1, len(KEYS)))
        self.steps.append(",".join(names))
        await self.client.delete(*map(self.rig.key, names))

    async def trim(self) -> None:
        await self.client.xtrim(self.rig.key("log"), maxlen=self.random.randint(0, 2), approximate=False)

    async def remember(self) -> None:
        """Be the replica that has not got any further."""
        for name in KEYS:
            self.copy[name] = await self.client.dump(self.rig.key(name))

    async def go_back(self) -> None:
        """Fail over to that replica."""
        async with self.client.pipeline(transaction=True) as pipeline:
            for name, content in self.copy.items():
                pipeline.delete(self.rig.key(name))
                if content is not None:
                    pipeline.restore(self.rig.key(name), 0, content)
            await pipeline.execute()

    async def come_to_rest(self) -> None:
        """Feed until every question is answered and the edge is as far as the database."""

        async def feed() -> None:
            while True:
                answered = await self.questions.take_questions(0.01)
                await self.feeds[0].sync_to_head()
                await self.feeds[0].append(answered, must_report=True)

        self.edge.gate.set()
        feeding = asyncio.create_task(feed())
        try:
            await asyncio.gather(self.asked(set(self.writer.versions)), *self.asking)
        finally:
            await end_task(feeding, patience_seconds=PATIENCE_SECONDS)
        assert not self.edge.missing, (self.edge.missing, self.steps)


async def begin(stack: AsyncExitStack, rig: Rig, seed: int) -> Story:
    """Open two feeds and an edge that stands at the end."""
    writer = stack.enter_context(Writer(rig.url))
    feeds = [await stack.enter_async_context(rig.feed()) for _ in range(2)]
    client = await stack.enter_async_context(rig.client())
    opening = asyncio.create_task(stack.enter_async_context(rig.edge(writer, timeout_seconds=60.0)))
    questions = rig.stream()
    while not opening.done():
        answered = await questions.take_questions(0.02)
        await feeds[0].sync_to_head()
        await feeds[0].append(answered)
    await questions.aclose()
    story = Story(rig, seed, writer, feeds, await opening, client)
    stack.push_async_callback(story.questions.aclose)
    return story


@pytest.fixture(params=["server", "cluster with shards"])
def story_rig(request: pytest.FixtureRequest, postgresql_url: str, redis_namespace: str) -> Rig:
    """Return the parts on a new database; on a cluster, with the contents spread over its nodes."""
    is_cluster = request.param != "server"
    redis_url = request.getfixturevalue("redis_cluster_url" if is_cluster else "redis_server_url")
    prepare(postgresql_url)
    return Rig(postgresql_url, redis_url, redis_namespace, shards=4 if is_cluster else 1)


@pytest.mark.parametrize("seed", range(3))
def test_two_relays_without_an_election(story_rig: Rig, seed: int) -> None:
    """Nothing is lost, nothing is a gap, rows come in order, and each answer is as fresh as the question."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            story = await begin(stack, story_rig, seed)
            await story.play(120, may_lose=False)
            assert story.edge.flushes == []
            assert story.edge.first_received == sorted(story.writer.versions)
            assert sum(feed.refusals for feed in story.feeds) > 0, "they never were in each other's way"
            assert story.answered > 3

    asyncio.run(main())


@pytest.mark.parametrize("seed", range(4))
def test_a_redis_that_loses_things(story_rig: Rig, seed: int) -> None:
    """Keys that go, a stream that is cut, a fail-over that goes back: what is not told is covered by a gap."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            story = await begin(stack, story_rig, seed)
            await story.play(150, may_lose=True)
            assert story.edge.received
            assert story.answered > 3

    asyncio.run(main())
