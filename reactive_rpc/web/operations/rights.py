"""Rights: the outcome of a path operation's dependencies, solved once more on a session that is watched.

An application's own dependencies have its own session, and nobody notes the reads of that. So for a stream they are
solved again, as a query: as long as nothing is written that it has read, FastAPI's outcome is the outcome still.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import Request
from starlette.types import Scope

from reactive_rpc.cache.result import HandlerOutcome, ResultKey
from reactive_rpc.cache.weight import weight_of
from reactive_rpc.clock import Clock
from reactive_rpc.compat.fastapi import depends_in, sub_dependencies
from reactive_rpc.errors import DefinitionError
from reactive_rpc.procedures.arguments import Arguments
from reactive_rpc.procedures.canonical import canonical
from reactive_rpc.procedures.dependencies import Overrides, Plan, Plans
from reactive_rpc.procedures.encoding import EncodedOutput
from reactive_rpc.procedures.exchange import Exchange
from reactive_rpc.procedures.execution import Executor
from reactive_rpc.procedures.internal_query import InternalQuery
from reactive_rpc.procedures.running_call import call_depth
from reactive_rpc.procedures.solving import CallDependencies
from reactive_rpc.procedures.wire_codec import OutputCodec
from reactive_rpc.statements.recorder import Trace
from reactive_rpc.statements.sessions import AnyAsyncSession, AnySession
from reactive_rpc.web.operations.operation_route import OperationRoute

__all__ = ["OperationRights", "RightsCall"]


@dataclass(frozen=True, slots=True)
class RightsHandler:
    """How the function wants to be called that takes the results of the dependencies."""

    is_async: bool = True

    def arguments(self, session: object, ctx: object, input: Any) -> dict[str, Any]:
        """Return none: dependencies make them."""
        return {}


class OperationRights(InternalQuery):
    """The dependencies of a path operation on one route: for the executor, a query.

    Its result is the arguments that they make, compared.

    Args:
        route: of the operation.

    Attributes:
        names: the parameters of the endpoint that dependencies make.
        headers: that they declare, in lower case.

    Raises:
        DefinitionError: one of them cannot be solved outside of FastAPI.
    """

    output = OutputCodec(type(None))
    handler = RightsHandler()
    session_class: AnyAsyncSession | AnySession | None = AsyncSession

    def __init__(self, route: OperationRoute) -> None:
        self.path = f"rights of {route.path}"
        self.name = f"the dependencies of {route.name}"
        self.fault: Callable[[str], DefinitionError] = route.fault
        operation = route.operation
        own = [each for each in sub_dependencies(operation.function) if each.name not in operation.sessions]
        guards = [depends_in(f"guard_{number}", Any, mark) for number, mark in enumerate(route.route.dependencies)]
        self.names = tuple(each.name for each in own)
        self._plans = plans = Plans([*filter(None, guards), *own], {}, refuse=route.fault, check=lambda _: None)
        self.headers = plans.plain.headers

    @property
    def function(self) -> Callable[..., Any]:
        """The function that compares their results."""
        return self._compare

    def call_of(self, executor: Executor, request: Request, overrides: Overrides) -> RightsCall | None:
        """Return the call that finds the rights of a request; None if no dependency has a session.

        Raises:
            DefinitionError: one that is put in the place of another cannot be solved outside of FastAPI.
        """
        plan = self._plans.under(overrides)
        if not any(each.sessions for each, _ in plan.all):
            return None
        return RightsCall(executor, self, plan=plan, request=request)

    async def _compare(self, **made: Any) -> EncodedOutput:
        return EncodedOutput(Arguments({name: made[name] for name in self.names}).compared)


class RightsCall:
    """The call that finds the rights of one request: kept by all that the dependencies can see of it.

    Attributes:
        key: `(path, nothing, canonical parts of the request)`.
    """

    __slots__ = ("_dependencies", "_executor", "_rights", "depth", "key")

    is_cached = True
    is_shared = False  # its key holds credentials
    keep = None

    def __init__(self, executor: Executor, rights: OperationRights, *, plan: Plan, request: Request) -> None:
        self.depth = call_depth()
        self._executor = executor
        self._rights = rights
        scope = _kept_of(request.scope)
        exchange = Exchange(Request(scope))
        self._dependencies = CallDependencies(rights.path, plan, scope["headers"], exchange=exchange)
        self.key: ResultKey = (rights.path, _beside_declared(plan, scope), self._dependencies.seen)

    @property
    def held_bytes(self) -> int:
        """Its size in memory: the request is kept with it."""
        return 2 * weight_of(self.key) + 2000

    async def compute(self, clock: Clock | None = None, trace: Trace | None = None) -> HandlerOutcome:
        """Solve the dependencies."""
        return await self._executor.query(
            self.key,
            self._rights,
            None,
            None,
            dependencies=self._dependencies,
            depth=self.depth,
            clock=clock,
            trace=trace,
        )


def _kept_of(scope: Scope) -> Scope:
    """Return the part of a scope that is kept: nothing that ends with the request.

    A dependency does not know by itself which of its parameters stand in the path of the route, so they stand in the
    query string too, in which it looks for them.
    """
    kept = {name: value for name, value in scope.items() if not name.startswith(_OF_ONE_REQUEST)}
    named = urlencode(scope.get("path_params", {})).encode()
    kept["query_string"] = b"&".join(filter(None, (scope["query_string"], named)))
    return kept


def _beside_declared(plan: Plan, scope: Mapping[str, Any]) -> bytes:
    """Return the rest of a request that dependencies can see, beside the headers and cookies that they declare."""
    others = {part for each, _ in plan.all for part in each.takes.others}
    client = scope.get("client")
    seen: list[Any] = [scope["query_string"]]
    if not others.isdisjoint(_WHOLE):
        seen += [scope["path"], scope["headers"], client and client[0]]
    elif others.isdisjoint(_OF_THE_URL):
        seen = []
    return canonical(seen)


_OF_THE_URL: Final = ("Path()", "Query()")
_WHOLE: Final = ("Request", "Body()", "WebSocket")
_OF_ONE_REQUEST: Final = ("fastapi", "starlette", "reactive_rpc", "route", "endpoint")
