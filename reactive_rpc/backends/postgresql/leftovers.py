"""What a handler leaves on its PostgreSQL session, and how the next one is kept from finding it.

A transaction that commits leaves the session what it `SET` without LOCAL (a tenant for row-level security, a role, a
search path), its temporary tables, advisory locks, channels and cursors. In a pool the session's next transaction is
another caller's. What leaves nothing cannot be told from its text, as a function or a trigger may call `set_config`. So
a mutation's connection is put back to what it was when it was made, always; a query's transaction is rolled back, which
leaves nothing unless it was ended from within, or took locks, and then its result is opaque: only after such a one.

**No round trip.** asyncpg sends what cleans along with the BEGIN that follows (`gathering.py`). It is a transaction of
its own, as it must be: within the next, a snapshot would be taken before its isolation is said, and a rollback would
bring everything back. psycopg sends it where it would else ask whether the server is there.

**Put back** are the settings that the session had once it was connected, also those that were SET: PgBouncer passes its
clients' on in this way. Statements that somebody prepared by SQL stay, and say nothing of a caller.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Engine, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from reactive_rpc.backends.postgresql.gathering import GatheringConnection

__all__ = ["clean_after_each", "leaves_something"]

_RESET: Final = "reactive_rpc_reset"
"""Where a connection's `info` keeps what cleans it."""
_LEFT: Final = "reactive_rpc_left"

_CLEAN: Final = (
    "RESET ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ROLE; CLOSE ALL; UNLISTEN *; DISCARD TEMP; DISCARD SEQUENCES;"
    " SELECT pg_catalog.pg_advisory_unlock_all()"
)
_OWN: Final = """
SELECT coalesce(pg_catalog.string_agg(
  pg_catalog.format(', pg_catalog.set_config(%L, %L, false)', name, setting), ''), '')
FROM pg_catalog.pg_settings WHERE source = 'session' AND context IN ('user', 'superuser')
  AND name NOT IN ('transaction_isolation', 'transaction_read_only', 'transaction_deferrable')
"""
"""SQL, one text: what sets again what was SET since the session began."""


def clean_after_each(engine: Engine, *, always: bool) -> None:
    """Have each connection of an engine of ours cleaned before it is used again.

    Args:
        always: or else only where `leaves_something` was said of it.
    """

    def connect(dbapi_connection: Any, record: ConnectionPoolEntry) -> None:
        cursor = dbapi_connection.cursor()
        cursor.execute(_OWN)
        (own,) = cursor.fetchone()
        cursor.close()
        dbapi_connection.commit()
        record.info[_RESET] = f"{_CLEAN}{own}"

    def checkout(dbapi_connection: Any, record: ConnectionPoolEntry, _proxy: PoolProxiedConnection) -> None:
        if record.info.pop(_LEFT, False):
            _clean(engine, dbapi_connection, record.info[_RESET])
        if always:
            record.info[_LEFT] = True

    event.listen(engine, "connect", connect)
    event.listen(engine, "checkout", checkout)


def leaves_something(connection: PoolProxiedConnection) -> None:
    """Say that a connection's session may not be what it was."""
    connection.info[_LEFT] = True


def _clean(engine: Engine, dbapi_connection: Any, cleaning: str) -> None:
    driver_connection = getattr(dbapi_connection, "driver_connection", None)
    if isinstance(driver_connection, GatheringConnection):
        driver_connection.cleaning = cleaning
        return
    try:
        _run_by_itself(dbapi_connection, cleaning)
    except engine.dialect.loaded_dbapi.Error as exc:
        raise DisconnectionError("the server has hung up, or the session cannot be cleaned") from exc


def _run_by_itself(dbapi_connection: Any, statements: str) -> None:
    dbapi_connection.autocommit = True
    try:
        cursor = dbapi_connection.cursor()
        cursor.execute(statements)
        cursor.close()
    finally:
        dbapi_connection.autocommit = False
