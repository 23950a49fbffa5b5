"""A stream: the events for one client, in order, bounded in number and bytes.

Whatever is pushed waits in the stream until the flusher writes it (`subscriptions/writer.py`). Past a bound, one gap
replaces everything that waits. A client that acknowledges is sent again the events that it has not acknowledged. The
states, and the arguments for bounds and tries, are in `docs/internals/subscriptions.md`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from reactive_rpc.clock import Clock
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.protocol.events import Affected, Event, Gap, Result
from reactive_rpc.subscriptions.frame import Frame, gap_frame
from reactive_rpc.subscriptions.limits import CallerKey
from reactive_rpc.subscriptions.stats import HubStats
from reactive_rpc.subscriptions.writer import Flusher, Send, Write, Writer
from reactive_rpc.tasks import background

__all__ = ["GOODBYE_SECONDS", "READER_STALLED_SECONDS", "Recheck", "Stream", "StreamOptions", "StreamState"]

GOODBYE_SECONDS = 1.0
"""How long a stream that is closed may take to send the events that wait."""

READER_STALLED_SECONDS = 60.0
"""How long a connection may take nothing, while something waits for it, before it is given up."""

Recheck = Callable[[Any], Awaitable[Any]]
"""Finds out again what the caller of a stream may see (`Reauthorization`, whose rights it is given); raises what the
dependency raises."""


class StreamState(IntEnum):
    """How a stream stands to its connection.

    Attributes:
        UNREAD: nobody writes: it connects, or a long poll collects its events.
        IDLE: everything is written.
        QUEUED: it waits for the flusher.
        SENDING: a send was begun, and its task finishes it.
        INTERRUPTED: it was aborted while a send stood, so its task is being cancelled.
        ABORTED: it has ended, or is about to, without writing the events that wait.
        ENDED: the task that wrote has ended.
    """

    UNREAD = 0
    IDLE = 1
    QUEUED = 2
    SENDING = 3
    INTERRUPTED = 4
    ABORTED = 5
    ENDED = 6


# By their own names: until Python 3.12, `StreamState.IDLE` is looked up by a function written in Python, and each event
# asks for several of them, for each stream.
UNREAD, IDLE, QUEUED, SENDING, INTERRUPTED, ABORTED, ENDED = StreamState
_FOLLOWERS: tuple[tuple[StreamState, ...], ...] = (
    (QUEUED, ABORTED),
    (QUEUED, ABORTED, ENDED),
    (IDLE, SENDING, INTERRUPTED, ABORTED, ENDED),
    (QUEUED, INTERRUPTED, ABORTED, ENDED),
    (ABORTED,),
    (),
    (),
)
"""By each state, those that may follow it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """The parts and options that the streams of a hub share.

    Attributes:
        max_events: how many events may wait or be unacknowledged.
        max_bytes: the same in bytes.
        retry_seconds: how long after each try an unacknowledged event is sent again; not empty.
        look_after: asks for `Stream.look` now and then, until that says it is not needed any more.
    """

    clock: Clock
    stats: HubStats
    flusher: Flusher
    look_after: Callable[[Stream], None]
    max_events: int
    max_bytes: int
    retry_seconds: tuple[float, ...]


class Stream:
    """The events for one client. Used on one event loop.

    Args:
        id: names the stream in acknowledgements.
        acks: whether the client acknowledges.
        identity: whose it is; None is nobody's in particular.
        caller: whom limits count; left out, the identity.
        recheck: resolves its context again; None if it has none.
        request_bytes: the size of the memory that `recheck` holds: the request that opened the stream.

    Attributes:
        view: what its caller may see, by `Reauthorization`, which alone sets and reads it; None on its way in.
        opened_at: by the clock.
    """

    __slots__ = (
        "_blocked_at",
        "_closed_at",
        "_comment",
        "_due_at",
        "_held_bytes",
        "_is_held",
        "_is_retrying",
        "_options",
        "_said",
        "_sent_at",
        "_state",
        "_tries",
        "_unacknowledged",
        "_unacknowledged_at",
        "_waiter",
        "_waiting",
        "_writer",
        "acks",
        "caller",
        "id",
        "identity",
        "opened_at",
        "recheck",
        "request_bytes",
        "view",
    )  # fmt: skip

    def __init__(
        self,
        id: str,
        options: StreamOptions,
        *,
        acks: bool,
        identity: str | None = None,
        caller: CallerKey | None = None,
        recheck: Recheck | None = None,
        request_bytes: int = 0,
    ) -> None:
        self.id = id
        self.acks = acks
        self.caller: CallerKey = caller or ("identity", identity or "")
        self.request_bytes = request_bytes
        self.identity = identity
        self.recheck = recheck
        self.view: object = None
        self._is_held = False
        self.opened_at = options.clock.monotonic()
        self._options = options
        self._waiting: list[Frame] = []
        self._unacknowledged: list[Frame] = []
        self._held_bytes = 0
        self._said = self._comment = b""
        self._is_retrying = False
        self._sent_at = self.opened_at
        self._unacknowledged_at = self._due_at = 0.0
        self._tries = 0
        self._writer: Writer | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._state = UNREAD
        self._blocked_at = 0.0
        self._closed_at: float | None = None

    @property
    def closed(self) -> bool:
        """Whether the stream ends once the waiting events are sent."""
        return self._closed_at is not None

    @property
    def aborted(self) -> bool:
        """Whether it has ended without sending the events that waited."""
        return self._state is ABORTED or self._state is INTERRUPTED

    @property
    def waiting_bytes(self) -> int:
        """How many bytes wait or are unacknowledged."""
        return self._held_bytes

    @property
    def unacknowledged_at(self) -> float | None:
        """Since when, by the clock, something is unacknowledged; None if nothing is."""
        return self._unacknowledged_at if self._unacknowledged else None

    def push(self, frame: Frame) -> None:
        """Queue an event. A gap replaces all that waits, as it says more; past a bound, there is one."""
        if self._closed_at is not None:
            return
        options, size_bytes = self._options, len(frame.wire)
        if frame.name == Gap.name:
            self._replace(frame)
        elif (
            len(self._waiting) + len(self._unacknowledged) >= options.max_events
            or self._held_bytes + size_bytes > options.max_bytes
        ):
            self._replace(gap_frame(frame.version, frame.cursor, "the stream was read too slowly"))
        else:
            self._waiting.append(frame)
            self._held_bytes += size_bytes
        self._queue()

    @property
    def is_held(self) -> bool:
        """Whether nothing is sent for now."""
        return self._is_held

    def hold(self) -> None:
        """Send nothing more until `release`: the right to it is being asked for again; nothing, if it is closed."""
        # INVARIANT (a closed stream is not held): nobody asks for its right again, so its last event would not be sent,
        # and a long poll would wait for as long as it may.
        self._is_held = self._closed_at is None

    def release(self) -> None:
        """Send what has waited since `hold`."""
        if self._is_held:
            self._is_held = False
            self._queue()

    def say(self, first: bytes) -> None:
        """Write the first frame, before whatever waits."""
        self._said += first
        self._queue()

    def take_said(self) -> bytes:
        """Return the first frame, for a long poll to tell; nothing if the right to it was not, or is not, found."""
        said, self._said = b"" if self._is_held else self._said, b""
        return said

    @property
    def has_gap(self) -> bool:
        """Whether a gap waits: whoever hears it asks for everything again."""
        return any(frame.name == Gap.name for frame in self._waiting)

    def take_affected(self) -> list[Affected] | None:
        """Forget the events that wait, as the next event covers them; return the queries they name, None for all."""
        named = None if self.has_gap else [affected for frame in self._waiting for affected in frame.affected]
        self._waiting = [frame for frame in self._waiting if not frame.affected and frame.name != Gap.name]
        self._held_bytes = sum(len(frame.wire) for frame in self._waiting)
        return named

    def acknowledge(self, cursor: Cursor) -> None:
        """Count everything that was sent up to `cursor` as received."""
        count = 0
        for frame in self._unacknowledged:
            if frame.version > cursor.version or _is_later_tick(frame, cursor):
                break
            count += 1
            self._held_bytes -= len(frame.wire)
        if count:
            del self._unacknowledged[:count]
            self._options.stats.acknowledged += count
            self._begin_waiting(self._options.clock.monotonic())

    def close(self, last: Frame | None = None) -> None:
        """End the stream once what waits is sent; with `last`, which is then all that is still said.

        Of a stream that is held, what waits is dropped: a client that comes back is told of it by its cursor.
        """
        if self._closed_at is not None:
            return
        if self._is_held:
            self._waiting, self._held_bytes, self._said = [], 0, b""
            self._unacknowledged.clear()
        if last is not None:
            self._replace(last)
        self._is_held = False
        self._closed_at = self._options.clock.monotonic()
        self._queue()
        if self._state is SENDING:
            self._options.look_after(self)

    def abort(self) -> None:
        """End the stream now, whatever waits: the client has gone, or takes nothing."""
        self.close()
        if self._state is ENDED or self.aborted:
            return
        writer = self._writer
        is_sending = writer is not None and writer.is_sending
        # INVARIANT: only a task that is in `rest` may be cancelled from outside of it, and `write_to` takes exactly
        # this one cancellation back. A send stands only while its task is in `rest`.
        self._transition(INTERRUPTED if is_sending else ABORTED)
        if writer is not None:
            (writer.interrupt if is_sending else writer.wake)()

    async def write_to(self, send: Send, *, is_plain: bool = False, write: Write | None = None) -> None:
        """Write frames until the stream is closed and all that waited is sent, or until it is aborted.

        For one task, once. `send` may be begun by another, see `subscriptions/writer.py`.

        Args:
            send: hands bytes to the connection.
            is_plain: it asks nothing of the task and of the context that it runs in.
            write: writes as `send` would, if that needs no waiting, and tells whether it has; None if there is none.

        Raises:
            Exception: whatever `send` raised.
        """
        if self.aborted:
            return
        writer = Writer(send, is_plain=is_plain, write=write)
        self._transition(QUEUED)
        self._writer = writer
        self._options.flusher.add(self)
        try:
            while not self.aborted and (self._state is not IDLE or not self.closed):
                await writer.rest()
                if self._state is SENDING:  # the send was finished: what has come since is next
                    self._transition(QUEUED)
                    self._options.flusher.add(self)
        except asyncio.CancelledError:
            if self._state is not INTERRUPTED or writer.task.cancelling() > 1:
                raise
        finally:
            self._writer = None
            if self._state is INTERRUPTED:
                writer.task.uncancel()
                self._transition(ABORTED)
            elif not self.aborted:
                self._transition(ENDED)
            self.close()

    async def collect(self, wait_seconds: float) -> list[Event]:
        """Return the events that wait; where there are none, wait for the first one, the end, or `wait_seconds`."""
        until = self._options.clock.monotonic() + wait_seconds
        if (self._is_held or not self._waiting) and self._closed_at is None:
            await self._arrival(wait_seconds)
        while self._is_held and (left_seconds := until - self._options.clock.monotonic()) > 0:
            await self._arrival(left_seconds)
        if self._is_held:
            return []
        frames, self._waiting = self._waiting, []
        self._held_bytes = 0
        for frame in frames:
            self._count(frame)
        return [frame.event() for frame in frames]

    def flush(self, now: float) -> None:
        """Write the waiting frames, as far as the connection takes them at once; called by the flusher."""
        writer = self._writer
        if writer is None or self._state is not QUEUED:
            return  # aborted or ended since it was queued
        self._sent_at = now
        # INVARIANT (nothing but comments leaves while the stream is held, neither the first frame nor an event that is
        # sent again): the caller may have lost the right to it.
        if self._comment or self._said or self._is_retrying:
            chunk = self._unpushed()
            if chunk and not writer.start(chunk):
                self._block(now)
                return
        while self._waiting and not self._is_held:
            frame = self._waiting.pop(0)
            self._remember(frame, now)
            if not writer.start(frame.wire):
                self._block(now)
                return
        if self._state is QUEUED:  # unless its own send has aborted it
            self._transition(IDLE)
        if self._closed_at is not None:
            writer.wake()

    def look(self, now: float) -> bool:
        """Send again the events that are due, or give up; return whether the stream must still be looked after."""
        if self._state is SENDING:
            is_stalled = now - self._blocked_at >= READER_STALLED_SECONDS
            if is_stalled or (self._closed_at is not None and now - self._closed_at >= GOODBYE_SECONDS):
                self._options.stats.abandoned += len(self._unacknowledged)
                self.abort()
            return True
        if self._closed_at is not None or not self._unacknowledged:
            return False
        if now >= self._due_at and self._state is IDLE and not self._is_held:
            self._try_again(now)
        return True

    def heartbeat(self, comment: bytes, *, quiet_since: float) -> None:
        """Write that the stream lives, unless anything was written after `quiet_since`."""
        if self._state is IDLE and self._closed_at is None and self._sent_at <= quiet_since:
            self._comment = comment
            self._queue()

    def _unpushed(self) -> bytes:
        """Return what is to be written before the events that wait, as far as that may leave."""
        chunk, self._comment = self._comment, b""
        if self._is_held:
            return chunk
        chunk, self._said = chunk + self._said, b""
        if self._is_retrying:
            self._is_retrying = False
            chunk += b"".join(frame.again(self._tries) for frame in self._unacknowledged)
        return chunk

    def _queue(self) -> None:
        """Have the flusher write the waiting frames, unless it will anyway; wake the long poll that waits for it."""
        if self._state is IDLE:
            self._transition(QUEUED)
            self._options.flusher.add(self)
        elif self._waiter is not None and not self._waiter.done() and not self._is_held:
            self._waiter.set_result(None)

    def _transition(self, state: StreamState) -> None:
        """Enter a state.

        Raises:
            RuntimeError: it cannot follow the present one.
        """
        if state not in _FOLLOWERS[self._state]:
            raise RuntimeError(f"a stream that is {self._state.name} cannot become {state.name}")
        self._state = state

    def _block(self, now: float) -> None:
        if self._state is QUEUED:  # unless its own send has aborted it
            self._transition(SENDING)
            self._blocked_at = now
            self._options.look_after(self)

    def _replace(self, frame: Frame) -> None:
        self._waiting = [frame]
        self._unacknowledged.clear()
        self._held_bytes = len(frame.wire)

    def _remember(self, frame: Frame, now: float) -> None:
        self._count(frame)
        if not self.acks or not frame.cursor:
            self._held_bytes -= len(frame.wire)
            return
        self._unacknowledged.append(frame)
        if len(self._unacknowledged) == 1:
            self._begin_waiting(now)
            self._options.look_after(self)

    def _count(self, frame: Frame) -> None:
        stats = self._options.stats
        stats.events += 1
        if frame.name == Result.name:
            stats.results += 1
        elif frame.name == Gap.name:
            stats.gaps += 1

    def _begin_waiting(self, now: float) -> None:
        self._tries = 0
        self._is_retrying = False
        self._unacknowledged_at = now
        self._due_at = now + self._options.retry_seconds[0]

    def _try_again(self, now: float) -> None:
        """Send everything unacknowledged again; close the stream if that has been done often enough."""
        retry_seconds, stats = self._options.retry_seconds, self._options.stats
        if self._tries == len(retry_seconds):
            stats.abandoned += len(self._unacknowledged)
            self.close()
            return
        self._tries += 1
        self._due_at = now + retry_seconds[min(self._tries, len(retry_seconds) - 1)]
        stats.retried += len(self._unacknowledged)
        self._is_retrying = True
        self._queue()

    async def _arrival(self, wait_seconds: float) -> None:
        """Wait until something is pushed, the stream is closed, or the time is up."""
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        try:
            async with background(self._options.clock.sleep(wait_seconds), "poll's time") as time_up:
                await asyncio.wait({waiter, time_up}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waiter = None


def _is_later_tick(frame: Frame, cursor: Cursor) -> bool:
    """Return whether a frame of the cursor's version is about a tick after it."""
    if frame.version != cursor.version or cursor.moment is None:
        return False
    return (Cursor.parse(frame.cursor).moment or 0) > cursor.moment
