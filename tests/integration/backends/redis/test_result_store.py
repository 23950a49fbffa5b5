"""Results that workers share through Redis: who gets what, who computes, and a Redis that does not play along."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from reactive_rpc.backends.redis.connection import RedisClient, connect_redis
from reactive_rpc.backends.redis.result_store import RedisResultStore
from reactive_rpc.cache import stored_results as module
from reactive_rpc.cache.shared_results import SharedResult, name_of
from reactive_rpc.cache.stored_results import StoredResults
from reactive_rpc.clock import Clock, SystemClock
from reactive_rpc.dependencies.read_set import Constraint, Equals, ReadSet
from reactive_rpc.testing import FakeClock
from reactive_rpc.testing.redis import RedisServer
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

KEY = ("notes.in_room", b'{"room":"a"}', b"ann")
READ_SET = ReadSet((Constraint("note", frozenset({"text"}), {"room": Equals(frozenset({"a"}))}),))
VALUE = SharedResult(KEY, "e1", 7, b'["one"]', READ_SET)
ANSWER, WAIT = module.ANSWER_SECONDS, module.WAIT_SECONDS


@dataclass
class SharingWorkers:
    """One Redis, and workers that share results through it."""

    url: str
    namespace: str
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def worker(self, *, build: str = "b1", clock: Clock | None = None) -> StoredResults:
        """Return the values as one more worker sees them, open."""
        store = RedisResultStore(self.url, self.namespace)
        values = StoredResults(store, build=build, ttl_seconds=60, clock=clock or SystemClock())
        self.stack.push_async_callback(values.aclose)
        await values.open()
        return values

    def client(self) -> RedisClient:
        """Connect as whoever administers Redis."""
        client = connect_redis(self.url)
        self.stack.push_async_callback(client.aclose)
        return client

    @property
    def record(self) -> str:
        """The Redis key of `VALUE`."""
        return f"{self.namespace}:value:{{{name_of('b1', 'e1', KEY)}}}"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a busy machine take its time; what is as quick as it must be, a test says itself."""
    monkeypatch.setattr(module, "ANSWER_SECONDS", 5.0)
    monkeypatch.setattr(module, "WRITE_SECONDS", 5.0)
    monkeypatch.setattr(module, "WAIT_SECONDS", (0.01,) * 1_000)


@pytest.fixture(params=["redis_server_url", "redis_cluster_url"])
async def world(request: pytest.FixtureRequest, redis_namespace: str) -> AsyncIterator[SharingWorkers]:
    made = SharingWorkers(request.getfixturevalue(request.param), redis_namespace)
    async with made.stack:
        yield made


@pytest.fixture
async def own_world(own_redis: RedisServer) -> AsyncIterator[SharingWorkers]:
    made = SharingWorkers(own_redis.url, "test")
    async with made.stack:
        yield made


async def find(values: StoredResults, key: Any = KEY, epoch: str = "e1", after: int = -1) -> SharedResult | None:
    return await values.find(key, epoch, after=after, version=after + 1)


async def stored(world: SharingWorkers, value: SharedResult = VALUE) -> None:
    """Have a worker put `value`, and wait until it is there."""
    (await world.worker()).put(value)
    client = world.client()

    async def is_there() -> bool:
        return bool(await client.exists(world.record))

    await until(is_there)


async def test_what_one_worker_puts_others_find(world: SharingWorkers) -> None:
    """The same result, for as long as it is kept."""
    await stored(world)
    assert await find(await world.worker()) == VALUE
    assert 50_000 < await world.client().pttl(world.record) <= 60_000


@pytest.mark.parametrize(
    ("build", "key", "epoch", "after"),
    [
        ("b2", KEY, "e1", -1),
        ("b1", KEY, "e2", -1),
        ("b1", (KEY[0], KEY[1], b"bob"), "e1", -1),
        ("b1", (KEY[0], b"{}", KEY[2]), "e1", -1),
        ("b1", KEY, "e1", 7),
    ],
)
async def test_what_is_another_is_not_found(
    world: SharingWorkers, build: str, key: Any, epoch: str, after: int
) -> None:
    """Of another build, epoch, scope or input, or known to be outdated: the asker is to compute it, at once."""
    await stored(world)
    assert await find(await world.worker(build=build), key, epoch, after) is None


async def test_a_record_under_a_wrong_name_is_not_used(world: SharingWorkers) -> None:
    """However it came there: it holds its whole key, and that is another's."""
    await stored(world)
    record: Any = await world.client().get(world.record)
    other = (KEY[0], KEY[1], b"bob")
    await world.client().set(f"{world.namespace}:value:{{{name_of('b1', 'e1', other)}}}", record)
    assert await find(await world.worker(), other) is None
    assert await find(await world.worker()) == VALUE


@pytest.mark.parametrize("damage", [b"", b"7\nrubbish", b"8\n", b"99999999999999999999\n" + b"x" * 100])
async def test_a_damaged_record_is_not_used_and_is_replaced(world: SharingWorkers, damage: bytes) -> None:
    """It counts as none, and the next result takes its place."""
    await stored(world)
    await world.client().set(world.record, damage)
    values = await world.worker()
    assert await find(values) is None
    values.put(VALUE)

    async def is_found() -> bool:
        return await find(values) == VALUE

    await until(is_found)


async def test_one_computes_and_the_others_get_its_result(world: SharingWorkers) -> None:
    """Of ten workers that ask at once one is sent to compute; the rest get what it puts, without waiting in vain."""
    workers = [await world.worker() for _ in range(10)]
    computing = 0

    async def ask(values: StoredResults) -> SharedResult | None:
        nonlocal computing
        found = await find(values)
        if found is None:
            computing += 1
            values.put(VALUE)
            values.release(KEY)
        return found

    found = await asyncio.gather(*map(ask, workers))
    assert (computing, found.count(VALUE)) == (1, 9)


async def test_a_turn_that_is_given_back_goes_to_the_next(world: SharingWorkers) -> None:
    """A holder whose result cannot be shared does not make the others wait for the end of its lease."""
    one, other, last = [await world.worker() for _ in range(3)]
    assert await find(one) is None
    asking = asyncio.create_task(find(other))
    one.release(KEY)
    assert await asking is None
    third = asyncio.create_task(find(last))
    other.put(VALUE)
    other.release(KEY)
    assert await third == VALUE


async def test_nobody_waits_longer_than_a_quarter_of_a_second(
    world: SharingWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder of the lease is dead: whoever waits computes it itself, by and by."""
    monkeypatch.setattr(module, "WAIT_SECONDS", WAIT)
    dead, other = [await world.worker() for _ in range(2)]
    assert await find(dead) is None
    began = time.monotonic()
    assert await find(other) is None
    assert time.monotonic() - began >= sum(WAIT)
    assert pytest.approx(0.25) == sum(WAIT)


async def test_a_lease_that_is_known_to_be_outdated_is_taken_over(world: SharingWorkers) -> None:
    """Its holder began before a change that the asker knows: what it computes is of no use; others wait for the new."""
    one, other, third = [await world.worker() for _ in range(3)]
    assert await one.find(KEY, "e1", after=-1, version=5) is None
    assert await other.find(KEY, "e1", after=5, version=6) is None
    waiting = asyncio.create_task(third.find(KEY, "e1", after=5, version=6))
    newer = replace(VALUE, version=8)
    other.put(newer)
    assert await waiting == newer


async def test_a_redis_that_hangs_delays_one_answer_a_little(
    own_redis: RedisServer, own_world: SharingWorkers, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then nobody asks until it works again, which is noticed without anybody's waiting; both are logged, once."""
    clock = FakeClock()
    values = await own_world.worker(clock=clock)
    await stored(own_world)
    assert await find(values) == VALUE
    monkeypatch.setattr(module, "ANSWER_SECONDS", ANSWER)
    own_redis.pause()
    with caplog.at_level(logging.INFO):
        began = time.monotonic()
        assert await asyncio.gather(*(find(values) for _ in range(100))) == [None] * 100
        assert ANSWER * 0.9 <= time.monotonic() - began < ANSWER * 50  # one after the other they would wait for 100
        began = time.monotonic()
        for _ in range(1_000):
            assert await find(values) is None
            values.put(VALUE)
        assert time.monotonic() - began < ANSWER * 500
        monkeypatch.setattr(module, "ANSWER_SECONDS", 5.0)
        own_redis.resume()

        async def is_shared_again() -> bool:
            clock.advance(module.RETRY_SECONDS)
            return await find(values) == VALUE

        await until(is_shared_again)
    logged = [record.getMessage() for record in caplog.records if record.name == module.__name__]
    assert logged == [
        "results are not shared until the store works again: no answer within 0.11 s",
        "results are shared again",
    ]


async def test_a_crowd_is_no_failure(
    own_world: SharingWorkers, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where so many ask that some do not get their turn in time, Redis is not blamed, and sharing goes on."""
    monkeypatch.setattr(module, "AT_ONCE", 2)
    values = await own_world.worker()
    await stored(own_world)
    for _ in range(2):
        await values._slots.acquire()
    with monkeypatch.context() as impatient:
        impatient.setattr(module, "ANSWER_SECONDS", 0.01)
        assert await asyncio.gather(*(find(values) for _ in range(100))) == [None] * 100
    for _ in range(2):
        values._slots.release()
    assert await find(values) == VALUE
    assert caplog.messages == []


async def test_a_redis_that_is_gone_is_as_good_as_none(own_redis: RedisServer, own_world: SharingWorkers) -> None:
    """From the start, for questions and for what is put; when it is there, it is used."""
    own_redis.stop(how="kill")
    values = await own_world.worker()
    for _ in range(3):
        values.put(VALUE)
        assert await find(values) is None
        values.release(KEY)
    own_redis.start()

    async def is_shared() -> bool:
        values.put(VALUE)
        return await find(values) == VALUE

    await until(is_shared)


async def test_what_is_too_much_is_not_shared(world: SharingWorkers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A very large result, and what comes faster than Redis takes it: memory is bounded."""
    values = await world.worker()
    values.put(replace(VALUE, body=b"x" * (module.MAX_BODY_BYTES + 1)))
    assert values.waiting_bytes == 0
    monkeypatch.setattr(module, "MAX_WAITING_BYTES", 10_000)
    for number in range(100):
        values.put(replace(VALUE, key=("p", b"%d" % number, b""), body=b"x" * 1_000))
    assert 5_000 < values.waiting_bytes <= 10_000

    async def is_stored() -> bool:
        return values.waiting_bytes == 0

    await until(is_stored)
    assert await find(await world.worker(), ("p", b"0", b"")) is not None


async def test_closing_abandons_what_waits(world: SharingWorkers) -> None:
    """And closing twice is closing once."""
    values = await world.worker()
    values.put(VALUE)
    await values.aclose()
    await values.aclose()
    assert values.waiting_bytes == 0


@pytest.fixture
async def listening(redis_server_url: str, redis_namespace: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """One Redis; a worker of it waits so long between two questions that none comes twice in a test."""
    monkeypatch.setattr(module, "WAIT_SECONDS", (60.0,))
    monkeypatch.setattr(module, "LEASE_SECONDS", 60.0)
    made = SharingWorkers(redis_server_url, redis_namespace)
    async with made.stack:
        yield made


async def waiting(world: SharingWorkers, values: StoredResults, *, after: int = -1) -> asyncio.Task[Any]:
    """Have a worker wait for a result that another computes, and return when the store knows that it does."""
    client = world.client()
    channel, wanted = f"{world.namespace}:values", world.record.replace(":value:", ":wanted:")

    async def listens() -> bool:
        subscribed = (await client.pubsub_numsub(channel))[0][1]
        with values._store._handed_over.expecting("") as arrival:  # type: ignore[attr-defined]  # of Redis's store
            return bool(subscribed) and arrival is not None

    async def is_wanted() -> bool:
        return bool(await client.exists(wanted))

    await until(listens)
    asking = asyncio.create_task(find(values, after=after))
    await until(is_wanted)
    return asking


@pytest.mark.parametrize("body", [b'["one"]', b'"%b"' % (b"x" * 100_000)])
async def test_a_result_is_handed_to_whoever_waits_for_it(listening: SharingWorkers, body: bytes) -> None:
    """By the message that tells that it is put; one that is too large for a message is asked for once more."""
    one, other = [await listening.worker() for _ in range(2)]
    assert await find(one) is None
    asking = await waiting(listening, other)
    made = replace(VALUE, body=body)
    one.put(made)
    one.release(KEY)
    async with asyncio.timeout(30):
        assert await asking == made


async def test_a_turn_that_is_given_back_is_heard_of(listening: SharingWorkers) -> None:
    """Whoever waits is to compute then, at once."""
    one, other = [await listening.worker() for _ in range(2)]
    assert await find(one) is None
    asking = await waiting(listening, other)
    one.release(KEY)
    async with asyncio.timeout(30):
        assert await asking is None


async def test_an_outdated_result_is_handed_to_nobody(listening: SharingWorkers) -> None:
    """Whoever waits knows a change that it does not show; the next one is taken."""
    one, other = [await listening.worker() for _ in range(2)]
    assert await one.find(KEY, "e1", after=8, version=9) is None
    asking = await waiting(listening, other, after=8)
    one.put(VALUE)
    one.put(replace(VALUE, version=9))
    async with asyncio.timeout(30):
        assert await asking == replace(VALUE, version=9)


async def test_whoever_stops_to_hear_asks_and_listens_again(listening: SharingWorkers) -> None:
    """A connection that is cut costs a question."""
    one, other = [await listening.worker() for _ in range(2)]
    assert await find(one) is None
    (await waiting(listening, other)).cancel()
    await listening.client().client_kill_filter(_type="pubsub")
    asking = await waiting(listening, other)
    one.put(VALUE)
    async with asyncio.timeout(30):
        assert await asking == VALUE
