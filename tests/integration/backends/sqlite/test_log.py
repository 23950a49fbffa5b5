"""The log of a SQLite file: nothing missed, in order, and a flush wherever something may have been."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from reactive_rpc.backends.sqlite.capture.backend import SQLiteCapture
from reactive_rpc.backends.sqlite.log import SQLiteLog
from reactive_rpc.changes.log import Batch
from reactive_rpc.clock import RandomIds
from reactive_rpc.dependencies.change import Change
from reactive_rpc.dependencies.lookup import Lookup
from reactive_rpc.errors import ServiceUnavailableError
from reactive_rpc.protocol.cursors import Cursor

from .conftest import MakeTail, Tail

WRITER = """
import random, sqlite3, sys
path, name = sys.argv[1], int(sys.argv[2])
c = sqlite3.connect(path, timeout=60, isolation_level=None)
rng = random.Random(name)
for n in range(60):
    c.execute("BEGIN IMMEDIATE")
    c.execute("INSERT INTO w(writer, n) VALUES (?, ?)", (name, n))
    c.execute("SAVEPOINT s"); c.execute("INSERT INTO w(writer, n) VALUES (-1, -1)"); c.execute("ROLLBACK TO s")
    c.execute("COMMIT")
    if rng.random() < 0.3:
        c.execute("BEGIN IMMEDIATE"); c.execute("INSERT INTO w(writer, n) VALUES (-2, -2)"); c.execute("ROLLBACK")
c.close()
"""


def _read_after(tail: Tail, cursor: Cursor) -> tuple[Change, ...] | None:
    return asyncio.run(tail.log.read_after(cursor))


def test_a_commit_is_told_by_the_next_poll(tail: Tail, writer: sqlite3.Connection) -> None:
    """A commit is told once, in the order of its writes, and the version names it afterwards."""
    before = tail.log.version
    writer.executescript("BEGIN; UPDATE t SET n = 5 WHERE id = 1; DELETE FROM t WHERE id = 2; COMMIT")
    (batch,) = tail.poll()
    assert [change.operation for change in batch.changes] == ["update", "delete"]
    assert batch.version == tail.log.version == before + 2
    assert tail.poll() == []


def test_fresh_polls(tail: Tail, writer: sqlite3.Connection) -> None:
    """`sync_to_head` applies what was committed before it was called and returns the version."""
    writer.execute("DELETE FROM t WHERE id = 1")
    assert asyncio.run(tail.log.sync_to_head()) == tail.log.version
    assert len(tail.batches) == 1


def test_the_version_moves_after_the_subscribers(tail: Tail, writer: sqlite3.Connection) -> None:
    """While a batch is being applied, the version does not name it yet."""
    seen: list[tuple[int, int]] = []
    tail.log.subscribe(lambda batch: seen.append((tail.log.version, batch.version)))
    writer.execute("DELETE FROM t WHERE id = 1")
    tail.poll()
    assert seen == [(tail.log.version - 1, tail.log.version)]


def test_several_writers_one_tailer(tail: Tail, writer: sqlite3.Connection, path: Path) -> None:
    """Of three processes writing at once, with rollbacks between, nothing is missed, doubled or out of order."""
    writer.execute("CREATE TABLE w (id INTEGER PRIMARY KEY, writer INTEGER, n INTEGER)")
    tail.poll()
    processes = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(name)]) for name in range(3)]
    received: list[Change] = []
    while any(process.poll() is None for process in processes):
        received += tail.received()
    received += tail.received()
    assert [process.returncode for process in processes] == [0, 0, 0]
    rows = [(c.after["writer"], c.after["n"]) for c in received if c.operation == "insert" and c.after is not None]
    assert rows == writer.execute("SELECT writer, n FROM w ORDER BY id").fetchall()
    assert len(rows) == 180
    versions = [batch.version for batch in tail.batches]
    assert versions == sorted(set(versions))


def test_new_tables_and_indexes_pass(tail: Tail, writer: sqlite3.Connection) -> None:
    """CREATE INDEX and CREATE TABLE flush nothing and lose nothing; unseen writes to the new table come as one bulk."""
    epoch = tail.log.epoch
    writer.executescript("CREATE INDEX i ON t(n); UPDATE t SET n = 9 WHERE id = 1")
    assert [change.changed for change in tail.received()] == [frozenset({"n"})]
    writer.executescript(
        "CREATE TABLE u (id INTEGER PRIMARY KEY); INSERT INTO u VALUES (1); DELETE FROM t WHERE id = 1"
    )
    assert not tail.log.schema.captured("u")
    assert [(change.table, change.operation) for change in tail.received()] == [("t", "delete"), ("u", "bulk")]
    assert tail.log.schema.captured("u")
    writer.execute("INSERT INTO u VALUES (2)")
    assert [(change.table, change.operation) for change in tail.received()] == [("u", "insert")]
    assert tail.log.epoch == epoch


ALTERATIONS = {
    "trigger dropped": "DROP TRIGGER _reactive_rpc_update_t; UPDATE t SET n = 0",
    "trigger dropped and created again": "",
    "column added": "ALTER TABLE t ADD COLUMN z TEXT; UPDATE t SET z = 'x'",
    "table renamed": "ALTER TABLE t RENAME TO t2; UPDATE t2 SET n = 0",
    "table dropped": "DROP TABLE t",
    "table made anew": "CREATE TABLE x AS SELECT * FROM t; DROP TABLE t; ALTER TABLE x RENAME TO t",
    "unique index": "CREATE UNIQUE INDEX i ON t(n)",
    "outbox dropped": "DROP TABLE _reactive_rpc_outbox",
    "meta dropped": "DROP TABLE _reactive_rpc_meta",
}


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_what_may_hide_a_write_flushes(make_tail: MakeTail, writer: sqlite3.Connection, alteration: str) -> None:
    """After DDL that touches capture every worker flushes once, in one new epoch with a higher version, and goes on."""
    tails = [make_tail(), make_tail()]
    (trigger,) = writer.execute("SELECT sql FROM sqlite_schema WHERE name = '_reactive_rpc_update_t'").fetchone()
    old_epoch, old_version = tails[0].log.epoch, tails[0].log.version
    writer.executescript(
        ALTERATIONS[alteration] or f"DROP TRIGGER _reactive_rpc_update_t; UPDATE t SET n=0; {trigger};"
    )
    for tail in tails:
        (batch,) = tail.poll()
        assert batch.flush
        assert batch.changes == ()
        assert batch.version == tail.log.version > old_version
    assert tails[0].log.epoch == tails[1].log.epoch != old_epoch
    writer.executescript("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, n INTEGER)")
    for tail in tails:
        tail.received()
    writer.execute("INSERT INTO t(id, n) VALUES (50, 50)")
    for tail in tails:
        assert ("t", "insert") in [(change.table, change.operation) for change in tail.received()]


@pytest.mark.parametrize("writes_after", [0, 40])
def test_a_restored_backup_flushes(
    make_tail: MakeTail, writer: sqlite3.Connection, tmp_path: Path, writes_after: int
) -> None:
    """A backup restored in place flushes, even where the ids have caught up since; versions never go back."""
    tail = make_tail()
    with closing(sqlite3.connect(tmp_path / "backup.db")) as backup:
        writer.backup(backup)
        for n in range(10, 20):
            writer.execute("INSERT INTO t VALUES (?, 0)", (n,))
        tail.poll()
        version = tail.log.version
        backup.backup(writer)
    for _ in range(writes_after):
        writer.execute("UPDATE t SET n = n + 1 WHERE id = 1")
    assert [bool(batch.flush) for batch in tail.poll()] == [True]
    assert tail.log.version > version
    assert tail.log.changes_since(version) is None
    writer.execute("DELETE FROM t WHERE id = 1")
    assert [change.operation for change in tail.received()] == ["delete"]


def test_a_replaced_file_flushes(tail: Tail, path: Path, tmp_path: Path) -> None:
    """Another file under the same path is noticed, captured, and tailed in a new epoch."""
    epoch, version = tail.log.epoch, tail.log.version
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.executescript("CREATE TABLE other (id INTEGER PRIMARY KEY)")
    os.replace(tmp_path / "other.db", path)
    assert [bool(batch.flush) for batch in tail.poll()] == [True]
    assert tail.log.epoch != epoch
    assert tail.log.version > version
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO other VALUES (1)")
        connection.commit()
    assert [(change.table, change.operation) for change in tail.received()] == [("other", "insert")]


def test_a_file_gone_and_back(tail: Tail, path: Path, tmp_path: Path, writer: sqlite3.Connection) -> None:
    """While the file is gone the log is unavailable and creates none; when a copy is back, it flushes and goes on."""
    writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    writer.close()
    shutil.copy(path, tmp_path / "copy.db")
    path.unlink()
    for _ in range(2):
        with pytest.raises(ServiceUnavailableError, match="cannot be read"):
            tail.log.sync_to_head_blocking()
    assert not path.exists()
    shutil.copy(tmp_path / "copy.db", path)
    assert [bool(batch.flush) for batch in tail.poll()] == [True]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM t WHERE id = 1")
        connection.commit()
    assert [change.operation for change in tail.received()] == ["delete"]


def test_a_failed_poll_is_repeated_in_full(make_tail: MakeTail, writer: sqlite3.Connection, path: Path) -> None:
    """Where a writer keeps capture from being repaired, nothing is applied; the next poll does it all."""
    tail = make_tail()
    tail.log._capture.busy_timeout_seconds = 0.01
    version = tail.log.version
    writer.executescript("DROP TRIGGER _reactive_rpc_update_t")
    writer.execute("BEGIN IMMEDIATE")
    with pytest.raises(ServiceUnavailableError) as caught:
        tail.log.sync_to_head_blocking()
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    assert (tail.log.version, tail.batches) == (version, [])
    writer.execute("ROLLBACK")
    assert [bool(batch.flush) for batch in tail.poll()] == [True]


def test_many_rows_come_as_bulk(make_tail: MakeTail, writer: sqlite3.Connection) -> None:
    """Above the threshold a poll tells one bulk change a table; later polls are exact again."""
    tail = make_tail(bulk_threshold=5)
    writer.execute("INSERT INTO t(n) SELECT t.n FROM t, t AS u")
    (batch,) = tail.poll()
    assert batch.changes == (Change(table="t", operation="bulk"),)
    writer.execute("DELETE FROM t WHERE id = 1")
    assert [change.operation for change in tail.received()] == ["delete"]


def test_history_is_bounded(make_tail: MakeTail, writer: sqlite3.Connection) -> None:
    """Memory answers for what it holds, in order, and says None for what it has let go or never known."""
    tail = make_tail(history_changes=3)
    start = tail.log.version
    for n in range(5):
        writer.execute("UPDATE t SET n = ? WHERE id = 1", (100 + n,))
        tail.poll()
    newest = tail.log.changes_since(start + 2)
    assert newest is not None
    assert [change.after and change.after["n"] for change in newest] == [102, 103, 104]
    assert tail.log.changes_since(start + 5) == ()
    assert tail.log.changes_since(start + 1) is None
    assert tail.log.changes_since(start + 6) is None


def test_reading_after_a_cursor(make_tail: MakeTail, writer: sqlite3.Connection) -> None:
    """The database answers for a cursor of this epoch as far back as rows are kept; anything else is a gap."""
    tail = make_tail(history_changes=0)
    start = tail.log.version
    for n in range(4):
        writer.execute("UPDATE t SET n = ? WHERE id = 1", (100 + n,))
    assert _read_after(tail, Cursor(tail.log.epoch, start + 1)) is None, "ahead of what is applied"
    tail.poll()
    found = _read_after(tail, Cursor(tail.log.epoch, start + 1))
    assert found is not None
    assert [change.after and change.after["n"] for change in found] == [101, 102, 103]
    assert _read_after(tail, Cursor(tail.log.epoch, start + 4)) == ()
    assert _read_after(tail, Cursor("other", start + 1)) is None
    writer.execute("UPDATE _reactive_rpc_outbox SET at = 0 WHERE id <= ?", (start + 2,))
    assert SQLiteCapture(tail.log._capture.path, ids=RandomIds()).prune(60) == start + 2
    tail.poll()
    assert _read_after(tail, Cursor(tail.log.epoch, start + 1)) is None
    assert len(_read_after(tail, Cursor(tail.log.epoch, start + 2)) or ()) == 2


def test_a_row_that_stayed_is_not_told_as_deleted(tail: Tail, writer: sqlite3.Connection) -> None:
    """An upsert is an update, what was ignored is nothing, and a REPLACE deletes what was in its way."""
    writer.execute("CREATE UNIQUE INDEX t_n ON t(n)")
    tail.poll()
    writer.executescript(
        "INSERT INTO t(id, n) VALUES (1, 100) ON CONFLICT(id) DO UPDATE SET n = excluded.n;"
        " INSERT OR IGNORE INTO t(id, n) VALUES (1, 7), (2, 100)"
    )
    assert [change.operation for change in tail.received() if change.table == "t"] == ["update"]
    writer.execute("REPLACE INTO t(id, n) VALUES (50, 100)")
    received = [(change.operation, (change.before or change.after or {})["id"]) for change in tail.received()]
    assert received == [("delete", 1), ("insert", 50)]


def test_a_row_that_came_later_does_not_hide_a_deletion(tail: Tail, writer: sqlite3.Connection) -> None:
    """What is read after a cursor ends at the version applied, though the file shows a row that came after that."""
    writer.execute("CREATE UNIQUE INDEX t_n ON t(n)")
    writer.execute("UPDATE t SET n = 100 WHERE id = 1")
    tail.poll()
    start = tail.log.version
    writer.execute("REPLACE INTO t(id, n) VALUES (50, 100)")
    tail.poll()
    writer.execute("INSERT INTO t(id, n) VALUES (1, 101)")
    found = _read_after(tail, Cursor(tail.log.epoch, start))
    assert [change.operation for change in found or ()] == ["delete", "insert"]


def test_rows_pruned_before_they_were_read_flush(tail: Tail, writer: sqlite3.Connection) -> None:
    """A worker that slept past the retention floor flushes instead of going on with a hole."""
    writer.executescript("UPDATE t SET n = 0; UPDATE _reactive_rpc_outbox SET at = 0")
    tail.log._capture.prune(60)
    assert [bool(batch.flush) for batch in tail.poll()] == [True]
    assert tail.poll() == []


def test_a_failing_subscriber_is_flushed(
    tail: Tail, writer: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """A subscriber that raises is logged, the others get the batch, and the next poll flushes all."""
    failures = iter([RuntimeError("broken")])

    def fail_once(batch: Batch) -> None:
        for failure in failures:
            raise failure

    tail.log.subscribe(fail_once)
    writer.execute("DELETE FROM t WHERE id = 1")
    assert len(tail.received()) == 1
    assert "applying a batch failed" in caplog.text
    assert [bool(batch.flush) for batch in tail.poll()] == [True]
    assert tail.poll() == []


def test_an_unmanaged_schema_degrades(make_tail: MakeTail, writer: sqlite3.Connection, path: Path) -> None:
    """Where an administrator owns the schema, a table that loses its triggers flushes and counts as not captured."""
    SQLiteCapture(path, ids=RandomIds()).install()
    tail = make_tail(manage=False)
    writer.execute("DROP TRIGGER _reactive_rpc_update_t")
    assert [bool(batch.flush) for batch in tail.poll()] == [True]
    assert not tail.log.schema.captured("t")
    SQLiteCapture(path, ids=RandomIds()).install()
    tail.poll()
    assert tail.log.schema.captured("t")


def test_opening_what_cannot_be_opened(tmp_path: Path) -> None:
    """A path in no folder is unavailable; a log that is not open says so."""
    log = SQLiteLog(SQLiteCapture(tmp_path / "no" / "such.db", ids=RandomIds()))
    with pytest.raises(ServiceUnavailableError, match="cannot be read"):
        asyncio.run(log.open())
    with pytest.raises(ServiceUnavailableError, match="not open"):
        log.sync_to_head_blocking()
    asyncio.run(log.aclose())


def test_text_in_a_column_of_numbers_is_not_looked_up(tail: Tail, writer: sqlite3.Connection) -> None:
    """It is compared by a collation that images do not know, so the parent's value counts as unknown."""
    writer.executescript(
        "CREATE TABLE child (id INTEGER PRIMARY KEY, t_id INTEGER);"
        "CREATE TABLE parent (id INTEGER UNIQUE COLLATE NOCASE, n INTEGER); INSERT INTO parent VALUES ('A', 7), (1, 8)"
    )
    tail.poll()
    parent = Lookup("child", "t_id", "parent", "id", "n")
    tail.log.enrich_with(lambda table: [parent] if table == "child" else [])
    writer.executescript("INSERT INTO child VALUES (1, 'a'); INSERT INTO child VALUES (2, 1)")
    assert [(change.after or {}).get(parent.name, "unknown") for change in tail.received()] == ["unknown", {8}]
