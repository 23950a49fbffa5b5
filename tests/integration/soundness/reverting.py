"""Batches in which rows are written back to what they were, deleted again, or inserted again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, CursorResult

from .drawing import Write
from .generator import Generator
from .model import TABLES

__all__ = ["RevertingGenerator"]

Rows = Mapping[str, Mapping[int, Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Reversion(Write):
    """A write whose values are as the driver had them, so they pass no type."""

    text: str
    values: tuple[Any, ...]

    def __call__(self, connection: Connection) -> CursorResult[Any]:
        return connection.exec_driver_sql(self.text, self.values)


class RevertingGenerator(Generator):
    """Draws writes of which every second one takes back a part of those before."""

    former: Rows | None = None

    def write(self, rows: Any = None) -> Write:
        """Return a write, or what makes a row be again as it was two writes ago."""
        former, self.former = self.former, rows
        reversions = [] if former is None or rows is None else list(self._reversions(former, rows))
        return self.pick(reversions) if reversions and self.chance(2) else super().write(rows)

    def _reversions(self, former: Rows, rows: Rows) -> list[Reversion]:
        return [
            self._reversion(table, id, old, new)
            for table, was in former.items()
            for id in was.keys() | rows[table].keys()
            if (old := was.get(id)) != (new := rows[table].get(id)) and "data" not in _differing(old, new)
        ]

    def _reversion(self, table: str, id: int, old: Any, new: Any) -> Reversion:
        mark = "?" if self.dialect == "sqlite" else "%s"
        whole = TABLES[table].delete()
        if old is None:
            return Reversion(whole, f"DELETE FROM {table} WHERE id = {mark}", (id,))
        if new is None:
            marks = ", ".join(mark for _ in old)
            return Reversion(whole, f"INSERT INTO {table} ({', '.join(old)}) VALUES ({marks})", tuple(old.values()))
        columns = _differing(old, new)
        assignments = ", ".join(f"{column} = {mark}" for column in columns)
        values = (*(old[column] for column in columns), id)
        return Reversion(whole, f"UPDATE {table} SET {assignments} WHERE id = {mark}", values)


def _differing(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> list[str]:
    if old is None or new is None:
        # An insert binds the value of every column, and no driver takes a JSON value as it gives it.
        return [column for column, value in (old or {}).items() if value is not None]
    return [column for column in old if old[column] != new[column]]
