"""The table of watched queries: which streams show which of them, and how far each stream has been notified.

Every method is one step of the event loop: nothing here awaits. `docs/internals/subscriptions.md` argues the rule by
which the table holds cursors back.
"""

from __future__ import annotations

from collections.abc import Collection, KeysView

from reactive_rpc.cache.expiries import GRACE_SECONDS
from reactive_rpc.cache.reader import Reader
from reactive_rpc.cache.result import CachedResult, ResultKey
from reactive_rpc.dependencies.period import ALWAYS
from reactive_rpc.subscriptions.holdings import Holdings
from reactive_rpc.subscriptions.stream import Stream
from reactive_rpc.subscriptions.watched_query import Pending, QueryState, WatchedQuery

__all__ = ["WatchedQueries"]

FEW_STREAMS = 16
"""Up to so many, each stream's cursor is found by the queries that it shows; of more, by those that are outdated."""


class WatchedQueries:
    """Queries by key, by entry and by stream. Used on one event loop.

    Args:
        reader: releases entries that nobody needs any more.
        holdings: counts the queries in here.

    Attributes:
        is_timed: whether any entry so far depends on the time; it stays so.
    """

    def __init__(self, reader: Reader, holdings: Holdings) -> None:
        self.is_timed = False
        self._reader = reader
        self._holdings = holdings
        self._by_key: dict[ResultKey, WatchedQuery] = {}
        self._by_entry: dict[CachedResult, WatchedQuery] = {}
        self._by_stream: dict[Stream, dict[WatchedQuery, None]] = {}
        # INVARIANT: holds exactly the queries that are OUTDATED or PENDING. A query that were missing would not hold
        # cursors back; one too many would hold them back for ever.
        self._outdated: dict[WatchedQuery, None] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    @property
    def streams(self) -> KeysView[Stream]:
        """The streams that were added and not removed."""
        return self._by_stream.keys()

    @property
    def outdated(self) -> KeysView[WatchedQuery]:
        """The queries without an entry: to be computed again."""
        return self._outdated.keys()

    def find(self, key: ResultKey) -> WatchedQuery | None:
        """Return the watched query of a key; None if no stream shows it."""
        return self._by_key.get(key)

    def shown_by(self, stream: Stream) -> Collection[WatchedQuery]:
        """Return the queries that a stream shows."""
        return self._by_stream.get(stream, ())

    def add_stream(self, stream: Stream) -> None:
        """Add a stream that shows nothing yet."""
        self._by_stream[stream] = {}

    def remove_stream(self, stream: Stream) -> list[WatchedQuery]:
        """Remove a stream and return the queries that nobody else shows, which are FORGOTTEN; idempotent."""
        forgotten = []
        for query in self._by_stream.pop(stream, ()):
            query.remove_stream(stream)
            self._holdings.remove(stream.caller, query)
            if not query.streams:
                self._forget(query)
                forgotten.append(query)
        return forgotten

    def add(self, query: WatchedQuery) -> None:
        """Add a NEW query; in this very step it must become CURRENT or OUTDATED and be shown by a stream."""
        self._by_key[query.query.key] = query
        self._holdings.weigh(query, query.weight_bytes)

    def show(self, stream: Stream, query: WatchedQuery) -> None:
        """Note that a stream shows a query; idempotent."""
        if stream in query.streams:
            return
        self._holdings.add(stream.caller, query)
        query.add_stream(stream)
        self._by_stream[stream][query] = None

    def take(self, entry: CachedResult) -> WatchedQuery | None:
        """Return the query of an entry that is live no more; in this very step it must become OUTDATED or PENDING."""
        return self._by_entry.pop(entry, None)

    def attach(self, query: WatchedQuery, entry: CachedResult) -> Pending | None:
        """Make a query CURRENT by a live entry, and return the changes of which its streams have yet to be notified."""
        pending = query.pending
        query.transition(QueryState.CURRENT, entry=entry)
        self.is_timed = self.is_timed or entry.period is not ALWAYS
        self._by_entry[entry] = query
        self._outdated.pop(query, None)
        self._holdings.weigh(query, query.weight_bytes)
        return pending

    def outdate(self, query: WatchedQuery, version: int, moment: float) -> None:
        """Make a query OUTDATED whose streams are notified of everything up to here within this step."""
        query.transition(QueryState.OUTDATED)
        # INVARIANT (no later than any host's clock): who fetches now may be answered for a tick that is over here.
        query.notified_up_to, query.notified_until = version, moment - GRACE_SECONDS
        self._outdated[query] = None

    def defer(self, query: WatchedQuery, pending: Pending, *, version: int, moment: float) -> None:
        """Make a query PENDING whose streams are notified up to here alone."""
        query.transition(QueryState.PENDING, pending=pending)
        query.notified_up_to, query.notified_until = version, moment
        self._outdated[query] = None

    def outdate_all(self, version: int, moment: float) -> None:
        """Note that the streams of every query without an entry are notified of everything up to here."""
        for query in self._outdated:
            self.outdate(query, version, moment)

    def notified_up_to(self, stream: Stream, version: int, held: Collection[WatchedQuery] | None = None) -> int:
        """Return up to which version a stream has been notified of everything.

        Args:
            version: the log's, beyond which nobody is.
            held: the queries that may hold the stream back, if the caller knows them.
        """
        # INVARIANT (the cursor rule): a cursor lies no higher than `notified_up_to` of any query without an entry that
        # the stream shows. Nobody knows how the commits since then have changed such a query.
        held = self._outdated if held is None else held
        own = self._by_stream.get(stream, ())
        if len(own) < len(held):
            held = [query for query in own if query.entry is None]
        return min([version, *(query.notified_up_to for query in held if stream in query.streams)])

    def held_back(self, version: int, streams: int) -> list[WatchedQuery] | None:
        """Return the queries that hold cursors back; None if so few streams are notified that each is looked at."""
        return [query for query in self._outdated if query.notified_up_to < version] if streams > FEW_STREAMS else None

    def notified_until(self, moment: float) -> float:
        """Return up to which moment, at most `moment`, every stream has been notified of every tick."""
        return min([moment, *(query.notified_until for query in self._outdated)])

    def _forget(self, query: WatchedQuery) -> None:
        entry = query.entry
        self._by_key.pop(query.query.key, None)
        self._outdated.pop(query, None)
        query.transition(QueryState.FORGOTTEN)
        if entry is not None:
            self._by_entry.pop(entry, None)
            self._reader.unwatch(entry)
