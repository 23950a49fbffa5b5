"""The lock by which the relays of one database take turns: an advisory lock, held by a connection of its own.

It belongs to the session, so it goes with the process, and with its host, which the server notices by TCP's keepalives.
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

from reactive_rpc.backends.postgresql.connection import close, connect
from reactive_rpc.backends.postgresql.url import Place

__all__ = ["relay_lock"]

_SETTINGS: Final = {
    "idle_session_timeout": "0",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}
_SECONDS: Final = 5


def relay_lock(place: Place, name: str) -> Callable[[], Awaitable[Any]]:
    """Return a function that asks for the lock: a connection that holds it, or None where another does.

    Args:
        place: the database; connections lead to it without a pooler.
        name: relays of one name take turns.
    """
    key = zlib.crc32(b"reactive_rpc relay " + name.encode())

    async def take() -> Any:
        connection = await connect(place, "relay", _SETTINGS, command_timeout=_SECONDS)
        try:
            if await connection.fetchval("SELECT pg_try_advisory_lock($1::bigint)", key):
                return connection
        except BaseException:
            connection.terminate()
            raise
        await close(connection)
        return None

    return take
