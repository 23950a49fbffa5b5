"""Figures stay fresh: of a row that no aggregate takes up no write counts, of any other it does; a bug is found.

`REACTIVE_SOUNDNESS_CASES` sets how many cases run on each database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import FunctionFilter, case, func, select

from reactive_rpc.dependencies import read_set
from reactive_rpc.statements import aggregates, bodies, row_tests
from reactive_rpc.statements.formulas import NULL, Applied
from reactive_rpc.testing.postgresql import PostgreSQL

from .aggregates import AggregateGenerator
from .differential import Differential, StaleError, postgresql_engine, sqlite_engine
from .drawing import Write
from .model import CHILDREN, PARENTS, Declared, Dialect
from .test_soundness import BOUND, CASES, Patch

Open = Callable[[Dialect], Differential]


@pytest.fixture(scope="module")
def figures_database(postgresql: PostgreSQL) -> Iterator[str]:
    """Return the URL of a database with the tables, which every case leaves empty."""
    url = postgresql.new_database(driver="postgresql+psycopg")
    postgresql_engine(url).dispose()
    yield url
    postgresql.drop_database(url)


@pytest.fixture
def figures_on(figures_database: str) -> Iterator[Open]:
    """Return what opens a differential test of aggregates on one of the databases."""
    opened: list[Differential] = []

    def open_on(dialect: Dialect) -> Differential:
        engine = sqlite_engine() if dialect == "sqlite" else postgresql_engine(figures_database)
        opened.append(Differential(engine, Declared(dialect), AggregateGenerator))
        return opened[-1]

    yield open_on
    for each in opened:
        each.close()


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_a_changed_figure_has_had_its_read_set_touched(
    dialect: Dialect, figures_on: Open, record_property: Callable[[str, object], None]
) -> None:
    """Over random aggregates and writes none goes stale, nothing is opaque, and far less is touched than by table."""
    trial = figures_on(dialect)
    trial.run(seed=20261201, cases=CASES)
    counters = trial.counters
    record_property(f"figures on {dialect}", dict(counters))
    assert counters["changed"] > CASES
    assert counters["opaque"] == 0
    assert counters["refused"] < CASES
    assert counters["touched"] < 0.7 * counters["by_table"]


# Each bug breaks one rule from outside, as a wrong line in that rule would.


def values_inside_of_aggregates_do_not_matter(patch: Patch) -> None:
    patch.setattr(read_set, "_is_same_value", lambda expression, change: True)


def a_filter_is_as_good_as_where(patch: Patch) -> None:
    patch.setattr(aggregates, "yields_each_row", lambda select: True)
    patch.setattr(aggregates, "_is_made", lambda element: True)


def a_row_without_a_value_is_not_there(patch: Patch) -> None:
    counted = aggregates.has_rows_counted

    def else_is_null(value: Any) -> Any:
        is_case = isinstance(value, Applied) and value.name == "case"
        return counted(replace(value, arguments=(*value.arguments[:-1], NULL)) if is_case else value)

    patch.setattr(row_tests, "has_rows_counted", else_is_null)


def only_the_first_aggregate_sees_a_row(patch: Patch) -> None:
    aggregates_of = aggregates.aggregates_of
    patch.setattr(bodies, "aggregates_of", lambda select: aggregates_of(select)[:1])


def a_filter_is_passed_over(patch: Patch) -> None:
    seen_value = aggregates.seen_value

    def without_filter(aggregate: Any, reader: Any) -> Any:
        seen = seen_value(aggregate, reader)
        return seen.arguments[1] if isinstance(aggregate, FunctionFilter) and isinstance(seen, Applied) else seen

    patch.setattr(row_tests, "seen_value", without_filter)


def aggregates_of_a_left_out_row_are_nothing(patch: Patch) -> None:
    test = row_tests.RowTests.test

    def never_nullable(self: Any, body: Any, identity: int) -> Any:
        found = test(self, body, identity)
        return None if found is None else replace(found, nullable=False)

    patch.setattr(row_tests.RowTests, "test", never_nullable)


BUGS: tuple[tuple[Callable[[Patch], None], Dialect, int], ...] = (
    (values_inside_of_aggregates_do_not_matter, "sqlite", 1),
    (a_filter_is_as_good_as_where, "sqlite", 1),
    (only_the_first_aggregate_sees_a_row, "sqlite", 1),
    (a_filter_is_passed_over, "sqlite", 1),
)


@pytest.mark.seeded_bug
@pytest.mark.parametrize(("bug", "dialect", "seed"), BUGS, ids=[f"{bug.__name__} on {on}" for bug, on, _ in BUGS])
def test_seeded_bug_is_found(
    bug: Callable[[Patch], None], dialect: Dialect, seed: int, figures_on: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The differential test of aggregates fails where one rule is broken."""
    bug(monkeypatch)
    with pytest.raises(StaleError, match=f"STALE: seed {seed}, case"):
        figures_on(dialect).run(seed=seed, cases=BOUND)


def _first_of_a_sum(trial: Differential) -> None:
    """Write the first row of a sum, outside of its condition: it makes NULL 0."""
    with trial.case("", "the first of a sum") as tried:
        tried.fill({"parents": [{"id": 2, "x": 1, "s": "q"}]})
        tried.ask(select(func.sum(case((PARENTS.c.x == 2, 1), else_=0))).where(PARENTS.c.s == "p"))
        tried.write([Write(PARENTS.insert().values(id=1, x=1, s="p"))])


def _instead_of_nulls(trial: Differential) -> None:
    """Write a row that no aggregate takes up, and that keeps NULLs, which one does, from standing there."""
    joined = PARENTS.outerjoin(CHILDREN, CHILDREN.c.parent_id == PARENTS.c.id)
    with trial.case("", "instead of NULLs") as tried:
        tried.fill({"parents": [{"id": 1}]})
        tried.ask(select(func.count().filter(func.coalesce(CHILDREN.c.y, 0) == 0)).select_from(joined))
        tried.write([Write(CHILDREN.insert().values(id=1, parent_id=1, y=1))])


@pytest.mark.seeded_bug
@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
@pytest.mark.parametrize(
    ("example", "bug"),
    [
        (_first_of_a_sum, a_row_without_a_value_is_not_there),
        (_instead_of_nulls, aggregates_of_a_left_out_row_are_nothing),
    ],
)
def test_example_of_a_seldom_bug(
    example: Callable[[Differential], None],
    bug: Callable[[Patch], None],
    dialect: Dialect,
    figures_on: Open,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What chance seldom makes is tried on purpose: it is not stale, and it would be with the bug."""
    example(figures_on(dialect))
    bug(monkeypatch)
    with pytest.raises(StaleError):
        example(figures_on(dialect))
