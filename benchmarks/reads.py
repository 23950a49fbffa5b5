"""Cached reads over HTTP, strict freshness, SQLite: against a bare ASGI application that answers the same bytes."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path

import uvloop

from benchmarks.load import Target, requests_per_second
from benchmarks.servers import BODY

CONNECTIONS = 32


class Served:
    """An application of `benchmarks.servers` in a process of its own."""

    def __init__(self, application: str, database: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [sys.executable, "-m", "uvicorn", f"benchmarks.servers:{application}", "--port", str(self.port)]
        quiet = ["--no-access-log", "--log-level", "warning"]
        self._process = subprocess.Popen([*command, *quiet], env=os.environ | {"BENCH_DATABASE": str(database)})
        _await_port(self.port, self._process)

    @property
    def cpu_seconds(self) -> float:
        """What the process has used so far: user and system time, from /proc/<pid>/stat."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """Stop it."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(10)


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError("the server did not start")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError("the server did not open its port")


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer x\r\n\r\n".encode()


async def measure(folder: Path, *, rounds: int, seconds: float) -> dict[str, tuple[float, float]]:
    """Return `{target: (share of the bare application's throughput, its CPU time a request over theirs)}`, medians."""
    database = folder / "reads.db"
    with ExitStack() as stack:
        bare, plain, reactive = (
            stack.enter_context(closing(Served(application, database))) for application in ("bare", "plain", "reactive")
        )
        with sqlite3.connect(database) as connection:
            connection.execute("INSERT INTO note (room, text) VALUES ('a', ?)", ("x" * 300,))
        connection.close()
        targets = [
            (bare, Target("bare ASGI", bare.port, _get("/"))),
            (reactive, Target("cached query, public", reactive.port, _get("/rpc/notes.get_all?room=a"))),
            (reactive, Target("cached query, context each time", reactive.port, _get("/rpc/notes.get_mine?room=a"))),
            (plain, Target("plain FastAPI route, same bytes", plain.port, _get("/notes?room=a"))),
        ]
        shares: dict[str, list[tuple[float, float]]] = {target.name: [] for _, target in targets}
        for _ in range(rounds):
            found = {target.name: await _measure_one(server, target, seconds) for server, target in targets}
            throughput, cpu = found["bare ASGI"]
            for name, (own_throughput, own_cpu) in found.items():
                shares[name].append((own_throughput / throughput, cpu / own_cpu))
    return {name: tuple(map(statistics.median, zip(*values, strict=True))) for name, values in shares.items()}


async def _measure_one(server: Served, target: Target, seconds: float) -> tuple[float, float]:
    """Return requests a second, and the server's CPU seconds a request."""
    before = server.cpu_seconds
    rate = await requests_per_second(target, connections=CONNECTIONS, seconds=seconds)
    cpu = (server.cpu_seconds - before) / (rate * seconds)
    print(f"    {target.name:34} {rate:8.0f} requests/s {cpu * 1e6:7.1f} us of CPU each")
    return rate, cpu


def run(folder: Path, *, rounds: int = 5, seconds: float = 2.0) -> None:
    """Measure and print."""
    print(f"Cached reads, {len(BODY)} bytes, {CONNECTIONS} connections, share of a bare ASGI application,")
    print("by throughput (the load generator has the other core) and by the server's CPU time:")
    for name, (rate, cpu) in uvloop.run(measure(folder, rounds=rounds, seconds=seconds)).items():
        print(f"  {name:36} {rate:5.2f} {cpu:5.2f}")
