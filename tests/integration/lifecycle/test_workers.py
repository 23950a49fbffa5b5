"""`uvicorn --workers 2`: what one worker is told, the streams of the other hear; either may die."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial

from reactive_rpc.client import AsyncClient
from reactive_rpc.errors import ReactiveRPCError
from tests.support.waiting import until

from .running import GET, PUSHED, WRITE, Shown, new_client, play, running, watching, workers_of

WORKERS = 2
WRITES = 20

SOON = "[100, 300]"
"""How many milliseconds clients wait before they come back."""

LATE = "[30.0, 30.0, 30.0]"
"""Acknowledgements are waited for so long that a machine under load makes none late."""


def all_right(shown: Sequence[Shown], text: str) -> bool:
    """Tell whether every watch shows a text as fresh."""
    return all(one.is_right(text) for one in shown)


def test_any_worker_may_write_and_any_may_take_the_acknowledgement(database: str) -> None:
    """Both workers hold streams, both write, all clients show each write; an acknowledgement counts wherever it lands:
    no event is sent again.
    """

    async def scenario(url: str) -> None:
        async with new_client(url) as writer, AsyncExitStack() as stack:
            await writer.call(WRITE, {"id": 1, "text": "0"})
            shown: list[Shown] = []
            while len({one.streams[-1] for one in shown}) < WORKERS:
                shown += await stack.enter_async_context(watching(url, GET, 3))
                shown += await stack.enter_async_context(watching(url, PUSHED, 3))
            writers: set[int] = set()
            number = 0
            while not (len(writers) == WORKERS and any(crossed(one) for one in shown)):
                number += 1
                writers.add(await writer.call(WRITE, {"id": 1, "text": str(number)}))
                await until(partial(all_right, shown, str(number)))

            async def is_all_acknowledged() -> bool:
                return not any(unacknowledged(stats) for stats in (await workers_of(url, WORKERS)).values())

            await until(is_all_acknowledged)
            found = (await workers_of(url, WORKERS)).values()
            assert sum(stats["events"] for stats in found) >= len(shown)
            assert sum(stats["events_with_results"] for stats in found) >= 1
            assert [stats["events_retried"] for stats in found] == [0] * WORKERS
            assert not [error for one in shown for error in one.errors]

    with running(database, "--workers", str(WORKERS), REACTIVE_RPC_ACK_RETRY_SECONDS=LATE) as server:
        play(partial(scenario, server.url))


def crossed(shown: Shown) -> bool:
    """Tell whether an acknowledgement was taken by another worker than the one that holds the stream."""
    return any(worker != shown.streams[-1] for worker in shown.acks)


def unacknowledged(stats: dict[str, float]) -> float:
    """Return how many events a worker still waits for the acknowledgement of."""
    return stats["events"] - stats["events_acknowledged"] - stats["events_abandoned"]


def test_a_poll_goes_on_at_another_worker(database: str) -> None:
    """Each poll is answered by whichever worker takes it, from the cursor that the other gave: nothing is missed."""

    async def scenario(url: str) -> None:
        async with new_client(url) as writer, watching(url, GET, 2, events="poll") as shown:
            number = 0
            while not all(len(set(one.polls)) == WORKERS for one in shown):
                number += 1
                await writer.call(WRITE, {"id": 1, "text": str(number)})
                await until(partial(all_right, shown, str(number)))
            assert not [error for one in shown for error in one.errors]
            assert not [one for one in shown if one.streams]

    with running(database, "--workers", str(WORKERS)) as server:
        play(partial(scenario, server.url))


def test_a_killed_worker_loses_nothing(database: str) -> None:
    """SIGKILL of one of two workers under writes: uvicorn starts another, and every client ends with the last text."""

    async def scenario(url: str) -> None:
        before = set(await workers_of(url, WORKERS))
        async with new_client(url) as writer, watching(url, GET, 6) as shown:
            victim = int(shown[0].streams[-1])
            kept = [one for one in shown if one.streams[-1] != str(victim)]
            writing = asyncio.create_task(write_many(writer, WRITES))
            os.kill(victim, signal.SIGKILL)
            last = await writing
            await until(partial(all_right, shown, last))
            after = set(await workers_of(url, WORKERS))
            assert victim not in after
            assert len(after & before) == WORKERS - 1
            assert not [error for one in kept for error in one.errors]

    with running(database, "--workers", str(WORKERS), REACTIVE_RPC_RECONNECT_MILLISECONDS=SOON) as server:
        play(partial(scenario, server.url))


async def write_many(writer: AsyncClient, count: int) -> str:
    """Write the note again and again, and return the last text; what a worker takes with it is written again."""
    for number in range(1, count + 1):
        while True:
            with suppress(ReactiveRPCError):
                await writer.call(WRITE, {"id": 1, "text": str(number)})
                break
    return str(count)
