"""When a client comes back: soon where nothing failed, late where the server asks for it, never all at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial

import httpx
import pytest

from reactive_rpc.client import AsyncClient
from reactive_rpc.client.lane import DEFERRED_BASE_SECONDS
from reactive_rpc.client.retrying import STABLE_SECONDS
from reactive_rpc.errors import (
    ForbiddenError,
    NotFoundError,
    PreconditionFailedError,
    RPCError,
    ServiceUnavailableError,
    TooManyRequestsError,
    UnauthorizedError,
)
from reactive_rpc.protocol.events import Revoked
from tests.support.waiting import until

from .fake_server import FakeServer, running
from .watching import GET, Answers, FakeClock, fresh, is_fresh, play, shown, watching


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A server on a free port."""
    with running(FakeServer()) as fake:
        yield fake


def has_paused(clock: FakeClock, count: int) -> bool:
    """Tell whether the client has begun so many pauses."""
    return len(clock.pauses) == count


def has_opened(server: FakeServer, count: int) -> bool:
    """Tell whether the client has opened so many streams."""
    return len(server.streams) == count


@pytest.mark.parametrize(("jitter", "seconds"), [(0.0, 1.0), (0.5, 1.5), (1.0, 2.0)])
def test_a_good_stream_that_ends_is_resumed_between_half_of_retry_and_all(
    server: FakeServer, jitter: float, seconds: float
) -> None:
    """A server that drains ends its streams as it means to: nothing is wrong, the clients are spread."""
    server.retry_ms = 2000
    clock = FakeClock()

    async def scenario() -> None:
        async with watching(server, "a", clock=clock, random=lambda: jitter) as (_, live):
            clock.now += STABLE_SECONDS
            server.send(server.open_streams[0], None)
            down = await shown(live, lambda state: state.is_stale)
            assert down.error is None
            await until(lambda: clock.pauses)
            assert clock.pauses == [seconds]
            clock.pass_time()
            await shown(live, fresh(1))

    play(scenario)


def test_a_good_stream_that_is_cut_waits_longer(server: FakeServer) -> None:
    """What breaks is a failure, however long it had lasted: all of `retry:`, and the jitter on top."""
    server.retry_ms = 2000
    clock = FakeClock()

    async def scenario() -> None:
        async with watching(server, "a", clock=clock, random=lambda: 1.0) as (_, live):
            clock.now += STABLE_SECONDS
            server.send(server.open_streams[0], b"")
            await shown(live, lambda state: state.is_stale)
            await until(lambda: clock.pauses)
            assert clock.pauses == [2.25]

    play(scenario)


def test_retry_after_is_waited_out_and_jitter_added(server: FakeServer) -> None:
    """Those who were told the same number of seconds do not come back in the same instant."""
    server.refuse_streams, server.refusal_headers = TooManyRequestsError("too many streams"), {"retry-after": "7"}
    clock = FakeClock()

    async def scenario() -> None:
        client = AsyncClient(server.url, clock=clock, random=lambda: 0.5)
        async with client, client.watch(GET, {"name": "a"}):
            await until(lambda: clock.pauses)
            assert clock.pauses == [7.125]

    play(scenario)


@pytest.mark.parametrize("error", [PreconditionFailedError("not captured"), ServiceUnavailableError("locked")])
def test_a_query_that_may_be_watched_later_is_asked_for_again(server: FakeServer, error: RPCError) -> None:
    """A fresh stream takes over after a pause that grows, until the query is watched; its neighbour stays fresh."""
    server.refuse_names = {"b": error}
    clock = FakeClock()

    async def scenario() -> None:
        async with (
            watching(server, "a", clock=clock, random=lambda: 1.0) as (client, live),
            client.watch(GET, {"name": "b"}) as other,
        ):
            state = await shown(other, lambda state: state.error is not None)
            assert isinstance(state.error, type(error))
            for asked in range(1, 4):
                await until(partial(has_paused, clock, asked))
                streams = len(server.streams)
                clock.pass_time()
                await until(partial(has_opened, server, streams + 1))
                assert is_fresh(live, 1)
            assert clock.pauses[:3] == [DEFERRED_BASE_SECONDS * factor for factor in (1, 2, 4)]
            server.refuse_names = {}
            await until(lambda: len(clock.pauses) == 4)
            clock.pass_time()
            await shown(other, fresh(1))
            await until(lambda: len(server.open_streams) == 1)

    play(scenario)


@pytest.mark.parametrize("error", [ForbiddenError("no"), UnauthorizedError("who?"), NotFoundError("no such query")])
def test_a_query_that_is_refused_for_good_is_not_asked_for_again(server: FakeServer, error: RPCError) -> None:
    """Nothing is scheduled, and the state says why the query is not watched."""
    server.refuse_names = {"b": error}
    clock = FakeClock()

    async def scenario() -> None:
        async with watching(server, "a", clock=clock) as (client, live), client.watch(GET, {"name": "b"}) as other:
            await shown(other, lambda state: isinstance(state.error, type(error)))
            server.change("a", 2)
            await shown(live, fresh(2))
            assert not clock.pauses

    play(scenario)


def test_a_stream_that_begins_with_revoked_is_final(server: FakeServer) -> None:
    """A caller who is revoked while the stream opens is told, not left to try for ever."""
    server.is_buffering = True

    async def scenario() -> None:
        async with AsyncClient(server.url) as client, client.watch(GET, {"name": "a"}) as live:
            await until(lambda: server.open_streams)
            server.tell("a", Revoked(reason="logged out"))
            state = await shown(live, lambda state: state.error is not None)
            assert isinstance(state.error, UnauthorizedError)
            server.is_buffering = False
            client.set_token("new")
            await shown(live, fresh(1))
            assert server.attempts == 2

    play(scenario)


def test_revoked_also_ends_the_stream_that_was_to_take_over(server: FakeServer) -> None:
    """The set changes, and the caller is revoked before the new stream is connected: the states stay with the error."""

    async def scenario() -> None:
        async with watching(server, "a") as (client, live), client.watch(GET, {"name": "b"}) as other:
            server.is_buffering = True
            await until(lambda: len(server.streams) == 2)
            first, second = server.streams
            server.send(first, Revoked(reason="logged out").encode())
            await shown(live, lambda state: isinstance(state.error, UnauthorizedError))
            await until(lambda: second.closed)
            assert isinstance(other.state.error, UnauthorizedError)
            assert other.state.is_stale

    play(scenario)


def test_a_thousand_watches_leave_nothing_behind() -> None:
    """Watches left, and watches cancelled at any turn of their fetch or of the stream: no task, no entry remains."""

    async def scenario() -> None:
        answers = Answers(None, lambda: None)
        async with httpx.AsyncClient(transport=answers) as http, AsyncClient("http://hub.test", http=http) as client:
            assert client._live is not None
            before = len(asyncio.all_tasks())
            for number in range(1000):
                following = asyncio.create_task(_follow(client, number))
                for _ in range(number % (2 if number % 5 else 23)):
                    await asyncio.sleep(0)
                if number % 50:
                    following.cancel()
                await asyncio.wait([following])
            assert answers.listeners
            await until(lambda: len(asyncio.all_tasks()) == before)
            assert list(client._live.subscriptions) == []
            assert all(lane.active is None for lane in client._live.lanes)

    play(scenario, seconds=60)


async def _follow(client: AsyncClient, number: int) -> None:
    async with client.watch(GET, {"name": "ab"[number % 2]}) as live:
        await shown(live, lambda state: not state.is_stale)


def test_a_watch_that_is_dropped_warns_and_gives_its_query_back(server: FakeServer) -> None:
    """Entered and never left: the query is not kept subscribed for as long as the client lives."""

    async def scenario() -> None:
        async with AsyncClient(server.url) as client:
            assert client._live is not None
            subscriptions = client._live.subscriptions
            live = client.watch(GET, {"name": "a"})
            await live.__aenter__()
            await shown(live, fresh(1))
            with pytest.warns(ResourceWarning, match="was not left"):
                del live
            await until(lambda: not list(subscriptions))
            await until(lambda: not server.open_streams)

    play(scenario)
