"""Streamed queries: what a call brings, and that a part of it is never taken for the whole."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
import respx

from reactive_rpc.client import AsyncClient
from reactive_rpc.client import item_reader as module
from reactive_rpc.errors import (
    BadRequestError,
    ConnectionFailedError,
    InternalServerError,
    NotFoundError,
    RPCError,
    ServiceUnavailableError,
    UnauthorizedError,
    WireError,
    rpc_error,
)
from reactive_rpc.protocol.envelopes import encode_error
from reactive_rpc.protocol.json_lines import JSONLinesDecoder, encode_line
from tests.support.waiting import until

from .answering import ROWS, URL, OpenAnswer, ScriptedServer, SeatTaken, refused, rows
from .watching import play

TAKEN = rpc_error("CONFLICT", "taken", type="SeatTaken", details={"seat": "4B"})


def test_values_are_decoded_in_order_until_the_answer_ends() -> None:
    """Whatever the borders of chunks; a value that looks like an error, empty lines and spaces are no exception."""

    async def scenario() -> None:
        server = ScriptedServer()
        async with rows(server) as (_, iterator):
            first = asyncio.ensure_future(anext(iterator))
            answer = await server.answer()
            looks_wrong = encode_line(b'{"error":"none"}')
            answer.send(b'{"n":1}\n{"n', b'":2}\r\n\n', looks_wrong, b'{"n":3}\n')
            answer.end()
            assert await first == {"n": 1}
            assert [row async for row in iterator] == [{"n": 2}, {"error": "none"}, {"n": 3}]
            assert [row async for row in iterator] == []
        (request,) = server.requests
        assert (request.method, dict(request.url.params)) == ("GET", {"room": "r"})
        assert (request.headers["accept"], request.headers["accept-encoding"]) == ("application/jsonl", "identity")
        assert answer.is_closed

    play(scenario)


def test_no_value_is_an_answer() -> None:
    """The iteration is over at once."""

    async def scenario() -> None:
        server = ScriptedServer()
        async with rows(server) as (_, iterator):
            waiting = asyncio.ensure_future(anext(iterator))
            (await server.answer()).end()
            with pytest.raises(StopAsyncIteration):
                await waiting

    play(scenario)


@pytest.mark.parametrize(
    ("tail", "end"),
    [
        (b"", "cut"),
        (b'{"n":', "cut"),
        (b'{"n":', "end"),
        (b'{"n":2}', "end"),
        (b'{"error":{"co', "cut"),
        (b'{"error":{"co', "end"),
    ],
)
def test_a_cut_answer_is_no_end(tail: bytes, end: str) -> None:
    """Between two lines, in the midst of one, before its line break: the values before it, and then an error."""

    async def scenario() -> None:
        server = ScriptedServer()
        async with rows(server) as (_, iterator):
            value = asyncio.ensure_future(anext(iterator))
            answer = await server.answer()
            answer.send(b'{"n":1}\n' + tail)
            getattr(answer, end)()
            assert await value == {"n": 1}
            with pytest.raises(ConnectionFailedError):
                await anext(iterator)
            assert [row async for row in iterator] == []
        assert len(server.requests) == 1

    play(scenario)


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (TAKEN, SeatTaken),
        (NotFoundError("none"), NotFoundError),
        (ServiceUnavailableError("no database"), ServiceUnavailableError),
        (RPCError(), InternalServerError),
    ],
)
def test_the_error_of_a_handler_is_raised_after_its_values(error: RPCError, raised: type[RPCError]) -> None:
    """As the class that the procedure declares; the cut that follows it is not waited for."""

    async def scenario() -> None:
        server = ScriptedServer()
        async with rows(server) as (_, iterator):
            value = asyncio.ensure_future(anext(iterator))
            answer = await server.answer()
            answer.send(b'{"n":1}\n{"n":2}\n' + encode_error(error) + b"\n")
            assert (await value, await anext(iterator)) == ({"n": 1}, {"n": 2})
            with pytest.raises(raised) as caught:
                await anext(iterator)
            assert getattr(caught.value, "seat", "4B") == "4B"
            assert [row async for row in iterator] == []
            assert answer.is_closed

    play(scenario)


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (refused(UnauthorizedError("who?")), UnauthorizedError),
        (refused(TAKEN), SeatTaken),
        (httpx.ConnectError("refused"), ConnectionFailedError),
        (httpx.Response(200, text="<html>", headers={"content-type": "text/html"}), WireError),
        (httpx.Response(200, text="[]", headers={"content-type": "application/json"}), WireError),
    ],
)
@pytest.mark.parametrize("entered", [True, False])
def test_a_refusal_is_raised(refusal: httpx.Response | Exception, error: type[Exception], entered: bool) -> None:
    """By the first value, or already on entering; nothing is asked for again."""

    async def scenario() -> None:
        server = ScriptedServer(refusal)
        async with rows(server) as (_, iterator):
            with pytest.raises(error):
                await (iterator.__aenter__() if entered else anext(iterator))
            assert [row async for row in iterator] == []
        assert len(server.requests) == 1

    play(scenario)


@pytest.mark.parametrize(
    ("garbage", "message"),
    [
        (b"no json\n", "another shape"),
        (b"[1]\n", "another shape"),
        (b"\xff\xfe\n", "another shape"),
        (b'{"error":1}\n', "no reactive_rpc envelope"),
        (b"x" * 200, "over 100 bytes"),
    ],
)
def test_garbage_is_raised(garbage: bytes, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of another type, of none, and one without end: after the values before it."""
    monkeypatch.setattr(module, "JSONLinesDecoder", lambda: JSONLinesDecoder(max_bytes=100))

    async def scenario() -> None:
        server = ScriptedServer()
        async with rows(server) as (_, iterator):
            value = asyncio.ensure_future(anext(iterator))
            answer = await server.answer()
            answer.send(b'{"n":1}\n', garbage)
            assert await value == {"n": 1}
            with pytest.raises(WireError, match=message):
                await anext(iterator)
            assert answer.is_closed

    play(scenario)


@pytest.mark.parametrize(
    ("version", "headers", "is_framed"),
    [
        (b"HTTP/1.0", {}, False),
        (b"HTTP/1.1", {}, False),
        (b"HTTP/1.0", {"content-length": "8"}, True),
        (b"HTTP/1.1", {"transfer-encoding": "chunked"}, True),
        (b"HTTP/2", {}, True),
    ],
)
@respx.mock
def test_an_answer_whose_end_would_look_like_a_cut_is_refused(
    version: bytes, headers: dict[str, str], is_framed: bool
) -> None:
    """As a proxy that speaks HTTP/1.0 sends it: the closed connection is then all that says that it is over."""

    async def scenario() -> None:
        stream = OpenAnswer(httpx.Request("GET", URL))
        stream.send(b'{"n":1}\n')
        stream.end()
        found = {"content-type": "application/jsonl", **headers}
        answer = httpx.Response(200, headers=found, stream=stream, extensions={"http_version": version})
        respx.get(f"{URL}/rpc/seats.rows").mock(return_value=answer)
        async with AsyncClient(URL) as client:
            iterator = client.iterate_items(ROWS, {"room": "r"})
            if is_framed:
                assert [row async for row in iterator] == [{"n": 1}]
            else:
                with pytest.raises(WireError, match=r"speak HTTP/1\.1"):
                    await anext(iterator)

    play(scenario)


def test_a_large_input_goes_by_post() -> None:
    """As any call's."""

    async def scenario() -> None:
        server = ScriptedServer()
        async with rows(server) as (client, _):
            iterator = client.iterate_items(ROWS, {"room": "r" * 10_000})
            async with iterator:
                (request,) = server.requests
                assert request.method == "POST"
                assert json.loads(request.content) == {"room": "r" * 10_000}

    play(scenario)


def test_an_input_that_does_not_fit_is_refused_before_anything_is_sent() -> None:
    """By the call itself, not by the first value."""

    async def scenario() -> None:
        server = ScriptedServer()
        async with rows(server) as (client, _):
            with pytest.raises(BadRequestError):
                client.iterate_items(ROWS, {"room": 1})
        assert server.requests == []

    play(scenario)


def test_hardly_anything_is_read_ahead() -> None:
    """The next chunk stays with the server until the values of the one before are taken."""

    async def scenario() -> None:
        server = ScriptedServer()
        async with rows(server) as (_, iterator):
            value = asyncio.ensure_future(anext(iterator))
            answer = await server.answer()
            answer.send(*(b'{"n":%d}\n{"n":%d}\n' % (2 * number, 2 * number + 1) for number in range(100)))
            answer.end()
            assert await value == {"n": 0}
            for _ in range(10):
                await asyncio.sleep(0)
            assert answer.chunks.qsize() == 100
            assert [row["n"] async for row in iterator] == list(range(1, 200))

    play(scenario)


def test_another_caller_leaves_a_running_export_alone() -> None:
    """It was asked for once, and is read as the caller who asked."""

    async def scenario() -> None:
        server = ScriptedServer()
        async with rows(server, token="ada") as (client, iterator):
            value = asyncio.ensure_future(anext(iterator))
            answer = await server.answer()
            answer.send(b'{"n":1}\n')
            await value
            client.set_token("bob")
            answer.send(b'{"n":2}\n')
            answer.end()
            assert [row async for row in iterator] == [{"n": 2}]
        assert server.callers == ["Bearer ada"]

    play(scenario)


def test_closing_the_client_is_no_end() -> None:
    """For whoever waits, and for whoever begins later: a part is never the whole."""

    async def scenario() -> None:
        server = ScriptedServer()
        async with rows(server) as (client, iterator):
            later = client.iterate_items(ROWS, {"room": "r"})
            waiting = asyncio.ensure_future(anext(iterator))
            await server.answer()
            await client.aclose()
            with pytest.raises(ConnectionFailedError, match="closed before"):
                await waiting
            with pytest.raises(ConnectionFailedError, match="closed before"):
                await anext(later)
        await until(lambda: server.answers[0].is_closed)

    play(scenario)
