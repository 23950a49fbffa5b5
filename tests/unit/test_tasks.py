"""Tasks: named, ended by their owner, and a failure that somebody sees."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextvars import ContextVar

import pytest

from reactive_rpc.health import Health, Part
from reactive_rpc.tasks import OnDemand, Tasks, background, end_task, shielded, to_its_end, within
from tests.support.waiting import forever
from tests.unit.cache.scripted import until

pytestmark = pytest.mark.anyio

current: ContextVar[str] = ContextVar("current", default="nobody")


@pytest.fixture(autouse=True)
def _no_unseen_failure(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail if asyncio says that nobody saw a task's failure."""
    yield
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []


async def _fail() -> None:
    raise ValueError("on purpose")


async def _swallow_once(ended: list[str]) -> None:
    """Go on after the first cancellation, as the driver does under Python 3.11's `wait_for`."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        ended.append("swallowed")
    await asyncio.Event().wait()


async def test_failure_is_logged_by_name(caplog: pytest.LogCaptureFixture) -> None:
    """A task that nobody awaits and that fails is logged once, with its name; it is then held no more."""
    tasks = Tasks()
    task = tasks.start(_fail(), "example")
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert [record.getMessage() for record in caplog.records] == ["reactive_rpc example has died"]
    assert len(tasks) == 0


async def test_awaited_failure_is_its_waiters(caplog: pytest.LogCaptureFixture) -> None:
    """Of a task that is awaited nothing is logged, even if whoever awaited it has gone."""
    tasks = Tasks()
    task = tasks.start(_fail(), "example", is_awaited=True)
    with pytest.raises(ValueError, match="on purpose"):
        await task
    abandoned = tasks.start(_fail(), "example", is_awaited=True)
    await asyncio.wait([abandoned])
    assert caplog.records == []


async def test_close_ends_every_task() -> None:
    """`aclose` cancels what runs and waits for its cleaning up; afterwards there is nothing, and it can start more."""
    tasks, cleaned = Tasks(), []

    async def work(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(number)

    for number in range(3):
        tasks.start(work(number), "example")
    await asyncio.sleep(0)
    await tasks.aclose()
    await tasks.aclose()
    assert (sorted(cleaned), len(tasks)) == ([0, 1, 2], 0)
    tasks.start(work(3), "example")
    await asyncio.sleep(0)
    await tasks.aclose()
    assert cleaned[3:] == [3]


async def test_kept_task_is_a_part_of_health(caplog: pytest.LogCaptureFixture) -> None:
    """A task without an end is a live part; dead when it has ended by itself; no part once its owner has closed."""
    health = Health()
    tasks = Tasks(health=health)
    tasks.keep(_fail(), "failing")
    tasks.keep(forever(), "lasting")
    assert health.parts() == {"failing": Part(ok=True), "lasting": Part(ok=True)}
    await until(lambda: not health.parts()["failing"].ok)
    assert health.parts() == {"failing": Part(ok=False, detail="has ended", is_dead=True), "lasting": Part(ok=True)}
    await tasks.aclose()
    assert health.parts() == {}
    assert [record.getMessage() for record in caplog.records] == ["reactive_rpc failing has died"]


async def test_swallowed_cancellation_is_repeated() -> None:
    """A task that swallows a cancellation is cancelled again, after the patience that its owner has."""
    ended: list[str] = []
    task = asyncio.create_task(_swallow_once(ended))
    await asyncio.sleep(0)
    await end_task(task, patience_seconds=0.001)
    assert (ended, task.cancelled()) == (["swallowed"], True)


async def test_cleaning_up_is_not_interrupted() -> None:
    """Without a patience a task is cancelled once, however long it cleans up."""
    going, cleaned = asyncio.Event(), []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await going.wait()
            cleaned.append(True)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    ending = asyncio.create_task(end_task(task))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not ending.done()
    going.set()
    await ending
    assert cleaned == [True]


async def test_on_demand_runs_while_there_is_work() -> None:
    """It runs once however often it is woken, ends when nothing is left, and is woken again; in an empty context."""
    waiting: list[int] = []
    done: list[tuple[int, str]] = []

    async def work() -> None:
        while waiting:
            done.append((waiting.pop(0), current.get()))
            await asyncio.sleep(0)

    worker = OnDemand(work, "example")
    current.set("a caller")
    for number in range(3):
        waiting.append(number)
        worker.wake()
    await worker.wait()
    assert (done, worker.is_running) == ([(0, "nobody"), (1, "nobody"), (2, "nobody")], False)
    waiting.append(3)
    worker.wake()
    await worker.aclose()
    assert (waiting, worker.is_running) == ([3], False), "it was cancelled before it ran"
    worker.wake()
    await worker.wait()
    assert waiting == []


async def test_on_demand_outlives_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    """One that fails is logged, and runs again when it is woken."""
    runs: list[int] = []

    async def work() -> None:
        runs.append(len(runs))
        if len(runs) == 1:
            raise ValueError("on purpose")

    worker = OnDemand(work, "example")
    for _ in range(2):
        worker.wake()
        await worker.wait()
    assert runs == [0, 1]
    assert [record.getMessage() for record in caplog.records] == ["reactive_rpc example has died"]


async def test_background_ends_with_its_block() -> None:
    """What runs beside a block is cancelled when the block ends, also by an exception."""
    ended = []

    async def block() -> None:
        async with background(forever(), "example") as task:
            ended.append(task)
            await _fail()

    with pytest.raises(ValueError, match="on purpose"):
        await block()
    assert ended[0].cancelled()


async def test_background_gives_its_result() -> None:
    """The block may await it."""

    async def work() -> int:
        return 3

    async with background(work(), "example") as task:
        assert await task == 3


async def test_within_abandons_what_takes_too_long() -> None:
    """Past its time the caller has a `TimeoutError` at once; the work is cancelled until it ends."""
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await _swallow_once([])
        finally:
            ended.set()

    with pytest.raises(TimeoutError):
        await within(0.0, work(), "example")
    assert not ended.is_set()
    async with asyncio.timeout(60):
        await ended.wait()


async def test_within_returns_and_raises_as_the_work_does() -> None:
    """In time, its result and its failure are the caller's."""

    async def work() -> int:
        return 3

    assert await within(5.0, work(), "example") == 3
    with pytest.raises(ValueError, match="on purpose"):
        await within(5.0, _fail(), "example")


@pytest.mark.parametrize("waits", [False, True])
async def test_cancelled_caller(waits: bool) -> None:
    """Work to its end holds a cancelled caller back until it has succeeded; shielded work lets it go and goes on."""
    going, done = asyncio.Event(), []

    async def work() -> None:
        await going.wait()
        done.append(True)

    caller = asyncio.create_task(to_its_end(work(), "example") if waits else shielded(work(), "example"))
    await asyncio.sleep(0)
    caller.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert caller.done() is not waits
    going.set()
    await asyncio.wait([caller])
    await until(lambda: bool(done))
    assert caller.cancelled()


async def test_work_to_its_end_fails_as_it_does() -> None:
    """Its failure counts for more than the caller's cancellation: whoever reads on must not take it for a success."""
    caller = asyncio.create_task(to_its_end(_fail(), "example"))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(ValueError, match="on purpose"):
        await caller


async def test_tasks_are_named(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever lists the loop's tasks finds ours by their names."""
    caplog.set_level(logging.INFO)
    tasks = Tasks()
    tasks.start(forever(), "example")
    async with background(forever(), "another"):
        names = {task.get_name() for task in asyncio.all_tasks()}
    assert {"reactive_rpc example", "reactive_rpc another"} <= names
    await tasks.aclose()
