"""What capture says of a SQLite database's views, of its tables in other spellings, and of what is unique."""

from __future__ import annotations

from reactive_rpc.dependencies.schema import View

from .conftest import MakeCapturedFile

DDL = """
CREATE TABLE Team(id INTEGER PRIMARY KEY, name TEXT UNIQUE, code TEXT COLLATE NOCASE, size INT, a INT, b INT,
                  UNIQUE (a, b));
CREATE UNIQUE INDEX by_code ON Team(code);
CREATE UNIQUE INDEX large ON Team(size) WHERE size > 10;
CREATE TABLE task(id INTEGER PRIMARY KEY, team_id INT, title TEXT, data TEXT);
CREATE VIEW Open_Task AS SELECT id, title FROM task WHERE title LIKE 'a%';
CREATE VIEW overview AS SELECT t.name, (SELECT count(*) FROM OPEN_TASK) AS n FROM main.team AS t;
CREATE VIEW tags AS SELECT value FROM task, json_each(task.data);
CREATE VIEW today AS SELECT id FROM task WHERE title = date('now');
CREATE VIEW objects AS SELECT name FROM sqlite_schema;
CREATE VIEW numbered AS SELECT rowid AS n FROM keyless;
CREATE TABLE keyless(x TEXT);
CREATE VIEW broken AS SELECT missing FROM nowhere;
"""


def test_a_view_is_followed_to_its_tables(make_world: MakeCapturedFile) -> None:
    """Through other views and subqueries, in any spelling of the name."""
    state = make_world(DDL).state
    assert state.view("open_task") == state.view("main.OPEN_TASK") == View(frozenset({"task"}))
    assert state.view("overview") == View(frozenset({"Team", "task"}))
    assert state.view("tags") == View(frozenset({"task"}))
    assert state.view("task") is None


def test_a_view_that_may_change_by_itself_is_opaque(make_world: MakeCapturedFile) -> None:
    """The clock, the schema's own tables, a rowid, and what SQLite cannot explain."""
    state = make_world(DDL).state
    reasons = {name: view.opaque for name in ("today", "objects", "numbered", "broken") if (view := state.view(name))}
    assert reasons == {
        "today": "calls date() of what may be the text 'now', which is the clock: pass in its value",
        "objects": "reads sqlite_master, whose writes are not captured",
        "numbered": "reads a rowid, whose writes are not captured",
        "broken": "runs text that SQLite cannot explain (no such table: main.nowhere)",
    }


def test_a_table_is_found_in_any_spelling(make_world: MakeCapturedFile) -> None:
    """By the name that the database gives it."""
    state = make_world(DDL).state
    assert [state.table(name) for name in ("Team", "team", "MAIN.TEAM", "main.Team", "teams")] == ["Team"] * 4 + [None]


def test_a_column_is_unique_by_itself(make_world: MakeCapturedFile) -> None:
    """The integer key, and the columns that have a whole index of their own."""
    state = make_world(DDL).state
    assert state.tables["Team"].unique == {"id", "name", "code"}


def test_a_view_that_is_made_anew_begins_an_epoch(make_world: MakeCapturedFile) -> None:
    """What is remembered of texts and views is forgotten with it."""
    world = make_world(DDL)
    world.writer.execute("DROP VIEW tags")
    world.writer.execute("CREATE VIEW tags AS SELECT name FROM team")
    state = world.capture.refresh()
    assert state.epoch != world.state.epoch
    assert state.view("tags") == View(frozenset({"Team"}))
