"""Announce a topic: a row of the outbox, in the transaction of whoever announces. See `reactive/topics.py`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import Connection, text

from reactive_rpc.capture.sqlite_tables import OUTBOX
from reactive_rpc.reactive.topics import PREFIX

__all__ = ["Announce", "announce_on_postgresql", "announce_on_sqlite"]

Announce = Callable[[Connection, str, Sequence[str] | None], None]
"""Announce stored keys of a topic, by its name in the log; None is all of it. The transaction stays open."""

_ON_SQLITE: Final = text(f"INSERT INTO \"{OUTBOX}\"(tbl, op, after) VALUES (:topic, 'T', :key)")
_ON_POSTGRESQL: Final = text("SELECT reactive_rpc.announce(CAST(:topic AS text), CAST(:keys AS jsonb))")


def announce_on_sqlite(connection: Connection, table: str, keys: Sequence[str] | None) -> None:
    """Write a row for each key."""
    for key in [None] if keys is None else dict.fromkeys(keys):
        connection.execute(_ON_SQLITE, {"topic": table, "key": key})


def announce_on_postgresql(connection: Connection, table: str, keys: Sequence[str] | None) -> None:
    """Call the function that may write the outbox where the application may not."""
    if keys is None or keys:
        given = None if keys is None else json.dumps(list(keys))
        connection.execute(_ON_POSTGRESQL, {"topic": table.removeprefix(PREFIX), "keys": given})
