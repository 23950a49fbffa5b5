"""A `pg_snapshot`, as text and in numbers: which transactions of a PostgreSQL database are over.

Source: https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-PG-SNAPSHOT-PARTS
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

__all__ = ["TransactionSnapshot"]

MAX_UNDER_WAY: Final = 48
"""So many fit into the 1,000 characters that a cursor has for a position."""

_TEXT: Final = re.compile(r"([0-9]{1,19}):([0-9]{1,19}):((?:[0-9]{1,19},)*[0-9]{1,19})?")
_SPECIAL: Final = 3  # transaction ids below this, modulo 2 ** 32, are given to no transaction


@dataclass(frozen=True, slots=True)
class TransactionSnapshot:
    """Every transaction below `xmax` is over, but for those under way.

    Attributes:
        text: as the server spells it, `xmin:xmax:xip,xip`.
        xmin: everything below is over.
        xmax: nothing from here on is over.
        under_way: how many transactions between the two are not over.
    """

    text: str
    xmin: int
    xmax: int
    under_way: int

    @classmethod
    def parse(cls, text: str) -> TransactionSnapshot | None:
        """Return the snapshot that `text` spells; None where the server would refuse it.

        >>> TransactionSnapshot.parse("10:14:10,12").version
        12
        >>> wrong = ("", "10:14", "14:10:", "10:14:9", "10:14:12,11", "0:1:", "1:2:3;x")
        >>> [TransactionSnapshot.parse(text) for text in wrong]
        [None, None, None, None, None, None, None]
        """
        found = _TEXT.fullmatch(text)
        if found is None:
            return None
        xmin, xmax = int(found[1]), int(found[2])
        under_way = [int(xid) for xid in found[3].split(",")] if found[3] else []
        bounds = [xmin - 1, *under_way, xmax]
        if xmin > xmax or any(xid % 2**32 < _SPECIAL for xid in (xmin, xmax)) or xmax >= 2**63:
            return None
        if any(low >= high for low, high in pairwise(bounds)) and under_way:
            return None
        return cls(text, xmin, xmax, len(under_way))

    @property
    def version(self) -> int:
        """How many transactions are over, but for a constant: it grows with each that ends."""
        return self.xmax - self.under_way

    @property
    def position(self) -> str:
        """The snapshot for a cursor; a long one is cut down to what is surely over: it tells more, never less.

        >>> TransactionSnapshot.parse("10:14:10,12").position
        '10:14:10,12'
        >>> TransactionSnapshot.parse("1000:2000:" + ",".join(map(str, range(1000, 1200)))).position
        '1000:1000:'
        """
        return self.text if self.under_way <= MAX_UNDER_WAY else f"{self.xmin}:{self.xmin}:"
