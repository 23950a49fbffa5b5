"""Limits: places and rates, counted by caller and given back."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_rpc.errors import ServiceUnavailableError, TooManyRequestsError
from reactive_rpc.subscriptions import limits as limits_module
from reactive_rpc.subscriptions.limits import BURST_SECONDS, CallerKey, Limits
from reactive_rpc.testing import FakeClock

ANN: CallerKey = ("identity", "ann")
BOB: CallerKey = ("identity", "bob")


def limits(clock: FakeClock | None = None, *, most: int = 5, each: int = 3, per_second: float = 10.0) -> Limits:
    return Limits(
        clock=clock or FakeClock(),
        max_streams=most,
        max_streams_per_identity=each,
        max_streamed_queries_per_identity=2,
        stream_opens_per_second=per_second,
    )


def test_a_caller_has_so_many_places_and_no_more() -> None:
    """The fourth is refused by name, until one of the three is given back; giving it back twice counts once."""
    limit = limits()
    releases = [limit.admit(ANN) for _ in range(3)]
    with pytest.raises(
        TooManyRequestsError, match=r"this caller has as many .*: 3 \(max_streams_per_identity"
    ) as refused:
        limit.admit(ANN)
    assert refused.value.headers == {"retry-after": "5"}
    releases[0]()
    releases[0]()
    limit.admit(ANN)
    with pytest.raises(TooManyRequestsError):
        limit.admit(ANN)


def test_a_caller_reads_so_many_streamed_queries_and_no_more() -> None:
    """Each is a stream, too; giving one back, even twice, makes room for one; a refused one has no place."""
    limit = limits()
    releases = [limit.admit_streamed_query(ANN) for _ in range(2)]
    with pytest.raises(TooManyRequestsError, match=r"as many .*: 2 \(max_streamed_queries_per_identity\)"):
        limit.admit_streamed_query(ANN)
    limit.admit_streamed_query(BOB)
    limit.admit(ANN)
    with pytest.raises(TooManyRequestsError, match="max_streams_per_identity"):
        limit.admit(ANN)
    releases[0]()
    releases[0]()
    limit.admit_streamed_query(ANN)
    with pytest.raises(TooManyRequestsError, match="max_streams_per_identity"):
        limit.admit_streamed_query(ANN)


def test_a_worker_has_so_many_places_and_no_more() -> None:
    """Past them everybody is sent elsewhere."""
    limit = limits()
    releases = [limit.admit(("identity", str(n))) for n in range(5)]
    with pytest.raises(ServiceUnavailableError, match=r"this worker holds as many .*: 5 \(max_streams\)"):
        limit.admit(BOB)
    releases[2]()
    limit.admit(BOB)


def test_an_identity_is_not_an_address() -> None:
    """Somebody who is named like an address shares nothing with it."""
    limit = limits(each=1)
    limit.admit(("identity", "10.0.0.1"))
    limit.admit(("address", "10.0.0.1"))
    with pytest.raises(TooManyRequestsError, match=r"the address 10\.0\.0\.1 has as many streams"):
        limit.admit(("address", "10.0.0.1"))


@pytest.mark.parametrize("per_second", [0.01, 0.3, 1.0, 3.0, 10.0, 70.0])
def test_a_burst_is_what_the_rate_gives_in_ten_seconds(per_second: float) -> None:
    """At once so many, one at least; then one whenever the rate allows it, and the message says when."""
    clock = FakeClock()
    limit = limits(clock, per_second=per_second)
    burst = max(1, int(per_second * BURST_SECONDS))
    for _ in range(burst):
        limit.count_open(ANN)
    with pytest.raises(TooManyRequestsError, match="stream_opens_per_second") as refused:
        limit.count_open(ANN)
    clock.advance(float(refused.value.headers["retry-after"]))
    limit.count_open(ANN)
    limit.count_open(BOB)


@given(st.floats(0.5, 50.0), st.lists(st.floats(0.0, 3.0), max_size=200))
def test_over_a_while_nobody_gets_more_than_the_rate(per_second: float, pauses: list[float]) -> None:
    """In any stretch of time no more is let through than the burst and what the rate adds."""
    clock = FakeClock()
    limit = limits(clock, per_second=per_second)
    allowed: list[float] = []
    for pause in pauses:
        clock.advance(pause)
        try:
            limit.count_open(ANN)
        except TooManyRequestsError:
            continue
        allowed.append(clock.monotonic())
    for first, begin in enumerate(allowed):
        for last in range(first, len(allowed)):
            seconds = allowed[last] - begin
            assert last - first + 1 <= per_second * (seconds + BURST_SECONDS) + 1 + 1e-3


def test_polls_are_made_to_wait_and_leave_streams_alone() -> None:
    """A loop of polls goes on at the rate without an error, and its caller can still open a stream."""
    clock = FakeClock()
    limit = limits(clock)
    waits = []
    for _ in range(300):
        waits.append(limit.pace_poll(ANN))
        clock.advance(waits[-1])
    assert waits[:100] == [0.0] * 100
    assert all(0.0 < wait < 0.11 for wait in waits[100:])
    limit.count_open(ANN)


def test_polls_that_come_all_at_once_are_refused_in_the_end() -> None:
    """Who would wait for more than ten seconds is told so instead."""
    limit = limits()
    waits = [limit.pace_poll(ANN) for _ in range(200)]
    assert max(waits) < 10.01
    with pytest.raises(TooManyRequestsError, match="this caller polls more often than 10 times a second"):
        limit.pace_poll(ANN)


def test_nobody_is_remembered_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """After ten quiet seconds nothing is left of a million callers, and never more than the bound."""
    monkeypatch.setattr(limits_module, "MAX_CALLERS", 100)
    clock = FakeClock()
    limit = limits(clock, most=10**6)
    draw = random.Random(1)
    most = 0
    for n in range(3_000):
        limit.count_open(("address", str(n)))
        limit.pace_poll(("address", str(n)))
        limit.count_stored(("address", str(n)))
        limit.admit(("address", str(n)))()
        clock.advance(draw.random() / 100)
        most = max(most, limit.remembered)
    assert 3 < most <= 300
    clock.advance(11.0)
    limit.count_open(ANN)
    limit.pace_poll(ANN)
    limit.count_stored(ANN)
    assert limit.remembered == 3
