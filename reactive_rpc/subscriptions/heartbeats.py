"""Heartbeats: no stream is silent for longer than was promised.

A proxy forgets a connection that says nothing for a minute, and tells neither side. A client behind it would go on to
show the past as fresh, for as long as it listens. So a stream that has said nothing for `seconds` says a comment, which
no client dispatches; `connected` tells how long silence may last, and who hears nothing for much longer comes back.

*One task for all streams*, and no timer for each. The streams stand in the slots of a wheel that goes round four times
in `seconds`; each tick looks at one slot, and has those say a comment that would be silent for too long by the next
turn. So an idle stream costs a write each three quarters of `seconds`, an active one nothing, and ten thousand of them
do not all write in one instant.
"""

from __future__ import annotations

import asyncio
from itertools import count

from reactive_rpc.clock import Clock
from reactive_rpc.subscriptions.stream import Stream
from reactive_rpc.tasks import Tasks

__all__ = ["COMMENT", "Heartbeats"]

COMMENT = b":\n\n"
"""What an idle stream says."""

TICK_SECONDS = 0.25
"""A slot is looked at no more often than this, unless that were too late."""

MAX_SLOTS = 50

TURNS = 4
"""How often the wheel goes round in the time that was promised."""


class Heartbeats:
    """Has idle streams say that they live. Used on one event loop.

    Args:
        seconds: how long a stream may be silent; 0 is for ever.
        tasks: those that the hub ends.
    """

    def __init__(self, seconds: float, *, clock: Clock, tasks: Tasks) -> None:
        self.seconds = seconds
        self._clock = clock
        self._tasks = tasks
        slots = min(MAX_SLOTS, max(1, int(seconds / TURNS / TICK_SECONDS)))
        self._slots: list[dict[Stream, None]] = [{} for _ in range(slots)]
        self._slot_of: dict[Stream, dict[Stream, None]] = {}
        self._next = count()
        self._task: asyncio.Task[None] | None = None

    def add(self, stream: Stream) -> None:
        """Look after a stream until it is removed."""
        if not self.seconds:
            return
        slot = self._slots[next(self._next) % len(self._slots)]
        slot[stream] = None
        self._slot_of[stream] = slot
        if self._task is None or self._task.done():
            self._task = self._tasks.start(self._run(), "heartbeats")

    def remove(self, stream: Stream) -> None:
        """Look after a stream no more; idempotent."""
        slot = self._slot_of.pop(stream, None)
        if slot is not None:
            del slot[stream]

    async def _run(self) -> None:
        turn_seconds = self.seconds / TURNS
        while self._slot_of:
            for slot in self._slots:
                await self._clock.sleep(turn_seconds / len(self._slots))
                quiet_since = self._clock.monotonic() - self.seconds + turn_seconds
                for stream in slot:
                    stream.beat(COMMENT, quiet_since=quiet_since)
