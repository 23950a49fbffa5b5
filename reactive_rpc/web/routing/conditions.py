"""The conditions of a request: the ETag that its client holds, and how fresh another result must be."""

from __future__ import annotations

import asyncio

from starlette.types import Scope

from reactive_rpc.cache.freshness import STRICT, STRICT_FOR_SERVER, ByToken, Strict
from reactive_rpc.protocol.headers import CURSOR

__all__ = ["is_held", "is_server_request", "required_freshness"]

_CURSOR = CURSOR.encode()

_REQUEST_COROUTINES = frozenset({"RequestResponseCycle.run_asgi"})
"""Qualified names, in `uvicorn.protocols.http`: the coroutine that one request is served by."""


def is_held(scope: Scope, etag: bytes) -> bool:
    """Tell whether the client has the result of an ETag.

    >>> is_held({"headers": [(b"if-none-match", b'W/"a", "b"')]}, b'"a"')
    True
    """
    for name, value in scope["headers"]:  # no generator: of all that is asked of a request, this is asked of each
        if name == b"if-none-match" and etag in [tag.strip().removeprefix(b"W/") for tag in value.split(b",")]:
            return True
    return False


def required_freshness(scope: Scope, *, by_token: bool, is_shared: bool) -> Strict | ByToken:
    """Return how fresh a stored result must be to be served.

    Args:
        by_token: whether it may be served without reading the log, see `cache/freshness.py`.
        is_shared: whether it may share one reading of the log with others, see `is_server_request`.
    """
    if by_token:
        return ByToken(_token_of(scope), is_shared)
    return STRICT_FOR_SERVER if is_shared else STRICT


def is_server_request() -> bool:
    """Tell whether a server has read the request from a socket, and not somebody's code in this process made it.

    Requests of a server may share one reading of the log (`backends/sqlite/log.py` argues why). A caller in this
    process may not: it can write and then ask within one step of the event loop, through an in-process transport, and
    must see what it wrote. They differ in the task that they run in: uvicorn runs each request in a task of its own,
    whose coroutine it names. Under a server that is not known here, nobody shares.

    Tasks that a request's own task makes for its calls may be told what is true of it: they are ready to run only after
    it was read.
    """
    task = asyncio.current_task()
    coroutine = None if task is None else task.get_coro()
    if getattr(coroutine, "__qualname__", None) not in _REQUEST_COROUTINES:
        return False
    code = getattr(coroutine, "cr_code", None)
    return code is not None and "uvicorn" in code.co_filename


def _token_of(scope: Scope) -> str | None:
    """Return the client's cursor as it was sent, several as one that means nothing; None if there is none."""
    found = [value for name, value in scope["headers"] if name == _CURSOR]
    return b" ".join(found).decode("latin-1") if found else None
