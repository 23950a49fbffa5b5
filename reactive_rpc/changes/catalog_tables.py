"""What session capture knows of a database's tables: how they compare, and what a write does beyond the rows it names.

Each back end reads its own catalog (`capture/catalog_tables.py`); `backends/session/tables.py` reads any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from reactive_rpc.changes.captured_schema import TableCapture

__all__ = ["Cascade", "CatalogTables", "ReadTables", "cascades"]


@dataclass(frozen=True, slots=True)
class Cascade:
    """A foreign key that writes: a change of a `parent` row may change rows of `child`."""

    parent: str
    child: str
    on_delete: bool
    on_update: bool


@dataclass(frozen=True, slots=True)
class CatalogTables:
    """What was read.

    Attributes:
        tables: `{table: how it compares}`.
        names: `{another spelling: table}`.
        actions: the foreign keys that write.
        rewritten: the tables on which a trigger, a rule or a conflict clause may write more than was asked for;
            None where that cannot be told.
        unset: `{table: columns}` that an UPDATE may change without setting them; None where that cannot be told.
        redefined: see `CaptureState.redefines`.
    """

    tables: Mapping[str, TableCapture]
    names: Mapping[str, str]
    actions: tuple[Cascade, ...]
    rewritten: frozenset[str] | None
    unset: Mapping[str, frozenset[str]] | None
    redefined: frozenset[str] = frozenset()


def cascades(action: str | None) -> bool:
    """Tell whether a foreign key with this action writes."""
    return (action or "NO ACTION").upper() not in ("NO ACTION", "RESTRICT")


ReadTables = Callable[[Connection], CatalogTables]
"""Read the tables of the database that a connection is on; it leaves nothing on the connection."""
