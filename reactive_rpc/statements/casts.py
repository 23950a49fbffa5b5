"""Which casts around a bound parameter leave its value as it is.

On PostgreSQL SQLAlchemy renders a cast around most parameters (`$1::NUMERIC(10, 2)`), to the parameter's type, which
need not be the column's. The column is compared with the cast's result: NUMERIC(10, 2) rounds
it, CHAR cuts it off, DATE drops the time, a collation changes the order, and TIMESTAMP WITH TIME ZONE puts a time zone
to a time that has none. A value that its cast may change says nothing of the column.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from sqlalchemy.engine import Dialect
from sqlalchemy.engine.interfaces import BindTyping
from sqlalchemy.types import Enum, TypeEngine

from reactive_rpc.compat.sqlalchemy import unwrapped_type

__all__ = ["kept_by_cast"]

_NUMERIC: Final = re.compile(r"NUMERIC(?:\(\d+(?:, (?P<scale>\d+))?\))?")
_EXACT_AS_FLOAT: Final = 2**53
_ENUM: Final = "an enum"
"""Stands for the name of any enum."""


def kept_by_cast(value: object, type_: TypeEngine[Any], dialect: Dialect) -> bool:
    """Tell whether the cast that `dialect` renders around a parameter of `type_` surely leaves `value` as it is.

    >>> from sqlalchemy.dialects.postgresql.asyncpg import dialect
    >>> from sqlalchemy import Numeric
    >>> price = Numeric(10, 2)
    >>> kept_by_cast(Decimal("9.90"), price, dialect()), kept_by_cast(Decimal("9.999"), price, dialect())
    (True, False)
    """
    cast = None if value is None else _cast(type_, dialect)
    if cast is None:
        return True
    numeric = _NUMERIC.fullmatch(cast)
    if numeric is not None:
        return _keeps_digits(value, None if cast == "NUMERIC" else int(numeric["scale"] or 0))
    keeps = _KEEPS.get(cast)
    return keeps is not None and keeps(value)


@lru_cache(maxsize=1024)
def _cast(type_: TypeEngine[Any], dialect: Dialect) -> str | None:
    """Return the type that a parameter is cast to, as it is rendered; None if there is no cast."""
    rendered = unwrapped_type(type_, dialect)
    if not (dialect.bind_typing is BindTyping.RENDER_CASTS and rendered.render_bind_cast):
        return None
    compiler: Any = dialect.statement_compiler(dialect, None)
    text = str(compiler.render_bind_cast(type_, rendered, "")).removeprefix("::")
    # Under C, texts are equal where they are in any deterministic collation, and ordered as in a column of kind "text".
    text = text.removesuffix(' COLLATE "C"')
    return _ENUM if isinstance(rendered, Enum) and rendered.native_enum else text


def _keeps_digits(value: object, scale: int | None) -> bool:
    if isinstance(value, int):
        return True
    if not isinstance(value, Decimal) or not value.is_finite():
        return False
    exponent = value.as_tuple().exponent
    return scale is None or (isinstance(exponent, int) and -exponent <= scale)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_integer(value: object) -> bool:
    return isinstance(value, int)


def _is_float(value: object) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and abs(value) <= _EXACT_AS_FLOAT)


_KEEPS: Final[dict[str, Callable[[object], bool]]] = {
    _ENUM: _is_text,
    "VARCHAR": _is_text,
    "TEXT": _is_text,
    "SMALLINT": _is_integer,
    "INTEGER": _is_integer,
    "BIGINT": _is_integer,
    "FLOAT": _is_float,
    "DOUBLE PRECISION": _is_float,
    "BOOLEAN": lambda value: isinstance(value, bool),
    "UUID": lambda value: isinstance(value, str | UUID),
    "DATE": lambda value: isinstance(value, date) and not isinstance(value, datetime),
    "TIMESTAMP WITHOUT TIME ZONE": lambda value: isinstance(value, datetime) and value.tzinfo is None,
    "TIMESTAMP WITH TIME ZONE": lambda value: isinstance(value, datetime) and value.tzinfo is not None,
}
"""`{cast: whether it keeps a value}`; any other cast may do anything."""
