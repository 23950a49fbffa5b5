"""A stream: acknowledged cumulatively, sent again after 2, 5 and 10 seconds, bounded, and closed in the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from reactive_rpc.changes.memory_store import InMemoryEphemeralStore
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.protocol.events import Affected, Gap, Invalidation, Revoked, decode_event
from reactive_rpc.protocol.sse import SSEDecoder
from reactive_rpc.subscriptions.acknowledgements import Acknowledgements
from reactive_rpc.subscriptions.frame import Frame, gap_frame, invalidation_frame, revoked_frame
from reactive_rpc.subscriptions.redelivery import REDELIVERY_SECONDS, Redelivery
from reactive_rpc.subscriptions.stats import HubStats
from reactive_rpc.subscriptions.stream import (
    GOODBYE_SECONDS,
    READER_STALLED_SECONDS,
    Stream,
    StreamOptions,
    StreamState,
)
from reactive_rpc.subscriptions.writer import Flusher
from reactive_rpc.testing import FakeClock
from tests.unit.cache.scripted import until

pytestmark = pytest.mark.anyio

RETRY_SECONDS = (2.0, 5.0, 10.0)


def frame_of(version: int, size: int = 0) -> Frame:
    affected = Affected(path="p", key=f"k{version}", input="x" * size or None)
    return invalidation_frame(version, f"e:{version}", [affected], {"item"}, f"i{version}")


@dataclass
class Client:
    """What one client gets from a stream: `(version, retry)` of each event, the name of any other.

    Attributes:
        gate: clear while the connection takes nothing.
    """

    stream: Stream
    clock: FakeClock
    stats: HubStats
    redelivery: Redelivery
    got: list[tuple[int, int | None] | str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    reading: asyncio.Task[None] | None = None
    _decoder: SSEDecoder = field(default_factory=SSEDecoder)

    async def send(self, chunk: bytes) -> None:
        if not self.gate.is_set():
            await self.gate.wait()
        for sent in self._decoder.feed(chunk):
            event = decode_event(sent)
            if isinstance(event, Invalidation):
                self.got.append((Cursor.parse(event.cursor).version, event.retry))
            else:
                self.got.append(sent.event)

    def read(self) -> None:
        self.reading = asyncio.create_task(self.stream.write_to(self.send))

    def push(self, *versions: int, size: int = 0) -> None:
        for version in versions:
            self.stream.push(frame_of(version, size))

    async def gets(self, count: int) -> None:
        await until(lambda: len(self.got) == count)

    async def passes(self, seconds: float) -> None:
        """Let time pass, look by look."""
        until_then = self.clock.monotonic() + seconds
        while self.clock.monotonic() < until_then:
            for _ in range(10):
                await asyncio.sleep(0)
            self.clock.advance(REDELIVERY_SECONDS)
        for _ in range(10):
            await asyncio.sleep(0)

    async def ended(self) -> None:
        await until(lambda: self.reading is not None and self.reading.done())


class Clients:
    """Makes clients, and closes what they have opened."""

    def __init__(self) -> None:
        self._made: list[Client] = []

    def __call__(self, *, acks: bool = True, max_events: int = 4, max_bytes: int = 100_000) -> Client:
        clock, stats = FakeClock(), HubStats()
        redelivery = Redelivery(clock, Acknowledgements(InMemoryEphemeralStore(clock), clock), Stream.acknowledge)
        options = StreamOptions(
            clock=clock,
            stats=stats,
            flusher=Flusher(clock),
            look_after=redelivery.add,
            max_events=max_events,
            max_bytes=max_bytes,
            retry_seconds=RETRY_SECONDS,
        )
        made = Client(Stream("s", options, acks=acks), clock, stats, redelivery)
        made.gate.set()
        self._made.append(made)
        return made

    async def aclose(self) -> None:
        for client in self._made:
            client.stream.abort()
            await client.redelivery.aclose()
            if client.reading is not None:
                await asyncio.gather(client.reading, return_exceptions=True)
            assert client.clock.sleepers == 0


@pytest.fixture
async def client(anyio_backend: str) -> AsyncIterator[Clients]:
    clients = Clients()
    yield clients
    await clients.aclose()


async def test_unacknowledged_events_are_sent_again_and_then_given_up(client: Clients) -> None:
    """After 2, 5 and 10 seconds, marked 1, 2 and 3; ten seconds later the stream ends, and what it owed is counted."""
    c = client()
    c.read()
    c.push(1)
    await c.gets(1)
    for tries, seconds in enumerate(RETRY_SECONDS, start=1):
        await c.passes(seconds - REDELIVERY_SECONDS)
        assert len(c.got) == tries
        await c.passes(REDELIVERY_SECONDS)
        await c.gets(tries + 1)
    assert c.got == [(1, None), (1, 1), (1, 2), (1, 3)]
    await c.passes(RETRY_SECONDS[-1])
    await c.ended()
    assert c.stream.closed
    assert (c.stats.events, c.stats.retried, c.stats.abandoned) == (1, 3, 1)


async def test_an_acknowledgement_counts_for_all_before_it(client: Clients) -> None:
    """Up to its cursor; what came after it is sent again, from the first pause."""
    c = client()
    c.read()
    c.push(1, 2, 3)
    await c.gets(3)
    await c.passes(2)
    await c.gets(6)
    c.stream.acknowledge(Cursor("e", 2))
    await c.passes(2)
    await c.gets(7)
    assert c.got[3:] == [(1, 1), (2, 1), (3, 1), (3, 1)]
    c.stream.acknowledge(Cursor("e", 3))
    await c.passes(100)
    c.push(4)
    await c.gets(8)
    assert c.got[-1] == (4, None)
    assert (c.stats.acknowledged, c.stats.retried, c.stats.abandoned) == (3, 4, 0)


async def test_an_early_or_repeated_acknowledgement_changes_nothing(client: Clients) -> None:
    """Of what was never sent, or acknowledged already."""
    c = client()
    c.stream.acknowledge(Cursor("e", 9))
    c.read()
    c.push(1)
    await c.gets(1)
    c.stream.acknowledge(Cursor("e", 0))
    await c.passes(2)
    await c.gets(2)
    assert c.got == [(1, None), (1, 1)]


async def test_a_client_that_does_not_acknowledge_is_sent_everything_once(client: Clients) -> None:
    """Nobody looks after it, and no timer runs."""
    c = client(acks=False)
    c.read()
    c.push(1, 2)
    await c.gets(2)
    assert c.clock.sleepers == 0
    c.clock.advance(1000)
    c.push(3)
    await c.gets(3)
    assert c.got == [(1, None), (2, None), (3, None)]
    assert c.stream.waiting_bytes == 0


@pytest.mark.parametrize("bound", ["events", "bytes"])
async def test_what_waits_past_the_bound_becomes_one_gap(client: Clients, bound: str) -> None:
    """The client is told that it missed something; nothing more than the bound ever waits."""
    c = client(acks=False, max_bytes=5_000) if bound == "events" else client(acks=False, max_bytes=1_500)
    c.push(1, 2, 3, 4, 5, 6, size=0 if bound == "events" else 200)
    assert c.stream.waiting_bytes < 1_500
    c.read()
    await c.gets(2)
    assert c.got == ["gap", (6, None)]


async def test_an_event_that_is_too_large_is_a_gap(client: Clients) -> None:
    """Alone past the bound in bytes: the stream goes on."""
    c = client(acks=False, max_bytes=1_000)
    c.read()
    c.push(1, size=2_000)
    c.push(2)
    await c.gets(2)
    assert c.got == ["gap", (2, None)]
    assert c.stats.gaps == 1


async def test_unacknowledged_events_count_towards_the_bound(client: Clients) -> None:
    """A client that reads and never acknowledges costs no more than one that does not read."""
    c = client()
    c.read()
    c.push(1, 2, 3, 4)
    await c.gets(4)
    c.push(5)
    await c.gets(5)
    assert c.got[-1] == "gap"
    await c.passes(2)
    await c.gets(6)
    assert c.got[-1] == "gap"


async def test_a_gap_takes_the_place_of_what_waits(client: Clients) -> None:
    """It says more than all of it, and what is unacknowledged need not be sent again."""
    c = client()
    c.read()
    c.push(1)
    await c.gets(1)
    c.stream.push(gap_frame(2, "e:2", "restored"))
    await c.gets(2)
    await c.passes(2)
    await c.gets(3)
    assert c.got == [(1, None), "gap", "gap"]


async def test_a_stream_that_closes_sends_what_waits(client: Clients) -> None:
    """Then it ends; what is pushed later is dropped."""
    c = client()
    c.push(1)
    c.stream.close()
    c.push(2)
    c.read()
    await c.ended()
    assert c.got == [(1, None)]


async def test_a_revoked_stream_says_nothing_else(client: Clients) -> None:
    """What waits is for somebody who may not have it any more."""
    c = client()
    c.push(1)
    c.stream.close(revoked_frame(Revoked(reason="gone")))
    c.read()
    await c.ended()
    assert c.got == ["revoked"]


async def test_what_connected_says_is_not_said_again(client: Clients) -> None:
    """What waited is handed over, a gap as everything: sent after `connected`, its id would be below that one's."""
    c = client(acks=False)
    c.push(3, 4)
    assert [affected.key for affected in c.stream.take_affected() or ()] == ["k3", "k4"]
    c.stream.push(gap_frame(5, "e:5", ""))
    c.push(6)
    assert c.stream.take_affected() is None
    assert c.stream.take_affected() == []
    c.read()
    c.push(7)
    await c.gets(1)
    assert c.got == [(7, None)]


async def test_a_reader_that_goes_away_leaves_nothing(client: Clients) -> None:
    """Its stream is over, and nobody looks after it any more."""
    c = client()
    c.read()
    c.push(1)
    await c.gets(1)
    assert c.reading is not None
    c.reading.cancel()
    await c.ended()
    assert c.reading.cancelled()
    assert c.stream.closed
    c.clock.advance(REDELIVERY_SECONDS)
    await until(lambda: c.clock.sleepers == 0)


async def test_a_connection_that_takes_nothing_is_not_sent_the_same_again(client: Clients) -> None:
    """What it has not taken yet only waits behind itself; once it takes again, everything comes once and in order."""
    c = client(max_events=10)
    c.read()
    c.push(1)
    await c.gets(1)
    c.gate.clear()
    c.push(2, 3)
    await c.passes(30)
    assert c.got == [(1, None)]
    assert not c.stream.closed
    c.gate.set()
    await until(lambda: (3, None) in c.got)
    assert c.got == [(1, None), (2, None), (3, None)]
    c.stream.acknowledge(Cursor("e", 3))


async def test_a_connection_that_is_stalled_is_given_up(client: Clients) -> None:
    """After a minute in which it has taken nothing: the task that writes ends, without an error."""
    c = client(acks=False)
    c.read()
    c.gate.clear()
    c.push(1)
    await c.passes(READER_STALLED_SECONDS - 1)
    assert not c.stream.closed
    await c.passes(2)
    await c.ended()
    assert c.reading is not None
    assert c.reading.exception() is None
    assert c.stream.aborted


async def test_progress_keeps_a_slow_connection(client: Clients) -> None:
    """One event taken in half a minute is enough to stay."""
    c = client(acks=False, max_events=10)
    c.read()
    c.gate.clear()
    c.push(1, 2, 3, 4)
    for taken in range(1, 4):
        await c.passes(READER_STALLED_SECONDS / 2)
        c.gate.set()
        await until(lambda taken=taken: len(c.got) >= taken)  # type: ignore[misc]  # a lambda's default
        c.gate.clear()
    assert not c.stream.closed


async def test_a_blocked_stream_that_is_closed_ends_soon(client: Clients) -> None:
    """A server that stops does not wait for a client that takes nothing."""
    c = client(acks=False)
    c.read()
    c.gate.clear()
    c.push(1)
    await c.passes(1)
    c.stream.close()
    await c.passes(GOODBYE_SECONDS + REDELIVERY_SECONDS)
    await c.ended()
    assert c.stream.aborted


async def test_a_comment_is_said_only_where_nothing_was(client: Clients) -> None:
    """A stream that has just spoken, or is about to, needs none."""
    c = client(acks=False)
    chunks: list[bytes] = []

    async def send(chunk: bytes) -> None:
        chunks.append(chunk)

    c.reading = asyncio.create_task(c.stream.write_to(send))
    await until(lambda: c.stream._state is StreamState.IDLE)
    c.clock.advance(10)
    c.stream.heartbeat(b":\n\n", quiet_since=5)
    await until(lambda: chunks == [b":\n\n"])
    c.stream.heartbeat(b":\n\n", quiet_since=5)
    c.push(1)
    c.stream.heartbeat(b":\n\n", quiet_since=20)
    await until(lambda: len(chunks) == 2)
    assert chunks[1].startswith(b"event: invalidation")


async def test_a_poll_is_answered_with_what_waits(client: Clients) -> None:
    """At once where something does; else with the first event, the end, or nothing when its time is up."""
    c = client(acks=False)
    c.push(1, 2)
    assert [event.cursor for event in await c.stream.collect(25) if isinstance(event, Invalidation)] == ["e:1", "e:2"]
    assert c.stream.waiting_bytes == 0
    waiting = asyncio.create_task(c.stream.collect(25))
    await until(lambda: c.clock.sleepers == 1)
    c.stream.push(gap_frame(3, "e:3", ""))
    assert await waiting == [Gap(cursor="e:3")]
    waiting = asyncio.create_task(c.stream.collect(25))
    await until(lambda: c.clock.sleepers == 1)
    c.clock.advance(25)
    assert await waiting == []
    waiting = asyncio.create_task(c.stream.collect(25))
    await until(lambda: c.clock.sleepers == 1)
    c.stream.close(revoked_frame(Revoked(reason="gone")))
    assert await waiting == [Revoked(reason="gone")]
    assert await c.stream.collect(25) == []
    await until(lambda: c.clock.sleepers == 0)


async def test_a_long_poll_that_is_closed_does_not_wait_for_a_right(client: Clients) -> None:
    """A write puts the right in doubt once more, between the end of the stream and the poll's next step."""
    c = client(acks=False)
    c.stream.hold()
    collecting = asyncio.create_task(c.stream.collect(25.0))
    for _ in range(3):
        await asyncio.sleep(0)
    c.stream.close()
    c.stream.hold()
    await until(collecting.done)
    assert collecting.result() == []
    assert not c.stream.is_held


async def test_the_last_event_of_a_stream_is_sent_whatever_is_written_after_it(client: Clients) -> None:
    """`revoked` tells why the stream ends; a write that touches the right again holds nothing back."""
    c = client(acks=False)
    c.read()
    c.stream.hold()
    c.stream.close(revoked_frame(Revoked(reason="gone")))
    c.stream.hold()
    await c.ended()
    assert c.got == ["revoked"]
