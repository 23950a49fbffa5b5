"""What capture knows of a database: its tables, which columns compare exactly, and where the epoch stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reactive_rpc.reactive.schema import Kind

__all__ = ["CaptureState", "ForeignKey", "TableCapture"]

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
        key_columns: the columns of the primary key and of the foreign keys.
        primary_key: its columns, in the key's order.
        foreign_keys: one entry a column.
        captured: whether every write is seen.
        reason: why not; None where it is.
    """

    name: str
    columns: tuple[str, ...]
    image: tuple[str, ...]
    kinds: Mapping[str, Kind | None]
    key_columns: tuple[str, ...]
    primary_key: tuple[str, ...] = ()
    foreign_keys: tuple[ForeignKey, ...]
    captured: bool
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureState:
    """A verified capture: a `reactive.schema.Schema`.

    Names are matched exactly as the database spells them: a table asked for in another case counts as not captured,
    because its changes would bear the other spelling.

    A column of kind `integer` or `real` may still hold text that its affinity could not convert, compared by the
    column's collation: only numbers may stand in a condition on it.

    Attributes:
        epoch: versions of the outbox can be compared within it.
        schema_version: the database's own count of schema changes when this was verified.
        tables: `{name: how it is captured}`.
    """

    epoch: str
    schema_version: int
    tables: Mapping[str, TableCapture]

    def captured(self, table: str) -> bool:
        """Tell whether every write to `table` is seen."""
        found = self.tables.get(table)
        return found is not None and found.captured

    def columns(self, table: str) -> frozenset[str]:
        """Return the columns of a table; none where there is no such table."""
        found = self.tables.get(table)
        return frozenset() if found is None else frozenset(found.columns)

    def kind(self, table: str, column: str) -> Kind | None:
        """Return how `column` compares, or None where its image is not exact."""
        found = self.tables.get(table)
        return None if found is None or not found.captured else found.kinds.get(column)
