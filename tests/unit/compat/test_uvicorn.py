"""The sends of uvicorn still ask nothing of their task, as `compat/uvicorn.py` says."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Literal

import pytest
import uvicorn

from reactive_rpc.compat.uvicorn import is_servers_own, write_of

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, object, Send], Awaitable[None]]
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


def application(outcome: Outcome) -> Application:
    """Return one whose sends begin in a callback of the loop, in no task, and are finished in its own."""

    async def app(scope: Message, receive: object, send: Send) -> None:
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


def _begin(send: Send, begun: asyncio.Future[Any], outcome: Outcome) -> None:
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


async def received_of(
    app: Application, http: Literal["h11", "httptools"] = "httptools", *, request: bytes = b"GET / HTTP/1.1"
) -> bytes:
    """Serve one request, and return all that comes until the server ends the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(app, http=http, lifespan="off", log_config=None, ws="none")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        writer.write(request + b"\r\nhost: x\r\nconnection: close\r\n\r\n")
        received = await reader.read()
        writer.close()
        server.should_exit = True
        await serving
    return received


@pytest.mark.anyio
@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_a_send_that_began_in_no_task_is_finished_in_one(http: Literal["h11", "httptools"]) -> None:
    """Also one that has to wait for its connection: all bytes arrive."""
    outcome = Outcome()
    received = await received_of(application(outcome), http)
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


PARTS = [b"event: one\n\n", b"x" * 70_000, b"\r\n", b"event: one\n\n", b"0"]


def _part(body: bytes) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": True}


def parts_by(*, by_write: Callable[[int], bool], headers: Sequence[tuple[bytes, bytes]] = ()) -> Application:
    """Return an application that sends each part, or has it written where `by_write` says so and that can be done."""

    async def app(scope: Message, receive: object, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
        write = write_of(send)
        for number, body in enumerate(PARTS):
            if not (by_write(number) and write is not None and write(body)):
                await send(_part(body))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return app


def without_date(received: bytes) -> bytes:
    return b"\r\n".join(line for line in received.split(b"\r\n") if not line.startswith(b"date:"))


@pytest.mark.anyio
@pytest.mark.parametrize("request_line", [b"GET / HTTP/1.1", b"HEAD / HTTP/1.1", b"GET / HTTP/1.0"])
@pytest.mark.parametrize("headers", [[], [(b"content-length", b"%d" % sum(map(len, PARTS)))]])
async def test_what_is_written_is_what_would_be_sent(headers: list[tuple[bytes, bytes]], request_line: bytes) -> None:
    """By every mixture of the two, whether the answer is chunked, has a length, or has no body."""
    by_send = await received_of(parts_by(by_write=lambda _: False, headers=headers), request=request_line)
    for mixture in range(1, 2 ** len(PARTS)):
        app = parts_by(by_write=lambda number, mixture=mixture: bool(mixture >> number & 1), headers=headers)  # type: ignore[misc]
        assert without_date(await received_of(app, request=request_line)) == without_date(by_send), mixture


@pytest.mark.anyio
async def test_nothing_is_written_to_a_connection_that_takes_no_more() -> None:
    """Nor to one that has gone, or whose answer has ended: what `send` does then is not ours to repeat."""
    written: list[bool] = []

    async def app(scope: Message, receive: object, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        write = write_of(send)
        assert write is not None
        while write(BIG):
            written.append(True)
        await send(_part(b"end"))
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        written.append(write(b"late"))

    received = await received_of(app)
    assert written == [*[True] * (len(written) - 1), False]
    assert len(received) > (len(written) - 1) * len(BIG)
    assert b"late" not in received


@pytest.mark.anyio
async def test_only_the_server_that_is_known_is_written_to() -> None:
    """h11 counts what its own way out has sent, and a middleware may want to see what passes."""
    found: list[object] = []

    async def app(scope: Message, receive: object, send: Send) -> None:
        async def around(message: Message) -> None:
            await send(message)

        found.extend([write_of(send), write_of(around)])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    await received_of(app, "h11")
    assert found == [None, None]
