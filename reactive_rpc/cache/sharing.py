"""This worker's side of sharing: which results it offers to other workers, and which keys are worth asking for."""

from __future__ import annotations

from reactive_rpc.cache.freshness import Freshness
from reactive_rpc.cache.result import CachedResult, HandlerOutcome, ResultKey
from reactive_rpc.cache.shared_results import SharedResult, SharedResults
from reactive_rpc.cache.stats import Stats
from reactive_rpc.changes.log import Log

__all__ = ["Sharing"]

MAX_UNSHAREABLE = 10_000
"""So many keys are remembered whose results cannot be shared, so that no worker waits for another's."""


class Sharing:
    """Finds other workers' results and offers this one's. Used on one event loop.

    Args:
        shared: their store; whoever made it closes it.
    """

    def __init__(self, shared: SharedResults, log: Log, freshness: Freshness, *, stats: Stats) -> None:
        self._shared = shared
        self._log = log
        self._freshness = freshness
        self._stats = stats
        self._unshareable: dict[int, None] = {}

    def is_shareable(self, key: ResultKey) -> bool:
        """Tell whether a shared result of `key` is worth asking for."""
        return hash(key) not in self._unshareable

    async def find(self, key: ResultKey, *, after: int) -> SharedResult | None:
        """Return a result of `key` that was right at a version after `after`; None if the handler must run here.

        If the result is ahead of this worker's log, the log has been read meanwhile.
        """
        found = await self._shared.find(key, self._log.epoch, after=after, version=self._log.version)
        if found is not None and found.version > self._log.version:
            await self._freshness.sync_to_head()
        return found

    def release(self, key: ResultKey) -> None:
        """Let other workers compute `key`."""
        self._shared.release(key)

    def offer(self, result: CachedResult, outcome: HandlerOutcome) -> None:
        """Offer a result to other workers; called in the step of the event loop that has found it to be right."""
        if outcome.error is not None:
            self.mark_unshareable(result.query.key)
            return
        key = result.query.key
        self._unshareable.pop(hash(key), None)
        self._shared.put(SharedResult(key, self._log.epoch, self._log.version, outcome.body, outcome.read_set))
        self._stats.shared_puts += 1

    def mark_unshareable(self, key: ResultKey) -> None:
        """Remember that nobody need ask for, or wait for, a shared result of this key."""
        self._unshareable[hash(key)] = None
        if len(self._unshareable) > MAX_UNSHAREABLE:
            del self._unshareable[next(iter(self._unshareable))]
