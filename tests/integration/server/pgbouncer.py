"""A real PgBouncer before a real PostgreSQL, configured as it comes but for its pool mode."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal

import psycopg
from sqlalchemy import make_url

from reactive_rpc.testing.ports import free_port
from tests.support.processes import Process

__all__ = ["PGBOUNCER", "pgbouncer"]

PGBOUNCER: Final = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
"""The program, where it is installed."""

_NOBODY: Final[dict[str, Any]] = {"user": 65534, "group": 65534, "extra_groups": []}


@contextmanager
def pgbouncer(url: str, mode: Literal["session", "transaction"], *, processes: int = 4) -> Iterator[str]:
    """Run a pooler before the database at `url`, and give the URL that leads through it.

    Args:
        processes: how many of the server's it uses at most.
    """
    parsed = make_url(url)
    folder = Path(tempfile.mkdtemp(prefix="reactive_rpc_pgbouncer_"))
    port = free_port()
    (folder / "users.txt").write_text(f'"{parsed.username}" ""\n')
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={parsed.host} port={parsed.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {folder}/users.txt\n"
        f"pool_mode = {mode}\ndefault_pool_size = {processes if mode == 'transaction' else 100}\n"
    )
    folder.chmod(0o755)
    as_nobody = _NOBODY if os.geteuid() == 0 else {}
    through = parsed.set(host="127.0.0.1", port=port)
    address = through.set(drivername="postgresql").render_as_string(hide_password=False)
    command = [str(PGBOUNCER), str(folder / "pgbouncer.ini")]
    try:
        with Process(*command, log=folder / "log", works=lambda: _answers(address), cwd="/", **as_nobody):
            yield through.render_as_string(hide_password=False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _answers(url: str) -> bool:
    with suppress(psycopg.OperationalError):
        psycopg.connect(url, connect_timeout=2).close()
        return True
    return False
