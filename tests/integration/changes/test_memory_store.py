"""The ephemeral store of one process: bounded, and by the clock it is given."""

from __future__ import annotations

import pytest

from reactive_rpc.changes.ephemeral_store import Budget
from reactive_rpc.changes.memory_store import InMemoryEphemeralStore
from reactive_rpc.testing import FakeClock

pytestmark = pytest.mark.anyio


async def test_past_its_bound_what_was_put_first_is_forgotten() -> None:
    """Of the same kind: many acknowledgements never drive out a ticket."""
    store = InMemoryEphemeralStore(FakeClock(), budget=Budget(max_bytes=100_000))
    await store.put("ticket", {"t": b"ticket"}, ttl_seconds=60)
    for number in range(100):
        await store.put("ack", {f"a{number}": b"x" * 10_000}, ttl_seconds=60)
    kept = await store.take("ack", [f"a{number}" for number in range(100)])
    assert list(kept) == [f"a{number}" for number in range(91, 100)]
    assert await store.get("ticket", "t") == b"ticket"


async def test_what_is_put_again_counts_as_new() -> None:
    """It is weighed once, and is not the next to go."""
    store = InMemoryEphemeralStore(FakeClock(), budget=Budget(max_bytes=50_000))
    for number in range(4):
        await store.put("set", {f"s{number}": b"x" * 10_000}, ttl_seconds=60)
    for _ in range(10):
        await store.put("set", {"s0": b"y" * 10_000}, ttl_seconds=60)
    await store.put("set", {"new": b"x" * 10_000}, ttl_seconds=60)
    assert await store.get("set", "s1") is None
    assert await store.get("set", "s0") == b"y" * 10_000


async def test_time_is_the_clocks() -> None:
    """An entry is there until its last moment, and not at it; then it makes room."""
    clock = FakeClock()
    store = InMemoryEphemeralStore(clock, budget=Budget(max_bytes=1_000))
    await store.put("ack", {"a": b"1"}, ttl_seconds=60)
    clock.advance(59.9)
    assert await store.get("ack", "a") == b"1"
    clock.advance(0.1)
    assert (await store.get("ack", "a"), await store.take("ack", ["a"])) == (None, {})
