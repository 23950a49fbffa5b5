"""Which values compare with a column's stored values the way the database does."""

from __future__ import annotations

import enum
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import ARRAY, CHAR, Boolean, Date, DateTime, Float, Integer, Numeric, String, Uuid
from sqlalchemy.dialects.postgresql import asyncpg, psycopg
from sqlalchemy.engine import Dialect

from reactive_rpc.dependencies.schema import ColumnKind
from reactive_rpc.statements.casts import kept_by_cast
from reactive_rpc.statements.comparable_values import comparable, ordered


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
def test_only_values_that_stay_what_they_are(value: object, kind: ColumnKind, expected: object) -> None:
    """A value that SQLite may convert before it compares is not comparable."""
    found = comparable(value, kind, "sqlite")
    assert found == expected
    assert type(found) in (int, float, str, type(None))


UTC_NOON = datetime(2024, 1, 31, 12, tzinfo=UTC)
NOON = datetime(2024, 1, 31, 12)
ASYNCPG: Any = asyncpg.dialect
PSYCOPG: Any = psycopg.dialect
TOKEN = "0f8fad5b-d9cb-469f-a165-70867728950e"


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (5, "integer", 5),
        (True, "integer", 1),
        (5.0, "integer", None),
        (Decimal(5), "integer", None),
        (1.5, "real", 1.5),
        (2**53, "real", 2**53),
        (2**53 + 1, "real", None),
        (float("nan"), "real", None),
        (Decimal("1.50"), "decimal", Decimal("1.5")),
        (10**30, "decimal", 10**30),
        (1.5, "decimal", None),
        (Decimal("NaN"), "decimal", None),
        (Decimal("Infinity"), "decimal", None),
        ("5", "text", "5"),
        (Level.low, "label", "low"),
        (5, "text", None),
        (UUID(TOKEN), "uuid", TOKEN),
        (TOKEN.upper().replace("-", ""), "uuid", TOKEN),
        ("nonsense", "uuid", None),
        (date(1970, 1, 2), "date", 1),
        (date(1969, 12, 31), "date", -1),
        (date.max, "date", None),
        (date.min, "date", None),
        (date(1, 1, 2), "date", -719_161),
        (datetime.max, "timestamp", None),
        (datetime.min, "timestamp", None),
        (datetime.max.replace(tzinfo=UTC), "timestamptz", None),
        (NOON, "date", None),
        (NOON, "timestamp", 1_706_702_400_000_000),
        (UTC_NOON, "timestamp", None),
        (date(2024, 1, 31), "timestamp", None),
        (UTC_NOON, "timestamptz", 1_706_702_400_000_000),
        (UTC_NOON.astimezone(timezone(timedelta(hours=5))), "timestamptz", 1_706_702_400_000_000),
        (NOON, "timestamptz", None),
        (5, "numeric", None),
    ],
)
def test_what_postgresql_compares_exactly(value: object, kind: ColumnKind, expected: object) -> None:
    """A value that PostgreSQL may convert before it compares is not comparable; the others are in the kind's domain."""
    found = comparable(value, kind, "postgresql")
    assert found == expected
    assert type(found) in (int, float, Decimal, str, type(None))


def test_the_order_of_labels_is_their_own() -> None:
    """Texts under a locale, and enums, sort otherwise than Python does."""
    assert ordered("text")
    assert ordered("timestamptz")
    assert not ordered("label")


@pytest.mark.parametrize("dialect", [ASYNCPG(), PSYCOPG()], ids=["asyncpg", "psycopg"])
@pytest.mark.parametrize(
    ("value", "type_", "kept"),
    [
        ("x", String(), True),
        ("x", String(1), True),
        ("xy", String(1, collation="C"), True),
        ("x", String(collation="de-x-icu"), False),
        (5, String(), False),
        (5, Integer(), True),
        (1.5, Integer(), False),
        (1.5, Float(), True),
        (Decimal("9.99"), Numeric(10, 2), True),
        (5, Numeric(10, 2), True),
        (date(2024, 1, 31), Date(), True),
        (NOON, Date(), False),
        (NOON, DateTime(), True),
        (NOON, DateTime(timezone=True), False),
        (UTC_NOON, DateTime(timezone=True), True),
        (UTC_NOON, DateTime(), False),
        (UUID(TOKEN), Uuid(), True),
        ([1], ARRAY(Integer), False),
        (None, ARRAY(Integer), True),
    ],
)
def test_only_casts_that_change_nothing(value: object, type_: Any, kept: bool, dialect: Dialect) -> None:
    """A value that the cast around its parameter may change is not what the column is compared with."""
    assert kept_by_cast(value, type_, dialect) is kept


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        (Decimal("9.999"), Numeric(10, 2)),
        (Decimal("9.5"), Numeric(10)),
        (1.5, Numeric()),
        (0.1, Float(24)),
        (2**53 + 1, Float()),
        ("xy", CHAR()),
        (5, Boolean()),
    ],
)
def test_casts_that_only_asyncpg_is_sent(value: object, type_: Any) -> None:
    """SQLAlchemy casts more for asyncpg; what such a cast may round or cut off says nothing."""
    assert not kept_by_cast(value, type_, ASYNCPG())
