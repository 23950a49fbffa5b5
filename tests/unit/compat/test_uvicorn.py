"""The sends of uvicorn still ask nothing of their task, as `compat/uvicorn.py` says."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Literal

import pytest
import uvicorn

from reactive_rpc.compat.uvicorn import is_servers_own

Message = MutableMapping[str, Any]
BIG = bytes(1 << 20)
TIMES = 8
"""So many of them are more than the buffers of a connection hold, whose client does not read yet."""


class Outcome:
    """What the application has seen of its send."""

    is_own: bool | None = None
    has_waited = False
    tasks: list[object]

    def __init__(self) -> None:
        self.tasks = []


def application(outcome: Outcome) -> Callable[..., Awaitable[None]]:
    """Return one whose sends begin in a callback of the loop, in no task, and are finished in its own."""

    async def app(scope: Message, receive: object, send: Callable[[Message], Awaitable[None]]) -> None:
        outcome.is_own = is_servers_own(send)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(TIMES):
            begun = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(_begin, send, begun, outcome)
            steps, pending = await begun
            if steps is not None:
                outcome.has_waited = True
                await _Rest(steps, pending)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return app


def _begin(send: Callable[[Message], Awaitable[None]], begun: asyncio.Future[Any], outcome: Outcome) -> None:
    outcome.tasks.append(asyncio.current_task())
    steps = send({"type": "http.response.body", "body": BIG, "more_body": True}).__await__()
    try:
        begun.set_result((steps, next(steps)))
    except StopIteration:
        begun.set_result((None, None))


class _Rest:
    def __init__(self, steps: Any, pending: Any) -> None:
        self._steps, self._pending = steps, pending

    def __await__(self) -> Any:
        yield self._pending
        yield from self._steps


@pytest.mark.anyio
@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_a_send_that_began_in_no_task_is_finished_in_one(http: Literal["h11", "httptools"]) -> None:
    """Also one that has to wait for its connection: all bytes arrive."""
    outcome = Outcome()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(application(outcome), http=http, lifespan="off", log_config=None, ws="none")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        received = await reader.read()
        writer.close()
        server.should_exit = True
        await serving
    assert outcome.is_own is True
    assert outcome.tasks == [None] * TIMES
    assert outcome.has_waited
    assert len(received) > TIMES * len(BIG)


def test_a_send_around_it_is_not_the_servers_own() -> None:
    """Nobody knows what a middleware's asks for."""

    async def send(message: Message) -> None:
        raise NotImplementedError

    assert not is_servers_own(send)
    assert not is_servers_own(None)
