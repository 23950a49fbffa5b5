"""What one event costs, by its kind: an invalidation that all fetch after, one that all acknowledge, a pushed result.

Each kind has a server and streams of its own. After each event the clients do what that kind leaves them to do, through
keep-alive connections that they share: fetch the result, acknowledge the event, or nothing.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks.fanout import Measured, Target, measure, reactive
from benchmarks.fanout_clients import Clients, get_request
from benchmarks.processes import raise_file_limit

__all__ = ["run"]

STREAMS = 2_000
ROUNDS = 7
SMALL_BYTES, LARGE_BYTES = 300, 4_000

FETCHED, ACKNOWLEDGED, PUSHED = "invalidation, fetched by all", "invalidation, acknowledged by all", "result"


def _targets(folder: Path, stack: ExitStack) -> list[Target]:
    found = [reactive(folder, stack, name=ACKNOWLEDGED, acks=True)]
    for size in (SMALL_BYTES, LARGE_BYTES):
        found += [
            reactive(folder, stack, name=f"{FETCHED}, text of {size:,} B", text_bytes=size),
            reactive(
                folder,
                stack,
                name=f"{PUSHED}, text of {size:,} B",
                query="messages.get_pushed",
                text_bytes=size,
                marker=b"event: result",
            ),
        ]
    return found


def _afterwards(target: Target, held: Clients) -> float:
    """Let the clients do what the event leaves them to do; return how many seconds that took."""
    if target.name == ACKNOWLEDGED:
        return held.exchange(target.port)
    if target.name.startswith(FETCHED):
        return held.exchange(target.port, get_request("/rpc/messages.get_all?room=a", accept="application/json"))
    return 0.0


def report(found: Mapping[str, Measured]) -> Iterator[str]:
    """Yield a table; microseconds are the server's CPU time, for each stream."""
    yield "| event | bytes | last receipt | CPU | then all are served in | CPU | CPU, in all |"
    yield "|---|---|---|---|---|---|---|"
    for name, measured in found.items():
        event = measured.median(lambda each: each.cpu_seconds) / measured.streams * 1e6
        seconds, cpu_seconds = (statistics.median(figures) for figures in zip(*measured.after, strict=True))
        then = cpu_seconds / measured.streams * 1e6
        size = measured.median(lambda each: each.receipts.size_bytes) / measured.streams
        yield (
            f"| {name} | {size:.0f} | {measured.read_ms(1):.0f} ms | {event:.0f} us | {seconds * 1e3:.0f} ms"
            f" | {then:.0f} us | {event + then:.0f} us |"
        )


def run(folder: Path, *, streams: int = STREAMS, rounds: int = ROUNDS) -> None:
    """Measure and print."""
    raise_file_limit(streams + 1_000)
    load = os.getloadavg()[0]
    print(f"What an event costs, {streams:,} streams, {rounds} rounds in turn; load of the machine {load:.1f}:\n")
    found = measure(partial(_targets, folder), streams=streams, rounds=rounds, after=_afterwards)
    for line in report(found):
        print(line, flush=True)
    print()
