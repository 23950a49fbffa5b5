"""Which bound values compare with a column's stored values the way Python compares them.

A value here is as the driver gets it: the column type's own bind processor has run. So an Enum is its name, a SQLite
date is its ISO text, a UUID its hex digits, and no type needs a case of its own. What is left is the database's own
conversion. SQLite turns a number into text for a text column, and text that looks like a number into a number for a
numeric one. PostgreSQL compares two types by converting one of them: an integer column meets a float as a float, a
`timestamp` meets a date as midnight, and a `timestamptz` meets a naive time in the session's time zone. Where a
conversion may change what is compared, the value says nothing. (The casts that SQLAlchemy renders around a parameter
come before that, see `casts.py`.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Final
from uuid import UUID

from reactive_rpc.dependencies.change import Known
from reactive_rpc.dependencies.schema import ColumnKind

__all__ = ["EPOCH", "EPOCH_UTC", "Comparable", "comparable", "ordered"]

Comparable = Known

_EXACT_AS_FLOAT: Final = 2**53
"""Integers up to this are floats too; PostgreSQL compares a greater one with a float8 after rounding it."""

EPOCH: Final = datetime(1970, 1, 1)
EPOCH_UTC: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_INFINITE_DATES: Final = (date.min, date.max)
_INFINITE_TIMES: Final = tuple((time - EPOCH) // _MICROSECOND for time in (datetime.min, datetime.max))
"""asyncpg sends the first and the last moment that Python knows as -infinity and infinity; psycopg as they are."""


def comparable(value: object, kind: ColumnKind, dialect: str) -> Comparable | None:
    """Return `value` in the domain of `kind` (`dependencies/schema.py`), as the database compares it; None: unsure.

    >>> comparable(True, "integer", "sqlite"), comparable("5", "integer", "sqlite"), comparable("5", "text", "sqlite")
    (1, None, '5')
    >>> comparable("2024-01-31", "numeric", "sqlite"), comparable(" 1e3 ", "numeric", "sqlite")
    ('2024-01-31', None)
    >>> comparable(date(1970, 1, 2), "date", "postgresql"), comparable(date(1970, 1, 2), "timestamp", "postgresql")
    (1, None)
    """
    if dialect == "sqlite":
        return _on_sqlite(value, kind)
    convert = _ON_POSTGRESQL.get(kind)
    return None if convert is None else convert(value)


def ordered(kind: ColumnKind) -> bool:
    """Tell whether `<` on values of `kind` is the database's own order; that of a label is its locale's, or its own."""
    return kind != "label"


def _on_sqlite(value: object, kind: ColumnKind) -> Comparable | None:
    if isinstance(value, str):
        text = _plain(value)
        return text if kind == "text" or (kind == "numeric" and not _looks_numeric(text)) else None
    if isinstance(value, int):
        return int(value) if kind != "text" else None
    if isinstance(value, float) and kind in ("real", "numeric") and math.isfinite(value):
        return float(value)
    return None


def _plain(text: str) -> str:
    """Return a plain str: a subclass, such as a str-based Enum, may hash unlike the text it holds."""
    return str.__str__(text)


def _looks_numeric(text: str) -> bool:
    """Tell whether SQLite might read `text` as a number; `float` accepts all that SQLite does, and more."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _integer(value: object) -> int | None:
    return int(value) if isinstance(value, int) else None


def _real(value: object) -> float | int | None:
    if isinstance(value, int):
        return int(value) if abs(value) <= _EXACT_AS_FLOAT else None
    return float(value) if isinstance(value, float) and math.isfinite(value) else None


def _decimal(value: object) -> Decimal | int | None:
    if isinstance(value, int):
        return int(value)
    return value if type(value) is Decimal and value.is_finite() else None


def _text(value: object) -> str | None:
    return _plain(value) if isinstance(value, str) else None


def _uuid(value: object) -> str | None:
    if isinstance(value, UUID):
        return str(value)
    try:
        return str(UUID(value)) if isinstance(value, str) else None
    except ValueError:
        return None


def _days(value: object) -> int | None:
    if isinstance(value, datetime) or not isinstance(value, date):
        return None
    return None if value in _INFINITE_DATES else value.toordinal() - EPOCH.toordinal()


def _microseconds(value: object) -> int | None:
    if not isinstance(value, datetime) or value.tzinfo is not None:
        return None
    return _finite((value - EPOCH) // _MICROSECOND)


def _microseconds_utc(value: object) -> int | None:
    if not isinstance(value, datetime) or value.utcoffset() is None:
        return None
    return _finite((value - EPOCH_UTC) // _MICROSECOND)


def _finite(microseconds: int) -> int | None:
    return None if microseconds in _INFINITE_TIMES else microseconds


_ON_POSTGRESQL: Final[Mapping[ColumnKind, Callable[[object], Comparable | None]]] = {
    "integer": _integer,
    "real": _real,
    "decimal": _decimal,
    "text": _text,
    "label": _text,
    "uuid": _uuid,
    "date": _days,
    "timestamp": _microseconds,
    "timestamptz": _microseconds_utc,
}
