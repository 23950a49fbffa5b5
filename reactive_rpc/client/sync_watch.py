"""Watches, holds and bound queries without `async`: each waits in the thread of the client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from types import TracebackType
from typing import Generic, Self, TypeVar

from reactive_rpc.client.bound_query import PREFETCHED_SECONDS, BoundQuery
from reactive_rpc.client.hold import Hold
from reactive_rpc.client.optimistic import OptimisticUpdate
from reactive_rpc.client.state import State
from reactive_rpc.client.status import Status, StatusWatch
from reactive_rpc.client.sync_iterators import PortalOwner
from reactive_rpc.client.watch import Watch

__all__ = ["SyncBoundQuery", "SyncHold", "SyncStatusWatch", "SyncWatch"]

T = TypeVar("T")


class SyncHold(Generic[T]):
    """Keep one query right: `with hub.agents.get_all.bind().hold(): ...`. See `Hold`.

    Args:
        client: whose thread runs the event loop.
        hold: the one that is entered there.
    """

    def __init__(self, client: PortalOwner, hold: Hold[T]) -> None:
        self._client = client
        self._hold = hold

    def __enter__(self) -> Self:
        if self._client.portal is not None:
            self._client.portal.call(self._hold.__aenter__)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._client.portal is not None:
            self._client.portal.call(self._hold.__aexit__, exc_type, exc, traceback)


class SyncWatch(SyncHold[T]):
    """Follow one query: `with hub.agents.get_all.watch() as live: for state in live: ...`.

    Args:
        client: whose thread runs the event loop.
        watch: the one that is followed there.
    """

    def __init__(self, client: PortalOwner, watch: Watch[T]) -> None:
        super().__init__(client, watch)
        self._watch = watch

    @property
    def state(self) -> State[T]:
        """The present state; errors as in `Watch.state`."""
        return self._watch.state

    def __iter__(self) -> Iterator[State[T]]:
        return self

    def __next__(self) -> State[T]:
        portal = self._client.portal
        state = None if portal is None else portal.call(self._watch.next_state)
        if state is None:
            raise StopIteration
        return state


class SyncStatusWatch:
    """Follow the status: `for status in hub.watch_status(): ...`. See `StatusWatch`.

    Args:
        client: whose thread runs the event loop.
        watch: the one that is followed there.
    """

    def __init__(self, client: PortalOwner, watch: StatusWatch) -> None:
        self._client = client
        self._watch = watch

    def __iter__(self) -> Iterator[Status]:
        return self

    def __next__(self) -> Status:
        portal = self._client.portal
        status = None if portal is None else portal.call(self._watch.next_status)
        if status is None:
            raise StopIteration
        return status


class SyncBoundQuery(Generic[T]):
    """One query with one input; `hub.agents.get_one.bind(agent_id="a")` makes one. See `BoundQuery`.

    Args:
        client: whose thread runs the event loop.
        bound: the one that is used there.
    """

    def __init__(self, client: PortalOwner, bound: BoundQuery[T]) -> None:
        self._client = client
        self._bound = bound

    def changed(self, change: Callable[[T], T]) -> OptimisticUpdate:
        """Return the update by which a mutation shows in this query; see `BoundQuery.changed`.

        Args:
            change: as there; called in the client's thread, so it must not call the client.
        """
        return self._bound.changed(change)

    def hold(self) -> SyncHold[T]:
        """Return a hold of the query, to be entered."""
        return SyncHold(self._client, self._bound.hold())

    def prefetch(self, *, keep_seconds: float = PREFETCHED_SECONDS) -> None:
        """Fetch the result, and hold the query for a while; see `BoundQuery.prefetch`.

        Args:
            keep_seconds: how long it is held.
        """
        if self._client.portal is not None:
            self._client.portal.call(partial(self._bound.prefetch, keep_seconds=keep_seconds))
