"""From whole statements to constraints: joins, subqueries, columns, and what is opaque."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    ColumnElement,
    Date,
    DateTime,
    Dialect,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    TypeDecorator,
    and_,
    bindparam,
    cast,
    column,
    exists,
    extract,
    func,
    insert,
    literal,
    literal_column,
    or_,
    select,
    table,
    text,
    true,
    type_coerce,
    union,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.elements import ColumnClause

from reactive_rpc.dependencies.read_set import Condition, Equals
from reactive_rpc.statements.recorder import RECORDER_OPTION, Recorder

from .conftest import ReadSetOf
from .tables import SECRETS, TASKS, TEAMS, Known

ONE: dict[str, Condition] = {"id": Equals(frozenset({1}))}
OF_ONE: dict[str, Condition] = {"team_id": Equals(frozenset({1}))}
DONE: dict[str, Condition] = {"done": Equals(frozenset({1}))}
ALIAS = TASKS.alias("t")
COUNT = select(func.count()).select_from(TASKS).where(TASKS.c.team_id == TEAMS.c.id).scalar_subquery()


class Moment(TypeDecorator[datetime.datetime]):
    """A date under a name of its own."""

    impl = DateTime
    cache_ok = True


JOINS: list[tuple[str, Any, dict[str, list[dict[str, Condition]]]]] = [
    (
        "an inner join carries a constant over its equality",
        select(TEAMS.c.id).join(TASKS).where(TEAMS.c.id == 1),
        {"teams": [ONE], "tasks": [OF_ONE]},
    ),
    (
        "so does a left join, from left to right",
        select(TEAMS.c.id).outerjoin(TASKS).where(TEAMS.c.id == 1),
        {"teams": [ONE], "tasks": [OF_ONE]},
    ),
    (
        "the ON of a left join restricts the right side alone",
        select(TEAMS.c.id).outerjoin(TASKS, and_(TASKS.c.team_id == TEAMS.c.id, TASKS.c.done, TEAMS.c.id == 1)),
        {"teams": [{}], "tasks": [DONE]},
    ),
    (
        "IS NULL does not restrict the side that may be left out",
        select(TEAMS.c.id).outerjoin(TASKS).where(TASKS.c.id.is_(None)),
        {"teams": [{}], "tasks": [{}]},
    ),
    (
        "an atom that NULL fails does",
        select(TEAMS.c.id).outerjoin(TASKS).where(TASKS.c.id == 1),
        {"teams": [{"id->tasks.team_id.id": Equals(frozenset({1}))}], "tasks": [ONE]},
    ),
    (
        "the ON of a full join restricts nobody",
        select(TEAMS.c.id).join(TASKS, and_(TASKS.c.team_id == TEAMS.c.id, TASKS.c.id == 1), full=True),
        {"teams": [{}], "tasks": [{}]},
    ),
    (
        "two aliases of a table are two reads",
        select(TASKS.c.id).join(ALIAS, true()).where(TASKS.c.id == 1, ALIAS.c.done),
        {"tasks": [ONE, DONE]},
    ),
    (
        "a correlated subquery inherits what the outer WHERE says",
        select(TEAMS.c.id, COUNT).where(TEAMS.c.id == 1),
        {"teams": [ONE], "tasks": [OF_ONE]},
    ),
    (
        "but not one branch of an outer OR",
        select(TEAMS.c.id, COUNT).where(or_(TEAMS.c.id == 1, TEAMS.c.name == "a")),
        {"teams": [ONE, {"name": Equals(frozenset({"a"}))}], "tasks": [{}]},
    ),
    (
        "EXISTS restricts its own table",
        select(TEAMS.c.id).where(exists().where(TASKS.c.team_id == TEAMS.c.id, TASKS.c.done)),
        {"teams": [{"id->tasks.team_id.done": Equals(frozenset({1}))}], "tasks": [DONE]},
    ),
    (
        "every branch of a UNION stands alone",
        union(select(TASKS.c.id).where(TASKS.c.id == 1), select(TEAMS.c.id).where(TEAMS.c.id == 1)),
        {"tasks": [ONE], "teams": [ONE]},
    ),
    (
        "so does a CTE",
        select(func.count()).select_from(select(TASKS.c.title).where(TASKS.c.done).cte()),
        {"tasks": [DONE]},
    ),
    (
        "an equality in one branch of OR carries nothing into the other",
        select(TEAMS.c.id).join(TASKS, or_(TASKS.c.team_id == TEAMS.c.id, TASKS.c.done)).where(TEAMS.c.id == 1),
        {"teams": [ONE], "tasks": [OF_ONE, DONE]},
    ),
    (
        "a table of another kind of column gets nothing carried over",
        select(TEAMS.c.id).join(TASKS, TASKS.c.title == TEAMS.c.size).where(TASKS.c.title == "1"),
        {"teams": [{}], "tasks": [{"title": Equals(frozenset({"1"}))}]},
    ),
]


@pytest.mark.parametrize(("statement", "expected"), [case[1:] for case in JOINS], ids=[case[0] for case in JOINS])
def test_conditions_of_every_table(
    read_set_of: ReadSetOf, statement: Any, expected: dict[str, list[dict[str, Condition]]]
) -> None:
    """Each table of each SELECT body is restricted by what is true of every row that can matter."""
    found: dict[str, list[dict[str, Condition]]] = {}
    for constraint in read_set_of(statement).constraints:
        found.setdefault(constraint.table, []).append(dict(constraint.conditions))
    assert found == expected


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (select(TASKS.c.id).where(TASKS.c.done).order_by(TASKS.c.due), {"id", "done", "due"}),
        (select(func.count()).select_from(TASKS), set()),
        (select(func.count()).select_from(TASKS).where(TASKS.c.done), {"done"}),
        (select(func.sum(TASKS.c.price)).group_by(TASKS.c.title), {"price", "title"}),
        (select(TASKS.alias().c.title), {"title"}),
        (select(literal(1)).where(exists().where(TASKS.c.done)), {"done"}),
        (select(literal_column("*")).select_from(TASKS), None),
        (select(func.count()).select_from(select(literal_column("*")).select_from(TASKS).subquery()), None),
        (select(literal(1)).where(exists().where(TASKS.c.done).select_from(TASKS)), {"done"}),
        (select(func.strftime("%Y", TASKS.c.due)), {"due"}),
        (select(func.date(func.max(TASKS.c.due))), {"due"}),
        (select(func.strftime("%Y", func.coalesce(TASKS.c.due, datetime.date(2024, 1, 1)))), {"due"}),
        (select(func.date(type_coerce(TASKS.c.due, Moment))), {"due"}),
        (select(func.date(table("tasks", column("due", Moment())).c.due)), {"due"}),
        (select(func.aggregate_strings(TASKS.c.title, ", ")), {"title"}),
        (select(TASKS.c.id, func.json_each(TASKS.c.data).table_valued("value")), {"id", "data"}),
        (select(column("title")).select_from(TASKS), None),
        (select(literal(1)).where(select(literal_column("*")).select_from(TASKS).distinct().offset(1).exists()), None),
    ],
)
def test_columns_are_those_that_are_rendered(read_set_of: ReadSetOf, statement: Any, expected: set[str] | None) -> None:
    """An update of a column that the text does not name cannot change the result; `*` names all."""
    (constraint,) = read_set_of(statement).constraints
    assert constraint.columns == expected


class Clock(ColumnElement[Any]):
    """A construct that renders itself."""

    inherit_cache = True


@compiles(Clock)
def _render_clock(_element: Clock, _compiler: Any, **_kwargs: Any) -> str:
    return "CURRENT_TIMESTAMP"


class Raw(TypeDecorator[str]):
    """Renders itself: SQL of its own, for all that is known."""

    impl = String
    cache_ok = True

    def process_literal_param(self, value: str | None, dialect: Dialect) -> str:
        """Write the value as it pleases."""
        return str(value)


OPAQUE: list[tuple[Any, str]] = [
    (text("SELECT id FROM tasks"), "renders text()"),
    (select(TASKS.c.id).where(text("done = 1")), "renders text()"),
    (select(TASKS.c.id).prefix_with("ALL"), "renders text()"),
    (select(func.now()), "calls now()"),
    (select(func.random()), "calls random()"),
    (select(func.current_timestamp()), "calls current_timestamp()"),
    (select(TASKS.c.id).order_by(func.random()), "calls random()"),
    (select(func.date("now")), "calls date()"),
    (select(func.date(TASKS.c.title)), "calls date()"),
    (select(func.strftime("%Y", literal("now"))), "calls strftime()"),
    (select(func.date(func.strftime("now", TASKS.c.due))), "calls date()"),
    (select(func.date(func.coalesce(TASKS.c.due, TASKS.c.title))), "calls date()"),
    (select(extract("year", literal("now"))), "extracts from what may be the text 'now'"),
    (select(cast(literal("now"), Date)), "casts what may be the text 'now'"),
    (select(cast(TASKS.c.title, Moment)), "casts what may be the text 'now'"),
    (select(literal_column("random()")), "literal_column('random()')"),
    (select(TASKS.c.id.op("+ random() -")(1)), "the operator '+ random() -'"),
    (select(Clock()), "Clock, a construct of its own"),
    (select(TASKS.c.id).with_for_update(), "FOR UPDATE"),
    (select(TASKS.c.id).with_hint(TASKS, "INDEXED BY x", "other"), "a hint"),
    (select(TASKS.c.id).where(TASKS.c.title == bindparam("x", "a", Raw, literal_execute=True)), "literal_execute"),
    (insert(TEAMS).values(name="a"), "writes (INSERT)"),
    (TEAMS.update().values(name="a"), "writes (UPDATE)"),
    (TEAMS.delete(), "writes (DELETE)"),
    (select(SECRETS.c.id), "reads table secrets, whose writes are not captured"),
    (select(TASKS.c.id).where(TASKS.c.id.in_(select(SECRETS.c.id))), "reads table secrets"),
    (select(table("tasks", column("rowid", Integer)).c.rowid), "rowid"),
    (select(Table("tasks", MetaData(), Column("rowid", Integer, system=True)).c.rowid), "rowid"),
    (select(func.mod(TASKS.c.id, 2)), "calls mod, which somebody has defined"),
]


@pytest.mark.parametrize(("statement", "reason"), OPAQUE, ids=[reason for _, reason in OPAQUE])
def test_what_does_not_follow_from_rows_is_opaque(read_set_of: ReadSetOf, statement: Any, reason: str) -> None:
    """A statement whose result may change without a captured write says why."""
    found = read_set_of(statement).opaque
    assert found is not None
    assert reason in found


class Compared(Known):
    """A database whose users have defined `>=` of built-in types."""

    def redefines(self, name: str) -> bool:
        return name == "operator >="


@pytest.mark.parametrize(
    ("condition", "is_opaque"),
    [
        (TASKS.c.id >= TASKS.c.team_id, True),
        (TASKS.c.title.between("a", "b"), True),
        (TASKS.c.id < 5, False),
        (TASKS.c.id.in_([1, 2]), False),
    ],
)
def test_a_comparison_that_somebody_has_defined_is_opaque(engine: Engine, condition: Any, is_opaque: bool) -> None:
    """What an operator of the users' on built-in types reads, nobody knows; another sign is none of its business."""
    recorder = Recorder(Compared())
    with engine.connect() as connection:
        connection.execution_options(**{RECORDER_OPTION: recorder})
        connection.execute(select(TASKS.c.id).where(condition))
    assert (recorder.read_set().opaque is not None) is is_opaque


@pytest.mark.parametrize(
    "statement", [select(literal(1)), select(func.lower("A")), select(ColumnClause("1", is_literal=True))]
)
def test_a_statement_without_tables_reads_nothing(read_set_of: ReadSetOf, statement: Any) -> None:
    """`SELECT 1` depends on no row, and is no fault."""
    read_set = read_set_of(statement)
    assert (read_set.opaque, read_set.constraints) == (None, ())


def test_a_table_in_an_aliased_join_is_read_whole(read_set_of: ReadSetOf) -> None:
    """A FROM that is not understood widens: its tables are read as a whole, next to those that are understood."""
    joined = TEAMS.join(TASKS).select().where(TEAMS.c.id == 1).subquery().alias()
    read_set = read_set_of(select(joined.c.title))
    assert {constraint.table for constraint in read_set.constraints} == {"teams", "tasks"}


def test_a_column_in_another_case_is_the_same_column(read_set_of: ReadSetOf) -> None:
    """SQLite takes `ID` for `id`; a change names its columns as the database spells them."""
    tasks = table("tasks", column("ID", Integer), column("Title"))
    (constraint,) = read_set_of(select(tasks.c.Title).where(tasks.c.ID == 1)).constraints
    assert constraint.columns == frozenset({"id", "title"})
    assert constraint.conditions == ONE
