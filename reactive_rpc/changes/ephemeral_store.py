"""The contract of a board: a place that all workers of one database read and write, for what is small and expires.

An acknowledgement reaches whichever worker the load balancer picks, a ticket is redeemed at another one than it was
made at, a set of queries is named where it was not stored. None of this is worth a row in the log, and losing all of it
costs a retry, a new ticket, a set stored again: never a stale answer. So a board may forget at any time.

**Budgets.** Each kind has a budget of its own, and in each kind so has each owner: whoever the entries are put for.
Past its own budget, or where the kind's is used up, an owner makes room among its own entries: those that would expire
soonest are forgotten. What does not fit even then is refused. So nobody's entries ever make another's go. Entries of
nobody (acknowledgements, which come by the thousand, for streams whose owner is not known where they arrive) have no
budget but their kind's. An entry counts for whoever put it first, for as long as it is kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from reactive_rpc.errors import PayloadTooLargeError, ServiceUnavailableError

__all__ = ["ENTRY_BYTES", "KINDS", "NOBODY", "UNREACHABLE", "BoardKind", "Budget", "EphemeralStore", "weight_of"]

UNREACHABLE: Final = "the board cannot be reached: try again later"
"""What callers are told; the cause, which may name servers and files, is chained, for the log."""

BoardKind = Literal["ack", "ticket", "set"]
KINDS: Final[tuple[BoardKind, ...]] = ("ack", "ticket", "set")

NOBODY: Final = ""
"""The owner of what is nobody's in particular."""

ENTRY_BYTES: Final = 300
"""What an entry weighs beside its content."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What may stand on a board, in bytes.

    Attributes:
        max_bytes: of each kind.
        max_bytes_per_owner: of each kind, of one owner.
    """

    max_bytes: int = 64 * 1024 * 1024
    max_bytes_per_owner: int = 4 * 1024 * 1024

    def of(self, owner: str) -> int:
        """Return what an owner may have of a kind."""
        return self.max_bytes if owner == NOBODY else min(self.max_bytes_per_owner, self.max_bytes)

    def to_free(self, owner: str, given: int, *, own: int, all_of_kind: int) -> int:
        """Return how many bytes of its own an owner must let go of for `given` bytes more.

        Args:
            own: what the owner has of the kind, without what is put anew.
            all_of_kind: what all have.

        Raises:
            PayloadTooLargeError: it is more than one owner may have.
            ServiceUnavailableError: there is not so much, as others have the rest.
        """
        allowed = self.of(owner)
        if given > allowed:
            name = "max_stored_bytes" if owner == NOBODY else "max_stored_bytes_per_identity"
            raise PayloadTooLargeError(f"{given} bytes to be stored at once: the limit is {allowed} ({name})")
        needed = max(own + given - allowed, all_of_kind + given - self.max_bytes, 0)
        if needed > own:
            raise self.full()
        return needed

    def full(self) -> ServiceUnavailableError:
        """Return what is raised where others have used a kind's budget up."""
        return ServiceUnavailableError(
            f"as much is stored as may be: {self.max_bytes} bytes of this kind (max_stored_bytes); try again later",
            headers={"retry-after": "30"},
        )


def weight_of(content: bytes) -> int:
    """Return what an entry takes of a budget."""
    return len(content) + ENTRY_BYTES


class EphemeralStore(Protocol):
    """Entries by kind and key, each until it expires. Used on one event loop.

    Every call but `aclose` may raise `ServiceUnavailableError`: what holds the board cannot be reached.
    """

    async def open(self) -> None:
        """Get ready; idempotent."""
        ...

    async def aclose(self) -> None:
        """Let go of everything; idempotent."""
        ...

    async def put(
        self, kind: BoardKind, entries: Mapping[str, bytes], *, ttl_seconds: float, owner: str = NOBODY
    ) -> None:
        """Put `{key: content}`, each in the place of what was there, within the owner's budget.

        Raises:
            PayloadTooLargeError: it is more than the owner may have.
            ServiceUnavailableError: there is no room, or the board cannot be reached.
        """
        ...

    async def get(self, kind: BoardKind, key: str) -> bytes | None:
        """Return the content at `key`; None where there is none, or where it has expired."""
        ...

    async def take(self, kind: BoardKind, keys: Collection[str]) -> dict[str, bytes]:
        """Remove what stands at `keys` and return it: of all who take an entry, in any worker, one gets it."""
        ...
