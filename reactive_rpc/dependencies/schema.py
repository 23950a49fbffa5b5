"""The exact comparisons of the database: the kinds of captured columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

__all__ = ["ColumnKind", "Schema", "View"]

ColumnKind = Literal[
    "integer", "real", "numeric", "text", "decimal", "label", "uuid", "date", "timestamp", "timestamptz"
]
"""How the database compares a column's stored values, and how an image holds them.

SQLite has the first four, its affinities; `numeric` there is a number or text. PostgreSQL:

- `integer` (also booleans, as 0 and 1), `real` (float8), `decimal` (numeric, as `Decimal`): by value, ordered.
- `text`: equal and ordered by code points (collation C). `label`: equal bytewise, but ordered otherwise (text of
  another deterministic collation, enums). `uuid`: the canonical text, ordered as such.
- `date`: days since 1970-01-01. `timestamp`, `timestamptz`: microseconds since 1970-01-01 (UTC). All integers.
"""


@dataclass(frozen=True, slots=True)
class View:
    """The tables behind a view.

    Attributes:
        tables: every table it reads, by canonical name, through other views too.
        opaque: why its rows do not follow from those of its tables; None if they do.
    """

    tables: frozenset[str]
    opaque: str | None = None


class Schema(Protocol):
    """The tables as capture knows them. They may change between two calls (a migration), so nobody keeps an answer.

    Each table has one canonical name, which `Change.table` and `Constraint.table` hold.
    """

    def table(self, name: str) -> str | None:
        """Return the canonical name of the table that a statement calls `name`; None if there is no such table.

        `main.team` on SQLite and `public.team` on PostgreSQL are `team`; a partition is its root.
        """
        ...

    def view(self, name: str) -> View | None:
        """Return the tables behind the view that a statement calls `name`; None if there is no such view."""
        ...

    def captured(self, table: str) -> bool:
        """Tell whether every write to `table` is seen; a result that reads any other table is not cached."""
        ...

    def columns(self, table: str) -> frozenset[str]:
        """Return the columns of a captured table, as the database spells them; none if it is not known."""
        ...

    def kind(self, table: str, column: str) -> ColumnKind | None:
        """Return how `column` compares, or None if its image is not exact: no condition may rest on it."""
        ...

    def is_small(self, table: str, column: str) -> bool:
        """Tell whether the database computes with `column` in 16 bits, and fails past them."""
        ...

    def primary_key(self, table: str) -> tuple[str, ...]:
        """Return the columns of the primary key of a captured table; none if it has none, or is not known."""
        ...

    def is_unique(self, table: str, column: str) -> bool:
        """Tell whether at most one row has any given value of `column`, other than NULL."""
        ...

    def is_indexed(self, table: str, column: str) -> bool:
        """Tell whether the rows with a given value of `column` are found without reading the whole table."""
        ...

    def redefines(self, name: str) -> bool:
        """Tell whether a function or operator that is built in is also one of the database's users'.

        Which of the two a statement calls is for the database to say, and what theirs does nobody knows.

        Args:
            name: of a function, in lower case, an operator's sign, or `operator =`: a sign of a comparison of built-in
                types.
        """
        ...
