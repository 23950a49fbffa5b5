"""A writer in a process of its own: reads a seed a line, writes what the generator makes of it, answers a line."""

from __future__ import annotations

import sys

from tests.integration.soundness.writers import plain_engine, write_seed


def main(path: str) -> None:
    """Serve seeds until the input ends."""
    engine = plain_engine(path)
    for line in sys.stdin:
        write_seed(engine, line.strip())
        sys.stdout.write("done\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
