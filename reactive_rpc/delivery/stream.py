"""A stream: what one client is owed, in order, bounded.

A reader that is too slow never delays another and never costs more than its bound: past it, everything that waits is
replaced by one gap, which tells the client to fetch again what it shows.

A client that acknowledges is sent what it has not acknowledged again after 2, 5 and 10 seconds, marked `retry`; ten
seconds after that the stream is closed, and the client resumes by cursor on a new one. Nothing is lost either way.
A client that does not say it acknowledges (curl, a bare EventSource) is believed to receive what TCP accepts.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from reactive_rpc.clock import Clock
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.protocol.events import Affected, Gap, Invalidation

__all__ = ["RETRY_SECONDS", "Stream"]

RETRY_SECONDS = (2.0, 5.0, 10.0)
"""How long after the last try an unacknowledged event is sent again."""

GIVE_UP_SECONDS = 10.0
"""How long after the last retry the stream is closed."""


@dataclass(frozen=True, slots=True)
class _Sent:
    version: int
    event: Invalidation | Gap


class Stream:
    """What one client is owed. Used on one event loop; `frames` is iterated by one task.

    Args:
        id: names the stream in acknowledgements.
        acks: whether the client acknowledges.
        max_events: how many events may wait, and how many may be unacknowledged.
    """

    def __init__(self, id: str, *, acks: bool, max_events: int, clock: Clock) -> None:
        self.id = id
        self.acks = acks
        self._max_events = max_events
        self._clock = clock
        self._waiting: deque[tuple[_Sent, bytes]] = deque()
        self._unacknowledged: deque[_Sent] = deque()
        self._tries = 0
        self._due_at = 0.0
        self._awake = asyncio.Event()
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the stream ends once what waits is sent."""
        return self._closed

    def push(self, version: int, event: Invalidation | Gap, frame: bytes) -> None:
        """Queue an event, encoded already because many streams share it; past the bound, a gap replaces all."""
        if self._closed:
            return
        if len(self._waiting) + len(self._unacknowledged) >= self._max_events:
            self._overflow(version, event.cursor)
        else:
            self._waiting.append((_Sent(version, event), frame))
        self._awake.set()

    def take_affected(self) -> list[Affected]:
        """Forget the invalidations that wait and return what they name: `connected` is about to say it."""
        affected = [
            item for sent, _ in self._waiting if isinstance(sent.event, Invalidation) for item in sent.event.affected
        ]
        self._waiting = deque(item for item in self._waiting if isinstance(item[0].event, Gap))
        return affected

    def acknowledge(self, cursor: Cursor) -> None:
        """Count everything up to `cursor` as received."""
        while self._unacknowledged and self._unacknowledged[0].version <= cursor.version:
            self._unacknowledged.popleft()
            self._tries = 0
            self._due_at = self._clock.monotonic() + RETRY_SECONDS[0]
        self._awake.set()

    def close(self) -> None:
        """End the stream once what waits is sent."""
        self._closed = True
        self._awake.set()

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield SSE frames until the stream is closed."""
        while True:
            self._awake.clear()
            while self._waiting:
                sent, frame = self._waiting.popleft()
                self._remember(sent)
                yield frame
            if self._closed:
                return
            for frame in self._retries():
                yield frame
            await self._wait()

    def _overflow(self, version: int, cursor: str) -> None:
        self._waiting.clear()
        self._unacknowledged.clear()
        gap = Gap(cursor=cursor, reason="the stream was read too slowly")
        self._waiting.append((_Sent(version, gap), gap.encode()))

    def _remember(self, sent: _Sent) -> None:
        if not self.acks:
            return
        if not self._unacknowledged:
            self._tries = 0
            self._due_at = self._clock.monotonic() + RETRY_SECONDS[0]
        self._unacknowledged.append(sent)

    def _retries(self) -> list[bytes]:
        """Return what is due to be sent again; close the stream where that has been done often enough."""
        if not self._unacknowledged or self._clock.monotonic() < self._due_at:
            return []
        if self._tries == len(RETRY_SECONDS):
            self.close()
            return []
        self._tries += 1
        wait_seconds = RETRY_SECONDS[self._tries] if self._tries < len(RETRY_SECONDS) else GIVE_UP_SECONDS
        self._due_at = self._clock.monotonic() + wait_seconds
        return [_again(sent.event, self._tries).encode() for sent in self._unacknowledged]

    async def _wait(self) -> None:
        """Wait for an event, an acknowledgement, the end, or the next retry."""
        if not self._unacknowledged:
            await self._awake.wait()
            return
        awake = asyncio.ensure_future(self._awake.wait())
        due = asyncio.ensure_future(self._clock.sleep(max(0.0, self._due_at - self._clock.monotonic())))
        try:
            await asyncio.wait({awake, due}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            awake.cancel()
            due.cancel()


def _again(event: Invalidation | Gap, tries: int) -> Invalidation | Gap:
    return event.model_copy(update={"retry": tries}) if isinstance(event, Invalidation) else event
