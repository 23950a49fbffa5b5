"""Cached reads over HTTP, strict freshness, SQLite: against a bare ASGI application that answers the same bytes."""

from __future__ import annotations

import sqlite3
import statistics
from contextlib import ExitStack
from pathlib import Path

import uvloop

from benchmarks.load import Target, requests_per_second
from benchmarks.processes import Process, served
from benchmarks.servers import BODY
from reactive_rpc.testing.ports import free_port

CONNECTIONS = 32


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer x\r\n\r\n".encode()


async def measure(folder: Path, *, rounds: int, seconds: float) -> dict[str, tuple[float, float]]:
    """Return `{target: (share of the bare application's throughput, its CPU time a request over theirs)}`, medians."""
    database = folder / "reads.db"
    with ExitStack() as stack:
        ports = [free_port() for _ in range(3)]
        bare, plain, reactive = (
            stack.enter_context(served(f"benchmarks.servers:{name}", port, {"BENCH_DATABASE": str(database)}))
            for name, port in zip(("bare", "plain", "reactive"), ports, strict=True)
        )
        with sqlite3.connect(database) as connection:
            connection.execute("INSERT INTO note (room, text) VALUES ('a', ?)", ("x" * 300,))
        connection.close()
        targets = [
            (bare, Target("bare ASGI", ports[0], _get("/"))),
            (reactive, Target("cached query, public", ports[2], _get("/rpc/notes.get_all?room=a"))),
            (reactive, Target("cached query, context each time", ports[2], _get("/rpc/notes.get_mine?room=a"))),
            (plain, Target("plain FastAPI route, same bytes", ports[1], _get("/notes?room=a"))),
        ]
        shares: dict[str, list[tuple[float, float]]] = {target.name: [] for _, target in targets}
        for _ in range(rounds):
            found = {target.name: await _measure_one(server, target, seconds) for server, target in targets}
            throughput, cpu = found["bare ASGI"]
            for name, (own_throughput, own_cpu) in found.items():
                shares[name].append((own_throughput / throughput, cpu / own_cpu))
    return {name: tuple(map(statistics.median, zip(*values, strict=True))) for name, values in shares.items()}


async def _measure_one(server: Process, target: Target, seconds: float) -> tuple[float, float]:
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
