"""A cached query over tRPC's wire, alone and as a batch of ten: against the same query on tRPC's own server for Node.

That one keeps its result in a Map, for ever, and asks nobody whether it is still right. Each server has one core, the
load generator the other.
"""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final
from urllib.parse import quote

import uvloop

from benchmarks.load import Target, answer_of, requests_per_second
from benchmarks.processes import Process, served, started
from reactive_rpc.testing.ports import free_port
from tests.support.node import node_command

CONNECTIONS: Final = 32
BATCH: Final = 10
BAR: Final = 4.0
NODE_SERVER: Final = Path(__file__).with_name("trpc_server.ts")


def _get(path: str, input: object) -> bytes:
    return f"GET {path}input={quote(json.dumps(input, separators=(',', ':')))} HTTP/1.1\r\nhost: bench\r\n\r\n".encode()


def requests() -> Mapping[str, bytes]:
    """Return `{what it is: request}`, as the links of tRPC's client send them."""
    batch = ",".join(["notes.get_all"] * BATCH)
    return {
        "one query": _get("/trpc/notes.get_all?", {"room": "a"}),
        f"a batch of {BATCH}": _get(f"/trpc/{batch}?batch=1&", {str(n): {"room": "a"} for n in range(BATCH)}),
    }


async def measure(folder: Path, *, rounds: int, seconds: float) -> dict[str, tuple[float, float]]:
    """Return `{request: (throughput over that of Node, CPU time of Node over ours)}`, medians."""
    database = folder / "trpc.db"
    with ExitStack() as stack:
        ports = {"node": free_port(), "reactive_rpc": free_port()}
        servers = {
            "node": stack.enter_context(
                started(node_command(NODE_SERVER), ports["node"], environment={"PORT": str(ports["node"])})
            ),
            "reactive_rpc": stack.enter_context(
                served("benchmarks.servers:reactive", ports["reactive_rpc"], {"BENCH_DATABASE": str(database)})
            ),
        }
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("INSERT INTO note (room, text) VALUES ('a', ?)", ("x" * 300,))
        _give_a_core_each([server.pid for server in servers.values()])
        await _require_same_answers(ports)
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in requests()}
        for _ in range(rounds):
            for name, request in requests().items():
                measured = {
                    server: await _measure_one(process, Target(f"{server}: {name}", ports[server], request), seconds)
                    for server, process in servers.items()
                }
                (node_rate, node_cpu), (rate, cpu) = measured.values()
                found[name].append((rate / node_rate, node_cpu / cpu))
    return {name: tuple(map(statistics.median, zip(*values, strict=True))) for name, values in found.items()}


def _give_a_core_each(pids: list[int]) -> None:
    """Put the servers, which are measured in turn, onto one core, and this process onto another."""
    first, *others = sorted(os.sched_getaffinity(0))
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {first})
    os.sched_setaffinity(0, set(others) or {first})


async def _require_same_answers(ports: Mapping[str, int]) -> None:
    """Refuse to compare servers that say something else.

    Raises:
        RuntimeError: they do.
    """
    for name, request in requests().items():
        said = [json.loads(_body(await answer_of(Target(name, port, request)))) for port in ports.values()]
        if said[0] != said[1]:
            raise RuntimeError(f"the servers differ: {said!r}")


def _body(answer: bytes) -> bytes:
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"chunked" not in head.lower():
        return body
    parts = []
    while body:
        size, _, body = body.partition(b"\r\n")
        parts.append(body[: int(size, 16)])
        body = body[int(size, 16) + 2 :]
    return b"".join(parts)


async def _measure_one(server: Process, target: Target, seconds: float) -> tuple[float, float]:
    """Return requests a second, and the server's CPU seconds a request."""
    before = server.cpu_seconds
    rate = await requests_per_second(target, connections=CONNECTIONS, seconds=seconds)
    cpu = (server.cpu_seconds - before) / (rate * seconds)
    print(f"    {target.name:28} {rate:8.0f} requests/s {cpu * 1e6:7.1f} us of CPU each")
    return rate, cpu


def run(folder: Path, *, rounds: int = 5, seconds: float = 2.0) -> None:
    """Measure and print."""
    print(f"Over tRPC's wire, {CONNECTIONS} connections, against tRPC's server for Node with a Map; bar {BAR:g}:")
    for name, (rate, cpu) in uvloop.run(measure(folder, rounds=rounds, seconds=seconds)).items():
        print(f"  {name:14} {rate:5.1f} times its throughput {cpu:5.1f} times by CPU time")
