"""What a client sends of what it has seen, and what it makes of a result that the server calls stale."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from reactive_rpc.client import AsyncClient
from reactive_rpc.errors import NotFoundError, ServiceUnavailableError
from reactive_rpc.protocol.headers import CURSOR, STALE, UNKNOWN
from tests.support.waiting import until

from .fake_server import FakeServer, running
from .watching import GET, FakeClock, fresh, pass_time_until, play, shown, watching

MARKED = {STALE: "true"}
A = {"name": "a"}


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A server on a free port."""
    with running(FakeServer()) as fake:
        yield fake


def test_a_call_sends_the_highest_that_was_seen(server: FakeServer) -> None:
    """Also what came with an error; an answer without a cursor changes nothing."""

    async def scenario() -> None:
        async with AsyncClient(server.url) as client:
            for version in ("e:9", "e:10", "e:3"):
                server.answer_headers = {CURSOR: version}
                await client.call(GET, A)
            server.answer_headers = {}
            server.refusal_headers = {CURSOR: "e:11"}
            for _ in range(2):
                with pytest.raises(NotFoundError):
                    await client.call(GET, {"name": "nobody"})

    play(scenario)
    assert server.cursors == [None, "e:9", "e:10", "e:10", "e:11"]


def test_what_got_no_answer_may_have_written(server: FakeServer) -> None:
    """After a lost answer, a given-up call and a gateway's error the server must look; a refusal changes nothing."""

    async def scenario() -> None:
        async with AsyncClient(server.url) as client:
            server.answer_headers = {CURSOR: "e:1"}
            await client.call(GET, A)
            hold = server.hold = asyncio.Event()
            given_up = asyncio.create_task(client.call(GET, A))
            await until(lambda: len(server.cursors) == 2)
            given_up.cancel()
            await asyncio.wait([given_up])
            server.do(hold.set)
            await client.call(GET, A)
            await client.call(GET, A)
            server.refuse_fetches = ServiceUnavailableError("the answer of COMMIT was lost")
            with pytest.raises(ServiceUnavailableError):
                await client.call(GET, A)
            server.refuse_fetches = None
            await client.call(GET, A)
            with pytest.raises(NotFoundError):
                await client.call(GET, {"name": "nobody"})
            await client.call(GET, A)

    play(scenario)
    assert server.cursors == [None, "e:1", UNKNOWN, "e:1", "e:1", UNKNOWN, "e:1", "e:1"]


def test_a_watch_asks_for_more_than_it_can_name(server: FakeServer) -> None:
    """The event that told of a change may carry an older cursor: the fetch that follows must not be answered by it."""

    async def scenario() -> None:
        server.answer_headers = {CURSOR: "e:1"}
        async with watching(server, "a") as (client, live):
            server.change("a", 2)
            await shown(live, fresh(2))
            await client.call(GET, A)

    play(scenario)
    assert server.cursors == [UNKNOWN, UNKNOWN, "e:1"]


def test_a_typed_call_refuses_a_stale_result(server: FakeServer) -> None:
    """Its type has no place to say so."""
    server.answer_headers = MARKED

    async def scenario() -> None:
        async with AsyncClient(server.url) as client:
            with pytest.raises(ServiceUnavailableError, match="watch the query") as caught:
                await client.call(GET, A)
            assert caught.value.path == "items.get"

    play(scenario)


@pytest.mark.parametrize("held", [False, True], ids=["200", "304"])
def test_a_watch_shows_a_stale_result_until_there_is_a_better_one(server: FakeServer, held: bool) -> None:
    """It is shown with `is_stale` while a stream is up, asked for again after a pause, and then confirmed."""
    clock = FakeClock()

    async def scenario() -> None:
        if not held:  # a stream that has said what is current would confirm the first answer
            server.answer_headers, server.is_buffering = MARKED, True
        async with AsyncClient(server.url, clock=clock) as client, client.watch(GET, A) as live:
            if held:
                await shown(live, fresh(1))
                server.answer_headers = MARKED
                server.change("a", 1)
            await until(lambda: clock.pauses)
            await until(lambda: server.open_streams and live.state.data)
            assert (live.state.data, live.state.is_stale, live.state.error) == (1, True, None)
            server.answer_headers, fetches = {}, len(server.fetches)
            await pass_time_until(clock, lambda: len(server.fetches) > fetches)
            if not held:
                server.connect_streams()
            await until(lambda: not live.state.is_stale)
            assert live.state.data == 1

    play(scenario)
    assert server.fetches[-1] == ("a", 304)
