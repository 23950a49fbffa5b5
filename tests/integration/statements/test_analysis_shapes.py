"""What each shape of statement reads, on both databases: as expected, and enough."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from reactive_rpc.dependencies.read_set import Between, Condition, Equals, IsNull, ReadSet

from .recorded_database import Found, RecordedDatabase
from .shapes import REFUSED, SHAPES, Shape, rows


def shown(condition: Condition) -> Any:
    """Return a condition as the shapes write it."""
    if isinstance(condition, Equals):
        return next(iter(condition.values)) if len(condition.values) == 1 else set(condition.values)
    if isinstance(condition, Between):
        return tuple(... if bound is None else bound for bound in (condition.low, condition.high))
    return None if isinstance(condition, IsNull) else ...


def reads(read_set: ReadSet) -> dict[str, list[str]]:
    """Return `{table: its reads' conditions}`, in an order of their own."""
    found: dict[str, list[str]] = {}
    for constraint in read_set.constraints:
        conditions = {column: shown(condition) for column, condition in constraint.conditions.items()}
        found.setdefault(constraint.table, []).append(str(sorted(conditions.items())))
    return {table: sorted(each) for table, each in found.items()}


def expected(reads: Mapping[str, list[Mapping[str, Any]]]) -> dict[str, list[str]]:
    """Return what is expected as `reads` returns it."""
    return {table: sorted(str(sorted(each.items())) for each in conditions) for table, conditions in reads.items()}


@pytest.fixture(scope="module")
def found(world: RecordedDatabase) -> dict[str, Found]:
    """Return what a small differential found of each shape."""
    return world.differential({shape.name: shape.query for shape in SHAPES if shape.only in (None, world.dialect)})


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_every_shape_reads_what_it_should(world: RecordedDatabase, found: dict[str, Found], shape: Shape) -> None:
    """The read set is as narrow as expected, and no write changes the result without touching it."""
    if shape.only not in (None, world.dialect):
        return
    read_set = world.ask(shape.query).read_set
    assert read_set.opaque is None
    assert reads(read_set) == expected(shape.reads)
    assert found[shape.name].missed == []
    assert bool(found[shape.name].noticed) == bool(shape.reads)


@pytest.mark.parametrize(("statement", "reason"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_does_not_follow_from_rows_is_refused(
    postgresql_world: RecordedDatabase, statement: Any, reason: str
) -> None:
    """A clock, a lock, a sample, a sequence make a result opaque, for a reason that names them."""
    assert (postgresql_world.ask(rows(statement)).read_set.opaque or "").startswith(reason)
