"""The auditor: finds what is stale, and nothing else."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from reactive_rpc.cache import auditor as auditing
from reactive_rpc.cache.auditor import Auditor, Finding
from reactive_rpc.cache.freshness import Freshness
from reactive_rpc.cache.reader import Reader
from reactive_rpc.changes.log import Batch
from reactive_rpc.errors import ServiceUnavailableError

from .scripted import Pause, RowQuery, ScriptedLog, ScriptedReader, no_pause, until

pytestmark = pytest.mark.anyio


class IgnoresRowOne(Reader):
    """A seeded bug: changes of row 1 are not seen."""

    def apply(self, batch: Batch) -> None:
        super().apply(Batch(batch.version, tuple(c for c in batch.changes if 1 not in c.keys), batch.flush))


class AuditedReader(ScriptedReader):
    """A reader whose hits are audited where `drawn` is below `share`."""

    def __init__(self, make: type[Reader] = Reader, *, share: float = 1.0, drawn: float = 0.5) -> None:
        log = ScriptedLog()
        freshness = Freshness(log)
        self.auditor = Auditor(freshness, share=share, random=lambda: drawn)
        super().__init__(make, log=log, freshness=freshness, auditor=self.auditor)

    async def value_of(self, row: int, **options: Any) -> int:
        """Return what the reader answers to a query of one row."""
        return await self.value(self.query(row, **options))


@pytest.mark.seeded_bug
async def test_an_index_that_ignores_changes_is_found_out(caplog: pytest.LogCaptureFixture) -> None:
    """The stale entry is counted, named without its values, dropped, and whoever watches is told."""
    w = AuditedReader(IgnoresRowOne)
    await w.value_of(1)
    w.log.write(1)
    assert await w.value_of(1) == 0
    with caplog.at_level(logging.ERROR):
        await w.auditor.drain()
    assert w.auditor.findings == (Finding("stale", "items.sum", "", "other values"),)
    assert (w.auditor.stats.audited, w.auditor.stats.stale) == (1, 1)
    [record] = caplog.records
    assert "items.sum: a stored result was stale" in record.getMessage()
    assert len(w.notified) == 1
    assert await w.value_of(1) == 1


async def test_what_is_right_is_left_alone() -> None:
    """A hit that is audited stays stored."""
    w = AuditedReader(IgnoresRowOne)
    await w.value_of(2)
    await w.value_of(2)
    await w.auditor.drain()
    assert (w.auditor.stats.audited, w.auditor.findings, w.reader.indexed) == (1, (), 1)


@pytest.mark.parametrize(("share", "drawn", "audited"), [(0.0, 0.0, 0), (0.5, 0.4, 1), (0.5, 0.5, 0), (1.0, 0.99, 1)])
async def test_a_share_is_drawn(share: float, drawn: float, audited: int) -> None:
    """Zero audits nothing, one audits everything."""
    w = AuditedReader(share=share, drawn=drawn)
    await w.value_of(1)
    await w.value_of(1)
    await w.auditor.drain()
    assert w.auditor.stats.audited == audited


@pytest.mark.parametrize("moment", [1, 2])
async def test_a_commit_between_is_no_finding(moment: int) -> None:
    """Before or after the snapshot of the audit: the entry was right when it was served."""
    w = AuditedReader()
    paused = 0

    async def commit() -> None:
        nonlocal paused
        paused += 1
        if paused == moment:
            w.log.write(1)

    query = RowQuery(w.log, (1,))
    await w.reader.get(query)
    query.pause = commit
    await w.reader.get(query)
    await w.auditor.drain()
    assert (w.auditor.stats.audits_undecided, w.auditor.findings) == (1, ())


async def test_an_audit_that_fails_is_no_finding() -> None:
    """Neither an accident of the handler, nor an error that passes, nor a log that cannot be read."""
    w = AuditedReader()
    query = RowQuery(w.log, (1,))
    entry = await w.reader.get(query)
    for query.fails, query.error, w.log.down in (
        (ValueError("oh"), None, None),
        (None, ServiceUnavailableError("busy"), None),
        (None, None, ServiceUnavailableError("gone")),
    ):
        w.auditor.offer(entry)
        await w.auditor.drain()
    assert (w.auditor.stats.audits_undecided, w.auditor.stats.audited, w.auditor.findings) == (3, 0, ())


@pytest.mark.seeded_bug
async def test_a_predicate_that_hid_a_change_is_found_without_a_hit() -> None:
    """The predicate said that nothing changes, and something did: the finding names its table."""
    w = AuditedReader()
    await w.value_of(1, keep=lambda _change: True)
    w.log.write(1)
    w.log.apply()
    await w.auditor.drain()
    assert w.auditor.findings == (Finding("predicate", "items.sum", "item", "other values"),)
    assert (w.auditor.stats.wrongly_ignored, w.auditor.stats.stale) == (1, 0)
    assert await w.value_of(1) == 1


async def test_a_predicate_during_the_computation_is_audited_too() -> None:
    """The result is stored though a change overtook it, on the predicate's word alone."""
    w = AuditedReader()
    written = False

    async def commit_after_the_snapshot() -> None:
        nonlocal written
        if snapshot and not written:
            written = True
            w.log.write(1)
        snapshot.append(1)

    snapshot: list[int] = []
    assert await w.value_of(1, pause=commit_after_the_snapshot, keep=lambda _change: True) == 0
    await w.auditor.drain()
    assert [finding.kind for finding in w.auditor.findings] == ["predicate"]


async def test_a_predicate_that_is_right_is_no_finding() -> None:
    """The change touched the read set and left the result as it was."""
    w = AuditedReader()
    query = RowQuery(w.log, (1,), keep=lambda _change: True)
    await w.reader.get(query)
    w.log.rows[1] -= 1
    w.log.write(1)
    w.log.apply()
    await w.auditor.drain()
    assert (w.auditor.stats.audited, w.auditor.findings) == (1, ())


async def test_too_many_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue is bounded, the rest is counted, and no request waits: one audit runs at a time."""
    monkeypatch.setattr(auditing, "MAX_WAITING", 2)
    w = AuditedReader()
    gate = asyncio.Event()
    running = most = 0

    async def held() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await gate.wait()
        running -= 1

    queries = [RowQuery(w.log, (row,)) for row in range(5)]
    for query in queries:
        await w.reader.get(query)
        query.pause = held
    for query in queries:
        await w.reader.get(query)
    assert w.auditor.stats.audits_skipped == 3
    await until(lambda: running == 1)
    gate.set()
    await w.auditor.drain()
    assert (w.auditor.stats.audited, most) == (2, 1)


async def test_closing_abandons_what_waits() -> None:
    """A share below one is a sample: nothing is owed. Closing twice is closing once."""
    w = AuditedReader(share=0.9)
    gate = asyncio.Event()
    pause: Pause = no_pause

    async def held() -> None:
        await gate.wait()

    query = RowQuery(w.log, (1,), pause=pause)
    await w.reader.get(query)
    query.pause = held
    await w.reader.get(query)
    await w.auditor.aclose()
    await w.auditor.aclose()
    await w.auditor.drain()
    assert w.auditor.stats.audited == 0


async def test_a_check_is_finished_when_it_closes() -> None:
    """With a share of one, everything that was offered has been compared by then."""
    w = AuditedReader()
    await w.value_of(1)
    await w.value_of(1)
    await w.auditor.aclose()
    assert w.auditor.stats.audited == 1


async def test_a_needless_invalidation_is_counted() -> None:
    """The result came out the same again; one that changed does not count, nor one that was computed before."""
    w = AuditedReader()
    await w.value_of(1)
    w.log.rows[1] -= 1
    w.log.write(1)
    await w.value_of(1)
    assert w.reader.stats.needless == 1
    w.log.write(1)
    await w.value_of(1)
    assert (w.reader.stats.needless, w.reader.stats.invalidated) == (1, 2)


async def test_a_computation_from_before_the_drop_proves_nothing() -> None:
    """It read the same old data; only the one after it can tell."""
    w = AuditedReader()
    entry = await w.reader.get(RowQuery(w.log, (1,)))
    outcome, started_at = entry.outcome, w.log.version
    w.log.write(1)
    w.log.apply()
    late = type(entry)(entry.query, outcome, started_at)
    assert not w.reader._dropped.pop_if_needless(late)


async def test_a_handler_that_asks_its_own_clock_is_named_with_the_column(caplog: pytest.LogCaptureFixture) -> None:
    """Two runs without a change between compare one column with two values: once told, whatever the results are."""
    w = AuditedReader()
    query = RowQuery(w.log, (1,))
    entry = await w.reader.get(query)
    query.rows = (2,)
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            w.auditor.offer(entry)
            await w.auditor.drain()
    assert w.auditor.findings == (Finding("clock", "items.sum", "item.id", "its result is the same"),)
    assert (w.auditor.stats.audited, w.auditor.stats.stale) == (2, 0)
    [record] = caplog.records
    assert "item.id with another value" in record.getMessage()
    assert "now(every=...)" in record.getMessage()
