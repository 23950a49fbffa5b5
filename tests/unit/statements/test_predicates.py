"""From a statement to the conditions on one table's rows."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

import pytest
from sqlalchemy import Integer, and_, bindparam, cast, func, literal, not_, or_, select, tuple_

from reactive_rpc.dependencies.read_set import Between, Condition, Equals, IsNull, NotNull

from .conftest import ReadSetOf
from .tables import TASKS, Status

T = TASKS.c


def equals(*values: Any) -> Equals:
    return Equals(frozenset(values))


NARROW: list[tuple[Any, list[dict[str, Condition]]]] = [
    (T.id == 5, [{"id": equals(5)}]),
    (literal(5) == T.id, [{"id": equals(5)}]),
    (T.id.in_([1, 2, None]), [{"id": equals(1, 2)}]),
    (T.id.in_([]), []),
    (T.id == bindparam("none", None, type_=Integer), []),
    (and_(T.id == 1, T.id == 2), []),
    (and_(T.id.in_([1, 2]), T.id > 1), [{"id": equals(2)}]),
    (T.id > 5, [{"id": Between(5, False, None, False)}]),
    (literal(5) > T.id, [{"id": Between(None, False, 5, False)}]),
    (T.id.between(1, 9), [{"id": Between(1, True, 9, True)}]),
    (and_(T.id >= 1, T.id > 1, T.id < 9, T.id <= 12), [{"id": Between(1, False, 9, False)}]),
    (not_(T.id > 5), [{"id": Between(None, False, 5, True)}]),
    (not_(or_(T.id > 5, T.title != "a")), [{"id": Between(None, False, 5, True), "title": equals("a")}]),
    (not_(T.id.not_in([1, 2])), [{"id": equals(1, 2)}]),
    (T.title >= "a", [{"title": Between("a", True, None, False)}]),
    (T.team_id.is_(None), [{"team_id": IsNull()}]),
    (T.team_id.is_not(None), [{"team_id": NotNull()}]),
    (and_(T.team_id.is_not(None), T.team_id == 1), [{"team_id": equals(1)}]),
    (and_(T.team_id.is_(None), T.team_id == 1), []),
    (or_(T.id == 1, T.title == "a"), [{"id": equals(1)}, {"title": equals("a")}]),
    (T.done, [{"done": equals(1)}]),
    (~T.done, [{"done": equals(0)}]),
    (and_(T.done, T.id == 1), [{"done": equals(1), "id": equals(1)}]),
    (T.done.is_(False), [{"done": equals(0)}]),
    (T.status == Status.done, [{"status": equals("done")}]),
    (T.due == datetime.date(2024, 1, 2), [{"due": equals("2024-01-02")}]),
    (T.at == datetime.datetime(2024, 1, 2, 3), [{"at": equals("2024-01-02 03:00:00.000000")}]),
    (T.token == uuid.UUID(int=255), [{"token": equals(f"{255:032x}")}]),
    (T.price == 1.5, [{"price": equals(1.5)}]),
    (T.weight <= 2, [{"weight": Between(None, False, 2, True)}]),
    (T.cents == 1.25, [{"cents": equals(125)}]),
    (T.cents.in_([1.25, 2]), [{"cents": equals(125, 200)}]),
    (tuple_(T.id, T.cents).in_([(1, 1.25), (2, 2)]), [{"id": equals(1, 2), "cents": equals(125, 200)}]),
    (tuple_(T.id, T.cents).in_([]), []),
    (tuple_(T.id, T.title) == (1, "a"), [{"id": equals(1), "title": equals("a")}]),
    (
        tuple_(T.id, T.title) > (1, "a"),
        [{"id": Between(1, False, None, False)}, {"id": equals(1), "title": Between("a", False, None, False)}],
    ),
    (
        tuple_(T.id, T.title) <= (1, "a"),
        [{"id": Between(None, False, 1, False)}, {"id": equals(1), "title": Between(None, False, "a", True)}],
    ),
    (
        and_(tuple_(T.id, T.title) > (1, "a"), tuple_(T.id, T.title) <= (1, "c")),
        [{"id": Between(1, False, 1, False)}, {"id": equals(1), "title": Between("a", False, "c", True)}],
    ),
    (
        and_(tuple_(T.id, T.cents) >= (1, 1.25), T.title == "a"),
        [
            {"id": Between(1, False, None, False), "title": equals("a")},
            {"id": equals(1), "cents": Between(125, True, None, False), "title": equals("a")},
        ],
    ),
    (tuple_(T.id, T.nocase) > (1, "a"), [{"id": Between(1, False, None, False)}, {"id": equals(1)}]),
    (T.id == bindparam("inlined", 5, literal_execute=True), [{"id": Equals(frozenset({5}))}]),
    (T.title == bindparam("inlined", "it's", literal_execute=True), [{"title": Equals(frozenset({"it's"}))}]),
    (
        and_(T.title == bindparam("inlined", "a", literal_execute=True), T.id.in_([1, 2])),
        [{"title": Equals(frozenset({"a"})), "id": Equals(frozenset({1, 2}))}],
    ),
]

WIDE: list[Any] = [
    T.id != 5,
    T.id.not_in([1]),
    not_(T.id == 5),
    not_(T.id.between(1, 2)),
    not_(and_(T.done, T.done)),
    T.id == 1.5,
    T.id.in_(range(2_001)),
    T.id + 1 == 5,
    cast(T.title, Integer) == 5,
    func.lower(T.title) == "a",
    T.title.like("a%"),
    T.title.collate("NOCASE") == "a",
    T.title == bindparam("number", 5, type_=Integer),
    T.nocase == "a",
    T.lowered == "A",
    T.data["k"].as_integer() == 1,
    T.id.is_distinct_from(5),
    tuple_(T.id, T.title) != (1, "a"),
    not_(tuple_(T.id, T.title).in_([(1, "a")])),
    T.id.in_(bindparam("inlined", [5], expanding=True, literal_execute=True)),
    T.id == bindparam("inlined", "5", literal_execute=True),
    or_(T.id == 1, T.title.like("a%")),
    T.id == select(func.max(TASKS.alias().c.id)).scalar_subquery(),
]


def conditions(read_set_of: ReadSetOf, where: Any) -> list[dict[str, Condition]]:
    """Return the conditions on `tasks`, without a subquery's."""
    read_set = read_set_of(select(TASKS.c.id).where(where))
    assert read_set.opaque is None
    return [dict(constraint.conditions) for constraint in read_set.constraints if constraint.table == "tasks"]


@pytest.mark.parametrize(("where", "expected"), NARROW, ids=lambda value: str(value)[:40])
def test_a_predicate_that_is_understood_becomes_conditions(
    read_set_of: ReadSetOf, where: Any, expected: list[dict[str, Condition]]
) -> None:
    """Equality, ranges, lists, NULL tests and their AND, OR and NOT restrict, by the value that the driver gets."""
    assert conditions(read_set_of, where) == expected


@pytest.mark.parametrize("where", WIDE, ids=lambda value: str(value)[:40])
def test_a_predicate_that_is_not_understood_is_left_out(read_set_of: ReadSetOf, where: Any) -> None:
    """What cannot be compared exactly restricts nothing."""
    assert {} in conditions(read_set_of, where)


def test_too_many_terms_say_nothing(read_set_of: ReadSetOf) -> None:
    """A product of more terms than the bound is not multiplied out: the factor over it is left out."""
    factors = [or_(*(T.id == 100 * factor + number for number in range(20))) for factor in range(2)]
    assert conditions(read_set_of, and_(*factors)) == [{"id": equals(number)} for number in range(20)]
    assert conditions(read_set_of, or_(*(T.id == number for number in range(65)))) == [{}]


def test_a_long_list_becomes_several_constraints(read_set_of: ReadSetOf) -> None:
    """No value of a list is lost, and each part spells no more keys than an index takes."""
    found = conditions(read_set_of, and_(T.id.in_(range(600)), T.cents.in_([1, 2])))
    lists = [found["id"] for found in found if isinstance(found["id"], Equals)]
    assert [len(part.values) for part in lists] == [128, 128, 128, 128, 88]
    assert frozenset().union(*(part.values for part in lists)) == frozenset(range(600))
    assert {part["cents"] for part in found} == {equals(100, 200)}


def test_a_lambda_is_what_it_returns(read_set_of: ReadSetOf) -> None:
    """A criterion in a lambda restricts, by the value that its closure has when it runs."""

    def found(number: int) -> list[dict[str, Condition]]:
        return conditions(read_set_of, lambda: T.id == number)

    assert (found(1), found(2)) == ([{"id": equals(1)}], [{"id": equals(2)}])


def test_values_come_from_the_execution(read_set_of: ReadSetOf) -> None:
    """A statement that runs on the cached text of another has its own values."""
    for number in (1, 2):
        assert conditions(read_set_of, T.id == number) == [{"id": equals(number)}]
        assert conditions(read_set_of, T.id.in_([number, 9])) == [{"id": equals(number, 9)}]
