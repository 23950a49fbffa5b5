"""Lean images on PostgreSQL: the SQL that makes them, and the Python that reads them; the two must agree.

An image is a JSON array over the image's columns: null; a JSON number or truth value for a column that compares as an
integer; else a letter and a text: `s` short text, an enum's label or a UUID; `n` a numeric; `r` the eight bytes of a
double in hexadecimal; `u` alone is `UNKNOWN`.

No rendering calls code that a user has defined, depends on a setting of the writer's session, or fetches a long value.
`docs/internals/capture-postgresql.md` argues each ("Images").
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple

from reactive_rpc.backends.postgresql.capture.names import quoted
from reactive_rpc.changes.captured_schema import CaptureState, TableCapture
from reactive_rpc.dependencies.change import UNKNOWN, Change, ChangeOperation, Known, Unknown, Value
from reactive_rpc.dependencies.schema import ColumnKind

__all__ = [
    "MASK_COLUMNS",
    "TEXT_BYTES",
    "TOPIC_PREFIX",
    "PostgreSQLOutboxRow",
    "decode",
    "decode_value",
    "item_sql",
    "value_sql",
]

TEXT_BYTES: Final = 48
MASK_COLUMNS: Final = 60
"""Columns in one number of a mask: a bigint has 63 bits, and JSON numbers stay exact."""
TOPIC_PREFIX: Final = "topic:"

_Decoded = Value | Unknown

_SECONDS: Final = (
    "CASE WHEN NOT isfinite({0}) THEN '\"u\"'::jsonb ELSE to_jsonb((extract(epoch FROM {0}) * 1000000)::bigint) END"
)
_SQL: Final[Mapping[ColumnKind, str]] = {
    "integer": "{0}",
    "real": "'r' || encode(float8send({0}), 'hex')",
    "decimal": f"'n' || left({{0}}::text, {TEXT_BYTES + 1})",
    "text": f"CASE WHEN octet_length({{0}}) > {TEXT_BYTES} THEN 'u' ELSE 's' || {{0}} END",
    "label": f"CASE WHEN octet_length({{0}}) > {TEXT_BYTES} THEN 'u' ELSE 's' || {{0}} END",
    "uuid": "'s' || {0}::text",
    "date": "CASE WHEN NOT isfinite({0}) THEN '\"u\"'::jsonb ELSE to_jsonb({0} - '1970-01-01'::date) END",
    "timestamp": _SECONDS,
    "timestamptz": _SECONDS,
}


_ENUM: Final = (
    f"CASE WHEN {{0}} IS NULL THEN NULL WHEN octet_length(format('%s', {{0}})) > {TEXT_BYTES} THEN 'u'"
    " ELSE 's' || format('%s', {0}) END"
)
"""`format` writes any value by its type's own output function, also that of a domain over an enum."""


class PostgreSQLOutboxRow(NamedTuple):
    """A row of the outbox.

    Attributes:
        id: grows within one transaction.
        xid: the transaction.
        table: the table's canonical name, or `topic:` and a topic.
        operation: I, U, D, B for a whole table, T for a topic.
        rows: a JSON array, see `decode`.
    """

    id: int
    xid: int
    table: str
    operation: str
    rows: str | None


def value_sql(table: TableCapture, alias: str, column: str) -> str:
    """Return the jsonb expression of a column's value in an image; SQL NULL if the value is NULL.

    Args:
        alias: of the table, an SQL identifier.
        column: one with a kind.
    """
    item = item_sql(table.kinds[column], f"{alias}.{quoted(column)}", is_enum=column in table.enums)
    return f"to_jsonb({item})"


def item_sql(kind: ColumnKind | None, expression: str, *, is_enum: bool = False) -> str:
    """Return the expression of a value of a kind as an argument of `jsonb_build_array`.

    >>> item_sql("real", "n.c0")
    "'r' || encode(float8send(n.c0), 'hex')"
    """
    if kind is None:
        raise ValueError(f"{expression} has no kind, so no image holds it")
    return (_ENUM if is_enum else _SQL[kind]).format(expression)


def decode_value(kind: ColumnKind | None, value: Any) -> _Decoded:
    """Return the value, of a column of `kind`, that a parsed JSON value of an image stands for.

    >>> decode_value("integer", True), decode_value("decimal", "n1.50"), decode_value("label", "sred")
    (1, Decimal('1.50'), 'red')

    Raises:
        ValueError: no image holds such a value.
    """
    if value is None:
        return None
    if value == "u":
        return UNKNOWN
    read = _READERS.get(kind) if kind is not None else None
    if read is None:
        raise ValueError(f"{value!r} is no value of a column that compares as {kind}")
    return read(value)


def _integer(value: Any) -> _Decoded:
    if not isinstance(value, int):
        raise ValueError(f"{value!r} is no integer")
    return int(value)


def _decimal(value: Any) -> _Decoded:
    text = _tagged(value, "n")
    if len(text) > TEXT_BYTES:
        return UNKNOWN
    number = Decimal(text)
    return UNKNOWN if number.is_nan() else number


def _real(value: Any) -> _Decoded:
    number: float = struct.unpack(">d", bytes.fromhex(_tagged(value, "r")))[0]
    return UNKNOWN if math.isnan(number) else number


def _text(value: Any) -> _Decoded:
    return _tagged(value, "s")


def _tagged(value: Any, tag: str) -> str:
    if not isinstance(value, str) or value[:1] != tag:
        raise ValueError(f"{value!r} does not begin with {tag!r}")
    return value[1:]


_READERS: Final[Mapping[ColumnKind, Callable[[Any], _Decoded]]] = {
    "integer": _integer,
    "real": _real,
    "decimal": _decimal,
    "text": _text,
    "label": _text,
    "uuid": _text,
    "date": _integer,
    "timestamp": _integer,
    "timestamptz": _integer,
}
_OPERATIONS: Final[Mapping[str, ChangeOperation]] = {"I": "insert", "U": "update", "D": "delete"}


def decode(row: PostgreSQLOutboxRow, state: CaptureState) -> tuple[Change, ...]:
    """Return the changes that a row of the outbox records, in the statement's order.

    `rows` is an array of images for I and D, of `[mask, image before, image after]` for U, of keys for T. A row that
    cannot be read is one bulk change of its table.
    """
    try:
        if row.operation == "T":
            return tuple(_topic_changes(row))
        table, operation = state.tables[row.table], _OPERATIONS[row.operation]
        return tuple(_change(table, operation, item) for item in json.loads(row.rows or ""))
    except (ValueError, TypeError, KeyError, ArithmeticError, struct.error):
        return (Change(table=row.table, operation="bulk"),)


def _topic_changes(row: PostgreSQLOutboxRow) -> Iterator[Change]:
    if row.rows is None:
        yield Change(table=row.table, operation="bulk")
        return
    for key in json.loads(row.rows):
        if not isinstance(key, str):
            raise TypeError(f"{key!r} is no key of a topic")
        yield Change(table=row.table, operation="insert", after={"key": key}, keys=frozenset({key}))


def _change(table: TableCapture, operation: ChangeOperation, item: Any) -> Change:
    mask, before, after = item if operation == "update" else (None, item, item)
    old = _image(table, before) if operation != "insert" else None
    new = _image(table, after) if operation != "delete" else None
    return Change(
        table=table.name,
        operation=operation,
        before=old,
        after=new,
        changed=None if mask is None else _changed(mask, table.columns),
        keys=_keys(table.key_columns, old) | _keys(table.key_columns, new),
    )


def _image(table: TableCapture, values: Any) -> dict[str, _Decoded]:
    return {column: decode_value(table.kinds[column], value) for column, value in zip(table.image, values, strict=True)}


def _changed(mask: list[int], columns: tuple[str, ...]) -> frozenset[str]:
    chunks = -(-len(columns) // MASK_COLUMNS)
    if len(mask) != chunks or not all(type(chunk) is int for chunk in mask):
        raise ValueError(f"{mask!r} is no mask of {len(columns)} columns")
    return frozenset(
        column for place, column in enumerate(columns) if mask[place // MASK_COLUMNS] >> place % MASK_COLUMNS & 1
    )


def _keys(columns: tuple[str, ...], image: Mapping[str, _Decoded] | None) -> frozenset[Known | Unknown]:
    if image is None:
        return frozenset()
    values = (image.get(column, UNKNOWN) for column in columns)
    return frozenset(value for value in values if value is not None)
