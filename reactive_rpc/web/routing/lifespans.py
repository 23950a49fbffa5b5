"""Several lifespans as one: FastAPI takes a single one, and an application may have more to open and close."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI

__all__ = ["Lifespan", "combine_lifespans"]

Stateful = Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, Any]]]
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]] | Stateful
"""What `FastAPI(lifespan=...)` takes; what it yields, if anything, is `request.state`."""


def combine_lifespans(*lifespans: Lifespan) -> Stateful:
    """Return a lifespan that enters each of `lifespans` in order, and leaves them in reverse.

        app = FastAPI(lifespan=combine_lifespans(rpc.lifespan, search.lifespan))

    What they yield is merged; of two values under one name the later counts.
    """

    @asynccontextmanager
    async def combined(app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        state: dict[str, Any] = {}
        async with AsyncExitStack() as stack:
            for lifespan in lifespans:
                entered: AbstractAsyncContextManager[Mapping[str, Any] | None] = lifespan(app)
                yielded = await stack.enter_async_context(entered)
                state.update(yielded or {})
            yield state or None  # type: ignore[misc]  # not every server has a place for a state, if only an empty one

    return combined
