"""A context that is a query: a dependency that reads the database to find out who calls.

`ReactiveRPC(context=...)` may name a function that takes a session beside what it declares of the request. FastAPI
solves the rest of its parameters on each call; the function itself runs if nothing is kept for their values, and again
when a row changes that it has read.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from reactive_rpc.errors import DefinitionError
from reactive_rpc.procedures.annotations import plain
from reactive_rpc.procedures.context import Context
from reactive_rpc.procedures.definer import root_of
from reactive_rpc.procedures.handler import Refuse, hints_of, session_of
from reactive_rpc.procedures.session_steps import KeptContext
from reactive_rpc.statements.sessions import AnyAsyncSession, AnySession

__all__ = ["QUERY", "STANDS_FOR", "ContextDependencies", "ContextQuery", "takes_session"]


STANDS_FOR = "reactive_rpc_stands_for"
"""The attribute by which a dependency names the function that `dependency_overrides` may replace."""

QUERY = "reactive_rpc_query"
"""The attribute by which a dependency names the `ContextQuery` that it asks for."""


@dataclass(frozen=True, slots=True)
class ContextHandler:
    """How the function wants to be called."""

    session: AnyAsyncSession | AnySession
    session_name: str
    is_async: bool

    def arguments(self, session: object, ctx: Any, input: Any) -> dict[str, Any]:
        """Return its arguments; in place of a context it gets what FastAPI has solved."""
        return {**ctx, self.session_name: session}


class ContextQuery(KeptContext):
    """A function that makes the context of an application by reading the database.

    Args:
        function: takes a session beside parameters of a FastAPI dependency.

    Attributes:
        parameters: those that FastAPI solves.

    Raises:
        DefinitionError: it cannot be such a function; the message says why and the way out.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        name = f"context {function.__name__}"
        self.function = function
        super().__init__(name, f"context:{function.__module__}.{function.__qualname__}", root_of(function))
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise self.fault("it takes a session and yields: what it makes is kept, so let it return")
        hints = hints_of(function, self.fault)
        is_async = inspect.iscoroutinefunction(function)
        session_name = takes_session(function, self.fault)
        self.handler = ContextHandler(session_of(hints[session_name], is_async, self.fault), session_name, is_async)
        self.parameters = [
            parameter.replace(annotation=hints.get(name, parameter.annotation))
            for name, parameter in inspect.signature(function).parameters.items()
            if name != session_name
        ]

    @property
    def session_class(self) -> AnyAsyncSession | AnySession:
        """The class of the session that it takes."""
        return self.handler.session

    def as_dependency(self, find: Callable[[ContextQuery, dict[str, Any]], Any]) -> Callable[..., Any]:
        """Return the FastAPI dependency that has the other parameters, and asks `find` for the context."""

        async def context(**solved: Any) -> Context:
            made: Context = await find(self, solved)
            return made

        context.__signature__ = inspect.Signature(self.parameters)  # type: ignore[attr-defined]  # read by inspect
        context.__name__ = self.function.__name__
        setattr(context, STANDS_FOR, self.function)
        setattr(context, QUERY, self)
        return context


def takes_session(function: object, refuse: Refuse) -> str:
    """Return the name of the parameter by which a dependency takes a session; "" if there is none."""
    if not inspect.isfunction(function):
        return ""
    for name, hint in hints_of(function, refuse).items():
        kind = plain(hint)
        if name != "return" and isinstance(kind, type) and issubclass(kind, AsyncSession | Session):
            return name
    return ""


class ContextDependencies:
    """The context dependencies of an application, as FastAPI can solve them.

    Args:
        find: returns the context of one that takes a session, see `Calls.context_of`.
    """

    def __init__(self, find: Callable[[ContextQuery, dict[str, Any]], Any]) -> None:
        self._find = find
        self._dependencies: dict[int, Callable[..., Any]] = {}

    def dependency_of(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the dependency that stands for a function: itself, unless it takes a session.

        Raises:
            DefinitionError: it takes a session, and cannot be called with one.
        """
        found = self._dependencies.get(id(function))
        if found is None:
            found = function
            if takes_session(function, DefinitionError):
                found = ContextQuery(function).as_dependency(self._find)
            self._dependencies[id(function)] = found
        return found
