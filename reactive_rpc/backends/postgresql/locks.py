"""The relations that a transaction has read on PostgreSQL: those on which it holds a lock.

PostgreSQL locks every relation that a statement names, or reaches through a view, a function or a policy, before it
reads a row, and keeps the lock until the transaction ends. So at its end a transaction's locks name all that it has
read, however it was read. docs/internals/postgresql.md says when that can be relied on.

Source: https://www.postgresql.org/docs/current/explicit-locking.html, src/backend/storage/lmgr/README.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from reactive_rpc.dependencies.schema import Schema
from reactive_rpc.statements.recorder import Recorder

__all__ = ["Locked", "account_for"]

# INVARIANT (this locks no relation itself): pg_locks and pg_class are relations; the functions behind them are not.
LOCKED: Final = """
SELECT pg_catalog.json_build_array(
  extract(epoch FROM pg_catalog.transaction_timestamp())::text,
  coalesce(pg_catalog.json_agg(pg_catalog.json_build_array(
    o.type, (pg_catalog.parse_ident(o.schema))[1], (pg_catalog.parse_ident(o.name))[1],
    pg_catalog.row_security_active(l.relation))), '[]')
)::text
FROM (SELECT DISTINCT relation FROM pg_catalog.pg_lock_status()
      WHERE locktype = 'relation' AND pid = pg_catalog.pg_backend_pid()) AS l,
     LATERAL pg_catalog.pg_identify_object(1259, l.relation, 0) AS o
WHERE o.type NOT IN ('index', 'toast table')
"""
"""SQL, one text: JSON of `[began, [[type, schema, name, whether row-level security restricts us], ...]]`."""


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


def account_for(recorder: Recorder, run: Callable[[str], str], *, began: str) -> None:
    """Hold what this transaction has locked against what was recorded, and widen the read set, or refuse it.

    Args:
        recorder: of the call.
        run: executes a statement in the transaction, unrecorded, and returns its one value.
        began: when the transaction began, which says which one it is.
    """
    schema = recorder.schema
    found, relations = json.loads(run(LOCKED))
    if found != began:
        recorder.refuse("ends the transaction that it was given: leave commit and rollback to the caller")
        return
    locked = [Locked(kind, f"{namespace}.{name}", on) for kind, namespace, name, on in relations]
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
