"""Watches by long poll: what is shown is as right as by a stream, and a client finds its way there by itself."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from reactive_rpc.client import AsyncClient, SyncClient, lane
from reactive_rpc.client.channels import POLL_SECONDS
from reactive_rpc.client.lane import PROBE_GRACE_SECONDS
from reactive_rpc.errors import ForbiddenError, ServiceUnavailableError, UnauthorizedError
from reactive_rpc.protocol.events import Gap, Revoked
from tests.support.waiting import until

from .fake_server import FakeServer, running
from .watching import GET, FakeClock, fresh, is_fresh, pass_time_until, play, shown, watching

by_poll = partial(watching, events="poll")


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A server on a free port."""
    with running(FakeServer()) as fake:
        yield fake


def has_a_poll_waiting(server: FakeServer) -> bool:
    """Tell whether the server holds a poll that waits for something to happen."""
    return bool(server.open_streams and server.polls and server.polls[-1][1])


def test_a_change_is_told_by_the_poll_that_waits(server: FakeServer) -> None:
    """Stale at once, then right by one fetch; a pushed result by none; the first poll waits for nothing."""

    async def scenario() -> None:
        async with by_poll(server, "a") as (_, live):
            await until(partial(has_a_poll_waiting, server))
            server.change("a", 2)
            stale = await shown(live, lambda state: state.is_stale)
            assert stale.data == 1
            await shown(live, fresh(2))
            await until(partial(has_a_poll_waiting, server))
            server.push("a", 3)
            await shown(live, fresh(3))
        assert server.fetches == [("a", 200), ("a", 200)]
        assert not server.acks
        asked = [
            (request.cursor, [query.etag for query in request.queries], seconds) for request, seconds in server.polls
        ]
        assert asked[:3] == [(None, ['"1"'], 0), ("e:0", [None], POLL_SECONDS), ("e:1", [None], POLL_SECONDS)]

    play(scenario)


def test_a_poll_that_ends_without_news_is_followed_by_the_next(server: FakeServer) -> None:
    """The watch stays fresh over many polls, fetches nothing, and follows the next change."""
    server.poll_seconds = 0.01

    async def scenario() -> None:
        async with by_poll(server, "a") as (_, live):
            await until(lambda: len(server.polls) > 4)
            assert is_fresh(live, 1)
            assert server.fetches == [("a", 200)]
            server.change("a", 2)
            await shown(live, fresh(2))

    play(scenario)


def test_what_happens_between_two_polls_is_told_by_the_next(server: FakeServer) -> None:
    """Nobody waits at the server while the client keeps its distance: the cursor brings what was missed."""
    clock = FakeClock()

    async def scenario() -> None:
        async with by_poll(server, "a", clock=clock) as (_, live):
            await until(partial(has_a_poll_waiting, server))
            server.change("a", 2)
            await until(lambda: clock.pauses)
            server.change("a", 3)
            clock.pass_time()
            await shown(live, fresh(3))

    play(scenario)


def test_the_set_changes_without_a_hole(server: FakeServer) -> None:
    """Another query joins by polls of its own, which take over from the cursor; the first stays fresh."""

    async def scenario() -> None:
        async with by_poll(server, "a") as (client, live):
            await until(partial(has_a_poll_waiting, server))
            async with client.watch(GET, {"name": "b"}) as other:
                await shown(other, fresh(1))
                assert is_fresh(live, 1)
                await until(lambda: [stream.names for stream in server.open_streams] == [{"a", "b"}])
                server.change("b", 2)
                await shown(other, fresh(2))
        assert server.fetches == [("a", 200), ("b", 200), ("b", 200)]

    play(scenario)


def test_a_gap_by_poll_widens(server: FakeServer) -> None:
    """After a gap everything is fetched again."""

    async def scenario() -> None:
        async with by_poll(server, "a") as (_, live):
            await until(partial(has_a_poll_waiting, server))
            server.values["a"] = 2
            server.tell("a", Gap(cursor="e:5"))
            await shown(live, fresh(2))

    play(scenario)


def test_revoked_by_poll_is_final(server: FakeServer) -> None:
    """The state says UnauthorizedError, nothing polls any more, and another token begins anew."""

    async def scenario() -> None:
        async with by_poll(server, "a", token="old") as (client, live):
            await until(partial(has_a_poll_waiting, server))
            server.tell("a", Revoked(reason="logged out"))
            state = await shown(live, lambda state: state.error is not None)
            assert isinstance(state.error, UnauthorizedError)
            assert state.is_stale
            await until(lambda: not server.open_streams)
            polls = len(server.polls)
            client.set_token("new")
            await shown(live, fresh(1))
            assert server.polls[polls][1] == 0

    play(scenario)


def test_a_poll_that_is_refused_for_good_is_final(server: FakeServer) -> None:
    """A token that has expired between two polls is said, not passed over in silence."""

    async def scenario() -> None:
        async with by_poll(server, "a") as (_, live):
            await until(partial(has_a_poll_waiting, server))
            server.refuse_streams = UnauthorizedError("expired")
            server.change("a", 2)
            state = await shown(live, lambda state: isinstance(state.error, UnauthorizedError))
            assert state.is_stale

    play(scenario)


def test_after_a_failed_poll_only_what_changed_is_fetched(server: FakeServer) -> None:
    """A server that stops for a while makes everything stale; then cursor and ETags bring what is needed."""
    clock = FakeClock()

    async def scenario() -> None:
        async with by_poll(server, "a", clock=clock) as (client, live), client.watch(GET, {"name": "b"}) as other:
            await shown(other, fresh(1))
            await until(lambda: has_a_poll_waiting(server) and len(server.open_streams) == 1)
            server.refuse_polls, server.refusal_headers = ServiceUnavailableError("draining"), {"retry-after": "7"}
            server.tell("a", Gap(cursor="e:0"))
            await pass_time_until(clock, lambda: live.state.is_stale and live.state.error is not None)
            server.refuse_polls = None
            server.change("b", 2)
            await pass_time_until(clock, lambda: is_fresh(live, 1) and is_fresh(other, 2))
            assert clock.now >= 7
        assert server.fetches.count(("b", 200)) == 2

    play(scenario)


def test_a_refused_query_does_not_make_every_poll_return(server: FakeServer) -> None:
    """What the first answer refuses is left out of the next polls, which wait for the rest."""
    server.refuse_names = {"b": ForbiddenError("not yours")}

    async def scenario() -> None:
        async with by_poll(server, "a") as (client, live), client.watch(GET, {"name": "b"}) as other:
            await shown(other, lambda state: isinstance(state.error, ForbiddenError))
            await until(lambda: [stream.names for stream in server.open_streams] == [{"a"}])
            server.change("a", 2)
            await shown(live, fresh(2))

    play(scenario)


def test_polls_that_no_longer_watch_the_same_begin_anew(server: FakeServer) -> None:
    """A query that is refused in the midst says so, while its neighbour goes on."""

    async def scenario() -> None:
        async with by_poll(server, "a") as (client, live), client.watch(GET, {"name": "b"}) as other:
            await shown(other, fresh(1))
            await until(lambda: has_a_poll_waiting(server) and len(server.open_streams) == 1)
            server.refuse_names = {"b": ForbiddenError("not yours")}
            server.change("a", 2)
            await shown(other, lambda state: isinstance(state.error, ForbiddenError))
            await shown(live, fresh(2))

    play(scenario)


def test_a_buffering_proxy_makes_the_client_poll(server: FakeServer, caplog: pytest.LogCaptureFixture) -> None:
    """A stream that says nothing while a poll is answered is held back: within ten seconds the watch is fresh, by long
    poll; no error is shown on the way, and the log says what happened.
    """
    server.is_buffering = True
    clock = FakeClock()

    async def scenario() -> None:
        client = AsyncClient(server.url, clock=clock)
        async with client, client.watch(GET, {"name": "a"}) as watch:

            def is_shown() -> bool:
                if is_fresh(watch, 1):
                    return True
                assert watch.state.error is None
                clock.hear_nothing()
                clock.pass_time()
                return False

            await until(is_shown)
            assert clock.now < 10
            assert len(server.streams) == len(server.polls) + 1, "one stream, and polls"
            server.is_buffering = False
            await until(partial(has_a_poll_waiting, server))
            server.change("a", 2)
            await pass_time_until(clock, lambda: is_fresh(watch, 2))
        assert "polling" in caplog.text

    with caplog.at_level("WARNING", "reactive_rpc.client"):
        play(scenario)


def test_a_slow_server_is_not_taken_for_a_proxy(server: FakeServer) -> None:
    """Where the poll beside a silent stream is not answered either, the stream is waited for."""
    server.is_buffering, server.refuse_polls = True, ServiceUnavailableError("no way")
    clock = FakeClock()

    async def scenario() -> None:
        client = AsyncClient(server.url, clock=clock)
        async with client, client.watch(GET, {"name": "a"}) as watch:
            await until(lambda: clock.unheard)
            clock.hear_nothing()
            await until(lambda: server.attempts == 2)
            server.is_buffering = False
            stream = server.streams[0]
            server.send(stream, server._connected(stream).encode())
            await shown(watch, fresh(1))
            assert len(server.open_streams) == 1
        assert not server.polls

    play(scenario)


def test_a_stream_that_speaks_in_time_is_kept(server: FakeServer) -> None:
    """Its first word may come a little later than the answer to the poll beside it."""
    server.is_buffering = True
    clock = FakeClock()

    async def scenario() -> None:
        client = AsyncClient(server.url, clock=clock)
        async with client, client.watch(GET, {"name": "a"}) as watch:
            await until(lambda: clock.unheard)
            clock.hear_nothing()
            await until(lambda: PROBE_GRACE_SECONDS in clock.pauses)
            server.send(server.streams[0], server._connected(server.streams[0]).encode())
            await shown(watch, fresh(1))
            clock.pass_time()
            server.change("a", 2)
            await shown(watch, fresh(2))
            assert len(server.polls) == 1
            assert not server.streams[0].closed

    play(scenario)


def test_without_an_answered_poll_the_client_goes_back_to_streams(server: FakeServer) -> None:
    """A poll was answered once, and then none is: once the network is good, a stream is what comes up."""
    server.is_buffering = True
    clock = FakeClock()

    async def scenario() -> None:
        client = AsyncClient(server.url, clock=clock)
        async with client, client.watch(GET, {"name": "a"}) as watch:
            await until(lambda: clock.unheard)
            clock.hear_nothing()
            await until(lambda: PROBE_GRACE_SECONDS in clock.pauses)
            server.refuse_polls = ServiceUnavailableError("no way")
            clock.pass_time()
            await shown(watch, lambda state: isinstance(state.error, ServiceUnavailableError))
            server.is_buffering = False
            await pass_time_until(clock, lambda: is_fresh(watch, 1))
        assert [wait_seconds for _, wait_seconds in server.polls] == [0.0]

    play(scenario)


def test_a_client_told_to_stream_never_polls(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """`events="sse"` is held to, however long the streams say nothing."""
    monkeypatch.setattr(lane, "OPEN_SECONDS", 0.02)
    server.is_buffering = True

    async def scenario() -> None:
        client = AsyncClient(server.url, events="sse", random=lambda: 0.0)
        async with client, client.watch(GET, {"name": "a"}):
            await until(lambda: server.attempts > 4)
        assert not server.polls

    play(scenario)


def test_the_synchronous_client_polls_too(server: FakeServer) -> None:
    """The keyword passes through."""
    with SyncClient(server.url, events="poll") as client, client.watch(GET, {"name": "a"}) as watch:
        assert next(state for state in watch if not state.is_stale).data == 1
    assert server.polls
