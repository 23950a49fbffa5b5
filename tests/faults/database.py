"""The accounts, through the plain drivers: what is true, and where each database stands, whoever serves what."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import psycopg

from tests.support.accounts import dsn_of, file_of

__all__ = ["ACCOUNTS", "BUSY_GROUPS", "FAULTS", "GROUPS", "ROWS_OF", "Writing", "opened", "truth_of", "value_of"]

GROUPS = 6
BUSY_GROUPS = 4
"""The groups below this number are written to all the time, the others now and then."""

ROWS_IN_GROUP = 4
ROWS = GROUPS * ROWS_IN_GROUP
ROWS_OF = {group: frozenset(range(group, ROWS, GROUPS)) for group in range(GROUPS)}
"""`{group: its rows}`."""

ACCOUNTS = [(row, row % GROUPS) for row in range(ROWS)]
"""`(id, group)` of each."""

FAULTS = (sqlite3.Error, psycopg.Error, OSError)

_SQLITE_POSITION = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = '_reactive_rpc_outbox'), 0)"
_SNAPSHOT = "SELECT pg_current_snapshot()::text"
_SNAPSHOT_AND_SELF = "SELECT pg_current_snapshot()::text, pg_current_xact_id()::text"

Writing = Callable[[int], tuple[int, int, int]]
"""Counts a row up and returns `(its new value, a version that does not show it, the first known one that does)`."""


@contextmanager
def opened(url: str) -> Iterator[Writing]:
    """Open a connection for a writer; a fault leaves it of no use."""
    file = file_of(url)
    if file is not None:
        with closing(sqlite3.connect(file, timeout=30, isolation_level=None)) as connection:
            yield lambda row: _count_in_file(connection, row)
    else:
        with psycopg.connect(dsn_of(url), autocommit=True, connect_timeout=5) as server:
            yield lambda row: _count_on_server(server, row)


def truth_of(url: str) -> dict[int, int]:
    """Return `{id: n}`."""
    return {row: n for row, n, _ in _read(url)}


def value_of(url: str, row: int) -> tuple[int, int]:
    """Return what a row holds, and a version that shows it."""
    return next((n, version) for found, n, version in _read(url) if found == row)


def _read(url: str) -> list[tuple[int, int, int]]:
    file = file_of(url)
    if file is not None:
        with closing(sqlite3.connect(file, timeout=30)) as connection:
            rows = connection.execute("SELECT id, n FROM acc").fetchall()
            (version,) = connection.execute(_SQLITE_POSITION).fetchone()
        return [(row, n, version) for row, n in rows]
    with psycopg.connect(dsn_of(url), connect_timeout=5) as server:
        found = server.execute("SELECT id, n FROM acc").fetchall()
        snapshot = server.execute(_SNAPSHOT).fetchone()
    assert snapshot is not None
    return [(row, n, _version_of(snapshot[0])) for row, n in found]


def _count_in_file(connection: sqlite3.Connection, row: int) -> tuple[int, int, int]:
    """Count one row up in a transaction of its own; its only row of the outbox has the version that shows it."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        (value,) = connection.execute("UPDATE acc SET n = n + 1 WHERE id = ? RETURNING n", (row,)).fetchone()
        (version,) = connection.execute(_SQLITE_POSITION).fetchone()
        connection.execute("COMMIT")
    except sqlite3.Error:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    return value, version - 1, version


def _count_on_server(server: psycopg.Connection[tuple[object, ...]], row: int) -> tuple[int, int, int]:
    """Count one row up in a transaction of its own, and ask before and after it where the server stands."""
    with server.transaction():
        updated = server.execute("UPDATE acc SET n = n + 1 WHERE id = %s RETURNING n", (row,)).fetchone()
        before = server.execute(_SNAPSHOT_AND_SELF).fetchone()
    after = server.execute(_SNAPSHOT).fetchone()
    assert updated is not None
    assert before is not None
    assert after is not None
    return int(str(updated[0])), _version_before(str(before[0]), int(str(before[1]))), _version_of(str(after[0]))


def _version_of(snapshot: str) -> int:
    """Return how many transactions are over, but for a constant: what cursors count."""
    _, xmax, under_way = snapshot.split(":")
    return int(xmax) - (len(under_way.split(",")) if under_way else 0)


def _version_before(snapshot: str, own: int) -> int:
    """Return the version of a transaction's own snapshot to all others, which count it among those under way."""
    return _version_of(snapshot) - (own < int(snapshot.split(":")[1]))
