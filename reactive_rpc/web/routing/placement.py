"""Where routers of procedures stand in an application, and what could then never be reached.

A router answers every path below its own, so that an unknown procedure is told as one. What an application declares
there later is dead, and so is another router of the same prefix: both would answer 404, and nobody would know why.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from fastapi import FastAPI
from fastapi.routing import RouteContext, iter_route_contexts
from starlette.routing import BaseRoute, Mount

from reactive_rpc.errors import DefinitionError
from reactive_rpc.web.routing.table_router import TableRouter

__all__ = ["check_placement"]


def check_placement(app: FastAPI) -> None:
    """Look at an application and at those that are mounted in it.

    Raises:
        DefinitionError: something could never be reached, or stands below a parameter of the path.
    """
    _check(app.routes)
    for route in app.routes:
        if isinstance(route, Mount) and isinstance(route.app, FastAPI):
            check_placement(route.app)


def _check(routes: Sequence[BaseRoute]) -> None:
    stands = [(found.path or "", found.name or "", _router_of(found)) for found in iter_route_contexts(routes)]
    ours = {path for path, _, router in stands if router is not None}
    taken: dict[str, TableRouter] = {}
    for path, name, router in stands:
        base = next((base for base in taken if path == base or (base.endswith("/") and path.startswith(base))), None)
        if base is not None and taken[base] is not router:
            raise _unreachable(path, base, is_procedure=router is not None)
        if router is None:
            _require_another(path, ours)
        else:
            _require_plain(path)
            taken.setdefault(router.base_of(path, name), router)


def _router_of(found: RouteContext) -> TableRouter | None:
    router = getattr(found.endpoint, TableRouter.MARK, None)
    return router if isinstance(router, TableRouter) else None


def _require_another(path: str, ours: Collection[str]) -> None:
    if path in ours:
        raise DefinitionError(
            f"{path!r} is declared by the application and by the procedures: which of them answers would depend on the "
            "way that a request takes. Give one of them another path, ReactiveRPC(prefix=...) for example"
        )


def _require_plain(path: str) -> None:
    if "{" in path:
        raise DefinitionError(
            f"the procedures are included below {path!r}, which has a parameter: clients and streams name procedures "
            "by their paths alone. Give the router a plain prefix, and let the context read it from a header"
        )


def _unreachable(path: str, base: str, *, is_procedure: bool) -> DefinitionError:
    if is_procedure:
        return DefinitionError(
            f"two ReactiveRPCs are included below {base!r}, and the second would never be asked: give it paths of its "
            "own, ReactiveRPC(prefix='/admin', trpc_prefix='/admin/trpc') or "
            "include_router(rpc.router, prefix='/admin')"
        )
    return DefinitionError(
        f"{path!r} stands below {base!r}, which the procedures answer for, and would never be reached: "
        "give it another path, or declare it before the router is included"
    )
