r"""The events of a subscription, said as tRPC's clients read them; whole chunks in, whole chunks out.

    retry: 2817                      ->  event: connected, data: {"reconnectAfterInactivityMs": 37500}, retry: 2817
    id: 7, data: X                   ->  as it is
    : (a comment)                    ->  event: ping
    event: ended                     ->  event: return
    event: failed, event: revoked    ->  event: serialized-error, data: the shape of the error

Source: tRPC v11, `packages/server/src/unstable-core-do-not-import/stream/sse.ts`. An event without `data:` is never
dispatched (WHATWG HTML, 9.2.6), and a comment is not heard by the client's own timer: so a ping is an event with data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from reactive_rpc.errors import RPCError, UnauthorizedError
from reactive_rpc.protocol.envelopes import decode_error
from reactive_rpc.protocol.events import Revoked
from reactive_rpc.protocol.sse import encode_event
from reactive_rpc.web.trpc.envelopes import shape_of
from reactive_rpc.web.trpc.transformers import Transformer

__all__ = ["EventWords"]

PING: Final = encode_event("ping", b"")
RETURN: Final = encode_event("return", b"")

INACTIVE_FACTOR: Final = 1.5
"""A stream that has been silent for so many times as long as it may be is dead, also on a slow way."""


class EventWords:
    """Translates the chunks of one stream, each of which is whole events.

    Args:
        path: of the subscription.
        heartbeat_seconds: how long the stream may be silent; 0 is for ever.
        transformer: of the mount.
    """

    def __init__(self, path: str, *, heartbeat_seconds: float, transformer: Transformer) -> None:
        self._path = path
        self._transformer = transformer
        self._inactive_ms = round(heartbeat_seconds * 1000 * INACTIVE_FACTOR)
        self._is_connected = False

    def translated(self, chunk: bytes) -> bytes:
        """Return the bytes that a client of tRPC's is sent for a chunk."""
        # An event holds no blank line, as its data is JSON in one line, or has each line's break spelled as a field.
        return b"".join(map(self._event, chunk.split(b"\n\n")[:-1]))

    def failed(self, error: RPCError) -> bytes:
        """Return all of a stream that could not begin: clients end at any other status than 200, and say nothing."""
        return self._connected(None) + self._error(error)

    def _event(self, event: bytes) -> bytes:
        fields = {name: value for name, _, value in (line.partition(b": ") for line in event.split(b"\n"))}
        name = fields.get(b"event", b"message")
        if name == b"message":
            return self._message(event, fields)
        return self._named(name.decode(), fields)

    def _named(self, name: str, fields: Mapping[bytes, bytes]) -> bytes:
        """Return an event that has a name.

        Raises:
            ValueError: no stream of this kind has such.
        """
        if name == "ended":
            return RETURN
        if name == "failed":
            return self._error(decode_error(fields[b"data"]))
        if name == Revoked.name:
            reason = Revoked.model_validate_json(fields[b"data"]).reason
            return self._error(UnauthorizedError(reason or "the server has ended the stream for good", path=self._path))
        raise ValueError(f"a subscription says nothing called {name!r}")

    def _message(self, event: bytes, fields: Mapping[bytes, bytes]) -> bytes:
        if b"data" in fields and self._transformer.is_plain:
            return event + b"\n\n"
        if b"data" in fields:
            id = fields[b"id"].decode() if b"id" in fields else None
            return encode_event("message", self._transformer.value(fields[b"data"], self._path), id)
        if b"retry" in fields and not self._is_connected:
            return self._connected(int(fields[b"retry"]))
        return PING

    def _connected(self, retry_ms: int | None) -> bytes:
        """Return the first event.

        The time after which an EventSource comes back is below that after which tRPC's client gives it up: else the
        client's own timer always wins, and the server is never told the last id in the header.
        """
        self._is_connected = True
        if not self._inactive_ms:
            return encode_event("connected", b"{}", retry_ms=retry_ms)
        if retry_ms is not None:
            retry_ms = min(retry_ms, max(1, self._inactive_ms // 2))
        data = b'{"reconnectAfterInactivityMs":%d}' % self._inactive_ms
        return encode_event("connected", data, retry_ms=retry_ms)

    def _error(self, error: RPCError) -> bytes:
        return encode_event("serialized-error", self._transformer.value(shape_of(error)))
