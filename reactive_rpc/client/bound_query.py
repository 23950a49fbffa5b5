"""A query with its input: for optimistic updates, to be held, to be prefetched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from reactive_rpc.client.hold import Hold
from reactive_rpc.client.live import Live
from reactive_rpc.client.optimistic import OptimisticUpdate
from reactive_rpc.client.procedure import Procedure

__all__ = ["PREFETCHED_SECONDS", "BoundQuery"]

T = TypeVar("T")

PREFETCHED_SECONDS: Final = 30.0
"""How long a prefetched query is held: from the moment at which a user may go there until he has."""


class BoundQuery(Generic[T]):
    """One query with one input; `hub.agents.get_one.bind(agent_id="a")` makes one. Nothing is sent for it.

    Args:
        live: the streams of the client.
        procedure: the query.
        fields: its input as JSON values, `{field: value}`; None if it takes none.
    """

    def __init__(self, live: Live, procedure: Procedure[T], fields: dict[str, Any] | None) -> None:
        self._live = live
        self._procedure = procedure
        self._fields = fields

    def changed(self, change: Callable[[T], T]) -> OptimisticUpdate:
        """Return the update by which a mutation shows in this query, for its `optimistic=`.

        Args:
            change: returns the result with the mutation, and does not change the one that it is given; it may be
                called often, and is not while there is no result, or None. If it raises, the mutation does not show.
        """
        return OptimisticUpdate(self._procedure, self._fields, change)

    def hold(self) -> Hold[T]:
        """Return a hold of the query, to be entered."""
        return Hold(self._live, self._procedure, self._fields)

    async def prefetch(self, *, keep_seconds: float = PREFETCHED_SECONDS) -> None:
        """Fetch the result, and hold the query for a while; a failure is no error here, the next watch shows it.

        Args:
            keep_seconds: how long it is held then. A watch that begins meanwhile shows the result at once.
        """
        hold = self.hold()
        await hold.__aenter__()
        self._live.keep(hold, keep_seconds)
        await hold.resolved()
