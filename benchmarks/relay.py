"""How far behind the workers' logs are, and what that costs, at several rates of writing: by themselves and by Redis.

Rows are written to PostgreSQL at a fixed rate; each holds the moment at which it was written. One process relays, one
holds the logs; Redis and PostgreSQL are real. All of it shares this machine with the writer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from redis import Redis
from sqlalchemy import make_url

from benchmarks.fanout import at
from benchmarks.processes import Process
from benchmarks.relay_parts import TABLE
from reactive_rpc.testing.postgresql import PostgreSQLServer, postgresql_server
from reactive_rpc.testing.redis import RedisServer, redis_server

__all__ = ["run"]

SECONDS = 6.0
ROWS = 20_000
WARM_UP_SECONDS = 2.0
RATES = ((50, 1), (500, 1), (200, 10), (50, 200))
"""`(commits a second, rows each)`."""


@dataclass(frozen=True)
class Way:
    """How logs get what was written.

    Attributes:
        name: as it is printed.
        redis: whether by Redis.
        logs: how many logs one process holds; the first one tells how late it is.
        rates: of writing.
    """

    name: str
    redis: bool
    logs: int
    rates: tuple[tuple[int, int], ...] = RATES


WAYS = (
    Way("database, 1 log", redis=False, logs=1),
    Way("Redis, 1 log", redis=True, logs=1),
    Way("Redis, 10 logs in one process", redis=True, logs=10, rates=RATES[:2]),
)


@dataclass(frozen=True)
class Lag:
    """What one rate did.

    Attributes:
        written: rows; `offered`: how many a second, as it came out.
        received: changes that the first log was told; `coarse`: those that named no row.
        ages_ms: how old each was then, sorted.
        entries: batches that the first log was told.
        cores: `{part: the share of a core that it used}`.
        sent_bytes: by Redis, to all logs.
    """

    written: int
    offered: float
    received: int
    coarse: int
    ages_ms: list[float]
    entries: int
    cores: dict[str, float]
    sent_bytes: int


@contextmanager
def _part(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "benchmarks.relay_parts", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def _seen(logs: subprocess.Popen[bytes]) -> dict[str, Any]:
    if logs.stdin is None or logs.stdout is None:
        raise RuntimeError("the logs' process has no pipe")
    logs.stdin.write(b"\n")
    logs.stdin.flush()
    line = logs.stdout.readline()
    if not line:
        raise RuntimeError("the logs' process has ended; its own words are on stderr")
    answer: dict[str, Any] = json.loads(line)
    return answer


def _write(connection: psycopg.Connection, commits_a_second: int, rows: int, seconds: float) -> int:
    """Write at a fixed rate, or as fast as it goes where that is too much; return how many rows."""
    update = f'UPDATE "{TABLE}" SET written = %s WHERE id BETWEEN %s AND %s'
    started_at, written = time.monotonic(), 0
    while (now := time.monotonic() - started_at) < seconds:
        due_at = written / rows / commits_a_second
        if due_at > now:
            time.sleep(due_at - now)
        first = written % (ROWS - rows) + 1
        connection.execute(update.encode(), (time.monotonic_ns(), first, first + rows - 1))
        written += rows
    return written


def measure(server: PostgreSQLServer, redis: RedisServer, way: Way, *, seconds: float) -> Iterator[tuple[str, Lag]]:
    """Yield `(rate, what it did)`."""
    url = server.new_database()
    with ExitStack() as stack:
        connection = stack.enter_context(psycopg.connect(_plain(url), autocommit=True))
        connection.execute(f'CREATE TABLE "{TABLE}" (id int PRIMARY KEY, room int, written bigint)'.encode())
        connection.execute(
            f'INSERT INTO "{TABLE}" SELECT i, i %% 50, 0 FROM generate_series(1, %s) i'.encode(), (ROWS,)
        )
        client = stack.enter_context(Redis(port=redis.port))
        client.flushall()
        parts = {"Redis": Process(redis.pid)}
        if way.redis:
            parts["relay"] = Process(stack.enter_context(_part("relay", url, redis.url)).pid)
        logs = stack.enter_context(_part("logs", url, redis.url if way.redis else "", str(way.logs)))
        parts["logs"] = Process(logs.pid)
        _seen(logs)
        for commits, rows in way.rates:
            time.sleep(WARM_UP_SECONDS)
            _seen(logs)
            before = {name: process.cpu_seconds for name, process in parts.items()}
            sent = client.info("stats")["total_net_output_bytes"]
            started_at = time.monotonic()
            written = _write(connection, commits, rows, seconds)
            elapsed = time.monotonic() - started_at
            time.sleep(0.5)
            received = _seen(logs)
            cores = {name: (process.cpu_seconds - before[name]) / elapsed for name, process in parts.items()}
            yield (
                f"{commits:,} x {rows}",
                Lag(
                    written=written,
                    offered=written / elapsed,
                    received=len(received["ages_ms"]),
                    coarse=received["coarse"],
                    ages_ms=sorted(received["ages_ms"]),
                    entries=received["batches"],
                    cores=cores,
                    sent_bytes=client.info("stats")["total_net_output_bytes"] - sent,
                ),
            )


def _plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def report(way: Way, rate: str, lag: Lag) -> str:
    """Return a line of the table."""
    ages = [f"{at(share, lag.ages_ms):.0f}" for share in (0.5, 0.99, 1.0)] if lag.ages_ms else ["", "", ""]
    cells = [
        way.name,
        rate,
        f"{lag.offered:,.0f}",
        f"{lag.received:,} of {lag.written:,}" + (f" + {lag.coarse} coarse" if lag.coarse else ""),
        *ages,
        f"{lag.entries:,}",
        *(f"{lag.cores[name]:.1%}" if name in lag.cores else "" for name in ("relay", "Redis", "logs")),
        f"{lag.sent_bytes / way.logs / max(1, lag.received):,.0f}" if way.redis else "",
    ]
    return f"| {' | '.join(cells)} |"


def run(_folder: Path, *, seconds: float = SECONDS) -> None:
    """Measure and print."""
    print(f"From a write to a worker's log, {seconds:.0f} s each; load of the machine {os.getloadavg()[0]:.1f};")
    print("ms since the row was written; shares of a core; bytes are what Redis sent to each log for a change:\n")
    columns = "way, commits a second x rows, rows a second, told, p50, p99, last, batches, relay, Redis, logs, bytes"
    print(f"| {columns.replace(', ', ' | ')} |")
    print("|" + "---|" * 12)
    with postgresql_server() as server, redis_server() as redis:
        for way in WAYS:
            for rate, lag in measure(server, redis, way, seconds=seconds):
                print(report(way, rate, lag), flush=True)
    print()
