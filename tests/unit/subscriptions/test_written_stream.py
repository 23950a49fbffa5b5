"""A stream with a writer: each event is waited for until it has left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from reactive_rpc.protocol.sse import SSEDecoder, encode_event
from reactive_rpc.subscriptions.frame import Frame
from reactive_rpc.subscriptions.stats import HubStats
from reactive_rpc.subscriptions.stream import StreamOptions
from reactive_rpc.subscriptions.writer import Flusher
from reactive_rpc.subscriptions.written_stream import WrittenStream
from reactive_rpc.tasks import background
from reactive_rpc.testing import FakeClock
from tests.unit.cache.scripted import until

pytestmark = pytest.mark.anyio


def frame_of(text: str) -> Frame:
    return Frame("message", 0, "", encode_event("message", text.encode()))


@pytest.fixture
def stream() -> WrittenStream:
    clock = FakeClock()
    options = StreamOptions(
        clock=clock,
        stats=HubStats(),
        flusher=Flusher(clock),
        look_after=lambda _: None,
        max_events=1,
        max_bytes=1,
        retry_seconds=(2.0,),
    )
    return WrittenStream("s", options, acks=False)


class Connection:
    """Takes what a stream sends, unless `gate` is clear."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._decoder = SSEDecoder()

    async def send(self, chunk: bytes) -> None:
        if not self.gate.is_set():
            await self.gate.wait()
        self.got += [event.data for event in self._decoder.feed(chunk)]


@asynccontextmanager
async def read(stream: WrittenStream) -> AsyncIterator[Connection]:
    """Have a connection read a stream; it ends with the block."""
    connection = Connection()
    async with background(stream.write_to(connection.send), "reader"):
        yield connection


async def settle() -> None:
    """Let everything happen that does not wait for the test."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_writer_waits_until_its_event_has_left(stream: WrittenStream) -> None:
    """However large it is; while the connection takes nothing, the next one is not begun."""
    async with read(stream) as connection:
        await stream.put(frame_of("one" * 100))
        assert connection.got == ["one" * 100]
        connection.gate.clear()
        async with background(stream.put(frame_of("two")), "writer") as putting:
            await settle()
            assert not putting.done()
            connection.gate.set()
            await until(putting.done)
        assert connection.got[1:] == ["two"]
        stream.close()


async def test_a_writer_waits_while_the_stream_is_held(stream: WrittenStream) -> None:
    """Its right is being asked for: what it has put leaves once that is found, and it goes on."""
    async with read(stream) as connection:
        stream.hold()
        async with background(stream.put(frame_of("one")), "writer") as putting:
            await settle()
            assert (putting.done(), connection.got) == (False, [])
            stream.release()
            await until(putting.done)
        assert connection.got == ["one"]
        stream.close()


async def test_whoever_writes_to_a_closed_stream_is_kept_until_cancelled(stream: WrittenStream) -> None:
    """Its answer cancels it; nothing more is sent."""
    async with read(stream) as connection:
        stream.close()
        async with background(stream.put(frame_of("one")), "writer") as putting:
            await settle()
            assert (putting.done(), connection.got) == (False, [])
