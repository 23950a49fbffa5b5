"""The log of a PostgreSQL database: commits that overtake each other, long transactions, dead lines, large batches."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import psycopg
import pytest

from reactive_rpc.backends.postgresql.capture.wake_up import SLEEPERS
from reactive_rpc.dependencies.change import Change
from reactive_rpc.dependencies.lookup import Lookup
from reactive_rpc.errors import ServiceUnavailableError
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.testing.postgresql import PostgreSQL

from .tails import DEADLINE_SECONDS, OpenTail, Tail, connected, create, ids


@pytest.fixture
def writer(url: str) -> Iterator[psycopg.Connection[Any]]:
    with closing(connected(url)) as connection:
        yield connection


def test_a_transaction_that_commits_late_is_not_missed(url: str, tail: Tail, writer: psycopg.Connection[Any]) -> None:
    """It has lower ids than what was told meanwhile, which a cursor of the highest id would take for told."""
    with closing(connected(url)) as slow:
        slow.execute("BEGIN")
        slow.execute("INSERT INTO w VALUES (1, 0)")
        writer.execute("INSERT INTO w VALUES (2, 0)")
        assert tail.received() == [2], "nobody waits for the slow one"
        (highest,) = writer.execute("SELECT max(id) FROM reactive_rpc.outbox").fetchone() or (None,)
        cursor = tail.cursor
        slow.execute("COMMIT")
        writer.execute("INSERT INTO w VALUES (3, 0)")
        assert tail.received() == [1, 3]
        assert tail.read_after(cursor) == [1, 3]
        naive = writer.execute("SELECT count(*) FROM reactive_rpc.outbox WHERE id > %s", (highest,)).fetchone()
        assert naive == (1,), "the cursor of the highest id sees one of the two"


def test_savepoints(tail: Tail, writer: psycopg.Connection[Any]) -> None:
    """Rows written in savepoints count with their transaction."""
    writer.execute("BEGIN")
    for n in range(1, 7):
        writer.execute(f"SAVEPOINT s{n}")
        writer.execute(f"INSERT INTO w VALUES ({n}, 0)")
        if n % 3 == 0:
            writer.execute(f"ROLLBACK TO s{n}")
    assert tail.received() == []
    writer.execute("COMMIT")
    assert tail.received() == [1, 2, 4, 5]


def test_prepared_transactions(two_phase_postgresql: PostgreSQL, open_tail: OpenTail) -> None:
    """A prepared transaction counts when it is committed, and nothing of ours keeps it from being prepared."""
    url = two_phase_postgresql.new_database()
    create(url)
    tail = open_tail(url)
    with closing(connected(url)) as writer, closing(connected(url)) as sleeper:
        sleeper.execute(f"SELECT pg_advisory_lock_shared({SLEEPERS})")
        for n, end in ((10, "COMMIT"), (11, "ROLLBACK")):
            writer.execute("BEGIN")
            writer.execute(f"INSERT INTO w VALUES ({n}, 0)")
            writer.execute(f"PREPARE TRANSACTION 'p{n}'")
            writer.execute(f"INSERT INTO w VALUES ({n + 100}, 0)")
            assert tail.received() == [n + 100]
            writer.execute(f"{end} PREPARED 'p{n}'")
            assert tail.received() == ([n] if end == "COMMIT" else [])


def test_eight_writers_with_long_transactions(url: str, tail: Tail, writer: psycopg.Connection[Any]) -> None:
    """Commits overtake each other: each is told once, and by the first poll begun after its acknowledgement."""
    acknowledged: set[int] = set()

    def write(number: int) -> None:
        rng = random.Random(number)
        with closing(connected(url)) as connection:
            for n in range(40):
                mine = [10_000 * number + 10 * n + part for part in range(rng.choice((1, 1, 2, 5)))]
                connection.execute("BEGIN")
                for row in mine:
                    connection.execute("SAVEPOINT s")
                    connection.execute("INSERT INTO w VALUES (%s, %s)", (row, number))
                    connection.execute("RELEASE s")
                if rng.random() < 0.2:
                    connection.execute("SELECT pg_sleep(0.05)")
                if rng.random() < 0.2:
                    connection.execute("ROLLBACK")
                else:
                    connection.execute("COMMIT")
                    acknowledged.update(mine)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    received: list[int] = []
    while any(thread.is_alive() for thread in threads):
        known = set(acknowledged)
        received += tail.received()
        assert known <= set(received)
    received += tail.received()
    assert sorted(received) == sorted(acknowledged)
    assert writer.execute("SELECT count(*) FROM w").fetchone() == (len(received),)
    versions = [batch.version for batch in tail.batches]
    assert versions == sorted(set(versions))


def test_cursors_stay_short(url: str, tail: Tail, writer: psycopg.Connection[Any]) -> None:
    """With many transactions under way a cursor tells more than it must, never less, and can be read back."""
    with ExitStack() as stack:
        open_ones = [stack.enter_context(closing(connected(url))) for _ in range(80)]
        for n, connection in enumerate(open_ones):
            connection.execute("BEGIN")
            connection.execute(f"INSERT INTO w VALUES ({n}, 0)")
        writer.execute("INSERT INTO w VALUES (1000, 0)")
        assert tail.received() == [1000]
        cursor = tail.cursor
        assert cursor.version == tail.log.version
        assert len(str(cursor)) < 200
        for connection in open_ones:
            connection.execute("COMMIT")
        assert sorted(tail.received()) == list(range(80))
        again = tail.read_after(cursor)
        assert again is not None
        assert set(range(80)) <= set(again)


@pytest.mark.parametrize(
    "position",
    [
        "",
        "0:0:",
        "1:1:",
        "5:4:",
        "9:9:9",
        "10:20:15,15",
        "10:20:20",
        "10:20:9",
        f"{2**32}:{2**32}:",
        "9223372036854775807:9223372036854775807:",
        f"3:{2**63}:",
        "99999999999999999999:99999999999999999999:",
        "3:4:3,",
        ",",
        "::",
        "3:3:;DROP TABLE w",
    ],
)
def test_a_hostile_position_is_a_gap(tail: Tail, position: str) -> None:
    """Whatever a client sends instead of a place, it is no error, and nothing is believed."""
    assert tail.read_after(Cursor(tail.log.epoch, tail.log.version, position)) is None
    assert tail.read_after(tail.cursor) == []


def test_a_poll_belongs_to_nobody(tail: Tail, writer: psycopg.Connection[Any]) -> None:
    """Who is cancelled takes no poll with him; whoever asks while one is under way gets the next, shared by all."""

    async def ask() -> None:
        first = asyncio.create_task(tail.log.sync_to_head())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert tail.log._barrier._running is not None, "the poll has begun"
        writer.execute("INSERT INTO w VALUES (1, 0)")
        others = [asyncio.create_task(tail.log.sync_to_head()) for _ in range(20)]
        await asyncio.sleep(0)
        first.cancel()
        others[0].cancel()
        results = await asyncio.gather(first, *others, return_exceptions=True)
        assert [type(result) for result in results[:2]] == [asyncio.CancelledError] * 2
        assert set(results[2:]) == {tail.log.version}

    tail.run(ask())
    assert [ids(batch.changes) for batch in tail.batches] == [[1]]


def test_a_poll_that_takes_too_long(url: str, open_tail: OpenTail, writer: psycopg.Connection[Any]) -> None:
    """Everybody who waits is told; nothing has changed, and the next poll does it all."""
    tail = open_tail(url)
    writer.execute("INSERT INTO w VALUES (1, 0)")
    version, patient = tail.log.version, tail.log._outbox._timeout_seconds

    async def ask() -> list[Any]:
        return await asyncio.gather(*(tail.log.sync_to_head() for _ in range(5)), return_exceptions=True)

    with closing(connected(url)) as other:
        other.execute("BEGIN")
        other.execute("LOCK TABLE reactive_rpc.outbox IN ACCESS EXCLUSIVE MODE")
        tail.log._outbox.terminate()  # the next connection has the timeout of now
        tail.log._outbox._timeout_seconds = 0.3
        assert [type(error) for error in tail.run(ask())] == [ServiceUnavailableError] * 5
        assert (tail.log.version, tail.batches) == (version, [])
        other.execute("ROLLBACK")
    tail.log._outbox._timeout_seconds = patient
    assert tail.received() == [1]


def test_a_lost_connection_costs_nothing(tail: Tail, writer: psycopg.Connection[Any]) -> None:
    """The log connects again and goes on from the same place, in the same epoch."""
    epoch, cursor = tail.log.epoch, tail.cursor
    for n in range(3):
        writer.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'reactive_rpc log' AND datname = current_database()"
        )
        writer.execute(f"INSERT INTO w VALUES ({n}, 0)")
        assert [ids(batch.changes) for batch in tail.poll_until_it_works()] == [[n]]
    assert tail.log.epoch == epoch
    assert tail.read_after(cursor) == [0, 1, 2]


def test_ddl_while_a_look_up_is_wanted(tail: Tail, writer: psycopg.Connection[Any]) -> None:
    """A parent that is dropped and made anew is looked up again; in between its value is unknown, and nothing fails."""
    parent = Lookup("w", "writer", "author", "id", "team")
    tail.log.enrich_with(lambda table: [parent] if table == "w" else [])
    writer.execute("INSERT INTO w VALUES (1, 1)")
    assert tail.received() == [1]
    for n in (2, 3):
        writer.execute("CREATE TABLE author (id INTEGER PRIMARY KEY, team INTEGER)")
        writer.execute("INSERT INTO author VALUES (1, 7)")
        tail.poll()
        writer.execute(f"INSERT INTO w VALUES ({n}, 1)")
        (batch,) = tail.poll()
        assert [change.after and change.after.get(parent.name) for change in batch.changes] == [{7}]
        writer.execute("DROP TABLE author")
        tail.poll()


def test_a_hidden_parent_is_unknown(url: str, open_tail: OpenTail, writer: psycopg.Connection[Any]) -> None:
    """Where the log may not read the parent, its value is left out, and the changes are told all the same."""
    writer.execute("CREATE TABLE author (id INTEGER PRIMARY KEY, team INTEGER)")
    writer.execute("INSERT INTO author VALUES (1, 7)")
    tail = open_tail(url)
    parent = Lookup("w", "writer", "author", "id", "team")
    tail.log.enrich_with(lambda table: [parent] if table == "w" else [])
    writer.execute("GRANT USAGE ON SCHEMA reactive_rpc TO pg_monitor")
    writer.execute("GRANT SELECT ON ALL TABLES IN SCHEMA reactive_rpc TO pg_monitor")
    tail.run(tail.log._outbox._connection.execute("SET ROLE pg_monitor"))
    for n in (1, 2):
        writer.execute(f"INSERT INTO w VALUES ({n}, 1)")
        (batch,) = tail.poll()
        assert [parent.name in (change.after or {}) for change in batch.changes] == [False]


def test_huge_statements(url: str, open_tail: OpenTail, writer: psycopg.Connection[Any]) -> None:
    """What is too much to decode is one bulk change a table; what just fits is told row by row."""
    tail = open_tail(url)
    writer.execute("INSERT INTO w SELECT n, 0 FROM generate_series(1, 400) AS n")
    assert len(tail.received()) == 400
    for start in (20_000, 30_000):
        writer.execute(f"INSERT INTO w SELECT n, 0 FROM generate_series({start}, {start + 399}) AS n")
    writer.execute("INSERT INTO w SELECT n, 0 FROM generate_series(100000, 300000) AS n")
    (batch,) = tail.poll()
    assert batch.changes == (Change(table="w", operation="bulk"),)
    assert batch.flush is None


def test_nothing_is_left_behind(url: str, open_tail: OpenTail, writer: psycopg.Connection[Any]) -> None:
    """A closed log has no connection and no task; one that is closed while it polls answers whoever waits."""
    tail = open_tail(url)

    async def close() -> list[Any]:
        asked = [asyncio.create_task(tail.log.sync_to_head()) for _ in range(3)]
        await asyncio.sleep(0)
        await tail.log.aclose()
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert [task for task in asyncio.all_tasks() if task.get_name() == "reactive_rpc poll"] == []
        return answers

    assert {type(answer) for answer in tail.run(close())} == {ServiceUnavailableError}
    give_up = time.monotonic() + DEADLINE_SECONDS
    count: Any = None
    while count != (0,) and time.monotonic() < give_up:
        count = writer.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name = 'reactive_rpc log' AND datname = current_database()"
        ).fetchone()
    assert count == (0,)
