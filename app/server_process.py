"""TeamHub served by a process of its own, as the demo and the acceptance tests want it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

__all__ = ["serving"]

START_SECONDS = 30.0
STOP_SECONDS = 5.0
RETRY_SECONDS = 0.02


@contextmanager
def serving(database: Path, *, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """Serve `database` on a free port of 127.0.0.1, give the base URL, and stop the server on leaving.

    Args:
        database: the SQLite file.
        environment: further variables of the server's environment.

    Raises:
        RuntimeError: the server ended, or did not listen in time; its own words are on stderr.
    """
    port = _free_port()
    command = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", str(port), "--log-level", "warning"]
    variables = {**os.environ, "TEAMHUB_DATABASE": str(database), **(environment or {})}
    process = subprocess.Popen(command, env=variables, stdin=subprocess.DEVNULL)  # noqa: S603  # our own words
    try:
        _wait_until_listening(process, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        _stop(process)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _wait_until_listening(process: subprocess.Popen[bytes], port: int) -> None:
    """Return when the server accepts connections: uvicorn listens only after the application has started."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            _expect_running(process)
    raise RuntimeError(f"the server did not listen on port {port} within {START_SECONDS:.0f} s")


def _expect_running(process: subprocess.Popen[bytes]) -> None:
    """Wait a moment for the end of the process; it must not come."""
    try:
        code = process.wait(RETRY_SECONDS)
    except subprocess.TimeoutExpired:
        return
    raise RuntimeError(f"the server ended with code {code} before it listened")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
