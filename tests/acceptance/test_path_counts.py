"""What a hit, a miss, a mutation and an event may cost at most, in counts that are the same in every run."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.path_counters import Counter
from reactive_rpc.clock import SystemClock
from reactive_rpc.protocol.cursors import Cursor

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Bound:
    """The most that a path may cost: today's counts, which may only go down.

    Attributes:
        statements: SQL statements sent.
        round_trips: to the database.
        functions: calls of the package's functions.
        modules: of the package that these stand in.
        peak_kib: memory held at once, a third more than on Python 3.11: other Pythons' frames and dictionaries are of
            other sizes (3.13 needs up to 28 % more), while runs of one differ by 0.2 KiB. None is not measured.
    """

    statements: int
    round_trips: int
    functions: int
    modules: int
    peak_kib: int | None = None


# One function of a miss looks, after its statement, whether that was a page whose end it has to read.
# Four functions of a mutation on SQLite take and hand on the lock of all who write.
# The last module of a hit is asked whether it may write the answer, which under uvicorn spares both calls of `send`.
# A dozen functions of an event, and three of a miss, pack and unpack what a watched result would hold twice as much of:
# its input, its name, and a set of one stream. One of an event keeps what a log fails of from ending it.
# The calls that a plan makes of dependencies are counted; those of FastAPI's solver, which it takes the place of, not.
SQLITE = {
    # path            statements  round trips  functions  modules  peak, KiB
    "hit": Bound(1, 0, 43, 19, 8),
    "miss": Bound(6, 0, 310, 58, 50),
    "mutation": Bound(10, 3, 202, 51, 52),
    "event": Bound(11, 0, 361, 65, 41),
}
POSTGRESQL = {
    "hit": Bound(1, 1, 57, 23),
    "miss": Bound(5, 5, 306, 62),
    "mutation": Bound(4, 4, 182, 54),
    "event": Bound(6, 6, 367, 68),
}
PATHS = list(SQLITE)

KEPT_BLOCKS = 0.5
"""A hit that keeps one block of memory keeps 1 of each; what comes and goes in an interpreter is 0.01 of each."""

Counts = dict[str, dict[str, Any]]


def measured(*arguments: str) -> Counts:
    """Return the counts of each path, from a process that does nothing else."""
    command = [sys.executable, "-m", "benchmarks.paths", "--json", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    counts: Counts = json.loads(done.stdout)
    return counts


def exceeded(counts: dict[str, Any], bound: Bound) -> list[str]:
    """Return a line for each count past its bound, with what was counted."""
    found = [
        ("statements", len(counts["statements"]), bound.statements, counts["statements"]),
        ("round trips", counts["round_trips"], bound.round_trips, counts["statements"]),
        ("functions", counts["functions"], bound.functions, counts["modules"]),
        ("modules", len(counts["modules"]), bound.modules, counts["modules"]),
        ("KiB at most", counts["peak_bytes"] / 1024, bound.peak_kib or 0, ""),
    ]
    return [f"{amount} {name}, and the bound is {most}: {what}" for name, amount, most, what in found if amount > most]


@pytest.fixture(scope="module")
def on_sqlite() -> Counts:
    """The counts of each path on SQLite."""
    return measured()


@pytest.mark.parametrize("path", PATHS)
def test_a_path_on_sqlite_costs_no_more_than_its_bound(path: str, on_sqlite: Counts) -> None:
    """Statements, round trips, functions, modules and memory; `python -m benchmarks.paths` prints them."""
    assert exceeded(on_sqlite[path], SQLITE[path]) == []


def test_a_hit_keeps_no_memory(on_sqlite: Counts) -> None:
    """After thousands of hits as many blocks of memory are held as before."""
    assert on_sqlite["hit"]["kept_blocks"] < KEPT_BLOCKS


def test_a_hit_takes_the_shortcut(on_sqlite: Counts) -> None:
    """Past FastAPI's own layers, which are not counted but cost as much again."""
    assert on_sqlite["hit"]["modules"][0].rpartition(".")[2] == "shortcut"


def test_a_path_on_postgresql_costs_no_more_than_its_bound(postgresql_url: str) -> None:
    """The same but for memory; round trips are counted on the wire, by the protocol's messages."""
    counts = measured("--postgresql", postgresql_url)
    assert {path: exceeded(counts[path], POSTGRESQL[path]) for path in PATHS} == {path: [] for path in PATHS}


def test_each_count_past_its_bound_is_told() -> None:
    """One more of anything is a line of its own."""
    counts = {"statements": ["SELECT 1"], "round_trips": 1, "functions": 1, "modules": ["app"], "peak_bytes": 1024}
    assert exceeded(counts, Bound(1, 1, 1, 1, 1)) == []
    assert [line.split(",")[0] for line in exceeded(counts, Bound(0, 0, 0, 0, 0))] == [
        "1 statements",
        "1 round trips",
        "1 functions",
        "1 modules",
        "1.0 KiB at most",
    ]


def test_the_counter_counts_calls_statements_and_handovers() -> None:
    """A coroutine that is resumed is entered once; nothing is counted outside of `counting`."""

    async def work() -> None:
        Cursor.parse("epoch:1")
        await SystemClock().sleep(0)
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.execute("CREATE TABLE t (n INTEGER)")
            connection.cursor().executemany("INSERT INTO t VALUES (?)", [(1,), (2,)])
            connection.commit()
        await asyncio.to_thread(int)

    counter = Counter()
    with counter.following_sqlite(), counter.following_calls():
        asyncio.run(work())
        with counter.counting() as passed:
            asyncio.run(work())
    assert passed.modules == ["protocol.cursors", "clock"]
    assert passed.functions == 2
    assert [sql.split(" VALUES")[0] for sql in passed.statements] == [
        "CREATE TABLE t (n INTEGER)",
        "INSERT INTO t",
        "COMMIT",
    ]
    assert passed.round_trips == 2  # the thread's answer, and the end of the pool of threads
