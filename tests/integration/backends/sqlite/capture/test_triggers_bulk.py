"""Bulk writes on SQLite: what is coalesced, and that whoever asks, from wherever, hears of all that changed."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from reactive_rpc.backends.sqlite.capture import backend, triggers
from reactive_rpc.backends.sqlite.capture.backend import SQLiteCapture
from reactive_rpc.backends.sqlite.capture.tables import OUTBOX
from reactive_rpc.backends.sqlite.log import SQLiteLog
from reactive_rpc.changes.base_log import LogLimits
from reactive_rpc.changes.image_policy import READ_TABLES
from reactive_rpc.clock import RandomIds
from reactive_rpc.dependencies.change import Change
from reactive_rpc.protocol.cursors import Cursor

DDL = """
CREATE TABLE item (id INTEGER PRIMARY KEY, k TEXT UNIQUE, n INTEGER);
CREATE TABLE part (id INTEGER PRIMARY KEY, item_id INTEGER REFERENCES item(id) ON DELETE CASCADE, n INTEGER);
CREATE TABLE unread (id INTEGER PRIMARY KEY, n INTEGER);
CREATE TABLE few (id INTEGER PRIMARY KEY, n INTEGER);
CREATE TRIGGER count_items AFTER INSERT ON item WHEN NEW.id % 10 = 0 BEGIN INSERT INTO unread(n) VALUES (NEW.id); END;
INSERT INTO few VALUES (1, 0);
"""
TABLES = ("item", "part", "unread", "few")
WINDOW, BULK_ROWS, STEP = 32, 16, 8
LIMITS = LogLimits(bulk_threshold=20, history_changes=200)

Rows = dict[str, dict[int, tuple[Any, ...]]]


@pytest.fixture(autouse=True)
def _low_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggers, "BULK_WINDOW", WINDOW)
    monkeypatch.setattr(triggers, "BULK_ROWS", BULK_ROWS)
    monkeypatch.setattr(triggers, "STEP", STEP)


@contextmanager
def captured(folder: Path) -> Iterator[tuple[sqlite3.Connection, SQLiteCapture]]:
    """A database whose tables are read but for one, and its writer."""
    path = folder / "bulk.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("PRAGMA foreign_keys=ON")
        writer.executescript(DDL)
        capture = SQLiteCapture(path, ids=RandomIds(), policy=READ_TABLES)
        capture.install()
        capture.note_reads(["item", "part", "few"])
        writer.execute(f'DELETE FROM "{OUTBOX}"')
        yield writer, capture


def recorded(writer: sqlite3.Connection, table: str) -> dict[str, int]:
    """Return how many rows of the outbox are about a table, by operation."""
    return dict(writer.execute(f'SELECT op, count(*) FROM "{OUTBOX}" WHERE tbl = ? GROUP BY op', (table,)))


def seconds(writer: sqlite3.Connection) -> int:
    """Return in how many seconds of the clock the outbox was written."""
    return int(writer.execute(f'SELECT max(at) - min(at) + 1 FROM "{OUTBOX}"').fetchone()[0])


@pytest.mark.parametrize("is_one_statement", [False, True])
@pytest.mark.parametrize("table", ["item", "unread"])
def test_an_import_leaves_few_rows(tmp_path: Path, table: str, *, is_one_statement: bool) -> None:
    """Past the bound rows are told of as the whole table, and rows about the whole table are thinned out."""
    with captured(tmp_path) as (writer, _):
        writer.execute("BEGIN")
        if is_one_statement:
            numbers = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 2000)"
            writer.execute(f"{numbers} INSERT INTO {table}(id, n) SELECT n, 0 FROM c")
        else:
            writer.executemany(f"INSERT INTO {table}(id, n) VALUES (?, 0)", [(n,) for n in range(1, 2001)])
        writer.execute("COMMIT")
        found = recorded(writer, table)
        # Of each second at most: up to the first look, one that finds too few, and as much once it has ended.
        assert found.get("I", 0) <= seconds(writer) * 2 * (WINDOW + BULK_ROWS)
        assert found["B"] <= 2200 / STEP + STEP


def test_other_tables_of_an_import_stay_narrow(tmp_path: Path) -> None:
    """A few rows of another table, written in between, are told row by row."""
    with captured(tmp_path) as (writer, _):
        writer.execute("BEGIN")
        for n in range(1, 1001):
            writer.execute("INSERT INTO part(id, n) VALUES (?, 0)", (n,))
            if n % 100 == 0:
                writer.execute("UPDATE few SET n = n + 1")
        writer.execute("COMMIT")
        assert recorded(writer, "few") == {"U": 10}


def test_a_table_is_told_row_by_row_again(tmp_path: Path) -> None:
    """Once the import is over, or if the clock was set back, changes have their values."""
    with captured(tmp_path) as (writer, _):
        for seconds_ago in (3600, -3600):
            writer.execute("UPDATE _reactive_rpc_reads SET bulk_at = strftime('%s', 'now') - ?", (seconds_ago,))
            writer.execute("UPDATE few SET n = n + 1")
        assert recorded(writer, "few") == {"U": 2}


def test_a_poll_after_an_import_takes_no_longer_for_more_rows(tmp_path: Path) -> None:
    """The event loop decodes no more rows than the log's bound, however many were written, in whichever tables."""

    async def calls_of_a_poll(log: SQLiteLog, writer: sqlite3.Connection, rows: int) -> int:
        writer.execute("BEGIN")
        writer.execute("DELETE FROM part")
        writer.execute("DELETE FROM unread")
        writer.executemany("INSERT INTO part(id, n) VALUES (?, 0)", [(n,) for n in range(rows)])
        writer.executemany("INSERT INTO unread(id, n) VALUES (?, 0)", [(n,) for n in range(rows)])
        writer.execute("UPDATE few SET n = n + 1")
        writer.execute("COMMIT")
        calls = 0

        def count(_frame: FrameType, event: str, _argument: object) -> None:
            nonlocal calls
            calls += event == "call"

        before = log.version
        sys.setprofile(count)
        try:
            await log.sync_to_head()
        finally:
            sys.setprofile(None)
        changes = log.changes_since(before)
        assert changes is not None
        assert {(change.table, change.operation) for change in changes} == {
            ("part", "bulk"),
            ("unread", "bulk"),
            ("few", "update"),
        }
        return calls

    async def main() -> None:
        with captured(tmp_path) as (writer, capture):
            log = SQLiteLog(capture, LIMITS)
            await log.open()
            few = await calls_of_a_poll(log, writer, 500)
            many = await calls_of_a_poll(log, writer, 5_000)
            assert max(few, many) <= 60 * LIMITS.bulk_threshold
            await log.aclose()

    asyncio.run(main())


class World:
    """A writer, a worker that follows it closely, and one that seldom does; and all that was ever seen."""

    def __init__(self, writer: sqlite3.Connection, capture: SQLiteCapture, seed: int) -> None:
        self.writer = writer
        self.random = random.Random(seed)
        self.often = SQLiteLog(capture, LIMITS)
        self.seldom = SQLiteLog(capture, LIMITS)
        self.seen: list[tuple[Cursor, Rows]] = []
        self.shown: dict[int, Rows] = {}
        self.coalesced = 0

    async def open(self) -> None:
        """Open both workers."""
        for log in (self.often, self.seldom):
            await log.open()
        self.note()

    async def aclose(self) -> None:
        """Close both."""
        for log in (self.often, self.seldom):
            await log.aclose()

    def note(self) -> None:
        """Remember the rows that the version of the close follower shows."""
        rows = {
            table: {row[0]: row for row in self.writer.execute(f"SELECT * FROM {table} ORDER BY 1")} for table in TABLES
        }
        self.shown[self.often.version] = rows
        self.seen.append((self.often.cursor_at(self.often.version), rows))

    def write(self) -> None:
        """Commit one transaction, large or small, parts of it rolled back."""
        draw = self.random
        self.writer.execute("BEGIN")
        for _ in range(draw.randint(1, 4)):
            self.writer.execute("SAVEPOINT part")
            self._statement(draw.choice((1, 1, 2, 60)))
            self.writer.execute(f"{'ROLLBACK TO' if draw.random() < 0.2 else 'RELEASE'} part")
        self.writer.execute("COMMIT")

    def _statement(self, rows: int) -> None:
        draw, execute = self.random, self.writer.execute
        for _ in range(rows):
            key = draw.randint(1, 40)
            table = draw.choice(TABLES)
            kind = draw.random()
            if kind < 0.3:
                execute(f"UPDATE {table} SET n = n + 1 WHERE id = ?", (key,))
            elif kind < 0.4:
                execute(f"DELETE FROM {table} WHERE id = ?", (key,))
            elif table == "item":
                execute("INSERT OR REPLACE INTO item VALUES (?, ?, 0)", (key, draw.choice("abcdefgh")))
            else:
                execute(f"INSERT OR IGNORE INTO {table}(id, n) VALUES (?, 0)", (key,))
        self.coalesced += "B" in recorded(self.writer, "item")

    async def check(self) -> None:
        """Ask both workers, from every cursor, for the changes since, and compare with the rows of both versions."""
        for log in (self.seldom, self.often):
            for cursor, rows in self.seen:
                if cursor.version > log.version:
                    continue
                now = self.shown[log.version]
                for heard in (log.changes_since(cursor.version), await log.read_after(cursor)):
                    if heard is not None:
                        assert_covered(heard, rows, now)

    async def run(self, steps: int) -> None:
        """Write and check."""
        for _ in range(steps):
            self.write()
            if self.random.random() < 0.7:
                await self.often.sync_to_head()
                self.note()
                if self.random.random() < 0.3:
                    await self.seldom.sync_to_head()
            if self.random.random() < 0.4:
                await self.check()


def assert_covered(changes: tuple[Change, ...], before: Rows, after: Rows) -> None:
    """Assert that some changes tell of every row that differs."""
    for table in TABLES:
        if any(change.table == table and change.operation == "bulk" for change in changes):
            continue
        named = {key for change in changes if change.table == table for key in change.keys}
        old, new = before[table], after[table]
        differing = {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
        assert differing <= named, f"{table}: {differing - named} are not told"


def play(folder: Path, seed: int, *, steps: int = 40) -> int:
    """Play one world; return how many statements left changes of whole tables behind."""

    async def main() -> int:
        with captured(folder) as (writer, capture):
            world = World(writer, capture, seed)
            await world.open()
            try:
                await world.run(steps)
            finally:
                await world.aclose()
            return world.coalesced

    return asyncio.run(main())


def play_many(folder: Path) -> None:
    """Play world after world."""
    for seed in range(40):
        (folder / str(seed)).mkdir()
        play(folder / str(seed), seed)


@pytest.mark.parametrize("seed", range(5))
def test_whoever_asks_hears_of_all_that_changed(tmp_path: Path, seed: int) -> None:
    """From every version that was ever shown up to the one of either worker, in memory and in the database."""
    assert play(tmp_path, seed)


def _until_says(self: SQLiteLog, *arguments: Any) -> Any:
    """Read as if a change of a whole table lay where its row is, and nowhere before."""
    return tuple((id_, change) for id_, change in _changes(self, *arguments) if id_ <= arguments[3])


def _first_place(self: SQLiteLog, *arguments: Any) -> Any:
    """Read as if the rows that one change stands for all lay where the first of them is."""
    rows, bulk = _few_rows(self, *arguments)
    return rows, [(arguments[1] + 1, change) for _, change in bulk]


def _thin_out_all() -> dict[str, str]:
    """Thin out the last row about a whole table, too."""
    found = _coalescing()
    name = next(name for name in found if name.endswith("thin_out"))
    return found | {name: found[name].split(" AND id NOT IN")[0] + "; END"}


_changes, _few_rows, _coalescing = SQLiteLog._changes, SQLiteLog._few_rows, triggers.coalescing
BUGS = {
    "a change of a whole table is told only where its row is": (SQLiteLog, "_changes", _until_says),
    "a change of a whole table stands at its first row": (SQLiteLog, "_few_rows", _first_place),
    "no row about a whole table stays": (backend, "coalescing", _thin_out_all),
}


@pytest.mark.seeded_bug
@pytest.mark.parametrize("bug", BUGS)
def test_each_broken_rule_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    """With a rule of coalescing broken, some version's changes do not tell of all."""
    owner, name, broken = BUGS[bug]
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises(AssertionError, match="are not told"):
        play_many(tmp_path)
