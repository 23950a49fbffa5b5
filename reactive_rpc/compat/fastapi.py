"""What FastAPI does for its own routes, for routes that another dispatcher serves."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from importlib import import_module
from typing import Any

from starlette.requests import Request
from starlette.types import Scope

__all__ = ["notify_route", "put_exit_stacks"]


def put_exit_stacks(request: Request, of_request: AsyncExitStack, of_function: AsyncExitStack) -> None:
    """Leave in the scope what `solve_dependencies` closes generators by: after the answer, and after the function."""
    request.scope["fastapi_inner_astack"] = of_request
    request.scope["fastapi_function_astack"] = of_function


def _find_notify() -> Callable[..., None] | None:
    try:
        module: Any = import_module("fastapi.telemetry._api")
    except ImportError:  # an older FastAPI, which has no telemetry
        return None
    found: Callable[..., None] | None = getattr(module, "_route_selected", None)
    return found


_notify = _find_notify()


def notify_route(scope: Scope, path: str) -> None:
    """Tell FastAPI's telemetry, where it is on, which route serves a request: its path as the application has it."""
    if _notify is not None and scope.get("fastapi.telemetry") is not None:
        _notify(scope=scope, path=path)
