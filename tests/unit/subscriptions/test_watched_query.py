"""The states of a watched query: it goes from one to another only where that is right."""

from __future__ import annotations

from typing import cast

import pytest

from reactive_rpc.procedures.call import QueryCall
from reactive_rpc.subscriptions.watched_query import QueryState, WatchedQuery
from tests.unit.cache.scripted import RowQuery, ScriptedLog

NEW, CURRENT, OUTDATED, PENDING, FORGOTTEN = QueryState


def watched_query() -> WatchedQuery:
    return WatchedQuery(cast(QueryCall, RowQuery(ScriptedLog(), (1,))))


@pytest.mark.parametrize(
    "way",
    [
        (CURRENT, OUTDATED, OUTDATED, CURRENT, FORGOTTEN),
        (OUTDATED, CURRENT, PENDING, PENDING, OUTDATED, FORGOTTEN),
        (CURRENT, PENDING, CURRENT, PENDING, FORGOTTEN),
    ],
)
def test_a_watched_query_goes_these_ways(way: tuple[QueryState, ...]) -> None:
    """Computed, overtaken by changes, notified at once or later, and gone in the end."""
    query = watched_query()
    for state in way:
        query.transition(state)
        assert query.state is state


@pytest.mark.parametrize(
    "way",
    [
        (PENDING,),  # nobody shows a result of before
        (FORGOTTEN,),
        (CURRENT, CURRENT),  # the first entry would stay indexed
        (OUTDATED, PENDING),  # its streams were notified, and have no result of before
        (CURRENT, FORGOTTEN, CURRENT),
        (CURRENT, FORGOTTEN, OUTDATED),
    ],
)
def test_a_watched_query_goes_no_other_way(way: tuple[QueryState, ...]) -> None:
    """The message names the query and both states."""
    query = watched_query()
    *before, last = way
    for state in before:
        query.transition(state)
    names = f"is {query.state.name} cannot become {last.name}"
    with pytest.raises(RuntimeError, match=rf"items\.sum: a watched query that {names}"):
        query.transition(last)
