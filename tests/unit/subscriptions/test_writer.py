"""The writer: sends that the flusher begins behave as if the stream's own task had made them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from reactive_rpc.subscriptions import writer
from reactive_rpc.subscriptions.frame import Frame
from reactive_rpc.subscriptions.stats import HubStats
from reactive_rpc.subscriptions.stream import Stream, StreamOptions, StreamState
from reactive_rpc.subscriptions.writer import STREAMS_AT_ONCE, Flusher
from reactive_rpc.testing import FakeClock
from tests.unit.cache.scripted import until

pytestmark = pytest.mark.anyio

Send = Callable[[bytes], Awaitable[None]]
current: ContextVar[str] = ContextVar("current", default="nobody")


def options_of(**changed: Any) -> StreamOptions:
    clock = FakeClock()
    options: dict[str, Any] = {
        "clock": clock, "stats": HubStats(), "flusher": Flusher(clock), "look_after": lambda stream: None,
        "max_events": 1000, "max_bytes": 1_000_000, "retry_seconds": (2.0,),
    }  # fmt: skip
    return StreamOptions(**(options | changed))


def frame_of(number: int) -> Frame:
    return Frame("gap-like", number, "", b"%d" % number)


@asynccontextmanager
async def writing(
    send: Send, options: StreamOptions | None = None, *, is_plain: bool = False
) -> AsyncIterator[tuple[Stream, asyncio.Task[None]]]:
    stream = Stream("s", options or options_of(), acks=False)
    task = asyncio.create_task(stream.write_to(send, is_plain=is_plain))
    try:
        yield stream, task
    finally:
        stream.abort()
        await asyncio.gather(task, return_exceptions=True)


async def pushed_in_order(seed: int, *, is_plain: bool = False) -> None:
    """Push numbers to a connection that takes them at once or after a while, and expect each once, in order."""
    rng = random.Random(seed)
    got: list[int] = []
    senders = most = 0

    async def send(chunk: bytes) -> None:
        nonlocal senders, most
        senders += 1
        most = max(senders, most)
        for _ in range(rng.choice([0, 0, 0, 1, 3])):
            await asyncio.sleep(0)
        got.append(int(chunk))
        for _ in range(rng.choice([0, 0, 0, 1, 3])):
            await asyncio.sleep(0)
        senders -= 1

    async with writing(send, is_plain=is_plain) as (stream, task):
        for number in range(300):
            stream.push(frame_of(number))
            for _ in range(rng.choice([0, 0, 1, 4])):
                await asyncio.sleep(0)
        stream.close()
        await task
    assert (got, most) == (list(range(300)), 1)


@pytest.mark.parametrize("is_plain", [False, True])
@pytest.mark.parametrize("seed", range(10))
async def test_frames_neither_mix_nor_overtake(seed: int, is_plain: bool) -> None:
    """Whatever waits where: one send at a time, every frame once, in order."""
    await pushed_in_order(seed, is_plain=is_plain)


def _two_senders(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = set()

    async def sent(frame: Frame, send: Send) -> None:
        await send(frame.wire)

    def flush(self: Stream, now: float) -> None:
        while self._waiting and self._writer is not None:
            tasks.add(asyncio.create_task(sent(self._waiting.pop(0), self._writer._send)))
        self._state = StreamState.IDLE

    monkeypatch.setattr(Stream, "flush", flush)


def _idle_too_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    block = Stream._block

    def idle(self: Stream, now: float) -> None:
        block(self, now)
        self._state = StreamState.IDLE

    monkeypatch.setattr(Stream, "_block", idle)


def _never_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stream, "_block", lambda self, now: None)


@pytest.mark.seeded_bug
@pytest.mark.parametrize("seed_bug", [_two_senders, _idle_too_soon, _never_again])
async def test_a_seeded_bug_in_the_order_is_found(
    seed_bug: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A send a frame, a stream that counts as idle too soon, or one that is forgotten: the test above can fail."""
    seed_bug(monkeypatch)
    with pytest.raises((AssertionError, TimeoutError)):
        async with asyncio.timeout(1):
            await pushed_in_order(1)


async def test_a_send_runs_in_the_streams_own_task_and_context() -> None:
    """At every step: what it sets is there when it goes on, and a time limit of its own ends it alone."""
    gate = asyncio.Event()
    seen: list[tuple[asyncio.Task[Any] | None, str]] = []

    async def send(chunk: bytes) -> None:
        token = current.set(chunk.decode())
        seen.append((asyncio.current_task(), current.get()))
        if chunk == b"2":
            await gate.wait()
        if chunk == b"3":
            with anyio.move_on_after(0.01):
                await anyio.sleep_forever()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await asyncio.Event().wait()
        seen.append((asyncio.current_task(), current.get()))
        current.reset(token)

    current.set("the stream's")
    async with writing(send) as (stream, task):
        current.set("the pusher's")
        for number in (1, 2, 3, 4):
            stream.push(frame_of(number))
        await until(lambda: len(seen) == 3)
        gate.set()
        stream.close()
        await task
    assert seen == [(task, number) for number in ("1", "1", "2", "2", "3", "3", "4", "4")]


@pytest.mark.parametrize("is_plain", [False, True])
@pytest.mark.parametrize("waits", [False, True])
async def test_an_error_of_a_send_is_the_streams(waits: bool, is_plain: bool) -> None:
    """It comes out of `write_to`, whoever began the send, and the stream is over."""

    async def send(chunk: bytes) -> None:
        if waits:
            await asyncio.sleep(0)
        raise OSError("gone")

    async with writing(send, is_plain=is_plain) as (stream, task):
        stream.push(frame_of(1))
        with pytest.raises(OSError, match="gone"):
            await task
        assert stream.closed


@pytest.mark.parametrize("handed_over", [False, True])
async def test_cancelling_the_task_ends_the_send_that_stands(handed_over: bool) -> None:
    """Its `finally` runs, in the context that it began in, whether or not the task had taken it over."""
    ended: list[str] = []

    async def send(chunk: bytes) -> None:
        token = current.set("within")
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(current.get())
            current.reset(token)

    async with writing(send) as (stream, task):
        await until(lambda: stream._state is StreamState.IDLE)
        stream.push(frame_of(1))
        await until(lambda: stream._state is StreamState.SENDING)
        if handed_over:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
    assert ended == ["within"]


@pytest.mark.parametrize("is_plain", [False, True])
async def test_an_aborted_stream_ends_as_if_nothing_had_happened(is_plain: bool) -> None:
    """The task is interrupted in its send and goes on behind `write_to`, not cancelled."""
    went_on = asyncio.Event()

    async def send(chunk: bytes) -> None:
        await asyncio.Event().wait()

    async def serve(stream: Stream) -> None:
        await stream.write_to(send, is_plain=is_plain)
        await asyncio.sleep(0)
        went_on.set()

    stream = Stream("s", options_of(), acks=False)
    task = asyncio.create_task(serve(stream))
    stream.push(frame_of(1))
    await until(lambda: stream._state is StreamState.SENDING)
    stream.abort()
    await task
    assert went_on.is_set()
    assert task.cancelling() == 0


@pytest.mark.parametrize("is_plain", [False, True])
async def test_a_cancellation_beside_the_abort_is_not_lost(is_plain: bool) -> None:
    """Who aborts and who cancels may be two: the task then ends as cancelled."""

    async def send(chunk: bytes) -> None:
        await asyncio.Event().wait()

    async with writing(send, is_plain=is_plain) as (stream, task):
        stream.push(frame_of(1))
        await until(lambda: stream._state is StreamState.SENDING)
        await asyncio.sleep(0)
        stream.abort()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()


async def test_one_that_waits_delays_nobody() -> None:
    """Others get their frames while one send stands; what was begun in the flusher's turn is finished in its own."""
    options = options_of()
    gate = asyncio.Event()
    got: list[str] = []

    async def slow(chunk: bytes) -> None:
        await gate.wait()
        got.append("slow")

    async def quick(chunk: bytes) -> None:
        got.append("quick")

    async with writing(slow, options) as (first, _), writing(quick, options) as (second, _):
        for number in range(3):
            first.push(frame_of(number))
            second.push(frame_of(number))
        await until(lambda: len(got) == 3)
        assert set(got) == {"quick"}
        gate.set()
        await until(lambda: len(got) == 6)


async def test_the_loop_goes_round_between_many_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event for thousands is no pause for the requests that come meanwhile."""
    monkeypatch.setattr(writer, "STREAMS_AT_ONCE", 10)
    assert STREAMS_AT_ONCE > 10
    flusher = Flusher(FakeClock())
    turns: list[int] = []
    count = 0

    class Counted:
        def flush(self, now: float) -> None:
            nonlocal count
            count += 1

    for _ in range(35):
        flusher.add(Counted())
    while count < 35:
        await asyncio.sleep(0)
        turns.append(count)
    assert turns == [10, 20, 30, 35]


async def test_a_flusher_outlives_its_loop() -> None:
    """What waited on a loop that has ended is not waited for by the next one."""
    flusher = Flusher(FakeClock())
    flushed: list[str] = []

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        def flush(self, now: float) -> None:
            flushed.append(self.name)

    loop = asyncio.new_event_loop()
    flusher._loop = loop
    flusher._ready.append(Named("old"))
    loop.close()
    flusher.add(Named("new"))
    await until(lambda: bool(flushed))
    assert flushed == ["new"]
