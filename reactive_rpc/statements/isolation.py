"""How far mutations that run at once are kept apart: names, and the level of each database."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Literal, get_args

__all__ = ["ISOLATIONS", "Isolation", "level_among", "level_of"]

Isolation = Literal["serializable", "repeatable_read", "read_committed"]
"""`serializable`: as if one after another. `repeatable_read`: one snapshot, and no write over a newer row.
`read_committed`: each statement sees all that is committed when it begins, so earlier reads may be out of date."""

ISOLATIONS: Final[tuple[Isolation, ...]] = get_args(Isolation)


def level_of(isolation: Isolation) -> str:
    """Return SQL's name of a level, which is SQLAlchemy's too.

    >>> level_of("repeatable_read")
    'REPEATABLE READ'
    """
    return isolation.replace("_", " ").upper()


def level_among(offered: Collection[str], isolation: Isolation) -> str | None:
    """Return the weakest of the levels `offered` that keeps the promise of `isolation`; None if there is none.

    >>> level_among(["READ UNCOMMITTED", "SERIALIZABLE"], "read_committed")
    'SERIALIZABLE'
    """
    enough = map(level_of, reversed(ISOLATIONS[: ISOLATIONS.index(isolation) + 1]))
    return next((level for level in enough if level in offered), None)
