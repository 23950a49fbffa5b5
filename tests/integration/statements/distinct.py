"""DISTINCT ON, which SQLAlchemy 2.1 spells otherwise than 2.0."""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects import postgresql

__all__ = ["distinct_on"]


def distinct_on(statement: Any, column: Any) -> Any:
    """Return the SELECT with one row for each value of `column`."""
    if hasattr(postgresql, "distinct_on"):
        return statement.ext(postgresql.distinct_on(column))
    return statement.distinct(column)
