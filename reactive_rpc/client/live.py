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
again. Everything else is tried again, with backoff. A stream counts as good once it has lasted `STABLE_SECONDS`; a
server that closes each stream at once is otherwise answered with a hot loop.

A peer can vanish without a word (a pulled cable, a NAT that forgot): the stream then looks alive and says nothing. The
kernel notices if it was told to probe, which is so for the HTTP client that we make and not for one that we are given.
Where the server promises a heartbeat, silence for `HEARTBEATS_MISSED` of them ends the stream whoever made the client.
Any byte counts as a sign of life, also of a comment or of an event that is not complete: it is the link that is tested.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import anyio
from anyio.abc import TaskGroup, TaskStatus

from reactive_rpc.client.backoff import Backoff
from reactive_rpc.client.procedure import Procedure
from reactive_rpc.client.state import Fetched, FetchFailed, FetchStarted, FetchUnchanged, Invalidated, StreamFailed
from reactive_rpc.client.subscriptions import Entry, Members, Subscriptions
from reactive_rpc.client.transport import Answer, Transport
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
from reactive_rpc.protocol.events import Ack, Connected, Event, Gap, Invalidation, Revoked, decode_event
from reactive_rpc.protocol.sse import SSEDecoder

__all__ = ["COALESCE_SECONDS", "HEARTBEATS_MISSED", "OPEN_SECONDS", "STABLE_SECONDS", "Live"]

T = TypeVar("T")
logger = logging.getLogger("reactive_rpc.client")

COALESCE_SECONDS: Final = 0.01
"""How long changes of the set gather before a stream is opened for them."""

OPEN_SECONDS: Final = 30.0
"""How long a new stream may take to say `connected`."""

HEARTBEATS_MISSED: Final = 2.5
"""How many heartbeats may be missing before the stream counts as dead: one may be lost, another late."""

STABLE_SECONDS: Final = 5.0
"""How long a stream lasts before the backoff starts over."""

_REMEMBERED_EVENTS: Final = 256
_TRANSIENT: Final = frozenset({"SERVICE_UNAVAILABLE", "TOO_MANY_REQUESTS", "TIMEOUT", "BAD_GATEWAY", "GATEWAY_TIMEOUT"})


@dataclass(eq=False)
class _Stream:
    """One event stream.

    Attributes:
        entries: what it was opened for, in order.
        scope: cancelling it closes the stream.
        caller: whose it is, as `Live` counts them.
        id: its name in acknowledgements.
        members: what it watches, by key.
        connected_at: on the clock; None before.
        silence_seconds: how long it may say nothing.
        seen: ids of the last events, to know one that is sent again.
    """

    entries: tuple[Entry[Any], ...]
    scope: anyio.CancelScope
    caller: int
    id: str = ""
    members: Members = field(default_factory=dict)
    connected_at: float | None = None
    silence_seconds: float = math.inf
    seen: deque[str] = field(default_factory=lambda: deque(maxlen=_REMEMBERED_EVENTS))


class Live:
    """The watches of one client. Belongs to one event loop; not safe across threads."""

    def __init__(self, transport: Transport, *, clock: Clock, new_backoff: Callable[[], Backoff]) -> None:
        self._transport = transport
        self._clock = clock
        self._new_backoff = new_backoff
        self._backoff = new_backoff()
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

    def _hold_off(self, error: Exception | None = None) -> None:
        """Try again, though not before the backoff's next delay, after what the server asked for."""
        wait_seconds = _retry_after_seconds(error) + self._backoff.next_delay()
        self._not_before = self._clock.monotonic() + wait_seconds
        self._changed.set()

    async def _match_stream(self, entries: tuple[Entry[Any], ...]) -> None:
        """Open, replace or end the stream, whichever makes it fit; one try."""
        if self._refusal is not None or (self._active is not None and self._active.entries == entries):
            return
        if not entries:
            self._end_active()
            return
        if self._group is None:
            return
        caller = self._caller
        try:
            await self._group.start(self._stream, entries, name="reactive_rpc.client.stream")
        except (UnauthorizedError, ForbiddenError) as error:
            if caller == self._caller:
                self._refuse(error)
        except Exception as error:
            _report("the event stream", error)
            if caller != self._caller:
                return
            if isinstance(error, BadRequestError):
                self._subscriptions.cursor = None  # the server may be unable to read it: the ETags suffice
            self._subscriptions.fail(error, uncovered_only=True)
            self._hold_off(error)

    async def _stream(
        self, entries: tuple[Entry[Any], ...], *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Open a stream and read it to its end; raises only before it is connected."""
        stream = _Stream(entries, anyio.CancelScope(deadline=anyio.current_time() + OPEN_SECONDS), self._caller)
        with stream.scope:
            try:
                await self._read(stream, task_status)
            except Exception as error:
                if stream.connected_at is None:
                    raise
                _report("the event stream", error)
            if stream.connected_at is None:
                raise WireError("the event stream ended before it said 'connected'")
        if stream.connected_at is None:
            raise ConnectionFailedError(f"the event stream did not say 'connected' within {OPEN_SECONDS:g} s")
        if stream is self._active and stream.scope.cancelled_caught:
            logger.info("the event stream was silent for %g s: the link is dead", stream.silence_seconds)
        self._ended(stream)

    async def _read(self, stream: _Stream, task_status: TaskStatus[None]) -> None:
        request = self._subscriptions.request(stream.entries)
        decoder = SSEDecoder()
        async with self._transport.events(request) as chunks:
            async for chunk in chunks:
                if stream.connected_at is not None:
                    stream.scope.deadline = anyio.current_time() + stream.silence_seconds
                for event in _decode(decoder, chunk):
                    if stream.connected_at is not None:
                        self._take(stream, event)
                        continue
                    if not isinstance(event, Connected):
                        raise WireError(f"the event stream began with {event.name!r} instead of 'connected'")
                    if stream.caller != self._caller:
                        raise ConnectionFailedError("the caller changed while the event stream was being opened")
                    stream.members = self._subscriptions.connect(stream.entries, request, event)
                    self._begin(stream, event)
                    task_status.started()
                if decoder.retry_ms is not None:
                    self._backoff.floor_seconds = decoder.retry_ms / 1000

    def _begin(self, stream: _Stream, connected: Connected) -> None:
        """Make `stream` the one that counts, and end the one before."""
        stream.id = connected.stream
        stream.connected_at = self._clock.monotonic()
        stream.silence_seconds = HEARTBEATS_MISSED * (connected.heartbeat_seconds or math.inf)
        stream.scope.deadline = anyio.current_time() + stream.silence_seconds
        before, self._active = self._active, stream
        if before is not None:
            before.scope.cancel()
        self._acknowledge_soon(stream, connected.cursor)
        self._fetch_wanted()

    def _take(self, stream: _Stream, event: Event) -> None:
        """Apply one event of the active stream; an ended one's last events are superseded by `connected`."""
        if stream is not self._active:
            return
        match event:
            case Invalidation():
                if event.retry is None or event.event_id not in stream.seen:
                    stream.seen.append(event.event_id)
                    self._subscriptions.invalidate(stream.members, event.affected, event.cursor)
                self._acknowledge_soon(stream, event.cursor)
            case Gap():
                self._subscriptions.gap(event.cursor)
                self._acknowledge_soon(stream, event.cursor)
            case Revoked():
                self._refuse(UnauthorizedError(event.reason or "the server has ended the stream for good"))
        self._fetch_wanted()

    def _ended(self, stream: _Stream) -> None:
        """Go on after a stream that was connected has ended, by whichever side."""
        if stream is not self._active:
            return
        self._active = None
        self._subscriptions.disconnect()
        if stream.connected_at is not None and self._clock.monotonic() - stream.connected_at >= STABLE_SECONDS:
            self._backoff.reset()
        self._hold_off()

    def _refuse(self, error: Exception) -> None:
        """Give up until the caller has other credentials, and say so in every state."""
        self._refusal = error
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
                retry_after = _retry_after_seconds(error)
                if error is not None and _is_transient(error) and (retry_after or not entry.snapshot.wanted):
                    entry.is_held_off = retry_after > 0
                    await self._pause(entry, retry_after + backoff.next_delay())
                if entry.snapshot.wanted:
                    entry.dispatch(FetchStarted())
        entry.cancel_fetch = None

    async def _fetch(self, entry: Entry[Any]) -> Exception | None:
        """Fetch once; return what went wrong, which also shows in the state: as an error, or as a stale result."""
        try:
            answer = await self._transport.call(entry.procedure, entry.fields, entry.snapshot.etag, was_told=True)
            entry.dispatch(_fetched(entry, answer))
            if answer.is_stale:
                return ServiceUnavailableError("the server's database cannot be read", path=entry.procedure.path)
        except Exception as error:
            _report(entry.procedure.path, error)
            entry.dispatch(FetchFailed(error))
            return error
        return None

    async def _pause(self, entry: Entry[Any], seconds: float) -> None:
        """Wait before the next try of a fetch; shorter if news of the entry comes."""
        with anyio.CancelScope() as scope:
            entry.hurry = scope.cancel
            await self._clock.sleep(seconds)
        entry.hurry = None
        entry.dispatch(Invalidated())

    # -- acknowledgements

    def _acknowledge_soon(self, stream: _Stream, cursor: str) -> None:
        self._ack = Ack(stream=stream.id, cursor=cursor)
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


def _decode(decoder: SSEDecoder, chunk: bytes) -> list[Event]:
    """Return the events of `chunk` that are known here."""
    events = (decode_event(event) for event in decoder.feed(chunk))
    return [event for event in events if event is not None]


def _fetched(entry: Entry[Any], answer: Answer) -> Fetched | FetchUnchanged:
    if answer.body is None:
        return FetchUnchanged(answer.is_stale)
    return Fetched(entry.procedure.decode_output(answer.body), answer.etag, answer.is_stale)


def _is_transient(error: Exception) -> bool:
    """Tell whether the same request may do better a little later."""
    return error.code in _TRANSIENT if isinstance(error, RPCError) else isinstance(error, ReactiveRPCError)


def _retry_after_seconds(error: Exception | None) -> float:
    """Return how long the server asked to be left alone."""
    return float(error.headers.get("retry-after", 0)) if isinstance(error, RPCError) else 0.0


def _report(what: str, error: Exception) -> None:
    """Log a failure that the states show too; with its traceback where it is none that this project knows."""
    expected = isinstance(error, ReactiveRPCError)
    logger.log(logging.INFO if expected else logging.ERROR, "%s failed: %s", what, error, exc_info=not expected)
