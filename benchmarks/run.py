"""Run every benchmark and print the ratios: `python -m benchmarks.run [reads] [writes] [index] [precision]`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import index, precision, reads, writes

BENCHMARKS: dict[str, Callable[[Path], None]] = {
    "reads": reads.run,
    "writes": writes.run,
    "index": index.run,
    "precision": precision.run,
}


def main(names: list[str]) -> None:
    """Run those named, or all."""
    for name in names or list(BENCHMARKS):
        with tempfile.TemporaryDirectory() as folder:
            BENCHMARKS[name](Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
