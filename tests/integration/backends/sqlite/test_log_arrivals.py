"""Requests that arrive together share a look at the database, and none misses a commit of before it arrived."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from reactive_rpc.backends.sqlite.capture.backend import SQLiteCapture
from reactive_rpc.backends.sqlite.log import SQLiteLog
from reactive_rpc.clock import RandomIds
from reactive_rpc.errors import ServiceUnavailableError


class CountedLog(SQLiteLog):
    """Counts its polls."""

    polls = 0

    def sync_to_head_blocking(self) -> int:
        self.polls += 1
        return super().sync_to_head_blocking()


def opened(path: Path) -> CountedLog:
    """Return a log on a file with one table, not open yet."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE item (id INTEGER PRIMARY KEY)")
    return CountedLog(SQLiteCapture(path, ids=RandomIds()))


def commit(path: Path) -> None:
    """Commit a row, as another program does."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO item DEFAULT VALUES")


def test_what_is_ready_together_shares_one_poll(tmp_path: Path) -> None:
    """Twenty requests read in one turn of the loop cost one look; each later turn looks anew."""

    async def arrive() -> None:
        log = opened(tmp_path / "a.db")
        await log.open()
        versions = await asyncio.gather(*(log.sync_to_head_for_server() for _ in range(20)))
        assert log.polls == 1
        commit(tmp_path / "a.db")
        await asyncio.sleep(0)
        assert await asyncio.create_task(log.sync_to_head_for_server()) == versions[0] + 1
        assert log.polls == 2
        await log.aclose()

    asyncio.run(arrive())


def test_a_request_that_became_ready_after_the_poll_polls_again(tmp_path: Path) -> None:
    """A commit between the poll and the next arrival is seen, though both fall into one turn of the loop."""

    async def arrive() -> None:
        log = opened(tmp_path / "a.db")
        await log.open()
        later: list[asyncio.Task[int]] = []

        async def first() -> int:
            version = await log.sync_to_head_for_server()
            commit(tmp_path / "a.db")
            later.append(asyncio.create_task(log.sync_to_head_for_server()))  # read from its socket after the commit
            return version

        before = await asyncio.create_task(first())
        assert await later[0] == before + 1
        await log.aclose()

    asyncio.run(arrive())


def test_a_poll_that_fails_is_shared_by_nobody(tmp_path: Path) -> None:
    """Whoever is ready with it polls anew: it has read nothing."""

    class FailingLog(CountedLog):
        def sync_to_head_blocking(self) -> int:
            version = super().sync_to_head_blocking()
            if self.polls == 1:
                raise ServiceUnavailableError("the first time")
            return version

    async def arrive() -> None:
        opened(tmp_path / "a.db")
        log = FailingLog(SQLiteCapture(tmp_path / "a.db", ids=RandomIds()))
        await log.open()
        first, *others = await asyncio.gather(
            *(log.sync_to_head_for_server() for _ in range(5)), return_exceptions=True
        )
        assert isinstance(first, ServiceUnavailableError)
        assert others == [log.version] * 4
        assert log.polls == 2
        await log.aclose()

    asyncio.run(arrive())


def test_with_a_task_factory_nobody_shares(tmp_path: Path) -> None:
    """Eager tasks run out of order: each looks for itself."""

    async def arrive() -> None:
        log = opened(tmp_path / "a.db")
        await log.open()
        loop = asyncio.get_running_loop()
        loop.set_task_factory(lambda loop, coro, **options: asyncio.Task(coro, loop=loop, **options))
        await asyncio.gather(*(log.sync_to_head_for_server() for _ in range(5)))
        assert log.polls == 5
        await log.aclose()

    asyncio.run(arrive())


def test_a_writer_that_asks_at_once_is_not_fooled(tmp_path: Path) -> None:
    """`sync_to_head` shares nothing: who commits and asks without giving way sees the commit."""

    async def ask() -> None:
        log = opened(tmp_path / "a.db")
        await log.open()
        before = await log.sync_to_head_for_server()
        commit(tmp_path / "a.db")
        assert await log.sync_to_head() == before + 1
        await log.aclose()

    asyncio.run(ask())
