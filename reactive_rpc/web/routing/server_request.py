"""Whether a server has read a request from a socket, or somebody's code in this process has made it.

Requests of a server may share one reading of the log (`backends/sqlite/log.py` argues why). A
caller in this process may not: it can write and then ask within one step of the event loop, through an in-process
transport, and must see what it wrote. They differ in the task that they run in: uvicorn runs each request in a task
of its own, whose coroutine it names. Under a server that is not known here, nobody shares.
"""

from __future__ import annotations

import asyncio

__all__ = ["is_server_request"]

_REQUEST_COROUTINES = frozenset({"RequestResponseCycle.run_asgi"})
"""Qualified names, in `uvicorn.protocols.http`: the coroutine that one request is served by."""


def is_server_request() -> bool:
    """Tell whether the current task is a server's, for one request."""
    task = asyncio.current_task()
    coroutine = None if task is None else task.get_coro()
    if getattr(coroutine, "__qualname__", None) not in _REQUEST_COROUTINES:
        return False
    code = getattr(coroutine, "cr_code", None)
    return code is not None and "uvicorn" in code.co_filename
