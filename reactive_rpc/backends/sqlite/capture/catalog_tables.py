"""Read a SQLite database's tables for session capture, by the rules of the triggers."""

from __future__ import annotations

import re
import sqlite3
from typing import Final, cast

from sqlalchemy import Connection

from reactive_rpc.backends.sqlite.capture.tables import PREFIX, read_tables
from reactive_rpc.changes.catalog_tables import Cascade, CatalogTables, cascades

__all__ = ["catalog_tables_on_sqlite"]

_CASCADES: Final = (
    'SELECT m.name, p.name, f."from", f.on_delete, f.on_update FROM sqlite_schema AS m,'
    " pragma_foreign_key_list(m.name, 'main') AS f JOIN sqlite_schema AS p ON p.name = f.\"table\" COLLATE NOCASE"
    " WHERE m.type = 'table' AND p.type = 'table'"
)
_WHOLE_REPLACE: Final = re.compile(r"\bON\s+CONFLICT\s+REPLACE\b", re.I)


def catalog_tables_on_sqlite(on: Connection) -> CatalogTables:
    """Return the tables of the database that `on` leads to."""
    connection = cast("sqlite3.Connection", on.connection.driver_connection)  # of a synchronous engine
    tables = {table.name: table for table in read_tables(connection)}
    rows = connection.execute(_CASCADES).fetchall()
    actions = (Cascade(parent, child, cascades(delete), cascades(update)) for child, parent, _, delete, update in rows)
    triggered = connection.execute(
        "SELECT tbl_name FROM sqlite_schema WHERE type = 'trigger' AND substr(name, 1, ?) <> ?", (len(PREFIX), PREFIX)
    )
    texts = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'")
    spelled = {name.lower(): name for name in tables}
    rewritten: set[str] = {spelled.get(str(name).lower(), str(name)) for (name,) in triggered}
    rewritten |= {name for name, sql in texts if _WHOLE_REPLACE.search(sql or "")}
    return CatalogTables(
        tables={name: table.capture for name, table in tables.items()},
        names={f"main.{name}": name for name in tables},
        actions=tuple(action for action in actions if action.on_delete or action.on_update),
        rewritten=frozenset(rewritten),
        unset={
            name: frozenset(column.name for column in table.columns if column.is_generated)
            for name, table in tables.items()
        },
    )
