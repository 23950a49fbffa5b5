"""Cached reads over HTTP, strict freshness, SQLite: against a bare ASGI application that answers the same bytes."""

from __future__ import annotations

import sqlite3
import statistics
from contextlib import ExitStack, closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import uvloop

from benchmarks.load import Target, requests_per_second
from benchmarks.processes import Process, served
from benchmarks.servers import BODY
from reactive_rpc.testing.ports import free_port

CONNECTIONS = 32


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer x\r\n\r\n".encode()


@dataclass(frozen=True)
class Served:
    """What is measured.

    Attributes:
        application: as uvicorn takes it.
        package: that it needs, of a peer; "" if it needs none.
    """

    name: str
    application: str
    path: str
    package: str = ""


BASE = Served("bare ASGI, finds the bytes", "benchmarks.servers:finding", "/notes?room=a")
SERVED = (
    BASE,
    Served("bare ASGI, a constant", "benchmarks.servers:bare", "/"),
    Served("cached query, public", "benchmarks.servers:reactive", "/rpc/notes.get_all?room=a"),
    Served("cached query, with a login", "benchmarks.servers:reactive", "/rpc/notes.get_mine?room=a"),
    Served("cached query, context is a query", "benchmarks.servers:reactive", "/rpc/notes.get_by_query?room=a"),
    Served("cached query, step with a session", "benchmarks.servers:reactive", "/rpc/notes.get_by_step?room=a"),
    Served("public, telemetry={...: False}", "benchmarks.servers:unwatched", "/rpc/notes.get_all?room=a"),
    Served("login, telemetry={...: False}", "benchmarks.servers:unwatched", "/rpc/notes.get_mine?room=a"),
    Served("plain FastAPI route, same bytes", "benchmarks.servers:plain", "/notes?room=a"),
    Served("Litestar's response cache", "benchmarks.peers.litestar_cache:app", "/notes?room=a", "litestar"),
    Served("cashews on FastAPI", "benchmarks.peers.cashews_cache:app", "/notes?room=a", "cashews"),
)


async def measure(folder: Path, *, rounds: int, seconds: float) -> dict[str, list[tuple[float, float]]]:
    """Return `{name: of each round the share of the bare application's throughput, and its CPU time over theirs}`."""
    database = folder / "reads.db"
    present = [each for each in SERVED if not each.package or find_spec(each.package) is not None]
    for each in SERVED:
        if each not in present:
            print(f"  left out: {each.name}, as the package {each.package} is not installed")
    with ExitStack() as stack:
        ports = {each.application: free_port() for each in present}
        servers = {
            application: stack.enter_context(served(application, port, {"BENCH_DATABASE": str(database)}))
            for application, port in ports.items()
        }
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("INSERT INTO note (room, text) VALUES ('a', ?)", ("x" * 300,))
        targets = [(each, Target(each.name, ports[each.application], _get(each.path))) for each in present]
        shares: dict[str, list[tuple[float, float]]] = {each.name: [] for each in present}
        for _ in range(rounds):
            found = {each: await _measure_one(servers[each.application], target, seconds) for each, target in targets}
            throughput, cpu = found[BASE]
            for each, (own_throughput, own_cpu) in found.items():
                shares[each.name].append((own_throughput / throughput, cpu / own_cpu))
    return shares


async def _measure_one(server: Process, target: Target, seconds: float) -> tuple[float, float]:
    """Return requests a second, and the server's CPU seconds a request."""
    before = server.cpu_seconds
    rate = await requests_per_second(target, connections=CONNECTIONS, seconds=seconds)
    cpu = (server.cpu_seconds - before) / (rate * seconds)
    print(f"    {target.name:34} {rate:8.0f} requests/s {cpu * 1e6:7.1f} us of CPU each")
    return rate, cpu


def run(folder: Path, *, rounds: int = 5, seconds: float = 1.0) -> None:
    """Measure and print."""
    print(f"Cached reads, {len(BODY)} bytes, {CONNECTIONS} connections, share of a bare ASGI application,")
    print(
        "by throughput (the load generator has the other core) and by the server's CPU time; medians, with the spread:"
    )
    for name, shares in uvloop.run(measure(folder, rounds=rounds, seconds=seconds)).items():
        columns = [sorted(column) for column in zip(*shares, strict=True)]
        shown = [f"{statistics.median(each):5.2f} ({each[0]:.2f} to {each[-1]:.2f})" for each in columns]
        print(f"  {name:36} {'  '.join(shown)}")
