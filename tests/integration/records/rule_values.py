"""Values of every kind, chosen to meet one another and to be mistaken; how JSON and the reference spell them.

The reference stores numbers in place of all but text and UUIDs, so it shares no spelling with any reader.
"""

from __future__ import annotations

import random
import re
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter

from .rule_models import ANNOTATIONS, Color

__all__ = ["as_json", "as_sql", "draw_value"]

_START = datetime(2026, 1, 1)
_MOMENTS = [
    datetime(999, 12, 31, 23, 59, 59),
    _START - timedelta(microseconds=1),
    _START,
    _START + timedelta(milliseconds=5),
    _START + timedelta(microseconds=500_000),
    _START + timedelta(microseconds=500_001),
    _START + timedelta(seconds=1),
]
_VALUES: dict[str, list[Any]] = {
    "text": [
        "",
        " ",
        "a",
        "a ",
        "A",
        "B",
        "ä",
        "a\u0308",
        "z",
        "10",
        "9",
        "'",
        "\ue000",
        "\uff5e",
        "\U0001f600",
        "null",
    ],
    "int": [-(2**63), -1, 0, 1, 2, 10, 2**31, 2**53, 2**53 + 1, 2**63 - 1],
    "bool": [True, False],
    "decimal": [Decimal(text) for text in ("-10.5", "-0.01", "0", "0.1", "0.10", "1", "1E+1", "9", "1234567890123.45")],
    "moment": [moment.replace(tzinfo=UTC) for moment in _MOMENTS],
    "local": _MOMENTS,
    "date": [date(999, 1, 1), date(2025, 12, 31), date(2026, 1, 1), date(2026, 10, 2)],
    "uuid": [UUID(int=1), UUID(int=0xABC), UUID("abcdef00-0000-0000-0000-000000000000")],
    "enum": list(Color),
}
_SMALL = 2**31
_FURTHER: dict[str, list[Any]] = {
    "decimal": [
        Decimal(text) for text in ("0.100001", "0.099999", "1.000", "0.999999", "-0.0", "-10.500001", "9.000001")
    ],
    "moment": [moment.replace(tzinfo=UTC).astimezone(timezone(timedelta(hours=2))) for moment in _MOMENTS[1:]],
}
"""Values of users and rules that no column holds as they are."""


def draw_value(rng: random.Random, kind: str, *, stored: bool, null_share: float = 0.0, small: bool = False) -> Any:
    """Draw a value.

    Args:
        stored: whether a column is to hold it.
        null_share: how often it is None.
        small: whether an integer has 32 bits.
    """
    if rng.random() < null_share:
        return None
    values = _VALUES[kind] if stored else [*_VALUES[kind], *_FURTHER.get(kind, [])]
    return rng.choice([value for value in values if abs(value) < _SMALL] if small else values)


def as_sql(kind: str, value: Any) -> str:
    """Return a value as SQL text of the reference."""
    if value is None:
        return "NULL"
    if kind == "text":
        return "'" + str(value).replace("'", "''") + "'"
    if kind == "uuid":
        return f"'{value.hex}'"
    return str(_number(kind, value))


def _number(kind: str, value: Any) -> int:
    if kind == "decimal":
        return int(value * 10**6)
    if kind in ("moment", "local"):
        since: timedelta = value - datetime(1, 1, 1, tzinfo=value.tzinfo and UTC)
        return since // timedelta(microseconds=1)
    if kind == "date":
        return int(value.toordinal())
    return list(Color).index(value) if kind == "enum" else int(value)


_ADAPTERS = {kind: TypeAdapter(annotation) for kind, annotation in ANNOTATIONS.items()}


def as_json(kind: str, value: Any) -> Any:
    """Return a value as the server sends it; an integer that JavaScript would round, as its digits."""
    if value is None:
        return None
    if kind == "int" and abs(value) >= 2**53:
        return str(value)
    spelled = _ADAPTERS[kind].dump_python(value, mode="json")
    # Some write no zeros at the end of a fraction.
    return re.sub(r"(\.\d*[1-9])0+(?=Z|[+-]|$)", r"\1", spelled) if kind in ("moment", "local") else spelled
