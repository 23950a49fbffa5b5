"""How the values of a column stand in a cursor, and how they come back to be compared with that column.

INVARIANT (a value from a cursor compares with its own row as equal): or a row would be shown twice, or never. So a
value is taken as the database orders it. SQLite orders what it has stored, whatever SQLAlchemy makes of that: a number,
or a text, in any spelling (`12:00` and `12:00:00.0` are two moments to it). PostgreSQL has types, and a parameter is
bound as the column's own. Types that are not compared as they are ordered are refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    CHAR,
    NCHAR,
    REAL,
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Double,
    Enum,
    Float,
    Integer,
    Numeric,
    String,
    Uuid,
)
from sqlalchemy.dialects.postgresql import CITEXT, ENUM
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine

from reactive_rpc.compat.sqlalchemy import declared_type
from reactive_rpc.pages.cursors import Scalar

__all__ = ["ColumnValues", "values_of"]

_INT64: Final = 2**63
_SINGLE_PRECISION: Final = 24
_MOST_DIGITS: Final = 1_000
"""PostgreSQL takes more in a numeric, but a cursor has no room for them; `1e999999999` would have no end."""


@dataclass(frozen=True, slots=True)
class ColumnValues:
    """The values of one column.

    Attributes:
        kind: names them in a list's key.
        read: the type by which they are read from the database.
        encode: makes of such a value what stands in a cursor.
        decode: the way back; raises a ValueError for what is no value of the column.
        bind: the type by which a decoded value is bound.
    """

    kind: str
    read: TypeEngine[Any]
    encode: Callable[[Any], Scalar]
    decode: Callable[[Any], Any]
    bind: Callable[[Any], TypeEngine[Any]]


def values_of(type_: TypeEngine[Any], dialect: Dialect) -> ColumnValues:
    """Return how the values of a column of this type are compared.

    Raises:
        ValueError: they are not compared as they are ordered; the message says so of the type.
    """
    declared = declared_type(type_, dialect)
    kind = _kind_of(declared)
    if dialect.name == "sqlite":
        return _STORED_NUMBERS if kind in _NUMBERS else _STORED_TEXTS
    if kind == "enum" and isinstance(declared, Enum):
        return _labels_of(declared)
    if kind == "moment":
        return _MOMENTS_WITH_OFFSET if declared.timezone else _MOMENTS
    return _TYPED[kind]


def _kind_of(declared: Any) -> str:
    """Return the kind of a type, alike for all databases: what one of them would refuse is refused by all."""
    if isinstance(declared, REAL) or (
        isinstance(declared, Float) and 1 <= (declared.precision or 53) <= _SINGLE_PRECISION
    ):
        raise ValueError(f"{declared!r} is of single precision, and rounded otherwise as it is read: use Double")
    if isinstance(declared, CHAR | NCHAR):
        raise ValueError(f"{declared!r} is compared without the blanks at its end: use String")
    if isinstance(declared, CITEXT):
        raise ValueError(f"{declared!r} is not compared with other texts as it is ordered: use String with a collation")
    for types, kind in _KINDS:
        if isinstance(declared, types):
            return kind
    raise ValueError(
        f"{declared!r} has no order that a cursor could keep: order by numbers, texts, booleans, dates, moments, "
        "UUIDs or enums"
    )


_KINDS: Final[tuple[tuple[type, str], ...]] = (
    (Boolean, "boolean"),
    (Enum, "enum"),
    (String, "text"),
    (Integer, "integer"),
    (Float, "float"),
    (Numeric, "decimal"),
    (DateTime, "moment"),
    (Date, "date"),
    (Uuid, "uuid"),
)
"""In this order: an Enum is a String too, and in some releases a Float is a Numeric."""

_NUMBERS: Final = frozenset({"boolean", "integer", "float", "decimal"})


# -- what JSON spells


def _integer(value: Any) -> int:
    if type(value) is not int or not -_INT64 <= value < _INT64:
        raise ValueError("an integer of 64 bits is wanted")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a text is wanted")
    value.encode()  # half a character is no text to any database
    return value


def _text_of_postgresql(value: Any) -> str:
    if "\0" in _text(value):
        raise ValueError("PostgreSQL has no texts with NUL")
    return str(value)


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("true or false is wanted")
    return value


def _float_out(value: float) -> Scalar:
    return value if math.isfinite(value) else str(value)


def _float(value: Any) -> float:
    if value not in ("inf", "-inf", "nan") and type(value) not in (int, float):
        raise ValueError("a number is wanted")
    try:
        return float(value)
    except OverflowError as exc:
        raise ValueError("a number of double precision is wanted") from exc


def _stored_number(value: Any) -> float | int:
    """Read a number of SQLite's, which has no NaN: it stores NULL."""
    number = _integer(value) if type(value) is int else _float(value)
    if math.isnan(number):
        raise ValueError("a number is wanted")
    return number


def _decimal(value: Any) -> Decimal:
    try:
        number = Decimal(_text(value))
    except InvalidOperation as exc:
        raise ValueError("a decimal is wanted") from exc
    if number.is_finite() and abs(number.adjusted()) > _MOST_DIGITS:
        raise ValueError("a decimal of fewer digits is wanted")
    return Decimal("NaN") if number.is_nan() else number


def _date(value: Any) -> date:
    return date.fromisoformat(_text(value))


def _moment(value: Any) -> datetime:
    moment = datetime.fromisoformat(_text(value))
    if moment.tzinfo is not None:
        raise ValueError("a moment without an offset is wanted")
    return moment


def _moment_with_offset(value: Any) -> datetime:
    moment = datetime.fromisoformat(_text(value))
    if moment.tzinfo is None:
        raise ValueError("a moment with an offset is wanted")
    try:
        return moment.astimezone(UTC)
    except OverflowError as exc:
        raise ValueError("the moment is out of range") from exc


def _uuid(value: Any) -> UUID:
    return UUID(_text(value))


# -- columns


def _always(type_: TypeEngine[Any]) -> Callable[[Any], TypeEngine[Any]]:
    return lambda _value: type_


def _as_is(value: Any) -> Any:
    return value


def _iso(value: date) -> str:
    return value.isoformat()


def _iso_utc(value: datetime) -> str:
    return value.astimezone(UTC).isoformat()


_STORED_NUMBERS: Final = ColumnValues(
    "number", Double(), _float_out, _stored_number, lambda value: BigInteger() if isinstance(value, int) else Double()
)
_STORED_TEXTS: Final = ColumnValues("text", String(), _as_is, _text, _always(String()))

_MOMENTS: Final = ColumnValues("moment", DateTime(), _iso, _moment, _always(DateTime()))
_MOMENTS_WITH_OFFSET: Final = ColumnValues(
    "moment with offset",
    DateTime(timezone=True),
    _iso_utc,
    _moment_with_offset,
    _always(DateTime(timezone=True)),
)

_TYPED: Final[dict[str, ColumnValues]] = {
    "boolean": ColumnValues("boolean", Boolean(), _as_is, _boolean, _always(Boolean())),
    "integer": ColumnValues("integer", BigInteger(), _as_is, _integer, _always(BigInteger())),
    "float": ColumnValues("float", Double(), _float_out, _float, _always(Double())),
    "decimal": ColumnValues("decimal", Numeric(), str, _decimal, _always(Numeric())),
    "text": ColumnValues("text", String(), _as_is, _text_of_postgresql, _always(String())),
    "enum": ColumnValues("text", String(), _as_is, _text_of_postgresql, _always(String())),
    "date": ColumnValues("date", Date(), _iso, _date, _always(Date())),
    "uuid": ColumnValues("uuid", Uuid(), str, _uuid, _always(Uuid())),
}


def _labels_of(declared: Enum) -> ColumnValues:
    """Return how labels of an enum are compared; if PostgreSQL knows the enum, it orders them as they were declared."""
    labels = frozenset(declared.enums)

    def label(value: Any) -> str:
        if not isinstance(value, str) or value not in labels:
            raise ValueError("a label of the enum is wanted")
        return value

    own = ENUM(*declared.enums, name=declared.name, schema=declared.schema, create_type=False)
    return ColumnValues("enum", String(), _as_is, label, _always(own if declared.native_enum else String()))
