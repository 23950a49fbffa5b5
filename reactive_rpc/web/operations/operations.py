"""The path operations of an application: they answer requests from the cache, and say which call a URL makes."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.utils import is_body_allowed_for_status_code
from starlette.background import BackgroundTasks
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Scope

from reactive_rpc.cache.freshness import InOutage
from reactive_rpc.cache.reader import Reader
from reactive_rpc.cache.result import CachedResult, Computable, HandlerOutcome
from reactive_rpc.compat.fastapi import effective_route, solve_again
from reactive_rpc.errors import DefinitionError, ServiceUnavailableError, reason_of
from reactive_rpc.procedures.arguments import Arguments
from reactive_rpc.procedures.cache_options import FreshnessMode
from reactive_rpc.procedures.execution import Executor
from reactive_rpc.procedures.operation_call import OperationCall
from reactive_rpc.procedures.rights import Rights
from reactive_rpc.protocol.headers import STALE, STALE_SECONDS
from reactive_rpc.statements.concealment import concealed
from reactive_rpc.web.operations.asking import ASKED, Question, StateKeeper, ask
from reactive_rpc.web.operations.opened import opened
from reactive_rpc.web.operations.operation_route import OperationRoute
from reactive_rpc.web.operations.outcome import HTTPOutcomeError, PassedOnError, StoredAnswer
from reactive_rpc.web.operations.path_operation import OPERATION, PathOperation, SolvedRequest
from reactive_rpc.web.operations.placement import decorated_routes
from reactive_rpc.web.operations.rights import OperationRights, RightsCall
from reactive_rpc.web.routing.answer_headers import Marks
from reactive_rpc.web.routing.conditions import is_held, is_server_request, required_freshness
from reactive_rpc.web.routing.responses import Headers

__all__ = ["Operations"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Solved:
    """A request that FastAPI has let through, with all that it has solved.

    Attributes:
        rights: of the route; None if nobody can tell them.
        arguments: of the endpoint, but for its sessions.
        response: that dependencies add to.
    """

    route: OperationRoute
    rights: OperationRights | None
    request: Request
    arguments: dict[str, Any]
    response: Response

    def made(self) -> bytes:
        """Return the arguments that dependencies have made, compared as the rights compare them."""
        names = () if self.rights is None else self.rights.names
        return Arguments({name: self.arguments[name] for name in names}).compared

    async def again(self) -> _Solved:
        """Have FastAPI solve the dependencies once more.

        Raises:
            ServiceUnavailableError: they do not let the request through as it is, and only FastAPI says why.
            Exception: whatever a dependency raised: an HTTPException, usually.
        """
        found = await solve_again(self.request, self.route.route)
        if found is None:
            raise ServiceUnavailableError("the rights of this caller have changed meanwhile: ask again")
        values, response = found
        return _Solved(self.route, self.rights, self.request, self.route.operation.arguments_in(values), response)


class Operations:
    """Answers for path operations. Used on one event loop.

    Args:
        executor: runs endpoints.
        reader: keeps their results.
        freshness: of results whose `Cache` does not say it.
        watch: returns the outcome of something that a right rests on, watched; see `Calls.watch`.
        require_open: raises if nothing can be served.
    """

    def __init__(
        self,
        executor: Executor,
        reader: Reader,
        *,
        freshness: FreshnessMode,
        watch: Callable[[Computable, Rights], Awaitable[tuple[CachedResult, HandlerOutcome]]],
        require_open: Callable[[], None],
    ) -> None:
        self._executor = executor
        self._reader = reader
        self._freshness = freshness
        self._watch = watch
        self._require_open = require_open
        self._app: ASGIApp | None = None
        self._routes: dict[int, tuple[OperationRoute, OperationRights | None]] = {}
        self._paths: set[str] = set()
        self._reported: set[str] = set()
        self._marks = Marks()

    def add(self, operation: PathOperation, route: Any) -> tuple[OperationRoute, OperationRights | None]:
        """Return a path operation on a route, the same each time, and its rights; None if nobody can tell them.

        Raises:
            DefinitionError: the route's options cannot be honoured.
        """
        found = self._routes.get(id(route))
        if found is None:
            path = name = f"GET {route.path_format}"
            number = 1
            while path in self._paths:  # of another host, or of another application that is mounted
                number += 1
                path = f"{name}#{number}"
            added = OperationRoute(operation, route, path)
            found = added, self._rights_of(added)
            self._paths.add(path)
            self._routes[id(route)] = found  # it holds the route, so that no other one gets its id
        return found

    def add_all(self, app: FastAPI) -> None:
        """Add every decorated endpoint of an application, and of those that are mounted in it.

        Raises:
            DefinitionError: a route's options cannot be honoured, or an endpoint is decorated above its route.
        """
        for operation, route in decorated_routes(app):
            self.add(operation, route)

    def header_names(self) -> frozenset[str]:
        """Return the headers that dependencies of endpoints declare, in lower case: a ticket carries them."""
        return frozenset(name for _, rights in self._routes.values() if rights is not None for name in rights.headers)

    def opened(self, rpc: object) -> AbstractContextManager[None]:
        """Have path operations find this while `rpc`, which it belongs to, is open."""
        return opened(rpc, self)

    def open_with(self, app: FastAPI) -> None:
        """Ask this application from now on; after its middlewares were put together."""
        self._app = app
        stack = app.middleware_stack
        if self._routes and stack is not None and not isinstance(stack, StateKeeper):
            app.middleware_stack = StateKeeper(stack)

    async def answer(self, operation: PathOperation, found: SolvedRequest) -> Response:
        """Answer a request that FastAPI has let through.

        Raises:
            DefinitionError: a session of ours cannot take the place of one of them.
            HTTPException: raised by the endpoint, for the application's own handlers.
            Exception: whatever the endpoint raised by accident.
        """
        self._require_open()
        scope = found.request.scope
        placed = effective_route(scope)
        if getattr(placed.endpoint, OPERATION, None) is not operation:
            raise operation.fault(
                f"{placed.path_format} depends on it, and would be given a whole response of HTTP: let both call a "
                "function that is not decorated"
            )
        route, rights = self.add(operation, placed)
        route.require_replaceable(found.sessions)
        solved = _Solved(route, rights, found.request, found.arguments, found.response)
        question: Question | None = scope.get(ASKED)
        try:
            return await (self._answer(solved) if question is None else self._leave_call(solved, question))
        except ServiceUnavailableError as exc:
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, exc.message, {"retry-after": "1"}) from exc

    async def watch(self, url: str, scope: Scope, rights: Rights) -> OperationCall:
        """Return the call that a GET of a URL makes, if the application lets the caller of a stream through.

        Args:
            url: as the client spells it, from the path on.
            scope: of the request for events.
            rights: takes the outcomes that this rests on, watched.

        Raises:
            RPCError: it does not, or nobody can watch the URL.
        """
        return await ask(self._app or scope["app"], url, scope=scope, question=Question(self, rights))

    async def _answer(self, solved: _Solved) -> Response:
        call = self._call(solved)
        by_token = (solved.route.cache.freshness or self._freshness) == "token"
        freshness = required_freshness(solved.request.scope, by_token=by_token, is_shared=is_server_request())
        try:
            result = await self._reader.get(call, freshness=freshness)
        except PassedOnError as exc:
            raise exc.again() from None
        except ServiceUnavailableError as outage:
            return await self._in_outage(solved, call, outage)
        # INVARIANT (no await between the reading and here): the marks hold for the result that is answered.
        return _answer_of(result, solved, self._marks.of(self._reader.freshness.token, self._reader.version_of(result)))

    async def _in_outage(self, solved: _Solved, call: OperationCall, outage: ServiceUnavailableError) -> Response:
        """Answer with the result that is stored, marked as stale, if the endpoint allows it."""
        within_seconds = solved.route.cache.stale_if_error_seconds
        if not within_seconds:
            raise outage
        result = await self._reader.get(call, freshness=InOutage(within_seconds, outage))
        if result.error is not None:
            raise outage
        seconds = math.ceil(self._reader.freshness.age_seconds)
        return _answer_of(result, solved, [(STALE.encode(), b"true"), (STALE_SECONDS.encode(), b"%d" % seconds)])

    def _call(self, solved: _Solved) -> OperationCall:
        route = solved.route
        try:
            return OperationCall(self._executor, route, Arguments(solved.arguments))
        except TypeError as exc:
            raise route.fault(
                f"{exc}, so its answers cannot be kept apart: take the plain values that it needs"
            ) from exc

    async def _leave_call(self, solved: _Solved, question: Question) -> Response:
        if question.by is self:
            question.call = await self._watchable(solved, question.rights)
        else:
            question.refusal = "another ReactiveRPC keeps its answers: watch it at the events of that one"
        # A middleware that keeps responses must not keep this one. With work of its own, though there is none, FastAPI
        # leaves out that of dependencies: it belongs to an answer, and may take longer than a question may.
        return Response(
            status_code=HTTPStatus.NO_CONTENT, headers={"cache-control": "no-store"}, background=BackgroundTasks()
        )

    async def _watchable(self, solved: _Solved, rights: Rights) -> OperationCall:
        """Return the call of a request, and watch all that its dependencies read."""
        asked = self._rights_call(solved)
        if asked is None:
            if solved.rights is None:
                rights.passed.append(None)
            return self._call(solved)
        try:
            right, outcome = await self._watch(asked, rights)
        except ServiceUnavailableError:
            raise
        except Exception as exc:  # dependencies raise what they like: they are asked at each recheck
            self._report(solved.route, exc)
            rights.passed.append(None)
            return self._call(solved)
        # INVARIANT (they came to the same, or FastAPI solves them after them): else a right that was lost between the
        # two would be watched as lost, and never be missed.
        if outcome.error is not None or outcome.body != solved.made():
            solved = await solved.again()
            if not right.live and outcome.is_watchable:
                rights.is_overtaken = True
        return self._call(solved)

    def _rights_of(self, route: OperationRoute) -> OperationRights | None:
        try:
            return OperationRights(route)
        except DefinitionError as exc:
            self._report(route, exc)
            return None

    def _rights_call(self, solved: _Solved) -> RightsCall | None:
        if solved.rights is None:
            return None
        overrides = getattr(solved.route.route.dependency_overrides_provider, "dependency_overrides", {})
        try:
            return solved.rights.call_of(self._executor, solved.request, overrides)
        except DefinitionError as exc:
            self._report(solved.route, exc)
            return None

    def _report(self, route: OperationRoute, error: Exception) -> None:
        if route.path not in self._reported:
            self._reported.add(route.path)
            logger.warning(
                "%s: its dependencies cannot be solved on a session that is watched, so the loss of a right ends a "
                "stream at its next recheck, not at once: %s",
                route.path, reason_of(concealed(error)),
            )  # fmt: skip


def _answer_of(result: CachedResult, solved: _Solved, marks: Headers) -> Response:
    """Return the answer that a result is.

    Raises:
        HTTPException: the endpoint raised it.
    """
    try:
        stored = StoredAnswer.decode(result.answer())
    except HTTPOutcomeError as error:
        is_watchable = result.outcome is not None and result.outcome.is_watchable
        said = {name.decode(): value.decode() for name, value in marks}
        etag = {"etag": result.etag} if is_watchable else {}
        raise error.again({"cache-control": "no-store", **etag, **said}) from None
    status, body, headers = stored.status, stored.body, [*stored.raw_headers]
    if not stored.is_own:
        headers += solved.response.headers.raw
        if solved.response.status_code:
            status = solved.response.status_code
            body = body if is_body_allowed_for_status_code(status) else b""
    names = {name for name, _ in headers}
    ours = [(b"cache-control", b"private, no-cache"), (b"etag", result.etag.encode())]
    headers += [each for each in ours if each[0] not in names]
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES and is_held(solved.request.scope, dict(headers)[b"etag"]):
        status, body = HTTPStatus.NOT_MODIFIED, b""
        headers = [each for each in headers if each[0] != b"content-type"]
    answer = Response(body, status_code=status)
    answer.raw_headers += [*headers, *marks]
    return answer
