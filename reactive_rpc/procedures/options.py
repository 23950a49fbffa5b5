"""The options of definers and decorators: their types, their defaults, and the checks that need no function.

An option comes from the nearest place that sets it: the decorator, else the definer's `defaults`, else the settings.
`tags` and `raises` of a definer and of the decorator add up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias, TypedDict

from sqlalchemy import Table

from reactive_rpc.dependencies.change import Change
from reactive_rpc.errors import RPCError
from reactive_rpc.procedures.attempts import DEFAULT_ATTEMPTS
from reactive_rpc.procedures.cache_options import Cache
from reactive_rpc.procedures.declared_errors import DeclaredError
from reactive_rpc.procedures.topics import KeyedTopic, Topic
from reactive_rpc.statements.isolation import ISOLATIONS, Isolation

__all__ = [
    "CommonOptions",
    "Dependency",
    "GivenOption",
    "MutationOptions",
    "Predicate",
    "ProcedureKind",
    "ProcedureOptions",
    "QueryOptions",
    "SubscriptionOptions",
    "TableRef",
    "resolve_options",
]

ProcedureKind = Literal["query", "mutation", "subscription"]
Predicate = Callable[[Change, Any], bool]
TableRef = str | type | Table
Dependency = TableRef | Topic | KeyedTopic
CacheOption: TypeAlias = Cache | Literal[False]


class CommonOptions(TypedDict, total=False):
    """The options of every procedure."""

    public: bool
    raises: Sequence[type[RPCError]]
    examples: Sequence[Mapping[str, Any]]
    tags: Sequence[str]
    deprecated: bool


class QueryOptions(CommonOptions, total=False):
    """The options of a query."""

    dependencies: Sequence[Dependency] | None
    invalidate_when: Mapping[Any, Predicate] | None
    cache: CacheOption


class MutationOptions(CommonOptions, total=False):
    """The options of a mutation."""

    isolation: Isolation
    attempts: int


class SubscriptionOptions(CommonOptions, total=False):
    """The options of a subscription."""


OPTIONS: Mapping[ProcedureKind, frozenset[str]] = {
    "query": frozenset(QueryOptions.__annotations__),
    "mutation": frozenset(MutationOptions.__annotations__),
    "subscription": frozenset(SubscriptionOptions.__annotations__),
}


@dataclass(frozen=True, slots=True)
class GivenOption:
    """The value that somebody has given an option.

    Attributes:
        where: the file and the line.
    """

    value: Any
    where: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcedureOptions:
    """The effective options of one procedure; `Definer` documents each.

    Attributes:
        where: `{option: the lines that set it}`; an option that nobody has set is not in it.
    """

    kind: ProcedureKind = "query"
    public: bool = False
    raises: tuple[type[RPCError], ...] = ()
    examples: Sequence[Mapping[str, Any]] = ()
    tags: tuple[str, ...] = ()
    deprecated: bool = False
    dependencies: Sequence[Dependency] | None = None
    invalidate_when: Mapping[Any, Predicate] | None = None
    cache: CacheOption | None = None
    isolation: Isolation | None = None
    attempts: int = DEFAULT_ATTEMPTS
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def faults(self) -> Iterator[str]:
        """Yield what is wrong with the options, whatever the function is."""
        if self.dependencies is not None and not isinstance(self.dependencies, list | tuple | set | frozenset):
            yield f"dependencies={self.dependencies!r} is no list: write dependencies=[Agent, Message]"
        if self.invalidate_when is not None and not isinstance(self.invalidate_when, Mapping):
            yield f"invalidate_when={self.invalidate_when!r}: write {{Agent: lambda change, input: ...}}"
        yield from self._raises_faults()
        for tag in self.tags:
            if not isinstance(tag, str):
                yield f"tags names {tag!r}: list texts"
        yield from self._cache_faults()
        yield from self._attempts_faults()
        for table, predicate in (self.invalidate_when or {}).items():
            if not callable(predicate):
                yield f"invalidate_when[{table!r}] is {predicate!r}, no function of change and input"

    def _raises_faults(self) -> Iterator[str]:
        for error in self.raises:
            if not (isinstance(error, type) and issubclass(error, RPCError)):
                yield f"raises names {error!r}: list classes of errors that callers are answered, as NotFoundError"
            elif error is DeclaredError:
                yield "raises names DeclaredError itself: list the classes that extend it"

    def _cache_faults(self) -> Iterator[str]:
        if self.cache is not None and self.cache is not False and not isinstance(self.cache, Cache):
            yield f"cache={self.cache!r}: give Cache(...), False for never, or leave it out"
        if self.cache is False and self.invalidate_when:
            yield "cache=False keeps no result that invalidate_when could keep: drop one of them"

    def _attempts_faults(self) -> Iterator[str]:
        if self.isolation not in (None, *ISOLATIONS):
            yield f"isolation={self.isolation!r}: say one of {', '.join(map(repr, ISOLATIONS))}"
        if not isinstance(self.attempts, int) or self.attempts < 1:
            yield f"attempts={self.attempts!r}: give a whole number, 1 to run it once at most"


ADDED_UP = ("tags", "raises")
"""The options whose values of all places count."""


def resolve_options(
    kind: ProcedureKind, *given: Mapping[str, GivenOption], fault: Callable[[str], Exception]
) -> ProcedureOptions:
    """Return the effective options of what several places say, the nearest last.

    Raises:
        Exception: made by `fault`: an option of the last place is none of this kind, or is no list where it adds up.
    """
    for name in given[-1] if given else ():
        if name not in OPTIONS[kind]:
            raise fault(f"{name}= is no option of a {kind}: it takes {', '.join(sorted(OPTIONS[kind]))}")
    values: dict[str, Any] = {}
    where: dict[str, tuple[str, ...]] = {}
    known = {each.name for each in fields(ProcedureOptions)}
    for place in given:
        for name, option in place.items():
            if name not in OPTIONS[kind] or name not in known:
                continue
            if name in ADDED_UP:
                if not isinstance(option.value, list | tuple | set | frozenset):
                    raise fault(f"{name}={option.value!r} is no list: write {name}=[...]")
                values[name] = tuple(dict.fromkeys((*values.get(name, ()), *option.value)))
                where[name] = (*where.get(name, ()), option.where)
            else:
                values[name], where[name] = option.value, (option.where,)
    return ProcedureOptions(kind=kind, where=where, **values)
