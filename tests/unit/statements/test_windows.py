"""Where a window ends: which rows come after its last one, and which orders say nothing of that."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, case, func, select, union_all
from sqlalchemy.orm import Session

from reactive_rpc.dependencies.change import Change
from reactive_rpc.dependencies.read_set import ReadSet
from reactive_rpc.dependencies.results_differ import compares_moments, moved_columns
from reactive_rpc.statements.recorder import RECORDER_OPTION, Recorder

from .tables import TASKS, TEAMS, Known

ROWS = [{"id": number, "team_id": number % 3 or None, "title": f"task {number}"} for number in range(9)]
T = TASKS.c


@pytest.fixture(autouse=True)
def _filled(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(TEAMS.insert(), [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}])
        connection.execute(TASKS.insert(), ROWS)


def read(engine: Engine, statement: Any, **options: Any) -> ReadSet:
    """Return the reads of a statement whose first row alone is taken."""
    recorder = Recorder(Known())
    with engine.connect() as connection:
        connection.execution_options(**{RECORDER_OPTION: recorder})
        connection.execute(statement, execution_options=options).first()
    return recorder.read_set()


def inserted(read_set: ReadSet, **row: Any) -> bool:
    """Tell whether a new row touches the reads."""
    return read_set.touched_by([Change(table="tasks", operation="insert", after={"id": 100, **row})])


def test_a_page_ends_with_its_last_row(engine: Engine) -> None:
    """The last row of three, from the greatest down, is 6: what comes after it does not count, and a tie does."""
    found = read(engine, select(TASKS).order_by(T.id.desc()).limit(3))
    assert [inserted(found, id=number) for number in (7, 6, 5)] == [True, True, False]


def test_rows_before_an_offset_count(engine: Engine) -> None:
    """A row that comes before the page moves it."""
    found = read(engine, select(TASKS).order_by(T.id).offset(2).limit(2))
    assert [inserted(found, id=number) for number in (-1, 3, 4)] == [True, True, False]


def test_a_row_that_moves_counts_by_both_images(engine: Engine) -> None:
    """One that leaves the page or comes into it counts; one that moves about after its end does not."""
    found = read(engine, select(T.id, T.team_id).order_by(T.team_id.desc(), T.id).limit(2))

    def moved(before: int | None, after: int | None) -> bool:
        images: Any = [{"id": 7, "team_id": team} for team in (before, after)]
        change = Change(
            table="tasks", operation="update", before=images[0], after=images[1], changed=frozenset({"team_id"})
        )
        return found.touched_by([change])

    assert moved(1, 2) is False, "it ties with the last row in the first key, and comes after it by the second"
    assert moved(1, 3) is True
    assert moved(3, 1) is True
    assert moved(1, None) is False, "NULLs are the least on SQLite, so they come last"


def test_the_first_keys_suffice(engine: Engine) -> None:
    """A key that is not shown leaves those before it: rows that tie in them count."""
    found = read(engine, select(T.team_id).order_by(T.team_id.desc(), T.id).limit(2))
    assert [inserted(found, team_id=team) for team in (3, 2, 1, None)] == [True, True, False, False]


def test_nulls_come_where_the_order_says(engine: Engine) -> None:
    """First on SQLite if the order goes up, unless it says otherwise."""
    by_themselves = read(engine, select(T.team_id).order_by(T.team_id).limit(2))
    assert [inserted(by_themselves, team_id=team) for team in (None, 1)] == [True, False]
    last = read(engine, select(T.team_id).order_by(T.team_id.nulls_last()).limit(2))
    assert [inserted(last, team_id=team) for team in (None, 1, 2)] == [False, True, False]


def test_a_page_of_a_join_ends_by_the_table_that_orders_it(engine: Engine) -> None:
    """The other table counts as a whole."""
    joined = select(T.id, TEAMS.c.name).join(TEAMS, T.team_id == TEAMS.c.id).order_by(T.id).limit(2)
    found = read(engine, joined)
    assert [inserted(found, id=number, team_id=1) for number in (1, 5)] == [True, False]
    assert found.touched_by([Change(table="teams", operation="insert", after={"id": 9})])


@pytest.mark.parametrize(
    "statement",
    [
        select(T.id).order_by(T.id).limit(20),
        select(T.id).order_by(T.id).limit(3).offset(8),
        select(T.id).order_by(T.id),
        select(T.id).limit(3),
        select(T.title).order_by(T.id).limit(3),
        select(T.id).order_by(-T.id).limit(3),
        select(T.id).order_by(case((T.id > 3, 1), else_=2), T.id).limit(3),
        select(T.nocase).order_by(T.nocase).limit(3),
        select(T.id).order_by(T.id).limit(3).distinct(),
        select(T.id).order_by(T.id).limit(3).group_by(T.id),
        select(T.id, func.count().over()).order_by(T.id).limit(3),
        select(func.max(T.id), T.id).order_by(T.id).limit(1),
        select(T.id).order_by(T.id).limit(3).subquery().select(),
        union_all(select(T.id), select(T.id)).order_by("id").limit(3),
        select(T.id).select_from(TEAMS.outerjoin(TASKS, T.team_id == TEAMS.c.id)).order_by(T.id).limit(2),
        select((T.id).label("id"), TEAMS.c.id).join(TEAMS, T.team_id == TEAMS.c.id).order_by(TEAMS.c.name).limit(2),
    ],
)
def test_other_windows_are_read_whole(statement: Any, engine: Engine) -> None:
    """If it is not full, or nobody knows which rows come after its last one, any row counts."""
    assert inserted(read(engine, statement), id=100, team_id=2, nocase="z")
    assert inserted(read(engine, statement), id=-100, team_id=2, nocase="A")


def test_rows_that_are_streamed_are_read_whole(engine: Engine) -> None:
    """Nobody knows the last row before the handler has come to it."""
    statement = select(T.id).order_by(T.id).limit(3)
    assert not inserted(read(engine, statement))
    assert inserted(read(engine, statement, stream_results=True))
    assert inserted(read(engine, statement, yield_per=1))


def test_a_window_that_fails_is_read_whole(engine: Engine) -> None:
    """A handler may go on after an error, and the error may be another one tomorrow."""
    recorder = Recorder(Known())
    with engine.connect() as connection:
        connection.execution_options(**{RECORDER_OPTION: recorder})
        connection.connection.execute("DROP TABLE tasks")
        with pytest.raises(Exception, match="no such table"), Session(connection) as session:
            session.execute(select(T.id).order_by(T.id).limit(3))
    assert inserted(recorder.read_set())


def test_where_a_window_ends_is_no_value_of_the_query(engine: Engine) -> None:
    """It follows from the data: it tells nothing of a clock, and may differ between two runs."""
    newest = select(T.id, T.title).where(T.title != "x").order_by(T.title.desc(), T.id)
    one, other = (read(engine, newest.limit(limit)) for limit in (2, 3))
    assert one != other
    assert moved_columns(one, other) == ()
    dated = select(T.title).order_by(T.title).limit(1)
    with engine.begin() as connection:
        connection.execute(TASKS.insert(), [{"id": 50, "title": "2026-11-30"}])
    assert not compares_moments(read(engine, dated))
