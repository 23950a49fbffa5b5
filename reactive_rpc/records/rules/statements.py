"""Whether a condition on a model's own columns filters the rows of a statement.

If the model's table is not in its FROM, SQLAlchemy adds it: a product of tables, which returns every row of the others
as soon as one row of the model's is let through.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Delete, FromClause, Join, Select, Update
from sqlalchemy.sql.expression import FromGrouping

__all__ = ["reads_table"]


def reads_table(statement: object, table: FromClause) -> bool:
    """Tell whether a statement has a table in its FROM, or changes its rows: itself, and not an alias or a subquery."""
    match statement:
        case Select():
            return any(_has(source, table) for source in statement.get_final_froms())
        case Update() | Delete():
            return _has(statement.table, table)
    return False


def _has(source: Any, table: FromClause) -> bool:
    match source:
        case Join():
            return _has(source.left, table) or _has(source.right, table)
        case FromGrouping():
            return _has(source.element, table)
    return bool(source == table)  # `is` does not see through the ORM's annotations
