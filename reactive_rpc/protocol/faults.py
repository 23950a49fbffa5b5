"""An input that does not fit, as the caller is told: the place, the message, and the kind of each fault.

The words are pydantic's, or, if a validator of the application's raises a ValueError, that validator's. They go to
the caller as they are, cut: a text that repeats the input, or names of fields that a client chose, must not make an
answer of a megabyte, and neither must a list of a hundred thousand wrong items.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

__all__ = ["faults_of", "places_of"]

MAX_FAULTS = 100
MAX_MESSAGE = 300
MAX_NAME = 100
MAX_NAMED = 5
"""So many places a message names; its details hold them all."""


def faults_of(errors: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return `[{"loc", "message", "type"}]` of pydantic's `errors()`; inputs and contexts are left out.

    >>> faults_of([{"loc": ("a", 1), "msg": "Value error, no", "type": "value_error", "input": "secret"}])
    [{'loc': ['a', 1], 'message': 'Value error, no', 'type': 'value_error'}]
    """
    return [
        {
            "loc": [_cut(part, MAX_NAME) for part in error["loc"]],
            "message": _cut(error["msg"], MAX_MESSAGE),
            "type": error["type"],
        }
        for error in islice(errors, MAX_FAULTS)
    ]


def places_of(faults: Sequence[Mapping[str, Any]], *, whole: str = "") -> str:
    """Return the places of the first few faults, as a message names them.

    Args:
        faults: as `faults_of` returns them.
        whole: names the place of a fault that belongs to no part.

    >>> places_of([{"loc": ["a", 1]}, {"loc": []}], whole="the input")
    'a.1, the input'
    """
    return ", ".join(".".join(map(str, fault["loc"])) or whole for fault in faults[:MAX_NAMED])


def _cut(part: Any, length: int) -> Any:
    return part[: length - 1] + "…" if isinstance(part, str) and len(part) > length else part
