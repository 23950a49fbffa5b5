"""One PostgreSQL database and one Redis: who writes, who feeds, who follows, and what was owed to whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
from sqlalchemy import make_url

from reactive_rpc.backends.postgresql.capture.backend import PostgreSQLCapture
from reactive_rpc.backends.postgresql.log import PostgreSQLLog
from reactive_rpc.backends.postgresql.relay_lock import relay_lock
from reactive_rpc.backends.postgresql.snapshot import TransactionSnapshot
from reactive_rpc.backends.redis.connection import connect_redis
from reactive_rpc.backends.redis.log import RedisLog
from reactive_rpc.backends.redis.relay import Feed, Relay
from reactive_rpc.backends.redis.stream import RedisStream, RelayReport, StreamEntry
from reactive_rpc.changes.base_log import LogLimits
from reactive_rpc.changes.log import Batch
from reactive_rpc.clock import RandomIds
from tests.integration.backends.postgresql.tails import connected
from tests.support.waiting import until


async def eventually(work: Callable[[], Awaitable[object]], *errors: type[Exception]) -> None:
    """Try again until none of `errors` comes of it."""

    async def works() -> bool:
        with suppress(*errors):
            await work()
            return True
        return False

    await until(works)


@dataclass
class Rig:
    """Makes the parts.

    Attributes:
        url: of the database; it has the table `w (id, writer)`.
        redis_url: of the Redis.
        namespace: of the keys.
        shards: as many as the contents are spread over.
    """

    url: str
    redis_url: str
    namespace: str
    shards: int = 1

    def key(self, name: str) -> str:
        """Return the name of a key."""
        return f"{{{self.namespace}}}:{name}"

    def capture(self) -> PostgreSQLCapture:
        """Return the capture of one more worker."""
        return PostgreSQLCapture(make_url(self.url), ids=RandomIds())

    def stream(self) -> RedisStream:
        """Return the stream of one more worker."""
        return RedisStream(self.redis_url, self.namespace, shards=self.shards, scope_column="id")

    def outbox_log(self) -> PostgreSQLLog:
        """Return a log that reads the database itself."""
        return PostgreSQLLog(self.capture(), make_url(self.url))

    def relay(self) -> Relay:
        """Return a relay, not running yet."""
        return Relay(self.outbox_log, self.stream, relay_lock(make_url(self.url), self.namespace))

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Any]:
        """Connect to Redis as any other program would."""
        client: Any = connect_redis(self.redis_url)
        try:
            yield client
        finally:
            await client.aclose()

    @asynccontextmanager
    async def relaying(self) -> AsyncIterator[Relay]:
        """Let a relay run."""
        relay = self.relay()
        task = asyncio.create_task(relay.run())
        try:
            yield relay
        finally:
            task.cancel()
            await asyncio.wait([task])

    @asynccontextmanager
    async def feed(self) -> AsyncIterator[Feed]:
        """Let somebody feed the stream without having been elected."""
        log, stream = self.outbox_log(), self.stream()
        try:
            await log.open()
            yield Feed(log, stream)
        finally:
            await log.aclose()
            await stream.aclose()

    @asynccontextmanager
    async def relayed(self, **limits: Any) -> AsyncIterator[tuple[Writer, Edge]]:
        """Let a relay run, a writer write, and a worker follow."""
        with Writer(self.url) as writer:
            async with self.relaying(), self.edge(writer, **limits) as edge:
                yield writer, edge

    @asynccontextmanager
    async def edge(self, writer: Writer, **limits: Any) -> AsyncIterator[Edge]:
        """Let a worker follow the stream; somebody must be feeding it."""
        stream = Gated(self.redis_url, self.namespace, shards=self.shards)
        edge = Edge(RedisLog(self.capture(), stream, LogLimits(**limits)), writer, stream.gate)
        edge.log.subscribe(edge.keep)
        try:
            await edge.log.open()
            edge.opened_at = edge.log.version
            yield edge
        finally:
            await edge.log.aclose()


class Gated(RedisStream):
    """A stream whose reader can be made slow: it reads nothing while the gate is shut."""

    def __init__(self, url: str, namespace: str, *, shards: int) -> None:
        super().__init__(url, namespace, shards=shards)
        self.gate = asyncio.Event()
        self.gate.set()

    async def reports_after(self, report_id: bytes, wait_seconds: float) -> list[RelayReport]:
        await self.gate.wait()
        return await super().reports_after(report_id, wait_seconds)

    async def entries(self, after: int, until: int) -> list[StreamEntry]:
        await self.gate.wait()
        return await super().entries(after, until)


class Writer:
    """Inserts rows, one a transaction, and knows from which version on each is owed to everybody."""

    def __init__(self, url: str) -> None:
        self.connection = connected(url)
        self.versions: dict[int, int] = {}

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.connection.close()

    def write(self) -> int:
        """Commit one more row and return its id."""
        number = len(self.versions) + 1
        self.connection.execute("INSERT INTO w VALUES (%s, 0)", [number])
        self.versions[number] = version_now(self.connection)
        return number


def version_now(connection: psycopg.Connection[Any]) -> int:
    """Return the version that shows everything committed so far; nobody else writes meanwhile."""
    row = connection.execute("SELECT pg_current_snapshot()::text").fetchone()
    assert row is not None
    snapshot = TransactionSnapshot.parse(row[0])
    assert snapshot is not None
    return snapshot.version


@dataclass
class Edge:
    """A worker that follows, and what it was told.

    Attributes:
        gate: while it is shut, nothing is read.
        received: the ids of rows, as they came.
        flushes: the version of each flush.
    """

    log: RedisLog
    writer: Writer
    gate: asyncio.Event
    received: list[int] = field(default_factory=list)
    flushes: list[int] = field(default_factory=list)
    opened_at: int = 0

    def keep(self, batch: Batch) -> None:
        """Note a batch."""
        if batch.flush is not None:
            self.flushes.append(batch.version)
        ids = [int(change.after["id"]) for change in batch.changes if change.after]  # type: ignore[arg-type]  # integers
        assert ids == sorted(ids), "within a batch, commit order"
        self.received += ids

    @property
    def missing(self) -> set[int]:
        """The rows that its version shows, and of which it was neither told nor warned."""
        covered = max([self.opened_at, *self.flushes])
        expected = {number for number, version in self.writer.versions.items() if covered < version <= self.log.version}
        return expected - set(self.received)

    @property
    def first_received(self) -> list[int]:
        """The rows in the order in which they were told first."""
        return list(dict.fromkeys(self.received))


def prepare(url: str) -> None:
    """Create the table."""
    with closing(connected(url)) as connection:
        connection.execute("CREATE TABLE w (id INTEGER PRIMARY KEY, writer INTEGER)")
