"""Dependencies that take the whole `Request`: nobody can tell how much they read, so they are solved on every call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reactive_rpc.compat.fastapi import request_parameters, sub_dependencies
from reactive_rpc.errors import DefinitionError
from reactive_rpc.procedures.context_query import takes_session
from reactive_rpc.procedures.dependencies import label_of
from reactive_rpc.procedures.procedure import AnyProcedure

__all__ = ["UndeclaredRead", "undeclared_reads"]

REQUEST = "Request"


@dataclass(frozen=True, slots=True)
class UndeclaredRead:
    """A dependency that takes the request.

    Attributes:
        dependency: the way to it: `current_user -> session_of`.
        paths: of the procedures whose calls it is solved for.
        is_context: whether it is solved to find out who calls.
    """

    dependency: str
    paths: tuple[str, ...]
    is_context: bool


def undeclared_reads(
    procedures: Mapping[str, AnyProcedure], context: Callable[..., Any] | None
) -> list[UndeclaredRead]:
    """Return the dependencies that take the request, those of contexts first.

    Args:
        procedures: by path.
        context: the application's own dependency; None if it has none.
    """
    found: dict[tuple[str, bool], list[str]] = {}
    for path, procedure in procedures.items():
        for way in _of_context(procedure, context):
            found.setdefault((way, True), []).append(path)
        for way in _of_handler(procedure):
            found.setdefault((way, False), []).append(path)
    reads = [UndeclaredRead(way, tuple(paths), is_context) for (way, is_context), paths in found.items()]
    return sorted(reads, key=lambda each: not each.is_context)


def _of_context(procedure: AnyProcedure, context: Callable[..., Any] | None) -> Iterator[str]:
    function = procedure.chain.dependency or context
    if function is None or procedure.options.public:
        return
    yield from _ways(function, ())


def _ways(function: Callable[..., Any], above: tuple[str, ...]) -> Iterator[str]:
    way = (*above, label_of(function))
    # A context that takes a session is kept by its values, so one that takes the request is refused at its first call.
    if not takes_session(function, DefinitionError) and REQUEST in request_parameters(function).others:
        yield " -> ".join(way)
    for each in sub_dependencies(function):
        yield from _ways(each.function, way)


def _of_handler(procedure: AnyProcedure) -> Iterator[str]:
    if procedure.plans is None:
        return
    plan = procedure.plans.plain
    yield from (way for each, way in plan.all if REQUEST in each.takes.others)
    if any(kind.__name__ == REQUEST for kind in plan.given.values()):
        yield "the handler itself"
