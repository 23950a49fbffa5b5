"""Rate limits: how often the store is asked, how far workers may exceed a limit, and what an outage does."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from reactive_rpc import Context, DefinitionError, ServiceUnavailableError, TooManyRequestsError, rate_limit
from reactive_rpc.changes.memory_store import InMemoryEphemeralStore
from reactive_rpc.health import Health
from reactive_rpc.procedures import rate_limit as module
from reactive_rpc.procedures.rate_limit import RateLimits
from reactive_rpc.procedures.steps import LOCAL, CallInfo
from reactive_rpc.testing import FakeClock

pytestmark = pytest.mark.anyio


class CountedStore(InMemoryEphemeralStore):
    """A store that counts how often it is asked, and may be out of reach."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.asked = 0
        self.is_away = False

    async def count(self, key: str, more: int, *, ttl_seconds: float) -> int:
        """Add, unless it is away."""
        self.asked += 1
        if self.is_away:
            raise ServiceUnavailableError("away")
        return await super().count(key, more, ttl_seconds=ttl_seconds)


class World:
    """A store, a clock, and as many workers as a test wants."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = CountedStore(self.clock)
        self.health = Health()

    def worker(self) -> RateLimits:
        """Return the counts of one more worker."""
        return RateLimits(self.store, clock=self.clock, health=self.health)

    async def admitted(self, *workers: RateLimits, calls: int, times: int, who: str = "ada") -> int:
        """Return how many of so many calls are let through, made at the workers in turn."""
        return sum([
            await self.is_admitted(workers[number % len(workers)], calls=calls, who=who) for number in range(times)
        ])  # fmt: skip

    async def is_admitted(self, worker: RateLimits, *, calls: int, who: str = "ada") -> bool:
        """Tell whether a call is let through."""
        try:
            await worker.require_room("limit", who, calls=calls, per_seconds=60)
        except TooManyRequestsError:
            return False
        return True


@pytest.fixture
def world() -> World:
    return World()


async def test_one_worker_is_exact(world: World) -> None:
    """So many calls are let through in a window, and in the next one again; each caller has their own."""
    worker = world.worker()
    for calls in (1, 7, 40, 600):
        assert await world.admitted(worker, calls=calls, times=calls + 20, who=f"c{calls}") == calls
    assert await world.admitted(worker, calls=1, times=3, who="bob") == 1
    world.clock.advance(60)
    assert await world.admitted(worker, calls=1, times=3, who="bob") == 1


async def test_the_wait_is_until_the_next_window(world: World) -> None:
    """`retry-after` is in whole seconds, and after them a call is let through, and not a second before."""
    worker = world.worker()
    await world.admitted(worker, calls=2, times=2)
    with pytest.raises(TooManyRequestsError, match="more than 2 calls in 60 seconds") as refused:
        await worker.require_room("limit", "ada", calls=2, per_seconds=60)
    seconds = int(refused.value.headers["retry-after"])
    assert 1 <= seconds <= 60
    world.clock.advance(seconds - 1)
    assert not await world.is_admitted(worker, calls=2)
    world.clock.advance(1)
    assert await world.is_admitted(worker, calls=2)


@pytest.mark.parametrize("calls", [1, 2, 39])
async def test_small_limits_are_exact_over_workers(world: World, calls: int) -> None:
    """Each call is counted in the store before it is let through."""
    assert await world.admitted(*(world.worker() for _ in range(5)), calls=calls, times=300) == calls


@pytest.mark.parametrize("workers", [2, 5])
async def test_workers_exceed_a_limit_by_a_twentieth_each_at_most(world: World, workers: int) -> None:
    """However calls are spread over them."""
    admitted = await world.admitted(*(world.worker() for _ in range(workers)), calls=400, times=4_000)
    assert 400 <= admitted <= 400 + workers * 400 // module.SETTLED_SHARE


async def test_the_store_is_asked_seldom(world: World) -> None:
    """About twenty times in a window, and not by a caller who is past the limit."""
    await world.admitted(world.worker(), calls=600, times=10_000)
    assert world.store.asked <= module.SETTLED_SHARE


async def test_an_outage_leaves_each_worker_its_own_count(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Calls are let through up to the limit, health and log say so once, and what was let through is counted later."""
    caplog.set_level(logging.INFO, module.__name__)
    one, other = world.worker(), world.worker()
    world.store.is_away = True
    assert [await world.admitted(worker, calls=10, times=30) for worker in (one, other)] == [10, 10]
    assert world.store.asked == 2
    assert world.health.parts()[module.PART].detail.startswith("held by each worker alone")
    world.store.is_away = False
    world.clock.advance(60)
    assert await world.admitted(one, other, calls=10, times=30) == 10
    assert world.health.parts() == {}
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "INFO", "INFO"]  # two workers


async def test_silent_callers_are_forgotten(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker holds a bounded number; whoever is forgotten is counted on by the store."""
    monkeypatch.setattr(module, "MAX_COUNTS", 3)
    worker = world.worker()
    for who in "abcdef":
        assert await world.admitted(worker, calls=2, times=3, who=who) == 2
    assert len(worker._counts) == 3
    assert await world.admitted(worker, calls=2, times=3, who="a") == 0


@pytest.mark.parametrize(("calls", "options"), [(0, {}), (1.5, {}), (1, {"per_seconds": 0}), (1, {"per_seconds": -1})])
def test_a_limit_that_is_none_is_refused(calls: Any, options: Any) -> None:
    """Where it is defined."""
    with pytest.raises(DefinitionError, match="rate_limit"):
        rate_limit(calls, **options)


async def test_a_limit_has_no_count_beside_a_session() -> None:
    """There nobody may know who calls, and it says what to do."""
    with pytest.raises(DefinitionError):
        await rate_limit(1)(Context(), CallInfo("a.b", "query", lambda: None))
    await rate_limit(1)(Context(), CallInfo("a.b", "query", lambda: None, origin=LOCAL))
