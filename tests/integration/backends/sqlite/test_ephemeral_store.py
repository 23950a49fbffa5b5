"""The ephemeral store beside a SQLite file: whatever happens to its file, both it and the database go on."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from reactive_rpc.backends.sqlite.ephemeral_store import SQLiteEphemeralStore
from reactive_rpc.changes.ephemeral_store import KINDS, Budget
from reactive_rpc.errors import ServiceUnavailableError
from tests.support.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Return a database that its owner and group may use."""
    path = tmp_path / "team.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL").close()
        connection.execute("CREATE TABLE t (id INTEGER)")
    path.chmod(0o640)
    return path


@pytest.fixture
async def stores(database: Path) -> AsyncIterator[tuple[SQLiteEphemeralStore, SQLiteEphemeralStore]]:
    """Return the ephemeral stores of two workers."""
    one, other = SQLiteEphemeralStore(database), SQLiteEphemeralStore(database)
    await one.open()
    await other.open()
    yield one, other
    await one.aclose()
    await other.aclose()


Stores = tuple[SQLiteEphemeralStore, SQLiteEphemeralStore]


def _damage(path: Path) -> None:
    path.write_bytes(b"this is no database at all" * 1000)


def _tear(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[100:] = os.urandom(len(content) - 100)
    path.write_bytes(bytes(content))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _replace(path: Path) -> None:
    new = path.with_suffix(".new")
    with closing(sqlite3.connect(new)) as connection:
        connection.execute("CREATE TABLE something_else (id)")
    new.replace(path)


@pytest.mark.parametrize("spoil", [Path.unlink, _damage, _tear, _empty, _replace])
async def test_a_spoiled_file_is_made_anew(stores: Stores, spoil: object) -> None:
    """Deleted, overwritten, torn, emptied or replaced: what stood there is forgotten, all workers go on together."""
    one, other = stores
    await one.put("set", {f"s{n}": os.urandom(10_000) for n in range(20)}, ttl_seconds=60)
    assert await other.get("set", "s1") is not None
    assert callable(spoil)
    spoil(one.path)
    for store in stores:  # one that has pages in memory may not notice; then another does
        await store.put("set", {"notice": b""}, ttl_seconds=60)
    await one.put("set", {"after": b"1"}, ttl_seconds=60)
    assert await other.get("set", "after") == b"1"
    await other.put("set", {"more": b"2"}, ttl_seconds=60)
    assert await one.take("set", ["s1", "after", "more"]) == {"after": b"1", "more": b"2"}
    assert await other.take("set", ["after", "more"]) == {}


async def test_a_spoiled_file_is_made_anew_by_whoever_reads(stores: Stores) -> None:
    """Getting and taking find nothing, and raise nothing."""
    one, other = stores
    await one.put("set", {"a": b"1"}, ttl_seconds=60)
    _damage(one.path)
    assert await one.get("set", "a") is None
    _damage(one.path)
    assert await other.take("set", ["a"]) == {}


async def test_whoever_may_use_the_database_may_use_the_ephemeral_store(database: Path, stores: Stores) -> None:
    """The permission is the database's: entries hold what others must not read."""
    assert stores[0].path == database.with_name("team.db-ephemeral")
    assert stores[0].path.stat().st_mode & 0o777 == 0o640


async def test_the_database_does_not_notice(database: Path, stores: Stores) -> None:
    """Its version does not move, and its write lock is neither taken nor waited for."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with closing(sqlite3.connect(database, isolation_level=None)) as watcher:
            before = watcher.execute("PRAGMA data_version").fetchone()
            await stores[0].put("ack", {"a": b"1"}, ttl_seconds=60)
            assert await stores[1].take("ack", ["a"]) == {"a": b"1"}
            assert watcher.execute("PRAGMA data_version").fetchone() == before
        connection.execute("ROLLBACK")


async def test_the_event_loop_does_not_wait_for_a_lock(database: Path) -> None:
    """While another process holds the file, other tasks run; past the timeout the error names the file."""
    store = SQLiteEphemeralStore(database, busy_timeout_seconds=0.3)
    await store.open()
    with closing(sqlite3.connect(store.path, isolation_level=None, check_same_thread=False)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        turns = count()
        put = asyncio.create_task(store.put("ack", {"a": b"1"}, ttl_seconds=60))
        await until(lambda: next(turns) < 0 or put.done(), "the lock is waited for without end")
        with pytest.raises(ServiceUnavailableError, match="the ephemeral store cannot be reached") as refused:
            await put
        assert re.search(r"team\.db-ephemeral", str(refused.value.__cause__))
        assert next(turns) > 20
        put = asyncio.create_task(store.put("ack", {"a": b"1"}, ttl_seconds=60))
        await asyncio.sleep(0)
        threading.Timer(0.05, lambda: holder.execute("ROLLBACK")).start()
        await put
    assert await store.get("ack", "a") == b"1"
    await store.aclose()


async def test_the_file_keeps_to_its_bound(database: Path) -> None:
    """However much is put, by however many, of whatever kind."""
    store = SQLiteEphemeralStore(database, budget=Budget(max_bytes=200_000, max_bytes_per_owner=50_000))
    await store.open()
    for n in range(200):
        for kind in KINDS:
            with suppress(ServiceUnavailableError):
                await store.put(kind, {f"s{n}": os.urandom(20_000)}, ttl_seconds=60 + n, owner=f"owner {n % 7}")
    assert store.path.stat().st_size <= 2 * len(KINDS) * 200_000
    await store.aclose()


async def test_what_has_expired_makes_room(database: Path) -> None:
    """Entries that nobody takes do not fill the file for ever."""
    now = 1000.0
    store = SQLiteEphemeralStore(database, now=lambda: now)
    await store.open()
    for _ in range(10):
        await store.put("ack", {f"{now}-{n}": b"x" * 1000 for n in range(100)}, ttl_seconds=60)
        now += 100
    with closing(sqlite3.connect(store.path)) as connection:
        assert connection.execute("SELECT count(*) FROM entry").fetchone() == (100,)
    await store.aclose()


async def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """With the path, and the way out."""
    store = SQLiteEphemeralStore(tmp_path / "no" / "team.db")
    await store.open()
    with pytest.raises(ServiceUnavailableError, match="the ephemeral store cannot be reached") as refused:
        await store.put("ack", {"a": b"1"}, ttl_seconds=60)
    assert re.search(r"no/team\.db-ephemeral cannot be read or written .* is writable", str(refused.value.__cause__))
    await store.aclose()


async def test_a_store_may_be_opened_before_the_database_is_made(tmp_path: Path) -> None:
    """It waits for the database's permission before it makes its file."""
    store = SQLiteEphemeralStore(tmp_path / "team.db")
    await store.open()
    assert not store.path.exists()
    (tmp_path / "team.db").touch(0o600)
    await store.put("ack", {"a": b"1"}, ttl_seconds=60)
    assert store.path.stat().st_mode & 0o777 == 0o600
    await store.aclose()


KILLED = """
import asyncio, sys
from pathlib import Path
from reactive_rpc.changes.ephemeral_store import KINDS, Budget
from reactive_rpc.backends.sqlite.ephemeral_store import SQLiteEphemeralStore

async def main():
    store = SQLiteEphemeralStore(Path(sys.argv[1]))
    await store.open()
    print("ready", flush=True)
    n = 0
    while True:
        await store.put("ack", {f"a{n % 50}-{i}": str(i).encode() * 500 for i in range(50)}, ttl_seconds=60)
        n += 1

asyncio.run(main())
"""


async def written(store: SQLiteEphemeralStore) -> bool:
    """Tell whether the fourth batch of `KILLED` has begun to show."""
    return await store.get("ack", "a3-0") is not None


async def test_a_killed_process_leaves_the_ephemeral_store_whole(database: Path, stores: Stores) -> None:
    """What it left half done is undone: every batch is there in full or not at all."""
    for _ in range(3):
        writer = await asyncio.create_subprocess_exec(
            sys.executable, "-c", KILLED, str(database), stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        assert await writer.stdout.readline() == b"ready\n"
        await until(partial(written, stores[0]), "the writer does not write", within_seconds=20)
        writer.kill()
        await writer.communicate()
        for n in range(50):
            found = await stores[0].take("ack", [f"a{n}-{i}" for i in range(50)])
            assert found in ({}, {f"a{n}-{i}": str(i).encode() * 500 for i in range(50)})
        with closing(sqlite3.connect(stores[0].path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
