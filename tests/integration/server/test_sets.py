"""Sets for EventSource: stored at one worker, named at another, kept as long as they are used."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from reactive_rpc.changes.memory_store import InMemoryEphemeralStore
from reactive_rpc.errors import NotFoundError
from reactive_rpc.protocol.events import QueryRef
from reactive_rpc.testing import FakeClock, running
from reactive_rpc.web.streams.sets import StoredSets

from .rooms import app_of, rpc_on, who
from .streams import heard, stored

ANN = {"authorization": "Bearer ann@t"}
QUERIES = [QueryRef(path="notes.in_room", input={"room": "a"})]
DAY = 24 * 3600.0


def test_a_set_and_a_ticket_are_used_at_another_worker(file: Path) -> None:
    """Two workers on one database: what one stored, the other finds; and a ticket opens one stream at either."""
    with (
        running(app_of(rpc_on(file, context=who))) as here,
        running(app_of(rpc_on(file, context=who))) as there,
    ):
        name = stored(here, "a", **ANN)
        assert stored(there, "a", **ANN) == name
        ticket = httpx.post(f"{here}/rpc/events/ticket", json={}, headers=ANN).json()["ticket"]
        with heard(f"{there}/rpc/events?set={name}&ticket={ticket}", "GET") as stream:
            assert stream.next()[0] == "connected"
            httpx.post(f"{here}/rpc/notes.add", json={"room": "a", "text": "x"}, headers=ANN)
            assert stream.next()[0] == "invalidation"
        for url in (here, there):
            assert httpx.get(f"{url}/rpc/events?set={name}&ticket={ticket}").status_code == 401
        unknown = httpx.get(f"{there}/rpc/events?set={'0' * 32}", headers=ANN)
        assert (unknown.status_code, "store it again" in unknown.text) == (404, True)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def test_a_set_is_kept_as_long_as_it_is_used(clock: FakeClock, anyio_backend: str) -> None:
    """Each use renews it, at whichever worker; a day after the last one it is gone."""
    store = InMemoryEphemeralStore(clock)
    here, there = (StoredSets(store, clock=clock, ttl_seconds=DAY) for _ in range(2))
    name = await here.put(QUERIES, owner="ann")
    for _ in range(6):
        clock.advance(DAY / 2)
        assert await there.get(name) == QUERIES
    another = StoredSets(store, clock=clock, ttl_seconds=DAY)
    assert await another.get(name) == QUERIES
    clock.advance(DAY * 1.01)
    for sets in (here, there, another):
        with pytest.raises(NotFoundError, match="store it again"):
            await sets.get(name)


async def test_equal_sets_have_one_name(clock: FakeClock, anyio_backend: str) -> None:
    """The order counts and the ETags do not."""
    sets = StoredSets(InMemoryEphemeralStore(clock), clock=clock, ttl_seconds=DAY)
    a, b = QueryRef(path="a"), QueryRef(path="b")
    with_etag = QueryRef(path="a", etag='"1"')
    names = [await sets.put(queries, owner="ann") for queries in ([a, b], [with_etag, b], [b, a])]
    assert (names[0] == names[1], names[0] == names[2]) == (True, False)
    assert await sets.get(names[1]) == [a, b]


async def test_a_worker_keeps_few_sets_itself(clock: FakeClock, anyio_backend: str) -> None:
    """Those that it drops are still in the ephemeral store."""
    store = InMemoryEphemeralStore(clock)
    sets = StoredSets(store, clock=clock, ttl_seconds=DAY, max_bytes=200)
    names = [await sets.put([QueryRef(path=f"p{n}")], owner="ann") for n in range(50)]
    assert [(await sets.get(name))[0].path for name in names] == [f"p{n}" for n in range(50)]
    await store.aclose()
    kept = 0
    for name in names:
        try:
            await sets.get(name)
        except NotFoundError:
            continue
        kept += 1
    assert 0 < kept < 10


def test_a_name_takes_no_place_in_a_url_of_its_own(file: Path) -> None:
    """32 hexadecimal characters, whatever the set: a URL that any proxy takes."""
    with running(app_of(rpc_on(file))) as url:
        name = stored(url, *(f"room {n}" for n in range(900)))
        assert (len(name), int(name, 16) > 0) == (32, True)
