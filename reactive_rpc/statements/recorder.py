"""Hand every statement that runs on a connection to the connection's recorder.

Values are taken from the execution, never from the statement: SQLAlchemy runs a cached `Compiled` with the values of
another statement of the same shape. The oracle of the database is asked about a text just before it runs. The recorder
hangs on the connection, not on a `ContextVar`, which a greenlet, a thread or a task may share with another call.

`docs/internals/read-sets.md` says more; the INVARIANT comments mark the lines that it rests on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any, Final, cast

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TupleType

from reactive_rpc.compat.sqlalchemy import bind_processors, expanded_parameters, take_rows
from reactive_rpc.dependencies.read_set import Condition, Constraint, ReadSet, RowTest
from reactive_rpc.dependencies.schema import Schema
from reactive_rpc.statements.analysis import template_of
from reactive_rpc.statements.binding import Binder, ParameterValues
from reactive_rpc.statements.casts import kept_by_cast
from reactive_rpc.statements.explanation import ExplainedRead, TracedStatement, Unused
from reactive_rpc.statements.functions import is_clock_word
from reactive_rpc.statements.recording_compiler import Expansion, recording
from reactive_rpc.statements.template import Template
from reactive_rpc.statements.text_reads import Oracle

__all__ = ["RECORDER_OPTION", "Recorder", "Trace", "current_recorder", "install"]

RECORDER_OPTION: Final = "reactive_rpc_recorder"
"""The execution option of a Connection that holds its `Recorder`."""

current_recorder: ContextVar[Recorder | None] = ContextVar("reactive_rpc_recorder", default=None)
"""The recorder of the call that is running, for connections that carry none."""

Trace = list[TracedStatement]
"""The statements, in order."""

_ConstraintKey = tuple[str, frozenset[str] | None, frozenset[tuple[str, Condition]], RowTest | None]


@dataclass(frozen=True, slots=True)
class _Text:
    """A statement as the driver is about to get it."""

    connection: Connection
    statement: str
    parameters: Any

    def traced(self, reads: Iterable[ExplainedRead]) -> TracedStatement:
        """Return it with its reads, for people."""
        unique = tuple(dict.fromkeys(reads))
        return TracedStatement(text=self.statement, parameters=repr(self.parameters), reads=unique)


def _of_text(construct: str, tables: Mapping[str, frozenset[str] | None]) -> Iterator[ExplainedRead]:
    for table, columns in tables.items():
        seen = None if columns is None else tuple(sorted(columns))
        yield ExplainedRead(table=table, columns=seen, unused=(Unused.OF_TEXT.of(construct),))


@dataclass(frozen=True, slots=True)
class _OpenWindow:
    """A statement with a LIMIT whose rows have not been read yet.

    Attributes:
        context: its execution.
        wide: its constraints without a window.
        trace_place: where the trace has it; None if there is none.
    """

    context: DefaultExecutionContext
    binder: Binder
    template: Template
    values: ParameterValues
    wide: tuple[Constraint, ...]
    trace_place: int | None


class Recorder:
    """Collects the reads of one call's statements. Safe across threads.

    Args:
        schema: the captured tables; asked anew for every statement.
        oracle: tells the reads of a text; without one a text makes the read set opaque.
        trace: takes each statement, with its reads explained, if it is given.

    Attributes:
        open_windows: `{id of an execution: its statement}`: those with a LIMIT whose rows have not been read yet.
        shows: the version of the log that the call's snapshot shows, exactly; None if nobody can tell.
    """

    def __init__(self, schema: Schema, oracle: Oracle | None = None, *, trace: Trace | None = None) -> None:
        self._schema = schema
        self.oracle = oracle
        self.shows: int | None = None
        self._lock = threading.Lock()
        self._constraints: dict[_ConstraintKey, Constraint] = {}
        self._opaque: str | None = None
        self._tables: set[str] = set()
        self._statements = 0
        self._trace = trace
        self.open_windows: dict[int, _OpenWindow] = {}

    def read_set(self) -> ReadSet:
        """Return the reads so far: no constraint twice, and the first reason why it could not be told."""
        # INVARIANT (a window whose rows were not read is wide): its statement has failed.
        for window in tuple(self.open_windows.values()):
            self._add(window.wide)
        with self._lock:
            return ReadSet(tuple(self._constraints.values()), self._opaque)

    @property
    def schema(self) -> Schema:
        """The captured tables."""
        return self._schema

    @property
    def saw_table(self) -> bool:
        """Whether a statement named a table, even one of which no row can matter (`id IN ()`)."""
        return bool(self._tables)

    @property
    def tables(self) -> frozenset[str]:
        """Every table that was named so far, by canonical name; of some no row may matter."""
        with self._lock:
            return frozenset(self._tables)

    @property
    def statements(self) -> int:
        """How many statements were recorded."""
        return self._statements

    def record(
        self, connection: Connection, statement: str, parameters: Any, context: DefaultExecutionContext | None
    ) -> None:
        """Add the statement that `connection` is about to execute.

        Args:
            statement: the text that the driver gets.
            parameters: those that the driver gets with it.
            context: of SQLAlchemy; None if it has none.
        """
        with self._lock:
            self._statements += 1
        text = _Text(connection, statement, parameters)
        if context is None or context.compiled is None:
            self._record_text(text, "exec_driver_sql()")
            return
        # INVARIANT (the template holds no value): SQLAlchemy runs one `Compiled` with the values of many statements.
        template = template_of(context.compiled)
        if template.textual is not None:
            self._record_text(text, template.textual)
            return
        self._record_template(text, template, context)

    def _record_template(self, text: _Text, template: Template, context: DefaultExecutionContext) -> None:
        binder = Binder(self._schema, context.dialect.name)
        opaque = binder.opaque(template) or _asks_clock(template, context)
        if opaque is not None:
            self._refuse(text, opaque)
            return
        if self._trace is not None:
            reads = (read for values in _executions(context) for read in binder.explained(template, values))
            self._trace.append(text.traced(reads))
        executions = list(_executions(context))
        found = [constraint for values in executions for constraint in binder.constraints(template, values)]
        with self._lock:
            self._tables |= binder.tables(template)
        if template.window is None or len(executions) != 1:
            self._add(found)
            return
        place = None if self._trace is None else len(self._trace) - 1
        self.open_windows[id(context)] = _OpenWindow(context, binder, template, executions[0], tuple(found), place)

    def read_window(self, context: DefaultExecutionContext | None) -> None:
        """Read the rows of a statement that has just run, if it has a LIMIT, and add it by where they end."""
        window = self.open_windows.get(id(context))
        if window is None or window.template.window is None:
            return
        # INVARIANT (all rows that the database yields, whatever the handler takes of them): a handler that stops
        # half-way has the statement read no less.
        rows = take_rows(window.context)
        shown = None if rows is None else window.binder.shown(window.template.window, window.values, rows)
        if shown is None:
            self._add(window.wide)
        else:
            self._add(window.binder.constraints(window.template, window.values, shown))
        del self.open_windows[id(context)]
        if self._trace is not None and window.trace_place is not None:
            reads = tuple(dict.fromkeys(window.binder.explained(window.template, window.values, shown)))
            self._trace[window.trace_place] = replace(self._trace[window.trace_place], reads=reads)

    def _record_text(self, text: _Text, construct: str) -> None:
        """Ask the database for the reads of the whole text."""
        if self.oracle is None:
            self._refuse(text, f"renders {construct}, which is not analysed: write it with select()")
            return
        read = self.oracle(text.connection, text.statement, text.parameters, self._schema)
        if read.opaque is not None:
            self._refuse(text, f"{read.opaque} (in {construct})")
            return
        if self._trace is not None:
            self._trace.append(text.traced(_of_text(construct, read.tables)))
        self._add(Constraint(table, columns) for table, columns in read.tables.items())

    def _refuse(self, text: _Text, reason: str) -> None:
        if self._trace is not None:
            self._trace.append(replace(text.traced(()), opaque=reason))
        self.refuse(reason)

    def _add(self, constraints: Iterable[Constraint]) -> None:
        with self._lock:
            for constraint in constraints:
                self._tables.add(constraint.table)
                conditions = frozenset(constraint.conditions.items())
                # INVARIANT (the test is part of it): two occurrences with the same conditions have two tests.
                key = (constraint.table, constraint.columns, conditions, constraint.test)
                self._constraints.setdefault(key, constraint)

    def widen(self, tables: Iterable[str]) -> None:
        """Count these tables, by canonical name, as read whole."""
        self._add(map(Constraint, tables))

    def refuse(self, reason: str) -> None:
        """Make the read set opaque, for this reason unless there is one already."""
        with self._lock:
            self._opaque = self._opaque or reason


def _asks_clock(template: Template, context: DefaultExecutionContext) -> str | None:
    """Return why the result may be another one tomorrow: PostgreSQL reads the text 'today' as a date."""
    if context.dialect.name == "postgresql":
        names = [each for name in template.dates for each in expanded_parameters(context).get(name, (name,))]
        literals = _literals(context)
        found = ({**literals, **parameters} for parameters in context.compiled_parameters)
        if any(is_clock_word(values.get(name)) for values in found for name in names):
            return "compares a date with a text such as 'today': pass in a date"
    return None


def _literals(context: DefaultExecutionContext) -> dict[str, object]:
    """Return the values of an execution that are rendered into its text."""
    expansion = expanded_parameters(context)
    return dict(expansion.literals) if isinstance(expansion, Expansion) else {}


def _executions(context: DefaultExecutionContext) -> Iterator[ParameterValues]:
    """Yield the parameters of each execution: one, or several of `executemany`."""
    for parameters in context.compiled_parameters:
        yield _driver_values(context, parameters)


def _driver_values(context: DefaultExecutionContext, parameters: Mapping[str, object]) -> ParameterValues:
    compiled = cast(SQLCompiler, context.compiled)
    expanded = expanded_parameters(context)
    processors = bind_processors(compiled)
    parameters = {**_literals(context), **parameters}

    def values(name: str) -> Sequence[object] | None:
        names = expanded.get(name, (name,))
        if compiled.binds[name] in compiled.literal_execute_params and compiled.binds[name].expanding:
            # A list that is rendered into the text: it need not be compared value by value.
            return None
        # Of a row value each column has a processor of its own.
        processor: Any = processors.get(name)
        process = cycle(processor if isinstance(processor, tuple) else (processor,))
        # INVARIANT (values as the driver gets them): stored values are compared with these, not with the handler's.
        found = [_processed(parameters[each], how) for each, how in zip(names, process, strict=False)]
        type_: Any = compiled.binds[name].type
        types = cycle(type_.types if isinstance(type_, TupleType) else (type_,))
        kept = (kept_by_cast(value, each, context.dialect) for value, each in zip(found, types, strict=False))
        return found if all(kept) else None

    return values


def _processed(value: object, processor: Callable[[Any], object] | None) -> object:
    return value if processor is None else processor(value)


def install(engine: Engine) -> None:
    """Make `engine` record on the connections that ask for it; idempotent.

    Pass `async_engine.sync_engine` for an async engine. On a connection without a recorder nothing is done.
    """
    dialect = engine.dialect
    compiler = recording(dialect.statement_compiler)
    if dialect.statement_compiler is not compiler:
        dialect.statement_compiler = compiler
        # What was compiled before holds no record.
        engine.clear_compiled_cache()
    if not event.contains(engine, "before_cursor_execute", _record):
        event.listen(engine, "before_cursor_execute", _record)
        event.listen(engine, "after_cursor_execute", _read_window)


def _record(
    connection: Connection,
    _cursor: object,
    statement: str,
    parameters: object,
    context: DefaultExecutionContext | None,
    _executemany: bool,
) -> None:
    recorder: Recorder | None = connection.get_execution_options().get(RECORDER_OPTION)
    if recorder is not None:
        recorder.record(connection, statement, parameters, context)
    elif (current := current_recorder.get()) is not None:
        # INVARIANT (a read that no recorder saw makes the read set opaque): the handler took this connection itself.
        current.refuse("reads through a connection of its own: use the db it is given")


def _read_window(connection: Connection, *execution: Any) -> None:
    """Take the same as `_record`, once the statement has run."""
    recorder: Recorder | None = connection.get_execution_options().get(RECORDER_OPTION)
    if recorder is not None and recorder.open_windows:
        *_, context, _executemany = execution
        recorder.read_window(context)
