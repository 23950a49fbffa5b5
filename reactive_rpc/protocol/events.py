"""The events of `/rpc/events`: the request of a client, the events of a stream, and the acknowledgement.

    client -> server  SubscriptionRequest   POST {prefix}/events
    server -> client  Connected             first: the stream's cursor, and the client's results that are stale
                      Invalidation          results that one commit may have changed
                      Result                a result that did change, as it is now
                      Gap                   anything may be stale: fetch everything again
                      Revoked               the stream is over for good
    client -> server  Ack                   POST {prefix}/events/ack, cumulative

By long poll ({prefix}/events/poll) the same request is answered with a `Polled`. A browser's `EventSource` cannot send
headers: it puts a `Ticket` (POST {prefix}/events/ticket) into its URL.

Unknown fields and events are ignored on both sides: either may be the newer. A client only compares `key`s.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, Field, ValidationError

from reactive_rpc.errors import WireError
from reactive_rpc.protocol.envelopes import ErrorBody
from reactive_rpc.protocol.sse import ServerSentEvent, encode_event

__all__ = [
    "Ack",
    "Affected",
    "Connected",
    "Event",
    "Gap",
    "Invalidation",
    "Polled",
    "PolledEvent",
    "QueryRef",
    "RefusedQuery",
    "Result",
    "Revoked",
    "StreamLimits",
    "SubscriptionRequest",
    "Ticket",
    "decode_event",
]


def _is_none(value: object) -> bool:
    return value is None


class QueryRef(BaseModel):
    """A query that a client shows."""

    path: str = Field(
        description="The procedure: agents.get_all, for example. Or the URL of an endpoint, from the path on."
    )
    input: Any = Field(default=None, description="Its input; null where it takes none.")
    etag: str | None = Field(default=None, description="The ETag of the result that the client holds.")


class SubscriptionRequest(BaseModel):
    """The queries of one stream, and the client's cursor."""

    queries: list[QueryRef] = Field(description="What the stream tells of; none is an empty list.")
    cursor: str | None = Field(default=None, description="The last event's id, to resume after it.")
    acks: bool = Field(default=False, description="Whether the client acknowledges what it receives.")


class Affected(BaseModel):
    """A query whose result may have changed."""

    path: str
    input: Any = None
    key: str


class RefusedQuery(BaseModel):
    """A query that the server will not watch, and why."""

    path: str
    input: Any = None
    key: str | None = None
    error: ErrorBody


class StreamLimits(BaseModel):
    """The limits of this server for one caller."""

    queries: int = Field(description="In the set of one stream.")
    body_bytes: int = Field(description="Of a request.")
    streams: int = Field(description="Open at a time.")


class Event(BaseModel):
    """An event of a stream."""

    name: ClassVar[str]

    def encode(self, *, cursor: str | None = None, retry_ms: int | None = None) -> bytes:
        """Return the event as SSE; its own cursor, or else `cursor`, is the `id:`."""
        own: str | None = getattr(self, "cursor", None)
        return encode_event(self.name, self.model_dump_json().encode(), own or cursor, retry_ms)


class Connected(Event):
    """Always first."""

    name: ClassVar[str] = "connected"

    stream: str = Field(description="Names the stream in acknowledgements.")
    cursor: str
    queries: list[str | None] = Field(default_factory=list, description="Keys in the request's order; null: refused.")
    stale: list[Affected] = Field(default_factory=list, description="What differs from what the client holds.")
    errors: list[RefusedQuery] = Field(default_factory=list)
    version: str | None = Field(
        default=None,
        exclude_if=_is_none,
        description="Of what is watched and not stale, the results are as at this version of the log.",
    )
    scope: str | None = Field(
        default=None, exclude_if=_is_none, description="The caller's `reactive-scope`; left out where nobody was asked."
    )
    limits: StreamLimits | None = Field(
        default=None, exclude_if=_is_none, description="How much may be watched; the rest belongs on a further stream."
    )
    heartbeat_seconds: float | None = Field(
        default=None,
        gt=0,
        exclude_if=_is_none,
        description="The stream is never silent for longer, be it by a comment; left out, silence means nothing.",
    )


class Invalidation(Event):
    """One commit."""

    name: ClassVar[str] = "invalidation"

    cursor: str
    affected: list[Affected] = Field(default_factory=list)
    tables: list[str] = Field(default_factory=list)
    version: str | None = Field(
        default=None,
        exclude_if=_is_none,
        description="A result that reflects this version of the log shows the commit. Left out: none is known to.",
    )
    event_id: str = Field(description="The same when the event is sent again.")
    retry: int | None = Field(default=None, exclude_if=_is_none, description="The how-manieth time it is sent again.")


class Result(Event):
    """The new result of one query, sent in the place of an invalidation; an error never is."""

    name: ClassVar[str] = "result"

    cursor: str
    path: str
    input: Any = None
    key: str
    etag: str = Field(description="As the answer to a call would have it.")
    version: str | None = Field(
        default=None, exclude_if=_is_none, description="The version of the log that it reflects exactly, where known."
    )
    data: Any = Field(description="The result, as the answer to a call would have it.")
    event_id: str = Field(description="The same when the event is sent again.")
    retry: int | None = Field(default=None, exclude_if=_is_none, description="The how-manieth time it is sent again.")


class Gap(Event):
    """Something was missed."""

    name: ClassVar[str] = "gap"

    cursor: str
    reason: str = ""


class Revoked(Event):
    """The caller may not listen any more."""

    name: ClassVar[str] = "revoked"

    reason: str = ""


class PolledEvent(BaseModel):
    """One event as a long poll tells it."""

    event: str = Field(description="Its name: connected, invalidation, result, gap or revoked.")
    id: str | None = Field(default=None, description="The cursor, where the event has one.")
    data: Any = None


class Polled(BaseModel):
    """The answer to a long poll: `connected` first, then the events since; send `cursor` with the next."""

    cursor: str
    events: list[PolledEvent]


class Ticket(BaseModel):
    """Stands for the credentials that it was asked for with: once, in GET {prefix}/events?ticket=..."""

    ticket: str = Field(description="Goes into the URL, and is then used up.")
    expires_in: float = Field(description="Seconds.")


class Ack(BaseModel):
    """Everything up to `cursor` has arrived."""

    stream: str
    cursor: str


_BY_NAME: dict[str, type[Event]] = {event.name: event for event in (Connected, Invalidation, Result, Gap, Revoked)}


def decode_event(event: ServerSentEvent) -> Event | None:
    """Return the event; None if its name is not known here.

    Raises:
        WireError: the name is known and the data does not fit it.
    """
    event_class = _BY_NAME.get(event.event)
    if event_class is None:
        return None
    try:
        return event_class.model_validate_json(event.data)
    except ValidationError as exc:
        raise WireError(f"the stream's {event.event!r} event is malformed: {event.data[:200]!r}") from exc
