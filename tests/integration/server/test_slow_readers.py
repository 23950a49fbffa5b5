"""Slow readers, and middlewares in the way: nobody else waits, nothing is lost in silence, and bytes arrive at once."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from starlette.middleware.gzip import GZipMiddleware

from reactive_rpc import ReactiveRPC
from reactive_rpc.testing import running
from tests.support.waiting import wait_until

from .rooms import app_of, rpc_on
from .streams import heard, in_rooms

LARGE = {"queries": [{"path": "notes.in_rooms", "input": {"rooms": ["a", "x" * 100_000]}}]}
"""A set whose events are so large that a few of them fill what the system holds for a connection."""

BOUND_BYTES = 300_000
MOST_EVENTS = 300


def write(file: Path, *texts: str) -> None:
    with closing(sqlite3.connect(file)) as connection:
        for text in texts:
            with connection:
                connection.execute("INSERT INTO note(tenant, room, text) VALUES ('t', 'a', ?)", (text,))


@contextmanager
def deaf(url: str) -> Iterator[socket.socket]:
    """Open a stream and read nothing of it, with as little room for what comes as the system allows."""
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((host, int(port)))
        body = json.dumps(LARGE).encode()
        connection.sendall(
            b"POST /rpc/events HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(body), body)
        )
        yield connection


def names_of(connection: socket.socket) -> list[str]:
    """Read on and return the names of the events, up to the first `gap`."""
    connection.settimeout(20)
    text = b""
    while b"event: gap\n" not in text:
        text += connection.recv(1_000_000)
    return re.findall(r"event: (\w+)\n", text.decode())


@pytest.fixture
def rpc(file: Path) -> ReactiveRPC:
    return rpc_on(file, settings={"stream_queue_bytes": BOUND_BYTES})


def test_a_reader_that_does_not_read_delays_nobody(file: Path, rpc: ReactiveRPC) -> None:
    """The others hear every event; what waits for it stays within its bound; when it reads again it finds a gap."""
    with running(app_of(rpc)) as url, deaf(url) as connection, heard(url, json=in_rooms("a")) as quick:
        quick.next()
        wait_until(lambda: rpc.admin.stats()["streams"] == 2)
        for number in range(MOST_EVENTS):
            write(file, f"{number}")
            assert quick.next()[0] == "invalidation"
            assert rpc._hub.waiting_bytes <= BOUND_BYTES
            if _overflown(rpc):
                break
        names = names_of(connection)
        assert names[0] == "connected"
        assert names.index("gap") < number
        write(file, "last")
        assert quick.next()[0] == "invalidation"


def _overflown(rpc: ReactiveRPC) -> bool:
    return any(frame.name == "gap" for stream in rpc._hub.open_streams for frame in stream._waiting)


def test_a_reader_that_goes_away_in_the_middle_of_a_send_is_forgotten(file: Path, rpc: ReactiveRPC) -> None:
    """Its connection was blocked, its task in a send: both end with the connection."""
    with running(app_of(rpc)) as url:
        with deaf(url):
            wait_until(lambda: rpc.admin.stats()["streams"] == 1)
            for number in range(MOST_EVENTS):
                write(file, f"{number}")
                if _overflown(rpc):
                    break
            assert _overflown(rpc)
        wait_until(lambda: rpc.admin.stats()["streams"] == rpc.admin.stats()["watched_queries"] == 0)


def _gzip(app: FastAPI) -> None:
    app.add_middleware(GZipMiddleware, minimum_size=1)


def _base(app: FastAPI) -> None:
    @app.middleware("http")
    async def marked(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        response.headers["x-marked"] = "yes"
        return response


def _timed(app: FastAPI) -> None:
    """Like a middleware that limits each send in time: it asks for the current task."""

    class Timed:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def limited(message: Any) -> None:
                async with asyncio.timeout(60):
                    await send(message)

            await self.app(scope, receive, limited)

    app.add_middleware(Timed)


@pytest.mark.parametrize("middlewares", [[_gzip], [_base], [_timed], [_gzip, _base, _timed], [_base, _gzip, _base]])
def test_events_pass_through_middlewares_at_once(
    file: Path, rpc: ReactiveRPC, middlewares: list[Callable[[FastAPI], None]]
) -> None:
    """One that compresses, ones that hand each message to another task, one that limits sends: in order, complete."""
    app = app_of(rpc)
    for add in middlewares:
        add(app)
    with running(app) as url:
        with heard(url, json=in_rooms("a")) as stream:
            assert stream.next()[0] == "connected"
            cursors = []
            for number in range(30):
                write(file, f"{number}")
                name, _, cursor = stream.next()
                assert name == "invalidation"
                cursors.append(int(cursor.split(":")[1]))
            assert cursors == sorted(set(cursors))
        wait_until(lambda: rpc.admin.stats()["streams"] == 0)


@pytest.mark.parametrize(
    ("middlewares", "is_plain"), [([], True), ([_timed], False), ([_base], False), ([_gzip], False)]
)
def test_events_go_to_the_server_itself_if_no_middleware_stands_between(
    file: Path, rpc: ReactiveRPC, middlewares: list[Callable[[FastAPI], None]], is_plain: bool
) -> None:
    """Past FastAPI's own layers, which is a third of what an event costs beside the connection's own write."""
    app = app_of(rpc)
    for add in middlewares:
        add(app)
    with running(app) as url, heard(url, json=in_rooms("a")) as stream:
        assert stream.next()[0] == "connected"
        [opened] = rpc._hub.open_streams
        assert opened._writer is not None
        assert opened._writer._is_plain is is_plain
        write(file, "now")
        assert stream.next()[0] == "invalidation"
