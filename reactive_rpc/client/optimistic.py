"""Optimistic updates: how the results that are shown look with an own mutation, before its answer is in.

An update names one query with one input, and how its result changes. `bind` and `changed` make one, so that checkers
know the result's type. It is no callback that is given the queries: such a one would be typed as loosely as its input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from reactive_rpc.client.procedure import Procedure

__all__ = ["Optimistic", "OptimisticUpdate", "updates_of"]


@dataclass(frozen=True, slots=True)
class OptimisticUpdate:
    """The change that a mutation is expected to make in one query's result; made by `BoundQuery.changed`.

    Attributes:
        procedure: the query.
        fields: its input as JSON values, `{field: value}`; None if it takes none.
        change: returns the result with the mutation, without changing the one that it is given.
    """

    procedure: Procedure[Any]
    fields: dict[str, Any] | None
    change: Callable[[Any], Any]


Optimistic: TypeAlias = OptimisticUpdate | Iterable[OptimisticUpdate]
"""The argument `optimistic` of mutations: the update of one query, or those of several."""


def updates_of(optimistic: Optimistic) -> tuple[OptimisticUpdate, ...]:
    """Return the updates, one or several."""
    return (optimistic,) if isinstance(optimistic, OptimisticUpdate) else tuple(optimistic)
