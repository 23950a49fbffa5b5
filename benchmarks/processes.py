"""Processes that are measured from outside: ports, CPU time, memory, the number of files they may open. Linux only."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Process", "free_port", "raise_file_limit", "started"]

START_SECONDS = 30.0
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


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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
def started(command: Sequence[str], port: int, *, environment: Mapping[str, str] | None = None) -> Iterator[Process]:
    """Run `command` until the block ends; give it once it listens on `port` of 127.0.0.1.

    Raises:
        RuntimeError: it ended, or does not listen in time; its own words are on stderr.
    """
    process = subprocess.Popen(command, env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL)
    try:
        _await_listening(process, port)
        yield Process(process.pid)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_listening(process: subprocess.Popen[bytes], port: int) -> None:
    give_up_at = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < give_up_at:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} does not listen on port {port}")
