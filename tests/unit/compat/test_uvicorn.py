"""The sends of uvicorn still ask nothing of their task, as `compat/uvicorn.py` says."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Literal

import pytest
import uvicorn

from reactive_rpc.compat.uvicorn import Head, is_servers_own, write_answer, write_of

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
    app: Application,
    http: Literal["h11", "httptools"] = "httptools",
    *,
    request: bytes = b"GET / HTTP/1.1",
    before: int = 0,
    access_log: bool = True,
    read_when: asyncio.Event | None = None,
) -> bytes:
    """Serve one request, and return all that comes until the server ends the connection.

    Args:
        before: so many more come before it over the same connection, all at once.
        read_when: nothing is read before it is set.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(app, http=http, lifespan="off", log_config=None, ws="none", access_log=access_log)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        writer.write((request + b"\r\nhost: x\r\n\r\n") * before)
        writer.write(request + b"\r\nhost: x\r\nconnection: close\r\n\r\n")
        if read_when is not None:
            await read_when.wait()
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


def start_of(head: Head) -> Message:
    """Return the message of ASGI."""
    return {"type": "http.response.start", "status": head.status, "headers": [*head.headers]}


async def send_answer(send: Send, head: Head, body: bytes) -> None:
    """Send an answer as any application does."""
    await send(start_of(head))
    await send({"type": "http.response.body", "body": body})


HEADS = [Head(200, [(b"content-type", b"text/plain"), (b"content-length", b"5")]), Head(304, [(b"etag", b'"a"')])]


@pytest.mark.anyio
@pytest.mark.parametrize("request_line", [b"GET / HTTP/1.1", b"HEAD / HTTP/1.1", b"GET / HTTP/1.0"])
@pytest.mark.parametrize("head", HEADS, ids=["whole", "held"])
async def test_an_answer_is_written_as_it_would_be_sent(head: Head, request_line: bytes) -> None:
    """Over a connection that stays, and over one that ends with it; with a body, and without one."""
    body = b"x" * 5 if head.status == 200 else b""
    written: list[bool] = []

    async def sends(scope: Message, receive: object, send: Send) -> None:
        await send_answer(send, head, body)

    async def writes(scope: Message, receive: object, send: Send) -> None:
        written.append(write_answer(send, head, body))
        if not written[-1]:
            await send_answer(send, head, body)

    seen = [
        without_date(await received_of(app, request=request_line, before=3, access_log=False))
        for app in (sends, writes)
    ]
    assert seen[0] == seen[1]
    stays = request_line == b"GET / HTTP/1.1"
    assert written == [*[stays] * (len(written) - 1), False]
    assert seen[0].count(b"HTTP/1.1 ") == len(written)
    assert len(written) == (1 if request_line.endswith(b"1.0") else 4)


async def dates_of(head: Head) -> list[bytes]:
    """Return the dates of answers that have one head, each of a later second of the server's."""
    number = 0

    async def app(scope: Message, receive: object, send: Send) -> None:
        nonlocal number
        number += 1
        send.__self__.default_headers = [(b"date", b"second %d" % number)]  # type: ignore[attr-defined]  # uvicorn's cycle
        if not write_answer(send, head, b""):
            await send_answer(send, head, b"")

    received = await received_of(app, before=3, access_log=False)
    return [line for line in received.split(b"\r\n") if line.startswith(b"date: ")]


@pytest.mark.anyio
async def test_a_head_has_the_servers_own_headers_of_the_moment() -> None:
    """It is spelled anew when they are others."""
    assert await dates_of(Head(304, [])) == [b"date: second %d" % number for number in (1, 2, 3, 4)]


@pytest.mark.anyio
@pytest.mark.seeded_bug
async def test_a_head_that_is_never_spelled_anew_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the dates that it repeats."""
    spell = Head._spell

    def once(self: Head, cycle: Any) -> None:
        if not self._spelled:
            spell(self, cycle)

    monkeypatch.setattr(Head, "_spell", once)
    assert await dates_of(Head(304, [])) != [b"date: second %d" % number for number in (1, 2, 3, 4)]


@pytest.mark.anyio
async def test_an_answer_waits_for_a_client_that_does_not_read() -> None:
    """By `send`: nothing is written for it, and then all arrives."""
    written: list[bool] = []
    is_held = asyncio.Event()
    head = Head(200, [(b"content-length", b"%d" % (TIMES * len(BIG)))])
    body = BIG * TIMES

    async def app(scope: Message, receive: object, send: Send) -> None:
        written.append(write_answer(send, head, body))
        if not written[-1]:
            is_held.set()
            await send_answer(send, head, body)

    received = await received_of(app, before=2, access_log=False, read_when=is_held)
    assert written == [True, False, False]
    assert len(received) > len(written) * len(body)


@pytest.mark.anyio
@pytest.mark.parametrize("case", ["h11", "around", "logged", "begun"])
async def test_an_answer_is_left_to_send(case: str) -> None:
    """To another server's, to a middleware's, where answers are logged, and where one has begun."""
    written: list[bool] = []
    [whole, _] = HEADS

    async def app(scope: Message, receive: object, send: Send) -> None:
        async def around(message: Message) -> None:
            await send(message)

        if case == "begun":
            await send(start_of(whole))
        written.append(write_answer(around if case == "around" else send, whole, b"x" * 5))
        if case != "begun":
            await send(start_of(whole))
        await send({"type": "http.response.body", "body": b"x" * 5})

    received = await received_of(app, "h11" if case == "h11" else "httptools", before=1, access_log=case == "logged")
    assert written == [False, False]
    assert received.count(b"xxxxx") == len(written)


@pytest.mark.anyio
@pytest.mark.parametrize("own", [(b"connection", b"close"), (b"transfer-encoding", b"chunked")])
async def test_an_answer_is_left_to_a_server_whose_own_headers_end_it_otherwise(own: tuple[bytes, bytes]) -> None:
    """A connection that closes with the answer, and a body in chunks: `send` does more than write."""
    written: list[bool] = []
    head = Head(200, [(b"content-length", b"5")])

    async def app(scope: Message, receive: object, send: Send) -> None:
        send.__self__.default_headers = [own]  # type: ignore[attr-defined]  # uvicorn's cycle
        written.append(write_answer(send, head, b"x" * 5))
        if not written[-1]:
            await send_answer(send, head, b"x" * 5)

    received = await received_of(app, access_log=False)
    assert written == [False] * len(written)
    assert received.count(b"xxxxx") == len(written)


@pytest.mark.anyio
@pytest.mark.parametrize("is_spelled_first", [False, True])
async def test_a_request_that_closes_its_connection_shares_no_head(is_spelled_first: bool) -> None:
    """Some releases of uvicorn say `connection: close` to it alone, and it is said to nobody else."""
    head = Head(200, [(b"content-length", b"5")])
    written: list[bool] = []

    async def app(scope: Message, receive: object, send: Send) -> None:
        scope["headers"] = [(b"connection", b"close")] if (not written) != is_spelled_first else []
        written.append(write_answer(send, head, b"x" * 5))
        if not written[-1]:
            await send_answer(send, head, b"x" * 5)

    await received_of(app, before=1, access_log=False)
    assert written[0] is is_spelled_first
    assert b"close" not in head._spelled
