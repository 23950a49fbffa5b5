"""The accounts, through the plain drivers: what is true, whoever answers what."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import psycopg

from tests.support.accounts import dsn_of, file_of

__all__ = ["ACCOUNTS", "GROUPS", "QUIET_GROUP", "QUIET_ROW", "ROWS", "truth_of"]

GROUPS = 6
ROWS = 24
QUIET_ROW, QUIET_GROUP = ROWS, GROUPS
"""An account that no writer touches, in a group of its own."""


ACCOUNTS = [*((row, row % GROUPS) for row in range(ROWS)), (QUIET_ROW, QUIET_GROUP)]
"""`(id, group)` of each."""


def truth_of(url: str) -> dict[int, dict[int, int]]:
    """Return `{group: {id: n}}`."""
    truth: dict[int, dict[int, int]] = {}
    file = file_of(url)
    if file is not None:
        with closing(sqlite3.connect(file, timeout=30)) as connection:
            rows = connection.execute("SELECT id, g, n FROM acc").fetchall()
    else:
        with psycopg.connect(dsn_of(url)) as server:
            rows = server.execute("SELECT id, g, n FROM acc").fetchall()
    for row, group, value in rows:
        truth.setdefault(group, {})[row] = value
    return truth
