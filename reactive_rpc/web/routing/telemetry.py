"""Who watches an application learns which route a request took, though no route of FastAPI's has seen it.

Starlette and FastAPI leave the route and its function in the scope, and FastAPI tells its own telemetry.
"""

from __future__ import annotations

from starlette.types import Scope

from reactive_rpc.compat.fastapi import notify_route

__all__ = ["name_route"]


def name_route(scope: Scope, path: str, route: object, function: object) -> None:
    """Say which route serves a request: `path` as the application has it, the route, and its function."""
    scope["route"] = route
    scope["endpoint"] = function
    if "fastapi.telemetry" in scope:
        notify_route(scope, path)
