"""A path operation on one route: how the executor runs it, and how the route writes its result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from reactive_rpc.compat.fastapi import response_by, response_class_of
from reactive_rpc.errors import DefinitionError
from reactive_rpc.procedures.arguments import Arguments
from reactive_rpc.procedures.encoding import EncodedOutput, order_fields
from reactive_rpc.procedures.internal_query import InternalQuery
from reactive_rpc.procedures.wire_codec import OutputCodec
from reactive_rpc.statements.sessions import AnyAsyncSession, AnySession, database_of, lost_of, sync_session_of
from reactive_rpc.web.operations.outcome import HTTPOutcomeError, PassedOnError, StoredAnswer
from reactive_rpc.web.operations.path_operation import PathOperation

__all__ = ["OperationRoute"]


@dataclass(frozen=True, slots=True)
class OperationHandler:
    """How the function that runs an endpoint wants to be called."""

    is_async: bool

    def arguments(self, session: object, ctx: object, input: Any) -> dict[str, Any]:
        """Return its arguments; in place of a context it gets those of the endpoint."""
        return {"session": session, "arguments": ctx}


class OperationRoute(InternalQuery):
    """A path operation on one route: for the executor, a query.

    Args:
        operation: the endpoint.
        route: as FastAPI has it, with all that the routers add which it is included by.
        path: names it in keys; no other route has it.

    Raises:
        DefinitionError: the route's options cannot be honoured; the message says the way out.
    """

    output = OutputCodec(type(None))

    def __init__(self, operation: PathOperation, route: Any, path: str) -> None:
        self.operation = operation
        self.route = route
        self.path = path
        self.name = operation.name
        self.cache = operation.cache
        self.handler = OperationHandler(operation.is_async)
        self._database: tuple[str | None, str | None] | None = None
        if set(route.methods) - {"GET", "HEAD"}:
            raise self.fault(
                f"@reactive keeps what it answers to {', '.join(sorted(route.methods))} {route.path_format}, and only "
                "a GET may be kept: leave @reactive out"
            )
        kind = response_class_of(route)
        if kind.__call__ is not Response.__call__:
            raise self.fault(
                f"{route.path_format} has response_class={kind.__name__}, which is streamed and cannot be stored: take "
                "one with a body, or leave @reactive out"
            )

    @property
    def session_class(self) -> AnyAsyncSession | AnySession:
        """The class of the session that the endpoint takes."""
        return self.operation.session_class

    @property
    def function(self) -> Callable[..., Any]:
        """The function that runs the endpoint and writes the answer."""
        return self._run if self.operation.is_async else self._run_sync

    def fault(self, message: str) -> DefinitionError:
        """Return an error with `message` that names the endpoint."""
        return self.operation.fault(message)

    def require_replaceable(self, sessions: Sequence[object]) -> None:
        """Hold the sessions that the application has made against the one that the endpoint is given in their place.

        Raises:
            DefinitionError: one of them may see other rows than ours.
        """
        for given in sessions:
            session = sync_session_of(given)
            if session is None:
                continue
            lost = lost_of(session, self.session_class)
            if lost is not None:
                raise self.fault(
                    f"its session has {lost}, and the endpoint reads through a session of ours, which has not: take "
                    "what decides about the rows as an argument of the endpoint, and select by it; or leave @reactive "
                    "out"
                )
            database = database_of(session)
            self._database = database if self._database is None else self._database
            if database is not None and database != self._database:
                raise self.fault(
                    "its sessions are of several databases, or of several roles, and the endpoint reads from one: "
                    "leave @reactive out"
                )

    async def _run(self, session: Any, arguments: Arguments) -> EncodedOutput:
        given = arguments.given_to(session.sync_session)
        with _refusals():
            result = await self.operation.function(**given, **dict.fromkeys(self.operation.sessions, session))
        written: EncodedOutput = await session.run_sync(lambda _: self._written(result))
        return written

    def _run_sync(self, session: Any, arguments: Arguments) -> EncodedOutput:
        given = arguments.given_to(session)
        with _refusals():
            result = self.operation.function(**given, **dict.fromkeys(self.operation.sessions, session))
        return self._written(result)

    def _written(self, result: Any) -> EncodedOutput:
        # INVARIANT (the route writes it, as without us): FastAPI does not filter a Response that it is given, and what
        # `response_model` hides would go out.
        order_fields(result)
        response = response_by(self.route, result)
        answer = StoredAnswer.of(response, self.name, is_own=isinstance(result, Response))
        return EncodedOutput(answer.encode())


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except HTTPException as exc:
        if exc.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise PassedOnError(exc) from exc
        raise HTTPOutcomeError(exc) from exc
