"""Connections past any pool, for what needs a session of its own: the log, locks, the ephemeral store, capture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, LiteralString

import asyncpg  # type: ignore[import-untyped]  # it ships no types

from reactive_rpc.backends.postgresql.url import Place, dsn_of

__all__ = ["ONLY_TABLES", "connect"]

ONLY_TABLES: Final[LiteralString] = """
SELECT pg_catalog.set_config('restrict_nonsystem_relation_kind', 'view, foreign-table', false)
WHERE pg_catalog.current_setting('restrict_nonsystem_relation_kind', true) IS NOT NULL
"""
"""SQL that lets the session read no view and no foreign table of a user's, on servers that know the setting.

A view calls its functions as whoever reads it. Nothing of ours reads one, unless it was put in a table's place.
"""


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
        await connection.execute(f"SELECT {calls}; {ONLY_TABLES}")
    except BaseException:
        connection.terminate()
        raise
    return connection
