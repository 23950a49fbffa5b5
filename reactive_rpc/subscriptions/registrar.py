"""The registrar: computes the queries of a stream that connects, registers them, and says which are stale.

`docs/internals/subscriptions.md` argues why nothing falls between the client's cursor and `connected`.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import TypeGuard

from reactive_rpc.cache.freshness import SYNCED
from reactive_rpc.cache.reader import Reader
from reactive_rpc.cache.result import CachedResult, ReadResult
from reactive_rpc.changes.log import Log
from reactive_rpc.dependencies.period import ALWAYS
from reactive_rpc.errors import (
    InternalServerError,
    PreconditionFailedError,
    RPCError,
    ServiceUnavailableError,
    reason_of,
)
from reactive_rpc.procedures.call import WatchableCall
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.protocol.envelopes import body_of
from reactive_rpc.protocol.events import Affected, Connected, RefusedQuery
from reactive_rpc.statements.concealment import concealed
from reactive_rpc.subscriptions.broadcaster import Broadcaster
from reactive_rpc.subscriptions.holdings import Holdings
from reactive_rpc.subscriptions.reconciler import Reconciler
from reactive_rpc.subscriptions.replays import Missed, Replays
from reactive_rpc.subscriptions.stream import Stream
from reactive_rpc.subscriptions.watched_queries import WatchedQueries
from reactive_rpc.subscriptions.watched_query import QueryState, RequestedQuery, WatchedQuery

__all__ = ["Registrar"]

logger = logging.getLogger(__name__)

REGISTERED_AT_ONCE = 16
"""After so many queries, a stream that connects lets others have their turn: cached results wait for nothing."""


Passed = tuple[Affected, Sequence[CachedResult | None]]
"""A query with the outcomes of the steps by which the stream was let in to it."""


class Registrar:
    """Registers queries for streams. Used on one event loop.

    Args:
        queries: the table.
        reconciler: adopts the queries that are computed here.
        broadcaster: spells cursors.
        holdings: refuses queries past a bound.
        replays: says which changes a client that resumes has missed.
        log: is brought up to date first.
        reader: computes queries.
    """

    def __init__(
        self,
        queries: WatchedQueries,
        *,
        reconciler: Reconciler,
        broadcaster: Broadcaster,
        holdings: Holdings,
        replays: Replays,
        log: Log,
        reader: Reader,
    ) -> None:
        self._queries = queries
        self._reconciler = reconciler
        self._broadcaster = broadcaster
        self._holdings = holdings
        self._replays = replays
        self._log = log
        self._reader = reader

    async def register(
        self, stream: Stream, subscriptions: Sequence[RequestedQuery], cursor: Cursor | None
    ) -> Connected:
        """Register every query for a stream that the table knows, and return its first event.

        Args:
            cursor: up to which the client has seen everything; None if it has seen nothing yet.

        Raises:
            ServiceUnavailableError: the log cannot be read.
        """
        await self._log.sync_to_head()
        missed = None if cursor is None else await self._replays.after(cursor)
        is_gap = missed is not None and missed.changes is None
        undecided: defaultdict[CachedResult, list[Affected]] = defaultdict(list)
        keys: list[str | None] = []
        passed: dict[str, Passed] = {}
        stale: dict[str, Affected] = {}
        errors: list[RefusedQuery] = []
        for number, subscription in enumerate(subscriptions, 1):
            if number % REGISTERED_AT_ONCE == 0:
                await asyncio.sleep(0)
            try:
                query, entry = await self._register(stream, subscription)
            except RPCError as exc:
                keys.append(None)
                errors.append(_refused(subscription, exc))
                continue
            affected = query.affected
            keys.append(affected.key)
            passed[affected.key] = affected, subscription.passed
            if (
                is_gap
                or entry is None
                or not entry.live
                or self._is_stale(subscription, entry, missed)
                or _has_ticked(entry, cursor)
                or any(_has_begun(result) and _has_ticked(result, cursor) for result in subscription.passed)
            ):
                stale[affected.key] = affected
            else:
                for result in filter(None, (entry, *subscription.passed)):
                    undecided[result].append(affected)
        if missed is not None and missed.changes:
            overlapping = await self._reader.matcher.touched_among(missed.changes, undecided)
            stale |= {
                affected.key: affected
                for result, shown in undecided.items()
                if result in overlapping
                for affected in shown
            }
        return self._connected(stream, keys=keys, passed=passed, stale=stale, errors=errors)

    def _connected(
        self,
        stream: Stream,
        *,
        keys: list[str | None],
        passed: dict[str, Passed],
        stale: dict[str, Affected],
        errors: list[RefusedQuery],
    ) -> Connected:
        # INVARIANT (no await between here and the cursor): `connected` covers every event that waits by now, as its
        # cursor lies above theirs: they are merged into `stale`. What is pushed later is written after `connected`.
        # The stream rests on no step yet, so of an outcome that is over it has no event: whoever was refused since, and
        # would be let in again, is told here.
        stale |= {key: affected for key, (affected, outcomes) in passed.items() if any(map(_is_over, outcomes))}
        waiting = stream.take_affected()
        for affected in (query.affected for query in self._queries.shown_by(stream)) if waiting is None else waiting:
            stale[affected.key] = affected
        return Connected(
            stream=stream.id,
            cursor=self._broadcaster.cursor(self._queries.notified_up_to(stream, self._log.version)),
            queries=keys,
            stale=list(stale.values()),
            errors=errors,
            version=self._reader.freshness.token,
        )

    async def _register(self, stream: Stream, subscription: RequestedQuery) -> tuple[WatchedQuery, CachedResult | None]:
        """Compute one query and have the stream show it, with nothing awaited between the two.

        None instead of an entry is a query that cannot be computed just now.
        """
        call = subscription.call
        if call is None:
            raise subscription.error or InternalServerError()
        # Before anything is computed for it, and again below: others may have been registered meanwhile.
        self._holdings.require_query(stream.caller, self._queries.find(call.key), call.held_bytes)
        made, read = await self._computed(call)
        entry = None if read is None else read.result
        # INVARIANT (no await between here and the end): the entry is live, or the query is outdated, in the step in
        # which the stream begins to show it: every later change finds the query, and the query finds the stream.
        query = self._queries.find(call.key)
        self._refuse_too_much(stream, query, made=made, entry=entry)
        if query is None:
            query = made
            self._queries.add(query)
        if read is not None and read.result.live:
            self._reconciler.adopt(query, read)
        self._queries.show(stream, query)
        if query.state is QueryState.NEW:
            self._reconciler.outdate(query)
        return query, entry

    async def _computed(self, call: WatchableCall) -> tuple[WatchedQuery, ReadResult | None]:
        """Return a new query of a call and its watched entry; None if it cannot be computed just now.

        Raises:
            RPCError: it cannot be watched, or its handler failed.
        """
        try:
            return WatchedQuery(call), await self._entry_of(call)
        except RPCError as exc:
            refusal = exc.__cause__  # by a handler that read nothing before it refused: there is no change to notify of
            if isinstance(exc, PreconditionFailedError) and isinstance(refusal, RPCError):
                raise refusal.detached() from exc
            raise
        except Exception as exc:
            logger.error("%s failed while a stream subscribed to it", call.path, exc_info=concealed(exc))
            raise InternalServerError(path=call.path) from exc

    async def _entry_of(self, call: WatchableCall) -> ReadResult | None:
        try:
            return await self._reader.watch(call, freshness=SYNCED)
        except ServiceUnavailableError as exc:
            logger.warning("%s could not be computed, retrying: %s", call.path, reason_of(concealed(exc)))
            return None

    def _refuse_too_much(
        self, stream: Stream, query: WatchedQuery | None, *, made: WatchedQuery, entry: CachedResult | None
    ) -> None:
        """Let the stream show the query if there is room for it; in the step that then registers it."""
        if query is not None and stream in query.streams:
            return
        try:
            size_bytes = made.weight_bytes + (0 if entry is None else entry.held_bytes)
            self._holdings.require_query(stream.caller, query, size_bytes)
        except RPCError:
            if entry is not None and entry.live:
                self._reader.unwatch(entry)
            raise

    def _is_stale(self, subscription: RequestedQuery, entry: CachedResult, missed: Missed | None) -> bool:
        """Compare by ETag, and by changes since `missed` was read; `missed` is held against all of them together."""
        etag = subscription.ref.etag
        if etag is not None and etag != entry.etag:
            return True
        if missed is None:
            return False
        # INVARIANT (the steps count like the query): the client may hold the result that it was given as somebody who
        # may see more, or less, though no row has changed that the handler reads.
        return any(
            result is None or not result.live or self._reader.matcher.touched_since(missed.until, result)
            for result in (entry, *subscription.passed)
        )


def _is_over(passed: CachedResult | None) -> bool:
    return passed is not None and not passed.live


def _has_begun(passed: CachedResult | None) -> TypeGuard[CachedResult]:
    """Return whether there was another outcome before; a login that ends some day has been the same until now."""
    return passed is not None and passed.period.since > -math.inf


def _has_ticked(entry: CachedResult, cursor: Cursor | None) -> bool:
    """Return whether a client that stands at `cursor` may show the result of a tick before the entry's."""
    if cursor is None or entry.period is ALWAYS:
        return False
    return cursor.moment is None or entry.period.since * 1000 > cursor.moment


def _refused(subscription: RequestedQuery, error: RPCError) -> RefusedQuery:
    body = body_of(error).model_copy(update={"path": subscription.ref.path, "request_id": None})
    key = subscription.call.wire_key if subscription.call else None
    return RefusedQuery(path=subscription.ref.path, input=subscription.ref.input, key=key, error=body)
