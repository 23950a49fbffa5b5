"""Server-sent events: an encoder and a push decoder, without I/O.

Source: WHATWG HTML, section 9.2.5 (parsing) and 9.2.6 (interpreting an event stream).

The decoder splits *bytes* into lines before it decodes: CR and LF never occur inside a UTF-8 sequence, so a character
cut by a chunk border needs no incremental decoder. A chunk that ends in CR ends its line at once, and an LF that opens
the next chunk is then skipped: waiting for it would hold the last event back until the next one comes.
Rejected: decoding with httpx-sse, which dispatches an empty event for a comment once an id was seen.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from reactive_rpc.errors import WireError

__all__ = ["MAX_EVENT_BYTES", "SSEDecoder", "ServerSentEvent", "encode_event"]

MAX_EVENT_BYTES: Final = 16 * 1024 * 1024
"""The most that the decoder holds of one line, or of one event's data, before it gives up."""

_BOM: Final = b"\xef\xbb\xbf"
_RETRY_DIGITS: Final = 15
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_FORBIDDEN: Final = re.compile(r"[\r\n\0]")


class ServerSentEvent(NamedTuple):
    """One dispatched event.

    Attributes:
        event: its name; `message` if the stream gives none.
        data: the data lines, joined by LF.
        id: the last event id at this event, which an earlier event may have set; empty if none was.
    """

    event: str
    data: str
    id: str


def encode_event(name: str, data: bytes, id: str | None = None, retry_ms: int | None = None) -> bytes:
    r"""Return one event as it goes onto the wire.

    Args:
        name: for `addEventListener`; no CR, LF or NUL. That of `message` is left out, as it is the default.
        data: UTF-8; each of its lines becomes a `data:` line, so that CR and CRLF arrive as LF.
        id: the next `Last-Event-ID`; no CR, LF or NUL.
        retry_ms: how long the client waits before it reconnects.

    Raises:
        ValueError: the name or the id holds a CR, LF or NUL.

    >>> encode_event("gap", b"{}", id="Xk3:17")
    b'event: gap\nid: Xk3:17\ndata: {}\n\n'
    """
    head = "" if name == "message" else f"event: {_checked('name', name)}\n"
    if id is not None:
        head += f"id: {_checked('id', id)}\n"
    if retry_ms is not None:
        head += f"retry: {retry_ms:d}\n"
    if b"\n" in data or b"\r" in data:
        data = b"\ndata: ".join(_LINE_END.split(data))
    return b"%bdata: %b\n\n" % (head.encode(), data)


def _checked(what: str, text: str) -> str:
    if _FORBIDDEN.search(text):
        raise ValueError(f"the {what} of an event holds no CR, LF or NUL: {text!r}")
    return text


class SSEDecoder:
    r"""Turn chunks of a byte stream into events, whatever the chunks' borders.

    One decoder belongs to one connection. An event that the stream does not end with a blank line is dropped.

    Attributes:
        last_event_id: the id of the last finished event, also of one without data, which is not dispatched.
        retry_ms: the last reconnection time that the stream asked for, in milliseconds; None if it did not.

    >>> decoder = SSEDecoder()
    >>> decoder.feed(b"id: 1\nda"), decoder.feed(b"ta: a\n\n")
    ([], [ServerSentEvent(event='message', data='a', id='1')])
    """

    def __init__(self, *, max_bytes: int = MAX_EVENT_BYTES) -> None:
        self.last_event_id = ""
        self.retry_ms: int | None = None
        self._max_bytes = max_bytes
        self._tail = bytearray()
        self._at_start = True
        self._skip_lf = False
        self._event = ""
        self._data: list[str] = []
        self._data_bytes = 0
        self._id = ""

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Return the events that `chunk` completes, in order.

        Raises:
            WireError: a line, or the data of one event, is over `max_bytes`; the stream is then beyond repair.
        """
        events = []
        for line in self._split(chunk):
            if line:
                self._take(line)
                continue
            event = self._dispatch()
            if event is not None:
                events.append(event)
        return events

    def _split(self, chunk: bytes) -> list[bytes]:
        """Return the lines that `chunk` completes, without their ends; keep the rest."""
        if not chunk:
            return []
        if self._skip_lf and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._skip_lf = chunk.endswith(b"\r")
        *lines, rest = _LINE_END.split(chunk)
        if not lines:
            self._tail += rest
        else:
            lines[0] = bytes(self._tail) + lines[0]
            self._tail = bytearray(rest)
            lines[0] = self._without_bom(lines[0])
        self._check_size(max(len(self._tail), *map(len, lines)) if lines else len(self._tail))
        return lines

    def _without_bom(self, line: bytes) -> bytes:
        """Return the line; the stream's first one without a byte order mark."""
        at_start, self._at_start = self._at_start, False
        return line.removeprefix(_BOM) if at_start else line

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise WireError(f"an event of the stream is over {self._max_bytes} bytes; raise max_bytes if that is meant")

    def _take(self, line: bytes) -> None:
        """Interpret one line that is not blank; a comment or an unknown field changes nothing."""
        name, _, raw = line.partition(b":")
        value = raw.removeprefix(b" ")
        if name == b"data":
            self._data_bytes += len(value) + 1
            self._check_size(self._data_bytes)
            self._data.append(value.decode(errors="replace"))
        elif name == b"event":
            self._event = value.decode(errors="replace")
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode(errors="replace")
        elif name == b"retry" and value.isdigit() and len(value) <= _RETRY_DIGITS:
            self.retry_ms = int(value)

    def _dispatch(self) -> ServerSentEvent | None:
        """End the event at a blank line; None if it has no data, though its id is kept."""
        name, data = self._event, self._data
        self._event, self._data, self._data_bytes = "", [], 0
        self.last_event_id = self._id
        if not data:
            return None
        return ServerSentEvent(name or "message", "\n".join(data), self._id)
