"""Connections past any pool, for what needs a session of its own: the log, locks, the board, capture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # it ships no types

from reactive_rpc.backends.postgresql.url import Place, dsn_of

__all__ = ["connect"]


async def connect(place: Place, settings: Mapping[str, str], **options: Any) -> Any:
    """Connect by asyncpg, with these settings for the session.

    They are set once it stands: PgBouncer refuses most of them as parameters of its start.

    Args:
        options: asyncpg's.
    """
    connection = await asyncpg.connect(dsn_of(place), **options)
    try:
        # No SET, which takes a list in quotes for one name: a search path is a list.
        calls = ", ".join(f"pg_catalog.set_config('{name}', '{value}', false)" for name, value in settings.items())
        await connection.execute(f"SELECT {calls}")
    except BaseException:
        connection.terminate()
        raise
    return connection
