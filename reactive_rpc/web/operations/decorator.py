"""`@reactive`: an existing path operation whose results are cached and can be watched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, overload

from starlette.responses import Response

from reactive_rpc.errors import DefinitionError
from reactive_rpc.procedures.cache_options import Cache
from reactive_rpc.web.operations.opened import find_open
from reactive_rpc.web.operations.path_operation import PathOperation, SolvedRequest

__all__ = ["reactive"]

P = ParamSpec("P")
R = TypeVar("R")


@overload
def reactive(function: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def reactive(
    *, cache: Cache | None = None, rpc: Callable[[], object] | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def reactive(
    function: Callable[..., Any] | None = None,
    /,
    *,
    cache: Cache | None = None,
    rpc: Callable[[], object] | None = None,
) -> Any:
    """Keep the results of an existing GET endpoint, and let clients watch its URLs.

    It stands below the decorator of the route. URL, document, dependencies and middlewares stay FastAPI's own and run
    for each request; the function runs if nothing is kept for its arguments, on the session that is watched. The
    route's `response_model` and its other options decide the answer.

        @app.get("/api/v1/seats", response_model=list[Seat])
        @reactive
        def read_seats(session: SessionDep, user: CurrentUser, skip: int = 0) -> list[Seat]: ...

    Args:
        function: the endpoint.
        cache: how its results are kept.
        rpc: returns the `ReactiveRPC` that keeps them; the one that is open in this process if left out.

    Raises:
        DefinitionError: the endpoint cannot be kept; the message says why and the way out.
    """
    if cache is not None and not isinstance(cache, Cache):
        raise DefinitionError(f"reactive(cache={cache!r}): give a Cache(...), or leave @reactive out")
    if cache is not None and cache.push != "invalidation":
        raise DefinitionError(
            f"reactive(cache=Cache(push={cache.push!r})): streams are not sent what an endpoint answers, as its route "
            "writes it for HTTP: leave push out, and clients fetch the URL again"
        )

    async def answer(operation: PathOperation, found: SolvedRequest) -> Response:
        return await find_open(rpc).answer(operation, found)

    def decorate(decorated: Callable[..., Any]) -> Callable[..., Any]:
        return PathOperation(decorated, cache or Cache(), answer).endpoint()

    return decorate if function is None else decorate(function)
