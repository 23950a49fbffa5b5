"""What watched queries keep in memory: counted, bounded for each caller and for all, and refused by name."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain, islice

import pytest

from reactive_rpc.cache.weight import weight_of
from reactive_rpc.errors import ServiceUnavailableError, TooManyRequestsError
from reactive_rpc.subscriptions.holdings import SHOWN_BYTES
from tests.unit.cache.scripted import RowQuery, until

from .scripted_hub import ROOM, Listener, ScriptedHub

pytestmark = pytest.mark.anyio

LARGE = 100_000


def large(w: ScriptedHub, row: int) -> RowQuery:
    """Return a query whose result is large."""
    return RowQuery(w.log, (row,), padding=LARGE)


def wide(w: ScriptedHub, row: int) -> RowQuery:
    """Return a query whose input is large."""
    return RowQuery(w.log, (row,), size_bytes=LARGE)


def refusals(listener: Listener) -> list[tuple[str, str]]:
    """Return code and first words of what was refused, in the order of the request."""
    return [(refused.error.code, refused.error.message) for refused in listener.connected.errors]


async def test_watched_results_keep_no_bytes() -> None:
    """The store has room for two results: of the others the ETag is left, and they are told of as before."""
    w = ScriptedHub(max_bytes=3 * LARGE)
    listener = await w.connect(*(large(w, row) for row in range(10)))
    entries = list(w.hub._queries._by_entry)
    assert len(entries) == 10
    assert sum(entry.outcome is not None for entry in entries) == w.reader.cached_results == 2
    assert all(entry.etag for entry in entries)
    assert w.reader.cached_bytes <= 3 * LARGE
    assert w.hub.watched_bytes < LARGE
    for row in range(10):
        await w.write(row)
    assert sorted(chain.from_iterable(listener.heard)) == sorted(f"items.sum[{row}]" for row in range(10))
    await w.aclose()


async def test_a_result_is_pushed_though_nothing_holds_it() -> None:
    """Where the store holds nothing at all, the new bytes are there once, to be sent."""
    w = ScriptedHub(max_bytes=0)
    query = RowQuery(w.log, (1,), pushes_results=True)
    listener = await w.connect(query)
    w.log.write(1)
    w.log.apply()
    await until(lambda: len(listener.frames) == 1)
    assert [event.data for event in listener.events] == [1]
    assert all(entry.outcome is None for entry in w.hub._queries._by_entry)
    await w.aclose()


async def test_whoever_waited_for_a_result_is_served_it_though_nothing_holds_it() -> None:
    """The bytes leave the entry before the tasks that wait for it run again; they have them all the same."""
    w = ScriptedHub(max_bytes=0)
    await w.connect(w.row(1))
    await w.write(1)
    assert (await w.reader.get(w.row(1))).answer() == b"1"
    await w.aclose()


async def test_a_caller_watches_so_many_queries_and_no_more() -> None:
    """The next is refused, alone, by the name of the setting; others have their own; leaving gives places back."""
    w = ScriptedHub(bounds=replace(ROOM, max_watched_queries_per_identity=3))
    first = await w.connect(w.row(1), w.row(2), identity="ann")
    second = await w.connect(w.row(1), w.row(3), w.row(4), identity="ann")
    assert second.connected.queries == ["items.sum[1]", None, None]
    for code, message in refusals(second):
        assert code == "TOO_MANY_REQUESTS"
        assert message.startswith("this caller watches as many queries as it may: 3 (max_watched_queries_per_identity)")
    assert refusals(await w.connect(w.row(1), w.row(2), w.row(3), identity="bob")) == []
    await w.write(1)
    assert second.heard == first.heard == [["items.sum[1]"]]
    await w.leave(first)
    assert refusals(await w.connect(w.row(5), w.row(6), identity="ann")) == []
    await w.aclose()


async def test_a_refused_query_is_not_computed() -> None:
    """What nobody may watch costs no run of the handler."""
    w = ScriptedHub(bounds=replace(ROOM, max_watched_queries_per_identity=1))
    refused = w.row(2)
    await w.connect(w.row(1), refused, identity="ann")
    assert refused.computed == 0
    await w.aclose()


async def test_a_worker_watches_so_many_queries_and_no_more() -> None:
    """Whoever comes past it is sent elsewhere."""
    w = ScriptedHub(bounds=replace(ROOM, max_watched_queries=2))
    await w.connect(w.row(1), w.row(2), identity="ann")
    [(code, message)] = refusals(await w.connect(w.row(1), identity="bob"))
    assert code == "SERVICE_UNAVAILABLE"
    assert "2 (max_watched_queries)" in message
    assert "another worker" in message
    await w.aclose()


@pytest.mark.parametrize("kind", [wide, large])
async def test_a_callers_inputs_are_bounded_in_bytes(kind: Callable[[ScriptedHub, int], RowQuery]) -> None:
    """Large inputs meet the bound after a few; results that are large do not, as they are not kept."""
    w = ScriptedHub(max_bytes=0, bounds=replace(ROOM, max_watched_bytes_per_identity=5 * LARGE))
    listener = await w.connect(*(kind(w, row) for row in range(10)), identity="ann")
    found = refusals(listener)
    if kind is large:
        assert found == []
    else:
        assert {code for code, _ in found} == {"TOO_MANY_REQUESTS"}
        assert "max_watched_bytes_per_identity" in found[0][1]
        assert 2 <= 10 - len(found) <= 4
        assert w.hub.watched_bytes <= 5 * LARGE
    await w.aclose()


async def test_a_workers_inputs_are_bounded_in_bytes() -> None:
    """However many callers they come from."""
    w = ScriptedHub(bounds=replace(ROOM, max_watched_bytes=5 * LARGE))
    found = [refusals(await w.connect(wide(w, row), identity=f"caller {row}")) for row in range(10)]
    assert [code for refused in found for code, _ in refused][:1] == ["SERVICE_UNAVAILABLE"]
    assert w.hub.watched_bytes <= 5 * LARGE
    await w.aclose()


async def test_the_requests_of_streams_count() -> None:
    """Each stream keeps its request, to be rechecked by: a stream whose own is too much is refused as a whole."""
    w = ScriptedHub(bounds=replace(ROOM, max_watched_bytes_per_identity=2 * LARGE))
    first = await w.connect(identity="ann", request_bytes=LARGE)
    await w.connect(identity="ann", request_bytes=LARGE)
    with pytest.raises(TooManyRequestsError, match="max_watched_bytes_per_identity"):
        await w.connect(identity="ann", request_bytes=1)
    await w.leave(first)
    await w.connect(identity="ann", request_bytes=LARGE)
    w.hub._holdings._bounds = replace(ROOM, max_watched_bytes=LARGE)
    with pytest.raises(ServiceUnavailableError, match="max_watched_bytes"):
        await w.connect(identity="bob", request_bytes=1)
    await w.aclose()


async def test_what_many_show_is_counted_once_for_all_and_once_for_each() -> None:
    """The worker holds it once; a caller with two such streams too, beside a note of each stream."""
    w = ScriptedHub()
    streams = [await w.connect(wide(w, 1), identity=identity) for identity in ("ann", "ann", "bob")]
    by_caller = {caller[1]: held.size_bytes for caller, held in w.hub._holdings._by_caller.items()}
    assert w.hub.watched_bytes - 3 * SHOWN_BYTES == by_caller["ann"] - 2 * SHOWN_BYTES == by_caller["bob"] - SHOWN_BYTES
    for listener in streams:
        await w.leave(listener)
    assert (w.hub.watched_bytes, dict(w.hub._holdings._by_caller)) == (0, {})
    await w.aclose()


async def test_nothing_is_counted_for_who_has_gone() -> None:
    """After hundreds of streams, refusals, writes and growing read sets, every count is back at nothing."""
    bounds = replace(ROOM, max_watched_queries=40, max_watched_bytes_per_identity=30_000)
    w, rng = ScriptedHub(bounds=bounds), random.Random(3)
    listeners: list[Listener] = []
    for _ in range(300):
        queries = [w.row(*rng.sample(range(9), rng.randint(1, 6))) for _ in range(rng.randrange(6))]
        listeners.append(await w.connect(*queries, *queries[:1], identity=rng.choice("abc")))
        if rng.random() < 0.6:
            await w.leave(listeners.pop(rng.randrange(len(listeners))))
        if rng.random() < 0.3:
            await w.write(rng.randrange(9))
    for listener in listeners:
        await w.leave(listener)
    assert (w.hub.watched_bytes, w.hub._holdings._all.queries, dict(w.hub._holdings._by_caller)) == (0, 0, {})
    assert w.reader.indexed == w.reader.cached_results
    await w.aclose()


async def test_a_query_that_rests_on_more_weighs_more() -> None:
    """What is counted follows the read set, when it is another by more than half."""
    w = ScriptedHub()
    query = w.row(1)
    await w.connect(query, identity="ann")
    before = w.hub.watched_bytes
    query.rows = tuple(range(1, 50))
    await w.write(1)
    assert w.hub.watched_bytes > 2 * before
    await w.aclose()


def inputs() -> Iterator[object]:
    """Yield inputs as a client may choose them to cost much memory for few bytes."""
    yield [[] for _ in range(20_000)]
    yield list(range(1_000, 50_000))
    yield {f"key {n}": [n] for n in range(5_000)}
    yield "é" * 300_000
    yield [{"a": {"b": str(n)}} for n in range(5_000)]


@pytest.mark.parametrize("number", range(5))
def test_values_weigh_what_they_take(number: int) -> None:
    """The estimate is within a factor of two of what Python allocates, for inputs of any shape."""
    tracemalloc.start()
    try:
        value = next(islice(inputs(), number, None))
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert taken / 2 <= weight_of(value) <= taken * 2


def test_deep_values_are_weighed_without_recursion() -> None:
    """A client may nest its input as deep as it likes."""
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    assert weight_of(nested) > 5_000_000
