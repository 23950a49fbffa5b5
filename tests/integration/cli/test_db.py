"""`reactive-rpc db`: capture put in, looked at, and taken out again, on both databases."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from reactive_rpc.testing.postgresql import PostgreSQL

from .test_cli import run

TABLE = "CREATE TABLE note (id INTEGER PRIMARY KEY, text VARCHAR(20))"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a database with one table."""
    if request.param == "sqlite":
        with closing(sqlite3.connect(_wal_file(tmp_path / "notes.db"))) as file:
            file.execute(TABLE)
        return f"sqlite:///{tmp_path / 'notes.db'}"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    url = server.new_database()
    with psycopg.connect(url.replace("+asyncpg", "")) as connection:
        connection.execute(TABLE)
    return url


def _wal_file(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA journal_mode=WAL")
    return path


def test_install_verify_uninstall(url: str, tmp_path: Path) -> None:
    """Each does what it says, twice as well as once, and `verify` tells what is missing with the SQL for it."""
    missing = run(tmp_path, "db", "verify", url)
    assert missing.returncode == 1
    assert "capture is not in place" in missing.stdout
    assert "note" in missing.stdout
    assert "BEGIN" not in missing.stdout + missing.stderr
    assert all(len(line) < 120 for line in missing.stdout.splitlines())
    assert "Traceback" not in missing.stderr
    as_data = run(tmp_path, "db", "verify", url, "--format", "json")
    assert (as_data.returncode, json.loads(as_data.stdout)["ok"]) == (1, False)
    assert len(json.loads(as_data.stdout)["findings"]) == len(missing.stdout.splitlines())
    for command in ("install", "install", "verify"):
        found = run(tmp_path, "db", command, url)
        assert found.returncode == 0, found.stderr
        assert "1 of 1 tables are captured" in found.stdout
    found = json.loads(run(tmp_path, "db", "verify", url, "--format", "json").stdout)
    assert (found["ok"], found["tables"], found["captured"], found["findings"]) == (True, 1, 1, [])
    nothing = run(tmp_path, "db", "install", url, "--sql")
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "nothing is missing" in nothing.stderr
    for _ in range(2):
        assert run(tmp_path, "db", "uninstall", url).returncode == 0
    assert run(tmp_path, "db", "verify", url).returncode == 1


def test_a_database_without_tables_is_spoken_of(tmp_path: Path) -> None:
    """Silence would leave open whether anything was done: both say that capture stands, and that there is no table."""
    for command in ("install", "verify"):
        found = run(tmp_path, "db", command, f"sqlite:///{_wal_file(tmp_path / 'empty.db')}")
        assert (found.returncode, found.stderr) == (0, "")
        assert "capture is in place, and there is no table yet" in found.stdout


def test_the_script_is_what_install_runs(url: str, tmp_path: Path) -> None:
    """`install --sql` runs nothing; an administrator who runs what it prints has installed capture."""
    script = run(tmp_path, "db", "install", url, "--sql").stdout
    assert run(tmp_path, "db", "verify", url).returncode == 1
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(tmp_path / "notes.db")) as file:
            file.executescript(script)
    else:
        with psycopg.connect(url.replace("+asyncpg", ""), autocommit=True) as connection:
            connection.execute(script.encode())
    found = run(tmp_path, "db", "verify", url)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nonsense", "no database URL"),
        ("postgresql://127.0.0.1:1/none", "cannot be read or written"),
        ("oracle://x/y", "triggers are known for SQLite"),
    ],
)
def test_a_wrong_database_is_told(tmp_path: Path, url: str, expected: str) -> None:
    """One sentence, code 1, no traceback."""
    found = run(tmp_path, "db", "verify", url)
    assert found.returncode == 1
    assert expected in found.stderr
    assert "Traceback" not in found.stderr


PROGRAM = """
from reactive_rpc import Capture, ReactiveRPC

rpc = ReactiveRPC({url!r}, functions={{}}, capture=Capture(mode="installed", exclude=["note.text"]))
other = 7
"""


def test_an_application_says_what_is_copied(url: str, tmp_path: Path) -> None:
    """`--rpc` installs by its `Capture(exclude=)`: what was installed without is put right, and verified."""
    (tmp_path / "main.py").write_text(PROGRAM.format(url=url.replace("sqlite:", "sqlite+aiosqlite:")))
    assert run(tmp_path, "db", "install", url).returncode == 0
    assert run(tmp_path, "db", "verify", url, "--rpc", "main:rpc").returncode == 1
    script = run(tmp_path, "db", "install", url, "--sql", "--rpc", "main:rpc")
    assert (script.returncode, script.stdout.count("CREATE ") > 0) == (0, True), script.stderr
    installed = run(tmp_path, "db", "install", url, "--rpc", "main:rpc")
    assert installed.returncode == 0, installed.stderr
    for options in ((), ("--rpc", "main:rpc")):
        assert run(tmp_path, "db", "verify", url, *options).returncode == 0
    wrong = run(tmp_path, "db", "install", url, "--rpc", "main:other")
    assert (wrong.returncode, "is a int, not a ReactiveRPC" in wrong.stderr) == (1, True)
