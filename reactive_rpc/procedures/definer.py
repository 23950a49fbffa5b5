"""Definers: the decorators that make procedures, and remember their steps and options.

`define_reactive_function` is the root. `.use`, `.wrap`, `.context` and `.defaults` each return another definer, which
is used in the same way; a definer never changes.
"""

from __future__ import annotations

import inspect
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import replace
from types import FrameType
from typing import Any, ClassVar, Concatenate, Final, Generic, ParamSpec, Self, TypeVar, get_args, get_origin, overload

from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession
from typing_extensions import Unpack, deprecated

from reactive_rpc.errors import DefinitionError, RPCError
from reactive_rpc.procedures.annotations import plain
from reactive_rpc.procedures.context import Context, Login, context_fault
from reactive_rpc.procedures.handler import hints_of
from reactive_rpc.procedures.mapped_context import mapped_class_in, mapped_context_message
from reactive_rpc.procedures.options import (
    GivenOption,
    MutationOptions,
    ProcedureKind,
    QueryOptions,
    SubscriptionOptions,
    resolve_options,
)
from reactive_rpc.procedures.procedure import (
    Mutation,
    Procedure,
    Query,
    StreamedQuery,
    Subscription,
    SyncMutation,
    SyncQuery,
    refusal,
)
from reactive_rpc.procedures.steps import Chain, Moment, WrapperFunction

__all__ = ["Definer", "MutationDefiner", "QueryDefiner", "SubscriptionDefiner", "define_reactive_function"]

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=Context)
D = TypeVar("D", bound=Context)
L = TypeVar("L", bound=Login)
X = TypeVar("X", bound=Context)

Given = Mapping[str, GivenOption]
OfKind = Mapping[ProcedureKind, Given]


class _KindDefiner(Generic[C]):
    """The base of the definers of all kinds."""

    _kind: ClassVar[ProcedureKind]
    _classes: ClassVar[tuple[type[Procedure[..., ..., Any]], ...]]
    """Of a coroutine function, of a plain one, and of an async generator."""

    def __init__(self, chain: Chain, by_kind: OfKind, given: Given | None = None) -> None:
        self._chain = chain
        self._by_kind = by_kind
        self._given = given or {}

    def _decorate(self, function: Callable[..., Any] | None, options: Mapping[str, Any]) -> Any:
        if function is None:
            kind: Any = _DEFINERS[self._kind]
            return kind(self._chain, self._by_kind, {**self._given, **_given(options)})

        def fault(message: str) -> DefinitionError:
            return refusal(function, message)

        effective = resolve_options(self._kind, self._by_kind.get(self._kind, {}), self._given, fault=fault)
        of_coroutine, of_function, of_generator = self._classes
        if inspect.isasyncgenfunction(function):
            return of_generator(function, effective, self._chain)
        return (of_coroutine if inspect.iscoroutinefunction(function) else of_function)(
            function, effective, self._chain
        )


class QueryDefiner(_KindDefiner[C]):
    """Makes queries of functions; see `Definer` for the options."""

    _kind = "query"
    _classes = (Query, SyncQuery, StreamedQuery)

    @overload
    def __call__(  # type: ignore[overload-overlap]  # the first that fits counts
        self, function: Callable[Concatenate[AsyncSession, C, P], Coroutine[Any, Any, R]], /
    ) -> Query[Concatenate[AsyncSession, C, P], P, R]: ...
    @overload
    @deprecated("ctx is not the context that the steps of this definer give: refused at start")
    def __call__(  # type: ignore[overload-overlap]  # the first that fits counts
        self, function: Callable[Concatenate[AsyncSession, X, P], Coroutine[Any, Any, R]], /
    ) -> Query[Concatenate[AsyncSession, X, P], P, R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]  # the first that fits counts
        self, function: Callable[Concatenate[AsyncSession, P], Coroutine[Any, Any, R]], /
    ) -> Query[Concatenate[AsyncSession, P], P, R]: ...
    @overload
    @deprecated("the session comes first, then the context, then what callers give: refused at start")
    def __call__(  # type: ignore[overload-overlap]  # the first that fits counts
        self, function: Callable[Concatenate[Any, AsyncSession, P], Coroutine[Any, Any, R]], /
    ) -> Query[Concatenate[Any, AsyncSession, P], P, R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]  # the first that fits counts
        self, function: Callable[Concatenate[C, P], Coroutine[Any, Any, R]], /
    ) -> Query[Concatenate[C, P], P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Query[P, P, R]: ...  # type: ignore[overload-overlap]  # the first that fits counts
    @overload
    def __call__(  # type: ignore[overload-overlap]  # the first that fits counts
        self, function: Callable[Concatenate[AsyncSession, C, P], AsyncIterator[R]], /
    ) -> StreamedQuery[Concatenate[AsyncSession, C, P], P, R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]  # the first that fits counts
        self, function: Callable[Concatenate[AsyncSession, P], AsyncIterator[R]], /
    ) -> StreamedQuery[Concatenate[AsyncSession, P], P, R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]  # the first that fits counts
        self, function: Callable[Concatenate[C, P], AsyncIterator[R]], /
    ) -> StreamedQuery[Concatenate[C, P], P, R]: ...
    @overload
    def __call__(self, function: Callable[P, AsyncIterator[R]], /) -> StreamedQuery[P, P, R]: ...  # type: ignore[overload-overlap]  # the first that fits counts
    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]  # the first that fits counts
        self, function: Callable[Concatenate[Session, C, P], R], /
    ) -> SyncQuery[Concatenate[Session, C, P], P, R]: ...
    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]  # the first that fits counts
        self, function: Callable[Concatenate[Session, P], R], /
    ) -> SyncQuery[Concatenate[Session, P], P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[C, P], R], /) -> SyncQuery[Concatenate[C, P], P, R]: ...  # pyright: ignore[reportOverlappingOverload]  # the first that fits counts
    @overload
    def __call__(self, function: Callable[P, R], /) -> SyncQuery[P, P, R]: ...
    @overload
    def __call__(self, /, **options: Unpack[QueryOptions]) -> QueryDefiner[C]: ...

    def __call__(self, function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Make a query of a function; without one, return the definer that these options belong to."""
        return self._decorate(function, options)


class MutationDefiner(_KindDefiner[C]):
    """Makes mutations of functions; see `Definer` for the options."""

    _kind = "mutation"
    _classes = (Mutation, SyncMutation, Mutation)

    @overload
    def __call__(  # type: ignore[overload-overlap]  # the first that fits counts
        self, function: Callable[Concatenate[AsyncSession, C, P], Coroutine[Any, Any, R]], /
    ) -> Mutation[Concatenate[AsyncSession, C, P], P, R]: ...
    @overload
    @deprecated("ctx is not the context that the steps of this definer give: refused at start")
    def __call__(  # type: ignore[overload-overlap]  # the first that fits counts
        self, function: Callable[Concatenate[AsyncSession, X, P], Coroutine[Any, Any, R]], /
    ) -> Mutation[Concatenate[AsyncSession, X, P], P, R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]  # the first that fits counts
        self, function: Callable[Concatenate[AsyncSession, P], Coroutine[Any, Any, R]], /
    ) -> Mutation[Concatenate[AsyncSession, P], P, R]: ...
    @overload
    @deprecated("the session comes first, then the context, then what callers give: refused at start")
    def __call__(  # type: ignore[overload-overlap]  # the first that fits counts
        self, function: Callable[Concatenate[Any, AsyncSession, P], Coroutine[Any, Any, R]], /
    ) -> Mutation[Concatenate[Any, AsyncSession, P], P, R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]  # the first that fits counts
        self, function: Callable[Concatenate[C, P], Coroutine[Any, Any, R]], /
    ) -> Mutation[Concatenate[C, P], P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Mutation[P, P, R]: ...  # type: ignore[overload-overlap]  # the first that fits counts
    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]  # the first that fits counts
        self, function: Callable[Concatenate[Session, C, P], R], /
    ) -> SyncMutation[Concatenate[Session, C, P], P, R]: ...
    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]  # the first that fits counts
        self, function: Callable[Concatenate[Session, P], R], /
    ) -> SyncMutation[Concatenate[Session, P], P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[C, P], R], /) -> SyncMutation[Concatenate[C, P], P, R]: ...  # pyright: ignore[reportOverlappingOverload]  # the first that fits counts
    @overload
    def __call__(self, function: Callable[P, R], /) -> SyncMutation[P, P, R]: ...
    @overload
    def __call__(self, /, **options: Unpack[MutationOptions]) -> MutationDefiner[C]: ...

    def __call__(self, function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Make a mutation of a function; without one, return the definer that these options belong to."""
        return self._decorate(function, options)


class SubscriptionDefiner(_KindDefiner[C]):
    """Makes subscriptions of async generators; see `Definer` for the options."""

    _kind = "subscription"
    _classes = (Subscription, Subscription, Subscription)

    @overload
    @deprecated("a subscription lasts for hours, and takes no session: refused at start")
    def __call__(
        self, function: Callable[Concatenate[AsyncSession, P], AsyncIterator[R]], /
    ) -> Subscription[Concatenate[AsyncSession, P], P, R]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[C, P], AsyncIterator[R]], /
    ) -> Subscription[Concatenate[C, P], P, R]: ...
    @overload
    @deprecated("ctx is not the context that the steps of this definer give: refused at start")
    def __call__(
        self, function: Callable[Concatenate[X, P], AsyncIterator[R]], /
    ) -> Subscription[Concatenate[X, P], P, R]: ...
    @overload
    def __call__(self, function: Callable[P, AsyncIterator[R]], /) -> Subscription[P, P, R]: ...
    @overload
    def __call__(self, /, **options: Unpack[SubscriptionOptions]) -> SubscriptionDefiner[C]: ...

    def __call__(self, function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Make a subscription of a function; without one, return the definer that these options belong to."""
        return self._decorate(function, options)


_DEFINERS: Final[Mapping[ProcedureKind, Any]] = {
    "query": QueryDefiner,
    "mutation": MutationDefiner,
    "subscription": SubscriptionDefiner,
}


class Definer(QueryDefiner[C]):
    """Makes procedures, and remembers the steps, wrappers and options that they share.

    A definer is a decorator, and makes a query: `@define_reactive_function`. `.mutation` and `.subscription` are its
    other kinds. A handler takes, in this order, a session, a context and inputs; any of them may be left out, and the
    annotations of the first two say what they are.

    A handler may be an async generator: that of a subscription is, takes no session, and yields for as long as its
    client listens (`current_caller().live(query)` follows a query); that of a query with `cache=False` yields the
    results of one snapshot.

    Options of every procedure:
        public: no login is asked for: the application's context is not resolved, and steps get an empty `Context`.
        raises: the errors that it answers on purpose, documented by their codes; a definer's and its own add up.
        examples: inputs, as a client would give them; `reactive-rpc doctor` and `check` try them.
        tags: of the OpenAPI document; a definer's and its own add up. Left out, it is the group of its path.
        deprecated: whether the OpenAPI document says so.

    Options of a query:
        dependencies: the tables that the handler reads, as names, models or `Table`s. Left out, they are observed.
            Given, they are checked: reading any other table is an error in development; in production it is logged, and
            widens the dependency. A declared table that a call did not read counts as read whole. A topic, or one key
            of it for each input (`weather.of(lambda input: input.city)`), stands for something that is no table.
        invalidate_when: `{table: predicate(change, input)}`: returns False for a change that does not matter after
            all. It is asked about rows that the read set has found, never about others. A table given by its model
            shows the values as the model does, one given by name shows them as they are stored. Asking for a value
            that was not captured (long text, JSON, blobs) raises, and a predicate that raises narrows nothing.
        cache: how results are kept, `Cache(...)`. False keeps none and shares none: each call runs the handler, and
            nobody can watch it; a cached query that calls it is not cached either.

    Options of a mutation:
        isolation: how far it is kept apart from others that run at once; the settings' `isolation` if left out.
            `serializable`: as if it had run alone. `repeatable_read`: it reads one snapshot, and writes no row over one
            that is newer. `read_committed`: each statement sees what is committed when it begins: what was read and is
            then written back (`a.n += 1`) may overwrite another's write. On SQLite each is serializable.
        attempts: how often it is run at most. Where another write came in between, its transaction is rolled back, and
            **the handler runs again from its start**, with its steps, the same input and a fresh session. Whatever it
            did outside of the database (an e-mail, a call of another service) it does again: 1 opts out, and the caller
            is then answered CONFLICT.

    Raises:
        DefinitionError: the function or an option is wrong; the message says why and the way out.
    """

    @property
    def query(self) -> QueryDefiner[C]:
        """Make queries: the same as the definer itself."""
        return QueryDefiner(self._chain, self._by_kind)

    @property
    def mutation(self) -> MutationDefiner[C]:
        """Make mutations, each of which runs in one transaction."""
        return MutationDefiner(self._chain, self._by_kind)

    @property
    def subscription(self) -> SubscriptionDefiner[C]:
        """Make subscriptions, which yield values for as long as their client listens."""
        return SubscriptionDefiner(self._chain, self._by_kind)

    @overload
    def use(self, step: Callable[Concatenate[C, ...], D], /) -> Definer[D]: ...
    @overload
    def use(self, step: Callable[Concatenate[C, ...], Awaitable[D]], /) -> Definer[D]: ...
    @overload
    def use(self, step: Callable[Concatenate[C, ...], None], /) -> Self: ...
    @overload
    def use(self, step: Callable[Concatenate[C, ...], Awaitable[None]], /) -> Self: ...

    def use(self, step: Callable[..., Any], /) -> Any:
        """Return a definer whose procedures run `step` on every call, after the steps before it.

        A step takes the context so far; then, by annotation, a session, a `CallInfo`, or both. It returns the context
        that follows, or nothing, and refuses by raising. With a session it is a query of its own: its outcome is kept
        by the context before it (and by path and input, if it takes the `CallInfo`) until a row changes that it has
        read. In a mutation it runs in the mutation's own transaction.

        Raises:
            DefinitionError: it is no step, or takes another context than the steps before it give.
        """
        return Definer(self._chain.with_step(step), self._by_kind)

    def wrap(self, wrapper: WrapperFunction, /, *, on: Moment = "call") -> Self:
        """Return a definer whose procedures are enclosed by `wrapper`, from here on inwards.

        Args:
            wrapper: `async def log(call: CallInfo, next: Next) -> Answered`; it returns what `next()` gave, or raises
                an `RPCError` in its place.
            on: `call`: around each call, also if the result is stored. `compute`: around each run of the handler, also
                those that nobody called for (streams, audits); an error raised there is kept as the result.

        Raises:
            DefinitionError: it is no wrapper.
        """
        return type(self)(self._chain.with_wrapper(wrapper, on), self._by_kind)

    @overload
    def context(self, dependency: type[L], /) -> Definer[L]: ...
    @overload
    def context(self, dependency: Callable[..., Awaitable[L]], /) -> Definer[L]: ...
    @overload
    def context(self, dependency: Callable[..., L], /) -> Definer[L]: ...

    def context(self, dependency: Callable[..., Any], /) -> Any:
        """Return a definer whose procedures begin with another context than the application's.

        Args:
            dependency: a FastAPI dependency, which returns a `Login`; or a class, which only says what the
                application's own dependency, `ReactiveRPC(context=...)`, returns.

        Raises:
            DefinitionError: it returns no `Login`; or there are steps already, which begin with the context before.
        """
        if self._chain.parts:
            raise DefinitionError("context(...) comes first, before the steps and wrappers that it is for")
        if isinstance(dependency, type):
            root, found = dependency, None
        else:
            root, found = root_of(dependency), dependency
        if not issubclass(root, Login):
            raise DefinitionError(f"context({root.__name__}): the first context says who calls: extend Login")
        return Definer(replace(self._chain, root=root, gives=root, dependency=found), self._by_kind)

    def defaults(
        self,
        *,
        query: QueryOptions | None = None,
        mutation: MutationOptions | None = None,
        subscription: SubscriptionOptions | None = None,
        tags: Sequence[str] = (),
        raises: Sequence[type[RPCError]] = (),
    ) -> Self:
        """Return a definer whose procedures have these options where they do not set them themselves.

        Args:
            query: the options of its queries.
            mutation: those of its mutations.
            subscription: those of its subscriptions.
            tags: of all; they add up.
            raises: of all; they add up.

        Raises:
            DefinitionError: an option is none of its kind.
        """
        common: dict[str, Any] = {
            name: value for name, value in (("tags", tags), ("raises", raises)) if not isinstance(value, tuple) or value
        }
        by_kind: dict[ProcedureKind, Given] = {}
        kinds: tuple[tuple[ProcedureKind, Any], ...] = (
            ("query", query), ("mutation", mutation), ("subscription", subscription),
        )  # fmt: skip
        for kind, options in kinds:
            given = _given({**common, **(options or {})})
            before = self._by_kind.get(kind, {})
            resolve_options(kind, before, given, fault=lambda said: DefinitionError(f"defaults(...): {said}"))
            by_kind[kind] = {**before, **{name: _added(before.get(name), new) for name, new in given.items()}}
        return type(self)(self._chain, by_kind)


def root_of(dependency: Callable[..., Any]) -> type[Context]:
    """Return the class of the context that a dependency says it returns.

    Raises:
        DefinitionError: it does not say, or that is no `Login`.
    """

    def refuse(message: str) -> DefinitionError:
        return DefinitionError(f"context={_name_of(dependency)}: {message}")

    if isinstance(dependency, type):
        returned: Any = dependency
    else:
        function: Any = dependency if inspect.isroutine(dependency) else type(dependency).__call__
        hints = hints_of(function, refuse)
        if "return" not in hints:  # a lambda: each call shows what it is
            return Login
        returned = plain(hints["return"])
    if get_origin(returned) in _GENERATED:
        returned = plain(get_args(returned)[0])
    mapped = mapped_class_in(returned)
    if mapped is not None:
        raise DefinitionError(mapped_context_message(f"context={_name_of(dependency)}", mapped, dependency))
    if not (isinstance(returned, type) and issubclass(returned, Login)):
        raise refuse("a context says who calls: let it return a Login, or a frozen dataclass of yours that extends it")
    fault = context_fault(returned)
    if fault is not None:
        raise refuse(f"the context cannot be part of a cache key: {fault}")
    return returned


_GENERATED: Final = (Iterator, Generator, AsyncIterator, AsyncGenerator)


def _name_of(dependency: object) -> str:
    return getattr(dependency, "__name__", repr(dependency))


def _added(before: GivenOption | None, new: GivenOption) -> GivenOption:
    if before is None or not isinstance(before.value, list | tuple) or not isinstance(new.value, list | tuple):
        return new
    return GivenOption(tuple(dict.fromkeys((*before.value, *new.value))), f"{before.where}, {new.where}")


def _given(options: Mapping[str, Any]) -> Given:
    where = _line_outside()
    return {name: GivenOption(value, where) for name, value in options.items()}


def _line_outside() -> str:
    """Return the file and the line of whoever calls a definer."""
    frame: FrameType | None = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    return "" if frame is None else f"{frame.f_code.co_filename.rsplit('/', 1)[-1]}:{frame.f_lineno}"


define_reactive_function: Final[Definer[Login]] = Definer(Chain(Login, Login), {})
"""The root definer, whose procedures begin with a `Login`; used as it is, it makes a query."""
