"""Conditions on a row's parent become conditions on virtual columns, where that is sound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import and_, exists, or_, select

from reactive_rpc.dependencies.lookup import Lookup
from reactive_rpc.dependencies.read_set import Condition, Equals, IsNull, NotNull

from .conftest import ReadSetOf
from .tables import TASKS, TEAMS

NAME = Lookup("tasks", "team_id", "teams", "id", "name")
SIZE = Lookup("tasks", "team_id", "teams", "id", "size")
NAMED: Mapping[str, Condition] = {NAME.name: Equals(frozenset({"a"}))}
OTHER = TASKS.alias("other")
BOTH = and_(TASKS.c.team_id == TEAMS.c.id, TEAMS.c.name == "a")

STATEMENTS: dict[str, tuple[Any, list[Mapping[str, Condition]]]] = {
    "an inner join": (select(TASKS.c.title).join(TEAMS).where(TEAMS.c.name == "a"), [NAMED]),
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
    "a key that is not unique is none": (
        select(TASKS.c.title).join(OTHER, OTHER.c.team_id == TASKS.c.team_id).where(OTHER.c.title == "x"),
        [{}, {"title": Equals(frozenset({"x"}))}],
    ),
    "kinds that differ are compared by conversion": (
        select(TASKS.c.title).join(TEAMS, TASKS.c.title == TEAMS.c.id).where(TEAMS.c.name == "a"),
        [{}],
    ),
}


@pytest.mark.parametrize(("statement", "expected"), STATEMENTS.values(), ids=STATEMENTS)
def test_conditions_of_the_children(
    statement: Any, expected: list[Mapping[str, Condition]], read_set_of: ReadSetOf
) -> None:
    """The constraints on `tasks` hold what is known of their teams, and name the look-ups that this takes."""
    constraints = [each for each in read_set_of(statement).constraints if each.table == "tasks"]
    assert [dict(each.conditions) for each in constraints] == expected
    for each in constraints:
        assert {lookup.name for lookup in each.lookups} == {name for name in each.conditions if "->" in name}


def test_parents_do_not_lead_back_to_a_child(read_set_of: ReadSetOf) -> None:
    """Of two rows that are each other's parents one is looked up: a change of both would hide from both."""
    statement = (
        select(TASKS.c.title)
        .join(TEAMS, and_(TASKS.c.team_id == TEAMS.c.id, TEAMS.c.size == TASKS.c.id))
        .where(TEAMS.c.name == "a", TASKS.c.title == "x")
    )
    lookups = [lookup for constraint in read_set_of(statement).constraints for lookup in constraint.lookups]
    assert [(lookup.table, lookup.parent) for lookup in lookups] == [("tasks", "teams")]
