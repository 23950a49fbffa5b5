"""Cached reads over HTTP, strict freshness, SQLite: against a bare ASGI application that answers the same bytes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.load import Target, requests_per_second
from benchmarks.servers import BODY

CONNECTIONS = 32


@contextmanager
def served(application: str, database: Path) -> Iterator[int]:
    """Serve an application of `benchmarks.servers` in a process of its own; give its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", f"benchmarks.servers:{application}", "--port", str(port)]
    quiet = ["--no-access-log", "--log-level", "warning"]
    process = subprocess.Popen([*command, *quiet], env=os.environ | {"BENCH_DATABASE": str(database)})
    try:
        _await_port(port, process)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


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


async def measure(folder: Path, *, rounds: int, seconds: float) -> dict[str, float]:
    """Return `{target: median of its throughput over the bare application's of the same round}`."""
    database = folder / "reads.db"
    with ExitStack() as stack:
        bare = stack.enter_context(served("bare", database))
        plain = stack.enter_context(served("plain", database))
        reactive = stack.enter_context(served("reactive", database))
        with sqlite3.connect(database) as connection:
            connection.execute("INSERT INTO note (room, text) VALUES ('a', ?)", ("x" * 300,))
        targets = [
            Target("bare ASGI", bare, _get("/")),
            Target("cached query, public", reactive, _get("/rpc/notes.get_all?room=a")),
            Target("cached query, context per request", reactive, _get("/rpc/notes.get_mine?room=a")),
            Target("plain FastAPI route, same bytes", plain, _get("/notes?room=a")),
        ]
        shares: dict[str, list[float]] = {target.name: [] for target in targets}
        for _ in range(rounds):
            found = {
                target.name: await requests_per_second(target, connections=CONNECTIONS, seconds=seconds)
                for target in targets
            }
            for name, value in found.items():
                shares[name].append(value / found["bare ASGI"])
                print(f"    {name:36} {value:9.0f} requests/s")
    return {name: statistics.median(values) for name, values in shares.items()}


def run(folder: Path, *, rounds: int = 5, seconds: float = 2.0) -> None:
    """Measure and print."""
    print(f"Cached reads, {len(BODY)} bytes, {CONNECTIONS} connections, share of a bare ASGI application:")
    for name, share in asyncio.run(measure(folder, rounds=rounds, seconds=seconds)).items():
        print(f"  {name:38} {share:5.2f}")
