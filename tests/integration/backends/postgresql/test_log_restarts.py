"""The log of a PostgreSQL server that crashes, goes back, or is no primary."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from sqlalchemy import make_url

from reactive_rpc.changes.log import Batch
from reactive_rpc.errors import ServiceUnavailableError
from reactive_rpc.testing.postgresql import PostgreSQLServer

from .tails import DEADLINE_SECONDS, OpenTail, connected, create


def test_a_crash_begins_a_new_epoch(own_postgresql: PostgreSQLServer, open_tail: OpenTail) -> None:
    """What had been seen may be undone, and its transaction ids given out again: cursors of before are gaps."""
    url = own_postgresql.new_database()
    create(url)
    tails = [open_tail(url), open_tail(url)]
    with closing(connected(url)) as connection:
        connection.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
        connection.execute("SELECT pg_reload_conf()")
        connection.execute("CHECKPOINT")
        connection.execute("SET synchronous_commit = off")
        for n in range(3):
            connection.execute(f"INSERT INTO w VALUES ({n}, 0)")
    for tail in tails:
        assert tail.received() == [0, 1, 2]
    old = tails[0].cursor
    own_postgresql.stop(how="kill")
    for tail in tails:
        with pytest.raises(ServiceUnavailableError):
            tail.poll()
    own_postgresql.start()
    with closing(connected(url)) as connection:
        lost = 3 - len(connection.execute("SELECT * FROM w").fetchall())
        for n in range(10, 20):
            connection.execute(f"INSERT INTO w VALUES ({n}, 0)")
    assert lost > 0, "the crash was to undo something"
    assert open_tail(url).read_after(old) is None, "a process that knows nothing of the crash"
    for tail in tails:
        (batch,) = tail.poll_until_it_works()
        assert batch.flush
        assert batch.version == tail.log.version > old.version
        assert tail.read_after(old) is None
        assert tail.log.changes_since(old.version) is None
    for tail in tails:
        tail.poll()
    assert tails[0].log.epoch == tails[1].log.epoch != old.epoch
    with closing(connected(url)) as connection:
        connection.execute("INSERT INTO w VALUES (100, 0)")
    assert [tail.received() for tail in tails] == [[100], [100]]


def test_a_crash_of_one_backend(own_postgresql: PostgreSQLServer, open_tail: OpenTail) -> None:
    """It restarts all others, and loses what one of the whole server would lose."""
    url = own_postgresql.new_database()
    create(url)
    tail = open_tail(url)
    epoch = tail.log.epoch
    connection = connected(url)
    with closing(connection):
        os.kill(connection.info.backend_pid, signal.SIGKILL)
    batches: list[Batch] = []
    give_up = time.monotonic() + DEADLINE_SECONDS
    while not batches and time.monotonic() < give_up:
        batches = tail.poll_until_it_works()
    assert [bool(batch.flush) for batch in batches] == [True]
    assert tail.log.epoch != epoch


@pytest.mark.parametrize("written_since", [0, 400])
def test_an_older_copy_of_the_files(own_postgresql: PostgreSQLServer, open_tail: OpenTail, written_since: int) -> None:
    """A server that went back is noticed, even where it has caught up since, and versions grow all the same."""
    url = own_postgresql.new_database()
    create(url)
    tail = open_tail(url)
    own_postgresql.stop()
    data, copy = own_postgresql.folder / "data", own_postgresql.folder / "copy"
    shutil.copytree(data, copy, symlinks=True)
    for path in [copy, *copy.rglob("*")]:
        os.chown(path, data.stat().st_uid, data.stat().st_gid)
    own_postgresql.start()
    with closing(connected(url)) as connection:
        for n in range(300):
            connection.execute(f"INSERT INTO w VALUES ({n}, 0)")
    tail.poll_until_it_works()
    version = tail.log.version
    own_postgresql.stop()
    shutil.rmtree(data)
    copy.rename(data)
    own_postgresql.start()
    with closing(connected(url)) as connection:
        for n in range(1_000, 1_000 + written_since):
            connection.execute(f"INSERT INTO w VALUES ({n}, 0)")
    (batch,) = tail.poll_until_it_works()
    assert batch.flush
    assert batch.version == tail.log.version > version
    assert tail.log.changes_since(version) is None
    with closing(connected(url)) as connection:
        connection.execute("INSERT INTO w VALUES (1, 0)")
    assert tail.received() == [1]


def test_a_standby_is_refused(own_postgresql: PostgreSQLServer, open_tail: OpenTail) -> None:
    """Its snapshots hide what is under way on the primary; once promoted it is a primary, in an epoch of its own."""
    url = own_postgresql.new_database()
    create(url)
    primary = open_tail(url)
    old = primary.cursor
    with standby_of(own_postgresql) as standby:
        there = standby.url(make_url(url).database or "")
        with pytest.raises(ServiceUnavailableError, match="standby"):
            open_tail(there)
        with closing(connected(there)) as connection:
            connection.execute("SELECT pg_promote()")
        promoted = open_tail(there)
        assert promoted.log.epoch != old.epoch
        assert promoted.read_after(old) is None


@contextmanager
def standby_of(primary: PostgreSQLServer) -> Iterator[PostgreSQLServer]:
    """Run a hot standby of a server for as long as the block runs."""
    folder = primary.folder / "standby"
    standby = PostgreSQLServer(folder, primary._binaries)
    owner = primary.folder.stat()
    folder.mkdir()
    os.chown(folder, owner.st_uid, owner.st_gid)
    command = [str(primary._binaries / "pg_basebackup"), "-D", str(folder / "data"), "-R", "--checkpoint=fast"]
    identity: dict[str, Any] = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
    subprocess.run(
        [*command, "-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres"],
        check=True,
        capture_output=True,
        cwd="/",
        **(identity if os.geteuid() == 0 else {}),
    )
    try:
        standby.start()
        yield standby
    finally:
        standby.stop()
