"""Which values the outbox may hold: those of columns that may be compared, are no secret, and that somebody reads.

All of it is economy of what is copied, never of what is noticed: a value that an image lacks counts as any value. So
whatever is left out, rightly or wrongly, makes results be forgotten more often, and never wrong.

**Tables that nothing reads** leave no values. A table beside the outbox (`reads`) names the tables that somebody has
read lately; a change of any other is told as "the whole table". A worker puts a table's name there before it keeps the
first result that rests on it, so nothing that is kept loses precision (`cache/read_tables.py`), and no DDL runs for
that.

**One database, one policy.** It is recorded in the database, as the triggers are made from it. Who starts a server
imposes the one it was given; who only looks again, or runs a command without an application, takes the recorded one. So
workers of two releases do not undo each other's triggers for as long as they live.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from reactive_rpc.changes.secrets import says_secret_as

__all__ = ["EVERY_TABLE", "READS_KEPT_SECONDS", "READ_TABLES", "ImagePolicy"]


READS_KEPT_SECONDS: Final = 30 * 24 * 3600.0
"""How long a table's values are told after somebody last noted that it is read."""

_TELLING: Final = frozenset({"bool", "boolean", "date", "datetime", "time", "timestamp", "timestamptz"})
"""Types that hold no secret, whatever a column is called: `password_reset timestamp`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePolicy:
    """What images hold.

    Attributes:
        exclude: tables and `table.column`s whose values they never hold.
        images: `table.column`s whose values they hold although their names say secret.
        only_read: whether they hold values of those tables alone that somebody reads.
    """

    exclude: frozenset[str] = frozenset()
    images: frozenset[str] = frozenset()
    only_read: bool = True

    def holds(self, tables: Collection[str], column: str, type_name: str, columns: Collection[str] = ()) -> bool:
        """Tell whether images may hold the values of a column.

        Args:
            tables: the names of its table.
            type_name: as the database declares it.
            columns: all that its table has.
        """
        names = {f"{table}.{column}" for table in tables}
        if not self.exclude.isdisjoint(names | set(tables)) or (columns and self._misses_one(tables, columns)):
            return False
        if not self.images.isdisjoint(names) or type_name.lower() in _TELLING:
            return True
        return not says_secret_as(column, type_name)

    def _misses_one(self, tables: Collection[str], columns: Collection[str]) -> bool:
        """Tell whether a column that is excluded is gone: it may be there by another name, and nobody knows which."""
        found = {f"{table}.{column}" for table in tables for column in columns}
        return any(name.rpartition(".")[0] in tables and name not in found for name in self.exclude)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes."""
        return {"exclude": sorted(self.exclude), "images": sorted(self.images), "only_read": self.only_read}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> ImagePolicy:
        """Return what was stored."""
        return cls(
            exclude=frozenset(stored.get("exclude", ())),
            images=frozenset(stored.get("images", ())),
            only_read=bool(stored.get("only_read", True)),
        )


READ_TABLES = ImagePolicy()
"""What holds where nobody says otherwise."""

EVERY_TABLE = ImagePolicy(only_read=False)
"""Values of tables that nobody has read, too: for looking at what triggers make."""
