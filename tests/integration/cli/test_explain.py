"""`reactive-rpc explain`: the reads of each query, and what would narrow them."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from .test_cli import run

MAIN = """
from sqlmodel import Field, SQLModel, col, func, select, text
from sqlmodel.ext.asyncio.session import AsyncSession
from reactive_rpc import ReactiveRPC, define_reactive_function

class Team(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    slug: str
    name: str
    api_token: str = ""

class Task(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    team_id: int = Field(foreign_key="team.id")
    team_slug: str = ""
    title: str

def many(select):
    async def query(db: AsyncSession) -> list[int]:
        return list((await db.exec(select)).all())
    return query

of_team = select(Task.id).join(Team).where(Team.name == "a")
by_slug = select(Task.id).join(Team, col(Team.slug) == Task.team_slug).where(Team.name == "a")
queries = {
    "narrow": of_team,
    "by_slug": by_slug,
    "computed": select(Task.id).where(func.hex(Task.title) == "x"),
    "half": select(Task.id).where(func.coalesce(Task.title, "") == func.hex(Task.title)),
    "many": select(Task.id).where(col(Task.team_id).not_in(list(range(65)))),
    "numbers": select(Task.id).where(col(Task.title) != func.nullif(Task.team_id, 1)),
    "tested": select(Task.id).where(func.lower(Task.title) == "x", col(Task.title).startswith("x")),
    "counted": select(func.count().filter(Task.title == "x") + func.count(Task.team_id).filter(Task.title == "y")),
    "newest": select(Task.id).where(Task.title != "x").order_by(col(Task.id).desc()).limit(1),
    "few": select(Team.id).order_by(Team.id).limit(3),
    "by_computed": select(Team.id).order_by(func.lower(Team.name), Team.id).limit(1),
    "secret": select(Team.id).where(Team.api_token == "x"),
    "every": select(Task.id),
    "as_text": text("SELECT id FROM task WHERE title = 'x'").columns(id=Task.__table__.c.id.type),
    "random": select(func.random()),
}
tasks = {}
for name, statement in queries.items():
    query = many(statement)
    query.__name__ = name
    tasks[name] = define_reactive_function.query(public=True)(query)

@define_reactive_function.query(public=True)
async def titled(db: AsyncSession, title: str) -> list[int]:
    found = []
    for each in (title, title.upper()):
        found += (await db.exec(select(Task.id).where(Task.title == each))).all()
    return found

@define_reactive_function.query(public=True)
async def broken(db: AsyncSession, title: str) -> int:
    raise RuntimeError("broken")

rpc = ReactiveRPC(
    "sqlite+aiosqlite:///tasks.db",
    functions={"tasks": {**tasks, "titled": titled}, "other": {"broken": broken}},
    metadata=SQLModel.metadata,
)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an application."""
    folder = tmp_path_factory.mktemp("explain")
    (folder / "main.py").write_text(MAIN, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def explained(folder: Path) -> dict[str, Any]:
    """Return `{path: its explanation}` of the group."""
    found = run(folder, "explain", "main:rpc", "tasks", "--format", "json")
    assert found.returncode == 0, found.stderr
    return {each["path"].rpartition(".")[2]: each for each in json.loads(found.stdout)["queries"]}


def reads(query: dict[str, Any]) -> dict[str, Any]:
    """Return `{table: read}` of its only statement."""
    [statement] = query["statements"]
    return {read["table"]: read for read in statement["reads"]}


def test_narrow_reads_are_told_with_their_conditions(explained: dict[str, Any]) -> None:
    """A condition of a parent is one of the child's, too, by the column that leads there."""
    found = reads(explained["narrow"])
    assert found["task"]["conditions"] == ["team_id->team.id.name = 'a'"]
    assert found["team"]["conditions"] == ["name = 'a'"]
    assert found["task"]["columns"] == ["id", "team_id"]
    assert found["task"]["unused"] == []


def test_conditions_that_are_evaluated_on_rows_are_told(explained: dict[str, Any]) -> None:
    """They narrow as any other does."""
    read = reads(explained["tested"])["task"]
    assert read["conditions"] == ["(lower(title) = 'x')", "(title like 'x%')"]
    assert read["unused"] == []


def test_conditions_inside_of_aggregates_are_told(folder: Path, explained: dict[str, Any]) -> None:
    """As conditions if a row outside of all of them does not count, and by the values that they take up."""
    read = reads(explained["counted"])["task"]
    assert read["conditions"] == ["((title = 'x') or (title = 'y'))"]
    assert read["aggregated"][0] == "case((title = 'x'), 1, NULL)"
    assert read["unused"] == []
    text = run(folder, "explain", "main:rpc", "tasks.counted").stdout
    assert "inside of aggregates an update counts if it changes case((title = 'x'), 1, NULL) or case(" in text


def test_the_end_of_a_full_page_is_told(folder: Path) -> None:
    """What comes after its last row does not matter, and the explanation names that row."""
    write = "INSERT INTO task (id, team_id, team_slug, title) VALUES (8, 1, '', 'a'), (9, 1, '', 'a')"
    with closing(sqlite3.connect(folder / "tasks.db")) as connection, connection:
        connection.execute(write)
    found = run(folder, "explain", "main:rpc", "tasks.newest", "--format", "json")
    with closing(sqlite3.connect(folder / "tasks.db")) as connection, connection:
        connection.execute("DELETE FROM task")
    [query] = json.loads(found.stdout)["queries"]
    assert reads(query)["task"]["conditions"] == ["not((title = 'x'))", "((id > 9) or (id = 9))"]
    assert reads(query)["task"]["unused"] == []


@pytest.mark.parametrize(
    ("query", "table", "said"),
    [
        ("few", "team", ("LIMIT", "fewer rows", "")),
        ("by_computed", "team", ("LIMIT", "come after the last one is not known", "columns that are selected")),
        ("by_slug", "task", ("team.name = ?", "no index begins with team.slug", "an index on team.slug")),
        ("computed", "task", ("hex(task.title) = :hex_1", "no comparison of a column", "a column of its own")),
        ("half", "task", ("coalesce(task.title", "no comparison of a column", "a column of its own")),
        ("many", "task", ("not((task.team_id in ?))", "of no row is it known", "lists of at most 64")),
        ("numbers", "task", ("(task.title = nullif(task.team_id, ?))", "of no row is it known", "exact types")),
        ("secret", "team", ("team.api_token = ?", "not compared exactly", "Capture(images=")),
        ("as_text", "task", ("text()", "text is not analysed", "select()")),
    ],
)
def test_wide_reads_are_told_with_what_would_narrow_them(
    query: str, table: str, said: tuple[str, str, str], explained: dict[str, Any]
) -> None:
    """The condition that does not count, why, and the way out."""
    read = reads(explained[query])[table]
    assert read["conditions"] == []
    [unused] = read["unused"]
    for part, words in zip(("condition", "reason", "remedy"), said, strict=True):
        assert words in (unused[part] or "")


def test_what_is_not_cached_is_told(explained: dict[str, Any]) -> None:
    """With the statement that is to blame."""
    assert "random()" in explained["random"]["opaque"]
    assert "random()" in explained["random"]["statements"][0]["opaque"]


def test_a_query_without_an_input_is_named(explained: dict[str, Any], folder: Path) -> None:
    """It is no failure of the whole, and one of the query that was asked for."""
    assert "an input" in explained["titled"]["needs"]
    assert run(folder, "explain", "main:rpc", "tasks.titled").returncode == 1


def test_a_statement_that_runs_again_stands_once(folder: Path) -> None:
    """With the number of its runs, and the reads of each."""
    found = run(folder, "explain", "main:rpc", "tasks.titled", '{"title": "x"}')
    assert found.returncode == 0, found.stderr
    assert 'tasks.titled {"title": "x"}' in found.stdout
    assert "(2 times)" in found.stdout
    for value in "xX":
        assert f"task (id, title)  narrow: title = '{value}'" in found.stdout


def test_text_is_for_people(folder: Path) -> None:
    """A wide read says so, in a line of its own."""
    found = run(folder, "explain", "main:rpc", "tasks.every")
    assert "task (id)  wide: every row" in found.stdout
    assert "a WHERE on its columns" in found.stdout


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["tasks.nothing"], "no query and no group 'tasks.nothing'"),
        (["tasks", "{}"], "an input belongs to one"),
        (["tasks.titled", "x"], "is no JSON"),
        (["tasks.titled", "[]"], "is no object"),
        (["other.broken", '{"title": "x"}'], ""),
        (["tasks.titled", '{"name": "x"}'], ""),
    ],
)
def test_what_cannot_be_explained_exits_with_1(folder: Path, arguments: list[str], fault: str) -> None:
    """One sentence, and no traceback."""
    found = run(folder, "explain", "main:rpc", *arguments)
    assert found.returncode == 1
    assert fault in found.stderr
    assert "Traceback" not in found.stderr
