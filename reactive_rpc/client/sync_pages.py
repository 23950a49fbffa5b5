"""A list that is followed page by page, from code without `async`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Self, TypeVar

from reactive_rpc.client.pages import Pages, PagesState
from reactive_rpc.client.sync_iterators import PortalOwner

__all__ = ["SyncPages"]

T = TypeVar("T")


class SyncPages(Generic[T]):
    """Follow a list: `with hub.messages.get_all.pages(agent_id=...) as pages: for state in pages: ...`.

    Args:
        client: whose thread runs the event loop.
        pages: the list that is followed there.
    """

    def __init__(self, client: PortalOwner, pages: Pages[T]) -> None:
        self._client = client
        self._pages = pages

    @property
    def state(self) -> PagesState[T]:
        """The present state."""
        return self._pages.state

    def load_more(self) -> None:
        """Load the page that follows; see `Pages.load_more`."""
        if self._client.portal is not None:
            self._client.portal.call(self._pages.load_more)

    def __enter__(self) -> Self:
        if self._client.portal is not None:
            self._client.portal.call(self._pages.__aenter__)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._client.portal is not None:
            self._client.portal.call(self._pages.leave)

    def __iter__(self) -> Iterator[PagesState[T]]:
        return self

    def __next__(self) -> PagesState[T]:
        portal = self._client.portal
        state = None if portal is None else portal.call(self._pages.next_state)
        if state is None:
            raise StopIteration
        return state
