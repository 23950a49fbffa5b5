"""What a caller is told of an input that does not fit: where, what, and which kind of fault.

The words are pydantic's, or, where a validator of the application's raises a ValueError, that validator's. They go to
the caller as they are, cut: a text that repeats what was sent, or names of fields that a client chose, must not make an
answer of a megabyte, and neither must a list of a hundred thousand wrong items.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

__all__ = ["faults_of"]

MAX_FAULTS = 100
MAX_MESSAGE = 300
MAX_NAME = 100


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


def _cut(part: Any, length: int) -> Any:
    return part[: length - 1] + "…" if isinstance(part, str) and len(part) > length else part
