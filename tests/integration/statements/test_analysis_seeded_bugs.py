"""The differential of `recorded_database.py` can fail: it finds each of these bugs, put into what it tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest
from sqlalchemy import and_, column, func, select, text, tuple_

from reactive_rpc.backends.postgresql import oracle as postgresql_oracle
from reactive_rpc.backends.postgresql.oracle import PostgreSQLOracle
from reactive_rpc.backends.sqlite import oracle as sqlite_oracle
from reactive_rpc.backends.sqlite.oracle import SQLiteOracle
from reactive_rpc.dependencies.schema import View
from reactive_rpc.statements import binding, predicates
from reactive_rpc.statements.predicates import PredicateReader
from reactive_rpc.statements.recording_compiler import RecordingCompiler, Rendering
from reactive_rpc.statements.scope import SelectScope

from .models import Member, Task, Team
from .recorded_database import Query, RecordedDatabase
from .shapes import FIRST, rows

T = Team.__table__.c
LEFT_JOIN = select(T.id, Task.id).outerjoin(Task, and_(Task.team_id == T.id, T.id == 1))
TEAM: Any = Team.__table__


def outer_join_restricts_the_left(monkeypatch: pytest.MonkeyPatch, _world: RecordedDatabase) -> None:
    def join(scope: Any, left: Any, right: Any, terms: Any) -> Any:
        both = type(left)(left.sources | right.sources, left.nullable | right.sources)
        return scope._inner_join(both, terms, False)

    monkeypatch.setattr(SelectScope, "_left_join", join)


def cte_is_taken_for_one_seen_before(monkeypatch: pytest.MonkeyPatch, _world: RecordedDatabase) -> None:
    def visit(compiler: RecordingCompiler, cte: Any, *args: Any, **kwargs: Any) -> Any:
        seen, tables = list(compiler.rendering.bodies), compiler.rendering.tables.copy()
        rendered = compiler.renderer.visit_cte(cte, *args, **kwargs)
        compiler.rendering.bodies[len(seen) :] = []
        compiler.rendering.tables = tables
        return rendered

    monkeypatch.setattr(RecordingCompiler, "visit_cte", visit)


def row_values_are_mixed_up(monkeypatch: pytest.MonkeyPatch, _world: RecordedDatabase) -> None:
    original = PredicateReader._compare

    def compare(reader: Any, left: Any, operator: Any, right: Any, place: tuple[int, int] = (0, 1)) -> Any:
        return original(reader, left, operator, right, (place[1] - 1 - place[0], place[1]))

    monkeypatch.setattr(PredicateReader, "_compare", compare)


def row_order_forgets_ties(monkeypatch: pytest.MonkeyPatch, _world: RecordedDatabase) -> None:
    def row_order(reader: Any, columns: list[Any], operator: Any, values: list[Any]) -> Any:
        return reader.terms(predicates._STRICT[operator](columns[0], values[0]))

    monkeypatch.setattr(PredicateReader, "_row_order", row_order)


def row_order_forgets_equality(monkeypatch: pytest.MonkeyPatch, _world: RecordedDatabase) -> None:
    original = PredicateReader._row_order

    def row_order(reader: Any, columns: list[Any], operator: Any, values: list[Any]) -> Any:
        return original(reader, columns, predicates._STRICT[operator], values)

    monkeypatch.setattr(PredicateReader, "_row_order", row_order)


def long_list_loses_its_end(monkeypatch: pytest.MonkeyPatch, _world: RecordedDatabase) -> None:
    original = binding._parts

    def parts(conditions: Any) -> Iterator[Any]:
        found = list(original(conditions))
        return iter(found[:-1] if len(found) > 1 else found)

    monkeypatch.setattr(binding, "_parts", parts)


def bare_column_is_no_column(monkeypatch: pytest.MonkeyPatch, _world: RecordedDatabase) -> None:
    monkeypatch.setattr(Rendering, "read_all_columns", lambda _rendering: None)


def text_oracle_ignores_views(monkeypatch: pytest.MonkeyPatch, world: RecordedDatabase) -> None:
    if world.dialect == "postgresql":
        monkeypatch.setattr(world, "schema", replace(world.schema, views={"open_task": View(frozenset())}))
        return
    original = sqlite_oracle.explain

    def explain(*args: Any) -> Any:
        found = original(*args)
        found.reads = {name: columns for name, columns in found.reads.items() if name == "open_task"}
        return found

    monkeypatch.setattr(sqlite_oracle, "explain", explain)


def text_oracle_takes_the_first_table(monkeypatch: pytest.MonkeyPatch, _world: RecordedDatabase) -> None:
    original = postgresql_oracle.parse

    def parse(statement: str) -> Any:
        found = original(statement)
        return replace(found, tables=found.tables[:1])

    monkeypatch.setattr(postgresql_oracle, "parse", parse)


@dataclass(frozen=True, slots=True)
class Bug:
    """A bug, and a query that shows it."""

    seed: Callable[[pytest.MonkeyPatch, RecordedDatabase], None]
    query: Query
    only: Literal["sqlite", "postgresql"] | None = None


BUGS = [
    Bug(outer_join_restricts_the_left, rows(LEFT_JOIN)),
    Bug(cte_is_taken_for_one_seen_before, rows(select(FIRST.cte().c.title))),
    Bug(row_values_are_mixed_up, rows(select(Member.role).where(tuple_(Member.team_id, Member.place).in_([(1, 2)])))),
    Bug(row_order_forgets_ties, rows(select(Member.role).where(tuple_(Member.team_id, Member.place) > (1, 1)))),
    Bug(row_order_forgets_equality, rows(select(Member.role).where(tuple_(Member.team_id, Member.place) >= (1, 2)))),
    Bug(long_list_loses_its_end, rows(select(T.name).where(T.id.in_(range(-500, 4))))),
    Bug(bare_column_is_no_column, rows(select(column("title")).select_from(Task))),
    Bug(
        bare_column_is_no_column,
        rows(select(func.row_to_json(TEAM.table_valued())).where(T.id == 1)),
        only="postgresql",
    ),
    Bug(text_oracle_ignores_views, rows(text("SELECT label FROM open_task"))),
    Bug(
        text_oracle_takes_the_first_table,
        rows(text("SELECT id FROM team WHERE id NOT IN (SELECT team_id FROM task WHERE title = 'b')")),
        only="postgresql",
    ),
]


@pytest.mark.seeded_bug
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.seed.__name__)
def test_a_seeded_bug_is_found(world: RecordedDatabase, monkeypatch: pytest.MonkeyPatch, bug: Bug) -> None:
    """With the bug a write changes the result and touches nothing; without it none does."""
    if bug.only not in (None, world.dialect):
        return
    monkeypatch.setattr(world, "oracle", SQLiteOracle() if world.dialect == "sqlite" else PostgreSQLOracle())
    with monkeypatch.context() as seeded:
        bug.seed(seeded, world)
        world.engine.clear_compiled_cache()
        assert world.differential({"query": bug.query})["query"].missed
    world.engine.clear_compiled_cache()
    monkeypatch.setattr(world, "oracle", SQLiteOracle() if world.dialect == "sqlite" else PostgreSQLOracle())
    assert not world.differential({"query": bug.query})["query"].missed
