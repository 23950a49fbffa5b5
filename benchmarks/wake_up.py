"""A commit by another process until a client is told, and what idling costs: a worker that is woken, one that polls.

Both run at once, each on a database of its own, with one client that is timed and others that idle. Times are since
the COMMIT was acknowledged, so they hold finding it, making the event and the way to the client. Then writers commit as
fast as they can, with each of the workers in turn on the database.
"""

from __future__ import annotations

import os
import random
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from benchmarks.fanout import event_request, unlimited
from benchmarks.fanout_clients import Clients, Stamp, clients
from benchmarks.processes import Process, served
from reactive_rpc.testing.ports import free_port
from reactive_rpc.testing.postgresql import PostgreSQLServer, postgresql_server

__all__ = ["run"]

WAYS = {"woken": "benchmarks.fanout_reactive:app", "polling": "benchmarks.fanout_polled:app"}
STREAMS = 100
COMMITS = 60
IDLE_SECONDS = 5.0
WRITERS = 8
WRITING_SECONDS = 2.0
ROUNDS = 5

WRITER = """
import sys, time
url, seconds = sys.argv[1], float(sys.argv[2])
if url.startswith("postgresql"):
    import psycopg
    connection = psycopg.connect(url, autocommit=True)
    write = lambda n: connection.execute("UPDATE message SET text = %s WHERE id = 2", (str(n),))
else:
    import sqlite3
    connection = sqlite3.connect(url, isolation_level=None, timeout=60)
    write = lambda n: connection.execute("UPDATE message SET text = ? WHERE id = 2", (str(n),))
sys.stdin.readline()
end, count = time.monotonic() + seconds, 0
while time.monotonic() < end:
    write(count)
    count += 1
print(count)
"""
"""Commits for so many seconds after a line on its stdin, and says how often. The row is no client's."""


@dataclass
class Way:
    """A worker with its database.

    Attributes:
        url: of the database, for writers.
        commit: writes the row that the clients watch, and returns when that was acknowledged.
        notified_ms: of each commit, until the client was told.
        idle: the share of a core that it uses while nothing happens.
        commits: of each round of writers, a second.
    """

    url: str
    process: Process
    held: Clients
    commit: Callable[[], Stamp]
    notified_ms: list[float] = field(default_factory=list)
    idle: float = 0.0
    commits: list[float] = field(default_factory=list)

    def time_one(self) -> None:
        """Commit once, at a random moment, and note when the first client heard of it."""
        time.sleep(random.uniform(0.1, 0.2))
        self.held.arm(marker=b"event: invalidation")
        self.notified_ms.append(self.held.receipts(self.commit()).read_ms[0])

    def idle_share(self) -> float:
        """Return the share of a core while nothing happens."""
        before = self.process.cpu_seconds
        time.sleep(IDLE_SECONDS)
        return (self.process.cpu_seconds - before) / IDLE_SECONDS

    def write(self) -> float:
        """Return how many commits a second the writers make."""
        command = [sys.executable, "-c", WRITER, self.url, str(WRITING_SECONDS)]
        writers = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(WRITERS)
        ]
        time.sleep(1.0)
        for writer in writers:
            if writer.stdin is not None:
                writer.stdin.write("\n")
                writer.stdin.flush()
        return sum(int(writer.communicate()[0]) for writer in writers) / WRITING_SECONDS


def _on_sqlite(folder: Path, name: str, stack: ExitStack) -> Way:
    database = folder / f"{name}.db"
    process, port = _served(name, f"sqlite+aiosqlite:///{database}", stack)
    connection = stack.enter_context(closing(sqlite3.connect(database, isolation_level=None)))
    connection.executemany("INSERT INTO message (room, text) VALUES (?, 'first')", [("a",), ("b",)])

    def commit() -> Stamp:
        connection.execute("UPDATE message SET text = ? WHERE id = 1", (os.urandom(8).hex(),))
        return Stamp.now()

    return Way(str(database), process, _watching(port, stack), commit)


def _on_postgresql(server: PostgreSQLServer, name: str, stack: ExitStack) -> Way:
    url = server.new_database()
    process, port = _served(name, url, stack)
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    connection = stack.enter_context(psycopg.connect(plain, autocommit=True))
    connection.execute("INSERT INTO message (room, text) VALUES ('a', 'first'), ('b', 'first')")

    def commit() -> Stamp:
        connection.execute("UPDATE message SET text = %s WHERE id = 1", (os.urandom(8).hex(),))
        return Stamp.now()

    return Way(plain, process, _watching(port, stack), commit)


def _served(name: str, url: str, stack: ExitStack) -> tuple[Process, int]:
    port = free_port()
    return stack.enter_context(served(WAYS[name], port, unlimited() | {"BENCH_DATABASE_URL": url})), port


def _watching(port: int, stack: ExitStack) -> Clients:
    held = stack.enter_context(clients())
    held.open(port, event_request("messages.get_all"), STREAMS, marker=b"event: connected")
    return held


def measure(make: Callable[[str, ExitStack], Way]) -> Iterator[str]:
    """Yield a line for each way."""
    with ExitStack() as stack:
        ways = {name: make(name, stack) for name in WAYS}
        for _ in range(COMMITS):
            for way in ways.values():
                way.time_one()
        for way in ways.values():
            way.idle = way.idle_share()
        for _ in range(ROUNDS):
            for way in ways.values():
                way.commits.append(way.write())
        polled = ways["polling"].commits
        for name, way in ways.items():
            notified = sorted(way.notified_ms)
            shares = [one / other for one, other in zip(way.commits, polled, strict=True)]
            yield (
                f"{name} | {statistics.median(notified):.2f} ({notified[0]:.2f} to {notified[-1]:.1f}) | {way.idle:.2%}"
                f" | {statistics.median(way.commits):,.0f}"
                f" | {statistics.median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})"
            )


def run(folder: Path) -> None:
    """Measure and print."""
    print(f"{COMMITS} commits each, {STREAMS} streams; load of the machine {os.getloadavg()[0]:.1f}:\n")
    print("| database | worker | ms until told | idle, of a core | commits/s of 8 writers | of the polling one's |")
    print("|---|---|---|---|---|---|")
    for line in measure(partial(_on_sqlite, folder)):
        print(f"| SQLite | {line} |", flush=True)
    for is_durable in (False, True):
        title = "PostgreSQL, waiting for the disk" if is_durable else "PostgreSQL, not waiting"
        with postgresql_server(durable=is_durable) as server:
            for line in measure(partial(_on_postgresql, server)):
                print(f"| {title} | {line} |", flush=True)
    print()
