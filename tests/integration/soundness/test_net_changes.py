"""Batches that take back what they wrote: no result goes stale by their net effect, and a broken rule is found.

`REACTIVE_SOUNDNESS_CASES` sets how many cases run on each database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from reactive_rpc.dependencies import net_changes
from reactive_rpc.dependencies.change import Change
from reactive_rpc.testing.postgresql import PostgreSQL

from .differential import Differential, StaleError, postgresql_engine, sqlite_engine
from .drawing import Write
from .model import PARENTS, Declared, Dialect
from .reverting import RevertingGenerator
from .test_soundness import CASES, Patch

Open = Callable[[Dialect], Differential]


@pytest.fixture(scope="module")
def reverted_database(postgresql: PostgreSQL) -> Iterator[str]:
    """Return the URL of a database with the tables, which every case leaves empty."""
    url = postgresql.new_database(driver="postgresql+psycopg")
    postgresql_engine(url).dispose()
    yield url
    postgresql.drop_database(url)


@pytest.fixture
def reverting_on(reverted_database: str) -> Iterator[Open]:
    """Return what opens a differential test of such batches on one of the databases."""
    opened: list[Differential] = []

    def open_on(dialect: Dialect) -> Differential:
        engine = sqlite_engine() if dialect == "sqlite" else postgresql_engine(reverted_database)
        opened.append(Differential(engine, Declared(dialect), RevertingGenerator))
        return opened[-1]

    yield open_on
    for each in opened:
        each.close()


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_a_net_effect_touches_what_it_changes(
    dialect: Dialect, reverting_on: Open, record_property: Callable[[str, object], None]
) -> None:
    """Over random batches that are partly taken back, no result goes stale, and many changes are summed up."""
    trial = reverting_on(dialect)
    trial.run(seed=20261130, cases=CASES)
    counters = trial.counters
    record_property(f"net changes on {dialect}", dict(counters))
    assert counters["changed"] > CASES
    assert counters["opaque"] == 0
    assert counters["netted"] > CASES


# Each bug breaks one rule from outside, as a wrong line in that rule would.


def what_is_not_known_is_as_it_was(patch: Patch) -> None:
    patch.setattr(net_changes, "_is_same", lambda one, other, column: one.get(column) == other.get(column))


def a_row_is_as_it_was_before_its_last_change(patch: Patch) -> None:
    of_row = net_changes._of_row
    patch.setattr(net_changes, "_of_row", lambda changes, columns: of_row(changes[-1:], columns))


def a_row_is_as_its_first_change_left_it(patch: Patch) -> None:
    of_row = net_changes._of_row
    patch.setattr(net_changes, "_of_row", lambda changes, columns: of_row(changes[:1], columns))


def only_what_is_written_last_is_written(patch: Patch) -> None:
    patch.setattr(net_changes, "_written", lambda changes: changes[-1].changed)


def a_row_that_is_inserted_again_is_as_it_was(patch: Patch) -> None:
    written = net_changes._written

    def nothing(changes: Any) -> Any:
        found = written(changes)
        return frozenset({"id"}) if found is None else found

    patch.setattr(net_changes, "_written", nothing)


def a_row_is_known_by_its_new_key(patch: Patch) -> None:
    key_of = net_changes._key_of

    def by_new_key(change: Change, columns: Any) -> Any:
        return key_of(replace(change, before=None) if change.operation == "update" else change, columns)

    patch.setattr(net_changes, "_key_of", by_new_key)
    patch.setattr(net_changes, "_is_alike", lambda left, right: True)


X, PARENT = PARENTS.c.x, PARENTS.update().where(PARENTS.c.id == 1)


def _tried(trial: Differential, query: Any, *writes: Any) -> None:
    """Ask about two parents, and write one batch."""
    with trial.case("", "a batch") as case:
        case.fill({"parents": [{"id": number, "x": 1, "s": "p", "data": {"k": number}} for number in (1, 2)]})
        case.ask(query)
        case.write(map(Write, writes))


def _untold(trial: Differential) -> None:
    """Insert a row again that differs in a JSON value, of which images tell nothing."""
    again = PARENTS.insert().values(id=1, x=1, s="p", data={"k": 5})
    _tried(trial, select(PARENTS.c.data), PARENTS.delete().where(PARENTS.c.id == 1), again)


def _left_behind(trial: Differential) -> None:
    _tried(trial, select(PARENTS.c.id).where(X == 1), PARENT.values(x=2), PARENT.values(x=3))


def _arrived(trial: Differential) -> None:
    _tried(trial, select(PARENTS.c.id).where(X == 3), PARENT.values(x=2), PARENT.values(x=3))


def _one_column_each(trial: Differential) -> None:
    _tried(trial, select(X), PARENT.values(x=2), PARENT.values(s="q"))


def _inserted_again(trial: Differential) -> None:
    _tried(trial, select(X), PARENTS.delete().where(PARENTS.c.id == 1), PARENTS.insert().values(id=1, x=2))


def _in_anothers_place(trial: Differential) -> None:
    """Delete a row and give another one its key."""
    moved = PARENTS.update().where(PARENTS.c.id == 2).values(id=1)
    _tried(trial, select(X).where(PARENTS.c.id == 2), PARENTS.delete().where(PARENTS.c.id == 1), moved)


EXAMPLES: tuple[tuple[Callable[[Differential], None], Callable[[Patch], None]], ...] = (
    (_untold, what_is_not_known_is_as_it_was),
    (_left_behind, a_row_is_as_it_was_before_its_last_change),
    (_arrived, a_row_is_as_its_first_change_left_it),
    (_one_column_each, only_what_is_written_last_is_written),
    (_inserted_again, a_row_that_is_inserted_again_is_as_it_was),
    (_in_anothers_place, a_row_is_known_by_its_new_key),
)


@pytest.mark.seeded_bug
@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
@pytest.mark.parametrize(("example", "bug"), EXAMPLES, ids=[bug.__name__ for _, bug in EXAMPLES])
def test_seeded_bug_is_found(
    example: Callable[[Differential], None],
    bug: Callable[[Patch], None],
    dialect: Dialect,
    reverting_on: Open,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a batch does is not stale, and it would be with the bug."""
    example(reverting_on(dialect))
    bug(monkeypatch)
    with pytest.raises(StaleError):
        example(reverting_on(dialect))
