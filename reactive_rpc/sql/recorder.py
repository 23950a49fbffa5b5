"""Hand every statement that runs on a connection to the connection's recorder.

Design note. Values are taken from the execution, never from the statement: SQLAlchemy runs a cached `Compiled` with
the values of another statement of the same shape. They go through the compiled statement's own bind processors, so
that what is compared is what the driver gets. (A processor that answers differently each time would break that; it
would also break SQLAlchemy's own cache.) SQLAlchemy takes the lists of `IN` out of the parameters and puts one
parameter for each value in their place, under names that the execution context keeps.

The recorder hangs on the connection, not on a `ContextVar`: a greenlet, a worker thread or a task that shares the
context cannot mix up two calls. A connection that a handler takes from the engine itself carries none; only there does
the recorder of the current call count, which a `ContextVar` names. What SQLAlchemy answers from an identity map runs no
statement, so a recorded session must be a fresh one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Final, cast

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.sql.compiler import SQLCompiler

from reactive_rpc.reactive.read_set import Condition, Constraint, ReadSet
from reactive_rpc.reactive.schema import Schema
from reactive_rpc.sql.analysis import template_of
from reactive_rpc.sql.binding import Binder, ParameterValues
from reactive_rpc.sql.recording_compiler import recording

__all__ = ["RECORDER_OPTION", "Recorder", "current_recorder", "install"]

RECORDER_OPTION: Final = "reactive_rpc_recorder"
"""The execution option of a Connection that holds its `Recorder`."""

current_recorder: ContextVar[Recorder | None] = ContextVar("reactive_rpc_recorder", default=None)
"""The recorder of the call that is running, for connections that carry none."""

_ConstraintKey = tuple[str, frozenset[str] | None, frozenset[tuple[str, Condition]]]


class Recorder:
    """Collects what the statements of one call read. Safe across threads.

    Args:
        schema: what is captured; asked anew for every statement.
    """

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._lock = threading.Lock()
        self._constraints: dict[_ConstraintKey, Constraint] = {}
        self._opaque: str | None = None
        self._saw_table = False
        self._statements = 0

    def read_set(self) -> ReadSet:
        """Return what was read so far: no constraint twice, and the first reason why it could not be told."""
        with self._lock:
            return ReadSet(tuple(self._constraints.values()), self._opaque)

    @property
    def saw_table(self) -> bool:
        """Whether a statement named a table, even one of which no row can matter (`id IN ()`)."""
        return self._saw_table

    @property
    def statements(self) -> int:
        """How many statements were recorded."""
        return self._statements

    def record(self, context: DefaultExecutionContext | None) -> None:
        """Add the statement that `context` is about to execute."""
        with self._lock:
            self._statements += 1
        if context is None or context.compiled is None:
            self.refuse("runs textual SQL, which is not analysed")
            return
        template = template_of(context.compiled)
        binder = Binder(self._schema, context.dialect.name)
        opaque = binder.opaque(template)
        if opaque is not None:
            self.refuse(opaque)
            return
        found = [constraint for values in _executions(context) for constraint in binder.constraints(template, values)]
        with self._lock:
            self._saw_table = self._saw_table or bool(template.tables)
            for constraint in found:
                key = (constraint.table, constraint.columns, frozenset(constraint.conditions.items()))
                self._constraints.setdefault(key, constraint)

    def refuse(self, reason: str) -> None:
        """Make the read set opaque, for this reason unless there is one already."""
        with self._lock:
            self._opaque = self._opaque or reason


def _executions(context: DefaultExecutionContext) -> Iterator[ParameterValues]:
    """Yield the parameters of each execution: one, or several of `executemany`."""
    processors = cast(Mapping[str, Any], cast(SQLCompiler, context.compiled)._bind_processors)
    for parameters in context.compiled_parameters:
        yield _driver_values(parameters, context._expanded_parameters, processors)


def _driver_values(
    parameters: Mapping[str, object], expanded: Mapping[str, Sequence[str]], processors: Mapping[str, Any]
) -> ParameterValues:
    def values(name: str) -> Sequence[object] | None:
        names = expanded.get(name, (name,))
        if not all(each in parameters for each in names):
            # Rendered into the text (literal_execute), so not among the parameters.
            return None
        process: Callable[[object], object] | None = processors.get(name)
        return [process(parameters[each]) if process else parameters[each] for each in names]

    return values


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


def _record(
    connection: Connection,
    _cursor: object,
    _statement: str,
    _parameters: object,
    context: DefaultExecutionContext | None,
    _executemany: bool,
) -> None:
    recorder: Recorder | None = connection.get_execution_options().get(RECORDER_OPTION)
    if recorder is not None:
        recorder.record(context)
    elif (current := current_recorder.get()) is not None:
        current.refuse("reads through a connection of its own: use the db it is given")
