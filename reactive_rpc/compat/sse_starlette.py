"""What sse-starlette knows of the server's end."""

from __future__ import annotations

from sse_starlette import EventSourceResponse

__all__ = ["server_exit"]


class _ExitSignal(EventSourceResponse):
    @classmethod
    async def received(cls) -> None:
        await cls._listen_for_exit_signal()


async def server_exit() -> None:
    """Return once the server is told to stop; uvicorn tells the application only when no connection is open."""
    await _ExitSignal.received()
