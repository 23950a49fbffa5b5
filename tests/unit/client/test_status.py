"""How the client stands with its server, as a value and as something to follow."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime

import httpx
import pytest

from reactive_rpc.client import AsyncClient, Status, SyncClient
from reactive_rpc.errors import ConnectionFailedError, ServiceUnavailableError, UnauthorizedError
from reactive_rpc.protocol.events import Revoked
from tests.support.waiting import until

from .fake_server import FakeServer, running
from .test_own_mutations import add, hold_adds, release
from .watching import GET, FakeClock, is_fresh, pass_time_until, play, watching


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A server on a free port."""
    with running(FakeServer()) as fake:
        yield fake


def test_a_client_that_watches_nothing_is_live() -> None:
    """Nothing that it shows could be wrong; it has heard of nobody yet."""

    async def scenario() -> None:
        async with AsyncClient("http://nobody.test") as client:
            assert client.status == Status("live", None, 0, None)
        with pytest.raises(RuntimeError, match="this client is closed"):
            _ = client.status

    play(scenario)


def test_a_stream_makes_it_live_and_its_end_does_not_last(server: FakeServer) -> None:
    """While another stream is being opened it is `reconnecting`, with the reason if one is known."""

    async def scenario() -> None:
        clock, seen = FakeClock(), list[Status]()
        async with watching(server, "a", clock=clock) as (client, live):
            assert client.status == Status("live", datetime.fromtimestamp(clock.now, UTC), 0, None)
            follower = asyncio.create_task(_follow(client, seen))
            await until(lambda: seen)
            server.refuse_streams = ServiceUnavailableError("not now")
            server.send(server.streams[0], b"")
            await until(lambda: seen[-1].state == "reconnecting")
            await pass_time_until(clock, lambda: isinstance(client.status.error, ServiceUnavailableError))
            assert client.status.state == "reconnecting"
            server.refuse_streams = None
            await pass_time_until(clock, lambda: is_fresh(live, 1))
            await until(lambda: seen[-1].state == "live")
            assert client.status.error is None
        await follower
        assert [status.state for status in seen][:2] == ["live", "reconnecting"]

    play(scenario)


async def _follow(client: AsyncClient, seen: list[Status]) -> None:
    async for status in client.watch_status():
        seen.append(status)


class Network(httpx.AsyncHTTPTransport):
    """A network that can be unplugged.

    Attributes:
        is_down: whether nothing gets through.
    """

    is_down = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Refuse the connection if it is down."""
        if self.is_down:
            raise httpx.ConnectError("no route")
        return await super().handle_async_request(request)


def test_without_an_answer_it_is_offline_and_comes_back_by_itself(server: FakeServer) -> None:
    """The time of the last word stays."""

    async def scenario() -> None:
        clock, network = FakeClock(), Network()
        async with (
            httpx.AsyncClient(transport=network) as http,
            watching(server, "a", http=http, clock=clock) as (client, live),
        ):
            before = client.status.last_sync
            network.is_down = True
            server.send(server.streams[0], b"")
            await pass_time_until(clock, lambda: client.status.state == "offline")
            assert isinstance(client.status.error, ConnectionFailedError)
            assert client.status.last_sync == before
            network.is_down = False
            await pass_time_until(clock, lambda: client.status.state == "live" and is_fresh(live, 1))
            assert client.status.last_sync is not None
            assert before is not None
            assert client.status.last_sync > before

    play(scenario)


def test_a_caller_who_was_refused_is_offline_until_there_is_another_token(server: FakeServer) -> None:
    """Nothing is tried meanwhile, by any lane."""

    async def scenario() -> None:
        async with watching(server, "a") as (client, live):
            server.refuse_streams = UnauthorizedError("log in again")
            server.send(server.streams[0], Revoked(reason="logged out").encode())
            await until(lambda: client.status.state == "offline")
            assert isinstance(client.status.error, UnauthorizedError)
            attempts = server.attempts
            server.refuse_streams = None
            async with client.watch(GET, {"name": "b"}) as other:
                await until(lambda: other.state.data == 1 and other.state.error is not None)
                assert server.attempts == attempts
                client.set_token("another")
                await until(lambda: client.status.state == "live" and is_fresh(live, 1) and is_fresh(other, 1))

    play(scenario)


def test_by_long_poll_it_is_polling(server: FakeServer) -> None:
    """Which is as right, and later."""

    async def scenario() -> None:
        async with watching(server, "a", events="poll") as (client, _):
            assert client.status.state == "polling"
            assert client.status.last_sync is not None

    play(scenario)


def test_mutations_that_are_not_answered_wait(server: FakeServer) -> None:
    """Each counts, whether it shows anywhere or not."""

    async def scenario() -> None:
        held = hold_adds(server)
        async with watching(server, "a") as (client, _):
            seen = list[Status]()
            follower = asyncio.create_task(_follow(client, seen))
            first, second = add(client), add(client)
            await until(lambda: seen and seen[-1].waiting == 2)
            assert client.status.waiting == 2
            release(server, held)
            await asyncio.gather(first, second)
            assert client.status.waiting == 0
            follower.cancel()
            with suppress(asyncio.CancelledError):
                await follower

    play(scenario)


def test_it_is_followed_without_async(server: FakeServer) -> None:
    """The iteration ends with the client."""
    with SyncClient(server.url) as client, client.watch(GET, {"name": "a"}):
        statuses = client.watch_status()
        assert next(status for status in statuses if status.state == "live").waiting == 0
        assert client.status.state == "live"
    assert list(statuses) == []
