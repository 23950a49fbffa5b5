"""Calls by path, where a test has the path and not the function."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from reactive_rpc import ReactiveRPC

__all__ = ["CallByPath", "by_path"]

CallByPath = Callable[..., Coroutine[Any, Any, Any]]


def by_path(rpc: ReactiveRPC, ctx: object = None) -> CallByPath:
    """Return what calls procedures by their paths, in this process: `await by_path(rpc)("notes.get", id=1)`."""

    async def call(path: str, /, **input: Any) -> Any:
        return await rpc.admin.try_call(path, input, ctx)

    return call
