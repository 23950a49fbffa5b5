"""The same iterators without `async`: each value is waited for in the thread of the client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, Self, TypeVar

from anyio.from_thread import BlockingPortal

from reactive_rpc.client.iterators import AnswerIterator, EventIterator, ItemIterator

__all__ = ["PortalOwner", "SyncAnswerIterator", "SyncEventIterator", "SyncItemIterator"]

T = TypeVar("T")


class PortalOwner(Protocol):
    """A sync client: an event loop in a thread of its own."""

    @property
    def portal(self) -> BlockingPortal | None:
        """The way into the thread; None once it is closed."""
        ...


class SyncAnswerIterator(Generic[T]):
    """Hands out the values of one call; see `AnswerIterator`.

    Args:
        client: whose thread runs the event loop.
        iterator: the one that is iterated over there.
    """

    def __init__(self, client: PortalOwner, iterator: AnswerIterator[T]) -> None:
        self._client = client
        self._iterator = iterator

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        portal = self._client.portal
        try:
            return self._iterator.pop_left() if portal is None else portal.call(self._iterator.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None

    def __enter__(self) -> Self:
        """Open the connection; errors as in `AnswerIterator.__aenter__`."""
        if self._client.portal is not None:
            self._client.portal.call(self._iterator.__aenter__)
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the iteration is over, also for a thread that waits in it. Idempotent."""
        if self._client.portal is not None:
            self._client.portal.call(self._iterator.aclose)


class SyncEventIterator(SyncAnswerIterator[T]):
    """The values of a subscription: `for message in hub.messages.sent(room="kitchen"): ...`. See `EventIterator`.

    Args:
        client: whose thread runs the event loop.
        iterator: the one that is iterated over there.
    """

    def __init__(self, client: PortalOwner, iterator: EventIterator[T]) -> None:
        super().__init__(client, iterator)
        self._events = iterator

    @property
    def last_event_id(self) -> str | None:
        """The id of the last value that was handed out and has one; see `EventIterator.last_event_id`."""
        return self._events.last_event_id


class SyncItemIterator(SyncAnswerIterator[T]):
    """The values of a streamed query: `for row in hub.exports.rows(year=2026): ...`. See `ItemIterator`.

    Args:
        client: whose thread runs the event loop.
        iterator: the one that is iterated over there.
    """

    def __init__(self, client: PortalOwner, iterator: ItemIterator[T]) -> None:
        super().__init__(client, iterator)
