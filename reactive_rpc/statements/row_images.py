"""Images as an application knows them: stored values through the types of its own tables.

An image holds the values that the database compares: a UUID as text, an enum as its name, a date as a number. A
predicate of `invalidate_when` compares these with values of its input, so it must get the ORM's values. That takes two
steps: from the column's kind to the driver's value, and from there through the column's type, as a SELECT's result
goes. A value that a type cannot read counts as not known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date, timedelta
from functools import cache, lru_cache
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Table, make_url
from sqlalchemy.dialects.postgresql.asyncpg import dialect as PostgreSQLDialect
from sqlalchemy.engine import Dialect
from sqlalchemy.types import Boolean

from reactive_rpc.dependencies.captured import CapturedKeys, CapturedRow
from reactive_rpc.dependencies.change import UNKNOWN, Change, Image, Unknown
from reactive_rpc.dependencies.schema import ColumnKind, Schema
from reactive_rpc.statements.comparable_values import EPOCH, EPOCH_UTC

__all__ = ["as_known"]

Processor = Callable[[Any], Any]

_ANSWERED: Final[Mapping[ColumnKind, Processor]] = {
    "uuid": UUID,
    "date": lambda days: date.fromordinal(EPOCH.toordinal() + days),
    "timestamp": lambda microseconds: EPOCH + timedelta(microseconds=microseconds),
    "timestamptz": lambda microseconds: EPOCH_UTC + timedelta(microseconds=microseconds),
}
"""`{kind: the driver's value for one of an image}`; the other kinds are answered as they are."""

_TYPE_NUMBERS: Final[Mapping[ColumnKind, int]] = {"integer": 20, "real": 701, "decimal": 1700}
"""PostgreSQL's numbers of the types that its drivers answer for these kinds; a Numeric asks for them."""


@cache
def _dialect_of(name: str) -> Dialect:
    """Return the dialect whose types read what is stored; of PostgreSQL's, one of those that answer as our drivers."""
    make: Callable[[], Dialect] = PostgreSQLDialect if name == "postgresql" else make_url(f"{name}://").get_dialect()
    return make()


def as_known(change: Change, table: Table | None, schema: Schema, dialect: str) -> Change:
    """Return the change as a predicate may see it.

    Args:
        change: as it was captured.
        table: tells the types; None if the application has none, then values are the driver's.
        schema: tells the kinds.
        dialect: the database's name in SQLAlchemy.
    """
    names = [name for image in (change.before, change.after) for name in image or ()]
    kinds: dict[str, ColumnKind | None] = {name: schema.kind(change.table, name) for name in names}
    before, after = (_python(image, table, kinds, dialect) for image in (change.before, change.after))
    keys = set(change.keys)
    for image in (before, after):
        keys.update(image[name] for name in _key_columns(table) if image is not None and name in image)
    return replace(
        change,
        before=None if before is None else CapturedRow(before),
        after=None if after is None else CapturedRow(after),
        keys=CapturedKeys(keys - {None}),
    )


def _python(
    image: Image | None, table: Table | None, kinds: Mapping[str, ColumnKind | None], dialect: str
) -> dict[str, Any] | None:
    if image is None:
        return None
    return {name: _process(_processor(table, name, kinds[name], dialect), value) for name, value in image.items()}


def _process(processor: Processor, value: Any) -> Any:
    if value is None or isinstance(value, Unknown):
        return value
    try:
        return processor(value)
    except Exception:  # whatever a type makes of a value it did not write: it is not known
        return UNKNOWN


@lru_cache(maxsize=10_000)
def _processor(table: Table | None, name: str, kind: ColumnKind | None, dialect: str) -> Processor:
    """Return the processor from a column's value in an image to the ORM's."""
    answered = _ANSWERED.get(kind, _as_it_is) if kind is not None else _as_it_is
    column = None if table is None else next((each for each in table.columns if each.name == name), None)
    if column is None:
        return answered
    made = _dialect_of(dialect)
    type_ = column.type.dialect_impl(made)
    # Where the database knows booleans the type leaves them alone; in an image they are numbers.
    untouched: Processor = bool if isinstance(type_, Boolean) else _as_it_is
    result = type_.result_processor(made, None if kind is None else _TYPE_NUMBERS.get(kind)) or untouched
    return lambda value: result(answered(value))


def _as_it_is(value: Any) -> Any:
    return value


@cache
def _key_columns(table: Table | None) -> tuple[str, ...]:
    if table is None:
        return ()
    return tuple(column.name for column in table.columns if column.primary_key or column.foreign_keys)
