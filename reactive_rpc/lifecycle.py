"""Being open: once at a time, on one event loop, closed in reverse order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Final

from reactive_rpc.errors import ReactiveRPCError, ServiceUnavailableError

__all__ = ["Lifecycle"]

NOT_OPEN: Final = (
    "ReactiveRPC is not open: give its lifespan to the outermost application, FastAPI(lifespan=rpc.lifespan), as that "
    "of a mounted one is never run; combine_lifespans(rpc.lifespan, another) makes one of several. Without an "
    "application, await rpc.admin.open() before and rpc.admin.aclose() after"
)


class Lifecycle:
    """Closed, opening or open.

    Args:
        open_parts: opens everything in order, and pushes onto the stack how each is closed.
    """

    def __init__(self, open_parts: Callable[[AsyncExitStack], Awaitable[None]]) -> None:
        self._open_parts = open_parts
        self._opened: AsyncExitStack | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self) -> None:
        """Open, or close again what was opened before a failure.

        Raises:
            ReactiveRPCError: it is open already.
            Exception: whatever `open_parts` raises.
        """
        if self._loop is not None:
            raise ReactiveRPCError(
                "this ReactiveRPC is open already: open it once, by the lifespan of one application or by open(), "
                "and aclose() it before it is opened again"
            )
        self._loop = asyncio.get_running_loop()
        try:
            async with AsyncExitStack() as stack:
                await self._open_parts(stack)
                self._opened = stack.pop_all()
        except BaseException:
            self._loop = None
            raise

    async def aclose(self) -> None:
        """Close in reverse order; idempotent."""
        if self._opened is not None:
            opened, self._opened = self._opened, None
            try:
                await opened.aclose()
            finally:
                self._loop = None

    def require_open(self) -> None:
        """Let nothing be served before this is open, after it is closed, or on another event loop.

        Raises:
            ServiceUnavailableError: it is not open here; the message says how it is opened.
        """
        if self._opened is None:
            raise ServiceUnavailableError(NOT_OPEN)
        if asyncio.get_running_loop() is not self._loop:
            raise ServiceUnavailableError(
                "ReactiveRPC was opened on another event loop, to which its connections belong: open it on the one "
                "that serves (in tests: by the application's lifespan or by open(), in the loop that makes the calls)"
            )
