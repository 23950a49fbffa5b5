"""Resolving FastAPI dependencies for a dispatcher: the context, and whatever the router was included with.

What a call depends on is read off FastAPI's own effective routes: the context dependency of the procedure and every
`dependencies=[...]` of an `include_router` or of the application above it. They are solved by FastAPI's own solver, or
by a plan of what it does (`dependency_plan.py`), so sub-dependencies, security schemes, cookies, `yield` and
`dependency_overrides` work as in any route.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final, TypeVar

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import solve_dependencies
from fastapi.exceptions import RequestValidationError
from starlette.background import BackgroundTasks as StarletteBackgroundTasks
from starlette.requests import Request

from reactive_rpc.compat.fastapi import put_exit_stacks
from reactive_rpc.errors import ServiceUnavailableError
from reactive_rpc.procedures.context_query import STANDS_FOR
from reactive_rpc.procedures.found_context import ContextNotes, FoundContext
from reactive_rpc.web.routing.dependency_plan import DependencyPlan
from reactive_rpc.web.routing.responses import Answer

A = TypeVar("A", bound=Answer)

__all__ = ["CONTEXT", "NOTHING_RESOLVED", "Resolved", "by_plan", "resolved"]

CONTEXT = "reactive_rpc_context"
"""The name of the parameter through which a documented route asks for the context."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """What the dependencies made.

    Attributes:
        context: what the context dependency returned; None if there is none.
        headers: what they set on the response: cookies, for example.
        background: what they left to be done once the answer is sent.
        asked: how the context was found, if it is a query.
        is_log_read: whether the log has been read since they were resolved, for the very request.
        outage: why it could not be read; None if it was, or nobody has tried.
    """

    context: Any = None
    headers: Sequence[tuple[bytes, bytes]] = ()
    background: StarletteBackgroundTasks | None = None
    asked: FoundContext | None = None
    is_log_read: bool = False
    outage: ServiceUnavailableError | None = None

    def add_to(self, answer: A) -> A:
        """Let the headers and the work left behind go with the answer."""
        answer.headers.extend(self.headers)
        if self.background is not None:
            answer.background.append(self.background)
        return answer


NOTHING_RESOLVED: Final = Resolved()


async def by_plan(plan: DependencyPlan, values: list[Any]) -> Resolved:
    """Return what the dependencies make, by their plan.

    Args:
        values: that it has read of the request.

    Raises:
        Exception: whatever a dependency raised.
    """
    if not plan.asks_queries:
        return Resolved(await plan.solve(values))
    with ContextNotes() as notes:
        context = await plan.solve(values)
    return Resolved(context, asked=notes.of(context))


@asynccontextmanager
async def resolved(request: Request, dependencies: Sequence[Dependant]) -> AsyncIterator[Resolved]:
    """Give what the dependencies make; leave by closing what `yield` dependencies hold.

    Raises:
        RequestValidationError: a header, a cookie or a parameter that a dependency asks for is wrong.
        Exception: whatever a dependency raised: an HTTPException, usually.
    """
    if not dependencies:
        yield NOTHING_RESOLVED
        return
    app: FastAPI = request.scope["app"]
    async with AsyncExitStack() as request_stack, AsyncExitStack() as function_stack:
        put_exit_stacks(request, request_stack, function_stack)
        with ContextNotes() as notes:
            solved = await solve_dependencies(
                request=request,
                dependant=Dependant(path=request.scope["path"], dependencies=list(dependencies)),
                dependency_overrides_provider=_with_contexts(app, dependencies) if app.dependency_overrides else app,
                async_exit_stack=request_stack,
                embed_body_fields=False,
            )
        if solved.errors:
            raise RequestValidationError(solved.errors)
        context = solved.values.get(CONTEXT)
        yield Resolved(context, solved.response.headers.raw, solved.background_tasks, notes.of(context))


def _with_contexts(app: FastAPI, dependencies: Sequence[Dependant]) -> object:
    """Return what FastAPI asks for `dependency_overrides`: that of a context counts for whatever stands for it."""
    given = app.dependency_overrides
    overrides = {}
    for each in dependencies:
        function: Callable[..., Any] | None = getattr(each.call, STANDS_FOR, None)
        if each.call is not None and function is not None and function in given:
            overrides[each.call] = given[function]
    return SimpleNamespace(dependency_overrides={**given, **overrides})
