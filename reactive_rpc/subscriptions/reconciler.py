"""The reconciler: brings watched queries and their streams together again after each change (G2).

A change makes queries outdated. Their streams are notified, at once or as soon as the result or their turn has come,
and each query is computed again. `docs/internals/subscriptions.md` argues why no stream misses anything meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace

from reactive_rpc.cache.freshness import SYNCED
from reactive_rpc.cache.invalidation import InvalidatedResults
from reactive_rpc.cache.reader import Reader
from reactive_rpc.cache.result import CachedResult, ReadResult
from reactive_rpc.changes.log import Log
from reactive_rpc.clock import Clock
from reactive_rpc.dependencies.change import Change
from reactive_rpc.dependencies.period import ALWAYS
from reactive_rpc.dependencies.topics import PREFIX
from reactive_rpc.errors import PreconditionFailedError, ServiceUnavailableError, reason_of
from reactive_rpc.statements.concealment import concealed
from reactive_rpc.subscriptions.broadcaster import Broadcaster
from reactive_rpc.subscriptions.refresher import Refresher
from reactive_rpc.subscriptions.stream import Stream
from reactive_rpc.subscriptions.watched_queries import WatchedQueries
from reactive_rpc.subscriptions.watched_query import Pending, QueryState, WatchedQuery
from reactive_rpc.tasks import Tasks

__all__ = ["Reconciler"]

logger = logging.getLogger(__name__)

PUSH_SECONDS = 0.25
"""How long after a change its result may come; past it the streams are sent an invalidation."""

MAX_RESULT_BYTES = 64 * 1024
"""Of a larger result an invalidation is sent: who is behind can then leave it out, and who has it gets a 304."""

MAX_COMPARED = 64
"""If more changes came since a result, it is sent without a look at whether it is the same."""

NOTIFIED_AT_ONCE = 500
"""A commit with more to notify, counted by query and stream, is notified in several turns of the event loop."""


class Reconciler:
    """Notifies streams of changes and computes their queries again. Used on one event loop.

    Args:
        queries: the table, of which this alone changes the states.
        broadcaster: sends the events.
        reader: computes queries, and says which changes overlap a result.
        log: has applied each change before the next comes.
        tasks: those that the hub ends.

    Attributes:
        refresher: the lines in which queries wait to be computed again.
        notified_at_once: how many notifications are made in one turn of the event loop.
    """

    def __init__(
        self,
        queries: WatchedQueries,
        broadcaster: Broadcaster,
        *,
        reader: Reader,
        log: Log,
        clock: Clock,
        tasks: Tasks,
    ) -> None:
        self.refresher = Refresher(self._recompute, clock=clock, tasks=tasks)
        self.notified_at_once = NOTIFIED_AT_ONCE
        self._queries = queries
        self._broadcaster = broadcaster
        self._reader = reader
        self._log = log
        self._clock = clock
        self._tasks = tasks
        self._timing: asyncio.Task[None] | None = None

    def on_invalidated(self, invalidated: InvalidatedResults) -> None:
        """Notify the streams, or note that they are to be; called by the reader in the step that drops the entries."""
        # INVARIANT (no await in here, nor in what this calls): the log's version moves to `invalidated.version` right
        # after. By then each query that a change overlaps must be OUTDATED or PENDING, or a cursor would pass it.
        overlapping: dict[WatchedQuery, tuple[CachedResult, set[str]]] = {}
        for entry, tables in invalidated.results.items():
            query = self._queries.take(entry)
            if query is not None:
                overlapping[query] = entry, tables
        if invalidated.flush is not None:
            self._flush(overlapping, invalidated.version, invalidated.flush)
            return
        before, now = self._log.version, self._clock.monotonic()
        # A cursor can be held back below a commit alone: if an entry was found to be wrong, `version` does not move.
        is_commit = before < invalidated.version
        is_much = is_commit and sum(len(query.streams) for query in overlapping) > self.notified_at_once
        at_once: dict[WatchedQuery, Iterable[str]] = {}
        for query, (entry, tables) in overlapping.items():
            due_at = self._due_at(query, entry, now, is_much=is_much) if is_commit else None
            if due_at is None:
                self._outdate(query, invalidated.version)
                at_once[query] = tables
            else:
                self._defer(query, Pending(entry, frozenset(tables), due_at), before)
        if at_once:
            shown_at = f"{self._log.epoch}:{invalidated.version}" if is_commit else None
            self._broadcaster.notify(at_once, invalidated.version, shown_at=shown_at)

    def outdate(self, query: WatchedQuery) -> None:
        """Have a NEW query computed in its turn; whoever adds it notifies its stream."""
        self._outdate(query, self._log.version)

    def adopt(self, query: WatchedQuery, read: ReadResult) -> None:
        """Make a query CURRENT by a live entry, unless it is: both are right. Notify its streams of what they missed.

        Whoever computes a query adopts it: no live entry stands beside a change of which its streams do not know.
        """
        entry = read.result
        if query.state is QueryState.CURRENT:
            self._reader.unwatch(entry)
            return
        # INVARIANT (no await between here and the end): up to `log.version` nothing overlaps the entry, and from here
        # the index finds what does. So whatever is sent in this step covers everything up to `log.version`.
        notified_up_to, notified_until = query.notified_up_to, query.notified_until
        pending = self._queries.attach(query, entry)
        self.refresher.discard(query)
        if not query.streams:
            return
        if pending is not None and (query.query.pushes_results or pending.waits_for_outcome):
            if not self._is_unchanged(entry, pending, notified_up_to):
                self._notify_outcome(query, read, pending)
        elif pending is not None:
            self._broadcaster.notify({query: pending.tables}, self._log.version)
        elif self._reader.matcher.touched_since(notified_up_to, entry) or _ticked_since(notified_until, entry):
            self._broadcaster.notify({query: entry.read_set.tables}, self._log.version)

    def discard(self, query: WatchedQuery) -> None:
        """Compute a query no more; idempotent."""
        self.refresher.discard(query)

    def clear(self) -> None:
        """Forget the queries that wait to be computed; the tasks are the hub's to end."""
        self.refresher.clear()
        self._timing = None

    def _flush(self, overlapping: Iterable[WatchedQuery], version: int, reason: str) -> None:
        """Notify everybody of a gap, which stands for whatever was pending."""
        for query in overlapping:
            self._outdate(query, version)
        self._queries.outdate_all(version, self._clock.time())
        self._broadcaster.notify_gap(version, reason)

    def _due_at(self, query: WatchedQuery, entry: CachedResult, now: float, *, is_much: bool) -> float | None:
        """Return when the streams are notified of a commit at the latest; None is at once, `inf` by the outcome."""
        if entry.error is not None:
            return math.inf
        if query.query.pushes_results:
            return now + PUSH_SECONDS
        if is_much and len(query.streams) <= self.notified_at_once:
            return now
        return None

    def _outdate(self, query: WatchedQuery, version: int) -> None:
        """Have a query computed again whose streams are notified by now, or are in this very step."""
        self._queries.outdate(query, version, self._clock.time())
        self.refresher.add(query)

    def _defer(self, query: WatchedQuery, pending: Pending, before: int) -> None:
        """Have a query computed again and its streams notified later: by the result, or in their turn."""
        # They have not been notified of a tick either that had just ended the entry.
        moment = min(self._reader.notified_until, pending.entry.period.until)
        self._queries.defer(query, pending, version=before, moment=moment)
        self.refresher.add(query)
        if self._timing is None or self._timing.done():
            self._timing = self._tasks.start(self._notify_when_due(), "results")

    async def _notify_when_due(self) -> None:
        """Send an invalidation for each PENDING query whose result is not there in time, or whose turn has come."""
        while waiting := [
            query.pending.due_at
            for query in self._queries.outdated
            if query.pending is not None and not query.pending.waits_for_outcome
        ]:
            await self._clock.sleep(max(0.0, min(waiting) - self._clock.monotonic()))
            now = self._clock.monotonic()
            due = [q for q in self._queries.outdated if q.pending is not None and q.pending.due_at <= now]
            for turn in _turns(due, self.notified_at_once):
                # A query may have become CURRENT since `due` was made: `_notify_pending` looks again.
                self._notify_pending(turn)
                await asyncio.sleep(0)

    def _notify_pending(self, queries: Iterable[WatchedQuery]) -> None:
        """Send an invalidation now to the streams that wait for a result or for their turn."""
        pending: dict[WatchedQuery, Iterable[str]] = {}
        for query in queries:
            if query.pending is not None and not query.pending.waits_for_outcome:
                pending[query] = query.pending.tables
                self._queries.outdate(query, self._log.version, self._clock.time())
        if pending:
            self._broadcaster.notify(pending, self._log.version)

    async def _recompute(self, query: WatchedQuery) -> bool:
        """Compute a query again, unless a stream that connected has; return whether to try again later."""
        if not query.streams or query.state is QueryState.CURRENT:
            return False
        try:
            read = await self._reader.watch(query.query, freshness=SYNCED)
        except PreconditionFailedError as exc:
            logger.warning("%s; its streams are closed, to be refused when they come back", exc.message)
            self._notify_pending([query])
            for stream in query.streams:
                stream.close()
            return False
        except Exception as exc:
            reason = reason_of(concealed(exc))
            logger.warning("%s could not be computed again, retrying: %s", query.query.path, reason)
            if query.pending is not None and not isinstance(exc, ServiceUnavailableError):
                failed = replace(query.pending, due_at=0.0)  # that it fails is another outcome
                self._queries.defer(query, failed, version=query.notified_up_to, moment=query.notified_until)
            self._notify_pending([query])
            return True
        # Since the await the query may have become CURRENT, or FORGOTTEN with its last stream.
        if read.result.live:
            if query.streams:
                self.adopt(query, read)
            else:
                self._reader.unwatch(read.result)
        elif query.streams and query.entry is None:
            self._go_on(query, read.result)
        return False

    def _go_on(self, query: WatchedQuery, overtaken: CachedResult) -> None:
        """Compute once more a query that a write has overtaken; whoever has fetched meanwhile must hear of it."""
        if query.pending is None:
            version = self._log.version
            self._queries.outdate(query, version, self._clock.time())
            self._broadcaster.notify({query: overtaken.read_set.tables}, version)
        self.refresher.add(query)

    def _notify_outcome(self, query: WatchedQuery, read: ReadResult, pending: Pending) -> None:
        """Send the result that the streams wait for, or an invalidation in its place."""
        is_large = len(read.outcome.body) > MAX_RESULT_BYTES
        if read.outcome.error is not None or is_large or not query.query.pushes_results:
            self._broadcaster.notify({query: pending.tables}, self._log.version)
        else:
            self._broadcaster.notify_result(query, read)

    def _is_unchanged(self, entry: CachedResult, pending: Pending, notified_up_to: int) -> bool:
        """Return whether no snapshot since the streams were last notified shows anything but what they have."""
        before = pending.entry
        if not (entry.period is before.period is ALWAYS):
            return False  # what was fetched between may be of another tick
        if entry.etag != before.etag or _details_of(entry) != _details_of(before):
            return False
        changes = self._log.changes_since(notified_up_to)
        if changes is None or len(changes) > MAX_COMPARED:
            return False
        overlap = [change for change in changes if self._overlaps(change, entry) or self._overlaps(change, before)]
        # An equal ETag alone proves nothing: the value may have gone from A to B and back, and a client may have
        # fetched B. One single change is of one commit, with A on each side. A topic's world has no snapshots at all.
        return len(overlap) == 1 and overlap[0].operation != "bulk" and not overlap[0].table.startswith(PREFIX)

    def _overlaps(self, change: Change, entry: CachedResult) -> bool:
        return self._reader.matcher.touched_by((change,), entry)


def _ticked_since(moment: float, entry: CachedResult) -> bool:
    """Return whether the entry belongs to a tick after `moment`; an author's time to live is no tick."""
    return entry.period.is_exact and entry.period.since > moment


def _turns(queries: Iterable[WatchedQuery], at_once: int) -> Iterator[list[WatchedQuery]]:
    """Part queries into turns of at most `at_once` notifications; first whoever has least to hear.

    Queries of one stream stay together, so that it hears of a commit by few events, and a stream that shows one query
    does not wait for those that show a thousand.
    """
    by_stream: dict[Stream, list[WatchedQuery]] = defaultdict(list)
    for query in queries:
        if query.streams:
            by_stream[next(iter(query.streams))].append(query)
    turn: list[WatchedQuery] = []
    size = 0
    for theirs in sorted(by_stream.values(), key=len):
        for query in theirs:
            if turn and size + len(query.streams) > at_once:
                yield turn
                turn, size = [], 0
            turn.append(query)
            size += len(query.streams)
    if turn:
        yield turn


def _details_of(entry: CachedResult) -> object:
    """Return what an error says beside what its ETag stands for."""
    return None if entry.error is None else entry.error.details
