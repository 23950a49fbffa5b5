"""Freshness by token, and what is served while the log cannot be read."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from reactive_rpc.cache.freshness import ByToken, Freshness, InOutage
from reactive_rpc.cache.reader import Reader
from reactive_rpc.cache.store import MemoryStore
from reactive_rpc.errors import ServiceUnavailableError
from reactive_rpc.testing import FakeClock

from .scripted import RowQuery, ScriptedLog, change

OUTAGE = ServiceUnavailableError("the log cannot be read")

pytestmark = pytest.mark.anyio

HOSTILE = [
    "",
    ":",
    "e1",
    "e1:",
    "e1:-1",
    "e1:1.5",
    "e1:x",
    "e1:٣",
    "e1:1 e1:2",
    "e1:" + "9" * 5000,
    "\0",
    "e2:0",
    "unknown",
]


@dataclass
class Worker:
    """One worker on a log of its own clock."""

    log: ScriptedLog
    clock: FakeClock
    freshness: Freshness
    reader: Reader

    async def value(self, row: int, token: str | None) -> int:
        """Answer the holder of `token`, as the dispatcher does."""
        query = RowQuery(self.log, (row,))
        return int((await self.reader.get(query, freshness=ByToken(token))).answer())

    async def is_served_in_outage(self, query: RowQuery) -> bool:
        """Tell whether something is served if the log was read at most 30 seconds ago."""
        try:
            await self.reader.get(query, freshness=InOutage(30, OUTAGE))
        except ServiceUnavailableError as exc:
            return exc is not OUTAGE
        return True


def worker(make: type[Freshness] = Freshness) -> Worker:
    """Return a worker whose looks at the log are good for a second."""
    log, clock = ScriptedLog(), FakeClock()
    freshness = make(log, clock=clock, max_age_seconds=1.0)
    reader = Reader(log, MemoryStore(1_000_000), freshness=freshness)
    log.subscribe(reader.apply)
    return Worker(log, clock, freshness, reader)


async def test_a_token_that_is_reached_spares_the_look() -> None:
    """Nothing newer was seen by its holder, so the stored result is served as it is: also a stale one."""
    w = worker()
    assert await w.value(1, None) == 0
    w.log.write(1)
    polls = w.freshness.polls
    assert (await w.value(1, None), await w.value(1, "e1:0")) == (0, 0)
    assert w.freshness.polls == polls


async def test_a_token_that_is_ahead_brings_what_its_holder_has_seen() -> None:
    """The log is looked at, and the answer shows the write that the token is of."""
    w = worker()
    await w.value(1, None)
    w.log.write(1)
    assert await w.value(1, "e1:1") == 1
    assert w.freshness.token == "e1:1"


async def test_others_writes_show_after_the_bound() -> None:
    """Without a token, and with one, a result is served by a look that is no older than the bound."""
    w = worker()
    await w.value(1, None)
    w.log.write(1)
    w.clock.advance(1.0)
    assert await w.value(1, "e1:0") == 0
    w.clock.advance(0.001)
    assert await w.value(1, "e1:0") == 1


@pytest.mark.parametrize("token", HOSTILE)
async def test_a_token_that_compares_with_nothing_is_strict(token: str) -> None:
    """Nonsense and other epochs cost one look, and the answer is right."""
    w = worker()
    await w.value(1, None)
    w.log.write(1)
    assert await w.value(1, token) == 1


async def test_a_version_that_never_comes_costs_one_look() -> None:
    """Nobody waits for it."""
    w = worker()
    await w.value(1, None)
    polls = w.freshness.polls
    assert await w.value(1, "e1:" + "9" * 20) == 0
    assert w.freshness.polls == polls + 1


async def test_no_token_suffices_before_the_first_look() -> None:
    """Nothing is known of a log that was never read."""
    assert not worker().freshness.suffices(None)


async def test_a_failed_look_ends_the_trust_in_the_one_before() -> None:
    """In an outage a stored result is not served silently, however recent the last good look; then all is as before."""
    w = worker()
    await w.value(1, None)
    w.log.down = ServiceUnavailableError("gone")
    with pytest.raises(ServiceUnavailableError):
        await w.freshness.sync_to_head()
    with pytest.raises(ServiceUnavailableError):
        await w.value(1, "e1:0")
    assert w.freshness.errors == 2
    w.log.down = None
    w.log.write(1)
    assert await w.value(1, "e1:0") == 1
    assert w.freshness.suffices("e1:1")


async def test_the_version_of_an_answer_covers_what_its_snapshot_showed() -> None:
    """A commit between the look and the snapshot is in the result: the answer's token must not be from before it."""
    w = worker()

    async def commit_meanwhile() -> None:
        if not w.log.rows[1]:
            w.log.write(1)

    query = RowQuery(w.log, (1,), pause=commit_meanwhile)
    assert int((await w.reader.get(query)).answer()) == 1
    assert w.freshness.token == "e1:1"


async def test_an_outage_is_bridged_for_as_long_as_it_may() -> None:
    """What is stored is there until the log was last read so long ago; nothing is where nothing is stored."""
    w = worker()
    await w.value(1, None)
    stored, unknown = RowQuery(w.log, (1,)), RowQuery(w.log, (2,))
    w.clock.advance(30)
    assert await w.is_served_in_outage(stored)
    assert not await w.is_served_in_outage(unknown)
    w.clock.advance(0.5)
    assert not await w.is_served_in_outage(stored)
    assert (stored.computed, unknown.computed) == (0, 0)
    assert (w.reader.stats.served_stale, w.freshness.age_seconds) == (1, 30.5)


async def test_an_age_counts_from_before_the_look() -> None:
    """A slow look answers for the moment at which it began."""
    w = worker()

    async def take_a_while() -> None:
        w.clock.advance(3)

    w.log.pause = take_a_while
    await w.freshness.sync_to_head()
    assert w.freshness.age_seconds == 3


class IgnoresTheToken(Freshness):
    """A seeded bug: serves by age alone."""

    def suffices(self, token: str | None) -> bool:
        return super().suffices(None)


async def backwards(make: type[Freshness], seed: int) -> int:
    """Return how often a client, served by two workers in turn, missed what it wrote or had seen."""
    rng = random.Random(seed)
    first, second = worker(make), worker(make)
    token: str | None = None
    seen = {1: 0, 2: 0}
    wrong = 0
    for _ in range(200):
        row, at = rng.choice([1, 2]), rng.choice([first, second])
        if rng.random() < 0.3:  # both logs are of one database
            first.log.commit(change(row))
            second.log.commit(change(row))
        if rng.random() < 0.2:  # the client's own write, through this worker
            first.log.commit(change(row))
            second.log.commit(change(row))
            seen[row] = first.log.rows[row]
            await at.freshness.sync_to_head()
            token = at.freshness.token
        value = await at.value(row, token)
        wrong += value < seen[row]
        seen[row] = value
        token = max(token or "", at.freshness.token, key=lambda each: int(each.partition(":")[2] or -1))
    return wrong


@pytest.mark.parametrize("seed", range(10))
async def test_a_client_never_goes_back_in_time(seed: int) -> None:
    """It reads its own writes and whatever it has seen, whichever worker answers."""
    assert await backwards(Freshness, seed) == 0


@pytest.mark.seeded_bug
async def test_a_worker_that_ignores_tokens_is_found_out() -> None:
    """The same play finds the seeded bug: the test above can fail."""
    assert sum([await backwards(IgnoresTheToken, seed) for seed in range(10)]) > 0
