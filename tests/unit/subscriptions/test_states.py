"""States have names, and what must not happen is refused."""

from __future__ import annotations

from typing import cast

import pytest

from reactive_rpc.procedures.call import QueryCall
from reactive_rpc.protocol.events import Affected
from reactive_rpc.subscriptions.stats import HubStats
from reactive_rpc.subscriptions.stream import Stream, StreamOptions, StreamState
from reactive_rpc.subscriptions.watched_query import QueryState, WatchedQuery
from reactive_rpc.subscriptions.writer import Flusher
from reactive_rpc.testing import FakeClock
from tests.unit.cache.scripted import RowQuery, ScriptedLog

NEW, CURRENT, OUTDATED, PENDING, FORGOTTEN = QueryState


def watched_query() -> WatchedQuery:
    return WatchedQuery(cast(QueryCall, RowQuery(ScriptedLog(), (1,))), Affected(path="items.sum", key="k"))


@pytest.mark.parametrize(
    "way",
    [
        (CURRENT, OUTDATED, OUTDATED, CURRENT, FORGOTTEN),
        (OUTDATED, CURRENT, PENDING, PENDING, OUTDATED, FORGOTTEN),
        (CURRENT, PENDING, CURRENT, PENDING, FORGOTTEN),
    ],
)
def test_a_watched_query_goes_these_ways(way: tuple[QueryState, ...]) -> None:
    """Computed, overtaken by changes, notified at once or later, and gone in the end."""
    query = watched_query()
    for state in way:
        query.transition(state)
        assert query.state is state


@pytest.mark.parametrize(
    "way",
    [
        (PENDING,),  # nobody shows a result of before
        (FORGOTTEN,),
        (CURRENT, CURRENT),  # the first entry would stay indexed
        (OUTDATED, PENDING),  # its streams were notified, and have no result of before
        (CURRENT, FORGOTTEN, CURRENT),
        (CURRENT, FORGOTTEN, OUTDATED),
    ],
)
def test_a_watched_query_goes_no_other_way(way: tuple[QueryState, ...]) -> None:
    """The message names the query and both states."""
    query = watched_query()
    *before, last = way
    for state in before:
        query.transition(state)
    names = f"is {query.state.name} cannot become {last.name}"
    with pytest.raises(RuntimeError, match=rf"items\.sum: a watched query that {names}"):
        query.transition(last)


def stream() -> Stream:
    clock = FakeClock()
    options = StreamOptions(
        clock=clock,
        stats=HubStats(),
        flusher=Flusher(clock),
        look_after=lambda stream: None,
        max_events=1,
        max_bytes=1_000,
        retry_seconds=(1.0,),
    )
    return Stream("s", options, acks=False)


UNREAD, IDLE, QUEUED, SENDING, INTERRUPTED, ABORTED, ENDED = StreamState


@pytest.mark.parametrize(
    "way",
    [
        (QUEUED, IDLE, QUEUED, SENDING, QUEUED, IDLE, ENDED),
        (QUEUED, SENDING, INTERRUPTED, ABORTED),
        (ABORTED,),  # the client has gone before anything was written
    ],
)
def test_a_stream_goes_these_ways(way: tuple[StreamState, ...]) -> None:
    """Written to, blocked for a while, and over in the end."""
    one = stream()
    for state in way:
        one._transition(state)
        assert one._state is state
        assert one.aborted == (state in {INTERRUPTED, ABORTED})


@pytest.mark.parametrize(
    "way",
    [
        (IDLE,),  # nobody reads yet
        (QUEUED, QUEUED),  # it would be in the flusher's queue twice
        (QUEUED, IDLE, SENDING),  # the flusher alone begins a send
        (QUEUED, IDLE, INTERRUPTED),  # there is no send to interrupt
        (QUEUED, SENDING, IDLE),  # what has come since would wait for ever
        (QUEUED, SENDING, SENDING),  # frames would mix
        (QUEUED, ENDED, QUEUED),
        (ABORTED, QUEUED),
    ],
)
def test_a_stream_goes_no_other_way(way: tuple[StreamState, ...]) -> None:
    """The message names both states."""
    one = stream()
    *before, last = way
    for state in before:
        one._transition(state)
    with pytest.raises(RuntimeError, match=f"a stream that is {one._state.name} cannot become {last.name}"):
        one._transition(last)
