"""The hub: the open streams of one worker, and the parts that keep them right.

It opens and ends streams. Who shows which query is in the table (`subscriptions/watched_queries.py`); the registrar
adds to it, the reconciler changes it as the data change, the broadcaster sends events.
`docs/internals/subscriptions.md` draws who may change which state, and argues why every stream hears of every commit,
or of a gap.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from reactive_rpc.cache.reader import Reader
from reactive_rpc.changes.ephemeral_store import EphemeralStore
from reactive_rpc.changes.log import Log
from reactive_rpc.clock import Clock, IdSource
from reactive_rpc.errors import ServiceUnavailableError
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.protocol.events import Revoked, StreamLimits
from reactive_rpc.subscriptions.acknowledgements import Acknowledgements
from reactive_rpc.subscriptions.broadcaster import Broadcaster
from reactive_rpc.subscriptions.frame import revoked_frame
from reactive_rpc.subscriptions.heartbeats import Heartbeats
from reactive_rpc.subscriptions.holdings import Bounds, Holdings
from reactive_rpc.subscriptions.limits import CallerKey
from reactive_rpc.subscriptions.reconciler import Reconciler
from reactive_rpc.subscriptions.redelivery import Redelivery
from reactive_rpc.subscriptions.registrar import Registrar
from reactive_rpc.subscriptions.replays import Replays
from reactive_rpc.subscriptions.stats import HubStats
from reactive_rpc.subscriptions.stream import Recheck, Stream, StreamOptions
from reactive_rpc.subscriptions.watched_queries import WatchedQueries
from reactive_rpc.subscriptions.watched_query import RequestedQuery
from reactive_rpc.subscriptions.writer import Flusher
from reactive_rpc.subscriptions.written_stream import WrittenStream
from reactive_rpc.tasks import Tasks

__all__ = ["Hub"]

S = TypeVar("S", bound=Stream)

DRAIN_STEP_SECONDS = 0.05
"""How often some of the streams are ended while the server drains."""


class Hub:
    """The streams of one worker. Used on one event loop.

    Args:
        ephemeral_store: where acknowledgements meet that reached another worker than their stream's.
        max_events: how many events may wait for one stream, or for its acknowledgement.
        max_bytes: the same in bytes.
        bounds: how much memory watched queries may take.
        max_resumed_changes: whoever has missed more of them is sent a gap.
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
        ephemeral_store: EphemeralStore,
        max_events: int,
        max_bytes: int,
        bounds: Bounds,
        max_resumed_changes: int,
        ack_retry_seconds: Sequence[float] = (2.0, 5.0, 10.0),
        reconnect_milliseconds: tuple[int, int] = (1000, 5000),
        heartbeat_seconds: float = 0.0,
    ) -> None:
        self.stats = HubStats()
        self._log = log
        self._clock = clock
        self._ids = ids
        self._reconnect_milliseconds = reconnect_milliseconds
        self._streams: dict[str, Stream] = {}
        self._tasks = Tasks()
        self._is_draining = False
        self._holdings = Holdings(bounds)
        self._queries = WatchedQueries(reader, self._holdings)
        self._broadcaster = Broadcaster(self._queries, log=log, reader=reader, ids=ids)
        self._reconciler = Reconciler(
            self._queries, self._broadcaster, reader=reader, log=log, clock=clock, tasks=self._tasks
        )
        self._registrar = Registrar(
            self._queries,
            reconciler=self._reconciler,
            broadcaster=self._broadcaster,
            holdings=self._holdings,
            replays=Replays(log, at_most=max_resumed_changes, tasks=self._tasks),
            log=log,
            reader=reader,
        )
        self._on_disconnect: list[Callable[[Stream], None]] = []
        self._acknowledgements = Acknowledgements(ephemeral_store, clock)
        self._redelivery = Redelivery(clock, self._acknowledgements, self._acknowledge)
        self._heartbeats = Heartbeats(heartbeat_seconds, clock=clock, tasks=self._tasks)
        self._options = StreamOptions(
            clock=clock,
            stats=self.stats,
            flusher=Flusher(clock),
            look_after=self._redelivery.add,
            max_events=max_events,
            max_bytes=max_bytes,
            retry_seconds=tuple(ack_retry_seconds),
        )
        reader.invalidations.add(self._reconciler.on_invalidated)

    def on_disconnect(self, observer: Callable[[Stream], None]) -> None:
        """Call `observer`, which must neither await nor raise, with each stream that is forgotten."""
        self._on_disconnect.append(observer)

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    @property
    def open_streams(self) -> Collection[Stream]:
        """Those streams; copy it before you await."""
        return self._streams.values()

    @property
    def watched_queries(self) -> int:
        """How many queries are watched."""
        return len(self._queries)

    @property
    def waiting_bytes(self) -> int:
        """How much waits for slow readers, or for their acknowledgement; bytes that streams share count for each."""
        return sum(stream.waiting_bytes for stream in self._streams.values())

    @property
    def watched_bytes(self) -> int:
        """How much memory the watched queries take, estimated; results that the cache holds too count in both."""
        return self._holdings.size_bytes

    async def connect(
        self,
        subscriptions: Sequence[RequestedQuery],
        cursor: Cursor | None,
        *,
        acks: bool,
        identity: str | None = None,
        caller: CallerKey | None = None,
        recheck: Recheck | None = None,
        scope: str | None = None,
        request_bytes: int = 0,
        limits: StreamLimits | None = None,
        is_poll: bool = False,
    ) -> tuple[Stream, bytes]:
        """Open a stream and return it with its first frame. Whoever gets it must `disconnect` it.

        Args:
            identity: whose it is, for `revoke`.
            scope: the caller's scope in `connected`; None if the caller is not known.
            limits: the limits in `connected`.
            is_poll: it is one long poll, which counts by itself.
            caller: whom bounds count, and who takes turns; left out, the identity.
            recheck: resolves the stream's context again.
            request_bytes: the memory that it holds for that.

        Raises:
            ServiceUnavailableError: the server drains, holds as much as it may, or the database cannot be read.
            TooManyRequestsError: the caller holds as much as it may.
        """
        stream = self._added(
            Stream, acks=acks, identity=identity, caller=caller, recheck=recheck, request_bytes=request_bytes
        )
        try:
            connected = await self._registrar.register(stream, subscriptions, cursor)
        except BaseException as exc:
            self.stats.refused += isinstance(exc, ServiceUnavailableError)
            self.disconnect(stream)
            raise
        connected.scope, connected.limits = scope, limits
        connected.heartbeat_seconds = self._heartbeats.seconds or None
        self.stats.opened += not is_poll
        self.stats.polls += is_poll
        self._heartbeats.add(stream)
        return stream, connected.encode(retry_ms=self._retry_ms())

    def connect_writer(
        self,
        *,
        identity: str | None,
        caller: CallerKey,
        recheck: Recheck | None,
        request_bytes: int,
    ) -> tuple[WrittenStream, bytes]:
        """Open a stream that watches nothing, for a writer of its own; the rest as `connect`."""
        stream = self._added(
            WrittenStream, acks=False, identity=identity, caller=caller, recheck=recheck, request_bytes=request_bytes
        )
        self.stats.opened += 1
        self._heartbeats.add(stream)
        return stream, b"retry: %d\n\n" % self._retry_ms()

    @property
    def heartbeat_seconds(self) -> float:
        """How long a stream may be silent; 0 is for ever."""
        return self._heartbeats.seconds

    def _added(
        self,
        kind: type[S],
        *,
        acks: bool,
        identity: str | None,
        caller: CallerKey | None,
        recheck: Recheck | None,
        request_bytes: int,
    ) -> S:
        """Return a new stream of a `kind` that stands in the tables.

        Raises:
            ServiceUnavailableError: the server drains, or holds as much as it may.
            TooManyRequestsError: the caller holds as much as it may.
        """
        if self._is_draining:
            self.stats.refused += 1
            raise ServiceUnavailableError("the server is about to stop: connect again, to another one")
        stream = kind(
            self._ids.new_id(),
            self._options,
            acks=acks,
            identity=identity,
            caller=caller,
            recheck=recheck,
            request_bytes=request_bytes,
        )
        self._holdings.require_bytes(stream.caller, request_bytes, request_bytes)
        self._holdings.add_bytes(stream.caller, request_bytes)
        # INVARIANT: the stream is in both tables before its first query is registered, so it hears of what happens to
        # one query while the next is computed. Whatever raises takes it out of both again.
        self._streams[stream.id] = stream
        self._queries.add_stream(stream)
        return stream

    def _retry_ms(self) -> int:
        return random.randint(*self._reconnect_milliseconds)  # noqa: S311  # jitter, no secret

    def disconnect(self, stream: Stream) -> None:
        """Forget a stream and the queries that only it watched; idempotent."""
        if self._streams.pop(stream.id, None) is not None:
            for on_disconnect in self._on_disconnect:
                on_disconnect(stream)
            self._holdings.add_bytes(stream.caller, -stream.request_bytes)
        self._redelivery.remove(stream)
        self._heartbeats.remove(stream)
        for query in self._queries.remove_stream(stream):
            self._reconciler.discard(query)

    async def acknowledge(self, stream_id: str, cursor: Cursor, caller: CallerKey) -> None:
        """Count everything up to `cursor` as received; leave word for the worker that has the stream, if not this.

        Args:
            caller: who acknowledges, and whom bounds count.
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
        """End a stream: with `event` for good, and nothing that waits is sent any more; else so that it is resumed."""
        if event is None or stream.closed:
            stream.close()
        else:
            self.stats.revoked += 1
            stream.close(revoked_frame(event))

    def notify_stream(self, stream: Stream) -> None:
        """Tell a stream that all it shows may have been answered otherwise meanwhile."""
        self._broadcaster.notify_stream(stream)

    def end_all(self) -> None:
        """End every stream so that its client resumes: nobody knows of which changes it ought to be notified."""
        for stream in tuple(self._streams.values()):
            self.end(stream)

    def counters(self) -> dict[str, float]:
        """Return the counters of `/metrics` that are kept here: `{name: value}`."""
        return self.stats.counters() | {
            "streams": self.streams, "watched_queries": self.watched_queries,
            "watched_bytes": self.watched_bytes, "waiting_bytes": self.waiting_bytes,
        }  # fmt: skip

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
        await self._redelivery.aclose()
        await self._acknowledgements.aclose()
        self._reconciler.clear()  # or the next in line would take the place of each that is cancelled
        await self._tasks.aclose()
        self._reconciler.clear()  # a task that never ran has not given its place back
        self._is_draining = False

    def _acknowledge(self, stream: Stream, cursor: Cursor) -> None:
        if cursor.epoch == self._log.epoch:
            stream.acknowledge(cursor)
