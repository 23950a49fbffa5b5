"""A network with a latency: relays TCP connections, and holds back what passes for a constant time each way.

    python -m benchmarks.delayed <seconds, one way> <listen host>:<port>=<host>:<port> ...

It models that nothing arrives sooner than the latency, in order. It does not model the handshake (a connection is
accepted at once), windows that a long way opens slowly, loss, jitter, and bandwidth.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from collections import deque

READ_BYTES = 65536

Due = deque[tuple[float, socket.socket, bytes]]


def serve(seconds: float, ways: list[tuple[tuple[str, int], tuple[str, int]]]) -> None:
    """Relay until killed."""
    listening = {socket.create_server(listen): target for listen, target in ways}
    others: dict[socket.socket, socket.socket] = {}
    due: Due = deque()
    while True:
        wait = max(0.0, due[0][0] - time.monotonic()) if due else None
        ready, _, _ = select.select([*listening, *others], [], [], wait)
        for each in ready:
            if each in listening:
                _accept(each, listening[each], others)
            elif each in others:
                due.append((time.monotonic() + seconds, others[each], _read(each)))
                if not due[-1][2]:
                    del others[each]
        while due and due[0][0] <= time.monotonic():
            _, to, data = due.popleft()
            _deliver(to, data)


def _accept(listener: socket.socket, target: tuple[str, int], others: dict[socket.socket, socket.socket]) -> None:
    near, _ = listener.accept()
    far = socket.create_connection(target)
    for each in (near, far):
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    others[near], others[far] = far, near


def _read(each: socket.socket) -> bytes:
    try:
        return each.recv(READ_BYTES)
    except OSError:
        return b""


def _deliver(to: socket.socket, data: bytes) -> None:
    """Write what has come, or end what was ended at the other side."""
    try:
        if data:
            to.sendall(data)
        else:
            to.shutdown(socket.SHUT_WR)
    except OSError:
        to.close()


def _address(text: str) -> tuple[str, int]:
    host, port = text.rsplit(":", 1)
    return host, int(port)


if __name__ == "__main__":
    _, way, *rest = sys.argv
    pairs = [each.split("=") for each in rest]
    serve(float(way), [(_address(listen), _address(target)) for listen, target in pairs])
