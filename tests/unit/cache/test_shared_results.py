"""Shared results: how they are stored, and that a reader takes only those that are right now."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_rpc.cache.reader import Reader
from reactive_rpc.cache.result import CachedResult, Computable, HandlerOutcome, ReadResult
from reactive_rpc.cache.shared_results import SharedResult, SharedResults, decode_value, encode_value, name_of
from reactive_rpc.cache.sharing import Sharing
from reactive_rpc.cache.store import Store
from reactive_rpc.changes.log import Log
from reactive_rpc.dependencies.change import Change
from reactive_rpc.dependencies.read_set import Constraint, Equals, ReadSet
from reactive_rpc.dependencies.relations import Relation
from reactive_rpc.errors import NotFoundError, ServiceUnavailableError
from reactive_rpc.testing import FakeClock

from .scripted import ScriptedLog, ScriptedReader, change
from .shelf import Shelf

pytestmark = pytest.mark.anyio

VALUE = SharedResult(
    ("items.sum", b"(1,)", b"ann"),
    "e1",
    7,
    b'{"n": 1}',
    ReadSet((Constraint("item", frozenset({"id"}), {"id": Equals(frozenset({1}))}),)),
)

values = st.builds(
    SharedResult,
    key=st.tuples(st.text(), st.binary(), st.binary()),
    epoch=st.text(),
    version=st.integers(0, 2**63),
    body=st.binary(),
    read_set=st.just(VALUE.read_set),
)


@given(values)
def test_a_result_comes_back_as_it_was(value: SharedResult) -> None:
    """Key, epoch, version, body and read set, whatever their bytes."""
    assert decode_value(encode_value(value)) == value


@given(st.data())
def test_a_damaged_record_is_refused(data: st.DataObject) -> None:
    """Cut, prolonged, or changed in any one byte."""
    record = encode_value(VALUE)
    place = data.draw(st.integers(0, len(record) - 1))
    flipped = bytes([record[place] ^ data.draw(st.integers(1, 255))])
    for damaged in (record[:place], record + b"\0", record[:place] + flipped + record[place + 1 :]):
        with pytest.raises(ValueError, match=r".+"):
            decode_value(damaged)


def test_a_result_of_which_nothing_is_known_is_refused() -> None:
    """An opaque read set cannot be held against a log."""
    with pytest.raises(ValueError, match="nothing tells when it changes"):
        decode_value(encode_value(replace(VALUE, read_set=ReadSet(opaque="calls now()"))))


@given(values, values)
def test_names_differ_where_anything_does(one: SharedResult, other: SharedResult) -> None:
    """Build, epoch, path, input and scope, wherever one ends and the next begins."""
    names = {name_of("b1", each.epoch, each.key) for each in (one, other)}
    assert len(names) == len({(each.epoch, each.key) for each in (one, other)})
    assert name_of("b1", one.epoch, one.key) != name_of("b2", one.epoch, one.key)


@dataclass
class SharingReaders:
    """Readers with a log each, all of one database, that share results."""

    shelf: Shelf = field(default_factory=Shelf)
    database: ScriptedLog = field(default_factory=ScriptedLog)

    def worker(
        self,
        make: type[Reader] = Reader,
        max_bytes: int = 1_000_000,
        shared: SharedResults | None = None,
        clock: FakeClock | None = None,
    ) -> ScriptedReader:
        """Return one more worker; its log stands where the database does."""
        log = ScriptedLog(rows=self.database.rows, _committed=self.database._committed)
        log.version = log.remembers_from = log.committed
        return ScriptedReader(make, log=log, max_bytes=max_bytes, shared=shared or self.shelf, clock=clock)

    def write(self, *rows: int) -> None:
        """Commit an update of these rows."""
        self.database.write(*rows)


async def test_a_result_of_another_worker_spares_the_handler() -> None:
    """It is answered, stored and indexed as one's own, and counted."""
    w = SharingReaders()
    one, other = w.worker(), w.worker()
    w.write(1)
    assert await one.value(one.query(1)) == 1
    query = other.query(1)
    assert (await other.value(query), query.computed) == (1, 0)
    assert (other.reader.indexed, other.reader.cached_results) == (1, 1)
    assert (one.reader.stats.shared_puts, other.reader.stats.shared_hits, other.reader.stats.shared_puts) == (1, 1, 0)
    w.write(1)
    assert await other.value(query) == 2


async def test_a_shared_result_has_the_etag_of_ones_own() -> None:
    """A client that goes from worker to worker fetches nothing twice."""
    w = SharingReaders()
    one, other = w.worker(), w.worker()
    mine, taken = await one.reader.get(one.query(1)), await other.reader.get(other.query(1))
    assert (taken.etag, taken.read_set) == (mine.etag, mine.read_set)
    assert taken is not mine


async def test_an_outdated_result_is_not_taken() -> None:
    """A change that touches it came after it was right: the handler runs, and its result takes the old one's place."""
    w = SharingReaders()
    one, other = w.worker(), w.worker()
    await one.value(one.query(1))
    w.write(1)
    query = other.query(1)
    assert (await other.value(query), query.computed) == (1, 1)
    assert (other.reader.stats.shared_rejected, other.reader.stats.shared_puts) == (1, 1)
    query = one.query(1)
    assert (await one.value(query), query.computed) == (1, 0)


async def test_changes_of_other_rows_leave_a_result_right() -> None:
    """However many came since."""
    w = SharingReaders()
    one, other = w.worker(), w.worker()
    await one.value(one.query(1))
    for _ in range(10):
        w.write(2)
    query = other.query(1)
    assert (await other.value(query), query.computed) == (0, 0)


async def test_a_result_from_before_this_workers_memory_is_not_taken() -> None:
    """Nobody here knows what came in between."""
    w = SharingReaders()
    one = w.worker()
    await one.value(one.query(1))
    w.write(2)
    late = w.worker()
    query = late.query(1)
    assert (await late.value(query), query.computed, late.reader.stats.shared_rejected) == (0, 1, 1)


@pytest.mark.parametrize(("off_seconds", "computed"), [(0.0, 0), (59.0, 0), (-1.0, 1), (60.0, 1)])
async def test_a_result_is_held_against_this_hosts_own_clock(off_seconds: float, computed: int) -> None:
    """It is what this handler would be told now, or it is not taken; nobody waits for a later version then."""
    w = SharingReaders()
    here, there = FakeClock(), FakeClock()
    one, other = w.worker(clock=here), w.worker(clock=there)
    await one.value(one.query(1, time=here.time))
    there._now += off_seconds
    query = other.query(1, time=there.time)
    await other.value(query)
    assert (query.computed, other.reader.stats.shared_rejected) == (computed, computed)
    assert w.shelf.asked[-1] == ("items.sum", -1, 0)
    for worker in (one, other):
        await worker.reader.aclose()


async def test_a_result_of_another_epoch_is_not_found() -> None:
    """Its versions mean nothing here; nor is it taken where the epoch changes while it is fetched."""
    w = SharingReaders()
    one, other = w.worker(), w.worker()
    await one.value(one.query(1))

    async def begin_an_epoch() -> None:
        other.log.flush("new triggers")
        w.shelf.pause = ScriptedLog.pause

    w.shelf.pause = begin_an_epoch
    query = other.query(1)
    assert (await other.value(query), query.computed) == (0, 1)
    query = other.query(1, path="items.other")
    assert (await other.value(query), query.computed) == (0, 1)


async def test_a_result_of_another_scope_is_not_taken() -> None:
    """Not even where it stands under the name of this one."""
    w = SharingReaders()
    one, other = w.worker(), w.worker()
    w.write(1)
    await one.value(one.query(1, scope="ann"))
    query = other.query(1, scope="bob")
    assert (await other.value(query), query.computed) == (1, 1)


async def test_a_result_that_is_ahead_of_the_log_waits_for_it() -> None:
    """The log is looked at again; what lies in between is then applied here, too."""
    w = SharingReaders()
    one, other = w.worker(), w.worker()

    async def write_and_share() -> None:
        w.shelf.pause = ScriptedLog.pause
        w.write(1)
        await one.value(one.query(1))

    w.shelf.pause = write_and_share
    query = other.query(1)
    assert (await other.value(query), query.computed, other.log.version) == (1, 0, 1)


async def test_a_log_that_does_not_come_as_far_takes_nothing() -> None:
    """The handler's own snapshot then decides."""
    w = SharingReaders()
    one, other = w.worker(), w.worker()
    w.write(1)
    w.shelf.put(replace(VALUE, key=other.query(1).key, version=99))
    query = other.query(1)
    assert (await other.value(query), query.computed) == (1, 1)
    assert other.reader.stats.shared_rejected > 0
    assert one.reader.stats.shared_hits == 0


async def test_relations_and_predicates_are_this_workers_own() -> None:
    """A change counts for a shared result as it would have counted for the worker's own."""
    w = SharingReaders()
    one, other = w.worker(), w.worker()
    other.reader.matcher.relations = {"owner": [Relation("owner", "id", "item", "id")]}
    await one.value(one.query(1))
    w.database.commit(change(1, "owner"))
    query = other.query(1)
    await other.reader.get(query)
    assert query.computed == 1
    asked: list[Change] = []

    def keep(change: Change) -> bool:
        asked.append(change)
        return True

    await one.value(one.query(2))
    w.write(2)
    query = other.query(2, keep=keep)
    assert (await other.value(query), query.computed, asked) == (0, 0, [change(2)])


@pytest.mark.parametrize("options", [{"opaque": "calls now()"}, {"error": NotFoundError("no item")}])
async def test_what_cannot_be_shared_is_not(options: dict[str, object]) -> None:
    """Opaque results and errors: after the first of a key nobody is asked for it, until a result can be shared."""
    w = SharingReaders()
    worker = w.worker()
    query = worker.query(1, **options)
    await worker.reader.get(query)
    assert (w.shelf.records, w.shelf.claimed, len(w.shelf.asked)) == ({}, [], 1)
    w.write(1)
    await worker.reader.get(query)
    assert len(w.shelf.asked) == 1
    query.opaque = query.error = None
    for _ in range(2):
        w.write(1)
        await worker.reader.get(query)
    assert (len(w.shelf.records), len(w.shelf.asked)) == (1, 2)


@pytest.mark.parametrize("fails", [ValueError("oh"), ServiceUnavailableError("gone")])
async def test_a_handler_that_fails_gives_its_turn_back(fails: Exception) -> None:
    """Others need not wait for a result that never comes."""
    w = SharingReaders()
    worker = w.worker()
    with pytest.raises(type(fails)):
        await worker.reader.get(worker.query(1, fails=fails))
    assert (w.shelf.claimed, w.shelf.records, len(w.shelf.asked)) == ([], {}, 1)


async def test_an_overtaken_result_is_not_shared() -> None:
    """It was right at a version that nobody can tell."""
    w = SharingReaders()
    worker = w.worker()

    async def overtake() -> None:
        w.write(1)
        worker.log.apply()

    await worker.reader.get(worker.query(1, pause=overtake))
    assert (w.shelf.records, worker.reader.stats.outdated) == ({}, 1)


async def test_a_dropped_result_is_asked_for_anew() -> None:
    """The question says which versions are known to be outdated: those before the batch that dropped it."""
    w = SharingReaders()
    worker = w.worker()
    await worker.value(worker.query(1))
    w.write(2)
    await worker.reader.freshness.sync_to_head()
    w.write(1)
    await worker.value(worker.query(1))
    assert w.shelf.asked == [("items.sum", -1, 0), ("items.sum", 1, 2)]


async def test_the_handler_runs_on_a_snapshot_of_after_the_question() -> None:
    """What was applied while others were asked does not make its result outdated."""
    w = SharingReaders()
    worker = w.worker()

    async def write() -> None:
        w.write(1)
        worker.log.apply()

    w.shelf.pause = write
    query = worker.query(1)
    assert (await worker.value(query), worker.reader.stats.outdated, worker.reader.stats.stored) == (2, 0, 1)


async def test_concurrent_requests_share_one_question() -> None:
    """They wait for one computation, whether it ends in a shared result or in a run of the handler."""
    w = SharingReaders()
    one, other = w.worker(), w.worker()
    await one.value(one.query(1))
    answers = await asyncio.gather(*(other.value(other.query(1)) for _ in range(10)))
    assert (answers, len(w.shelf.asked), other.reader.stats.joined) == ([0] * 10, 2, 9)


async def test_a_shared_result_can_be_watched() -> None:
    """It stays indexed without room for it, and the next change finds it."""
    w = SharingReaders()
    one, other = w.worker(), w.worker(max_bytes=0)
    await one.value(one.query(1))
    entry = (await other.reader.watch(other.query(1))).result
    assert (entry.live, other.reader.stats.shared_hits) == (True, 1)
    w.write(1)
    other.log.apply()
    assert (entry.live, other.reader.indexed) == (False, 0)


class TakesUnchecked(Reader):
    """A seeded bug: believes what is shared."""

    def _is_right(self, shared: SharedResult, result: CachedResult) -> bool:
        return True


class ChecksTooEarly(Reader):
    """A seeded bug: the log may go on between the check and the index."""

    async def _adopt_shared(self, query: Computable, sharing: Sharing) -> ReadResult | None:
        shared = await sharing.find(query.key, after=-1)
        if shared is None:
            return None
        outcome = HandlerOutcome(shared.body, shared.read_set)
        result = CachedResult(query, outcome, shared.version)
        if not self._is_right(shared, result):
            return None
        for _ in range(10):
            await asyncio.sleep(0)
        self._live.add(result)
        return ReadResult(result, outcome)


class LateSharing(Sharing):
    """Offers a result some turns of the event loop after it was found to be right."""

    late: ClassVar[set[asyncio.Task[None]]] = set()

    def offer(self, result: CachedResult, outcome: HandlerOutcome) -> None:
        offer = super().offer

        async def later() -> None:
            for _ in range(3):
                await asyncio.sleep(0)
            offer(result, outcome)

        task = asyncio.create_task(later())
        self.late.add(task)
        task.add_done_callback(self.late.discard)


class SharesLate(Reader):
    """A seeded bug: says that a result was right at a version which it was not held against."""

    def __init__(self, log: Log, store: Store, **options: Any) -> None:
        super().__init__(log, store, **options)
        self._sharing = LateSharing(options["shared"], log, self.freshness, stats=self.stats)


class SharesOvertaken(Reader):
    """A seeded bug: shares what a write has overtaken."""

    async def _run(self, query: Computable, started_at: int) -> ReadResult:
        read = await super()._run(query, started_at)
        assert self._sharing is not None
        self._sharing.offer(read.result, read.outcome)
        return read


async def stale_answers(make: type[Reader], seed: int, requests: int = 30) -> int:
    """Return how many answers of two workers that share missed a write acknowledged before they were asked for.

    Each worker has a log of its own, which it looks at when it likes; every pause, also within the shared values, lasts
    a random number of turns of the event loop, so every seed is another interleaving, and the same one each time.
    """
    rng = random.Random(seed)
    w = SharingReaders()
    workers = [w.worker(make, max_bytes=rng.choice([0, 5_000, 8_000, 1_000_000])) for _ in range(2)]

    async def pause(turns: int = 5) -> None:
        for _ in range(rng.randrange(turns)):
            await asyncio.sleep(0)

    async def handle() -> None:
        await pause(10)

    w.shelf.pause = pause
    for worker in workers:
        worker.log.pause = pause
    stale = 0

    async def read(worker: ScriptedReader) -> None:
        nonlocal stale
        for _ in range(requests):
            rows = rng.choice([(0,), (1,), (0, 1), (1, 2)])
            expected = sum(w.database.rows[row] for row in rows)
            stale += await worker.value(worker.query(*rows, pause=handle)) < expected
            await pause()

    async def write() -> None:
        for _ in range(2 * requests):
            w.write(rng.randrange(3))
            await pause(25)

    async def poll(worker: ScriptedReader) -> None:
        while True:
            await worker.log.sync_to_head()
            await pause(10)
            await asyncio.sleep(0)

    polling = [asyncio.create_task(poll(worker)) for worker in workers]
    await asyncio.gather(*(read(worker) for worker in workers for _ in range(3)), write())
    for task in polling:
        task.cancel()
    await asyncio.gather(*polling, return_exceptions=True)
    if make is Reader:
        assert all(worker.reader.indexed == len(worker.store) for worker in workers)
        assert sum(worker.reader.stats.shared_hits for worker in workers) > 0
        assert w.shelf.claimed == []
    return stale


@pytest.mark.parametrize("seed", range(20))
async def test_no_interleaving_of_workers_gives_a_stale_answer(seed: int) -> None:
    """Whoever computed it, every answer reflects what was acknowledged before its request."""
    assert await stale_answers(Reader, seed) == 0


@pytest.mark.seeded_bug
@pytest.mark.parametrize("broken", [TakesUnchecked, ChecksTooEarly, SharesLate, SharesOvertaken])
async def test_a_reader_that_shares_wrongly_is_found_out(broken: type[Reader]) -> None:
    """The same interleavings find each seeded bug: the test above can fail."""
    assert sum([await stale_answers(broken, seed) for seed in range(20)]) > 0
