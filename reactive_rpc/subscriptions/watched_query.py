"""A watched query: one query, the streams that show it, and how far they have been notified of its changes.

Its states and the reason for each are in `docs/internals/subscriptions.md`. Only the table of watched queries
(`subscriptions/watched_queries.py`) changes the state of one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import IntEnum

from reactive_rpc.cache.result import CachedResult
from reactive_rpc.cache.weight import weight_of
from reactive_rpc.errors import RPCError
from reactive_rpc.procedures.call import WatchableCall
from reactive_rpc.protocol.events import Affected, QueryRef
from reactive_rpc.subscriptions.limits import CallerKey
from reactive_rpc.subscriptions.stream import Stream

__all__ = ["Pending", "QueryState", "RequestedQuery", "WatchedQuery"]

WATCHED_QUERY_BYTES = 700
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
class WatchedQuery:
    """One query with the streams that show it.

    Attributes:
        query: the call of whoever subscribed first; those of all its streams have the same key.
        affected: how events name it.
        streams: an ordered set.
        state: changed by `transition` alone, which is for the table.
        entry: the indexed entry; None unless the state is CURRENT.
        notified_up_to: while there is no entry, the version up to which the streams have been notified of everything.
        notified_until: while there is no entry, the moment up to which they have been notified of every tick.
        pending: the changes of which they have not been notified; None unless the state is PENDING.
        callers: `{whose streams show it: how many of theirs}`.
        size_bytes: its size in memory, as `Holdings` has counted it.
        named_bytes: the part of that which does not depend on the entry.
    """

    query: WatchableCall
    affected: Affected
    streams: dict[Stream, None] = field(default_factory=dict)
    state: QueryState = QueryState.NEW
    entry: CachedResult | None = None
    notified_up_to: int = 0
    notified_until: float = 0.0
    pending: Pending | None = None
    callers: dict[CallerKey, int] = field(default_factory=dict)
    size_bytes: int = 0
    named_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.named_bytes = WATCHED_QUERY_BYTES + self.query.held_bytes + weight_of(self.affected.input)

    @property
    def weight_bytes(self) -> int:
        """Its size in memory now, estimated: its input twice, as it is computed and as events name it."""
        if self.entry is None:
            return self.named_bytes
        is_shared = self.entry.query is self.query
        return self.named_bytes + self.entry.held_bytes - (self.query.held_bytes if is_shared else 0)

    def transition(
        self, state: QueryState, *, entry: CachedResult | None = None, pending: Pending | None = None
    ) -> None:
        """Enter a state with all that belongs to it.

        Raises:
            RuntimeError: it cannot follow the present one.
        """
        if state not in _FOLLOWERS[self.state]:
            path, now = self.affected.path, self.state.name
            raise RuntimeError(f"{path}: a watched query that is {now} cannot become {state.name}")
        self.state, self.entry, self.pending = state, entry, pending
