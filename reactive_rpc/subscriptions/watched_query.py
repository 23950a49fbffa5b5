"""A watched query: one query, the streams that show it, and how far they have been notified of its changes.

Its states and the reason for each are in `docs/internals/subscriptions.md`. Only the table of watched queries
(`subscriptions/watched_queries.py`) changes the state of one.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import IntEnum

from reactive_rpc.cache.result import CachedResult
from reactive_rpc.errors import RPCError
from reactive_rpc.procedures.call import WatchableCall
from reactive_rpc.protocol.events import Affected, QueryRef
from reactive_rpc.subscriptions.limits import CallerKey
from reactive_rpc.subscriptions.stream import Stream

__all__ = ["Pending", "QueryState", "RequestedQuery", "WatchedQuery"]

WATCHED_QUERY_BYTES = 300
"""The weight of a watched query beside its call and its entry."""


class QueryState(IntEnum):
    """How a watched query stands to the data.

    Attributes:
        NEW: not in the table yet.
        CURRENT: it has a live entry, so the log finds the next change.
        OUTDATED: it has none; its streams have been notified, and it is to be computed again.
        PENDING: it has none, and its streams have yet to be notified of the change (`Pending`).
        FORGOTTEN: nobody shows it any more.
    """

    NEW = 0
    CURRENT = 1
    OUTDATED = 2
    PENDING = 3
    FORGOTTEN = 4


_S = QueryState
_FOLLOWERS: tuple[tuple[QueryState, ...], ...] = (
    (_S.CURRENT, _S.OUTDATED),
    (_S.OUTDATED, _S.PENDING, _S.FORGOTTEN),
    (_S.CURRENT, _S.OUTDATED, _S.FORGOTTEN),
    (_S.CURRENT, _S.OUTDATED, _S.PENDING, _S.FORGOTTEN),
    (),
)
"""By each state, those that may follow it."""


@dataclass(frozen=True, slots=True)
class RequestedQuery:
    """One query of a set, bound to its caller, or refused before that.

    Attributes:
        ref: as the client asked for it.
        call: the query; None if it was refused.
        error: why it was refused; None if it was not.
        passed: the outcomes of the steps by which it was let in; None is one of which nobody can tell when it changes.
        is_refused_by_input: whether what has refused it may have looked at the input: another may be let in.
    """

    ref: QueryRef
    call: WatchableCall | None = None
    error: RPCError | None = None
    passed: tuple[CachedResult | None, ...] = ()
    is_refused_by_input: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Pending:
    """A change of which the streams have not been notified yet: they will be by its result, or in their turn.

    Attributes:
        entry: the result before it, which the streams show.
        tables: the tables whose changes overlap the query.
        due_at: by the clock, when the streams are sent an invalidation; `inf` is not before the outcome is known.
    """

    entry: CachedResult
    tables: frozenset[str]
    due_at: float

    @property
    def waits_for_outcome(self) -> bool:
        """Whether the streams are notified of nothing before it is known that there is anything to say."""
        return self.due_at == math.inf


@dataclass(slots=True, eq=False)
class _Several:
    """The streams of a query that several have shown, an ordered set, and how many of them each caller has."""

    streams: dict[Stream, None]
    callers: dict[CallerKey, int]

    def add(self, stream: Stream) -> None:
        self.streams[stream] = None
        self.callers[stream.caller] = self.callers.get(stream.caller, 0) + 1

    def remove(self, stream: Stream) -> None:
        del self.streams[stream]
        self.callers[stream.caller] -= 1
        if not self.callers[stream.caller]:
            del self.callers[stream.caller]


class WatchedQuery:
    """One query with the streams that show it.

    Most are shown by one stream, so that one is held as it is; and how events name a query is made for each event, as
    most queries are hardly ever told of.

    Args:
        query: the call of whoever subscribed first; those of all its streams have the same key.

    Attributes:
        state: changed by `transition` alone, which is for the table.
        entry: the indexed entry; None unless the state is CURRENT.
        notified_up_to: while there is no entry, the version up to which the streams have been notified of everything.
        notified_until: while there is no entry, the moment up to which they have been notified of every tick.
        pending: the changes of which they have not been notified; None unless the state is PENDING.
        size_bytes: its size in memory, as `Holdings` has counted it.
    """

    __slots__ = (
        "_only",
        "_several",
        "entry",
        "notified_until",
        "notified_up_to",
        "pending",
        "query",
        "size_bytes",
        "state",
    )  # fmt: skip

    def __init__(self, query: WatchableCall) -> None:
        self.query = query
        self.state = QueryState.NEW
        self.entry: CachedResult | None = None
        self.notified_up_to = 0
        self.notified_until = 0.0
        self.pending: Pending | None = None
        self.size_bytes = 0
        self._only: Stream | None = None
        self._several: _Several | None = None

    @property
    def affected(self) -> Affected:
        """How events name it."""
        return Affected(path=self.query.path, input=self.query.wire_input, key=self.query.wire_key)

    @property
    def streams(self) -> Collection[Stream]:
        """The streams that show it, in the order in which they came."""
        if self._several is not None:
            return self._several.streams
        return () if self._only is None else (self._only,)

    @property
    def callers(self) -> Mapping[CallerKey, int]:
        """`{whose streams show it: how many of theirs}`."""
        if self._several is not None:
            return self._several.callers
        return {} if self._only is None else {self._only.caller: 1}

    def add_stream(self, stream: Stream) -> None:
        """Note that a stream shows it, which did not."""
        if self._several is None and self._only is None:
            self._only = stream
            return
        if self._several is None:
            self._several = _Several(dict.fromkeys(self.streams), dict(self.callers))
            self._only = None
        self._several.add(stream)

    def remove_stream(self, stream: Stream) -> None:
        """Note that a stream that showed it does not any more."""
        self._only = None
        if self._several is not None:
            self._several.remove(stream)

    @property
    def weight_bytes(self) -> int:
        """Its size in memory now, estimated."""
        own_bytes = WATCHED_QUERY_BYTES + self.query.held_bytes
        if self.entry is None:
            return own_bytes
        is_shared = self.entry.query is self.query
        return own_bytes + self.entry.held_bytes - (self.query.held_bytes if is_shared else 0)

    def transition(
        self, state: QueryState, *, entry: CachedResult | None = None, pending: Pending | None = None
    ) -> None:
        """Enter a state with all that belongs to it.

        Raises:
            RuntimeError: it cannot follow the present one.
        """
        if state not in _FOLLOWERS[self.state]:
            path, now = self.query.path, self.state.name
            raise RuntimeError(f"{path}: a watched query that is {now} cannot become {state.name}")
        self.state, self.entry, self.pending = state, entry, pending
