"""A stream: acknowledged cumulatively, sent again after 2, 5 and 10 seconds, bounded, and closed in the end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from cache.scripted import until

from reactive_rpc.delivery.stream import GIVE_UP_SECONDS, RETRY_SECONDS, Stream
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.protocol.events import Affected, Gap, Invalidation, decode_event
from reactive_rpc.protocol.sse import SSEDecoder
from reactive_rpc.testing import FakeClock

pytestmark = pytest.mark.anyio


@dataclass
class Client:
    """What one client gets from a stream: `(version, retry)` of each event, `gap` for a gap."""

    stream: Stream
    clock: FakeClock
    got: list[tuple[int, int | None] | str] = field(default_factory=list)
    reading: asyncio.Task[None] | None = None

    def read(self) -> None:
        async def read() -> None:
            decoder = SSEDecoder()
            async for frame in self.stream.frames():
                for sent in decoder.feed(frame):
                    event = decode_event(sent)
                    if isinstance(event, Invalidation):
                        self.got.append((Cursor.parse(event.cursor).version, event.retry))
                    else:
                        self.got.append(sent.event)

        self.reading = asyncio.create_task(read())

    def push(self, *versions: int) -> None:
        for version in versions:
            event = Invalidation(
                cursor=f"e:{version}", affected=[Affected(path="p", key=f"k{version}")], event_id=f"i{version}"
            )
            self.stream.push(version, event, event.encode())

    async def gets(self, count: int) -> None:
        await until(lambda: len(self.got) == count)

    async def waits(self) -> None:
        """Wait until the stream sleeps towards a retry."""
        await until(lambda: self.clock.sleepers == 1)


def client(*, acks: bool = True, max_events: int = 4) -> Client:
    clock = FakeClock()
    return Client(Stream("s", acks=acks, max_events=max_events, clock=clock), clock)


async def test_unacknowledged_events_are_sent_again_and_then_given_up() -> None:
    """After 2, 5 and 10 seconds, marked 1, 2 and 3; ten seconds later the stream ends."""
    c = client()
    c.read()
    c.push(1)
    await c.gets(1)
    for tries, seconds in enumerate(RETRY_SECONDS, start=1):
        await c.waits()
        c.clock.advance(seconds - 0.5)
        await c.waits()
        assert len(c.got) == tries
        c.clock.advance(0.5)
        await c.gets(tries + 1)
    assert c.got == [(1, None), (1, 1), (1, 2), (1, 3)]
    await c.waits()
    c.clock.advance(GIVE_UP_SECONDS)
    await until(lambda: c.reading is not None and c.reading.done())
    assert c.stream.closed
    assert c.clock.monotonic() == 27.0


async def test_an_acknowledgement_counts_for_all_before_it() -> None:
    """Up to its cursor; what came after it is sent again, from the first pause."""
    c = client()
    c.read()
    c.push(1, 2, 3)
    await c.gets(3)
    await c.waits()
    c.clock.advance(2)
    await c.gets(6)
    c.stream.acknowledge(Cursor("e", 2))
    await c.waits()
    c.clock.advance(2)
    await c.gets(7)
    assert c.got[3:] == [(1, 1), (2, 1), (3, 1), (3, 1)]
    c.stream.acknowledge(Cursor("e", 3))
    await until(lambda: c.clock.sleepers == 0)
    c.clock.advance(1000)
    c.push(4)
    await c.gets(8)
    assert c.got[-1] == (4, None)
    c.stream.close()


async def test_an_early_or_repeated_acknowledgement_changes_nothing() -> None:
    """Of what was never sent, or acknowledged already."""
    c = client()
    c.stream.acknowledge(Cursor("e", 9))
    c.read()
    c.push(1)
    await c.gets(1)
    c.stream.acknowledge(Cursor("e", 0))
    await c.waits()
    c.clock.advance(2)
    await c.gets(2)
    assert c.got == [(1, None), (1, 1)]
    c.stream.close()


async def test_a_client_that_does_not_acknowledge_is_sent_everything_once() -> None:
    """No timer runs for it."""
    c = client(acks=False)
    c.read()
    c.push(1, 2)
    await c.gets(2)
    c.clock.advance(1000)
    c.push(3)
    await c.gets(3)
    assert c.got == [(1, None), (2, None), (3, None)]
    assert c.clock.sleepers == 0
    c.stream.close()


async def test_what_waits_past_the_bound_becomes_one_gap() -> None:
    """The client is told that it missed something; nothing more than the bound ever waits."""
    c = client(acks=False)
    c.push(1, 2, 3, 4, 5, 6)
    c.read()
    await c.gets(2)
    assert c.got == ["gap", (6, None)]
    c.stream.close()


async def test_unacknowledged_events_count_towards_the_bound() -> None:
    """A client that reads and never acknowledges costs no more than one that does not read."""
    c = client()
    c.read()
    c.push(1, 2, 3, 4)
    await c.gets(4)
    c.push(5)
    await c.gets(5)
    assert c.got[-1] == "gap"
    await c.waits()
    c.clock.advance(2)
    await c.gets(6)
    assert c.got[-1] == "gap"
    c.stream.close()


async def test_a_stream_that_closes_sends_what_waits() -> None:
    """Then it ends; what is pushed later is dropped."""
    c = client()
    c.push(1)
    c.stream.close()
    c.push(2)
    c.read()
    await until(lambda: c.reading is not None and c.reading.done())
    assert c.got == [(1, None)]


async def test_what_connected_says_is_not_said_again() -> None:
    """Invalidations that waited are handed over; a gap stays, because it says more."""
    c = client(acks=False)
    c.push(1)
    gap = Gap(cursor="e:2")
    c.stream.push(2, gap, gap.encode())
    c.push(3)
    assert [affected.key for affected in c.stream.take_affected()] == ["k1", "k3"]
    c.read()
    await c.gets(1)
    assert c.got == ["gap"]
    c.stream.close()


async def test_a_reader_that_goes_away_leaves_no_timer() -> None:
    """Cancelling the reader cancels what it waits for."""
    c = client()
    c.read()
    c.push(1)
    await c.gets(1)
    await c.waits()
    assert c.reading is not None
    c.reading.cancel()
    await until(lambda: c.clock.sleepers == 0)
