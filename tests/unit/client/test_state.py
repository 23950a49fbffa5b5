"""The reducer: no order of events makes a result look right that may have changed, or an error silent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reactive_rpc.client.backoff import Backoff
from reactive_rpc.client.state import (
    Action,
    Confirmed,
    Covered,
    Fetched,
    FetchFailed,
    FetchStarted,
    FetchUnchanged,
    Invalidated,
    Pushed,
    QuerySnapshot,
    Reidentified,
    State,
    StreamFailed,
    Uncovered,
    reduce,
)
from reactive_rpc.client.versions import Version

ERROR = ValueError("no")


def at(number: int) -> Version:
    """Return a version of the only epoch."""
    return Version("e", number)


ACTIONS: list[Action] = [
    FetchStarted(),
    Fetched(1, "e"),
    Fetched(1, "e", is_stale=True),
    FetchUnchanged(),
    FetchUnchanged(is_stale=True),
    FetchFailed(ERROR),
    Invalidated(),
    Invalidated(at(1)),
    Fetched(None, "n", at(1), error=ERROR),
    Fetched(3, "f", at(3)),
    Pushed(2, "p", at(2)),
    Confirmed(at(3)),
    Covered(),
    Uncovered(),
    StreamFailed(ERROR),
    Reidentified(),
]
ANSWERS = (Fetched, FetchUnchanged, FetchFailed)
INVALIDATING = (Invalidated, FetchFailed, Reidentified)


def after(*actions: Action) -> QuerySnapshot[int]:
    """Return the snapshot after `actions`."""
    snapshot: QuerySnapshot[int] = QuerySnapshot()
    for action in actions:
        snapshot = reduce(snapshot, action)
    return snapshot


def legal(actions: list[Action]) -> list[Action]:
    """Leave out what cannot happen: an answer while nothing runs, a start while something does."""
    kept: list[Action] = []
    for action in actions:
        is_answer = isinstance(action, Fetched | FetchUnchanged | FetchFailed)
        if is_answer != after(*kept).loading and isinstance(
            action, Fetched | FetchUnchanged | FetchFailed | FetchStarted
        ):
            continue
        kept.append(action)
    return kept


def test_a_first_fetch_and_a_stream_make_a_result_fresh() -> None:
    """Fetched and covered, in either order, is confirmed; one of them alone is not."""
    assert after(FetchStarted(), Fetched(1, "e")).state == State(1, is_stale=True, is_loading=False, error=None)
    assert after(FetchStarted(), Fetched(1, "e"), Covered()).state == State(1, False, False, None)
    assert after(Covered(), FetchStarted(), Fetched(1, "e")).state == State(1, False, False, None)


def test_an_answer_older_than_an_invalidation_is_not_current() -> None:
    """An invalidation during a fetch wants another one, and the answer stays stale until that is in."""
    late = (Covered(), FetchStarted(), Invalidated(), Fetched(1, "e"))
    assert after(*late).wanted
    assert after(*late).state.is_stale
    assert not after(*late, FetchStarted(), FetchUnchanged()).state.is_stale


def test_an_error_keeps_the_data_and_makes_it_stale() -> None:
    """What failed to be fetched again cannot be confirmed."""
    failed = after(Covered(), FetchStarted(), Fetched(1, "e"), Invalidated(), FetchStarted(), FetchFailed(ERROR))
    assert failed.state == State(1, is_stale=True, is_loading=False, error=ERROR)


def test_a_fetch_that_succeeds_does_not_hide_the_streams_error() -> None:
    """Nobody listens: that stays to be seen until a stream covers the query."""
    down = after(FetchStarted(), StreamFailed(ERROR), Fetched(1, "e"))
    assert down.state == State(1, is_stale=True, is_loading=False, error=ERROR)
    assert reduce(down, Covered()).state.error is None


def test_an_answer_that_the_server_calls_stale_is_shown_and_not_confirmed() -> None:
    """Whether it brings a result or names the one that is held; the next good answer is."""
    for answer in (Fetched(1, "e", is_stale=True), FetchUnchanged(is_stale=True)):
        shown = after(Covered(), FetchStarted(), Fetched(1, "e"), Invalidated(), FetchStarted(), answer)
        assert shown.state == State(1, is_stale=True, is_loading=False, error=None)
        assert not reduce(reduce(shown, FetchStarted()), FetchUnchanged()).state.is_stale


def test_another_caller_gets_no_etag_of_the_former() -> None:
    """After a new token the whole result is asked for."""
    assert after(FetchStarted(), Fetched(1, "e"), Covered(), Reidentified()).newest.etag is None


def test_a_pushed_result_counts_and_a_running_fetch_does_not() -> None:
    """Right without a fetch; whatever the fetch under way answers changes nothing but that it has ended."""
    fetched = (Covered(), FetchStarted(), Fetched(1, "e", at(1)))
    pushed = after(*fetched, Invalidated(), FetchStarted(), Pushed(2, "p", at(2)))
    assert pushed.state == State(2, is_stale=False, is_loading=True, error=None)
    for answer in (Fetched(1, "e"), FetchUnchanged(), FetchFailed(ERROR), Fetched(1, "e", is_stale=True)):
        answered = reduce(pushed, answer)
        assert answered.state == State(2, is_stale=False, is_loading=False, error=None)
        assert (answered.newest.etag, answered.wanted) == ("p", False)


def test_an_invalidation_after_a_pushed_result_outlives_the_overtaken_answer() -> None:
    """The answer may be from before either: another fetch is wanted, and its answer counts."""
    invalidated = after(Covered(), FetchStarted(), Pushed(2, "p", at(2)), Invalidated(), Fetched(1, "e"))
    assert (invalidated.wanted, invalidated.state.is_stale, invalidated.shown) == (True, True, 2)
    assert reduce(reduce(invalidated, FetchStarted()), Fetched(3, "f")).state.data == 3


@given(st.lists(st.sampled_from(ACTIONS), max_size=12))
def test_fresh_means_covered_and_answered_since_the_last_invalidation(actions: list[Action]) -> None:
    """Whatever happens: not stale only if a stream is up, and since the last invalidation a result was pushed or
    confirmed, or a fetch began and was answered.
    """
    actions = legal(actions)
    snapshot = after(*actions)
    if snapshot.state.is_stale:
        return
    changes = (Covered, Uncovered, StreamFailed, Reidentified, Confirmed)
    stream = [action for action in actions if isinstance(action, changes)]
    assert isinstance(stream[-1], Covered | Confirmed)
    invalidating = [index for index, action in enumerate(actions) if _invalidates(actions[:index], action)]
    since = actions[invalidating[-1] + 1 :] if invalidating else actions
    if any(isinstance(action, Pushed | Confirmed) for action in since):
        return
    kinds = [type(action) for action in since]
    assert FetchStarted in kinds
    answers = [action for action in since[kinds.index(FetchStarted) :] if isinstance(action, Fetched | FetchUnchanged)]
    assert any(not answer.is_stale for answer in answers)


def _invalidates(before: list[Action], action: Action) -> bool:
    """Whether it invalidates a result that was confirmed before it."""
    was = after(*before)
    return isinstance(action, INVALIDATING) and was.current and not after(*before, action).current


@given(st.floats(0, 1), st.floats(0, 100))
def test_a_resumption_lies_between_half_the_floor_and_all_of_it(jitter: float, floor: float) -> None:
    """What went well and ended comes back soon, and spread; however often that was, it counts as no failure."""
    backoff = Backoff(random=lambda: jitter)
    backoff.floor_seconds = floor
    assert all(floor / 2 <= backoff.resumption_delay() <= floor for _ in range(40))
    assert backoff.next_delay() <= floor + 0.25


@given(st.floats(0, 1), st.floats(0, 100))
def test_a_pause_lies_between_the_floor_and_the_cap_above_it(jitter: float, floor: float) -> None:
    """Full jitter never goes under the server's `retry:`, nor more than the cap over it, however often it fails."""
    backoff = Backoff(random=lambda: jitter)
    backoff.floor_seconds = floor
    delays = [backoff.next_delay() for _ in range(40)]
    assert all(floor <= delay <= floor + 15 for delay in delays)
    backoff.reset()
    assert backoff.next_delay() <= floor + 0.25
