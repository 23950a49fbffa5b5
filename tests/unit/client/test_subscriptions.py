"""What the stream's first word means for each query: the bookkeeping, without I/O."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from reactive_rpc.client.procedure import Procedure
from reactive_rpc.client.state import Fetched, FetchStarted, Invalidated
from reactive_rpc.client.subscriptions import QueryEntry, Subscriptions
from reactive_rpc.client.versions import Version
from reactive_rpc.errors import ForbiddenError, WireError
from reactive_rpc.protocol.envelopes import ErrorBody
from reactive_rpc.protocol.events import Affected, Connected, RefusedQuery

GET: Procedure[int] = Procedure(path="items.get", url="/rpc/items/get", method="GET", input=None, output=int)


def fetched(subscriptions: Subscriptions, name: str, etag: str | None = '"1"') -> QueryEntry[int]:
    """Return an entry whose first fetch is in."""
    entry = subscriptions.acquire(GET, {"name": name})
    entry.dispatch(FetchStarted())
    entry.dispatch(Fetched(1, etag))
    return entry


@dataclass(eq=False)
class Covering:
    """A stream, as the bookkeeping knows it."""

    cursor: str = "e:1"


def connect(subscriptions: Subscriptions, entry: QueryEntry[int], connected: Connected) -> None:
    """Open a stream for one entry."""
    subscriptions.connect(
        Covering(), [entry], subscriptions.request([entry], None, acks=True), connected, wanted=[entry]
    )


def test_a_matching_etag_confirms_a_result() -> None:
    """What the server compared and did not list as stale is fresh without a fetch."""
    subscriptions = Subscriptions()
    entry = fetched(subscriptions, "a")
    connect(subscriptions, entry, Connected(stream="s", cursor="e:1", queries=["k"]))
    assert not entry.state.is_stale


@pytest.mark.parametrize("key", ["k", "unheard of"])
def test_what_is_listed_as_stale_is_fetched(key: str) -> None:
    """Also under a key that was not announced: then all of the path is invalidated."""
    subscriptions = Subscriptions()
    entry = fetched(subscriptions, "a")
    stale = [Affected(path="items.get", key=key)]
    connect(subscriptions, entry, Connected(stream="s", cursor="e:1", queries=["k"], stale=stale))
    assert entry.snapshot.wanted
    assert entry.state.is_stale


def test_without_an_etag_nothing_can_be_compared() -> None:
    """A result that came without an ETag is fetched again once the stream watches."""
    subscriptions = Subscriptions()
    entry = fetched(subscriptions, "a", etag=None)
    connect(subscriptions, entry, Connected(stream="s", cursor="e:1", queries=["k"]))
    assert entry.snapshot.wanted


@pytest.mark.parametrize("late", [[FetchStarted()], [FetchStarted(), Fetched(2, '"2"')], [Invalidated()]])
def test_what_moved_while_the_stream_opened_is_fetched_again(late: list[FetchStarted | Fetched | Invalidated]) -> None:
    """The server compared the ETag of the request; a result of since, or one under way, it has not seen."""
    subscriptions = Subscriptions()
    entry = fetched(subscriptions, "a")
    request = subscriptions.request([entry], None, acks=True)
    for action in late:
        entry.dispatch(action)
    subscriptions.connect(
        Covering(), [entry], request, Connected(stream="s", cursor="e:1", queries=["k"]), wanted=[entry]
    )
    assert entry.snapshot.wanted
    assert entry.state.is_stale


def test_a_refusal_belongs_to_its_query_alone() -> None:
    """The refused query says why; its neighbour is watched."""
    subscriptions = Subscriptions()
    entries = [fetched(subscriptions, "a"), fetched(subscriptions, "b")]
    refused = RefusedQuery(
        path="items.get", input={"name": "b"}, error=ErrorBody(code="FORBIDDEN", message="not yours")
    )
    connected = Connected(stream="s", cursor="e:1", queries=["k", None], errors=[refused])
    subscriptions.connect(
        Covering(), entries, subscriptions.request(entries, None, acks=True), connected, wanted=entries
    )
    assert not entries[0].state.is_stale
    assert isinstance(entries[1].state.error, ForbiddenError)


def test_a_stream_that_comes_late_takes_no_entry_from_another() -> None:
    """An entry that has moved on meanwhile stays covered when the late stream is replaced, and hears its events."""
    subscriptions = Subscriptions()
    entries = [fetched(subscriptions, "a"), fetched(subscriptions, "b")]
    late, other = Covering(), Covering()
    request = subscriptions.request(entries, None, acks=True)
    moved = subscriptions.request(entries[1:], None, acks=True)
    subscriptions.connect(
        other, entries[1:], moved, Connected(stream="o", cursor="e:1", queries=["l"]), wanted=entries[1:]
    )
    connected = Connected(stream="s", cursor="e:1", queries=["k", "l"])
    members = subscriptions.connect(late, entries, request, connected, wanted=entries[:1])
    subscriptions.disconnect(late, entries)
    assert [entry.state.is_stale for entry in entries] == [True, False]
    assert list(members) == ["k", "l"]


def test_one_key_may_mean_two_queries() -> None:
    """Inputs that the server takes for equal, a default spelled out, are both invalidated."""
    subscriptions = Subscriptions()
    entries = [fetched(subscriptions, "a"), fetched(subscriptions, "b")]
    connected = Connected(stream="s", cursor="e:1", queries=["k", "k"])
    members = subscriptions.connect(
        Covering(), entries, subscriptions.request(entries, None, acks=True), connected, wanted=entries
    )
    subscriptions.invalidate(members, [Affected(path="items.get", key="k")])
    assert all(entry.snapshot.wanted for entry in entries)


def test_a_stream_must_answer_for_every_query() -> None:
    """Keys that do not pair with the request cannot be guessed at."""
    subscriptions = Subscriptions()
    entry = fetched(subscriptions, "a")
    with pytest.raises(WireError, match="0 of 1"):
        connect(subscriptions, entry, Connected(stream="s", cursor="e:1"))


def test_an_entry_lives_as_long_as_somebody_holds_it() -> None:
    """Equal queries share an entry; when the last holder leaves it is forgotten."""
    subscriptions = Subscriptions()
    entry = fetched(subscriptions, "a")
    assert subscriptions.acquire(GET, {"name": "a"}) is entry
    subscriptions.release(entry)
    assert list(subscriptions) == [entry]
    subscriptions.release(entry)
    assert list(subscriptions) == []


def test_what_reflects_the_streams_version_needs_no_fetch() -> None:
    """An answer that came while the stream opened is not older than the stream: what comes later is told."""
    subscriptions = Subscriptions()
    entry = fetched(subscriptions, "a")
    request = subscriptions.request([entry], None, acks=True)
    entry.dispatch(FetchStarted())
    entry.dispatch(Fetched(2, '"2"', Version("e", 7)))
    stale = [Affected(path="items.get", key="k")]
    connected = Connected(stream="s", cursor="e:4", queries=["k"], stale=stale, version="e:7")
    subscriptions.connect(Covering(), [entry], request, connected, wanted=[entry])
    assert not entry.state.is_stale


def test_the_cursor_is_no_version() -> None:
    """It may lie below a change that the stream is about to tell of: by it, nothing is confirmed."""
    subscriptions = Subscriptions()
    entry = fetched(subscriptions, "a")
    request = subscriptions.request([entry], None, acks=True)
    entry.dispatch(FetchStarted())
    entry.dispatch(Fetched(2, '"2"', Version("e", 5)))
    stale = [Affected(path="items.get", key="k")]
    connected = Connected(stream="s", cursor="e:4", queries=["k"], stale=stale, version="e:6")
    subscriptions.connect(Covering(), [entry], request, connected, wanted=[entry])
    assert entry.snapshot.wanted


def test_an_etag_that_differs_is_believed_against_a_version() -> None:
    """Found stale by the very ETag that is held: whatever the versions say, it is asked for again."""
    subscriptions = Subscriptions()
    entry = fetched(subscriptions, "a")
    entry.dispatch(FetchStarted())
    entry.dispatch(Fetched(1, '"1"', Version("e", 9)))
    stale = [Affected(path="items.get", key="k")]
    connect(subscriptions, entry, Connected(stream="s", cursor="e:4", queries=["k"], stale=stale, version="e:9"))
    assert entry.snapshot.wanted


def test_an_entry_is_covered_by_the_last_stream_that_watched_it() -> None:
    """It may have gone from one stream to another: the end of the first is then none of its business."""
    subscriptions = Subscriptions()
    entry = fetched(subscriptions, "a")
    first, second = Covering(), Covering()
    request = subscriptions.request([entry], None, acks=True)
    for stream in (first, second):
        subscriptions.connect(
            stream, [entry], request, Connected(stream="s", cursor="e:1", queries=["k"]), wanted=[entry]
        )
    subscriptions.disconnect(first, [entry])
    assert not entry.state.is_stale
    subscriptions.disconnect(second, [entry])
    assert entry.state.is_stale
