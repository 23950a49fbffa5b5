"""Which values compare with a column's stored values the way the database does."""

from __future__ import annotations

import enum
from datetime import date
from decimal import Decimal

import pytest

from reactive_rpc.reactive.schema import Kind
from reactive_rpc.sql.comparable_values import comparable


class Level(enum.StrEnum):
    """A str that is an Enum."""

    low = "low"


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (5, "integer", 5),
        (True, "integer", 1),
        (5.0, "integer", None),
        ("5", "integer", None),
        ("5", "text", "5"),
        (Level.low, "text", "low"),
        (5, "text", None),
        (b"5", "text", None),
        (1.5, "real", 1.5),
        (float("nan"), "real", None),
        (float("inf"), "numeric", None),
        ("1.5", "numeric", None),
        (" 1e3 ", "numeric", None),
        ("2024-01-02", "numeric", "2024-01-02"),
        ("1.5", "real", None),
        (Decimal(1), "numeric", None),
        (date(2024, 1, 2), "numeric", None),
    ],
)
def test_only_values_that_stay_what_they_are(value: object, kind: Kind, expected: object) -> None:
    """A value that SQLite may convert before it compares is not comparable."""
    found = comparable(value, kind, "sqlite")
    assert found == expected
    assert type(found) in (int, float, str, type(None))


@pytest.mark.parametrize(("value", "kind"), [(1.5, "real"), (1, "numeric"), ("2024-01-02", "numeric")])
def test_other_databases_may_round(value: object, kind: Kind) -> None:
    """Elsewhere than on SQLite only integers and text are exact."""
    assert comparable(value, kind, "postgresql") is None
