"""Redelivery: looks after the streams that wait for an acknowledgement, or whose connection is blocked.

One task for all of them, twice a second, and none while there is nobody to look after. It first takes from the
ephemeral store the acknowledgements that reached other workers, then lets each stream send again the events that are
due.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from reactive_rpc.clock import Clock
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.subscriptions.acknowledgements import Acknowledgements
from reactive_rpc.subscriptions.stream import Stream
from reactive_rpc.tasks import OnDemand

__all__ = ["Redelivery"]

logger = logging.getLogger(__name__)

REDELIVERY_SECONDS = 0.5
"""How often the streams are looked at."""

ELSEWHERE_SECONDS = 0.5
"""How long an event is unacknowledged before the ephemeral store is asked: most acknowledgements come sooner, here."""


class Redelivery:
    """Looks after streams. Used on one event loop.

    Args:
        acknowledgements: those that reached other workers.
        acknowledge: called with each that was for a stream here.
    """

    def __init__(
        self, clock: Clock, acknowledgements: Acknowledgements, acknowledge: Callable[[Stream, Cursor], None]
    ) -> None:
        self._clock = clock
        self._acknowledgements = acknowledgements
        self._acknowledge = acknowledge
        self._streams: dict[str, Stream] = {}
        self._task = OnDemand(self._run, "redelivery")

    def add(self, stream: Stream) -> None:
        """Look after a stream until it says that this is not needed any more."""
        self._streams[stream.id] = stream
        self._task.wake()

    def remove(self, stream: Stream) -> None:
        """Forget a stream; idempotent."""
        self._streams.pop(stream.id, None)

    async def aclose(self) -> None:
        """Look after nobody any more; idempotent."""
        self._streams.clear()
        await self._task.aclose()

    async def _run(self) -> None:
        while self._streams:
            await self._clock.sleep(REDELIVERY_SECONDS)
            try:
                await self._take_acknowledgements()
                self._look()
            except Exception:
                logger.exception("the streams could not be looked after, retrying")

    async def _take_acknowledgements(self) -> None:
        before = self._clock.monotonic() - ELSEWHERE_SECONDS
        waiting = [
            stream.id
            for stream in self._streams.values()
            if (since := stream.unacknowledged_at) is not None and since <= before and not stream.closed
        ]
        if not waiting:
            return
        for stream_id, cursor in (await self._acknowledgements.take(waiting)).items():
            stream = self._streams.get(stream_id)
            if stream is not None:
                self._acknowledge(stream, cursor)

    def _look(self) -> None:
        now = self._clock.monotonic()
        for stream in list(self._streams.values()):
            if not stream.look(now):
                self._streams.pop(stream.id, None)
