"""The dependencies of a handler: `Annotated[T, Depends(f)]`, found with all that they depend on.

A result is keyed by all that its handler sees. So the parts of the request that a dependency takes are found out when
the handler is defined, through nested dependencies: headers and cookies (also of security schemes) can be part of a
key, and a cached query may see nothing else. `docs/how-to/dependencies.md` says it for authors; `solving.py` runs them.
"""

from __future__ import annotations

import inspect
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from reactive_rpc.compat.fastapi import (
    RequestParameters,
    SubDependency,
    annotations_of,
    request_parameters,
    sub_dependencies,
)
from reactive_rpc.errors import DefinitionError
from reactive_rpc.procedures.annotations import plain

__all__ = ["OF_ANSWERS", "HandlerDependency", "Overrides", "Plan", "Plans", "caller_part_in", "label_of", "make_plan"]

Overrides = Mapping[Callable[..., Any], Callable[..., Any]]
"""`{function: the one that is called in its place}`."""

MAX_PLANS = 32
"""For so many sets of overrides a procedure remembers its dependencies."""

OF_ANSWERS: Final = ("Response", "BackgroundTasks")
"""What is of the answer, and says nothing of who asks."""

UNKNOWN_PARTS: Final = ("Path()", "WebSocket", "Form()", "File()")
"""What no call of a procedure has."""


@dataclass(frozen=True, slots=True, eq=False)
class HandlerDependency:
    """A function whose result is given to a handler, or to another dependency.

    Attributes:
        name: of the parameter that takes it.
        label: how messages name the function.
        sessions: `{parameter: class}` of those that are given the call's own session.
        inner: the other dependencies that it takes.
        takes: its parameters that are of the request.
        scopes: that `Security` asks for, from the handler down to it.
        identity: equal for dependencies that are called once for all in a call; None for one that never shares.
    """

    name: str
    label: str
    function: Callable[..., Any]
    is_async: bool
    is_generator: bool
    sessions: Mapping[str, type]
    inner: tuple[HandlerDependency, ...]
    takes: RequestParameters
    scopes: tuple[str, ...]
    identity: object | None

    def walk(self, above: tuple[str, ...] = ()) -> Iterator[tuple[HandlerDependency, str]]:
        """Yield it and all that it depends on, each with the way to it: `by_user -> current_user`."""
        way = (*above, self.label)
        yield self, " -> ".join(way)
        for each in self.inner:
            yield from each.walk(way)


class Plan:
    """The dependencies of a handler, under certain overrides.

    Args:
        dependencies: that the handler takes.
        given: `{parameter: class}` of the handler: `Request`, `Response`, `BackgroundTasks`.
        token: names the overrides in keys; empty where there are none.

    Attributes:
        headers: the names, in lower case, of those that are seen.
        cookies: the names of those that are seen.
        vary: the value of the header of this name; empty where nothing is seen.
        is_shareable: whether workers may share results: not if keys may hold credentials, nor under overrides.
    """

    def __init__(
        self, dependencies: Sequence[HandlerDependency], given: Mapping[str, type], *, token: str = ""
    ) -> None:
        self.dependencies = tuple(dependencies)
        self.given = dict(given)
        self.token = token
        self.all = [found for each in dependencies for found in each.walk()]
        self.functions = frozenset(each.function for each, _ in self.all)
        self.cookies = frozenset(name for each, _ in self.all for name in each.takes.cookies)
        headers = {name for each, _ in self.all for name in each.takes.headers}
        self.headers = frozenset(headers)
        is_secret = bool(self.cookies) or any(each.takes.has_credentials for each, _ in self.all)
        self.is_shareable = not token and not is_secret
        self._raw_names = frozenset(name.encode("latin-1") for name in headers)
        self._raw_cookies = frozenset(name.encode("latin-1") for name in self.cookies)
        self.vary = ", ".join(sorted(headers | ({"cookie"} if self.cookies else set())))

    def visible(self, headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Return of a request's headers those that the dependencies may see, ordered by name; of cookies likewise."""
        kept = [each for each in headers if each[0] in self._raw_names]
        if self._raw_cookies and b"cookie" not in self._raw_names:
            pairs = (pair.strip() for name, value in headers if name == b"cookie" for pair in value.split(b";"))
            seen = [pair for pair in pairs if pair.partition(b"=")[0].strip() in self._raw_cookies]
            if seen:
                kept.append((b"cookie", b"; ".join(seen)))
        return sorted(kept, key=lambda each: each[0])  # several of one name keep their order

    def fault(self, *, is_cached: bool, is_async: bool) -> str | None:
        """Return why a handler cannot have these dependencies, with the way out; None if it can."""
        for each, way in self.all:
            for part in each.takes.others:
                if part in UNKNOWN_PARTS:
                    as_what = "a parameter of the mutation itself, file: UploadFile" if part == "File()" else "an input"
                    return f"dependency {way} takes {part}, and calls of procedures have none: take it as {as_what}"
                if is_cached:
                    return _uncacheable(f"dependency {way} takes {_named(part)}", part)
            for name, kind in each.sessions.items():
                if not is_async and issubclass(kind, AsyncSession):
                    return (
                        f"dependency {way}: {name!r} is an async session, and the handler is a def, which runs in a "
                        "thread: write the handler as async def, or take a Session"
                    )
                if each.is_async and issubclass(kind, Session):
                    return f"dependency {way} is async, and {name!r} a sync session: take an AsyncSession"
        if is_cached:
            for name, kind in self.given.items():
                return _uncacheable(f"{name!r} is a {kind.__name__}", kind.__name__)
        return None


def _named(part: str) -> str:
    return part if part.endswith("()") or part == "BackgroundTasks" else f"the {part}"


def _uncacheable(what: str, part: str) -> str:
    if part in ("Response", "BackgroundTasks"):
        way = "a stored result is answered without running anything. Do it in a mutation, or say cache=False"
    else:
        way = (
            "the result is stored, and no key could hold all of that. Declare the header or the cookie that is needed "
            "(Annotated[str, Header()]), take it as an input, move it into the context, or say cache=False"
        )
    return f"{what}: {way}"


class Plans:
    """The dependencies of one procedure, under each set of overrides.

    Args:
        found: the parameters that are dependencies.
        given: `{parameter: class}`, see `Plan`.
        check: raises if the procedure cannot have them.

    Attributes:
        plain: without overrides.
    """

    def __init__(
        self,
        found: Sequence[SubDependency],
        given: Mapping[str, type],
        *,
        refuse: Callable[[str], DefinitionError],
        check: Callable[[Plan], None],
    ) -> None:
        self._found, self._given, self._refuse, self._check = found, given, refuse, check
        self.plain = self._made({}, token="")
        self._by_overrides: OrderedDict[tuple[tuple[int, int], ...], tuple[Plan, Overrides]] = OrderedDict()

    def under(self, overrides: Overrides) -> Plan:
        """Return the dependencies where others are called in the place of some functions.

        Raises:
            DefinitionError: the procedure cannot have those.
        """
        if self.plain.functions.isdisjoint(overrides):
            return self.plain
        key = tuple(sorted((id(one), id(other)) for one, other in overrides.items()))
        if key in self._by_overrides:
            self._by_overrides.move_to_end(key)
            return self._by_overrides[key][0]
        # INVARIANT (no other plan, of any process, has this token): results that were made with other functions are
        # neither taken nor given, also by way of a store that several processes share.
        plan = self._made(overrides, token=secrets.token_hex(12))
        # The functions are kept with it, so that no other ones get their ids.
        self._by_overrides[key] = plan, dict(overrides)
        if len(self._by_overrides) > MAX_PLANS:
            self._by_overrides.popitem(last=False)
        return plan

    def _made(self, overrides: Overrides, *, token: str) -> Plan:
        plan = make_plan(self._found, self._given, overrides, token=token, refuse=self._refuse)
        self._check(plan)
        return plan


def make_plan(
    found: Sequence[SubDependency],
    given: Mapping[str, type],
    overrides: Overrides,
    *,
    token: str,
    refuse: Callable[[str], DefinitionError],
) -> Plan:
    """Return the dependencies that parameters are.

    Raises:
        DefinitionError: made by `refuse`: FastAPI cannot call one of them.
    """
    return Plan([_read(each, (), overrides, refuse, ()) for each in found], given, token=token)


def _read(
    found: SubDependency,
    scopes: tuple[str, ...],
    overrides: Overrides,
    refuse: Callable[[str], DefinitionError],
    above: tuple[Callable[..., Any], ...],
) -> HandlerDependency:
    function = overrides.get(found.function, found.function)
    label = label_of(function)
    if function in above:
        raise refuse(f"dependency {label} depends on itself")
    if found.has_limit:
        raise refuse(f"dependency {label} has max_concurrency, which routes alone have: limit it by a semaphore in it")
    try:
        inner = list(sub_dependencies(function))
        by_depends = {each.name for each in inner}
        for name, annotation in annotations_of(function).items():
            if session_class_in(annotation) is not None and name not in by_depends:
                spelled = plain(annotation).__name__
                raise refuse(
                    f"dependency {label} takes the session {name!r} as FastAPI does not know it: write "
                    f"Annotated[{spelled}, Depends(get_db)], and it is the handler's own, without a call of get_db"
                )
        takes = request_parameters(function)
    except DefinitionError:
        raise
    except Exception as exc:  # FastAPI has no error of its own for it, and an annotation may be any expression
        said = str(exc).strip().splitlines()[0].partition(" If you are using")[0]
        raise refuse(f"dependency {label} is none that FastAPI can call: {said}") from exc
    scopes = tuple(dict.fromkeys((*scopes, *found.scopes)))
    sessions = {each.name: kind for each in inner if (kind := session_class_in(each.annotation)) is not None}
    read = tuple(
        _read(each, scopes, overrides, refuse, (*above, function)) for each in inner if each.name not in sessions
    )
    is_async, is_generator = _mode(function)
    by_scopes = takes.takes_scopes or bool(found.scopes) or any(each.takes.takes_scopes for each in _below(read))
    return HandlerDependency(
        name=found.name,
        label=label,
        function=function,
        is_async=is_async,
        is_generator=is_generator,
        sessions=sessions,
        inner=read,
        takes=takes,
        scopes=scopes,
        identity=(function, tuple(sorted(scopes)) if by_scopes else ()) if found.use_cache else None,
    )


def session_class_in(annotation: object) -> type | None:
    """Return the class of the session that an annotation asks for; None if it asks for something else."""
    kind = plain(annotation)
    return kind if isinstance(kind, type) and issubclass(kind, AsyncSession | Session) else None


def caller_part_in(found: SubDependency, above: tuple[Callable[..., Any], ...] = ()) -> str | None:
    """Return the part of a request that decides about a dependency, or about one below it; None if none is declared.

    A whole `Request` is none: it may be asked for the application's state alone.
    """
    if found.function in above:
        return None
    try:
        takes, inner = request_parameters(found.function), list(sub_dependencies(found.function))
    except Exception:  # FastAPI says so when the route is added
        return None
    parts = [*takes.headers, *takes.cookies, *(each for each in takes.others if each not in ("Request", *OF_ANSWERS))]
    if parts:
        return parts[0]
    below = (caller_part_in(each, (*above, found.function)) for each in inner)
    return next(filter(None, below), None)


def _below(dependencies: Sequence[HandlerDependency]) -> Iterator[HandlerDependency]:
    for each in dependencies:
        yield each
        yield from _below(each.inner)


def label_of(function: Callable[..., Any]) -> str:
    """Return how messages name a function."""
    name = getattr(function, "__name__", None)
    return str(name or type(function).__name__)


def _mode(function: Callable[..., Any]) -> tuple[bool, bool]:
    """Return whether a callable is async, and whether it is a generator."""
    target: Any = function
    while isinstance(target, partial):
        target = target.func
    if isinstance(target, type):
        return False, False
    if not inspect.isroutine(target):
        target = type(target).__call__
    target = inspect.unwrap(target)
    if inspect.isasyncgenfunction(target):
        return True, True
    return inspect.iscoroutinefunction(target), inspect.isgeneratorfunction(target)
