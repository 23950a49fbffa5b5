"""The contract of an ephemeral store: all workers of one database read and write it; its entries are small, and expire.

It holds acknowledgements, tickets, sets of queries and counts of calls for whichever worker is asked next. To lose all
of them costs a retry, a new ticket, a set stored again, some calls past a limit, and never a stale answer: so a store
may forget anything at any time.

Each kind of entry has a budget, and so has each owner in each kind. An owner who is past one makes room among its own
entries, or is refused; nobody's entries ever make another's go. Entries of nobody (acknowledgements, counts) have no
budget but their kind's. An entry counts for whoever put it first, for as long as it is kept.

How each store does this: docs/internals/ephemeral-store.md.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from reactive_rpc.errors import PayloadTooLargeError, ServiceUnavailableError

__all__ = [
    "ENTRY_BYTES",
    "KINDS",
    "NOBODY",
    "UNREACHABLE",
    "Budget",
    "EntryKind",
    "EphemeralStore",
    "count_content",
    "weight_of",
]

UNREACHABLE: Final = "the ephemeral store cannot be reached: try again later"
"""What callers are told; the cause, which may name servers and files, is chained, for the log."""

EntryKind = Literal["ack", "ticket", "set", "count"]
KINDS: Final[tuple[EntryKind, ...]] = ("ack", "ticket", "set", "count")

NOBODY: Final = ""
"""The owner of what is nobody's in particular."""

ENTRY_BYTES: Final = 300
"""What an entry weighs beside its content."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much an ephemeral store may hold, in bytes.

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


def count_content(count: int) -> bytes:
    """Return the content of a count: each weighs as much as any other.

    >>> count_content(7)
    b'00000000000000000007'
    """
    return b"%020d" % count


def weight_of(content: bytes) -> int:
    """Return what an entry takes of a budget."""
    return len(content) + ENTRY_BYTES


class EphemeralStore(Protocol):
    """Entries by kind and key, each until it expires. Used on one event loop.

    Every call but `aclose` may raise `ServiceUnavailableError`: the store cannot be reached.
    """

    async def open(self) -> None:
        """Get ready; idempotent."""
        ...

    async def aclose(self) -> None:
        """Let go of everything; idempotent."""
        ...

    async def put(
        self, kind: EntryKind, entries: Mapping[str, bytes], *, ttl_seconds: float, owner: str = NOBODY
    ) -> None:
        """Put `{key: content}`, each in the place of what was there, within the owner's budget.

        Raises:
            PayloadTooLargeError: it is more than the owner may have.
            ServiceUnavailableError: there is no room, or the ephemeral store cannot be reached.
        """
        ...

    async def get(self, kind: EntryKind, key: str) -> bytes | None:
        """Return the content at `key`; None where there is none, or where it has expired."""
        ...

    async def take(self, kind: EntryKind, keys: Collection[str]) -> dict[str, bytes]:
        """Remove what stands at `keys` and return it: of all who take an entry, in any worker, one gets it."""
        ...

    async def count(self, key: str, more: int, *, ttl_seconds: float) -> int:
        """Add to the count at `key`, which begins at nought; return the sum; each who adds gets another.

        It is forgotten `ttl_seconds` after it has begun. It is an entry of nobody, of the kind `count`: past the budget
        of that kind, the counts go that would be forgotten soonest.

        Raises:
            ServiceUnavailableError: the ephemeral store cannot be reached.
        """
        ...
