"""Cursors: where a client stands in the log of changes.

A cursor is `(epoch, version)`. The version grows with the log; the epoch changes when versions of before mean
nothing any more (a restored database, new triggers). Cursors of different epochs cannot be compared: a gap.
"""

from __future__ import annotations

from typing import NamedTuple

from reactive_rpc.errors import BadRequestError

__all__ = ["Cursor"]


class Cursor(NamedTuple):
    """A place in the log; on the wire `epoch:version`, which is also the `id:` of an SSE event.

    >>> str(Cursor("Xk3", 17)), Cursor.parse("Xk3:17").version
    ('Xk3:17', 17)
    """

    epoch: str
    version: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.version}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Return the cursor that `text` spells.

        Raises:
            BadRequestError: `text` is no cursor.
        """
        epoch, colon, version = text.partition(":")
        if not (epoch and colon and version.isascii() and version.isdigit() and len(version) <= 20):
            raise BadRequestError(f"{text[:80]!r} is no cursor: send back the `id:` of the last event as it was")
        return cls(epoch, int(version))
