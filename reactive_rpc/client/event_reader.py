"""Reads a subscription: one connection after another, until the server says that it is over.

A connection that ends without a last word was cut, and another goes on from the last id (WHATWG HTML, section 9.2:
`Last-Event-ID`). `docs/internals/client.md` says what each ending means.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, TypeVar

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from reactive_rpc.client.answer_reader import AnswerReader
from reactive_rpc.client.backoff import Backoff
from reactive_rpc.client.procedure import Procedure
from reactive_rpc.client.retrying import MAX_RETRY_SECONDS, is_transient, pause_seconds, silence_seconds
from reactive_rpc.client.transport import EVENT_STREAM, StreamedAnswer, Transport
from reactive_rpc.client.typed_error import TypedError
from reactive_rpc.clock import Clock
from reactive_rpc.errors import ConnectionFailedError, ReactiveRPCError, UnauthorizedError, WireError
from reactive_rpc.protocol.envelopes import decode_error
from reactive_rpc.protocol.headers import HEARTBEAT_SECONDS, LAST_EVENT_ID
from reactive_rpc.protocol.sse import ServerSentEvent, SSEDecoder

__all__ = ["EventReader"]

logger = logging.getLogger("reactive_rpc.client")

T = TypeVar("T")

_RESUMED_BY: Final = ("last_event_id", "lastEventId")
"""The input field from which a handler goes on, as either case spells it; the header replaces it."""


class _Event(NamedTuple, Generic[T]):
    """A value, and the id that goes with it; empty if it has none."""

    value: T
    id: str


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a connection has ended.

    Attributes:
        error: why; None if nothing says.
        is_final: whether there is no other after it.
        is_revoked: whether the right was lost, so that the next one will say why.
    """

    error: Exception | None = None
    is_final: bool = False
    is_revoked: bool = False


class EventReader(AnswerReader[T]):
    """Reads the values of one subscription.

    Args:
        transport: of the client.
        procedure: the subscription.
        fields: its input as JSON values.
        clock: the time of pauses, and of missing heartbeats.
        new_backoff: makes the delays between two tries.

    Attributes:
        last_event_id: of the last value that was taken and has one; until then, the one that the input names.
    """

    def __init__(
        self,
        transport: Transport,
        procedure: Procedure[T],
        fields: dict[str, Any] | None,
        *,
        clock: Clock,
        new_backoff: Callable[..., Backoff],
    ) -> None:
        super().__init__(procedure.path)
        given = [value for name, value in (fields or {}).items() if name in _RESUMED_BY and isinstance(value, str)]
        self._given_id: str | None = given[0] if given else None
        self._received_id: str | None = None
        self._transport = transport
        self._procedure = procedure
        self._fields = fields
        self._clock = clock
        self._backoff = new_backoff()
        self._attempt: anyio.CancelScope | None = None
        self._connected_at: float | None = None
        self._heard_at = 0.0
        self._is_listening = True

    @property
    def last_event_id(self) -> str | None:
        """The id from which another subscription would go on."""
        return self._given_id if self._received_id is None else self._received_id

    def pop(self) -> T:
        """Return the next value, which is there; see `PendingValues.pop`."""
        event: _Event[T] = self.pending.pop()
        self._received_id = event.id or self._received_id
        return event.value

    def reidentify(self) -> None:
        """Begin anew, for another caller."""
        # INVARIANT (nothing of one caller reaches the next): neither values that nobody has taken, nor an id.
        self.pending.clear()
        self._received_id = None
        self._backoff.reset()
        if self._attempt is not None:
            self._attempt.cancel()

    def _closed(self) -> None:
        return None

    async def _read(self) -> Exception | None:
        while True:
            with anyio.CancelScope() as self._attempt:
                ending = await self._read_connection()
                # INVARIANT (an answer counts only for the caller who asked): it may be here when the caller changes.
                await checkpoint_if_cancelled()
                # INVARIANT (the last id is that of the last value): all of them are taken before the next connection.
                await self.pending.emptied()
                if ending.is_final:
                    return ending.error
                await self._clock.sleep(self._pause_seconds(ending))

    def _pause_seconds(self, ending: _Ending) -> float:
        logger.info("the subscription of %s was cut: %s", self.path, ending.error or "the server has ended it")
        lasted_seconds = 0.0 if self._connected_at is None else self._clock.monotonic() - self._connected_at
        seconds = pause_seconds(self._backoff, ending.error, lasted_seconds=lasted_seconds)
        return 0.0 if ending.is_revoked and self._backoff.failures == 1 else seconds

    async def _read_connection(self) -> _Ending:
        self._connected_at = None
        try:
            opening = self._transport.stream(
                self._procedure, self._fields, media_type=EVENT_STREAM, headers=self._headers()
            )
            async with opening as answer:
                self._connected_at = self._clock.monotonic()
                self.opened.set()
                return await self._read_answer(answer)
        except Exception as error:  # whatever it is, it is raised where the values are taken
            if self._connected_at is None:
                return _Ending(error, is_final=not (self.opened.is_set() and _may_pass(error)))
            return _Ending(error, is_final=not isinstance(error, ReactiveRPCError))

    def _headers(self) -> Mapping[str, str]:
        return {} if self._received_id is None else {LAST_EVENT_ID: self._received_id}

    async def _read_answer(self, answer: StreamedAnswer) -> _Ending:
        """Read a connection to its end, or until the heartbeats are missing that it promises."""
        seconds = _promised_silence_seconds(answer)
        if seconds is None:
            return await self._read_chunks(answer)
        ending = _Ending(ConnectionFailedError(f"{self.path} was silent for {seconds:g} s: the link is dead"))
        self._heard_at, self._is_listening = self._clock.monotonic(), True
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch_silence, seconds, group.cancel_scope, name="reactive_rpc.client.watchdog")
            try:
                ending = await self._read_chunks(answer)
            except ReactiveRPCError as error:
                ending = _Ending(error)
            group.cancel_scope.cancel()
        return ending

    async def _watch_silence(self, seconds: float, scope: anyio.CancelScope) -> None:
        """End a connection that says nothing for longer than its server has promised."""
        while True:
            left = self._heard_at + seconds - self._clock.monotonic()
            if self._is_listening and left <= 0:
                scope.cancel()
                return
            await self._clock.sleep(left if left > 0 else seconds)

    async def _read_chunks(self, answer: StreamedAnswer) -> _Ending:
        decoder = SSEDecoder()
        async for chunk in answer.chunks:
            # INVARIANT (an answer counts only for the caller who asked): it may be here when the caller changes.
            await checkpoint_if_cancelled()
            ending = self._take_chunk(decoder, chunk)
            if ending is not None:
                return ending
            if decoder.retry_ms is not None:
                self._backoff.floor_seconds = min(decoder.retry_ms / 1000, MAX_RETRY_SECONDS)
            # While the consumer is slow nobody listens, so silence means nothing.
            self._is_listening = False
            await self.pending.emptied()
            self._heard_at, self._is_listening = self._clock.monotonic(), True
        return _Ending()

    def _take_chunk(self, decoder: SSEDecoder, chunk: bytes) -> _Ending | None:
        """Hand the values of a chunk on; return the ending, if one of its events says it."""
        try:
            for event in decoder.feed(chunk):
                ending = self._take_event(event)
                if ending is not None:
                    return ending
        except WireError as error:
            return _Ending(error, is_final=True)  # another connection would bring the same
        return None

    def _take_event(self, event: ServerSentEvent) -> _Ending | None:
        """Hand a value on, or return the ending; an event of another name is a newer server's."""
        match event.event:
            case "message":
                if not (event.id.isascii() and event.id.isprintable()):
                    raise WireError(f"{self.path} sent an id that no header can send back: {event.id[:80]!r}")
                self.pending.append(_Event(self._procedure.decode_output(event.data.encode()), event.id))
            case "failed":
                error = self._procedure.typed_error(decode_error(event.data.encode()))
                return _Ending(error, is_final=not _may_pass(error))
            case "ended":
                return _Ending(is_final=True)
            case "revoked":
                return _Ending(UnauthorizedError(f"the right is lost: {event.data[:200]}"), is_revoked=True)
        return None


def _may_pass(error: Exception) -> bool:
    """Tell whether another connection may do better; what an application declares is its own answer, whatever code."""
    return is_transient(error) and not isinstance(error, TypedError)


def _promised_silence_seconds(answer: StreamedAnswer) -> float | None:
    """Return how long the connection may say nothing; None if its server promises nothing."""
    try:
        seconds = float(answer.headers[HEARTBEAT_SECONDS])
    except (KeyError, ValueError):
        return None
    return None if math.isnan(seconds) else silence_seconds(seconds)
