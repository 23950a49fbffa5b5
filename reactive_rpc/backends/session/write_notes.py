"""The writes of one transaction, as far as SQLAlchemy can see them: the fallback if triggers are not allowed.

A plain statement names its rows, or what they have in common. On SQLite alone the ORM's loaded values complete the
images. Any other write counts as a change of the whole table, and a statement that cannot be read as a change of
everything.

`docs/internals/capture-session.md` argues it ("Statements", "The ORM's state").
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, cast

from sqlalchemy import Table, event
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.orm import Mapper, ORMExecuteState, Session
from sqlalchemy.orm import object_mapper as mapper_of
from sqlalchemy.orm.base import instance_state
from sqlalchemy.orm.context import FromStatement
from sqlalchemy.orm.util import AliasedInsp
from sqlalchemy.sql import dml, operators, visitors
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, BooleanClauseList
from sqlalchemy.sql.schema import Column
from sqlalchemy.sql.selectable import CompoundSelect, Select
from sqlalchemy.types import TypeEngine

from reactive_rpc.backends.session.written import Written, written
from reactive_rpc.compat.sqlalchemy import (
    adapts_by_name,
    annotations_of,
    bind_processors,
    has_bind_expression,
    has_column_expression,
    has_columns_only,
    is_of_crud,
    is_one_row_insert,
    maps_column,
    where_criteria,
)
from reactive_rpc.dependencies.change import UNKNOWN, Change, ChangeOperation, Known, Value
from reactive_rpc.dependencies.schema import Schema
from reactive_rpc.statements.casts import kept_by_cast
from reactive_rpc.statements.comparable_values import comparable

__all__ = ["MAX_ROWS", "RowWrite", "WriteNotes"]

MAX_ROWS: Final = 1_000
"""A table of which more rows are written counts as a whole."""

_STORED_AS_GIVEN: Final = frozenset({"integer", "text", "label", "uuid", "date", "real"})
"""Of the kinds that are not SQLite's: a `numeric(9, 2)` is rounded when it is stored, a `timestamp(0)` too."""

_MAX_EXACT_REAL: Final = 2**53

_Values = dict[str, Value]
_Items = frozenset[tuple[str, Value]]
_Plain = dml.Insert | dml.Update | dml.Delete


@dataclass(slots=True)
class RowWrite:
    """All that is known of the rows that one execution writes; a column that an image lacks may have any value.

    Attributes:
        changed: the columns set; None if others may have changed, and for an insert or a delete.
    """

    table: str
    operation: ChangeOperation
    before: _Values | None = None
    after: _Values | None = None
    changed: frozenset[str] | None = None

    def change(self, key_columns: Collection[str]) -> Change:
        """Return it as a change, with `UNKNOWN` among its keys if one is not known."""
        return Change(
            table=self.table,
            operation=self.operation,
            before=self.before,
            after=self.after,
            changed=self.changed,
            keys=frozenset(_key_values(key_columns, (self.before, self.after))),
        )


@dataclass(slots=True)
class WriteNotes:
    """The writes of one transaction.

    Attributes:
        schema: the known tables.
        unset: `{table: columns}` that may change though no statement sets them; None if that is not known.
        rows: `{table: the writes of single executions}`.
        counts: `{table: how many rows the noted executions wrote}`.
        bulk: the tables that count as a whole.
        announced: changes of topics.
        everything: why every table counts; None if not every one does.
        committing: whether COMMIT has been sent.
    """

    schema: Schema
    dialect: Dialect
    unset: Mapping[str, frozenset[str]] | None
    rows: dict[str, list[RowWrite]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    bulk: set[str] = field(default_factory=set)
    announced: list[Change] = field(default_factory=list)
    everything: str | None = None
    committing: bool = False
    _is_apart: bool = False
    _is_flushing: bool = False
    _is_misled: bool = False
    _by_statement: set[str] = field(default_factory=set)
    _trusted: set[Any] = field(default_factory=set)
    _known: dict[tuple[str, tuple[Value, ...]], _Values] = field(default_factory=dict)
    _unnamed: list[RowWrite] = field(default_factory=list)
    _last: DefaultExecutionContext | None = None

    def refuse(self, reason: str) -> None:
        """Let every table count."""
        self.everything = self.everything or reason

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Note nothing meanwhile: the statement is ours."""
        self._is_apart = True
        try:
            yield
        finally:
            self._is_apart = False

    def roll_back_savepoint(self) -> None:
        """Let the tables written so far count whole, and trust no instance that was loaded so far."""
        self.bulk.update(self.rows)
        self.rows.clear()
        self._known.clear()
        self._trusted.clear()

    def add(self, context: DefaultExecutionContext | None, text: str) -> None:
        """Note a statement that is about to run."""
        if self._is_apart:
            return
        if context is not None and context is self._last:
            return  # a further batch of the same INSERT, whose rows were all noted with the first
        self._last = context
        found = written(text, self.dialect.name)
        if found is None:
            self.refuse(f"a statement whose writes cannot be told: {text[:80]}")
            return
        names = {name: self.schema.table(name) for name in found.tables}
        unknown = next((name for name, table in names.items() if table is None), None)
        if unknown is not None:
            self.refuse(f"a write to {unknown!r}, which is no known table")
            return
        tables = {table for table in names.values() if table is not None}
        rows = self._row_writes(context, found, tables) if context is not None else None
        if rows is None:
            self.bulk.update(tables)
        else:
            self._keep(next(iter(tables)), rows)

    def count(self, context: DefaultExecutionContext | None) -> None:
        """Count the rows of the statement that has run, to be held against the database's own count."""
        if context is None or not isinstance(context.compiled and context.compiled.statement, _Plain):
            return
        name = self._name(context.compiled.statement.table)  # type: ignore[union-attr]  # a plain statement has one
        if name is not None:
            count = context.rowcount if context.rowcount >= 0 else len(context.compiled_parameters)
            self.counts[name] = self.counts.get(name, 0) + count

    def listen(self, session: Session) -> None:
        """Follow a session's flushes."""
        event.listen(session, "do_orm_execute", self._before_load)
        event.listen(session, "loaded_as_persistent", self._trust)
        event.listen(session, "pending_to_persistent", self._trust)
        event.listen(session, "before_flush", self._before_flush)
        event.listen(session, "after_flush", self._after_flush)

    def _keep(self, table: str, rows: list[RowWrite]) -> None:
        kept = self.rows.setdefault(table, [])
        kept.extend(rows)
        if len(kept) > MAX_ROWS:
            self.bulk.add(table)
        if table in self.bulk:
            kept.clear()

    def _row_writes(
        self, context: DefaultExecutionContext, found: Written, tables: Collection[str]
    ) -> list[RowWrite] | None:
        """Return the writes of each execution of a plain statement; None if it is not plain."""
        statement = context.compiled.statement if context.compiled is not None else None
        if len(tables) != 1 or not _is_plain(statement):
            self._by_statement.update(tables)
            return None
        (table,) = tables
        is_flush = self._is_flushing and "compiled_cache" in context.execution_options
        if not is_flush:
            self._by_statement.add(table)
        if len(context.compiled_parameters) > MAX_ROWS:
            return None
        return [self._row_write(context, statement, table, found, values) for values in _executions(context)]

    def _row_write(
        self, context: DefaultExecutionContext, statement: Any, table: str, found: Written, values: Mapping[str, object]
    ) -> RowWrite:
        names: Mapping[BindParameter[Any], str] = context.compiled.bind_names  # type: ignore[union-attr]  # it is compiled
        set_to = self._set_to(statement, table, names, values)
        if isinstance(statement, dml.Insert):
            row = RowWrite(table, "insert", after=set_to)
            self._unnamed.append(row)
            return row
        before = self._matched(statement, table, names, values)
        before |= self._known.get(self._identity(statement.table, table, before), {})
        if isinstance(statement, dml.Delete):
            return RowWrite(table, "delete", before=before)
        if found.sets is None or not found.sets <= self.schema.columns(table):
            return RowWrite(table, "update", before=before, after={})
        unset = frozenset[str]() if self.unset is None else self.unset.get(table, frozenset())
        kept = {column: value for column, value in before.items() if column not in found.sets | unset}
        changed = None if self.unset is None else found.sets | unset
        return RowWrite(table, "update", before=before, after=kept | set_to, changed=changed)

    def _set_to(
        self, statement: Any, table: str, names: Mapping[BindParameter[Any], str], values: Mapping[str, object]
    ) -> _Values:
        """Return the values that VALUES or SET gives to columns; SQLAlchemy names their parameters by column."""
        found: _Values = {}
        for bind, name in names.items():
            column = statement.table.columns.get(name) if is_of_crud(bind) else None
            if column is not None and name in values and self._is_sent_as_is(values[name], bind):
                self._put(found, table, column.name, values[name], stored=True)
        return found

    def _matched(
        self, statement: Any, table: str, names: Mapping[BindParameter[Any], str], values: Mapping[str, object]
    ) -> _Values:
        """Return the equalities that the WHERE of an UPDATE or DELETE asks for."""
        found: _Values = {}
        for column, bind in _equalities(where_criteria(statement)):
            value = values.get(names.get(bind, ""))
            if column.table is statement.table and value is not None and self._is_sent_as_is(value, bind):
                self._put(found, table, column.name, value, stored=False)
        return found

    def _is_sent_as_is(self, value: object, bind: BindParameter[Any]) -> bool:
        return not _has_own_sql(bind.type, self.dialect) and kept_by_cast(value, bind.type, self.dialect)

    def _put(self, image: _Values, table: str, column: str, value: object, *, stored: bool) -> None:
        """Put a driver's value into an image, if the column holds it as it is."""
        kind = self.schema.kind(table, column)
        if kind is None:
            return
        if value is None:
            image[column] = None
            return
        known = comparable(value, kind, self.dialect.name)
        if known is not None and (not stored or self._is_stored_as(known, kind)):
            image[column] = known

    def _is_stored_as(self, value: Known, kind: str) -> bool:
        if kind == "real" and isinstance(value, int):
            return abs(value) <= _MAX_EXACT_REAL
        if self.dialect.name == "sqlite":
            return True
        if self.dialect.name != "postgresql":
            return False  # MySQL may clamp a number that does not fit
        # VARCHAR(n) cuts blanks beyond n.
        return kind in _STORED_AS_GIVEN and not (isinstance(value, str) and value.endswith(" "))

    def _name(self, source: object) -> str | None:
        return self.schema.table(source.fullname) if isinstance(source, Table) else None

    def _identity(self, source: Table, table: str, image: Mapping[str, Value]) -> tuple[str, tuple[Value, ...]]:
        return table, tuple(image.get(column.name) for column in source.primary_key)

    def _before_load(self, state: ORMExecuteState) -> None:
        if self.dialect.name == "sqlite" and not self._is_misled:
            self._is_misled = _loads_other_values(state.statement)

    def _trust(self, _session: Session, instance: object) -> None:
        self._trusted.add(instance_state(instance))

    def _before_flush(self, session: Session, _context: object, _instances: object) -> None:
        self._is_flushing = True
        self._known.clear()
        self._unnamed.clear()
        # INVARIANT (loaded values complete images on SQLite alone): its writer holds the lock from the beginning.
        # Elsewhere another transaction may have changed the rows between load and flush, and an image of loaded values
        # would hide the row from those who have cached its true ones.
        if self.dialect.name != "sqlite" or self._is_misled:
            return
        for instance in (*session.dirty, *session.deleted):
            if _is_trusted(self._trusted, instance):
                self._remember(instance)

    def _remember(self, instance: object) -> None:
        """Keep the committed values of an instance, as its rows hold them."""
        mapper = mapper_of(instance)
        for source in mapper.tables:
            table = self._name(source)
            if table is None or table in self._by_statement or not isinstance(source, Table):
                continue
            image: _Values = {}
            for column, value in _committed(mapper, instance, source, self.dialect):
                self._put(image, table, column.name, value, stored=True)
            if all(image.get(column.name) is not None for column in source.primary_key):
                self._known[self._identity(source, table, image)] = image

    def _after_flush(self, session: Session, _context: object) -> None:
        """Give the rows just inserted the keys that the database has made."""
        self._is_flushing = False
        nameless: dict[tuple[str, frozenset[str]], dict[_Items, list[RowWrite]]] = {}
        for row in self._unnamed:
            after = row.after or {}
            alike = nameless.setdefault((row.table, frozenset(after)), {})
            alike.setdefault(frozenset(after.items()), []).append(row)
        for instance in session.new:
            mapper = mapper_of(instance)
            for source in mapper.tables:
                table = self._name(source)
                if table is not None and isinstance(source, Table):
                    held = self._held(mapper, instance, source, table)
                    for (name, columns), alike in nameless.items():
                        if name == table:
                            self._give_key(alike, columns, held, source)

    def _give_key(
        self, alike: Mapping[_Items, list[RowWrite]], columns: Collection[str], held: _Values, source: Table
    ) -> None:
        keys = {column.name: held.get(column.name) for column in source.primary_key}
        rows = alike.get(frozenset((column, held.get(column)) for column in columns if column in held))
        if rows and None not in keys.values():
            after = rows.pop().after
            if after is not None:
                after.update(keys)

    def _held(self, mapper: Mapper[Any], instance: object, source: Table, table: str) -> _Values:
        """Return the values that the instance holds for its row in `source`."""
        image: _Values = {}
        for column in source.columns:
            if maps_column(mapper, column) and not _has_own_sql(column.type, self.dialect):
                held = getattr(instance, "__dict__", {}).get(mapper.get_property_by_column(column).key)
                process = column.type.dialect_impl(self.dialect).bind_processor(self.dialect)
                self._put(image, table, column.name, process(held) if process else held, stored=True)
        return image


def _is_trusted(trusted: Collection[Any], instance: object) -> bool:
    """Tell whether this session has loaded or inserted the instance."""
    return instance_state(instance) in trusted


def _is_plain(statement: object) -> bool:
    """Tell whether a statement is an INSERT of values, an UPDATE or a DELETE of one table, with nothing beside."""
    if not isinstance(statement, _Plain) or not isinstance(statement.table, Table):
        return False
    return has_columns_only(statement) and (not isinstance(statement, dml.Insert) or is_one_row_insert(statement))


def _executions(context: DefaultExecutionContext) -> Iterator[Mapping[str, object]]:
    """Yield the parameters of each execution, as the driver gets them."""
    processors = bind_processors(cast(SQLCompiler, context.compiled))
    for parameters in context.compiled_parameters:
        yield {
            name: processors[name](value) if name in processors else value
            for name, value in parameters.items()
            if not isinstance(value, list | tuple)  # an IN list, expanded under other names
        }


def _equalities(criteria: Collection[Any]) -> Iterator[tuple[Column[Any], BindParameter[Any]]]:
    """Yield `column = value` of a conjunction."""
    for criterion in criteria:
        if isinstance(criterion, BooleanClauseList) and criterion.operator is operators.and_:
            yield from _equalities(criterion.clauses)
        elif isinstance(criterion, BinaryExpression) and criterion.operator is operators.eq:
            left, right = criterion.left, criterion.right
            if isinstance(left, Column) and isinstance(right, BindParameter):
                yield left, right


def _committed(
    mapper: Mapper[Any], instance: object, source: Table, dialect: Dialect
) -> Iterator[tuple[Column[Any], object]]:
    """Yield the values that the rows of `instance` hold, of the columns whose type changes nothing on the way."""
    state = instance_state(instance)
    for column in source.columns:
        if maps_column(mapper, column) and _is_identity(column, dialect):
            key = mapper.get_property_by_column(column).key
            history = state.attrs[key].history
            held = history.deleted or history.unchanged
            if held:
                yield column, held[0]


def _is_identity(column: Column[Any], dialect: Dialect) -> bool:
    """Tell whether Python holds the column's values as the database does."""
    kind = column.type.dialect_impl(dialect)
    return (
        not _has_own_sql(column.type, dialect)
        and kind.bind_processor(dialect) is None
        and kind.result_processor(dialect, None) is None
    )


def _has_own_sql(type_: TypeEngine[Any], dialect: Dialect) -> bool:
    """Tell whether the type puts SQL around its values, on the way in or out: they are stored as that makes them."""
    return has_bind_expression(type_, dialect) or has_column_expression(type_, dialect)


def _loads_other_values(statement: Any) -> bool:
    """Tell whether a statement may fill an attribute with something else than its column."""
    if not isinstance(statement, Select | CompoundSelect):
        return isinstance(statement, FromStatement)
    entities = (annotations_of(element).get("parententity") for element in visitors.iterate(statement))
    return any(isinstance(entity, AliasedInsp) and adapts_by_name(entity) for entity in entities)


def _key_values(columns: Collection[str], images: Collection[Mapping[str, Value] | None]) -> Iterator[Any]:
    for image in images:
        for column in columns if image is not None else ():
            value = image.get(column, UNKNOWN) if image is not None else None
            if value is not None:
                yield value
