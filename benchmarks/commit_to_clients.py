"""A commit by another process on PostgreSQL until 1,000 clients are told, beside nchan in the same rounds.

The clients are those of `fanout`; the writer is a psycopg connection, as psql's would be, to a server that waits for
the disk. Commits are spaced at random. Times are since just before the COMMIT; what the COMMIT itself takes is told
beside them. Those of nchan are since the request that publishes, and hold no commit.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from benchmarks.fanout import Target, at, event_request, one_event, peer, unlimited
from benchmarks.fanout_clients import Clients, Stamp, clients
from benchmarks.processes import Process, raise_file_limit, served
from reactive_rpc.testing.ports import free_port
from reactive_rpc.testing.postgresql import PostgreSQLServer, postgresql_server
from reactive_rpc.testing.redis import RedisServer, redis_server

__all__ = ["run", "written_rows"]

CLIENTS = 1_000
COMMITS = 40
QUIET_SECONDS = 0.15
"""How long all is quiet before a commit, at least."""

IDLE_SECONDS = 3.0

COST_COMMITS = 150
COST_SPACE_SECONDS = 0.05
"""More than the interval between two reads of the log, so that each commit is found by itself."""


@dataclass
class Delays:
    """All commits of one variant, in milliseconds.

    Attributes:
        read: of every client and commit.
        first: of the first client of each commit; `last`: of the last.
        committing: what each COMMIT took.
        idle: while nothing happens: the share of a core that the server uses, and that its connections use on the
            database's side.
    """

    read: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    committing: list[float] = field(default_factory=list)
    idle: tuple[float, float] = (0.0, 0.0)


def written_rows(connection: psycopg.Connection, committing: list[float]) -> Callable[[], Stamp]:
    """Return what writes to PostgreSQL by itself, noting how long each COMMIT took."""

    def trigger() -> Stamp:
        connection.execute("UPDATE message SET text = %s WHERE id = 1", (os.urandom(8).hex(),))
        stamp = Stamp.now()
        connection.commit()
        committing.append((time.monotonic_ns() - stamp.monotonic) / 1e6)
        return stamp

    return trigger


@dataclass
class _Variant:
    target: Target
    held: Clients
    connection: psycopg.Connection | None
    delays: Delays

    def commit(self) -> None:
        """Write once, and note when the clients were told."""
        measured = one_event(self.target, self.held, quiet_seconds=random.uniform(1, 2) * QUIET_SECONDS)
        self.delays.read.extend(measured.receipts.read_ms)
        self.delays.first.append(measured.receipts.read_ms[0])
        self.delays.last.append(measured.receipts.read_ms[-1])


def _used(variants: Sequence[_Variant], work: Callable[[], object]) -> tuple[float, float]:
    """Return CPU seconds during `work`: of the servers, and of their connections in the database, which they share."""
    connection = variants[0].connection
    if connection is None:
        raise ValueError("the peer has no database")
    own = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    backends = [Process(pid) for (pid,) in connection.execute(own)]
    connection.rollback()
    parts = ([variant.target.process for variant in variants], backends)
    before = [sum(process.cpu_seconds for process in part) for part in parts]
    work()
    servers, database = (
        sum(process.cpu_seconds for process in part) - used for part, used in zip(parts, before, strict=True)
    )
    return servers, database


def _idle(variants: Sequence[_Variant]) -> tuple[float, float]:
    """Return which share of a core the servers use while nothing happens, and their connections in the database."""
    servers, database = _used(variants, lambda: time.sleep(IDLE_SECONDS))
    return servers / IDLE_SECONDS, database / IDLE_SECONDS


def cost_of_a_commit(
    server: PostgreSQLServer, settings: Mapping[str, str] | None = None, *, workers: int
) -> tuple[float, float]:
    """Return what a commit costs that one client of each worker watches: CPU ms of a worker, and of the database.

    That is finding it, telling the client, and computing the one query again; a worker's idling is taken off.
    """
    with ExitStack() as stack:
        url = server.new_database()
        variants = [_variant(url, settings or {}, stack) for _ in range(workers)]
        for variant in variants:
            variant.held.open(variant.target.port, variant.target.request, 1, marker=variant.target.opened)

        def commits() -> None:
            for _ in range(COST_COMMITS):
                variants[0].target.trigger()
                time.sleep(COST_SPACE_SECONDS)

        idle, started_at = _idle(variants), time.monotonic()
        busy = _used(variants, commits)
        elapsed = time.monotonic() - started_at
        servers, database = ((used - free * elapsed) / COST_COMMITS for used, free in zip(busy, idle, strict=True))
        return servers / workers * 1e3, database * 1e3


def measure(
    server: PostgreSQLServer,
    variants: Mapping[str, Mapping[str, str]],
    *,
    peers: Callable[[ExitStack], Sequence[Target]],
    streams: int,
    commits: int,
) -> dict[str, Delays]:
    """Return `{variant: what was measured}`.

    Args:
        variants: each is the settings of its server, `{name: value}`.
        peers: starts the others.
    """
    with ExitStack() as stack:
        made = {name: _variant(server.new_database(), settings, stack) for name, settings in variants.items()}
        made |= {each.name: _Variant(each, stack.enter_context(clients()), None, Delays()) for each in peers(stack)}
        for variant in made.values():
            target = variant.target
            variant.held.open(target.port, target.request, streams, marker=target.opened)
        for variant in made.values():
            if variant.connection is not None:
                variant.delays.idle = _idle([variant])
        for _ in range(commits):
            for variant in made.values():
                variant.commit()
    return {name: variant.delays for name, variant in made.items()}


def _variant(url: str, settings: Mapping[str, str], stack: ExitStack) -> _Variant:
    port, delays = free_port(), Delays()
    environment = unlimited(**settings) | {"BENCH_DATABASE_URL": url}
    process = stack.enter_context(served("benchmarks.fanout_reactive:app", port, environment))
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    connection = stack.enter_context(psycopg.connect(plain))
    connection.execute("INSERT INTO message (room, text) VALUES ('a', 'first')")
    connection.commit()
    trigger = written_rows(connection, delays.committing)
    target = Target("reactive_rpc", port, process, event_request("messages.get_all"), b"event: connected", trigger)
    return _Variant(target, stack.enter_context(clients()), connection, delays)


def report(found: Mapping[str, Delays]) -> Iterator[str]:
    """Yield a table."""
    yield (
        "| variant | p50 | p99 | first, median | last, median | last, worst | COMMIT alone, p50"
        " | idle: server | idle: database |"
    )
    yield "|" + "---|" * 9
    for name, delays in found.items():
        read = sorted(delays.read)
        figures = (
            at(0.5, read),
            at(0.99, read),
            statistics.median(delays.first),
            statistics.median(delays.last),
            max(delays.last),
        )
        ours = delays.committing
        own = [f"{statistics.median(ours):.1f}", *(f"{share:.1%}" for share in delays.idle)] if ours else ["", "", ""]
        yield f"| {name} | {' | '.join([*(f'{figure:.1f}' for figure in figures), *own])} |"


def report_costs(server: PostgreSQLServer, redis: RedisServer) -> Iterator[str]:
    """Yield a table."""
    shared = {"REDIS_URL": redis.url, "REDIS_NAMESPACE": "bench_cost", "BUILD": "bench"}
    yield "| a commit that one client of each worker watches, CPU | a worker | database |"
    yield "|---|---|---|"
    for name, settings, workers in (("1 worker", {}, 1), ("3 workers", {}, 3), ("3, through Redis", shared, 3)):
        own, database = cost_of_a_commit(server, settings, workers=workers)
        yield f"| {name} | {own:.1f} ms | {database:.1f} ms |"


def run(folder: Path, *, streams: int = CLIENTS, commits: int = COMMITS) -> None:
    """Measure and print."""
    raise_file_limit(streams + 1_000)
    print(f"Commit by psycopg on PostgreSQL until {streams:,} clients are told, {commits} commits each, in turn;")
    print(f"milliseconds since just before the COMMIT; load of the machine {os.getloadavg()[0]:.1f}:\n")
    with postgresql_server(durable=True) as server, redis_server() as redis:
        variants = {
            "woken by the commit": {},
            "through Redis": {"REDIS_URL": redis.url, "REDIS_NAMESPACE": "bench_told"},
        }
        peers = partial(peer, folder, streams=streams)
        for line in report(measure(server, variants, peers=peers, streams=streams, commits=commits)):
            print(line, flush=True)
        print()
        for line in report_costs(server, redis):
            print(line, flush=True)
    print()
