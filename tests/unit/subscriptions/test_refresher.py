"""What one caller costs the others: large commits are told and computed in turns of the event loop, callers in turns.

Nothing here is measured by a clock: what counts is how much is done between two turns of the loop, and in which order.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import chain

import pytest

from reactive_rpc.subscriptions.refresher import AT_ONCE, EACH_AT_ONCE, Refresher
from reactive_rpc.subscriptions.registrar import REGISTERED_AT_ONCE
from reactive_rpc.subscriptions.watched_query import WatchedQuery
from tests.unit.cache.scripted import RowQuery, until

from .scripted_hub import ScriptedHub

pytestmark = pytest.mark.anyio

STREAMS, QUERIES, AT_A_TIME = 5, 60, 40
ALL = 999
"""The row that every query here reads: one write of it touches all of them."""


@pytest.fixture
async def w(anyio_backend: str) -> AsyncIterator[ScriptedHub]:
    opened = ScriptedHub(max_events=1_000)
    opened.hub._reconciler.notified_at_once = AT_A_TIME
    yield opened
    await opened.aclose()


async def watch_hundreds(w: ScriptedHub) -> list[RowQuery]:
    """Open streams of one caller that show hundreds of queries, none of them twice."""
    queries = [w.row(number, ALL) for number in range(STREAMS * QUERIES)]
    for start in range(0, len(queries), QUERIES):
        await w.connect(*queries[start : start + QUERIES], identity="crowd")
    return queries


async def most_between_turns(count: Callable[[], int], is_done: Callable[[], bool]) -> int:
    """Return by how much `count` moves at most from one turn of the event loop to the next, until all is done."""
    most, before = 0, count()
    for _ in range(10_000):
        await asyncio.sleep(0)
        most, before = max(most, count() - before), count()
        if is_done():
            return most
    raise AssertionError("it was never done")


async def test_a_large_commit_is_told_in_turns(w: ScriptedHub) -> None:
    """A few at a time, and everybody of everything in the end, with cursors that stay behind until then."""
    await watch_hundreds(w)
    notified: list[int] = []
    notify = w.hub._broadcaster.notify

    def counted(queries: dict[WatchedQuery, set[str]], version: int) -> None:
        notified.append(len(queries))
        notify(queries, version)

    w.hub._broadcaster.notify = counted  # type: ignore[method-assign, assignment]  # only looks
    w.hub._reconciler.refresher.at_once = 0  # what is computed is told by itself
    w.log.write(ALL)
    w.log.apply()
    assert not notified, "in the step that applies the commit there is too much to be told"
    most = await most_between_turns(lambda: sum(notified), lambda: sum(notified) == STREAMS * QUERIES)
    assert most <= AT_A_TIME
    await until(lambda: all(listener.frames for listener in w.listeners))
    w.hub._reconciler.refresher.at_once = AT_ONCE
    w.hub._reconciler.refresher.start_soon()
    await w.settled()
    for listener in w.listeners:
        assert sorted(chain.from_iterable(listener.heard)) == sorted(key for key in listener.connected.queries if key)
        await until(lambda listener=listener: listener.events[-1].cursor == "e1:1")  # type: ignore[misc]  # bound


async def test_a_neighbour_is_told_of_a_large_commit_first(w: ScriptedHub) -> None:
    """Whoever shows one query does not wait for those who show hundreds, wherever the index has it."""
    await watch_hundreds(w)
    neighbour = await w.connect(w.row(ALL), identity="neighbour")
    w.hub._reconciler.refresher.at_once = 0
    w.log.write(ALL)
    w.log.apply()
    await until(lambda: len(neighbour.frames) == 1)
    others_heard = sum(len(keys) for listener in w.listeners if listener is not neighbour for keys in listener.heard)
    assert others_heard <= AT_A_TIME


async def test_a_neighbours_query_is_computed_again_in_its_turn(w: ScriptedHub) -> None:
    """After a commit that touches hundreds of another caller's, it is among the first."""
    queries = await watch_hundreds(w)
    mine = w.row(ALL)
    await w.connect(mine, identity="neighbour")
    w.log.write(ALL)
    w.log.apply()
    await until(lambda: mine.computed == 2)
    assert sum(query.computed == 2 for query in queries) <= AT_ONCE


@pytest.mark.seeded_bug
async def test_lines_that_know_no_callers_are_a_seeded_bug(w: ScriptedHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """All in one line, the neighbour's query behind the crowd's: the test above can fail."""
    add = Refresher.add

    def in_one_line(self: Refresher, query: WatchedQuery) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(WatchedQuery, "callers", {})
            add(self, query)
        # The index hands them on in no order that is sure: the one whose caller has no other goes last.
        for last in [other for line in self._lines.values() for other in line if "neighbour" in str(other.callers)]:
            for line in self._lines.values():
                line[last] = line.pop(last)

    monkeypatch.setattr(Refresher, "add", in_one_line)
    with pytest.raises(AssertionError):
        await test_a_neighbours_query_is_computed_again_in_its_turn(w)


async def test_handlers_that_never_end_leave_places_to_others(w: ScriptedHub) -> None:
    """One caller's slow handlers hold some of the places, never all."""
    queries = await watch_hundreds(w)
    ended = asyncio.Event()
    mine = w.row(ALL)
    await w.connect(mine, identity="neighbour")

    async def hang() -> None:
        await ended.wait()

    for query in queries:
        query.pause = hang
    w.log.write(ALL - 1, *range(STREAMS * QUERIES))  # the crowd alone
    w.log.apply()
    await until(lambda: sum(query.computed == 2 for query in queries) == EACH_AT_ONCE)
    w.log.write(ALL)
    w.log.apply()
    await until(lambda: mine.computed == 2)
    assert sum(query.computed == 2 for query in queries) == EACH_AT_ONCE
    ended.set()
    await w.settled()


async def test_what_many_show_is_computed_in_a_turn_of_its_own(w: ScriptedHub) -> None:
    """A popular query does not stand behind the hundreds of whoever happened to show it first."""
    popular = w.row(ALL)
    queries = await watch_hundreds(w)
    await w.connect(popular, identity="crowd")
    for number in range(10):
        await w.connect(popular, identity=f"reader {number}")
    w.log.write(ALL)
    w.log.apply()
    await until(lambda: popular.computed == 2)
    assert sum(query.computed == 2 for query in queries) <= AT_ONCE


async def test_many_that_fail_are_tried_again_by_one_clock(w: ScriptedHub) -> None:
    """A table that is gone fails all of them: no task sleeps for each, and no place is held meanwhile."""
    queries = await watch_hundreds(w)
    for query in queries:
        query.fails = ValueError("no such table")
    w.log.write(ALL)
    w.log.apply()
    await until(lambda: all(query.computed == 2 for query in queries))
    await until(lambda: len(w.hub._tasks) == w.clock.sleepers == 1)
    for query in queries:
        query.fails = None
    w.clock.advance(1)
    await w.settled()
    assert not w.hub._queries.outdated


async def test_there_is_no_task_for_what_waits(w: ScriptedHub) -> None:
    """A large commit starts a few computations; the others stand in line."""
    await watch_hundreds(w)
    w.log.write(ALL)
    w.log.apply()
    await asyncio.sleep(0)
    assert len(w.hub._tasks) <= AT_ONCE + 1


async def test_a_stream_that_connects_lets_others_have_their_turn(w: ScriptedHub) -> None:
    """Cached results come without a wait; a set of hundreds of them is registered a few at a time."""
    queries = await watch_hundreds(w)

    def registered() -> int:
        return sum(len(shown) for shown in w.hub._queries._by_stream.values())

    connecting = asyncio.create_task(w.connect(*queries, identity="another"))
    assert await most_between_turns(registered, connecting.done) <= REGISTERED_AT_ONCE
