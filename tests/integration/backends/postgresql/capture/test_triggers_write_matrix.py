"""Every shape of a write on PostgreSQL, by two drivers, against a diff of whole tables."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import psycopg
import pytest
from sqlalchemy import make_url

from reactive_rpc.backends.postgresql.capture.triggers import BULK_ROWS
from reactive_rpc.backends.postgresql.capture.wake_up import CHANNEL, SLEEPERS
from reactive_rpc.dependencies.change import UNKNOWN
from reactive_rpc.testing.postgresql import PostgreSQL, postgresql_server

from .captured_database import CapturedDatabase, Writer, asyncpg_writer, psycopg_writer

BASE = """
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN score AS int CHECK (VALUE >= 0);
CREATE TABLE team (id serial PRIMARY KEY, name text COLLATE "C" UNIQUE, size int, score score, note text);
CREATE TABLE agent (
  id text PRIMARY KEY, team_id int REFERENCES team ON DELETE CASCADE ON UPDATE CASCADE,
  boss text REFERENCES agent ON DELETE SET NULL ON UPDATE CASCADE, a int, b int DEFAULT 7, UNIQUE (a, b)
);
CREATE TABLE task (
  n int PRIMARY KEY, agent_id text REFERENCES agent ON DELETE SET DEFAULT ON UPDATE CASCADE, title text,
  twice int GENERATED ALWAYS AS (n * 2) STORED
);
CREATE TABLE types (
  id uuid PRIMARY KEY, i2 smallint, i8 bigint, r real, d double precision, n numeric, n2 numeric(8, 2), b bool, m mood,
  c char(5), v varchar(80), x text COLLATE "POSIX", day date, ts timestamp, tz timestamptz, t time, iv interval,
  j json, jb jsonb, raw bytea, ints int[], p pair, dom score, ip inet
);
CREATE TABLE pairs (x int, y text, v numeric, u int UNIQUE, PRIMARY KEY (y, x));
CREATE TABLE bag (a int, b text, c jsonb);
CREATE TABLE "select ""it's"" $capture$ [ö]" (
  "from" int PRIMARY KEY, "a b" text UNIQUE, "x""y" int, "ü" float8,
  reactive_rpc_new int, o int, n int, k int, c0 int, items int
);
CREATE TABLE reactive_rpc_old (reactive_rpc_old int PRIMARY KEY, t int, p int, total int, tg_op text);
CREATE TABLE swap (id int PRIMARY KEY DEFERRABLE, n int);
CREATE SCHEMA sales;
CREATE TABLE sales.orders (id int PRIMARY KEY, n int);
CREATE TABLE hidden (id int PRIMARY KEY);
CREATE TABLE sales.hidden (id int PRIMARY KEY, n int);
CREATE TABLE nothing ();
CREATE TABLE big (id int PRIMARY KEY, n int, body text);
CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY, n int);
CREATE TABLE audited (id int PRIMARY KEY, n int);
CREATE TABLE audit (id serial PRIMARY KEY, n int);
CREATE FUNCTION keep_audit() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN INSERT INTO audit(n) VALUES (NEW.n); NEW.n := NEW.n + 100; RETURN NEW; END $$;
CREATE TRIGGER keep_audit BEFORE UPDATE ON audited FOR EACH ROW EXECUTE FUNCTION keep_audit();
CREATE FUNCTION echo() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN IF NEW.n < 3 THEN INSERT INTO audited VALUES (NEW.id + 1, NEW.n + 1); END IF; RETURN NULL; END $$;
CREATE TRIGGER echo AFTER INSERT ON audited FOR EACH ROW EXECUTE FUNCTION echo();
CREATE FUNCTION bump(i int) RETURNS int LANGUAGE sql AS 'UPDATE team SET size = size + 1 WHERE id = i RETURNING size';
CREATE TABLE ruled (id int PRIMARY KEY, n int);
CREATE RULE divert AS ON DELETE TO ruled DO INSTEAD UPDATE ruled SET n = -1 WHERE id = OLD.id;
CREATE RULE copy AS ON INSERT TO ruled DO ALSO INSERT INTO bag(a) VALUES (NEW.id);
CREATE VIEW small AS SELECT id, name, size FROM team WHERE size < 3;
CREATE TABLE part (id int, k int, note text, PRIMARY KEY (id, k)) PARTITION BY RANGE (k);
CREATE TABLE part_a PARTITION OF part FOR VALUES FROM (0) TO (10);
CREATE TABLE part_b (note text, dropped int, k int NOT NULL, id int NOT NULL) PARTITION BY LIST (id);
ALTER TABLE part_b DROP COLUMN dropped;
ALTER TABLE part ATTACH PARTITION part_b FOR VALUES FROM (10) TO (20);
CREATE TABLE part_b1 PARTITION OF part_b FOR VALUES IN (1, 2, 3);
CREATE TABLE part_b2 PARTITION OF part_b DEFAULT;
CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN IF NEW.note = 'gone' THEN RETURN NULL; END IF; RETURN NEW; END $$;
CREATE TRIGGER swallow BEFORE INSERT ON part_b1 FOR EACH ROW EXECUTE FUNCTION swallow();
CREATE TABLE part_child (id int PRIMARY KEY, p int, k int, FOREIGN KEY (p, k) REFERENCES part ON DELETE CASCADE);
CREATE TABLE animal (id int PRIMARY KEY, name text);
CREATE TABLE dog (id int PRIMARY KEY, barks int) INHERITS (animal);
CREATE TABLE puppy (age int) INHERITS (dog);
CREATE TABLE wide (id int PRIMARY KEY, COLUMNS);
CREATE TABLE very_wide (COLUMNS);
""".replace("id int PRIMARY KEY, COLUMNS", "id int PRIMARY KEY, " + ", ".join(f"c{n} int" for n in range(130))).replace(
    "COLUMNS", ", ".join(f"c{n} text" for n in range(400))
)
VIRTUAL = "CREATE TABLE virtual (id int PRIMARY KEY, n int, v int GENERATED ALWAYS AS (n * 2) VIRTUAL, s text);"
KEY = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1"
SEED = f"""
INSERT INTO team VALUES (1, 'red', 3, 1, 'n'), (2, 'blue', 2, 2, NULL), (3, 'green', NULL, NULL, '');
SELECT setval('team_id_seq', 100);
INSERT INTO agent VALUES ('a1', 1, NULL, 1, 1), ('a2', 1, 'a1', 1, 2), ('a3', 2, 'a2', NULL, 2), ('a4', 2, 'a1', 2, 2);
INSERT INTO task(n, agent_id, title) VALUES (1, 'a1', 't1'), (2, 'a1', 't2'), (3, 'a3', 't3'), (4, NULL, 't4');
INSERT INTO types(id, n, d, tz, jb, c)
  VALUES ('{KEY}1', 1.0, 0.0, '2024-05-06 07:08:09.123456+02', '{{"a": 1.0}}', 'ab');
INSERT INTO types(id) VALUES ('{KEY}2');
INSERT INTO pairs VALUES (1, 'p', 1, 10), (1, 'q', 2.5, 20), (2, 'p', 3, 30);
INSERT INTO bag VALUES (1, 'b', '2'), (1, 'b', '2'), (2, NULL, NULL);
INSERT INTO "select ""it's"" $capture$ [ö]" VALUES (1, 'one', 1, 1.5), (2, 'two', 2, 2.5);
INSERT INTO reactive_rpc_old VALUES (1, 1, 1, 1, 'INSERT'), (2, 2, 2, 2, 'x');
INSERT INTO swap VALUES (1, 1), (2, 2);
INSERT INTO sales.orders VALUES (1, 1), (2, 2);
INSERT INTO sales.hidden VALUES (1, 1);
INSERT INTO big SELECT g, g, repeat(md5(g::text), 625) FROM generate_series(1, 20) g;
INSERT INTO unlogged VALUES (1, 1);
INSERT INTO audited VALUES (1, 10), (2, 20);
INSERT INTO ruled VALUES (1, 1), (2, 2);
INSERT INTO part VALUES (1, 1, 'x'), (2, 2, 'y'), (1, 11, 'z'), (9, 12, 'w');
INSERT INTO part_child VALUES (1, 1, 1), (2, 1, 11);
INSERT INTO animal VALUES (1, 'cat');
INSERT INTO dog VALUES (2, 'rex', 3);
INSERT INTO puppy VALUES (3, 'bit', 1, 1);
INSERT INTO wide(id, c0, c129) VALUES (1, 1, 1), (2, 2, 2);
INSERT INTO very_wide(c0, c399) VALUES ('a', 'b');
"""


class Shape(NamedTuple):
    """A write, and by how many changes of which table it must be recorded; `B` where by bulk changes alone."""

    name: str
    sql: str
    recorded: dict[str, int | str]


ODD = 'select "it\'s" $capture$ [ö]'
SHAPES = [
    Shape("insert one", "INSERT INTO team VALUES (9, 'nine', 9, 5, 'x')", {"team": 1}),
    Shape("insert many", "INSERT INTO team(name) VALUES ('x'), ('y'), ('z')", {"team": 3}),
    Shape("insert from select", "INSERT INTO team(name, size) SELECT name || '!', size FROM team", {"team": 3}),
    Shape("insert default values", "INSERT INTO team DEFAULT VALUES", {"team": 1}),
    Shape("insert nothing", "INSERT INTO team SELECT * FROM team WHERE false", {}),
    Shape("insert returning", "INSERT INTO team(name) VALUES ('r') RETURNING id", {"team": 1}),
    Shape("update one", "UPDATE team SET size = 4 WHERE id = 1", {"team": 1}),
    Shape("update many", "UPDATE team SET size = coalesce(size, 0) + 1, note = 'm'", {"team": 3}),
    Shape("update in another order", "UPDATE team SET size = 1 WHERE id = ANY (ARRAY[3, 1])", {"team": 2}),
    Shape("update without effect", "UPDATE team SET size = size, name = name", {}),
    Shape("update partly without effect", "UPDATE team SET size = 3", {"team": 2}),
    Shape("update no row", "UPDATE team SET size = 3 WHERE false", {}),
    Shape("update from", "UPDATE task SET title = a.id FROM agent AS a WHERE a.id = task.agent_id", {"task": 3}),
    Shape("update returning", "UPDATE team SET size = 77 WHERE id < 3 RETURNING id", {"team": 2}),
    Shape("update of what no image holds", f"UPDATE types SET jb = '1' WHERE id = '{KEY}1'", {"types": 1}),
    Shape("numeric scale only", f"UPDATE types SET n = 1.00 WHERE id = '{KEY}1'", {"types": 1}),
    Shape("jsonb scale only", f"UPDATE types SET jb = '{{\"a\":1.00}}' WHERE id = '{KEY}1'", {"types": 1}),
    Shape("negative zero", f"UPDATE types SET d = '-0' WHERE id = '{KEY}1'", {"types": 1}),
    Shape("char padding only", f"UPDATE types SET c = 'ab ' WHERE id = '{KEY}1'", {}),
    Shape("case only", "UPDATE types SET x = 'A'; UPDATE types SET x = 'a'", {"types": 4}),
    Shape("json spaces only", "UPDATE types SET j = '1'; UPDATE types SET j = ' 1'", {"types": 4}),
    Shape(
        "NaN and infinities",
        "UPDATE types SET n = 'NaN', d = 'NaN'; UPDATE types SET n = 'infinity', d = '-infinity', day = 'infinity',"
        " ts = '-infinity', tz = 'infinity'",
        {"types": 4},
    ),
    Shape(
        "every type",
        f"INSERT INTO types VALUES ('{KEY}3', -1, 9223372036854775807, 0.1, 1e308, -123456789.123456789, 12.3, true,"
        " 'ok', 'c', 'ü€', 'Ab', '0044-03-15', '1969-12-31 23:59:59.999999', '2024-02-29 12:00+05:30', '12:00',"
        " '1 mon', '{}', '[1]', '\\x00ff', '{1,NULL}', '(1,x)', 5, '10.0.0.1')",
        {"types": 1},
    ),
    Shape(
        "texts at the bound",
        f"UPDATE types SET v = repeat('x', 48) WHERE id = '{KEY}1';"
        f" UPDATE types SET v = repeat('ü', 25) WHERE id = '{KEY}2'",
        {"types": 2},
    ),
    Shape("long numbers", f"UPDATE types SET n = ('1e' || 60)::numeric WHERE id = '{KEY}1'", {"types": 1}),
    Shape("quotes and backslashes", "UPDATE team SET name = E'it''s \\\\ \"x\" \\n' WHERE id = 1", {"team": 1}),
    Shape("delete one", "DELETE FROM task WHERE n = 1", {"task": 1}),
    Shape("delete all", "DELETE FROM task", {"task": 4}),
    Shape("delete using", "DELETE FROM task USING agent a WHERE a.id = task.agent_id AND a.team_id = 2", {"task": 1}),
    Shape("truncate", "TRUNCATE task", {"task": "B"}),
    Shape("truncate cascade", "TRUNCATE team CASCADE", {"team": "B", "agent": "B", "task": "B"}),
    Shape(
        "upsert updates",
        "INSERT INTO team(id, name) VALUES (1, 'r') ON CONFLICT (id) DO UPDATE SET size = 8",
        {"team": 1},
    ),
    Shape(
        "upsert does both",
        "INSERT INTO team(id, name) VALUES (1, 'r'), (50, 'n') ON CONFLICT (id) DO UPDATE SET name = excluded.name",
        {"team": 2},
    ),
    Shape("upsert does nothing", "INSERT INTO team(id, name) VALUES (1, 'r') ON CONFLICT DO NOTHING", {}),
    Shape(
        "merge",
        "MERGE INTO team USING (VALUES (1, 10), (2, NULL), (60, 60)) AS s(id, size) ON s.id = team.id"
        " WHEN MATCHED AND s.size IS NULL THEN DELETE WHEN MATCHED THEN UPDATE SET size = s.size"
        " WHEN NOT MATCHED THEN INSERT (id, size) VALUES (s.id, s.size)",
        {"team": 3, "agent": 2, "task": 1},
    ),
    Shape(
        "writable CTE",
        "WITH d AS (DELETE FROM task WHERE n < 3 RETURNING agent_id)"
        " UPDATE agent SET a = 100 WHERE id IN (SELECT * FROM d)",
        {"task": 2, "agent": 1},
    ),
    Shape(
        "writable CTE, one table twice",
        "WITH u AS (UPDATE team SET size = 50 WHERE id = 1) UPDATE team SET size = 60 WHERE id = 2",
        {"team": 2},
    ),
    Shape("function that writes", "SELECT bump(1)", {"team": 1}),
    Shape("DO block", "DO $$ BEGIN UPDATE team SET size = 1; DELETE FROM task; END $$", {"team": 3, "task": 4}),
    Shape("cascade on delete", "DELETE FROM team WHERE id = 1", {"team": 1, "agent": 4, "task": 2}),
    Shape("cascade to the same table", "DELETE FROM agent WHERE id = 'a1'", {"agent": 3, "task": 2}),
    Shape("cascade on update", "UPDATE team SET id = 77 WHERE id = 1", {"team": 1, "agent": 2}),
    Shape("cascade on update of many", "UPDATE team SET id = id + 70", {"team": 3, "agent": 4}),
    Shape("key of text changes", "UPDATE agent SET id = 'z' || id", {"agent": 7, "task": 3}),
    Shape("keys change places", "UPDATE swap SET id = 3 - id", {"swap": 2}),
    Shape("composite key", "UPDATE pairs SET v = 9 WHERE x = 1; UPDATE pairs SET y = 'z' WHERE u = 30", {"pairs": 3}),
    Shape("no primary key", "UPDATE bag SET b = 'c' WHERE a = 1; DELETE FROM bag WHERE a = 2", {"bag": 5}),
    Shape("no primary key, no image", "UPDATE bag SET c = '3' WHERE a = 1", {"bag": 3}),
    Shape("no columns", "INSERT INTO nothing DEFAULT VALUES; DELETE FROM nothing", {"nothing": 2}),
    Shape(
        "generated column", "UPDATE task SET n = 50 WHERE n = 4; UPDATE task SET title = 'g' WHERE n = 1", {"task": 2}
    ),
    Shape("savepoint rolled back", "BEGIN;\nSAVEPOINT s;\nDELETE FROM task;\nROLLBACK TO s;\nCOMMIT", {}),
    Shape("savepoint kept", "BEGIN;\nSAVEPOINT s;\nDELETE FROM task WHERE n = 2;\nRELEASE s;\nCOMMIT", {"task": 1}),
    Shape("rolled back", "BEGIN;\nUPDATE team SET size = 100;\nDELETE FROM task;\nROLLBACK", {}),
    Shape(
        "as a replica",
        "SET session_replication_role = replica;\nUPDATE team SET size = 100;\nRESET session_replication_role",
        {"team": 3},
    ),
    Shape(
        "hostile settings",
        "SET search_path = sales, pg_temp, public;\nSET extra_float_digits = -15;\nSET timezone = 'Asia/Kathmandu';\n"
        "SET datestyle = 'German';\nSET plan_cache_mode = force_generic_plan;\nSET standard_conforming_strings = on;\n"
        f"UPDATE types SET d = 0.1 + 0.2, tz = '2024-01-01', ts = '2024-01-01', day = '2024-1-1' WHERE id = '{KEY}1';\n"
        "RESET ALL",
        {"types": 1},
    ),
    Shape("user's trigger, other table", "UPDATE audited SET n = n + 1", {"audited": 2, "audit": 2}),
    Shape("user's trigger, same table", "INSERT INTO audited VALUES (30, 1)", {"audited": 3}),
    Shape("rule instead", "DELETE FROM ruled WHERE id = 1", {"ruled": 1}),
    Shape("rule also", "INSERT INTO ruled VALUES (7, 7)", {"ruled": 1, "bag": 1}),
    Shape("through a view", "UPDATE small SET size = 1; DELETE FROM small", {"team": 2, "agent": 2, "task": 1}),
    Shape(
        "odd names",
        """UPDATE "select ""it's"" $capture$ [ö]" SET "x""y" = 5, "ü" = 0.1, reactive_rpc_new = 1, o = 2""",
        {ODD: 2},
    ),
    Shape(
        "named as ours",
        "UPDATE reactive_rpc_old SET t = 9, total = 8; DELETE FROM reactive_rpc_old",
        {"reactive_rpc_old": 4},
    ),
    Shape(
        "another schema", "UPDATE sales.orders SET n = 5; DELETE FROM sales.orders WHERE id = 1", {"sales.orders": 3}
    ),
    Shape(
        "same name, two schemas",
        "INSERT INTO hidden VALUES (1); UPDATE sales.hidden SET n = 2",
        {"hidden": 1, "sales.hidden": 1},
    ),
    Shape("long values stay", "UPDATE big SET n = n + 1", {"big": 20}),
    Shape("long values change", "UPDATE big SET body = body || 'x' WHERE id < 3", {"big": 2}),
    Shape("unlogged", "UPDATE unlogged SET n = 2", {"unlogged": 1}),
    Shape("partitions, through the root", "UPDATE part SET note = 'u'; DELETE FROM part WHERE id = 9", {"part": 5}),
    Shape("row moves to another partition", "UPDATE part SET k = k + 13 WHERE id = 2", {"part": 1}),
    Shape(
        "rows move, some are swallowed",
        "UPDATE part SET k = k + 10, note = CASE id WHEN 1 THEN 'gone' END WHERE k < 10 AND id = 2 OR id = 9 AND k = 0",
        {"part": 1},
    ),
    Shape("a row is swallowed on its way", "UPDATE part SET k = 15, note = 'gone' WHERE id = 2", {"part": "B"}),
    Shape(
        "partition by itself",
        "INSERT INTO part_a VALUES (7, 7, 'p'); UPDATE part_b1 SET note = 'b1'; DELETE FROM part_b2",
        {"part": 3},
    ),
    Shape("partition in between", "INSERT INTO part_b(id, k, note) VALUES (3, 13, 's'), (8, 18, 't')", {"part": 2}),
    Shape("truncate a partition", "TRUNCATE part_b2 CASCADE", {"part": "B", "part_child": "B"}),
    Shape("truncate the root", "TRUNCATE part CASCADE", {"part": "B", "part_child": "B"}),
    Shape("cascade from partitions", "DELETE FROM part WHERE id = 1", {"part": 2, "part_child": 2}),
    Shape("insert into a parent", "INSERT INTO animal VALUES (8, 'eel')", {"animal": 1}),
    Shape("insert into a child", "INSERT INTO dog VALUES (9, 'max', 1)", {"dog": 1, "animal": 1}),
    Shape("grandchild", "UPDATE puppy SET name = 'bo' WHERE id = 3", {"puppy": 1, "dog": 1, "animal": 1}),
    Shape("child's own column", "UPDATE dog SET barks = 10 WHERE id = 2", {"dog": 1, "puppy": "B"}),
    Shape("through a parent", "UPDATE animal SET name = name || '!'", {"animal": 3, "dog": "B", "puppy": "B"}),
    Shape("delete through a parent", "DELETE FROM animal", {"animal": 3, "dog": "B", "puppy": "B"}),
    Shape("truncate a parent", "TRUNCATE animal", {"animal": "B", "dog": "B", "puppy": "B"}),
    Shape("more than 60 columns", "UPDATE wide SET c0 = 5, c70 = 6, c129 = 7 WHERE id = 1", {"wide": 1}),
    Shape("the 121st column", "UPDATE wide SET c119 = 5; UPDATE wide SET c118 = 4 WHERE id = 2", {"wide": 3}),
    Shape("400 columns", "INSERT INTO very_wide(c100) VALUES ('x'); UPDATE very_wide SET c399 = 'y'", {"very_wide": 3}),
    Shape("the most rows", f"INSERT INTO bag SELECT g FROM generate_series(1, {BULK_ROWS}) g", {"bag": BULK_ROWS}),
    Shape("too many rows", f"INSERT INTO bag SELECT g FROM generate_series(1, {BULK_ROWS + 1}) g", {"bag": "B"}),
]
PREPARED = [
    Shape(
        "prepared", "BEGIN;\nUPDATE team SET size = 100;\nPREPARE TRANSACTION 'p';\nCOMMIT PREPARED 'p'", {"team": 3}
    ),
    Shape("prepared, rolled back", "BEGIN;\nDELETE FROM task;\nPREPARE TRANSACTION 'p';\nROLLBACK PREPARED 'p'", {}),
]
DRIVERS: dict[str, Callable[[str], Writer]] = {"psycopg": psycopg_writer, "asyncpg": asyncpg_writer}


def _plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def _make_world(url: str, ddl: str) -> CapturedDatabase:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(ddl)
    return CapturedDatabase(url)


def _reset(world: CapturedDatabase) -> None:
    tables = ", ".join(
        ".".join('"' + part.replace('"', '""') + '"' for part in name.rsplit(".", 1)) for name in world.state.tables
    )
    world.reader.execute(f"TRUNCATE {tables} RESTART IDENTITY CASCADE; {SEED}")
    world.changes()


@pytest.fixture(scope="module")
def shared_world(postgresql: PostgreSQL) -> Iterator[CapturedDatabase]:
    """Return a database that all shapes share."""
    url = postgresql.new_database()
    world = _make_world(_plain(url), BASE + VIRTUAL)
    yield world
    world.close()
    postgresql.drop_database(url)


@pytest.fixture
def world(shared_world: CapturedDatabase) -> CapturedDatabase:
    """Return the database with its seed rows."""
    _reset(shared_world)
    return shared_world


@pytest.fixture(scope="module", params=DRIVERS)
def writer(request: pytest.FixtureRequest, shared_world: CapturedDatabase) -> Iterator[Writer]:
    """Return a connection that writes, by each driver."""
    writer = DRIVERS[request.param](shared_world.url)
    yield writer
    writer.close()


class Sleeper:
    """A session that is notified of commits, as a log that sleeps is."""

    def __init__(self, url: str) -> None:
        self._notified: list[object] = []
        self._connection = psycopg.connect(url, autocommit=True)
        self._connection.add_notify_handler(self._notified.append)
        self._connection.execute(f"LISTEN {CHANNEL}")
        self._connection.execute(f"SELECT pg_advisory_lock_shared({SLEEPERS})")

    def was_woken(self) -> bool:
        """Tell whether it has been notified since this was last asked."""
        for _ in range(2):  # what the server knows when it is asked, it tells after the answer at the latest
            self._connection.execute("SELECT 1")
        woken = bool(self._notified)
        self._notified.clear()
        return woken

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="module")
def sleeper(shared_world: CapturedDatabase) -> Iterator[Sleeper]:
    """Return a session that sleeps on the database."""
    sleeper = Sleeper(shared_world.url)
    yield sleeper
    sleeper.close()


def _recorded(changes: list[Any]) -> dict[str, int | str]:
    counts = Counter(change.table for change in changes)
    bulk = {change.table for change in changes if change.operation == "bulk"}
    return {table: "B" if table in bulk else count for table, count in counts.items()}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_every_changed_row_is_told_and_no_other(
    world: CapturedDatabase, writer: Writer, sleeper: Sleeper, shape: Shape
) -> None:
    """Whatever the shape of a write, the outbox tells what a diff of whole tables shows, in as many changes as rows.

    Logs that sleep are woken by it, and only if there is anything to read.
    """
    sleeper.was_woken()
    assert _recorded(world.check(lambda: writer.run(shape.sql))) == shape.recorded
    assert sleeper.was_woken() == bool(shape.recorded)


def test_rows_by_copy_are_recorded(world: CapturedDatabase, writer: Writer) -> None:
    """COPY is one statement: one outbox row, an image for each row."""
    changes = world.check(lambda: writer.copy("team", ["id", "name"], [(70, "c1"), (71, None)]))
    assert _recorded(changes) == {"team": 2}


def test_executemany_is_recorded(world: CapturedDatabase, writer: Writer) -> None:
    """A prepared statement that runs for many rows is recorded each time."""
    changes = world.check(lambda: writer.run_many("UPDATE team SET size = $1 WHERE id = $2", [(7, 1), (8, 2), (8, 2)]))
    assert _recorded(changes) == {"team": 2}


def test_a_virtual_column_changes_with_any_other(world: CapturedDatabase, writer: Writer) -> None:
    """Triggers do not see a virtual generated column, so it counts as changed whenever the row does."""
    writer.run("INSERT INTO virtual VALUES (1, 1, DEFAULT, 'a')")
    (change,) = world.check(lambda: writer.run("UPDATE virtual SET n = 2; UPDATE virtual SET n = 2"))
    assert change.changed == frozenset({"n", "v"})
    assert change.after == {"id": 1, "n": 2, "s": "a"}


def test_each_kind_has_its_domain(world: CapturedDatabase, writer: Writer) -> None:
    """Numbers stay exact, times are integers since 1970, what compares otherwise in Python is unknown."""
    writer.run(
        f"UPDATE types SET d = 'NaN', i8 = -9223372036854775808, b = false, day = '1969-12-31' WHERE id = '{KEY}2'"
    )
    after = world.changes()[-1].after
    assert after is not None
    assert after["d"] is UNKNOWN
    assert (after["i8"], after["b"], after["day"], after["m"]) == (-(2**63), 0, -1, None)


def test_a_million_rows_are_one_event(world: CapturedDatabase) -> None:
    """A statement that writes more rows than anybody wants to read is one row of the outbox."""
    with psycopg.connect(world.url, autocommit=True) as connection:
        inserted = connection.execute("INSERT INTO unlogged SELECT g, g FROM generate_series(2, 1000001) g")
        updated = connection.execute("UPDATE unlogged SET n = n + 1 WHERE id > 1")
    assert (inserted.rowcount, updated.rowcount) == (1_000_000, 1_000_000)
    assert [(row.operation, row.rows) for row in world.rows()] == [("B", None), ("B", None)]


def _joins(url: str, statement: str) -> list[str]:
    """Return how the plans of a statement's triggers join the rows before with the rows after, in a new session.

    A session plans a trigger's query once, by the estimates of that moment, so the planner is told to avoid every join
    but a nested loop: what it chooses all the same, it can choose for no estimate.
    """
    plans: list[str] = []
    with psycopg.connect(url, autocommit=True) as connection:
        connection.add_notice_handler(lambda notice: plans.append(notice.message_detail or ""))
        connection.execute(
            "SET client_min_messages = log; SET debug_print_plan = on; SET enable_hashjoin = off;"
            " SET enable_mergejoin = off"
        )
        connection.execute(statement.encode())
        connection.execute("SET debug_print_plan = off")
    return [
        join
        for plan in plans
        if plan.count("{NAMEDTUPLESTORESCAN") > 1
        for join in re.findall(r"{(HASHJOIN|MERGEJOIN|NESTLOOP)\b", plan)
    ]


def test_no_plan_compares_each_pair_of_rows(world: CapturedDatabase) -> None:
    """A trigger's plan, made for a statement of a few rows and kept for one of thousands, never is a nested loop."""
    world.reader.execute("INSERT INTO unlogged SELECT g, g FROM generate_series(2, 9000) g")
    (join,) = _joins(world.url, "UPDATE unlogged SET n = 0 WHERE id <= 2")
    assert join in ("HASHJOIN", "MERGEJOIN")
    world.reader.execute("UPDATE unlogged SET n = n + 1")
    assert len(world.changes()) == 1 + 2 + 1


@pytest.mark.seeded_bug
def test_a_plan_that_compares_each_pair_is_found_out(world: CapturedDatabase) -> None:
    """With a join that may be nested, the plan is one, and the look at the plans shows it."""
    ((definition,),) = world.reader.execute(
        "SELECT pg_get_functiondef(tgfoid) FROM pg_trigger"
        " WHERE tgrelid = 'unlogged'::regclass AND tgname = 'reactive_rpc_update'"
    )
    world.reader.execute("INSERT INTO unlogged VALUES (2, 2)")
    world.reader.execute(definition.replace("FULL JOIN", "JOIN").encode())
    try:
        assert _joins(world.url, "UPDATE unlogged SET n = 0 WHERE id <= 2") == ["NESTLOOP"]
    finally:
        world.reader.execute(definition.encode())


def test_topics_are_recorded(world: CapturedDatabase, writer: Writer, sleeper: Sleeper) -> None:
    """What an application announces is an insert for each key, or a bulk change for all of them, and wakes logs."""
    sleeper.was_woken()
    writer.run("SELECT reactive_rpc.announce('weather', '[\"oslo\", \"rome\"]'); SELECT reactive_rpc.announce('news')")
    recorded = [(change.table, change.operation, change.after) for change in world.changes()]
    assert recorded == [
        ("topic:weather", "insert", {"key": "oslo"}),
        ("topic:weather", "insert", {"key": "rome"}),
        ("topic:news", "bulk", None),
    ]
    assert sleeper.was_woken()


@pytest.mark.seeded_bug
def test_an_untold_write_is_found_out(world: CapturedDatabase, writer: Writer) -> None:
    """The check that all these tests rest on fails where a write goes unseen."""
    world.reader.execute("ALTER TABLE team DISABLE TRIGGER reactive_rpc_update")
    try:
        with pytest.raises(AssertionError, match="team"):
            world.check(lambda: writer.run("UPDATE team SET size = 4 WHERE id = 1"))
    finally:
        world.reader.execute("ALTER TABLE team ENABLE ALWAYS TRIGGER reactive_rpc_update")


@pytest.mark.parametrize("shape", PREPARED, ids=lambda shape: shape.name)
def test_prepared_transactions_are_told(two_phase_postgresql: PostgreSQL, shape: Shape) -> None:
    """Where transactions may be prepared, they are recorded when they are committed, whoever sleeps meanwhile.

    Nobody is woken there: after a NOTIFY no transaction can be prepared.
    """
    world = _make_world(_plain(two_phase_postgresql.new_database()), BASE)
    writer, sleeper = psycopg_writer(world.url), Sleeper(world.url)
    _reset(world)
    assert _recorded(world.check(lambda: writer.run(shape.sql))) == shape.recorded
    assert not sleeper.was_woken()
    for each in (writer, sleeper, world):
        each.close()


def test_the_core_on_an_older_server() -> None:
    """All shapes are recorded as well by PostgreSQL 16."""
    with postgresql_server(version="16", max_prepared_transactions=20) as server:
        world = _make_world(_plain(server.new_database()), BASE)
        writer = psycopg_writer(world.url)
        for shape in SHAPES + PREPARED:
            _reset(world)
            assert _recorded(world.check(lambda shape=shape: writer.run(shape.sql))) == shape.recorded, shape.name  # type: ignore[misc]  # a default holds the loop's value
        writer.close()
        world.close()
