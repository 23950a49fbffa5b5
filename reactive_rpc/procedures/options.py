"""The options of `define_reactive_function`: their types, their defaults, and the checks that need no function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypedDict

from sqlalchemy import Table

from reactive_rpc.dependencies.change import Change
from reactive_rpc.procedures.attempts import DEFAULT_ATTEMPTS
from reactive_rpc.procedures.cache_options import Cache
from reactive_rpc.procedures.topics import KeyedTopic, Topic
from reactive_rpc.statements.isolation import ISOLATIONS, Isolation

__all__ = ["Dependency", "GivenOptions", "Kind", "Predicate", "ProcedureOptions", "Scope", "TableRef"]

Kind = Literal["query", "mutation"]
Predicate = Callable[[Change, Any], bool]
TableRef = str | type | Table
Dependency = TableRef | Topic | KeyedTopic
Scope = Literal["identity", "tenant", "public"] | Callable[[Any], object]
CacheOption: TypeAlias = Cache | Literal[False] | None


class GivenOptions(TypedDict, total=False):
    """The options as keyword arguments, for type checkers: those of `ProcedureOptions`, each optional."""

    kind: Kind
    dependencies: Sequence[Dependency] | None
    invalidate_when: Mapping[Any, Predicate] | None
    scope: Scope
    examples: Sequence[Mapping[str, Any]]
    cache: CacheOption
    isolation: Isolation | None
    attempts: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcedureOptions:
    """The options of one procedure; `define_reactive_function` documents each."""

    kind: Kind = "query"
    dependencies: Sequence[Dependency] | None = None
    invalidate_when: Mapping[Any, Predicate] | None = None
    scope: Scope = "identity"
    examples: Sequence[Mapping[str, Any]] = ()
    cache: CacheOption = None
    isolation: Isolation | None = None
    attempts: int = DEFAULT_ATTEMPTS

    def faults(self) -> Iterator[str]:
        """Yield what is wrong with the options, whatever the function is."""
        if self.kind not in ("query", "mutation"):
            yield f"kind={self.kind!r}: say 'query' or 'mutation'"
        if not callable(self.scope) and self.scope not in ("identity", "tenant", "public"):
            yield f"scope={self.scope!r}: say 'identity', 'tenant' or 'public', or give a function of ctx"
        if inspect.iscoroutinefunction(self.scope):
            yield "scope is an async def: it is asked on every hit, so it can only look at ctx; write a def"
        if self.dependencies is not None and not isinstance(self.dependencies, list | tuple | set | frozenset):
            yield f"dependencies={self.dependencies!r} is no list: write dependencies=[Agent, Message]"
        if self.invalidate_when is not None and not isinstance(self.invalidate_when, Mapping):
            yield f"invalidate_when={self.invalidate_when!r}: write {{Agent: lambda change, input: ...}}"
        yield from self._cache_faults()
        yield from self._attempts_faults()
        for table, predicate in (self.invalidate_when or {}).items():
            if not callable(predicate):
                yield f"invalidate_when[{table!r}] is {predicate!r}, no function of change and input"

    def _cache_faults(self) -> Iterator[str]:
        if self.cache is not None and self.cache is not False and not isinstance(self.cache, Cache):
            yield f"cache={self.cache!r}: give Cache(...), False for never, or leave it out"
        if self.kind == "mutation" and self.cache is not None:
            yield "a mutation is never cached: cache= is for queries"
        if self.cache is False and self.invalidate_when:
            yield "cache=False keeps no result that invalidate_when could keep: drop one of them"

    def _attempts_faults(self) -> Iterator[str]:
        if self.isolation not in (None, *ISOLATIONS):
            yield f"isolation={self.isolation!r}: say one of {', '.join(map(repr, ISOLATIONS))}"
        if not isinstance(self.attempts, int) or self.attempts < 1:
            yield f"attempts={self.attempts!r}: give a whole number, 1 to run it once at most"
        if self.kind == "query" and (self.isolation is not None or self.attempts != DEFAULT_ATTEMPTS):
            yield "a query reads one snapshot and is never overtaken: isolation and attempts are for mutations"
