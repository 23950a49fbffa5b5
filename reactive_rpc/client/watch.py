"""A watch: the latest state of one query, again and again.

A watch holds no queue. It remembers the state that its consumer has seen, and hands out the present one when that is
another: a slow consumer skips the states between, and never sees an old state after a newer one.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self, TypeVar

from reactive_rpc.client.hold import Hold
from reactive_rpc.client.live import Live
from reactive_rpc.client.procedure import Procedure
from reactive_rpc.client.state import State
from reactive_rpc.client.subscriptions import QueryEntry

__all__ = ["Watch"]

T = TypeVar("T")


class Watch(Hold[T]):
    """Follow one query: `async with hub.agents.get_all.watch() as live: async for state in live: ...`.

    The first state comes at once, while the first fetch runs (`data` is None, `is_loading` True). The iteration ends
    when the client closes. A watch is entered once.

    Args:
        live: the streams of the client.
        procedure: the query.
        fields: its input as JSON values, `{field: value}`; None if it takes none.
    """

    kind: ClassVar[str] = "watch"

    def __init__(self, live: Live, procedure: Procedure[T], fields: dict[str, Any] | None) -> None:
        super().__init__(live, procedure, fields)
        self._seen: State[T] | None = None

    @property
    def state(self) -> State[T]:
        """The present state.

        Raises:
            RuntimeError: the watch is not entered.
        """
        return self._entered().state

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> State[T]:
        state = await self.next_state()
        if state is None:
            raise StopAsyncIteration
        return state

    async def next_state(self) -> State[T] | None:
        """Wait for a state that was not handed out yet and return it; None when the watch is over.

        Raises:
            RuntimeError: the watch was never entered.
        """
        if not self._left:
            self._entered()
        while self._entry is not None and not self._entry.ended:
            self._news.clear()
            if self._entry.state is not self._seen:
                self._seen = self._entry.state
                return self._seen
            await self._news.wait()
        return None

    def _entered(self) -> QueryEntry[T]:
        if self._entry is None:
            raise RuntimeError(f"enter the watch of {self._procedure.path} first: `async with ....watch() as live:`")
        return self._entry
