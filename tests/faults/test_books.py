"""The books: what counts as told, lost, silent and lying."""

from __future__ import annotations

from dataclasses import replace

from .books import Commit, Query, Record, Shown, backwards, disorder, longest_lie, longest_silence, lost, outdated

QUERY = Query("q", (("g", 0),), frozenset({1, 2}))
OTHER = Query("q", (("g", 1),), frozenset({3}))
COMMIT = Commit(row=1, n=5, began=10.0, acknowledged=10.2, before=100, after=101)
FIRST = Record(at=1.0, version=90, named=frozenset(), kind="connected", connection=1)
NOTICE = Record(at=10.3, version=101, named=frozenset({QUERY}), kind="event", connection=1)


def count_of_lost(*records: Record, queries: tuple[Query, ...] = (QUERY,)) -> int:
    """Return how much of one commit was lost, of what it owed."""
    return len(lost([FIRST, *records], queries, [COMMIT])[1])


def test_an_event_tells() -> None:
    """An event that names the query after the commit is what was owed; one commit owes each query of the stream."""
    assert lost([FIRST, NOTICE], (QUERY,), [COMMIT]) == (1, [])
    assert lost([FIRST, NOTICE], (QUERY, OTHER), [COMMIT]) == (1, [])


def test_silence_is_lost() -> None:
    """Nothing told is lost, also where the id of a later event covers it, and where only another query was named."""
    assert count_of_lost() == 1
    assert count_of_lost(replace(NOTICE, named=frozenset())) == 1
    assert count_of_lost(replace(NOTICE, named=frozenset({OTHER})), queries=(QUERY, OTHER)) == 1


def test_what_was_told_before_tells_nothing() -> None:
    """An event of an earlier version is of an earlier commit; so is one from before the commit was begun."""
    assert count_of_lost(replace(NOTICE, version=100)) == 1
    assert count_of_lost(replace(NOTICE, at=9.9), queries=(QUERY, OTHER)) == 1


def test_a_gap_and_a_stale_list_cover() -> None:
    """A gap tells of every query; `connected` tells of those that it lists as stale, and of no others."""
    assert count_of_lost(replace(NOTICE, kind="gap", named=None)) == 0
    assert count_of_lost(replace(NOTICE, kind="connected")) == 0
    assert count_of_lost(replace(NOTICE, kind="connected", named=frozenset())) == 1


def test_too_late_is_lost() -> None:
    """Once an id has covered the commit, what is told later is told too late: a resume in between would miss it."""
    covering = replace(NOTICE, named=frozenset({OTHER}))
    later = replace(NOTICE, at=10.4, version=102)
    assert count_of_lost(covering, later, queries=(QUERY, OTHER)) == 1
    assert count_of_lost(replace(covering, version=100), later, queries=(QUERY, OTHER)) == 0


def test_an_event_sent_again_tells_nothing_new() -> None:
    """It may have arrived after the commit; what it tells of came before."""
    assert count_of_lost(replace(NOTICE, kind="again")) == 1


def test_order() -> None:
    """Over one connection ids do not go back; another connection may begin anywhere."""
    assert disorder([NOTICE, replace(NOTICE, version=100)])
    assert not disorder([NOTICE, replace(NOTICE, version=100, connection=2)])
    assert not disorder([NOTICE, replace(NOTICE, version=100, kind="again"), NOTICE])


def test_a_result_shows_what_its_id_covers() -> None:
    """One that lacks a commit at or below its version is outdated."""
    assert outdated([replace(NOTICE, data={1: 4, 2: 0})], [COMMIT])
    assert not outdated([replace(NOTICE, data={1: 5, 2: 0})], [COMMIT])
    assert not outdated([replace(NOTICE, data={1: 4, 2: 0}, version=100)], [COMMIT])


def test_silence_and_lies() -> None:
    """Silence lasts until the commit is shown; of it, what was not called stale is a lie."""
    states = [
        Shown(1.0, False, {1: 4}),
        Shown(10.5, True, {1: 4}),
        Shown(12.0, False, {1: 4}),
        Shown(12.5, True, {1: 5}),
    ]
    assert round(longest_silence(states, QUERY, [COMMIT]), 3) == 2.3
    assert round(longest_lie(states, QUERY, [COMMIT]), 3) == 0.8
    assert longest_silence(states[:3], QUERY, [COMMIT]) == float("inf")
    assert longest_lie(states, OTHER, [COMMIT]) == longest_silence(states, OTHER, [COMMIT]) == 0.0


def test_a_watch_that_goes_back() -> None:
    """An older value after a newer one is told, whatever was called stale."""
    assert backwards([Shown(1.0, False, {1: 4}), Shown(2.0, True, {1: 3})], QUERY)
    assert not backwards([Shown(1.0, False, {1: 4}), Shown(2.0, False, {1: 4})], QUERY)
