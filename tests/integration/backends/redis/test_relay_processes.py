"""Relays that are killed or stopped at the worst moments: another takes over, and no edge notices."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.processes import Process
from tests.support.waiting import until

from .rig import Edge, Rig, Writer, prepare


@contextmanager
def relay_in_a_process(rig: Rig, point: str = "never") -> Iterator[Process]:
    """Run a relay in a process of its own for as long as the block runs."""
    arguments = [rig.url, rig.redis_url, rig.namespace, str(rig.shards), point]
    command = [sys.executable, "-m", "tests.integration.backends.redis.relay_process", *arguments]
    with Process(*command, log=Path(os.devnull)) as process:
        yield process


@pytest.fixture
def rig(postgresql_url: str, redis_server_url: str, redis_namespace: str) -> Rig:
    prepare(postgresql_url)
    return Rig(postgresql_url, redis_server_url, redis_namespace, shards=3)


async def write_until_dead(writer: Writer, process: Process) -> None:
    """Commit rows all the while, also after."""

    def write() -> bool:
        writer.write()
        return process.has_ended()

    await until(write, "the relay dies")


async def settle(edge: Edge) -> None:
    """Wait until the edge has been told of every row."""
    await until(lambda: set(edge.received) >= set(edge.writer.versions), "every row is told")
    assert edge.flushes == []
    assert edge.first_received == sorted(edge.writer.versions)


@pytest.mark.parametrize("point", ["before", "parts", "after"])
def test_a_relay_that_is_killed(rig: Rig, point: str) -> None:
    """At any point of an append, another goes on: nothing is lost, nothing comes in another order, nobody flushes."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            writer = stack.enter_context(Writer(rig.url))
            first = stack.enter_context(relay_in_a_process(rig, point))
            edge = await stack.enter_async_context(rig.edge(writer))
            second = await stack.enter_async_context(rig.relaying())
            await write_until_dead(writer, first)
            assert first.wait() == -signal.SIGKILL
            writer.write()
            await settle(edge)
            assert second.status.role == "leading"
            await edge.log.sync_to_head()

    asyncio.run(main())


def test_a_relay_that_is_stopped_and_goes_on(rig: Rig) -> None:
    """It holds the lock and an append that is no longer true: another leads meanwhile, and gives way afterwards."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            writer = stack.enter_context(Writer(rig.url))
            first = stack.enter_context(relay_in_a_process(rig, "stop"))
            edge = await stack.enter_async_context(rig.edge(writer))
            second = await stack.enter_async_context(rig.relaying())

            def write_until_stopped() -> bool:
                writer.write()
                return process_state(first.pid) == "T"

            await until(write_until_stopped, "the first relay stops")
            await until(lambda: second.status.role == "leading", "the second leads")
            for _ in range(20):
                writer.write()
                await settle(edge)
            os.kill(first.pid, signal.SIGCONT)
            await until(lambda: writer.write() and second.status.role == "candidate", "the second gives way")
            for _ in range(20):
                writer.write()
                await settle(edge)
            await edge.log.sync_to_head()

    asyncio.run(main())


def process_state(pid: int) -> str:
    """Return the state of a process: T is stopped."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0]
