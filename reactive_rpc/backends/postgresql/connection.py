"""Connections past any pool, for whoever needs a session alone: the log, locks, the ephemeral store, capture."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, LiteralString

import asyncpg  # type: ignore[import-untyped]  # it ships no types

from reactive_rpc.backends.postgresql.url import Place, dsn_of

__all__ = ["FAULTS", "ONLY_TABLES", "close", "connect"]

CONNECT_SECONDS: Final = 5
CLOSE_SECONDS: Final = 1.0

FAULTS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""The errors of asyncpg if the database cannot be used; `TimeoutError` is an OSError."""

# INVARIANT (nothing that the role or the database sets by default holds here): a poll that is serializable could fail
# for what others do, one under the role's timeouts could be cut off, and a search path of the users' own would let
# what they define be called. jit=off: estimates for the catalogs are high enough to compile a poll of a millisecond.
_SETTINGS: Final = {
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "idle_in_transaction_session_timeout": "0",
    "jit": "off",
    "lock_timeout": "0",
    "search_path": "pg_catalog, pg_temp",
    "statement_timeout": "0",
}

ONLY_TABLES: Final[LiteralString] = """
SELECT pg_catalog.set_config('restrict_nonsystem_relation_kind', 'view, foreign-table', false)
WHERE pg_catalog.current_setting('restrict_nonsystem_relation_kind', true) IS NOT NULL
"""
"""SQL that lets the session read no view and no foreign table of a user's, on servers that know the setting.

A view calls its functions as whoever reads it. Nothing of ours reads one, unless it was put in a table's place.
"""


async def connect(place: Place, name: str, settings: Mapping[str, str] | None = None, **options: Any) -> Any:
    """Connect by asyncpg, with settings for the session.

    They are set once it stands: PgBouncer refuses most of them as parameters of its start.

    Args:
        name: the connection's purpose, as the server's administrator sees it.
        settings: beside those that all our connections have.
        options: asyncpg's.

    Raises:
        Exception: one of `FAULTS`.
    """
    settings = {"application_name": f"reactive_rpc {name}"} | _SETTINGS | dict(settings or {})
    connection = await asyncpg.connect(dsn_of(place), timeout=CONNECT_SECONDS, **options)
    try:
        # No SET, which takes a list in quotes for one name: a search path is a list.
        calls = ", ".join(f"pg_catalog.set_config('{name}', '{value}', false)" for name, value in settings.items())
        await connection.execute(f"SELECT {calls}; {ONLY_TABLES}")
    except BaseException:
        connection.terminate()
        raise
    return connection


async def close(connection: Any) -> None:
    """Say goodbye to the server, or hang up if it does not answer."""
    with suppress(*FAULTS):
        await connection.close(timeout=CLOSE_SECONDS)
