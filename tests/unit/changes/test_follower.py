"""Following a log: it is read between being armed and waiting, and polled where it cannot be woken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from reactive_rpc.changes.follower import IDLE_FACTOR, LogFollower
from reactive_rpc.changes.log import Batch
from reactive_rpc.errors import ServiceUnavailableError
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

INTERVAL = 0.5


class Scene:
    """A log, what wakes its follower, and a clock: it writes down what happens, in order.

    Attributes:
        can_arm: what `arm` answers.
        wakes: answers of `wait`, taken from the front; without one it waits for ever.
        fails: whether the log cannot be read.
        changes: whether each of the next reads brings changes, taken from the front; later ones bring none.
    """

    def __init__(self, *, streams: int = 1) -> None:
        self.events: list[str] = []
        self.can_arm = True
        self.wakes: list[bool] = []
        self.fails = False
        self.changes: list[bool] = []
        self.slept: list[float] = []
        self._follower = LogFollower(
            self.sync,
            lambda: 0.0,
            wake_up=self,
            clock=self,
            interval_seconds=INTERVAL,
            streams=[None] * streams,
            on_lost=lambda: None,
        )

    async def sync(self) -> None:
        self.events.append("read")
        if self.fails:
            raise ServiceUnavailableError("down")
        if self.changes and self.changes.pop(0):
            self._follower.apply(Batch(1))

    async def arm(self) -> bool:
        self.events.append("arm")
        return self.can_arm

    async def wait(self) -> bool:
        self.events.append("wait")
        if not self.wakes:
            await asyncio.Event().wait()
        return self.wakes.pop(0)

    async def disarm(self) -> None:
        self.events.append("disarm")

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.events.append("sleep")
        await asyncio.sleep(0)

    def monotonic(self) -> float:
        return 0.0

    def time(self) -> float:
        return 0.0

    async def play(self, ended: Callable[[], object]) -> None:
        """Follow until `ended()`."""
        following = asyncio.create_task(self._follower.run())
        await until(ended)
        following.cancel()
        await asyncio.wait([following])


LIE_DOWN = ["disarm", "sleep", "arm", "read", "wait"]


async def test_a_log_is_read_after_it_is_armed_and_before_it_is_waited_for() -> None:
    """So a commit of before that wakes nobody is read, too."""
    scene = Scene()
    await scene.play(lambda: scene.events[-1:] == ["wait"])
    assert scene.events == ["read", *LIE_DOWN]


async def test_whoever_is_woken_reads_at_once_and_rests_before_it_sleeps_again() -> None:
    """Reads are never closer than the interval, however often somebody commits."""
    scene = Scene()
    scene.wakes = [True]
    await scene.play(lambda: scene.events.count("wait") == 2)
    assert scene.events == ["read", *LIE_DOWN, "read", *LIE_DOWN]
    assert scene.slept == [INTERVAL, INTERVAL]


async def test_a_log_is_not_armed_while_each_read_brings_changes() -> None:
    """Whoever writes without a pause is polled: it would be woken at once, and each writer has to notify meanwhile."""
    scene = Scene()
    scene.changes = [True, True, True, False]
    await scene.play(lambda: scene.events[-1:] == ["wait"])
    assert scene.events == ["read", "disarm", "sleep", "read", "sleep", "read", "sleep", "read", "arm", "read", "wait"]


@pytest.mark.seeded_bug
async def test_a_follower_that_arms_beside_a_writer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has not heard of the changes arms after each read."""
    monkeypatch.setattr(LogFollower, "apply", lambda self, batch: None)
    with pytest.raises(AssertionError):
        await test_a_log_is_not_armed_while_each_read_brings_changes()


async def test_the_log_is_read_when_nobody_has_woken_it_for_long() -> None:
    """It stays armed meanwhile."""
    scene = Scene()
    scene.wakes = [False, False]
    await scene.play(lambda: scene.events.count("wait") == 3)
    assert scene.events == ["read", *LIE_DOWN, "read", "wait", "read", "wait"]


async def test_a_log_that_cannot_be_woken_is_polled() -> None:
    """In intervals, and less often while no stream is open."""
    scene = Scene(streams=0)
    scene.can_arm = False
    await scene.play(lambda: len(scene.slept) > 3)
    assert "wait" not in scene.events
    assert set(scene.slept) == {INTERVAL * IDLE_FACTOR}


async def test_a_log_that_cannot_be_read_is_not_waited_for() -> None:
    """It is tried again in intervals, armed or not: what it has not read may never wake anybody."""
    scene = Scene()
    scene.fails = True
    await scene.play(lambda: scene.events.count("arm") > 2)
    assert scene.events[:8] == ["read", *LIE_DOWN[:4], "read", "disarm", "sleep"]
    assert "wait" not in scene.events
