"""A writer that knows nothing of the project, in a process of its own: `python -m faults.writer URL NUMBER OF`.

It counts up the rows that are its own, every `OF`-th, one commit each, while the last line it was sent was `go SEED`. A
commit is one JSON object a line, as `books.Commit` has it; after `rest` it finishes what it has begun and prints `{}`.

A database that is away fails it in any statement, COMMIT among them. As nobody else writes to its rows, it sees
afterwards whether a commit that was not acknowledged was done all the same.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from typing import Any

from tests.faults.database import BUSY_GROUPS, FAULTS, GROUPS, ROWS_OF, Writing, opened, value_of
from tests.support.waiting import idle_thread

PAUSE_SECONDS = (0.02, 0.12)
QUIET_SHARE = 0.07
RETRY_SECONDS = 0.1
REFUSED = "the database cannot be reached, and is asked again without haste"


class Writer:
    """Counts up and tells."""

    def __init__(self, url: str, number: int, of: int) -> None:
        self._url = url
        self._rows = {group: sorted(ROWS_OF[group])[number::of] for group in range(GROUPS)}
        self._reported: dict[int, int] = {}
        self._orders = threading.Condition()
        self._seed: str | None = None
        self._is_over = False

    def listen(self) -> None:
        """Take orders until there are no more."""
        for line in sys.stdin:
            word, _, seed = line.strip().partition(" ")
            with self._orders:
                self._seed = seed if word == "go" else None
                self._orders.notify()
        with self._orders:
            self._is_over, self._seed = True, None
            self._orders.notify()

    def work(self) -> None:
        """Write whenever that is ordered."""
        while not self._is_over:
            with self._orders:
                self._orders.wait_for(lambda: self._seed is not None or self._is_over)
                rng = random.Random(self._seed)
            while self._seed is not None:
                self._write(rng)
            emit({})

    def _write(self, rng: random.Random) -> None:
        """Write over one connection until it fails, or until it is time to rest."""
        try:
            with opened(self._url) as count:
                while self._seed is not None:
                    self._count(count, self._draw(rng))
                    idle_thread(rng.uniform(*PAUSE_SECONDS), because="writes come one after another")
        except FAULTS:
            idle_thread(RETRY_SECONDS, because=REFUSED)

    def _draw(self, rng: random.Random) -> int:
        is_quiet = rng.random() < QUIET_SHARE
        group = rng.randrange(BUSY_GROUPS, GROUPS) if is_quiet else rng.randrange(BUSY_GROUPS)
        return rng.choice(self._rows[group])

    def _count(self, count: Writing, row: int) -> None:
        began = time.monotonic()
        try:
            value, before, after = count(row)
        except FAULTS:
            self._find_out(row, began)
            raise
        self._report(row, value, began, before, after)

    def _find_out(self, row: int, began: float) -> None:
        """Tell of a commit that was not acknowledged if it was done all the same."""
        while True:
            try:
                value, after = value_of(self._url, row)
            except FAULTS:
                idle_thread(RETRY_SECONDS, because=REFUSED)
                continue
            if value > self._reported.get(row, 0):
                self._report(row, value, began, 0, after)
            return

    def _report(self, row: int, value: int, began: float, before: int, after: int) -> None:
        acknowledged = time.monotonic()
        self._reported[row] = value
        emit({"row": row, "n": value, "began": began, "acknowledged": acknowledged, "before": before, "after": after})


def emit(what: dict[str, Any]) -> None:
    """Print one line."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main(url: str, number: str, of: str) -> None:
    """Write when told to, until nobody tells any more."""
    writer = Writer(url, int(number), int(of))
    working = threading.Thread(target=writer.work)
    working.start()
    writer.listen()
    working.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
