"""Streams and time: whoever watches a result is told when a tick has ended it, also across a connection lost."""

from __future__ import annotations

import pytest

from reactive_rpc.cache.expiries import GRACE_SECONDS
from reactive_rpc.protocol.cursors import Cursor
from tests.unit.cache.scripted import Gate, RowQuery, until

from .scripted_hub import Listener, ScriptedHub

pytestmark = pytest.mark.anyio

TICK = 60.0 + GRACE_SECONDS + 0.01


def minutely(world: ScriptedHub, row: int = 1) -> RowQuery:
    """Return a query whose result is another one in each minute."""
    return RowQuery(world.log, (row,), time=world.clock.time)


def leave(world: ScriptedHub, listener: Listener) -> None:
    """Lose the connection."""
    listener.stream.close()
    world.hub.disconnect(listener.stream)


async def test_a_tick_is_told_as_an_invalidation() -> None:
    """At the version of before, for no table's sake, with a cursor that says up to when ticks were told."""
    w = ScriptedHub()
    w.clock.advance(5)
    listener = await w.connect(minutely(w), w.row(2))
    w.clock.advance(TICK - 5)
    await until(lambda: len(listener.events) == 1)
    [event] = listener.events
    assert ([each.key for each in event.affected], event.tables) == ([minutely(w).wire_key], [])
    cursor = Cursor.parse(event.cursor)
    assert cursor.version == w.log.version
    assert cursor.moment is not None
    assert w.clock.STARTED_AT + 60 <= cursor.moment / 1000 < w.clock.time()
    await w.aclose()


async def test_who_comes_back_after_a_tick_is_told_of_it() -> None:
    """By the moment in its cursor, and whatever its ETag: the same value may have come round again meanwhile.

    A cursor without a moment, as an answer's header has it, proves nothing about ticks; one from after the tick does.
    """
    w = ScriptedHub()
    w.clock.advance(5)
    query, timeless = minutely(w), w.row(2)
    first = await w.connect(query, timeless)
    cursor = Cursor.parse(first.connected.cursor)
    leave(w, first)
    same = await w.connect(query, timeless, cursor=cursor)
    assert same.connected.stale == []
    leave(w, same)
    w.clock.advance(60)
    entry = await w.reader.get(query)
    for etag in (None, entry.etag):
        back = await w.connect(query, cursor=cursor, etag=etag)
        assert [each.key for each in back.connected.stale] == [query.wire_key]
    again = await w.connect(query, cursor=Cursor.parse(back.connected.cursor))
    assert again.connected.stale == []
    bare = await w.connect(query, timeless, cursor=cursor._replace(moment=None))
    assert [each.key for each in bare.connected.stale] == [query.wire_key]
    await w.aclose()


async def test_nothing_of_time_is_said_where_nothing_depends_on_it() -> None:
    """Cursors are as they were, and a clock that moves tells nobody anything."""
    w = ScriptedHub()
    listener = await w.connect(w.row(1))
    w.clock.advance(1000)
    assert Cursor.parse(listener.connected.cursor).moment is None
    assert listener.events == []
    await w.aclose()


async def test_within_the_grace_a_cursor_does_not_promise_the_tick() -> None:
    """The tick is there and has not been told: who connects now, and comes back, hears of it then."""
    w = ScriptedHub()
    query = minutely(w)
    await w.connect(query)
    w.clock.advance(60 + GRACE_SECONDS / 2)
    other = await w.connect(w.row(2))
    cursor = Cursor.parse(other.connected.cursor)
    assert cursor.moment is not None
    assert cursor.moment / 1000 < w.clock.STARTED_AT + 60
    await w.aclose()


async def test_who_begins_to_watch_within_the_grace_is_told_of_the_tick_once_more() -> None:
    """It fetches from a host whose clock is a little behind: nothing but a later invalidation could mend that.

    Whoever watches nothing pays nothing: a result that is only cached stays.
    """
    w = ScriptedHub()
    w.clock.advance(60 + GRACE_SECONDS / 2)
    watched, cached = minutely(w, 1), minutely(w, 2)
    await w.reader.get(cached)
    listener = await w.connect(watched)
    assert listener.events == []
    w.clock.advance(GRACE_SECONDS)
    await until(lambda: listener.heard == [[watched.wire_key]])
    await w.settled()
    assert (watched.computed, w.reader.stats.expired) == (2, 1)
    late = await w.connect(minutely(w, 3))
    w.clock.advance(GRACE_SECONDS)
    await w.settled()
    assert (late.events, len(listener.events)) == ([], 1)
    await w.aclose()


async def test_a_commit_at_a_tick_is_told_again_once_every_host_has_seen_the_tick() -> None:
    """The streams hear of the commit within the grace; the result of the new tick comes long after it."""
    w = ScriptedHub()
    gate = Gate()
    query = minutely(w)
    listener = await w.connect(query)
    w.clock.advance(60 + GRACE_SECONDS / 2)
    query.pause = gate
    w.log.write(1)
    w.log.apply()
    await until(lambda: len(listener.events) == 1 and gate.arrived > 0)
    [event] = listener.events
    moment = Cursor.parse(event.cursor).moment
    assert moment is not None
    assert moment / 1000 < w.clock.STARTED_AT + 60
    w.clock.advance(3)
    gate.open()
    await w.settled()
    await until(lambda: len(listener.events) == 2)
    await w.aclose()
