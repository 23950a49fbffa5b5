"""JSON lines: one value a line, an encoder and a push decoder, without I/O.

A line that begins with `{"error":` is an error envelope, and the last. A value that would begin so is sent with a space
before it, which is JSON all the same.
"""

from __future__ import annotations

from typing import Final

from reactive_rpc.errors import WireError

__all__ = ["MAX_LINE_BYTES", "JSONLinesDecoder", "encode_line", "is_error"]

MAX_LINE_BYTES: Final = 16 * 1024 * 1024
"""The most that the decoder holds of one line before it gives up."""

_ERROR: Final = b'{"error":'


def encode_line(value: bytes) -> bytes:
    r"""Return a value as a line.

    Args:
        value: JSON without line breaks.

    >>> encode_line(b"1"), encode_line(b'{"error":"none"}')
    (b'1\n', b' {"error":"none"}\n')
    """
    return b"%b%b\n" % (b" " if is_error(value) else b"", value)


def is_error(line: bytes) -> bool:
    """Tell whether a line is an error envelope."""
    return line.startswith(_ERROR)


class JSONLinesDecoder:
    r"""Turn chunks of a byte stream into lines, whatever the chunks' borders; empty lines say nothing.

    >>> decoder = JSONLinesDecoder()
    >>> decoder.feed(b"1\n2"), decoder.is_in_line, decoder.feed(b"3\n\n"), decoder.is_in_line
    ([b'1'], True, [b'23'], False)
    """

    def __init__(self, *, max_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._tail = bytearray()

    @property
    def is_in_line(self) -> bool:
        """Whether a line has begun and not ended."""
        return bool(self._tail)

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that `chunk` completes, without their ends.

        Raises:
            WireError: a line is over `max_bytes`.
        """
        first, *rest = chunk.split(b"\n")
        self._tail += first
        lines = []
        for part in rest:
            lines.append(bytes(self._tail))
            self._tail = bytearray(part)
        if max(len(self._tail), *map(len, lines), 0) > self._max_bytes:
            raise WireError(f"a line of the answer is over {self._max_bytes} bytes")
        return [line for line in lines if line.strip()]
