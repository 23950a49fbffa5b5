"""How long a shared result is kept in Redis."""

from __future__ import annotations

import math

import pytest

from reactive_rpc.backends.redis.shared_results import RedisSharedResults
from reactive_rpc.testing import FakeClock


@pytest.mark.parametrize(
    ("left_seconds", "expected"),
    [(math.inf, 2_500), (3.0, 2_500), (2.5, 2_500), (2.0, 2_000), (0.0015, 2), (0.0, 0), (-1.0, -1_000)],
)
def test_a_record_is_kept_as_long_as_it_is_good_for_something(left_seconds: float, expected: int) -> None:
    """Until its time is over, and at most for the time to live; one whose time is over is not stored."""
    clock = FakeClock()
    results = RedisSharedResults("redis://127.0.0.1:1/0", "test", build="b", ttl_seconds=2.5, clock=clock)
    assert results._kept_milliseconds(clock.time() + left_seconds) == pytest.approx(expected, abs=1)
