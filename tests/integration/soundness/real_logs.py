"""Run a query, commit, hear of it from a real log, run it again: where the result changed, its read set was touched.

Unlike `differential.py`, everything between the commit and the index is real: capture, the log, which looks parents up
in the snapshot that shows the changes, and for `redis` the relay, its stream and the log that follows it. Transactions
come one by one, several before one look, and on PostgreSQL over two connections, so that one is still open while the
log shows the other.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from reactive_rpc.backends.postgresql.capture.backend import PostgreSQLCapture
from reactive_rpc.backends.postgresql.log import PostgreSQLLog
from reactive_rpc.backends.postgresql.oracle import PostgreSQLOracle
from reactive_rpc.backends.postgresql.relay_lock import relay_lock
from reactive_rpc.backends.redis.log import RedisLog
from reactive_rpc.backends.redis.relay import Relay
from reactive_rpc.backends.redis.stream import RedisStream
from reactive_rpc.backends.sqlite.capture.backend import SQLiteCapture
from reactive_rpc.backends.sqlite.log import SQLiteLog
from reactive_rpc.backends.sqlite.oracle import SQLiteOracle
from reactive_rpc.changes.log import Batch, Log
from reactive_rpc.clock import RandomIds
from reactive_rpc.dependencies.change import Change
from reactive_rpc.dependencies.codec import decode_read_set, encode_read_set
from reactive_rpc.dependencies.index import Index
from reactive_rpc.statements.recorder import RECORDER_OPTION, Recorder, install
from tests.support.waiting import until

from .differential import StaleError
from .memberships import METADATA, TABLES, Memberships

__all__ = ["Place", "Trial", "Way", "place_on"]

Way = Literal["sqlite", "postgresql", "redis"]

QUERIES, LOOKS = 6, 10
"""In each case."""


@dataclass
class Place:
    """A database with the tables, and the log that is looked at.

    Attributes:
        outbox: the log that reads the database itself, for `redis` the relay's.
    """

    engine: Engine
    log: Log
    outbox: list[Log] = field(default_factory=list)


@asynccontextmanager
async def place_on(way: Way, url: str, *, redis: tuple[str, str] = ("", "")) -> AsyncIterator[Place]:
    """Open a log on a database.

    Args:
        url: of an empty database, for SQLAlchemy's synchronous engines.
        redis: the URL of a Redis, and a namespace in it.
    """
    engine = create_engine(url, poolclass=NullPool)
    if way == "sqlite":
        event.listen(engine, "connect", _prepare)
    METADATA.create_all(engine)
    install(engine)
    if way == "sqlite":
        capture = SQLiteCapture(Path(str(make_url(url).database)), ids=RandomIds())
        place = Place(engine, SQLiteLog(capture))
    else:
        place = Place(engine, PostgreSQLLog(PostgreSQLCapture(make_url(url), ids=RandomIds()), make_url(url)))
    place.outbox.append(place.log)
    async with _relayed(url, redis, place) if way == "redis" else _opened(place.log):
        yield place
    engine.dispose()


@asynccontextmanager
async def _opened(log: Log) -> AsyncIterator[None]:
    await log.open()
    try:
        yield
    finally:
        await log.aclose()


@asynccontextmanager
async def _relayed(url: str, redis: tuple[str, str], place: Place) -> AsyncIterator[None]:
    """Let a relay run, and follow it."""
    relay = Relay(lambda: place.outbox[0], lambda: RedisStream(*redis), relay_lock(make_url(url), redis[1]))
    running = asyncio.create_task(relay.run())
    place.log = RedisLog(PostgreSQLCapture(make_url(url), ids=RandomIds()), RedisStream(*redis))
    try:
        async with _opened(place.log):
            yield
    finally:
        running.cancel()
        await asyncio.wait([running])


@dataclass
class _Asked:
    query: Any
    rows: list[Any]


class Trial:
    """Cases on one place.

    Attributes:
        counters: `pairs` of query and look, how many results `changed`, were `touched`, were touched in vain
            (`needless`) or would have been by tables alone (`by_table`).
    """

    def __init__(self, place: Place) -> None:
        self.counters: Counter[str] = Counter()
        self._place = place
        self._batches: list[Batch] = []
        self._asked: list[_Asked] = []
        self._index: Index[int] = Index(place.log.want)
        self._tables: list[frozenset[str]] = []
        place.log.subscribe(self._batches.append)
        place.log.enrich_with(self._index.lookups)

    async def run(self, seed: int, cases: int) -> None:
        """Run so many cases.

        Raises:
            StaleError: a result went stale.
        """
        for number in range(cases):
            await self._case(Memberships(random.Random(f"{seed}:{number}")), f"seed {seed}, case {number}")

    async def _case(self, drawing: Memberships, name: str) -> None:
        self._index.clear()
        self._asked.clear()
        self._tables.clear()
        with self._place.engine.begin() as connection:
            for table in reversed(TABLES):
                connection.execute(table.delete())
            for table, rows in drawing.rows().items():
                connection.execute(METADATA.tables[table].insert(), rows)
        await self._place.log.sync_to_head()
        for _ in range(QUERIES):
            self._ask(drawing.query())
        for _ in range(LOOKS):
            await self._look(drawing, name)

    def _ask(self, query: Any) -> None:
        number = len(self._asked)
        self._asked.append(_Asked(query, []))
        self._tables.append(frozenset())
        self._ask_again(number)

    def _ask_again(self, number: int) -> None:
        is_sqlite = self._place.engine.dialect.name == "sqlite"
        recorder = Recorder(self._place.log.schema, SQLiteOracle() if is_sqlite else PostgreSQLOracle())
        asked = self._asked[number]
        with self._place.engine.connect() as connection:
            connection.execution_options(**{RECORDER_OPTION: recorder})
            asked.rows = _rows(connection, asked.query)
        read_set = recorder.read_set()
        assert read_set.opaque is None
        self._tables[number] = read_set.tables
        # As it is when a worker has taken the result from another one.
        self._index.add(number, decode_read_set(encode_read_set(read_set)))

    async def _look(self, drawing: Memberships, name: str) -> None:
        """Commit, look, and compare; then commit what was still open, look and compare again."""
        await until(lambda: all(self._is_wanted(table.name) for table in TABLES))
        self._batches.clear()
        with self._place.engine.connect() as slow:
            is_open = self._place.engine.dialect.name == "postgresql" and drawing.chance(3)
            if is_open:
                _write(slow, drawing)
            for _ in range(drawing.pick([1, 1, 2])):
                with self._place.engine.connect() as connection:
                    _write(connection, drawing)
                    connection.commit()
            await self._compare(name)
            if is_open:
                slow.commit()
                await self._compare(name)

    def _is_wanted(self, table: str) -> bool:
        """Tell whether the log that reads the database knows what the index wants."""
        outbox: Any = self._place.outbox[0]
        return set(self._index.lookups(table)) <= set(outbox._wanted(table))

    async def _compare(self, name: str) -> None:
        await self._place.log.sync_to_head()
        changes = [change for batch in self._batches for change in batch.changes]
        assert all(batch.flush is None for batch in self._batches)
        self._batches.clear()
        found = {number for change in changes for number in self._index.match(change)}
        tables = {change.table for change in changes}
        with self._place.engine.connect() as connection:
            answers = [_rows(connection, asked.query) for asked in self._asked]
        for number, (asked, rows) in enumerate(zip(self._asked, answers, strict=True)):
            touched, changed = number in found, rows != asked.rows
            self.counters.update(
                pairs=1,
                changed=changed,
                touched=touched,
                needless=touched and not changed,
                by_table=bool(self._tables[number] & tables),
            )
            if changed and not touched:
                raise StaleError(_report(name, asked, rows, changes))
            if changed:
                self._index.remove(number)
                self._ask_again(number)


def _prepare(connection: Any, _record: Any) -> None:
    """Have cascades, and no file written to its disk: the power stays on."""
    connection.executescript("PRAGMA foreign_keys = ON; PRAGMA synchronous = OFF")


def _rows(connection: Connection, query: Any) -> list[Any]:
    rows = [tuple(row) for row in connection.execute(query)]
    return rows if query._limit_clause is not None else sorted(rows, key=repr)


_PATIENCE: Final = "SET LOCAL lock_timeout = '20ms'"


def _write(connection: Connection, drawing: Memberships) -> None:
    """Write one to three statements; a constraint or another's lock may refuse one."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(_PATIENCE)
    for _ in range(drawing.pick([1, 1, 2, 3])):
        statement = drawing.write()
        try:
            with connection.begin_nested():
                connection.execute(statement)
        except DBAPIError:
            continue


def _report(name: str, asked: _Asked, rows: list[Any], changes: list[Change]) -> str:
    said = (f"change: {change}" for change in changes)
    return "\n".join([f"STALE: {name}", str(asked.query), f"before: {asked.rows}", f"after:  {rows}", *said])
