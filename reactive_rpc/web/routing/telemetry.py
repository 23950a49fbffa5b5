"""Who watches an application learns which route a request took, though no route of FastAPI's has seen it.

Starlette and FastAPI leave the route and its function in the scope, and FastAPI tells its own telemetry by a function
that has no public name; with a FastAPI that has none, there is nobody to tell.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from starlette.types import Scope

__all__ = ["name_route"]


def _find_teller() -> Callable[..., None] | None:
    try:
        module: Any = import_module("fastapi.telemetry._api")
    except ImportError:
        return None
    found: Callable[..., None] | None = getattr(module, "_route_selected", None)
    return found


_tell = _find_teller()


def name_route(scope: Scope, path: str, route: object, function: object) -> None:
    """Say which route serves a request: `path` as the application has it, the route, and its function."""
    scope["route"] = route
    scope["endpoint"] = function
    if _tell is not None and scope.get("fastapi.telemetry") is not None:
        _tell(scope=scope, path=path)
