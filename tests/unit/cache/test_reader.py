"""The reader protocol: hits, misses, joined computations, what is stored and what is not, watching, flushing."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Any

import pytest

from reactive_rpc.cache.freshness import STRICT, RequiredFreshness
from reactive_rpc.cache.live_results import LiveResults
from reactive_rpc.cache.matcher import ChangeMatcher
from reactive_rpc.cache.reader import Reader
from reactive_rpc.cache.result import CachedResult, Computable, HandlerOutcome
from reactive_rpc.cache.store import Store
from reactive_rpc.changes.log import Log
from reactive_rpc.dependencies.change import Change
from reactive_rpc.dependencies.read_set import ReadSet
from reactive_rpc.dependencies.relations import Relation
from reactive_rpc.errors import (
    InternalServerError,
    NotFoundError,
    PreconditionFailedError,
    ServiceUnavailableError,
)

from .scripted import Gate, RowQuery, ScriptedReader, change, until

pytestmark = pytest.mark.anyio


async def test_a_hit_runs_no_handler() -> None:
    """What is stored is answered as it is: the same entry."""
    w = ScriptedReader()
    query = RowQuery(w.log, (1,))
    assert await w.reader.get(query) is await w.reader.get(RowQuery(w.log, (1,)))
    assert query.computed == 1
    assert (w.reader.stats.hits, w.reader.stats.misses, w.reader.stats.stored) == (1, 1, 1)


async def test_a_commit_that_was_acknowledged_before_is_reflected() -> None:
    """Nobody has applied the commit yet: the hit does so first."""
    w = ScriptedReader()
    query = RowQuery(w.log, (1,))
    assert await w.value(query) == 0
    w.log.write(1)
    assert await w.value(query) == 1


async def test_a_commit_elsewhere_leaves_the_result_cached() -> None:
    """Only what the read set covers counts."""
    w = ScriptedReader()
    query = RowQuery(w.log, (1,))
    await w.value(query)
    w.log.write(2)
    w.log.commit(change(1, "other"))
    await w.value(query)
    assert (query.computed, w.notified) == (1, [])


async def test_concurrent_requests_share_a_computation() -> None:
    """Ten requests for a result that is being computed wait for it."""
    w = ScriptedReader()
    gate = Gate()
    query = RowQuery(w.log, (1,), pause=gate)
    requests = [asyncio.create_task(w.value(query)) for _ in range(10)]
    await until(lambda: gate.arrived == 1 and w.reader.stats.joined == 9)
    gate.open()
    assert await asyncio.gather(*requests) == [0] * 10
    assert query.computed == 1


async def test_a_computation_that_began_before_a_commit_is_not_joined() -> None:
    """A request that came after a commit starts a computation of its own, even for a row that the commit left alone."""
    w = ScriptedReader()
    gate = Gate()
    query = RowQuery(w.log, (1,), pause=gate)
    early = asyncio.create_task(w.value(query))
    await until(lambda: gate.arrived == 1)
    w.log.write(2)
    late = asyncio.create_task(w.value(query))
    await until(lambda: gate.arrived == 2)
    assert w.reader.stats.joined == 0
    gate.open()
    assert (await early, await late) == (0, 0)
    assert w.reader.indexed == len(w.store) == 1


async def test_a_result_that_a_commit_overtook_is_served_but_not_stored() -> None:
    """Its snapshot began after the request arrived, so it is right for that request, and for no later one."""
    w = ScriptedReader()
    gate = Gate()
    slow = RowQuery(w.log, (1,), pause=gate)
    request = asyncio.create_task(w.value(slow))
    await until(lambda: gate.arrived == 1)
    w.log.write(1)
    w.log.apply()
    gate.open()
    assert await request == 1
    assert (w.reader.stats.outdated, w.reader.stats.stored, w.reader.indexed) == (1, 0, 0)


async def test_a_result_is_not_stored_where_memory_does_not_reach_back() -> None:
    """What came since its snapshot is not known any more, so it counts as touched."""
    w = ScriptedReader()
    gate = Gate()
    request = asyncio.create_task(w.value(RowQuery(w.log, (1,), pause=gate)))
    await until(lambda: gate.arrived == 1)
    w.log.flush("the history is gone")
    gate.open()
    await request
    assert (w.reader.stats.outdated, w.reader.indexed) == (1, 0)


async def test_the_first_result_after_a_write_is_stored_if_its_snapshot_shows_it() -> None:
    """The log applies the write while the handler runs, which has read it already: nothing is outdated."""
    w = ScriptedReader()
    query = RowQuery(w.log, (1,), shows=True)
    computation = w.reader._start(query)
    w.log.write(1)
    read = await computation.wait()
    assert (int(read.outcome.answer()), w.reader.stats.outdated, w.reader.indexed) == (1, 0, 1)
    assert (w.log.version, read.result.version) == (1, 1)
    w.log.write(1)
    assert await w.value(query) == 2


async def test_the_log_is_not_read_for_a_result_that_shows_no_more_than_it_has_applied() -> None:
    """Nor is it for a result that is computed for one caller alone."""
    w = ScriptedReader()
    w.log.write(1)
    await w.log.sync_to_head()
    for is_cached, polls in ((True, 1), (False, 0)):
        before = w.reader.freshness.polls
        await w.reader.get(RowQuery(w.log, (1,), shows=True, is_cached=is_cached))
        assert w.reader.freshness.polls - before == polls  # that before the handler, which only what is stored needs


class TrustsAnyEpoch(Reader):
    """A seeded bug: takes a version of an epoch that is over for a place in this one's history."""

    def _seen_by(self, outcome: HandlerOutcome, started_at: int, epoch: str) -> int:
        return super()._seen_by(outcome, started_at, self._log.epoch)


async def stored_across_epochs(make: type[Reader]) -> int:
    """Return how many results are stored of a handler that saw a write which the database then lost.

    When it has ended, the database has as many transactions again: others.
    """
    w = ScriptedReader(make)
    gates = [Gate(), Gate()]
    coming = iter(gates)

    async def pause() -> None:
        await next(coming)()

    w.log.write(2)
    await w.log.sync_to_head()
    computation = w.reader._start(RowQuery(w.log, (1,), shows=True, pause=pause))
    w.log.write(1)
    w.log.write(1)
    gates[0].open()
    await until(lambda: gates[1].arrived == 1)
    del w.log._committed[-2:]
    w.log.flush("the database went back")
    w.log.write(3)
    w.log.write(3)
    gates[1].open()
    read = await computation.wait()
    assert w.log.version > (read.outcome.shows or 0) > w.log.remembers_from
    return w.reader.indexed


async def test_a_version_of_another_epoch_is_no_place_in_this_ones_history() -> None:
    """What the snapshot showed of the older one is not in question here, so nothing is stored."""
    assert await stored_across_epochs(Reader) == 0


@pytest.mark.seeded_bug
async def test_a_version_that_is_taken_for_one_of_another_epoch_is_found() -> None:
    """A write that is lost would be served for good."""
    assert await stored_across_epochs(TrustsAnyEpoch) == 1


async def test_a_request_that_goes_away_leaves_the_computation_to_others() -> None:
    """Cancelling one of two requests does not cancel the handler that both wait for."""
    w = ScriptedReader()
    gate = Gate()
    query = RowQuery(w.log, (1,), pause=gate)
    gone, stays = asyncio.create_task(w.value(query)), asyncio.create_task(w.value(query))
    await until(lambda: w.reader.stats.joined == 1)
    gone.cancel()
    await until(gone.done)
    gate.open()
    assert await stays == 0
    assert query.computed == 1


async def test_a_handler_that_fails_is_run_again_by_the_next_request() -> None:
    """An accident reaches everyone who waited, and is not kept."""
    w = ScriptedReader()
    query = RowQuery(w.log, (1,), fails=ValueError("oh"))
    for _ in range(2):
        with pytest.raises(ValueError, match="oh"):
            await w.reader.get(query)
    query.fails = None
    assert await w.value(query) == 0
    assert query.computed == 3


async def test_an_error_on_purpose_is_a_result() -> None:
    """ "No such record" is cached until the record's row is written; an error of the server's is not cached."""
    w = ScriptedReader()
    query = RowQuery(w.log, (1,), error=NotFoundError("no item"))
    assert (await w.reader.get(query)).error is (await w.reader.get(query)).error
    assert query.computed == 1
    w.log.write(1)
    query.error = ServiceUnavailableError("busy")
    for _ in range(2):
        assert (await w.reader.get(query)).error is query.error
    assert query.computed == 3


async def test_nothing_is_answered_while_the_log_cannot_be_read() -> None:
    """Not even what is stored: nobody could confirm it."""
    w = ScriptedReader()
    query = RowQuery(w.log, (1,))
    await w.value(query)
    w.log.down = ServiceUnavailableError("gone")
    with pytest.raises(ServiceUnavailableError):
        await w.reader.get(query)
    w.log.down = None
    await w.value(query)
    assert query.computed == 1


async def test_what_cannot_be_told_is_not_cached(caplog: pytest.LogCaptureFixture) -> None:
    """An opaque read set is computed for each request; the reason is logged once."""
    w = ScriptedReader()
    query = RowQuery(w.log, (1,), opaque="renders text(), which is not analysed")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await w.value(query)
    assert (query.computed, w.reader.stats.uncacheable, len(w.store)) == (3, 3, 0)
    assert [r.getMessage() for r in caplog.records] == ["items.sum is not cached: it " + str(query.opaque)]


async def test_scopes_do_not_share() -> None:
    """The same input in two scopes is two results."""
    w = ScriptedReader()
    ann, bob = RowQuery(w.log, (1,), scope="ann"), RowQuery(w.log, (1,), scope="bob")
    assert await w.reader.get(ann) is not await w.reader.get(bob)


async def test_eviction_leaves_nothing_behind() -> None:
    """The store keeps to its bound; what is evicted is not indexed any more, and is computed again when asked for."""
    w = ScriptedReader(max_bytes=5_000)
    queries = [RowQuery(w.log, (n,)) for n in range(10)]
    for query in queries:
        await w.value(query)
    assert w.store.size_bytes <= 5_000
    assert w.reader.indexed == len(w.store) == 10 - w.reader.stats.evicted < 10
    await w.value(queries[0])
    assert queries[0].computed == 2


async def test_a_result_larger_than_the_store_is_served_and_not_kept() -> None:
    """It neither stays in the index nor drives out the others for good."""
    w = ScriptedReader(max_bytes=5_000)
    assert await w.value(RowQuery(w.log, (1,), padding=10_000)) == 0
    assert w.reader.indexed == len(w.store) == w.store.size_bytes == 0


async def test_a_flush_forgets_everything_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    """Stored, indexed and watched entries go, in one step; the listeners get all of them."""
    w = ScriptedReader()
    queries = [RowQuery(w.log, (n,)) for n in range(3)]
    entries = [await w.reader.get(query) for query in queries]
    with caplog.at_level(logging.WARNING):
        w.log.flush("new triggers")
    assert (len(w.store), w.reader.indexed, w.store.size_bytes) == (0, 0, 0)
    [notified] = w.notified
    assert (set(notified.results), notified.flush, notified.version) == (set(entries), "new triggers", w.log.version)
    assert not any(entry.live or entry.cached for entry in entries)
    assert "new triggers" in caplog.text
    assert await w.value(queries[0]) == 0


async def test_one_batch_is_told_once() -> None:
    """Listeners hear each entry once, the tables that touched one, and the version of the batch."""
    w = ScriptedReader()
    both, none = RowQuery(w.log, (1, 2)), RowQuery(w.log, (3,))
    entry = await w.reader.get(both)
    await w.reader.get(none)
    w.log.write(1)
    w.log.write(2)
    w.log.commit(change(9, "other"))
    w.log.apply()
    [notified] = w.notified
    assert (notified.results, notified.version) == ({entry: {"item"}}, 3)


async def test_a_predicate_that_says_no_keeps_the_result() -> None:
    """It is asked about the changes that the read set found, before a result is stored and after."""
    w = ScriptedReader()
    asked: list[Change] = []

    def keep(change: Change) -> bool:
        asked.append(change)
        return True

    query = RowQuery(w.log, (1,), keep=keep)
    entry = await w.reader.get(query)
    w.log.write(1)
    w.log.write(2)
    assert await w.reader.get(query) is entry
    assert asked == [change(1)]
    assert (w.notified, w.reader.stats.kept) == ([], 1)


async def test_a_predicate_is_not_asked_about_a_whole_table() -> None:
    """Nobody knows which rows a bulk change wrote, so it counts."""
    w = ScriptedReader()
    query = RowQuery(w.log, (1,), keep=lambda _change: True)
    await w.value(query)
    w.log.commit(Change(table="item", operation="bulk"))
    await w.value(query)
    assert query.computed == 2


async def test_a_relation_widens() -> None:
    """A change of another table counts as a change of the rows that it is related to, stored before or after it."""
    w = ScriptedReader()
    w.reader.matcher.relations = {"owner": [Relation("owner", "id", "item", "id")]}
    mine, other = RowQuery(w.log, (1,)), RowQuery(w.log, (2,))
    entry = await w.reader.get(mine)
    await w.reader.get(other)
    before = w.log.version
    w.log.commit(change(1, "owner"))
    w.log.apply()
    assert [list(notified.results) for notified in w.notified] == [[entry]]
    assert w.reader.matcher.touched_since(before, entry)


async def test_a_watched_result_stays_indexed_without_room() -> None:
    """However small the store, a watched entry is found by the next change, and let go afterwards."""
    w = ScriptedReader(max_bytes=0)
    entry = (await w.reader.watch(RowQuery(w.log, (1,)))).result
    await w.value(RowQuery(w.log, (2,), padding=100))
    assert (entry.live, entry.cached, w.reader.indexed) == (True, False, 1)
    w.log.write(1)
    w.log.apply()
    assert [list(notified.results) for notified in w.notified] == [[entry]]
    assert w.reader.indexed == 0
    again = (await w.reader.watch(RowQuery(w.log, (1,)))).result
    w.reader.unwatch(again)
    assert w.reader.indexed == 0


async def test_two_watchers_of_one_entry_are_counted() -> None:
    """The entry stays until the last of them lets go."""
    w = ScriptedReader()
    query = RowQuery(w.log, (1,))
    first, second = (await w.reader.watch(query)).result, (await w.reader.watch(query)).result
    assert first is second
    w.store.discard(first)
    first.cached = False
    w.reader.unwatch(first)
    assert w.reader.indexed == 1
    w.reader.unwatch(first)
    assert w.reader.indexed == 0


async def test_what_a_write_overtook_is_not_watched() -> None:
    """Nobody would hear of the next change, so the caller is told (it is not live) and asks again."""
    w = ScriptedReader()
    writes = 3

    async def overtake() -> None:
        nonlocal writes
        if writes:
            writes -= 1
            w.log.write(1)
            w.log.apply()

    query = RowQuery(w.log, (1,), pause=overtake)
    first = entry = (await w.reader.watch(query)).result
    assert (first.live, first.watchers) == (False, 0)
    while not entry.live:
        entry = (await w.reader.watch(query)).result
    assert entry.watchers == 1
    assert int(entry.answer()) == w.log.rows[1] == 3


async def test_what_cannot_be_told_cannot_be_watched() -> None:
    """An opaque result is refused with its reason, an error of the server's as it is; nothing is left behind."""
    w = ScriptedReader()
    with pytest.raises(PreconditionFailedError, match="cannot be watched: it calls now"):
        await w.reader.watch(RowQuery(w.log, (1,), opaque="calls now()"))
    with pytest.raises(InternalServerError):
        await w.reader.watch(RowQuery(w.log, (1,), error=InternalServerError()))
    assert w.reader.indexed == 0


async def test_closing_abandons_computations() -> None:
    """Whoever waits is told to ask again, as nobody cancelled them; closing twice is closing once."""
    w = ScriptedReader()
    gate = Gate()
    request = asyncio.create_task(w.value(RowQuery(w.log, (1,), pause=gate)))
    await until(lambda: gate.arrived == 1)
    await w.reader.aclose()
    await w.reader.aclose()
    with pytest.raises(ServiceUnavailableError):
        await request


class JoinsAnyComputation(Reader):
    """A seeded bug: joins a computation however early its snapshot is."""

    async def get(self, query: Computable, *, freshness: RequiredFreshness = STRICT) -> CachedResult:
        await self._log.sync_to_head()
        entry = self._live.get(query.key)
        if entry is not None:
            return entry
        computation = self._in_flight.find(query, version=0) or self._start(query)
        read = await computation.wait()
        return CachedResult(query, read.outcome, read.result.version)


class RemembersNothing(ChangeMatcher):
    """Says that nothing has touched a result."""

    def touched_since(self, version: int, result: CachedResult) -> bool:
        return False


class StoresUnchecked(Reader):
    """A seeded bug: stores what a commit has overtaken."""

    def __init__(self, log: Log, store: Store, **options: Any) -> None:
        super().__init__(log, store, **options)
        self.matcher = RemembersNothing(log, self._audit, stats=self.stats)


class TakesAllForSeen(Reader):
    """A seeded bug: takes what was applied while the handler ran for shown by its snapshot."""

    def _seen_by(self, outcome: HandlerOutcome, started_at: int, epoch: str) -> int:
        return self._log.version


class LooksTooEarly(Reader):
    """A seeded bug: takes the entry out of the store before it is sure to be right."""

    async def get(self, query: Computable, *, freshness: RequiredFreshness = STRICT) -> CachedResult:
        entry = self._live.get(query.key)
        outcome = None if entry is None else entry.outcome
        await self._log.sync_to_head()
        return CachedResult(query, outcome, 0) if outcome is not None else await super().get(query)


class IndexesFirstRow(LiveResults):
    """Indexes the first thing that was read, and nothing else."""

    def add(self, result: CachedResult) -> None:
        self.index.add(result, ReadSet(result.read_set.constraints[:1]))
        result.live = result.cached = True
        self._store.put(result)


class ForgetsOtherRows(Reader):
    """A seeded bug: indexes the first thing that was read, and nothing else."""

    def __init__(self, log: Log, store: Store, **options: Any) -> None:
        super().__init__(log, store, **options)
        self._live = IndexesFirstRow(store, self._clock, self._expire, stats=self.stats)


async def stale_answers(make: type[Reader], seed: int, requests: int = 40) -> int:
    """Return how many answers missed a write that was acknowledged before they were asked for.

    Readers, a writer and a poller run at once; each pause within the log and within a handler lasts a random number of
    turns of the event loop, so every seed is another interleaving, and the same one each time.
    """
    rng = random.Random(seed)
    w = ScriptedReader(make, max_bytes=rng.choice([0, 6_000, 1_000_000]))

    async def pause(turns: int = 5) -> None:
        for _ in range(rng.randrange(turns)):
            await asyncio.sleep(0)

    async def handle() -> None:
        await pause(15)

    w.log.pause = pause
    stale = 0

    async def read() -> None:
        nonlocal stale
        for _ in range(requests):
            rows = rng.choice([(0,), (1,), (0, 1), (1, 2)])
            expected = sum(w.log.rows[row] for row in rows)
            shows = rng.random() < 0.5
            stale += await w.value(RowQuery(w.log, rows, pause=handle, shows=shows)) < expected
            await pause()

    async def write() -> None:
        for _ in range(requests):
            w.log.write(rng.randrange(3))
            await pause()
            await pause()

    async def poll() -> None:
        while True:
            await w.log.sync_to_head()
            await pause()
            await asyncio.sleep(0)

    polling = asyncio.create_task(poll())
    await asyncio.gather(*(read() for _ in range(6)), write())
    polling.cancel()
    await asyncio.gather(polling, return_exceptions=True)
    assert make is not Reader or w.reader.indexed == len(w.store)
    return stale


@pytest.mark.parametrize("seed", range(20))
async def test_no_interleaving_gives_a_stale_answer(seed: int) -> None:
    """Every answer reflects what was acknowledged before its request, and the index holds what the store does."""
    assert await stale_answers(Reader, seed) == 0


@pytest.mark.seeded_bug
@pytest.mark.parametrize(
    "broken", [JoinsAnyComputation, StoresUnchecked, TakesAllForSeen, LooksTooEarly, ForgetsOtherRows]
)
async def test_a_broken_reader_is_found_out(broken: type[Reader]) -> None:
    """The same interleavings find each seeded bug: the test above can fail."""
    assert sum([await stale_answers(broken, seed) for seed in range(20)]) > 0
