"""The server that tests run on: stopped, it answers nobody."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Literal

import psutil  # type: ignore[import-untyped]  # it ships no types
import psycopg
import pytest

from reactive_rpc.testing.postgresql import PostgreSQLServer
from tests.support.waiting import wait_until


def is_mute(process: psutil.Process) -> bool:
    """Tell whether a process can answer nobody: it runs no more, or has closed all that it had open as it ends."""
    try:
        return bool(process.num_fds() == 0)
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # one that ends belongs to root for a moment
        return True


@pytest.mark.parametrize("how", ["fast", "kill"])
def test_a_stopped_server_has_no_process_left(own_postgresql: PostgreSQLServer, how: Literal["fast", "kill"]) -> None:
    """Also if a backend is busy, and has not noticed yet that the server is gone."""
    url = own_postgresql.admin_url.render_as_string()
    with ThreadPoolExecutor() as threads, closing(psycopg.connect(url)) as connection:
        backend = psutil.Process(connection.info.backend_pid)
        threads.submit(connection.execute, "SELECT count(*) FROM generate_series(1, 10000000)")
        with psycopg.connect(url, autocommit=True) as other:
            busy = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND state = 'active'"
            wait_until(lambda: other.execute(busy, [backend.pid]).fetchone() is not None)
        own_postgresql.stop(how=how)
        assert is_mute(backend)
        own_postgresql.stop()
    own_postgresql.start()
    with psycopg.connect(url) as again:
        assert again.execute("SELECT 1").fetchone() == (1,)
