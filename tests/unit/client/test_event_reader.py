"""Subscriptions: what each ending of a connection means, who is told of it, and from where the next one goes on."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable
from functools import partial

import httpx
import pytest

from reactive_rpc.client import AsyncClient, EventIterator, transport
from reactive_rpc.client.backoff import BASE_SECONDS, CAP_SECONDS
from reactive_rpc.client.retrying import HEARTBEATS_MISSED, MAX_RETRY_SECONDS, STABLE_SECONDS
from reactive_rpc.errors import (
    ConnectionFailedError,
    ForbiddenError,
    InternalServerError,
    NotFoundError,
    RPCError,
    ServiceUnavailableError,
    TooManyRequestsError,
    UnauthorizedError,
    WireError,
    rpc_error,
)
from reactive_rpc.protocol.envelopes import encode_error
from reactive_rpc.protocol.sse import SSEDecoder, encode_event
from tests.support.waiting import until

from .answering import EVENTS, URL, OpenAnswer, ScriptedServer, SeatGone, SeatTaken, events, refused
from .watching import FakeClock, pass_time_until, play

TAKEN = rpc_error("CONFLICT", "taken", type="SeatTaken", details={"seat": "4B"})
GONE = rpc_error("SERVICE_UNAVAILABLE", "gone", type="SeatGone", details={"seat": "4B"})


def answered(server: ScriptedServer, times: int) -> bool:
    """Tell whether so many answers were begun."""
    return len(server.answers) == times


async def after_pauses(clock: FakeClock, value: Awaitable[int | None]) -> int | None:
    """Let time pass until a value comes."""
    task = asyncio.ensure_future(value)
    await pass_time_until(clock, task.done)
    return task.result()


def test_values_are_decoded_in_order_until_the_handler_returns() -> None:
    """Whatever the borders of chunks; null is a value; events of other names and comments are none."""

    async def scenario() -> None:
        server = ScriptedServer()
        async with events(server) as (_, iterator):
            first = asyncio.ensure_future(anext(iterator))
            answer = await server.answer()
            answer.send(b"retry: 1000\n\n: heartbeat\n\nid: 1\ndata: 1\n", b"\nda", b"ta: null\n\n")
            answer.event("of-a-newer-server", b"{}")
            answer.value(3)
            answer.event("ended")
            assert await first == 1
            assert [value async for value in iterator] == [None, 3]
            assert [value async for value in iterator] == []
            assert iterator.last_event_id == "1"
        (request,) = server.requests
        assert (request.method, dict(request.url.params)) == ("GET", {"room": "r"})
        assert (request.headers["accept"], request.headers["accept-encoding"]) == ("text/event-stream", "identity")
        assert server.answers[0].is_closed

    play(scenario)


@pytest.mark.parametrize("end", ["end", "cut"])
def test_a_cut_connection_is_replaced_by_one_that_goes_on_from_the_last_id(end: str) -> None:
    """A value without an id leaves the last one; the pauses grow, and are at least what `retry:` says."""

    async def scenario() -> None:
        server, clock = ScriptedServer(), FakeClock()
        async with events(server, clock=clock) as (_, iterator):
            for number in range(3):
                value = asyncio.ensure_future(after_pauses(clock, anext(iterator)))
                answer = await server.answer(number)
                answer.send(b"retry: 2000\n\n")
                answer.value(number, id=f"i{number}" if number != 1 else None)
                assert await value == number
                getattr(answer, end)()
            await pass_time_until(clock, lambda: len(server.requests) == 4)
            await iterator.aclose()
        assert server.resumed_from == [None, "i0", "i0", "i2"]
        assert clock.pauses == [2.0 + BASE_SECONDS, 2.0 + 2 * BASE_SECONDS, 2.0 + 4 * BASE_SECONDS]

    play(scenario)


class CuttingServer(httpx.AsyncBaseTransport):
    """Goes on exactly after the last id, and cuts the connection at any byte, as a network or a server does."""

    def __init__(self, rng: random.Random, count: int) -> None:
        self.rng = rng
        self.count = count
        self.cuts = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer with the rest, or a part of it."""
        rng = self.rng
        first = int(request.headers.get("last-event-id", 0)) + 1
        events = (encode_event("message", b"%d" % n, id=str(n)) for n in range(first, self.count + 1))
        wire = b"retry: 1000\n\n" + b": heartbeat\n\n".join([*events, b"event: ended\ndata: null\n\n"])
        answer = OpenAnswer(request)
        end = rng.choice([len(wire), rng.randrange(len(wire))])
        for start in range(0, end, size := rng.randrange(1, 60)):
            answer.send(wire[start : min(start + size, end)])
        if end < len(wire):
            self.cuts += 1
            rng.choice([answer.cut, answer.end])()
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=answer)


@pytest.mark.parametrize("seed", range(40))
def test_each_value_comes_once_wherever_the_connection_is_cut(seed: int) -> None:
    """In the midst of an event, of its id, between two; if the handler goes on exactly after the id."""

    async def scenario() -> None:
        server, clock = CuttingServer(random.Random(seed), 40), FakeClock()
        async with httpx.AsyncClient(transport=server) as http, AsyncClient(URL, http=http, clock=clock) as client:
            iterator = client.iterate_events(EVENTS, {"room": "r"})
            reading = asyncio.ensure_future(collect(iterator))
            await pass_time_until(clock, reading.done)
            assert reading.result() == list(range(1, 41))

    play(scenario)


async def collect(iterator: EventIterator[int | None]) -> list[int | None]:
    """Return all values."""
    return [value async for value in iterator]


def test_a_connection_that_was_good_is_replaced_soon() -> None:
    """A server that stops sends its clients away; they come back within the time that it has named."""

    async def scenario() -> None:
        server, clock = ScriptedServer(), FakeClock()
        async with events(server, clock=clock) as (_, iterator):
            value = asyncio.ensure_future(anext(iterator))
            answer = await server.answer()
            answer.send(b"retry: 2000\n\ndata: 1\n\n")
            await value
            clock.now += STABLE_SECONDS
            answer.end()
            waiting = asyncio.ensure_future(anext(iterator))
            await pass_time_until(clock, lambda: len(server.answers) == 2)
            await iterator.aclose()
            with pytest.raises(StopAsyncIteration):
                await waiting
        assert clock.pauses == [2.0]

    play(scenario)


def test_a_wrong_retry_does_not_end_a_subscription() -> None:
    """It is honoured up to a bound."""

    async def scenario() -> None:
        server, clock = ScriptedServer(), FakeClock()
        async with events(server, clock=clock) as (_, iterator):
            value = asyncio.ensure_future(anext(iterator))
            answer = await server.answer()
            answer.send(b"retry: 86400000\n\ndata: 1\n\n")
            await value
            answer.cut()
            await pass_time_until(clock, lambda: len(server.answers) == 2)
        assert clock.pauses[0] <= MAX_RETRY_SECONDS + CAP_SECONDS

    play(scenario)


@pytest.mark.parametrize(
    "refusal",
    [
        refused(ServiceUnavailableError("starting"), {"retry-after": "7"}),
        refused(TooManyRequestsError("slowly"), {"retry-after": "7"}),
        httpx.ConnectError("refused"),
        httpx.Response(502, text="<html>"),
        httpx.Response(200, text="<html>", headers={"content-type": "text/html"}),
    ],
)
def test_a_refusal_that_passes_is_waited_for_when_coming_back(refusal: httpx.Response | Exception) -> None:
    """As long as the server asks for; so is a network that is away."""

    async def scenario() -> None:
        server, clock = ScriptedServer(), FakeClock()
        async with events(server, clock=clock) as (_, iterator):
            value = asyncio.ensure_future(anext(iterator))
            (await server.answer()).value(1, id="a")
            await value
            server.refusals.append(refusal)
            server.answers[0].cut()
            value = asyncio.ensure_future(after_pauses(clock, anext(iterator)))
            (await server.answer(1)).value(2)
            assert await value == 2
        assert server.resumed_from == [None, "a", "a"]
        asked_seconds = 7.0 if isinstance(refusal, httpx.Response) and "retry-after" in refusal.headers else 0.0
        assert clock.pauses == [BASE_SECONDS, asked_seconds + 2 * BASE_SECONDS]

    play(scenario)


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (refused(ServiceUnavailableError("starting")), ServiceUnavailableError),
        (refused(UnauthorizedError("who?")), UnauthorizedError),
        (refused(TAKEN), SeatTaken),
        (httpx.ConnectError("refused"), ConnectionFailedError),
        (httpx.Response(200, text="<html>", headers={"content-type": "text/html"}), WireError),
    ],
)
@pytest.mark.parametrize("entered", [True, False])
def test_the_failure_of_the_first_connection_is_raised(
    refusal: httpx.Response | Exception, error: type[Exception], entered: bool
) -> None:
    """By the first value, or already on entering; after it the iteration is over."""

    async def scenario() -> None:
        server = ScriptedServer(refusal)
        async with events(server) as (_, iterator):
            with pytest.raises(error):
                await (iterator.__aenter__() if entered else anext(iterator))
            assert [value async for value in iterator] == []
        assert len(server.requests) == 1

    play(scenario)


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event stream has no timeout of its own once it has begun, so its beginning has one."""
    monkeypatch.setattr(transport, "OPEN_SECONDS", 0.02)

    async def scenario() -> None:
        server = ScriptedServer()
        server.hold.clear()
        async with events(server) as (_, iterator):
            with pytest.raises(ConnectionFailedError, match="did not begin"):
                await anext(iterator)

    play(scenario)


@pytest.mark.parametrize(
    ("error", "raised"),
    [(TAKEN, SeatTaken), (GONE, SeatGone), (NotFoundError("none"), NotFoundError), (RPCError(), InternalServerError)],
)
def test_the_error_of_a_handler_is_raised_after_its_values(error: RPCError, raised: type[RPCError]) -> None:
    """As the class that the procedure declares, whatever its code; nobody comes back."""

    async def scenario() -> None:
        server = ScriptedServer()
        async with events(server) as (_, iterator):
            value = asyncio.ensure_future(anext(iterator))
            answer = await server.answer()
            answer.send(b"data: 1\n\ndata: 2\n\nevent: failed\ndata: " + encode_error(error) + b"\n\n")
            assert (await value, await anext(iterator)) == (1, 2)
            with pytest.raises(raised) as caught:
                await anext(iterator)
            assert getattr(caught.value, "seat", "4B") == "4B"
            assert [value async for value in iterator] == []
        assert len(server.requests) == 1

    play(scenario)


def test_a_failure_that_passes_is_a_cut() -> None:
    """The handler could not go on just now, as the database cannot be read; the next connection does."""

    async def scenario() -> None:
        server, clock = ScriptedServer(), FakeClock()
        async with events(server, clock=clock) as (_, iterator):
            value = asyncio.ensure_future(after_pauses(clock, anext(iterator)))
            (await server.answer()).event("failed", encode_error(ServiceUnavailableError("no database")))
            (await server.answer(1)).value(1)
            assert await value == 1
        assert clock.pauses == [BASE_SECONDS]

    play(scenario)


@pytest.mark.parametrize("refusal", [UnauthorizedError("log in again"), ForbiddenError("not for you")])
def test_a_lost_right_is_asked_for_again_at_once_and_its_refusal_raised(refusal: RPCError) -> None:
    """The refusal says why, as the guard has written it."""

    async def scenario() -> None:
        server, clock = ScriptedServer(), FakeClock()
        async with events(server, clock=clock) as (_, iterator):
            value = asyncio.ensure_future(anext(iterator))
            answer = await server.answer()
            answer.value(1, id="a")
            await value
            server.refusals.append(refused(refusal))
            answer.event("revoked", b'{"reason": "the role was taken away"}')
            answer.end()
            with pytest.raises(type(refusal), match=refusal.message):
                await after_pauses(clock, anext(iterator))
        assert clock.pauses == [0.0]
        assert server.resumed_from == [None, "a"]

    play(scenario)


def test_a_right_that_is_lost_again_and_again_is_asked_for_with_pauses() -> None:
    """A server that takes each new connection back must not be asked without a pause."""

    async def scenario() -> None:
        server, clock = ScriptedServer(), FakeClock()
        async with events(server, clock=clock) as (_, iterator):
            waiting = asyncio.ensure_future(anext(iterator))
            for number in range(3):
                (await server.answer(number)).event("revoked", b'{"reason": "?"}')
                await pass_time_until(clock, partial(answered, server, number + 2))
            await iterator.aclose()
            with pytest.raises(StopAsyncIteration):
                await waiting
        assert [seconds for seconds in clock.pauses if seconds] == [2 * BASE_SECONDS, 4 * BASE_SECONDS]

    play(scenario)


def test_another_caller_begins_anew() -> None:
    """As the new caller, at once, without the id of the former's and without a value that was meant for that one."""

    async def scenario() -> None:
        server = ScriptedServer()
        async with events(server, token="ada") as (client, iterator):
            value = asyncio.ensure_future(anext(iterator))
            answer = await server.answer()
            answer.send(b"id: a\ndata: 1\n\nid: b\ndata: 2\n\n")
            assert await value == 1
            client.set_token("bob")
            assert iterator.last_event_id is None
            value = asyncio.ensure_future(anext(iterator))
            (await server.answer(1)).value(3, id="c")
            assert await value == 3
            assert answer.is_closed
        assert server.callers == ["Bearer ada", "Bearer bob"]
        assert server.resumed_from == [None, None]

    play(scenario)


def test_a_newer_token_of_the_same_caller_loses_nothing() -> None:
    """The connection stays until the server ends it, as the old token expires; the next one goes on with the new."""

    async def scenario() -> None:
        server, clock = ScriptedServer(), FakeClock()
        async with events(server, clock=clock, token="ada 1") as (client, iterator):
            value = asyncio.ensure_future(anext(iterator))
            answer = await server.answer()
            answer.send(b"id: a\ndata: 1\n\nid: b\ndata: 2\n\n")
            assert await value == 1
            client.renew_token("ada 2")
            assert (await anext(iterator), iterator.last_event_id) == (2, "b")
            answer.value(3, id="c")
            assert await anext(iterator) == 3
            answer.event("revoked", b'{"reason": "the login has expired"}')
            value = asyncio.ensure_future(after_pauses(clock, anext(iterator)))
            (await server.answer(1)).value(4)
            assert await value == 4
        assert server.callers == ["Bearer ada 1", "Bearer ada 2"]
        assert server.resumed_from == [None, "c"]

    play(scenario)


@pytest.mark.parametrize("ending", [b"data: 2\n\n", b"event: ended\ndata: null\n\n"])
def test_nothing_that_was_answered_to_the_former_caller_counts(ending: bytes) -> None:
    """Neither a value nor an end that is here already, and not yet read, when the caller changes."""

    async def scenario() -> None:
        server = ScriptedServer()
        async with events(server, token="ada") as (client, iterator):
            value = asyncio.ensure_future(anext(iterator))
            answer = await server.answer()
            answer.value(1)
            await value
            await until(lambda: answer.chunks._getters)  # type: ignore[attr-defined]  # the reader waits for more
            answer.send(ending)
            client.set_token("bob")
            value = asyncio.ensure_future(anext(iterator))
            (await server.answer(1)).value(3)
            assert await value == 3

    play(scenario)


def test_another_caller_who_is_refused_hears_so() -> None:
    """The iteration ends with the refusal."""

    async def scenario() -> None:
        server = ScriptedServer()
        async with events(server, token="ada") as (client, iterator):
            value = asyncio.ensure_future(anext(iterator))
            (await server.answer()).value(1)
            await value
            server.refusals.append(refused(UnauthorizedError("who?")))
            client.set_token("nobody")
            with pytest.raises(UnauthorizedError):
                await anext(iterator)

    play(scenario)


def test_another_caller_while_the_first_connection_is_being_opened() -> None:
    """What the former is answered with does not count, though it be an error."""

    async def scenario() -> None:
        server = ScriptedServer(refused(UnauthorizedError("who?")))
        server.hold.clear()
        async with events(server, token="ada") as (client, iterator):
            value = asyncio.ensure_future(anext(iterator))
            await until(lambda: server.requests)
            client.set_token("bob")
            server.refusals.clear()
            server.hold.set()
            (await server.answer()).value(1)
            assert await value == 1
        assert server.callers == ["Bearer ada", "Bearer bob"]

    play(scenario)


def test_closing_the_client_ends_the_iteration() -> None:
    """For whoever waits in it, and for whoever begins later."""

    async def scenario() -> None:
        server = ScriptedServer()
        async with events(server) as (client, iterator):
            later = client.iterate_events(_procedure(iterator), {"room": "r"})
            waiting = asyncio.ensure_future(anext(iterator))
            await server.answer()
            await client.aclose()
            with pytest.raises(StopAsyncIteration):
                await waiting
            assert [value async for value in later] == []
        assert server.answers[0].is_closed

    play(scenario)


def _procedure(iterator: EventIterator[int | None]):  # type: ignore[no-untyped-def]
    return iterator._events._procedure


def test_a_peer_that_vanishes_is_noticed_by_missing_heartbeats() -> None:
    """A comment counts as a sign of life."""

    async def scenario() -> None:
        server, clock = ScriptedServer(reactive_heartbeat_seconds="25.0"), FakeClock()
        async with events(server, clock=clock) as (_, iterator):
            value = asyncio.ensure_future(anext(iterator))
            answer = await server.answer()
            answer.value(1, id="a")
            await value
            await until(lambda: clock.pauses)
            clock.now = 25.0
            answer.send(b": heartbeat\n\n")
            value = asyncio.ensure_future(after_pauses(clock, anext(iterator)))
            (await server.answer(1)).value(2)
            assert await value == 2
            assert answer.is_closed
        assert clock.pauses[0] == 25.0 * HEARTBEATS_MISSED
        assert server.resumed_from == [None, "a"]

    play(scenario)


def test_a_slow_consumer_is_no_vanished_peer() -> None:
    """While nobody takes the values, nobody listens for heartbeats either."""

    async def scenario() -> None:
        server, clock = ScriptedServer(reactive_heartbeat_seconds="25.0"), FakeClock()
        async with events(server, clock=clock) as (_, iterator):
            value = asyncio.ensure_future(anext(iterator))
            answer = await server.answer()
            answer.send(b"data: 1\n\ndata: 2\n\n")
            await value
            await pass_time_until(clock, lambda: len(clock.pauses) > 3)
            answer.value(3)
            assert (await anext(iterator), await anext(iterator)) == (2, 3)
        assert len(server.requests) == 1

    play(scenario)


@pytest.mark.parametrize("promise", ["soon", "", "nan"])
def test_a_promise_that_is_no_number_is_none(promise: str) -> None:
    """The connection may then be silent for any time."""

    async def scenario() -> None:
        server, clock = ScriptedServer(reactive_heartbeat_seconds=promise), FakeClock()
        async with events(server, clock=clock) as (_, iterator):
            value = asyncio.ensure_future(anext(iterator))
            (await server.answer()).value(1)
            await value
        assert clock.pauses == []

    play(scenario)


def test_hardly_anything_is_read_ahead() -> None:
    """The next chunk stays with the server until the values of the one before are taken."""

    async def scenario() -> None:
        server = ScriptedServer()
        async with events(server) as (_, iterator):
            value = asyncio.ensure_future(anext(iterator))
            answer = await server.answer()
            answer.send(*(b"data: %d\n\ndata: %d\n\n" % (2 * number, 2 * number + 1) for number in range(100)))
            assert await value == 0
            for _ in range(10):
                await asyncio.sleep(0)
            assert answer.chunks.qsize() == 99
            assert [await anext(iterator) for _ in range(199)] == list(range(1, 200))

    play(scenario)


def test_a_wait_that_is_given_up_loses_nothing() -> None:
    """A value that comes later is handed out by the next wait, of the same connection."""

    async def scenario() -> None:
        server = ScriptedServer()
        async with events(server) as (_, iterator):
            waiting = asyncio.ensure_future(anext(iterator))
            answer = await server.answer()
            waiting.cancel()
            await asyncio.wait([waiting])
            answer.value(1)
            assert await anext(iterator) == 1
        assert len(server.requests) == 1

    play(scenario)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b'data: "text"\n\n', "another shape"),
        (b"data: 2", "over"),
        ("id: \u00e4\ndata: 2\n\n".encode(), "no header can send back"),
        (b"event: failed\ndata: 1\n\n", "no reactive_rpc envelope"),
    ],
)
def test_what_another_connection_would_bring_again_is_raised(
    bad: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value of another type, and one without end: after the values before it."""
    if message == "over":
        monkeypatch.setattr("reactive_rpc.client.event_reader.SSEDecoder", _Small)

    async def scenario() -> None:
        server = ScriptedServer()
        async with events(server) as (_, iterator):
            value = asyncio.ensure_future(anext(iterator))
            answer = await server.answer()
            answer.send(b"data: 1\n\n", bad if message != "over" else bad * 100)
            assert await value == 1
            with pytest.raises(WireError, match=message):
                await anext(iterator)
        assert len(server.requests) == 1

    play(scenario)


class _Small(SSEDecoder):
    def __init__(self) -> None:
        super().__init__(max_bytes=100)


def test_a_subscription_goes_on_in_another_process() -> None:
    """By the input that the handler declares; until a value with an id comes, that is the last id."""

    async def scenario() -> None:
        server, clock = ScriptedServer(), FakeClock()
        async with events(server, clock=clock, last_event_id="17") as (client, iterator):
            assert iterator.last_event_id == "17"
            value = asyncio.ensure_future(anext(iterator))
            answer = await server.answer()
            answer.value(1)
            await value
            assert iterator.last_event_id == "17"
            answer.value(2, id="18")
            await anext(iterator)
            assert iterator.last_event_id == "18"
            answer.cut()
            await pass_time_until(clock, lambda: len(server.answers) == 2)
            client.set_token("bob")
            assert iterator.last_event_id == "17"
        assert {json.dumps(dict(request.url.params)) for request in server.requests} == {
            '{"room": "r", "last_event_id": "17"}'
        }
        assert server.resumed_from[:2] == [None, "18"]

    play(scenario)
