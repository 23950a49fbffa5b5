"""Shared results in a store: how long they are kept, and that no store, however it lies, makes an answer stale."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from reactive_rpc.cache import stored_results as module
from reactive_rpc.cache.result import ResultKey
from reactive_rpc.cache.result_store import FoundResult, ResultStore, StoredResult
from reactive_rpc.cache.shared_results import SharedResult, decode_value
from reactive_rpc.cache.stored_results import StoredResults
from reactive_rpc.dependencies.period import Period
from reactive_rpc.dependencies.read_set import Constraint, Equals, ReadSet
from reactive_rpc.testing import FakeClock
from tests.support.result_stores import DictStore, Shelves
from tests.support.waiting import until

from .scripted import ScriptedReader
from .test_shared_results import SharingReaders

pytestmark = pytest.mark.anyio

KEY: ResultKey = ("items.sum", b"(1,)", b"ann")
READ_SET = ReadSet((Constraint("item", frozenset({"id"}), {"id": Equals(frozenset({1}))}),))
VALUE = SharedResult(KEY, "e1", 7, b"1", READ_SET)


class Recorder(DictStore):
    """Keeps nothing, and remembers for how long it should have."""

    def __init__(self) -> None:
        super().__init__(Shelves())
        self.put_for_seconds: list[float] = []
        self.is_done = asyncio.Event()

    async def put(self, results: Sequence[StoredResult], *, released: Sequence[str]) -> None:
        self.put_for_seconds += [result.ttl_seconds for result in results]
        self.is_done.set()


@pytest.mark.parametrize(
    ("left_seconds", "expected"),
    [(math.inf, [2.5]), (3.0, [2.5]), (2.5, [2.5]), (2.0, [2.0]), (0.002, [0.002]), (0.0, []), (-1.0, [])],
)
async def test_a_result_is_kept_as_long_as_it_is_good_for_something(left_seconds: float, expected: list[float]) -> None:
    """Until its time is over, and at most for the time to live; one whose time is over is not stored."""
    clock, store = FakeClock(), Recorder()
    results = StoredResults(store, build="b", ttl_seconds=2.5, clock=clock)
    await results.open()
    period = Period(clock.time() - 10, clock.time() + left_seconds)
    results.put(replace(VALUE, read_set=replace(READ_SET, period=period)))
    await store.is_done.wait()
    assert store.put_for_seconds == [pytest.approx(seconds, abs=1e-4) for seconds in expected]
    await results.aclose()


async def test_nobody_makes_up_a_result_without_the_secret() -> None:
    """Whoever writes to the store may know the code that reads it: a checksum by another secret, or none, is wrong."""
    shelves = Shelves()
    async with AsyncExitStack() as stack:

        async def opened(secret: bytes) -> StoredResults:
            results = StoredResults(DictStore(shelves), build="b", ttl_seconds=60, secret=secret)
            stack.push_async_callback(results.aclose)
            await results.open()
            return results

        for secret in (b"", b"mine", b"other"):
            (await opened(secret)).put(VALUE)
            await until(lambda: bool(shelves.results))
            found = await (await opened(b"mine")).find(KEY, "e1", after=-1, version=7)
            assert found == (VALUE if secret == b"mine" else None)
            shelves.results.clear()


class LyingStore(DictStore):
    """Returns anything that was ever put at any name, whole or damaged, and fails and hangs in between."""

    def __init__(self, shelves: Shelves, rng: random.Random) -> None:
        super().__init__(shelves)
        self._rng = rng
        self._ever: list[bytes] = []
        self.lies = 0

    async def open(self) -> None:
        await self._turns()
        if self._rng.random() < 0.3:
            raise OSError("no such host")

    async def find(
        self, name: str, *, after: int, version: int, lease_seconds: float, wait_seconds: float
    ) -> FoundResult:
        await self._turns()
        drawn = self._rng.random()
        if drawn < 0.05:
            raise RuntimeError("oh")
        if drawn < 0.5 and self._ever:
            self.lies += 1
            content = self._rng.choice(self._ever[-10:])
            return self._damaged(content) if drawn < 0.2 else content
        if drawn < 0.55:
            return "wait"
        return await super().find(
            name, after=self._rng.choice([after, -1]), version=version, lease_seconds=0.001, wait_seconds=wait_seconds
        )

    async def put(self, results: Sequence[StoredResult], *, released: Sequence[str]) -> None:
        await self._turns()
        self._ever += [result.content for result in results]
        if self._rng.random() < 0.05:
            raise ConnectionResetError("gone")
        some = [result for result in results if self._rng.random() < 0.8]
        await super().put(some, released=released)

    def _damaged(self, content: bytes) -> bytes:
        place = self._rng.randrange(len(content))
        return self._rng.choice([content[:place], content[:place] + b"\0" + content[place + 1 :], b"", content + b"x"])

    async def _turns(self) -> None:
        for _ in range(self._rng.randrange(6)):
            await asyncio.sleep(0)


async def wrong_answers(seed: int, make: type[StoredResults] = StoredResults) -> int:
    """Return how many answers of two workers on a store that lies are not what the handler answers."""
    rng = random.Random(seed)
    w, shelves = SharingReaders(), Shelves()
    stores = [LyingStore(shelves, rng) for _ in range(2)]
    shared = [make(store, build="b", ttl_seconds=60) for store in stores]
    workers = [w.worker(max_bytes=rng.choice([0, 8_000]), shared=each) for each in shared]
    for each in shared:
        await each.open()
    wrong = 0

    async def read(worker: ScriptedReader) -> None:
        nonlocal wrong
        for _ in range(40):
            rows = rng.choice([(0,), (1,), (0, 1), (1, 2)])
            least = sum(w.database.rows[row] for row in rows)
            answer = await worker.value(worker.query(*rows))
            wrong += not least <= answer <= sum(w.database.rows[row] for row in rows)
            for _ in range(rng.randrange(5)):
                await asyncio.sleep(0)

    async def write() -> None:
        for _ in range(60):
            w.write(rng.randrange(3))
            for _ in range(rng.randrange(25)):
                await asyncio.sleep(0)

    await asyncio.gather(*(read(worker) for worker in workers for _ in range(2)), write())
    for each in shared:
        await each.aclose()
    if make is StoredResults:
        assert sum(store.lies for store in stores) > 0
    return wrong


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a store that is wrong on purpose; its log lines are of no interest."""
    monkeypatch.setattr(module, "WAIT_SECONDS", (0.0,) * 2)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(module, "ANSWER_SECONDS", 5.0)
    monkeypatch.setattr(module, "WRITE_SECONDS", 5.0)
    monkeypatch.setattr(module.logger, "disabled", True)


@pytest.mark.parametrize("seed", range(20))
async def test_no_store_makes_a_wrong_answer(seed: int, quick: None) -> None:
    """It returns outdated results, other queries' and damaged ones, loses, fails and hangs; every answer is right."""
    assert await wrong_answers(seed) == 0


class BelievesKeys(StoredResults):
    """A seeded bug: what stands at a name is taken for the result of that name."""

    def _decoded(self, record: bytes, key: ResultKey, epoch: str) -> SharedResult | None:
        try:
            return replace(decode_value(record, self._secret), key=key)
        except ValueError:
            return None


class BelievesVersions(StoredResults):
    """A seeded bug: a result that the store gives is taken to be of now."""

    def put(self, value: SharedResult) -> None:
        super().put(replace(value, version=2**40))

    async def find(self, key: ResultKey, epoch: str, *, after: int, version: int) -> SharedResult | None:
        found = await super().find(key, epoch, after=after, version=version)
        return None if found is None else replace(found, version=version)


@pytest.mark.seeded_bug
@pytest.mark.parametrize("broken", [BelievesKeys, BelievesVersions])
async def test_believing_a_store_is_found_out(broken: type[StoredResults], quick: None) -> None:
    """The same stores make wrong answers then: the test above can fail."""
    assert sum([await wrong_answers(seed, broken) for seed in range(20)]) > 0


class Stuck(DictStore):
    """Never answers; and never closes."""

    async def find(
        self, name: str, *, after: int, version: int, lease_seconds: float, wait_seconds: float
    ) -> FoundResult:
        await asyncio.Event().wait()
        raise AssertionError

    async def aclose(self) -> None:
        raise OSError("never")


async def test_a_store_that_hangs_delays_one_answer_and_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it counts as failed until it opens; and the error that it closes with is nobody's."""
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.01)
    store: ResultStore = Stuck(Shelves())
    results = StoredResults(store, build="b", ttl_seconds=60)
    await results.open()
    assert await results.find(KEY, "e1", after=-1, version=7) is None
    await results.aclose()


@pytest.mark.parametrize("answer", [None, 7, "computed", True])
async def test_an_answer_that_is_none_counts_as_no_result(answer: object) -> None:
    """Whatever a store returns: the handler runs."""

    class Odd(DictStore):
        async def find(
            self, name: str, *, after: int, version: int, lease_seconds: float, wait_seconds: float
        ) -> FoundResult:
            return answer  # type: ignore[return-value]  # wrong on purpose

    results = StoredResults(Odd(Shelves()), build="b", ttl_seconds=60)
    await results.open()
    assert await results.find(KEY, "e1", after=-1, version=7) is None
    await results.aclose()
