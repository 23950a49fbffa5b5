"""Keep every watched query right: one stream for all of them, and fetches where it says so.

One runner task owns one task group; in it live the supervisor (opens streams), the reader of the stream that is up, at
most one fetch an entry, and the acknowledger. A runner of its own, rather than a task group entered by `open`, lets
`aclose` be called from any task.

A change of the set opens a new stream, with ETags and cursor, while the old one still speaks; the old one ends when
the new one is connected, in the same turn of the event loop, so that no event of it can arrive later. While a stream
is being opened, further changes gather and are served by the next one.

A query joins the stream when its first fetch has ended: its ETag then lets the server vouch for it, which saves the
second fetch that a query subscribed before its first answer would need. Rejected: subscribing first and fetching
after; it doubles the time to the first result.

The caller may change while a stream is being opened. The attempt is then cancelled, but its answer may be here by then,
and a cancellation comes too late to undo it: each answer, good or bad, counts only for the caller who asked.

401, 403 and `revoked` stop the supervisor until the caller has other credentials: the same ones would only be refused
again. A stream that is being opened at that moment is given up with the rest, so that what the states say is so.
Everything else is tried again, with backoff. A stream counts as good once it has lasted `STABLE_SECONDS`; a
server that closes each stream at once is otherwise answered with a hot loop. Where a good stream ends as the server
means it to, the server is stopping, and nothing has failed: its clients come back soon, only not all at once.

A query that a stream refuses for a reason that may pass is asked for again: by a new stream for the whole set, which
takes over while the old one still speaks, after a pause that grows as long as any such refusal lasts.

A peer can vanish without a word (a pulled cable, a NAT that forgot): the stream then looks alive and says nothing. The
kernel notices if it was told to probe, which is so for the HTTP client that we make and not for one that we are given.
Where the server promises a heartbeat, silence for `HEARTBEATS_MISSED` of them ends the stream whoever made the client.
Any byte counts as a sign of life, also of a comment or of an event that is not complete: it is the link that is tested.

A proxy may hold a stream back until enough has gathered, which for a silent one is never: requests are answered, and
`connected` does not come. Where the client may choose (`events="auto"`), `UNHEARD_STREAMS` of those in a row make it
poll. A dead network looks alike from here, so polling stays only once a poll was answered; before that, its failure
leads back to streams. That it then stays, though the proxy may be gone one day, costs some requests and no truth.
Rejected: polling from the start and then trying a stream beside it; a probe for every client, for the sake of few.

An event that is sent again was not acknowledged in time; it is known by its id, and does nothing twice. Ids are not
remembered for ever: a repeated result that is not known here may be older than one that came after it, so that it only
puts the query in doubt. What is acknowledged is always the last event in the stream's order.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NoReturn, TypeVar

import anyio
from anyio.abc import TaskGroup, TaskStatus

from reactive_rpc.client.backoff import Backoff
from reactive_rpc.client.channels import Channel, LongPoll, ServerSentEvents
from reactive_rpc.client.procedure import Procedure
from reactive_rpc.client.retrying import is_transient, retry_after_seconds
from reactive_rpc.client.state import Fetched, FetchFailed, FetchStarted, FetchUnchanged, Invalidated, StreamFailed
from reactive_rpc.client.subscriptions import Entry, Members, Subscriptions, affected_by
from reactive_rpc.client.transport import Answer, Transport
from reactive_rpc.client.versions import parse_version
from reactive_rpc.clock import Clock
from reactive_rpc.errors import (
    BadRequestError,
    ConnectionFailedError,
    ForbiddenError,
    ReactiveRPCError,
    RPCError,
    ServiceUnavailableError,
    UnauthorizedError,
    WireError,
)
from reactive_rpc.protocol.events import Ack, Connected, Event, Gap, Invalidation, Result, Revoked, SubscriptionRequest
from reactive_rpc.protocol.headers import VERSION

__all__ = [
    "COALESCE_SECONDS",
    "HEARTBEATS_MISSED",
    "OPEN_SECONDS",
    "STABLE_SECONDS",
    "UNHEARD_STREAMS",
    "Live",
    "Means",
]

T = TypeVar("T")
logger = logging.getLogger("reactive_rpc.client")

Means = Literal["auto", "sse", "poll"]
"""How events come: `sse` is server-sent events, `poll` long poll, `auto` the one that works."""

COALESCE_SECONDS: Final = 0.01
"""How long changes of the set gather before a stream is opened for them."""

OPEN_SECONDS: Final = 30.0
"""How long a new stream may take to say `connected`."""

HEARTBEATS_MISSED: Final = 2.5
"""How many heartbeats may be missing before the stream counts as dead: one may be lost, another late."""

STABLE_SECONDS: Final = 5.0
"""How long a stream lasts before the backoff starts over."""

UNHEARD_STREAMS: Final = 2
"""How many streams in a row may say nothing before the client polls."""

MAX_RETRY_SECONDS: Final = 60.0
"""The longest `retry:` that is honoured: a wrong one must not end a watch for good."""

DEFERRED_BASE_SECONDS: Final = 2.0
DEFERRED_CAP_SECONDS: Final = 60.0
"""Between these grows the bound of the pause before a refused query is asked for again, which costs a whole stream."""

_REMEMBERED_EVENTS: Final = 256


@dataclass(eq=False)
class _Stream:
    """One event stream.

    Attributes:
        entries: what it was opened for, in order.
        scope: cancelling it closes the stream.
        caller: whose it is, as `Live` counts them.
        channel: what it comes through.
        id: its name in acknowledgements.
        cursor: of the last event in its order.
        outdated: it is to be replaced by another for the same entries.
        members: what it watches, by key.
        connected_at: on the clock; None before.
        silence_seconds: how long it may say nothing.
        seen: ids of the last events, to know one that is sent again.
    """

    entries: tuple[Entry[Any], ...]
    scope: anyio.CancelScope
    caller: int
    channel: Channel
    id: str = ""
    cursor: str = ""
    outdated: bool = False
    members: Members = field(default_factory=dict)
    connected_at: float | None = None
    silence_seconds: float = math.inf
    seen: deque[str] = field(default_factory=lambda: deque(maxlen=_REMEMBERED_EVENTS))


class Live:
    """The watches of one client. Belongs to one event loop; not safe across threads."""

    def __init__(
        self, transport: Transport, *, clock: Clock, new_backoff: Callable[..., Backoff], events: Means = "auto"
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._may_choose = events == "auto"
        self._streaming: Channel = ServerSentEvents(transport)
        self._polling: Channel = LongPoll(transport, clock)
        self._channel: Channel = self._polling if events == "poll" else self._streaming
        self._unheard = 0
        self._new_backoff = new_backoff
        self._backoff = new_backoff()
        self._deferred_backoff = new_backoff(base_seconds=DEFERRED_BASE_SECONDS, cap_seconds=DEFERRED_CAP_SECONDS)
        self._deferred = asyncio.Event()
        self._subscriptions = Subscriptions()
        self._active: _Stream | None = None
        self._caller = 0
        self._refusal: Exception | None = None
        self._changed = asyncio.Event()
        self._not_before = clock.monotonic()
        self._attempt: anyio.CancelScope | None = None
        self._ack: Ack | None = None
        self._ack_wanted = asyncio.Event()
        self._stop = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None
        self._group: TaskGroup | None = None

    async def open(self) -> None:
        """Start the tasks."""
        started = asyncio.Event()
        self._runner = asyncio.create_task(self._run(started), name="reactive_rpc.client")
        await started.wait()

    async def aclose(self) -> None:
        """End all watches and tasks; idempotent. Raises what a task died of, if one did."""
        self._stop.set()
        runner, self._runner = self._runner, None
        if runner is not None:
            await asyncio.wait([runner])
            if not runner.cancelled():
                runner.result()

    def acquire(self, procedure: Procedure[T], fields: dict[str, Any] | None) -> Entry[T]:
        """Return the entry of this query, and begin to keep it right."""
        entry = self._subscriptions.acquire(procedure, fields)
        if self._stop.is_set():
            entry.end()
        if self._refusal is not None:
            entry.dispatch(StreamFailed(self._refusal))
        self._fetch_wanted()
        return entry

    def release(self, entry: Entry[Any]) -> None:
        """Give an entry back."""
        self._subscriptions.release(entry)
        self._changed.set()

    def reidentify(self) -> None:
        """Begin anew with the transport's new credentials: no stream, no cursor, every result in doubt."""
        self._caller += 1
        self._refusal = None
        self._backoff.reset()
        self._deferred_backoff.reset()
        self._not_before = self._clock.monotonic()
        if self._attempt is not None:
            self._attempt.cancel()
        self._end_active()
        self._subscriptions.reidentify()
        self._fetch_wanted()
        self._changed.set()

    async def _run(self, started: asyncio.Event) -> None:
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                group.start_soon(self._supervise, name="reactive_rpc.client.supervisor")
                group.start_soon(self._acknowledge, name="reactive_rpc.client.acknowledger")
                group.start_soon(self._ask_again, name="reactive_rpc.client.asker")
                started.set()
                await self._stop.wait()
                group.cancel_scope.cancel()
        finally:
            self._group = None
            for entry in self._subscriptions:
                entry.end()

    # -- streams

    async def _supervise(self) -> None:
        """Have a stream for exactly the settled entries, for ever."""
        while True:
            await self._changed.wait()
            with anyio.CancelScope() as self._attempt:
                await self._wait_for_turn()
                self._changed.clear()
                await self._match_stream(self._subscriptions.settled())
            self._attempt = None

    async def _wait_for_turn(self) -> None:
        """Let changes gather, and keep the distance that the backoff wants."""
        await self._clock.sleep(COALESCE_SECONDS)
        while (seconds := self._not_before - self._clock.monotonic()) > 0:
            await self._clock.sleep(seconds)

    def _hold_off(self, error: Exception | None = None, *, resuming: bool = False) -> None:
        """Try again, though not before what the server asked for and the backoff's next delay.

        Args:
            error: why it is to be tried again; None where nothing says.
            resuming: nothing has failed, as far as can be told.
        """
        delay = self._backoff.resumption_delay() if resuming else 0.0
        wait_seconds = retry_after_seconds(error) + (delay or self._backoff.next_delay())
        self._not_before = self._clock.monotonic() + wait_seconds
        self._changed.set()

    async def _match_stream(self, entries: tuple[Entry[Any], ...]) -> None:
        """Open, replace or end the stream, whichever makes it fit; one try."""
        if self._refusal is not None or self._group is None or self._fits(entries):
            return
        if not entries:
            self._end_active()
            return
        caller = self._caller
        try:
            await self._group.start(self._stream, entries, name="reactive_rpc.client.stream")
        except (UnauthorizedError, ForbiddenError) as error:
            if caller == self._caller:
                self._refuse(error)
        except Exception as error:
            _report("the event stream", error)
            if caller != self._caller or self._refusal is not None:
                return
            if isinstance(error, BadRequestError):
                self._subscriptions.cursor = None  # the server may be unable to read it: the ETags suffice
            self._subscriptions.fail(error, uncovered_only=True)
            self._hold_off(error)

    def _fits(self, entries: tuple[Entry[Any], ...]) -> bool:
        """Tell whether the stream that is up is the one to have for `entries`."""
        return self._active is not None and self._active.entries == entries and not self._active.outdated

    async def _stream(
        self, entries: tuple[Entry[Any], ...], *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Open a stream and read it to its end; raises only before it is connected."""
        scope = anyio.CancelScope(deadline=anyio.current_time() + OPEN_SECONDS)
        stream = _Stream(entries, scope, self._caller, self._channel)
        failure: Exception | None = None
        with scope:
            try:
                await self._read(stream, task_status)
            except Exception as error:
                failure = error
        if stream.connected_at is None:
            self._unconnected(stream, failure)
        if failure is not None:
            _report("the event stream", failure)
        elif stream is self._active and scope.cancelled_caught:
            failure = ConnectionFailedError(f"the event stream was silent for {stream.silence_seconds:g} s")
            logger.info("%s: the link is dead", failure)
        self._ended(stream, failure)

    def _unconnected(self, stream: _Stream, failure: Exception | None) -> NoReturn:
        """Raise why a stream has not said `connected`, and choose what the next one comes through."""
        is_silent = failure is None and stream.scope.cancelled_caught
        if is_silent:
            failure = ConnectionFailedError(f"the event stream did not say 'connected' within {OPEN_SECONDS:g} s")
        if self._may_choose:
            self._unheard = self._unheard + 1 if is_silent and stream.channel is self._streaming else 0
            self._channel = self._polling if self._unheard >= UNHEARD_STREAMS else self._streaming
            if self._channel is self._polling:
                logger.warning("%d event streams have said nothing: trying long poll instead", self._unheard)
        raise failure or WireError("the event stream ended before it said 'connected'")

    async def _read(self, stream: _Stream, task_status: TaskStatus[None]) -> None:
        request = self._subscriptions.request(stream.entries, acks=stream.channel.acks)
        async with stream.channel.open(request) as batches:
            async for batch in batches:
                if stream.connected_at is not None:
                    stream.scope.deadline = anyio.current_time() + stream.silence_seconds
                for event in batch.events:
                    if stream.connected_at is not None:
                        self._take(stream, event)
                        continue
                    self._begin(stream, request, event)
                    task_status.started()
                if batch.retry_seconds is not None:
                    self._backoff.floor_seconds = min(batch.retry_seconds, MAX_RETRY_SECONDS)

    def _begin(self, stream: _Stream, request: SubscriptionRequest, connected: Event) -> None:
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
        if stream.caller != self._caller or self._refusal is not None:
            raise ConnectionFailedError("the caller changed while the event stream was being opened")
        stream.members = self._subscriptions.connect(stream.entries, request, connected)
        stream.id, stream.cursor = connected.stream, connected.cursor
        stream.connected_at = self._clock.monotonic()
        if stream.channel.has_heartbeats:
            stream.silence_seconds = HEARTBEATS_MISSED * (connected.heartbeat_seconds or math.inf)
        stream.scope.deadline = anyio.current_time() + stream.silence_seconds
        self._unheard = 0
        if stream.channel is self._polling:
            self._may_choose = False
        before, self._active = self._active, stream
        if before is not None:
            before.scope.cancel()
        if any(entry.is_deferred for entry in stream.entries):
            self._deferred.set()
        else:
            self._deferred_backoff.reset()
        self._acknowledge_soon(stream)
        self._fetch_wanted()

    def _take(self, stream: _Stream, event: Event) -> None:
        """Apply one event of the active stream; an ended one's last events are superseded by `connected`."""
        if stream is not self._active:
            return
        match event:
            case Invalidation() | Result():
                self._take_news(stream, event)
                self._acknowledge_soon(stream)
            case Gap():
                stream.cursor = event.cursor
                self._subscriptions.gap(event.cursor)
                self._acknowledge_soon(stream)
            case Revoked():
                self._refuse(_revoked(event))
        self._fetch_wanted()

    def _take_news(self, stream: _Stream, event: Invalidation | Result) -> None:
        """Apply what an event says, unless it has been applied before."""
        if event.retry is not None and event.event_id in stream.seen:
            return
        stream.seen.append(event.event_id)
        stream.cursor = event.cursor
        if isinstance(event, Invalidation):
            self._subscriptions.invalidate(stream.members, event.affected, event.cursor, event.version)
        elif event.retry is not None:
            self._subscriptions.invalidate(stream.members, [affected_by(event)], event.cursor)
        else:
            self._subscriptions.push(stream.members, event)

    def _ended(self, stream: _Stream, failure: Exception | None) -> None:
        """Go on after a stream that was connected has ended, by whichever side."""
        if stream is not self._active or stream.connected_at is None:
            return
        self._active = None
        self._subscriptions.disconnect()
        was_good = self._clock.monotonic() - stream.connected_at >= STABLE_SECONDS
        if was_good:
            self._backoff.reset()
        self._hold_off(failure, resuming=was_good and failure is None)

    async def _ask_again(self) -> None:
        """After a while, replace a stream that refuses what it may watch later."""
        while True:
            await self._deferred.wait()
            self._deferred.clear()
            stream = self._active
            await self._clock.sleep(self._deferred_backoff.next_delay())
            if stream is not None and stream is self._active:
                stream.outdated = True
                self._changed.set()

    def _refuse(self, error: Exception) -> None:
        """Give up until the caller has other credentials, and say so in every state."""
        self._refusal = error
        if self._attempt is not None:
            self._attempt.cancel()
        self._end_active()
        self._subscriptions.fail(error)

    def _end_active(self) -> None:
        stream, self._active = self._active, None
        if stream is not None:
            stream.scope.cancel()
            self._subscriptions.disconnect()

    # -- fetches

    def _fetch_wanted(self) -> None:
        """Start a fetch for every entry that wants one and has none."""
        if self._group is None:
            return
        for entry in self._subscriptions:
            if not entry.snapshot.wanted:
                continue
            if entry.hurry is not None:
                if not entry.is_held_off:
                    entry.hurry()
            elif entry.cancel_fetch is None:
                scope = anyio.CancelScope()
                entry.cancel_fetch = scope.cancel
                entry.dispatch(FetchStarted())
                self._group.start_soon(self._refresh, entry, scope, name=f"fetch {entry.procedure.path}")

    async def _refresh(self, entry: Entry[Any], scope: anyio.CancelScope) -> None:
        """Fetch until nothing is in doubt, or the server has said what no second try would change."""
        backoff = self._new_backoff()
        with scope:
            while entry.snapshot.loading:
                error = await self._fetch(entry)
                self._changed.set()
                retry_after = retry_after_seconds(error)
                in_doubt = not entry.snapshot.current
                if in_doubt and is_transient(error) and (retry_after or not entry.snapshot.wanted):
                    entry.is_held_off = retry_after > 0
                    await self._pause(entry, retry_after + backoff.next_delay())
                if entry.snapshot.wanted:
                    entry.dispatch(FetchStarted())
        entry.cancel_fetch = None

    async def _fetch(self, entry: Entry[Any]) -> Exception | None:
        """Fetch once; return what went wrong, which also shows in the state: as an error, or as a stale result."""
        try:
            answer = await self._answer(entry)
            entry.dispatch(_fetched(entry, answer))
            if answer.is_stale:
                return ServiceUnavailableError("the server's database cannot be read", path=entry.procedure.path)
        except Exception as error:
            outcome = _outcome(error)
            if outcome is not None:
                entry.dispatch(outcome)
                return None
            _report(entry.procedure.path, error)
            entry.dispatch(FetchFailed(error, answered=isinstance(error, RPCError) and not is_transient(error)))
            return error
        return None

    async def _answer(self, entry: Entry[Any]) -> Answer:
        """Ask for the entry; again, where the caller is another by the time the answer comes: it was the former's."""
        while True:
            caller = self._caller
            try:
                etag = entry.snapshot.asked.etag
                answer = await self._transport.call(entry.procedure, entry.fields, etag, was_told=True)
            except Exception:
                if caller == self._caller:
                    raise
            else:
                if caller == self._caller:
                    return answer
            entry.dispatch(FetchStarted())

    async def _pause(self, entry: Entry[Any], seconds: float) -> None:
        """Wait before the next try of a fetch; shorter if news of the entry comes."""
        with anyio.CancelScope() as scope:
            entry.hurry = scope.cancel
            await self._clock.sleep(seconds)
        entry.hurry = None
        if not entry.snapshot.current:
            entry.dispatch(Invalidated())

    # -- acknowledgements

    def _acknowledge_soon(self, stream: _Stream) -> None:
        if stream.channel.acks:
            self._ack = Ack(stream=stream.id, cursor=stream.cursor)
            self._ack_wanted.set()

    async def _acknowledge(self) -> None:
        """Send the newest acknowledgement; those that came while one was under way are one. A lost one is no harm."""
        while True:
            await self._ack_wanted.wait()
            self._ack_wanted.clear()
            if self._ack is None:
                continue
            try:
                await self._transport.acknowledge(self._ack)
            except Exception as error:
                _report("an acknowledgement", error)


def _revoked(event: Revoked) -> UnauthorizedError:
    return UnauthorizedError(event.reason or "the server has ended the stream for good")


def _fetched(entry: Entry[Any], answer: Answer) -> Fetched | FetchUnchanged:
    version = parse_version(answer.version)
    if answer.body is None:
        return FetchUnchanged(version, answer.is_stale)
    return Fetched(entry.procedure.decode_output(answer.body), answer.etag, version, answer.is_stale)


def _outcome(error: Exception) -> Fetched | None:
    """Return an error that is the query's outcome until the data changes; the server gives those an ETag."""
    etag = error.headers.get("etag") if isinstance(error, RPCError) else None
    if etag is None or not isinstance(error, RPCError):
        return None
    return Fetched(None, etag, parse_version(error.headers.get(VERSION)), error=error)


def _report(what: str, error: Exception) -> None:
    """Log a failure that the states show too; with its traceback where it is none that this project knows."""
    expected = isinstance(error, ReactiveRPCError)
    logger.log(logging.INFO if expected else logging.ERROR, "%s failed: %s", what, error, exc_info=not expected)
