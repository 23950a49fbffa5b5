"""A path operation: an endpoint of the application's own that is decorated with `@reactive`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from reactive_rpc.compat.fastapi import (
    annotations_of,
    as_coroutine_function,
    result_annotation_of,
    sub_dependencies,
)
from reactive_rpc.errors import DefinitionError
from reactive_rpc.procedures.arguments import comparison_fault
from reactive_rpc.procedures.cache_options import Cache
from reactive_rpc.procedures.dependencies import caller_part_in, label_of, session_class_in
from reactive_rpc.procedures.handler import session_of
from reactive_rpc.procedures.procedure import Procedure, refusal
from reactive_rpc.statements.sessions import AnyAsyncSession, AnySession

__all__ = ["DECORATED", "OPERATION", "PathOperation", "SolvedRequest"]

OPERATION: Final = "reactive_rpc_operation"
"""The attribute by which an endpoint names its path operation."""

DECORATED: Final = "reactive_rpc_decorated"
"""The attribute by which a function names the path operation that it was decorated as."""

_REQUEST: Final = "reactive_rpc_request"
_RESPONSE: Final = "reactive_rpc_response"


@dataclass(frozen=True, slots=True)
class SolvedRequest:
    """A request that FastAPI has let through.

    Attributes:
        response: that dependencies add to.
        sessions: the application's own, which the endpoint is not given.
        arguments: of the endpoint, but for its sessions.
    """

    request: Request
    response: Response
    sessions: tuple[object, ...]
    arguments: dict[str, Any]


class PathOperation:
    """A decorated endpoint.

    Args:
        function: the endpoint.
        cache: how its results are kept.
        answer: answers a request; called with this, and the request.

    Attributes:
        name: the function's own.
        is_async: whether it is a coroutine function.
        sessions: the parameters that are given the session that is watched.
        session_class: of that session.
        parameters: the names of the other parameters.

    Raises:
        DefinitionError: it cannot be kept; the message says why and the way out.
    """

    def __init__(self, function: Callable[..., Any], cache: Cache, answer: Callable[..., Any]) -> None:
        _require_endpoint(function)
        self.function = function
        self.name = function.__name__
        self.cache = cache
        self.is_async = inspect.iscoroutinefunction(function)
        self._answer = answer
        try:
            self._annotations = annotations_of(function)
        except Exception as exc:  # an annotation may be any expression
            raise self.fault(f"an annotation cannot be resolved: {exc}. Import what it names at run time") from exc
        self.sessions = tuple(name for name, hint in self._annotations.items() if session_class_in(hint) is not None)
        self.parameters = tuple(name for name in self._annotations if name not in self.sessions)
        if not self.sessions:
            raise self.fault(
                "takes no session, so nobody can tell what it reads: take one that FastAPI knows, "
                "Annotated[Session, Depends(get_db)], and read through that; or leave @reactive out"
            )
        self.session_class = self._session_class()
        self._require_same_for_all()
        for name in self.parameters:
            fault = comparison_fault(self._annotations[name])
            if fault is not None:
                raise self.fault(f"{name!r} {fault}")

    def fault(self, message: str) -> DefinitionError:
        """Return an error with `message` that names this function and its place."""
        return refusal(self.function, message)

    def endpoint(self) -> Callable[..., Any]:
        """Return the function that FastAPI calls; whoever else calls it calls the function as it is."""

        def endpoint(*args: Any, **kwargs: Any) -> Any:
            if _REQUEST not in kwargs:
                return self.function(*args, **kwargs)
            sessions = tuple([kwargs[name] for name in self.sessions])
            found = SolvedRequest(kwargs[_REQUEST], kwargs[_RESPONSE], sessions, self.arguments_in(kwargs))
            return self._answer(self, found)

        for attribute in ("__name__", "__qualname__", "__module__", "__doc__"):
            setattr(endpoint, attribute, getattr(self.function, attribute))
        signature = inspect.signature(self.function)
        parameters = [
            parameter.replace(annotation=self._annotations[name], kind=inspect.Parameter.KEYWORD_ONLY)
            for name, parameter in signature.parameters.items()
        ]
        given = {_REQUEST: Request, _RESPONSE: Response}
        parameters += [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind) for name, kind in given.items()
        ]
        result = signature.return_annotation
        if result is not inspect.Signature.empty:
            result = result_annotation_of(self.function)
        endpoint.__signature__ = signature.replace(  # type: ignore[attr-defined]  # read by inspect
            parameters=parameters, return_annotation=result
        )
        as_coroutine_function(endpoint)
        setattr(endpoint, OPERATION, self)
        setattr(self.function, DECORATED, self)
        return endpoint

    def arguments_in(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return of all that FastAPI has solved the arguments of the function, but for its sessions."""
        return {name: values[name] for name in self.parameters if name in values}

    def _require_same_for_all(self) -> None:
        """Refuse a session that is made for its caller.

        Raises:
            DefinitionError: a part of the request decides about it, and the one that is watched would not know.
        """
        # INVARIANT (a session is the same for every caller): it may be that of one tenant's schema or database, and the
        # one in its place shows the rows of all.
        for each in sub_dependencies(self.function):
            found = caller_part_in(each) if each.name in self.sessions else None
            if found is not None:
                raise self.fault(
                    f"{each.name!r} is made by {label_of(each.function)} for its caller, by {found}, and the endpoint "
                    "reads through a session of ours that knows nothing of that: take that as an argument of the "
                    "endpoint, and select by it; or leave @reactive out"
                )

    def _session_class(self) -> AnyAsyncSession | AnySession:
        classes = {session_of(self._annotations[name], self.is_async, self.fault) for name in self.sessions}
        if len(classes) > 1:
            raise self.fault(f"takes two sessions of different classes, {' and '.join(self.sessions)}: one is given")
        return classes.pop()


def _require_endpoint(function: Any) -> None:
    if isinstance(function, Procedure):
        raise DefinitionError(f"{function!r} is served at a path of its own: decorate the function of a route instead")
    if not inspect.isfunction(function):
        raise DefinitionError(f"{function!r} is no function: write @reactive above a def or an async def")
    decorated = getattr(function, OPERATION, None)
    if isinstance(decorated, PathOperation):
        raise decorated.fault("is decorated with @reactive twice: leave one of them out")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise refusal(
            function, "yields, and what is streamed cannot be stored: return the whole, or leave @reactive out"
        )
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY):
            raise refusal(function, f"{parameter} has no name that FastAPI could give: write plain parameters")
