"""Announce a topic on PostgreSQL: one row of the outbox for all keys. See `dependencies/topics.py`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, text

from reactive_rpc.dependencies.topics import PREFIX

__all__ = ["announce_on_postgresql"]

_ANNOUNCE: Final = text("SELECT reactive_rpc.announce(CAST(:topic AS text), CAST(:keys AS jsonb))")


def announce_on_postgresql(connection: Connection, table: str, keys: Sequence[str] | None) -> None:
    """Call the function that may write the outbox, which the application may not."""
    if keys is None or keys:
        given = None if keys is None else json.dumps(list(keys))
        connection.execute(_ANNOUNCE, {"topic": table.removeprefix(PREFIX), "keys": given})
