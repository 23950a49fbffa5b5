"""Images as an application knows them: stored values through the types of its own tables.

SQLite stores a UUID as text, an enum as its name and a boolean as a number. A predicate of `invalidate_when` compares
what it gets with values of its input, so it must get what the ORM would give it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects.sqlite import dialect as SQLiteDialect  # a class, exported in lower case

from reactive_rpc.reactive.change import UNKNOWN, Change, Image, Unknown
from reactive_rpc.reactive.known import KnownImage, KnownKeys

__all__ = ["as_known"]

Processor = Callable[[Any], Any]


def as_known(change: Change, table: Table | None) -> Change:
    """Return the change as a predicate may see it; as it is stored where there is no `table` to tell the types."""
    before, after = _python(change.before, table), _python(change.after, table)
    keys = set(change.keys)
    for image in (before, after):
        keys.update(image[name] for name in _key_columns(table) if image is not None and name in image)
    return replace(
        change,
        before=None if before is None else KnownImage(before),
        after=None if after is None else KnownImage(after),
        keys=KnownKeys(keys - {None}),
    )


def _python(image: Image | None, table: Table | None) -> dict[str, Any] | None:
    if image is None:
        return None
    processors = {} if table is None else _processors(table)
    return {column: _process(processors.get(column), value) for column, value in image.items()}


def _process(processor: Processor | None, value: Any) -> Any:
    if processor is None or value is None or isinstance(value, Unknown):
        return value
    try:
        return processor(value)
    except Exception:  # whatever a type makes of a value it did not write: it is not known
        return UNKNOWN


@cache
def _processors(table: Table) -> dict[str, Processor]:
    dialect = SQLiteDialect()
    found = {column.name: column.type.dialect_impl(dialect).result_processor(dialect, None) for column in table.columns}
    return {name: processor for name, processor in found.items() if processor is not None}


@cache
def _key_columns(table: Table | None) -> tuple[str, ...]:
    if table is None:
        return ()
    return tuple(column.name for column in table.columns if column.primary_key or column.foreign_keys)
