"""The reader's counters."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Stats"]


@dataclass(slots=True)
class Stats:
    """Counters since the start.

    Attributes:
        hits: answered from the store; `served_stale` of them during an outage, with a mark.
        misses: not in the store: answered by a computation of one's own.
        joined: answered by a computation that was in flight.
        stored: results that were put into the store.
        expired: results dropped as a tick or their `ttl_seconds` had ended.
        outdated: results that a write or a tick overtook while they were computed: served, not stored.
        uncacheable: results of which nothing could tell when they change: served, not stored.
        invalidated: results dropped as a change touched them; `needless` of them came out the same again.
        kept: changes that touched a result and that `invalidate_when` called harmless.
        evicted: results dropped as there was no room.
        flushes: how often everything was dropped.
        shared_hits: computations that ended in a result of another worker; no handler ran.
        shared_puts: results that were offered to other workers.
        shared_rejected: results of other workers that were outdated, or could not be held against this log.
    """

    hits: int = 0
    misses: int = 0
    joined: int = 0
    stored: int = 0
    outdated: int = 0
    uncacheable: int = 0
    expired: int = 0
    invalidated: int = 0
    needless: int = 0
    served_stale: int = 0
    kept: int = 0
    evicted: int = 0
    flushes: int = 0
    shared_hits: int = 0
    shared_puts: int = 0
    shared_rejected: int = 0
