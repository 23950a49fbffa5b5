"""Decide, from the outbox and the snapshot that shows it, which rows a REPLACE deleted and which only might have been.

A trigger records the rows in a write's way with op `R`; only SQLite knows whether the statement deleted them. The later
records of the same primary key, and the snapshot, show it. `docs/internals/capture-sqlite.md` has the rules ("Which
rows a REPLACE deleted"). If nothing proves that a row stayed, it counts as deleted, which is wider.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final

from reactive_rpc.backends.sqlite.capture.images import SQLiteOutboxRow, decode_row, decode_value, quoted, value_sql
from reactive_rpc.changes.captured_schema import TableCapture
from reactive_rpc.dependencies.change import UNKNOWN, Change, Image

__all__ = ["without_kept_rows"]

_LOOKED_UP_AT_ONCE: Final = 500

Execute = Callable[[str, Sequence[Any]], Iterable[Sequence[Any]]]
"""Runs SQL in the transaction that read the outbox."""

_Key = tuple[object, ...]


def without_kept_rows(
    rows: Sequence[SQLiteOutboxRow], tables: Mapping[str, TableCapture], execute: Execute
) -> list[tuple[int, Change]]:
    """Return `(id, change)` of each row of the outbox, without deletions of rows that stayed.

    Args:
        rows: of the outbox, from some place to the end of the snapshot, by id.
        tables: how each is captured.
        execute: runs SQL in that snapshot.
    """
    later: dict[str, _Later] = defaultdict(_Later)
    found: list[tuple[int, Change]] = []
    doubtful: dict[int, tuple[str, _Key]] = {}
    # INVARIANT (backwards, from the end of the snapshot): whether a row had stayed is decided by the records after it.
    for row in reversed(rows):
        change = decode_row(row, tables)
        table = tables.get(row.table)
        key = None if table is None or row.operation != "R" else _key(table, change.before)
        stayed = False if key is None else later[row.table].has_stayed(key)
        if not stayed:
            found.append((row.id, change))
        if stayed is None and key is not None:
            doubtful[row.id] = (row.table, key)
        if table is not None:
            later[row.table].precede_by(table, change)
    shown = _shown(doubtful.values(), tables, execute)
    return [(id_, change) for id_, change in reversed(found) if doubtful.get(id_) not in shown]


class _Later:
    """The log's records of a table's rows after some place in it.

    Attributes:
        stayed: `{key: whether the row that had it at that place stayed until the next record of the key}`.
        is_known: whether any other key has no record up to the end of the snapshot.
    """

    def __init__(self) -> None:
        self.stayed: dict[_Key, bool] = {}
        self.is_known = True

    def has_stayed(self, key: _Key) -> bool | None:
        """Tell whether the row with a key stays; None if the snapshot decides it."""
        return self.stayed.get(key, None if self.is_known else False)

    def precede_by(self, table: TableCapture, change: Change) -> None:
        """Go back before `change`."""
        before, after = _key(table, change.before), _key(table, change.after)
        has_come = change.operation in ("insert", "update") and (after is None or after != before)
        if change.operation == "bulk" or (has_come and after is None):
            self.stayed.clear()
            self.is_known = False
        elif has_come and after is not None:
            self.stayed[after] = False
        if before is not None:
            self.stayed[before] = True


def _shown(
    doubtful: Iterable[tuple[str, _Key]], tables: Mapping[str, TableCapture], execute: Execute
) -> set[tuple[str, _Key]]:
    """Return those that rows surely have, byte for byte: a collation may take another key for one."""
    keys: dict[str, set[_Key]] = defaultdict(set)
    for name, key in doubtful:
        keys[name].add(key)
    return {(name, key) for name, wanted in keys.items() for key in _rows(tables[name], list(wanted), execute)}


def _rows(table: TableCapture, keys: Sequence[_Key], execute: Execute) -> list[_Key]:
    chunks = (keys[start : start + _LOOKED_UP_AT_ONCE] for start in range(0, len(keys), _LOOKED_UP_AT_ONCE))
    try:
        rows = (row for chunk in chunks for row in execute(_lookup(table, len(chunk)), [*chain(*chunk)]))
        return [tuple(map(decode_value, row)) for row in rows]
    except (sqlite3.Error, ValueError):  # a collation that is not here, text that is no UTF-8
        return []


def _lookup(table: TableCapture, count: int) -> str:
    columns = [f"t.{quoted(name)}" for name in table.primary_key]
    one = ",".join("?" * len(columns))
    keys = ",".join([one] * count) if len(columns) == 1 else f"VALUES {','.join([f'({one})'] * count)}"
    return (
        f"SELECT {','.join(map(value_sql, columns))} FROM main.{quoted(table.name)} AS t"
        f" WHERE ({','.join(columns)}) IN ({keys})"
    )


def _key(table: TableCapture, image: Image | None) -> _Key | None:
    """Return the primary key; None if there is none, or the image does not hold all of it."""
    if image is None or not table.primary_key:
        return None
    key = tuple(image.get(name, UNKNOWN) for name in table.primary_key)
    return None if any(value is None or value is UNKNOWN for value in key) else key
