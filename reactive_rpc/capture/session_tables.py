"""Read a database's tables for session capture: no trigger, no outbox, no DDL.

SQLite and PostgreSQL are read by the rules of their triggers. Elsewhere SQLAlchemy's inspector tells, and a column
compares exactly only where that is sure on every database: whole numbers. Text has collations and padding, which
SQLAlchemy does not reflect.

What a write does beyond the rows that it names is read too: foreign keys with actions, triggers, generated columns.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from sqlalchemy import Connection, Inspector, inspect
from sqlalchemy.types import Boolean, Integer

from reactive_rpc.capture.policy import EVERY_TABLE
from reactive_rpc.capture.postgresql_meaning import read_redefined
from reactive_rpc.capture.postgresql_tables import read_catalog, read_visible
from reactive_rpc.capture.schema import TableCapture
from reactive_rpc.capture.sqlite_tables import PREFIX, read_tables
from reactive_rpc.reactive.schema import Kind

__all__ = ["Action", "Tables", "read"]

_SQLITE_ACTIONS: Final = (
    'SELECT m.name, p.name, f."from", f.on_delete, f.on_update FROM sqlite_schema AS m,'
    " pragma_foreign_key_list(m.name, 'main') AS f JOIN sqlite_schema AS p ON p.name = f.\"table\" COLLATE NOCASE"
    " WHERE m.type = 'table' AND p.type = 'table'"
)
_TRIGGERED: Final = (
    "SELECT DISTINCT event_object_table FROM information_schema.triggers WHERE trigger_schema = database()"
)
"""On MySQL and MariaDB."""

_POSTGRESQL_ACTIONS: Final = """
SELECT confrelid::bigint, conrelid::bigint, confdeltype NOT IN ('a', 'r'), confupdtype NOT IN ('a', 'r')
FROM pg_catalog.pg_constraint
WHERE contype = 'f' AND (confdeltype NOT IN ('a', 'r') OR confupdtype NOT IN ('a', 'r'))
"""
_POSTGRESQL_REWRITTEN: Final = """
SELECT t.tgrelid::bigint FROM pg_catalog.pg_trigger AS t
JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
WHERE NOT t.tgisinternal AND n.nspname <> 'reactive_rpc'
UNION SELECT ev_class::bigint FROM pg_catalog.pg_rewrite WHERE rulename <> '_RETURN'
"""
_ROW_SECURITY: Final = "SELECT oid::bigint FROM pg_catalog.pg_class WHERE relrowsecurity"
_WHOLE_REPLACE: Final = re.compile(r"\bON\s+CONFLICT\s+REPLACE\b", re.I)


@dataclass(frozen=True, slots=True)
class Action:
    """A foreign key that writes: a change of a `parent` row may change rows of `child`."""

    parent: str
    child: str
    on_delete: bool
    on_update: bool


@dataclass(frozen=True, slots=True)
class Tables:
    """What was read.

    Attributes:
        tables: `{table: how it compares}`.
        names: `{another spelling: table}`.
        actions: the foreign keys that write.
        rewritten: the tables on which a trigger, a rule or a conflict clause may write more than was asked for;
            None where that cannot be told.
        unset: `{table: columns}` that an UPDATE may change without setting them; None where that cannot be told.
        redefined: see `CaptureState.redefines`.
    """

    tables: Mapping[str, TableCapture]
    names: Mapping[str, str]
    actions: tuple[Action, ...]
    rewritten: frozenset[str] | None
    unset: Mapping[str, frozenset[str]] | None
    redefined: frozenset[str] = frozenset()


def read(connection: Connection) -> Tables:
    """Return the tables of the database that `connection` is on."""
    if connection.dialect.name == "sqlite":
        return _sqlite(connection.connection.driver_connection)  # type: ignore[arg-type]  # of a synchronous engine
    if connection.dialect.name == "postgresql":
        return _postgresql(connection.connection.driver_connection)  # type: ignore[arg-type]  # capture's engine is psycopg's
    return _inspected(connection, inspect(connection))


def _sqlite(connection: sqlite3.Connection) -> Tables:
    tables = {table.name: table for table in read_tables(connection)}
    rows = connection.execute(_SQLITE_ACTIONS).fetchall()
    actions = (Action(parent, child, _acts(delete), _acts(update)) for child, parent, _, delete, update in rows)
    triggered = connection.execute(
        "SELECT tbl_name FROM sqlite_schema WHERE type = 'trigger' AND substr(name, 1, ?) <> ?", (len(PREFIX), PREFIX)
    )
    texts = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'")
    spelled = {name.lower(): name for name in tables}
    rewritten: set[str] = {spelled.get(str(name).lower(), str(name)) for (name,) in triggered}
    rewritten |= {name for name, sql in texts if _WHOLE_REPLACE.search(sql or "")}
    return Tables(
        tables={name: table.capture for name, table in tables.items()},
        names={f"main.{name}": name for name in tables},
        actions=tuple(action for action in actions if action.on_delete or action.on_update),
        rewritten=frozenset(rewritten),
        unset={
            name: frozenset(column.name for column in table.columns if column.is_generated)
            for name, table in tables.items()
        },
    )


def _acts(action: str | None) -> bool:
    return (action or "NO ACTION").upper() not in ("NO ACTION", "RESTRICT")


def _postgresql(connection: psycopg.Connection[Any]) -> Tables:
    visible = read_visible(connection)
    secured = connection.execute(_ROW_SECURITY).fetchall()
    insecure = {oid: "its row-level security may depend on the session" for (oid,) in secured}
    catalog = read_catalog(connection, insecure, visible, EVERY_TABLE)
    named = catalog.by_oid
    actions = [
        Action(named[parent], named[child], on_delete, on_update)
        for parent, child, on_delete, on_update in connection.execute(_POSTGRESQL_ACTIONS)
        if parent in named and child in named
    ]
    rewritten = {named[oid] for (oid,) in connection.execute(_POSTGRESQL_REWRITTEN) if oid in named}
    # A statement on a table of old-style inheritance writes its children's rows too.
    rewritten |= {table.name for table in catalog.tables if table.ancestors or table.descendants}
    redefined = read_redefined(connection)
    connection.execute("RESET search_path")
    return Tables(
        tables={table.name: table.capture for table in catalog.tables},
        names=catalog.names,
        actions=tuple(dict.fromkeys(actions)),
        rewritten=frozenset(rewritten),
        unset={
            table.name: frozenset(column.name for column in table.columns if column.generated)
            for table in catalog.tables
        },
        redefined=redefined,
    )


def _inspected(connection: Connection, inspector: Inspector) -> Tables:
    default = inspector.default_schema_name
    columns = {name: found for (_, name), found in inspector.get_multi_columns().items()}
    keys = {name: found for (_, name), found in inspector.get_multi_foreign_keys().items()}
    primary = {name: found for (_, name), found in inspector.get_multi_pk_constraint().items()}
    tables = {name: _table(name, found, primary.get(name), keys.get(name, [])) for name, found in columns.items()}
    actions = [
        Action(key["referred_table"], child, _acts(options.get("ondelete")), _acts(options.get("onupdate")))
        for child, found in keys.items()
        for key in found
        for options in [key.get("options", {})]
    ]
    can_tell = connection.dialect.name in ("mysql", "mariadb")
    return Tables(
        tables=tables,
        names={f"{default}.{name}": name for name in tables},
        actions=tuple(action for action in actions if action.on_delete or action.on_update),
        rewritten=frozenset(connection.exec_driver_sql(_TRIGGERED).scalars()) if can_tell else None,
        unset=None,
    )


def _table(name: str, columns: list[Any], primary: Any, foreign_keys: list[Any]) -> TableCapture:
    kinds: dict[str, Kind | None] = {column["name"]: _kind(column) for column in columns}
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
        key_columns=tuple(dict.fromkeys([*keys, *(column for column, _, _ in references)])),
        primary_key=keys,
        foreign_keys=references,
        unique=frozenset(keys) if len(keys) == 1 else frozenset(),
        captured=True,
    )


def _kind(column: Any) -> Kind | None:
    is_whole = isinstance(column["type"], Integer) and not isinstance(column["type"], Boolean)
    return "integer" if is_whole and not column.get("computed") else None
