"""Watches against a real server: what is shown is right, or says that it may not be."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import pytest
import respx

from reactive_rpc.client import AsyncClient, State, SyncClient, Watch
from reactive_rpc.client.backoff import CAP_SECONDS
from reactive_rpc.client.retrying import HEARTBEATS_MISSED, MAX_RETRY_SECONDS
from reactive_rpc.errors import (
    ForbiddenError,
    NotFoundError,
    RPCError,
    ServiceUnavailableError,
    TooManyRequestsError,
    UnauthorizedError,
    WireError,
)
from reactive_rpc.protocol.events import Connected, Gap, Revoked
from reactive_rpc.protocol.sse import encode_event
from tests.support.waiting import until

from .fake_server import FakeServer, running
from .watching import GET, Answers, FakeClock, fresh, is_fresh, pass_time_until, play, shown, watching


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A server on a free port."""
    with running(FakeServer()) as fake:
        yield fake


def _has_paused(clock: FakeClock, count: int) -> bool:
    return len(clock.pauses) == count


def test_a_change_is_shown_stale_at_once_and_then_right(server: FakeServer) -> None:
    """An invalidation shows as is_stale before the new result, which is fetched once."""

    async def scenario() -> None:
        async with AsyncClient(server.url) as client, client.watch(GET, {"name": "a"}) as live:
            assert await anext(live) == State(None, is_stale=True, is_loading=True, error=None)
            await shown(live, fresh(1))
            server.change("a", 2)
            stale = await anext(live)
            assert (stale.data, stale.is_stale, stale.is_loading) == (1, True, True)
            await shown(live, fresh(2))
            await until(lambda: server.acks and server.acks[-1].cursor == "e:1")
        assert server.fetches == [("a", 200), ("a", 200)]
        await until(lambda: not server.open_streams)

    play(scenario)


def test_the_first_result_is_stale_until_a_stream_confirms_it(server: FakeServer) -> None:
    """A result nobody listens for may have changed, so it says so."""
    server.refuse_streams = ServiceUnavailableError("busy")

    async def scenario() -> None:
        async with AsyncClient(server.url, clock=FakeClock()) as client, client.watch(GET, {"name": "a"}) as live:
            state = await shown(live, lambda state: state.error is not None)
            assert (state.data, state.is_stale) == (1, True)
            assert isinstance(state.error, ServiceUnavailableError)

    play(scenario)


def test_equal_queries_are_fetched_once_and_all_share_one_stream(server: FakeServer) -> None:
    """Two watches of one query are one fetch; another query joins by a take-over that names the cursor and ETags."""

    async def scenario() -> None:
        async with watching(server, "a") as (client, live):
            server.change("a", 2)
            await shown(live, fresh(2))
            async with client.watch(GET, {"name": "a"}) as same, client.watch(GET, {"name": "b"}) as other:
                await shown(same, fresh(2))
                await shown(other, fresh(1))
                await until(lambda: len(server.open_streams) == 1)
                (stream,) = server.open_streams
                assert stream.request.cursor == "e:1"
                assert [query.etag for query in stream.request.queries] == ['"2"', '"1"']
                assert not live.state.is_stale
            await until(lambda: [stream.names for stream in server.open_streams] == [{"a"}])
        assert sorted(server.fetches) == [("a", 200), ("a", 200), ("b", 200)]

    play(scenario)


def test_a_slow_consumer_gets_the_latest_state_only(server: FakeServer) -> None:
    """What lies between two looks is skipped, never queued."""

    async def scenario() -> None:
        async with watching(server, "a") as (_, live):
            for value in range(2, 6):
                server.change("a", value)
                await until(partial(is_fresh, live, value))
            assert await anext(live) == State(5, is_stale=False, is_loading=False, error=None)

    play(scenario)


def test_events_of_a_moment_are_acknowledged_once(server: FakeServer) -> None:
    """By the cursor of the last, a quarter of a second after the first: ten events are not ten requests more."""

    async def scenario() -> None:
        async with watching(server, "a"):
            acks = len(server.acks)
            for value in range(2, 12):
                server.change("a", value)
            await until(lambda: server.acks and server.acks[-1].cursor == "e:10")
            assert len(server.acks) <= acks + 2  # that of the stream's beginning may have been under way

    play(scenario)


def test_an_invalidation_during_a_fetch_leads_to_another_fetch(server: FakeServer) -> None:
    """An answer that may be older than the last invalidation is never shown as fresh."""

    async def scenario() -> None:
        async with watching(server, "a") as (_, live):
            hold = server.hold = asyncio.Event()
            server.change("a", 2)
            await until(lambda: len(server.tokens) == 2)  # this fetch has read 2 and is held
            server.change("a", 3)
            await until(lambda: server.acks and server.acks[-1].cursor == "e:2")
            server.do(hold.set)
            state = await shown(live, lambda state: state.data == 2)
            assert state.is_stale
            await shown(live, fresh(3))

    play(scenario)


@pytest.mark.parametrize("ending", [None, b"", b"event: invalidation\ndata: {"])
def test_after_a_lost_stream_only_what_changed_is_fetched(server: FakeServer, ending: bytes | None) -> None:
    """A stream that ends, cleanly, cut, or inside an event, is opened again with cursor and ETags."""
    clock = FakeClock()

    async def scenario() -> None:
        async with watching(server, "a", clock=clock) as (client, live), client.watch(GET, {"name": "b"}) as other:
            await shown(other, fresh(1))
            await until(lambda: len(server.open_streams) == 1)
            (stream,) = server.open_streams
            server.send(stream, ending)
            server.send(stream, b"" if ending else None)
            down = await shown(live, lambda state: state.is_stale)
            assert (down.data, other.state.is_stale) == (1, True)
            server.change("b", 2)
            await until(lambda: clock.pauses)
            clock.pass_time()
            await shown(live, fresh(1))
            await shown(other, fresh(2))
            assert server.open_streams[0].request.cursor == "e:0"
        assert server.fetches == [("a", 200), ("b", 200), ("b", 200)]

    play(scenario)


def test_pauses_grow_with_full_jitter_over_the_servers_retry(server: FakeServer) -> None:
    """Each failure doubles the bound of the pause; `retry:` is the least of it."""
    server.retry_ms = 2000
    clock = FakeClock()

    async def scenario() -> None:
        async with watching(server, "a", clock=clock, random=lambda: 0.5) as (_, live):
            server.refuse_streams = ServiceUnavailableError("busy")
            server.send(server.open_streams[0], None)
            for count in range(1, 5):
                await until(partial(_has_paused, clock, count))
                clock.pass_time()
            await until(lambda: len(clock.pauses) == 5)
            assert live.state.is_stale
            assert clock.pauses == [2.125, 2.25, 2.5, 3.0, 4.0]

    play(scenario)


@pytest.mark.parametrize("refusal", [UnauthorizedError("expired"), ForbiddenError("no")])
def test_a_refused_stream_waits_for_another_token(server: FakeServer, refusal: Any) -> None:
    """401 and 403 show in the state and are not repeated; set_token connects at once, as the new caller."""
    server.refuse_streams = refusal
    clock = FakeClock()

    async def scenario() -> None:
        async with (
            AsyncClient(server.url, token="old", clock=clock) as client,
            client.watch(GET, {"name": "a"}) as live,
        ):
            state = await shown(live, lambda state: state.error is not None)
            assert isinstance(state.error, type(refusal))
            async with client.watch(GET, {"name": "b"}) as late:
                await shown(late, lambda state: state.data == 1 and isinstance(state.error, type(refusal)))
            assert (server.attempts, clock.pauses) == (1, [])
            server.refuse_streams = None
            client.set_token("new")
            await shown(live, fresh(1))
            assert server.tokens[-1] == "Bearer new"

    play(scenario)


def test_a_revoked_stream_is_over(server: FakeServer) -> None:
    """After `revoked` every watch says UnauthorizedError and nothing reconnects."""

    async def scenario() -> None:
        async with watching(server, "a") as (_, live):
            server.send(server.open_streams[0], Revoked(reason="logged out").encode())
            state = await shown(live, lambda state: state.error is not None)
            assert isinstance(state.error, UnauthorizedError)
            assert (state.data, state.is_stale) == (1, True)
            await until(lambda: not server.open_streams)
            assert server.attempts == 1

    play(scenario)


def test_a_refused_query_says_so_and_leaves_the_others_alone(server: FakeServer) -> None:
    """A query that the server does not watch is never fresh; the stream serves the rest."""
    server.refuse_names = {"b": ForbiddenError("not yours")}

    async def scenario() -> None:
        async with watching(server, "a") as (client, live), client.watch(GET, {"name": "b"}) as other:
            state = await shown(other, lambda state: state.error is not None)
            assert (state.data, state.is_stale, type(state.error)) == (1, True, ForbiddenError)
            server.change("a", 2)
            await shown(live, fresh(2))

    play(scenario)


def test_a_gap_and_an_unknown_key_widen(server: FakeServer) -> None:
    """After a gap everything is fetched again; an event for a key nobody announced means the whole path."""

    async def scenario() -> None:
        async with watching(server, "a") as (_, live):
            stream = server.open_streams[0]
            server.values["a"] = 2
            server.send(stream, Gap(cursor="e:5", reason="slow").encode())
            await shown(live, fresh(2))
            server.values["a"] = 3
            data = b'{"cursor":"e:6","affected":[{"path":"items.get","key":"?"}],"event_id":"i"}'
            server.send(stream, encode_event("novelty", b"{}") + encode_event("invalidation", data))
            await shown(live, fresh(3))

    play(scenario)


@pytest.mark.parametrize("how", ["change", "push"])
def test_an_event_sent_again_is_acknowledged_and_does_nothing_twice(server: FakeServer, how: str) -> None:
    """A repeated event means a lost acknowledgement, not another change: the newest cursor is acknowledged again."""

    async def scenario() -> None:
        async with watching(server, "a") as (_, live):
            event = getattr(server, how)("a", 2)
            await shown(live, fresh(2))
            server.change("a", 3)
            await shown(live, fresh(3))
            await until(lambda: server.acks and server.acks[-1].cursor == "e:2")
            fetches, acks = len(server.fetches), len(server.acks)
            server.tell("a", event.model_copy(update={"retry": 1}))
            await until(lambda: len(server.acks) > acks)
            assert server.acks[-1].cursor == "e:2"
            assert len(server.fetches) == fetches
            assert is_fresh(live, 3)

    play(scenario)


def test_data_outlives_an_error_and_a_transient_one_is_tried_again(server: FakeServer) -> None:
    """A failed fetch keeps the last data; 503 is retried with backoff, 404 is an answer."""
    clock = FakeClock()

    async def scenario() -> None:
        async with watching(server, "a", clock=clock) as (client, live):
            server.refuse_fetches = ServiceUnavailableError("busy")
            server.change("a", 2)
            state = await shown(live, lambda state: state.error is not None)
            assert (state.data, state.is_stale) == (1, True)
            server.refuse_fetches = None
            await until(lambda: clock.pauses)
            clock.pass_time()
            await shown(live, fresh(2))
            async with client.watch(GET, {"name": "none"}) as missing:
                state = await shown(missing, lambda state: isinstance(state.error, NotFoundError))
                assert (state.data, state.is_stale) == (None, True)
            assert len(clock.pauses) == 1

    play(scenario)


def test_closing_the_client_ends_every_iteration(server: FakeServer) -> None:
    """`async for` ends without an error, whatever task closes the client; closing twice is allowed."""

    async def scenario() -> None:
        client = AsyncClient(server.url)
        await client.open()
        async with client.watch(GET, {"name": "a"}) as live:
            await shown(live, fresh(1))
            consumer = asyncio.create_task(_drain(live))
            await asyncio.create_task(client.aclose())
            await consumer
            await client.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            client.watch(GET, {"name": "a"})

    play(scenario)


def test_a_watch_entered_after_the_close_ends_at_once(server: FakeServer) -> None:
    """A watch of a closed client hands out nothing, and does not hang."""

    async def scenario() -> None:
        async with AsyncClient(server.url) as client:
            late = client.watch(GET, {"name": "a"})
        async with late:
            assert [state async for state in late] == []

    play(scenario)


async def _drain(live: Watch[int]) -> None:
    async for _ in live:
        pass


def test_a_leaked_client_warns(server: FakeServer) -> None:
    """A client that is dropped while open says so."""

    async def scenario() -> None:
        client = AsyncClient(server.url)
        await client.open()
        live, client._live = client._live, None
        assert live is not None
        http = client._owned_http
        assert http is not None
        with pytest.warns(ResourceWarning, match="unclosed client"):
            client.__del__()
        client._state = "closed"
        await live.aclose()
        await http.aclose()

    play(scenario)


def test_the_synchronous_client_shows_the_same(server: FakeServer) -> None:
    """Calls, login, watches and closing work without `async`."""
    with SyncClient(server.url) as client:
        assert client.call(GET, {"name": "a"}) == 1
        client.login_with_password("token", username="ann", password="x y")
        with client.watch(GET, {"name": "a"}) as live:
            assert next(state for state in live if not state.is_stale).data == 1
            server.change("a", 2)
            assert next(state for state in live if state.data == 2).data == 2
    assert server.tokens[-1] == "Bearer grant_type=password&username=ann&password=x+y"
    client.close()


def test_a_silent_stream_with_heartbeats_is_dead(server: FakeServer) -> None:
    """A stream that promised heartbeats and says nothing is given up, said to be stale, and opened anew."""
    clock = FakeClock()
    server.heartbeat_seconds = 25.0

    async def scenario() -> None:
        async with watching(server, "a", clock=clock) as (_, live):
            await until(lambda: clock.pauses)
            server.heartbeat_seconds = None
            clock.pass_time()
            stale = await shown(live, lambda state: state.is_stale)
            assert clock.now == 25.0 * HEARTBEATS_MISSED
            assert (stale.data, stale.error) == (1, None)
            await pass_time_until(clock, lambda: is_fresh(live, 1))
            assert len(server.streams) == 2
            assert server.fetches == [("a", 200)]

    play(scenario)


def test_comments_keep_a_stream_alive(server: FakeServer) -> None:
    """Heartbeats are comments: each one puts off the moment at which the stream is given up."""
    clock = FakeClock()
    server.heartbeat_seconds = 25.0

    async def scenario() -> None:
        async with watching(server, "a", clock=clock) as (client, live):
            await until(lambda: clock.pauses)
            assert client._live is not None
            stream = client._live.lanes[0].active
            for _ in range(5):
                clock.now += 50.0
                server.send(server.streams[0], b": heartbeat\n\n")
                await until(lambda: stream is not None and stream.heard_at == clock.now)
            clock.now -= 25.0 * HEARTBEATS_MISSED  # `pass_time` adds what the watchdog meant to sleep
            clock.pass_time()
            await until(lambda: len(clock.pauses) > 1)
            assert clock.pauses == [62.5, 62.5]
            server.change("a", 2)
            await shown(live, fresh(2))
            assert len(server.streams) == 1

    play(scenario)


@pytest.mark.parametrize(("promised", "believed"), [(1e-9, 1.0), (1e300, 600.0)])
def test_an_absurd_heartbeat_is_bounded(server: FakeServer, promised: float, believed: float) -> None:
    """No stream is given up within an instant, and none is waited for for ever."""
    clock = FakeClock()
    server.heartbeat_seconds = promised

    async def scenario() -> None:
        async with watching(server, "a", clock=clock):
            await until(lambda: clock.pauses)
            assert clock.pauses[0] == pytest.approx(believed * HEARTBEATS_MISSED)

    play(scenario)


@pytest.mark.parametrize("promised", ["-1", "NaN", "0", '"soon"'])
def test_a_heartbeat_that_is_none_is_a_malformed_stream(promised: str) -> None:
    """It is said in the state, and tried again with pauses that grow: no crash, and no hot loop."""
    clock = FakeClock()
    connected = f'event: connected\ndata: {{"stream":"s","cursor":"e:1","heartbeat_seconds":{promised}}}\n\n'

    async def scenario() -> None:
        with respx.mock:
            respx.get("http://odd.test/rpc/items/get").respond(200, json=1, headers={"etag": '"1"'})
            respx.post("http://odd.test/rpc/events").respond(
                200, text=connected, headers={"content-type": "text/event-stream"}
            )
            client = AsyncClient("http://odd.test", clock=clock, events="sse", random=lambda: 1.0)
            async with client, client.watch(GET, {"name": "a"}) as live:
                state = await shown(live, lambda state: isinstance(state.error, WireError))
                assert (state.data, state.is_stale) == (1, True)
                for tries in range(1, 5):
                    await until(lambda: len(clock.pauses) == tries)  # noqa: B023  # called at once
                    clock.pass_time()
                assert clock.pauses[:4] == [0.25, 0.5, 1.0, 2.0]

    play(scenario)


def test_without_heartbeats_silence_means_nothing(server: FakeServer) -> None:
    """A server that promises none is never given up for its silence: `connected` then carries no such field."""
    silent = Connected(stream="s", cursor="e:1")
    assert "heartbeat_seconds" not in silent.model_dump_json()
    assert '"heartbeat_seconds":2.0' in silent.model_copy(update={"heartbeat_seconds": 2.0}).model_dump_json()


@pytest.mark.parametrize("what", ["refuse_fetches", "refuse_streams"])
def test_retry_after_is_honoured(server: FakeServer, what: str) -> None:
    """Fetches and streams that are refused with Retry-After are tried again no sooner than that, and then succeed."""

    async def scenario() -> None:
        clock = FakeClock()
        setattr(server, what, TooManyRequestsError("slow down"))
        server.refusal_headers = {"retry-after": "7"}
        async with AsyncClient(server.url, clock=clock) as client, client.watch(GET, {"name": "a"}) as live:
            await until(lambda: any(seconds >= 7 for seconds in clock.pauses))
            assert isinstance(live.state.error, TooManyRequestsError)
            setattr(server, what, None)
            await pass_time_until(clock, lambda: is_fresh(live, 1))
            assert clock.now >= 7

    play(scenario)


def test_news_does_not_shorten_retry_after(server: FakeServer) -> None:
    """An invalidation during the pause that the server asked for waits for its end."""

    async def scenario() -> None:
        clock = FakeClock()
        async with AsyncClient(server.url, clock=clock) as client, client.watch(GET, {"name": "a"}) as live:
            await shown(live, fresh(1))
            server.refuse_fetches, server.refusal_headers = ServiceUnavailableError("busy"), {"retry-after": "7"}
            server.change("a", 2)
            await until(lambda: any(seconds >= 7 for seconds in clock.pauses))
            fetches = len(server.fetches)
            server.refuse_fetches = None
            server.change("a", 3)
            await until(lambda: server.acks and server.acks[-1].cursor == "e:2")
            assert len(server.fetches) == fetches
            clock.pass_time()
            await shown(live, fresh(3))

    play(scenario)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, "3"),
        ({"retry-after": "999999"}, "600"),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:05 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, "5"),
        ({"retry-after": "Wed, 21 Oct 2026 07:27:00 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, "0"),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:05 GMT", "date": "nonsense"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({}, None),
    ],
)
@respx.mock
def test_retry_after_as_it_is_written(headers: dict[str, str], seconds: str | None) -> None:
    """Seconds and dates are read, dates by the server's own clock; nonsense is no Retry-After, too much is cut."""
    respx.get("http://proxy.test/rpc/items/get").respond(503, headers=headers, text="<html>busy</html>")
    with SyncClient("http://proxy.test") as client, pytest.raises(ServiceUnavailableError) as caught:
        client.call(GET, {"name": "a"})
    assert caught.value.headers.get("retry-after") == seconds


def test_a_leaked_synchronous_client_warns_and_ends_its_thread(server: FakeServer) -> None:
    """A synchronous client that is dropped while open says so, and its thread ends all the same."""
    client = SyncClient(server.url)
    client.open()
    assert client.call(GET, {"name": "a"}) == 1
    with pytest.warns(ResourceWarning, match="unclosed client"):
        del client
    for thread in threading.enumerate():
        if thread.name.startswith("reactive_rpc.client"):
            thread.join(60)
            assert not thread.is_alive()


@pytest.mark.parametrize("refusal", [UnauthorizedError("who?"), None])
@pytest.mark.parametrize("hops", range(12))
def test_an_answer_to_the_former_caller_does_not_count(hops: int, refusal: RPCError | None) -> None:
    """At whatever turn of the event loop the caller changes while a stream is answered, the new one gets their own."""

    async def scenario() -> None:
        def change_caller(left: int = hops) -> None:
            if left:
                asyncio.get_running_loop().call_soon(change_caller, left - 1)
            else:
                client.set_token("good")

        answers = Answers(refusal, change_caller)
        async with httpx.AsyncClient(transport=answers) as http:
            client = AsyncClient("http://hub.test", token="bad", http=http)
            async with client, client.watch(GET, {"name": "a"}) as live:
                await until(lambda: "Bearer good" in answers.listeners)
                await shown(live, fresh(1))

    play(scenario)


@pytest.mark.parametrize("retry_ms", [99_999_999_999, 10**15 - 1])
def test_a_wrong_retry_does_not_end_a_watch_for_good(server: FakeServer, retry_ms: int) -> None:
    """`retry:` is bounded: the client comes back within a minute and the backoff, and follows on."""
    server.retry_ms = retry_ms
    clock = FakeClock()

    async def scenario() -> None:
        async with watching(server, "a", clock=clock) as (_, live):
            server.send(server.streams[0], None)
            await until(lambda: clock.pauses)
            assert max(clock.pauses) <= MAX_RETRY_SECONDS + CAP_SECONDS
            server.change("a", 2)
            await pass_time_until(clock, lambda: is_fresh(live, 2))

    play(scenario)
