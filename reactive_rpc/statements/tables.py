"""The table behind an element of a FROM list, or the SELECT."""

from __future__ import annotations

from typing import Any

from sqlalchemy.sql.selectable import CTE, Alias, FromGrouping, Subquery, TableClause

__all__ = ["base_table", "derived_select"]


def base_table(source: object) -> TableClause | None:
    """Return the table behind an alias of it; None for a subquery, a CTE, a join.

    >>> from sqlalchemy import table
    >>> base_table(table("users").alias().alias()).name
    'users'
    """
    while isinstance(source, Alias | FromGrouping):
        source = source.element
    return source if isinstance(source, TableClause) else None


def derived_select(source: object) -> Any:
    """Return the SELECT behind a derived table or a CTE; None for anything else."""
    return source.element if isinstance(source, Subquery | CTE) else None
