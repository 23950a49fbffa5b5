"""Processes that are measured from outside: CPU time, memory, the number of files they may open. Linux only."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Process", "raise_file_limit", "running", "served", "started"]

START_SECONDS = 300.0
"""How long a server may take to listen on a machine that does other work too; one that ends is not waited for."""

STOP_SECONDS = 10.0


class Process:
    """A process of ours, by its id.

    Args:
        pid: whose figures are read.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid

    @property
    def cpu_seconds(self) -> float:
        """User and system time of all its threads so far: the process's own clock, see clock_getcpuclockid(3)."""
        return time.clock_gettime((~self.pid << 3) | 2)

    @property
    def resident_bytes(self) -> int:
        """What it holds in memory; buffers of its sockets, which are the kernel's, are not counted."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def raise_file_limit(files: int) -> None:
    """Let this process, and those it starts, open so many files.

    Raises:
        RuntimeError: it may not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= files:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, max(files, hard)))
    except (ValueError, PermissionError) as exc:
        raise RuntimeError(f"{files:,} open files are needed and {hard:,} allowed: ulimit -n {files}") from exc


@contextmanager
def running(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` until the block ends."""
    process = subprocess.Popen(command, env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def started(
    command: Sequence[str], port: int, *, host: str = "127.0.0.1", environment: Mapping[str, str] | None = None
) -> Iterator[Process]:
    """Run `command` until the block ends; give it once it listens on a port of a host.

    Raises:
        RuntimeError: it ended, or does not listen in time; its own words are on stderr.
    """
    with running(command, environment) as process:
        _await_listening(process, host, port)
        yield Process(process.pid)


@contextmanager
def served(application: str, port: int, environment: Mapping[str, str] | None = None) -> Iterator[Process]:
    """Serve `module:app` by one uvicorn worker until the block ends."""
    command = [sys.executable, "-m", "uvicorn", application, "--port", str(port), "--backlog", "4096"]
    with started([*command, "--no-access-log", "--log-level", "warning"], port, environment=environment) as process:
        yield process


def _await_listening(process: subprocess.Popen[bytes], host: str, port: int) -> None:
    give_up_at = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < give_up_at:
        if _listens(host, port):
            return
        time.sleep(0.05)
    ended = process.poll()
    fault = f"has not listened within {START_SECONDS:g} s" if ended is None else f"has ended with {ended}"
    raise RuntimeError(f"{process.args!r} {fault}: port {port}")


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True
