"""What a watch shows, and the one place where it changes.

`Snapshot` holds all that is known of one query, and `reduce` is the only way from one snapshot to the next. A result
is vouched for (`is_stale` is False) only while both hold:

- *covered*: a stream that is up has this query in its set, so any change would be told;
- *current*: the last fetch began after the last thing that said the result may have changed, and its answer was not
  one that the server itself calls stale.

An invalidation during a fetch leaves `wanted` set, so the answer of that fetch, which may be older than the
invalidation, does not count as current and another fetch follows. The errors of fetches and of the stream are kept
apart: a fetch that succeeds must not hide that nobody is listening.

A stream may bring the result itself (*pushed*). It contains all that the stream has said of the query so far, and
whatever happens later the stream will say: so it counts as current without a fetch, and ends what doubt there was. A
fetch that is under way may have read before it or after it, and nobody can tell which. Its answer is therefore dropped
(`overtaken`), be it a failure, an older result, or a 304, which speaks of the ETag that was sent and not of what is
held by now. Rejected: showing that answer until another fetch is in; a consumer would see an old result after a newer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

__all__ = [
    "Action",
    "Covered",
    "FetchFailed",
    "FetchStarted",
    "FetchUnchanged",
    "Fetched",
    "Invalidated",
    "Pushed",
    "Reidentified",
    "Snapshot",
    "State",
    "StreamFailed",
    "Uncovered",
    "reduce",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class State(Generic[T]):
    """What a watch shows at one moment.

    Attributes:
        data: the last result; None until the first one. Kept when something fails.
        is_stale: True whenever nobody can vouch for `data`: it may have changed and the answer is not in, or the
            stream that would tell is down.
        is_loading: a fetch is under way.
        error: what went wrong with the last fetch, or with the stream; None while all is well.
    """

    data: T | None
    is_stale: bool
    is_loading: bool
    error: Exception | None


@dataclass(frozen=True, slots=True)
class Snapshot(Generic[T]):
    """Everything that is known of one query.

    Attributes:
        data: the last result.
        etag: the ETag that `data` came with.
        covered: a stream that is up watches the query.
        current: nothing has put the last answer in doubt.
        wanted: a fetch should begin as soon as none is running.
        loading: a fetch is running.
        overtaken: a result was pushed since that fetch began: its answer does not count.
        settled: at least one fetch has ended, well or not.
        fetch_error: why the last fetch failed.
        stream_error: why no stream covers the query.
    """

    data: T | None = None
    etag: str | None = None
    covered: bool = False
    current: bool = False
    wanted: bool = True
    loading: bool = False
    overtaken: bool = False
    settled: bool = False
    fetch_error: Exception | None = None
    stream_error: Exception | None = None

    @property
    def state(self) -> State[T]:
        """What is shown of it."""
        return State(
            data=self.data,
            is_stale=not (self.covered and self.current),
            is_loading=self.loading,
            error=self.fetch_error or self.stream_error,
        )


@dataclass(frozen=True, slots=True)
class FetchStarted:
    """A request is about to be sent."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A result came; `is_stale` where the server itself cannot vouch for it."""

    data: Any
    etag: str | None
    is_stale: bool = False


@dataclass(frozen=True, slots=True)
class FetchUnchanged:
    """The result is the one that is held (304); `is_stale` as in `Fetched`."""

    is_stale: bool = False


@dataclass(frozen=True, slots=True)
class FetchFailed:
    """No result came."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Invalidated:
    """The result may have changed."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """The stream that covers the query has brought its result."""

    data: Any
    etag: str


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
    """The caller is somebody else now: what was held answers another's question."""


Action = (
    FetchStarted
    | Fetched
    | FetchUnchanged
    | FetchFailed
    | Invalidated
    | Pushed
    | Covered
    | Uncovered
    | StreamFailed
    | Reidentified
)


def reduce(snapshot: Snapshot[T], action: Action) -> Snapshot[T]:
    """Return the snapshot after `action`; never raises."""
    match action:
        case FetchStarted():
            return replace(snapshot, wanted=False, loading=True, overtaken=False)
        case Fetched() | FetchUnchanged() | FetchFailed() if snapshot.overtaken:
            return replace(snapshot, loading=False, overtaken=False)
        case Fetched(data=data, etag=etag, is_stale=is_stale):
            return replace(_answered(snapshot, is_stale), data=data, etag=etag)
        case FetchUnchanged(is_stale=is_stale):
            return _answered(snapshot, is_stale)
        case FetchFailed(error=error):
            return replace(snapshot, loading=False, settled=True, current=False, fetch_error=error)
        case Invalidated():
            return replace(snapshot, current=False, wanted=True)
        case Pushed(data=data, etag=etag):
            pushed = replace(snapshot, data=data, etag=etag, current=True, wanted=False, settled=True)
            return replace(pushed, overtaken=snapshot.loading, fetch_error=None)
        case Covered():
            return replace(snapshot, covered=True, stream_error=None)
        case Uncovered():
            return replace(snapshot, covered=False)
        case StreamFailed(error=error):
            return replace(snapshot, covered=False, stream_error=error)
        case Reidentified():
            return replace(snapshot, etag=None, covered=False, current=False, wanted=True, stream_error=None)


def _answered(snapshot: Snapshot[T], is_stale: bool) -> Snapshot[T]:
    """Return the snapshot after an answer; current only if nothing put it in doubt while it was under way."""
    current = not snapshot.wanted and not is_stale
    return replace(snapshot, loading=False, settled=True, current=current, fetch_error=None)
