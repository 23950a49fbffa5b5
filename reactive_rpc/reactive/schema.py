"""What the database can compare exactly: the kinds of captured columns."""

from __future__ import annotations

from typing import Literal, Protocol

__all__ = ["Kind", "Schema"]

Kind = Literal["integer", "real", "numeric", "text"]
"""How the database compares a column's stored values, bytewise and without collation tricks."""


class Schema(Protocol):
    """What capture knows of the tables. It may change between two calls (a migration), so nobody keeps an answer."""

    def captured(self, table: str) -> bool:
        """Tell whether every write to `table` is seen; a result that reads any other table is not cached."""
        ...

    def columns(self, table: str) -> frozenset[str]:
        """Return the columns of a captured table, as the database spells them; none where it is not known."""
        ...

    def kind(self, table: str, column: str) -> Kind | None:
        """Return how `column` compares, or None where its image is not exact: no condition may rest on it."""
        ...
