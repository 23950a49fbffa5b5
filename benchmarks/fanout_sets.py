"""What an open stream costs, by what it watches: results that all streams share, or results of its own."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from benchmarks.fanout import Measured, event_request, opened, reactive
from benchmarks.fanout_clients import NUMBER, clients
from benchmarks.processes import raise_file_limit

__all__ = ["run"]

STREAMS = 2_000


def _shared(count: int) -> list[str]:
    return [f"room {n}" for n in range(count)]


def _own(count: int) -> list[str]:
    return [f"room {n} of {NUMBER.decode()}" for n in range(count)]


SETS = {
    "1 that all watch": _shared(1),
    "10 that all watch": _shared(10),
    "1 of its own": _own(1),
    "10 of its own": _own(10),
}


def _measure(folder: Path, rooms: list[str], streams: int) -> Measured:
    with ExitStack() as stack:
        target = reactive(folder, stack)
        target.request = event_request("messages.get_all", rooms)
        return opened(target, stack.enter_context(clients()), streams)


def run(folder: Path, *, streams: int = STREAMS) -> None:
    """Measure and print."""
    raise_file_limit(streams + 1_000)
    load = os.getloadavg()[0]
    print(f"What an open stream costs by what it watches, {streams:,} streams; load of the machine {load:.1f}:\n")
    print("| results | kB a stream | opening a stream, CPU |")
    print("|---|---|---|")
    for name, rooms in SETS.items():
        measured = _measure(folder, rooms, streams)
        kilobytes = (measured.bytes_opened - measured.bytes_before) / streams / 1e3
        print(f"| {name} | {kilobytes:.1f} | {measured.open_cpu_seconds / streams * 1e3:.2f} ms |", flush=True)
    print()
