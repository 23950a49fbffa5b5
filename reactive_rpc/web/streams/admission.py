"""The admission of a request for a stream: who calls, and how each query is seen; again at each recheck.

What resolving the contexts held is let go of before the stream begins: a stream lasts for hours, and the database
session of a `yield` dependency must not. Queries that have a context of their own are watched by that one, as they are
called.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import copy_context
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_dependant
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Scope

from reactive_rpc.cache.result import CachedResult, lasts
from reactive_rpc.errors import BadRequestError, InternalServerError, RPCError, rpc_error
from reactive_rpc.procedures.calls import Calls
from reactive_rpc.procedures.options import ProcedureKind
from reactive_rpc.procedures.procedure import AnyProcedure
from reactive_rpc.procedures.rights import Rights, watching
from reactive_rpc.procedures.steps import CallOrigin
from reactive_rpc.protocol.codes import code_for_status
from reactive_rpc.protocol.events import QueryRef
from reactive_rpc.protocol.faults import faults_of
from reactive_rpc.statements.concealment import concealed
from reactive_rpc.subscriptions.reauthorization import REFUSALS, SEEN_BYTES, UNDECIDED, StreamView
from reactive_rpc.subscriptions.stream import Recheck
from reactive_rpc.subscriptions.watched_query import RequestedQuery
from reactive_rpc.tasks import background
from reactive_rpc.web.operations.operations import Operations
from reactive_rpc.web.routing.body import replay
from reactive_rpc.web.routing.callers import identity_of, origin_of
from reactive_rpc.web.routing.dependencies import CONTEXT, Resolved, resolved

__all__ = ["Admission", "Admissions", "view_of"]

logger = logging.getLogger(__name__)

OwnContext = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class ResolvedContexts:
    """The contexts of a request.

    Attributes:
        found: what the dependencies made: the application's context, or None.
        own: those of queries that have one of their own, or why it was refused.
        passed: the outcomes that they rest on, if they are queries themselves.
    """

    found: Resolved
    own: dict[OwnContext, object]
    passed: Sequence[CachedResult | None]

    def of(self, procedure: AnyProcedure | None) -> object:
        """Return the context of a procedure, or of one that there is not; raise if it was refused."""
        dependency = None if procedure is None or procedure.options.public else procedure.chain.dependency
        found = self.found.context if dependency is None else self.own[dependency]
        if isinstance(found, Exception):
            raise found
        return found

    @property
    def caller(self) -> object:
        """The context that says who calls: the application's, or else the first other."""
        known = [self.found.context, *(ctx for ctx in self.own.values() if not isinstance(ctx, Exception))]
        return next((ctx for ctx in known if ctx is not None), None)


@dataclass(frozen=True, slots=True)
class Admissions:
    """Finds out who may watch.

    Args:
        calls: runs the steps of queries.
        operations: asks the application who may watch a URL.
        dependency_of: returns what FastAPI can solve in the place of a function that makes a context.
    """

    calls: Calls
    operations: Operations
    dependency_of: Callable[[OwnContext], OwnContext]

    def of(
        self,
        queries: Sequence[QueryRef],
        dependencies: list[Dependant],
        *,
        scope: Scope,
        body: bytes,
        called: ProcedureKind | None = None,
    ) -> Admission:
        """Return the admission of a request.

        Args:
            queries: that it asks for, or the one procedure that it calls.
            dependencies: of its route.
            scope: of the request.
            body: of the request.
            called: of a call the kind of the procedure; None of queries that are to be watched.
        """
        procedures = [self.calls.registry.get(query.path) for query in queries]
        own = {p.chain.dependency: None for p in procedures if p is not None and not p.options.public}
        if queries and None not in procedures and None not in own:  # none begins with the application's context
            dependencies = [dependency for dependency in dependencies if dependency.name != CONTEXT]
        contexts = tuple(dependency for dependency in own if dependency is not None)
        has_steps = any(map(_is_url, queries)) or any(p is not None and p.chain.steps for p in procedures)
        return Admission(
            by=self,
            queries=tuple(queries),
            dependencies=tuple(dependencies),
            contexts=contexts,
            # INVARIANT (whatever a stream rests on is asked again): a step without a context may refuse later, too.
            can_refuse=bool(dependencies or contexts or has_steps),
            scope=scope,
            body=body,
            called=called,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """One request, and whether its caller may have what it asks for.

    Attributes:
        by: whose parts it asks.
        queries: that it asks for, or the one procedure that it calls.
        dependencies: the router's, and the application's context if any query begins with it.
        contexts: the dependencies of queries that have a context of their own.
        can_refuse: whether anything stands before the queries: a dependency, a step, or the application before a URL.
        called: of a call the kind of the procedure; None of queries that are to be watched.
    """

    by: Admissions
    queries: tuple[QueryRef, ...]
    dependencies: tuple[Dependant, ...]
    contexts: tuple[OwnContext, ...]
    can_refuse: bool
    scope: Scope
    body: bytes
    called: ProcedureKind | None

    @asynccontextmanager
    async def resolved(self, rights: Rights) -> AsyncIterator[ResolvedContexts]:
        """Give the contexts; one of some queries' own that is refused refuses these alone.

        Args:
            rights: takes the outcomes that the contexts rest on, watched.

        Raises:
            Exception: what a dependency raised.
        """
        async with AsyncExitStack() as stack:
            stack.enter_context(watching(rights))
            own: dict[OwnContext, object] = {}
            request = Request(self.scope, replay(self.body))
            found = await stack.enter_async_context(resolved(request, self.dependencies))
            for dependency in self.contexts:
                # INVARIANT (a query is watched by the context that it is called by): another's would skip its guard.
                call = self.by.dependency_of(dependency)
                asked = get_dependant(path=self.scope["path"], call=call, name=CONTEXT)
                try:
                    request = Request(dict(self.scope), replay(self.body))
                    made = await stack.enter_async_context(resolved(request, [asked]))
                    own[dependency] = made.context
                except (HTTPException, RPCError, RequestValidationError) as exc:
                    own[dependency] = exc
            yield ResolvedContexts(found, own, rights.passed)

    def require_current(self, ctx: object, rights: Rights) -> None:
        """Let only a context through that has not expired, and note until when it holds.

        Raises:
            UnauthorizedError: it has.
        """
        rights.expires_at = min(rights.expires_at, self.by.calls.require_current(ctx))

    async def bound(self, contexts: ResolvedContexts, rights: Rights) -> list[RequestedQuery | None]:
        """Return each query, bound to the caller or refused; None for a URL.

        Raises:
            UnauthorizedError: a context has expired.
        """
        for ctx in (contexts.found.context, *contexts.own.values()):
            self.require_current(ctx, rights)
        origin = origin_of(self.scope, "stream")
        return [
            None if _is_url(ref) else await self._bound(ref, contexts, rights, origin=origin) for ref in self.queries
        ]

    async def with_urls(
        self, bound: Sequence[RequestedQuery | None], contexts: ResolvedContexts, rights: Rights
    ) -> tuple[list[RequestedQuery], StreamView]:
        """Return all that was asked for, its URLs too, and the caller's view of it."""
        # INVARIANT (after the contexts have let go of what they held): the application is asked with sessions of its
        # own pool, which many streams that open at once would else wait for in vain.
        subscriptions = [
            await self._watched_url(ref, rights) if found is None else found
            for ref, found in zip(self.queries, bound, strict=True)
        ]
        return subscriptions, view_of(contexts.caller, subscriptions, rights)

    def recheck(self) -> Recheck | None:
        """Return a function that resolves the dependencies and runs the steps again; None if nothing can refuse.

        Of a call, it raises what its steps do; else a query that is refused is one of several, and the others go on.

        They find the `ContextVar`s that the application's middlewares had set for the request. The headers that they
        set and the work that they leave behind belong to an answer, and there is none.
        """
        if not self.can_refuse:
            return None
        context = copy_context()

        async def recheck(rights: Rights) -> StreamView:
            again = replace(self, scope=dict(self.scope))  # in which FastAPI leaves what it closes
            async with background(again._view(rights), "recheck", context=context.copy()) as resolving:
                return await resolving

        return recheck

    def request_bytes(self, rights: Rights) -> int:
        """Return the size of the body, the headers, and the outcomes of steps, which `recheck` keeps in memory."""
        if not self.can_refuse:
            return 0
        headers = sum(len(name) + len(value) for name, value in self.scope["headers"])
        return len(self.body) + headers + rights.held_bytes

    async def _view(self, rights: Rights) -> StreamView:
        try:
            async with self.resolved(rights) as contexts:
                bound = await self.bound(contexts, rights)
            for refused in bound if self.called else ():
                if refused is not None and refused.error is not None:
                    raise refused.error
            return (await self.with_urls(bound, contexts, rights))[1]
        except HTTPException as exc:
            raise rpc_error(code_for_status(exc.status_code), str(exc.detail)) from exc

    async def _watched_url(self, ref: QueryRef, rights: Rights) -> RequestedQuery:
        passed: list[CachedResult | None] = []
        rights.passed = passed
        try:
            if ref.input is not None:
                raise BadRequestError("a URL has its input in its query string: leave the input out", path=ref.path)
            call = await self.by.operations.watch(ref.path, self.scope, rights)
        except RPCError as exc:
            return RequestedQuery(ref, error=exc, is_refused_by_input=True)
        return RequestedQuery(ref, call=call, passed=tuple(passed))

    async def _bound(
        self, ref: QueryRef, contexts: ResolvedContexts, rights: Rights, *, origin: CallOrigin
    ) -> RequestedQuery:
        calls, kind = self.by.calls, self.called or "query"
        procedure = calls.registry.get(ref.path)
        rights.passed = passed = [*contexts.passed]
        rights.is_by_input = False
        try:
            ctx = contexts.of(procedure)
            call = await calls.subscribe(ref.path, ref.input, ctx, origin=origin, rights=rights, kind=kind)
            return RequestedQuery(ref, call=call, passed=tuple(passed))
        except HTTPException as exc:
            return RequestedQuery(ref, error=rpc_error(code_for_status(exc.status_code), str(exc.detail)))
        except RequestValidationError as exc:
            details = faults_of(exc.errors())
            error = BadRequestError("the request does not fit what its context asks for", details=details)
            return RequestedQuery(ref, error=error)
        except RPCError as exc:
            return RequestedQuery(ref, error=exc, is_refused_by_input=rights.is_by_input)
        except Exception as exc:  # as where a handler fails: the other queries are none the worse for it
            logger.error("a step of %s failed for a stream", ref.path, exc_info=concealed(exc))
            return RequestedQuery(ref, error=InternalServerError(path=ref.path))


def _is_url(ref: QueryRef) -> bool:
    return ref.path.startswith("/")


def view_of(ctx: object, subscriptions: Sequence[RequestedQuery], rights: Rights) -> StreamView:
    """Return what a caller may see.

    Args:
        ctx: the context that says who calls.
        subscriptions: all that was asked for.
        rights: that this rests on.
    """
    return StreamView(_seen_by(ctx, subscriptions), rights, _refusal_of(ctx, subscriptions))


def _seen_by(ctx: object, subscriptions: Iterable[RequestedQuery]) -> bytes:
    """Return bytes that differ if the context is another caller's, or a query is seen otherwise, or is refused."""
    return b"".join((_digest(identity_of(ctx)), *map(_seen, subscriptions)))


def _seen(subscription: RequestedQuery) -> bytes:
    call = subscription.call
    if call is not None:
        return _digest(call.key[2])
    error = subscription.error or InternalServerError()
    return _digest(error.code) if lasts(error) else UNDECIDED


def _refusal_of(ctx: object, subscriptions: Sequence[RequestedQuery]) -> str | None:
    """Return why a caller who is known may see nothing at all, whatever the input; None if that is not so."""
    refusals = [
        each.error
        for each in subscriptions
        if each.error is not None and each.error.code in REFUSALS and not each.is_refused_by_input
    ]
    if identity_of(ctx) is None or not refusals or len(refusals) < len(subscriptions):
        return None
    return refusals[0].message


def _digest(seen: object) -> bytes:
    return blake2b(repr(seen).encode(), digest_size=SEEN_BYTES).digest()
