"""A procedure: a decorated function, checked as far as it can be before there is a database."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from functools import cached_property, update_wrapper
from typing import Any, ClassVar, Final, Generic, Literal, ParamSpec, TypeAlias, TypeVar, cast, get_args

from sqlalchemy import Table
from sqlalchemy.orm import Session

from reactive_rpc.compat.fastapi import Response, response_class_in
from reactive_rpc.errors import DefinitionError, RPCError
from reactive_rpc.procedures.annotations import plain
from reactive_rpc.procedures.cache_options import Cache
from reactive_rpc.procedures.context import Context
from reactive_rpc.procedures.dependencies import Plan, Plans
from reactive_rpc.procedures.handler import Handler, read_handler
from reactive_rpc.procedures.options import ProcedureKind, ProcedureOptions, TableRef
from reactive_rpc.procedures.steps import Chain, Step, Wrapper, first_with_session
from reactive_rpc.procedures.topics import KeyedTopic, Topic
from reactive_rpc.procedures.wire_codec import InputCodec, OutputCodec, UnsupportedTypeError
from reactive_rpc.statements.sessions import session_fault

__all__ = [
    "AnyProcedure",
    "Mutation",
    "Procedure",
    "Query",
    "StreamedQuery",
    "Subscription",
    "SyncMutation",
    "SyncQuery",
    "place_of",
    "refusal",
]

LAST_EVENT_ID: Final = "last_event_id"
"""The input of a subscription that is filled from the header of this name."""

TICKET: Final = "ticket"
"""What no input of a subscription may be called: a client that can set no headers sends a ticket by this name."""

_NO_SESSION: Final = (
    "a subscription lasts for hours, and would hold a connection as long. Read by current_caller(), which takes one "
    "for each call, or in a step before it"
)
_NOT_STREAMED: Final = {
    "Response": (
        "whose headers are sent before the first value: set them in a dependency of the router, or return one result"
    ),
    "BackgroundTasks": "which would wait for the last value: do the work where it yields, or in a mutation",
}
"""What no handler that yields can be given, and why."""

F = ParamSpec("F")
"""The parameters of the function itself."""
P = ParamSpec("P")
"""Of these, the inputs: the parameters of a call."""
R_co = TypeVar("R_co", covariant=True)


class Procedure(Generic[F, P, R_co]):
    """A decorated function. Calling it calls the function as it is: nothing is validated, cached or committed.

    Args:
        function: the handler.
        options: its effective options.
        chain: the steps and wrappers of its definer.

    Attributes:
        kind: `query`, `mutation` or `subscription`.
        name: the function's own name; its path is given where it is registered.
        handler: how the function wants to be called.
        input: reads the input; None if the handler takes none.
        output: validates and encodes what the handler returns.
        plans: its dependencies; None if it takes none, and nothing of the request.
        session_class: of the session that it and they take; None if they take none.
        chain: the steps and wrappers that run before and around it.
        calls: of these, in order, those that run on every call.
        is_wrapped: whether a wrapper is among them.
        asks_origin: whether any of them, or a dependency, may ask where a call comes from.
        around_computation: the wrappers of each run of the handler.
        dependencies: the tables declared; None if they are taken from what the handler reads.
        topics: the topics declared, each whole or by a key of the input.
        invalidate_when: `{table: predicate(change, input)}`.
        tables: `{table: Table}` of those declared by a model or a `Table`, not by name.
        cache: how results are kept and told of.
        is_cached: whether they are kept at all.
        wire_case: how its names are spelled on the wire.
        response_class: of the response that the handler returns as the whole answer; None if it returns a result.
    """

    kind: ClassVar[ProcedureKind]

    def __init__(self, function: Callable[F, Any], options: ProcedureOptions, chain: Chain) -> None:
        update_wrapper(self, function)
        self.function = function
        self.name = _name(function)
        fault = next(options.faults(), None)
        if fault is not None:
            raise self.fault(fault)
        self.options = options
        self.chain = chain
        self.calls = chain.calls
        self.is_wrapped = any(isinstance(part, Wrapper) for part in self.calls)
        self.around_computation = chain.around_computation
        self.cache = options.cache or Cache()
        self.is_cached = options.cache is not False and self.kind == "query"
        self.tables: dict[str, Table] = {}
        declared = options.dependencies or ()
        self.topics = tuple(ref for ref in declared if isinstance(ref, Topic | KeyedTopic))
        tables = frozenset(self._table(ref) for ref in declared if not isinstance(ref, Topic | KeyedTopic))
        self.dependencies = None if options.dependencies is None else tables
        self.invalidate_when = {
            ref.table if isinstance(ref, Topic) else self._table(ref): check
            for ref, check in (options.invalidate_when or {}).items()
        }
        self.handler: Handler = read_handler(function, self.fault)
        self.session_class = self.handler.session
        self.response_class = self._response_class()
        asks_exchange = self.handler.dependencies or self.handler.given or self.response_class
        self.plans = self._plans() if asks_exchange else None
        self.asks_origin = self.plans is not None or any(
            isinstance(part, Wrapper) or part.call_name for part in self.calls
        )
        self.input, self.output = self._codecs()
        self.wire_case: Literal["python", "camel"] = "python"
        self._check()

    def __call__(self, *args: F.args, **kwargs: F.kwargs) -> Any:
        """Call the function itself, for a unit test of it."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}>"

    @property
    def is_streamed(self) -> bool:
        """Whether it answers with several values, one after another."""
        return self.handler.is_generator

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
        if self.options.examples:
            return [cast(Mapping[str, Any], self.handler.spelled(each)) for each in self.options.examples]
        model = self.handler.input_model
        fields = {} if model is None else model.model_fields
        required = {field.alias or name: field.examples for name, field in fields.items() if field.is_required()}
        known = {name: examples[0] for name, examples in required.items() if examples}
        return (known,) if len(known) == len(required) else ()

    @property
    def raises(self) -> tuple[type[RPCError], ...]:
        """The errors that it declares."""
        return self.options.raises

    @cached_property
    def asks_who_calls(self) -> bool:
        """Whether its handler or a step takes more of a context than an empty one."""
        is_asked = any(step.takes is not Context for step in self.chain.steps)
        return is_asked or self.handler.context is not None

    def fault(self, message: str) -> DefinitionError:
        """Return an error with `message` that names this function and where it stands."""
        return refusal(self.function, message)

    def _table(self, ref: TableRef) -> str:
        table = getattr(ref, "__table__", ref)
        name = table if isinstance(table, str) else getattr(table, "fullname", None)
        if not isinstance(name, str):
            raise self.fault(f"{ref!r} is no table: name one, or give a SQLModel or SQLAlchemy class with table=True")
        if isinstance(table, Table):
            self.tables[name] = table
        return name

    def _response_class(self) -> type[Response] | None:
        """Return the class of the response that the handler returns; None if it returns a result."""
        found: type[Response] | None = response_class_in(self.handler.output)
        if found is not None:
            self._check_response(found)
        return found

    def _check_response(self, found: type[Response]) -> None:
        """Refuse a response where a stored result, which is JSON, would hold it, or where it is but a part of one."""
        if self.is_streamed:
            raise self.fault(
                f"it yields a {found.__name__}, which is a whole answer: yield values, or return a StreamingResponse"
            )
        if plain(self.handler.output) != found:
            raise self.fault(
                f"a {found.__name__} is a whole answer, neither a part of one nor left out: return one in every case, "
                "or values alone"
            )
        if self.is_cached:
            raise self.fault(
                f"returns a {found.__name__}, and stored results are JSON: say cache=False, and it is made on each "
                "call; or return the value"
            )

    def _plans(self) -> Plans:
        plans = Plans(self.handler.dependencies, self.handler.given, refuse=self.fault, check=self._check_plan)
        self.session_class = self._shared_session(plans.plain)
        return plans

    def _check_plan(self, plan: Plan) -> None:
        fault = plan.fault(is_cached=self.is_cached, is_async=self.handler.is_async)
        if fault is not None:
            raise self.fault(fault)
        if self.is_streamed:
            self._check_streamed_plan(plan)

    def _check_streamed_plan(self, plan: Plan) -> None:
        takers = {kind.__name__: repr(name) for name, kind in plan.given.items()}
        for each, way in plan.all:
            takers.update(dict.fromkeys(each.takes.others, f"dependency {way}"))
            if each.sessions and self.kind == "subscription":
                raise self.fault(f"dependency {way} takes a session: {_NO_SESSION}")
        for part, why in _NOT_STREAMED.items():
            if part in takers:
                raise self.fault(f"{takers[part]} takes {part}, {why}")

    def _shared_session(self, plan: Plan) -> Any:
        """Return the class of the one session that handler and dependencies are given.

        Raises:
            DefinitionError: none is all that they take.
        """
        asked = self.handler.session
        for each, way in plan.all:
            for name, kind in each.sessions.items():
                if issubclass(kind, Session) and self.handler.is_async:
                    continue  # it is given the sync side of the handler's own
                fault = session_fault(kind)
                if fault is not None:
                    raise self.fault(f"dependency {way}: {name!r} cannot be given: {fault}")
                if asked is None or issubclass(kind, asked):
                    asked = kind
                elif not issubclass(asked, kind):
                    raise self.fault(
                        f"dependency {way} takes a {kind.__module__}.{kind.__name__}, and the handler a "
                        f"{asked.__module__}.{asked.__name__}: they are given one session, so take the same"
                    )
        return asked

    def _codecs(self) -> tuple[InputCodec | None, OutputCodec]:
        model = self.handler.input_model
        try:
            # A response goes out beside the result, which then is none.
            output = OutputCodec(type(None) if self.response_class else self.handler.output)
            return None if model is None else InputCodec(model), output
        except UnsupportedTypeError as exc:
            raise self.fault(str(exc)) from exc

    def _check(self) -> None:
        if self.dependencies is not None:
            for table in self.invalidate_when.keys() - self.dependencies - self.topic_tables:
                declared = ", ".join(sorted(self.dependencies | self.topic_tables)) or "none"
                raise self.fault(
                    f"invalidate_when names {table!r}, which is no dependency (declared: {declared}): "
                    "add it to dependencies, or drop the predicate"
                )
        self._check_files()
        self._check_streamed()
        self._check_context()
        self._check_mutation_steps()

    def _check_streamed(self) -> None:
        handler = self.handler
        if self.kind == "subscription":
            if not handler.is_generator:
                raise self.fault(
                    "a subscription is an async generator: write async def with yield, -> AsyncIterator[Message]"
                )
            if handler.session is not None:
                raise self.fault(f"{handler.session_name!r} is a session: {_NO_SESSION}")
            if handler.input_model is not None and TICKET in handler.input_model.model_fields:
                raise self.fault(
                    f"{TICKET!r} is the parameter of the URL by which browsers prove who they are: give the input "
                    "another name"
                )
            self._check_last_event_id()
        elif handler.has_ids:
            raise self.fault(
                f"a {self.kind} is not resumed, so its values have no ids: yield them without tracked(...)"
            )
        elif handler.is_generator and self.kind == "mutation":
            raise self.fault(
                "a mutation yields: it is one transaction with one result. Return that; what lasts longer is a "
                "subscription"
            )
        elif handler.is_generator and self.is_cached:
            raise self.fault(
                "it yields its results, and those of a streamed query are not kept: say cache=False, or return a list"
            )

    def _check_last_event_id(self) -> None:
        model = self.handler.input_model
        field = None if model is None else model.model_fields.get(LAST_EVENT_ID)
        if field is None:
            return
        if (
            set(get_args(field.annotation)) != {str, type(None)}
            or field.is_required()
            or field.get_default() is not None
        ):
            raise self.fault(
                f"{LAST_EVENT_ID!r} is the id of the last value that a client received, None if it comes for the first "
                f"time: write {LAST_EVENT_ID}: str | None = None"
            )

    def _check_files(self) -> None:
        if self.handler.files and self.kind != "mutation":
            raise self.fault(
                f"{self.handler.files[0].name!r} is a file, and a {self.kind} takes none: files are for mutations "
                "alone, so define it with define_reactive_function.mutation"
            )

    def _check_context(self) -> None:
        asked, given = self.handler.context, self.chain.gives
        if self.options.public:
            # Steps get a context that knows nothing, so a guard that asks for more would never have run.
            guard = next((step for step in self.chain.steps if step.takes is not Context), None)
            if guard is not None:
                raise self.fault(
                    f"public=True, and its step {guard.name} takes a {guard.takes.__name__}, which nobody is: define "
                    "it without that step, or leave public out"
                )
        if asked is None or issubclass(given, asked):
            if asked is not None and self.options.public and not self.chain.steps:
                raise self.fault("public=True and a context contradict each other: drop one of them")
            return
        raise self.fault(
            f"{self.handler.context_name!r} is a {asked.__name__}, and the steps of its definer give a "
            f"{given.__name__}: annotate that, or add the step that makes a {asked.__name__}"
        )

    def _check_mutation_steps(self) -> None:
        if self.kind != "mutation" or self.handler.is_async:
            return
        inside = self.chain.calls[first_with_session(self.chain.calls) :]
        for part in inside:
            if isinstance(part, Wrapper) or part.is_async:
                what = f"step {part.name}" if isinstance(part, Step) else "wrapper"
                raise self.fault(
                    f"a mutation that is no coroutine runs in a thread, with its steps from the first one with a "
                    f"session on, and its {what} is a coroutine: write the mutation as async def"
                )


class Query(Procedure[F, P, R_co]):
    """A query: it reads, its result is cached, and it can be watched."""

    kind = "query"

    def __call__(self, *args: F.args, **kwargs: F.kwargs) -> Coroutine[Any, Any, R_co]:
        """Call the function itself, for a unit test of it."""
        return self.function(*args, **kwargs)  # type: ignore[no-any-return]  # as its definer's overloads say


class SyncQuery(Query[F, P, R_co]):
    """A query whose handler is a plain function, run in a thread."""

    def __call__(self, *args: F.args, **kwargs: F.kwargs) -> R_co:  # type: ignore[override]  # the function's own result
        """Call the function itself, for a unit test of it."""
        return self.function(*args, **kwargs)  # type: ignore[no-any-return]  # as its definer's overloads say


class Mutation(Procedure[F, P, R_co]):
    """A mutation: it runs in one transaction."""

    kind = "mutation"

    def __call__(self, *args: F.args, **kwargs: F.kwargs) -> Coroutine[Any, Any, R_co]:
        """Call the function itself, for a unit test of it."""
        return self.function(*args, **kwargs)  # type: ignore[no-any-return]  # as its definer's overloads say


class SyncMutation(Mutation[F, P, R_co]):
    """A mutation whose handler is a plain function, run in a thread."""

    def __call__(self, *args: F.args, **kwargs: F.kwargs) -> R_co:  # type: ignore[override]  # the function's own result
        """Call the function itself, for a unit test of it."""
        return self.function(*args, **kwargs)  # type: ignore[no-any-return]  # as its definer's overloads say


class StreamedQuery(Procedure[F, P, R_co]):
    """A query that yields its results, one after another; none is kept."""

    kind = "query"

    def __call__(self, *args: F.args, **kwargs: F.kwargs) -> AsyncIterator[R_co]:
        """Call the function itself, for a unit test of it."""
        return self.function(*args, **kwargs)  # type: ignore[no-any-return]  # as its definer's overloads say


class Subscription(Procedure[F, P, R_co]):
    """A subscription: it yields values for as long as the client listens."""

    kind = "subscription"

    def __call__(self, *args: F.args, **kwargs: F.kwargs) -> AsyncIterator[R_co]:
        """Call the function itself, for a unit test of it."""
        return self.function(*args, **kwargs)  # type: ignore[no-any-return]  # as its definer's overloads say


AnyProcedure: TypeAlias = Procedure[..., ..., Any]


def refusal(function: Callable[..., Any], message: str) -> DefinitionError:
    """Return an error with `message` that names a function and where it stands."""
    where = place_of(function)
    return DefinitionError(f"{_name(function)}{where and f' ({where})'}: {message}")


def place_of(function: Callable[..., Any]) -> str:
    """Return the file and the line of a function; empty if it has none."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{code.co_filename.rsplit('/', 1)[-1]}:{code.co_firstlineno}" if code else ""


def _name(function: Callable[..., Any]) -> str:
    if not callable(function) or isinstance(function, type):
        raise DefinitionError(f"{function!r} is no function: decorate a def or an async def")
    return getattr(function, "__name__", repr(function))
