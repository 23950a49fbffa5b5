"""The applications that are open in this process: how a path operation finds the one that keeps its results.

Routers are imported before there is an application, and import none. So this is the one thing that modules share by a
variable: those that are open now, added and removed by whoever opens and closes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from starlette.responses import Response

from reactive_rpc.errors import DefinitionError
from reactive_rpc.web.operations.path_operation import PathOperation, SolvedRequest

__all__ = ["Answering", "find_open", "opened"]


class Answering(Protocol):
    """Answers requests to path operations."""

    async def answer(self, operation: PathOperation, found: SolvedRequest) -> Response:
        """Answer a request that FastAPI has let through; see `Operations.answer`."""
        ...


_OPEN: Final[dict[int, tuple[object, Answering]]] = {}


@contextmanager
def opened(rpc: object, operations: Answering) -> Iterator[None]:
    """Have the path operations of a `ReactiveRPC` found while it is open."""
    _OPEN[id(rpc)] = rpc, operations
    try:
        yield
    finally:
        del _OPEN[id(rpc)]


def find_open(rpc: Callable[[], object] | None) -> Answering:
    """Return the path operations of the one that is open, or of the one that `rpc` returns.

    Raises:
        DefinitionError: there is none, or there are several.
    """
    if rpc is not None:
        found = _OPEN.get(id(rpc()))
        if found is None:
            raise DefinitionError(f"@reactive(rpc=...) names {rpc()!r}, which is not open: open it by its lifespan")
        return found[1]
    if len(_OPEN) != 1:
        raise DefinitionError(
            f"@reactive needs one open ReactiveRPC, and there are {len(_OPEN)}: "
            + (
                "say which, @reactive(rpc=lambda: rpc)"
                if _OPEN
                else "give its lifespan, FastAPI(lifespan=rpc.lifespan)"
            )
        )
    return next(iter(_OPEN.values()))[1]
