"""The hub: which streams watch which results, and telling them (G2).

**What a stream is owed.** For every query it watches: an event for each commit that may have changed the result, in
commit order, or a gap. A *watch* is one query (path, input, scope) with the streams that show it and, while it is
settled, one indexed entry: the log finds every change that touches its read set.

**After an invalidation** the old read set is worth nothing: what the handler reads may depend on what it read. So the
streams are told at once, and the hub computes the query again by itself: it needs the new read set to notice the next
change, the clients that come to fetch find the result ready, and a popular query is computed once for all of them.

A write may overtake the computation, again and again. Each time the streams are told once more, at the version reached:
nobody waits for the writing to pause.

*The window.* Told at V0, settled again on a snapshot at s0. Clients may have fetched at any version between. If some
change in (V0, now] touches the **new** read set, they are told again; if none does, then going back from now to any
version between undoes only changes that do not touch the read set, so the result was the same all along: whatever
they fetched is right. (Touching is symmetric: it looks at a row before and after.)

*The cursor.* An `id:` says "everything up to here has been told". While a watch is unsettled, nobody knows what the
commits since it was last told did to it; so a stream's cursor stays at the lowest such version, however far the log is.

**Connecting.** Each query is settled and registered in one step of the event loop, so nothing falls between; one that
is overtaken, or cannot be computed just now, is registered as stale and settled later. What is told before `connected`
is sent is merged into `stale`, so `connected` is always first. A result is stale where the client's ETag differs, or
where the log after the client's cursor touches the read set, by the same symmetry (the ETag alone may be old: a stored
set keeps none). A cursor of another epoch or from before the outbox's retention is a gap.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reactive_rpc.cache.entry import Entry, Key
from reactive_rpc.cache.reader import Invalidated, Reader
from reactive_rpc.clock import Clock, IdSource
from reactive_rpc.delivery.stream import Stream
from reactive_rpc.errors import (
    InternalServerError,
    NotFoundError,
    PreconditionFailedError,
    RPCError,
    ServiceUnavailableError,
)
from reactive_rpc.log.log import Log
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.protocol.envelopes import ErrorBody
from reactive_rpc.protocol.events import Affected, Connected, Gap, Invalidation, QueryRef, RefusedQuery
from reactive_rpc.reactive.change import Change
from reactive_rpc.rpc.call import QueryCall

__all__ = ["Hub", "Subscription"]

logger = logging.getLogger(__name__)

REFRESH_RETRY_SECONDS = 1.0
"""How long to wait before a watched query that failed by accident is computed again."""

REFRESHES_AT_ONCE = 8
"""How many watched queries are computed again at a time, so that callers need not queue behind a large commit."""

RECONNECT_MS = (1000, 5000)
"""`retry:` of a stream is drawn from this range, so that clients do not come back in one instant."""


@dataclass(slots=True, eq=False)
class _Watch:
    query: QueryCall
    affected: Affected
    streams: dict[Stream, None] = field(default_factory=dict)
    entry: Entry | None = None
    told: int = 0  # while there is no entry: the version at which the streams were last told


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


class Hub:
    """Streams and what they watch. Used on one event loop."""

    def __init__(
        self, reader: Reader, log: Log, *, clock: Clock, ids: IdSource, max_events: int, heartbeat_seconds: float = 0.0
    ) -> None:
        self._reader = reader
        self._log = log
        self._clock = clock
        self._ids = ids
        self._max_events = max_events
        self.heartbeat_seconds = heartbeat_seconds
        self._streams: dict[str, Stream] = {}
        self._watches: dict[Key, _Watch] = {}
        self._by_entry: dict[Entry, _Watch] = {}
        self._by_stream: dict[Stream, set[_Watch]] = {}
        self._refreshes: set[asyncio.Task[None]] = set()
        self._refreshing = asyncio.Semaphore(REFRESHES_AT_ONCE)
        reader.on_invalidated(self._invalidated)

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    @property
    def watches(self) -> int:
        """How many queries are watched."""
        return len(self._watches)

    async def connect(
        self, subscriptions: Sequence[Subscription], cursor: Cursor | None, *, acks: bool
    ) -> tuple[Stream, bytes]:
        """Open a stream and return it with its first frame. Whoever gets it must `disconnect` it.

        Raises:
            ServiceUnavailableError: the database cannot be read.
        """
        stream = Stream(self._ids.new_id(), acks=acks, max_events=self._max_events, clock=self._clock)
        self._streams[stream.id] = stream
        self._by_stream[stream] = set()
        try:
            connected = await self._settle(stream, subscriptions, cursor)
        except BaseException:
            self.disconnect(stream)
            raise
        return stream, connected.encode(retry_ms=random.randint(*RECONNECT_MS))  # noqa: S311  # jitter, no secret

    def disconnect(self, stream: Stream) -> None:
        """Forget a stream and what only it watched; idempotent."""
        self._streams.pop(stream.id, None)
        for watch in self._by_stream.pop(stream, ()):
            watch.streams.pop(stream, None)
            if not watch.streams:
                self._forget(watch)

    def acknowledge(self, stream_id: str, cursor: Cursor) -> None:
        """Count everything up to `cursor` as received.

        Raises:
            NotFoundError: no such stream here: it has ended, or it is another worker's.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            raise NotFoundError(f"no stream {stream_id[:40]!r} is open here")
        if cursor.epoch == self._log.epoch:
            stream.acknowledge(cursor)

    async def aclose(self) -> None:
        """End every stream and every computation; idempotent."""
        for stream in list(self._streams.values()):
            stream.close()
        for task in self._refreshes:
            task.cancel()
        await asyncio.gather(*self._refreshes, return_exceptions=True)

    async def _settle(self, stream: Stream, subscriptions: Sequence[Subscription], cursor: Cursor | None) -> Connected:
        await self._log.fresh()
        missed = None if cursor is None else await self._log.read_after(cursor)
        gap = cursor is not None and missed is None
        known = self._log.version
        keys: list[str | None] = []
        stale: dict[str, Affected] = {}
        errors: list[RefusedQuery] = []
        for subscription in subscriptions:
            try:
                watch, entry = await self._register(stream, subscription)
            except RPCError as exc:
                keys.append(None)
                errors.append(_refused(subscription, exc))
                continue
            keys.append(watch.affected.key)
            if gap or entry is None or not entry.live or self._is_stale(subscription.ref, entry, missed, known):
                stale[watch.affected.key] = watch.affected
        for affected in stream.take_affected():
            stale[affected.key] = affected
        cursor_now = self._cursor(self._told(stream, self._log.version))
        return Connected(
            stream=stream.id,
            cursor=cursor_now,
            queries=keys,
            stale=list(stale.values()),
            errors=errors,
            heartbeat_seconds=self.heartbeat_seconds or None,
        )

    async def _register(self, stream: Stream, subscription: Subscription) -> tuple[_Watch, Entry | None]:
        """Settle one query and add the stream to its watch, with nothing awaited between the two.

        None instead of an entry is a query that cannot be computed just now.
        """
        call = subscription.call
        if call is None:
            raise subscription.error or InternalServerError()
        try:
            affected = Affected(path=call.path, input=call.wire_input, key=call.wire_key)
            entry = await self._computed(call)
        except RPCError:
            raise
        except Exception as exc:
            logger.exception("%s failed while a stream subscribed to it", call.path)
            raise InternalServerError(path=call.path) from exc
        watch = self._watches.get(call.key)
        if watch is None:
            watch = self._watches[call.key] = _Watch(call, affected)
            if entry is None or not entry.live:
                self._unsettle(watch, self._log.version)
        if entry is not None and entry.live:
            self._adopt(watch, entry)
        watch.streams[stream] = None
        self._by_stream[stream].add(watch)
        return watch, entry

    async def _computed(self, call: QueryCall) -> Entry | None:
        """Return the watched entry of a query; None where it cannot be computed just now."""
        try:
            return await self._reader.watch(call)
        except ServiceUnavailableError as exc:
            logger.warning("%s could not be computed, retrying: %r", call.path, exc)
            return None

    def _adopt(self, watch: _Watch, entry: Entry) -> None:
        """Let the watch hold a live `entry`, unless it holds one: both are right. Whoever settles a watch tells its
        streams again where something was missed since they were told.
        """
        if watch.entry is not None:
            self._reader.unwatch(entry)
            return
        watch.entry = entry
        self._by_entry[entry] = watch
        if watch.streams and self._reader.touched_since(watch.told, entry):
            self._tell({watch: entry.computed.read_set.tables}, self._log.version)

    def _is_stale(self, ref: QueryRef, entry: Entry, missed: Iterable[Change] | None, known: int) -> bool:
        """Compare by ETag, and by what came after the cursor: `missed` up to `known`, and what came since."""
        if ref.etag is not None and ref.etag != entry.etag:
            return True
        if missed is None:
            return False
        return self._reader.touched_by(missed, entry) or self._reader.touched_since(known, entry)

    def _invalidated(self, invalidated: Invalidated) -> None:
        """Tell the streams; called by the reader within the step that dropped the entries."""
        if invalidated.flush is not None:
            self._tell_all(invalidated.version, invalidated.flush)
        touched: dict[_Watch, set[str]] = {}
        for entry, tables in invalidated.entries.items():
            watch = self._by_entry.pop(entry, None)
            if watch is not None:
                touched[watch] = tables
        for watch in touched:
            self._unsettle(watch, invalidated.version)
        if invalidated.flush is None:
            self._tell(touched, invalidated.version)

    def _unsettle(self, watch: _Watch, told: int) -> None:
        """Have a watch computed again, whose streams are told by now (or about to be, in this very step)."""
        watch.entry = None
        watch.told = told
        self._spawn(self._refresh(watch), f"reactive_rpc refresh {watch.query.path}")

    def _told(self, stream: Stream, version: int) -> int:
        """Return up to which version a stream has been told everything."""
        return min([version, *(watch.told for watch in self._by_stream.get(stream, ()) if watch.entry is None)])

    def _tell(self, watches: Mapping[_Watch, Iterable[str]], version: int) -> None:
        """Push one event to each stream; streams that are owed the same share its bytes.

        Args:
            watches: `{watch: the tables whose changes touched it}`; a stream is told of the tables of its own alone.
            version: of the log.
        """
        owed: dict[Stream, list[_Watch]] = defaultdict(list)
        for watch in watches:
            for stream in watch.streams:
                owed[stream].append(watch)
        event_id = self._ids.new_id()
        encoded: dict[tuple[int, ...], tuple[Invalidation, bytes]] = {}
        for stream, affected in owed.items():
            told = self._told(stream, version)
            group = (told, *(id(watch) for watch in affected))
            if group not in encoded:
                event = Invalidation(
                    cursor=self._cursor(told),
                    affected=[watch.affected for watch in affected],
                    tables=sorted({table for watch in affected for table in watches[watch]}),
                    event_id=event_id,
                )
                encoded[group] = event, event.encode()
            stream.push(told, *encoded[group])

    def _tell_all(self, version: int, reason: str) -> None:
        gap = Gap(cursor=self._cursor(version), reason=reason)
        frame = gap.encode()
        for stream in self._streams.values():
            stream.push(version, gap, frame)

    async def _refresh(self, watch: _Watch) -> None:
        """Settle a watch again, unless somebody who connects does it first."""
        await asyncio.sleep(0)  # let whoever unsettled it register its streams
        while watch.streams and watch.entry is None:
            try:
                async with self._refreshing:
                    entry = await self._reader.watch(watch.query)
            except PreconditionFailedError as exc:
                logger.warning("%s; its streams are closed, to be refused when they come back", exc.message)
                for stream in watch.streams:
                    stream.close()
                return
            except Exception as exc:
                logger.warning("%s could not be computed again, retrying: %r", watch.query.path, exc)
                await self._clock.sleep(REFRESH_RETRY_SECONDS)
                continue
            if not entry.live:  # overtaken: whoever has fetched meanwhile must hear of it, and on it goes
                watch.told = self._log.version
                self._tell({watch: entry.computed.read_set.tables}, watch.told)
            elif watch.streams:
                self._adopt(watch, entry)
            else:
                self._reader.unwatch(entry)

    def _forget(self, watch: _Watch) -> None:
        self._watches.pop(watch.query.key, None)
        if watch.entry is not None:
            self._by_entry.pop(watch.entry, None)
            self._reader.unwatch(watch.entry)
            watch.entry = None

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._refreshes.add(task)
        task.add_done_callback(self._refreshes.discard)

    def _cursor(self, version: int | None = None) -> str:
        return str(self._log.cursor_at(self._log.version if version is None else version))


def _refused(subscription: Subscription, error: RPCError) -> RefusedQuery:
    body = ErrorBody(code=error.code, message=error.message, details=error.details, path=subscription.ref.path)
    key = subscription.call.wire_key if subscription.call else None
    return RefusedQuery(path=subscription.ref.path, input=subscription.ref.input, key=key, error=body)
