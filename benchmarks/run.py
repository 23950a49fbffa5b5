"""Run every benchmark and print the ratios, or those named: `python -m benchmarks.run reads fanout`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import (
    commit_to_clients,
    fanout,
    fanout_events,
    fanout_idle,
    fanout_sets,
    index,
    paths,
    precision,
    reads,
    relay,
    writes,
)

BENCHMARKS: dict[str, Callable[[Path], None]] = {
    "reads": reads.run,
    "writes": writes.run,
    "index": index.run,
    "precision": precision.run,
    "fanout": fanout.run,
    "fanout_events": fanout_events.run,
    "fanout_sets": fanout_sets.run,
    "fanout_idle": fanout_idle.run,
    "commit_to_clients": commit_to_clients.run,
    "relay": relay.run,
    "paths": paths.run,
}


def main(names: list[str]) -> None:
    """Run those named, or all."""
    for name in names or list(BENCHMARKS):
        with tempfile.TemporaryDirectory() as folder:
            BENCHMARKS[name](Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
