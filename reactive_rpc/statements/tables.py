"""The table behind an element of a FROM list."""

from __future__ import annotations

from sqlalchemy.sql.selectable import Alias, FromGrouping, TableClause

__all__ = ["base_table"]


def base_table(source: object) -> TableClause | None:
    """Return the table behind an alias of it; None for a subquery, a CTE, a join.

    >>> from sqlalchemy import table
    >>> base_table(table("users").alias().alias()).name
    'users'
    """
    while isinstance(source, Alias | FromGrouping):
        source = source.element
    return source if isinstance(source, TableClause) else None
