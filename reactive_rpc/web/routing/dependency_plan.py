"""A plan: what FastAPI's solver does for the dependencies of a call, worked out once from its own `Dependant`s.

The solver asks of each request again what is true of all of them: which parameters there are, who depends on whom, what
was called before. A plan is the list of calls that it would make, in its order, with the arguments of each. It is made
only where nothing else could happen; all else (`yield`, bodies, responses, background tasks, models of headers, types
with code of their own) is FastAPI's solver's, and so is each request that does not fit. So its errors are FastAPI's.
`docs/internals/procedures.md` argues why both are the same.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin
from uuid import UUID

from fastapi.dependencies.models import Dependant
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection
from starlette.types import Scope

from reactive_rpc.compat.fastapi import (
    PLAIN_SCHEMES,
    SecurityScopes,
    cache_key_of,
    concurrency_of,
    oauth_scopes_of,
    request_name_of,
    way_of_call,
)
from reactive_rpc.procedures.context_query import QUERY, ContextQuery

__all__ = ["DependencyPlan", "DependencyPlans", "plan_of"]

_PLAIN: Final = frozenset({str, int, float, bool, Decimal, UUID, date, datetime, time, timedelta})
"""Types whose validation runs no code of the application's."""

_ATOMS: Final = frozenset({str, int, float, bool, NoneType})
"""Types of defaults of which FastAPI's deep copy is the very object."""

MAX_PLANS: Final = 16
"""An endpoint is asked for with the dependencies of each route and mount that it stands in; more than that are none."""


class _UnplannedError(Exception):
    """Something is not known to be the same each time."""


@dataclass(frozen=True, slots=True)
class _Parameter:
    """A header, a cookie or a parameter of the URL that somebody asks for.

    Attributes:
        key: its name on the wire; of a header in lower case.
        validate: FastAPI's own validation; None where the text is the value.
    """

    source: Literal["query", "header", "cookie"]
    key: str
    is_required: bool
    default: Any
    validate: Callable[..., tuple[Any, Any]] | None


@dataclass(frozen=True, slots=True)
class _Call:
    """A call that the solver makes.

    Attributes:
        arguments: `(name, place of the value)`, in the solver's order, which a function sees that takes `**values`.
        is_async: whether it is awaited, or run in a thread.
        scopes: `(name, scopes)` where it takes those it is asked with.
    """

    function: Callable[..., Any]
    arguments: tuple[tuple[str, int], ...]
    is_async: bool
    scopes: tuple[str, tuple[str, ...]] | None

    def given(self, values: list[Any]) -> dict[str, Any]:
        """Return its arguments; values are those of its arguments, and of others, at their places."""
        given = {name: values[place] for name, place in self.arguments}
        if self.scopes is not None:
            name, scopes = self.scopes
            given[name] = SecurityScopes([*scopes])
        return given


class DependencyPlan:
    """The calls that the dependencies of an endpoint are solved by.

    Args:
        parameters: which are read of a request, before anything is called.
        calls: in order; the value of each takes the place after those of the parameters, the connection, and the calls
            before.
        context: the place of the context's value; None if there is none.

    Attributes:
        query: the context, if it is a query and the last that is called; else None.
        asks_queries: whether any of them is a query, which is noted for the call.
        is_bare: whether nothing of the application's is called before the last.
    """

    def __init__(
        self, parameters: Sequence[_Parameter], calls: Sequence[_Call], *, context: int | None, takes_connection: bool
    ) -> None:
        self._parameters = tuple(parameters)
        self._calls = tuple(calls)
        self._context = context
        self._takes_connection = takes_connection
        self._headers = {
            each.key.encode("latin-1"): place for place, each in enumerate(parameters) if each.source == "header"
        }
        self._has_others = len(self._headers) < len(parameters)
        self._placed = tuple(enumerate(parameters))
        last = calls[-1] if calls and context == len(parameters) + len(calls) else None
        found = None if last is None else getattr(last.function, QUERY, None)
        self.query: ContextQuery | None = found if isinstance(found, ContextQuery) else None
        self._before: DependencyPlan | None = None
        if self.query is not None and len(calls) > 1:
            self._before = DependencyPlan(parameters, calls[:-1], context=None, takes_connection=takes_connection)
        self.asks_queries = any(hasattr(each.function, QUERY) for each in calls)
        self.is_bare = all(type(each.function) in PLAIN_SCHEMES for each in calls[:-1])

    def read(self, scope: Scope) -> list[Any] | None:
        """Return the values of the parameters, and the connection; None if the request does not fit.

        Nothing of the application's runs here, so whoever gets None may have FastAPI's solver begin anew.
        """
        values: list[Any] = [None] * len(self._parameters)
        if self._headers:  # of headers given twice the first counts
            for name, value in scope["headers"]:
                place = self._headers.get(name)
                if place is not None and values[place] is None:
                    values[place] = value.decode("latin-1")
        if self._has_others:
            self._read_others(HTTPConnection(scope), values)
        for place, parameter in self._placed:
            text = values[place]
            if text is None:
                if parameter.is_required:
                    return None
                values[place] = parameter.default
            elif parameter.validate is not None:
                values[place], faults = parameter.validate(text, {}, loc=())
                if faults:
                    return None
        values.append(HTTPConnection(scope) if self._takes_connection else None)
        return values

    def _read_others(self, connection: HTTPConnection, values: list[Any]) -> None:
        """Read what is no header, and headers that several ask for; of parameters of the URL the last counts."""
        for place, parameter in enumerate(self._parameters):
            if parameter.source == "query":
                values[place] = connection.query_params.get(parameter.key)
            elif parameter.source == "cookie":
                values[place] = connection.cookies.get(parameter.key)
            else:
                values[place] = connection.headers.get(parameter.key)

    async def solve(self, values: list[Any]) -> Any:
        """Make the calls, and return the context.

        Args:
            values: that were read; those of the calls are added.

        Raises:
            Exception: whatever a dependency raised.
        """
        for call in self._calls:
            given = call.given(values)
            # As FastAPI does, a plain function: in the same threads, under the same limit.
            made = call.function(**given) if call.is_async else run_in_threadpool(call.function, **given)
            values.append(await made)
        return None if self._context is None else values[self._context]

    async def before_query(self, values: list[Any]) -> dict[str, Any]:
        """Make all calls but that of the context, which is a query, and return the arguments of that.

        Raises:
            Exception: whatever a dependency raised.
        """
        if self._before is not None:
            await self._before.solve(values)
        return self._calls[-1].given(values)


def plan_of(dependencies: Sequence[Dependant], *, context: str) -> DependencyPlan | None:
    """Return the plan of dependencies; None if only FastAPI's solver can tell.

    Args:
        context: the name of the one whose value is the context.
    """
    planner = _Planner()
    try:
        places = planner.place_all(Dependant(dependencies=list(dependencies)))
    except (_UnplannedError, UnicodeEncodeError):
        return None
    return planner.finished(places.get(context))


class _Planner:
    """Goes the way of FastAPI's solver once, without a request."""

    def __init__(self) -> None:
        self._parameters: list[_Parameter] = []
        self._calls: list[tuple[Dependant, dict[str, int], list[tuple[str, int]]]] = []
        self._made: dict[Any, int] = {}

    def place_all(self, dependant: Dependant) -> dict[str, int]:
        """Plan all that something depends on; return `{parameter: number of the call}`."""
        places = {}
        for each in dependant.dependencies:
            number = self._place(each)
            if each.name is not None:
                places[each.name] = number
        return places

    def _place(self, dependant: Dependant) -> int:
        # INVARIANT (the order of `solve_dependencies`): first all that it depends on, then itself unless that was made.
        if not _fits(dependant):
            raise _UnplannedError
        before = self.place_all(dependant)
        key = cache_key_of(dependant)
        if dependant.use_cache and key in self._made:
            return self._made[key]
        read = [
            *((field.name, self._parameter("query", field)) for field in dependant.query_params),
            *((field.name, self._parameter("header", field)) for field in dependant.header_params),
            *((field.name, self._parameter("cookie", field)) for field in dependant.cookie_params),
        ]
        self._calls.append((dependant, before, read))
        number = len(self._calls) - 1
        self._made.setdefault(key, number)
        return number

    def _parameter(self, source: Literal["query", "header", "cookie"], field: Any) -> int:
        self._parameters.append(_parameter(source, field))
        return len(self._parameters) - 1

    def finished(self, context: int | None) -> DependencyPlan:
        """Return the plan; `context` is the number of a call."""
        first = len(self._parameters) + 1
        calls, takes_connection = [], False
        for dependant, before, read in self._calls:
            arguments = [*((name, first + number) for name, number in before.items()), *read]
            for name in (dependant.http_connection_param_name, dependant.request_param_name):
                if name:
                    takes_connection = True
                    arguments.append((name, first - 1))
            scopes = dependant.security_scopes_param_name
            function = dependant.call
            if function is None:
                raise _UnplannedError
            calls.append(
                _Call(
                    function,
                    tuple(arguments),
                    is_async=way_of_call(dependant) == "awaited",
                    scopes=None if scopes is None else (scopes, tuple(oauth_scopes_of(dependant))),
                )
            )
        place = None if context is None else first + context
        return DependencyPlan(self._parameters, calls, context=place, takes_connection=takes_connection)


def _fits(dependant: Dependant) -> bool:
    """Tell whether a dependency takes only what is told by headers, cookies and the URL, and is called as it stands."""
    takes_more = (
        dependant.path_params
        or dependant.body_params
        or dependant.websocket_param_name
        or dependant.response_param_name
        or dependant.background_tasks_param_name
        or concurrency_of(dependant) is not None
    )
    if takes_more:
        return False
    if type(dependant.call) in PLAIN_SCHEMES:  # by identity: what a subclass reads of a request is not known
        return True
    if dependant.request_param_name or dependant.http_connection_param_name:
        return False
    return inspect.isroutine(dependant.call) and way_of_call(dependant) != "generator"


def _parameter(source: Literal["query", "header", "cookie"], field: Any) -> _Parameter:
    """Return how a parameter is read.

    Raises:
        _UnplannedError: by more than its name and a plain type.
        UnicodeEncodeError: no header has that name.
    """
    info = field.field_info
    kinds = _kinds_of(info.annotation)
    key = request_name_of(field)
    if not kinds <= _PLAIN or info.metadata or info.default_factory is not None or info.validate_default or not key:
        raise _UnplannedError
    is_required = info.is_required()
    default = None if is_required else field.default
    if type(default) not in _ATOMS:
        raise _UnplannedError
    key.encode("latin-1" if source == "header" else "utf-8")
    validate = None if kinds == {str} else field.validate
    return _Parameter(source, key.lower() if source == "header" else key, is_required, default, validate)


def _kinds_of(annotation: Any) -> set[Any]:
    """Return the types that an annotation is one of, None aside.

    >>> _kinds_of(str | None), _kinds_of(list[str])
    ({<class 'str'>}, {list[str]})
    """
    if get_origin(annotation) in (Union, UnionType):
        return {each for each in get_args(annotation) if each is not NoneType}
    return {annotation}


class DependencyPlans:
    """The plans of one endpoint, each for the dependencies that it is asked for with.

    Args:
        context: as for `plan_of`.
    """

    def __init__(self, *, context: str) -> None:
        self._context = context
        self._last: tuple[Sequence[Dependant], DependencyPlan | None] | None = None
        self._plans: dict[tuple[int, ...], tuple[Sequence[Dependant], DependencyPlan | None]] = {}

    def of(self, dependencies: Sequence[Dependant]) -> DependencyPlan | None:
        """Return the plan; None if there is none."""
        last = self._last
        if last is None or last[0] is not dependencies:
            last = self._last = self._found(dependencies)
        return last[1]

    def _found(self, dependencies: Sequence[Dependant]) -> tuple[Sequence[Dependant], DependencyPlan | None]:
        # INVARIANT (each is kept beside its plan): so no other gets its id.
        key = tuple(map(id, dependencies))
        found = self._plans.get(key)
        if found is None:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            found = self._plans[key] = tuple(dependencies), plan_of(dependencies, context=self._context)
        return dependencies, found[1]
