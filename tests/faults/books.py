"""The books of a trial: what was committed, what each reader was told and showed, and what that amounts to. Pure.

**What a stream is owed.** The id of an event, and the cursor of `connected`, says "everything up to here has been
told". So for a commit that changes the result of a query that the stream watches, something that names the query (an
event, a gap, the stale list of a later `connected`) must have come *since that commit*, and not later than the first id
that covers it. If an id covers the commit and nothing has come, it is lost, whatever comes afterwards.

*Since that commit* is decided by the version where the stream has one query, because its cursors are exact: a cursor up
to the last version known not to show the commit tells of earlier ones. With more queries, an id may lie below what its
event tells (see `docs/internals/subscriptions.md`), so there the time decides: what came before the commit was begun
does not tell of it. Where a doubt remains (a commit between the two versions around it) it counts as told: nothing is
called lost that is not.

**Silence** is the time from a commit's acknowledgement until a watch shows it. **A lie** is the part of it during which
the watch did not say that it was stale.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Literal

__all__ = [
    "Commit",
    "Kind",
    "Query",
    "Record",
    "Shown",
    "Verdict",
    "backwards",
    "disorder",
    "longest_lie",
    "longest_silence",
    "lost",
    "outdated",
]


Kind = Literal["connected", "event", "gap", "again"]


@dataclass(frozen=True, slots=True)
class Commit:
    """One row counted up.

    Attributes:
        row: its id.
        n: its new value.
        began: when; by the clock of this machine, as all times are.
        acknowledged: when the writer knew of it.
        before: a version of the log that does not show it; 0 where none is known.
        after: a version that does.
    """

    row: int
    n: int
    began: float
    acknowledged: float
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Query:
    """A query whose result is `{id: n}` of some rows."""

    path: str
    input: tuple[tuple[str, int], ...]
    rows: frozenset[int]


@dataclass(frozen=True, slots=True)
class Record:
    """What a stream said at one moment.

    Attributes:
        at: when it arrived.
        version: of its id.
        named: the queries that it names; None is all of them.
        kind: an event that is sent again is `again`, and tells nothing new.
        connection: which of the connections it came over, counted from 0.
        data: the result of the one query that it names, where it brings it.
        reason: of a gap.
    """

    at: float
    version: int
    named: frozenset[Query] | None
    kind: Kind
    connection: int
    data: Mapping[int, int] | None = None
    reason: str = ""

    def notifies_of(self, query: Query) -> bool:
        """Tell whether whoever shows the query knows from this that it may have changed."""
        return self.kind != "again" and (self.named is None or query in self.named)


@dataclass(frozen=True, slots=True)
class Shown:
    """What a watch showed from a moment on."""

    at: float
    is_stale: bool
    data: Mapping[int, int]


@dataclass(slots=True)
class Verdict:
    """What a trial found.

    Attributes:
        commits: how many there were.
        expected: how many times a commit was owed to a stream.
        events: how many events the streams received.
        reconnections: how many times streams were opened again.
        lost: what was owed and neither delivered nor covered.
        disorder: events that came in another order than their versions.
        behind: what was wrong when all should have been right.
        undone: acknowledged commits that the database has lost.
        silence_seconds: the longest.
        lie_seconds: the longest.
    """

    commits: int = 0
    expected: int = 0
    events: int = 0
    reconnections: int = 0
    lost: list[str] = field(default_factory=list)
    disorder: list[str] = field(default_factory=list)
    behind: list[str] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)
    silence_seconds: float = 0.0
    lie_seconds: float = 0.0

    @property
    def faults(self) -> list[str]:
        """Everything that must not be."""
        return [*self.lost, *self.disorder, *self.behind, *self.undone]


def lost(records: Sequence[Record], queries: Sequence[Query], commits: Iterable[Commit]) -> tuple[int, list[str]]:
    """Return how much a stream was owed, and what of it was lost.

    Args:
        records: in the order in which they arrived; the first is from before the first commit.
    """
    expected, found = 0, []
    reached = list(accumulate((record.version for record in records), max))
    notices = {query: [at for at, one in enumerate(records) if one.notifies_of(query)] for query in queries}
    for commit in commits:
        by = bisect_left(reached, commit.after)
        for query in queries:
            if commit.row not in query.rows:
                continue
            expected += 1
            named = _first_notice(records, notices[query], commit, is_exact=len(queries) == 1)
            if named is None or by < named:
                around = f"covered by {records[by]}" if by < len(records) else "nor has any id covered it"
                found.append(f"{query.path}{dict(query.input)} was not told of {commit}: {around}")
    return expected, found


def _first_notice(records: Sequence[Record], notices: list[int], commit: Commit, *, is_exact: bool) -> int | None:
    """Return which of the records in `notices` is the first that may tell of a commit."""
    since = bisect_left(notices, commit.began, key=lambda at: records[at].at)
    return next((at for at in notices[since:] if not is_exact or records[at].version > commit.before), None)


def outdated(records: Iterable[Record], commits: Sequence[Commit]) -> list[str]:
    """Return the results that came and did not show what their id covers."""
    return [
        f"{record} does not show {commit}"
        for record in records
        if record.data is not None
        for commit in commits
        if commit.after <= record.version and record.data.get(commit.row, commit.n) < commit.n
    ]


def disorder(records: Sequence[Record]) -> list[str]:
    """Return the events that came after one of a higher version, over the same connection."""
    found, last = [], None
    for record in records:
        if record.kind == "again":
            continue
        if last is not None and last.connection == record.connection and record.version < last.version:
            found.append(f"{record} came after {last}")
        last = record
    return found


def longest_silence(states: Sequence[Shown], query: Query, commits: Iterable[Commit]) -> float:
    """Return the longest time from a commit until a watch showed it, in seconds; infinite where it never did."""
    return max((at - commit.acknowledged for commit, at in _shown(states, query, commits)), default=0.0)


def longest_lie(states: Sequence[Shown], query: Query, commits: Iterable[Commit]) -> float:
    """Return the longest time that a watch did not show a commit and did not say that it was stale, in seconds."""
    longest = 0.0
    for commit, until in _shown(states, query, commits):
        lied = 0.0
        for state, end in _spans(states, commit.acknowledged, until):
            if not state.is_stale:
                lied += end - max(state.at, commit.acknowledged)
        longest = max(longest, lied)
    return longest


def _spans(states: Sequence[Shown], since: float, until: float) -> Iterator[tuple[Shown, float]]:
    """Yield the states shown between two moments, each with its end."""
    first = max(0, bisect_right(states, since, key=lambda state: state.at) - 1)
    for number in range(first, len(states)):
        if states[number].at >= until:
            return
        yield states[number], min(until, states[number + 1].at if number + 1 < len(states) else until)


def backwards(states: Sequence[Shown], query: Query) -> list[str]:
    """Return where a watch showed an older result after a newer one."""
    return [
        f"{query.path}{dict(query.input)} went back from {before} to {after}"
        for before, after in pairwise(states)
        if any(after.data.get(row, -1) < n for row, n in before.data.items())
    ]


def _shown(states: Sequence[Shown], query: Query, commits: Iterable[Commit]) -> Iterator[tuple[Commit, float]]:
    """Yield each commit that changes the query's result with the moment at which the watch showed it."""
    by_row: dict[int, list[Commit]] = defaultdict(list)
    for commit in commits:
        if commit.row in query.rows:
            by_row[commit.row].append(commit)
    for row, of_row in by_row.items():
        number = 0
        for commit in sorted(of_row, key=lambda one: one.n):
            while number < len(states) and states[number].data.get(row, -1) < commit.n:
                number += 1
            yield commit, states[number].at if number < len(states) else float("inf")
