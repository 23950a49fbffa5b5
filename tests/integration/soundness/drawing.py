"""Random values, rows and writes."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import JSON, Connection, CursorResult, DateTime, Integer, Uuid
from sqlalchemy.dialects import postgresql

from .model import FOREIGN_KEYS, TABLES, VALUES, Dialect

__all__ = ["Drawing", "Write"]


@dataclass(frozen=True, slots=True)
class Write:
    """A statement that writes, and the tables whose rows it may change: its own, and those that cascades reach."""

    statement: Any

    def __call__(self, connection: Connection) -> CursorResult[Any]:
        return connection.execute(self.statement)

    @property
    def tables(self) -> tuple[str, ...]:
        return _REACHED[self.statement.table.name]


_WEIGHTS: Final = (4, 5, 4, 1)
_REACHED: Final = {
    "parents": ("parents", "children", "grandchildren", "specials"),
    "children": ("children", "grandchildren"),
    "grandchildren": ("grandchildren",),
    "specials": ("specials",),
}


@dataclass(slots=True)
class Drawing:
    """Draws from one source of randomness, so that a seed gives the same case again."""

    random: random.Random
    dialect: Dialect = "sqlite"

    def chance(self, one_in: int) -> bool:
        return self.random.randrange(one_in) == 0

    def pick(self, choices: Any) -> Any:
        return self.random.choice(list(choices))

    def table(self) -> str:
        """Return the name of a table."""
        [name] = self.random.choices(tuple(TABLES), _WEIGHTS)
        return name

    def value(self, column: Any) -> Any:
        """Return a value for `column`, never None."""
        kind: Any = next(each for each in VALUES if type(column.type) is each)
        if kind is DateTime and column.name == "at":
            kind = "zoned"
        return self.pick(VALUES[kind])

    def stored(self, column: Any) -> Any:
        """Return a value for `column`, or None."""
        return None if self.chance(5) else self.value(column)

    def row(self, table: Any, keys: Sequence[int] = (0, 1, 2, 3)) -> dict[str, Any]:
        """Return the values of a row but for its id; a foreign key is one of `keys`, or NULL."""
        references = [name for child, name, _ in FOREIGN_KEYS if child == table.name]
        return {
            column.name: self.pick([None, *keys]) if column.name in references else self.stored(column)
            for column in table.c
            if column.name != "id"
        }

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Return `{table: rows}` with the ids 0, 1, ..., parents before children, that break no constraint."""
        found: dict[str, list[dict[str, Any]]] = {}
        keys = range(0)
        for table, least, most in (("parents", 1, 5), ("children", 2, 6), ("grandchildren", 1, 5)):
            numbers = range(self.random.randint(least, most))
            found[table] = [{"id": number, **self.row(TABLES[table], keys)} for number in numbers]
            keys = numbers
        parents = found["parents"]
        for row, badge in zip(parents, self.random.sample(VALUES[Uuid], len(parents)), strict=True):
            row["badge"] = badge
        found["specials"] = [{"id": row["id"], **self.row(TABLES["specials"])} for row in parents if self.chance(2)]
        return found

    def write(self, rows: Mapping[str, Iterable[int]] | None = None) -> Write:
        """Return one write, of the shapes that change rows in different ways.

        Args:
            rows: `{table: ids}`, which it mostly meets; without them it may find nothing.
        """
        table = TABLES[self.table()]
        shape = self.random.randrange(12)
        identity = self.random.randrange(5) + (10 if self.chance(6) else 0)
        if rows is not None and not self.chance(6):
            identity = self.pick([*rows[table.name], identity])
        if shape <= 2:
            return self._insert(table, {"id": identity, **self.row(table)}, replacing=shape == 1)
        if shape == 3:
            return Write(table.delete().where(table.c.id == identity))
        if shape == 4:
            return Write(table.update().where(table.c.id == identity).values(id=(identity + 10) % 20))
        return self._update(table, identity, shape)

    def _update(self, table: Any, identity: int, shape: int) -> Write:
        columns = [column for column in table.c if column.name != "id"]
        # Integers are what joins and most conditions rest on.
        columns += [column for column in columns if type(column.type) is Integer] * 2
        column = self.pick([each for each in columns if not isinstance(each.type, JSON)])
        where = table.c.id == identity
        if shape == 5:
            where = column == self.stored(column)
        elif shape == 6:
            return Write(table.delete().where(column == self.value(column), table.c.id > 1))
        elif shape == 7 and type(column.type) is Integer:
            return Write(table.update().where(where).values({column.name: (column + 1) % 4}))
        row = self.row(table)
        changes = {each.name: row[each.name] for each in self.random.sample(columns, self.pick([1, 1, 2]))}
        return Write(table.update().where(where).values(changes))

    def _insert(self, table: Any, row: dict[str, Any], *, replacing: bool) -> Write:
        if self.dialect == "sqlite":
            return Write(table.insert().prefix_with("OR REPLACE" if replacing else "OR IGNORE").values(row))
        insert = postgresql.insert(table).values(row)
        if not replacing:
            return Write(insert.on_conflict_do_nothing())
        return Write(insert.on_conflict_do_update(index_elements=["id"], set_=row))
