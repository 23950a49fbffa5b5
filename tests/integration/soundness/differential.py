"""Run a query, write, run it again: where the result changed, its read set must have been touched.

What was written is taken from a comparison of all rows before and after, so that only read sets are on trial here.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from reactive_rpc.reactive.change import Change
from reactive_rpc.reactive.read_set import ReadSet
from reactive_rpc.reactive.schema import Schema
from reactive_rpc.sql.recorder import RECORDER_OPTION, Recorder, install

from .generator import Generator
from .model import METADATA, TABLES

__all__ = ["Differential", "StaleError"]

Rows = dict[str, dict[int, dict[str, Any]]]
"""`{table: {id: {column: stored value}}}`."""


class StaleError(AssertionError):
    """A result changed and its read set was not touched; the message says how to see it again."""


@dataclass(slots=True)
class _Answer:
    result: Any
    read_set: ReadSet
    sql: list[str]


@dataclass(slots=True)
class Differential:
    """An engine with the recorder installed, and what was counted so far.

    Attributes:
        counters: `pairs` of query and write, how many results `changed`, were `touched`, were touched in vain
            (`needless`), and would have been touched by tables alone (`by_table`); `opaque` read sets.
    """

    schema: Schema
    counters: Counter[str] = field(default_factory=Counter)
    engine: Engine = field(init=False)
    _sql: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engine = create_engine("sqlite://", poolclass=StaticPool, enable_from_linting=False)
        event.listen(self.engine, "connect", _enforce_foreign_keys)
        event.listen(self.engine, "before_cursor_execute", self._note_sql)
        install(self.engine)
        METADATA.create_all(self.engine)

    def close(self) -> None:
        """Let go of the database."""
        self.engine.dispose()

    def run(self, seed: int, cases: int) -> None:
        """Run so many cases.

        Raises:
            StaleError: a result went stale.
        """
        for case in range(cases):
            generator = Generator(random.Random(f"{seed}:{case}"))
            with self.engine.connect() as connection, connection.begin() as transaction:
                self._fill(connection, generator)
                self._run_case(connection, generator, f"seed {seed}, case {case}")
                transaction.rollback()

    def _fill(self, connection: Connection, generator: Generator) -> None:
        ids = 0
        for table, least, most in (("parents", 1, 4), ("children", 1, 5), ("grandchildren", 0, 4)):
            rows = generator.rows(table, least, most, ids)
            ids = len(rows)
            if rows:
                connection.execute(TABLES[table].insert(), rows)

    def _run_case(self, connection: Connection, generator: Generator, name: str) -> None:
        queries = [
            generator.orm() if generator.chance(6) else generator.core() for _ in range(generator.pick([1, 2, 3]))
        ]
        answers = [self._ask(connection, query) for query in queries]
        rows = _snapshot(connection)
        for _ in range(generator.random.randint(4, 10)):
            write = generator.write()
            try:
                with connection.begin_nested():
                    write(connection)
            except IntegrityError:
                continue
            before, rows = rows, _snapshot(connection)
            changes = list(_difference(before, rows))
            if not changes:
                continue
            for index, query in enumerate(queries):
                answers[index] = self._compare(answers[index], self._ask(connection, query), changes, name)

    def _ask(self, connection: Connection, query: Any) -> _Answer:
        recorder = Recorder(self.schema)
        self._sql.clear()
        connection.execution_options(**{RECORDER_OPTION: recorder})
        try:
            result = _result(connection, query)
        finally:
            connection.execution_options(**{RECORDER_OPTION: None})
        return _Answer(result, recorder.read_set(), list(self._sql))

    def _compare(self, old: _Answer, new: _Answer, changes: list[Change], name: str) -> _Answer:
        touched = old.read_set.touched_by(changes)
        changed = old.result != new.result
        tables = {change.table for change in changes}
        self.counters.update(
            pairs=1,
            changed=changed,
            touched=touched,
            needless=touched and not changed,
            by_table=bool(old.read_set.tables & tables),
            opaque=old.read_set.opaque is not None,
        )
        if changed and not touched:
            raise StaleError(_report(name, old, new, changes))
        return new if touched else old

    def _note_sql(self, _connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        self._sql.append(f"{statement}  {parameters}")


def _enforce_foreign_keys(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA foreign_keys = ON")


def _result(connection: Connection, query: Any) -> Any:
    if callable(query):
        with Session(bind=connection, join_transaction_mode="create_savepoint") as session:
            return query(session)
    rows = [tuple(row) for row in connection.execute(query)]
    return rows if getattr(query, "_limit_clause", None) is not None else sorted(rows, key=repr)


def _snapshot(connection: Connection) -> Rows:
    rows: Rows = {}
    for table in TABLES:
        found = connection.exec_driver_sql(f"SELECT * FROM {table}").mappings()
        rows[table] = {row["id"]: dict(row) for row in found}
    return rows


def _difference(before: Rows, after: Rows) -> Iterator[Change]:
    """Yield each row's change; a row that has a new id and the rest of its values is the same row."""
    for table in TABLES:
        old, new = before[table], after[table]
        gone = {identity: row for identity, row in old.items() if identity not in new}
        for identity, row in new.items():
            origin = old.get(identity) or _renamed(row, gone)
            if origin is None:
                yield Change(table=table, operation="insert", after=row)
            elif origin != row:
                differing = frozenset(column for column in row if row[column] != origin[column])
                yield Change(table=table, operation="update", before=origin, after=row, changed=differing)
        for row in gone.values():
            yield Change(table=table, operation="delete", before=row)


def _renamed(row: dict[str, Any], gone: dict[int, dict[str, Any]]) -> dict[str, Any] | None:
    for identity, candidate in gone.items():
        if {**candidate, "id": row["id"]} == row:
            return gone.pop(identity)
    return None


def _report(name: str, old: _Answer, new: _Answer, changes: list[Change]) -> str:
    return "\n".join(
        [
            f"STALE: {name}",
            *old.sql,
            f"before: {old.result}",
            f"after:  {new.result}",
            *(f"change: {change}" for change in changes),
            *(f"read:   {constraint}" for constraint in old.read_set.constraints),
        ]
    )
