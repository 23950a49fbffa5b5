"""Every shape of a write on SQLite, against a diff of whole tables."""

from __future__ import annotations

import math
import random
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import pytest

from reactive_rpc.dependencies.change import UNKNOWN, Change

from .conftest import CapturedFile, MakeCapturedFile

TEAM = """
CREATE TABLE team (id INTEGER PRIMARY KEY, name TEXT UNIQUE COLLATE NOCASE, size INTEGER, score REAL, note TEXT);
CREATE TABLE agent (
  id TEXT PRIMARY KEY, team_id INTEGER REFERENCES team(id) ON DELETE CASCADE ON UPDATE CASCADE,
  boss TEXT REFERENCES agent(id) ON DELETE SET NULL, a INTEGER, b INTEGER, UNIQUE (a, b)
);
CREATE TABLE task (
  n INTEGER PRIMARY KEY, agent_id TEXT REFERENCES agent ON DELETE SET NULL ON UPDATE CASCADE,
  title TEXT, half AS (n / 2), twice AS (n * 2) STORED
);
CREATE TABLE pair (x INTEGER, y TEXT, v NUMERIC, u INTEGER UNIQUE, PRIMARY KEY (x, y)) WITHOUT ROWID;
CREATE TABLE bag (a, b TEXT, c INTEGER);
CREATE TABLE "select ""it''s"" [ö]" ("from" INTEGER PRIMARY KEY, "a b" TEXT UNIQUE, "x""y" INTEGER, "ü" REAL);
CREATE TABLE rows (rowid TEXT, id INTEGER PRIMARY KEY, n INTEGER UNIQUE);
CREATE TABLE hidden (rowid TEXT UNIQUE, _rowid_ INTEGER, oid INTEGER, k TEXT PRIMARY KEY);
CREATE TABLE replacing (id INTEGER PRIMARY KEY, u TEXT UNIQUE ON CONFLICT REPLACE, n INTEGER);
CREATE TABLE audited (id INTEGER PRIMARY KEY, n INTEGER);
CREATE TABLE audit (id INTEGER PRIMARY KEY, n INTEGER);
CREATE TRIGGER keep_audit AFTER UPDATE ON audited BEGIN INSERT INTO audit(n) VALUES (OLD.n); END;
CREATE TRIGGER echo AFTER INSERT ON audited WHEN NEW.n < 3 BEGIN INSERT INTO audited(n) VALUES (NEW.n + 1); END;
CREATE TABLE partly (id INTEGER PRIMARY KEY, u INTEGER, live INTEGER, note TEXT);
CREATE UNIQUE INDEX partly_u ON partly(u) WHERE live;
CREATE TABLE lowered (id INTEGER PRIMARY KEY, mail TEXT, n INTEGER);
CREATE UNIQUE INDEX lowered_mail ON lowered(lower(mail));
CREATE TABLE made (id INTEGER PRIMARY KEY, a INTEGER, g AS (a % 10) UNIQUE, n INTEGER);
CREATE TABLE filled (id INTEGER PRIMARY KEY, u INTEGER NOT NULL DEFAULT 7 UNIQUE, n INTEGER);
CREATE TABLE rewritten (id INTEGER PRIMARY KEY, u INTEGER UNIQUE, n INTEGER);
CREATE TRIGGER rewrites BEFORE INSERT ON rewritten WHEN NEW.n = 3 BEGIN
  UPDATE rewritten SET u = NEW.u WHERE id = 1; END;
CREATE TABLE strictly (id INTEGER PRIMARY KEY, i INT, r REAL, t TEXT, b BLOB, x ANY) STRICT;
CREATE VIEW names AS SELECT name FROM team;
"""
SEED = """
INSERT INTO team VALUES (1, 'red', 3, 0.1, 'n'), (2, 'blue', 2, 1e300, NULL), (3, 'green', NULL, NULL, '');
INSERT INTO agent VALUES ('a1', 1, NULL, 1, 1), ('a2', 1, 'a1', 1, 2), ('a3', 2, 'a2', NULL, 2), ('a4', 2, 'a1', 2, 2);
INSERT INTO task(n, agent_id, title) VALUES (1, 'a1', 't1'), (2, 'a1', 't2'), (3, 'a3', 't3'), (4, NULL, 't4');
INSERT INTO pair VALUES (1, 'p', 1, 10), (1, 'q', 2.5, 20), (2, 'p', 'x', 30);
INSERT INTO bag VALUES (1, 'b', 2), (1, 'b', 2), (x'00ff', NULL, NULL);
INSERT INTO "select ""it''s"" [ö]" VALUES (1, 'one', 1, 1.5), (2, 'two', 2, 2.5);
INSERT INTO rows VALUES ('r1', 1, 10), ('r2', 2, 20);
INSERT INTO hidden VALUES ('h1', 1, 1, 'k1'), ('h2', 2, 2, 'k2');
INSERT INTO replacing VALUES (1, 'u1', 1), (2, 'u2', 2);
INSERT INTO audited VALUES (1, 10), (2, 20);
INSERT INTO partly VALUES (1, 5, 1, 'a'), (2, 5, 0, 'b'), (3, 6, 1, 'c');
INSERT INTO lowered VALUES (1, 'A@x', 1), (2, 'b@x', 2);
INSERT INTO made(id, a, n) VALUES (1, 11, 1), (2, 12, 2);
INSERT INTO filled VALUES (1, 7, 1), (2, 8, 2);
INSERT INTO rewritten VALUES (1, 1, 1);
INSERT INTO rewritten VALUES (2, 2, 2);
INSERT INTO strictly VALUES (1, 1, 1, 't', x'01', 'any');
"""


class Shape(NamedTuple):
    """A write, and how many changes of which table it must at least be told by."""

    name: str
    sql: str
    recorded: dict[str, int]


SHAPES = [
    Shape("insert one", "INSERT INTO team VALUES (9, 'nine', 9, 0.5, 'x')", {"team": 1}),
    Shape("insert many", "INSERT INTO team(name) VALUES ('x'), ('y'), ('z')", {"team": 3}),
    Shape("insert from select", "INSERT INTO team(name, size) SELECT name || '!', size FROM team", {"team": 3}),
    Shape("insert default values", "INSERT INTO team DEFAULT VALUES", {"team": 1}),
    Shape("update one", "UPDATE team SET size = 4 WHERE id = 1", {"team": 1}),
    Shape("update many", "UPDATE team SET size = coalesce(size, 0) + 1, note = 'm'", {"team": 3}),
    Shape("update without effect", "UPDATE team SET size = size, name = name", {}),
    Shape("update case only, NOCASE", "UPDATE team SET name = 'RED' WHERE id = 1", {"team": 1}),
    Shape("update from", "UPDATE task SET title = a.id FROM agent AS a WHERE a.id = task.agent_id", {"task": 3}),
    Shape(
        "integer to text and back", "UPDATE bag SET a = '1' WHERE c = 2; UPDATE bag SET a = 1.0 WHERE c = 2", {"bag": 4}
    ),
    Shape("delete one", "DELETE FROM task WHERE n = 1", {"task": 1}),
    Shape("delete all", "DELETE FROM task", {"task": 4}),
    Shape(
        "upsert updates", "INSERT INTO team(id, name) VALUES (1, 'r') ON CONFLICT DO UPDATE SET size = 8", {"team": 1}
    ),
    Shape("upsert does nothing", "INSERT INTO team(id, name) VALUES (1, 'r') ON CONFLICT DO NOTHING", {}),
    Shape("insert or ignore", "INSERT OR IGNORE INTO team(name) VALUES ('RED'), ('new')", {"team": 1}),
    Shape("replace by rowid key", "REPLACE INTO team(id, name) VALUES (1, 'other')", {"team": 2}),
    Shape("replace by unique, NOCASE", "INSERT OR REPLACE INTO team(name, size) VALUES ('RED', 1)", {"team": 2}),
    Shape("replace two rows", "REPLACE INTO team(id, name) VALUES (1, 'blue')", {"team": 3}),
    Shape("replace by text key", "REPLACE INTO agent(id, team_id) VALUES ('a4', 3)", {"agent": 2}),
    Shape("replace by composite unique", "REPLACE INTO agent(id, a, b) VALUES ('new', 1, 2)", {"agent": 2}),
    Shape(
        "replace with cascade", "REPLACE INTO team(id, name) VALUES (2, 'again')", {"team": 2, "agent": 2, "task": 1}
    ),
    Shape("replace by hidden rowid", "REPLACE INTO bag(rowid, a) VALUES (2, 5)", {"bag": 2}),
    Shape("replace without rowid", "REPLACE INTO pair VALUES (1, 'p', 9, 20)", {"pair": 3}),
    Shape("replace where rowid is a column", "REPLACE INTO rows VALUES ('r9', 1, 20)", {"rows": 3}),
    Shape("replace where all rowids are columns", "REPLACE INTO hidden VALUES ('h2', 0, 0, 'k1')", {"hidden": 3}),
    Shape("replace by the table's own clause", "INSERT INTO replacing(u, n) VALUES ('u1', 5)", {"replacing": 2}),
    Shape("update or replace", "UPDATE OR REPLACE team SET name = 'BLUE' WHERE id = 1", {"team": 2}),
    Shape("update or replace rowid", "UPDATE OR REPLACE team SET rowid = 2 WHERE id = 3", {"team": 2, "agent": 2}),
    Shape("update or replace without rowid", "UPDATE OR REPLACE pair SET y = 'q' WHERE u = 10", {"pair": 2}),
    Shape("update or replace unique without rowid", "UPDATE OR REPLACE pair SET u = 30 WHERE u = 10", {"pair": 2}),
    Shape(
        "update or replace, rowids hidden", "UPDATE OR REPLACE hidden SET rowid = 'h2' WHERE k = 'k1'", {"hidden": 2}
    ),
    Shape("update by the table's own clause", "UPDATE replacing SET u = 'u1' WHERE id = 2", {"replacing": 2}),
    Shape("replace, partial index", "REPLACE INTO partly(u, live) VALUES (5, 1)", {"partly": 1}),
    Shape("update or replace, partial index", "UPDATE OR REPLACE partly SET live = 1 WHERE id = 2", {"partly": 1}),
    Shape("replace, index on expression", "REPLACE INTO lowered(mail) VALUES ('a@X')", {"lowered": 1}),
    Shape("replace, index on generated", "REPLACE INTO made(a) VALUES (21)", {"made": 1}),
    Shape("update or replace, index on generated", "UPDATE OR REPLACE made SET a = 21 WHERE id = 2", {"made": 1}),
    Shape("replace fills in a default", "REPLACE INTO filled(u, n) VALUES (NULL, 5)", {"filled": 1}),
    Shape("update or replace fills in", "UPDATE OR REPLACE filled SET u = NULL WHERE id = 2", {"filled": 1}),
    Shape("replace what a trigger moved", "REPLACE INTO rewritten VALUES (3, 9, 3)", {"rewritten": 1}),
    Shape("cascade on delete", "DELETE FROM team WHERE id = 1", {"team": 1, "agent": 3, "task": 2}),
    Shape("cascade to the same table", "DELETE FROM agent WHERE id = 'a1'", {"agent": 3, "task": 2}),
    Shape("cascade on update", "UPDATE team SET id = 77 WHERE id = 1", {"team": 1, "agent": 2}),
    Shape(
        "key of text changes",
        "UPDATE task SET agent_id = NULL; UPDATE agent SET id = 'z' WHERE id = 'a4'",
        {"agent": 1},
    ),
    Shape("rowid moves unseen", "UPDATE bag SET rowid = rowid + 100", {"bag": 3}),
    Shape("savepoint rolled back", "SAVEPOINT s; DELETE FROM task; ROLLBACK TO s; RELEASE s", {}),
    Shape("savepoint kept", "BEGIN; SAVEPOINT s; DELETE FROM task WHERE n = 2; RELEASE s; COMMIT", {"task": 1}),
    Shape("rolled back", "BEGIN; UPDATE team SET size = 100; DELETE FROM task; ROLLBACK", {}),
    Shape("user's trigger, other table", "UPDATE audited SET n = n + 1", {"audited": 2, "audit": 2}),
    Shape("user's trigger, same table", "INSERT INTO audited(n) VALUES (1)", {"audited": 2}),
    Shape("generated columns", "UPDATE task SET n = 50 WHERE n = 4", {"task": 1}),
    Shape("odd names", 'UPDATE "select ""it\'\'s"" [ö]" SET "x""y" = 5, "ü" = 0.1', {"select \"it''s\" [ö]": 2}),
    Shape(
        "odd names replaced",
        'REPLACE INTO "select ""it\'\'s"" [ö]" VALUES (1, \'two\', 0, 0)',
        {"select \"it''s\" [ö]": 3},
    ),
    Shape("twins without a key", "UPDATE bag SET c = 3 WHERE rowid = 1; DELETE FROM bag WHERE rowid = 2", {"bag": 2}),
    Shape("strict", "UPDATE strictly SET i = NULL, r = 2, t = '5', x = 1.5, b = x'00'", {"strictly": 1}),
    Shape("many tables at once", "BEGIN; DELETE FROM bag; UPDATE pair SET v = 0; COMMIT", {"bag": 3, "pair": 3}),
]


@pytest.mark.parametrize("recursive", [False, True], ids=["recursive_triggers off", "recursive_triggers on"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_every_row_that_truly_changed_is_told(make_world: MakeCapturedFile, shape: Shape, recursive: bool) -> None:
    """Each row that a write changed is told with right images and exact columns; an empty write tells nothing."""
    world = make_world(TEAM, SEED, recursive=recursive)
    changes = world.check(lambda: world.writer.executescript(shape.sql))
    for table, least in shape.recorded.items():
        assert sum(change.table == table for change in changes) >= least
    if not shape.recorded and "INSERT" not in shape.sql:
        assert changes == []


@pytest.mark.parametrize(
    "sql", ["UPDATE team SET note = 'n2'", "UPDATE lowered SET n = 0", "UPDATE partly SET note = ''"]
)
def test_an_update_away_from_unique_keys_stays_exact(make_world: MakeCapturedFile, sql: str) -> None:
    """An update that changes no column of a unique index logs updates and nothing else, partial indexes included."""
    world = make_world(TEAM, SEED)
    assert {change.operation for change in world.check(lambda: world.writer.execute(sql))} == {"update"}


@pytest.mark.seeded_bug
def test_a_missing_replace_trigger_shows(make_world: MakeCapturedFile) -> None:
    """Seeded bug: without the trigger before INSERT, a REPLACE loses a row unseen, and the check finds that."""
    world = make_world(TEAM, SEED)
    world.writer.execute('DROP TRIGGER "_reactive_rpc_replace_insert_team"')
    with pytest.raises(AssertionError, match="the end of"):
        world.check(lambda: world.writer.execute("REPLACE INTO team(id, name) VALUES (5, 'red')"))


def test_another_process_is_seen(make_world: MakeCapturedFile) -> None:
    """A program of its own, with nothing but the standard library and default pragmas, is captured like any writer."""
    world = make_world(TEAM, SEED)
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]);"
        " c.execute(\"REPLACE INTO team(name, size) VALUES ('Red', 6)\"); c.commit(); c.close()"
    )
    world.check(lambda: subprocess.run([sys.executable, "-c", script, str(world.path)], check=True))


def test_keys_are_told_before_and_after(make_world: MakeCapturedFile) -> None:
    """A change bears the values of its primary and foreign keys on both sides, and no NULL."""
    world = make_world(TEAM, SEED)
    (change,) = world.check(lambda: world.writer.execute("UPDATE agent SET team_id = 3 WHERE id = 'a3'"))
    assert change.keys == {"a3", "a2", 2, 3}
    assert change.changed == frozenset({"team_id"})


def _random_values(seed: int) -> list[object]:
    rng = random.Random(seed)
    doubles = [struct.unpack("d", struct.pack("Q", rng.getrandbits(64)))[0] for _ in range(300)]
    doubles += [rng.random() * 10 ** rng.randint(-6, 12) for _ in range(300)]
    letters = "aé\u2028\"'\\\x01\x7f\U0001f600,[]s\n\ufffe"
    texts = ["".join(rng.choices(letters, k=rng.randint(0, 30))) for _ in range(300)]
    edges = [
        0,
        -1,
        2**63 - 1,
        -(2**63),
        2**53 + 1,
        0.0,
        -0.0,
        5e-324,
        1.7976931348623157e308,
        float("inf"),
        "",
        "1",
        "1e5",
    ]
    return [
        *(x for x in doubles if not math.isnan(x)),
        *texts,
        *edges,
        "x" * 48,
        "x" * 49,
        "é" * 25,
        "a\0b",
        "\0",
        b"",
        b"\0\xff",
    ]


def test_images_are_faithful(make_world: MakeCapturedFile) -> None:
    """Doubles, integers and text come back bit by bit or as UNKNOWN, in columns of every affinity."""
    world = make_world("CREATE TABLE v (id INTEGER PRIMARY KEY, i INTEGER, r REAL, n NUMERIC, t TEXT, o)")
    rows = [(value,) * 5 for value in _random_values(7)]

    def write() -> None:
        world.writer.execute("BEGIN")
        world.writer.executemany("INSERT INTO v(i, r, n, t, o) VALUES (?, ?, ?, ?, ?)", rows)
        world.writer.execute("COMMIT")

    changes = world.check(write)
    assert len(changes) == len(rows)
    reals = [change.after["r"] for change in changes if change.after is not None]
    assert sum(value is UNKNOWN for value in reals) < len(reals) * 0.05


def test_the_sign_of_zero_is_a_change(make_world: MakeCapturedFile) -> None:
    """-0.0 equals 0.0 in every comparison, and is shown otherwise where a column without affinity keeps it."""
    world = make_world(
        "CREATE TABLE v (id INTEGER PRIMARY KEY, o, b BLOB, r REAL, n NUMERIC)",
        "INSERT INTO v VALUES (1, -0.0, 0.0, 0.0, 0)",
    )
    assert str(world.writer.execute("SELECT o FROM v").fetchone()) == "(-0.0,)"
    for column, sign in (("o", 0.0), ("b", -0.0), ("o", -0.0)):
        world.writer.execute(f"UPDATE v SET {column} = ?", (sign,))
        (change,) = world.changes()
        assert column in (change.changed or ())
    world.writer.execute("UPDATE v SET o = 1, b = 1")
    world.changes()
    world.writer.execute("UPDATE v SET r = -0.0, n = -0.0, o = 1")
    assert world.changes() == []


def test_text_that_is_no_utf8_widens(make_world: MakeCapturedFile) -> None:
    """A row with broken text cannot be read as an image: its whole table counts as changed."""
    world = make_world("CREATE TABLE v (id INTEGER PRIMARY KEY, t TEXT)")
    (change,) = world.check(lambda: world.writer.execute("INSERT INTO v(t) VALUES (CAST(x'ff41' AS TEXT))"))
    assert (change.table, change.operation) == ("v", "bulk")


@pytest.mark.parametrize("count", [70, 300])
def test_wide_tables_are_captured(make_world: MakeCapturedFile, count: int) -> None:
    """More columns than bits in a word, or than SQLite lets a function take, change nothing."""
    columns = ", ".join(f"c{n} INTEGER" for n in range(count))
    world = make_world(f"CREATE TABLE wide (id INTEGER PRIMARY KEY, {columns})", "INSERT INTO wide(id) VALUES (1)")
    (change,) = world.check(lambda: world.writer.execute(f"UPDATE wide SET c0 = 1, c63 = 2, c{count - 1} = 3"))
    assert change.changed == frozenset({"c0", "c63", f"c{count - 1}"})


CLAUSES = ("ABORT", "FAIL", "IGNORE", "REPLACE", "ROLLBACK")


def _random_statement(rng: random.Random) -> str:
    verb = rng.choice(["INSERT", "REPLACE", *(f"INSERT OR {clause}" for clause in CLAUSES)])
    update = rng.choice(["UPDATE", *(f"UPDATE OR {clause}" for clause in CLAUSES)])
    n, m, k = (rng.choice(["NULL", *"0123456"]) for _ in range(3))
    t, u = (rng.choice(["NULL", "'a'", "'A'", "'b'", "'B '", "1", "1.0", "x'61'"]) for _ in range(2))
    of_p = rng.choice(["", "", " ON CONFLICT DO NOTHING", f" ON CONFLICT(id) DO UPDATE SET b = {m}, t = excluded.t"])
    of_w = rng.choice(["", "", f" ON CONFLICT DO UPDATE SET n = {m}", f" ON CONFLICT(u) DO UPDATE SET y = {n}"])
    return rng.choice(
        [
            f"{verb} INTO p VALUES ({n}, {t}, {m}, {k}){of_p}",
            f"{verb} INTO p VALUES ({n}, {t}, {m}, {k}), ({m}, {u}, {n}, {k}), ({k}, {t}, {k}, {n}){of_p}",
            f"{verb} INTO p(t, a, b) SELECT t, a, {m} FROM p WHERE id > {k}{of_p}",
            f"{verb} INTO c(id, p_id, t) VALUES ({n}, {m}, {t}), ({k}, {n}, {u})",
            f"{verb} INTO w VALUES ({t}, {n}, {u}, {m}), ({u}, {m}, {t}, {k}){of_w}",
            f"{verb} INTO q VALUES ({n}, {t}, {m}), ({m}, {u}, {k})",
            f"{update} q SET id = {n}, t = {t}, a = {k} WHERE id = {m} OR a = {n}",
            f"{verb} INTO s VALUES ({t}, {n}), ({u}, {m})",
            f"{update} s SET n = {n}, k = {u} WHERE k = {t}",
            f"DELETE FROM s WHERE k = {t}",
            f"{update} p SET a = {n}, t = {t} WHERE id = {m}",
            f"{update} p SET id = {n} WHERE id = {m}",
            f"{update} p SET b = {n}",
            f"{update} c SET p_id = {n}, t = {t} WHERE id <> {m}",
            f"{update} w SET x = {t}, y = {n} WHERE u = {m}",
            f"{update} w SET u = {n} WHERE x = {t}",
            f"DELETE FROM p WHERE id = {n}",
            f"DELETE FROM c WHERE t = {t}",
            f"DELETE FROM w WHERE y = {n}",
        ]
    )


def _write(world: CapturedFile, statements: list[str]) -> Callable[[], None]:
    """Return what runs statements in one transaction; those that fail have done what their conflict clause says."""

    def write() -> None:
        world.writer.execute("BEGIN")
        for statement in statements:
            with suppress(sqlite3.IntegrityError):
                world.writer.execute(statement)
        if world.writer.in_transaction:  # else by OR ROLLBACK
            world.writer.execute("COMMIT")

    return write


COLLIDING = """
CREATE TABLE p (id INTEGER PRIMARY KEY, t TEXT COLLATE NOCASE UNIQUE, a INTEGER, b INTEGER, UNIQUE (a, b));
CREATE TABLE c (id INTEGER PRIMARY KEY, p_id INTEGER REFERENCES p ON DELETE CASCADE ON UPDATE CASCADE,
  t COLLATE RTRIM UNIQUE);
CREATE TABLE w (x TEXT, y INTEGER, u, n INTEGER, PRIMARY KEY (x COLLATE NOCASE, y), UNIQUE (u)) WITHOUT ROWID;
CREATE TABLE q (id INTEGER PRIMARY KEY ON CONFLICT REPLACE, t UNIQUE ON CONFLICT IGNORE, a UNIQUE ON CONFLICT FAIL);
CREATE TABLE s (k TEXT PRIMARY KEY COLLATE NOCASE, n INTEGER UNIQUE ON CONFLICT REPLACE);
"""


@pytest.mark.parametrize("seed", range(4))
def test_random_writes_are_told(make_world: MakeCapturedFile, seed: int) -> None:
    """Random writes that collide and cascade, over keys of every collation and with every conflict clause.

    They are told row by row, and no row is told as deleted that is there.
    """
    rng = random.Random(seed)
    world = make_world(COLLIDING, recursive=seed % 2 == 1)
    for _ in range(200):
        world.check(_write(world, [_random_statement(rng)]))


def _keys(world: CapturedFile) -> dict[str, set[object]]:
    tables = ("p", "c", "q")
    return {name: {key for (key,) in world.writer.execute(f"SELECT id FROM {name}")} for name in tables}


def _replay(keys: dict[str, set[object]], changes: list[Change]) -> None:
    for change in changes:
        if change.table in keys and change.before is not None:
            keys[change.table].discard(change.before["id"])
        if change.table in keys and change.after is not None:
            keys[change.table].add(change.after["id"])


@pytest.mark.parametrize("seed", range(4))
def test_what_is_told_leads_to_what_is_there(make_world: MakeCapturedFile, seed: int) -> None:
    """Of transactions that replace, ignore, delete and write again, what is told ends with the rows that are there."""
    rng = random.Random(seed)
    world = make_world(COLLIDING, recursive=seed % 2 == 1)
    for _ in range(150):
        keys = _keys(world)
        statements = [_random_statement(rng) for _ in range(rng.randint(2, 6))]
        _write(world, statements)()
        _replay(keys, world.changes())
        assert keys == _keys(world), statements
