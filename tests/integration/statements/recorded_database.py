"""A database, what a query reads of it, and a small differential: each write that changes a result must touch it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from reactive_rpc.backends.postgresql.oracle import PostgreSQLOracle
from reactive_rpc.backends.sqlite.oracle import SQLiteOracle
from reactive_rpc.changes.captured_schema import CaptureState
from reactive_rpc.dependencies.change import Change
from reactive_rpc.dependencies.read_set import ReadSet
from reactive_rpc.statements.recorder import RECORDER_OPTION, Recorder, install
from reactive_rpc.statements.text_reads import Oracle

from .models import ROWS, VIEW, Base, declared

__all__ = ["Answer", "Found", "Query", "RecordedDatabase", "open_database"]

Query = Callable[[Session], Any]
"""Reads in a fresh session and returns what can be compared: rows as tuples, plain values."""

Rows = dict[str, dict[Any, dict[str, Any]]]

WRITES: Final = [
    "INSERT INTO team(id, name, size, parent_id) VALUES (9, 'red', 30, 1)",
    "INSERT INTO team(id, name, size, parent_id) VALUES (10, 'green', 3, 2)",
    "UPDATE team SET name = 'green' WHERE id = 1",
    "UPDATE team SET name = 'red' WHERE id = 3",
    "UPDATE team SET size = 50 WHERE id = 1",
    "UPDATE team SET size = 2 WHERE id = 2",
    "UPDATE team SET parent_id = NULL WHERE id = 2",
    "UPDATE team SET parent_id = 3 WHERE id = 2",
    'INSERT INTO task(id, team_id, title, done, data) VALUES (9, 1, \'a\', {true}, \'{{"k": 1, "tags": ["x"]}}\')',
    "INSERT INTO task(id, team_id, title, done, data) VALUES (10, 2, 'z', {false}, '{{}}')",
    "INSERT INTO task(id, team_id, title, done, due, data) VALUES (11, 3, 'b', {true}, '2024-01-01', '{{\"k\": 2}}')",
    "UPDATE task SET team_id = 2 WHERE id = 1",
    "UPDATE task SET team_id = NULL WHERE id = 3",
    "UPDATE task SET team_id = 1 WHERE id = 4",
    "UPDATE task SET title = 'q' WHERE id = 1",
    "UPDATE task SET title = 'a' WHERE id = 3",
    "UPDATE task SET done = {false} WHERE id = 1",
    "UPDATE task SET done = {true} WHERE id = 2",
    "UPDATE task SET done = {true} WHERE id = 3",
    "UPDATE task SET due = '2025-03-03' WHERE id = 1",
    'UPDATE task SET data = \'{{"k": 9, "tags": ["n"]}}\' WHERE id = 2',
    "DELETE FROM task WHERE id = 1",
    "DELETE FROM task WHERE id = 3",
    "DELETE FROM task WHERE id = 4",
    "UPDATE member SET role = 'boss' WHERE team_id = 1 AND place = 2",
    "UPDATE member SET role = 'boss' WHERE team_id = 2",
    "INSERT INTO member(team_id, place, role) VALUES (2, 2, 'lead')",
    "INSERT INTO member(team_id, place, role) VALUES (1, 3, 'guest')",
    "UPDATE note SET text = 'n' WHERE id = 2",
    "UPDATE note SET place = 2 WHERE id = 1",
    "UPDATE note SET team_id = 1 WHERE id = 3",
    "DELETE FROM note WHERE id = 3",
    "UPDATE animal SET kind = 'cat' WHERE id = 2",
    "UPDATE animal SET lives = 9 WHERE id = 1",
    "INSERT INTO animal(id, kind, lives) VALUES (9, 'dog', 1)",
    "UPDATE person SET name = 'eve' WHERE id = 1",
    "UPDATE person SET name = 'eve' WHERE id = 2",
    "UPDATE engineer SET level = 9",
]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query returned, and what it read."""

    result: Any
    read_set: ReadSet


@dataclass(slots=True)
class Found:
    """The writes that change the result of a query: those that touch its read set, and those that do not."""

    noticed: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)


@dataclass(slots=True)
class RecordedDatabase:
    """A database with the rows of `models`, a recorder on it, and the oracle of its kind."""

    engine: Engine
    schema: CaptureState
    oracle: Oracle

    @property
    def dialect(self) -> str:
        """The database's name in SQLAlchemy."""
        return self.engine.dialect.name

    def ask(self, query: Query) -> Answer:
        """Run `query` in a transaction that is rolled back."""
        with self.engine.connect() as connection:
            return self._ask(connection, query)

    def differential(self, queries: Mapping[str, Query]) -> dict[str, Found]:
        """Do every write, run every query before and after it, and return what was found of each query."""
        with self.engine.connect() as connection:
            old, named = {}, {}
            for name, query in queries.items():
                with self._noted() as statements:
                    old[name] = self._ask(connection, query)
                named[name] = frozenset(re.findall(r"\w+", " ".join(statements).lower()))
            found = {name: Found() for name in queries}
            rows = self._rows(connection)
            for write in WRITES:
                with connection.begin_nested() as savepoint:
                    connection.exec_driver_sql(self._spelled(write))
                    changes = list(_difference(rows, self._rows(connection)))
                    tables = {name for change in changes for name in (change.table, f"open_{change.table}")}
                    for name, query in queries.items():
                        # A text depends on no table that neither it nor its view names.
                        if tables & named[name] and self._ask(connection, query).result != old[name].result:
                            is_touched = old[name].read_set.touched_by(changes)
                            (found[name].noticed if is_touched else found[name].missed).append(write)
                    savepoint.rollback()
        return found

    def _ask(self, connection: Connection, query: Query) -> Answer:
        recorder = Recorder(self.schema, self.oracle)
        connection.execution_options(**{RECORDER_OPTION: recorder})
        try:
            with Session(bind=connection, join_transaction_mode="rollback_only") as session:
                result = query(session)
        finally:
            connection.execution_options(**{RECORDER_OPTION: None})
        return Answer(result, recorder.read_set())

    @contextmanager
    def _noted(self) -> Iterator[list[str]]:
        """Give a list that fills with the statements that run."""
        statements: list[str] = []

        def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
            statements.append(statement)

        event.listen(self.engine, "before_cursor_execute", note)
        yield statements
        event.remove(self.engine, "before_cursor_execute", note)

    def _rows(self, connection: Connection) -> Rows:
        found: Rows = {}
        for name, table in Base.metadata.tables.items():
            rows = connection.execute(text(f"SELECT * FROM {name}")).mappings()
            keys = [column.name for column in table.primary_key.columns]
            images = [{column: _stored(value) for column, value in row.items()} for row in rows]
            found[name] = {tuple(image[key] for key in keys): image for image in images}
        return found

    def _spelled(self, write: str) -> str:
        return write.format(true=_truth(self.dialect, True), false=_truth(self.dialect, False))


def open_database(url: str) -> RecordedDatabase:
    """Return a world in an empty database."""
    pool: dict[str, Any] = {"poolclass": StaticPool} if url.startswith("sqlite") else {}
    engine = create_engine(url, enable_from_linting=False, **pool)
    dialect = engine.dialect.name
    install(engine)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        for name, rows in ROWS.items():
            for row in rows:
                connection.exec_driver_sql(_insert(name, row, dialect))
        connection.exec_driver_sql(VIEW.format(false=_truth(dialect, False)))
    return RecordedDatabase(engine, declared(dialect), SQLiteOracle() if dialect == "sqlite" else PostgreSQLOracle())


def _insert(table: str, row: dict[str, Any], dialect: str) -> str:
    values = ", ".join(_literal(value, dialect) for value in row.values())
    return f"INSERT INTO {table}({', '.join(row)}) VALUES ({values})"


def _literal(value: Any, dialect: str) -> str:
    if isinstance(value, bool):
        return _truth(dialect, value)
    if value is None:
        return "NULL"
    return str(value) if isinstance(value, int) else f"'{value}'"


def _truth(dialect: str, value: bool) -> str:
    return str(value).lower() if dialect == "postgresql" else str(int(value))


def _stored(value: Any) -> Any:
    """Return a value as an image holds it; what has no kind here only has to differ where it differs."""
    if isinstance(value, bool):
        return int(value)
    return value if value is None or isinstance(value, int | str) else repr(value)


def _difference(before: Rows, after: Rows) -> Iterator[Change]:
    for table, rows in before.items():
        for key in rows.keys() | after[table].keys():
            old, new = rows.get(key), after[table].get(key)
            if old is None:
                yield Change(table=table, operation="insert", after=new)
            elif new is None:
                yield Change(table=table, operation="delete", before=old)
            elif old != new:
                changed = frozenset(column for column in old if old[column] != new[column])
                yield Change(table=table, operation="update", before=old, after=new, changed=changed)
