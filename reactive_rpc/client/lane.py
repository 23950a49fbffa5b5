"""A lane: one event stream for one set of queries, opened, replaced and resumed for as long as its client lives.

A change of the set opens a new stream, with ETags and cursor, while the old one still speaks. 401, 403 and `revoked`
stop every lane until the caller has other credentials; 413 spreads the set over more lanes; everything else is tried
again, with backoff. A stream that misses heartbeats is ended. If a stream says nothing at all while a long poll is
answered, something on the way holds it back, and the client polls from then on. An event that is sent again is known
by its id.

`docs/internals/client.md` argues why nothing is missed, and names the ways that were rejected; the INVARIANT comments
mark the lines that it rests on.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, Protocol

import anyio
from anyio.abc import TaskGroup, TaskStatus

from reactive_rpc.client.backoff import Backoff
from reactive_rpc.client.channels import Channel
from reactive_rpc.client.retrying import MAX_RETRY_SECONDS, OPEN_SECONDS, pause_seconds, silence_seconds
from reactive_rpc.client.spread import SetLimits
from reactive_rpc.client.subscriptions import Members, QueryEntry, Subscriptions, affected_by
from reactive_rpc.client.transport import Transport
from reactive_rpc.clock import Clock
from reactive_rpc.errors import (
    BadRequestError,
    ConnectionFailedError,
    ForbiddenError,
    PayloadTooLargeError,
    ReactiveRPCError,
    UnauthorizedError,
    WireError,
)
from reactive_rpc.protocol.events import Connected, Event, Gap, Invalidation, Result, Revoked, SubscriptionRequest

__all__ = [
    "PROBE_GRACE_SECONDS",
    "UNHEARD_SECONDS",
    "ClientStream",
    "Host",
    "Lane",
    "report",
]

logger = logging.getLogger("reactive_rpc.client")

UNHEARD_SECONDS: Final = 5.0
"""After how long without a word a long poll is tried beside a new stream."""

PROBE_GRACE_SECONDS: Final = 1.0
"""How much longer than that poll's answer the stream's first word may take."""

DEFERRED_BASE_SECONDS: Final = 2.0
DEFERRED_CAP_SECONDS: Final = 60.0
"""Between these grows the bound of the pause before a refused query is asked for again, which costs a whole stream."""

_REMEMBERED_EVENTS: Final = 256


class Host(Protocol):
    """The owner of a lane, which it shares with the other lanes.

    Attributes:
        caller: counts callers: another number is another caller.
        refusal: why no stream can be had by this caller; None normally.
        group: in which tasks live; None when it is closed.
        channel: the one through which new streams come.
        may_probe: whether another channel may be tried.
    """

    caller: int
    refusal: Exception | None
    group: TaskGroup | None
    channel: Channel
    subscriptions: Subscriptions

    @property
    def may_probe(self) -> bool:
        """Whether another channel may be tried."""
        ...

    def poll_from_now_on(self) -> None:
        """Use long poll for new streams."""
        ...

    def connected(self, stream: ClientStream, limits: SetLimits | None) -> None:
        """Hear that a stream is up; called in the step that makes it count."""
        ...

    def unconnected(self, stream: ClientStream) -> None:
        """Hear that a stream has not come up."""
        ...

    def status_changed(self) -> None:
        """Hear that a stream has ended, or could not be opened."""
        ...

    def received(self, stream: ClientStream) -> None:
        """Hear that an event was applied."""
        ...

    def refuse(self, error: Exception) -> None:
        """Give all streams up until the caller has other credentials."""
        ...

    def too_large(self, entries: tuple[QueryEntry[Any], ...], error: Exception) -> None:
        """Spread this set over more lanes."""
        ...


@dataclass(eq=False)
class ClientStream:
    """One event stream.

    Attributes:
        entries: those for which it was opened, in order.
        scope: cancelling it closes the stream.
        caller: whose it is, as the host counts them.
        channel: the one through which it comes.
        id: its name in acknowledgements.
        cursor: of the last event in its order.
        outdated: it is to be replaced by another for the same entries.
        members: the entries that it watches, by key.
        connected_at: on the clock; None before.
        heard_at: on the clock: when the last byte came.
        silence_seconds: how long it may say nothing.
        is_silent: it has said nothing for longer than that.
        is_held_back: it says nothing, though a long poll was answered.
        watchdog: the task that waits for its next word.
        seen: ids of the last events, to know one that is sent again.
    """

    entries: tuple[QueryEntry[Any], ...]
    scope: anyio.CancelScope
    caller: int
    channel: Channel
    id: str = ""
    cursor: str = ""
    outdated: bool = False
    members: Members = field(default_factory=dict)
    connected_at: float | None = None
    heard_at: float = 0.0
    silence_seconds: float = math.inf
    is_silent: bool = False
    is_held_back: bool = False
    watchdog: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    seen: deque[str] = field(default_factory=lambda: deque(maxlen=_REMEMBERED_EVENTS))


class Lane:
    """Has a stream for exactly the entries that it is given; a `Connection` of the client's status."""

    def __init__(self, host: Host, transport: Transport, clock: Clock, new_backoff: Callable[..., Backoff]) -> None:
        self.active: ClientStream | None = None
        self.failure: Exception | None = None
        self.heard_at: float | None = None
        self._host = host
        self._transport = transport
        self._clock = clock
        self._entries: tuple[QueryEntry[Any], ...] = ()
        self._cursor: str | None = None
        self._backoff = new_backoff()
        self._deferred_backoff = new_backoff(base_seconds=DEFERRED_BASE_SECONDS, cap_seconds=DEFERRED_CAP_SECONDS)
        self._deferred = asyncio.Event()
        self._changed = asyncio.Event()
        self._not_before = clock.monotonic()
        self._attempt: anyio.CancelScope | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether it has queries to watch."""
        return bool(self._entries)

    @property
    def is_up(self) -> bool:
        """Whether a stream watches for it."""
        return self.active is not None

    def want(self, entries: tuple[QueryEntry[Any], ...]) -> None:
        """Watch these from now on."""
        if entries != self._entries:
            self._entries = entries
            self._changed.set()

    def reidentify(self) -> None:
        """Begin anew, for another caller."""
        self._backoff.reset()
        self._deferred_backoff.reset()
        self._not_before = self._clock.monotonic()
        self._cursor = self.failure = None
        self.give_up()
        self._changed.set()

    def give_up(self) -> None:
        """End the stream that is up, and the one that is being opened."""
        if self._attempt is not None:
            self._attempt.cancel()
        self._end_active()

    def _end_active(self) -> None:
        stream, self.active = self.active, None
        if stream is not None:
            stream.scope.cancel()
            self._host.subscriptions.disconnect(stream, stream.entries)
            self._host.status_changed()

    async def run(self) -> None:
        """Open streams, for ever."""
        while True:
            await self._changed.wait()
            with anyio.CancelScope() as self._attempt:
                await self._wait_for_turn()
                self._changed.clear()
                await self._match_stream(self._entries)
            self._attempt = None

    async def ask_again(self) -> None:
        """After a while, replace a stream that refuses a query which it may watch later; for ever."""
        while True:
            await self._deferred.wait()
            self._deferred.clear()
            stream = self.active
            await self._clock.sleep(self._deferred_backoff.next_delay())
            if stream is not None and stream is self.active:
                stream.outdated = True
                self._changed.set()

    async def _wait_for_turn(self) -> None:
        """Keep the distance that the backoff wants."""
        while (seconds := self._not_before - self._clock.monotonic()) > 0:
            await self._clock.sleep(seconds)

    def _hold_off(self, error: Exception | None = None, *, lasted_seconds: float = 0.0) -> None:
        """Try again after a pause; see `pause_seconds`."""
        seconds = pause_seconds(self._backoff, error, lasted_seconds=lasted_seconds)
        self._not_before = self._clock.monotonic() + seconds
        self._changed.set()

    async def _match_stream(self, entries: tuple[QueryEntry[Any], ...]) -> None:
        """Open, replace or end the stream, whichever makes it fit; one try."""
        host = self._host
        if host.refusal is not None or host.group is None or self._fits(entries):
            return
        if not entries:
            self._end_active()
            return
        caller = host.caller
        try:
            await host.group.start(self._stream, entries, name="reactive_rpc.client.stream")
        except (UnauthorizedError, ForbiddenError) as error:
            # INVARIANT (an answer counts only for the caller who asked): an attempt is cancelled when the caller
            # changes, but its answer may be here by then.
            if caller == host.caller:
                host.refuse(error)
        except Exception as error:
            report("the event stream", error)
            if caller != host.caller or host.refusal is not None:
                return
            if isinstance(error, _HeldBackError):
                self._changed.set()
            elif isinstance(error, PayloadTooLargeError):
                host.too_large(entries, error)
                self._changed.set()
            else:
                self._failed(entries, error)

    def _failed(self, entries: tuple[QueryEntry[Any], ...], error: Exception) -> None:
        if isinstance(error, BadRequestError):
            self._cursor = None  # the server may be unable to read it: the ETags suffice
        self.failure = error
        self._host.subscriptions.fail(error, entries)
        self._host.status_changed()
        self._hold_off(error)

    def _fits(self, entries: tuple[QueryEntry[Any], ...]) -> bool:
        """Tell whether the stream that is up is the one to have for `entries`."""
        if self.active is None:
            return not entries
        return self.active.entries == entries and not self.active.outdated

    async def _stream(
        self, entries: tuple[QueryEntry[Any], ...], *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Open a stream and read it to its end; raises only before it is connected."""
        scope = anyio.CancelScope(deadline=anyio.current_time() + OPEN_SECONDS)
        stream = ClientStream(entries, scope, self._host.caller, self._host.channel)
        if self._host.may_probe and self._host.group is not None:
            self._host.group.start_soon(self._probe, stream, name="reactive_rpc.client.probe")
        failure: Exception | None = None
        with scope:
            try:
                await self._read(stream, task_status)
            except Exception as error:  # whatever has ended the stream, another is opened
                failure = error
            finally:
                stream.watchdog.cancel()
        if stream.connected_at is None:
            self._unconnected(stream, failure)
        if failure is not None:
            report("the event stream", failure)
        elif stream.is_silent and stream is self.active:
            failure = ConnectionFailedError(f"the event stream was silent for {stream.silence_seconds:g} s")
            logger.info("%s: the link is dead", failure)
        self._ended(stream, failure)

    def _unconnected(self, stream: ClientStream, failure: Exception | None) -> NoReturn:
        """Raise why a stream has not said `connected`, and choose the channel of the next one."""
        if stream.is_held_back and failure is None:
            logger.warning("an event stream says nothing, and a long poll was answered: polling from now on")
            self._host.poll_from_now_on()
            failure = _HeldBackError("something on the way holds event streams back: polling instead")
        elif failure is None and stream.scope.cancelled_caught:
            failure = ConnectionFailedError(f"the event stream did not say 'connected' within {OPEN_SECONDS:g} s")
        self._host.unconnected(stream)
        raise failure or WireError("the event stream ended before it said 'connected'")

    async def _probe(self, stream: ClientStream) -> None:
        """Find out whether a stream that says nothing is held back by something on the way."""
        with stream.watchdog:
            await self._clock.sleep(UNHEARD_SECONDS)
            try:
                request = self._host.subscriptions.request(stream.entries, self._cursor, acks=False)
                await self._transport.poll(request, wait_seconds=0.0)
            except Exception as error:
                report("a long poll beside a silent event stream", error)
                return
            await self._clock.sleep(PROBE_GRACE_SECONDS)
            stream.is_held_back = True
            stream.scope.cancel()

    async def _watch_silence(self, stream: ClientStream) -> None:
        """End a stream that says nothing for longer than its server has promised."""
        with stream.watchdog:
            while (seconds := stream.heard_at + stream.silence_seconds - self._clock.monotonic()) > 0:
                await self._clock.sleep(seconds)
            stream.is_silent = True
            stream.scope.cancel()

    async def _read(self, stream: ClientStream, task_status: TaskStatus[None]) -> None:
        request = self._host.subscriptions.request(stream.entries, self._cursor, acks=stream.channel.acks)
        async with stream.channel.open(request) as batches:
            async for batch in batches:
                stream.heard_at = self._clock.monotonic()
                if stream is self.active:
                    self.heard_at = stream.heard_at
                for event in batch.events:
                    if stream.connected_at is not None:
                        self._take(stream, event)
                        continue
                    self._begin(stream, request, event)
                    task_status.started()
                if batch.retry_seconds is not None:
                    self._backoff.floor_seconds = min(batch.retry_seconds, MAX_RETRY_SECONDS)

    def _begin(self, stream: ClientStream, request: SubscriptionRequest, connected: Event) -> None:
        """Take in the first event: make `stream` the one that counts, and end the one before.

        Raises:
            UnauthorizedError: it is over before it has begun.
            WireError: it is none that a stream begins with.
            ConnectionFailedError: nobody wants the stream any more.
        """
        if isinstance(connected, Revoked):
            raise _revoked(connected)
        if not isinstance(connected, Connected):
            raise WireError(f"the event stream began with {connected.name!r} instead of 'connected'")
        host = self._host
        # INVARIANT (an answer counts only for the caller who asked): this one may have come before it was cancelled.
        if stream.caller != host.caller or host.refusal is not None:
            raise ConnectionFailedError("the caller changed while the event stream was being opened")
        # INVARIANT (no await from here to the end of the stream before): its events cannot arrive after `connected`.
        stream.members = host.subscriptions.connect(stream, stream.entries, request, connected, wanted=self._entries)
        stream.id = connected.stream
        stream.cursor = self._cursor = connected.cursor
        stream.connected_at = stream.heard_at = self.heard_at = self._clock.monotonic()
        self.failure = None
        stream.scope.deadline = math.inf
        self._expect_heartbeats(stream, connected.heartbeat_seconds)
        before, self.active = self.active, stream
        if before is not None:
            before.scope.cancel()
            host.subscriptions.disconnect(before, before.entries)
        if any(entry.is_deferred for entry in stream.entries):
            self._deferred.set()
        else:
            self._deferred_backoff.reset()
        limits = connected.limits
        known = None if limits is None else SetLimits(limits.queries, limits.body_bytes, limits.streams)
        host.connected(stream, known)

    def _expect_heartbeats(self, stream: ClientStream, seconds: float | None) -> None:
        stream.watchdog.cancel()
        if seconds is None or not stream.channel.has_heartbeats or self._host.group is None:
            return
        stream.silence_seconds = silence_seconds(seconds)
        stream.watchdog = anyio.CancelScope()
        self._host.group.start_soon(self._watch_silence, stream, name="reactive_rpc.client.watchdog")

    def _take(self, stream: ClientStream, event: Event) -> None:
        """Apply one event of the active stream; an ended one's last events are superseded by `connected`."""
        # INVARIANT (only the active stream is heard): the next one's `connected` was made after these events.
        if stream is not self.active:
            return
        match event:
            case Invalidation() | Result():
                self._take_news(stream, event)
            case Gap():
                stream.cursor = self._cursor = event.cursor
                self._host.subscriptions.gap(stream.members)
            case Revoked():
                self._host.refuse(_revoked(event))
                return
        self._host.received(stream)

    def _take_news(self, stream: ClientStream, event: Invalidation | Result) -> None:
        """Apply an event, unless it has been applied before."""
        # INVARIANT (a repeated event does not move the cursor): the acknowledged one is the last in the stream's order.
        if event.retry is not None and event.event_id in stream.seen:
            return
        stream.seen.append(event.event_id)
        stream.cursor = self._cursor = event.cursor
        subscriptions = self._host.subscriptions
        if isinstance(event, Invalidation):
            subscriptions.invalidate(stream.members, event.affected, event.version)
        elif event.retry is not None:
            # INVARIANT (a repeated result that is not remembered is not taken): it may be older than one that was.
            subscriptions.invalidate(stream.members, [affected_by(event)])
        else:
            subscriptions.push(stream.members, event)
        subscriptions.advance(stream.members, event.cursor)

    def _ended(self, stream: ClientStream, failure: Exception | None) -> None:
        """Go on after a stream that was connected has ended, by whichever side."""
        if stream is not self.active or stream.connected_at is None:
            return
        self.active = None
        self._host.subscriptions.disconnect(stream, stream.entries)
        self._host.status_changed()
        self._hold_off(failure, lasted_seconds=self._clock.monotonic() - stream.connected_at)


class _HeldBackError(ConnectionFailedError):
    """A stream is held back; by the other channel it goes on at once."""


def _revoked(event: Revoked) -> UnauthorizedError:
    return UnauthorizedError(event.reason or "the server has ended the stream for good")


def report(what: str, error: Exception) -> None:
    """Log a failure that the states show too; with its traceback if it is none that this project knows."""
    expected = isinstance(error, ReactiveRPCError)
    logger.log(logging.INFO if expected else logging.ERROR, "%s failed: %s", what, error, exc_info=not expected)
