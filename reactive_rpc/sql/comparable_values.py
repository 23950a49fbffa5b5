"""Which bound values compare with a column's stored values the way Python compares them.

A value here is what the driver gets: the column type's own bind processor has run. So an Enum is its name, a SQLite
date is its ISO text, a UUID its hex digits, and no type needs a case of its own. What is left is the database's own
conversion: SQLite turns a number into text for a text column, and text that looks like a number into a number for a
numeric one. Where a conversion may happen, the value says nothing.
"""

from __future__ import annotations

import math
from typing import Final

from reactive_rpc.reactive.change import Known
from reactive_rpc.reactive.schema import Kind

__all__ = ["Comparable", "comparable", "ordered"]

Comparable = Known

_EXACT_ELSEWHERE: Final = frozenset({"integer", "text"})
"""On other databases than SQLite a number may be rounded by a cast on its way to the comparison."""


def comparable(value: object, kind: Kind, dialect: str) -> Comparable | None:
    """Return `value` as the database compares it with a column of `kind`, as a plain int, float or str; None: unsure.

    >>> comparable(True, "integer", "sqlite"), comparable("5", "integer", "sqlite"), comparable("5", "text", "sqlite")
    (1, None, '5')
    >>> comparable("2024-01-31", "numeric", "sqlite"), comparable(" 1e3 ", "numeric", "sqlite")
    ('2024-01-31', None)
    """
    if dialect != "sqlite" and kind not in _EXACT_ELSEWHERE:
        return None
    if isinstance(value, str):
        # A subclass, such as a str-based Enum, may hash unlike the text it holds.
        text = str.__str__(value)
        return text if kind == "text" or (kind == "numeric" and not _looks_numeric(text)) else None
    if isinstance(value, int):
        return int(value) if kind != "text" else None
    if isinstance(value, float) and kind in ("real", "numeric") and math.isfinite(value):
        return float(value)
    return None


def ordered(value: Comparable, dialect: str) -> bool:
    """Tell whether `<` is the database's own order for `value`: elsewhere than on SQLite text sorts by locale."""
    return dialect == "sqlite" or not isinstance(value, str)


def _looks_numeric(text: str) -> bool:
    """Tell whether SQLite might read `text` as a number; `float` accepts all that SQLite does, and more."""
    try:
        float(text)
    except ValueError:
        return False
    return True
