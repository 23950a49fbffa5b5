"""The key of a list: the columns that order it, of which the last ones tell its rows apart.

`(after, until]` becomes a condition that both databases look up in an index on the key's columns, and of which
`statements/predicates.py` makes the same interval: a row beside it invalidates nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, bindparam, inspect, or_, tuple_, type_coerce
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import UnaryExpression
from sqlalchemy.sql.schema import Column

from reactive_rpc.compat.sqlalchemy import annotations_of
from reactive_rpc.errors import DefinitionError
from reactive_rpc.pages.column_values import ColumnValues, values_of
from reactive_rpc.pages.cursors import decode_cursor, encode_cursor
from reactive_rpc.protocol.pages import MAX_CURSOR_CHARACTERS

__all__ = ["Key", "KeyColumn", "key_of"]

_MOST_COLUMNS: Final = 6
"""The analysis makes as many conditions of each end of a page."""


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """One column of a key.

    Attributes:
        column: of the statement's entity.
        descending: whether greater values come first.
        values: how they stand in a cursor.
    """

    column: ColumnElement[Any]
    name: str
    descending: bool
    values: ColumnValues

    @property
    def order(self) -> ColumnElement[Any]:
        """The column as ORDER BY takes it."""
        return self.column.desc() if self.descending else self.column.asc()

    @property
    def read(self) -> ColumnElement[Any]:
        """The column as a statement selects it for a cursor."""
        return type_coerce(self.column, self.values.read)

    def bound(self, value: Any) -> ColumnElement[Any]:
        """Return a value of a cursor as a parameter to be compared with the column."""
        return bindparam(None, value, type_=self.values.bind(value), unique=True)


@dataclass(frozen=True)
class Key:
    """The columns that order a list."""

    table: str
    columns: tuple[KeyColumn, ...]

    @cached_property
    def name(self) -> str:
        """What tells its cursors from those of lists with other keys: a few characters."""
        spelled = [self.table, *((one.name, one.values.kind, one.descending) for one in self.columns)]
        return hashlib.sha256(repr(spelled).encode()).hexdigest()[:8]

    def encode(self, values: Sequence[Any]) -> str:
        """Return the cursor of the row that has these values, in the order of the columns.

        Raises:
            DefinitionError: it would be too long to be sent back, or a value is NULL.
        """
        if None in values:
            raise DefinitionError(f"{self._column_of(None, values)} is NULL in a row, though the table says NOT NULL")
        pairs = zip(self.columns, values, strict=True)
        cursor = encode_cursor(self.name, [one.values.encode(value) for one, value in pairs])
        if len(cursor) > MAX_CURSOR_CHARACTERS:
            longest = max(values, key=lambda value: len(str(value)))
            raise DefinitionError(
                f"{self._column_of(longest, values)} holds a value of {len(str(longest))} characters, which no cursor "
                f"has room for ({MAX_CURSOR_CHARACTERS}): order by a shorter column"
            )
        return cursor

    def decode(self, cursor: str) -> list[Any]:
        """Return the values of a cursor, one for each column.

        Raises:
            ValueError: it is none of this key.
        """
        found = decode_cursor(cursor, self.name, len(self.columns))
        return [_decoded(one, value) for one, value in zip(self.columns, found, strict=True)]

    def beyond(self, values: Sequence[Any]) -> ColumnElement[bool]:
        """Return the condition of the rows that come after the row with these values."""
        return self._compare(values, or_equal=False, backwards=False)

    def up_to(self, values: Sequence[Any]) -> ColumnElement[bool]:
        """Return the condition of the rows that come before the row with these values, and of that row."""
        return self._compare(values, or_equal=True, backwards=True)

    def _compare(self, values: Sequence[Any], *, or_equal: bool, backwards: bool) -> ColumnElement[bool]:
        bounds = [one.bound(value) for one, value in zip(self.columns, values, strict=True)]
        sides = {one.descending != backwards for one in self.columns}
        if len(sides) > 1:
            return self._compare_mixed(bounds, or_equal=or_equal, backwards=backwards)
        compare = _operator(descending=sides.pop(), or_equal=or_equal)
        condition: ColumnElement[bool]
        if len(bounds) == 1:
            condition = compare(self.columns[0].column, bounds[0])
        else:
            condition = compare(tuple_(*(one.column for one in self.columns)), tuple_(*bounds))
        return condition

    def _compare_mixed(
        self, bounds: Sequence[ColumnElement[Any]], *, or_equal: bool, backwards: bool
    ) -> ColumnElement[bool]:
        """Spell an order that no row value has: ascending in one column, descending in another.

        The first column's bound follows from the rest. It is there for the databases, which look up no OR in an index.
        """
        last = len(bounds) - 1
        ways = []
        for place, (one, bound) in enumerate(zip(self.columns, bounds, strict=True)):
            strict = _operator(descending=one.descending != backwards, or_equal=or_equal and place == last)
            before = [other.column == value for other, value in zip(self.columns[:place], bounds, strict=False)]
            ways.append(and_(*before, strict(one.column, bound)))
        first = self.columns[0]
        outer = _operator(descending=first.descending != backwards, or_equal=True)(first.column, bounds[0])
        return and_(outer, or_(*ways))

    def _column_of(self, value: Any, values: Sequence[Any]) -> str:
        return f"{self.table}.{self.columns[list(values).index(value)].name}"


def _decoded(column: KeyColumn, value: Any) -> Any:
    try:
        return column.values.decode(value)
    except ValueError as exc:  # its message may repeat the value, as long as it is
        raise ValueError(f"it holds no value of {column.name}") from exc


def _operator(*, descending: bool, or_equal: bool) -> Any:
    """Return the comparison of what comes later in a column."""
    if descending:
        return operators.le if or_equal else operators.lt
    return operators.ge if or_equal else operators.gt


def key_of(entity: Any, order_by: Sequence[Any], dialect: Dialect) -> Key:
    """Return the key of a list of an entity's rows: the columns given, and those of its primary key that lack.

    Args:
        entity: a mapped class, or an alias of one.
        order_by: attributes of it, as they are, or with `.asc()` or `.desc()`.
        dialect: of the database.

    Raises:
        DefinitionError: a column cannot order pages; the message names it, and says why.
    """
    found = [_key_column(entity, one, dialect) for one in order_by]
    named = {one.name for one in found}
    missing = [each for each in _primary_key(entity) if each.key not in named]
    is_descending = bool(found) and found[-1].descending
    found += [_key_column(entity, each.desc() if is_descending else each, dialect) for each in missing]
    if len(named) + len(missing) != len(found):
        raise DefinitionError(f"order_by of {_spelled(entity)} names a column twice")
    if len(found) > _MOST_COLUMNS:
        raise DefinitionError(f"{len(found)} columns order {_spelled(entity)}: order by at most {_MOST_COLUMNS}")
    return Key(inspect(entity).mapper.local_table.fullname, tuple(found))


def _primary_key(entity: Any) -> Iterator[Any]:
    mapper = inspect(entity).mapper
    for column in mapper.primary_key:
        yield getattr(entity, mapper.get_property_by_column(column).key)


def _key_column(entity: Any, given: Any, dialect: Dialect) -> KeyColumn:
    element, descending = _direction(given)
    what = f"order_by: {element}"
    annotations = annotations_of(element)
    if not isinstance(element, Column) or annotations.get("parententity") is not inspect(entity):
        raise DefinitionError(
            f"{what} is no column of {_spelled(entity)}: a page begins after values that its rows have, so keep what "
            "it is to be ordered by in a column of its own"
        )
    if element.nullable:
        raise DefinitionError(
            f"{what} may be NULL, which SQLite puts first and PostgreSQL last, and which compares with nothing: "
            "make the column NOT NULL, or order by another"
        )
    name = annotations["proxy_key"]
    if _is_hidden(entity, name):
        raise DefinitionError(f"{what} is hidden from clients, who would read it in the cursors: order by another")
    try:
        return KeyColumn(element, name, descending, values_of(element.type, dialect))
    except ValueError as exc:
        raise DefinitionError(f"{what}: {exc}") from exc


def _direction(given: Any) -> tuple[Any, bool]:
    """Return an element of SQL, and whether it is to descend."""
    element = given.__clause_element__() if hasattr(given, "__clause_element__") else given
    if isinstance(element, UnaryExpression) and element.modifier in (operators.desc_op, operators.asc_op):
        return element.element, element.modifier is operators.desc_op
    return element, False


def _is_hidden(entity: Any, name: str) -> bool:
    """Tell whether a model leaves a field out of what it shows."""
    fields = getattr(inspect(entity).mapper.class_, "model_fields", {})
    return name in fields and bool(fields[name].exclude)


def _spelled(entity: Any) -> str:
    return str(inspect(entity).mapper.class_.__name__)
