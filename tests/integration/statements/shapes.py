"""Every shape of statement that SQLAlchemy renders, and what it reads: `{table: conditions}` for each of its reads.

A table that is missing is not read; `{}` is the whole table. Conditions are written `1` for equality, a set for a list
of values, a pair for bounds that are both inclusive, None for IS NULL, `...` for IS NOT NULL.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import (
    CTE,
    Column,
    Date,
    Integer,
    MetaData,
    Sequence,
    String,
    Table,
    and_,
    bindparam,
    case,
    cast,
    column,
    exists,
    extract,
    false,
    func,
    lateral,
    literal,
    or_,
    select,
    table,
    true,
    tuple_,
    union,
    union_all,
    values,
)
from sqlalchemy.dialects.postgresql import JSONB, aggregate_order_by, array
from sqlalchemy.orm import (
    Session,
    aliased,
    contains_eager,
    joinedload,
    lazyload,
    selectin_polymorphic,
    selectinload,
    subqueryload,
    with_loader_criteria,
    with_polymorphic,
)

from .distinct import distinct_on
from .models import Animal, Cat, Counted, Engineer, Member, Person, Task, Team
from .recorded_database import Query

__all__ = ["REFUSED", "SHAPES", "Shape", "rows"]

Conditions = Mapping[str, Any]
T, U = Team.__table__.c, Task.__table__.c
TEAM: Final[Any] = Team.__table__
_XMIN: Final = Table("team", MetaData(), Column("xmin", String, system=True)).c.xmin
OPEN: Final = table("open_task", column("number", Integer), column("label", String))


@dataclass(frozen=True, slots=True)
class Shape:
    """A query and what it reads.

    Attributes:
        reads: `{table: the conditions of each of its reads, in any order}`.
        only: the database that has it; None for both.
    """

    name: str
    query: Query
    reads: Mapping[str, list[Conditions]]
    only: Literal["sqlite", "postgresql"] | None = None


def rows(statement: Any) -> Query:
    """Return the query of a statement: its rows in any order."""
    return lambda session: sorted([tuple(row) for row in session.execute(statement)], key=repr)


def loaded(statement: Any, show: Callable[[Any], Any]) -> Query:
    """Return the query that loads objects and shows each."""
    return lambda session: sorted([show(found) for found in session.scalars(statement).unique()], key=repr)


def team_and_tasks(team: Team) -> Any:
    return team.id, team.name, [(task.id, task.title) for task in team.tasks]


def task_and_team(task: Task) -> Any:
    return task.id, task.team and task.team.name


A, B = Team.__table__.alias("a"), Team.__table__.alias("b")
PARENT = aliased(Team)
FIRST = select(U.id, U.title).where(U.team_id == 1)
COUNTS = select(Task.team_id, func.count().label("n")).group_by(Task.team_id).subquery()
DAYS = bindparam("days", ["2024-01-01", "Tomorrow"], Date, expanding=True)
EACH = func.json_each(U.data).table_valued("value", "key")
DAY = func.generate_series(1, 3).table_valued("day").render_derived()


def below(root: int) -> Any:
    """Return the teams below a team, at any depth."""
    top = select(T.id, T.name).where(T.id == root).cte("below", recursive=True)
    return select(top.union_all(select(T.id, T.name).where(T.parent_id == top.c.id)).c.name)


def used_twice(first: CTE) -> Any:
    """Return rows of a CTE, beside their number."""
    return select(first.c.id, select(func.count()).select_from(first.alias()).scalar_subquery())


def nearest() -> Any:
    """Return each team's first task, by LATERAL."""
    first = select(U.title).where(U.team_id == T.id).order_by(U.id).limit(1)
    return select(T.id, lateral(first, "first").c.title).select_from(Team.__table__).where(T.id == 1)


def again_from_identity_map(session: Session) -> Any:
    """Get one object twice: the second time no statement runs."""
    first, second = session.get(Team, 1), session.get(Team, 1)
    return first is second, first and first.name


def streamed(session: Session) -> Any:
    """Read in portions."""
    found = session.scalars(select(Task).where(Task.team_id == 1).execution_options(yield_per=1))
    return sorted(task.title or "" for task in found)


def refreshed(session: Session) -> Any:
    """Load an object, forget its columns, and load them again."""
    team = session.get(Team, 1)
    session.expire(team)
    return team and team.size


CORE: Final = [
    Shape("inner join", rows(select(T.name, U.title).join(Task, U.team_id == T.id).where(T.id == 1)),
          {"team": [{"id": 1}], "task": [{"team_id": 1}]}),
    Shape("left join", rows(select(T.name, U.title).outerjoin(Task, and_(U.team_id == T.id, U.done))),
          {"team": [{}], "task": [{"done": 1}]}),
    Shape("left join, none on the right", rows(select(T.id).outerjoin(Task, U.team_id == T.id).where(U.id.is_(None))),
          {"team": [{}], "task": [{}]}),
    Shape("left join below a left join", rows(
        select(A.c.id, B.c.name, U.title).select_from(
            A.outerjoin(B, B.c.parent_id == A.c.id).outerjoin(Task, U.team_id == B.c.id)).where(A.c.id == 1)),
        {"team": [{"id": 1}, {"parent_id": 1}], "task": [{}]}),
    Shape("left join of an inner join", rows(
        select(A.c.id, U.title).select_from(
            A.outerjoin(B.join(Task.__table__, and_(U.team_id == B.c.id, B.c.size == 20)), B.c.parent_id == A.c.id))),
        {"team": [{}, {"size": 20}], "task": [{}]}),
    Shape("full join", rows(select(T.id, U.id).join(Task, and_(U.team_id == T.id, U.done), full=True)),
          {"team": [{}], "task": [{}]}, only="postgresql"),
    Shape("self join", rows(select(A.c.name, B.c.name).join(B, A.c.parent_id == B.c.id).where(B.c.name == "red")),
          {"team": [{"parent_id->team.id.name": "red"}, {"name": "red"}]}),
    Shape("cross join", rows(select(A.c.id, B.c.id).join(B, true()).where(A.c.id == 1, B.c.id > 1)),
          {"team": [{"id": 1}, {"id": (1, ...)}]}),
    Shape("EXISTS", rows(select(T.id).where(exists().where(U.team_id == T.id, U.title == "a"))),
          {"team": [{}], "task": [{"title": "a"}]}),
    Shape("NOT EXISTS", rows(select(T.id).where(~exists().where(U.team_id == T.id, U.title == "a"), T.id == 1)),
          {"team": [{"id": 1}], "task": [{"team_id": 1, "title": "a"}]}),
    Shape("IN a subquery", rows(select(T.id).where(T.id.in_(select(U.team_id).where(U.done)))),
          {"team": [{}], "task": [{"done": 1}]}),
    Shape("NOT IN a subquery", rows(select(T.id).where(T.id.not_in(select(U.team_id).where(U.title == "b")))),
          {"team": [{}], "task": [{"title": "b"}]}),
    Shape("scalar subquery", rows(
        select(T.id, select(func.count(U.id)).where(U.team_id == T.id).scalar_subquery()).where(T.id == 1)),
        {"team": [{"id": 1}], "task": [{"team_id": 1}]}),
    Shape("subquery in FROM", rows(select(FIRST.subquery().c.title)), {"task": [{"team_id": 1}]}),
    Shape("CTE", rows(select(FIRST.cte().c.title)), {"task": [{"team_id": 1}]}),
    Shape("CTE used twice", rows(used_twice(FIRST.cte())), {"task": [{"team_id": 1}]}),
    Shape("recursive CTE", rows(below(1)), {"team": [{"id": 1}, {}]}),
    Shape("UNION", rows(union(select(T.name).where(T.id == 1), select(U.title).where(U.id == 2))),
          {"team": [{"id": 1}], "task": [{"id": 2}]}),
    Shape("UNION ALL in a subquery", rows(
        select(func.count()).select_from(union_all(select(T.id).where(T.size == 20), select(U.id)).subquery())),
        {"team": [{"size": 20}], "task": [{}]}),
    Shape("INTERSECT", rows(select(T.id).intersect(select(U.team_id).where(U.title == "a"))),
          {"team": [{}], "task": [{"title": "a"}]}),
    Shape("EXCEPT", rows(select(T.id).except_(select(U.team_id).where(U.title == "b"))),
          {"team": [{}], "task": [{"title": "b"}]}),
    Shape("aggregate", rows(select(func.sum(T.size), func.count()).where(T.parent_id == 1)),
          {"team": [{"parent_id": 1}]}),
    Shape("texts joined", lambda session: sorted(
        (session.scalar(select(func.aggregate_strings(U.title, ", ")).where(U.team_id == 1)) or "").split(", ")),
        {"task": [{"team_id": 1}]}),
    Shape("values in the text", rows(
        select(U.id).where(U.title == bindparam("t", "a", literal_execute=True), U.team_id == literal(1))),
        {"task": [{"title": "a", "team_id": 1}]}),
    Shape("GROUP BY and HAVING", rows(
        select(U.team_id, func.max(U.title)).where(U.done).group_by(U.team_id).having(func.count() > 0)),
        {"task": [{"done": 1}]}),
    Shape("window", rows(select(U.id, func.row_number().over(partition_by=U.team_id, order_by=U.title.desc()))),
          {"task": [{}]}),
    Shape("FILTER", rows(select(func.count().filter(U.done))), {"task": [{}]}),
    Shape("DISTINCT", rows(select(U.title).where(U.team_id == 1).distinct()), {"task": [{"team_id": 1}]}),
    Shape("LIMIT and OFFSET", rows(select(U.id).where(U.title == "a").order_by(U.id).limit(1).offset(1)),
          {"task": [{"title": "a"}]}),
    Shape("CASE", rows(select(case((U.done, U.title), else_="-")).where(U.id == 1)), {"task": [{"id": 1}]}),
    Shape("VALUES", rows(
        select(T.name).join(values(column("n", Integer), name="v").data([(1,), (2,)]), column("n") == T.id)),
        {"team": [{}]}, only="postgresql"),
    Shape("row values", rows(
        select(Member.role).where(tuple_(Member.team_id, Member.place).in_([(1, 2), (2, 1)]))),
        {"member": [{"team_id": {1, 2}, "place": {1, 2}}]}),
    Shape("row values in order", rows(select(Member.role).where(tuple_(Member.team_id, Member.place) > (1, 2))),
          {"member": [{"team_id": (1, ...)}, {"team_id": 1, "place": (2, ...)}]}),
    Shape("row values between two", rows(select(Member.role).where(
        tuple_(Member.team_id, Member.place) > (1, 1), tuple_(Member.team_id, Member.place) <= (2, 1))),
        {"member": [
            {"team_id": (1, 2)}, {"team_id": 2, "place": (..., 1)}, {"team_id": 1, "place": (1, ...)}]}),
    Shape("a list", rows(select(T.name).where(T.id.in_([1, 9]))), {"team": [{"id": {1, 9}}]}),
    Shape("a range", rows(select(T.id).where(T.size.between(5, 20))), {"team": [{"size": (5, 20)}]}),
    Shape("NULL", rows(select(T.id).where(T.parent_id.is_(None))), {"team": [{"parent_id": None}]}),
    Shape("OR", rows(select(T.id).where(or_(T.id == 1, T.name == "red"))), {"team": [{"id": 1}, {"name": "red"}]}),
    Shape("OR of two tables", rows(
        select(T.id, U.id).join(Task, U.team_id == T.id).where(or_(T.id == 1, U.title == "a"))),
        {"team": [{"id": 1}, {}], "task": [{"team_id": 1}, {"title": "a"}]}),
    Shape("never", rows(select(T.id).where(false())), {}),
    Shape("EXTRACT", rows(select(extract("year", U.due))), {"task": [{}]}),
    Shape("CAST", rows(select(cast(T.size, String)).where(T.id == 1)), {"team": [{"id": 1}]}),
    Shape("JSON", rows(select(U.id).where(U.data["k"].as_integer() == 1, U.team_id == 1)),
          {"task": [{"team_id": 1}]}),
    Shape("a view", rows(select(OPEN.c.label).where(OPEN.c.number == 2)), {"task": [{}]}),
    Shape("a lambda", rows(select(T.name).where(lambda: T.id == 1)), {"team": [{"id": 1}]}),
    Shape("json_each", rows(
        select(U.id, EACH.c.value).join(EACH, true()).where(U.id == 1)),
        {"task": [{"id": 1}]}, only="sqlite"),
    Shape("LATERAL", rows(nearest()), {"team": [{"id": 1}], "task": [{"team_id": 1}]}, only="postgresql"),
    Shape("DISTINCT ON", rows(distinct_on(select(U.title), U.team_id).order_by(U.team_id, U.id)),
          {"task": [{}]}, only="postgresql"),
    Shape("jsonb_array_elements", rows(
        select(U.id, func.jsonb_array_elements_text(U.data["tags"]).table_valued("value").c.value).where(U.id == 1)),
        {"task": [{"id": 1}]}, only="postgresql"),
    Shape("generate_series", rows(
        select(DAY.c.day, func.count(U.id)).select_from(DAY).outerjoin(Task, U.id == DAY.c.day).group_by(DAY.c.day)),
        {"task": [{}]}, only="postgresql"),
    Shape("a row as a value", rows(select(func.row_to_json(TEAM.table_valued())).where(T.id == 1)),
          {"team": [{"id": 1}]}, only="postgresql"),
    Shape("arrays", rows(
        select(func.array_agg(aggregate_order_by(U.title, U.id.desc()))).where(U.team_id == 1,
                                                                              U.data.op("?|")(array(["k"])))),
        {"task": [{"team_id": 1}]}, only="postgresql"),
    Shape("JSONB containment", rows(select(U.id).where(U.data.op("@>")(cast({"k": 2}, JSONB)))),
          {"task": [{}]}, only="postgresql"),
    Shape("age of two dates", rows(select(func.age(U.due, U.due))),
          {"task": [{}]}, only="postgresql"),
    *(Shape(f"a date made of dates: {name}", rows(select(extract("year", made)).where(U.team_id == 1)),
            {"task": [{"team_id": 1}]}) for name, made in {
        "an aggregate": func.max(U.due),
        "a choice": func.coalesce(U.due, datetime.date(2024, 1, 1)),
        "a case": case((U.done, U.due), else_=datetime.date(2024, 1, 1)),
        "a parameter": func.coalesce(literal(datetime.date(2024, 1, 1)), U.due),
        "a window": func.lag(U.due).over(order_by=U.id),
    }.items()),
    *(Shape(f"a date made of dates: {name}", rows(select(cast(made, Date)).where(U.team_id == 1)),
            {"task": [{"team_id": 1}]}, only="postgresql") for name, made in {
        "date_trunc": func.date_trunc("month", U.due),
        "a time zone": func.timezone("UTC", U.due),
        "an operator": U.due.op("AT TIME ZONE")("UTC"),
        "an interval": U.due + datetime.timedelta(days=1),
    }.items()),
    Shape("date of date_trunc", rows(select(func.date(func.date_trunc("month", U.due)))), {"task": [{}]},
          only="postgresql"),
    *(Shape(f"date functions: {name}", rows(select(made).where(U.team_id == 1)), {"task": [{"team_id": 1}]},
            only="sqlite") for name, made in {
        "of an aggregate": func.date(func.max(U.due)),
        "of each other": func.strftime("%Y", func.date(U.due, "+1 year")),
        "of a parameter": func.julianday(U.due) - func.julianday(datetime.date(2024, 1, 1)),
    }.items()),
    Shape("date_trunc", rows(select(func.date_trunc("month", U.due))), {"task": [{}]}, only="postgresql"),
    Shape("strftime", rows(select(func.strftime("%Y", U.due))), {"task": [{}]}, only="sqlite"),
]  # fmt: skip

ORM: Final = [
    Shape("lazy load", loaded(select(Team).where(Team.id == 1), team_and_tasks),
          {"team": [{"id": 1}], "task": [{"team_id": 1}]}),
    Shape("lazy load of a parent", loaded(select(Task).where(Task.id == 1), task_and_team),
          {"task": [{"id": 1}], "team": [{"id": 1}]}),
    Shape("selectinload", loaded(select(Team).where(Team.parent_id == 1).options(selectinload(Team.tasks)),
                                 team_and_tasks),
          {"team": [{"parent_id": 1}], "task": [{"team_id": {2, 3}}]}),
    Shape("selectinload by a key of two columns", loaded(
        select(Member).where(Member.team_id == 1).options(selectinload(Member.notes)),
        lambda member: (member.place, [note.text for note in member.notes])),
        {"member": [{"team_id": 1}], "note": [{"team_id": 1, "place": {1, 2}}]}),
    Shape("joinedload", loaded(select(Team).where(Team.id == 1).options(joinedload(Team.tasks)), team_and_tasks),
          {"team": [{"id": 1}], "task": [{"team_id": 1}]}),
    Shape("joinedload below a LIMIT", loaded(
        select(Team).where(Team.name == "red").order_by(Team.id).limit(1).options(joinedload(Team.tasks)),
        team_and_tasks),
        {"team": [{"name": "red"}], "task": [{}]}),
    Shape("subqueryload", loaded(select(Team).where(Team.id == 1).options(subqueryload(Team.tasks)), team_and_tasks),
          {"team": [{"id": 1}, {"id": 1}], "task": [{}]}),
    Shape("contains_eager", loaded(
        select(Team).join(Team.tasks).where(Team.id == 1).options(contains_eager(Team.tasks)), team_and_tasks),
        {"team": [{"id": 1}], "task": [{"team_id": 1}]}),
    Shape("a relation to itself", loaded(
        select(Team).where(Team.id == 1).options(selectinload(Team.parts).selectinload(Team.tasks)),
        lambda team: [(part.id, len(part.tasks)) for part in team.parts]),
        {"team": [{"id": 1}, {"parent_id": 1}], "task": [{"team_id": {2, 3}}]}),
    Shape("loader criteria", loaded(
        select(Team).where(Team.id == 1).options(
            lazyload(Team.tasks), with_loader_criteria(Task, lambda entity: entity.title == "a")), team_and_tasks),
        {"team": [{"id": 1}], "task": [{"team_id": 1, "title": "a"}]}),
    Shape("any()", loaded(select(Team).where(Team.tasks.any(Task.title == "b")), lambda team: team.id),
          {"team": [{}], "task": [{"title": "b"}]}),
    Shape("has()", loaded(select(Task).where(Task.team.has(Team.id == 2)), lambda task: task.id),
          {"task": [{"team_id": 2}], "team": [{"id": 2}]}),
    Shape("an alias", rows(select(Team.name, PARENT.name).join(PARENT, Team.parent_id == PARENT.id)),
          {"team": [{}, {}]}),
    Shape("an entity of a subquery", loaded(
        select(aliased(Team, select(Team).where(Team.parent_id == 1).subquery())), lambda team: team.name),
        {"team": [{"parent_id": 1}]}),
    Shape("a hybrid property", loaded(select(Team).where(Team.is_large), lambda team: team.id),
          {"team": [{"size": (10, ...)}]}),
    Shape("a column property", loaded(select(Counted).where(T.id == 1), lambda team: (team.name, team.count)),
          {"team": [{"id": 1}], "task": [{"team_id": 1}]}),
    Shape("single-table inheritance", loaded(select(Cat), lambda cat: cat.lives), {"animal": [{"kind": "cat"}]}),
    Shape("the base of single-table inheritance", loaded(select(Animal), lambda one: (type(one).__name__, one.lives)),
          {"animal": [{}]}),
    Shape("joined inheritance", loaded(select(Engineer).where(Engineer.id == 2), lambda one: (one.name, one.level)),
          {"person": [{"id": 2}], "engineer": [{"id": 2}]}),
    Shape("with_polymorphic", loaded(
        select(with_polymorphic(Person, "*")), lambda one: (one.name, getattr(one, "level", None))),
        {"person": [{}], "engineer": [{}]}),
    Shape("selectin_polymorphic", loaded(
        select(Person).options(selectin_polymorphic(Person, [Engineer])),
        lambda one: (one.name, getattr(one, "level", None))),
        {"person": [{}, {"id": 2}], "engineer": [{"id": 2}]}),
    Shape("get, twice", again_from_identity_map, {"team": [{"id": 1}]}),
    Shape("refresh", refreshed, {"team": [{"id": 1}]}),
    Shape("in portions", streamed, {"task": [{"team_id": 1}]}),
    Shape("a join to an aggregate", rows(
        select(Team.name, COUNTS.c.n).join(COUNTS, COUNTS.c.team_id == Team.id).where(Team.id == 1)),
        {"team": [{"id": 1}], "task": [{}]}),
]  # fmt: skip

SHAPES: Final = [*CORE, *ORM]

REFUSED: Final[list[tuple[str, Any, str]]] = [
    ("FOR UPDATE", select(Team).with_for_update(), "locks rows (FOR UPDATE)"),
    ("FOR UPDATE of a join", select(Task).join(Task.team).with_for_update(of=Task), "locks rows (FOR UPDATE)"),
    ("TABLESAMPLE", select(Team.__table__.tablesample(50).c.id), "takes a random sample"),
    ("now", select(func.now()), "calls now()"),
    ("a sequence", select(Sequence("animal_id_seq").next_value()), "calls next_value()"),
    ("pg_sleep", select(func.pg_sleep(0)), "calls pg_sleep()"),
    ("a text cast to a date", select(cast(T.name, Date)).where(false()), "casts what may be the text 'now'"),
    ("a volatile default of a window", select(func.lag(T.id, 1, cast(func.random(), Integer)).over(order_by=T.id)),
     "calls random()"),
    ("a volatile set", select(func.generate_series(1, cast(func.random(), Integer)).table_valued("n").render_derived()),
     "calls random()"),
    ("a text for a date", select(U.id).where(U.due >= literal("today", Date)), "compares a date with a text"),
    ("a text for a date, in the text", select(U.id).where(U.due >= bindparam("d", "today", literal_execute=True)),
     "compares a date with a text"),
    ("texts for dates, in the text", select(U.id).where(
        U.due.in_(bindparam("d", ["today"], String, expanding=True, literal_execute=True))), "compares a date with"),
    ("a case of a text", select(cast(case((U.done, U.title)), Date)).where(false()), "casts what may be the text"),
    ("a text made of dates", select(cast(func.to_char(U.due, "YYYY"), Date)).where(false()), "casts what may be"),
    ("a text beside one", select(cast(U.title + U.title, Date)).where(false()), "casts what may be"),
    ("the age of one date", select(func.age(U.due)), "calls age()"),
    ("texts for dates", select(U.id).where(U.due.in_(DAYS)), "compares a date with a text"),
    ("a column of the system", select(_XMIN).where(false()), "reads xmin"),
    ("a function of a schema", select(func.pg_catalog.lower(T.name)), "calls lower()"),
]  # fmt: skip
"""`(name, statement, reason)` on PostgreSQL."""
