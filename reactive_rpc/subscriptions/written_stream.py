"""A stream that one writer puts its events into, as fast as they are sent: those of a subscription's handler."""

from __future__ import annotations

import asyncio
from typing import Any

from reactive_rpc.subscriptions.frame import Frame
from reactive_rpc.subscriptions.stream import IDLE, Stream

__all__ = ["WrittenStream"]


class WrittenStream(Stream):
    """A stream with a writer who waits for its reader. Used on one event loop; it takes what `Stream` takes."""

    __slots__ = ("_drained",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._drained: asyncio.Future[None] | None = None

    async def put(self, frame: Frame) -> None:
        """Queue a frame of any size, and wait until it is sent; for one writer.

        Of a stream that is closed this does not return: whoever writes to it is cancelled as its answer ends.
        """
        if self.closed:
            await asyncio.Event().wait()
        self._waiting.append(frame)
        self._held_bytes += len(frame.wire)
        self._queue()
        self._drained = asyncio.get_running_loop().create_future()
        try:
            await self._drained
        finally:
            self._drained = None

    def flush(self, now: float) -> None:
        """Write the waiting frames, and let the writer go on if all of them have left."""
        super().flush(now)
        if self._state is IDLE and self._drained is not None and not self._drained.done() and not self._waiting:
            self._drained.set_result(None)
