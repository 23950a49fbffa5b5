"""Read a PostgreSQL database's tables for session capture, by the rules of the triggers."""

from __future__ import annotations

from typing import Any, Final, cast

import psycopg
from sqlalchemy import Connection

from reactive_rpc.backends.postgresql.capture.meaning import read_redefined
from reactive_rpc.backends.postgresql.capture.tables import read_catalog, read_visible
from reactive_rpc.changes.catalog_tables import Cascade, CatalogTables
from reactive_rpc.changes.image_policy import EVERY_TABLE

__all__ = ["catalog_tables_on_postgresql"]

_CASCADES: Final = """
SELECT confrelid::bigint, conrelid::bigint, confdeltype NOT IN ('a', 'r'), confupdtype NOT IN ('a', 'r')
FROM pg_catalog.pg_constraint
WHERE contype = 'f' AND (confdeltype NOT IN ('a', 'r') OR confupdtype NOT IN ('a', 'r'))
"""
_REWRITTEN: Final = """
SELECT t.tgrelid::bigint FROM pg_catalog.pg_trigger AS t
JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
WHERE NOT t.tgisinternal AND n.nspname <> 'reactive_rpc'
UNION SELECT ev_class::bigint FROM pg_catalog.pg_rewrite WHERE rulename <> '_RETURN'
"""
_ROW_SECURITY: Final = "SELECT oid::bigint FROM pg_catalog.pg_class WHERE relrowsecurity"


def catalog_tables_on_postgresql(on: Connection) -> CatalogTables:
    """Return the tables of the database that `on` leads to, by psycopg."""
    connection = cast("psycopg.Connection[Any]", on.connection.driver_connection)
    visible = read_visible(connection)
    secured = connection.execute(_ROW_SECURITY).fetchall()
    insecure = {oid: "its row-level security may depend on the session" for (oid,) in secured}
    catalog = read_catalog(connection, insecure, visible, EVERY_TABLE, strangers=frozenset())  # no table is looked into
    named = catalog.by_oid
    actions = [
        Cascade(named[parent], named[child], on_delete, on_update)
        for parent, child, on_delete, on_update in connection.execute(_CASCADES)
        if parent in named and child in named
    ]
    rewritten = {named[oid] for (oid,) in connection.execute(_REWRITTEN) if oid in named}
    # A statement on a table of old-style inheritance writes its children's rows too.
    rewritten |= {table.name for table in catalog.tables if table.ancestors or table.descendants}
    redefined = read_redefined(connection)
    connection.execute("RESET search_path")
    return CatalogTables(
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
