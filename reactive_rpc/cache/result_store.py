"""The public contract of a store: where results are kept for other workers, as bytes of any kind.

Nothing right rests on a store. Whoever takes a result checks what it is by its own content, and whether it still holds
by its own log (`docs/internals/cache.md`, "Results of other workers"). So a store may lose, keep too long, mix up or
fail as it likes: that costs runs of handlers. `reactive_rpc.testing.ResultStoreContract` are its tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

__all__ = ["FoundResult", "ResultStore", "StoredResult"]

FoundResult = bytes | Literal["compute", "wait"]
"""The content of a result; or `compute`, it is the caller's to compute; or `wait`, somebody else is computing it."""


@dataclass(frozen=True, slots=True)
class StoredResult:
    """A result, as a store keeps it.

    Attributes:
        name: of the query, its input and its context, and of the code: 64 hexadecimal characters.
        version: at which the result was right; it grows with each commit, and stays below 2 ** 63.
        content: for `find` to return, unchanged; at most a few bytes more than a megabyte.
        ttl_seconds: how long it is worth keeping; more than nothing.
    """

    name: str
    version: int
    content: bytes
    ttl_seconds: float


@runtime_checkable
class ResultStore(Protocol):
    """Where workers put results for each other: `ReactiveRPC(store=...)`. Used on one event loop.

    Each call may raise whatever it likes. The store is then left alone, handlers run, and `open` is called again until
    it succeeds. A call that takes too long (0.1 s for `find` beside its `wait_seconds`, 1 s for `put`, 5 s for `open`)
    is cancelled and counts as failed. What blocks belongs into a thread, as all requests wait for the event loop.
    """

    async def open(self) -> None:
        """Connect, and raise if the store does not answer; called at the start and after each failure; idempotent."""
        ...

    async def aclose(self) -> None:
        """Let go of the connections; idempotent. The store can be opened again. Nobody awaits another call."""
        ...

    async def find(
        self, name: str, *, after: int, version: int, lease_seconds: float, wait_seconds: float
    ) -> FoundResult:
        """Return the content of the result of a name, if its version is above `after`.

        If there is none, return "compute" to the first who asks, and note the lease: until `put` releases the name, or
        `lease_seconds` are over, others are answered "wait". A lease whose `version` is not above the `after` of
        whoever asks is outdated, and taken over. A store without leases returns "compute" to everybody.

        Args:
            name: as in `StoredResult`.
            after: results and leases of this version or before are known to be outdated; -1 if none are.
            version: at which the caller would compute.
            lease_seconds: how long others shall wait for the caller at most.
            wait_seconds: for so long the store may wait for the result of somebody else, if it hears of it when it is
                put, before it answers "wait"; one that does not hear of it answers at once, and is asked again.
        """
        ...

    async def put(self, results: Sequence[StoredResult], *, released: Sequence[str]) -> None:
        """Keep results, each in the place of what was there; then end the leases of the names in `released`.

        Args:
            results: at most a hundred.
            released: names for which this process has been answered "compute", and is done, with a result or without.
        """
        ...
