"""The hub: who is told what, in which order, and what is left when they have gone."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import cast

import pytest

from reactive_rpc.errors import ForbiddenError, NotFoundError, ServiceUnavailableError, UnauthorizedError
from reactive_rpc.procedures.call import QueryCall
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.protocol.events import Gap, Invalidation, QueryRef, Revoked
from reactive_rpc.protocol.sse import SSEDecoder
from reactive_rpc.subscriptions.refresher import AT_ONCE, RETRY_SECONDS
from reactive_rpc.subscriptions.watched_query import RequestedQuery
from tests.unit.cache.scripted import change, until

from .scripted_hub import Listener, ScriptedHub

pytestmark = pytest.mark.anyio


@pytest.fixture
async def w(anyio_backend: str) -> AsyncIterator[ScriptedHub]:
    opened = ScriptedHub()
    yield opened
    await opened.aclose()
    assert (opened.hub.streams, opened.hub.watched_queries) == (0, 0)


async def test_connected_says_where_the_stream_stands(w: ScriptedHub) -> None:
    """Its id, its cursor, and a key for each query in the order asked for; without a cursor nothing is stale."""
    await w.write(1, 2)
    listener = await w.connect(w.row(2), w.row(1))
    assert listener.connected.model_dump() == {
        "stream": listener.stream.id,
        "cursor": "e1:1",
        "queries": ["items.sum[2]", "items.sum[1]"],
        "stale": [],
        "errors": [],
        "version": "e1:1",
    }


async def test_a_stream_is_told_of_each_commit_that_touches_it(w: ScriptedHub) -> None:
    """In commit order, with a cursor that grows; of other rows it hears nothing."""
    listener = await w.connect(w.row(1), w.row(2))
    for row in (1, 3, 2, 1):
        await w.write(row)
    await until(lambda: len(listener.frames) == 3)
    assert listener.heard == [["items.sum[1]"], ["items.sum[2]"], ["items.sum[1]"]]
    assert [event.cursor for event in listener.events] == ["e1:1", "e1:3", "e1:4"]
    assert {tuple(event.tables) for event in listener.events} == {("item",)}


async def test_what_differs_by_etag_is_stale(w: ScriptedHub) -> None:
    """The client's own etag decides, whatever the cursor says."""
    entry = await w.reader.get(w.row(1))
    assert (await w.connect(w.row(1), etag=entry.etag, cursor=Cursor("e1", 0))).connected.stale == []
    await w.write(1)
    stale = (await w.connect(w.row(1), etag=entry.etag, cursor=Cursor("e1", 1))).connected.stale
    assert [affected.key for affected in stale] == ["items.sum[1]"]


async def test_what_changed_after_the_cursor_is_stale(w: ScriptedHub) -> None:
    """Without an etag the log decides, query by query."""
    await w.write(1)
    await w.write(2)
    for version, expected in [(0, [1, 2]), (1, [2]), (2, [])]:
        listener = await w.connect(w.row(1), w.row(2), w.row(3), cursor=Cursor("e1", version))
        assert [affected.key for affected in listener.connected.stale] == [f"items.sum[{row}]" for row in expected]


@pytest.mark.parametrize("cursor", [Cursor("other", 0), Cursor("e1", 10**19), Cursor("e1", 0)])
async def test_a_cursor_that_means_nothing_makes_everything_stale(w: ScriptedHub, cursor: Cursor) -> None:
    """Another epoch, a version that is yet to come, or one that is no longer kept: everything is to be fetched."""
    await w.write(9)
    w.log.remembers_from = 1
    entry = await w.reader.get(w.row(1))
    listener = await w.connect(w.row(1), cursor=cursor, etag=entry.etag)
    assert [affected.key for affected in listener.connected.stale] == ["items.sum[1]"]


async def test_what_happens_while_connecting_is_in_connected(w: ScriptedHub) -> None:
    """A commit that touches the first query while the second is computed: stale, and no event before `connected`."""
    second = w.row(2)

    async def overtake() -> None:
        if not w.log.rows[1]:
            w.log.write(1)
            w.log.apply()

    second.pause = overtake
    listener = await w.connect(w.row(1), second)
    assert [affected.key for affected in listener.connected.stale] == ["items.sum[1]"]
    assert listener.connected.cursor == "e1:1"
    await w.settled()
    await w.write(1)
    await until(lambda: len(listener.frames) == 1)


async def test_a_new_epoch_is_a_gap_for_everybody(w: ScriptedHub) -> None:
    """Each stream is told once, with the new cursor, and then of what is new."""
    listeners = [await w.connect(w.row(1)), await w.connect(w.row(2))]
    w.log.flush("restored")
    await w.settled()
    await w.write(1, 2)
    for listener in listeners:
        await until(lambda listener=listener: len(listener.frames) == 2)  # type: ignore[misc]  # a lambda's default
        gap, held = listener.events
        assert (type(gap), gap.reason, gap.cursor) == (Gap, "restored", "e2:1")
        assert (type(held), held.cursor) == (Invalidation, "e2:2")


async def test_streams_that_are_owed_the_same_share_the_bytes(w: ScriptedHub) -> None:
    """An event is encoded once for all streams with the same set, and once more for those with another."""
    listeners = [await w.connect(w.row(1), w.row(2)) for _ in range(3)] + [await w.connect(w.row(1))]
    await w.write(1, 2)
    await until(lambda: all(listener.frames for listener in listeners))
    first, second, third, alone = (listener.frames[0] for listener in listeners)
    assert first is second is third
    assert alone is not first
    assert len({listener.events[0].event_id for listener in listeners}) == 1


async def test_a_popular_query_is_computed_once_for_all(w: ScriptedHub) -> None:
    """After an invalidation the hub settles a watch once, however many streams hold it."""
    query = w.row(1)
    for _ in range(5):
        await w.connect(query)
    await w.write(1)
    assert query.computed == 2


async def test_what_was_missed_while_settling_is_told_again(w: ScriptedHub) -> None:
    """A commit that falls between telling and the new snapshot: clients may have fetched before it, so tell again."""
    query = w.row(1)
    listener = await w.connect(query)

    async def overtake() -> None:
        if w.log.rows[1] == 1:
            w.log.write(1)
            w.log.apply()

    query.pause = overtake
    await w.write(1)
    await until(lambda: len(listener.frames) == 2)
    assert [event.cursor for event in listener.events] == ["e1:1", "e1:2"]
    await w.write(1)
    await until(lambda: len(listener.frames) == 3)


async def test_a_refresh_that_fails_is_tried_again(w: ScriptedHub) -> None:
    """Time and again, after a pause; then the watch works as before."""
    query = w.row(1)
    listener = await w.connect(query)
    query.fails = ValueError("oh")
    w.log.write(1)
    w.log.apply()
    for _ in range(3):
        await until(lambda: w.clock.sleepers == 1)
        w.clock.advance(RETRY_SECONDS)
    query.fails = None
    await w.settled()
    await w.write(1)
    await until(lambda: len(listener.frames) == 2)


async def test_a_query_that_can_no_longer_be_told_ends_its_streams(w: ScriptedHub) -> None:
    """They come back and are refused that query; other streams stay."""
    query, other = w.row(1), await w.connect(w.row(2))
    listener = await w.connect(query)
    query.opaque = "calls now()"
    await w.write(1)
    await until(lambda: listener.reading is not None and listener.reading.done())
    assert listener.heard == [["items.sum[1]"]]
    assert not other.stream.closed
    again = await w.connect(query)
    assert [refused.error.code for refused in again.connected.errors] == ["PRECONDITION_FAILED"]
    assert again.connected.queries == [None]


async def test_a_query_that_fails_is_refused_alone(w: ScriptedHub) -> None:
    """By accident: no words of the exception. On purpose: it is watched like any result."""
    failing, missing = w.row(1), w.row(2)
    failing.fails = ValueError("the password is hunter2")
    missing.error = NotFoundError("no item 2")
    listener = await w.connect(failing, missing, w.row(3))
    [refused] = listener.connected.errors
    assert (refused.error.code, refused.key) == ("INTERNAL_SERVER_ERROR", "items.sum[1]")
    assert "hunter2" not in refused.model_dump_json()
    assert listener.connected.queries == [None, "items.sum[2]", "items.sum[3]"]
    missing.error = None
    await w.write(2)
    await until(lambda: listener.heard == [["items.sum[2]"]])


async def test_nobody_connects_while_the_log_cannot_be_read(w: ScriptedHub) -> None:
    """The error is the caller's, and nothing of the stream is left."""
    w.log.down = ServiceUnavailableError("gone")
    with pytest.raises(ServiceUnavailableError):
        await w.connect(w.row(1))
    assert (w.hub.streams, w.hub.watched_queries) == (0, 0)
    w.log.down = None


async def test_one_query_twice_in_a_set_is_told_once(w: ScriptedHub) -> None:
    """Each place of the set has its key; the event names the query once."""
    listener = await w.connect(w.row(1), w.row(1))
    assert listener.connected.queries == ["items.sum[1]"] * 2
    await w.write(1)
    await until(lambda: listener.heard == [["items.sum[1]"]])


async def test_a_slow_reader_gets_a_gap_and_delays_nobody(w: ScriptedHub) -> None:
    """Past the bound one gap takes the place of all that waits; the others hear everything."""
    quick = await w.connect(w.row(1))
    slow, _ = await w.hub.connect([RequestedQuery(QueryRef(path="p"), cast(QueryCall, w.row(1)))], None, acks=False)
    for n in range(20):
        await w.write(1)
        await until(lambda n=n: len(quick.frames) == n + 1)  # type: ignore[misc]  # a lambda's default
    listener = Listener(slow, quick.connected, w.log)
    listener.read()
    w.listeners.append(listener)
    await until(lambda: len(listener.frames) > 0)
    events = listener.events
    assert len(events) <= 8
    assert isinstance(events[0], Gap)
    assert all(isinstance(event, Invalidation) for event in events[1:])
    assert [event.cursor for event in quick.events][-1] == events[-1].cursor == "e1:20"


async def test_whoever_settles_a_watch_tells_those_who_waited(w: ScriptedHub) -> None:
    """A second stream connects before the watch is computed again: the first is told what it missed meanwhile."""
    first = await w.connect(w.row(1))
    w.hub._reconciler.refresher.at_once = 0  # nothing is computed again for now
    w.log.write(1)
    w.log.apply()
    await until(lambda: len(first.heard) == 1)
    w.log.write(1)  # the first client has fetched what it was told of, before this
    w.log.apply()
    await w.connect(w.row(1))
    await until(lambda: len(first.heard) == 2)
    w.hub._reconciler.refresher.at_once = AT_ONCE
    w.hub._reconciler.refresher.start_soon()


@pytest.mark.parametrize("max_bytes", [0, 1_000_000])
async def test_nothing_is_left_of_streams_that_have_gone(max_bytes: int) -> None:
    """After hundreds of streams have come and gone, amid writes, no watch, entry, task or queue is held for them."""
    w = ScriptedHub(max_bytes=max_bytes)
    rng = random.Random(7)
    open_streams: list[Listener] = []
    for _ in range(300):
        open_streams.append(await w.connect(*(w.row(rng.randrange(9)) for _ in range(rng.randrange(1, 4)))))
        if rng.random() < 0.5:
            w.log.write(rng.randrange(9))
            w.log.apply()
        while len(open_streams) > 5:
            await w.leave(open_streams.pop(rng.randrange(len(open_streams))))
    assert w.hub.streams == 5
    for listener in open_streams:
        await w.leave(listener)
    await w.settled()
    await w.aclose()
    assert (w.hub.streams, w.hub.watched_queries) == (0, 0)
    assert not w.hub._queries._by_entry
    assert not w.hub._queries._by_stream
    assert not w.hub._queries.outdated
    assert not w.hub._redelivery._streams
    assert w.reader.indexed == len(w.reader._live._store)
    assert w.clock.sleepers == 0


async def test_a_refusal_that_rests_on_nothing_is_told_at_once(w: ScriptedHub) -> None:
    """By a handler that read nothing before it refused: only another context could change it, so it is not watched."""
    hidden, private = w.row(1), w.row(2)
    hidden.error, private.error = UnauthorizedError("who are you?"), ForbiddenError("not yours")
    hidden.opaque = private.opaque = "reads no table"
    listener = await w.connect(hidden, private, w.row(3))
    assert [refused.error.code for refused in listener.connected.errors] == ["UNAUTHORIZED", "FORBIDDEN"]
    assert listener.connected.queries == [None, None, "items.sum[3]"]
    assert w.hub.watched_queries == 1
    await w.write(1, 2)
    await w.write(3)
    await until(lambda: len(listener.frames) == 1)
    assert listener.heard == [["items.sum[3]"]]


async def test_a_revoked_identity_hears_no_more(w: ScriptedHub) -> None:
    """Each of its streams ends with `revoked` and the reason; those of others go on."""
    ann = [await w.connect(w.row(1), identity="ann") for _ in range(2)]
    others = [await w.connect(w.row(1), identity="bob"), await w.connect(w.row(1))]
    assert w.hub.revoke("ann", "left the company") == 2
    assert w.hub.revoke("ann") == 0
    await w.write(1)
    for listener in ann:
        await until(lambda listener=listener: listener.reading is not None and listener.reading.done())  # type: ignore[misc]  # a lambda's default
        assert listener.events == [Revoked(reason="left the company")]
    for listener in others:
        await until(lambda listener=listener: len(listener.frames) == 1)  # type: ignore[misc]  # a lambda's default
    assert w.hub.stats.revoked == 2


async def test_a_stream_that_is_revoked_while_it_connects_ends(w: ScriptedHub) -> None:
    """It is found by its identity from the first moment; after `connected` it says `revoked` and nothing else."""
    query = w.row(1)

    async def revoke() -> None:
        w.hub.revoke("ann")

    query.pause = revoke
    listener = await w.connect(query, identity="ann")
    await until(lambda: listener.reading is not None and listener.reading.done())
    assert listener.events == [Revoked()]


async def test_a_server_that_drains_ends_its_streams_one_after_another(w: ScriptedHub) -> None:
    """Spread over the time given, without a word that would keep clients away; nobody new is let in."""
    listeners = [await w.connect(w.row(1)) for _ in range(20)]
    draining = asyncio.create_task(w.hub.drain(1.0))
    await until(lambda: w.clock.sleepers == 1)
    with pytest.raises(ServiceUnavailableError, match="about to stop"):
        await w.connect(w.row(1))
    ended = []
    while not draining.done():
        ended.append(sum(listener.stream.closed for listener in listeners))
        w.clock.advance(0.05)
        for _ in range(5):
            await asyncio.sleep(0)
    assert ended == list(range(1, 20))
    await until(lambda: all(listener.reading is not None and listener.reading.done() for listener in listeners))
    assert not any(listener.events for listener in listeners)
    assert w.hub.stats.refused == 1


async def test_a_stream_says_when_to_come_back(w: ScriptedHub) -> None:
    """Within the range given, and not all in one instant."""
    decoder, found = SSEDecoder(), set()
    for _ in range(50):
        stream, frame = await w.hub.connect([], None, acks=False)
        decoder.feed(frame)
        found.add(decoder.retry_ms)
        w.hub.disconnect(stream)
    assert len(found) > 10
    assert all(retry_ms is not None and 1000 <= retry_ms <= 5000 for retry_ms in found)


async def test_a_flush_is_where_an_unsettled_watch_was_last_told(w: ScriptedHub) -> None:
    """A new epoch counts anew: until the watch is computed again, the cursor stays at the gap."""
    w.hub._reconciler.refresher.at_once = 0  # nothing is computed again for now
    listener = await w.connect(w.row(1), w.row(2))
    for _ in range(5):
        w.log.write(1)
    w.log.apply()
    w.log.flush("restored")
    w.log.write(3)
    w.log.apply()
    other = await w.connect(w.row(3))
    assert [query.notified_up_to for query in w.hub._queries.outdated] == [6, 6]
    assert w.hub._queries.notified_up_to(listener.stream, w.log.version) == 6
    assert w.hub._queries.notified_up_to(other.stream, w.log.version) == w.log.version == 7
    w.hub._reconciler.refresher.at_once = AT_ONCE
    w.hub._reconciler.refresher.start_soon()


@pytest.mark.parametrize("seed", range(15))
async def test_every_stream_is_told_what_it_is_owed_and_nothing_else(seed: int) -> None:
    """Two tenants, random sets and random writes: no event or key crosses, and whoever fetches what it is told of, when
    it is told, ends with the last write to each row it shows, though handlers are slow and results are evicted.
    """
    rng = random.Random(seed)
    w = ScriptedHub(max_events=10_000, max_bytes=rng.choice([0, 3_000, 1_000_000]))
    tenants = {"ann": range(6), "bob": range(4, 10)}
    listeners: dict[str, list[Listener]] = defaultdict(list)
    shown: dict[str, set[int]] = {}
    since: dict[str, int] = {}
    last_written: dict[int, int] = {}

    async def pause() -> None:
        for _ in range(rng.randrange(6)):
            await asyncio.sleep(0)

    for _ in range(60):
        tenant = rng.choice(list(tenants))
        if rng.random() < 0.25:
            rows = rng.sample(tenants[tenant], rng.randrange(1, 4))
            queries = [w.row(row, scope=tenant) for row in rows]
            for query in queries:
                query.pause = pause
            listener = await w.connect(*queries)
            listeners[tenant].append(listener)
            shown[listener.stream.id] = set(rows)
            since[listener.stream.id] = int(listener.connected.cursor.partition(":")[2])
        row = rng.randrange(10)
        w.log.write(row)
        last_written[row] = w.log.committed
        await pause()
        w.log.apply()
        await pause()
    await w.settled()
    for tenant, of_tenant in listeners.items():
        for listener in of_tenant:
            versions = [int(event.cursor.partition(":")[2]) for event in listener.events]
            assert versions == sorted(versions)
            held = listener.fetched
            owned = {f"items.sum[{row}]{tenant}" for row in shown[listener.stream.id]}
            assert set(held) <= owned
            for row in shown[listener.stream.id]:
                least = last_written.get(row, 0)
                if least > since[listener.stream.id]:
                    assert held.get(f"items.sum[{row}]{tenant}", 0) >= least
    await w.aclose()


async def test_a_change_of_another_table_is_told_to_those_it_touches(w: ScriptedHub) -> None:
    """A stream on items hears nothing of others."""
    listener = await w.connect(w.row(1))
    w.log.commit(change(1, "other"))
    await w.settled()
    await w.write(1)
    await until(lambda: len(listener.frames) == 1)
    assert listener.events[0].cursor == "e1:2"


async def test_an_invalidation_names_the_version_that_shows_the_change(w: ScriptedHub) -> None:
    """Also where the cursor is held back; but not where no commit is the reason: no version is better then."""
    listener = await w.connect(w.row(1), w.row(2))
    await w.write(1)
    await until(lambda: len(listener.frames) == 1)
    entry = await w.reader.get(w.row(2))
    w.reader.drop(entry)
    await until(lambda: len(listener.frames) == 2)
    assert [getattr(event, "version", "") for event in listener.events] == ["e1:1", None]
