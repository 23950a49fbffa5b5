"""Following a log: it is read between being armed and waiting, and polled where it cannot be woken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from reactive_rpc.changes import follower
from reactive_rpc.changes.follower import IDLE_FACTOR, LogFollower
from reactive_rpc.changes.log import Batch
from reactive_rpc.errors import ServiceUnavailableError
from tests.support.waiting import forever, idle_thread, until

pytestmark = pytest.mark.anyio

INTERVAL = 0.5
FOR_EVER = float("inf")


class Scene:
    """A log, what wakes its follower, and a clock: it writes down what happens, in order.

    Attributes:
        can_arm: what `arm` answers.
        wakes: answers of `wait`, taken from the front; without one it waits for ever.
        fails: whether the log cannot be read.
        changes: whether each of the next reads brings changes, taken from the front; later ones bring none.
        broken: which of `arm`, `wait` and `disarm` fail by an error that nobody foresaw.
        hangs: whether the log answers no more.
        stalls_seconds: how long each read keeps the event loop, as if the process had no core.
        lost: how often the log was taken for lost.
    """

    def __init__(self, *, streams: int = 1) -> None:
        self.events: list[str] = []
        self.can_arm = True
        self.wakes: list[bool] = []
        self.fails = False
        self.changes: list[bool] = []
        self.slept: list[float] = []
        self.broken: set[str] = set()
        self.hangs = False
        self.stalls_seconds = 0.0
        self.lost = 0
        self._follower = LogFollower(
            self.sync,
            lambda: FOR_EVER,
            wake_up=self,
            clock=self,
            interval_seconds=INTERVAL,
            streams=[None] * streams,
            on_lost=self.lose,
        )

    def lose(self) -> None:
        self.lost += 1

    def happen(self, event: str) -> None:
        self.events.append(event)
        if event in self.broken:
            raise RuntimeError(f"cannot {event}")

    async def sync(self) -> None:
        self.events.append("read")
        if self.hangs:
            await forever()
        if self.stalls_seconds:
            idle_thread(self.stalls_seconds, because="a process without a core lets nothing run")
            for _ in range(3):  # the answer takes some steps, as what comes by a socket does
                await asyncio.sleep(0)
        if self.fails:
            raise ServiceUnavailableError("down")
        if self.changes and self.changes.pop(0):
            self._follower.apply(Batch(1))

    async def arm(self) -> bool:
        self.happen("arm")
        return self.can_arm

    async def wait(self) -> bool:
        self.happen("wait")
        if not self.wakes:
            await asyncio.Event().wait()
        return self.wakes.pop(0)

    async def disarm(self) -> None:
        self.happen("disarm")

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


@pytest.mark.parametrize("broken", ["arm", "wait", "disarm"])
async def test_a_follower_outlives_an_error_of_what_wakes_it(caplog: pytest.LogCaptureFixture, broken: str) -> None:
    """The log is polled meanwhile, which is said once; when the fault has passed, it sleeps and is woken as before."""
    scene = Scene()
    scene.broken = {broken}
    scene.wakes = [True] * 3

    def mend() -> bool:
        if scene.events.count("read") > 10:
            scene.broken = set()
        return not scene.broken and scene.events[-1] == "wait"

    await scene.play(mend)
    said = [record for record in caplog.records if "cannot be waited for" in record.message]
    assert len(said) == 1
    assert scene.slept.count(INTERVAL) >= 10


@pytest.fixture
def lost_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a log for lost after so short a time as a test can wait."""
    monkeypatch.setattr(follower, "LOST_SECONDS", 0.05)


@pytest.mark.usefixtures("lost_soon")
@pytest.mark.parametrize("fault", ["hangs", "fails"])
async def test_a_log_that_is_not_read_for_long_is_lost(fault: str) -> None:
    """Whether it answers by an error or not at all; and again and again, for streams that are opened meanwhile."""
    scene = Scene()
    setattr(scene, fault, True)
    await scene.play(lambda: scene.lost > 2)


@pytest.mark.usefixtures("lost_soon")
async def test_a_log_is_not_lost_as_the_process_had_no_core() -> None:
    """The time in which nothing here could run says nothing of the log: it answers as soon as it is asked."""
    scene = Scene()
    scene.stalls_seconds = 0.2
    scene.wakes = [False] * 3
    await scene.play(lambda: scene.events.count("wait") == 4)
    assert scene.lost == 0


@pytest.mark.seeded_bug
@pytest.mark.usefixtures("lost_soon")
async def test_a_follower_that_counts_by_the_clock_alone_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """One tick of the whole time comes in the first step after the process got a core again."""
    monkeypatch.setattr(follower, "LOST_TICKS", 1)
    with pytest.raises(AssertionError):
        await test_a_log_is_not_lost_as_the_process_had_no_core()
