"""The accounts, through the plain drivers: what is true, whoever answers what."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import psycopg
from sqlalchemy import make_url

__all__ = ["GROUPS", "QUIET_GROUP", "QUIET_ROW", "ROWS", "dsn_of", "file_of", "fill", "truth_of"]

GROUPS = 6
ROWS = 24
QUIET_ROW, QUIET_GROUP = ROWS, GROUPS
"""An account that no writer touches, in a group of its own."""


def file_of(url: str) -> str | None:
    """Return the file of a SQLite URL."""
    parsed = make_url(url)
    return str(parsed.database) if parsed.get_backend_name() == "sqlite" else None


def dsn_of(url: str) -> str:
    """Return the URL for psycopg."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def fill(url: str) -> None:
    """Make the accounts, `ROWS` of them in `GROUPS` groups."""
    rows = [*((row, row % GROUPS) for row in range(ROWS)), (QUIET_ROW, QUIET_GROUP)]
    file = file_of(url)
    if file is not None:
        with closing(sqlite3.connect(file, timeout=30)) as connection, connection:
            connection.executemany("INSERT INTO acc VALUES (?, ?, 0) ON CONFLICT DO NOTHING", rows)
        return
    with psycopg.connect(dsn_of(url)) as server:
        server.cursor().executemany("INSERT INTO acc VALUES (%s, %s, 0) ON CONFLICT DO NOTHING", rows)


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
