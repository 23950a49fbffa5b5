"""A lock for threads and coroutines: one holder at a time, in the order of asking, and who left is not waited for."""

from __future__ import annotations

import asyncio
import random
import threading

import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from reactive_rpc.statements.fair_lock import FairLock
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

PATIENCE = 60.0
HOLDERS = 40


class Arena:
    """A lock, who waits for it, and who has held it, in order."""

    def __init__(self, lock: FairLock) -> None:
        self.lock = lock
        self.held: list[int] = []
        self.inside = 0
        self.most_inside = 0

    def enter(self, name: int) -> None:
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        self.held.append(name)

    async def coroutine(self, name: int) -> None:
        async with self.lock:
            self.enter(name)
            await asyncio.sleep(0)
            self.inside -= 1

    def thread(self, name: int) -> None:
        with self.lock:
            self.enter(name)
            self.inside -= 1

    async def waiting(self, count: int) -> None:
        """Return when so many wait."""
        await until(lambda: len(self.lock._waiting) == count)


@pytest.mark.parametrize("seed", range(5))
async def test_threads_and_coroutines_hold_it_in_the_order_in_which_they_ask(seed: int) -> None:
    """Some of the coroutines leave while they wait; the others are not held up by that, and nobody is forgotten."""
    rng = random.Random(seed)
    arena = Arena(FairLock(PATIENCE))
    threads: list[threading.Thread] = []
    tasks: dict[int, asyncio.Task[None]] = {}
    async with arena.lock:
        for name in range(HOLDERS):
            if rng.random() < 0.5:
                threads.append(threading.Thread(target=arena.thread, args=(name,)))
                threads[-1].start()
            else:
                tasks[name] = asyncio.create_task(arena.coroutine(name))
            await arena.waiting(name + 1)
        left = rng.sample(sorted(tasks), len(tasks) // 3)
        for name in left:
            tasks[name].cancel()
        await asyncio.wait([tasks[name] for name in left])
    await asyncio.gather(*(task for name, task in tasks.items() if name not in left))
    await until(lambda: not any(thread.is_alive() for thread in threads))
    assert arena.held == [name for name in range(HOLDERS) if name not in left]
    assert arena.most_inside == 1
    arena.thread(HOLDERS)  # it is free again


@pytest.mark.parametrize("seed", range(5))
async def test_whoever_is_cancelled_in_the_step_in_which_it_is_handed_over_hands_it_on(seed: int) -> None:
    """A cancellation may come before, with or after the lock: whatever it meets, the lock is free at the end."""
    rng = random.Random(seed)
    arena = Arena(FairLock(PATIENCE))
    for _ in range(200):
        tasks = [asyncio.create_task(arena.coroutine(name)) for name in range(5)]
        for _ in range(rng.randrange(12)):
            await asyncio.sleep(0)
        rng.choice(tasks).cancel()
        await asyncio.wait(tasks)
        assert not arena.lock._is_held
        arena.inside = 0  # one who was cancelled within did not count itself out


@pytest.mark.parametrize("is_thread", [False, True])
async def test_whoever_waits_too_long_is_told_as_by_a_pool(*, is_thread: bool) -> None:
    """And whoever waits behind gets the lock all the same."""
    lock = FairLock(0.01)
    arena = Arena(lock)
    async with lock:
        with pytest.raises(PoolTimeoutError):
            await (asyncio.to_thread(arena.thread, 1) if is_thread else arena.coroutine(1))
    await arena.coroutine(2)
    assert arena.held == [2]
