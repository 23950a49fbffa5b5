"""Predicates see stored values as a SELECT would give them, on each database in its own way."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Boolean, Column, Date, DateTime, Integer, MetaData, Numeric, Table

from reactive_rpc.changes.captured_schema import CaptureState, TableCapture
from reactive_rpc.dependencies.change import Change, Value
from reactive_rpc.dependencies.schema import ColumnKind
from reactive_rpc.statements.row_images import as_known

TASK = Table(
    "task",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("is_done", Boolean),
    Column("due", Date),
    Column("at", DateTime),
    Column("cost", Numeric(10, 2)),
)
DAY, MOMENT = date(2027, 1, 15), datetime(2027, 1, 15, 12, 30)
STORED: dict[str, tuple[Mapping[str, ColumnKind | None], Mapping[str, Value]]] = {
    "sqlite": (
        {"is_done": "integer", "due": "numeric", "at": "numeric", "cost": "numeric"},
        {"is_done": 1, "due": "2027-01-15", "at": "2027-01-15 12:30:00.000000", "cost": 9.5},
    ),
    **{
        name: (
            {"is_done": "integer", "due": "date", "at": "timestamp", "cost": "decimal"},
            {"is_done": 1, "due": 20_833, "at": 20_833 * 86_400_000_000 + 45_000_000_000, "cost": Decimal("9.50")},
        )
        for name in ("postgresql", "mysql", "mssql")
    },
}


@pytest.mark.parametrize("dialect", STORED)
def test_a_predicate_sees_what_a_select_would_give(dialect: str) -> None:
    """By the types of the dialect itself: none is read by the types of another."""
    kinds, image = STORED[dialect]
    columns = tuple(column.name for column in TASK.columns)
    captured = TableCapture(
        name="task",
        columns=columns,
        image=columns,
        kinds=kinds,
        key_columns=("id",),
        foreign_keys=(),
        captured=True,
    )
    state = CaptureState(epoch="e", schema_fingerprint=1, tables={"task": captured})
    found: Any = as_known(Change(table="task", operation="insert", after=image), TASK, state, dialect).after
    assert {name: found[name] for name in image} == {
        "is_done": True,
        "due": DAY,
        "at": MOMENT,
        "cost": Decimal("9.50"),
    }
    assert type(found["is_done"]) is bool
