"""Alembic beside capture: what autogenerate leaves out, and columns that a trigger names.

In `env.py`:

    from reactive_rpc.alembic import include_name, include_object, migrating

    context.configure(connection=connection, ..., include_name=include_name, include_object=include_object)
    with context.begin_transaction(), migrating(connection):
        context.run_migrations()
    install(connection.engine.url, rpc)                  # if the server has Capture(mode="installed")

A server puts its triggers on the new schema before its next answer, and forgets every earlier result (a new epoch).
SQLite refuses to drop a column that a trigger names: within `migrating` a table's triggers go in the transaction that
drops its column; without a transaction one is made around that statement.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from reactive_rpc.extras import needs

with needs("alembic", __name__):
    import alembic as _installed  # noqa: F401  # nothing here uses it; without it, nothing here is of use
    from sqlalchemy import URL, Connection, event

    from reactive_rpc.backends.sqlite.capture.images import quoted
    from reactive_rpc.backends.sqlite.capture.tables import PREFIX

if TYPE_CHECKING:
    from reactive_rpc.app import ReactiveRPC

__all__ = ["include_name", "include_object", "install", "migrating"]

_SCHEMA: Final = "reactive_rpc"
"""Ours on PostgreSQL."""


def include_name(name: str | None, type_: str, parent_names: Mapping[Any, str | None]) -> bool:
    """Keep Alembic from looking at our tables: `context.configure(include_name=include_name)`.

    Beside a filter of your own: `lambda *args: include_name(*args) and mine(*args)`.

    >>> include_name("reactive_rpc", "schema", {}), include_name("_reactive_rpc_outbox", "table", {"schema_name": None})
    (False, False)
    >>> include_name("outbox", "table", {"schema_name": None})
    True
    """
    if type_ == "schema":
        return name != _SCHEMA
    return parent_names.get("schema_name") != _SCHEMA and not (type_ == "table" and _is_ours(name))


def include_object(object: Any, name: str | None, type_: str, reflected: bool, compare_to: Any) -> bool:
    """Keep our tables out of migrations, also where your metadata holds them because it was reflected.

    Given as `context.configure(include_object=include_object)`; beside a filter of your own as `include_name` is.

    >>> from sqlalchemy import MetaData, Table
    >>> include_object(Table("outbox", MetaData(), schema="reactive_rpc"), "outbox", "table", False, None)
    False
    >>> include_object(Table("outbox", MetaData()), "outbox", "table", False, None)
    True
    """
    table = object if type_ == "table" else getattr(object, "table", None)
    return getattr(table, "schema", None) != _SCHEMA and not _is_ours(getattr(table, "name", name))


def _is_ours(table: str | None) -> bool:
    """Tell whether a table of SQLite's is ours: all have names of one kind."""
    return table is not None and table.startswith(PREFIX)


def install(url: str | URL, rpc: ReactiveRPC[Any]) -> None:
    """Put capture in place after the migrations: for a server with `Capture(mode="installed")`, which does not.

    Args:
        url: by which the migrations are run, by somebody who may create triggers; of a connection it is
            `connection.engine.url`.
        rpc: the application's, whose `Capture(exclude=, images=)` holds.

    Raises:
        CaptureError: rights are missing, or a table stays locked.
        ServiceUnavailableError: the database cannot be reached, or stays locked: the migrations must be committed.
    """
    rpc.admin.backend_on(url).capture.install()


@contextmanager
def migrating(connection: Connection) -> Iterator[None]:
    """Let the migrations within drop columns that our triggers name; around `context.run_migrations()`.

    Args:
        connection: that the migrations run on.
    """
    if connection.dialect.name != "sqlite":
        yield
        return
    altering = _Altering()
    event.listen(connection, "before_cursor_execute", altering.begin)
    event.listen(connection, "after_cursor_execute", altering.end)
    try:
        yield
    finally:
        event.remove(connection, "before_cursor_execute", altering.begin)
        event.remove(connection, "after_cursor_execute", altering.end)


_TRIGGERS: Final = (
    f"SELECT name, tbl_name FROM sqlite_schema WHERE type = 'trigger' AND substr(name, 1, {len(PREFIX)}) = '{PREFIX}'"
)
_NAME: Final = r"""(?:\w+\s*\.\s*)?(?:"((?:[^"]|"")+)"|`([^`]+)`|\[([^\]]+)\]|(\w+))"""
_DROPS_COLUMN: Final = re.compile(rf"\s*ALTER\s+TABLE\s+{_NAME}\s+DROP\b", re.I)
_DROPS_TABLE: Final = re.compile(rf"\s*DROP\s+TABLE\s+(?:IF\s+EXISTS\s+)?{_NAME}", re.I)


class _Altering:
    """Takes triggers off before the statements that they would make fail, or that would make them fail."""

    def __init__(self) -> None:
        self._begun_by: object = None

    def begin(self, connection: Connection, cursor: Any, statement: str, *_rest: Any) -> None:
        """Drop the triggers that are in the way of `statement`, in its transaction."""
        tables = _in_the_way(statement)
        if tables is None:
            return
        driver = connection.connection
        if not driver.driver_connection.in_transaction:  # type: ignore[union-attr]  # sqlite3's, or aiosqlite's
            _run(driver, "BEGIN IMMEDIATE")
            self._begun_by = cursor
        found = _run(driver, _TRIGGERS)
        for name, table in found:
            if tables in ("", table.lower()):
                _run(driver, f"DROP TRIGGER {quoted(name)}")

    def end(self, connection: Connection, cursor: Any, *_rest: Any) -> None:
        """Commit what was begun for this statement, which stood alone; one that fails is rolled back by its caller."""
        if self._begun_by is cursor:
            self._begun_by = None
            connection.connection.commit()


def _in_the_way(statement: str) -> str | None:
    """Return the table, in lower case, whose triggers are in the way of a statement: empty for all, None for none's.

    Triggers whose outbox is gone make every write fail; a migration that drops what is ours drops the triggers too.

    >>> _in_the_way('ALTER TABLE "Team" DROP COLUMN size'), _in_the_way("DROP TABLE _reactive_rpc_outbox")
    ('team', '')
    >>> _in_the_way("DROP TABLE team"), _in_the_way("ALTER TABLE team ADD COLUMN size INTEGER")
    (None, None)
    """
    altered = _DROPS_COLUMN.match(statement)
    if altered is not None:
        return _name(altered).lower()
    dropped = _DROPS_TABLE.match(statement)
    return "" if dropped is not None and _is_ours(_name(dropped)) else None


def _name(found: re.Match[str]) -> str:
    name = next(group for group in found.groups() if group is not None)
    return name.replace('""', '"')


def _run(driver: Any, statement: str) -> list[tuple[str, str]]:
    cursor = driver.cursor()
    try:
        cursor.execute(statement)
        return list(cursor.fetchall())
    finally:
        cursor.close()
