"""A SQLite log that sleeps: woken by whoever writes the `-wal` file, whichever file that is."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from reactive_rpc.backends.sqlite import wake_up
from reactive_rpc.backends.sqlite.log import SQLiteLog
from reactive_rpc.backends.sqlite.wal_watch import WALWatch
from tests.support.waiting import until

from .conftest import Tail

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def sleep_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing but an event wake a log, and let it look for what an event announces as long as it takes."""
    monkeypatch.setattr(wake_up, "LONGEST_SLEEP_SECONDS", 60.0)
    monkeypatch.setattr(wake_up, "SHOWS_SECONDS", 60.0)


async def asleep(log: SQLiteLog) -> asyncio.Task[bool]:
    """Have a log read everything and sleep."""
    assert await log.wake_up.arm()
    await log.sync_to_head()
    sleeping = asyncio.create_task(log.wake_up.wait())
    await asyncio.sleep(0)
    assert not sleeping.done()
    return sleeping


async def test_a_commit_wakes(tail: Tail, writer: sqlite3.Connection) -> None:
    """Whoever has committed; and each later one, after the log has been armed again."""
    for n in range(5):
        sleeping = await asleep(tail.log)
        writer.execute("UPDATE t SET n = ? WHERE id = 1", (10 + n,))
        assert await sleeping
        assert tail.received()
    await tail.log.aclose()


async def test_a_commit_between_arming_and_reading_is_read(tail: Tail, writer: sqlite3.Connection) -> None:
    """It need not wake anybody."""
    assert await tail.log.wake_up.arm()
    writer.execute("UPDATE t SET n = 11 WHERE id = 1")
    assert tail.received()
    await tail.log.aclose()


async def test_a_commit_between_reading_and_waiting_wakes(tail: Tail, writer: sqlite3.Connection) -> None:
    """Its event waits for the log."""
    assert await tail.log.wake_up.arm()
    await tail.log.sync_to_head()
    writer.execute("UPDATE t SET n = 11 WHERE id = 1")
    assert await tail.log.wake_up.wait()
    await tail.log.aclose()


async def test_what_is_written_and_rolled_back_wakes_nobody(
    tail: Tail, writer: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large transaction writes the file before it commits: the log looks for a while, and sleeps on."""
    monkeypatch.setattr(wake_up, "SHOWS_SECONDS", 0.01)
    writer.execute("PRAGMA cache_size = 1")
    assert not await (await asleep(tail.log))  # it looks for what may have been written just before, too
    sleeping = await asleep(tail.log)
    writer.execute("BEGIN IMMEDIATE")
    writer.executemany("INSERT INTO t(n) VALUES (?)", [(n,) for n in range(20_000)])
    assert not await sleeping
    writer.execute("ROLLBACK")
    await tail.log.aclose()


async def test_a_commit_that_was_written_just_before_the_file_is_watched_is_looked_for(tmp_path: Path) -> None:
    """Its event came too early for the watch, and it shows too late for the log that is read meanwhile."""
    tmp_path.joinpath("some.db-wal").write_bytes(b"")
    shows = iter((False, False, True))
    waking = wake_up.WALWakeUp(str(tmp_path / "some.db"), lambda: next(shows))
    assert await waking.arm()
    assert await waking.wait()
    waking.close()


async def test_a_commit_wakes_while_the_application_keeps_every_thread(tail: Tail, writer: sqlite3.Connection) -> None:
    """Those of the event loop may all be at work for the application, for as long as that takes."""
    threads, gone = ThreadPoolExecutor(1), threading.Event()
    asyncio.get_running_loop().set_default_executor(threads)
    busy = asyncio.create_task(asyncio.to_thread(gone.wait))
    try:
        sleeping = await asleep(tail.log)
        writer.execute("UPDATE t SET n = 11 WHERE id = 1")
        async with asyncio.timeout(30):
            assert await sleeping
    finally:
        gone.set()
        await busy
        await tail.log.aclose()


async def test_another_file_is_watched_in_its_place(path: Path, tail: Tail) -> None:
    """A database that is replaced while its log sleeps wakes it, and so does the next commit to the new one."""
    sleeping = await asleep(tail.log)
    other = path.with_name("other.db")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(other)) as copy:
        source.backup(copy)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink()
    os.replace(other, path)
    await until(sleeping.done)
    await tail.log.sync_to_head()
    assert tail.batches[-1].flush
    sleeping = await asleep(tail.log)
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("UPDATE t SET n = 11 WHERE id = 1")
        assert await sleeping
    await tail.log.aclose()


@pytest.fixture
def real(path: Path, tmp_path: Path) -> Path:
    """Return the file that `path` is now a link to."""
    real = tmp_path / "elsewhere" / "real.db"
    real.parent.mkdir()
    shutil.move(path, real)
    path.symlink_to(real)
    return real


async def test_the_file_behind_a_link_is_watched(real: Path, tail: Tail) -> None:
    """SQLite keeps the `-wal` file beside the file itself."""
    sleeping = await asleep(tail.log)
    with closing(sqlite3.connect(real, isolation_level=None)) as writer:
        writer.execute("UPDATE t SET n = 11 WHERE id = 1")
        assert await sleeping
    await tail.log.aclose()


async def test_a_log_that_is_closed_while_it_sleeps_wakes_nobody(tail: Tail) -> None:
    """It can be opened and armed again."""
    sleeping = await asleep(tail.log)
    sleeping.cancel()
    await tail.log.aclose()
    await tail.log.open()
    assert await tail.log.wake_up.arm()
    await tail.log.aclose()


async def test_without_a_file_there_is_nothing_to_watch(tmp_path: Path) -> None:
    """Then the log is polled, until there is one."""
    watch, path = WALWatch(), tmp_path / "some.db-wal"
    assert not watch.begin(str(path))
    path.write_bytes(b"")
    assert watch.begin(str(path))
    watch.close()
