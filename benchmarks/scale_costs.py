"""A deployment (PostgreSQL, Redis, a relay and workers, each a process) and what each of its parts spends on what.

A figure is a difference: of the same thing done for many and for few, or to a worker that is concerned and to one that
is not. So it holds no part of what happens anyway.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import psycopg
from sqlalchemy import make_url

from benchmarks.fanout import Target, event_request, one_event, opened, unlimited
from benchmarks.fanout_clients import NUMBER, Clients, Stamp, clients, get_request
from benchmarks.processes import Process, running, served
from benchmarks.relay import Way, measure
from benchmarks.scale_model import Costs
from reactive_rpc.testing.ports import free_port
from reactive_rpc.testing.postgresql import PostgreSQLServer
from reactive_rpc.testing.redis import RedisServer

__all__ = ["Deployment", "Notified", "Spent", "deployed", "measured_costs", "notified", "patiently", "spent"]

APPLICATION = "benchmarks.fanout_reactive"
MARKER = b"event: invalidation"
FEW, MANY = 500, 2_500
"""Streams of one event, whose difference is what a stream costs."""

OWN = 300
"""Streams with a result of their own, all of which one commit touches."""

OWN_RESULTS = 5
OPENED = 1_000
ROUNDS = 5
UNRELATED_COMMITS, UNRELATED_ROWS = 50, 200
WRITES = 500
QUIET_SECONDS, SETTLED_SECONDS, SETTLE_SECONDS = 0.3, 1.0, 30.0
QUIET_SHARE = 0.03
"""Of a core: a worker that uses less has nothing left to do."""

TRIES, LOST_SECONDS = 4, 5.0
LOGS, REPORTING_SECONDS = 10, 6.0

T = TypeVar("T")


@dataclass(frozen=True)
class Spent:
    """CPU seconds by part.

    Attributes:
        worker: of all workers together; `database`: of the connections that are not the writer's.
    """

    worker: float
    relay: float
    redis: float
    database: float
    writer: float

    def __sub__(self, other: Spent) -> Spent:
        return Spent(*(a - b for a, b in zip(self._all(), other._all(), strict=True)))

    def __mul__(self, count: float) -> Spent:
        return Spent(*(each * count for each in self._all()))

    def __truediv__(self, count: float) -> Spent:
        return Spent(*(each / count for each in self._all()))

    def _all(self) -> tuple[float, ...]:
        return self.worker, self.relay, self.redis, self.database, self.writer


@dataclass
class Deployment:
    """What runs.

    Attributes:
        targets: the workers; `held`: the streams of each.
        writer: commits by itself, from this process.
    """

    targets: list[Target]
    held: list[Clients]
    relay: Process
    redis: Process
    writer: psycopg.Connection

    def spent(self) -> Spent:
        """Return what all have used so far."""
        own = self.writer.info.backend_pid
        asked = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        others = [Process(pid) for (pid,) in self.writer.execute(asked)]
        return Spent(
            worker=sum(target.process.cpu_seconds for target in self.targets),
            relay=self.relay.cpu_seconds,
            redis=self.redis.cpu_seconds,
            database=sum(process.cpu_seconds for process in others),
            writer=Process(own).cpu_seconds,
        )

    def fill(self, rooms: Sequence[str]) -> None:
        """Have one message in each room, and nothing else."""
        with self.writer.transaction(), self.writer.cursor() as cursor:
            cursor.execute("DELETE FROM message")
            cursor.executemany("INSERT INTO message (room, text) VALUES (%s, 'first')", [(room,) for room in rooms])

    def open(self, streams: int, rooms: Sequence[str]) -> None:
        """Open so many streams at each worker, each of which shows all these rooms."""
        for target, held in zip(self.targets, self.held, strict=True):
            held.open(target.port, event_request("messages.get_all", rooms), streams, marker=target.opened)

    def settle(self) -> None:
        """Wait until the workers have nothing left to do."""
        used, give_up_at = -1.0, time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < give_up_at:
            now = sum(target.process.cpu_seconds for target in self.targets)
            if now - used < QUIET_SHARE * QUIET_SECONDS * len(self.targets):
                return
            used = now
            time.sleep(QUIET_SECONDS)

    def close(self) -> None:
        """Close all streams."""
        for held in self.held:
            held.close_streams()
        time.sleep(QUIET_SECONDS)

    def write(self, where: str, *values: object) -> None:
        """Commit one UPDATE of the messages that a condition chooses."""
        text = os.urandom(8).hex()
        self.writer.execute(f"UPDATE message SET text = %s WHERE {where}".encode(), (text, *values))


@contextmanager
def deployed(server: PostgreSQLServer, redis: RedisServer, *, workers: int) -> Iterator[Deployment]:
    """Run a relay and so many workers on a database of their own, until the block ends."""
    url = server.new_database()
    namespace = f"scale_{os.urandom(4).hex()}"
    environment = unlimited(REDIS_URL=redis.url, REDIS_NAMESPACE=namespace, BUILD="bench", RELAY="false")
    environment |= {"BENCH_DATABASE_URL": url}
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with ExitStack() as stack:
        writer = stack.enter_context(psycopg.connect(plain, autocommit=True))
        relay = stack.enter_context(_relay(environment))
        targets = [_target(stack, environment, writer) for _ in range(workers)]
        held = [stack.enter_context(clients()) for _ in targets]
        yield Deployment(targets, held, relay, Process(redis.pid), writer)


def _target(stack: ExitStack, environment: Mapping[str, str], writer: psycopg.Connection) -> Target:
    port = free_port()
    process = stack.enter_context(served(f"{APPLICATION}:app", port, environment))
    request = event_request("messages.get_all", acks=True)

    def trigger() -> Stamp:
        stamp = Stamp.now()
        writer.execute("UPDATE message SET text = %s WHERE room = 'a'", (os.urandom(8).hex(),))
        return stamp

    return Target("worker", port, process, request, b"event: connected", trigger, marker=MARKER)


@contextmanager
def _relay(environment: Mapping[str, str]) -> Iterator[Process]:
    command = [sys.executable, "-c", "from reactive_rpc.cli import main; main()", "relay", f"{APPLICATION}:rpc"]
    with running(command, environment) as process:
        yield Process(process.pid)


def patiently(deployment: Deployment, work: Callable[[], T]) -> T:
    """Do some work with streams, and again if they end meanwhile.

    A worker ends its streams if it could not read the log for three seconds, which a busy machine brings about.
    """
    for _ in range(TRIES - 1):
        try:
            return work()
        except RuntimeError as exc:
            print(f"tried again: {exc}", file=sys.stderr)
            deployment.close()
            time.sleep(LOST_SECONDS)
    return work()


def spent(deployment: Deployment, work: Callable[[], object]) -> Spent:
    """Return what a piece of work costs all parts, with all that they do afterwards, but for idling."""
    idle = _idling(deployment)
    before, started_at = deployment.spent(), time.monotonic()
    work()
    deployment.settle()
    return deployment.spent() - before - idle * (time.monotonic() - started_at)


def _idling(deployment: Deployment) -> Spent:
    """Return what all parts spend in a second in which nothing happens."""
    deployment.settle()
    before, started_at = deployment.spent(), time.monotonic()
    time.sleep(SETTLED_SECONDS)
    return (deployment.spent() - before) / (time.monotonic() - started_at)


def times(count: int, work: Callable[[], Spent]) -> Spent:
    """Return the medians of several times."""
    return Spent(*map(statistics.median, zip(*(work()._all() for _ in range(count)), strict=True)))


@dataclass(frozen=True, kw_only=True)
class Notified:
    """One event to so many streams: CPU of the worker, seconds until the first and the last were told; medians."""

    cpu: float
    first: float
    last: float
    ack: float
    hit: float
    stream_bytes: float
    open: float


def notified(deployment: Deployment, streams: int, rounds: int = ROUNDS) -> Notified:
    """Measure one event to streams of the first worker, and what they do after."""
    target, held = deployment.targets[0], deployment.held[0]
    deployment.fill(["a"])
    measured = opened(target, held, streams)
    asked = get_request("/rpc/messages.get_all?room=a", accept="application/json")
    found: list[tuple[float, ...]] = []
    for _ in range(rounds):
        event = one_event(target, held)
        acked = _cpu_of(target, lambda: held.exchange(target.port))
        fetched = _cpu_of(target, lambda: held.exchange(target.port, asked))
        read = event.receipts.read_ms
        found.append((event.cpu_seconds, read[0] / 1e3, read[-1] / 1e3, acked / streams, fetched / streams))
    deployment.close()
    cpu, first, last, ack, hit = map(statistics.median, zip(*found, strict=True))
    held_bytes = (measured.bytes_opened - measured.bytes_before) / streams
    opening = measured.open_cpu_seconds / streams
    return Notified(cpu=cpu, first=first, last=last, ack=ack, hit=hit, stream_bytes=held_bytes, open=opening)


def _cpu_of(target: Target, work: Callable[[], object]) -> float:
    before = target.process.cpu_seconds
    work()
    return target.process.cpu_seconds - before


def _own_rooms(count: int) -> list[str]:
    return [f"own {n} of {NUMBER.decode()}" for n in range(count)]


def _filled_own(deployment: Deployment, streams: int, count: int) -> None:
    numbers = [f"{n:0{len(NUMBER)}}" for n in range(streams)]
    rooms = [room.replace(NUMBER.decode(), number) for number in numbers for room in _own_rooms(count)]
    deployment.fill(rooms)


def _own(deployment: Deployment) -> Spent:
    """Return what a commit costs that touches `OWN` results, each shown by one stream at each worker; of one result."""
    _filled_own(deployment, OWN, 1)
    deployment.open(OWN, _own_rooms(1))

    def once() -> None:
        for held in deployment.held:
            held.arm(marker=MARKER)
        deployment.write("room LIKE 'own%%'")
        for held in deployment.held:
            held.receipts(Stamp.now())

    found = times(ROUNDS, lambda: spent(deployment, once))
    deployment.close()
    return found / OWN


def _unrelated(deployment: Deployment) -> Spent:
    """Return what a change costs that no stream shows."""
    deployment.fill(["a"])
    with deployment.writer.cursor() as cursor:
        cursor.executemany("INSERT INTO message (room, text) VALUES ('b', %s)", [("",)] * UNRELATED_ROWS)
    deployment.open(1, ["a"])

    def write() -> None:
        for _ in range(UNRELATED_COMMITS):
            deployment.write("room = 'b'")
            time.sleep(0.02)

    def rest() -> None:
        for _ in range(UNRELATED_COMMITS):
            deployment.write("room = 'nowhere'")  # commits, but changes nothing
            time.sleep(0.02)

    busy, idle = (times(3, lambda work=work: spent(deployment, work)) for work in (write, rest))  # type: ignore[misc]
    deployment.close()
    return (busy - idle) / (UNRELATED_COMMITS * UNRELATED_ROWS)


def _alone(deployment: Deployment) -> Spent:
    """Return what a commit costs that comes alone and concerns nobody, and what it costs the database to make it."""
    deployment.fill(["a", "b"])
    deployment.open(1, ["a"])

    def write(count: int, pause_seconds: float) -> None:
        for _ in range(count):
            deployment.write("room = 'b'")
            time.sleep(pause_seconds)

    sparse = times(3, lambda: spent(deployment, lambda: write(50, 0.02))) / 50
    dense = spent(deployment, lambda: write(WRITES, 0.0)) / WRITES
    deployment.close()
    return Spent(sparse.worker, sparse.relay, sparse.redis, sparse.database, dense.writer)


def _opening_own(deployment: Deployment) -> tuple[float, float]:
    """Return what it costs a worker to open a stream with results of its own, and its bytes."""
    target, held = deployment.targets[0], deployment.held[0]
    _filled_own(deployment, OPENED, OWN_RESULTS)
    before = target.process.resident_bytes
    request = event_request("messages.get_all", _own_rooms(OWN_RESULTS), acks=True)
    used = _cpu_of(target, lambda: held.open(target.port, request, OPENED, marker=target.opened))
    grown = target.process.resident_bytes - before
    deployment.close()
    return used / OPENED, grown / OPENED


def _reporting(server: PostgreSQLServer, redis: RedisServer) -> float:
    """Return what one report to one log costs Redis, by one log and by several."""
    found = []
    for logs in (1, LOGS):
        way = Way(f"{logs} logs", redis=True, logs=logs, rates=((UNRELATED_COMMITS, 1),))
        [(_, lag)] = measure(server, redis, way, seconds=REPORTING_SECONDS)
        found.append(lag.cores["Redis"] * lag.written / lag.offered / lag.entries)
    return (found[1] - found[0]) / (LOGS - 1)


def measured_costs(server: PostgreSQLServer, redis: RedisServer) -> tuple[Costs, Notified, Notified]:
    """Measure all; beside the costs, one event to few streams and one to many."""
    with deployed(server, redis, workers=1) as one:
        many, few = (patiently(one, partial(notified, one, count)) for count in (MANY, FEW))
        alone, unrelated, computed = (patiently(one, partial(work, one)) for work in (_alone, _unrelated, _own))
    with deployed(server, redis, workers=2) as two:
        own_open, own_bytes = patiently(two, partial(_opening_own, two))
        shared = patiently(two, partial(_own, two))
    reporting = _reporting(server, redis)
    event = (many.cpu - few.cpu) / (MANY - FEW)
    costs = Costs(
        found=alone.worker,
        follow=unrelated.worker,
        relay=unrelated.relay,
        redis=unrelated.redis,
        report=max(0.0, reporting),
        keep=max(0.0, computed.redis - unrelated.redis),
        take=max(0.0, shared.redis - computed.redis),
        push=min(event, max(0.0, (many.first - few.first) / (MANY - FEW))),
        event=event,
        compute=max(0.0, computed.worker - event - unrelated.worker),
        compute_database=computed.database,
        adopt=max(0.0, shared.worker - computed.worker - event - unrelated.worker),
        hit=many.hit,
        ack=many.ack,
        open=many.open,
        open_own=own_open,
        write=alone.writer,
        stream_bytes=many.stream_bytes,
        own_bytes=own_bytes,
    )
    return costs, few, many
