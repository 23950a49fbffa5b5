"""What a newcomer runs first: the seed and the demo."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from app.seed import seed
from app.welcome import welcome

COUNTS = {"organization": 50, "user": 52, "agent": 1_000, "tool": 250, "message": 20_000, "memory": 10_000}


def dump(database: Path) -> list[str]:
    """Return the content as SQL, but for the users: the salt of their password's hash is new each time."""
    with closing(sqlite3.connect(database)) as connection:
        return [line for line in connection.iterdump() if 'INSERT INTO "user"' not in line]


def test_the_demo_shows_both_writes() -> None:
    """It ends by itself with code 0 after the watcher has shown the mutation and the other process's write."""
    command = [sys.executable, "-m", "app.demo"]
    answer = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)

    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "Renamed elsewhere" in answer.stdout
    assert answer.stderr == ""


def test_a_seed_of_the_same_moment_is_the_same_each_time(tmp_path: Path) -> None:
    """Two databases hold the same rows, as many as promised, and no foreign key that leads nowhere."""
    until = datetime(2026, 1, 15, tzinfo=UTC)
    one, other = tmp_path / "one.db", tmp_path / "other.db"
    assert seed(one, until=until)
    assert seed(other, until=until)

    assert dump(one) == dump(other)
    with closing(sqlite3.connect(one)) as connection:
        counts = {table: connection.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0] for table in COUNTS}
        assert counts == COUNTS
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def test_seeding_again_changes_nothing(database: Path) -> None:
    """A database with organizations is left as it is, also where rows were deleted from it."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DELETE FROM memory")
        connection.commit()

    assert not seed(database)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT count(*) FROM memory").fetchone()[0] == 0


def test_no_message_of_the_seed_crosses_a_border(seeded: Path) -> None:
    """Seeded messages stay inside one organization, as sent ones do."""
    with closing(sqlite3.connect(seeded)) as connection:
        crossing = connection.execute(
            """SELECT count(*) FROM message
            JOIN agent AS sender ON sender.id = from_agent_id
            JOIN agent AS recipient ON recipient.id = to_agent_id
            WHERE sender.organization_id <> recipient.organization_id"""
        )
        assert crossing.fetchone()[0] == 0


def test_the_welcome_names_the_server() -> None:
    """Every command that `make run` prints goes to the server that it starts."""
    text = welcome("http://127.0.0.1:4711")

    assert text.count("curl -sS") == text.count("http://127.0.0.1:4711") - 2
    assert subprocess.run(["bash", "-n"], input="\n".join(commands(text)), text=True, check=True).returncode == 0


def test_importing_the_application_needs_no_database(tmp_path: Path) -> None:
    """The OpenAPI document can be exported in a fresh clone, and leaves no file behind."""
    environment = {**os.environ, "TEAMHUB_DATABASE": str(tmp_path / "absent.db")}
    subprocess.run(
        [sys.executable, "-c", "from app.main import app; assert app.openapi()['info']['title'] == 'TeamHub'"],
        env=environment,
        check=True,
    )
    assert list(tmp_path.iterdir()) == []


def commands(text: str) -> list[str]:
    """Return the indented lines."""
    return [line for line in text.splitlines() if line.startswith("  ")]
