"""Announce a topic on SQLite: a row of the outbox for each key. See `dependencies/topics.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, text

from reactive_rpc.backends.sqlite.capture.tables import OUTBOX

__all__ = ["announce_on_sqlite"]

_ANNOUNCE: Final = text(f"INSERT INTO \"{OUTBOX}\"(tbl, op, after) VALUES (:topic, 'T', :key)")


def announce_on_sqlite(connection: Connection, table: str, keys: Sequence[str] | None) -> None:
    """Write a row for each key."""
    for key in [None] if keys is None else dict.fromkeys(keys):
        connection.execute(_ANNOUNCE, {"topic": table, "key": key})
