"""The broadcaster: sends one event to all the streams that it concerns.

Streams that are to hear the same share its bytes. Every method is one step of the event loop: nothing here awaits, so
the cursor that a frame carries is right when the stream takes it. The rule for cursors is the table's
(`subscriptions/watched_queries.py`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from reactive_rpc.cache.reader import Reader
from reactive_rpc.cache.result import ReadResult
from reactive_rpc.changes.log import Log
from reactive_rpc.clock import IdSource
from reactive_rpc.subscriptions.frame import gap_frame, invalidation_frame, result_frame
from reactive_rpc.subscriptions.stream import Stream
from reactive_rpc.subscriptions.watched_queries import WatchedQueries
from reactive_rpc.subscriptions.watched_query import WatchedQuery

__all__ = ["Broadcaster"]


class Broadcaster:
    """Makes frames and pushes them to streams. Used on one event loop.

    Args:
        queries: says which stream shows which query, and how far each stream has been notified.
        log: names versions by cursors.
        reader: says up to when ticks have been notified, and which version a result reflects.
        ids: names events.
    """

    def __init__(self, queries: WatchedQueries, *, log: Log, reader: Reader, ids: IdSource) -> None:
        self._queries = queries
        self._log = log
        self._reader = reader
        self._ids = ids

    def notify(
        self, queries: Mapping[WatchedQuery, Iterable[str]], version: int, *, shown_at: str | None = None
    ) -> None:
        """Push one invalidation to each stream that shows any of the queries.

        Args:
            queries: `{query: the tables whose changes overlap it}`; a stream hears of the tables of its own alone.
            version: of the log.
            shown_at: the version that shows the changes; None if none is known to.
        """
        groups = _groups(queries)
        held = self._queries.held_back(version, sum(map(len, groups.values())))
        event_id = self._ids.new_id()
        for shown, streams in groups.items():
            affected = [query.affected for query in shown]
            tables = {table for query in shown for table in queries[query]}
            for up_to, theirs in self._by_version(streams, version, held):
                cursor = self.cursor(up_to)
                frame = invalidation_frame(up_to, cursor, affected, tables, event_id, shown_at=shown_at)
                for stream in theirs:
                    stream.push(frame)

    def notify_result(self, query: WatchedQuery, read: ReadResult) -> None:
        """Push the result of a query that has become CURRENT in this very step to each stream that shows it."""
        version = self._log.version
        held = self._queries.held_back(version, len(query.streams))
        event_id = self._ids.new_id()
        reflects = self._reader.version_of(read.result)
        for up_to, theirs in self._by_version(query.streams, version, held):
            frame = result_frame(
                up_to,
                self.cursor(up_to),
                query.affected,
                event_id,
                etag=read.result.etag,
                body=read.outcome.body,
                reflects=reflects,
            )
            for stream in theirs:
                stream.push(frame)

    def notify_stream(self, stream: Stream) -> None:
        """Push an invalidation of all that a stream shows, in the place of what waits in it, unless that is a gap."""
        shown = sorted(self._queries.shown_by(stream), key=lambda query: query.query.key)
        if shown and not stream.has_gap:
            # INVARIANT (told by an event with this cursor, or before): what waits may have a cursor as high. A client
            # that left right after it would come back past the changes that this invalidation is about.
            stream.take_affected()
            version = self._queries.notified_up_to(stream, self._log.version)
            affected = [query.affected for query in shown]
            frame = invalidation_frame(
                version, self.cursor(version), affected, set(), self._ids.new_id(), shown_at=None
            )
            stream.push(frame)

    def notify_gap(self, version: int, reason: str) -> None:
        """Push a gap to every stream: it stands for whatever they have not been notified of."""
        frame = gap_frame(version, self.cursor(version), reason)
        for stream in self._queries.streams:
            stream.push(frame)

    def cursor(self, version: int) -> str:
        """Return a version as the wire spells it, with the moment if any watched query depends on the time."""
        cursor = self._log.cursor_at(version)
        return str(cursor._replace(moment=self._moment()) if self._queries.is_timed else cursor)

    def _by_version(
        self, streams: Collection[Stream], version: int, held: list[WatchedQuery] | None
    ) -> Iterable[tuple[int, Collection[Stream]]]:
        """Return the streams by the version up to which each will have been notified of everything."""
        if held == []:
            return [(version, streams)]
        by_version: dict[int, list[Stream]] = defaultdict(list)
        for stream in streams:
            by_version[self._queries.notified_up_to(stream, version, held)].append(stream)
        return by_version.items()

    def _moment(self) -> int:
        """Return up to when every stream has been notified of every tick, in milliseconds."""
        return math.ceil(self._queries.notified_until(self._reader.notified_until) * 1000) - 1


def _groups(queries: Iterable[WatchedQuery]) -> Mapping[tuple[WatchedQuery, ...], Collection[Stream]]:
    """Return the streams by the queries of these that they show: each group is sent the same event."""
    first, *others = queries
    if not others:
        return {(first,): first.streams}
    shown_by: dict[Stream, list[WatchedQuery]] = defaultdict(list)
    for query in queries:
        for stream in query.streams:
            shown_by[stream].append(query)
    groups: dict[tuple[WatchedQuery, ...], list[Stream]] = defaultdict(list)
    for stream, shown in shown_by.items():
        groups[tuple(shown)].append(stream)
    return groups
