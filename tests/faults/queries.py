"""What is asked in the trials: every result is `{id: n}` of some accounts."""

from __future__ import annotations

from pydantic import BaseModel

from .books import Query
from .database import GROUPS, ROWS_OF

__all__ = ["ABOVE", "OF_GROUP", "PUSHED", "QUERIES", "Above", "Group"]


class Group(BaseModel):
    """Which accounts."""

    g: int


class Above(BaseModel):
    """Which accounts: those from this id on."""

    id: int


OF_GROUP = tuple(Query("accounts.of_group", (("g", group),), ROWS_OF[group]) for group in range(GROUPS))
PUSHED = tuple(Query("accounts.pushed", (("g", group),), ROWS_OF[group]) for group in range(0, GROUPS, 2))
ABOVE = Query("accounts.above", (("id", 12),), frozenset(row for rows in ROWS_OF.values() for row in rows if row >= 12))
QUERIES = (*OF_GROUP, *PUSHED, ABOVE)
