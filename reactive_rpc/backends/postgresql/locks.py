"""The snapshot that a transaction reads on PostgreSQL, and the relations that it has read.

PostgreSQL locks every relation that a statement names, or reaches through a view, a function or a policy, before it
reads a row, and keeps the lock until the transaction ends. So at its end a transaction's locks name all that it has
read, however it was read. docs/internals/postgresql.md says when that can be relied on.

Source: https://www.postgresql.org/docs/current/explicit-locking.html, src/backend/storage/lmgr/README.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from reactive_rpc.dependencies.schema import Schema
from reactive_rpc.statements.recorder import Recorder

__all__ = ["ASK_LOCKED", "ASK_SHOWN", "Locked", "Shown", "account_for", "read_locked"]

_SHOWN: Final = """pg_catalog.json_build_array(
  (SELECT pg_catalog.pg_snapshot_xmax(s)::text::bigint OPERATOR(pg_catalog.-)
     (SELECT pg_catalog.count(*) FROM pg_catalog.pg_snapshot_xip(s)) FROM pg_catalog.pg_current_snapshot() AS s),
  pg_catalog.pg_is_in_recovery(), extract(epoch FROM pg_catalog.transaction_timestamp())::text)"""
"""Handlers have the application's search path, and a function of a user's fits better there than one of any arguments.
"""
ASK_SHOWN: Final = f"SELECT {_SHOWN}::text"
"""SQL, one text: JSON for `Shown`."""

# INVARIANT (this locks no relation itself): pg_locks and pg_class are relations; the functions behind them are not.
ASK_LOCKED: Final = f"""
SELECT pg_catalog.json_build_array({_SHOWN},
  coalesce(pg_catalog.json_agg(pg_catalog.json_build_array(
    o.type, (pg_catalog.parse_ident(o.schema))[1], (pg_catalog.parse_ident(o.name))[1],
    pg_catalog.row_security_active(l.relation))), '[]')
)::text
FROM (SELECT DISTINCT relation FROM pg_catalog.pg_lock_status()
      WHERE locktype = 'relation' AND pid = pg_catalog.pg_backend_pid()) AS l,
     LATERAL pg_catalog.pg_identify_object(1259, l.relation, 0) AS o
WHERE o.type NOT IN ('index', 'toast table')
"""
"""SQL, one text: JSON of `[that for Shown, [[type, schema, name, whether row-level security restricts us], ...]]`."""


@dataclass(frozen=True, slots=True)
class Shown:
    """The snapshot of a transaction; whenever it is asked for, in REPEATABLE READ it is that of every statement.

    Attributes:
        version: that it shows.
        is_standby: whether the server is one.
        began: when the transaction began, which says which one it is.
    """

    version: int
    is_standby: bool
    began: str

    @classmethod
    def read(cls, answer: str) -> Shown:
        """Read the answer to `ASK_SHOWN`."""
        return cls(*json.loads(answer))


@dataclass(frozen=True, slots=True)
class Locked:
    """A relation that this transaction has locked.

    Attributes:
        kind: `table` (also a partitioned one), `view`, `sequence`, `materialized view`, `foreign table`.
        name: with its schema.
        restricted: whether row-level security is in force for this role.
    """

    kind: str
    name: str
    restricted: bool


def read_locked(answer: str) -> tuple[Shown, list[Locked]]:
    """Read the answer to `ASK_LOCKED`."""
    shown, relations = json.loads(answer)
    return Shown(*shown), [Locked(kind, f"{namespace}.{name}", on) for kind, namespace, name, on in relations]


def account_for(recorder: Recorder, locked: Collection[Locked]) -> None:
    """Hold what a transaction has locked against what was recorded, and widen the read set, or refuse it."""
    schema = recorder.schema
    tables: set[str] = set()
    for relation in locked:
        table = schema.table(relation.name)
        reason = _refusal(relation, table, schema)
        if reason is not None:
            recorder.refuse(reason)
            return
        if table is not None:
            tables.add(table)
    # A policy adds conditions to statements, with columns and tables that none of them names: all is read whole.
    is_restricted = any(relation.restricted for relation in locked)
    recorder.widen(sorted(tables if is_restricted else tables - recorder.tables))


def _refusal(relation: Locked, table: str | None, schema: Schema) -> str | None:
    if table is None:
        view = schema.view(relation.name) if relation.kind == "view" else None
        if view is None:
            return f"reads the {relation.kind} {relation.name}, whose writes are not captured"
        return None if view.opaque is None else f"reads the view {relation.name}, which {view.opaque}"
    return None if schema.captured(table) else f"reads table {table}, whose writes are not captured"
