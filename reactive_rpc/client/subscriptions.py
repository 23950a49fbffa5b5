"""Which queries a client shows, and the meaning of the stream's events for each: bookkeeping without I/O.

A stream confirms a result if the server has compared exactly its ETag, or if the result reflects the version that
`connected` names; everything else is fetched again. An event that names a key which the stream never announced, and a
gap, widen: to the path, or to everything. If the stream refuses a query for a reason that may pass, it is asked for
again; see `is_deferred`.

`docs/internals/client.md` argues why; the INVARIANT comments mark the lines that it rests on.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

from reactive_rpc.client.procedure import Procedure
from reactive_rpc.client.spread import query_bytes
from reactive_rpc.client.state import (
    Action,
    Advanced,
    Confirmed,
    Covered,
    Invalidated,
    Pushed,
    QuerySnapshot,
    Reidentified,
    State,
    StreamFailed,
    Uncovered,
    reduce,
)
from reactive_rpc.client.versions import Version, parse_version, passes
from reactive_rpc.errors import RPCError, WireError
from reactive_rpc.protocol.envelopes import error_of_body
from reactive_rpc.protocol.events import Affected, Connected, QueryRef, RefusedQuery, Result, SubscriptionRequest

__all__ = ["Members", "QueryEntry", "QueryKey", "Subscriptions", "affected_by", "query_key"]

T = TypeVar("T")
logger = logging.getLogger("reactive_rpc.client")

_DEFERRING: Final = frozenset(
    {"PRECONDITION_FAILED", "SERVICE_UNAVAILABLE", "TOO_MANY_REQUESTS", "TIMEOUT", "INTERNAL_SERVER_ERROR"}
)
"""Why a server does not watch a query that it may watch later."""


QueryKey: TypeAlias = tuple[str, str]
"""A query with its input."""


class CoveringStream(Protocol):
    """A stream that covers entries.

    Attributes:
        cursor: of the last event in its order.
    """

    cursor: str


class QueryEntry(Generic[T]):
    """One query with one input, shared by all watches that show it.

    Attributes:
        snapshot: all that is known; changed by `dispatch` only.
        ended: the client has closed.
        stream: the one that covers it; None if nothing does.
        refused: why no stream can carry it; None if one can.
        query_bytes: how much of a request it takes, at most.
        cancel_fetch: stops the fetch that runs for the entry, or its pause.
        hurry: ends the pause between two tries of a fetch.
        is_held_off: the server asked for that pause (`Retry-After`): only another caller's credentials end it.
        on_held: called when a result begins to wait for own mutations.
        cancel_hold: ends the bound of that wait; None while nothing waits.
    """

    def __init__(
        self,
        procedure: Procedure[T],
        fields: dict[str, Any] | None,
        *,
        on_held: Callable[[QueryEntry[Any]], None] | None = None,
    ) -> None:
        self.procedure = procedure
        self.fields = fields
        self.snapshot: QuerySnapshot[T] = QuerySnapshot()
        self.state: State[T] = self.snapshot.state
        self.ended = False
        self.stream: CoveringStream | None = None
        self.refused: Exception | None = None
        self.query_bytes = query_bytes(procedure.path, fields)
        self.holders = 0
        self.cancel_fetch: Callable[[], None] | None = None
        self.hurry: Callable[[], None] | None = None
        self.is_held_off = False
        self.on_held = on_held
        self.cancel_hold: Callable[[], None] | None = None
        self._listeners: list[Callable[[], None]] = []

    def dispatch(self, action: Action) -> None:
        """Change the snapshot, and wake the listeners if that shows."""
        self.snapshot = reduce(self.snapshot, action)
        self._bound_hold()
        state = self.snapshot.state
        if not _looks_alike(state, self.state):
            self.state = state
            self._notify()

    def _bound_hold(self) -> None:
        if self.snapshot.held is None:
            self.end_hold()
        elif self.cancel_hold is None and self.on_held is not None:
            self.on_held(self)

    def end_hold(self) -> None:
        """Hear that no result waits any more."""
        cancel, self.cancel_hold = self.cancel_hold, None
        if cancel is not None:
            cancel()

    @property
    def notified_up_to(self) -> Version | None:
        """The version up to which the stream that covers it has told everything; None if none does."""
        return None if self.stream is None else parse_version(self.stream.cursor)

    @property
    def is_deferred(self) -> bool:
        """Whether the stream refuses the query for a reason that may pass."""
        error = self.snapshot.stream_error
        return not self.snapshot.covered and isinstance(error, RPCError) and error.code in _DEFERRING

    def end(self) -> None:
        """Tell the listeners that nothing more will come."""
        self.ended = True
        self._notify()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever the state changes or the entry ends."""
        self._listeners.append(listener)

    def unlisten(self, listener: Callable[[], None]) -> None:
        """Call `listener` no more."""
        self._listeners.remove(listener)

    def _notify(self) -> None:
        for listener in tuple(self._listeners):
            listener()


def _looks_alike(one: State[Any], other: State[Any]) -> bool:
    """Compare by identity: results may be large, and equal ones from two fetches are still news."""
    return (
        one.data is other.data
        and one.error is other.error
        and one.is_stale == other.is_stale
        and one.is_loading == other.is_loading
        and one.is_pending == other.is_pending
    )


Members = dict[str, list[QueryEntry[Any]]]
"""The entries that a stream watches, by the server's key. Two entries may have one key: `{}` and `{"limit": 10}`."""


class Subscriptions:
    """All entries of a client, and the news of its streams.

    Args:
        on_held: called with an entry in which a result begins to wait for own mutations.
    """

    def __init__(self, on_held: Callable[[QueryEntry[Any]], None] | None = None) -> None:
        self._entries: dict[QueryKey, QueryEntry[Any]] = {}
        self._on_held = on_held

    def __iter__(self) -> Iterator[QueryEntry[Any]]:
        return iter(tuple(self._entries.values()))

    def acquire(self, procedure: Procedure[T], fields: dict[str, Any] | None) -> QueryEntry[T]:
        """Return the entry of this query, shared with everybody who holds it; give it back with `release`."""
        key = query_key(procedure, fields)
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = QueryEntry(procedure, fields, on_held=self._on_held)
        entry.holders += 1
        return entry

    def find(self, procedure: Procedure[T], fields: dict[str, Any] | None) -> QueryEntry[T] | None:
        """Return the entry of this query; None if nobody holds it."""
        return self._entries.get(query_key(procedure, fields))

    def release(self, entry: QueryEntry[Any]) -> None:
        """Forget the entry when its last holder gives it back."""
        entry.holders -= 1
        if entry.holders == 0:
            self._entries.pop(query_key(entry.procedure, entry.fields), None)
            entry.end_hold()
            if entry.cancel_fetch is not None:
                entry.cancel_fetch()

    def ready(self) -> tuple[QueryEntry[Any], ...]:
        """Return the entries that streams should watch: their first fetch has ended, so an ETag can confirm them."""
        return tuple(entry for entry in self if entry.snapshot.resolved and entry.refused is None)

    def request(self, entries: Sequence[QueryEntry[Any]], cursor: str | None, *, acks: bool) -> SubscriptionRequest:
        """Return the request that opens a stream for `entries`, from `cursor` on."""
        queries = [
            QueryRef(path=entry.procedure.path, input=entry.fields, etag=entry.snapshot.newest.etag)
            for entry in entries
        ]
        return SubscriptionRequest(queries=queries, cursor=cursor, acks=acks)

    def connect(
        self,
        stream: CoveringStream,
        entries: Sequence[QueryEntry[Any]],
        request: SubscriptionRequest,
        connected: Connected,
        *,
        wanted: Iterable[QueryEntry[Any]],
    ) -> Members:
        """Take in the first event of a new stream and return the entries that it watches.

        Args:
            stream: covers the entries from now on, as far as it watches them.
            entries: those that the request was made of, in its order.
            request: as it was sent; the ETags of now may be other ones.
            wanted: those that are to stay on this stream.

        Raises:
            WireError: the stream does not answer for every query that was asked for.
        """
        if len(connected.queries) != len(entries):
            raise WireError(f"the stream answers for {len(connected.queries)} of {len(entries)} queries")
        members: Members = {}
        watched: list[tuple[QueryEntry[Any], str | None]] = []
        staying = set(map(id, wanted))
        for entry, query, key in zip(entries, request.queries, connected.queries, strict=True):
            refusal = _refusal(query, key, connected.errors)
            if key is None or refusal is not None:
                refusal = refusal or RPCError("the server does not watch this query")
                entry.dispatch(StreamFailed(entry.procedure.typed_error(refusal)))
                continue
            members.setdefault(key, []).append(entry)
            # INVARIANT (whoever covers an entry goes on to): it may have moved to another stream while this one was
            # being opened. If this one took it from there and were then replaced, nobody would cover it any more.
            if id(entry) in staying:
                entry.stream = stream
                watched.append((entry, query.etag))
        stale = {id(entry) for entry in _affected(members, connected.stale)}
        for entry, etag in watched:
            _connect(entry, connected, etag, is_stale=id(entry) in stale)
        return members

    def invalidate(self, members: Members, affected: Iterable[Affected], version: str | None = None) -> None:
        """Invalidate the results that a commit may have changed; `version` shows that commit, if one is known to."""
        for entry in _affected(members, affected):
            entry.dispatch(Invalidated(parse_version(version)))

    def push(self, members: Members, result: Result) -> None:
        """Take the result that an event brings."""
        entries = members.get(result.key)
        if entries is None:
            self.invalidate(members, [affected_by(result)])
            return
        for entry in entries:
            entry.dispatch(_pushed(entry, result))

    def advance(self, members: Members, cursor: str) -> None:
        """Note that a stream has told everything up to `cursor`; that matters to own mutations that wait."""
        version = parse_version(cursor)
        for group in members.values():
            for entry in group:
                if entry.snapshot.ops:
                    entry.dispatch(Advanced(version))

    def gap(self, members: Members) -> None:
        """Invalidate every result that a stream watches."""
        for group in members.values():
            for entry in group:
                entry.dispatch(Invalidated())

    def disconnect(self, stream: CoveringStream, entries: Iterable[QueryEntry[Any]]) -> None:
        """Note that a stream has ended: an entry that no other covers meanwhile, nobody covers."""
        for entry in entries:
            if entry.stream is stream:
                entry.stream = None
                entry.dispatch(Uncovered())

    def fail(self, error: Exception, entries: Iterable[QueryEntry[Any]]) -> None:
        """Show why there is no stream, unless an older one still does its work."""
        for entry in entries:
            if not entry.snapshot.covered:
                entry.dispatch(StreamFailed(error))

    def reidentify(self) -> None:
        """Invalidate the answers to the former caller."""
        for entry in self:
            entry.stream = entry.refused = None
            entry.dispatch(Reidentified())
            if entry.hurry is not None:
                entry.hurry()


def affected_by(result: Result) -> Affected:
    """Return the query that an invalidation would have named in the place of `result`."""
    return Affected(path=result.path, input=result.input, key=result.key)


def _pushed(entry: QueryEntry[Any], result: Result) -> Pushed | Invalidated:
    """Return the action of a pushed result for an entry; one of another shape than was generated is asked for."""
    try:
        data = entry.procedure.decode_output(json.dumps(result.data).encode())
    except WireError as error:
        logger.info("a result that the stream brought cannot be read: %s", error)
        return Invalidated()
    return Pushed(data, result.etag, parse_version(result.version))


def _connect(entry: QueryEntry[Any], connected: Connected, sent_etag: str | None, *, is_stale: bool) -> None:
    """Take in the news of a new stream of one query that it watches."""
    version, newest = parse_version(connected.version), entry.snapshot.newest
    is_compared = sent_etag is not None and newest.etag == sent_etag
    # INVARIANT (the ETag is believed before the version): if the server compared it and found it stale, it is.
    if is_stale and is_compared:
        entry.dispatch(Invalidated())
    elif passes(newest.version, version) or (not is_stale and _is_confirmed(entry.snapshot, sent_etag)):
        entry.dispatch(Confirmed(version))
        return
    else:
        entry.dispatch(Invalidated(version))
    entry.dispatch(Covered())


def query_key(procedure: Procedure[Any], fields: dict[str, Any] | None) -> QueryKey:
    """Return what tells two queries apart: path and input, as it is sent."""
    return procedure.path, json.dumps(fields, sort_keys=True)


def _is_confirmed(snapshot: QuerySnapshot[Any], sent_etag: str | None) -> bool:
    """Tell whether the server has compared exactly the result that is held."""
    # INVARIANT (no fetch runs): one that began before the server watched may bring a result from before.
    return sent_etag is not None and snapshot.newest.etag == sent_etag and snapshot.current and not snapshot.loading


def _refusal(query: QueryRef, key: str | None, errors: Iterable[RefusedQuery]) -> RPCError | None:
    """Return why the server does not watch `query`; None if it does."""
    for refused in errors:
        same_key = key is not None and refused.key == key
        if same_key or (refused.path == query.path and refused.input == query.input):
            return error_of_body(refused.error.model_copy(update={"path": query.path}))
    return None


def _affected(members: Members, affected: Iterable[Affected]) -> list[QueryEntry[Any]]:
    """Return the entries that are meant; for a key that the stream never announced, all of its path."""
    found: list[QueryEntry[Any]] = []
    for one in affected:
        known = members.get(one.key)
        if known is None:
            known = [entry for group in members.values() for entry in group if entry.procedure.path == one.path]
        found += known
    return found
