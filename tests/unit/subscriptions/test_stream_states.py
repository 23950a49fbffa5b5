"""The states of a stream: it goes from one to another only where that is right."""

from __future__ import annotations

import pytest

from reactive_rpc.subscriptions.stats import HubStats
from reactive_rpc.subscriptions.stream import Stream, StreamOptions, StreamState
from reactive_rpc.subscriptions.writer import Flusher
from reactive_rpc.testing import FakeClock


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
