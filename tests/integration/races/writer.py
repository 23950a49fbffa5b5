"""A writer that knows nothing of the project, in a process of its own: `python -m races.writer URL SEED ROWS`.

It counts random rows up, one commit each, and prints `id value` once the database has acknowledged it.
"""

from __future__ import annotations

import random
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing

import psycopg

from tests.support.accounts import dsn_of, file_of
from tests.support.waiting import idle_thread

PAUSE_SECONDS = 0.01
AT_ANY_MOMENT = "others are to read before a write, within its transaction and after it"
UPDATE = "UPDATE acc SET n = n + 1 WHERE id = {} RETURNING n"


def main(url: str, seed: str, rows: int) -> None:
    """Write until the process is killed, or nobody reads any more."""
    rng = random.Random(seed)
    path = file_of(url)
    if path is not None:
        with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as file:
            write(rng, rows, lambda row: count_in_file(file, row, rng))
    else:
        with psycopg.connect(dsn_of(url)) as connection:
            write(rng, rows, lambda row: count_on_server(connection, row, rng))


def write(rng: random.Random, rows: int, count: Callable[[int], int]) -> None:
    """Count up and acknowledge, for ever."""
    while True:
        row = rng.randrange(rows)
        value = count(row)
        sys.stdout.write(f"{row} {value}\n")
        sys.stdout.flush()
        idle_thread(rng.random() * PAUSE_SECONDS, because=AT_ANY_MOMENT)


def count_in_file(file: sqlite3.Connection, row: int, rng: random.Random) -> int:
    """Count one row up in a transaction of its own."""
    file.execute("BEGIN IMMEDIATE")
    (value,) = file.execute(UPDATE.format("?"), (row,)).fetchone()
    idle_thread(rng.random() * PAUSE_SECONDS, because=AT_ANY_MOMENT)
    file.execute("COMMIT")
    return int(value)


def count_on_server(connection: psycopg.Connection[tuple[int]], row: int, rng: random.Random) -> int:
    """Count one row up, at times after a savepoint that is rolled back."""
    with connection.transaction():
        if rng.random() < 0.3:
            connection.execute("SAVEPOINT s")
            connection.execute(UPDATE.format("%s"), (row,))
            connection.execute("ROLLBACK TO SAVEPOINT s")
        found = connection.execute(UPDATE.format("%s"), (row,)).fetchone()
        idle_thread(rng.random() * PAUSE_SECONDS, because=AT_ANY_MOMENT)
    assert found is not None
    return found[0]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
