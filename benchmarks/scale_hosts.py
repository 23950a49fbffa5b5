"""A commit until the last client is told, with workers on hosts of their own and a latency between hosts.

Each host is a network namespace with a worker and its clients, joined to the database's (this machine's own, with
PostgreSQL and Redis) by a veth pair; `delayed.py` stands between and holds back what passes. Namespaces take root, and
`ip` of iproute2: if they cannot be made, that is said.

Times grow with the latency by a multiple: how often a commit crosses from host to host until it is each. A read
crosses, too: it has to be fresh, so its worker asks how far the database is.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from benchmarks.fanout import event_request, unlimited
from benchmarks.fanout_clients import Clients, Stamp, clients, get_request
from benchmarks.processes import raise_file_limit, running, started
from reactive_rpc.testing.ports import free_port
from reactive_rpc.testing.postgresql import PostgreSQLServer, postgresql_server
from reactive_rpc.testing.redis import RedisServer, redis_server

__all__ = ["run"]

HOSTS = 2
STREAMS = 500
COMMITS = 9
READS = 5
STATEMENTS = 9
QUIET_CROSSINGS = 40
"""Before a commit, all have the result again: until then nobody would be told of the next commit."""

ONE_WAY_SECONDS = (0.0, 0.001, 0.005, 0.02)
APPLICATION = "benchmarks.fanout_reactive"
MARKER = b"event: invalidation"

DIRECT, BY_WORKER, BY_RELAY = (
    "each worker reads the database",
    "through Redis, a worker is the relay",
    "through Redis, the relay beside the database",
)
CROSSINGS = {DIRECT: 3, BY_WORKER: 5, BY_RELAY: 1}
"""How often a commit crosses from host to host until the last worker knows of it: a notification, a statement and its
rows; of Redis, the entry to it, and the report that brings it."""


@dataclass(frozen=True)
class Host:
    """A network namespace.

    Attributes:
        name: of the namespace.
        near: the address by which it reaches the database's host; `own`: its own.
    """

    name: str
    near: str
    own: str

    @property
    def inside(self) -> tuple[str, ...]:
        """What begins a command that runs on this host."""
        return "ip", "netns", "exec", self.name


@contextmanager
def host(number: int) -> Iterator[Host]:
    """Make a namespace with a veth pair.

    Raises:
        OSError: there is no `ip`.
        subprocess.CalledProcessError: it may not be made.
    """
    made = Host(f"reactive_rpc_{number}", f"10.77.{number}.1", f"10.77.{number}.2")
    here, there = f"rr{number}a", f"rr{number}b"
    _ip("netns", "add", made.name)
    try:
        _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", made.name)
        _ip("address", "add", f"{made.near}/24", "dev", here)
        _ip("link", "set", here, "up")
        _ip("-n", made.name, "address", "add", f"{made.own}/24", "dev", there)
        for device in ("lo", there):
            _ip("-n", made.name, "link", "set", device, "up")
        yield made
    finally:
        _ip("netns", "delete", made.name)  # and with it both ends of the pair


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@dataclass
class Worker:
    """A worker with its clients, on one host."""

    port: int
    held: Clients
    reading: Clients

    def read_ms(self) -> float:
        """Return how long a client of the same host waits for a cached result, which has to be fresh."""
        asked = get_request("/rpc/messages.get_all?room=a", accept="application/json")
        return self.reading.exchange(self.port, asked, connections=1) / READS * 1e3


@dataclass(frozen=True)
class Notified:
    """All in milliseconds.

    Attributes:
        crossing: half of what a statement takes that asks for nothing: from one host to the other; a median.
        first: client of a commit; `middle`: the median one; `last`: of all; medians over the commits.
        read: a fresh read of a stored result; a median.
        soonest: the first client of the commit that was told of soonest, the least disturbed.
        soonest_read: the same of reads.
    """

    crossing: float
    first: float
    middle: float
    last: float
    read: float
    soonest: float
    soonest_read: float


def measure(
    server: PostgreSQLServer, redis: RedisServer, hosts: Sequence[Host], *, way: str, one_way_seconds: float
) -> Notified:
    """Return what one way of telling workers takes at one latency."""
    url, namespace = server.new_database(), f"hosts_{os.urandom(4).hex()}"
    with ExitStack() as stack:
        if way == BY_RELAY:
            environment = _environment(url, redis.url, namespace)
            command = [sys.executable, "-c", "from reactive_rpc.cli import main; main()", "relay", f"{APPLICATION}:rpc"]
            stack.enter_context(running(command, environment))
        workers = []
        for each in hosts:
            database, shared = _delayed(stack, each, [server.port, redis.port], one_way_seconds)
            own_url = make_url(url).set(host=each.near, port=database).render_as_string(hide_password=False)
            redis_url = "" if way == DIRECT else f"redis://{each.near}:{shared}/0"
            environment = _environment(own_url, redis_url, namespace)
            if way == BY_RELAY:
                environment["REACTIVE_RPC_RELAY"] = "false"
            workers.append(_worker(stack, each, environment))
        connection = stack.enter_context(psycopg.connect(server.url(make_url(url).database or "", "postgresql")))
        connection.autocommit = True
        connection.execute("INSERT INTO message (room, text) VALUES ('a', 'first')")
        for worker in workers:
            request = event_request("messages.get_all")
            worker.held.open(worker.port, request, STREAMS, marker=b"event: connected")
            worker.reading.open(worker.port, request, READS, marker=b"event: connected")
            worker.read_ms()
        crossing = _crossing_ms(own_url)
        return _notified(connection, workers, crossing, one_way_seconds)


def _crossing_ms(url: str) -> float:
    with psycopg.connect(make_url(url).set(drivername="postgresql").render_as_string(), autocommit=True) as connection:
        found = []
        for _ in range(STATEMENTS):
            started_at = time.monotonic()
            connection.execute("SELECT")
            found.append(time.monotonic() - started_at)
    return statistics.median(found) / 2 * 1e3


def _notified(
    connection: psycopg.Connection, workers: Sequence[Worker], crossing: float, one_way_seconds: float
) -> Notified:
    found: list[tuple[float, ...]] = []
    for _ in range(COMMITS):
        time.sleep(random.uniform(0.3, 0.5) + QUIET_CROSSINGS * one_way_seconds)
        for worker in workers:
            worker.held.arm(marker=MARKER)
        stamp = Stamp.now()
        connection.execute("UPDATE message SET text = %s WHERE room = 'a'", (os.urandom(8).hex(),))
        read = sorted(moment for worker in workers for moment in worker.held.receipts(stamp).read_ms)
        found.append((read[0], read[len(read) // 2], read[-1], max(worker.read_ms() for worker in workers)))
    several = list(zip(*found, strict=True))
    first, middle, last, reading = map(statistics.median, several)
    return Notified(crossing, first, middle, last, reading, soonest=min(several[0]), soonest_read=min(several[3]))


def _environment(url: str, redis_url: str, namespace: str) -> dict[str, str]:
    shared = {"REDIS_URL": redis_url, "REDIS_NAMESPACE": namespace, "BUILD": "bench"} if redis_url else {}
    return unlimited(**shared) | {"BENCH_DATABASE_URL": url}


def _delayed(stack: ExitStack, host: Host, targets: Sequence[int], seconds: float) -> list[int]:
    """Let a host reach these ports of the database's host, and return the ports by which it does."""
    ports = [free_port() for _ in targets]
    ways = [f"{host.near}:{port}=127.0.0.1:{target}" for port, target in zip(ports, targets, strict=True)]
    command = [sys.executable, "-m", "benchmarks.delayed", str(seconds), *ways]
    stack.enter_context(started(command, ports[-1], host=host.near))
    return ports


def _worker(stack: ExitStack, host: Host, environment: Mapping[str, str]) -> Worker:
    port = free_port()
    command = [*host.inside, sys.executable, "-m", "uvicorn", f"{APPLICATION}:app", "--host", "0.0.0.0"]
    command += ["--port", str(port), "--backlog", "4096", "--no-access-log", "--log-level", "warning"]
    stack.enter_context(started(command, port, host=host.own, environment=environment))
    held, reading = (stack.enter_context(clients(inside=host.inside)) for _ in range(2))
    return Worker(port, held, reading)


def report(way: str, found: Mapping[float, Notified]) -> Iterator[str]:
    """Yield a line for each latency; by how many crossings times grow is told of those that were disturbed least."""
    nearest = found[0.0]
    for one_way, each in found.items():
        further = each.crossing - nearest.crossing
        grown = [
            f"{(a - b) / further:.1f}" if one_way else ""
            for a, b in ((each.soonest, nearest.soonest), (each.soonest_read, nearest.soonest_read))
        ]
        yield (
            f"| {way} | {one_way * 1e3:g} ms ({each.crossing:.1f}) | {each.first:.1f} | {each.middle:.1f}"
            f" | {each.last:.1f} | {grown[0]} ({CROSSINGS[way]}) | {each.read:.1f} | {grown[1]} |"
        )


def run(_folder: Path) -> None:
    """Measure and print."""
    raise_file_limit(STREAMS + 1_000)
    print(f"{HOSTS} hosts with a worker and {STREAMS} clients each, {COMMITS} commits each; ms since just before the")
    print(f"COMMIT, medians; load of the machine {os.getloadavg()[0]:.1f}:\n")
    with ExitStack() as stack:
        try:
            hosts = [stack.enter_context(host(number)) for number in range(HOSTS)]
        except (OSError, subprocess.CalledProcessError) as exc:
            print(f"not measured: network namespaces cannot be made here ({getattr(exc, 'stderr', '') or exc})\n")
            return
        server, redis = stack.enter_context(postgresql_server(durable=True)), stack.enter_context(redis_server())
        print("| way | one way (measured) | first client | median | last | crossings (reckoned) | read | crossings |")
        print("|" + "---|" * 8)
        for way in CROSSINGS:
            found = {each: measure(server, redis, hosts, way=way, one_way_seconds=each) for each in ONE_WAY_SECONDS}
            for line in report(way, found):
                print(line, flush=True)
    print()
