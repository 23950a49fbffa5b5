"""Steps and wrappers: they stand between the context of an application and a handler.

A *step* makes the context that follows, or lets it be, and refuses by raising. Steps run on every call, also if the
result is stored: no cached result skips a guard. A step that takes a session is a query of its own, cached with its
read set. A *wrapper* encloses what stands after it: it sees how a call ended, and may map errors.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter
from typing import Any, Final, Literal, Protocol, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from reactive_rpc.errors import DefinitionError, RPCError
from reactive_rpc.procedures.annotations import plain
from reactive_rpc.procedures.context import Context, context_fault
from reactive_rpc.procedures.dependencies import Overrides
from reactive_rpc.procedures.exchange import Exchange
from reactive_rpc.procedures.handler import hints_of, session_of
from reactive_rpc.procedures.options import ProcedureKind
from reactive_rpc.statements.sessions import AnyAsyncSession, AnySession

__all__ = [
    "LOCAL",
    "Answered",
    "AskedContext",
    "CallInfo",
    "CallOrigin",
    "CallTransport",
    "Chain",
    "ChainPart",
    "Moment",
    "Next",
    "Outcome",
    "RateCounts",
    "Step",
    "Wrapper",
    "WrapperFunction",
    "around",
    "first_with_session",
    "overridden",
    "walk",
]

T = TypeVar("T")
CallTransport = Literal["http", "stream", "local"]
Moment = Literal["call", "compute"]


class AskedContext(Protocol):
    """A context that is a query, as it was found for a call."""

    @property
    def made(self) -> Context:
        """The context."""
        ...

    @property
    def holds(self) -> bool:
        """Whether it still is the outcome, as far as this worker has read the log."""
        ...

    async def again(self) -> AskedContext:
        """Find it once more, for the same caller.

        Raises:
            RPCError: it has refused.
        """
        ...


@dataclass(frozen=True, slots=True)
class CallOrigin:
    """Where a call comes from.

    Attributes:
        headers: `{name in lower case: value}` of the request.
        client: the address that it came from; None if there is none.
        raw_headers: the same headers as they came, of which dependencies see those that they declare.
        exchange: the request and the answer, of a call that is not shared; None if it may see nothing.
        overrides: `{function: the one that is called in its place}`.
        asked: how its context was found, and can be again; None if it rests on no rows.
    """

    transport: CallTransport
    headers: Mapping[str, str] = field(default_factory=dict)
    client: str | None = None
    raw_headers: Sequence[tuple[bytes, bytes]] = ()
    exchange: Exchange | None = None
    overrides: Overrides = field(default_factory=dict)
    asked: AskedContext | None = None

    @property
    def request_id(self) -> str:
        """Names the request in logs; empty if there is none."""
        return self.headers.get("x-request-id", "")


LOCAL: Final = CallOrigin("local")


class RateCounts(Protocol):
    """The counts of calls that `rate_limit` asks for: the application's, over all of its workers."""

    async def require_room(self, name: str, who: str, *, calls: int, per_seconds: float) -> None:
        """Count a call of `who` under the limit called `name`.

        Raises:
            TooManyRequestsError: there have been `calls` within `per_seconds`.
        """
        ...


class CallInfo:
    """The part of a call that steps and wrappers see.

    Beside a session, and around the computation of a result, a call is whoever's: `path`, `kind` and `input` are all
    there is, and the rest raises a `DefinitionError`, as no cache key holds it.

    Args:
        path: of the procedure.
        kind: of the procedure.
        input: returns the validated input, or None; asked when somebody wants to know.
        origin: where the call comes from; None if nobody may know.
        rate_limits: where calls are counted; None where nobody counts any.
    """

    __slots__ = ("_input", "_origin", "_rate_limits", "_read_input", "kind", "path")

    def __init__(
        self,
        path: str,
        kind: ProcedureKind,
        input: Callable[[], Any],
        *,
        origin: CallOrigin | None = None,
        rate_limits: RateCounts | None = None,
    ) -> None:
        self.path = path
        self.kind: ProcedureKind = kind
        self._origin = origin
        self._rate_limits = rate_limits
        self._read_input: Callable[[], Any] | None = input
        self._input: Any = None

    def __deepcopy__(self, memo: dict[int, Any]) -> CallInfo:
        input = partial(deepcopy, self.given)
        return CallInfo(self.path, self.kind, input, origin=self._origin, rate_limits=self._rate_limits)

    @property
    def given(self) -> Any:
        """The validated input itself: for keys, and never for code of the application's."""
        if self._read_input is not None:
            self._input, self._read_input = self._read_input(), None
        return self._input

    @property
    def input(self) -> Any:
        """A copy of the validated input: the model of its fields; None if the procedure takes none."""
        # INVARIANT (each who asks gets another copy): whoever changes it changes nothing that the next step, the key or
        # the handler sees. A step that could would have a result stored under the key of another input.
        return deepcopy(self.given)

    @property
    def transport(self) -> CallTransport:
        """`http`, `stream` (a subscription to it, or a recheck), or `local` (a call in this process)."""
        return self._known("transport").transport

    @property
    def headers(self) -> Mapping[str, str]:
        """The request's headers, by their names in lower case."""
        return self._known("headers").headers

    @property
    def client(self) -> str | None:
        """The address that the request came from."""
        return self._known("client").client

    @property
    def request_id(self) -> str:
        """Names the request in logs; empty if there is none."""
        return self._known("request_id").request_id

    @property
    def rate_limits(self) -> RateCounts:
        """The application's counts of calls, for `rate_limit`."""
        if self._rate_limits is None:
            raise DefinitionError(
                f"{self.path}: calls are not counted here: put rate_limit before steps with a session"
            )
        return self._rate_limits

    def without_origin(self) -> CallInfo:
        """Return the same, for whoever must not know where the call comes from."""
        return CallInfo(self.path, self.kind, lambda: self.given)

    def _known(self, what: str) -> CallOrigin:
        if self._origin is None:
            raise DefinitionError(
                f"call.{what} of {self.path} is asked for by a step with a session, or around a computation: its "
                f"outcome is kept and serves other calls, so it sees path, kind and input alone. Read {what} in a step "
                "without a session, before it, and hand it on in the context"
            )
        return self._origin


@dataclass(frozen=True, slots=True)
class Answered:
    """How the part that `next()` runs has ended.

    Attributes:
        source: `cache`: with a stored result; `handler`: with one that was made for this call; `error`.
        error: the answer of the caller in the place of a result; None normally.
        seconds: how long it took.
    """

    source: Literal["cache", "handler", "error"]
    error: RPCError | None
    seconds: float


Next = Callable[[], Awaitable[Answered]]
"""Makes the call that a wrapper encloses, once: `answer = await next()`. An error that callers are answered is in the
answer, and is not raised."""
WrapperFunction = Callable[[CallInfo, Next], Awaitable[Answered]]


@dataclass(frozen=True, slots=True)
class Wrapper:
    """A function that encloses the parts after it.

    Attributes:
        on: `call`: around each call; `compute`: around each run of the handler, also if nobody called.
    """

    function: WrapperFunction
    on: Moment


@dataclass(frozen=True, slots=True)
class Step:
    """A function of a context.

    Attributes:
        name: of the function, with its module: results of a step with a session are kept under it.
        context_name: of the parameter that takes the context.
        takes: the class of that context.
        gives: that of the context it makes; None if it makes none.
        session: the class of the session that it takes; None if it takes none.
        session_name: of that parameter.
        call_name: of the parameter that takes a `CallInfo`; "" if there is none.
    """

    function: Callable[..., Any]
    name: str
    context_name: str
    takes: type[Context]
    gives: type[Context] | None
    session: AnyAsyncSession | AnySession | None
    session_name: str
    call_name: str
    is_async: bool

    def arguments(self, session: object, ctx: object, call: object) -> dict[str, Any]:
        """Return the arguments of the function."""
        arguments = {self.context_name: ctx}
        if self.session is not None:
            arguments[self.session_name] = session
        if self.call_name:
            arguments[self.call_name] = call
        return arguments

    async def run(self, ctx: Context, call: CallInfo | None) -> Context:
        """Run a step without a session and return the context that follows; `call` is None if it takes none."""
        made = self.function(**self.arguments(None, ctx, call))
        return self.checked(ctx, await made if self.is_async else made)

    def run_now(self, ctx: Context) -> Context:
        """As `run`, of a step that is no coroutine and takes the context alone."""
        made = self.function(**{self.context_name: ctx})
        return ctx if made is None and self.gives is None else self.checked(ctx, made)

    async def run_in(self, session: AsyncSession, ctx: Context, call: CallInfo) -> Context:
        """Run a step in the transaction of a mutation."""
        if self.session is None:
            return await self.run(ctx, call)
        inside = call.without_origin()
        if self.is_async:
            return self.checked(ctx, await self.function(**self.arguments(session, ctx, inside)))
        made = await session.run_sync(lambda sync: self.function(**self.arguments(sync, ctx, inside)))
        return self.checked(ctx, made)

    def run_sync_in(self, session: Session, ctx: Context, call: CallInfo) -> Context:
        """Run a step that is no coroutine in the transaction of a mutation that is none."""
        return self.checked(ctx, self.function(**self.arguments(session, ctx, call.without_origin())))

    def checked(self, ctx: Context, made: object) -> Context:
        """Return the context that follows `ctx`.

        Raises:
            DefinitionError: the step has returned something else than it says.
        """
        self.require_as_said(made)
        return ctx if made is None else made  # type: ignore[return-value]  # it is as the step says

    def require_as_said(self, made: object) -> None:
        """Let only what the step says that it returns through.

        Raises:
            DefinitionError: it is something else.
        """
        if type(made) is (self.gives or type(None)):
            return
        says = "nothing" if self.gives is None else f"a {self.gives.__name__}"
        raise DefinitionError(
            f"step {self.name}: it says that it returns {says}, and returned a {type(made).__name__}: a step returns "
            "the context that follows, or None, and refuses by raising"
        )


ChainPart = Step | Wrapper


@dataclass(frozen=True, slots=True)
class Chain:
    """Steps and wrappers, in the order in which they were written.

    Attributes:
        root: the class of the context that an application's own dependency returns, as far as it is known.
        gives: the class of the context that handlers get.
        dependency: a dependency for these procedures alone; None if it is the application's.
    """

    root: type[Context]
    gives: type[Context]
    dependency: Callable[..., Any] | None = None
    parts: tuple[ChainPart, ...] = ()

    @property
    def calls(self) -> tuple[ChainPart, ...]:
        """The steps and wrappers that run on every call."""
        return tuple(part for part in self.parts if isinstance(part, Step) or part.on == "call")

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps alone."""
        return tuple(part for part in self.parts if isinstance(part, Step))

    @property
    def around_computation(self) -> tuple[Wrapper, ...]:
        """The wrappers of each run of the handler."""
        return tuple(part for part in self.parts if isinstance(part, Wrapper) and part.on == "compute")

    def with_step(self, function: Callable[..., Any]) -> Chain:
        """Return the chain with one more step.

        Raises:
            DefinitionError: it is no step, or takes another context than the steps before it give.
        """
        step = read_step(function)
        if not issubclass(self.gives, step.takes):
            raise DefinitionError(
                f"use({step.name}): it takes a {step.takes.__name__}, and the steps before it give a "
                f"{self.gives.__name__}: put a step that makes a {step.takes.__name__} before it"
            )
        return replace(self, parts=(*self.parts, step), gives=step.gives or self.gives)

    def with_wrapper(self, function: WrapperFunction, on: Moment) -> Chain:
        """Return the chain with one more wrapper.

        Raises:
            DefinitionError: it is none.
        """
        name = _name_of(function, "wrap")
        if on not in ("call", "compute"):
            raise DefinitionError(f"wrap({name}, on={on!r}): say 'call' or 'compute'")
        if not inspect.iscoroutinefunction(function) or len(inspect.signature(function).parameters) != 2:
            raise DefinitionError(
                f"wrap({name}): a wrapper is `async def {name.rpartition('.')[2]}(call: CallInfo, next: Next) -> "
                "Answered`, and returns what next() gave"
            )
        return replace(self, parts=(*self.parts, Wrapper(function, on)))


def overridden(parts: tuple[ChainPart, ...], overrides: Overrides) -> tuple[ChainPart, ...]:
    """Return parts of a chain in which other functions stand in the place of some steps.

    Raises:
        DefinitionError: a function is no step, or makes or takes another context than the one whose place it takes.
    """
    if not overrides:
        return parts
    return tuple(
        _step_in_place_of(part, overrides[part.function])
        if isinstance(part, Step) and part.function in overrides
        else part
        for part in parts
    )


def _step_in_place_of(step: Step, function: Callable[..., Any]) -> Step:
    other = read_step(function)
    if not issubclass(step.takes, other.takes) or other.gives is not step.gives:
        raise DefinitionError(
            f"overrides: step {other.name} cannot stand in the place of {step.name}: let it take the same context, and "
            "return the same"
        )
    return other


def read_step(function: Callable[..., Any]) -> Step:
    """Return the step that a function is.

    Raises:
        DefinitionError: it is none; the message says why and the way out.
    """
    name = _name_of(function, "use")

    def refuse(message: str) -> DefinitionError:
        return DefinitionError(f"use({name}): {message}")

    hints = hints_of(function, refuse)
    parameters = list(inspect.signature(function).parameters)
    takes = plain(hints.get(parameters[0])) if parameters else None
    if isinstance(takes, TypeVar):
        raise refuse("a step of any context lets it be: write `def step(ctx: Context) -> None`")
    if not (isinstance(takes, type) and issubclass(takes, Context)):
        raise refuse(
            "a step takes the context first: write `def step(ctx: Login) -> None`, with the context that it needs"
        )
    is_async = inspect.iscoroutinefunction(function)
    session_name = call_name = ""
    for parameter in parameters[1:]:
        kind = plain(hints.get(parameter))
        if isinstance(kind, type) and issubclass(kind, AsyncSession | Session) and not session_name:
            session_name = parameter
        elif kind is CallInfo and not call_name:
            call_name = parameter
        else:
            raise refuse(f"{parameter!r} is unknown: after the context a step takes a session, a CallInfo, or both")
    return Step(
        function=function,
        name=name,
        context_name=parameters[0],
        takes=takes,
        gives=_given_by(hints, refuse),
        session=session_of(hints[session_name], is_async, refuse) if session_name else None,
        session_name=session_name,
        call_name=call_name,
        is_async=is_async,
    )


def _given_by(hints: Mapping[str, Any], refuse: Callable[[str], DefinitionError]) -> type[Context] | None:
    if "return" not in hints:
        raise refuse("say what it returns: -> None where it lets the context be, else the context that follows")
    gives = plain(hints["return"])
    if gives is type(None):
        return None
    if not (isinstance(gives, type) and issubclass(gives, Context)):
        way = "; a truth value would let everybody through" if gives is bool else ""
        raise refuse(
            f"it returns {getattr(gives, '__name__', gives)}: a step returns the context that follows, or nothing, and "
            f"refuses by raising{way}"
        )
    fault = context_fault(gives)
    if fault is not None:
        raise refuse(f"the context that it returns cannot be part of a cache key: {fault}")
    return gives


def _name_of(function: object, where: str) -> str:
    if not callable(function) or isinstance(function, type) or not hasattr(function, "__qualname__"):
        raise DefinitionError(f"{where}({function!r}): give a function")
    return f"{function.__module__}.{function.__qualname__}"


@dataclass(slots=True)
class Outcome:
    """How the innermost part of a chain has ended: what wrappers are told, and what they are not."""

    source: Literal["cache", "handler", "error"]
    error: RPCError | None
    value: Any


async def walk(
    parts: tuple[ChainPart, ...],
    ctx: Context,
    call: CallInfo,
    *,
    step: Callable[[Step, Context], Awaitable[Context]],
    last: Callable[[Context], Awaitable[Outcome]],
) -> Outcome:
    """Run parts of a chain in order, then `last` with the context that they make; return its result.

    Args:
        step: runs a step.

    Raises:
        DefinitionError: a wrapper returned something else than `next()` gave, or called it twice, or too late.
        Exception: whatever a part, or `last`, raised.
    """
    for at, part in enumerate(parts):
        if isinstance(part, Wrapper):
            rest = partial(walk, parts[at + 1 :], ctx, call, step=step, last=last)
            return await _run_wrapper(part, call, rest)
        ctx = await step(part, ctx)
    return await last(ctx)


async def _run_wrapper(wrapper: Wrapper, call: CallInfo, rest: Callable[[], Awaitable[Outcome]]) -> Outcome:
    """Run a wrapper around `rest`; see `walk`."""
    ended: list[tuple[Answered, Outcome | RPCError]] = []
    is_called = is_over = False

    async def next() -> Answered:
        nonlocal is_called
        if is_called or is_over:
            how = "twice" if is_called else "after it has ended"
            raise DefinitionError(
                f"wrapper {_name_of(wrapper.function, 'wrap')} calls next() {how}: a call is made once, within it"
            )
        is_called = True
        began = perf_counter()
        outcome: Outcome | RPCError
        try:
            outcome = await rest()
            answered = Answered(outcome.source, outcome.error, perf_counter() - began)
        except RPCError as exc:
            outcome, answered = exc, Answered("error", exc, perf_counter() - began)
        ended.append((answered, outcome))
        return answered

    try:
        returned = await wrapper.function(call, next)
    finally:
        # INVARIANT (nothing is called for a caller who has been answered): a `next` that was kept would find a session
        # that is closed, and guards that were passed long ago.
        is_over = True
    if not ended or returned is not ended[0][0]:
        raise DefinitionError(
            f"wrapper {_name_of(wrapper.function, 'wrap')} returned {type(returned).__name__}: a wrapper returns what "
            "next() gave, or raises"
        )
    outcome = ended[0][1]
    if isinstance(outcome, RPCError):
        raise outcome
    return outcome


async def around(wrappers: tuple[Wrapper, ...], call: CallInfo, run: Callable[[], Awaitable[T]]) -> T:
    """Run a computation inside of its wrappers and return its result."""

    async def last(_: Context) -> Outcome:
        return Outcome("handler", None, await run())

    outcome = await walk(wrappers, _NOBODY, call, step=_no_step, last=last)
    value: T = outcome.value
    return value


async def _no_step(_: Step, ctx: Context) -> Context:
    return ctx


_NOBODY: Final = Context()


def first_with_session(parts: tuple[ChainPart, ...]) -> int:
    """Return where the first step with a session stands; their number where there is none."""
    with_session: Iterator[int] = (
        at for at, part in enumerate(parts) if isinstance(part, Step) and part.session is not None
    )
    return next(with_session, len(parts))
