"""Which stream watches which queries: more than one stream may carry are spread over several.

A server says in `connected` how many queries and bytes the set of one stream may have, and how many streams a caller.
Until it has, its defaults are assumed. What stands between may allow less (a proxy that bounds bodies): a set that is
refused as too large is halved, and so are all later ones.

A query stays on its stream for as long as that has room, so that a change of the set opens one stream anew and no
other. What finds no room is left over, and says so itself: it takes no other one down. One stream short of what the
caller may have is used, since a stream that replaces another is open beside it for a moment.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, Protocol, TypeVar

__all__ = ["SetLimits", "Spread", "query_bytes"]

HEAD_BYTES: Final = 2048
"""The bytes of a set beside its queries: the cursor, above all."""

QUERY_HEAD_BYTES: Final = 120
"""The bytes of a query beside its path and input: its ETag, and the names of all these."""


class Sized(Protocol):
    """A query, as far as room matters."""

    @property
    def query_bytes(self) -> int:
        """How much of a request it takes, at most."""
        ...


S = TypeVar("S", bound=Sized)


@dataclass(frozen=True, slots=True)
class SetLimits:
    """The limits of a server; its defaults, until it says.

    Attributes:
        queries: in the set of one stream.
        body_bytes: of the request that opens it.
        streams: of one caller.
    """

    queries: int = 1000
    body_bytes: int = 1024 * 1024
    streams: int = 100

    @property
    def lanes(self) -> int:
        """How many streams are used at most."""
        return max(1, self.streams - 1)

    def halved(self, queries: int, size_bytes: int) -> SetLimits:
        """Return the limits after a set of this size was refused: half of its queries are taken, and the head."""
        return replace(self, queries=max(1, (queries + 1) // 2), body_bytes=HEAD_BYTES + (size_bytes + 1) // 2)

    def within(self, other: SetLimits) -> SetLimits:
        """Return the lower of each."""
        return SetLimits(
            max(1, min(self.queries, other.queries)),
            max(1, min(self.body_bytes, other.body_bytes)),
            max(1, min(self.streams, other.streams)),
        )

    def take(self, queries: int, size_bytes: int) -> bool:
        """Tell whether a set of this size may be sent; a query alone is always tried."""
        return queries <= 1 or (queries <= self.queries and size_bytes + HEAD_BYTES <= self.body_bytes)


def query_bytes(path: str, fields: dict[str, Any] | None) -> int:
    """Return how much of a request a query takes, at most: non-ASCII text may go as escapes."""
    return QUERY_HEAD_BYTES + len(path) + len(json.dumps(fields))


class Spread(Generic[S]):
    """Remembers on which of the lanes each query is."""

    def __init__(self) -> None:
        self._lanes: list[list[S]] = []

    def assign(self, queries: Iterable[S], limits: SetLimits) -> tuple[list[tuple[S, ...]], list[S]]:
        """Return the set of each lane, and the queries that find no room; a lane may be empty."""
        wanted = dict.fromkeys(queries)
        size_bytes = sum(query.query_bytes for query in wanted)
        if sum(map(bool, self._lanes)) > 1 and limits.take(2 * len(wanted), 2 * size_bytes):
            self._lanes = [[query for lane in self._lanes for query in lane]]  # half a lane is enough for all
        lanes: list[_LanePlan[S]] = [_LanePlan(limits) for _ in self._lanes]
        for lane, before in zip(lanes[: limits.lanes], self._lanes, strict=False):
            for query in before:
                if query in wanted and lane.add(query):
                    del wanted[query]
        left_over = [query for query in wanted if not _place(query, lanes, limits)]
        self._lanes = [lane.queries for lane in lanes]
        return [tuple(lane) for lane in self._lanes], left_over


class _LanePlan(Generic[S]):
    def __init__(self, limits: SetLimits) -> None:
        self.queries: list[S] = []
        self._limits = limits
        self._bytes = 0

    def add(self, query: S) -> bool:
        """Take a query in, if there is room."""
        size_bytes = self._bytes + query.query_bytes
        if not self._limits.take(len(self.queries) + 1, size_bytes):
            return False
        self.queries.append(query)
        self._bytes = size_bytes
        return True


def _place(query: S, lanes: list[_LanePlan[S]], limits: SetLimits) -> bool:
    """Put a query onto the first lane that has room, or a new one, if there may be one more."""
    candidates: Sequence[_LanePlan[S]] = lanes[: limits.lanes]
    if any(lane.add(query) for lane in candidates):
        return True
    if len(lanes) >= limits.lanes:
        return False
    lanes.append(_LanePlan(limits))
    return lanes[-1].add(query)
