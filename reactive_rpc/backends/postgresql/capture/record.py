"""The record of the last verified state, and the horizon by which the outbox is pruned.

If anything differs from the record later, a write may have been hidden; `findings.py` judges that. An age in seconds
says nothing of a transaction that is still open, so pruning goes by transaction ids:
`docs/internals/capture-postgresql.md` argues it ("Pruning").
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final, LiteralString

import psycopg

from reactive_rpc.backends.postgresql.capture.tables import SCHEMA
from reactive_rpc.changes.image_policy import READS_KEPT_SECONDS

__all__ = [
    "EMPTY",
    "Record",
    "TableRecord",
    "forget_transactions",
    "note_reads",
    "prune",
    "read_record",
    "write_record",
]

PRUNE_CHUNK_ROWS: Final = 10_000

_NEWEST_HORIZON: Final[LiteralString] = f"""
SELECT xid::text, at FROM {SCHEMA}.horizon
WHERE at <= clock_timestamp() - make_interval(secs => %s) ORDER BY at DESC, xid DESC LIMIT 1
"""
_PRUNE_CHUNK: Final = f"""
DELETE FROM {SCHEMA}.outbox WHERE ctid = ANY(ARRAY(
  SELECT ctid FROM {SCHEMA}.outbox WHERE xid < %s::xid8 ORDER BY xid, id LIMIT {PRUNE_CHUNK_ROWS}))
"""

TableRecord = tuple[str, list[str], dict[str, list[str]]]
"""`(digest, [unique column], {relation: [version and link, function and triggers]})` of a table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The objects that stood when all was last verified, as JSON keeps them.

    Attributes:
        epoch: empty if nothing was installed.
        server: `[system and database, timeline and incarnation, oids and files of our tables]`.
        tables: the complete ones.
        types: `{enum label, composite type or text search: its definition}`.
        redefined: functions and operators, see `CaptureState.redefines`.
        policy: which values images hold, as `ImagePolicy.to_json` says; empty if nothing was installed.
        names: `{other name of a table, or name of a view: its meaning}`.
    """

    epoch: str = ""
    server: list[str]
    tables: dict[str, TableRecord]
    types: dict[str, str]
    names: dict[str, str]
    redefined: list[str] = field(default_factory=list)
    policy: dict[str, Any] = field(default_factory=dict)


EMPTY: Final = Record(server=["", "", ""], tables={}, types={}, names={})
"""The record of a database in which nothing was installed."""


def read_record(connection: psycopg.Connection[Any]) -> Record:
    """Return the record; the empty one if meta holds none."""
    values = dict(connection.execute(f"SELECT key, value FROM {SCHEMA}.meta").fetchall())
    if "epoch" not in values or "record" not in values:
        return EMPTY
    record = json.loads(values["record"])
    tables = {name: (digest, unique, relations) for name, (digest, unique, relations) in record["tables"].items()}
    return Record(
        epoch=values["epoch"],
        server=record["server"],
        tables=tables,
        types=record["types"],
        names=record["names"],
        redefined=record.get("redefined", []),
        policy=record.get("policy", {}),
    )


def write_record(connection: psycopg.Connection[Any], record: Record) -> None:
    """Replace epoch and record in meta; the floor stays."""
    fields = ("server", "tables", "types", "names", "redefined", "policy")
    text = json.dumps({name: getattr(record, name) for name in fields})
    for key, value in (("epoch", record.epoch), ("record", text)):
        connection.execute(
            f"INSERT INTO {SCHEMA}.meta(key, value) VALUES (%s, %s)"
            " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            [key, value],
        )
    connection.execute(f"INSERT INTO {SCHEMA}.meta(key, value) VALUES ('floor', '0') ON CONFLICT (key) DO NOTHING")


def forget_transactions(connection: psycopg.Connection[Any]) -> None:
    """Delete the rows about another server's transactions, and move the floor to where this one's begin."""
    for table in ("outbox", "horizon"):
        connection.execute(f"DELETE FROM {SCHEMA}.{table}")
    connection.execute(
        f"UPDATE {SCHEMA}.meta SET value = pg_snapshot_xmin(pg_current_snapshot())::text WHERE key = 'floor'"
    )


def note_reads(connection: psycopg.Connection[Any], tables: Collection[str]) -> None:
    """Note that somebody reads these tables, so that triggers copy their values."""
    connection.execute(
        f"INSERT INTO {SCHEMA}.reads(tbl, at) SELECT *, clock_timestamp() FROM unnest(%s::text[])"
        " ON CONFLICT (tbl) DO UPDATE SET at = excluded.at",
        [sorted(tables)],
    )


def prune(connection: psycopg.Connection[Any], older_than_seconds: float) -> int:
    """Delete the rows that everybody could read for `older_than_seconds`, in chunks; return how many."""
    connection.execute(
        f"DELETE FROM {SCHEMA}.reads WHERE at < clock_timestamp() - make_interval(secs => %s)", [READS_KEPT_SECONDS]
    )
    floor = _raise_floor(connection, older_than_seconds)
    deleted = 0
    while floor is not None and (chunk := connection.execute(_PRUNE_CHUNK.encode(), [floor]).rowcount):
        deleted += chunk
    return deleted


def _raise_floor(connection: psycopg.Connection[Any], older_than_seconds: float) -> str | None:
    """Note who is under way, raise the floor to the newest note that is old enough, and return it; None without one."""
    with connection.transaction():
        # INVARIANT (rows go by the oldest transaction open at a note, not by their age): one that is still open bears
        # an old id, and its rows appear late. All transactions below a note had ended when it was taken.
        connection.execute(
            f"INSERT INTO {SCHEMA}.horizon(at, xid) VALUES (clock_timestamp(), pg_snapshot_xmin(pg_current_snapshot()))"
        )
        newest = connection.execute(_NEWEST_HORIZON, [older_than_seconds]).fetchone()
        if newest is None:
            return None
        floor, at = newest
        connection.execute(
            f"UPDATE {SCHEMA}.meta SET value = %s WHERE key = 'floor' AND value::xid8 < %s::xid8", [floor, floor]
        )
        connection.execute(f"DELETE FROM {SCHEMA}.horizon WHERE at < %s", [at])
        return str(floor)
