"""Iterators: how a loop that is left closes the connection, async and sync."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from reactive_rpc.client import SyncClient
from reactive_rpc.errors import ConflictError, ConnectionFailedError, rpc_error
from reactive_rpc.protocol.envelopes import encode_error
from tests.support.waiting import until, wait_until

from .answering import EVENTS, ROWS, URL, OpenAnswer, ScriptedServer, SeatTaken, events, refused, rows
from .watching import play

TAKEN = rpc_error("CONFLICT", "taken", type="SeatTaken", details={"seat": "4B"})


def test_nothing_is_sent_before_the_first_value_is_wanted() -> None:
    """A call only makes the iterator; one that is never used costs nothing."""

    async def scenario() -> None:
        server = ScriptedServer()
        async with events(server) as (client, iterator):
            client.iterate_items(ROWS, {"room": "r"})
            assert "seats.events" in repr(iterator)
        assert server.requests == []

    play(scenario)


@pytest.mark.parametrize("way", ["break", "raise", "return"])
def test_a_loop_that_is_left_closes_the_connection(way: str) -> None:
    """With nothing else to write: the call in the loop's head is dropped with the loop."""

    async def leave(server: ScriptedServer) -> None:
        async with events(server) as (client, _):
            async for value in client.iterate_events(EVENTS, {"room": "r"}):
                assert value == 1
                if way == "break":
                    break
                if way == "raise":
                    raise LookupError
                return
            await until(lambda: server.answers[0].is_closed)

    async def scenario() -> None:
        server = ScriptedServer()
        leaving = asyncio.ensure_future(leave(server))
        (await server.answer()).value(1)
        await asyncio.wait([leaving])
        assert isinstance(leaving.exception(), LookupError if way == "raise" else type(None))
        assert server.answers[0].is_closed

    play(scenario)


def test_a_cancelled_loop_closes_the_connection() -> None:
    """As a task group cancels it while it waits."""

    async def follow(client: object) -> None:
        async for _ in client.iterate_events(EVENTS, {"room": "r"}):  # type: ignore[attr-defined]
            pass

    async def scenario() -> None:
        server = ScriptedServer()
        async with events(server) as (client, _):
            following = asyncio.ensure_future(follow(client))
            await server.answer()
            following.cancel()
            await asyncio.wait([following])
            del following
            await until(lambda: server.answers[0].is_closed)

    play(scenario)


def test_leaving_the_block_closes_the_connection() -> None:
    """Of an iterator that is kept in a variable; when the block is left, it is closed already."""

    async def scenario() -> None:
        server = ScriptedServer()
        async with events(server) as (_, iterator):
            async with iterator:
                answer = await server.answer()
                answer.value(1)
                assert await anext(iterator) == 1
            assert answer.is_closed
            await iterator.aclose()
            assert [value async for value in iterator] == []

    play(scenario)


def test_an_iterator_that_is_closed_before_it_began_asks_for_nothing() -> None:
    """Its loop is over at once."""

    async def scenario() -> None:
        server = ScriptedServer()
        async with rows(server) as (_, iterator):
            await iterator.aclose()
            assert [row async for row in iterator] == []
        assert server.requests == []

    play(scenario)


def test_entering_that_is_cancelled_closes_the_connection() -> None:
    """While the server has not answered yet."""

    async def scenario() -> None:
        server = ScriptedServer()
        server.hold.clear()
        async with events(server) as (_, iterator):
            entering = asyncio.ensure_future(iterator.__aenter__())
            await until(lambda: server.requests)
            entering.cancel()
            await asyncio.wait([entering])
            await iterator.aclose()
        assert server.answers == []

    play(scenario)


class SyncServer:
    """A scripted server that lives in the event loop of a sync client."""

    def __init__(self, *refusals: httpx.Response | Exception) -> None:
        self.server = ScriptedServer(*refusals)
        self.http = httpx.AsyncClient(transport=self.server)

    def answer(self, number: int = 0) -> OpenAnswer:
        """Wait for an answer to be begun."""
        wait_until(lambda: len(self.server.answers) > number)
        return self.server.answers[number]

    def send(self, client: SyncClient, *chunks: bytes, end: bool = False) -> None:
        """Send chunks of the first answer, in the client's thread."""
        assert client.portal is not None
        answer = self.answer()
        client.portal.call(answer.send, *chunks)
        if end:
            client.portal.call(answer.end)


@contextmanager
def sync_client(server: SyncServer) -> Iterator[SyncClient]:
    with SyncClient(URL, http=server.http) as client:
        yield client


@contextmanager
def sent(server: SyncServer, client: SyncClient, *chunks: bytes, end: bool = False) -> Iterator[None]:
    """Send chunks from another thread as soon as the client asks."""
    sending = threading.Thread(target=server.send, args=(client, *chunks), kwargs={"end": end})
    sending.start()
    yield
    sending.join()


def test_a_sync_loop_gives_the_values() -> None:
    """Of a subscription and of a streamed query; both end by themselves."""
    server = SyncServer()
    with sync_client(server) as client:
        iterator = client.iterate_events(EVENTS, {"room": "r"})
        with sent(server, client, b"id: a\ndata: 1\n\n", b"data: 2\n\nevent: ended\ndata: null\n\n"):
            assert list(iterator) == [1, 2]
        assert iterator.last_event_id == "a"
        assert list(iterator) == []
    server = SyncServer()
    with sync_client(server) as client, sent(server, client, b'{"n":1}\n{"n":2}\n', end=True):
        assert list(client.iterate_items(ROWS, {"room": "r"})) == [{"n": 1}, {"n": 2}]


def test_a_sync_loop_raises_the_error() -> None:
    """Of the handler after its values; of the server that refuses before any."""
    server = SyncServer()
    line = b'{"n":1}\n' + encode_error(TAKEN) + b"\n"
    with sync_client(server) as client, sent(server, client, line):
        iterator = client.iterate_items(ROWS, {"room": "r"})
        assert next(iterator) == {"n": 1}
        with pytest.raises(SeatTaken, match="taken"):
            next(iterator)
        assert list(iterator) == []
    server = SyncServer(refused(ConflictError("not now")))
    with (
        sync_client(server) as client,
        pytest.raises(ConflictError, match="not now"),
        client.iterate_events(EVENTS, {"room": "r"}),
    ):
        pass


def test_a_sync_loop_that_is_left_closes_the_connection() -> None:
    """By `break` alone, and by the end of the block."""
    server = SyncServer()
    with sync_client(server) as client, sent(server, client, b"data: 1\n\ndata: 2\n\n"):
        for value in client.iterate_events(EVENTS, {"room": "r"}):
            assert value == 1
            break
        gc.collect()
        wait_until(lambda: server.answer().is_closed)
    server = SyncServer()
    with sync_client(server) as client, sent(server, client, b"data: 1\n\n"):
        with client.iterate_events(EVENTS, {"room": "r"}) as iterator:
            assert next(iterator) == 1
        assert server.answer().is_closed
        assert list(iterator) == []


def test_another_thread_ends_a_sync_loop() -> None:
    """By closing the iterator, or the client: the loop is over, and a part of an export is no whole."""
    server = SyncServer()
    with sync_client(server) as client:
        iterator = client.iterate_events(EVENTS, {"room": "r"})
        values: list[int | None] = []
        looping = threading.Thread(target=lambda: values.extend(iterator))
        looping.start()
        server.answer()
        iterator.close()
        looping.join()
        assert values == []
        row_iterator = client.iterate_items(ROWS, {"room": "r"})
        errors: list[Exception] = []

        def read() -> None:
            try:
                next(row_iterator)
            except Exception as error:
                errors.append(error)

        reading = threading.Thread(target=read)
        reading.start()
        server.answer(1)
    reading.join()
    (error,) = errors
    assert isinstance(error, ConnectionFailedError)


def test_what_was_read_before_the_client_was_closed_is_still_handed_out() -> None:
    """To a sync loop that goes on afterwards; then it is over."""
    server = SyncServer()
    with sync_client(server) as client, sent(server, client, b"data: 1\n\ndata: 2\n\n"):
        iterator = client.iterate_events(EVENTS, {"room": "r"})
        assert next(iterator) == 1
    assert list(iterator) == [2]
