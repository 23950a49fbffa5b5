"""Capture on PostgreSQL: what is installed, what a schema change does to it, and who may do what."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from reactive_rpc.backends.postgresql.capture import backend as module
from reactive_rpc.backends.postgresql.capture.backend import PostgreSQLCapture
from reactive_rpc.backends.postgresql.capture.tables import FINGERPRINT
from reactive_rpc.changes.captured_schema import CaptureState
from reactive_rpc.clock import RandomIds
from reactive_rpc.dependencies.schema import View
from reactive_rpc.errors import CaptureError, ServiceUnavailableError
from reactive_rpc.testing.postgresql import PostgreSQL, PostgreSQLServer

from .captured_database import CapturedDatabase

TEAM = """
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TYPE pair AS (a int, b text);
CREATE TABLE team (id int PRIMARY KEY, name text UNIQUE, mood mood, p pair);
CREATE TABLE task (id int PRIMARY KEY, team_id int REFERENCES team, v int GENERATED ALWAYS AS (team_id + 1) STORED);
CREATE TABLE part (id int, k int) PARTITION BY RANGE (k);
CREATE TABLE part_a PARTITION OF part FOR VALUES FROM (0) TO (10);
CREATE TABLE loose (id int, k int);
CREATE TABLE animal (id int);
CREATE VIEW names AS SELECT name FROM team;
INSERT INTO team VALUES (1, 'red', 'sad', NULL);
"""
HARMLESS = [
    "CREATE INDEX ON team (mood)",
    "CREATE UNIQUE INDEX ON task (team_id)",
    "CREATE TABLE other (id int)",
    "CREATE VIEW more AS SELECT id FROM task",
    "CREATE TYPE other AS ENUM ('a')",
    "ALTER TYPE mood ADD VALUE 'fine'",
    "ANALYZE",
    "VACUUM",
    "VACUUM FULL team",
    "REINDEX TABLE team",
    "TRUNCATE task",
    "GRANT SELECT ON team TO PUBLIC",
    "COMMENT ON TABLE team IS 'x'",
    "ALTER TABLE loose ADD FOREIGN KEY (id) REFERENCES team",
    "CREATE TABLE part_b PARTITION OF part FOR VALUES FROM (10) TO (20)",
    "DROP TABLE part_a",
    "CREATE RULE r AS ON DELETE TO loose DO ALSO DELETE FROM task",
]
DOUBTFUL = [
    "ALTER TABLE team ADD COLUMN extra int DEFAULT 5",
    "ALTER TABLE team DROP COLUMN mood",
    "ALTER TABLE team RENAME COLUMN name TO title",
    "ALTER TABLE team ALTER COLUMN id TYPE int USING id + 1",
    "ALTER TABLE task ALTER COLUMN team_id SET DEFAULT 1; ALTER TABLE task ALTER COLUMN team_id DROP DEFAULT",
    "ALTER TABLE loose ALTER COLUMN k SET NOT NULL",
    "ALTER TABLE task RENAME TO job",
    "DROP TABLE task",
    "DROP TABLE task; CREATE TABLE task (id int PRIMARY KEY, team_id int REFERENCES team)",
    "DROP TRIGGER reactive_rpc_update ON team",
    "ALTER TABLE team DISABLE TRIGGER ALL; ALTER TABLE team ENABLE TRIGGER ALL",
    "ALTER TABLE team DISABLE TRIGGER reactive_rpc_insert; ALTER TABLE team ENABLE ALWAYS TRIGGER reactive_rpc_insert",
    "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'",
    "ALTER TYPE pair ADD ATTRIBUTE c int",
    "CREATE OR REPLACE VIEW names AS SELECT name || '!' AS name FROM team",
    "DROP VIEW names",
    "ALTER TABLE team ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE part DETACH PARTITION part_a",
    "ALTER TABLE part ATTACH PARTITION loose FOR VALUES FROM (10) TO (20)",
    "CREATE TABLE dog () INHERITS (animal)",
    "ALTER TABLE team DROP CONSTRAINT team_name_key",
    "CREATE SCHEMA s; ALTER TABLE task SET SCHEMA s",
    "DROP TABLE reactive_rpc.outbox CASCADE",
    "TRUNCATE reactive_rpc.outbox",
    "DROP SCHEMA reactive_rpc CASCADE",
]


def _plain(url: str, **changed: Any) -> str:
    return make_url(url).set(drivername="postgresql", **changed).render_as_string(hide_password=False)


def _capture(url: str, *, manage: bool = True) -> PostgreSQLCapture:
    return PostgreSQLCapture(make_url(url), ids=RandomIds(), manage=manage)


@pytest.fixture
def make_world(postgresql_url: str) -> Iterator[Callable[..., CapturedDatabase]]:
    """Return a function that builds a captured database from DDL."""
    with ExitStack() as stack:

        def make(ddl: str = TEAM) -> CapturedDatabase:
            with psycopg.connect(_plain(postgresql_url), autocommit=True) as connection:
                connection.execute(ddl)
            world = CapturedDatabase(_plain(postgresql_url))
            stack.callback(world.close)
            return world

        yield make


@pytest.fixture(scope="module")
def template(postgresql: PostgreSQL) -> Iterator[str]:
    """Return the name of a captured database to copy from: quicker than a new installation for each change."""
    url = postgresql.new_database()
    with psycopg.connect(_plain(url), autocommit=True) as connection:
        connection.execute(TEAM)
    yield str(make_url(url).database)
    postgresql.drop_database(url)


@pytest.fixture
def world(postgresql: PostgreSQL, template: str) -> Iterator[CapturedDatabase]:
    """Return a database with the tables of `TEAM`, captured."""
    url = postgresql.new_database(template=template)
    world = CapturedDatabase(_plain(url))
    yield world
    world.close()
    postgresql.drop_database(url)


OUR_TABLES = "SELECT relname FROM pg_class WHERE relnamespace = 'reactive_rpc'::regnamespace AND relkind IN ('r', 'p')"


def _one(world: CapturedDatabase, sql: str) -> Any:
    row = world.reader.execute(sql).fetchone()
    assert row is not None
    return row[0]


def _fingerprint(world: CapturedDatabase) -> str:
    return str(_one(world, f"SELECT {FINGERPRINT}"))


def _run(world: CapturedDatabase, script: str) -> None:
    for statement in script.split("; "):
        world.reader.execute(statement)


def _is_complete(world: CapturedDatabase, state: CaptureState) -> bool:
    return state.schema_fingerprint == _fingerprint(world) and world.capture.script() == ""


def test_a_second_installation_finds_all_in_place(world: CapturedDatabase) -> None:
    """Installing again, by another process, returns the same state and writes nothing."""
    before = _one(world, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
    assert _capture(world.url).install() == world.state
    assert _capture(world.url, manage=False).install() == world.state
    ours = [f"reactive_rpc.{name}" for (name,) in world.reader.execute(OUR_TABLES)]
    assert "reactive_rpc.outbox" in ours
    # The snapshot alone does not tell: autovacuum and other databases take transaction ids too.
    for table in [*ours, "pg_class", "pg_proc", "pg_trigger", "pg_namespace", "pg_event_trigger", "pg_description"]:
        assert _one(world, f"SELECT count(*) FROM {table} WHERE xmin::text::bigint >= {before}") == 0, table


def test_three_processes_install_at_once(postgresql_url: str) -> None:
    """Processes that start together agree on one epoch, and everything is done once."""
    with psycopg.connect(_plain(postgresql_url), autocommit=True) as connection:
        connection.execute(TEAM)
        program = (
            "import sys; from sqlalchemy import make_url; from reactive_rpc.clock import RandomIds;"
            "from reactive_rpc.backends.postgresql.capture.backend import PostgreSQLCapture;"
            "print(PostgreSQLCapture(make_url(sys.argv[1]), ids=RandomIds()).install().epoch)"
        )
        processes = [
            subprocess.Popen([sys.executable, "-c", program, postgresql_url], stdout=subprocess.PIPE, text=True)
            for _ in range(3)
        ]
        epochs = {process.communicate()[0] for process in processes}
        assert [process.returncode for process in processes] == [0, 0, 0]
        assert len(epochs) == 1
        recorded = connection.execute("SELECT tbl, op::text FROM reactive_rpc.outbox ORDER BY tbl").fetchall()
    assert recorded == [(name, "B") for name in ("animal", "loose", "part", "task", "team")]


@pytest.mark.parametrize("ddl", HARMLESS)
def test_harmless_changes_keep_the_epoch(world: CapturedDatabase, ddl: str) -> None:
    """What hides no write and changes no row's meaning begins no epoch, and all is captured afterwards."""
    _run(world, ddl)
    state = world.capture.refresh()
    assert state.epoch == world.state.epoch
    assert all(table.captured for table in state.tables.values())
    assert _is_complete(world, state)


@pytest.mark.parametrize("ddl", DOUBTFUL)
def test_doubtful_changes_begin_an_epoch(world: CapturedDatabase, ddl: str) -> None:
    """DDL that may hide a write, or change the meaning of rows, begins an epoch; all is captured again."""
    _run(world, ddl)
    state = world.capture.refresh()
    assert state.epoch != world.state.epoch
    assert state.schema_fingerprint != world.state.schema_fingerprint
    assert _is_complete(world, state)
    again = world.capture.refresh()
    assert again == state
    world.state, world.seen = state, 0
    world.changes()
    for name, table in state.tables.items():
        assert table.captured
        world.reader.execute(f"DELETE FROM {name}" if name != "team" else "TRUNCATE team CASCADE")
    if "team" in state.tables:
        assert [(c.table, c.operation) for c in world.changes() if c.table == "team"] == [("team", "bulk")]


def test_temporary_tables_are_nobodys_business(world: CapturedDatabase) -> None:
    """A temporary table does not even move the fingerprint."""
    world.reader.execute("CREATE TEMP TABLE scratch (id serial PRIMARY KEY, t text UNIQUE)")
    world.reader.execute("CREATE TEMP VIEW look AS SELECT * FROM scratch")
    assert _fingerprint(world) == world.state.schema_fingerprint


@pytest.mark.parametrize(
    ("ddl", "is_exact"),
    [
        ("ALTER TABLE team RENAME COLUMN name TO title", False),
        ("ALTER TABLE team DROP COLUMN mood", False),
        ("ALTER TABLE team ALTER COLUMN mood TYPE int USING 1", False),
        ("ALTER TABLE team ADD COLUMN extra int", True),
    ],
)
def test_an_altered_table_fails_no_statement(world: CapturedDatabase, ddl: str, is_exact: bool) -> None:
    """Between ALTER TABLE and the next look, writes succeed; if rows are not exact, the table counts as changed."""
    world.reader.execute(ddl)
    world.changes()
    world.reader.execute("INSERT INTO team(id) VALUES (7)")
    world.reader.execute("UPDATE team SET p = '(1,x)'")
    world.reader.execute("DELETE FROM team WHERE id = 7")
    changes = world.changes()
    assert {change.table for change in changes} == {"team"}
    assert {change.operation for change in changes} == ({"insert", "update", "delete"} if is_exact else {"bulk"})
    assert world.capture.refresh().epoch != world.state.epoch


@pytest.mark.parametrize(
    ("ddl", "table"),
    [
        ("DROP TABLE part_a", "part"),
        (
            "ALTER TABLE part DETACH PARTITION part_a; "
            "ALTER TABLE part ATTACH PARTITION part_a FOR VALUES FROM (0) TO (9)",
            "part",
        ),
        ("ALTER TABLE task RENAME TO job; ALTER TABLE job RENAME TO task", "task"),
    ],
)
def test_what_may_have_been_read_in_between_is_recorded(world: CapturedDatabase, ddl: str, table: str) -> None:
    """Where rows went without triggers, or a name meant something else for a while, the table counts as changed."""
    _run(world, ddl)
    world.changes()
    state = world.capture.refresh()
    assert state.epoch == world.state.epoch
    assert [(change.table, change.operation) for change in world.changes()] == [(table, "bulk")]


def test_a_lost_record_begins_an_epoch(world: CapturedDatabase) -> None:
    """Without the record nothing says what was seen."""
    world.reader.execute("DELETE FROM reactive_rpc.meta")
    assert world.capture.refresh().epoch != world.state.epoch


def test_a_new_table_and_a_new_partition_are_told_whole(world: CapturedDatabase) -> None:
    """What was written before the triggers stood is recorded by a bulk change after it."""
    world.reader.execute("CREATE TABLE other (id int); INSERT INTO other VALUES (1)")
    world.reader.execute("CREATE TABLE part_b PARTITION OF part FOR VALUES FROM (10) TO (20)")
    world.reader.execute("INSERT INTO part_b VALUES (1, 11)")
    world.changes()
    world.state = world.capture.refresh()
    assert {(change.table, change.operation) for change in world.changes()} == {("other", "bulk"), ("part", "bulk")}
    world.reader.execute("INSERT INTO part_b VALUES (2, 12); INSERT INTO other VALUES (2)")
    assert [(change.table, change.operation) for change in world.changes()] == [("part", "insert"), ("other", "insert")]


def test_what_is_written_past_triggers_is_not_captured(make_world: Callable[..., CapturedDatabase]) -> None:
    """Foreign tables, materialized views, subscribed tables and what they are a part of are refused with a reason."""
    world = make_world("""
        CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;
        CREATE FOREIGN TABLE abroad (id int) SERVER s;
        CREATE TABLE rooted (id int) PARTITION BY RANGE (id);
        CREATE FOREIGN TABLE rooted_1 PARTITION OF rooted FOR VALUES FROM (0) TO (9) SERVER s;
        CREATE TABLE parent (id int); CREATE FOREIGN TABLE child () INHERITS (parent) SERVER s;
        CREATE TABLE sent (id int); CREATE TABLE fine (id int);
        CREATE MATERIALIZED VIEW filled AS SELECT id FROM fine;
        SET allow_system_table_mods = on;
        INSERT INTO pg_subscription_rel(srsubid, srrelid, srsubstate) VALUES (1, 'sent'::regclass, 'r');
    """)
    reasons = {name: table.reason or "" for name, table in world.state.tables.items() if not table.captured}
    assert reasons.keys() == {"abroad", "rooted", "parent", "child", "sent", "filled"}
    assert "foreign" in reasons["rooted"]
    assert "subscription" in reasons["sent"]
    assert "REFRESH" in reasons["filled"]
    world.reader.execute("DELETE FROM pg_subscription_rel")


def test_row_security_must_rest_on_rows(make_world: Callable[..., CapturedDatabase]) -> None:
    """A policy that asks for the session's user or settings makes its table uncacheable; one over columns does not."""
    world = make_world("""
        CREATE TABLE a (id int, owner text); ALTER TABLE a ENABLE ROW LEVEL SECURITY;
        CREATE POLICY p ON a USING (owner = current_setting('app.user'));
        CREATE TABLE b (id int, owner text); ALTER TABLE b ENABLE ROW LEVEL SECURITY;
        CREATE POLICY p ON b USING (owner = current_user);
        CREATE TABLE c (id int, owner text); ALTER TABLE c ENABLE ROW LEVEL SECURITY;
        CREATE POLICY p ON c USING (lower(owner) = 'x' AND id > 3);
    """)
    assert {name for name, table in world.state.tables.items() if table.captured} == {"c"}
    assert "current_setting()" in (world.state.tables["a"].reason or "")


def test_a_view_under_its_owners_row_security_is_opaque(make_world: Callable[..., CapturedDatabase]) -> None:
    """Policies that restrict a view's owner, through other views too, add to it what nobody sees; others do not."""
    world = make_world("""
        CREATE TABLE a (id int, owner text); ALTER TABLE a ENABLE ROW LEVEL SECURITY;
        CREATE TABLE b (id int); CREATE POLICY p ON a USING (EXISTS (SELECT FROM b WHERE b.id = a.id));
        CREATE VIEW mine AS SELECT id FROM a;
        CREATE VIEW theirs AS SELECT id FROM a; ALTER VIEW theirs OWNER TO pg_monitor;
        CREATE VIEW over_theirs AS SELECT id FROM theirs;
        CREATE VIEW invoked WITH (security_invoker = on) AS SELECT id FROM a; ALTER VIEW invoked OWNER TO pg_monitor;
        CREATE VIEW over_invoked AS SELECT id FROM invoked; ALTER VIEW over_invoked OWNER TO pg_monitor;
        CREATE VIEW elsewhere AS SELECT id FROM b; ALTER VIEW elsewhere OWNER TO pg_monitor;
    """)
    opaque = {name for name, view in world.state.views.items() if view.opaque and "." not in name}
    assert opaque == {"theirs", "over_theirs", "over_invoked"}
    world.reader.execute("ALTER VIEW mine OWNER TO pg_monitor")
    state = world.capture.refresh()
    assert state.epoch != world.state.epoch
    assert state.views["mine"].opaque


def test_overloads_of_pure_functions_are_known(make_world: Callable[..., CapturedDatabase]) -> None:
    """A user's function with the name of a pure one, and any operator of theirs, are named; new ones begin an epoch."""
    world = make_world("CREATE FUNCTION round(float8, int) RETURNS int LANGUAGE sql AS 'SELECT 1'")
    assert world.state.redefines("round")
    assert not world.state.redefines("lower")
    world.reader.execute("CREATE FUNCTION unlike(text) RETURNS int LANGUAGE sql AS 'SELECT 1'")
    assert world.capture.refresh().epoch == world.state.epoch
    world.reader.execute("CREATE FUNCTION bare(int, int) RETURNS int LANGUAGE sql AS 'SELECT 1'")
    world.reader.execute("CREATE OPERATOR ### (leftarg = int, rightarg = int, function = bare)")
    state = world.capture.refresh()
    assert state.epoch != world.state.epoch
    assert state.redefines("###")


def test_names_and_uniqueness(make_world: Callable[..., CapturedDatabase]) -> None:
    """A table has one canonical name, without its schema where it needs none; columns that prove one row are known."""
    world = make_world("""
        CREATE SCHEMA sales; CREATE TABLE sales.orders (id int PRIMARY KEY, a int, b int, c int, d int, UNIQUE (a, b));
        CREATE UNIQUE INDEX ON sales.orders (b) WHERE a > 0; CREATE UNIQUE INDEX ON sales.orders ((c + 1));
        ALTER TABLE sales.orders ADD UNIQUE (c) DEFERRABLE; CREATE UNIQUE INDEX ON sales.orders (d) INCLUDE (c);
        CREATE TABLE part (id int PRIMARY KEY) PARTITION BY RANGE (id);
        CREATE TABLE part_a PARTITION OF part FOR VALUES FROM (0) TO (10);
        CREATE TABLE animal (id int PRIMARY KEY); CREATE TABLE dog () INHERITS (animal);
        CREATE TABLE "sales.bills" (id int); CREATE TABLE sales.bills (id int);
        CREATE TABLE ref (id int, FOREIGN KEY (id) REFERENCES sales.orders, FOREIGN KEY (id) REFERENCES part);
    """)
    state = world.state
    assert [
        state.table(name) for name in ("sales.orders", "orders", "public.part", "part_a", "public.part_a", "x")
    ] == [
        "sales.orders",
        None,
        "part",
        "part",
        "part",
        None,
    ]
    assert state.tables["sales.orders"].unique == {"id", "d"}
    assert state.is_unique("part", "id")
    assert not state.is_unique("animal", "id")
    assert not state.captured("sales.bills")
    assert state.tables["ref"].foreign_keys == (("id", "sales.orders", "id"), ("id", "part", "id"))


def test_views_name_what_lies_behind_them(make_world: Callable[..., CapturedDatabase]) -> None:
    """A view stands for its base tables, through other views; it is opaque where its rows rest on anything else."""
    world = make_world("""
        CREATE TABLE a (id int PRIMARY KEY, t text, d timestamp); CREATE TABLE b (id int);
        CREATE TABLE r (id int) PARTITION BY RANGE (id); CREATE TABLE r1 PARTITION OF r FOR VALUES FROM (0) TO (9);
        CREATE SEQUENCE q;
        CREATE FUNCTION mine(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT i';
        CREATE VIEW joined AS
          SELECT a.id, lower(t) AS t, concat(t, 1) AS c, (SELECT max(id) FROM r1) FROM a JOIN b USING (id);
        CREATE VIEW nested AS SELECT count(*) FROM joined WHERE EXISTS (SELECT FROM b);
        CREATE VIEW clock AS SELECT id FROM a WHERE d < now();
        CREATE VIEW today AS SELECT id FROM a WHERE d < current_date;
        CREATE VIEW lucky AS SELECT id FROM a WHERE random() < 0.5;
        CREATE VIEW sampled AS SELECT id FROM a TABLESAMPLE bernoulli (10);
        CREATE VIEW locked AS SELECT id FROM a FOR UPDATE;
        CREATE VIEW own AS SELECT mine(id) FROM a;
        CREATE VIEW catalog AS SELECT relname FROM pg_class;
        CREATE VIEW counter AS SELECT last_value FROM q;
        CREATE VIEW parsed AS SELECT t::timestamp FROM a;
        CREATE VIEW over_clock AS SELECT * FROM clock;
    """)
    views = world.state.views
    assert views["joined"] == views["public.joined"] == View(frozenset({"a", "b", "r"}))
    assert views["nested"] == View(frozenset({"a", "b", "r"}))
    opaque = {name for name, view in views.items() if view.opaque and "." not in name}
    assert opaque == {
        "clock", "today", "lucky", "sampled", "locked", "own", "catalog", "counter", "parsed", "over_clock",
    }  # fmt: skip
    assert views["over_clock"].tables == {"a"}


def test_a_busy_table_waits_for_nobody_and_nobody_for_it(
    world: CapturedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long transaction keeps its table uncaptured, as `refresh` says, and `install` names it in its error."""
    monkeypatch.setattr(module, "INSTALL_SECONDS", 1.0)
    with psycopg.connect(world.url) as other:
        other.execute("CREATE TABLE fresh (id int); CREATE TABLE busy (id int)")
        other.commit()
        other.execute("INSERT INTO busy VALUES (1)")
        state = world.capture.refresh()
        assert (state.captured("fresh"), state.captured("busy"), state.epoch) == (True, False, world.state.epoch)
        with pytest.raises(CaptureError, match=r"busy by process \d+ \(idle in transaction"):
            world.capture.install()
    assert world.capture.refresh().captured("busy")


def test_an_administrator_installs_for_a_role_without_rights(
    make_world: Callable[..., CapturedDatabase], postgresql: PostgreSQL
) -> None:
    """A role that owns nothing is told the SQL to run; once it was run, that role can verify, refresh and prune."""
    world = make_world()
    admin = world.reader
    admin.execute("DROP SCHEMA reactive_rpc CASCADE; DROP ROLE IF EXISTS app_role; CREATE ROLE app_role LOGIN")
    admin.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app_role")
    try:
        url = _plain(world.url, username="app_role")
        with pytest.raises(CaptureError, match="Let an administrator run") as refused:
            _capture(url).install()
        script = str(refused.value).split("transaction", 1)[1].split("\n", 1)[1]
        assert _capture(url, manage=False).script() == script
        with pytest.raises(CaptureError, match="not in place"):
            _capture(url, manage=False).verify()
        admin.execute(script)
        app = _capture(url, manage=False)
        state = app.install()
        assert all(table.captured for table in state.tables.values())
        with psycopg.connect(url, autocommit=True) as writer:
            writer.execute("INSERT INTO team VALUES (2, 'x')")
            assert writer.execute(f"SELECT {FINGERPRINT}").fetchone() == (state.schema_fingerprint,)
        admin.execute("CREATE TABLE other (id int)")
        assert not app.refresh().captured("other")
        assert app.refresh(renew=True).epoch != state.epoch
        assert app.prune(0) > 0
        with pytest.raises(CaptureError, match="DROP SCHEMA"):
            app.uninstall()
        with pytest.raises(CaptureError, match=r"must be owner|permission denied"):
            _capture(url).uninstall()
    finally:
        admin.execute("DROP OWNED BY app_role; DROP ROLE app_role")


def test_a_writer_needs_no_rights_on_our_schema(world: CapturedDatabase) -> None:
    """Whoever may write a table is captured, also by a role that may not look into the outbox."""
    world.reader.execute("DROP ROLE IF EXISTS bare_role; CREATE ROLE bare_role; GRANT INSERT ON team TO bare_role")
    try:
        world.reader.execute("SET ROLE bare_role; INSERT INTO team(id) VALUES (9)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            world.reader.execute("SELECT FROM reactive_rpc.outbox")
        world.reader.execute("RESET ROLE")
        assert [change.table for change in world.changes()] == ["team"]
    finally:
        world.reader.execute("RESET ROLE; DROP OWNED BY bare_role; DROP ROLE bare_role")


def test_pruning_never_loses_an_open_transaction(world: CapturedDatabase) -> None:
    """Rows of a transaction that commits after a prune stay, whatever their age; the floor names the prune."""
    world.reader.execute("INSERT INTO team(id) VALUES (10)")
    with psycopg.connect(world.url) as long:
        long.execute("INSERT INTO team(id) VALUES (11)")
        world.reader.execute("INSERT INTO team(id) VALUES (12)")
        assert world.capture.prune(0) > 0
    assert [change.after and change.after["id"] for change in world.changes()] == [11, 12]
    floor = int(_one(world, "SELECT value FROM reactive_rpc.meta WHERE key = 'floor'"))
    assert floor == _one(world, "SELECT min(xid::text::bigint) FROM reactive_rpc.outbox")
    assert world.capture.prune(0) == 2
    assert _one(world, "SELECT count(*) FROM reactive_rpc.horizon") <= 2


def test_pruning_keeps_the_retention(world: CapturedDatabase) -> None:
    """What is younger than the retention stays, and so does the floor."""
    world.reader.execute("INSERT INTO team(id) VALUES (10)")
    assert world.capture.prune(3600) == 0
    world.reader.execute("UPDATE reactive_rpc.horizon SET at = at - interval '2 hours'")
    world.reader.execute("INSERT INTO team(id) VALUES (11)")
    before = _one(world, "SELECT count(*) FROM reactive_rpc.outbox")
    assert world.capture.prune(3600) == before - 1
    assert [change.after and change.after["id"] for change in world.changes()] == [11]


def test_a_copied_database_forgets_the_other_ones_transactions(world: CapturedDatabase, postgresql: PostgreSQL) -> None:
    """A dump or copy brings rows whose transaction ids mean nothing here: they go, and an epoch begins."""
    world.reader.execute("INSERT INTO team(id) VALUES (10)")
    database = make_url(world.url).database
    world.close()
    url = postgresql.new_database(template=str(database))
    try:
        state = _capture(url).install()
        assert state.epoch != world.state.epoch
        with psycopg.connect(_plain(url), autocommit=True) as connection:
            assert connection.execute("SELECT count(*) FROM reactive_rpc.outbox WHERE op <> 'B'").fetchone() == (0,)
            floor = connection.execute("SELECT value::bigint FROM reactive_rpc.meta WHERE key = 'floor'").fetchone()
            assert floor is not None
            assert floor[0] > 0
    finally:
        postgresql.drop_database(url)


def test_a_restored_dump_begins_an_epoch(own_postgresql: PostgreSQLServer) -> None:
    """After pg_dump and psql into another database, capture works there and shares no epoch with the first."""
    source, target = _plain(own_postgresql.new_database()), _plain(own_postgresql.new_database())
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute(TEAM)
    first = CapturedDatabase(source)
    first.reader.execute("INSERT INTO team(id) VALUES (2)")
    first.close()
    binaries = own_postgresql._binaries
    dump = subprocess.run([str(binaries / "pg_dump"), source], check=True, capture_output=True).stdout
    subprocess.run(
        [str(binaries / "psql"), "-q", "-v", "ON_ERROR_STOP=1", target], check=True, input=dump, capture_output=True
    )
    second = CapturedDatabase(target)
    assert second.state.epoch != first.state.epoch
    changes = second.check(lambda: second.reader.execute("UPDATE team SET name = 'n' WHERE id = 1"))
    assert [(change.table, change.changed) for change in changes] == [("team", frozenset({"name"}))]
    second.close()


def test_a_crash_begins_an_epoch(own_postgresql: PostgreSQLServer) -> None:
    """A crash empties unlogged tables without a trace in the catalogs, so nothing of before it counts."""
    url = _plain(own_postgresql.new_database())
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE UNLOGGED TABLE quick (id int)")
    world = CapturedDatabase(url)
    world.reader.execute("INSERT INTO quick VALUES (1); CHECKPOINT")
    world.close()
    own_postgresql.stop(how="kill")
    own_postgresql.start()
    with psycopg.connect(url, autocommit=True) as again:
        assert again.execute("SELECT count(*) FROM quick").fetchone() == (0,)
    state = world.capture.refresh()
    assert state.epoch != world.state.epoch
    assert world.capture.refresh() == state


def test_uninstalling_leaves_nothing(world: CapturedDatabase) -> None:
    """Triggers, functions and tables go, twice if need be; writes go on; a later installation begins an epoch."""
    world.capture.uninstall()
    world.capture.uninstall()
    world.reader.execute("INSERT INTO team(id) VALUES (5)")
    assert _one(world, "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'reactive%'") == 0
    assert _one(world, "SELECT count(*) FROM pg_namespace WHERE nspname = 'reactive_rpc'") == 0
    assert world.capture.install().epoch != world.state.epoch


def test_the_script_does_what_install_does(postgresql_url: str) -> None:
    """The printed SQL, run in one transaction, leaves nothing for `install` to run."""
    with psycopg.connect(_plain(postgresql_url)) as connection:
        connection.execute(TEAM)
        connection.commit()
        connection.execute(_capture(postgresql_url).script())
    capture = _capture(postgresql_url, manage=False)
    assert capture.script() == ""
    assert all(table.captured for table in capture.verify().tables.values())


def test_an_unreachable_server_is_unavailable(own_postgresql: PostgreSQLServer) -> None:
    """A server that does not answer is an error of its own, for callers to try again."""
    capture = _capture(own_postgresql.new_database())
    own_postgresql.stop()
    with pytest.raises(ServiceUnavailableError):
        capture.install()
