"""What one caller may have noted for streams of other workers."""

from __future__ import annotations

import pytest

from reactive_rpc.changes.memory_store import InMemoryEphemeralStore
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.subscriptions.acknowledgements import (
    BATCH,
    MAX_EACH,
    PUT_EVERY_SECONDS,
    TTL_SECONDS,
    Acknowledgements,
)
from reactive_rpc.subscriptions.limits import CallerKey
from reactive_rpc.testing import FakeClock
from tests.unit.cache.scripted import until

pytestmark = pytest.mark.anyio

ANN: CallerKey = ("identity", "ann")
BOB: CallerKey = ("identity", "bob")


async def test_a_caller_acknowledges_for_so_many_streams_and_no_more() -> None:
    """What comes past it is dropped; the same streams again are not; others have their own; time forgets."""
    clock = FakeClock()
    store = InMemoryEphemeralStore(clock)
    noted = Acknowledgements(store, clock)

    async def put() -> None:
        await until(lambda: clock.sleepers == 1)
        clock.advance(PUT_EVERY_SECONDS)
        await until(lambda: not noted._putting.is_running)

    for _ in range(3):
        for number in range(2 * MAX_EACH):
            noted.note(f"ann {number}", Cursor("e", 1), ANN)
        noted.note("bob", Cursor("e", 1), BOB)
        await put()
    taken = await noted.take([f"ann {number}" for number in range(2 * MAX_EACH)])
    assert list(taken) == [f"ann {number}" for number in range(MAX_EACH)]
    assert list(await noted.take(["bob"])) == ["bob"]
    assert MAX_EACH > BATCH
    clock.advance(TTL_SECONDS)
    noted.note("ann 1999", Cursor("e", 1), ANN)
    await put()
    assert list(await noted.take(["ann 1999"])) == ["ann 1999"]
    assert (len(noted._until), dict(noted._counts)) == (1, {ANN: 1})
    await noted.aclose()
