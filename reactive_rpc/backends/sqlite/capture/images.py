"""Lean images on SQLite: the SQL that makes them, and the Python that reads them; the two must agree.

An image is a JSON array over the image's columns. Integers and NULL stand as they are; short text as `s` + text; reals
as `r` + 17 significant digits; anything else as `u`, which is `UNKNOWN`.

- `json_array` alone would round doubles to 15 digits and refuse BLOBs.
- `printf('%!.17g')` is not correctly rounded near the ends of the exponent range, and less so where the C compiler has
  no wide `long double`; a real whose digits do not lead back to it is `u`.
- Text with NUL is cut by many SQL functions: `u`.
- SQLite limits a function to 127 arguments and an expression to depth 1000: wide images are nested arrays, wide
  concatenations and disjunctions are balanced trees.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from reactive_rpc.backends.sqlite.capture.tables import OUTBOX, SQLiteTable
from reactive_rpc.changes.captured_schema import TableCapture
from reactive_rpc.dependencies.change import UNKNOWN, Change, ChangeOperation, Known, Unknown, Value
from reactive_rpc.dependencies.topics import changes_of

__all__ = [
    "COUNTS_AFTER",
    "ROWS_AFTER",
    "ROWS_OF_AFTER",
    "SQLiteOutboxRow",
    "balanced",
    "decode_row",
    "decode_value",
    "image_sql",
    "quoted",
    "value_sql",
]

TEXT_BYTES = 48
_ARGUMENTS = 100

# Bytes, because text that is no UTF-8 must reach `decode_row`, which widens, and not fail inside the driver.
_ROWS = f'SELECT id, tbl, op, changed, CAST(before AS BLOB), CAST(after AS BLOB) FROM "{OUTBOX}" WHERE id > ?'
ROWS_AFTER = f"{_ROWS} ORDER BY id LIMIT ?"
ROWS_OF_AFTER = f"{_ROWS} AND tbl IN (SELECT value FROM json_each(?)) ORDER BY id"
"""SQL for the rows of some tables, whose names come as JSON, after an id."""

COUNTS_AFTER = f'SELECT tbl, count(*), max(id) FROM "{OUTBOX}" WHERE id > ? GROUP BY tbl ORDER BY count(*), tbl'
"""SQL for the number of rows of each table after an id, and the last of them."""

_OPERATIONS: Mapping[str, ChangeOperation] = {"I": "insert", "U": "update", "D": "delete", "R": "delete"}


class SQLiteOutboxRow(NamedTuple):
    """A row of the outbox as `ROWS_AFTER` reads it.

    Attributes:
        id: grows in commit order.
        table: the table's name.
        operation: I, U, D; R for a row that a REPLACE may have deleted, B for a whole table, T for the key `after` of a
            topic.
        changed: `,3,7`: the ordinals of the changed columns; None if all may have changed.
        before: the image before, as JSON.
        after: the image after, as JSON.
    """

    id: int
    table: str
    operation: str
    changed: str | None
    before: bytes | None
    after: bytes | None


def quoted(name: str) -> str:
    """Return `name` as an SQL identifier.

    >>> quoted('a"b')
    '"a""b"'
    """
    return '"' + name.replace('"', '""') + '"'


def balanced(terms: Sequence[str], operator: str) -> str:
    """Join `terms` (at least one) so that n of them nest log2(n) deep.

    >>> balanced(["a", "b", "c"], "OR")
    '(a OR (b OR c))'
    """
    if len(terms) == 1:
        return terms[0]
    half = len(terms) // 2
    return f"({balanced(terms[:half], operator)} {operator} {balanced(terms[half:], operator)})"


def image_sql(table: SQLiteTable, row: str) -> str:
    """Return the expression of the image of `row` (OLD, NEW or an alias)."""
    terms = [
        f"{row}.{quoted(name)}" if name == table.integer_key else value_sql(f"{row}.{quoted(name)}")
        for name in table.capture.image
    ]
    if len(terms) <= _ARGUMENTS:
        return f"json_array({','.join(terms)})"
    chunks = [terms[start : start + _ARGUMENTS] for start in range(0, len(terms), _ARGUMENTS)]
    return "json_array(" + ",".join(f"json_array({','.join(chunk)})" for chunk in chunks) + ")"


def value_sql(value: str) -> str:
    """Return the expression of the item of an image for `value`, itself an expression."""
    digits = f"printf('%!.17g',{value})"
    return (
        f"CASE typeof({value}) WHEN 'integer' THEN {value} WHEN 'null' THEN NULL"
        f" WHEN 'text' THEN CASE WHEN length(CAST({value} AS BLOB))<={TEXT_BYTES} AND instr({value},char(0))=0"
        f" THEN 's'||{value} ELSE 'u' END"
        f" WHEN 'real' THEN CASE WHEN CAST({digits} AS REAL)={value} THEN 'r'||{digits} ELSE 'u' END"
        " ELSE 'u' END"
    )


def decode_row(row: SQLiteOutboxRow, tables: Mapping[str, TableCapture]) -> Change:
    """Return the change that a row of the outbox records; a bulk change of its table if the row cannot be read."""
    if row.operation == "T":
        return _announced(row)
    table = tables.get(row.table)
    operation = _OPERATIONS.get(row.operation)
    if table is None or operation is None:
        return Change(table=row.table, operation="bulk")
    try:
        before = _decode_image(row.before, table.image)
        after = _decode_image(row.after, table.image)
        changed = _decode_changed(row.changed, table.columns)
    except (ValueError, TypeError, KeyError):
        return Change(table=row.table, operation="bulk")
    if (before is None) != (operation == "insert") or (after is None) != (operation == "delete"):
        return Change(table=row.table, operation="bulk")
    return Change(
        table=row.table,
        operation=operation,
        before=before,
        after=after,
        changed=changed if operation == "update" else None,
        keys=_keys(table.key_columns, before) | _keys(table.key_columns, after),
    )


def _announced(row: SQLiteOutboxRow) -> Change:
    """Return the change of a topic that a row announces: `after` is a key of it as text, or NULL for all."""
    key = None if row.after is None else row.after.decode(errors="replace")
    return changes_of(row.table, None if key is None else [key])[0]


def _decode_image(text: bytes | None, columns: tuple[str, ...]) -> dict[str, Value | Unknown] | None:
    if text is None:
        return None
    values = json.loads(text)
    if len(columns) > _ARGUMENTS:
        values = [value for chunk in values for value in chunk]
    return {column: decode_value(value) for column, value in zip(columns, values, strict=True)}


def decode_value(value: Any) -> Value | Unknown:
    """Return the value that an image holds as `value`.

    Raises:
        ValueError: an image holds no such thing.
    """
    if value is None or type(value) is int:
        return value
    if not isinstance(value, str) or value[:1] not in ("s", "r", "u"):
        raise ValueError(f"{value!r} is no value of an image")
    if value[0] == "s":
        return value[1:]
    return float(value[1:]) if value[0] == "r" else UNKNOWN


def _decode_changed(text: str | None, columns: tuple[str, ...]) -> frozenset[str] | None:
    if text is None:
        return None
    by_ordinal = dict(enumerate(columns))
    return frozenset(by_ordinal[int(ordinal)] for ordinal in text.split(",")[1:])


def _keys(columns: tuple[str, ...], image: Mapping[str, Value | Unknown] | None) -> frozenset[Known | Unknown]:
    if image is None:
        return frozenset()
    values = (image.get(column, UNKNOWN) for column in columns)
    return frozenset(value for value in values if value is not None)
