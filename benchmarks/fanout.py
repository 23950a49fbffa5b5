"""One event to many open event streams: reactive_rpc, a plain sse-starlette broadcast, and nchan where it is installed.

Each server runs alone in a process (one worker) and holds all its streams open through all rounds; in each round one
event goes through each server in turn. Times are since the trigger: for reactive_rpc, since just before the COMMIT of
another process, so that they hold the wait for the disk and for the next look at the log; for the others, since just
before the request that publishes. What remains between the first receipt and the last is fan-out alone.
"""

from __future__ import annotations

import http.client
import json
import os
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.fanout_clients import Clients, Receipts, Stamp, clients, get_request, post_request
from benchmarks.fanout_nchan import is_installed, nchan
from benchmarks.processes import Process, raise_file_limit, served
from reactive_rpc.testing.ports import free_port

__all__ = [
    "HEAD",
    "Measured",
    "Round",
    "Target",
    "at",
    "event_request",
    "measure",
    "one_event",
    "opened",
    "peer",
    "reactive",
    "report",
    "run",
    "unlimited",
]

REACTIVE, BROADCAST, NCHAN = "reactive_rpc", "sse-starlette", "nginx with nchan"
SIZES = (1_000, 5_000, 10_000)
ROUNDS = 7
QUIET_SECONDS = 0.5
"""How long all is quiet before an event."""

AFTERMATH_SECONDS = 0.1
"""How long a server may go on with its own work for an event that all have received; it is counted as the event's."""

EVENT = json.dumps(
    {
        "cursor": "abcdefgh:12345",
        "affected": [{"path": "messages.get_all", "input": {"room": "a"}, "key": "0" * 24}],
        "tables": ["message"],
        "event_id": "0" * 22,
    }
)
"""What the peers send: as many bytes as an invalidation has."""


@dataclass
class Target:
    """One server with its streams.

    Attributes:
        name: as it is printed.
        port: of 127.0.0.1.
        process: whose CPU time and memory count.
        request: what opens a stream.
        opened: what a stream has said once it is open.
        marker: how the event begins; `end`: how it ends.
        trigger: makes the event happen and returns when that began.
    """

    name: str
    port: int
    process: Process
    request: bytes
    opened: bytes
    trigger: Callable[[], Stamp]
    marker: bytes = b"event: invalidation"
    end: bytes = b"\n\n"


@dataclass
class Round:
    """One event.

    Attributes:
        receipts: by all streams.
        cpu_seconds: what the server used for it, with what it did right afterwards.
    """

    receipts: Receipts
    cpu_seconds: float


@dataclass
class Measured:
    """All rounds of one target.

    Attributes:
        streams: how many it held.
        open_seconds: how long opening them took; `open_cpu_seconds`: what the server used for it.
        bytes_before: its memory before that; `bytes_opened`: afterwards; `bytes_at_end`: after all rounds.
        after: of each round what was done after the event: `(seconds, the server's CPU seconds)`.
    """

    streams: int
    open_seconds: float
    open_cpu_seconds: float
    bytes_before: int
    bytes_opened: int
    bytes_at_end: int = 0
    rounds: list[Round] = field(default_factory=list)
    after: list[tuple[float, float]] = field(default_factory=list)

    def median(self, figure: Callable[[Round], float]) -> float:
        """Return the median of a figure over the rounds."""
        return statistics.median(map(figure, self.rounds))

    def read_ms(self, share: float) -> float:
        """Return when `share` of the streams had read the event, median over the rounds."""
        return self.median(lambda each: at(share, each.receipts.read_ms))


def event_request(path: str, rooms: Sequence[str] = ("a",), *, acks: bool = False) -> bytes:
    """Return what opens a stream that watches a query of each room."""
    queries = [{"path": path, "input": {"room": room}} for room in rooms]
    return post_request("/rpc/events", json.dumps({"queries": queries, "acks": acks}).encode())


def unlimited(**variables: str) -> dict[str, str]:
    """Return the environment of a server whose clients all come from one address at once."""
    limits = {
        "MAX_STREAMS": 100_000,
        "MAX_STREAMS_PER_IDENTITY": 100_000,
        "STREAM_OPENS_PER_SECOND": 100_000,
        "MAX_WATCHED_QUERIES": 10_000_000,
        "MAX_WATCHED_QUERIES_PER_IDENTITY": 10_000_000,
        "MAX_WATCHED_BYTES": 10**12,
        "MAX_WATCHED_BYTES_PER_IDENTITY": 10**12,
    }
    return {f"REACTIVE_RPC_{name}": str(value) for name, value in (limits | variables).items()}


def published(port: int) -> Callable[[], Stamp]:
    """Return what publishes by HTTP."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"content-type": "application/json", "x-eventsource-event": "invalidation"}

    def trigger() -> Stamp:
        connection.connect()
        stamp = Stamp.now()
        connection.request("POST", "/publish", EVENT, headers)
        connection.getresponse().read()
        connection.close()
        return stamp

    return trigger


def written_file(connection: sqlite3.Connection, text_bytes: int, rows: int = 1) -> Callable[[], Stamp]:
    """Return what writes to SQLite by itself, to the first rows."""

    def trigger() -> Stamp:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE message SET text = ? WHERE id <= ?", (os.urandom(text_bytes // 2).hex(), rows))
        stamp = Stamp.now()
        connection.execute("COMMIT")
        return stamp

    return trigger


def _peers(folder: Path, stack: ExitStack, streams: int) -> list[Target]:
    return [reactive(folder, stack), _broadcast(stack), *peer(folder, stack, streams)]


def peer(folder: Path, stack: ExitStack, streams: int) -> list[Target]:
    """Serve nchan, where it is installed."""
    if not is_installed():
        return []
    port = free_port()
    process = stack.enter_context(nchan(folder / f"nginx-{os.urandom(4).hex()}", port, files=streams + 1_000))
    return [Target(NCHAN, port, process, get_request("/events"), b": hi\n\n", published(port))]


def reactive(
    folder: Path,
    stack: ExitStack,
    *,
    name: str = REACTIVE,
    query: str = "messages.get_all",
    acks: bool = False,
    rooms: Sequence[str] = ("a",),
    touched: int = 1,
    text_bytes: int = 16,
    marker: bytes = b"event: invalidation",
    environment: Mapping[str, str] | None = None,
) -> Target:
    """Serve reactive_rpc on a SQLite file of its own, to streams that watch `query` of each room.

    Args:
        acks: whether the streams acknowledge.
        touched: the trigger writes to so many of the rooms, a text of `text_bytes` to each.
    """
    port, database = free_port(), folder / f"fanout-{os.urandom(4).hex()}.db"
    settings = unlimited() | {"BENCH_DATABASE_URL": f"sqlite+aiosqlite:///{database}"} | dict(environment or {})
    process = stack.enter_context(served("benchmarks.fanout_reactive:app", port, settings))
    connection = stack.enter_context(closing(sqlite3.connect(database, isolation_level=None)))
    connection.executemany("INSERT INTO message (room, text) VALUES (?, 'first')", [(room,) for room in rooms])
    request = event_request(query, rooms, acks=acks)
    trigger = written_file(connection, text_bytes, touched)
    return Target(name, port, process, request, b"event: connected", trigger, marker=marker)


def _broadcast(stack: ExitStack) -> Target:
    port = free_port()
    process = stack.enter_context(served("benchmarks.fanout_broadcast:app", port))
    request = get_request("/events")
    return Target(BROADCAST, port, process, request, b"event: connected", published(port), end=b"\r\n\r\n")


def one_event(target: Target, held: Clients, *, quiet_seconds: float = QUIET_SECONDS) -> Round:
    """Send one event through one target, all being quiet for so long before it."""
    time.sleep(quiet_seconds)
    cpu_seconds = target.process.cpu_seconds
    held.arm(marker=target.marker, end=target.end)
    receipts = held.receipts(target.trigger())
    time.sleep(AFTERMATH_SECONDS)
    return Round(receipts, target.process.cpu_seconds - cpu_seconds)


def measure(
    make_targets: Callable[[ExitStack], list[Target]],
    *,
    streams: int,
    rounds: int,
    after: Callable[[Target, Clients], float] = lambda target, held: 0.0,
) -> dict[str, Measured]:
    """Return `{target: what was measured}` with so many streams on each.

    Args:
        make_targets: starts the servers.
        streams: on each server.
        rounds: so many events go through each.
        after: is done after each event; returns how many seconds it took.
    """
    with ExitStack() as stack:
        targets = make_targets(stack)
        held = [stack.enter_context(clients()) for _ in targets]
        found = [opened(target, each, streams) for target, each in zip(targets, held, strict=True)]
        for _ in range(rounds):
            for target, each, measured in zip(targets, held, found, strict=True):
                measured.rounds.append(one_event(target, each))
                cpu_seconds = target.process.cpu_seconds
                measured.after.append((after(target, each), target.process.cpu_seconds - cpu_seconds))
        for target, measured in zip(targets, found, strict=True):
            measured.bytes_at_end = target.process.resident_bytes
    return {target.name: measured for target, measured in zip(targets, found, strict=True)}


def opened(target: Target, held: Clients, streams: int) -> Measured:
    """Open the streams, after a few for warming up."""
    held.open(target.port, target.request, 10, marker=target.opened)
    held.close_streams()
    time.sleep(QUIET_SECONDS)
    before = target.process.resident_bytes
    cpu_seconds = target.process.cpu_seconds
    seconds = held.open(target.port, target.request, streams, marker=target.opened)
    time.sleep(QUIET_SECONDS)
    used = target.process.cpu_seconds - cpu_seconds
    return Measured(streams, seconds, used, bytes_before=before, bytes_opened=target.process.resident_bytes)


def at(share: float, values: list[float]) -> float:
    """Return the value that `share` of all do not exceed; `values` are sorted."""
    return values[min(len(values) - 1, int(share * len(values)))]


HEAD = (
    "| streams | server | first | p50 | p99 | **last** (spread) | as the kernel got it | / nchan | / sse-starlette"
    " | server CPU | clients' CPU | kB a stream (at the end) | opened in (server CPU) |\n" + "|---" * 13 + "|"
)


def report(found: Mapping[str, Measured]) -> Iterator[str]:
    """Yield a line a target: medians over the rounds, in milliseconds; ratios are medians of each round's own."""
    for name, measured in found.items():
        lasts = [each.receipts.read_ms[-1] for each in measured.rounds]
        grown = (measured.bytes_opened - measured.bytes_before, measured.bytes_at_end - measured.bytes_before)
        cells = [
            f"{measured.streams:,}",
            name,
            *(f"{measured.read_ms(share):.1f}" for share in (0, 0.5, 0.99)),
            f"**{statistics.median(lasts):.1f}** ({min(lasts):.0f} to {max(lasts):.0f})",
            f"{measured.median(lambda each: each.receipts.arrived_ms[-1]):.1f}",
            *(_ratio(measured, found.get(peer)) for peer in (NCHAN, BROADCAST)),
            f"{measured.median(lambda each: each.cpu_seconds) * 1e3:.0f} ms",
            f"{measured.median(lambda each: each.receipts.cpu_seconds) * 1e3:.0f} ms",
            "{:.1f} ({:.1f})".format(*(each / measured.streams / 1e3 for each in grown)),
            f"{measured.open_seconds:.1f} s ({measured.open_cpu_seconds:.1f} s)",
        ]
        yield f"| {' | '.join(cells)} |"


def _ratio(measured: Measured, peer: Measured | None) -> str:
    if peer is None:
        return ""
    pairs = zip(measured.rounds, peer.rounds, strict=True)
    return f"{statistics.median(a.receipts.read_ms[-1] / b.receipts.read_ms[-1] for a, b in pairs):.2f}"


def run(folder: Path, *, sizes: tuple[int, ...] = SIZES, rounds: int = ROUNDS) -> None:
    """Measure and print."""
    raise_file_limit(max(sizes) + 1_000)
    load = os.getloadavg()[0]
    print(f"One event to all streams, {rounds} rounds in turn; ms since the trigger; load of the machine {load:.1f}:\n")
    print(HEAD)
    for streams in sizes:
        make_targets = partial(_peers, folder, streams=streams)
        for line in report(measure(make_targets, streams=streams, rounds=rounds)):
            print(line, flush=True)
    print()
