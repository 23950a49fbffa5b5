"""What every log keeps to, run against each of them on a real database."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Coroutine, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
from sqlalchemy import make_url

from reactive_rpc.backends.postgresql.capture.backend import PostgreSQLCapture
from reactive_rpc.backends.postgresql.log import PostgreSQLLog
from reactive_rpc.backends.postgresql.relay_lock import relay_lock
from reactive_rpc.backends.postgresql.url import libpq_url
from reactive_rpc.backends.redis.connection import connect_redis
from reactive_rpc.backends.redis.log import RedisLog
from reactive_rpc.backends.redis.relay import Relay
from reactive_rpc.backends.redis.stream import RedisStream
from reactive_rpc.backends.sqlite.capture.backend import POSITION, SQLiteCapture
from reactive_rpc.backends.sqlite.log import SQLiteLog
from reactive_rpc.changes.base_log import DEFAULT_LIMITS, LogLimits
from reactive_rpc.changes.capture_backend import CaptureBackend
from reactive_rpc.changes.log import Batch, Log
from reactive_rpc.clock import RandomIds
from reactive_rpc.dependencies.change import UNKNOWN, Change
from reactive_rpc.dependencies.lookup import Lookup
from reactive_rpc.errors import ServiceUnavailableError
from reactive_rpc.protocol.cursors import Cursor
from tests.support.waiting import until

T = TypeVar("T")
Writer = Any
"""A connection of the bare driver: `execute(sql)` commits by itself, unless BEGIN was executed."""

TABLES = (
    "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER)",
    "CREATE TABLE users (id INTEGER PRIMARY KEY, team_id INTEGER, name TEXT)",
    "CREATE TABLE post (id INTEGER PRIMARY KEY, user_id INTEGER, n INTEGER)",
    "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)",
    "INSERT INTO users VALUES (1, 10, 'a'), (2, 20, 'b'), (3, NULL, 'c')",
)
TEAM = Lookup("post", "user_id", "users", "id", "team_id")
DEADLINE_SECONDS = 60.0


class LogDatabase(ABC):
    """One database with three tables, its writers, and logs as several workers would open them."""

    begin = "BEGIN"

    @abstractmethod
    def writer(self) -> Writer:
        """Connect as any other program would."""

    @abstractmethod
    def capture(self) -> Any:
        """Return the capture of one more worker."""

    @abstractmethod
    def log(self, limits: LogLimits) -> Log:
        """Return the log of one more worker, not open yet."""

    @abstractmethod
    def unreachable(self) -> Log:
        """Return a log of a database that is not there."""

    @abstractmethod
    def version(self, writer: Writer) -> int:
        """Return the version that a transaction shows which begins now."""

    @abstractmethod
    def drop_trigger(self, writer: Writer) -> None:
        """Drop a trigger of capture on table t."""

    @abstractmethod
    def prune_all(self, writer: Writer) -> None:
        """Prune everything committed so far, as if it were old."""


class SQLiteLogDatabase(LogDatabase):
    """A file."""

    begin = "BEGIN IMMEDIATE"

    def __init__(self, path: Path) -> None:
        self.path = path

    def writer(self) -> Writer:
        return sqlite3.connect(self.path, isolation_level=None, timeout=30, check_same_thread=False)

    def capture(self) -> SQLiteCapture:
        return SQLiteCapture(self.path, ids=RandomIds())

    def log(self, limits: LogLimits) -> Log:
        return SQLiteLog(self.capture(), limits)

    def unreachable(self) -> Log:
        return SQLiteLog(SQLiteCapture(self.path.parent / "no" / "such.db", ids=RandomIds()))

    def version(self, writer: Writer) -> int:
        return int(writer.execute(POSITION).fetchone()[0])

    def drop_trigger(self, writer: Writer) -> None:
        writer.execute("DROP TRIGGER _reactive_rpc_update_t")

    def prune_all(self, writer: Writer) -> None:
        writer.execute("UPDATE _reactive_rpc_outbox SET at = 0")
        self.capture().prune(60)


class PostgreSQLLogDatabase(LogDatabase):
    """A database on the server of the tests."""

    def __init__(self, url: str) -> None:
        self.url = make_url(url)

    def writer(self) -> Writer:
        return psycopg.connect(libpq_url(self.url), autocommit=True)

    def capture(self) -> PostgreSQLCapture:
        return PostgreSQLCapture(self.url, ids=RandomIds())

    def log(self, limits: LogLimits) -> Log:
        return PostgreSQLLog(self.capture(), self.url, limits)

    def unreachable(self) -> Log:
        url = self.url.set(database="no_such_database")
        return PostgreSQLLog(PostgreSQLCapture(url, ids=RandomIds()), url)

    def version(self, writer: Writer) -> int:
        xmin_xmax_xip = writer.execute("SELECT pg_current_snapshot()::text").fetchone()[0].split(":")
        return int(xmin_xmax_xip[1]) - len([xid for xid in xmin_xmax_xip[2].split(",") if xid])

    def drop_trigger(self, writer: Writer) -> None:
        name = writer.execute(
            "SELECT tgname FROM pg_trigger WHERE tgrelid = 't'::regclass AND NOT tgisinternal AND tgtype & 16 > 0"
        ).fetchone()[0]
        writer.execute(f'DROP TRIGGER "{name}" ON t')

    def prune_all(self, writer: Writer) -> None:
        capture = self.capture()
        capture.prune(60)  # notes how far the log has come
        writer.execute("UPDATE reactive_rpc.horizon SET at = at - interval '1 hour'")
        capture.prune(60)


class RedisLogDatabase(PostgreSQLLogDatabase):
    """A database that one relay reads for all, through Redis."""

    def __init__(self, url: str, redis_url: str, namespace: str, *, shards: int) -> None:
        super().__init__(url)
        self.redis_url = redis_url
        self.namespace = namespace
        self.shards = shards

    def log(self, limits: LogLimits) -> Log:
        return RelayedLog(self, limits)

    def unreachable(self) -> Log:
        url = self.url.set(database="no_such_database")
        return RedisLog(PostgreSQLCapture(url, ids=RandomIds()), self.stream())

    def stream(self) -> RedisStream:
        """Return the stream of one more worker or relay."""
        return RedisStream(self.redis_url, self.namespace, shards=self.shards)

    def prune_all(self, writer: Writer) -> None:
        """Prune the outbox, and trim what Redis keeps."""
        super().prune_all(writer)

        async def trim() -> None:
            client: Any = connect_redis(self.redis_url)
            await client.xtrim(f"{{{self.namespace}}}:log", maxlen=0, approximate=False)
            await client.aclose()

        asyncio.run(trim())


class RelayedLog(RedisLog):
    """The log of a worker that may become the relay, as every worker may."""

    def __init__(self, world: RedisLogDatabase, limits: LogLimits) -> None:
        super().__init__(world.capture(), world.stream(), replace(limits, bulk_threshold=DEFAULT_LIMITS.bulk_threshold))
        of_relay = LogLimits(bulk_threshold=limits.bulk_threshold)
        self._relay = Relay(
            lambda: PostgreSQLLog(world.capture(), world.url, of_relay),
            world.stream,
            relay_lock(world.url, world.namespace),
        )
        self._task: asyncio.Task[None] | None = None

    async def announced(self, lookups: Collection[Lookup]) -> None:
        """Wait until Redis has what was wanted."""

        async def is_there() -> bool:
            wanted = await self._stream.wanted()
            return {each for found in wanted.values() for each in found} >= set(lookups)

        await until(is_there)

    async def open(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._relay.run())
        await super().open()

    async def aclose(self) -> None:
        await super().aclose()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None


@dataclass
class Tail:
    """An open log with a subscriber that keeps every batch."""

    log: Log
    run: Callable[[Coroutine[Any, Any, Any]], Any]
    batches: list[Batch] = field(default_factory=list)
    polled: int = 0

    def poll(self) -> list[Batch]:
        """Ask for what is fresh and return the batches that came since the last time, by this or by themselves."""
        self.run(self.log.sync_to_head())
        known, self.polled = self.polled, len(self.batches)
        return self.batches[known:]

    def want(self, *lookups: Lookup) -> None:
        """Want virtual columns, and wait until whoever makes the images knows."""
        self.log.enrich_with(lambda table: [each for each in lookups if each.table == table])
        self.log.want(lookups)
        if isinstance(self.log, RelayedLog):
            self.run(self.log.announced(lookups))
        self.run(self.log.sync_to_head())  # a relay hears of questions in their order

    def received(self) -> list[Change]:
        """Ask for what is fresh and return the changes; a flush is not expected."""
        batches = self.poll()
        assert all(batch.flush is None for batch in batches), batches
        return [change for batch in batches for change in batch.changes]

    def read_after(self, cursor: Cursor, *, at_most: int | None = None) -> list[Change] | None:
        """Read from the database what came after a cursor; None is a gap."""
        found = self.run(self.log.read_after(cursor, at_most=at_most))
        return None if found is None else list(found)

    @property
    def cursor(self) -> Cursor:
        """The place of now, as a client gets it and sends it back."""
        return Cursor.parse(str(self.log.cursor_at(self.log.version)))


MakeTail = Callable[..., Tail]

looks_up = pytest.mark.parametrize("world", ["sqlite", "postgresql"], indirect=True)
"""For what a relay decides by itself: which commits it reads at once."""


@pytest.fixture(params=["sqlite", "postgresql", "redis", "redis_cluster"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> LogDatabase:
    if request.param == "sqlite":
        world: LogDatabase = SQLiteLogDatabase(tmp_path / "main.db")
    elif request.param == "postgresql":
        world = PostgreSQLLogDatabase(request.getfixturevalue("postgresql_url"))
    else:
        url, redis_url, namespace = (
            request.getfixturevalue(name)
            for name in (
                "postgresql_url",
                "redis_server_url" if request.param == "redis" else "redis_cluster_url",
                "redis_namespace",
            )
        )
        world = RedisLogDatabase(url, redis_url, namespace, shards=1 if request.param == "redis" else 4)
    with closing(world.writer()) as writer:
        for statement in TABLES:
            writer.execute(statement)
    return world


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def make_tail(world: LogDatabase, runner: asyncio.Runner) -> Iterator[MakeTail]:
    """Return a function that opens one more log, as another worker would."""
    with ExitStack() as stack:

        def make(**limits: int) -> Tail:
            tail = Tail(world.log(LogLimits(**limits)), runner.run)
            tail.log.subscribe(tail.batches.append)
            stack.callback(lambda: runner.run(tail.log.aclose()))
            runner.run(tail.log.open())
            return tail

        yield make


@pytest.fixture
def tail(make_tail: MakeTail) -> Tail:
    """Return one open log."""
    return make_tail()


@pytest.fixture
def writer(world: LogDatabase) -> Iterator[Writer]:
    with closing(world.writer()) as connection:
        yield connection


def shown(changes: list[Change] | None) -> list[tuple[str, str]]:
    """Return `(table, operation)` of each change."""
    assert changes is not None
    return [(change.table, change.operation) for change in changes]


def values(changes: list[Change] | None, column: str) -> list[object]:
    """Return what the images after hold of a column."""
    assert changes is not None
    return [None if change.after is None else change.after.get(column, UNKNOWN) for change in changes]


def in_threads(work: Callable[[int], None], count: int) -> list[threading.Thread]:
    """Run `work(0)`, `work(1)`… in threads of their own."""
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    return threads


def test_a_commit_is_told_once_in_the_order_of_its_writes(tail: Tail, writer: Writer) -> None:
    """The version names it afterwards, and not while it is being applied."""
    seen: list[tuple[int, int]] = []
    tail.log.subscribe(lambda batch: seen.append((tail.log.version, batch.version)))
    before = tail.log.version
    for statement in ("BEGIN", "UPDATE t SET n = 5 WHERE id = 1", "DELETE FROM t WHERE id = 2", "COMMIT"):
        writer.execute(statement)
    (batch,) = tail.poll()
    assert shown(list(batch.changes)) == [("t", "update"), ("t", "delete")]
    assert batch.changes[0].changed == frozenset({"n"})
    assert batch.version == tail.log.version > before
    assert seen == [(before, batch.version)]
    assert tail.poll() == []
    assert tail.log.changes_since(before) == batch.changes


def test_what_is_rolled_back_is_never_told(tail: Tail, writer: Writer) -> None:
    """Whole transactions and savepoints alike."""
    for statement in ("BEGIN", "UPDATE t SET n = 5", "ROLLBACK"):
        writer.execute(statement)
    assert tail.received() == []
    statements = ["BEGIN", "SAVEPOINT a", "UPDATE t SET n = 5", "ROLLBACK TO a", "DELETE FROM t WHERE id = 3", "COMMIT"]
    for statement in statements:
        writer.execute(statement)
    assert shown(tail.received()) == [("t", "delete")]


def test_whatever_was_acknowledged_before_the_call_is_told(world: LogDatabase, tail: Tail) -> None:
    """Promise 1, with four writers at once: each commit known before the call is told when it returns, exactly once."""
    acknowledged: set[int] = set()

    def write(number: int) -> None:
        with closing(world.writer()) as connection:
            for n in range(50):
                connection.execute(world.begin)
                connection.execute(f"INSERT INTO t VALUES ({1000 * number + n + 100}, {n})")
                connection.execute("ROLLBACK" if n % 5 == 4 else "COMMIT")
                if n % 5 != 4:
                    acknowledged.add(1000 * number + n + 100)

    received: list[int] = []

    def keep(batch: Batch) -> None:
        received.extend(int(change.after["id"]) for change in batch.changes if change.after)  # type: ignore[arg-type]  # ids

    tail.log.subscribe(keep)
    threads = in_threads(write, 4)
    polls = 0
    while any(thread.is_alive() for thread in threads) or polls < 3:
        known, version = set(acknowledged), tail.log.version
        assert tail.run(tail.log.sync_to_head()) >= version
        assert known <= set(received), "an acknowledged commit was not told"
        polls += 1
    tail.poll()
    assert sorted(received) == sorted(acknowledged)
    assert len(received) == 160
    versions = [batch.version for batch in tail.batches]
    assert versions == sorted(set(versions))


def test_a_transaction_that_begins_later_sees_the_version(world: LogDatabase, tail: Tail, writer: Writer) -> None:
    """Promise 2: once a batch is handed over, whoever begins to read finds at least that version, and the rows."""

    def write(number: int) -> None:
        with closing(world.writer()) as connection:
            for n in range(60):
                connection.execute(f"INSERT INTO t VALUES ({1000 * number + n + 100}, {n})")

    checked = 0

    def check(batch: Batch) -> None:
        nonlocal checked
        assert world.version(writer) >= batch.version
        visible = {row[0] for row in writer.execute("SELECT id FROM t").fetchall()}
        assert {change.after["id"] for change in batch.changes if change.after} <= visible
        checked += 1

    tail.log.subscribe(check)
    threads = in_threads(write, 2)
    while any(thread.is_alive() for thread in threads):
        tail.poll()
    tail.poll()
    assert checked > 0
    assert all(batch.flush is None for batch in tail.batches), "the check above failed"


def test_changes_of_one_row_come_in_commit_order(world: LogDatabase, tail: Tail, writer: Writer) -> None:
    """Four writers count up one row: each change begins where the one before it ended."""
    writer.execute("UPDATE t SET n = 0 WHERE id = 1")
    tail.poll()

    def write(number: int) -> None:
        with closing(world.writer()) as connection:
            for _ in range(40):
                connection.execute("UPDATE t SET n = n + 1 WHERE id = 1")

    received: list[Change] = []
    threads = in_threads(write, 4)
    while any(thread.is_alive() for thread in threads):
        received += tail.received()
    received += tail.received()
    steps = [(change.before["n"], change.after["n"]) for change in received if change.before and change.after]
    assert steps == [(n, n + 1) for n in range(160)]


def test_every_worker_is_told_the_same(make_tail: MakeTail, writer: Writer) -> None:
    """Version and epoch mean the same to all who follow one database."""
    tails = [make_tail(), make_tail()]
    writer.execute("UPDATE t SET n = 7 WHERE id = 1")
    first, second = (tail.poll() for tail in tails)
    assert first == second
    assert tails[0].log.epoch == tails[1].log.epoch
    assert tails[0].log.version == tails[1].log.version


def test_a_new_table_passes_without_a_flush(tail: Tail, writer: Writer) -> None:
    """Writes to it before capture saw it come as one bulk change, later ones row by row; an index changes nothing."""
    epoch = tail.log.epoch
    writer.execute("CREATE INDEX i ON t(n)")
    writer.execute("UPDATE t SET n = 9 WHERE id = 1")
    assert shown(tail.received()) == [("t", "update")]
    writer.execute("CREATE TABLE u (id INTEGER PRIMARY KEY)")
    writer.execute("INSERT INTO u VALUES (1)")
    assert not tail.log.schema.captured("u")
    assert shown(tail.received()) == [("u", "bulk")]
    assert tail.log.schema.captured("u")
    writer.execute("INSERT INTO u VALUES (2)")
    assert shown(tail.received()) == [("u", "insert")]
    assert tail.log.epoch == epoch


def test_a_dropped_trigger_flushes_everybody_once(world: LogDatabase, make_tail: MakeTail, writer: Writer) -> None:
    """In one new epoch with a higher version; what was noted before is a gap, and writes are told again."""
    tails = [make_tail(), make_tail()]
    writer.execute("UPDATE t SET n = 0 WHERE id = 1")
    for tail in tails:
        tail.received()
    old = tails[0].cursor
    world.drop_trigger(writer)
    writer.execute("UPDATE t SET n = 8 WHERE id = 1")
    for tail in tails:
        (batch,) = tail.poll()
        assert batch.flush
        assert batch.changes == ()
        assert batch.version == tail.log.version > old.version
        assert tail.log.changes_since(old.version) is None
        assert tail.read_after(old) is None
    assert tails[0].log.epoch == tails[1].log.epoch != old.epoch
    for tail in tails:
        tail.received()
    writer.execute("UPDATE t SET n = 9 WHERE id = 1")
    for tail in tails:
        assert values(tail.received(), "n") == [9]


def test_a_failing_subscriber_is_flushed(tail: Tail, writer: Writer, caplog: pytest.LogCaptureFixture) -> None:
    """A subscriber that raises is logged, the others get the batch, and the next poll flushes all, once."""
    failures = iter([RuntimeError("broken")])

    def fail_once(batch: Batch) -> None:
        for failure in failures:
            raise failure

    tail.log.subscribe(fail_once)
    before = tail.log.version
    writer.execute("DELETE FROM t WHERE id = 1")
    batches = tail.poll() + tail.poll()
    assert [shown(list(batch.changes)) for batch in batches] == [[("t", "delete")], []]
    assert "applying a batch failed" in caplog.text
    assert [bool(batch.flush) for batch in batches] == [False, True]
    assert tail.log.changes_since(before) is None
    assert tail.poll() == []
    writer.execute("DELETE FROM t WHERE id = 2")
    assert shown(tail.received()) == [("t", "delete")]


def test_many_rows_come_as_bulk(make_tail: MakeTail, writer: Writer) -> None:
    """Above the threshold the tables with the most changes come as one bulk change each; later ones are exact."""
    tail = make_tail(bulk_threshold=5)
    writer.execute("INSERT INTO t SELECT 100 + t.id + 10 * u.id, 0 FROM t, t AS u")
    assert tail.received() == [Change(table="t", operation="bulk")]
    for n in range(6):
        writer.execute(f"UPDATE t SET n = {n + 50} WHERE id = 1")
    writer.execute("DELETE FROM users WHERE id = 1")
    assert sorted(shown(tail.received())) == [("t", "bulk"), ("users", "delete")]
    for n in range(5):
        writer.execute(f"UPDATE t SET n = {n + 60} WHERE id = 1")
    assert values(tail.received(), "n") == [60, 61, 62, 63, 64]


def test_history_is_bounded(make_tail: MakeTail, writer: Writer) -> None:
    """Memory answers for what it holds, in order, and says None for what it has let go or never known."""
    tail = make_tail(history_changes=3)
    versions = [tail.log.version]
    for n in range(5):
        writer.execute(f"UPDATE t SET n = {100 + n} WHERE id = 1")
        tail.poll()
        versions.append(tail.log.version)
    newest = tail.log.changes_since(versions[2])
    assert newest is not None
    assert values(list(newest), "n") == [102, 103, 104]
    assert tail.log.changes_since(versions[5]) == ()
    assert tail.log.changes_since(versions[1]) is None
    assert tail.log.changes_since(versions[5] + 1) is None


def test_reading_after_a_cursor(make_tail: MakeTail, writer: Writer) -> None:
    """The database answers for any cursor of this epoch, on whichever worker, also one that was started since."""
    tail = make_tail(history_changes=0)
    cursors = [tail.cursor]
    for n in range(4):
        writer.execute(f"UPDATE t SET n = {100 + n} WHERE id = 1")
        tail.poll()
        cursors.append(tail.cursor)
    for reader in (tail, make_tail()):
        for place, cursor in enumerate(cursors):
            assert values(reader.read_after(cursor), "n") == [100, 101, 102, 103][place:]


def test_reading_after_a_cursor_is_bounded(make_tail: MakeTail, writer: Writer) -> None:
    """More changes than asked for are a gap, in one commit or in many, whether memory holds them or not."""
    tail = make_tail()
    cursors = [tail.cursor]
    for n in range(6):
        writer.execute(f"UPDATE t SET n = {100 + n} WHERE id = 1")
        tail.poll()
        cursors.append(tail.cursor)
    writer.execute("UPDATE t SET n = 200")
    tail.poll()
    rows = writer.execute("SELECT count(*) FROM t").fetchone()[0]
    for reader in (tail, make_tail(), make_tail(history_changes=0)):
        for place, cursor in enumerate(cursors):
            came = values(reader.read_after(cursor), "n")
            assert len(came) == 6 - place + rows
            assert values(reader.read_after(cursor, at_most=len(came)), "n") == came
            assert reader.read_after(cursor, at_most=len(came) - 1) is None
        assert reader.read_after(reader.cursor, at_most=1) == []


def test_reading_after_a_cursor_stops_at_the_version(tail: Tail, writer: Writer) -> None:
    """What is committed but not applied yet is left to the next batch: told once, not twice."""
    cursor = tail.cursor
    writer.execute("UPDATE t SET n = 100 WHERE id = 1")
    tail.poll()
    writer.execute("UPDATE t SET n = 101 WHERE id = 1")
    assert values(tail.read_after(cursor), "n") == [100]
    assert values(tail.received(), "n") == [101]


def test_a_cursor_survives_the_log(world: LogDatabase, tail: Tail, writer: Writer) -> None:
    """Closed and opened again, a log answers for what was committed meanwhile."""
    cursor, epoch = tail.cursor, tail.log.epoch
    tail.run(tail.log.aclose())
    tail.run(tail.log.aclose())
    with pytest.raises(ServiceUnavailableError, match="not open"):
        tail.run(tail.log.sync_to_head())
    writer.execute("UPDATE t SET n = 100 WHERE id = 1")
    tail.run(tail.log.open())
    tail.run(tail.log.open())
    assert tail.log.epoch == epoch
    assert values(tail.read_after(cursor), "n") == [100]
    assert tail.received() == []


def test_the_cursor_of_an_earlier_version_tells_no_less(tail: Tail, writer: Writer) -> None:
    """It keeps the version asked for, and whoever reads after it finds at least what came after that version."""
    versions = []
    for n in range(4):
        writer.execute(f"UPDATE t SET n = {100 + n} WHERE id = 1")
        tail.poll()
        versions.append(tail.log.version)
    cursor = Cursor.parse(str(tail.log.cursor_at(versions[1])))
    assert cursor.version == versions[1]
    assert values(tail.read_after(cursor), "n") == [102, 103]
    older = tail.read_after(tail.log.cursor_at(versions[0] - 1))
    assert older is None or values(older, "n")[-4:] == [100, 101, 102, 103]


def test_what_is_a_gap(world: LogDatabase, tail: Tail, writer: Writer) -> None:
    """Another epoch, a cursor ahead of what is applied, and one older than what is kept; never an error."""
    old = tail.cursor
    writer.execute("UPDATE t SET n = 5 WHERE id = 1")
    tail.poll()
    now = tail.cursor
    assert tail.read_after(now) == []
    assert tail.read_after(now._replace(epoch="other")) is None
    assert tail.read_after(now._replace(version=now.version + 1_000)) is None
    assert values(tail.read_after(old), "n") == [5]
    world.prune_all(writer)
    tail.poll()
    assert tail.read_after(old) is None
    assert tail.read_after(tail.cursor) == []


def test_rows_pruned_before_they_were_read_flush(world: LogDatabase, make_tail: MakeTail, writer: Writer) -> None:
    """A worker that slept past the retention flushes instead of going on with a hole."""
    tail = make_tail()
    before = tail.log.version
    writer.execute("UPDATE t SET n = 0")
    world.prune_all(writer)
    assert [bool(batch.flush) for batch in tail.poll()] == [True]
    assert tail.log.changes_since(before) is None
    assert tail.poll() == []
    writer.execute("UPDATE t SET n = 1 WHERE id = 1")
    assert values(tail.received(), "n") == [1]


def test_asking_together_is_answered_together(tail: Tail, writer: Writer) -> None:
    """A hundred callers at once each get what was committed before, and the batch comes once."""

    async def ask() -> list[int]:
        return await asyncio.gather(*(tail.log.sync_to_head() for _ in range(50)), *(arrive() for _ in range(50)))

    async def arrive() -> int:
        return await asyncio.create_task(tail.log.sync_to_head_for_server())

    writer.execute("UPDATE t SET n = 5 WHERE id = 1")
    assert set(tail.run(ask())) == {tail.log.version}
    assert [len(batch.changes) for batch in tail.batches] == [1]


def test_images_hold_what_parents_hold(make_tail: MakeTail, writer: Writer) -> None:
    """Before and after, of all parents; none where there is no parent or no key; absent unless wanted."""
    tail = make_tail()
    writer.execute("INSERT INTO post VALUES (1, 1, 0)")
    assert values(tail.received(), TEAM.name) == [UNKNOWN]
    tail.want(TEAM)
    writer.execute("UPDATE post SET user_id = 2 WHERE id = 1")
    (change,) = tail.received()
    assert change.before is not None
    assert change.after is not None
    assert (change.before[TEAM.name], change.after[TEAM.name]) == (frozenset({10}), frozenset({20}))
    assert change.changed == frozenset({"user_id"})
    for user in ("3", "99", "NULL"):
        writer.execute(f"UPDATE post SET user_id = {user} WHERE id = 1")
    assert values(tail.received(), TEAM.name) == [{None}, set(), set()]
    writer.execute("UPDATE users SET name = 'z' WHERE id = 1")
    assert TEAM.name not in (tail.received()[0].after or {})


def test_images_hold_what_parents_of_parents_hold(make_tail: MakeTail, writer: Writer) -> None:
    """By the parent's own key, both in the snapshot of the batch; none if one of the two is missing."""
    tail = make_tail()
    number = Lookup("post", "user_id", "users", "id", "team_id", Lookup("users", "team_id", "t", "id", "n"))
    tail.want(number)
    writer.execute("INSERT INTO t (id, n) VALUES (10, 7)")
    writer.execute("INSERT INTO post VALUES (1, 1, 0)")
    for user in ("2", "3", "99", "NULL"):
        writer.execute(f"UPDATE post SET user_id = {user} WHERE id = 1")
    found = [change for change in tail.received() if change.table == "post"]
    assert values(found, number.name) == [{7}, set(), set(), set(), set()]
    writer.execute("UPDATE t SET n = 8 WHERE id = 10")
    writer.execute("UPDATE post SET user_id = 1 WHERE id = 1")
    found = [change for change in tail.received() if change.table == "post"]
    assert values(found, number.name) == [{8}]
    writer.execute("UPDATE users SET team_id = 99 WHERE id = 1")
    writer.execute("UPDATE post SET n = 1 WHERE id = 1")
    found = [change for change in tail.received() if change.table == "post"]
    assert values(found, number.name) == [set()]


@looks_up
def test_parents_are_looked_up_in_the_snapshot_of_the_batch(make_tail: MakeTail, writer: Writer) -> None:
    """A parent written in the same transaction, or before the poll, is seen as the batch shows it."""
    tail = make_tail()
    tail.log.enrich_with(lambda table: [TEAM] if table == "post" else [])
    statements = ["INSERT INTO users VALUES (7, 70, 'x')", "INSERT INTO post VALUES (1, 7, 0)"]
    for statement in ("BEGIN", *statements, "UPDATE users SET team_id = 71 WHERE id = 7", "COMMIT"):
        writer.execute(statement)
    post = [change for change in tail.received() if change.table == "post"]
    assert values(post, TEAM.name) == [{71}]
    writer.execute("UPDATE post SET n = 1 WHERE id = 1")
    writer.execute("UPDATE users SET team_id = 72 WHERE id = 7")
    post = [change for change in tail.received() if change.table == "post"]
    assert values(post, TEAM.name) == [{72}]


@looks_up
def test_no_look_up_runs_ahead_of_the_batch(world: LogDatabase, make_tail: MakeTail) -> None:
    """While another writer moves the parent all the time, a child never shows a parent that was not told yet."""
    tail = make_tail()
    tail.log.enrich_with(lambda table: [TEAM] if table == "post" else [])
    stop = threading.Event()

    def write(number: int) -> None:
        with closing(world.writer()) as connection:
            n = 0
            while not stop.is_set():
                n += 1
                if number:
                    connection.execute(f"UPDATE users SET team_id = {1_000 + n} WHERE id = 1")
                else:
                    connection.execute(f"INSERT INTO post VALUES ({n}, 1, {n})")

    received: list[object] = [10]
    children = 0
    threads = in_threads(write, 2)
    give_up = time.monotonic() + DEADLINE_SECONDS
    try:
        while (children < 60 or len(received) <= 10) and time.monotonic() < give_up:
            changes = tail.received()
            received += values([change for change in changes if change.table == "users"], "team_id")
            looked_up = values([change for change in changes if change.table == "post"], TEAM.name)
            assert set(looked_up) <= {frozenset({received[-1]})}
            children += len(looked_up)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert children >= 60
    assert len(received) > 10


@looks_up
def test_what_cannot_be_looked_up_is_left_out(make_tail: MakeTail, writer: Writer) -> None:
    """Too many keys, a parent that is not captured, columns that compare otherwise: unknown, and no error."""
    tail = make_tail(bulk_threshold=5_000)
    wrong = [
        Lookup("post", "user_id", "nowhere", "id", "team_id"),
        Lookup("post", "user_id", "users", "name", "team_id"),
        Lookup("post", "user_id", "users", "id", "nothing"),
    ]
    tail.log.enrich_with(lambda table: [*wrong, TEAM])
    writer.execute("INSERT INTO post VALUES (1, 1, 0)")
    (change,) = tail.received()
    assert change.after is not None
    assert {name for name in change.after if "->" in name} == {TEAM.name}
    for start in range(10, 1_060, 350):  # a statement of more rows would not be told of row by row
        rows = ",".join(f"({n}, {n}, 0)" for n in range(start, start + 350))
        writer.execute(f"INSERT INTO post VALUES {rows}")
    assert set(values(tail.received(), TEAM.name)) == {UNKNOWN}


def test_a_database_that_is_not_there(world: LogDatabase, runner: asyncio.Runner) -> None:
    """Opening says that it cannot be read; a log that is not open says so; both leave nothing behind."""
    log = world.unreachable()
    with pytest.raises(ServiceUnavailableError):
        runner.run(log.open())
    with pytest.raises(ServiceUnavailableError, match="not open"):
        runner.run(log.sync_to_head())
    runner.run(log.aclose())


def test_capture_keeps_its_contract(world: LogDatabase) -> None:
    """Both captures fit the protocol that the composition root uses."""
    capture: CaptureBackend = world.capture()
    assert capture.guarantee
