"""Queries that are held while nobody watches them, and that were fetched before anybody does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from reactive_rpc.client import AsyncClient, SyncClient
from reactive_rpc.client.bound_query import PREFETCHED_SECONDS
from tests.support.waiting import until

from .fake_server import FakeServer, running
from .watching import GET, FakeClock, is_fresh, pass_time_until, play


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A server on a free port."""
    with running(FakeServer()) as fake:
        yield fake


def watched(server: FakeServer, *names: str) -> bool:
    """Whether streams watch exactly these."""
    return {name for stream in server.open_streams for name in stream.names} == set(names)


def test_what_is_held_is_kept_right_and_shown_at_once(server: FakeServer) -> None:
    """A watch that begins meanwhile fetches nothing; when the hold is left, nobody listens any more."""

    async def scenario() -> None:
        async with AsyncClient(server.url) as client:
            async with client.bind(GET, {"name": "a"}).hold() as hold:
                await hold.resolved()
                await until(lambda: watched(server, "a"))
                server.change("a", 2)
                await until(lambda: len(server.fetches) == 2)
                async with client.watch(GET, {"name": "a"}) as live:
                    await until(lambda: is_fresh(live, 2))
                async with client.watch(GET, {"name": "a"}) as again:
                    assert is_fresh(again, 2)
                assert len(server.fetches) == 2
            await until(lambda: not server.open_streams)

    play(scenario)


def test_a_hold_is_entered_once_and_warns_if_it_is_not_left(server: FakeServer) -> None:
    """As a watch does, which is a hold that shows."""

    async def scenario() -> None:
        async with AsyncClient(server.url) as client:
            hold = client.bind(GET, {"name": "a"}).hold()
            async with hold:
                with pytest.raises(RuntimeError, match="a hold is entered once"):
                    await hold.__aenter__()
            dropped = client.bind(GET, {"name": "b"}).hold()
            await dropped.__aenter__()
            await until(lambda: watched(server, "b"))
            with pytest.warns(ResourceWarning, match=r"a hold of items\.get was not left"):
                del dropped
            await until(lambda: not server.open_streams)

    play(scenario)


def test_what_was_prefetched_is_shown_at_once_and_given_back_after_a_while(server: FakeServer) -> None:
    """The fetch has ended when `prefetch` returns."""

    async def scenario() -> None:
        clock = FakeClock()
        async with AsyncClient(server.url, clock=clock) as client:
            await client.bind(GET, {"name": "a"}).prefetch()
            assert server.fetches == [("a", 200)]
            async with client.watch(GET, {"name": "a"}) as live:
                assert live.state.data == 1
            await until(lambda: watched(server, "a") and PREFETCHED_SECONDS in clock.pauses)
            await pass_time_until(clock, lambda: not server.open_streams)
            assert server.fetches == [("a", 200)]

    play(scenario)


def test_a_prefetch_that_fails_raises_nothing_and_ends_with_its_client(server: FakeServer) -> None:
    """It is there for a watch, which shows the error; nothing is left when the client closes."""

    async def scenario() -> None:
        del server.values["a"]
        async with AsyncClient(server.url, clock=FakeClock()) as client:
            await asyncio.gather(*(client.bind(GET, {"name": "a"}).prefetch(keep_seconds=60.0) for _ in range(3)))
            async with client.watch(GET, {"name": "a"}) as live:
                assert live.state.error is not None
        assert server.fetches == [("a", 404)]

    play(scenario)


def test_both_without_async(server: FakeServer) -> None:
    """The synchronous client does the same."""
    with SyncClient(server.url) as client:
        with client.bind(GET, {"name": "a"}).hold():
            client.bind(GET, {"name": "a"}).prefetch()
            with client.watch(GET, {"name": "a"}) as live:
                assert live.state.data == 1
        client.bind(GET, {"name": "b"}).prefetch(keep_seconds=0.0)
    assert server.fetches == [("a", 200), ("b", 200)]
