"""Run a query, write, run it again: where the result changed, its read set must have been touched.

What was written is taken from a comparison of all rows before and after each statement, so that only read sets, the
index and the look-ups of parents are on trial here. Several writes make a batch, as a poll of the log finds them: their
images are enriched from the state after the last.

The statements of a query are kept and run again through the driver alone, which is what lets a run compare more than a
thousand results a second. The read set of one statement follows from its parameters. An ORM query loads what it finds:
where one of its statements finds something else, it is asked anew.
"""

from __future__ import annotations

import datetime
import random
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from reactive_rpc.backends.postgresql.oracle import PostgreSQLOracle
from reactive_rpc.backends.sqlite.oracle import SQLiteOracle
from reactive_rpc.changes.parent_values import Parents, by_key, enriched, followed, keys_to_look_up, lookups_of
from reactive_rpc.dependencies.change import UNKNOWN, Change, Unknown, Value
from reactive_rpc.dependencies.index import Index
from reactive_rpc.dependencies.lookup import Lookup
from reactive_rpc.dependencies.net_changes import net_changes
from reactive_rpc.dependencies.read_set import ReadSet
from reactive_rpc.dependencies.schema import Schema
from reactive_rpc.statements.recorder import RECORDER_OPTION, Recorder, install
from reactive_rpc.statements.text_reads import Oracle

from .drawing import Write
from .generator import Generator
from .model import METADATA, TABLES, Dialect

__all__ = ["Differential", "StaleError", "image_value", "postgresql_engine", "sqlite_engine"]

LONGEST_TEXT = 48
"""In bytes; an image does not know longer text."""

QUERIES, BATCHES = 5, 12
"""In each case, unless more batches are asked for."""

COLUMNS = {name: table.columns.keys() for name, table in TABLES.items()}

Row = dict[str, Any]
Rows = dict[str, dict[int, Row]]
"""`{table: {id: {column: what the driver returns}}}`."""


class StaleError(AssertionError):
    """A result changed and its read set was not touched; the message says how to see it again."""


@dataclass(slots=True)
class _Answer:
    """What a query answered.

    Attributes:
        query: a statement, or a callable that asks a session.
        read_set: what it depends on.
        statements: `(text, parameters)` of what ran.
        found: the rows that each of them found.
    """

    query: Any
    read_set: ReadSet
    statements: list[tuple[str, Any]]
    found: list[list[Any]]


def sqlite_engine() -> Engine:
    """Return an engine on a database in memory, with the tables."""
    engine = create_engine("sqlite://", poolclass=StaticPool, enable_from_linting=False)
    event.listen(engine, "connect", _enforce_foreign_keys)
    METADATA.create_all(engine)
    return engine


def postgresql_engine(url: str) -> Engine:
    """Return an engine on a new database of PostgreSQL, with the tables; `url` names the driver psycopg."""
    engine = create_engine(url, enable_from_linting=False)
    METADATA.create_all(engine)
    return engine


class Differential:
    """An engine with the recorder installed, and what was counted so far.

    Args:
        generator: draws the queries and writes.

    Attributes:
        counters: `pairs` of query and batch, how many results `changed`, were `touched`, were touched in vain
            (`needless`), and would have been touched by tables alone (`by_table`); `opaque` read sets; `virtual`
            columns that constraints rested on; `windowed` read sets; changes that a batch had no more when it was
            `netted`; queries that the database `refused`.
    """

    def __init__(self, engine: Engine, schema: Schema, generator: type[Generator] = Generator) -> None:
        self.counters: Counter[str] = Counter()
        self._generator = generator
        self._schema = schema
        self._engine = engine
        self._dialect: Dialect = "sqlite" if engine.dialect.name == "sqlite" else "postgresql"
        self._oracle: Oracle = SQLiteOracle() if self._dialect == "sqlite" else PostgreSQLOracle()
        self._statements: list[tuple[str, Any]] = []
        install(engine)
        event.listen(engine, "before_cursor_execute", self._note_statement)

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def run(self, seed: int, cases: int, batches: int = BATCHES) -> None:
        """Run so many cases, each of so many batches of writes.

        Raises:
            StaleError: a result went stale.
        """
        for number in range(cases):
            with self.case(f"{seed}:{number}", f"seed {seed}, case {number}") as case:
                case.run(batches)

    @contextmanager
    def case(self, seed: str, name: str) -> Iterator[Case]:
        """Open a case, and undo it at the end."""
        generator = self._generator(random.Random(seed), self._dialect)
        with self._engine.connect() as connection, connection.begin() as transaction:
            yield Case(self, connection, generator, name)
            transaction.rollback()

    def ask(self, connection: Connection, query: Any) -> _Answer:
        """Ask with a recorder, and run the statements once more, as `again` will."""
        recorder = Recorder(self._schema, self._oracle)
        self._statements.clear()
        connection.execution_options(**{RECORDER_OPTION: recorder})
        try:
            if callable(query):
                with Session(bind=connection, join_transaction_mode="rollback_only") as session:
                    query(session)
            else:
                connection.execute(query).all()
        finally:
            connection.execution_options(**{RECORDER_OPTION: None})
        answer = _Answer(query, recorder.read_set(), list(self._statements), [])
        answer.found = self.again(connection, answer)
        tests = [each.test for each in answer.read_set.constraints]
        self.counters["windowed"] += any(test is not None and test.is_windowed for test in tests)
        return answer

    def again(self, connection: Connection, answer: _Answer) -> list[list[Any]]:
        """Return what each statement of the query finds now; the order counts only where the query names it."""
        ordered = getattr(answer.query, "_limit_clause", None) is not None
        found = [_execute(connection, statement, parameters) for statement, parameters in answer.statements]
        return found if ordered else [sorted(rows, key=repr) for rows in found]

    def enriched(self, changes: list[Change], rows: Rows, index: Index[int]) -> tuple[Change, ...]:
        """Return the changes with the virtual columns that the index wants, as `rows` has the parents."""
        lookups = lookups_of({change.table for change in changes}, index.lookups, self._schema)
        found = {lookup: _parents(lookup, rows) for lookup in keys_to_look_up(changes, lookups, self._schema)}
        self.counters["virtual"] += len(found)
        return enriched(changes, found, self._schema)

    def net(self, changes: tuple[Change, ...]) -> tuple[Change, ...]:
        """Return the net effect of a batch, as live results meet it."""
        found = tuple(net_changes(changes, self._schema))
        self.counters["netted"] += len(changes) - len(found)
        return found

    def difference(self, before: Rows, after: Rows) -> Iterator[Change]:
        """Yield each row's change; a row that has a new id and the rest of its values is the same row."""
        for table, old in before.items():
            new = after[table]
            if new is old:
                continue
            gone = {identity: row for identity, row in old.items() if identity not in new}
            for identity, row in new.items():
                origin = old.get(identity) or _renamed(row, gone)
                if origin is None:
                    yield Change(table=table, operation="insert", after=self._image(table, row))
                elif origin != row:
                    yield Change(
                        table=table,
                        operation="update",
                        before=self._image(table, origin),
                        after=self._image(table, row),
                        changed=frozenset(column for column in row if row[column] != origin[column]),
                    )
            for row in gone.values():
                yield Change(table=table, operation="delete", before=self._image(table, row))

    def _image(self, table: str, row: Row) -> Mapping[str, Value | Unknown]:
        return {
            column: image_value(value) for column, value in row.items() if self._schema.kind(table, column) is not None
        }

    def _note_statement(self, _connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        self._statements.append((statement, parameters))


def _parents(lookup: Lookup, rows: Rows) -> Parents:
    parents = rows[lookup.parent].values()
    pairs = [(image_value(row[lookup.key]), image_value(row[lookup.value])) for row in parents]
    found = by_key(pairs, at_most=len(pairs))
    assert found is not None, "there are few rows"
    return found if lookup.further is None else followed(found, _parents(lookup.further, rows))


class Case:
    """Some rows, some queries, and batches of writes one after the other, in one transaction."""

    def __init__(self, trial: Differential, connection: Connection, generator: Generator, name: str) -> None:
        self._trial = trial
        self._connection = connection
        self._generator = generator
        self._name = name
        self._rows: Rows = {}
        self._index: Index[int] = Index()
        self._answers: list[_Answer] = []

    def run(self, batches: int) -> None:
        """Do what the generator says."""
        generator = self._generator
        self.fill(generator.tables())
        for _ in range(QUERIES):
            self.ask(generator.query())
        for _ in range(batches):
            self.write(generator.write(self._rows) for _ in range(generator.pick([1, 1, 2, 3])))

    def fill(self, tables: Mapping[str, list[Row]]) -> None:
        """Insert `{table: rows}`, parents before children."""
        for table, rows in tables.items():
            if rows:
                self._connection.execute(TABLES[table].insert(), rows)
        self._rows = _rows(self._connection, COLUMNS)

    def write(self, writes: Iterable[Write]) -> None:
        """Do a batch, and compare.

        Raises:
            StaleError: a result went stale.
        """
        changes: list[Change] = []
        for write in writes:
            if self._try(write):
                before, self._rows = self._rows, {**self._rows, **_rows(self._connection, write.tables)}
                changes += self._trial.difference(before, self._rows)
        if changes:
            self._compare(self._trial.net(self._trial.enriched(changes, self._rows, self._index)))

    def _try(self, write: Write) -> bool:
        """Write; tell whether a row may have been written."""
        try:
            with _savepoint(self._connection):
                return bool(write(self._connection).rowcount)
        except IntegrityError:
            return False

    def ask(self, query: Any) -> None:
        """Ask a query, if the database understands it: PostgreSQL refuses some of what is generated."""
        try:
            with _savepoint(self._connection):
                answer = self._trial.ask(self._connection, query)
        except DBAPIError:
            self._trial.counters["refused"] += 1
            return
        if answer.read_set.opaque is not None:
            self._trial.counters["opaque"] += 1
            return
        self._index.add(len(self._answers), answer.read_set)
        self._answers.append(answer)

    def _compare(self, changes: tuple[Change, ...]) -> None:
        found = {number for change in changes for number in self._index.match(change)}
        tables = {change.table for change in changes}
        for number, answer in enumerate(self._answers):
            rows = self._trial.again(self._connection, answer)
            touched, changed = number in found, rows != answer.found
            self._trial.counters.update(
                pairs=1,
                changed=changed,
                touched=touched,
                needless=touched and not changed,
                by_table=bool(answer.read_set.tables & tables),
            )
            if not touched and (changed or answer.read_set.touched_by(changes)):
                raise StaleError(_report(self._name, answer, rows, changes))
            if changed:
                self._answers[number] = new = self._trial.ask(self._connection, answer.query)
                self._index.remove(number)
                self._index.add(number, new.read_set)


def image_value(value: Any) -> Value | Unknown:
    """Return what a driver returned as an image holds it."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str):
        return value if len(value.encode()) <= LONGEST_TEXT else UNKNOWN
    if isinstance(value, datetime.datetime):
        epoch = datetime.datetime(1970, 1, 1, tzinfo=None if value.tzinfo is None else datetime.UTC)
        return (value - epoch) // datetime.timedelta(microseconds=1)
    if isinstance(value, datetime.date):
        return value.toordinal() - datetime.date(1970, 1, 1).toordinal()
    known: Value = str(value) if isinstance(value, uuid.UUID) else value
    return known


@contextmanager
def _savepoint(connection: Connection) -> Iterator[None]:
    """Undo the block where it raises.

    Through the driver, because SQLAlchemy compiles each of its savepoints anew; and without a RELEASE, because the
    next savepoint of the name hides this one.
    """
    _execute(connection, "SAVEPOINT attempt")
    try:
        yield
    except BaseException:
        _execute(connection, "ROLLBACK TO SAVEPOINT attempt")
        raise


def _execute(connection: Connection, statement: str, parameters: Any = ()) -> list[Any]:
    """Run a statement through the driver alone."""
    cursor = connection.connection.cursor()
    try:
        cursor.execute(statement, parameters)
        return list(cursor.fetchall()) if cursor.description else []
    finally:
        cursor.close()


def _enforce_foreign_keys(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA foreign_keys = ON")


def _rows(connection: Connection, tables: Iterable[str]) -> Rows:
    """Read all rows of `tables`."""
    rows: Rows = {}
    for table in tables:
        columns = COLUMNS[table]
        found = _execute(connection, f"SELECT {', '.join(columns)} FROM {table}")
        rows[table] = {row[0]: dict(zip(columns, row, strict=True)) for row in found}
    return rows


def _renamed(row: Row, gone: dict[int, Row]) -> Row | None:
    for identity, candidate in gone.items():
        if {**candidate, "id": row["id"]} == row:
            return gone.pop(identity)
    return None


def _report(name: str, answer: _Answer, rows: list[list[Any]], changes: tuple[Change, ...]) -> str:
    return "\n".join(
        [
            f"STALE: {name}",
            *(f"{statement}  {parameters}" for statement, parameters in answer.statements),
            f"before: {answer.found}",
            f"after:  {rows}",
            *(f"change: {change}" for change in changes),
            *(f"read:   {constraint}" for constraint in answer.read_set.constraints),
        ]
    )
