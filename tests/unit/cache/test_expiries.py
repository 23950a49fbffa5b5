"""Entries that time ends: what is served at a tick, joined across it, stored after it, shared, and audited."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from reactive_rpc.cache.auditor import Auditor
from reactive_rpc.cache.expiries import AT_ONCE, GRACE_SECONDS, Expiries
from reactive_rpc.cache.freshness import InOutage
from reactive_rpc.cache.result import CachedResult
from reactive_rpc.dependencies.codec import decode_read_set, encode_read_set
from reactive_rpc.dependencies.period import ALWAYS, Period, tick_of
from reactive_rpc.dependencies.read_set import ReadSet
from reactive_rpc.errors import ServiceUnavailableError
from reactive_rpc.testing import FakeClock

from .scripted import RowQuery, ScriptedLog, ScriptedReader, until

pytestmark = pytest.mark.anyio


class ClockedReader(ScriptedReader):
    """A reader by a clock that stands still."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        super().__init__(clock=self.clock)

    def minutely(self, *rows: int, **options: Any) -> RowQuery:
        """Return a query whose result is another one in each minute."""
        return self.query(*rows, time=self.clock.time, **options)


async def test_a_result_holds_until_the_next_tick() -> None:
    """It is a hit up to the last moment, and never a moment later, whatever the timer does."""
    w = ClockedReader()
    query = w.minutely(1)
    first = await w.value(query)
    w.clock.advance(59.9)
    assert await w.value(query) == first
    assert query.computed == 1
    w.clock._now += 0.1  # nobody who sleeps wakes up
    assert await w.value(query) == first + 1000
    assert query.computed == 2


async def test_a_clock_that_was_set_back_ends_what_it_has_not_come_to() -> None:
    """The handler would be told an earlier moment now."""
    w = ClockedReader()
    query = w.minutely(1)
    w.clock.advance(60)
    later = await w.value(query)
    w.clock._now -= 30
    assert await w.value(query) == later - 1000


async def test_the_listeners_are_told_once_a_tick_has_passed() -> None:
    """All that it has ended leaves index and store, at the log's version and for no table's sake; the rest stays."""
    w = ClockedReader()
    queries = [w.minutely(row) for row in range(AT_ONCE + 5)]
    timeless = RowQuery(w.log, (1,), path="items.timeless")
    for query in [*queries, timeless]:
        await w.reader.get(query)
    w.clock.advance(60 + GRACE_SECONDS / 2)
    await asyncio.sleep(0)
    assert not w.notified
    w.clock.advance(GRACE_SECONDS)
    await until(lambda: w.reader.stats.expired == len(queries))
    assert sum(len(notified.results) for notified in w.notified) == len(queries)
    assert {notified.version for notified in w.notified} == {w.log.version}
    assert all(tables == set() for notified in w.notified for tables in notified.results.values())
    assert (w.reader.indexed, w.reader.cached_results, w.reader.stats.invalidated) == (1, 1, 0)
    await w.reader.aclose()


async def test_whoever_comes_after_a_tick_does_not_join_a_computation_from_before_it() -> None:
    """Its handler was told the old minute; who was there before the tick may have it."""
    w = ClockedReader()
    gate = asyncio.Event()
    query = w.minutely(1)
    query.pause = gate.wait  # type: ignore[assignment]  # what it returns is not looked at
    before = asyncio.create_task(w.value(query))
    await until(lambda: query.computed == 1)
    w.clock._now += 60
    after = asyncio.create_task(w.value(query))
    await until(lambda: w.reader.stats.joined == 1)
    gate.set()
    assert await after == await before + 1000


async def test_a_result_that_has_ended_when_it_is_done_is_served_and_not_stored() -> None:
    """Its request came before the tick; the next one computes."""
    w = ClockedReader()
    gate = asyncio.Event()
    query = w.minutely(1)
    query.pause = gate.wait  # type: ignore[assignment]  # what it returns is not looked at
    asked = asyncio.create_task(w.reader.get(query))
    await until(lambda: query.computed == 1)
    w.clock._now += 60
    gate.set()
    entry = await asked
    assert not entry.live
    assert (w.reader.stats.outdated, w.reader.indexed) == (1, 0)


async def test_a_time_to_live_ends_a_result_too() -> None:
    """It is counted from when the handler began; a change still ends it earlier."""
    w = ClockedReader()
    query = w.minutely(1, ttl_seconds=90.0)
    await w.value(query)
    w.clock._now += 89
    await w.value(query)
    assert query.computed == 1
    w.clock._now += 1
    await w.value(query)
    assert query.computed == 2
    w.log.write(1)
    await w.value(query)
    assert query.computed == 3
    await w.reader.aclose()


async def test_what_has_ended_is_not_served_in_an_outage() -> None:
    """`stale_if_error_seconds` bridges an outage with what was right; what time has ended is not."""
    w = ClockedReader()
    query = w.minutely(1)
    await w.value(query)
    outage = InOutage(math.inf, ServiceUnavailableError("the log cannot be read"))
    assert (await w.reader.get(query, freshness=outage)).live
    w.clock._now += 60
    with pytest.raises(ServiceUnavailableError):
        await w.reader.get(query, freshness=outage)
    await w.reader.aclose()


async def test_the_auditor_calls_no_tick_a_staleness() -> None:
    """Within the grace an entry of the tick before still is live, and computed again it is another one: not compared.

    And what may be older by its author's word is not audited at all.
    """
    w = ClockedReader()
    auditor = Auditor(w.reader.freshness, share=1.0)
    ticking, lasting = w.minutely(1), w.minutely(2, ttl_seconds=600.0)
    entries = [await w.reader.get(query) for query in (ticking, lasting)]
    w.clock._now += 60 + GRACE_SECONDS / 2
    for entry in entries:
        auditor.offer(entry)
    await auditor.drain()
    assert (auditor.stats.audited, auditor.stats.audits_undecided, auditor.findings) == (0, 1, ())
    assert lasting.computed == 1
    await w.reader.aclose()


async def test_the_timer_waits_for_no_more_than_there_is() -> None:
    """Entries that have gone are not held, nor are their moments; an earlier end wakes it; closing ends it."""
    clock, ended = FakeClock(), list[CachedResult]()
    expiries = Expiries(clock, ended.extend)

    async def ending(seconds: float) -> CachedResult:
        query = RowQuery(ScriptedLog(), (1,), time=clock.time, ttl_seconds=seconds)
        entry = CachedResult(query, await query.compute(), 0, live=True)
        expiries.add(entry)
        return entry

    for entry in [await ending(1000.0 + number) for number in range(1000)]:
        expiries.remove(entry)
    assert len(expiries) == 0
    assert len(expiries._moments) <= 64
    late, soon = await ending(500.0), await ending(5.0)
    await until(lambda: clock.sleepers == 1)
    clock.advance(5.0 + GRACE_SECONDS)
    await until(lambda: ended == [soon])
    assert expiries.notified_until == clock.time() - GRACE_SECONDS
    clock._now += 500
    assert expiries.notified_until == late.period.until
    await expiries.aclose()
    await expiries.aclose()
    assert clock.sleepers == 0


def test_a_period_crosses_the_wire_whole() -> None:
    """Another worker holds it against its own clock."""
    for period in (ALWAYS, tick_of(1_800_000_000.25, 60), Period(1.5, math.inf), Period(2.5, 3.0, is_exact=False)):
        assert decode_read_set(encode_read_set(ReadSet(period=period))).period == period
    assert decode_read_set(encode_read_set(ReadSet())).period is ALWAYS
