"""Writers against a follower that is woken by nothing but them: no time of its own ever wakes it."""

from __future__ import annotations

import random
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from reactive_rpc.backends.postgresql import wake_up as postgresql_wake_up
from reactive_rpc.backends.postgresql.capture.backend import PostgreSQLCapture
from reactive_rpc.backends.postgresql.log import PostgreSQLLog
from reactive_rpc.backends.postgresql.relay_lock import relay_lock
from reactive_rpc.backends.postgresql.url import libpq_url
from reactive_rpc.backends.redis.log import RedisLog
from reactive_rpc.backends.redis.relay import Relay
from reactive_rpc.backends.redis.stream import RedisStream
from reactive_rpc.backends.sqlite import wake_up as sqlite_wake_up
from reactive_rpc.backends.sqlite.capture.backend import SQLiteCapture
from reactive_rpc.backends.sqlite.log import SQLiteLog
from reactive_rpc.changes.follower import LogFollower
from reactive_rpc.changes.log import Batch, Log
from reactive_rpc.changes.wake_up import WakeUp
from reactive_rpc.clock import RandomIds, SystemClock
from reactive_rpc.tasks import background
from tests.support.waiting import became, until

pytestmark = pytest.mark.anyio

BURSTS = 60
WRITERS = 2
INTERVAL_SECONDS = 0.002
FOR_EVER = 3600.0


@dataclass(frozen=True)
class Place:
    """A database with a table `w (id)`, whoever reads its log and whoever writes to it."""

    log: Callable[[], Log]
    writer: Callable[[], Any]

    def write(self, *rows: int) -> None:
        """Commit row after row, as another program does."""
        with closing(self.writer()) as connection:
            for row in rows:
                connection.execute(f"INSERT INTO w VALUES ({row})")


@pytest.fixture(autouse=True)
def sleep_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is forgotten never wakes; SQLite's log looks for what an event announces as long as that takes."""
    monkeypatch.setattr(postgresql_wake_up, "LONGEST_SLEEP_SECONDS", FOR_EVER)
    monkeypatch.setattr(sqlite_wake_up, "LONGEST_SLEEP_SECONDS", FOR_EVER)
    monkeypatch.setattr(sqlite_wake_up, "SHOWS_SECONDS", 5.0)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Return a database."""
    if request.param == "sqlite":
        path = tmp_path / "races.db"
        place = Place(
            lambda: SQLiteLog(SQLiteCapture(path, ids=RandomIds())),
            lambda: sqlite3.connect(path, isolation_level=None, timeout=60),
        )
    else:
        place = on_postgresql(request.getfixturevalue("postgresql_url"))
    with closing(place.writer()) as connection:
        connection.execute("CREATE TABLE w (id INTEGER PRIMARY KEY)")
    return place


def on_postgresql(url: str) -> Place:
    """Return a database on PostgreSQL."""
    parsed = make_url(url)
    return Place(
        lambda: PostgreSQLLog(PostgreSQLCapture(parsed, ids=RandomIds()), parsed),
        lambda: psycopg.connect(libpq_url(parsed), autocommit=True),
    )


class Forgets:
    """A wake-up that is armed once more when the log has been read: what was committed before that wakes nobody."""

    def __init__(self, wake_up: WakeUp) -> None:
        self._wake_up = wake_up

    async def arm(self) -> bool:
        return await self._wake_up.arm()

    async def wait(self) -> bool:
        await self._wake_up.disarm()
        if isinstance(self._wake_up, sqlite_wake_up.WALWakeUp):
            self._wake_up._watch.clear()
        return not await self._wake_up.arm() or await self._wake_up.wait()

    async def disarm(self) -> None:
        await self._wake_up.disarm()


@asynccontextmanager
async def followed(log: Log, wrap: Callable[[WakeUp], WakeUp]) -> AsyncIterator[set[int]]:
    """Follow a log; yields the rows that it has shown of so far."""
    shown: set[int] = set()

    def note(batch: Batch) -> None:
        shown.update(int(str(change.after["id"])) for change in batch.changes if change.after)

    log.subscribe(note)
    await log.open()
    follower = LogFollower(
        log.sync_to_head,
        lambda: 0.0,
        wake_up=wrap(log.wake_up),
        clock=SystemClock(),
        interval_seconds=INTERVAL_SECONDS,
        streams=[None],
        on_lost=lambda: None,
    )
    try:
        async with background(follower.run(), "follower"):
            yield shown
    finally:
        await log.aclose()


def bursts(seed: int) -> Iterator[list[list[int]]]:
    """Yield for each burst the rows of each writer."""
    rng, row = random.Random(seed), 0
    for _ in range(BURSTS):
        rows = []
        for _ in range(WRITERS):
            count = rng.randrange(1, 4)
            rows.append(list(range(row, row + count)))
            row += count
        yield rows


async def play(place: Place, shown: set[int], *, within_seconds: float) -> bool:
    """Write burst after burst, the next when all of the last was shown; return whether all was."""
    for rows in bursts(seed=1):
        writers = [threading.Thread(target=place.write, args=mine) for mine in rows]
        for writer in writers:
            writer.start()
        wanted = {row for mine in rows for row in mine}
        if not await became(lambda wanted=wanted: wanted <= shown, within_seconds=within_seconds):  # type: ignore[misc]  # likewise
            return False
        for writer in writers:
            writer.join()
    return True


async def test_whoever_commits_wakes_the_follower(place: Place) -> None:
    """Commits in bursts, of two writers, while the follower lies down, sleeps and gets up: each is shown."""
    async with followed(place.log(), lambda wake_up: wake_up) as shown:
        assert await play(place, shown, within_seconds=60.0)


@pytest.mark.seeded_bug
async def test_a_follower_that_is_forgotten_is_found(place: Place) -> None:
    """If it sleeps when somebody has written since it last read, the same bursts find it."""
    async with followed(place.log(), Forgets) as shown:
        assert not await play(place, shown, within_seconds=2.0)


async def test_whoever_commits_wakes_the_relay(
    postgresql_url: str, redis_server_url: str, redis_namespace: str
) -> None:
    """The process that reads the outbox for all others is woken, too, and they are shown by it."""
    place, url = on_postgresql(postgresql_url), make_url(postgresql_url)
    with closing(place.writer()) as connection:
        connection.execute("CREATE TABLE w (id INTEGER PRIMARY KEY)")

    def stream() -> RedisStream:
        return RedisStream(redis_server_url, redis_namespace)

    relay = Relay(place.log, stream, relay_lock(url, redis_namespace), poll_interval_seconds=INTERVAL_SECONDS)
    log = RedisLog(PostgreSQLCapture(url, ids=RandomIds()), stream())
    async with background(relay.run(), "relay"), followed(log, lambda wake_up: wake_up) as shown:
        assert await play(place, shown, within_seconds=60.0)
        await until(lambda: relay.status.role == "leading")
