"""What a process finds that starts on a file which another one has prepared."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

INSTALL = """
import sys
from reactive_rpc.backends.sqlite.capture.backend import SQLiteCapture
from reactive_rpc.clock import RandomIds
print(SQLiteCapture(sys.argv[1], ids=RandomIds()).install().epoch)
"""


def test_every_process_finds_the_same_epoch(tmp_path: Path) -> None:
    """Whatever order a process keeps its sets in, a table that nobody altered looks unaltered: no epoch ends."""
    database = tmp_path / "people.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE person (id TEXT PRIMARY KEY, email TEXT UNIQUE, name TEXT UNIQUE)")
    epochs = {
        subprocess.run(
            [sys.executable, "-c", INSTALL, str(database)],
            env={"PYTHONHASHSEED": str(seed)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in range(1, 7)
    }
    assert len(epochs) == 1
