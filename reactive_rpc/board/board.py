"""The contract of a board: a place that all workers of one database read and write, for what is small and expires.

An acknowledgement reaches whichever worker the load balancer picks, a ticket is redeemed at another one than it was
made at, a set of queries is named where it was not stored. None of this is worth a row in the log, and losing all of it
costs a retry, a new ticket, a set stored again: never a stale answer. So a board may forget at any time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, Literal, Protocol

__all__ = ["UNREACHABLE", "Board", "BoardKind"]

UNREACHABLE: Final = "the board cannot be reached: try again later"
"""What callers are told; the cause, which may name servers and files, is chained, for the log."""

BoardKind = Literal["ack", "ticket", "set"]


class Board(Protocol):
    """Entries by kind and key, each until it expires. Used on one event loop.

    Every call but `aclose` may raise `ServiceUnavailableError`: what holds the board cannot be reached.
    """

    async def open(self) -> None:
        """Get ready; idempotent."""
        ...

    async def aclose(self) -> None:
        """Let go of everything; idempotent."""
        ...

    async def put(self, kind: BoardKind, entries: Mapping[str, bytes], *, ttl_seconds: float) -> None:
        """Put `{key: content}`, each in the place of what was there."""
        ...

    async def get(self, kind: BoardKind, key: str) -> bytes | None:
        """Return the content at `key`; None where there is none, or where it has expired."""
        ...

    async def take(self, kind: BoardKind, keys: Collection[str]) -> dict[str, bytes]:
        """Remove what stands at `keys` and return it: of all who take an entry, in any worker, one gets it."""
        ...
