"""Resolving FastAPI dependencies for a dispatcher: the context, and whatever the router was included with.

What a call depends on is read off FastAPI's own effective routes: the context dependency of the procedure and every
`dependencies=[...]` of an `include_router` or of the application above it. They are solved by FastAPI's own solver, so
sub-dependencies, security schemes, cookies, `yield` and `dependency_overrides` work as in any route.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import solve_dependencies
from fastapi.exceptions import RequestValidationError
from starlette.requests import Request

__all__ = ["CONTEXT", "resolved"]

CONTEXT = "reactive_rpc_context"
"""The name of the parameter through which a documented route asks for the context."""


@asynccontextmanager
async def resolved(request: Request, dependencies: Sequence[Dependant]) -> AsyncIterator[Any]:
    """Give the context, or None where no dependency makes one; leave by closing what `yield` dependencies hold.

    Raises:
        RequestValidationError: a header, a cookie or a parameter that a dependency asks for is wrong.
        Exception: whatever a dependency raised: an HTTPException, usually.
    """
    if not dependencies:
        yield None
        return
    async with AsyncExitStack() as request_stack, AsyncExitStack() as function_stack:
        request.scope["fastapi_inner_astack"] = request_stack
        request.scope["fastapi_function_astack"] = function_stack
        solved = await solve_dependencies(
            request=request,
            dependant=Dependant(path=request.scope["path"], dependencies=list(dependencies)),
            dependency_overrides_provider=request.scope.get("app"),
            async_exit_stack=request_stack,
            embed_body_fields=False,
        )
        if solved.errors:
            raise RequestValidationError(solved.errors)
        yield solved.values.get(CONTEXT)
