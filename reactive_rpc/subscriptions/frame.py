"""A frame: one event as the bytes that go out, encoded once for all the streams that are sent it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic_core import to_json

from reactive_rpc.protocol.events import Affected, Event, Gap, Invalidation, Result, Revoked, decode_event
from reactive_rpc.protocol.sse import SSEDecoder, encode_event

__all__ = ["Frame", "gap_frame", "invalidation_frame", "result_frame", "revoked_frame"]

_END = b"}\n\n"
_MARKED = frozenset({Invalidation.name, Result.name})


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One event.

    Attributes:
        name: of the event.
        version: up to which whoever has received it has been notified of everything.
        cursor: the same, as the wire says it; empty if the event has none.
        wire: the bytes.
        affected: the queries that it is about.
    """

    name: str
    version: int
    cursor: str
    wire: bytes
    affected: tuple[Affected, ...] = ()

    def event(self) -> Event:
        """Return what the bytes say."""
        [sent] = SSEDecoder().feed(self.wire)
        event = decode_event(sent)
        if event is None:
            raise ValueError(f"{self.name!r} is no event")
        return event

    def again(self, tries: int) -> bytes:
        """Return the bytes of a further try, marked as such if the event knows a mark.

        The data is JSON and an object, so the mark can be put in front of the brace that ends it.
        """
        if self.name not in _MARKED:
            return self.wire
        return b'%b,"retry":%d%b' % (self.wire.removesuffix(_END), tries, _END)


def invalidation_frame(
    version: int,
    cursor: str,
    affected: Iterable[Affected],
    tables: Iterable[str],
    event_id: str,
    *,
    shown_at: str | None = None,
) -> Frame:
    """Return the frame of an invalidation of these queries by changes of these tables.

    Args:
        shown_at: a version that shows the changes, as the wire says it; None if none is known to.
    """
    named = tuple(affected)
    event = Invalidation(
        cursor=cursor, affected=list(named), tables=sorted(tables), event_id=event_id, version=shown_at
    )
    return Frame(event.name, version, cursor, event.encode(), named)


def result_frame(
    version: int,
    cursor: str,
    affected: Affected,
    event_id: str,
    *,
    etag: str,
    body: bytes,
    reflects: str | None = None,
) -> Frame:
    """Return the frame of a result: the body's bytes as they are, neither parsed nor encoded again.

    Args:
        reflects: the version that the result reflects exactly, as the wire says it; None if it is not known.
    """
    data = b'{"cursor":%b,%b,"etag":%b,%b"data":%b,"event_id":%b}' % (
        to_json(cursor),
        affected.model_dump_json().encode()[1:-1],
        to_json(etag),
        b"" if reflects is None else b'"version":%b,' % to_json(reflects),
        body,
        to_json(event_id),
    )
    return Frame(Result.name, version, cursor, encode_event(Result.name, data, cursor), (affected,))


def gap_frame(version: int, cursor: str, reason: str) -> Frame:
    """Return the frame of a gap."""
    return Frame(Gap.name, version, cursor, Gap(cursor=cursor, reason=reason).encode())


def revoked_frame(event: Revoked) -> Frame:
    """Return the frame of the end of a stream."""
    return Frame(event.name, 0, "", event.encode())
