"""What capture knows of a database: its tables, which columns compare exactly, and where the epoch stands."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, fields, is_dataclass

from reactive_rpc.dependencies.schema import ColumnKind, View

__all__ = ["CaptureState", "ForeignKey", "TableCapture", "digest_of"]

ForeignKey = tuple[str, str, str]
"""`(column, referred table, referred column)`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableCapture:
    """How one table is captured.

    Attributes:
        name: as the database spells it.
        columns: every column; a column's place is its ordinal in the outbox.
        image: the columns whose value an image holds, in the order of the image.
        kinds: `{column: how it compares}`; None where no condition may rest on the image.
        small: the columns of numbers that the database computes with in 16 bits.
        key_columns: the columns of the primary key and of the foreign keys.
        primary_key: its columns, in the key's order.
        foreign_keys: one entry a column.
        unique: the columns that are unique by themselves.
        indexed: the columns that an index of every row begins with; unique ones are.
        captured: whether every write is seen.
        reason: why not; None where it is.
        identifier: what names it whatever the search path, as SQL; empty where a name needs no schema.
        enums: the columns whose images hold an enum's label.
        withheld: the columns whose values are never copied, because they are excluded or say secret.
        stranger: who could have code of theirs run by a SELECT on the table, and is not trusted with the reader's
            rights: its owner, its schema's, or a partition's; None where there is nobody.
    """

    name: str
    columns: tuple[str, ...]
    image: tuple[str, ...]
    kinds: Mapping[str, ColumnKind | None]
    small: frozenset[str] = frozenset()
    key_columns: tuple[str, ...]
    primary_key: tuple[str, ...] = ()
    foreign_keys: tuple[ForeignKey, ...]
    unique: frozenset[str] = frozenset()
    indexed: frozenset[str] = frozenset()
    captured: bool
    reason: str | None = None
    identifier: str = ""
    enums: frozenset[str] = frozenset()
    withheld: frozenset[str] = frozenset()
    stranger: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureState:
    """A verified capture: a `reactive.schema.Schema`.

    Names are matched exactly as the database spells them: a table asked for in another case counts as not captured,
    because its changes would bear the other spelling.

    A column of kind `integer` or `real` may still hold text that its affinity could not convert, compared by the
    column's collation: only numbers may stand in a condition on it.

    Attributes:
        epoch: versions of the outbox can be compared within it.
        schema_fingerprint: the database's own, read when this was verified: rows are decoded by this state only if the
            snapshot that shows them has the same.
        tables: `{canonical name: how it is captured}`.
        names: `{another name that statements may use: canonical name}`.
        views: `{name that statements may use: what lies behind it}`.
        redefined: see `redefines`; a comparison's sign stands there as `operator =`, too, where an operator of theirs
            compares built-in types.
    """

    epoch: str
    schema_fingerprint: int | str
    tables: Mapping[str, TableCapture]
    names: Mapping[str, str] = field(default_factory=dict)
    views: Mapping[str, View] = field(default_factory=dict)
    redefined: frozenset[str] = frozenset()

    def table(self, name: str) -> str | None:
        """Return the canonical name of the table that a statement calls `name`; None where there is none."""
        return name if name in self.tables else self.names.get(name)

    def view(self, name: str) -> View | None:
        """Return what lies behind the view that a statement calls `name`; None where there is none."""
        return self.views.get(name)

    def captured(self, table: str) -> bool:
        """Tell whether every write to `table` is seen."""
        found = self.tables.get(table)
        return found is not None and found.captured

    def columns(self, table: str) -> frozenset[str]:
        """Return the columns of a table; none where there is no such table."""
        found = self.tables.get(table)
        return frozenset() if found is None else frozenset(found.columns)

    def kind(self, table: str, column: str) -> ColumnKind | None:
        """Return how `column` compares, or None where its image is not exact."""
        found = self.tables.get(table)
        return None if found is None or not found.captured else found.kinds.get(column)

    def is_small(self, table: str, column: str) -> bool:
        """Tell whether the database computes with `column` in 16 bits, and fails past them."""
        found = self.tables.get(table)
        return found is not None and column in found.small

    def primary_key(self, table: str) -> tuple[str, ...]:
        """Return the columns of a table's primary key; none where there is none."""
        found = self.tables.get(table)
        return () if found is None or not found.captured else found.primary_key

    def is_unique(self, table: str, column: str) -> bool:
        """Tell whether at most one row has any given value of `column`, other than NULL."""
        found = self.tables.get(table)
        return found is not None and column in found.unique

    def is_indexed(self, table: str, column: str) -> bool:
        """Tell whether the rows with a given value of `column` are found without reading the whole table."""
        found = self.tables.get(table)
        return found is not None and column in found.indexed

    def redefines(self, name: str) -> bool:
        """Tell whether a function or operator that is built in is also one of the database's users'."""
        return name in self.redefined


def digest_of(*parts: object) -> str:
    """Return the same for equal parts in every process, where a set has another order in each."""
    return hashlib.sha256(_spelled(parts).encode()).hexdigest()[:32]


def _spelled(value: object) -> str:
    if is_dataclass(value) and not isinstance(value, type):
        return f"{type(value).__name__}({','.join(_spelled(getattr(value, each.name)) for each in fields(value))})"
    if isinstance(value, Mapping):
        return f"{{{','.join(sorted(f'{_spelled(key)}:{_spelled(each)}' for key, each in value.items()))}}}"
    if isinstance(value, Set):
        return f"{{{','.join(sorted(map(_spelled, value)))}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_spelled, value))}]"
    return repr(value)
