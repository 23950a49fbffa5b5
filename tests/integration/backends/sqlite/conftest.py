"""Logs on SQLite files, and what they have told."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from reactive_rpc.backends.sqlite.capture.backend import SQLiteCapture
from reactive_rpc.backends.sqlite.log import SQLiteLog
from reactive_rpc.changes.base_log import LogLimits
from reactive_rpc.changes.log import Batch
from reactive_rpc.clock import RandomIds
from reactive_rpc.dependencies.change import Change


@dataclass
class Tail:
    """An open log with a subscriber that keeps every batch."""

    log: SQLiteLog
    batches: list[Batch] = field(default_factory=list)

    def poll(self) -> list[Batch]:
        """Poll once and return the batches that came of it."""
        known = len(self.batches)
        self.log.sync_to_head_blocking()
        return self.batches[known:]

    def received(self) -> list[Change]:
        """Poll once and return the changes; a flush is not expected."""
        batches = self.poll()
        assert all(batch.flush is None for batch in batches), batches
        return [change for batch in batches for change in batch.changes]


MakeTail = Callable[..., Tail]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the file of a database with one table, `t(id, n)`, of three rows."""
    path = tmp_path / "main.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER); INSERT INTO t VALUES (1, 1), (2, 2), (3, 3);"
        )
    return path


@pytest.fixture
def writer(path: Path) -> Iterator[sqlite3.Connection]:
    """Return a connection that commits each statement."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


@pytest.fixture
def make_tail(path: Path) -> Iterator[MakeTail]:
    """Return a function that opens one more log on the file, as another worker would."""
    tails: list[Tail] = []

    def make(*, manage: bool = True, **limits: int) -> Tail:
        capture = SQLiteCapture(path, ids=RandomIds(), manage=manage)
        tail = Tail(SQLiteLog(capture, LogLimits(**limits)))
        tail.log.subscribe(tail.batches.append)
        asyncio.run(tail.log.open())
        tails.append(tail)
        return tail

    yield make
    for tail in tails:
        asyncio.run(tail.log.aclose())


@pytest.fixture
def tail(make_tail: MakeTail) -> Tail:
    """Return one open log."""
    return make_tail()
