"""The sends of uvicorn, which ask nothing of the task and of the context that they run in."""

from __future__ import annotations

from uvicorn.protocols.http.h11_impl import RequestResponseCycle as H11Cycle

try:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle as HttptoolsCycle
except ImportError:  # httptools is an extra of uvicorn's
    HttptoolsCycle = H11Cycle  # type: ignore[assignment,misc]

__all__ = ["is_servers_own"]

_SENDS = frozenset({H11Cycle.send, HttptoolsCycle.send})


def is_servers_own(send: object) -> bool:
    """Return whether a `send` of ASGI is uvicorn's, and no middleware's around it.

    It waits at most for the connection to take more (an `asyncio.Event`), and looks at no task and no `ContextVar`.
    """
    return getattr(send, "__func__", None) in _SENDS
