"""A load generator that costs little: it counts bytes, because every answer of one target has the same length.

One process, one event loop, `connections` keep-alive connections, one request in flight on each.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import cast


@dataclass(frozen=True)
class Target:
    """Where to send what."""

    name: str
    port: int
    request: bytes


class _Connection(asyncio.Protocol):
    def __init__(self, request: bytes, answer_bytes: int) -> None:
        self.answers = 0
        self._request = request
        self._answer_bytes = answer_bytes
        self._pending = answer_bytes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._pending -= len(data)
        if self._pending == 0:
            self.answers += 1
            self._pending = self._answer_bytes
            self._transport.write(self._request)

    def close(self) -> None:
        self._transport.abort()


async def answer_of(target: Target) -> bytes:
    """Return one whole answer, head and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    writer.write(target.request)
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
    # One that does not say how long it is comes in chunks, as Node's do.
    body = await (reader.readexactly(lengths[0]) if lengths else reader.readuntil(b"\r\n0\r\n\r\n"))
    writer.close()
    return head + body


async def requests_per_second(target: Target, *, connections: int, seconds: float) -> float:
    """Return the throughput; raise where an answer is no 200."""
    answer = await answer_of(target)
    if not answer.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"{target.name} answers {answer[:200]!r}")
    loop = asyncio.get_running_loop()
    made = [
        (await loop.create_connection(lambda: _Connection(target.request, len(answer)), "127.0.0.1", target.port))[1]
        for _ in range(connections)
    ]
    started = time.perf_counter()
    before = sum(connection.answers for connection in made)
    await asyncio.sleep(seconds)
    answers = sum(connection.answers for connection in made) - before
    elapsed = time.perf_counter() - started
    for connection in made:
        connection.close()
    return answers / elapsed
