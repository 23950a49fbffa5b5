"""A procedure: a decorated function, checked as far as it can be before there is a database."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, update_wrapper
from typing import Any, Generic, ParamSpec, TypeVar, Unpack, get_type_hints, overload

from pydantic import BaseModel, RootModel
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from reactive_rpc.errors import DefinitionError
from reactive_rpc.procedures.annotations import plain
from reactive_rpc.procedures.cache_options import Cache
from reactive_rpc.procedures.context import Context
from reactive_rpc.procedures.options import GivenOptions, ProcedureOptions, TableRef
from reactive_rpc.procedures.topics import KeyedTopic, Topic
from reactive_rpc.procedures.wire_codec import InputCodec, OutputCodec, UnsupportedTypeError
from reactive_rpc.statements.sessions import AnyAsyncSession, AnySession, session_fault

__all__ = ["Procedure", "define_reactive_function"]

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Handler:
    """How a function wants to be called."""

    input_model: type[BaseModel] | None
    session: AnyAsyncSession | AnySession | None
    takes_context: bool
    context_type: Any
    is_async: bool


class Procedure(Generic[P, R]):
    """A decorated function. Calling it calls the function as it is: nothing is validated, cached or committed.

    >>> @define_reactive_function
    ... def get_answer() -> int:
    ...     return 42
    >>> get_answer(), get_answer.kind, get_answer.scope
    (42, 'query', 'identity')

    Args:
        function: the handler.
        options: of `define_reactive_function`.

    Attributes:
        name: the function's own name; its path is given where it is registered.
        kind: `query` or `mutation`.
        dependencies: the tables declared; None where they are taken from what the handler reads.
        topics: the topics declared, each whole or by a key of the input.
        invalidate_when: `{table: predicate(change, input)}`.
        tables: `{table: Table}` of those declared by a model or a `Table`, not by name.
        scope: whose results may be shared, see `define_reactive_function`.
        examples: inputs that `doctor` and `check` may try.
        cache: how results are kept and told of.
        is_cached: whether they are kept at all.
        isolation: of a mutation's transaction; None is as the settings say.
        attempts: how often a mutation is run at most, where other writes come in between.
    """

    def __init__(self, function: Callable[P, R], options: ProcedureOptions) -> None:
        update_wrapper(self, function)
        self.function = function
        self.name = _name(function)
        fault = next(options.faults(), None)
        if fault is not None:
            raise self.fault(fault)
        self.kind = options.kind
        self.scope = options.scope
        self.examples = tuple(options.examples)
        self.isolation = options.isolation
        self.attempts = options.attempts
        self.cache = options.cache or Cache()
        self.is_cached = options.cache is not False and options.kind == "query"
        self.tables: dict[str, Table] = {}
        declared = options.dependencies or ()
        self.topics = tuple(ref for ref in declared if isinstance(ref, Topic | KeyedTopic))
        tables = frozenset(self._table(ref) for ref in declared if not isinstance(ref, Topic | KeyedTopic))
        self.dependencies = None if options.dependencies is None else tables
        self.invalidate_when = {
            ref.table if isinstance(ref, Topic) else self._table(ref): check
            for ref, check in (options.invalidate_when or {}).items()
        }
        self.handler, self.output_type = self._signature()
        self._check()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself, for a unit test of it."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}>"

    @property
    def topic_tables(self) -> frozenset[str]:
        """What the topics declared are called in a log."""
        return frozenset(ref.table if isinstance(ref, Topic) else ref.topic.table for ref in self.topics)

    @property
    def summary(self) -> str:
        """The docstring's first line."""
        return (inspect.getdoc(self.function) or self.name.replace("_", " ").capitalize()).split("\n")[0]

    @property
    def description(self) -> str:
        """The docstring, which may be Markdown."""
        return inspect.getdoc(self.function) or ""

    @property
    def known_inputs(self) -> Sequence[Mapping[str, Any]]:
        """Inputs that are known to fit: its `examples`, or one made of the first examples of its input's fields."""
        if self.examples:
            return self.examples
        model = self.handler.input_model
        fields = {} if model is None else model.model_fields
        required = {field.alias or name: field.examples for name, field in fields.items() if field.is_required()}
        known = {name: examples[0] for name, examples in required.items() if examples}
        return (known,) if len(known) == len(required) else ()

    @cached_property
    def input(self) -> InputCodec | None:
        """Read the input; None where the handler takes none."""
        model = self.handler.input_model
        return None if model is None else InputCodec(model)

    @cached_property
    def output(self) -> OutputCodec:
        """Validate and encode what the handler returns."""
        return OutputCodec(self.output_type)

    def fault(self, message: str) -> DefinitionError:
        """Return an error with `message` that names this function and where it stands."""
        code = getattr(inspect.unwrap(self.function), "__code__", None)
        where = f" ({code.co_filename.rsplit('/', 1)[-1]}:{code.co_firstlineno})" if code else ""
        return DefinitionError(f"{self.name}{where}: {message}")

    def _table(self, ref: TableRef) -> str:
        table = getattr(ref, "__table__", ref)
        name = table if isinstance(table, str) else getattr(table, "fullname", None)
        if not isinstance(name, str):
            raise self.fault(f"{ref!r} is no table: name one, or give a SQLModel or SQLAlchemy class with table=True")
        if isinstance(table, Table):
            self.tables[name] = table
        return name

    def _signature(self) -> tuple[Handler, Any]:
        try:
            hints = get_type_hints(self.function, include_extras=True)
        except (NameError, AttributeError, SyntaxError) as exc:
            raise self.fault(f"an annotation cannot be resolved: {exc}. Import what it names at run time") from exc
        except TypeError as exc:
            has_no_hash = "unhashable" in str(exc)
            way = "give such metadata to a field of a model" if has_no_hash else "write it as typing wants it"
            raise self.fault(f"an annotation cannot be evaluated: {exc}: {way}") from exc
        if "return" not in hints:
            raise self.fault(
                "the result is not annotated: say what it returns (-> list[Agent]), clients are typed by it"
            )
        parameters = inspect.signature(self.function).parameters
        unknown = sorted(parameters.keys() - {"input", "db", "ctx"})
        if unknown:
            way = _name_for(unknown[0], plain(hints.get(unknown[0])))
            raise self.fault(f"unknown parameter {unknown[0]!r}: a handler takes input, db and ctx{way}")
        is_async = inspect.iscoroutinefunction(self.function)
        handler = Handler(
            input_model=self._input_model(hints) if "input" in parameters else None,
            session=self._session(hints, is_async) if "db" in parameters else None,
            takes_context="ctx" in parameters,
            context_type=plain(hints.get("ctx")),
            is_async=is_async,
        )
        return handler, hints["return"]

    def _input_model(self, hints: dict[str, Any]) -> type[BaseModel]:
        if "input" not in hints:
            raise self.fault("input is not annotated: give it a pydantic model (input: AgentRef)")
        model = plain(hints["input"])
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise self.fault(f"input is {model!r}: it must be a pydantic model, whose fields are what clients pass")
        if issubclass(model, RootModel):
            raise self.fault(f"input is the root model {model.__name__}: clients pass fields by name, so give it some")
        if hasattr(model, "__table__"):
            raise self.fault(
                f"input is the table {model.__name__}, and SQLModel does not validate tables: "
                "give it a model without table=True"
            )
        return model

    def _session(self, hints: dict[str, Any], is_async: bool) -> AnyAsyncSession | AnySession:
        if "db" not in hints:
            raise self.fault("db is not annotated: say AsyncSession (async def) or Session (def)")
        asked = plain(hints["db"])
        if not (isinstance(asked, type) and issubclass(asked, AsyncSession | Session)):
            raise self.fault(
                f"db is annotated as {asked!r}, and what a handler is given is a session: say AsyncSession (async def) "
                "or Session (def), of sqlmodel or sqlalchemy, and take its connection() where you need one"
            )
        if issubclass(asked, AsyncSession) is not is_async:
            mode = "an async" if issubclass(asked, AsyncSession) else "a sync"
            way = "async def with AsyncSession, or def with Session"
            raise self.fault(f"{'async def' if is_async else 'def'} with {mode} session: use {way}")
        fault = session_fault(asked)
        if fault is not None:
            raise self.fault(f"db is annotated as {asked.__name__}: {fault}")
        return asked

    def _check(self) -> None:
        shared = callable(self.scope) or self.scope == "tenant"
        if self.kind == "mutation" and (self.dependencies is not None or self.invalidate_when or shared):
            raise self.fault(
                "a mutation is never cached: dependencies, invalidate_when and scope are for queries "
                "(but scope='public', which asks for no login)"
            )
        if self.dependencies is not None:
            for table in self.invalidate_when.keys() - self.dependencies - self.topic_tables:
                declared = ", ".join(sorted(self.dependencies | self.topic_tables)) or "none"
                raise self.fault(
                    f"invalidate_when names {table!r}, which is no dependency (declared: {declared}): "
                    "add it to dependencies, or drop the predicate"
                )
        if self.scope == "public" and self.handler.takes_context:
            raise self.fault("scope='public' and a ctx parameter contradict each other: drop one of them")
        try:
            _ = self.input, self.output
        except UnsupportedTypeError as exc:
            raise self.fault(str(exc)) from exc


def _name_for(parameter: str, annotation: object) -> str:
    """Return what to call a parameter that other frameworks call otherwise, as the end of a sentence."""
    kind = annotation if isinstance(annotation, type) else object
    if issubclass(kind, AsyncSession | Session) or parameter in ("session", "database", "connection", "conn"):
        return ": call the session db"
    if issubclass(kind, Context) or parameter in ("context", "user", "current_user"):
        return ": call the context ctx"
    if issubclass(kind, BaseModel):
        return ": call what clients pass input"
    return ", by these names; what clients pass stands in the fields of input"


def _name(function: Callable[..., Any]) -> str:
    if not callable(function) or isinstance(function, type):
        raise DefinitionError(f"{function!r} is no function: decorate a def or an async def")
    return getattr(function, "__name__", repr(function))


@overload
def define_reactive_function(function: Callable[P, R], /) -> Procedure[P, R]: ...


@overload
def define_reactive_function(**options: Unpack[GivenOptions]) -> Callable[[Callable[P, R]], Procedure[P, R]]: ...


def define_reactive_function(
    function: Callable[P, R] | None = None, /, **options: Unpack[GivenOptions]
) -> Procedure[P, R] | Callable[[Callable[P, R]], Procedure[P, R]]:
    """Make a procedure of a function that takes any of `input`, `db` and `ctx`, by name.

    Args:
        kind: a `query` reads, is cached and can be watched; a `mutation` runs in one transaction.
        dependencies: the tables the handler reads, as names, models or `Table`s. Left out, they are observed. Given,
            they are checked: reading any other table is an error in development; in production it is logged, and
            widens the dependency. A declared table that a call did not read counts as read whole. A topic, or one key
            of it for each input (`weather.of(lambda input: input.city)`), stands for what is no table.
        invalidate_when: `{table: predicate(change, input)}`: returns False for a change that does not matter after
            all. It is asked about rows that the read set has found, never about others. A table given by its model
            shows the values as the model does, one given by name shows them as they are stored. Asking for a value
            that was not captured (long text, JSON, blobs) raises, and a predicate that raises narrows nothing.
        scope: who may share a result. `identity` (the default): callers whose whole context is equal, or everybody
            where the handler takes no ctx. `tenant`: the whole tenant; the handler then sees only `ctx.tenant`.
            `public`: everybody, and the context is not even resolved: no login is asked for. A function of ctx: those
            for whom it returns the same; the handler's ctx then *is* what the function returned, and nothing else.
        examples: inputs, as a client would pass them; `reactive-rpc doctor` and `check` try them.
        cache: how results are kept, `Cache(...)`. False keeps none and shares none: each call runs the handler, and
            nobody can watch it; a cached query that calls it is not cached either.
        isolation: how far a mutation is kept apart from others that run at once; the settings' `isolation` where left
            out. `serializable`: as if it had run alone. `repeatable_read`: it reads one snapshot, and writes no row
            over one that is newer. `read_committed`: each statement sees what is committed when it begins: what was
            read and is then written back (`a.n += 1`) may overwrite another's write. On SQLite each is serializable.
        attempts: how often a mutation is run at most. Where another write came in between, its transaction is rolled
            back, and **the handler runs again from its start**, with the same input and ctx and a fresh session. What
            it did outside of the database (an e-mail, a call of another service) it does again: 1 opts out, and the
            caller is then told CONFLICT.

    Raises:
        DefinitionError: the function or an argument is wrong; the message says what and the way out.
    """

    checked = ProcedureOptions(**options)

    def decorate(function: Callable[P, R]) -> Procedure[P, R]:
        return Procedure(function, checked)

    return decorate if function is None else decorate(function)
