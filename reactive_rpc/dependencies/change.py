"""A change: one written row, as capture saw it.

Images are *lean*: they hold the columns an index can use, in the database's own domain (as stored, not as the ORM
reads it): `int`, `float`, `Decimal`, `str` or None. Python compares and hashes the three kinds of numbers by their
exact value, so they may meet. A column that an image does not hold, or holds as `UNKNOWN`, may have any value: it
matches every condition. A virtual column (`lookup.py`) holds a set of values: one for each parent.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal

__all__ = ["UNKNOWN", "Change", "ChangeOperation", "Image", "Known", "ParentValues", "Unknown", "Value"]


class Unknown:
    """The type of `UNKNOWN`: a value that was not captured (too long, or of a type with no exact image)."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = Unknown()

Known = int | float | Decimal | str
Value = Known | None
ParentValues = frozenset[Value]
"""The values of all parents of a row; empty if it has none."""
Image = Mapping[str, Value | Unknown | ParentValues]
ChangeOperation = Literal["insert", "update", "delete", "bulk"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One written row, or a whole table.

    >>> moved = Change(table="message", operation="update", before={"room": 1}, after={"room": 2}, keys={1, 2})
    >>> moved.before["room"], moved.after["room"], 2 in moved.keys
    (1, 2, True)

    Attributes:
        table: the table's name in the database.
        operation: `bulk` if anything in the table may have changed; both images are then None.
        before: the row's image before; None for an insert.
        after: the row's image after; None for a delete.
        changed: the columns whose stored value differs; None if all may (insert, delete, bulk).
        keys: values of the row's primary and foreign keys, before and after; `UNKNOWN` among them if one is.
    """

    table: str
    operation: ChangeOperation
    before: Image | None = None
    after: Image | None = None
    changed: frozenset[str] | None = None
    keys: Set[Known | Unknown] = frozenset()
