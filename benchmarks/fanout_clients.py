"""Many event streams held open by one process that does nothing else: an epoll loop over plain sockets.

It is driven by a pipe: one JSON object a line in, one a line out, in turn.

    {"do": "open", "port", "request", "count", "marker"}  opens the streams; each has answered once `marker` has come
    {"do": "await", "marker", "end", "seconds"}           says {} when all is read, then when the event came on each
    {"do": "exchange", "port", "request", "connections"}  sends one request for each stream, "" is its acknowledgement
    {"do": "close"}                                       closes the streams

A receipt has two times: when this process read the end of the event, by the monotonic clock, and when the kernel got
it (SO_TIMESTAMPNS), by the real-time clock. Where the two differ, the reading was slower than the server.
"""

from __future__ import annotations

import json
import re
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.processes import Process, raise_file_limit

__all__ = ["NUMBER", "Clients", "Receipts", "Stamp", "clients", "get_request", "post_request"]

OPENING_AT_ONCE = 200
STREAMS_AN_ADDRESS = 5_000
SO_TIMESTAMPNS = 35
READ_BYTES = 65536
LIMIT_SECONDS = 60.0
SPARE_FILES = 100

NUMBER = b"<number>"
"""In the request that opens a stream: the number of the stream takes its place, in as many bytes."""

_STREAM = re.compile(rb'"stream":"([^"]+)"')
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_CURSOR = re.compile(rb'"cursor":"([^"]+)"')


@dataclass(frozen=True)
class Stamp:
    """One moment by both clocks, in nanoseconds."""

    monotonic: int
    real: int

    @classmethod
    def now(cls) -> Stamp:
        """Return the present moment."""
        return cls(time.monotonic_ns(), time.time_ns())


@dataclass(frozen=True)
class Receipts:
    """When one event came on each stream; all lists are sorted.

    Attributes:
        read_ms: milliseconds from the trigger until the clients' process had read it.
        arrived_ms: until the kernel had it.
        size_bytes: of all that came, on all streams.
        cpu_seconds: what the clients' process used for it.
    """

    read_ms: list[float]
    arrived_ms: list[float]
    size_bytes: int
    cpu_seconds: float


class Clients:
    """The other end of the pipe."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._own = Process(process.pid)

    def open(self, port: int, request: bytes, count: int, *, marker: bytes) -> float:
        """Open `count` streams and return how many seconds that took; `NUMBER` in the request is each one's own."""
        return float(
            self._ask(do="open", port=port, request=request.decode(), count=count, marker=marker.decode())["seconds"]
        )

    def arm(self, *, marker: bytes, end: bytes = b"\n\n", seconds: float = 30.0) -> None:
        """Begin to wait for an event; `receipts` must be called next."""
        self._cpu_seconds = self._own.cpu_seconds
        self._ask(do="await", marker=marker.decode(), end=end.decode(), seconds=seconds)

    def receipts(self, since: Stamp) -> Receipts:
        """Wait until the event has come on each stream.

        Raises:
            RuntimeError: it has not, on some.
        """
        answer = self._answer()
        return Receipts(
            read_ms=sorted((at - since.monotonic) / 1e6 for at in answer["read"]),
            arrived_ms=sorted((at - since.real) / 1e6 for at in answer["arrived"]),
            size_bytes=answer["bytes"],
            cpu_seconds=self._own.cpu_seconds - self._cpu_seconds,
        )

    def exchange(self, port: int, request: bytes = b"", *, connections: int = 32) -> float:
        """Send one request for each stream and return how many seconds it took until all are answered.

        Args:
            port: of the server.
            request: the same for all; empty is the acknowledgement of the stream's last event.
            connections: so many keep-alive connections share the work, each with one request at a time.

        Raises:
            RuntimeError: one was not answered with 200 or 204.
        """
        return float(self._ask(do="exchange", port=port, request=request.decode(), connections=connections)["seconds"])

    def close_streams(self) -> None:
        """Close the streams."""
        self._ask(do="close")

    def _ask(self, **command: Any) -> dict[str, Any]:
        if self._process.stdin is None:
            raise RuntimeError("the clients' process has no pipe")
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = b"" if self._process.stdout is None else self._process.stdout.readline()
        if not line:
            raise RuntimeError("the clients' process has ended; its own words are on stderr")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer


def get_request(path: str, *, accept: str = "text/event-stream") -> bytes:
    """Return a GET request as it goes onto the wire."""
    return f"GET {path} HTTP/1.1\r\nhost: bench\r\naccept: {accept}\r\n\r\n".encode()


def post_request(path: str, body: bytes) -> bytes:
    """Return a POST request with a JSON body as it goes onto the wire."""
    head = f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body


@contextmanager
def clients(inside: Sequence[str] = ()) -> Iterator[Clients]:
    """Run a clients' process for as long as the block runs; `inside` begins the command, to run it elsewhere."""
    command = [*inside, sys.executable, "-m", "benchmarks.fanout_clients"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield Clients(process)
        finally:
            process.kill()


class _Streams:
    """What the process holds."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._sockets: dict[int, socket.socket] = {}
        self._last: dict[int, bytes] = {}
        self._names: dict[int, str] = {}
        self._epoll = select.epoll()

    def open(self, port: int, request: str, count: int, marker: str) -> dict[str, Any]:
        raise_file_limit(count + SPARE_FILES)
        started_at = time.monotonic()
        for first in range(0, count, OPENING_AT_ONCE):
            self._open_some(port, request.encode(), min(OPENING_AT_ONCE, count - first), marker.encode())
        return {"seconds": time.monotonic() - started_at}

    def _open_some(self, port: int, request: bytes, count: int, marker: bytes) -> None:
        fresh: dict[int, bytes] = {}
        for _ in range(count):
            # One address has 28,000 ports for all its connections, and those of other benchmarks linger.
            own = f"127.0.0.{2 + len(self._sockets) // STREAMS_AN_ADDRESS}"
            made = socket.create_connection(("127.0.0.1", port), source_address=(own, 0))
            made.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            made.sendall(request.replace(NUMBER, f"{len(self._sockets):0{len(NUMBER)}}".encode()))
            made.setblocking(False)
            self._sockets[made.fileno()] = made
            self._epoll.register(made, select.EPOLLIN)
            fresh[made.fileno()] = b""
        give_up_at = time.monotonic() + LIMIT_SECONDS
        while fresh:
            for fd, _ in self._epoll.poll(1.0):
                data = self._read(fd)
                if fd not in fresh:
                    continue
                head = fresh[fd] + data
                if marker not in head:
                    fresh[fd] = head
                    continue
                del fresh[fd]
                named = _STREAM.search(head)
                if named is not None:
                    self._names[fd] = named[1].decode()
            if time.monotonic() > give_up_at:
                raise RuntimeError(f"{len(fresh)} streams do not open: {next(iter(fresh.values()))[:300]!r}")

    def drain(self) -> None:
        """Read what has come since the last event: none of it is to be taken for the next."""
        while ready := self._epoll.poll(0):
            for fd, _ in ready:
                self._read(fd)

    def receive(self, marker: str, end: str, seconds: float) -> dict[str, Any]:
        """Wait for one event on each stream. All in one function: every call would be counted as the server's time."""
        sockets, poll, clock, unpack = self._sockets, self._epoll.poll, time.monotonic_ns, struct.Struct("qq").unpack
        begins, ends, parts = marker.encode(), end.encode(), dict[int, bytes]()
        waiting, read, arrived, size = set(sockets), [], [], 0
        give_up_at = time.monotonic() + seconds
        while waiting:
            ready = poll(0.1, len(sockets))
            for fd, _ in ready:
                data, stamps, _, _ = sockets[fd].recvmsg(READ_BYTES, 64)
                now = clock()
                size += len(data)
                if fd in parts:
                    data = parts.pop(fd) + data
                begin = data.find(begins)
                if begin < 0 or data.find(ends, begin) < 0:
                    if not data:
                        raise RuntimeError("a stream has ended")
                    parts[fd] = data
                    continue
                if fd not in waiting:
                    continue
                waiting.remove(fd)
                read.append(now)
                second, nanosecond = unpack(stamps[0][2])
                arrived.append(second * 1_000_000_000 + nanosecond)
                self._last[fd] = data
            if not ready and time.monotonic() > give_up_at:
                raise RuntimeError(f"{len(waiting)} of {len(sockets)} streams were not told in {seconds} s")
        return {"read": read, "arrived": arrived, "bytes": size}

    def exchange(self, port: int, request: str, connections: int) -> dict[str, Any]:
        """Send one request for each stream, one at a time on each of so many connections."""
        requests = [request.encode() or self._acknowledgement(fd) for fd in self._sockets]
        due, made, parts = len(requests), {}, {}
        with select.epoll() as epoll, ExitStack() as stack:
            for _ in range(min(connections, due)):
                each = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
                made[each.fileno()], parts[each.fileno()] = each, b""
                epoll.register(each, select.EPOLLIN)
            started_at = time.monotonic()
            for each in made.values():
                each.sendall(requests.pop())
            while due:
                for fd, _ in epoll.poll(1.0):
                    parts[fd] += made[fd].recv(READ_BYTES)
                    if not _is_answer(parts[fd]):
                        continue
                    due, parts[fd] = due - 1, b""
                    if requests:
                        made[fd].sendall(requests.pop())
        return {"seconds": time.monotonic() - started_at}

    def _acknowledgement(self, fd: int) -> bytes:
        found = _CURSOR.search(self._last[fd])
        cursor = "" if found is None else found[1].decode()
        body = json.dumps({"stream": self._names[fd], "cursor": cursor}).encode()
        return post_request("/rpc/events/ack", body)

    def close(self) -> dict[str, Any]:
        for each in self._sockets.values():
            each.close()
        self._epoll.close()
        self._begin()
        return {}

    def _read(self, fd: int) -> bytes:
        data = self._sockets[fd].recv(READ_BYTES)
        if not data:
            raise RuntimeError("the server has ended a stream")
        return data


def _is_answer(received: bytes) -> bool:
    """Tell whether an answer is complete.

    Raises:
        RuntimeError: it is not a good one, or there will be none.
    """
    head, ended, body = received.partition(b"\r\n\r\n")
    if not received or not received.startswith((b"HTTP/1.1 200", b"HTTP/1.1 204")):
        raise RuntimeError(f"a request was answered {received[:200]!r}")
    length = _LENGTH.search(head)
    return bool(ended) and len(body) >= (0 if length is None else int(length[1]))


def _serve() -> None:
    streams = _Streams()
    works: dict[str, Callable[..., dict[str, Any]]] = {
        "open": streams.open,
        "await": streams.receive,
        "exchange": streams.exchange,
        "close": streams.close,
    }
    for line in sys.stdin:
        command = json.loads(line)
        do = command.pop("do")
        try:
            if do == "await":
                streams.drain()
                _say({})
            answer = works[do](**command)
        except (RuntimeError, OSError) as exc:
            answer = {"error": f"{do}: {exc!r}"}
        _say(answer)


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _serve()
