"""A context that is a query, as it was found for one call: whether it still holds, and how to find it again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass

from reactive_rpc.cache.reader import Reader
from reactive_rpc.cache.result import CachedResult
from reactive_rpc.procedures.context import Context

__all__ = ["ContextNotes", "FoundContext"]


@dataclass(frozen=True, slots=True)
class FoundContext:
    """A context that is a query, as it was found for a call; an `AskedContext`.

    Attributes:
        made: the context.
        result: its outcome.
    """

    made: Context
    result: CachedResult
    reader: Reader
    find: Callable[[], Awaitable[FoundContext]]

    @property
    def holds(self) -> bool:
        """Whether it still is the outcome, as far as this worker has read the log."""
        return self.reader.holds(self.result)

    async def again(self) -> FoundContext:
        """Find it once more, for the same caller.

        Raises:
            RPCError: it has refused.
        """
        return await self.find()


_noting: ContextVar[ContextNotes | None] = ContextVar("reactive_rpc_noting", default=None)


class ContextNotes:
    """Takes the contexts that are queries, as FastAPI finds them within its block; by no `contextmanager`, as each call
    with a context has one."""

    __slots__ = ("_found", "_token")

    def __enter__(self) -> ContextNotes:
        self._found: list[FoundContext] = []
        self._token = _noting.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _noting.reset(self._token)

    @staticmethod
    def add(found: FoundContext) -> None:
        """Note how a context was found, for whoever wants to know."""
        notes = _noting.get()
        if notes is not None:
            notes._found.append(found)

    def of(self, ctx: object) -> FoundContext | None:
        """Return how a context was found; None if it is no query."""
        for found in self._found:
            if found.made is ctx:
                return found
        return None
