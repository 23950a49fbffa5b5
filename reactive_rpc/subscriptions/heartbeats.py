"""Heartbeats: no stream is silent for longer than was promised.

A proxy forgets a connection that says nothing for a minute, and reports it to neither side. So a stream that has said
nothing for `seconds` says a comment, which no client dispatches. One task does it for all streams, which stand in the
slots of a wheel. `docs/internals/subscriptions.md` says how much that costs.
"""

from __future__ import annotations

import asyncio
from itertools import count

from reactive_rpc.clock import Clock
from reactive_rpc.subscriptions.stream import Stream
from reactive_rpc.tasks import Tasks

__all__ = ["COMMENT", "Heartbeats"]

COMMENT = b":\n\n"
"""The comment that an idle stream sends."""

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
                    stream.heartbeat(COMMENT, quiet_since=quiet_since)
