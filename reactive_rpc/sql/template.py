"""What a statement reads, its parameters still open."""

from __future__ import annotations

from dataclasses import dataclass

from reactive_rpc.sql.predicates import Comparison, Nullness

__all__ = ["Read", "RowAtom", "Template"]

RowAtom = Comparison | Nullness
"""An atom about one row of one table."""


@dataclass(frozen=True, slots=True)
class Read:
    """Rows of `table` for which every atom holds, seen through `columns` (None: all)."""

    table: str
    columns: frozenset[str] | None
    atoms: tuple[RowAtom, ...] = ()


@dataclass(frozen=True, slots=True)
class Template:
    """What a statement reads, its parameters still open.

    Attributes:
        reads: without duplicates.
        tables: all tables rendered, also those of which no row can matter.
        opaque: why it cannot be told what is read; None where it can.
    """

    reads: tuple[Read, ...] = ()
    tables: tuple[str, ...] = ()
    opaque: str | None = None
