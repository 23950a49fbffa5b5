"""Cursors: a client's place in the log of changes.

A cursor is `(epoch, version)`, and on databases whose versions alone do not say which commits it covers, the place
in their own terms. The version grows with the log; the epoch changes when versions of before mean nothing any more (a
restored database, new triggers). Cursors of different epochs cannot be compared: a gap.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from reactive_rpc.errors import BadRequestError

__all__ = ["Cursor"]


_TEXT: Final = re.compile(r"([^:]{1,100}):([0-9]{1,20})(?::([0-9:,]{1,1000}))?(?:@([0-9]{1,15}))?")


class Cursor(NamedTuple):
    """A place in the log; on the wire `epoch:version[:position][@moment]`, which is also the `id:` of an SSE event.

    >>> str(Cursor("Xk3", 17)), Cursor.parse("Xk3:17").version
    ('Xk3:17', 17)
    >>> Cursor.parse("Xk3:17:15:18:16").position
    '15:18:16'
    >>> str(Cursor("Xk3", 17, moment=1_800_000_000_000)), Cursor.parse("Xk3:17:15:18:16,17@9")[2:]
    ('Xk3:17@1800000000000', ('15:18:16,17', 9))

    Attributes:
        position: the database's own name of the place, for example a `pg_snapshot`; empty if the version says all.
        moment: milliseconds since 1970: the ticks up to then have been told too. None if none of what is shown
            depends on the time. A tick is no place in the log: nobody wrote it.
    """

    epoch: str
    version: int
    position: str = ""
    moment: int | None = None

    def __str__(self) -> str:
        position = f":{self.position}" if self.position else ""
        moment = "" if self.moment is None else f"@{self.moment}"
        return f"{self.epoch}:{self.version}{position}{moment}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Return the cursor that `text` spells.

        Raises:
            BadRequestError: `text` is no cursor.
        """
        found = _TEXT.fullmatch(text)
        if found is None:
            raise BadRequestError(f"{text[:80]!r} is no cursor: send back the `id:` of the last event as it was")
        moment = None if found[4] is None else int(found[4])
        return cls(found[1], int(found[2]), found[3] or "", moment)
