"""Conditions on a row's parent become conditions on virtual columns, where that is sound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import and_, exists, func, not_, or_, select, tuple_, union

from reactive_rpc.dependencies.lookup import Lookup
from reactive_rpc.dependencies.read_set import Condition, Equals, IsNull, NotNull, ReadSet

from .conftest import ReadSetOf
from .tables import TASKS, TEAMS

NAME = Lookup("tasks", "team_id", "teams", "id", "name")
SIZE = Lookup("tasks", "team_id", "teams", "id", "size")
NAMED: Mapping[str, Condition] = {NAME.name: Equals(frozenset({"a"}))}
OTHER, THIRD = TASKS.alias("other"), TASKS.alias("third")
OTHERS = Lookup("tasks", "team_id", "tasks", "team_id", "title")
ABOVE = TEAMS.alias("above")
OF_ABOVE = Lookup("tasks", "team_id", "teams", "id", "size", Lookup("teams", "size", "teams", "id", "name"))
ABOVE_NAMED: Mapping[str, Condition] = {OF_ABOVE.name: Equals(frozenset({"a"}))}
TWO_HOPS = select(TASKS.c.title).join(TEAMS).join(ABOVE, TEAMS.c.size == ABOVE.c.id)
BOTH = and_(TASKS.c.team_id == TEAMS.c.id, TEAMS.c.name == "a")

STATEMENTS: dict[str, tuple[Any, list[Mapping[str, Condition]]]] = {
    "an inner join": (select(TASKS.c.title).join(TEAMS).where(TEAMS.c.name == "a"), [NAMED]),
    "a parent of a parent": (TWO_HOPS.where(ABOVE.c.name == "a"), [ABOVE_NAMED]),
    "both parents": (TWO_HOPS.where(ABOVE.c.name == "a", TEAMS.c.name == "a"), [{**NAMED, **ABOVE_NAMED}]),
    "a parent's parent on the right that WHERE makes real": (
        select(TASKS.c.title)
        .select_from(TASKS.outerjoin(TEAMS).outerjoin(ABOVE, TEAMS.c.size == ABOVE.c.id))
        .where(ABOVE.c.name == "a"),
        [ABOVE_NAMED],
    ),
    "a parent's parent on the left says nothing of a parent that may be missing": (
        select(TASKS.c.title)
        .select_from(ABOVE.outerjoin(TEAMS, TEAMS.c.size == ABOVE.c.id).outerjoin(TASKS))
        .where(ABOVE.c.name == "a"),
        [{}],
    ),
    "an equality in WHERE": (select(TASKS.c.title).where(BOTH), [NAMED]),
    "IS NULL of a parent that is surely there": (
        select(TASKS.c.title).join(TEAMS).where(TEAMS.c.name.is_(None)),
        [{NAME.name: IsNull()}],
    ),
    "children on the right of a left join": (
        select(TEAMS.c.id, TASKS.c.title).select_from(TEAMS.outerjoin(TASKS)).where(TEAMS.c.name == "a"),
        [NAMED],
    ),
    "a parent on the right that WHERE makes real": (
        select(TASKS.c.title).select_from(TASKS.outerjoin(TEAMS)).where(TEAMS.c.name == "a"),
        [NAMED],
    ),
    "IS NOT NULL makes it real, too": (
        select(TASKS.c.title).select_from(TASKS.outerjoin(TEAMS)).where(TEAMS.c.name.is_not(None)),
        [{NAME.name: NotNull()}],
    ),
    "IS NULL does not": (
        select(TASKS.c.title).select_from(TASKS.outerjoin(TEAMS)).where(TEAMS.c.name.is_(None)),
        [{}],
    ),
    "nor does a full join": (
        select(TASKS.c.title).select_from(TASKS.outerjoin(TEAMS, full=True)).where(TEAMS.c.name == "a"),
        [{}],
    ),
    "two columns of a parent": (
        select(TASKS.c.title).join(TEAMS).where(TEAMS.c.name == "a", TEAMS.c.size == 3),
        [{**NAMED, SIZE.name: Equals(frozenset({3}))}],
    ),
    "each branch of OR for itself": (
        select(TASKS.c.title).join(TEAMS).where(or_(TEAMS.c.name == "a", TEAMS.c.size == 3)),
        [NAMED, {SIZE.name: Equals(frozenset({3}))}],
    ),
    "an equality of one branch alone": (
        select(TASKS.c.title).where(or_(BOTH, TASKS.c.title == "x")),
        [NAMED, {"title": Equals(frozenset({"x"}))}],
    ),
    "a parent in the enclosing query": (
        select(TEAMS.c.id).where(TEAMS.c.name == "a", exists().where(TASKS.c.team_id == TEAMS.c.id)),
        [NAMED],
    ),
    "the key itself needs no look-up": (
        select(TASKS.c.title).join(TEAMS).where(TEAMS.c.id == 1),
        [{"team_id": Equals(frozenset({1}))}],
    ),
    "nor does a child that is named by its own key": (
        select(TASKS.c.title).join(TEAMS).where(TEAMS.c.name == "a", TASKS.c.id == 1),
        [{"id": Equals(frozenset({1}))}],
    ),
    "a key that is not unique leads to several parents": (
        select(TASKS.c.title).join(OTHER, OTHER.c.team_id == TASKS.c.team_id).where(OTHER.c.title == "x"),
        [{OTHERS.name: Equals(frozenset({"x"}))}, {"title": Equals(frozenset({"x"}))}],
    ),
    "a key without an index is none": (
        select(TASKS.c.title).join(OTHER, OTHER.c.title == TASKS.c.title).where(OTHER.c.done.is_(None)),
        [{}, {"done": IsNull()}],
    ),
    "of several parents that one key leads to, one is asked for": (
        select(TASKS.c.title).where(
            exists().where(OTHER.c.team_id == TASKS.c.team_id, OTHER.c.title == "x"),
            exists().where(THIRD.c.team_id == TASKS.c.team_id, THIRD.c.title == "y"),
        ),
        [
            {OTHERS.name: Equals(frozenset({"x"}))},
            {"title": Equals(frozenset({"x"}))},
            {"title": Equals(frozenset({"y"}))},
        ],
    ),
    "kinds that differ are compared by conversion": (
        select(TASKS.c.title).join(TEAMS, TASKS.c.title == TEAMS.c.id).where(TEAMS.c.name == "a"),
        [{}],
    ),
}

_TITLES = select(TASKS.c.title)
_TEAM_A = select(TEAMS.c.id).where(TEAMS.c.name == "a")
_A = _TEAM_A.subquery()
_ALL = select(TEAMS.c.id, TEAMS.c.name).subquery()
_COMMON = _TEAM_A.cte()
_TASKS = select(TASKS.c.title, TASKS.c.team_id).subquery()
_INNER = select(_ALL.c.id).where(_ALL.c.name == "a").subquery()
SPELLINGS: dict[str, Any] = {
    "IN (SELECT ...)": _TITLES.where(TASKS.c.team_id.in_(_TEAM_A)),
    "IN (SELECT DISTINCT ...)": _TITLES.where(TASKS.c.team_id.in_(_TEAM_A.distinct())),
    "IN of a grouped SELECT": _TITLES.where(TASKS.c.team_id.in_(_TEAM_A.group_by(TEAMS.c.id))),
    "IN of a limited SELECT": _TITLES.where(TASKS.c.team_id.in_(_TEAM_A.limit(5))),
    "EXISTS": _TITLES.where(exists().where(BOTH)),
    "EXISTS of a SELECT": _TITLES.where(_TEAM_A.where(TEAMS.c.id == TASKS.c.team_id).exists()),
    "= (SELECT ...)": _TITLES.where(_TEAM_A.scalar_subquery() == TASKS.c.team_id),
    "row values IN": _TITLES.where(
        tuple_(TASKS.c.team_id, TASKS.c.id).in_(select(TEAMS.c.id, TEAMS.c.size).where(TEAMS.c.name == "a"))
    ),
    "a derived table": _TITLES.join(_A, _A.c.id == TASKS.c.team_id),
    "a derived table's condition around it": _TITLES.join(_ALL, _ALL.c.id == TASKS.c.team_id).where(_ALL.c.name == "a"),
    "a CTE": _TITLES.join(_COMMON, _COMMON.c.id == TASKS.c.team_id),
    "a CTE in IN": _TITLES.where(TASKS.c.team_id.in_(select(_COMMON.c.id))),
    "tasks in a derived table": select(_TASKS.c.title)
    .join(TEAMS, TEAMS.c.id == _TASKS.c.team_id)
    .where(TEAMS.c.name == "a"),
    "a derived table in a derived table": _TITLES.join(_INNER, _INNER.c.id == TASKS.c.team_id),
    "NOT NOT IN": _TITLES.where(not_(TASKS.c.team_id.not_in(_TEAM_A))),
}


@pytest.mark.parametrize("statement", SPELLINGS.values(), ids=SPELLINGS)
def test_a_parent_condition_is_the_same_in_every_spelling(statement: Any, read_set_of: ReadSetOf) -> None:
    """However a query says that the parent has to satisfy a condition, it reads the rows that the join reads."""
    joined = _TITLES.join(TEAMS).where(TEAMS.c.name == "a")
    assert _conditions(read_set_of(statement)) == _conditions(read_set_of(joined))


def _conditions(read_set: ReadSet) -> list[tuple[str, Mapping[str, Condition]]]:
    found = [(each.table, each.conditions) for each in read_set.constraints]
    return sorted(found, key=str)


_TEAM_ABOVE = select(TEAMS.c.id).where(TEAMS.c.size.in_(select(ABOVE.c.id).where(ABOVE.c.name == "a")))
TWO_HOP_SPELLINGS: dict[str, Any] = {
    "IN of IN": _TITLES.where(TASKS.c.team_id.in_(_TEAM_ABOVE)),
    "EXISTS of EXISTS": _TITLES.where(
        exists().where(TASKS.c.team_id == TEAMS.c.id, exists().where(TEAMS.c.size == ABOVE.c.id, ABOVE.c.name == "a"))
    ),
    "a join in IN": _TITLES.where(
        TASKS.c.team_id.in_(select(TEAMS.c.id).join(ABOVE, TEAMS.c.size == ABOVE.c.id).where(ABOVE.c.name == "a"))
    ),
    "IN after a join": _TITLES.join(TEAMS).where(TEAMS.c.size.in_(select(ABOVE.c.id).where(ABOVE.c.name == "a"))),
}


@pytest.mark.parametrize("statement", TWO_HOP_SPELLINGS.values(), ids=TWO_HOP_SPELLINGS)
def test_a_parents_parent_is_the_same_in_every_spelling(statement: Any, read_set_of: ReadSetOf) -> None:
    """Subqueries in subqueries read the rows that the joins of all three read."""
    joined = TWO_HOPS.where(ABOVE.c.name == "a")
    assert _conditions(read_set_of(statement)) == _conditions(read_set_of(joined))


_NUMBERED = select(TEAMS.c.id, TEAMS.c.name, func.row_number().over(order_by=TEAMS.c.id).label("n")).subquery()
_FIRST = select(TEAMS.c.id, TEAMS.c.name).order_by(TEAMS.c.id).limit(2).subquery()
_TWICE = select(TEAMS.c.id, TEAMS.c.name).cte()
_AGAIN = _TWICE.alias()
NOT_SEEN_THROUGH: dict[str, Any] = {
    "a window function": select(_NUMBERED.c.n).where(_NUMBERED.c.name == "a"),
    "a LIMIT": select(_FIRST.c.id).where(_FIRST.c.name == "a"),
    "a CTE that is read twice": select(_TWICE.c.id).join(_AGAIN, _AGAIN.c.id > _TWICE.c.id).where(_TWICE.c.name == "a"),
    "a side that may be left out": select(TASKS.c.id)
    .select_from(TASKS.outerjoin(_ALL, _ALL.c.id == TASKS.c.team_id))
    .where(_ALL.c.name == "a"),
}


@pytest.mark.parametrize("statement", NOT_SEEN_THROUGH.values(), ids=NOT_SEEN_THROUGH)
def test_a_derived_table_that_is_no_plain_selection_is_read_by_itself(statement: Any, read_set_of: ReadSetOf) -> None:
    """What is asked of its rows says nothing of the rows behind them, as others decide what these are."""
    found = [conditions for table, conditions in _conditions(read_set_of(statement)) if table == "teams"]
    assert {} in [dict(each) for each in found]


NOT_OF_ROWS: dict[str, Any] = {
    "NOT EXISTS": ~exists().where(BOTH),
    "NOT IN": TASKS.c.team_id.not_in(_TEAM_A),
    "EXISTS of an aggregate": exists(select(func.count()).where(BOTH)),
    "IN of an aggregate": TASKS.c.team_id.in_(select(func.max(TEAMS.c.id)).where(TEAMS.c.name == "a")),
    "IN of a UNION": TASKS.c.team_id.in_(union(_TEAM_A, _TEAM_A)),
    "a branch of OR": or_(TASKS.c.team_id.in_(_TEAM_A), TASKS.c.title > ""),
}


@pytest.mark.parametrize("condition", NOT_OF_ROWS.values(), ids=NOT_OF_ROWS)
def test_a_subquery_that_says_nothing_of_a_single_parent(condition: Any, read_set_of: ReadSetOf) -> None:
    """If a task can pass although no team of the subquery is its own, all tasks are read."""
    found = read_set_of(_TITLES.where(condition)).constraints
    assert any("->" not in "".join(each.conditions) for each in found if each.table == "tasks")


def test_each_body_reads_rows_of_its_own_of_one_table(read_set_of: ReadSetOf) -> None:
    """A table without an alias is another row in each subquery, so their conditions do not meet."""
    first = exists().where(TEAMS.c.size == TASKS.c.cents, TEAMS.c.id == 1)
    second = exists().where(TEAMS.c.size == TASKS.c.id, TEAMS.c.id == 2)
    found = _conditions(read_set_of(_TITLES.where(first, second)))
    assert [dict(conditions) for table, conditions in found if table == "teams"] == [
        {"id": Equals(frozenset({1}))},
        {"id": Equals(frozenset({2}))},
    ]


def test_rows_of_a_subquery_are_read_by_the_conditions_around_it(read_set_of: ReadSetOf) -> None:
    """A team matters only if one of the tasks asked for is its own."""
    statement = _TITLES.where(TASKS.c.team_id.in_(_TEAM_A), TASKS.c.team_id == 3)
    found = _conditions(read_set_of(statement))
    assert dict(found[1][1]) == {"id": Equals(frozenset({3})), "name": Equals(frozenset({"a"}))}


def test_more_alternatives_than_are_joined_keep_subqueries_apart(read_set_of: ReadSetOf) -> None:
    """Where the alternatives of subqueries multiply, each subquery is read on its own, and nothing is unread."""
    apart = [TEAMS.alias(f"t{number}") for number in range(4)]
    asked = [
        exists().where(each.c.id == TASKS.c.team_id, or_(each.c.name == "a", each.c.size == 3, each.c.size.is_(None)))
        for each in apart
    ]
    found = _conditions(read_set_of(_TITLES.where(*asked)))
    assert [dict(conditions) for table, conditions in found if table == "tasks"] == [{}]
    assert len([table for table, _ in found if table == "teams"]) == 3


@pytest.mark.parametrize(("statement", "expected"), STATEMENTS.values(), ids=STATEMENTS)
def test_conditions_of_the_children(
    statement: Any, expected: list[Mapping[str, Condition]], read_set_of: ReadSetOf
) -> None:
    """The constraints on `tasks` hold what is known of their teams, and name the look-ups that this takes."""
    constraints = [each for each in read_set_of(statement).constraints if each.table == "tasks"]
    assert [dict(each.conditions) for each in constraints] == expected
    for each in constraints:
        assert {lookup.name for lookup in each.lookups} == {name for name in each.conditions if "->" in name}


def test_a_circle_over_two_parents_is_left_open(read_set_of: ReadSetOf) -> None:
    """A row that is its parent's parent's parent is looked up by none of them: a change of all would hide."""
    statement = TWO_HOPS.where(
        TASKS.c.id == ABOVE.c.size, ABOVE.c.name == "a", TASKS.c.title == "x", TEAMS.c.name == "b"
    )
    leads = {
        (lookup.table, hop.parent)
        for constraint in read_set_of(statement).constraints
        for lookup in constraint.lookups
        for hop in lookup.hops
    }
    assert ("teams", "tasks") not in leads


def test_parents_do_not_lead_back_to_a_child(read_set_of: ReadSetOf) -> None:
    """Of two rows that are each other's parents one is looked up: a change of both would hide from both."""
    statement = (
        select(TASKS.c.title)
        .join(TEAMS, and_(TASKS.c.team_id == TEAMS.c.id, TEAMS.c.size == TASKS.c.id))
        .where(TEAMS.c.name == "a", TASKS.c.title == "x")
    )
    lookups = [lookup for constraint in read_set_of(statement).constraints for lookup in constraint.lookups]
    assert [(lookup.table, lookup.parent) for lookup in lookups] == [("tasks", "teams")]
