"""The state that a watch shows, and the one place in which it changes. Pure: no clock and no I/O.

`QuerySnapshot` holds all that is known of one query, and `reduce` is the only way from one snapshot to the next. A
**base** is an outcome as the server answered it: a result, or an error that lasts until the data changes. An **op** is
an own mutation's optimistic update. Shown is the base with the ops folded over it. The base is confirmed (`is_stale` is
False) only while both hold:

- *covered*: a stream that is up has this query in its set, so any change would be told;
- *current*: no invalidation came since.

`docs/internals/client.md` has the rules; the INVARIANT comments mark their lines. The clients of all languages share
this model; `tests/vectors/state.json` are its examples, as data.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, Literal, TypeVar

from reactive_rpc.client.versions import Version, is_older, passes

__all__ = [
    "Action",
    "Advanced",
    "Base",
    "Confirmed",
    "Covered",
    "FetchFailed",
    "FetchStarted",
    "FetchUnchanged",
    "Fetched",
    "HoldExpired",
    "Invalidated",
    "Op",
    "OpAnswered",
    "OpLost",
    "OpMade",
    "OpRejected",
    "OpSent",
    "Pushed",
    "QuerySnapshot",
    "Reidentified",
    "Restored",
    "Shared",
    "State",
    "StreamFailed",
    "Uncovered",
    "reduce",
]

T = TypeVar("T")
logger = logging.getLogger("reactive_rpc.client")


@dataclass(frozen=True, slots=True)
class State(Generic[T]):
    """The state that a watch shows at one moment.

    >>> state = State(data=["buy milk"], is_stale=False, is_loading=False, error=None)
    >>> state.data
    ['buy milk']

    Attributes:
        data: the last result; None until the first one, and if the query's outcome is an error that lasts, like
            NOT_FOUND. Kept when something else fails.
        is_stale: True whenever nobody can confirm the data shown: it may have changed and the answer is not in, or the
            stream that would tell is down.
        is_loading: a fetch is under way.
        error: the query's outcome, if that is an error; or the failure of the last fetch, or of the stream;
            None while all is well.
        is_pending: an own mutation shows in `data` that the server's answer does not contain yet.
    """

    data: T | None
    is_stale: bool
    is_loading: bool
    error: Exception | None
    is_pending: bool = False


@dataclass(frozen=True, slots=True)
class Base(Generic[T]):
    """An outcome as the server answered it.

    Attributes:
        data: the result; None if the outcome is an error, or if there is none yet.
        etag: names the outcome; None if there is none, or the server has not said.
        version: which it reflects exactly; None if nobody can tell.
        seen: the ops that were answered, or lost, before its fetch began.
        error: the outcome, if that is an error.
    """

    data: T | None = None
    etag: str | None = None
    version: Version | None = None
    seen: tuple[str, ...] = ()
    error: Exception | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is no outcome yet."""
        return self.data is None and self.etag is None and self.error is None


@dataclass(frozen=True, slots=True)
class Op(Generic[T]):
    """An own mutation, as it shows in this query until the server's answers contain it.

    Attributes:
        apply: returns the data with it; must not change its argument.
        phase: not sent yet; sent; answered; sent, and no answer will come.
        at: a version that shows the mutation's writes; None if none is known to.
    """

    id: str
    apply: Callable[[T | None], T | None]
    phase: Literal["queued", "sent", "acked", "lost"] = "queued"
    at: Version | None = None

    @property
    def is_over(self) -> bool:
        """Whether the server has done with it, as far as can be told from here."""
        return self.phase in {"acked", "lost"}


_EMPTY: Final[Base[Any]] = Base()


class _Unsaid:
    """The type of `_UNSAID`: nothing was said, which is not the same as something without a version."""


_UNSAID: Final = _Unsaid()


@dataclass(frozen=True, slots=True)
class QuerySnapshot(Generic[T]):
    """Everything that is known of one query.

    Attributes:
        base: the outcome that is shown, but for the ops.
        held: a newer one, that must not be shown yet.
        ops: own mutations that the base does not contain, in the order they were made.
        shown: the base's data with the ops; the same object while neither changes.
        covered: a stream that is up watches the query.
        current: nothing has invalidated the newest outcome.
        wanted: a fetch should begin as soon as none is running.
        loading: a fetch is running.
        resolved: there is an outcome of a fetch or a stream, or a failure.
        invalidated_at: the newest version at which the result was invalidated since the running fetch began; None if an
            invalidation named no version.
        asked: the newest outcome when that fetch began, whose ETag was sent.
        seen: the ops that were over when that fetch began.
        fetch_error: why the last fetch failed.
        stream_error: why no stream covers the query.
    """

    base: Base[T] = _EMPTY
    held: Base[T] | None = None
    ops: tuple[Op[T], ...] = ()
    shown: T | None = None
    covered: bool = False
    current: bool = False
    wanted: bool = True
    loading: bool = False
    resolved: bool = False
    invalidated_at: Version | _Unsaid | None = _UNSAID
    asked: Base[T] = _EMPTY
    seen: tuple[str, ...] = ()
    fetch_error: Exception | None = None
    stream_error: Exception | None = None

    @property
    def newest(self) -> Base[T]:
        """The newest outcome, shown or not."""
        return self.held or self.base

    @property
    def is_news(self) -> bool:
        """Whether a fetch is wanted for more than the own mutations that the last one knew and has left."""
        over = [op for op in self.ops if op.is_over]
        is_invalidated = not isinstance(self.invalidated_at, _Unsaid)
        return self.wanted and (is_invalidated or not over or any(op.id not in self.seen for op in over))

    @property
    def is_stale(self) -> bool:
        """Whether nobody confirms the base."""
        return not (self.covered and self.current) or self.held is not None

    @property
    def state(self) -> State[T]:
        """The state that is shown of it."""
        return State(
            data=self.shown,
            is_stale=self.is_stale,
            is_loading=self.loading,
            error=self.fetch_error or self.stream_error or self.base.error,
            is_pending=bool(self.ops),
        )


@dataclass(frozen=True, slots=True)
class Restored:
    """A result was found in storage, before anything else was known."""

    data: Any
    etag: str | None
    version: Version | None = None


@dataclass(frozen=True, slots=True)
class FetchStarted:
    """A request is about to be sent."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """An outcome came; `is_stale` if the server itself cannot confirm it, `error` if it is one that lasts."""

    data: Any
    etag: str | None
    version: Version | None = None
    is_stale: bool = False
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class FetchUnchanged:
    """The result is the one whose ETag was sent (304); `version` and `is_stale` as in `Fetched`."""

    version: Version | None = None
    is_stale: bool = False


@dataclass(frozen=True, slots=True)
class FetchFailed:
    """No outcome came; `answered` if the server has refused, and would again."""

    error: Exception
    answered: bool = False


@dataclass(frozen=True, slots=True)
class Invalidated:
    """The result may have changed; one that reflects `version` shows the change. Without it, none is known to."""

    version: Version | None = None


@dataclass(frozen=True, slots=True)
class Pushed:
    """The stream that covers the query has brought its result."""

    data: Any
    etag: str
    version: Version | None = None


@dataclass(frozen=True, slots=True)
class Shared:
    """Somebody else of the same scope has fetched it; the stream that covers the query here is at `notified_up_to`."""

    data: Any
    etag: str | None
    version: Version | None
    notified_up_to: Version | None


@dataclass(frozen=True, slots=True)
class Advanced:
    """The stream has told everything up to `version`, and nothing of this query since it was last mentioned."""

    version: Version | None


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A stream watches the query from now on, and the result held is the truth at `version`, if that is known."""

    version: Version | None = None


@dataclass(frozen=True, slots=True)
class Covered:
    """A stream watches the query from now on."""


@dataclass(frozen=True, slots=True)
class Uncovered:
    """The stream has ended; another will be tried."""


@dataclass(frozen=True, slots=True)
class StreamFailed:
    """The stream could not be had, is over for good, or refuses this query."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Reidentified:
    """The caller has other credentials; `forget` if it is surely somebody else, who may not see the result held."""

    forget: bool = False


@dataclass(frozen=True, slots=True)
class OpMade:
    """An own mutation was made, and shows at once."""

    id: str
    apply: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class OpSent:
    """It was sent: from now on an outcome may contain it."""

    id: str


@dataclass(frozen=True, slots=True)
class OpAnswered:
    """It succeeded; `version` shows its writes. The stream that covers the query is at `notified_up_to`."""

    id: str
    version: Version | None
    notified_up_to: Version | None = None


@dataclass(frozen=True, slots=True)
class OpRejected:
    """The server refused it: nothing was written."""

    id: str


@dataclass(frozen=True, slots=True)
class OpLost:
    """No answer came: whether it was done only a later fetch can tell."""

    id: str


@dataclass(frozen=True, slots=True)
class HoldExpired:
    """The result that is held has waited long enough for a mutation that hangs."""


Action = (
    Restored
    | FetchStarted
    | Fetched
    | FetchUnchanged
    | FetchFailed
    | Invalidated
    | Pushed
    | Shared
    | Advanced
    | Confirmed
    | Covered
    | Uncovered
    | StreamFailed
    | Reidentified
    | OpMade
    | OpSent
    | OpAnswered
    | OpRejected
    | OpLost
    | HoldExpired
)


def reduce(snapshot: QuerySnapshot[T], action: Action) -> QuerySnapshot[T]:
    """Return the snapshot after `action`, `snapshot` itself if nothing changed; never raises."""
    stepped = _step(snapshot, action)
    return snapshot if stepped is snapshot else _tidied(snapshot, stepped)


def _step(s: QuerySnapshot[T], action: Action) -> QuerySnapshot[T]:
    match action:
        case FetchStarted():
            seen = tuple(op.id for op in s.ops if op.is_over)
            return replace(s, wanted=False, loading=True, invalidated_at=_UNSAID, asked=s.newest, seen=seen)
        case Fetched() | FetchUnchanged() | FetchFailed():
            return _ended(s, action)
        case Invalidated(version=version):
            return _invalidated(s, version)
        case Pushed():
            return _pushed(s, action)
        case OpMade() | OpSent() | OpAnswered() | OpRejected() | OpLost():
            return _of_op(s, action)
        case Restored() | Shared():
            return _from_elsewhere(s, action)
        case HoldExpired():
            return s if s.held is None else replace(s, base=s.held, held=None)
        case _:
            return _of_stream(s, action)


# -- fetches


def _ended(s: QuerySnapshot[T], action: Fetched | FetchUnchanged | FetchFailed) -> QuerySnapshot[T]:
    over = replace(s, loading=False, resolved=True)
    match action:
        case Fetched():
            seen = () if action.is_stale else s.seen
            answer = Base(action.data, action.etag, action.version, seen, action.error)
            return _answered(over, answer, is_stale=action.is_stale)
        case FetchUnchanged():
            return _unchanged(over, action)
        case _:
            return _failed(over, action)


def _answered(s: QuerySnapshot[T], answer: Base[T], *, is_stale: bool) -> QuerySnapshot[T]:
    """Take an answer, unless it is none that can be taken; current only if nothing is said that it does not show."""
    # INVARIANT (an answer that the server calls stale replaces nothing): it may be older than the newest outcome.
    if is_stale and not s.newest.is_empty:
        return replace(s, current=s.current and not _is_same(s.newest, s.asked), fetch_error=None)
    # INVARIANT (nothing older than the newest outcome is taken): time would run backwards in what is shown.
    if _is_overtaken(s, answer):
        return _want_unless_current(s)
    # INVARIANT (an invalidation that came while the fetch ran outlives its answer): unless the answer reflects the
    # version that the invalidation named.
    is_clear = not s.wanted or (isinstance(s.invalidated_at, Version) and passes(answer.version, s.invalidated_at))
    taken = replace(s, held=answer, current=is_clear and not is_stale, wanted=s.wanted and not is_clear)
    return replace(taken, invalidated_at=_UNSAID, fetch_error=None)


def _is_overtaken(s: QuerySnapshot[T], answer: Base[T]) -> bool:
    """Tell whether the newest outcome is a later one than the answer, or came since the fetch began and may be."""
    newest, version = s.newest.version, answer.version
    if version is None:
        return not _is_same(s.newest, s.asked)
    if newest is None or newest.epoch == version.epoch:
        return is_older(version, newest)
    # INVARIANT (an answer of another epoch counts only if the newest outcome was there when its fetch began): versions
    # of two epochs do not compare, so nothing else says which is the later.
    return s.asked.version is None or s.asked.version.epoch != newest.epoch


def _unchanged(s: QuerySnapshot[T], action: FetchUnchanged) -> QuerySnapshot[T]:
    newest, version = s.newest, action.version
    # INVARIANT (a 304 speaks of the ETag that was sent): it says nothing of an outcome that came since.
    if not _is_same(newest, s.asked):
        # The result that was asked about is the truth at `version`, and another one is held.
        is_later = version is not None and not passes(newest.version, version)
        return replace(s, current=False, wanted=True) if is_later else _want_unless_current(s)
    if version is None or is_older(version, newest.version):
        version = newest.version
    return _answered(s, replace(newest, version=version, seen=s.seen), is_stale=action.is_stale)


def _failed(s: QuerySnapshot[T], action: FetchFailed) -> QuerySnapshot[T]:
    """Show the error, unless the result that is held is confirmed nevertheless."""
    ops = tuple(op for op in s.ops if op.id not in s.seen) if action.answered else s.ops
    error = s.fetch_error if s.current else action.error
    return replace(s, ops=ops, fetch_error=error)


def _want_unless_current(s: QuerySnapshot[T]) -> QuerySnapshot[T]:
    return s if s.current else replace(s, wanted=True)


def _is_same(one: Base[T], other: Base[T]) -> bool:
    return one.etag == other.etag and one.data is other.data and one.error is other.error


# -- streams


def _invalidated(s: QuerySnapshot[T], version: Version | None) -> QuerySnapshot[T]:
    # INVARIANT (only a version makes an invalidation needless): the newest outcome shows that change already.
    if passes(s.newest.version, version):
        return s
    before = s.invalidated_at
    newest = version if isinstance(before, _Unsaid) or not s.loading else _later_of(before, version)
    return replace(s, current=False, wanted=True, invalidated_at=newest)


def _later_of(one: Version | None, other: Version | None) -> Version | None:
    if passes(one, other):
        return one
    return other if passes(other, one) else None


def _pushed(s: QuerySnapshot[T], action: Pushed) -> QuerySnapshot[T]:
    newest, version = s.newest, action.version
    if is_older(version, newest.version):
        return s
    # INVARIANT (a pushed result that cannot be compared is never taken): it may be older, so it is a reason to fetch.
    if not newest.is_empty and (version is None or newest.version is None or newest.version.epoch != version.epoch):
        return _invalidated(s, version if newest.version is None else None)
    data = newest.data if newest.etag == action.etag and newest.error is None else action.data
    return replace(
        s,
        held=Base(data, action.etag, version),
        current=True,
        wanted=False,
        resolved=True,
        invalidated_at=_UNSAID,
        fetch_error=None,
    )


def _of_stream(s: QuerySnapshot[T], action: Action) -> QuerySnapshot[T]:
    match action:
        case Confirmed(version=version):
            # An own mutation may have come and gone meanwhile: then this waits, like any other newer outcome.
            is_sure = all(op.phase == "queued" for op in s.ops)
            moved = _moved(s if is_sure else replace(s, held=s.newest), version)
            good = replace(moved, covered=True, current=True, wanted=False, resolved=True, invalidated_at=_UNSAID)
            return replace(good, fetch_error=None, stream_error=None)
        case Advanced(version=version):
            # INVARIANT (covered and current only): then a change up to `version` would have been told.
            return _moved(s, version) if s.covered and s.current else s
        case Covered():
            return replace(s, covered=True, stream_error=None)
        case Uncovered():
            return replace(s, covered=False)
        case StreamFailed(error=error):
            return replace(s, covered=False, stream_error=error)
        case Reidentified(forget=forget):
            return _reidentified(s, forget=forget)
        case _:
            return s


def _moved(s: QuerySnapshot[T], version: Version | None) -> QuerySnapshot[T]:
    """Note that the newest outcome is the truth at `version` too. One without a version stays without."""
    newest = s.newest
    if version is None or newest.version is None or passes(newest.version, version):
        return s
    moved = replace(newest, version=version)
    return replace(s, base=moved) if s.held is None else replace(s, held=moved)


def _reidentified(s: QuerySnapshot[T], *, forget: bool) -> QuerySnapshot[T]:
    """Invalidate the answers to the former caller; its own mutations are none of this one's.

    A fetch that runs was the former's too: whoever runs it gives it up.
    """
    base: Base[T] = Base() if forget else replace(s.base, etag=None, version=None)
    return QuerySnapshot(base=base, shown=base.data, loading=s.loading, asked=base, resolved=s.resolved and not forget)


# -- own mutations


def _of_op(s: QuerySnapshot[T], action: OpMade | OpSent | OpAnswered | OpRejected | OpLost) -> QuerySnapshot[T]:
    match action:
        case OpMade(id=id, apply=apply):
            return replace(s, ops=(*s.ops, Op(id, apply)))
        case OpSent(id=id):
            return _with_op(s, id, phase="sent")
        case OpAnswered(id=id, version=version, notified_up_to=notified_up_to):
            return _of_stream(_with_op(s, id, phase="acked", at=version), Advanced(notified_up_to))
        case OpRejected(id=id):
            return replace(s, ops=tuple(op for op in s.ops if op.id != id))
        case OpLost(id=id):
            return _with_op(s, id, phase="lost")


def _with_op(s: QuerySnapshot[T], id: str, **changes: Any) -> QuerySnapshot[T]:
    return replace(s, ops=tuple(replace(op, **changes) if op.id == id else op for op in s.ops))


# -- from elsewhere


def _from_elsewhere(s: QuerySnapshot[T], action: Restored | Shared) -> QuerySnapshot[T]:
    found: Base[T] = Base(action.data, action.etag, action.version)
    if isinstance(action, Restored):
        return s if s.resolved or not s.newest.is_empty else replace(s, base=found)
    is_fresh = passes(action.version, action.notified_up_to)
    if s.loading or not _is_later(action, s.newest) or (s.current and not is_fresh):
        return s
    return replace(s, held=found, current=is_fresh, wanted=not is_fresh, resolved=True)


def _is_later(shared: Shared, newest: Base[Any]) -> bool:
    """Tell whether a shared result is a later one; of another epoch it is, if that is the stream's."""
    if shared.version is None or newest.version is None:
        return shared.version is not None and newest.is_empty
    if newest.version.epoch == shared.version.epoch:
        return is_older(newest.version, shared.version)
    return shared.notified_up_to is not None and shared.notified_up_to.epoch == shared.version.epoch


# -- after each step


def _tidied(before: QuerySnapshot[T], s: QuerySnapshot[T]) -> QuerySnapshot[T]:
    """Show the held result once it can be told, drop the ops that the base contains, see to it that others will be."""
    held = s.held
    # INVARIANT (the base contains no op that was sent and is still listed): else its row would show twice.
    if held is not None and all(op.phase == "queued" or _contains(held, op) for op in s.ops):
        s = replace(s, base=held, held=None)
    if any(_contains(s.base, op) for op in s.ops):
        s = replace(s, ops=tuple(op for op in s.ops if not _contains(s.base, op)))
    # INVARIANT (an op that is over and that the base lacks wants a fetch): nothing else would end it.
    if not s.wanted and not s.loading and any(op.is_over for op in s.ops):
        s = replace(s, wanted=True)
    if s.base.data is before.base.data and [op.id for op in s.ops] == [op.id for op in before.ops]:
        return s if s.shown is before.shown else replace(s, shown=before.shown)
    return replace(s, shown=_folded(s.base.data, s.ops))


def _contains(base: Base[T], op: Op[T]) -> bool:
    # INVARIANT (an op leaves by a proof only): the base reflects its version, or was fetched after its answer.
    if op.phase == "acked" and passes(base.version, op.at):
        return True
    return op.is_over and op.id in base.seen


def _folded(data: T | None, ops: tuple[Op[T], ...]) -> T | None:
    for op in ops:
        try:
            data = op.apply(data)
        except Exception:
            logger.exception("the optimistic update of %s failed; it shows nothing", op.id)
    return data
