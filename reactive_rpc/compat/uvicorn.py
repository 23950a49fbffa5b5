"""The sends of uvicorn, which ask nothing of the task and of the context that they run in."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from uvicorn.protocols.http.h11_impl import RequestResponseCycle as H11Cycle

try:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle as HttptoolsCycle
except ImportError:  # httptools is an extra of uvicorn's
    HttptoolsCycle = H11Cycle  # type: ignore[assignment,misc]

__all__ = ["is_servers_own", "write_of"]

_SENDS = frozenset({H11Cycle.send, HttptoolsCycle.send})
_WRITTEN = _SENDS - {H11Cycle.send}
"""Those that only write; h11 counts what its own way out has sent."""


def is_servers_own(send: object) -> bool:
    """Return whether a `send` of ASGI is uvicorn's, and no middleware's around it.

    It waits at most for the connection to take more (an `asyncio.Event`), and looks at no task and no `ContextVar`.
    """
    return getattr(send, "__func__", None) in _SENDS


def write_of(send: object) -> Callable[[bytes], bool] | None:
    """Return what writes a part of an answer as `send` would, to spare what `send` makes of each; None if none can.

    What is returned tells whether it has written. If not, nothing is written, and `send` decides what is to be done:
    where it would wait, or write nothing, or write in another form. The answer has begun, and has not ended.
    """
    if getattr(send, "__func__", None) not in _WRITTEN:
        return None
    cycle: Any = send.__self__  # type: ignore[attr-defined]
    flow, write = cycle.flow, cycle.transport.write
    is_chunked = bool(cycle.chunked_encoding) and cycle.scope["method"] != "HEAD"

    def written(body: bytes) -> bool:
        if not is_chunked or flow.write_paused or cycle.disconnected or cycle.response_complete:
            return False
        write(_chunk(body))
        return True

    return written


# One event goes to many streams, one after another.
@lru_cache(maxsize=1)
def _chunk(body: bytes) -> bytes:
    """Return a chunk of an answer; not an empty one, which would end it."""
    return b"%x\r\n%b\r\n" % (len(body), body) if body else b""
