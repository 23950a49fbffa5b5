"""Pages stay fresh: a write after a page's last row leaves it alone, any other reaches it, and a broken rule is found.

`REACTIVE_SOUNDNESS_CASES` sets how many cases run on each database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from reactive_rpc.dependencies.expressions import FixedValue
from reactive_rpc.dependencies.read_set import RowTest
from reactive_rpc.statements import analysis, binding, windows
from reactive_rpc.testing.postgresql import PostgreSQL

from .differential import Differential, StaleError, postgresql_engine, sqlite_engine
from .drawing import Write
from .model import PARENTS, Color, Declared, Dialect
from .test_soundness import BOUND, CASES, Patch
from .windows import WindowGenerator

Open = Callable[[Dialect], Differential]


@pytest.fixture(scope="module")
def pages_database(postgresql: PostgreSQL) -> Iterator[str]:
    """Return the URL of a database with the tables, which every case leaves empty."""
    url = postgresql.new_database(driver="postgresql+psycopg")
    postgresql_engine(url).dispose()
    yield url
    postgresql.drop_database(url)


@pytest.fixture
def pages_on(pages_database: str) -> Iterator[Open]:
    """Return what opens a differential test of pages on one of the databases."""
    opened: list[Differential] = []

    def open_on(dialect: Dialect) -> Differential:
        engine = sqlite_engine() if dialect == "sqlite" else postgresql_engine(pages_database)
        opened.append(Differential(engine, Declared(dialect), WindowGenerator))
        return opened[-1]

    yield open_on
    for each in opened:
        each.close()


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_a_changed_page_has_had_its_read_set_touched(
    dialect: Dialect, pages_on: Open, record_property: Callable[[str, object], None]
) -> None:
    """Over random pages and writes no page goes stale, nothing is opaque, and most full pages end at their last row."""
    trial = pages_on(dialect)
    trial.run(seed=20261130, cases=CASES)
    counters = trial.counters
    record_property(f"pages on {dialect}", dict(counters))
    assert counters["changed"] > CASES
    assert counters["opaque"] == 0
    assert counters["windowed"] > 2 * CASES
    assert counters["refused"] < CASES


# Each bug breaks one rule from outside, as a wrong line in that rule would.


def a_window_need_not_be_full(patch: Patch) -> None:
    shown = windows.shown_rows
    patch.setattr(binding, "shown_rows", lambda window, rows, **how: shown(window, rows, **{**how, "limit": len(rows)}))


def a_window_ends_with_its_first_row(patch: Patch) -> None:
    shown = windows.shown_rows
    patch.setattr(binding, "shown_rows", lambda window, rows, **how: shown(window, [*rows[1:], *rows[:1]], **how))


def rows_that_tie_come_after(patch: Patch) -> None:
    patch.setattr(windows, "_same", lambda *key: FixedValue(0))


def every_order_goes_up(patch: Patch) -> None:
    before = windows._before
    patch.setattr(windows, "_before", lambda key, *rest: before(replace(key, descending=False), *rest))


def nulls_are_at_the_other_end(patch: Patch) -> None:
    before = windows._before
    patch.setattr(windows, "_before", lambda key, *rest: before(replace(key, nulls_first=not key.nulls_first), *rest))


def a_row_that_is_left_out_has_a_place_in_the_order(patch: Patch) -> None:
    order_of = windows.order_of

    def of_all(select: Any, body: Any, **how: Any) -> Any:
        sources = {identity: replace(source, nullable=False) for identity, source in body.sources.items()}
        return order_of(select, replace(body, sources=sources), **how)

    patch.setattr(analysis, "order_of", of_all)


def rows_see_no_others(patch: Patch) -> None:
    patch.setattr(windows, "_rows_are_joined_rows", lambda select: True)


def labels_are_ordered_by_their_letters(patch: Patch) -> None:
    patch.setattr(windows, "ordered", lambda kind: True)


def a_key_is_compared_with_what_is_shown_first(patch: Patch) -> None:
    keys = windows._keys
    patch.setattr(windows, "_keys", lambda *of, **how: (replace(key, place=0) for key in keys(*of, **how)))


def a_row_that_moves_up_is_still_after(patch: Patch) -> None:
    is_touched = RowTest.is_touched

    def by_old(self: RowTest, change: Any, **how: Any) -> bool:
        return is_touched(self, replace(change, after=change.before) if change.operation == "update" else change, **how)

    patch.setattr(RowTest, "is_touched", by_old)


BUGS: tuple[tuple[Callable[[Patch], None], Dialect, int], ...] = (
    (a_window_need_not_be_full, "sqlite", 1),
    (a_window_ends_with_its_first_row, "sqlite", 1),
    (rows_that_tie_come_after, "sqlite", 1),
    (every_order_goes_up, "sqlite", 2),
    (nulls_are_at_the_other_end, "sqlite", 1),
    (nulls_are_at_the_other_end, "postgresql", 1),
    (a_row_that_is_left_out_has_a_place_in_the_order, "sqlite", 1),
    (rows_see_no_others, "sqlite", 7),
    (a_key_is_compared_with_what_is_shown_first, "sqlite", 2),
    (a_row_that_moves_up_is_still_after, "sqlite", 1),
)


@pytest.mark.seeded_bug
@pytest.mark.parametrize(("bug", "dialect", "seed"), BUGS, ids=[f"{bug.__name__} on {on}" for bug, on, _ in BUGS])
def test_seeded_bug_is_found(
    bug: Callable[[Patch], None], dialect: Dialect, seed: int, pages_on: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The differential test of pages fails where one rule is broken."""
    bug(monkeypatch)
    with pytest.raises(StaleError, match=f"STALE: seed {seed}, case"):
        pages_on(dialect).run(seed=seed, cases=BOUND)


@pytest.mark.seeded_bug
def test_enums_are_not_ordered_by_their_letters(pages_on: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL orders an enum as it was declared: red before green. A page that believes the letters goes stale."""
    trial = pages_on("postgresql")

    def insert_before_the_last() -> None:
        with trial.case("", "an enum") as case:
            case.fill({"parents": [{"id": 1, "color": Color.green}]})
            case.ask(select(PARENTS.c.color).order_by(PARENTS.c.color, PARENTS.c.id).limit(1))
            case.write([Write(PARENTS.insert().values(id=2, color=Color.red))])

    insert_before_the_last()
    labels_are_ordered_by_their_letters(monkeypatch)
    with pytest.raises(StaleError):
        insert_before_the_last()
