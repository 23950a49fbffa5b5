"""Calling the dependencies of a handler, for one call: in the handler's own session, and ended before its answer is.

The order is told once, by a generator that yields each function to be called with its arguments. One driver serves
coroutine handlers, the other plain functions: those run in a thread of their own, and so do their plain dependencies.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import (
    AbstractContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Any, Final, TypeVar

from anyio import from_thread
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from reactive_rpc.compat.fastapi import HTTPConnection, Request, Response
from reactive_rpc.errors import BadRequestError, InternalServerError
from reactive_rpc.procedures.canonical import canonical
from reactive_rpc.procedures.context_isolation import in_own_thread
from reactive_rpc.procedures.dependencies import OF_ANSWERS, HandlerDependency, Plan
from reactive_rpc.procedures.exchange import Exchange
from reactive_rpc.procedures.running_call import current_call
from reactive_rpc.protocol.faults import faults_of, places_of

__all__ = ["NOTHING_MADE", "CallDependencies"]

T = TypeVar("T")
AnyGivenSession = AsyncSession | Session | None

NOTHING_MADE: Final[nullcontext[Mapping[str, Any]]] = nullcontext(MappingProxyType({}))
"""For a handler without dependencies."""


@dataclass(frozen=True, slots=True)
class _Invocation:
    """A function that is to be called next."""

    function: Callable[..., Any]
    arguments: Mapping[str, Any]
    is_async: bool
    is_generator: bool = False


class CallDependencies:
    """The dependencies of one call.

    Args:
        path: of the procedure.
        headers: of the request, raw; none in this process.
        exchange: of a call that is not shared; None for a cached query, which sees `headers` alone.

    Attributes:
        seen: canonical bytes of everything that they can see.
        exchange: as given.
    """

    __slots__ = ("_headers", "_path", "_plan", "exchange", "seen")

    def __init__(
        self, path: str, plan: Plan, headers: Sequence[tuple[bytes, bytes]], *, exchange: Exchange | None
    ) -> None:
        self._path, self._plan, self.exchange = path, plan, exchange
        self._headers = plan.visible(headers)
        self.seen = canonical(
            [plan.token, *((name.decode("latin-1"), value.decode("latin-1")) for name, value in self._headers)]
        )

    @property
    def is_shareable(self) -> bool:
        """Whether workers may take results from each other that they have made."""
        return self._plan.is_shareable

    @asynccontextmanager
    async def solved(self, session: AsyncSession | None) -> AsyncIterator[dict[str, Any]]:
        """Give `{parameter: value}` for a coroutine handler; leave by ending its `yield` dependencies.

        Args:
            session: None where no dependency takes one.

        Raises:
            BadRequestError: a header, a cookie or something else that a dependency takes is missing or wrong.
            Exception: whatever a dependency raised.
        """
        async with AsyncExitStack() as stack:
            yield await _drive(self._solving(session), partial(_invoke, stack, session))
        self._note_background()

    @contextmanager
    def solved_sync(self, session: Session) -> Iterator[dict[str, Any]]:
        """Do as `solved` for a handler that is a plain function, in its thread."""
        with ExitStack() as stack:
            yield _drive_sync(self._solving(session), partial(_invoke_sync, stack))
        self._note_background()

    def _note_background(self) -> None:
        """Leave background tasks to be done after the commit, where there is one."""
        call = current_call()
        if self.exchange is not None and call is not None and call.kind == "mutation":
            call.after_commit.extend(self.exchange.take_background())

    def _solving(self, session: AnyGivenSession) -> Generator[_Invocation, Any, dict[str, Any]]:
        if self.exchange is not None:
            self.exchange.begin()
        made: dict[object, Any] = {}
        values = yield from self._values(self._plan.dependencies, session, made)
        for name, kind in self._plan.given.items():
            values[name] = self._given(kind, name)
        return values

    def _values(
        self, dependencies: Sequence[HandlerDependency], session: AnyGivenSession, made: dict[object, Any]
    ) -> Generator[_Invocation, Any, dict[str, Any]]:
        values = {}
        for each in dependencies:
            if each.identity is None or each.identity not in made:
                value = yield from self._value(each, session, made)
                made.setdefault(each.identity, value)
                values[each.name] = value
            else:
                values[each.name] = made[each.identity]
        return values

    def _value(
        self, dependency: HandlerDependency, session: AnyGivenSession, made: dict[object, Any]
    ) -> Generator[_Invocation, Any, Any]:
        arguments = yield from self._values(dependency.inner, session, made)
        arguments |= {name: _session_of(kind, session) for name, kind in dependency.sessions.items()}
        takes = dependency.takes
        request = self._request(dependency)
        found, faults = takes.read(request)
        if takes.takes_body and not faults:
            found_in_body, faults = yield _Invocation(takes.read_body, {"request": request}, is_async=True)
            found |= found_in_body
        if faults:
            details = faults_of(faults)
            raise BadRequestError(
                f"dependency {dependency.label} of {self._path} does not get what it takes: {places_of(details)}. Send "
                "it; in this process, where there is none, give caller(ctx, overrides={...})",
                details=details,
                path=self._path,
            )
        response = None if self.exchange is None else self.exchange.response
        background = None if self.exchange is None else self.exchange.background
        arguments |= found | takes.given(request, response, background, dependency.scopes)
        return (yield _Invocation(dependency.function, arguments, dependency.is_async, dependency.is_generator))

    def _request(self, dependency: HandlerDependency) -> Any:
        """Return the request as a dependency may see it.

        Raises:
            BadRequestError: it takes more of it than headers, and there is none.
        """
        real = None if self.exchange is None else self.exchange.request
        if real is not None:
            return real
        beyond = [part for part in dependency.takes.others if part not in OF_ANSWERS]
        if beyond:
            self._refuse_without_request(f"dependency {dependency.label}", beyond[0])
        # INVARIANT (the request holds nothing but what stands in the key): whatever a dependency, or a security scheme
        # of the application's own, asks of it, callers with equal keys get the same.
        scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": self._headers}
        return Request(scope)

    def _given(self, kind: type, name: str) -> object:
        exchange = self.exchange
        if exchange is None:  # a cached query is refused where it is defined
            raise InternalServerError(f"{self._path} is given no {kind.__name__}")
        if issubclass(kind, Response):
            return exchange.response
        if issubclass(kind, HTTPConnection):
            if exchange.request is None:
                self._refuse_without_request(f"{name!r}", "Request")
            return exchange.request
        return exchange.background

    def _refuse_without_request(self, what: str, part: str) -> None:
        raise BadRequestError(
            f"{what} of {self._path} takes the {part.removesuffix('()')} of a request, and a call in this process has "
            "none: call it over HTTP, or give caller(ctx, overrides={...})",
            path=self._path,
        )


def _session_of(kind: type, session: AnyGivenSession) -> AnyGivenSession:
    if isinstance(session, AsyncSession) and issubclass(kind, Session):
        return session.sync_session
    return session


async def _drive(
    steps: Generator[_Invocation, Any, dict[str, Any]], invoke: Callable[[_Invocation], Awaitable[Any]]
) -> dict[str, Any]:
    made: Any = None
    while True:
        try:
            invocation = steps.send(made)
        except StopIteration as done:
            values: dict[str, Any] = done.value
            return values
        made = await invoke(invocation)


def _drive_sync(
    steps: Generator[_Invocation, Any, dict[str, Any]], invoke: Callable[[_Invocation], Any]
) -> dict[str, Any]:
    made: Any = None
    while True:
        try:
            invocation = steps.send(made)
        except StopIteration as done:
            values: dict[str, Any] = done.value
            return values
        made = invoke(invocation)


async def _invoke(stack: AsyncExitStack, session: AsyncSession | None, invocation: _Invocation) -> Any:
    function, arguments = invocation.function, invocation.arguments
    if invocation.is_async:
        if invocation.is_generator:
            return await stack.enter_async_context(asynccontextmanager(function)(**arguments))
        return await function(**arguments)
    uses_session = any(isinstance(value, Session) for value in arguments.values())

    async def run(work: Callable[[], T]) -> T:
        return await (session.run_sync(lambda _: work()) if uses_session and session else in_own_thread(work))

    if invocation.is_generator:
        return await stack.enter_async_context(_Elsewhere(contextmanager(function)(**arguments), run))
    return await run(partial(function, **arguments))


class _Elsewhere:
    """A context manager that is entered and left in a thread, or in SQLAlchemy's greenlet."""

    def __init__(self, inner: AbstractContextManager[Any], run: Callable[[Callable[[], Any]], Awaitable[Any]]) -> None:
        self._inner, self._run = inner, run

    async def __aenter__(self) -> Any:
        return await self._run(self._inner.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        is_kept_back: bool | None = await self._run(partial(self._inner.__exit__, kind, error, traceback))
        return is_kept_back


def _invoke_sync(stack: ExitStack, invocation: _Invocation) -> Any:
    function, arguments = invocation.function, invocation.arguments
    if not invocation.is_async:
        if invocation.is_generator:
            return stack.enter_context(contextmanager(function)(**arguments))
        return function(**arguments)
    if not invocation.is_generator:
        return from_thread.run(partial(function, **arguments))
    manager = asynccontextmanager(function)(**arguments)
    value = from_thread.run(manager.__aenter__)
    stack.push(lambda *ended: from_thread.run(manager.__aexit__, *ended))
    return value
