"""One event to many streams that acknowledge, and watch several queries each, beside nchan in the same rounds.

After each event all clients acknowledge it, as clients do that gather acknowledgements for a quarter of a second.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks.fanout import HEAD, Target, measure, peer, reactive, report
from benchmarks.fanout_clients import Clients
from benchmarks.processes import raise_file_limit

__all__ = ["run"]

STREAMS = 5_000
ROUNDS = 7
ROOMS = tuple("abcdefghij")


def _targets(folder: Path, stack: ExitStack, streams: int) -> list[Target]:
    return [
        reactive(folder, stack, name="1 query"),
        reactive(folder, stack, name="1 query, acknowledged", acks=True),
        reactive(folder, stack, name="10 queries, acknowledged", acks=True, rooms=ROOMS),
        reactive(folder, stack, name="10 queries, 5 touched, acknowledged", acks=True, rooms=ROOMS, touched=5),
        *peer(folder, stack, streams),
    ]


def _afterwards(target: Target, held: Clients) -> float:
    """Let the clients acknowledge; return how many seconds that took."""
    return held.exchange(target.port) if target.name.endswith("acknowledged") else 0.0


def run(folder: Path, *, streams: int = STREAMS, rounds: int = ROUNDS) -> None:
    """Measure and print."""
    raise_file_limit(streams + 1_000)
    load = os.getloadavg()[0]
    print(f"One event to {streams:,} streams, {rounds} rounds in turn; ms since the trigger; load {load:.1f}:\n")
    print(HEAD)
    make_targets = partial(_targets, folder, streams=streams)
    for line in report(measure(make_targets, streams=streams, rounds=rounds, after=_afterwards)):
        print(line, flush=True)
    print()
