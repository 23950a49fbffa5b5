"""Keep every watched query right: streams for all of them, and fetches if those say so. Run readers, too.

One runner task owns one task group; in it live the lanes (one stream each, see `lane.py`), the task that spreads the
queries over them, at most one fetch an entry, the acknowledger, and the readers of answers that come bit by bit. A
runner of its own, rather than a task group entered by `open`, lets `aclose` be called from any task.

A query joins a stream when its first fetch has ended: its ETag then lets the server confirm it. If the caller changes
while a fetch is under way, the fetch asks again as the new one. `docs/internals/client.md` argues why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Literal, Protocol, TypeVar

import anyio
from anyio.abc import TaskGroup

from reactive_rpc.client.answer_reader import AnswerReader
from reactive_rpc.client.backoff import Backoff
from reactive_rpc.client.channels import Channel, LongPoll, ServerSentEvents
from reactive_rpc.client.lane import ClientStream, Lane, report
from reactive_rpc.client.own_mutations import OwnMutations
from reactive_rpc.client.procedure import Procedure
from reactive_rpc.client.retrying import is_transient, retry_after_seconds
from reactive_rpc.client.spread import SetLimits, Spread
from reactive_rpc.client.state import (
    Fetched,
    FetchFailed,
    FetchStarted,
    FetchUnchanged,
    HoldExpired,
    Invalidated,
    QuerySnapshot,
    Restored,
    StreamFailed,
)
from reactive_rpc.client.status import Status, StatusNews, status_of
from reactive_rpc.client.subscriptions import QueryEntry, Subscriptions
from reactive_rpc.client.transport import CallAnswer, Transport
from reactive_rpc.client.versions import parse_version
from reactive_rpc.clock import Clock
from reactive_rpc.errors import RPCError, ServiceUnavailableError, TooManyRequestsError
from reactive_rpc.protocol.events import Ack
from reactive_rpc.protocol.headers import VERSION

__all__ = ["COALESCE_SECONDS", "HOLD_SECONDS", "Live", "Means"]

T = TypeVar("T")
logger = logging.getLogger("reactive_rpc.client")

Means = Literal["auto", "sse", "poll"]
"""How events come: `sse` is server-sent events, `poll` long poll, `auto` the one that works."""

COALESCE_SECONDS: Final = 0.01
"""How long changes of the set gather before a stream is opened for them."""

ACK_SECONDS: Final = 0.25
"""How long an acknowledgement waits for others, and behind the other receivers of its event, by no clock but the event
loop's. The server sends again what is not acknowledged within two seconds."""

HOLD_SECONDS: Final = 5.0
"""How long a newer result waits for own mutations that are under way: one that hangs must not hold it for ever."""

FETCHES_AT_ONCE: Final = 32
"""How many fetches of watches run at a time: a thousand watches that want one must not take every connection, and a
pool with a thousand waiting requests gives each of them its turn so slowly that most give up."""


class Held(AbstractAsyncContextManager[object], Protocol):
    """A query that is held; see `hold.py`."""

    async def resolved(self) -> None:
        """Wait for the first outcome, or the first failure."""
        ...


class Live:
    """The watches and readers of a client; a `Host` of its lanes. Belongs to one event loop, and to its thread."""

    def __init__(
        self, transport: Transport, *, clock: Clock, new_backoff: Callable[..., Backoff], events: Means = "auto"
    ) -> None:
        self.caller = 0
        self.refusal: Exception | None = None
        self.group: TaskGroup | None = None
        self.subscriptions = Subscriptions(self._begin_hold)
        self.mutations = OwnMutations(self.subscriptions, self._mutations_changed)
        self.status_news = StatusNews()
        self.lanes: list[Lane] = []
        self._transport = transport
        self._clock = clock
        self._may_choose = events == "auto"
        self._streaming: Channel = ServerSentEvents(transport)
        self._polling: Channel = LongPoll(transport, clock)
        self.channel: Channel = self._polling if events == "poll" else self._streaming
        self._new_backoff = new_backoff
        self._spread: Spread[QueryEntry[Any]] = Spread()
        self._announced_limits = SetLimits()
        self._met_limits: SetLimits | None = None
        self._changed = asyncio.Event()
        self._acks: dict[str, Ack] = {}
        self._ack_wanted = asyncio.Event()
        self._fetching = asyncio.Semaphore(FETCHES_AT_ONCE)
        self._stop = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None
        self._readers: set[AnswerReader[Any]] = set()

    async def open(self) -> None:
        """Start the tasks."""
        started = asyncio.Event()
        self._runner = asyncio.create_task(self._run(started), name="reactive_rpc.client")
        await started.wait()

    async def aclose(self) -> None:
        """End all watches and tasks; idempotent. Raises the error of which a task died, if one did."""
        self._stop.set()
        self.status_changed()
        runner, self._runner = self._runner, None
        if runner is not None:
            await asyncio.wait([runner])
            if not runner.cancelled():
                runner.result()

    def acquire(
        self, procedure: Procedure[T], fields: dict[str, Any] | None, known: Restored | None = None
    ) -> QueryEntry[T]:
        """Return the entry of this query, and begin to keep it right.

        Args:
            procedure: the query.
            fields: its input as JSON values; None if it takes none.
            known: its result, as another query has brought it; shown, and asked about, if nothing else is known.
        """
        entry = self.subscriptions.acquire(procedure, fields)
        if known is not None and not entry.snapshot.loading:
            entry.dispatch(known)
        if self._stop.is_set():
            entry.end()
        if self.refusal is not None:
            entry.dispatch(StreamFailed(self.refusal))
        self.fetch_wanted()
        self.status_changed()
        return entry

    def release(self, entry: QueryEntry[Any]) -> None:
        """Give an entry back."""
        self.subscriptions.release(entry)
        self._changed.set()

    def keep(self, hold: Held, seconds: float) -> None:
        """Leave a hold that was entered so long after its first outcome, or when the client closes."""
        if self.group is not None:
            self.group.start_soon(self._keep, hold, seconds, name="reactive_rpc.client.keeper")

    async def _keep(self, hold: Held, seconds: float) -> None:
        try:
            await hold.resolved()
            await self._clock.sleep(seconds)
        finally:
            await hold.__aexit__(None, None, None)

    def read(self, reader: AnswerReader[Any]) -> None:
        """Start a reader's task; if the client is closed, the reader hears so."""
        if self.group is None:
            reader.end()
            return
        self._readers.add(reader)
        self.group.start_soon(self._run_reader, reader, name="reactive_rpc.client.reader")

    async def _run_reader(self, reader: AnswerReader[Any]) -> None:
        await reader.run()
        self._readers.discard(reader)

    def reidentify(self, *, is_renewed: bool = False) -> None:
        """Begin anew with the transport's new credentials: no stream, no cursor, every result invalidated.

        Args:
            is_renewed: the caller is the same, so readers go on.
        """
        self.caller += 1
        self.refusal = None
        for lane in self.lanes:
            lane.reidentify()
        self.subscriptions.reidentify()
        for reader in () if is_renewed else self._readers:
            reader.reidentify()
        self.fetch_wanted()
        self._changed.set()
        self.status_changed()

    @property
    def is_closed(self) -> bool:
        """Whether nothing more will come."""
        return self._stop.is_set()

    @property
    def status(self) -> Status:
        """How the client stands with its server."""
        return status_of(
            self.lanes,
            clock=self._clock,
            refusal=self.refusal,
            is_polling=self.channel is self._polling,
            is_starting=any(not entry.snapshot.resolved for entry in self.subscriptions),
            waiting=self.mutations.waiting,
        )

    def status_changed(self) -> None:
        """Wake whoever follows the status, which may be another."""
        self.status_news.announce()

    def _mutations_changed(self) -> None:
        self.fetch_wanted()
        self.status_changed()

    async def _run(self, started: asyncio.Event) -> None:
        try:
            async with anyio.create_task_group() as group:
                self.group = group
                self._add_lane(group)
                group.start_soon(self._spread_for_ever, name="reactive_rpc.client.spreader")
                group.start_soon(self._acknowledge, name="reactive_rpc.client.acknowledger")
                started.set()
                await self._stop.wait()
                group.cancel_scope.cancel()
        finally:
            self.group = None
            for entry in self.subscriptions:
                entry.end()
            for reader in self._readers:
                reader.end()

    # -- streams

    @property
    def may_probe(self) -> bool:
        """Whether another channel may be tried."""
        return self._may_choose and self.channel is self._streaming

    def poll_from_now_on(self) -> None:
        """Use long poll for new streams."""
        self.channel = self._polling

    def connected(self, stream: ClientStream, limits: SetLimits | None) -> None:
        """Take in that a stream is up."""
        if stream.channel is self._polling:
            self._may_choose = False
        if limits is not None and limits != self._announced_limits:
            self._announced_limits = limits
            self._changed.set()
        self.received(stream)
        self.status_changed()

    def unconnected(self, stream: ClientStream) -> None:
        """Go back to streams if polling, which was only tried, does not work either."""
        if self._may_choose and stream.channel is self._polling:
            self.channel = self._streaming

    def received(self, stream: ClientStream) -> None:
        """Acknowledge the event that was applied, and start the fetches that it wants."""
        if stream.channel.acks and stream.connected_at is not None:
            self._acks[stream.id] = Ack(stream=stream.id, cursor=stream.cursor)
            self._ack_wanted.set()
        self.fetch_wanted()

    def refuse(self, error: Exception) -> None:
        """Give up until the caller has other credentials, and say so in every state."""
        self.refusal = error
        for lane in self.lanes:
            lane.give_up()
        self.subscriptions.fail(error, self.subscriptions)
        self.status_changed()

    def too_large(self, entries: tuple[QueryEntry[Any], ...], error: Exception) -> None:
        """Spread a set that was refused over more lanes; a query that is too large alone is refused alone."""
        if len(entries) == 1:
            entries[0].refused = error
            entries[0].dispatch(StreamFailed(error))
        else:
            met = self._limits.halved(len(entries), sum(entry.query_bytes for entry in entries))
            self._met_limits = met if self._met_limits is None else met.within(self._met_limits)
            logger.info("a set of %d queries is too large for a stream: spreading it", len(entries))
        self._respread()
        self._changed.set()

    @property
    def _limits(self) -> SetLimits:
        """The server's own limits, and those that were met on the way."""
        return self._announced_limits if self._met_limits is None else self._announced_limits.within(self._met_limits)

    async def _spread_for_ever(self) -> None:
        """Have each ready entry on a lane."""
        while True:
            await self._changed.wait()
            await self._clock.sleep(COALESCE_SECONDS)
            self._changed.clear()
            self._respread()

    def _respread(self) -> None:
        sets, left_over = self._spread.assign(self.subscriptions.ready(), self._limits)
        while len(self.lanes) < len(sets) and self.group is not None:
            self._add_lane(self.group)
        for lane, entries in zip(self.lanes, sets, strict=False):
            lane.want(entries)
        if left_over:
            self.subscriptions.fail(self._no_room(), left_over)
        self.status_changed()

    def _add_lane(self, group: TaskGroup) -> None:
        lane = Lane(self, self._transport, self._clock, self._new_backoff)
        self.lanes.append(lane)
        group.start_soon(lane.run, name="reactive_rpc.client.lane")
        group.start_soon(lane.ask_again, name="reactive_rpc.client.asker")

    def _no_room(self) -> TooManyRequestsError:
        limits = self._limits
        return TooManyRequestsError(
            f"no stream has room for this query: the server takes {limits.queries} queries and {limits.body_bytes} "
            f"bytes a stream, and {limits.streams} streams a caller; leave watches that are not shown any more"
        )

    # -- fetches

    def fetch_wanted(self) -> None:
        """Start a fetch for every entry that wants one and has none."""
        if self.group is None:
            return
        for entry in self.subscriptions:
            if not entry.snapshot.wanted:
                continue
            if entry.hurry is not None:
                if entry.snapshot.is_news and not entry.is_held_off:
                    entry.hurry()
            elif entry.cancel_fetch is None:
                scope = anyio.CancelScope()
                entry.cancel_fetch = scope.cancel
                entry.dispatch(FetchStarted())
                self.group.start_soon(self._refresh, entry, scope, name=f"fetch {entry.procedure.path}")

    async def _refresh(self, entry: QueryEntry[Any], scope: anyio.CancelScope) -> None:
        """Fetch until the result is current, or the server has given an answer that no second try would change."""
        backoff = self._new_backoff()
        with scope:
            while entry.snapshot.loading:
                error = await self._fetch(entry)
                self._changed.set()
                retry_after = retry_after_seconds(error)
                if _is_to_pause(entry.snapshot, error):
                    entry.is_held_off = retry_after > 0
                    await self._pause(entry, retry_after + backoff.next_delay())
                if entry.snapshot.wanted:
                    entry.dispatch(FetchStarted())
        entry.cancel_fetch = None

    async def _fetch(self, entry: QueryEntry[Any]) -> Exception | None:
        """Fetch once; return the failure, which also shows in the state: as an error, or as a stale result."""
        try:
            answer = await self._answer(entry)
            entry.dispatch(_fetched(entry, answer))
            if answer.is_stale:
                return ServiceUnavailableError("the server's database cannot be read", path=entry.procedure.path)
        except Exception as error:  # whatever it is, the state shows it, and the task goes on
            outcome = _outcome(error)
            if outcome is not None:
                entry.dispatch(outcome)
                return None
            report(entry.procedure.path, error)
            entry.dispatch(FetchFailed(error, answered=isinstance(error, RPCError) and not is_transient(error)))
            return error
        return None

    async def _answer(self, entry: QueryEntry[Any]) -> CallAnswer:
        """Ask for the entry; again, if the caller is another by the time the answer comes: it was the former's."""
        while True:
            caller = self.caller
            try:
                async with self._fetching:
                    etag = entry.snapshot.asked.etag
                    answer = await self._transport.call(entry.procedure, entry.fields, etag, was_notified=True)
            except Exception:  # a failure of the former caller's counts as little as an answer
                if caller == self.caller:
                    raise
            else:
                if caller == self.caller:
                    return answer
            entry.dispatch(FetchStarted())

    async def _pause(self, entry: QueryEntry[Any], seconds: float) -> None:
        """Wait before the next try of a fetch; shorter if news of the entry comes."""
        with anyio.CancelScope() as scope:
            entry.hurry = scope.cancel
            await self._clock.sleep(seconds)
        entry.hurry = None
        if not entry.snapshot.current:
            entry.dispatch(Invalidated())

    # -- results that wait for own mutations

    def _begin_hold(self, entry: QueryEntry[Any]) -> None:
        if self.group is not None:
            scope = anyio.CancelScope()
            entry.cancel_hold = scope.cancel
            self.group.start_soon(self._expire_hold, entry, scope, name="reactive_rpc.client.hold")

    async def _expire_hold(self, entry: QueryEntry[Any], scope: anyio.CancelScope) -> None:
        with scope:
            await self._clock.sleep(HOLD_SECONDS)
            entry.dispatch(HoldExpired())
            self.fetch_wanted()

    # -- acknowledgements

    async def _acknowledge(self) -> None:
        """Send the newest acknowledgement of each stream; those that came meanwhile are one. A lost one is no harm."""
        while True:
            await self._ack_wanted.wait()
            await anyio.sleep(ACK_SECONDS)
            self._ack_wanted.clear()
            acks, self._acks = self._acks, {}
            for ack in acks.values():
                try:
                    await self._transport.acknowledge(ack)
                except Exception as error:
                    report("an acknowledgement", error)


def _is_to_pause(snapshot: QuerySnapshot[Any], error: Exception | None) -> bool:
    """Tell whether the next try of a fetch that has failed so is to wait; news of the entry does not."""
    # INVARIANT (no failed fetch is tried again at once for the same own mutations): they want one until it succeeds, so
    # it would be asked for as fast as the server refuses.
    if snapshot.wanted and not snapshot.is_news:
        return error is not None
    return not snapshot.current and is_transient(error) and (retry_after_seconds(error) > 0 or not snapshot.wanted)


def _fetched(entry: QueryEntry[Any], answer: CallAnswer) -> Fetched | FetchUnchanged:
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
