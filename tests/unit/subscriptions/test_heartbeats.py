"""Heartbeats: one task for all streams, each silent for no longer than promised, and not all in one instant."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from reactive_rpc.subscriptions.heartbeats import COMMENT, TICK_SECONDS, TURNS
from tests.unit.cache.scripted import until

from .scripted_hub import Listener, ScriptedHub

pytestmark = pytest.mark.anyio

SECONDS = 25.0
STREAMS = 200
SLOTS = int(SECONDS / TURNS / TICK_SECONDS)
ROUND = TURNS * SLOTS
"""So many ticks are the time that was promised."""


async def tick(w: ScriptedHub) -> None:
    """Let the wheel go on by one slot."""
    await until(lambda: w.clock.sleepers == 1)
    w.clock.advance(SECONDS / ROUND)
    for _ in range(5):
        await asyncio.sleep(0)


def comments(listener: Listener) -> int:
    """Return how often a stream has said that it lives; `frames` are chunks here."""
    return sum(frame.count(COMMENT) for frame in listener.frames)


async def test_idle_streams_say_that_they_live() -> None:
    """Each once in the time that was promised, a few at each tick, by one task; `connected` tells the promise."""
    w = ScriptedHub(heartbeat_seconds=SECONDS)
    listeners = [await w.connect() for _ in range(STREAMS)]
    assert listeners[0].connected.heartbeat_seconds == SECONDS
    assert len(w.hub._tasks) == 1
    said: list[int] = []
    for _ in range(3 * ROUND):  # three times the promise
        await tick(w)
        said.append(sum(map(comments, listeners)))
    assert {comments(listener) for listener in listeners} <= {3, 4}
    assert max(after - before for before, after in pairwise(said)) <= STREAMS / SLOTS
    await w.aclose()


async def test_no_silence_is_longer_than_promised() -> None:
    """Wherever in the wheel a stream stands, and whenever it has last said something."""
    w = ScriptedHub(heartbeat_seconds=SECONDS)
    listeners = [await w.connect(w.row(number)) for number in range(SLOTS)]
    silent_since = dict.fromkeys(range(SLOTS), 0.0)
    heard = dict.fromkeys(range(SLOTS), 0)
    for turn in range(4 * ROUND):
        if turn % 3 == 0 and turn < 2 * ROUND:
            w.log.write(turn % SLOTS)
            w.log.apply()
        await tick(w)
        now = w.clock.monotonic()
        for number, listener in enumerate(listeners):
            if len(listener.frames) > heard[number]:
                heard[number], silent_since[number] = len(listener.frames), now
            assert now - silent_since[number] <= SECONDS + SECONDS / ROUND
    await w.aclose()


async def test_a_stream_that_speaks_needs_no_heartbeat() -> None:
    """Events say that it lives."""
    w = ScriptedHub(heartbeat_seconds=SECONDS, max_events=10_000)
    listener = await w.connect(w.row(1))
    for _ in range(2 * ROUND):
        w.log.write(1)
        w.log.apply()
        await tick(w)
    assert comments(listener) == 0
    assert len(listener.frames) > SLOTS
    await w.aclose()


async def test_without_a_promise_nothing_is_said_and_nothing_runs() -> None:
    """0 is never; and with one, the task ends with the last stream."""
    w = ScriptedHub(heartbeat_seconds=0.0)
    listener = await w.connect()
    assert (len(w.hub._tasks), listener.connected.heartbeat_seconds) == (0, None)
    await w.aclose()
    w = ScriptedHub(heartbeat_seconds=SECONDS)
    listener = await w.connect()
    await w.leave(listener)
    for _ in range(SLOTS):
        await tick(w)
    await until(lambda: len(w.hub._tasks) == 0)
    await w.aclose()
