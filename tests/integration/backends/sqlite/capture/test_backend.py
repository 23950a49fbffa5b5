"""Installing, verifying and pruning capture on real files, by real processes."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from reactive_rpc.backends.sqlite.capture.backend import PRUNE_CHUNK_ROWS, SQLiteCapture
from reactive_rpc.clock import RandomIds
from reactive_rpc.errors import CaptureError
from tests.support.processes import ROOT

from .conftest import MakeCapturedFile

INSTALL = """
import sys
from reactive_rpc.backends.sqlite.capture.backend import SQLiteCapture
from reactive_rpc.clock import RandomIds
sys.stdin.readline()
state = SQLiteCapture(sys.argv[1], ids=RandomIds(), busy_timeout_seconds=60).install()
print(state.epoch, state.schema_fingerprint)
"""


def _capture(path: Path, *, manage: bool = True) -> SQLiteCapture:
    return SQLiteCapture(path, ids=RandomIds(), manage=manage)


def test_processes_may_install_at_once(tmp_path: Path) -> None:
    """Three processes that install a fresh file at the same moment end up with one epoch and one schema version."""
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("".join(f"CREATE TABLE t{n} (id INTEGER PRIMARY KEY, n INTEGER);" for n in range(10)))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", INSTALL, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(ROOT)},
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = {process.communicate()[0] for process in processes}
    assert len(answers) == 1
    state = _capture(path).verify()
    assert answers == {f"{state.epoch} {state.schema_fingerprint}\n"}


def test_installing_again_changes_nothing(make_world: MakeCapturedFile) -> None:
    """A second install finds everything in place and writes nothing at all."""
    world = make_world("CREATE TABLE t (id INTEGER PRIMARY KEY); CREATE TABLE w (k TEXT PRIMARY KEY) WITHOUT ROWID;")
    before = world.writer.execute("PRAGMA data_version").fetchone()
    assert world.capture.install() == world.state
    assert world.capture.verify() == world.state
    assert world.writer.execute("PRAGMA data_version").fetchone() == before


def test_an_older_trigger_is_replaced(make_world: MakeCapturedFile) -> None:
    """A trigger with other text than expected is replaced, and a new epoch begins."""
    world = make_world("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    world.writer.executescript(
        "DROP TRIGGER _reactive_rpc_delete_t;"
        " CREATE TRIGGER _reactive_rpc_delete_t AFTER DELETE ON t BEGIN SELECT 1; END"
    )
    with pytest.raises(CaptureError, match='DROP TRIGGER "_reactive_rpc_delete_t"'):
        world.capture.verify()
    assert world.capture.install().epoch != world.state.epoch


def test_an_administrator_can_install(tmp_path: Path) -> None:
    """Without `manage` nothing is run; the SQL that the errors print is enough, step by step."""
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
        capture = _capture(path, manage=False)
        for _ in range(2):
            with pytest.raises(CaptureError, match=r"[Rr]un:") as caught:
                capture.install()
            connection.executescript(str(caught.value).split(":\n", 1)[1])
    state = capture.install()
    assert state.captured("t")
    with pytest.raises(CaptureError, match="DROP TRIGGER"):
        capture.uninstall()


def test_uninstall_leaves_nothing(make_world: MakeCapturedFile) -> None:
    """Uninstalling drops all that install made, twice without harm, and a column can then be dropped."""
    world = make_world("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER)")
    with pytest.raises(sqlite3.OperationalError, match="_reactive_rpc_"):
        world.writer.execute("ALTER TABLE t DROP COLUMN n")
    world.capture.uninstall()
    world.capture.uninstall()
    assert world.writer.execute("SELECT name FROM sqlite_schema WHERE name LIKE '%reactive%'").fetchall() == []
    world.writer.execute("ALTER TABLE t DROP COLUMN n")
    assert world.capture.install().epoch != world.state.epoch


@pytest.mark.parametrize("path", [":memory:", "", "file:x.db?mode=memory"])
def test_memory_is_refused(path: str) -> None:
    """A database that no other connection can see is refused, with the way out."""
    with pytest.raises(CaptureError, match="Give the plain path"):
        SQLiteCapture(path, ids=RandomIds())


def test_virtual_and_shadow_tables_are_not_captured(
    make_world: MakeCapturedFile, caplog: pytest.LogCaptureFixture
) -> None:
    """Virtual tables and their shadows are left alone, said why, and a warning is logged; their neighbours are seen."""
    with caplog.at_level(logging.WARNING):
        world = make_world(
            "CREATE VIRTUAL TABLE docs USING fts5(body); CREATE TABLE docs_mine (id INTEGER PRIMARY KEY)"
        )
    assert world.state.tables["docs"].reason == "a virtual table has no triggers"
    assert not world.state.captured("docs_data")
    assert world.state.captured("docs_mine")
    assert not world.state.captured("no such table")
    assert "'docs' is not captured" in caplog.text


def test_kinds_follow_affinity_and_collation(make_world: MakeCapturedFile) -> None:
    """A column has a kind only where its image is exact: no JSON, blob, generated column, or text under a collation."""
    world = make_world(
        """
        CREATE TABLE plain (id INTEGER PRIMARY KEY, t VARCHAR(9), r DOUBLE, n DECIMAL(9, 2), j JSON, b BLOB, o,
          g INTEGER AS (id + 1), c TEXT COLLATE BINARY);
        CREATE TABLE folded (id INTEGER PRIMARY KEY, t TEXT collate nocase, r REAL, n NUMERIC);
        """
    )
    plain, folded = world.state.tables["plain"], world.state.tables["folded"]
    assert plain.kinds == {
        "id": "integer",
        "t": "text",
        "r": "real",
        "n": "numeric",
        "j": None,
        "b": None,
        "o": None,
        "g": None,
        "c": "text",
    }
    assert plain.image == ("id", "t", "r", "n", "c")
    assert folded.kinds == {"id": "integer", "t": None, "r": "real", "n": None}
    assert world.state.kind("plain", "T") is None, "names are exact"
    assert world.state.kind("none", "t") is None


def test_foreign_keys_are_resolved(make_world: MakeCapturedFile) -> None:
    """Foreign keys name the referred table as it is spelled, and its primary key where none is given."""
    world = make_world(
        """
        CREATE TABLE Parent (a INTEGER, b INTEGER, PRIMARY KEY (b, a));
        CREATE TABLE child (id INTEGER PRIMARY KEY, x INTEGER, y INTEGER, z INTEGER REFERENCES nowhere(id),
          FOREIGN KEY (x, y) REFERENCES parent);
        """
    )
    child = world.state.tables["child"]
    assert sorted(child.foreign_keys) == [("x", "Parent", "b"), ("y", "Parent", "a")]
    assert set(child.key_columns) == {"id", "x", "y", "z"}
    assert child.key_columns[0] == "id"


def test_prune_deletes_old_rows_only(make_world: MakeCapturedFile) -> None:
    """Pruning takes the rows older than asked, over several chunks, raises the floor, and keeps the young."""
    rows = PRUNE_CHUNK_ROWS * 2 + 5
    world = make_world("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    world.writer.execute(
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < ?) INSERT INTO t SELECT n FROM c",
        (rows,),
    )
    assert world.capture.prune(60) == 0
    world.writer.execute("UPDATE _reactive_rpc_outbox SET at = at - 3600")
    world.writer.execute("DELETE FROM t WHERE id = 1")
    last = world.writer.execute("SELECT max(id) FROM _reactive_rpc_outbox").fetchone()[0]
    assert world.capture.prune(60) == last - 1
    assert world.writer.execute("SELECT id FROM _reactive_rpc_outbox").fetchall() == [(last,)]
    assert world.writer.execute("SELECT value FROM _reactive_rpc_meta WHERE key = 'floor'").fetchone() == (
        str(last - 1),
    )
    assert world.capture.install().epoch == world.state.epoch
