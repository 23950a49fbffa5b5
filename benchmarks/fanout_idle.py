"""What idle streams cost: nothing but their heartbeats, one in three quarters of `heartbeat_seconds`."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.fanout import opened, reactive
from benchmarks.fanout_clients import clients
from benchmarks.processes import raise_file_limit

__all__ = ["run"]

STREAMS = 10_000
SECONDS = 50.0
HEARTBEATS = (0.0, 25.0, 2.5)


def _idle_cpu_seconds(folder: Path, heartbeat_seconds: float, streams: int) -> float:
    """Return the server's CPU time a second, with streams that nobody has anything to tell."""
    environment = {
        "REACTIVE_RPC_HEARTBEAT_SECONDS": str(heartbeat_seconds),
        "REACTIVE_RPC_POLL_INTERVAL_SECONDS": "1",  # looks at the log would hide the rest
        "REACTIVE_RPC_RECHECK_SECONDS": "0",
    }
    with ExitStack() as stack:
        target = reactive(folder, stack, environment=environment)
        opened(target, stack.enter_context(clients()), streams)
        before = target.process.cpu_seconds
        time.sleep(SECONDS)
        return (target.process.cpu_seconds - before) / SECONDS


def run(folder: Path, *, streams: int = STREAMS) -> None:
    """Measure and print."""
    raise_file_limit(streams + 1_000)
    print(f"{streams:,} idle streams, for {SECONDS:g} s each; load of the machine {os.getloadavg()[0]:.1f}:\n")
    print("| heartbeat_seconds | server's CPU | a heartbeat |")
    print("|---|---|---|")
    without = 0.0
    for seconds in HEARTBEATS:
        used = _idle_cpu_seconds(folder, seconds, streams)
        without = used if not seconds else without
        each = f"{(used - without) * seconds * 0.75 / streams * 1e6:.0f} us" if seconds else ""
        print(f"| {seconds:g} | {used:.2%} of a core | {each} |", flush=True)
    print()
