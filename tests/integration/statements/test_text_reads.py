"""What a text reads, by the oracle of each database: never too little, and refused where it cannot be told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ColumnElement, Connection, literal_column, make_url, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.ext.compiler import compiles

from reactive_rpc.backends.postgresql.capture.backend import PostgreSQLCapture
from reactive_rpc.backends.sqlite.capture.backend import SQLiteCapture
from reactive_rpc.backends.sqlite.database import TRACED, SQLiteDatabase
from reactive_rpc.clock import RandomIds
from reactive_rpc.dependencies.read_set import Constraint, ReadSet
from reactive_rpc.dependencies.schema import Schema
from reactive_rpc.statements.recorder import RECORDER_OPTION, Recorder, install
from reactive_rpc.statements.text_reads import TextRead
from reactive_rpc.testing.postgresql import PostgreSQL

from .models import Base, Task
from .people_texts import POSTGRESQL, SQLITE
from .recorded_database import Query, RecordedDatabase, open_database
from .shapes import rows


class Shouted(ColumnElement[str]):
    """A construct that renders itself."""

    inherit_cache = True


@compiles(Shouted)
def _render_shouted(_element: Shouted, _compiler: Any, **_kwargs: Any) -> str:
    return "upper(title)"


def driver_sql(statement: str) -> Query:
    """Return the query that hands a text to the driver as it is."""
    return lambda session: sorted(map(tuple, session.connection().exec_driver_sql(statement)), key=repr)


TEXTS: list[tuple[str, Query, set[str]]] = [
    ("one table", rows(text("SELECT name FROM team WHERE id = :id").bindparams(id=1)), {"team"}),
    ("a join", rows(text("SELECT t.id, count(u.id) FROM team t LEFT JOIN task u ON u.team_id = t.id GROUP BY t.id")),
     {"team", "task"}),
    ("a subquery", rows(text("SELECT id FROM team WHERE id NOT IN (SELECT team_id FROM task WHERE title = 'b')")),
     {"team", "task"}),
    ("a CTE named like a table", rows(text("WITH team AS (SELECT id, title FROM task) SELECT * FROM team")), {"task"}),
    ("a recursive CTE", rows(text(
        "WITH RECURSIVE r(id) AS (SELECT id FROM team WHERE id = 1 UNION ALL"
        " SELECT t.id FROM team t JOIN r ON t.parent_id = r.id) SELECT id FROM r")), {"team"}),
    ("a view", rows(text("SELECT label FROM open_task WHERE number = 2")), {"task"}),
    ("a UNION", rows(text("SELECT name FROM team UNION SELECT role FROM member ORDER BY 1")), {"team", "member"}),
    ("the driver's own call", driver_sql("SELECT max(lives) FROM animal"), {"animal"}),
    ("text in a WHERE", rows(select(Task.id).where(Task.team_id == 1, text("id = 3 OR title = 'a'"))), {"task"}),
    ("text in a list of columns", rows(select(literal_column("upper(title)")).select_from(Task)), {"task"}),
    ("a construct that renders itself", rows(select(Shouted()).select_from(Task)), {"task"}),
    ("text as an entity", lambda session: sorted(
        task.title or "" for task in session.scalars(
            select(Task).from_statement(text("SELECT * FROM task WHERE team_id = 1")))), {"task"}),
    ("upper case", rows(text("SELECT COUNT(*) FROM NOTE WHERE TEXT LIKE 'y%'")), {"note"}),
]  # fmt: skip

REFUSED: list[tuple[str, str]] = [
    ("SELECT CURRENT_TIMESTAMP", "current_timestamp"),
    ("SELECT random()", "random()"),
    ("SELECT id FROM team ORDER BY random()", "random()"),
    ("SELECT id FROM unseen", "reads table unseen"),
]

REFUSED_BY_SQLITE: list[tuple[str, str]] = [
    ("SELECT date('now')", "calls date()"),
    ("SELECT date()", "calls date()"),
    ("SELECT strftime('%s')", "calls strftime()"),
    ("SELECT date(strftime('now', due)) FROM task", "calls date()"),
    ("SELECT date(title) FROM task", "calls date()"),
    ("SELECT date(lower(due)) FROM task", "calls date()"),
    ("SELECT date(coalesce(due, 'NOW')) FROM task", "calls date()"),
    ('SELECT date(due) FROM (SELECT title AS "Due" FROM task)', "calls date()"),
    ("WITH t(due) AS (SELECT due FROM task UNION SELECT 'now') SELECT date(due) FROM t", "calls date()"),
    ("SELECT random() FROM task", "calls random()"),
    ("SELECT rowid FROM member", "rowid"),
    ("SELECT name FROM sqlite_schema", "sqlite_master"),
    ("SELECT name FROM pragma_table_info('team')", "pragma_table_info"),
    ("PRAGMA cache_size", "does more than read"),
    ("SELECT changes()", "changes()"),
]

REFUSED_BY_POSTGRESQL: list[tuple[str, str]] = [
    ("SELECT 'now'::timestamp", "which may be a date"),
    ("SELECT id FROM task WHERE due >= 'today'", "which may be a date"),
    ("SELECT title::date FROM task WHERE false", "casts title to a date"),
    ("SELECT t.title FROM (SELECT title AS due FROM task) t WHERE false AND (t.title || '')::date IS NULL", "casts"),
    ("SELECT id FROM team FOR SHARE", "FOR UPDATE"),
    ("SELECT id FROM team TABLESAMPLE SYSTEM (50)", "system()"),
    ("SELECT ctid FROM team", "system column"),
    ("SELECT relname FROM pg_class", "pg_class"),
    ("SELECT pg_catalog.now()", "calls now()"),
    ('SELECT "clock_timestamp"()', "calls clock_timestamp()"),
    ("WITH w AS (UPDATE team SET size = 1 RETURNING id) SELECT id FROM w", "Update"),
    ("SELECT nextval('animal_id_seq')", "calls nextval()"),
    ("SELECT t.full_name FROM team t", "reads full_name, which is no captured column"),
    ("SELECT (t).full_name FROM team t", "reads full_name, which is no captured column"),
    ("SELECT (due).age FROM task", "calls age()"),
    ("SELECT age(due) FROM task", "calls age()"),
    ("SELECT age(CAST(due AS timestamp)) FROM task", "calls age()"),
    ("SELECT date(title) FROM task WHERE false", "casts title to a date"),
    ("SELECT date(lower(title)) FROM task WHERE false", "casts to date"),
    ("SELECT lower(title)::date FROM task WHERE false", "casts to date"),
    ("SELECT coalesce(due, title::date) FROM task WHERE false", "casts title to a date"),
    ("SELECT coalesce(due::text, title)::date FROM task WHERE false", "casts to date"),
    ("SELECT x::date FROM (SELECT title AS x FROM task) t WHERE false", "casts title to a date"),
    ("SELECT x::date FROM (SELECT lower(title) AS x FROM task) t WHERE false", "casts to date"),
    ("WITH t(x) AS (SELECT due FROM task UNION SELECT lower(title)::date FROM task) SELECT x::date FROM t", "casts to"),
    ("SELECT r.d FROM task, jsonb_to_record(data) AS r(d date)", "calls jsonb_to_record()"),
    ("SELECT 'team'::regclass", "casts to regclass"),
    (r"SELECT id FROM task WHERE due >= E't\x6fday'", "which may be a date"),
    (r"SELECT id FROM task WHERE due >= E'\156ow'", "which may be a date"),
    (r"SELECT id FROM task WHERE due >= U&'\0074oday'", "which may be a date"),
    ("SELECT id FROM task WHERE due >= $$today$$", "which may be a date"),
    ("SELECT id FROM task WHERE due >= $a$today$a$", "which may be a date"),
    ("SELECT id FROM task WHERE due >= N'today'", "which may be a date"),
    ("SELECT id FROM task WHERE due >= E'to'\n'day'", "cannot be parsed"),
    ("SELECT coalesce(data -> 'k', to_jsonb(now())) FROM task", "calls now()"),
    ("SELECT id FROM team WHERE name OPERATOR(public.===) 'a'", "the operator public.==="),
    ("SELECT id FROM team ORDER BY name USING <", "cannot be parsed"),
    ("SHOW search_path", "not one SELECT"),
    ("SELECT id FROM task WHERE due >= 'to'\n'day'", "a literal in several parts"),
    (r"SELECT id FROM task WHERE due = ANY ('{to\\day}')", "which may be a date"),
    (r"""SELECT id FROM task WHERE daterange('["to"d\\ay,)') @> due""", "which may be a date"),
]


@pytest.mark.parametrize(("query", "tables"), [case[1:] for case in TEXTS], ids=[case[0] for case in TEXTS])
def test_a_text_reads_the_tables_that_it_names(world: RecordedDatabase, query: Query, tables: set[str]) -> None:
    """Through views and common table expressions, in any case; a table of another name is at most too much."""
    read_set = world.ask(query).read_set
    assert read_set.opaque is None
    assert tables <= read_set.tables
    assert read_set.tables - tables <= {"team"}
    assert all(not constraint.conditions for constraint in read_set.constraints)


def test_no_write_is_missed(world: RecordedDatabase) -> None:
    """Whatever write changes the result of a text touches its read set."""
    found = world.differential({name: query for name, query, _ in TEXTS})
    assert {name: each.missed for name, each in found.items() if each.missed} == {}
    assert [name for name, each in found.items() if not each.noticed] == []


def read_of(world: RecordedDatabase, statement: str, parameters: Any = ()) -> TextRead:
    """Return what the oracle says of a text, which is not run."""
    with world.engine.connect() as connection:
        return world.oracle(connection, statement, parameters, world.schema)


@pytest.mark.parametrize(("statement", "reason"), REFUSED)
def test_a_text_that_may_change_by_itself_is_refused(world: RecordedDatabase, statement: str, reason: str) -> None:
    """A clock, chance, and a table whose writes nobody sees."""
    with world.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS unseen (id integer)")
    assert reason in (read_of(world, statement).opaque or "").lower()


@pytest.mark.parametrize(("statement", "reason"), REFUSED_BY_SQLITE)
def test_what_sqlite_refuses(sqlite_world: RecordedDatabase, statement: str, reason: str) -> None:
    """What is not rows: the rowid, the schema, the connection; and whatever is no SELECT, which is not run."""
    assert reason in (read_of(sqlite_world, statement).opaque or "")


@pytest.mark.parametrize(("statement", "reason"), REFUSED_BY_POSTGRESQL)
def test_what_postgresql_refuses(postgresql_world: RecordedDatabase, statement: str, reason: str) -> None:
    """What is not rows, and every way to ask for the time."""
    assert reason in (read_of(postgresql_world, statement).opaque or "")


def test_a_parameter_that_may_be_a_date_is_refused(postgresql_world: RecordedDatabase) -> None:
    """PostgreSQL reads a parameter's text as a date where one is wanted; the same text of another word is a text."""
    statement = "SELECT id FROM task WHERE due >= %(day)s"
    assert "such as 'today'" in (read_of(postgresql_world, statement, {"day": "today"}).opaque or "")
    assert read_of(postgresql_world, statement, {"day": "2024-01-01"}).tables == {"task": None}


def test_a_parameter_of_a_date_function_is_looked_at_each_time(sqlite_world: RecordedDatabase) -> None:
    """The same text is kept with one day and refused with the clock's."""
    statement = "SELECT id FROM task WHERE due >= date(?, '-7 days')"
    assert read_of(sqlite_world, statement, ("2024-01-01",)).opaque is None
    assert "may be the date 'now'" in (read_of(sqlite_world, statement, ("Now",)).opaque or "")


def locked_tables(connection: Connection) -> set[str]:
    """Return the tables that PostgreSQL has locked for a transaction: all that its statements name."""
    query = "SELECT relation::regclass::text FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation'"
    return {name for (name,) in connection.exec_driver_sql(query) if name in Base.metadata.tables}


VALUES: dict[str, Any] = {"ids": [1], "key": "k", "n": 1, "m": 0, "day": "2024-01-01"}


def understood(
    connection: Connection, world: RecordedDatabase, schema: Schema, statement: str
) -> tuple[TextRead, set[str]]:
    """Run a text and return what the oracle says of it, and the tables that PostgreSQL says it reads."""
    recorder = Recorder(schema, world.oracle)
    connection.execution_options(**{RECORDER_OPTION: recorder})
    values = {name: VALUES[name] for name in text(statement)._bindparams}
    with connection.begin():
        connection.execute(text(statement), values).fetchall()
        connection.execution_options(**{RECORDER_OPTION: None})
        found = locked_tables(connection) if world.dialect == "postgresql" else set()
    read_set = recorder.read_set()
    return TextRead(dict.fromkeys(read_set.tables), read_set.opaque), found


def test_texts_as_people_write_them_are_understood_on_postgresql(postgresql: PostgreSQL) -> None:
    """None is refused; each runs, and what the parser says it reads is what the server locks for it."""
    url = postgresql.new_database(driver="postgresql+psycopg")
    world = open_database(url)
    state = PostgreSQLCapture(make_url(url), ids=RandomIds()).install()
    wrong: dict[str, object] = {}
    with world.engine.connect() as connection:
        for statement in POSTGRESQL:
            read, locked = understood(connection, world, state, statement)
            if read.opaque is not None or not locked <= read.tables.keys():
                wrong[statement] = read.opaque or locked
    world.engine.dispose()
    postgresql.drop_database(url)
    assert wrong == {}


def test_texts_as_people_write_them_are_understood_on_sqlite(tmp_path: Path) -> None:
    """None is refused, and each runs; of a view's date functions the view's own text tells."""
    path = tmp_path / "texts.db"
    world = open_database(f"sqlite:///{path}")
    with world.engine.begin() as connection:
        connection.exec_driver_sql("CREATE VIEW months AS SELECT strftime('%Y-%m', due) AS month FROM task")
        connection.exec_driver_sql("CREATE VIEW today AS SELECT date('now') AS day FROM task")
    state = SQLiteCapture(path, ids=RandomIds()).install()
    with world.engine.connect() as connection:
        refused = {each: understood(connection, world, state, each)[0].opaque for each in SQLITE}
        through_view = understood(connection, world, state, "SELECT day FROM today")[0].opaque
    world.engine.dispose()
    assert {statement: opaque for statement, opaque in refused.items() if opaque is not None} == {}
    assert "calls date()" in (through_view or "")


def test_columns_on_sqlite_are_those_that_are_read(sqlite_world: RecordedDatabase) -> None:
    """SQLite tells the columns, through the view."""
    assert read_of(sqlite_world, "SELECT label FROM open_task").tables == {"task": frozenset({"id", "title", "done"})}
    assert read_of(sqlite_world, "SELECT count(*) FROM team").tables == {"team": frozenset()}


def test_json_each_declares_itself_first(sqlite_world: RecordedDatabase) -> None:
    """The first statement on a connection that uses json_each is told from one that writes to the schema."""
    world = open_database("sqlite://")
    for _ in range(2):
        statement = "SELECT value FROM task, json_each(task.data)"
        assert read_of(world, statement).tables == {"task": frozenset({"data"})}
    assert "may not be modified" in (read_of(world, "DELETE FROM sqlite_schema").opaque or "")
    world.engine.dispose()


@pytest.mark.parametrize("is_async", [False, True], ids=["sqlite3", "aiosqlite"])
def test_sqlite_counts_no_question_of_ours(tmp_path: Path, is_async: bool) -> None:
    """The oracle's own statement is not held against the handler, and it is asked once for a text and a schema."""
    path = tmp_path / "texts.db"
    world = open_database(f"sqlite:///{path}")
    world.engine.dispose()
    state = SQLiteCapture(path, ids=RandomIds()).install()
    database = SQLiteDatabase(make_url(f"sqlite:///{path}"), busy_timeout_seconds=5.0, position="SELECT 0")
    statement = text("SELECT LABEL FROM Main.OPEN_TASK")

    async def read() -> ReadSet:
        recorder = Recorder(state)

        async def handle(session: AsyncSession) -> Callable[[], None]:
            connection = await session.connection()
            await connection.execute(statement)
            await connection.execute(statement)
            assert (await connection.run_sync(lambda sync: sync.info[TRACED])) == recorder.statements == 2
            return lambda: None

        await database.read(recorder, handle, at_least=0)
        await database.aclose()
        return recorder.read_set()

    def read_sync() -> ReadSet:
        recorder = Recorder(state)
        with database.read_sync(recorder, at_least=0) as session:
            session.connection().execute(statement)
        asyncio.run(database.aclose())
        return recorder.read_set()

    found = asyncio.run(read()) if is_async else read_sync()
    assert found == ReadSet((Constraint("task", frozenset({"id", "title", "done"})),))


async def _read_with_asyncpg(url: str, world: RecordedDatabase) -> ReadSet:
    engine = create_async_engine(url)
    install(engine.sync_engine)
    recorder = Recorder(world.schema, world.oracle)
    async with engine.connect() as connection:
        await connection.execution_options(**{RECORDER_OPTION: recorder})
        await connection.execute(text("SELECT label FROM open_task WHERE number = :number"), {"number": 1})
        await connection.exec_driver_sql("SELECT name FROM team WHERE id = $1", (1,))
    await engine.dispose()
    return recorder.read_set()


def test_asyncpg_writes_parameters_its_own_way(postgresql_world: RecordedDatabase) -> None:
    """The oracle understands the text of either driver."""
    url = postgresql_world.engine.url.set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)
    found = asyncio.run(_read_with_asyncpg(url, postgresql_world))
    assert found == ReadSet((Constraint("task"), Constraint("team")))
