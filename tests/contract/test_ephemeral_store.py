"""What every ephemeral store keeps to, run against each of them, on real servers."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import make_url

from reactive_rpc.backends.postgresql.capture.backend import PostgreSQLCapture
from reactive_rpc.backends.postgresql.ephemeral_store import PostgreSQLEphemeralStore
from reactive_rpc.backends.redis.ephemeral_store import RedisEphemeralStore
from reactive_rpc.backends.sqlite.ephemeral_store import SQLiteEphemeralStore
from reactive_rpc.changes.ephemeral_store import ENTRY_BYTES, Budget, EntryKind, EphemeralStore
from reactive_rpc.changes.memory_store import InMemoryEphemeralStore
from reactive_rpc.clock import RandomIds, SystemClock
from reactive_rpc.errors import PayloadTooLargeError, ServiceUnavailableError
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

DEADLINE_SECONDS = 20.0
STRANGE = ["", "a:b", "{tag}", "'\"", "\0", "\ud800", "é" * 5_000, "*?[a]"]
SHARED = ["sqlite", "postgresql", "redis", "redis_cluster"]
PLACES = {"redis": "redis_server_url", "redis_cluster": "redis_cluster_url"}

TAKER = """
import asyncio, json, sys

def make(kind, place, namespace):
    if kind == "sqlite":
        from pathlib import Path
        from reactive_rpc.backends.sqlite.ephemeral_store import SQLiteEphemeralStore
        return SQLiteEphemeralStore(Path(place))
    if kind == "postgresql":
        from sqlalchemy import make_url
        from reactive_rpc.backends.postgresql.ephemeral_store import PostgreSQLEphemeralStore
        return PostgreSQLEphemeralStore(make_url(place))
    from reactive_rpc.backends.redis.ephemeral_store import RedisEphemeralStore
    return RedisEphemeralStore(place, namespace)

async def main():
    store = make(*sys.argv[1:])
    await store.open()
    await store.get("set", "warm")
    print("ready", flush=True)
    sys.stdin.readline()
    taken = []
    for start in range(0, 200, 10):
        taken += await store.take("ticket", [f"t{n}" for n in range(start, start + 10)])
        for n in range(start, start + 10):
            taken += await store.take("ticket", [f"one{n}"])
    print(json.dumps(taken))
    await store.aclose()

asyncio.run(main())
"""


@dataclass
class SharedStore:
    """One ephemeral store, as several workers would open it.

    Attributes:
        kind: what holds it.
        place: a path or a URL.
    """

    kind: str
    place: str
    namespace: str
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def store(self, budget: Budget | None = None) -> EphemeralStore:
        """Return the ephemeral store of one more worker, open until the end of the test."""
        store = self._made(budget)
        self.stack.push_async_callback(store.aclose)
        await store.open()
        return store

    def _made(self, budget: Budget | None) -> EphemeralStore:
        if self.kind == "memory":
            return InMemoryEphemeralStore(SystemClock(), budget=budget)
        if self.kind == "sqlite":
            return SQLiteEphemeralStore(Path(self.place), budget=budget)
        if self.kind == "postgresql":
            return PostgreSQLEphemeralStore(make_url(self.place), budget=budget)
        return RedisEphemeralStore(self.place, self.namespace, budget=budget)


@pytest.fixture(params=["memory", *SHARED])
async def world(request: pytest.FixtureRequest, tmp_path: Path, redis_namespace: str) -> AsyncIterator[SharedStore]:
    kind = request.param
    place = ""
    if kind == "sqlite":
        place = str(tmp_path / "team.db")
    elif kind == "postgresql":
        place = request.getfixturevalue("postgresql_url")
        PostgreSQLCapture(make_url(place), ids=RandomIds()).install()
    elif kind in PLACES:
        place = request.getfixturevalue(PLACES[kind])
    made = SharedStore(kind, place, redis_namespace)
    async with made.stack:
        yield made


async def test_what_is_put_is_got_until_it_is_taken(world: SharedStore) -> None:
    """Getting leaves it there, taking removes it, and there is nothing where nothing was put."""
    store = await world.store()
    await store.put("set", {"a": b"1", "b": b"2"}, ttl_seconds=60)
    assert (await store.get("set", "a"), await store.get("set", "a"), await store.get("set", "c")) == (b"1", b"1", None)
    assert await store.take("set", ["a", "b", "c"]) == {"a": b"1", "b": b"2"}
    assert (await store.get("set", "a"), await store.take("set", ["a", "b"])) == (None, {})


async def test_the_last_content_put_counts(world: SharedStore) -> None:
    """It takes the place of what was there."""
    store = await world.store()
    for content in (b"first", b"second"):
        await store.put("ack", {"a": content}, ttl_seconds=60)
    assert await store.take("ack", ["a"]) == {"a": b"second"}


async def test_kinds_have_nothing_in_common(world: SharedStore) -> None:
    """The same key of two kinds is two entries."""
    store = await world.store()
    await store.put("ack", {"a": b"ack"}, ttl_seconds=60)
    await store.put("ticket", {"a": b"ticket"}, ttl_seconds=60)
    assert await store.take("ack", ["a"]) == {"a": b"ack"}
    assert (await store.get("ack", "a"), await store.get("ticket", "a")) == (None, b"ticket")


async def test_nothing_is_done_for_no_keys(world: SharedStore) -> None:
    """Putting and taking nothing is no error."""
    store = await world.store()
    await store.put("ack", {}, ttl_seconds=60)
    assert await store.take("ack", []) == {}


async def test_contents_are_bytes_and_keys_are_any_text(world: SharedStore) -> None:
    """Large contents, all bytes, and keys as a hostile client would send them: none spoils those beside it."""
    store = await world.store()
    contents = {key: bytes(range(256)) + key.encode("utf-8", "surrogatepass") for key in STRANGE}
    contents |= {"large": os.urandom(1024 * 1024), "empty": b""}
    await store.put("set", contents, ttl_seconds=60)
    assert await store.get("set", "large") == contents["large"]
    assert await store.take("set", [*contents, "\0other"]) == contents


async def test_an_entry_expires(world: SharedStore) -> None:
    """It is neither got nor taken any more; one put again lives as long as the last put said, and others live on."""
    store = await world.store()
    await store.put("ticket", {"short": b"1", "again": b"1"}, ttl_seconds=0.05)
    await store.put("ticket", {"again": b"2", "long": b"2"}, ttl_seconds=60)

    async def is_gone() -> bool:
        return await store.get("ticket", "short") is None

    await until(is_gone)
    assert await store.take("ticket", ["short", "again", "long"]) == {"again": b"2", "long": b"2"}


async def test_an_expired_entry_is_not_taken(world: SharedStore) -> None:
    """Even where nobody asked for it before."""
    store = await world.store()
    await store.put("ticket", {"a": b"1"}, ttl_seconds=0.001)
    await until_later(0.02)
    assert await store.take("ticket", ["a"]) == {}


async def until_later(seconds: float) -> None:
    """Wait until the clock shows so much more."""
    began = time.monotonic()

    async def is_later() -> bool:
        return time.monotonic() > began + seconds

    await until(is_later)


async def test_many_entries_at_once(world: SharedStore) -> None:
    """Thousands are put and taken in one call: those that are there among those that are not."""
    store = await world.store()
    await store.put("ack", {f"s{n}": str(n).encode() for n in range(0, 5_000, 2)}, ttl_seconds=60)
    taken = await store.take("ack", [f"s{n}" for n in range(5_000)])
    assert taken == {f"s{n}": str(n).encode() for n in range(0, 5_000, 2)}


async def test_concurrent_takers_get_each_entry_once(world: SharedStore) -> None:
    """Three workers, many takes each, on one event loop."""
    stores = [await world.store() for _ in range(1 if world.kind == "memory" else 3)]
    await stores[0].put("ticket", {f"t{n}": b"" for n in range(100)}, ttl_seconds=60)
    takes = [store.take("ticket", [f"t{n}", f"t{99 - n}"]) for n in range(100) for store in stores]
    taken = [key for found in await asyncio.gather(*takes) for key in found]
    assert sorted(taken) == sorted(f"t{n}" for n in range(100))


async def test_closing_twice_is_closing_once(world: SharedStore) -> None:
    """An ephemeral store that was opened twice is open once, and one that was closed can be opened again."""
    store = await world.store()
    await store.open()
    await store.put("ack", {"a": b"1"}, ttl_seconds=60)
    await store.aclose()
    await store.aclose()
    await store.open()
    await store.put("ack", {"b": b"1"}, ttl_seconds=60)
    assert await store.take("ack", ["b"]) == {"b": b"1"}


SMALL = Budget(max_bytes=50_000, max_bytes_per_owner=20_000)
CONTENT = b"x" * (4_900 - ENTRY_BYTES)
"""Four such entries with their keys are an owner's, ten are all of a kind."""


async def fill(store: EphemeralStore, owner: str, count: int, *, kind: EntryKind = "set") -> list[str]:
    """Put so many entries of an owner's, one after another, and return their keys."""
    keys = [f"{owner}{number}" for number in range(count)]
    for key in keys:
        await store.put(kind, {key: CONTENT}, ttl_seconds=60, owner=owner)
        await next_millisecond()
    return keys


async def next_millisecond() -> None:
    """Wait until the clock has gone on: clocks of whole milliseconds tell which was put first."""
    put_at = time.time()
    await until(lambda: time.time() >= put_at + 0.001, "the clock stands still")


async def kept(store: EphemeralStore, keys: list[str], *, kind: EntryKind = "set") -> list[str]:
    """Return which of these stand there."""
    return [key for key in keys if await store.get(kind, key) is not None]


async def test_an_owner_makes_room_among_their_own(world: SharedStore) -> None:
    """Hundreds of one owner's entries drive out that owner's older ones, and nothing of others or of other kinds."""
    store = await world.store(SMALL)
    anns = await fill(store, "ann", 2)
    tickets = await fill(store, "ann", 2, kind="ticket")
    await store.put("ack", {"stream": b"e:1"}, ttl_seconds=60)
    bobs = await fill(store, "bob", 100)
    assert await kept(store, bobs) == bobs[-4:]
    assert await kept(store, anns) == anns
    assert await kept(store, tickets, kind="ticket") == tickets
    assert await store.take("ack", ["stream"]) == {"stream": b"e:1"}


async def test_what_does_not_fit_is_refused_by_name(world: SharedStore) -> None:
    """Where others have the rest of a kind, nothing of theirs goes; the same of what is too large for one owner."""
    store = await world.store(SMALL)
    theirs = [key for owner in ("ann", "bob") for key in await fill(store, owner, 4)] + await fill(store, "cid", 2)
    with pytest.raises(ServiceUnavailableError, match=r"50000 bytes of this kind \(max_stored_bytes\)") as refused:
        await store.put("set", {"dan": CONTENT}, ttl_seconds=60, owner="dan")
    assert refused.value.headers == {"retry-after": "30"}
    with pytest.raises(PayloadTooLargeError, match=r"the limit is 20000 \(max_stored_bytes_per_identity\)"):
        await store.put("set", {"eve": b"x" * 20_001}, ttl_seconds=60, owner="eve")
    assert await kept(store, theirs) == theirs
    await store.put("set", {"cid2": CONTENT}, ttl_seconds=60, owner="cid")  # in the place of cid's own
    assert await kept(store, [*theirs, "cid2"]) == [*theirs[:8], "cid1", "cid2"]
    await store.put("ticket", {"dan": CONTENT}, ttl_seconds=60, owner="dan")


async def test_what_has_gone_makes_room(world: SharedStore) -> None:
    """What was taken and what has expired counts for nobody any more."""
    store = await world.store(SMALL)
    for owner in ("ann", "bob"):
        await store.take("set", await fill(store, owner, 4))
    for _ in range(3):
        for owner in ("cid", "dan", "eve"):
            await store.put("set", {f"{owner}{n}": CONTENT for n in range(3)}, ttl_seconds=0.02, owner=owner)
        await until_later(0.03)
    assert len(await kept(store, await fill(store, "fay", 4))) == 4


async def test_an_entry_counts_once_for_whoever_put_it_first(world: SharedStore) -> None:
    """Put again, by whomever, it lives longer and takes no more room."""
    store = await world.store(SMALL)
    anns = await fill(store, "ann", 4)
    for _ in range(3):
        for key in anns:
            await store.put("set", {key: CONTENT}, ttl_seconds=60, owner="ann")
            await store.put("set", {key: CONTENT}, ttl_seconds=60, owner="bob")
    bobs = await fill(store, "bob", 4)
    assert await kept(store, anns + bobs) == anns + bobs


async def test_what_is_nobodys_has_the_budget_of_its_kind(world: SharedStore) -> None:
    """Acknowledgements by the thousand: the oldest go, as each is worth a retry and no more."""
    store = await world.store(SMALL)
    for start in range(0, 2_000, 50):
        await store.put("ack", {f"s{n}": b"epoch:12" for n in range(start, start + 50)}, ttl_seconds=60)
    taken = await store.take("ack", [f"s{n}" for n in range(2_000)])
    assert 100 <= len(taken) <= 50_000 // ENTRY_BYTES
    assert "s1999" in taken
    assert "s0" not in taken


@pytest.mark.parametrize("world", SHARED, indirect=True)
async def test_workers_share_the_budgets(world: SharedStore) -> None:
    """What one has put counts at the others."""
    stores = [await world.store(SMALL) for _ in range(3)]
    for number in range(12):
        await stores[number % 3].put("set", {f"ann{number}": CONTENT}, ttl_seconds=60, owner="ann")
        await next_millisecond()
    assert await kept(stores[0], [f"ann{number}" for number in range(12)]) == ["ann8", "ann9", "ann10", "ann11"]


@pytest.mark.parametrize("world", SHARED, indirect=True)
async def test_closing_leaves_nothing_under_way(world: SharedStore) -> None:
    """Operations that have begun come to their end, those that wait are refused: no connection outlives the store."""
    store = await world.store()
    await store.put("ack", {"a": b"1"}, ttl_seconds=60)
    asking = [asyncio.create_task(store.get("ack", "a")) for _ in range(50)]
    await asyncio.sleep(0)
    await store.aclose()
    for answer in await asyncio.gather(*asking, return_exceptions=True):
        assert answer == b"1" or isinstance(answer, ServiceUnavailableError)
    with pytest.raises(ServiceUnavailableError):
        await store.get("ack", "a")


async def test_a_count_begins_at_nought_and_adds_up(world: SharedStore) -> None:
    """Each key by itself; whoever adds at the same time is given another sum."""
    store = await world.store()
    assert [await store.count("a", more, ttl_seconds=60) for more in (1, 5, 1)] == [1, 6, 7]
    assert await store.count("b", 2, ttl_seconds=60) == 2
    sums = await asyncio.gather(*(store.count("c", 1, ttl_seconds=60) for _ in range(50)))
    assert sorted(sums) == list(range(1, 51))


async def test_a_count_is_forgotten(world: SharedStore) -> None:
    """Its time is that from when it has begun, however often something is added."""
    store = await world.store()
    assert await store.count("a", 5, ttl_seconds=0.5) == 5
    sums: list[int] = []

    async def is_begun_anew() -> bool:
        sums.append(await store.count("a", 1, ttl_seconds=60))
        return sums[-1] == 1

    await until(is_begun_anew)
    assert sums[:-1] == list(range(6, 5 + len(sums)))
    assert await store.count("a", 1, ttl_seconds=60) == 2


async def test_counts_have_a_budget(world: SharedStore) -> None:
    """If another one begins past it, the one goes that would be forgotten first."""
    store = await world.store(Budget(max_bytes=2 * (ENTRY_BYTES + 60)))
    assert [await store.count(key, 1, ttl_seconds=60 + number) for number, key in enumerate("abc")] == [1, 1, 1]
    assert [await store.count(key, 1, ttl_seconds=70) for key in "bc"] == [2, 2]
    assert await store.count("a", 1, ttl_seconds=80) == 1


@pytest.mark.parametrize("world", SHARED, indirect=True)
async def test_workers_count_together(world: SharedStore) -> None:
    """What one adds, another finds."""
    one, other = await world.store(), await world.store()
    for store in (one, other):
        await store.get("set", "warm")
    sums = await asyncio.gather(*(store.count("a", 1, ttl_seconds=60) for store in (one, other) for _ in range(20)))
    assert sorted(sums) == list(range(1, 41))


@pytest.mark.parametrize("world", SHARED, indirect=True)
async def test_workers_see_what_others_put(world: SharedStore) -> None:
    """What is put through one is got and taken through another."""
    one, other = await world.store(), await world.store()
    await one.put("set", {"a": b"1"}, ttl_seconds=60)
    assert await other.get("set", "a") == b"1"
    assert await other.take("set", ["a"]) == {"a": b"1"}
    assert await one.get("set", "a") is None


@pytest.mark.parametrize("world", SHARED, indirect=True)
async def test_of_several_processes_one_takes(world: SharedStore) -> None:
    """Two processes take the same entries at the same time: each entry is taken once."""
    store = await world.store()
    entries = [*(f"t{n}" for n in range(200)), *(f"one{n}" for n in range(200))]
    await store.put("ticket", dict.fromkeys(entries, b"x"), ttl_seconds=60)
    command = [sys.executable, "-c", TAKER, world.kind, world.place, world.namespace]
    takers = [
        await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
        for _ in range(2)
    ]
    for taker in takers:
        assert taker.stdout is not None
        assert await taker.stdout.readline() == b"ready\n"
    answers = [json.loads(out) for out, _ in await asyncio.gather(*(taker.communicate(b"go\n") for taker in takers))]
    assert sorted(key for taken in answers for key in taken) == sorted(entries)
