"""Read the tables of any database for session capture: no trigger, no outbox, no DDL.

SQLAlchemy's inspector reads them. Only columns of whole numbers compare exactly, as they do on every database.
Text has collations and padding, which SQLAlchemy does not reflect.

It also reads how a write reaches beyond the rows that it names: foreign keys with actions, and triggers.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection, inspect
from sqlalchemy.types import Boolean, Integer, SmallInteger

from reactive_rpc.changes.captured_schema import TableCapture
from reactive_rpc.changes.catalog_tables import Cascade, CatalogTables, cascades
from reactive_rpc.dependencies.schema import ColumnKind

__all__ = ["inspected_tables"]

_TRIGGERED: Final = (
    "SELECT DISTINCT event_object_table FROM information_schema.triggers WHERE trigger_schema = database()"
)
"""On MySQL and MariaDB."""


def inspected_tables(connection: Connection) -> CatalogTables:
    """Return the tables of the database that `connection` is on."""
    inspector = inspect(connection)
    default = inspector.default_schema_name
    columns = {name: found for (_, name), found in inspector.get_multi_columns().items()}
    keys = {name: found for (_, name), found in inspector.get_multi_foreign_keys().items()}
    primary = {name: found for (_, name), found in inspector.get_multi_pk_constraint().items()}
    tables = {name: _table(name, found, primary.get(name), keys.get(name, [])) for name, found in columns.items()}
    actions = [
        Cascade(key["referred_table"], child, cascades(options.get("ondelete")), cascades(options.get("onupdate")))
        for child, found in keys.items()
        for key in found
        for options in [key.get("options", {})]
    ]
    knows_triggers = connection.dialect.name in ("mysql", "mariadb")
    return CatalogTables(
        tables=tables,
        names={f"{default}.{name}": name for name in tables},
        actions=tuple(action for action in actions if action.on_delete or action.on_update),
        rewritten=frozenset(connection.exec_driver_sql(_TRIGGERED).scalars()) if knows_triggers else None,
        unset=None,
    )


def _table(name: str, columns: list[Any], primary: Any, foreign_keys: list[Any]) -> TableCapture:
    kinds: dict[str, ColumnKind | None] = {column["name"]: _kind(column) for column in columns}
    keys = tuple(primary["constrained_columns"]) if primary else ()
    references = tuple(
        (column, key["referred_table"], referred)
        for key in foreign_keys
        for column, referred in zip(key["constrained_columns"], key["referred_columns"], strict=True)
    )
    return TableCapture(
        name=name,
        columns=tuple(kinds),
        image=tuple(column for column, kind in kinds.items() if kind is not None),
        kinds=kinds,
        small=frozenset(column["name"] for column in columns if isinstance(column["type"], SmallInteger)),
        key_columns=tuple(dict.fromkeys([*keys, *(column for column, _, _ in references)])),
        primary_key=keys,
        foreign_keys=references,
        unique=frozenset(keys) if len(keys) == 1 else frozenset(),
        indexed=frozenset(keys[:1]),
        captured=True,
    )


def _kind(column: Any) -> ColumnKind | None:
    is_whole = isinstance(column["type"], Integer) and not isinstance(column["type"], Boolean)
    return "integer" if is_whole and not column.get("computed") else None
