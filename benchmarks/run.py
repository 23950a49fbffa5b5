"""Run every benchmark and print the ratios, or those named: `python -m benchmarks.run reads fanout`.

Each runs in a process of its own: several define tables of one name.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

BENCHMARKS = (
    "reads",
    "trpc",
    "reload",
    "browsers",
    "writes",
    "bulk",
    "misses",
    "index",
    "precision",
    "workload",
    "fanout",
    "fanout_acked",
    "fanout_events",
    "fanout_sets",
    "fanout_idle",
    "wake_up",
    "commit_to_clients",
    "relay",
    "scale",
    "scale_hosts",
    "paths",
    "type_checks",
)


def main(names: list[str]) -> None:
    """Run the one that is named, or several, one after another."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise SystemExit(f"there is no benchmark {unknown[0]!r}: {', '.join(BENCHMARKS)}")
    if len(names) == 1:
        with tempfile.TemporaryDirectory() as folder:
            import_module(f"benchmarks.{names[0]}").run(Path(folder))
        return
    for name in names or BENCHMARKS:
        subprocess.run([sys.executable, "-m", "benchmarks.run", name], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
