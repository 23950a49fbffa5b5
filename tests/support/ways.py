"""Ways to a server that are worse than none: they cut connections, cut answers into pieces, or hold them back whole."""

from __future__ import annotations

import socket
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Lock, Thread
from types import TracebackType
from typing import Any, Self

__all__ = ["HoldingWay", "Way"]

CHUNK_BYTES = 65_536


class _Server(ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: one of the ends has gone."""


class _HTTPServer(ThreadingHTTPServer):
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: one of the ends has gone."""


class _Listening:
    """A server in threads of its own, for as long as a block runs."""

    def __init__(self, server: _Server | _HTTPServer) -> None:
        self._server = server
        self.url = f"http://127.0.0.1:{server.server_address[1]}"

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()


class Way(_Listening):
    """Passes bytes to and fro.

    Args:
        port: of the server.
        piece_bytes: how much of an answer is sent at once; it ends wherever that falls.
    """

    def __init__(self, port: int, *, piece_bytes: int = CHUNK_BYTES) -> None:
        self._port = port
        self._piece_bytes = piece_bytes
        self._lock = Lock()
        self._sockets: set[socket.socket] = set()
        self._is_cut = False
        way = self

        class Handler(BaseRequestHandler):
            def handle(self) -> None:
                way._carry(self.request)

        super().__init__(_Server(("127.0.0.1", 0), Handler))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.cut()
        super().__exit__(kind, error, at)

    def cut(self) -> None:
        """End all connections, and whichever are made from now on."""
        with self._lock:
            self._is_cut = True
            for each in self._sockets:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Let connections be made again."""
        with self._lock:
            self._is_cut = False

    def _carry(self, inward: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self._port)) as outward:
            both = {inward, outward}
            with self._lock:
                if self._is_cut:
                    return
                self._sockets |= both
            inward.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                asking = Thread(target=_pass_on, args=(inward, outward, CHUNK_BYTES), daemon=True)
                asking.start()
                _pass_on(outward, inward, self._piece_bytes)
                asking.join()
            finally:
                with self._lock:
                    self._sockets -= both


def _pass_on(source: socket.socket, target: socket.socket, piece_bytes: int) -> None:
    with suppress(OSError):
        while chunk := source.recv(CHUNK_BYTES):
            for start in range(0, len(chunk), piece_bytes):
                target.sendall(chunk[start : start + piece_bytes])
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


class HoldingWay(_Listening):
    """A proxy that holds an answer back until it has all of it, whatever the answer says of buffers.

    Args:
        port: of the server.
    """

    def __init__(self, port: int) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                _answer_whole(self, port)

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                """Keep quiet."""

        super().__init__(_HTTPServer(("127.0.0.1", 0), Handler))


def _answer_whole(request: BaseHTTPRequestHandler, port: int) -> None:
    body = request.rfile.read(int(request.headers.get("content-length") or 0))
    headers = {name: value for name, value in request.headers.items() if name.lower() not in ("connection", "host")}
    server = HTTPConnection("127.0.0.1", port)
    try:
        server.request(request.command, request.path, body=body or None, headers=headers)
        answer = server.getresponse()
        held = answer.read()
    except (OSError, HTTPException):
        request.close_connection = True
        return
    finally:
        server.close()
    request.send_response(answer.status)
    for name, value in answer.getheaders():
        if name.lower() not in ("transfer-encoding", "content-length", "connection"):
            request.send_header(name, value)
    request.send_header("content-length", str(len(held)))
    request.end_headers()
    request.wfile.write(held)
