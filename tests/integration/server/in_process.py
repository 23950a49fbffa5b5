"""Streams in this process: each event with whatever a test notes in the step of the event loop that sends it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from fastapi import FastAPI

from reactive_rpc.protocol.sse import ServerSentEvent, SSEDecoder
from tests.support.waiting import until

__all__ = ["InProcessStream"]

T = TypeVar("T")


class InProcessStream(Generic[T]):
    """One request for events, sent to an application as a server sends it; ended with the block.

    Args:
        queries: to be watched; None where the request is another, a subscription's for example.
        note: called as each event is sent; what it returns is kept beside the event.

    Attributes:
        status: of the answer; 0 before it comes.
        sent: the events so far, each with its note.
        body: everything that was sent, comments too.
        task: ends with the answer.
    """

    def __init__(
        self,
        app: FastAPI,
        queries: list[dict[str, Any]] | None,
        headers: Mapping[str, str],
        *,
        note: Callable[[], T],
        path: str = "/rpc/events",
        **request: Any,
    ) -> None:
        self.status = 0
        self.sent: list[tuple[T, ServerSentEvent]] = []
        self.body = b""
        self._note = note
        self._decoder = SSEDecoder()
        self._request = json.dumps(request if queries is None else {"queries": queries, **request}).encode()
        self._is_read = False
        self._gone = asyncio.Event()
        self.is_stuck = False
        self._taken = asyncio.Event()
        sent = {"content-type": "application/json", **headers}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
            "client": ("127.0.0.1", 1),
            "server": ("test", 80),
        }
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    async def __aenter__(self) -> Self:
        await until(lambda: self.status or self.task.done())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.leave()

    @property
    def names(self) -> list[str]:
        """The names of the events so far."""
        return [event.event for _, event in self.sent]

    async def leave(self) -> None:
        """Go away, as a client does."""
        self._gone.set()
        self.take()
        await self.task

    def take(self) -> None:
        """Read again, after `is_stuck` was set."""
        self.is_stuck = False
        self._taken.set()

    async def _receive(self) -> dict[str, Any]:
        if not self._is_read:
            self._is_read = True
            return {"type": "http.request", "body": self._request, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        self.body += message.get("body", b"")
        if self.status == 200:
            self.sent += [(self._note(), event) for event in self._decoder.feed(message.get("body", b""))]
        if self.is_stuck:
            self._taken.clear()
            await self._taken.wait()
