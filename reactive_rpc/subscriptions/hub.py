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

*Time.* A tick ends a result too (`cache/expiries.py`), and is told like a change, but it is no place in the log. So the
window is asked about twice: a watch notes the moment at which it was told, and where the entry that settles it belongs
to a later tick, its streams are told again. (Not where an author's `ttl_seconds` is all that ended: what was fetched in
between is not older than that.) And as soon as anything watched depends on the time, cursors carry a moment, up to
which every tick has been told; whoever resumes with a cursor from before the tick that a result belongs to, or with one
that carries no moment, is told that the result is stale, whatever its ETag: that may be as old as the cursor.

*The cursor.* An `id:` says "everything up to here has been told". While a watch is unsettled, nobody knows what the
commits since it was last told did to it; so a stream's cursor stays at the lowest such version, however far the log is.

*The version.* An invalidation by a commit names the log's version that shows it, which the cursor may lie below: a
client whose result reflects that version has the change already. What else puts a result in doubt (it was found to be
wrong, for example) happens at no version of the log: a result of the present version is no better, so none is named.

**Results.** A query with `Cache(push="result")` is not told of at once: the hub computes it anyway, so it sends what
comes out. Until then the watch is unsettled like any other, and was last told of at the version *before* the change;
that keeps the cursor rule true: whoever resumes meanwhile gets the change from the log. Once the watch is settled, at
`now`, exactly one of three things happens, in the step that settles it, and each covers everything up to `now`:

- the result is sent: it is right at `now`, and whatever touches it later is told later;
- an invalidation is sent: the outcome is an error, or too large for a stream, or was not there in `PUSH_SECONDS`; in
  that last case before the watch is settled, which then goes on as any other;
- nothing is sent, as nothing has changed: the ETag is the one before. That alone would not do. The value may have gone
  from A to B and back, and a client may have fetched B on its own. So it is done only where one single change since
  then touches the result before or the result now: one change is of one commit, on each side of it the result is A, and
  no snapshot shows anything else. A topic's world is not of that kind: what it stands for has no snapshots.

**Refusals.** A handler that answers an error (FORBIDDEN, NOT_FOUND) may have read rows that its caller may not see,
to find out. The error is watched, so that who shows it hears when they are let in; but to be told of each change of
what it rests on would be to be told of those rows. So the watch waits for the outcome, however long it takes, and the
streams are told if it is another, by the rule of results above: what the caller learns is what asking again would have
told. Where several changes came before it was known, it cannot be ruled out that the caller was let in between and
shows what they fetched then; so they are told, and learn that there were several. (A resume tells by the log alone.) An
error that rests on nothing that was read is refused in `connected`: nothing but another context could change it.

**Fairness.** One commit may touch ten thousand queries of one caller. In the step that applies it they are unsettled,
no more; then the streams are told in turns of the event loop, those with least to hear first, and the queries are
computed again in turns of the callers (`subscriptions/refresher.py`). What waits for its turn to be told is a `Pending`
like one that waits for its result, last told of at the version before the change, so the cursor rule holds meanwhile.
Whoever settles such a watch before its turn tells its streams then: no fresh entry stands beside an untold change.

A watch has one scope, as every key has, so a result goes to nobody who could not have fetched it.

**Connecting.** Each query is settled and registered in one step of the event loop, so nothing falls between; one that
is overtaken, or cannot be computed just now, is registered as stale and settled later. What is told before `connected`
is sent is merged into `stale`, so `connected` is always first. A result is stale where the client's ETag differs, or
where the log after the client's cursor touches the read set, by the same symmetry (the ETag alone may be old: a stored
set keeps none). A cursor of another epoch, from before the outbox's retention, or too far back is a gap.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from reactive_rpc.cache.reader import Invalidation, Landed, Reader
from reactive_rpc.cache.result import CachedResult, Key
from reactive_rpc.changes.ephemeral_store import EphemeralStore
from reactive_rpc.changes.log import Log
from reactive_rpc.clock import Clock, IdSource
from reactive_rpc.dependencies.change import Change
from reactive_rpc.dependencies.period import ALWAYS
from reactive_rpc.dependencies.topics import PREFIX
from reactive_rpc.errors import (
    InternalServerError,
    PreconditionFailedError,
    RPCError,
    ServiceUnavailableError,
    reason_of,
)
from reactive_rpc.procedures.call import QueryCall
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.protocol.envelopes import ErrorBody
from reactive_rpc.protocol.events import Affected, Connected, RefusedQuery, Revoked, StreamLimits
from reactive_rpc.statements.concealment import concealed
from reactive_rpc.subscriptions.acknowledgements import Acknowledgements
from reactive_rpc.subscriptions.frame import Frame, gap_frame, invalidation_frame, result_frame, revoked_frame
from reactive_rpc.subscriptions.heartbeats import Heartbeats
from reactive_rpc.subscriptions.holdings import Bounds, Holdings
from reactive_rpc.subscriptions.limits import CallerKey
from reactive_rpc.subscriptions.redelivery import Redelivery
from reactive_rpc.subscriptions.refresher import Refresher
from reactive_rpc.subscriptions.replays import Missed, Replays
from reactive_rpc.subscriptions.stats import HubStats
from reactive_rpc.subscriptions.stream import Recheck, Stream, Terms
from reactive_rpc.subscriptions.watched_query import Pending, Subscription, WatchedQuery
from reactive_rpc.subscriptions.writer import Flusher
from reactive_rpc.tasks import Tasks

__all__ = ["Hub", "HubStats", "Recheck", "Subscription"]

logger = logging.getLogger(__name__)

PUSH_SECONDS = 0.25
"""How long after a change its result may come; past it the streams are told of an invalidation."""

MAX_RESULT_BYTES = 64 * 1024
"""A larger result is told of as an invalidation: who is behind can then leave it out, and who has it gets a 304."""

MAX_COMPARED = 64
"""Where more changes came since a result, it is sent without a look at whether it is the same."""

FEW_STREAMS = 16
"""Up to so many, the cursor of each stream is found by the queries that it shows; of more, by those not settled."""

TOLD_AT_ONCE = 500
"""A commit that has more to be told, counted by query and stream, is told in several turns of the event loop."""

SETTLED_AT_ONCE = 16
"""After so many queries, a stream that connects lets others have their turn: cached results wait for nothing."""

DRAIN_STEP_SECONDS = 0.05
"""How often some of the streams are ended while the server drains."""


class Hub:
    """Streams and what they watch. Used on one event loop.

    Args:
        board: where acknowledgements meet that reached another worker than their stream's.
        max_events: how many events may wait for one stream, or for its acknowledgement.
        max_bytes: the same in bytes.
        bounds: what watched queries may hold in memory.
        max_resumed_changes: who has missed more of them is told of a gap.
        ack_retry_seconds: how long after each try an unacknowledged event is sent again; not empty.
        reconnect_milliseconds: `retry:` of a stream is drawn from this range, so that clients do not come back in one
            instant.
        heartbeat_seconds: how long a stream may be silent; 0 is for ever.

    Attributes:
        stats: counters since the start.
    """

    def __init__(
        self,
        reader: Reader,
        log: Log,
        *,
        clock: Clock,
        ids: IdSource,
        board: EphemeralStore,
        max_events: int,
        max_bytes: int,
        bounds: Bounds,
        max_resumed_changes: int,
        ack_retry_seconds: Sequence[float] = (2.0, 5.0, 10.0),
        reconnect_milliseconds: tuple[int, int] = (1000, 5000),
        heartbeat_seconds: float = 0.0,
    ) -> None:
        self.stats = HubStats()
        self._reader = reader
        self._log = log
        self._clock = clock
        self._ids = ids
        self._reconnect_milliseconds = reconnect_milliseconds
        self._acknowledgements = Acknowledgements(board, clock)
        self._sweep = Redelivery(clock, self._acknowledgements, self._acknowledge)
        self._flusher = Flusher(clock)
        self._terms = Terms(
            clock=clock,
            stats=self.stats,
            flusher=self._flusher,
            look_after=self._sweep.add,
            max_events=max_events,
            max_bytes=max_bytes,
            retry_seconds=tuple(ack_retry_seconds),
        )
        self._streams: dict[str, Stream] = {}
        self._watches: dict[Key, WatchedQuery] = {}
        self._by_entry: dict[CachedResult, WatchedQuery] = {}
        self._by_stream: dict[Stream, set[WatchedQuery]] = {}
        self._unsettled: dict[WatchedQuery, None] = {}
        self._tasks = Tasks()
        self._holdings = Holdings(bounds)
        self._heartbeats = Heartbeats(heartbeat_seconds, clock=clock, tasks=self._tasks)
        self._told_at_once = TOLD_AT_ONCE
        self._replays = Replays(log, at_most=max_resumed_changes, tasks=self._tasks)
        self._refresher = Refresher(self._refresh, clock=clock, tasks=self._tasks)
        self._timing: asyncio.Task[None] | None = None
        self._is_draining = False
        self._is_timed = False
        reader.on_invalidated(self._invalidated)

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    @property
    def open_streams(self) -> Collection[Stream]:
        """Those streams; copy it before you await."""
        return self._streams.values()

    @property
    def watches(self) -> int:
        """How many queries are watched."""
        return len(self._watches)

    @property
    def waiting_bytes(self) -> int:
        """How much waits for slow readers, or for their acknowledgement; what streams share counts for each."""
        return sum(stream.waiting_bytes for stream in self._streams.values())

    @property
    def watched_bytes(self) -> int:
        """What the watched queries take in memory, estimated; what the cache holds too counts in both."""
        return self._holdings.size_bytes

    async def connect(
        self,
        subscriptions: Sequence[Subscription],
        cursor: Cursor | None,
        *,
        acks: bool,
        identity: str | None = None,
        caller: CallerKey | None = None,
        recheck: Recheck | None = None,
        scope: str | None = None,
        request_bytes: int = 0,
        limits: StreamLimits | None = None,
    ) -> tuple[Stream, bytes]:
        """Open a stream and return it with its first frame. Whoever gets it must `disconnect` it.

        Args:
            identity: whose it is, for `revoke`.
            scope: what `connected` tells as the caller's scope; None where the caller is not known.
            limits: what `connected` tells as the limits.
            caller: whom bounds count, and who takes turns; left out, the identity.
            recheck: resolves the stream's context again.
            request_bytes: what it holds for that.

        Raises:
            ServiceUnavailableError: the server drains, holds as much as it may, or the database cannot be read.
            TooManyRequestsError: the caller holds as much as it may.
        """
        if self._is_draining:
            self.stats.refused += 1
            raise ServiceUnavailableError("the server is about to stop: connect again, to another one")
        stream = Stream(
            self._ids.new_id(),
            self._terms,
            acks=acks,
            identity=identity,
            caller=caller,
            recheck=recheck,
            request_bytes=request_bytes,
        )
        self._holdings.require_bytes(stream.caller, request_bytes, request_bytes)
        self._holdings.add_bytes(stream.caller, request_bytes)
        self._streams[stream.id] = stream
        self._by_stream[stream] = set()
        try:
            connected = await self._settle(stream, subscriptions, cursor)
            connected.scope, connected.limits = scope, limits
        except BaseException as exc:
            self.stats.refused += isinstance(exc, ServiceUnavailableError)
            self.disconnect(stream)
            raise
        self.stats.opened += 1
        self._heartbeats.add(stream)
        retry_ms = random.randint(*self._reconnect_milliseconds)  # noqa: S311  # jitter, no secret
        return stream, connected.encode(retry_ms=retry_ms)

    def disconnect(self, stream: Stream) -> None:
        """Forget a stream and what only it watched; idempotent."""
        if self._streams.pop(stream.id, None) is not None:
            self._holdings.add_bytes(stream.caller, -stream.request_bytes)
        self._sweep.remove(stream)
        self._heartbeats.remove(stream)
        for watch in self._by_stream.pop(stream, ()):
            del watch.streams[stream]
            self._holdings.remove(stream.caller, watch)
            if not watch.streams:
                self._forget(watch)

    async def acknowledge(self, stream_id: str, cursor: Cursor, caller: CallerKey) -> None:
        """Count everything up to `cursor` as received; where the stream is not here, tell the worker that has it.

        Args:
            caller: who says so, and whom bounds count.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            self._acknowledgements.note(stream_id, cursor, caller)
        else:
            self._acknowledge(stream, cursor)

    def revoke(self, identity: str, reason: str = "") -> int:
        """End every stream of an identity with `revoked`, and return how many there were."""
        theirs = [stream for stream in self._streams.values() if stream.identity == identity and not stream.closed]
        for stream in theirs:
            self.end(stream, Revoked(reason=reason))
        return len(theirs)

    def end(self, stream: Stream, event: Revoked | None = None) -> None:
        """End a stream: for good, and then nothing of what waits is told any more; or so that the client resumes."""
        if event is None or stream.closed:
            stream.close()
        else:
            self.stats.revoked += 1
            stream.close(revoked_frame(event))

    async def drain(self, seconds: float) -> None:
        """End all streams, spread over `seconds`, and refuse new ones from now on."""
        self._is_draining = True
        streams = [stream for stream in self._streams.values() if not stream.closed]
        steps = max(1, int(seconds / DRAIN_STEP_SECONDS))
        for step in range(steps):
            if step:
                await self._clock.sleep(DRAIN_STEP_SECONDS)
            for stream in streams[step::steps]:
                self.end(stream)

    async def aclose(self) -> None:
        """End every stream and every computation; idempotent. The hub can then be used again."""
        for stream in list(self._streams.values()):
            stream.close()
        await self._sweep.aclose()
        await self._acknowledgements.aclose()
        self._refresher.clear()  # nobody takes the place of who is cancelled
        await self._tasks.aclose()
        self._refresher.clear()  # what never ran has not said that it ended
        self._timing = None
        self._is_draining = False

    async def _settle(self, stream: Stream, subscriptions: Sequence[Subscription], cursor: Cursor | None) -> Connected:
        await self._log.fresh()
        missed = None if cursor is None else await self._replays.after(cursor)
        gap = missed is not None and missed.changes is None
        undecided: dict[CachedResult, Affected] = {}
        keys: list[str | None] = []
        stale: dict[str, Affected] = {}
        errors: list[RefusedQuery] = []
        for number, subscription in enumerate(subscriptions, 1):
            if number % SETTLED_AT_ONCE == 0:
                await asyncio.sleep(0)
            try:
                watch, entry = await self._register(stream, subscription)
            except RPCError as exc:
                keys.append(None)
                errors.append(_refused(subscription, exc))
                continue
            keys.append(watch.affected.key)
            if (
                gap
                or entry is None
                or not entry.live
                or self._is_stale(subscription, entry, missed)
                or _has_ticked(entry, cursor)
            ):
                stale[watch.affected.key] = watch.affected
            else:
                undecided[entry] = watch.affected
        if missed is not None and missed.changes:
            touched = await self._reader.touched_among(missed.changes, undecided)
            stale |= {affected.key: affected for entry, affected in undecided.items() if entry in touched}
        told = stream.take_affected()
        for affected in (watch.affected for watch in self._by_stream[stream]) if told is None else told:
            stale[affected.key] = affected
        cursor_now = self._cursor(self._told(stream, self._log.version))
        return Connected(
            stream=stream.id,
            cursor=cursor_now,
            queries=keys,
            stale=list(stale.values()),
            errors=errors,
            version=self._reader.freshness.token,
            heartbeat_seconds=self._heartbeats.seconds or None,
        )

    async def _register(self, stream: Stream, subscription: Subscription) -> tuple[WatchedQuery, CachedResult | None]:
        """Settle one query and add the stream to its watch, with nothing awaited between the two.

        None instead of an entry is a query that cannot be computed just now.
        """
        call = subscription.call
        if call is None:
            raise subscription.error or InternalServerError()
        # Before anything is computed for it, and again below: others may have been registered meanwhile.
        self._holdings.require_query(stream.caller, self._watches.get(call.key), call.held_bytes)
        try:
            made = WatchedQuery(call, Affected(path=call.path, input=call.wire_input, key=call.wire_key))
            landed = await self._computed(call)
        except RPCError as exc:
            refusal = exc.__cause__  # by a handler that read nothing before it refused: nobody could be told of more
            if isinstance(exc, PreconditionFailedError) and isinstance(refusal, RPCError):
                raise refusal.detached() from exc
            raise
        except Exception as exc:
            logger.error("%s failed while a stream subscribed to it", call.path, exc_info=concealed(exc))
            raise InternalServerError(path=call.path) from exc
        entry = None if landed is None else landed.entry
        watch = self._watches.get(call.key)
        self._refuse_too_much(stream, watch, made, entry)
        if watch is None:
            watch = self._watches[call.key] = made
            self._holdings.weigh(watch, watch.weight_bytes)
        if landed is not None and landed.entry.live:
            self._adopt(watch, landed)
        is_shown = stream in watch.streams
        watch.streams[stream] = None
        self._by_stream[stream].add(watch)
        if not is_shown:
            self._holdings.add(stream.caller, watch)
        if watch.entry is None and watch not in self._unsettled:
            self._unsettle(watch, self._log.version)
        return watch, entry

    def _refuse_too_much(
        self, stream: Stream, watch: WatchedQuery | None, made: WatchedQuery, entry: CachedResult | None
    ) -> None:
        """Let the stream show the query if there is room for it; in the step that then registers it."""
        if watch is not None and stream in watch.streams:
            return
        try:
            size_bytes = made.weight_bytes + (0 if entry is None else entry.held_bytes)
            self._holdings.require_query(stream.caller, watch, size_bytes)
        except RPCError:
            if entry is not None and entry.live:
                self._reader.unwatch(entry)
            raise

    async def _computed(self, call: QueryCall) -> Landed | None:
        """Return the watched entry of a query; None where it cannot be computed just now."""
        try:
            return await self._reader.watch(call)
        except ServiceUnavailableError as exc:
            logger.warning("%s could not be computed, retrying: %s", call.path, reason_of(concealed(exc)))
            return None

    def _adopt(self, watch: WatchedQuery, landed: Landed) -> None:
        """Let the watch hold a live entry, unless it holds one: both are right. Whoever settles a watch tells its
        streams again where something was missed since they were told.
        """
        entry = landed.entry
        if watch.entry is not None:
            self._reader.unwatch(entry)
            return
        watch.entry = entry
        self._is_timed = self._is_timed or entry.period is not ALWAYS
        self._by_entry[entry] = watch
        self._unsettled.pop(watch, None)
        self._refresher.discard(watch)
        self._holdings.weigh(watch, watch.weight_bytes)
        pending, watch.pending = watch.pending, None
        if not watch.streams:
            return
        if pending is not None and (watch.query.pushes_results or pending.waits_for_outcome):
            self._tell_result(watch, landed, pending)
        elif pending is not None:
            self._tell({watch: pending.tables}, self._log.version)
        elif self._reader.touched_since(watch.told, entry) or _ticked_since(watch.told_at, entry):
            self._tell({watch: entry.read_set.tables}, self._log.version)

    def _is_stale(self, subscription: Subscription, entry: CachedResult, missed: Missed | None) -> bool:
        """Compare by ETag, and by what came after what was read; that itself is held against all of them together."""
        etag = subscription.ref.etag
        if etag is not None and etag != entry.etag:
            return True
        return missed is not None and self._reader.touched_since(missed.until, entry)

    def _invalidated(self, invalidated: Invalidation) -> None:
        """Tell the streams; called by the reader within the step that dropped the entries."""
        touched: dict[WatchedQuery, tuple[CachedResult, set[str]]] = {}
        for entry, tables in invalidated.entries.items():
            watch = self._by_entry.pop(entry, None)
            if watch is not None:
                touched[watch] = entry, tables
        if invalidated.flush is not None:
            self._flush(touched, invalidated.version, invalidated.flush)
            return
        before, now = self._log.version, self._clock.monotonic()
        # Where `version` does not move (an entry was found to be wrong), a cursor cannot be held back by it.
        can_wait = before < invalidated.version
        is_much = can_wait and sum(len(watch.streams) for watch in touched) > self._told_at_once
        owed: dict[WatchedQuery, Iterable[str]] = {}
        for watch, (entry, tables) in touched.items():
            if can_wait and entry.error is not None:
                self._defer(watch, Pending(entry, frozenset(tables), math.inf), before)
            elif can_wait and watch.query.pushes_results:
                self._defer(watch, Pending(entry, frozenset(tables), now + PUSH_SECONDS), before)
            elif is_much and len(watch.streams) <= self._told_at_once:
                self._defer(watch, Pending(entry, frozenset(tables), now), before)
            else:
                self._unsettle(watch, invalidated.version)
                owed[watch] = tables
        if owed:
            is_commit = before < invalidated.version
            shown_at = f"{self._log.epoch}:{invalidated.version}" if is_commit else None
            self._tell(owed, invalidated.version, shown_at=shown_at)

    def _flush(self, touched: Iterable[WatchedQuery], version: int, reason: str) -> None:
        """Tell everybody of a gap, which stands for whatever was not told yet."""
        for watch in touched:
            self._unsettle(watch, version)
        for watch in self._unsettled:
            watch.note_told(version, self._clock.time())
            watch.pending = None
        frame = gap_frame(version, self._cursor(version), reason)
        for stream in self._streams.values():
            stream.push(frame)

    def _unsettle(self, watch: WatchedQuery, told: int, pending: Pending | None = None) -> None:
        """Have a watch computed again, whose streams are told by now (or about to be, in this very step)."""
        watch.entry = None
        moment = self._clock.time()
        if pending is not None:  # nobody is told yet, also not of a tick that had just ended it
            moment = min(self._reader.told_until, pending.entry.period.until)
        watch.note_told(told, moment)
        watch.pending = pending
        self._unsettled[watch] = None
        self._refresher.add(watch)

    def _defer(self, watch: WatchedQuery, pending: Pending, before: int) -> None:
        """Have a watch computed again and its streams told later: by the result, or when their turn comes."""
        self._unsettle(watch, before, pending)
        if self._timing is None or self._timing.done():
            self._timing = self._tasks.start(self._fall_back_in_time(), "results")

    def _told(self, stream: Stream, version: int, held: Collection[WatchedQuery] | None = None) -> int:
        """Return up to which version a stream has been told everything.

        Args:
            held: the watches that may hold it back, where the caller knows them.
        """
        held = self._unsettled if held is None else held
        own = self._by_stream.get(stream, ())
        if len(own) < len(held):
            held = [watch for watch in own if watch.entry is None]
        return min([version, *(watch.told for watch in held if stream in watch.streams)])

    def _held_back(self, version: int, streams: int) -> list[WatchedQuery] | None:
        """Return the watches that hold cursors back; None where so few streams are told that each is looked at."""
        return [watch for watch in self._unsettled if watch.told < version] if streams > FEW_STREAMS else None

    def _tell(
        self, watches: Mapping[WatchedQuery, Iterable[str]], version: int, *, shown_at: str | None = None
    ) -> None:
        """Push one event to each stream; streams that are owed the same share its bytes.

        Args:
            watches: `{watch: the tables whose changes touched it}`; a stream is told of the tables of its own alone.
            version: of the log.
            shown_at: the version that shows what they are told of; None where none is known to.
        """
        owed = _owed(watches)
        held = self._held_back(version, len(owed))
        event_id = self._ids.new_id()
        frames: dict[tuple[int, ...], Frame] = {}
        for stream, affected in owed:
            told = version if held == [] else self._told(stream, version, held)
            group = (told, *map(id, affected))
            frame = frames.get(group)
            if frame is None:
                frame = frames[group] = invalidation_frame(
                    told,
                    self._cursor(told),
                    [watch.affected for watch in affected],
                    {table for watch in affected for table in watches[watch]},
                    event_id,
                    shown_at=shown_at,
                )
            stream.push(frame)

    def _tell_result(self, watch: WatchedQuery, landed: Landed, pending: Pending) -> None:
        """Tell the streams of a watch, which has just been settled, what they have been waiting for."""
        version = self._log.version
        entry, computed = landed.entry, landed.computed
        if self._is_unchanged(watch, entry, pending):
            return
        is_large = len(computed.body) > MAX_RESULT_BYTES
        if computed.error is not None or is_large or not watch.query.pushes_results:
            self._tell({watch: pending.tables}, version)
            return
        held = self._held_back(version, len(watch.streams))
        event_id = self._ids.new_id()
        reflects = self._reader.version_of(entry)
        frames: dict[int, Frame] = {}
        for stream in watch.streams:
            told = version if held == [] else self._told(stream, version, held)
            frame = frames.get(told)
            if frame is None:
                frame = frames[told] = result_frame(
                    told,
                    self._cursor(told),
                    watch.affected,
                    event_id,
                    etag=entry.etag,
                    body=computed.body,
                    reflects=reflects,
                )
            stream.push(frame)

    def _is_unchanged(self, watch: WatchedQuery, entry: CachedResult, pending: Pending) -> bool:
        """Tell whether no snapshot since the streams were last told shows anything but what they have."""
        before = pending.entry
        if not (entry.period is before.period is ALWAYS):
            return False  # what was fetched between may be of another tick
        if entry.etag != before.etag or _details_of(entry) != _details_of(before):
            return False
        changes = self._log.changes_since(watch.told)
        if changes is None or len(changes) > MAX_COMPARED:
            return False
        touch = [change for change in changes if self._touches(change, entry) or self._touches(change, before)]
        return len(touch) == 1 and touch[0].operation != "bulk" and not touch[0].table.startswith(PREFIX)

    def _touches(self, change: Change, entry: CachedResult) -> bool:
        return self._reader.touched_by((change,), entry)

    async def _fall_back_in_time(self) -> None:
        """Tell the streams of an invalidation where the result is not there in time, or their turn has come."""
        while waiting := [
            watch.pending.due_at
            for watch in self._unsettled
            if watch.pending is not None and not watch.pending.waits_for_outcome
        ]:
            await self._clock.sleep(max(0.0, min(waiting) - self._clock.monotonic()))
            now = self._clock.monotonic()
            due = [watch for watch in self._unsettled if watch.pending is not None and watch.pending.due_at <= now]
            for turn in _turns(due, self._told_at_once):
                self._fall_back(turn)
                await asyncio.sleep(0)

    def _fall_back(self, watches: Iterable[WatchedQuery]) -> None:
        """Tell the streams of an invalidation now, where they wait for a result."""
        owed: dict[WatchedQuery, Iterable[str]] = {}
        for watch in watches:
            if watch.pending is not None and not watch.pending.waits_for_outcome:
                owed[watch] = watch.pending.tables
                watch.pending = None
                watch.note_told(self._log.version, self._clock.time())
        if owed:
            self._tell(owed, self._log.version)

    async def _refresh(self, watch: WatchedQuery) -> bool:
        """Settle a watch again, unless somebody who connects has done it first; tell whether to try it again later."""
        if not watch.streams or watch.entry is not None:
            return False
        try:
            landed = await self._reader.watch(watch.query)
        except PreconditionFailedError as exc:
            logger.warning("%s; its streams are closed, to be refused when they come back", exc.message)
            self._fall_back([watch])
            for stream in watch.streams:
                stream.close()
            return False
        except Exception as exc:
            logger.warning("%s could not be computed again, retrying: %s", watch.query.path, reason_of(concealed(exc)))
            if watch.pending is not None and not isinstance(exc, ServiceUnavailableError):
                watch.pending = replace(watch.pending, due_at=0.0)  # that it fails is another outcome
            self._fall_back([watch])
            return True
        if landed.entry.live:
            self._take(watch, landed)
        elif watch.streams and watch.entry is None:
            self._go_on(watch, landed.entry)
        return False

    def _go_on(self, watch: WatchedQuery, overtaken: CachedResult) -> None:
        """Compute once more what a write has overtaken; whoever has fetched meanwhile must hear of it."""
        if watch.pending is None:
            watch.note_told(self._log.version, self._clock.time())
            self._tell({watch: overtaken.read_set.tables}, watch.told)
        self._refresher.add(watch)

    def _take(self, watch: WatchedQuery, landed: Landed) -> None:
        if watch.streams:
            self._adopt(watch, landed)
        else:
            self._reader.unwatch(landed.entry)

    def _forget(self, watch: WatchedQuery) -> None:
        self._watches.pop(watch.query.key, None)
        self._unsettled.pop(watch, None)
        self._refresher.discard(watch)
        watch.pending = None
        if watch.entry is not None:
            self._by_entry.pop(watch.entry, None)
            self._reader.unwatch(watch.entry)
            watch.entry = None

    def _acknowledge(self, stream: Stream, cursor: Cursor) -> None:
        if cursor.epoch == self._log.epoch:
            stream.acknowledge(cursor)

    def _cursor(self, version: int) -> str:
        cursor = self._log.cursor_at(version)
        return str(cursor._replace(moment=self._moment()) if self._is_timed else cursor)

    def _moment(self) -> int:
        """Return up to when every stream has been told of every tick, in milliseconds."""
        told_at = min([self._reader.told_until, *(watch.told_at for watch in self._unsettled)])
        return math.ceil(told_at * 1000) - 1


def _ticked_since(moment: float, entry: CachedResult) -> bool:
    """Tell whether the entry belongs to a tick after `moment`; an author's time to live is no tick."""
    return entry.period.is_exact and entry.period.since > moment


def _has_ticked(entry: CachedResult, cursor: Cursor | None) -> bool:
    """Tell whether a client that stands at `cursor` may show the result of a tick before the entry's."""
    if cursor is None or entry.period is ALWAYS:
        return False
    return cursor.moment is None or entry.period.since * 1000 > cursor.moment


def _turns(watches: Iterable[WatchedQuery], at_once: int) -> Iterator[list[WatchedQuery]]:
    """Part watches into turns of at most `at_once` tellings; first whoever has least to be told.

    Watches of one stream stay together, so that it is told of a commit by few events, and a stream that shows one query
    does not wait for those that show a thousand.
    """
    by_stream: dict[Stream, list[WatchedQuery]] = defaultdict(list)
    for watch in watches:
        if watch.streams:
            by_stream[next(iter(watch.streams))].append(watch)
    turn: list[WatchedQuery] = []
    size = 0
    for theirs in sorted(by_stream.values(), key=len):
        for watch in theirs:
            if turn and size + len(watch.streams) > at_once:
                yield turn
                turn, size = [], 0
            turn.append(watch)
            size += len(watch.streams)
    if turn:
        yield turn


def _details_of(entry: CachedResult) -> object:
    """Return what an error tells beside what its ETag stands for."""
    return None if entry.error is None else entry.error.details


def _owed(watches: Mapping[WatchedQuery, Iterable[str]]) -> Collection[tuple[Stream, Sequence[WatchedQuery]]]:
    """Return each stream with those of the watches that it shows."""
    if len(watches) == 1:
        [alone] = watches
        return [(stream, (alone,)) for stream in alone.streams]
    owed: dict[Stream, list[WatchedQuery]] = defaultdict(list)
    for watch in watches:
        for stream in watch.streams:
            owed[stream].append(watch)
    return owed.items()


def _refused(subscription: Subscription, error: RPCError) -> RefusedQuery:
    body = ErrorBody(code=error.code, message=error.message, details=error.details, path=subscription.ref.path)
    key = subscription.call.wire_key if subscription.call else None
    return RefusedQuery(path=subscription.ref.path, input=subscription.ref.input, key=key, error=body)
