"""`reactive.events`: the stream of invalidations as a subscription of tRPC's, for clients that know nothing else of it.

Each value names in `affected` the queries to fetch again, whatever has happened, so that a client needs no case:

    client.reactive.events.subscribe({ queries }, { onData: ({ data }) =>
      data.affected.forEach(({ path, input }) => queryClient.invalidateQueries(...)) })

`type` says what has happened: `connected`, `invalidation`, `result` or `gap`; the other fields are those of
`protocol/events.py`. The id of a value is its cursor, by which a client that comes back hears all that it has missed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import Field
from pydantic_core import from_json, to_json
from starlette.types import Scope

from reactive_rpc.errors import BadRequestError, ParseError
from reactive_rpc.protocol.events import Connected, Gap, Invalidation, QueryRef, Result, SubscriptionRequest
from reactive_rpc.protocol.sse import encode_event
from reactive_rpc.web.routing.body import decode_json_body
from reactive_rpc.web.trpc.event_words import EventWords
from reactive_rpc.web.trpc.subscriptions import last_id_of
from reactive_rpc.web.trpc.transformers import Transformer

__all__ = ["EVENTS", "WatchRequest", "WatchWords", "read_watch"]

EVENTS: Final = "reactive.events"
"""The path of the subscription; no procedure of an application's own may have it."""


class WatchRequest(SubscriptionRequest):
    """The queries of one subscription."""

    last_event_id: str | None = Field(default=None, alias="lastEventId")


def read_watch(text: bytes, *, scope: Scope, parameters: Mapping[str, str]) -> WatchRequest:
    """Return the queries that a client wants to hear of, and where it stands.

    Args:
        text: the input as JSON.
        parameters: of the URL.

    Raises:
        BadRequestError: the input does not fit.
        ParseError: it is no JSON, which is told as a bad request.
    """
    try:
        wanted = decode_json_body(WatchRequest, text or b"{}")
    except ParseError as exc:  # as of a query, see `ended_by`
        exc.code = BadRequestError.code
        raise
    wanted.acks = False  # no client of tRPC's acknowledges
    wanted.cursor = last_id_of(scope, parameters, wanted.last_event_id) or wanted.cursor
    return wanted


class WatchWords(EventWords):
    """Says the events of a stream of invalidations.

    Args:
        wanted: the queries that the stream watches.
        heartbeat_seconds: how long the stream may be silent; 0 is for ever.
        transformer: of the mount.
    """

    def __init__(self, wanted: WatchRequest, *, heartbeat_seconds: float, transformer: Transformer) -> None:
        super().__init__(EVENTS, heartbeat_seconds=heartbeat_seconds, transformer=transformer)
        self._queries = [QueryRef(path=query.path, input=query.input) for query in wanted.queries]
        # INVARIANT (who has no cursor fetches again once the stream stands): nobody knows whether a result that such a
        # client shows without an ETag is older than the stream, and a change in between would never be told.
        self._unplaced = [] if wanted.cursor else [query.etag is None for query in wanted.queries]
        self._keys: list[str | None] = []

    def _named(self, name: str, fields: Mapping[bytes, bytes]) -> bytes:
        data, id = fields.get(b"data", b""), fields.get(b"id", b"").decode()
        if name == Invalidation.name:
            said = from_json(data)
            affected = to_json(self._as_asked(said.pop("affected")))
            return self._said(name, affected, to_json(said), id=id)
        if name == Connected.name:
            affected = self._affected_at_first(from_json(data))
            return self._connected(int(fields[b"retry"])) + self._said(name, affected, data, id=id)
        if name == Gap.name:
            return self._said(name, to_json(self._all()), data, id=id)
        if name == Result.name:
            return self._said(name, to_json(self._as_asked([from_json(data)])), data, id=id)
        return super()._named(name, fields)

    def _affected_at_first(self, connected: dict[str, Any]) -> bytes:
        self._keys = connected["queries"]
        stale = {each["key"] for each in connected["stale"]}
        stale |= {key for key, is_unplaced in zip(self._keys, self._unplaced, strict=False) if is_unplaced and key}
        return to_json([each for each in self._all() if each["key"] in stale])

    def _as_asked(self, affected: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return queries with their inputs as the client has spelled them, by which it finds what it shows.

        The server tells them filled in, with the values of what was left out; and two spellings may be one query of it.
        """
        keys = {each["key"] for each in affected}
        return [each for each in self._all() if each["key"] in keys]

    def _all(self) -> list[dict[str, Any]]:
        return [
            {"path": query.path, "input": query.input, "key": key}
            for query, key in zip(self._queries, self._keys, strict=False)
        ]

    def _said(self, name: str, affected: bytes, data: bytes, *, id: str) -> bytes:
        """Return an event whose data is told with its type, and with the queries to fetch."""
        value = b'{"type":"%b","affected":%b,%b' % (name.encode(), affected, data[1:])
        return encode_event("message", self._transformer.value(value), id)
