"""A watch: one query, the streams that show it, and what they were last told of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from reactive_rpc.cache.result import CachedResult
from reactive_rpc.cache.weight import weight_of
from reactive_rpc.errors import RPCError
from reactive_rpc.procedures.call import QueryCall
from reactive_rpc.protocol.events import Affected, QueryRef
from reactive_rpc.subscriptions.limits import CallerKey
from reactive_rpc.subscriptions.stream import Stream

__all__ = ["Pending", "Subscription", "WatchedQuery"]

WATCH_BYTES = 700
"""What a watch weighs beside its query and its entry."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """One query of a set, bound to its caller, or refused before that.

    Attributes:
        ref: as the client asked for it.
        call: the query; None where it was refused.
        error: why it was refused; None where it was not.
    """

    ref: QueryRef
    call: QueryCall | None = None
    error: RPCError | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Pending:
    """A change that the streams have not been told of yet: they will be by its result, or when their turn comes.

    Attributes:
        entry: the result before it, which the streams show.
        tables: whose changes touched it.
        due_at: by the clock, when they are told of an invalidation; `inf` is not before the outcome is known.
    """

    entry: CachedResult
    tables: frozenset[str]
    due_at: float

    @property
    def waits_for_outcome(self) -> bool:
        """Whether the streams are told nothing before it is known that there is anything to tell."""
        return self.due_at == math.inf


@dataclass(slots=True, eq=False)
class WatchedQuery:
    """One query with the streams that show it.

    Attributes:
        query: the call of whoever subscribed first; those of all its streams have the same key.
        affected: how events name it.
        streams: an ordered set.
        entry: the indexed entry; None while it is to be computed again.
        told: while there is no entry: the version up to which the streams have been told everything.
        told_at: while there is no entry: the moment up to which they have been told of every tick.
        pending: what they have not been told of yet; None normally.
        callers: `{whose streams show it: how many of theirs}`.
        size_bytes: what it takes in memory, as `Holdings` has counted it.
        named_bytes: of that, what does not depend on the entry.
    """

    query: QueryCall
    affected: Affected
    streams: dict[Stream, None] = field(default_factory=dict)
    entry: CachedResult | None = None
    told: int = 0
    told_at: float = 0.0
    pending: Pending | None = None
    callers: dict[CallerKey, int] = field(default_factory=dict)
    size_bytes: int = 0
    named_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.named_bytes = WATCH_BYTES + self.query.held_bytes + weight_of(self.affected.input)

    @property
    def weight_bytes(self) -> int:
        """What it takes in memory now, estimated: its input twice, as it is computed and as events name it."""
        if self.entry is None:
            return self.named_bytes
        is_shared = self.entry.query is self.query
        return self.named_bytes + self.entry.held_bytes - (self.query.held_bytes if is_shared else 0)

    def note_told(self, version: int, moment: float) -> None:
        """Note that the streams have been told everything up to here, or are about to be in this very step."""
        self.told, self.told_at = version, moment
