"""The sends of uvicorn, which ask nothing of the task and of the context that they run in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from functools import lru_cache
from typing import Any

from uvicorn.protocols.http.h11_impl import RequestResponseCycle as H11Cycle

try:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle as HttptoolsCycle
except ImportError:  # httptools is an extra of uvicorn's
    HttptoolsCycle = H11Cycle  # type: ignore[assignment,misc]

__all__ = ["Head", "is_servers_own", "write_answer", "write_of"]

_SENDS = frozenset({H11Cycle.send, HttptoolsCycle.send})
_WRITTEN = _SENDS - {H11Cycle.send}
"""Those that only write; h11 counts what its own way out has sent."""

_CLOSE = (b"connection", b"close")


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


class _Written:
    """A transport that keeps what is written to it."""

    __slots__ = ("parts", "write")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.write = self.parts.append


class Head:
    """The head of an answer to GET, for many answers: uvicorn spells it once for as long as its own headers last.

    Attributes:
        status: of HTTP.
        headers: of the answer; they say its length, or the status allows no body.
    """

    __slots__ = ("_defaults", "_is_chunked", "_spelled", "headers", "status")

    def __init__(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.status = status
        self.headers = headers
        self._defaults: object = None
        self._spelled = b""
        self._is_chunked: bool | None = None

    def spelled(self, cycle: Any) -> bytes:
        """Return the bytes that a cycle of uvicorn would write, and leave it as it would be once they are written.

        None are returned, and it is left as it is, if uvicorn would close the connection or send the body in chunks, as
        a header of its own may say.
        """
        # INVARIANT (compared as objects, which are held here): uvicorn makes another list of its own headers each
        # second, as they say the date.
        if cycle.default_headers is not self._defaults:
            self._spell(cycle)
        if self._spelled:
            cycle.response_started = True
            cycle.chunked_encoding = self._is_chunked
        return self._spelled

    def _spell(self, cycle: Any) -> None:
        # By uvicorn itself, in a cycle that is like this one, for a connection that is none.
        twin = copy(cycle)
        twin.transport = written = _Written()
        try:
            twin.send({"type": "http.response.start", "status": self.status, "headers": self.headers}).send(None)
        except StopIteration:
            is_plain = twin.keep_alive and not twin.chunked_encoding
            self._spelled, self._is_chunked = b"".join(written.parts) if is_plain else b"", twin.chunked_encoding
            self._defaults = cycle.default_headers


def write_answer(send: object, head: Head, body: bytes) -> bool:
    """Write a whole answer to GET as two calls of `send` would, to spare what `send` makes of each.

    What is returned tells whether it is written. If not, nothing is, and `send` decides what is to be done: where it
    would wait, write nothing, close the connection or keep a log of answers.

    Args:
        body: of as many bytes as the head says, if it says that; empty if it does not.
    """
    if getattr(send, "__func__", None) not in _WRITTEN:
        return False
    cycle: Any = send.__self__  # type: ignore[attr-defined]  # a method, as it has a `__func__`
    if (
        cycle.response_started
        or cycle.disconnected
        or cycle.access_log
        or not cycle.keep_alive
        or cycle.waiting_for_100_continue
        or cycle.flow.write_paused
        or cycle.scope["method"] != "GET"
        or _CLOSE in cycle.scope["headers"]  # some uvicorns' send answers to it, and keeps the connection
    ):
        return False
    spelled = head.spelled(cycle)
    if not spelled:
        return False
    # INVARIANT (nothing is awaited, and all of the answer is there): what the connection holds for a client that does
    # not read is one body at most beyond what `send` would let it hold, and the next answer waits for that client.
    write = cycle.transport.write
    write(spelled)
    write(body)
    cycle.response_complete = True
    cycle.message_event.set()
    cycle.on_response()
    return True
