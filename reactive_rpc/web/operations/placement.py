"""The places of decorated endpoints in an application, and which of them would be kept by nobody."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.routing import RouteContext, iter_route_contexts
from starlette.routing import Host, Mount

from reactive_rpc.compat.fastapi import effective_route_of
from reactive_rpc.web.operations.path_operation import DECORATED, OPERATION, PathOperation

__all__ = ["decorated_routes"]


def decorated_routes(app: FastAPI) -> Iterator[tuple[PathOperation, Any]]:
    """Yield each decorated endpoint of an application, and of those that are mounted in it, with its route.

    Raises:
        DefinitionError: an endpoint is decorated above its route.
    """
    kept: set[PathOperation] = set()
    bare: dict[PathOperation, str] = {}
    for found in _routes_of(app):
        operation = getattr(found.endpoint, OPERATION, None)
        decorated = getattr(found.endpoint, DECORATED, None)
        if isinstance(operation, PathOperation):
            kept.add(operation)
            yield operation, effective_route_of(found)
        elif isinstance(decorated, PathOperation):
            bare[decorated] = found.path or ""
    for operation, path in bare.items():
        if operation not in kept:
            raise operation.fault(
                f"@reactive stands above the decorator of its route, so {path} is answered without it: write @reactive "
                "below, right above the def"
            )


def _routes_of(app: FastAPI) -> Iterator[RouteContext]:
    for found in iter_route_contexts(app.routes):
        inner = getattr(found, "app", None) if isinstance(effective_route_of(found), Mount | Host) else None
        if isinstance(inner, FastAPI):
            yield from _routes_of(inner)
        else:
            yield found
