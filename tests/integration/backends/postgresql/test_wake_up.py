"""A PostgreSQL log that sleeps: woken by each commit, in whatever order writers and it take their steps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import combinations
from typing import Any

import psycopg
import pytest

from reactive_rpc.backends.postgresql import wake_up
from reactive_rpc.backends.postgresql.capture.wake_up import SLEEPERS, WRITERS
from reactive_rpc.testing.postgresql import PostgreSQL

from .tails import OpenTail, Tail, connected, create, ids

Connection = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def sleep_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing but a notification, or a lost connection, wake a log: whoever is forgotten never wakes."""
    monkeypatch.setattr(wake_up, "LONGEST_SLEEP_SECONDS", 60.0)


def orders(first: int, second: int) -> Iterator[tuple[bool, ...]]:
    """Yield every order of so many steps of one and so many of another: whose turn it is."""
    for places in combinations(range(first + second), first):
        yield tuple(place in places for place in range(first + second))


def oversleeps(
    tail: Tail, writers: Sequence[Connection], order: Sequence[bool], *, row: int, is_wrong: bool = False
) -> bool:
    """Tell whether the log sleeps although it has not read what two writers commit in this order.

    Args:
        is_wrong: whether the log reads before it is armed, and not after.
    """
    armed: list[bool] = []
    follow = [lambda: armed.append(tail.run(tail.log.wake_up.arm())), tail.poll]
    write = [
        lambda: writers[0].execute("BEGIN"),
        lambda: writers[0].execute("INSERT INTO w VALUES (%s, 0)", (row,)),
        lambda: writers[1].execute("INSERT INTO w VALUES (%s, 1)", (row + 1,)),
        lambda: writers[0].execute("COMMIT"),
    ]
    theirs, ours = iter(write), iter(follow[::-1] if is_wrong else follow)
    for is_theirs in order:
        next(theirs if is_theirs else ours)()
    read = ids(change for batch in tail.batches for change in batch.changes)
    is_behind = not {row, row + 1} <= set(read)
    is_lost = armed[0] and is_behind and not tail.run(woken(tail, within_seconds=1.0 if is_wrong else 60.0))
    tail.run(tail.log.wake_up.disarm())
    tail.poll()
    return is_lost


async def woken(tail: Tail, *, within_seconds: float) -> bool:
    """Tell whether the log wakes in time."""
    try:
        async with asyncio.timeout(within_seconds):
            return await tail.log.wake_up.wait()
    except TimeoutError:
        return False


@pytest.fixture
def writers(url: str) -> Iterator[tuple[Connection, Connection]]:
    with closing(connected(url)) as one, closing(connected(url)) as other:
        yield one, other


def test_nobody_oversleeps_in_any_order(tail: Tail, writers: tuple[Connection, Connection]) -> None:
    """Every order of two transactions' statements and of a log's steps: what it has not read wakes it."""
    for number, order in enumerate(orders(4, 2)):
        assert not oversleeps(tail, writers, order, row=10 * number), order


@pytest.mark.seeded_bug
def test_a_log_that_reads_before_it_is_armed_oversleeps(tail: Tail, writers: tuple[Connection, Connection]) -> None:
    """The orders above find it."""
    assert any(
        oversleeps(tail, writers, order, row=10 * number, is_wrong=True) for number, order in enumerate(orders(4, 2))
    )


def test_a_log_is_not_armed_while_somebody_writes(tail: Tail, writers: tuple[Connection, Connection]) -> None:
    """Such a transaction may have looked for sleepers before: the log is polled until it has ended."""
    slow, other = writers
    slow.execute("BEGIN")
    slow.execute("INSERT INTO w VALUES (1, 0)")
    assert not tail.run(tail.log.wake_up.arm())
    assert held(other) == {WRITERS}
    slow.execute("COMMIT")
    assert tail.run(tail.log.wake_up.arm())
    assert held(other) == {SLEEPERS}
    tail.run(tail.log.wake_up.disarm())
    assert held(other) == set()


def test_a_transaction_that_writes_nothing_captured_keeps_nobody_awake(
    tail: Tail, writers: tuple[Connection, Connection]
) -> None:
    """However long it lasts: it has nothing to wake for."""
    slow, _ = writers
    slow.execute("CREATE TEMPORARY TABLE mine (id INTEGER)")
    slow.execute("BEGIN")
    slow.execute("INSERT INTO mine VALUES (1)")
    assert tail.run(tail.log.wake_up.arm())
    slow.execute("ROLLBACK")


def test_a_lost_connection_wakes(tail: Tail, writers: tuple[Connection, Connection]) -> None:
    """The log is read at once, and finds out what is wrong."""
    assert tail.run(tail.log.wake_up.arm())
    hang_up(writers[0])
    assert tail.run(woken(tail, within_seconds=60.0))
    assert not tail.run(tail.log.wake_up.arm())
    tail.poll_until_it_works()
    assert tail.run(tail.log.wake_up.arm())


def test_a_log_that_was_read_over_another_connection_since_does_not_sleep(
    tail: Tail, writers: tuple[Connection, Connection]
) -> None:
    """The connection is lost after it was armed, and made anew by whoever reads first: of that no writer knows."""
    assert tail.run(tail.log.wake_up.arm())
    hang_up(writers[0])
    tail.poll_until_it_works()
    assert tail.run(woken(tail, within_seconds=1.0)), "it would sleep on an armed connection that is gone"
    assert tail.run(tail.log.wake_up.arm())
    writers[0].execute("INSERT INTO w VALUES (1, 0)")
    assert tail.run(woken(tail, within_seconds=60.0))


def hang_up(other: Connection) -> None:
    """End the log's connection, as a server that is restarted does."""
    other.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'reactive_rpc log'"
        " AND datname = current_database()"
    )


def test_nobody_sleeps_where_transactions_may_be_prepared(
    two_phase_postgresql: PostgreSQL, open_tail: OpenTail
) -> None:
    """Writers notify nobody there, so such a log is polled."""
    url = two_phase_postgresql.new_database()
    create(url)
    tail = open_tail(url)
    assert not tail.run(tail.log.wake_up.arm())


def test_a_writer_that_may_not_notify_writes_all_the_same(tail: Tail, writers: tuple[Connection, Connection]) -> None:
    """No error of waking fails a user's statement."""
    writer, sleeper = writers
    sleeper.execute(f"SELECT pg_advisory_lock_shared({SLEEPERS})")
    writer.execute("REVOKE EXECUTE ON FUNCTION pg_notify(text, text) FROM PUBLIC")
    writer.execute("CREATE ROLE weak_writer; GRANT INSERT ON w TO weak_writer; SET ROLE weak_writer")
    writer.execute("INSERT INTO w VALUES (1, 0)")
    writer.execute("RESET ROLE")
    assert tail.received() == [1]
    writer.execute("REVOKE ALL ON w FROM weak_writer; DROP ROLE weak_writer")


def held(connection: Connection) -> set[int]:
    """Return which of our locks are held in this database."""
    rows = connection.execute(
        "SELECT classid::bigint << 32 | objid::bigint FROM pg_locks JOIN pg_database d ON d.oid = database"
        " WHERE locktype = 'advisory' AND datname = current_database()"
    )
    return {key for (key,) in rows} & {SLEEPERS, WRITERS}
