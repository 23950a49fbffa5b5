"""How a function wants to be called: which parameters the framework gives, and which the caller.

The framework gives the session and the context, which come first, and dependencies; their annotations say which they
are, and their names are free. All other parameters are inputs: named fields on the wire, of a model that is made of
their annotations. Or there is one input, called `input`, whose annotation is that model.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, PydanticUserError, RootModel, TypeAdapter, create_model
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from reactive_rpc.compat.fastapi import SubDependency, depends_in, file_mark_in, is_from_request, request_class_in
from reactive_rpc.errors import DefinitionError
from reactive_rpc.procedures.annotations import plain
from reactive_rpc.procedures.context import Context, context_fault
from reactive_rpc.procedures.dependencies import session_class_in
from reactive_rpc.procedures.mapped_context import mapped_class_in, mapped_context_message
from reactive_rpc.procedures.streamed import item_of, yields
from reactive_rpc.procedures.uploads import FileParameter, holds_file, read_file_parameter
from reactive_rpc.statements.sessions import AnyAsyncSession, AnySession, session_fault

__all__ = ["Handler", "Refuse", "has_schema", "hints_of", "read_handler", "session_of"]

Refuse = Callable[[str], DefinitionError]
"""Makes the error that names a function and its fault."""

INPUT: Final = "input"
_OF_MODELS: Final = frozenset(name for name in dir(BaseModel) if name.startswith(("model_", "__")))
_CONNECTIONS: Final = (Connection, Engine, AsyncConnection, AsyncEngine)
_SESSIONS: Final = ("db", "session", "database", "connection", "conn")
_CONTEXTS: Final = ("ctx", "context")


@dataclass(frozen=True, slots=True)
class Handler:
    """How a function wants to be called.

    Attributes:
        session: the class of the session that it takes; None if it takes none.
        session_name: of that parameter.
        context: the class of the context that it takes; None if it takes none.
        context_name: of that parameter.
        input_model: of its inputs; None if it takes none.
        fields: the inputs that it takes as plain parameters.
        takes_model: whether it takes the model itself, as `input`.
        files: the parameters that files are given to.
        callers: the names of all parameters that callers give, in order.
        aliases: `{input: its name on the wire}` of those that have another there than in Python.
        dependencies: the parameters that functions make the values of.
        given: `{parameter: class}` of those that are of the request: `Request`, `Response`, `BackgroundTasks`.
        is_async: whether it is a coroutine function, or an async generator.
        is_generator: whether it yields its results, one after another.
        has_ids: whether these have ids.
        output: the annotation of its result; of one of them, if it yields several.
    """

    session: AnyAsyncSession | AnySession | None
    session_name: str
    context: type[Context] | None
    context_name: str
    input_model: type[BaseModel] | None
    fields: tuple[str, ...]
    takes_model: bool
    files: tuple[FileParameter, ...]
    callers: tuple[str, ...]
    aliases: Mapping[str, str]
    dependencies: tuple[SubDependency, ...]
    given: Mapping[str, type]
    is_async: bool
    is_generator: bool
    has_ids: bool
    output: Any

    def arguments(self, session: object, ctx: object, input: Any) -> dict[str, Any]:
        """Return the arguments of the function, without dependencies and the parts of the request."""
        arguments = {name: getattr(input, name) for name in self.fields}
        if self.takes_model:
            arguments[INPUT] = input
        if self.session is not None:
            arguments[self.session_name] = session
        if self.context is not None:
            arguments[self.context_name] = ctx
        return arguments

    def spelled(self, input: object) -> object:
        """Return an input with its names on the wire, where it is given by those of Python."""
        if not self.aliases or not isinstance(input, Mapping):
            return input
        return {self.aliases.get(name, name): value for name, value in input.items()}

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[object, dict[str, Any]]:
        """Return the input of a call with these arguments, a model or its fields, and `{parameter: files}`.

        Raises:
            TypeError: there are too many, or one is given twice.
        """
        if len(args) > len(self.callers):
            raise TypeError(f"takes {len(self.callers)} inputs, and {len(args)} were given by position")
        given = dict(zip(self.callers, args, strict=False))
        twice = sorted(given.keys() & kwargs.keys())
        if twice:
            raise TypeError(f"{twice[0]!r} is given twice")
        given |= kwargs
        beside = next((each.name for each in self.dependencies if each.name in given), None)
        if beside is not None:
            raise TypeError(f"{beside!r} is a dependency: no caller gives it; replace it by caller(ctx, overrides=...)")
        files = {each.name: given.pop(each.name) for each in self.files if each.name in given}
        if not self.takes_model:
            return given, files
        if given.keys() != {INPUT}:
            raise TypeError("takes one input, called `input`")
        return given[INPUT], files


def read_handler(function: Callable[..., Any], refuse: Refuse) -> Handler:
    """Return how `function` wants to be called.

    Raises:
        DefinitionError: made by `refuse`: it cannot be a handler; the message says why and the way out.
    """
    hints = hints_of(function, refuse)
    if "return" not in hints:
        raise refuse("the result is not annotated: say what it returns (-> list[Agent]), clients are typed by it")
    is_generator = inspect.isasyncgenfunction(function)
    is_async = is_generator or inspect.iscoroutinefunction(function)
    output, has_ids = _output(function, hints["return"], refuse, is_generator=is_generator)
    parameters = _sort(function, hints, refuse)
    given, inputs = parameters.given, parameters.inputs
    session = next(
        (parameter for parameter in given if issubclass(plain(hints[parameter]), AsyncSession | Session)), ""
    )
    context = next((parameter for parameter in given if parameter != session), "")
    takes_model = INPUT in inputs
    model = _model(function, hints, inputs, refuse)
    beside = {} if model is None else model.model_fields
    twice = next((name for name in parameters.files if name in beside), None)
    if twice is not None:
        raise refuse(f"{twice!r} is a file and a field of the input, and callers give both by name: rename one")
    return Handler(
        session=session_of(hints[session], is_async, refuse) if session else None,
        session_name=session,
        context=_context(plain(hints[context]), refuse) if context else None,
        context_name=context,
        input_model=model,
        fields=() if takes_model else tuple(inputs),
        takes_model=takes_model,
        files=tuple(parameters.files.values()),
        callers=parameters.callers,
        aliases={},
        dependencies=tuple(parameters.dependencies.values()),
        given=parameters.of_request,
        is_async=is_async,
        is_generator=is_generator,
        has_ids=has_ids,
        output=output,
    )


def _output(function: Callable[..., Any], annotation: Any, refuse: Refuse, *, is_generator: bool) -> tuple[Any, bool]:
    """Return the annotation of a result, or of one of those that the function yields, and whether these have ids."""
    if inspect.isgeneratorfunction(function):
        raise refuse("a plain generator cannot wait for the client: write async def with yield")
    if not is_generator:
        if yields(annotation):
            raise refuse("it returns an iterator: write it as an async generator, which yields each value itself")
        return annotation, False
    item = item_of(annotation) if yields(annotation) else None
    if item is None:
        raise refuse("it yields its results: annotate one of them (-> AsyncIterator[Agent]), clients are typed by it")
    return item


def hints_of(function: Callable[..., Any], refuse: Refuse) -> dict[str, Any]:
    """Return the annotations of a function, resolved.

    Raises:
        DefinitionError: made by `refuse`: one cannot be.
    """
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, AttributeError, SyntaxError) as exc:
        raise refuse(f"an annotation cannot be resolved: {exc}. Import what it names at run time") from exc
    except TypeError as exc:
        has_no_hash = "unhashable" in str(exc)
        way = "give such metadata to a field of a model" if has_no_hash else "write it as typing wants it"
        raise refuse(f"an annotation cannot be evaluated: {exc}: {way}") from exc


def session_of(annotation: Any, is_async: bool, refuse: Refuse) -> AnyAsyncSession | AnySession:
    """Return the class of a session that is asked for.

    Raises:
        DefinitionError: made by `refuse`: such a function cannot be given one.
    """
    asked: AnyAsyncSession | AnySession = plain(annotation)
    if issubclass(asked, AsyncSession) is not is_async:
        mode = "an async" if issubclass(asked, AsyncSession) else "a sync"
        way = "async def with AsyncSession, or def with Session"
        raise refuse(f"{'async def' if is_async else 'def'} with {mode} session: use {way}")
    fault = session_fault(asked)
    if fault is not None:
        raise refuse(f"{asked.__name__} cannot be given: {fault}")
    return asked


@dataclass(frozen=True, slots=True)
class _Parameters:
    """The parameters of a handler, by who gives them: session and context, functions, the request, callers.

    Attributes:
        callers: the names of inputs and files, in order.
    """

    given: list[str]
    dependencies: dict[str, SubDependency]
    of_request: dict[str, type]
    inputs: dict[str, inspect.Parameter]
    files: dict[str, FileParameter]
    callers: tuple[str, ...]


def _sort(function: Callable[..., Any], hints: dict[str, Any], refuse: Refuse) -> _Parameters:
    """Return the parameters that the framework gives, and the inputs."""
    given: list[str] = []
    dependencies: dict[str, SubDependency] = {}
    of_request: dict[str, type] = {}
    inputs: dict[str, inspect.Parameter] = {}
    files: dict[str, FileParameter] = {}
    callers: list[str] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY):
            raise refuse(f"{parameter} has no name that a caller could give: write plain parameters")
        if name not in hints:
            raise refuse(f"{name!r} is not annotated: {_annotation_for(name)}")
        found = None if _is_session(hints[name]) else depends_in(name, hints[name], parameter.default)
        kind = request_class_in(plain(hints[name]))
        if found is None and kind is None and not _is_given(hints[name]):
            callers.append(name)
            if holds_file(hints[name]):
                files[name] = _file(name, hints[name], parameter, refuse)
                continue
            if file_mark_in(hints[name], parameter.default) is not None:
                raise refuse(f"{name!r} says File(...), and is no file: annotate it as UploadFile, and read that")
            if is_from_request(hints[name], parameter.default):
                raise refuse(
                    f"{name!r} is taken from the request: take it in a function, and that by Depends; or write it as "
                    "an input, without Header(), Query() and the like"
                )
            _require_input(name, hints[name], refuse)
            inputs[name] = parameter
            continue
        is_free = parameter.kind is inspect.Parameter.KEYWORD_ONLY or (found is not None and _has_default(parameter))
        if callers and not is_free:
            raise refuse(
                f"{name!r} stands after the input {callers[0]!r}: what the framework gives comes first, the "
                "session, then the context, then dependencies, and then what callers give"
            )
        if found is not None:
            dependencies[name] = found
        elif kind is not None:
            of_request[name] = kind
        elif (dependencies or of_request) and not is_free:
            raise refuse(
                f"{name!r} stands after {next(iter({**dependencies, **of_request}))!r}: the session comes first, then "
                "the context, then dependencies, and then what callers give"
            )
        else:
            given.append(name)
    _require_order(given, hints, refuse)
    return _Parameters(given, dependencies, of_request, inputs, files, tuple(callers))


def _file(name: str, annotation: Any, parameter: inspect.Parameter, refuse: Refuse) -> FileParameter:
    if name == INPUT:
        raise refuse("a file cannot be called 'input', as that is the part beside the files: call it otherwise")
    read = read_file_parameter(name, annotation, parameter.default)
    if isinstance(read, str):
        raise refuse(read)
    return read


def _is_session(annotation: Any) -> bool:
    return session_class_in(annotation) is not None


def _has_default(parameter: inspect.Parameter) -> bool:
    return parameter.default is not inspect.Parameter.empty


def _is_given(annotation: Any) -> bool:
    kind = plain(annotation)
    return isinstance(kind, type) and issubclass(kind, AsyncSession | Session | Context)


def _require_order(given: list[str], hints: dict[str, Any], refuse: Refuse) -> None:
    kinds = [issubclass(plain(hints[name]), Context) for name in given]
    for is_context, what in ((False, "session"), (True, "context")):
        if kinds.count(is_context) > 1:
            raise refuse(f"takes two {what}s, {' and '.join(given)}: one is given")
    if kinds == [True, False]:
        raise refuse(f"{given[1]!r} stands after the context {given[0]!r}: the session comes first, then the context")


def _require_input(name: str, annotation: Any, refuse: Refuse) -> None:
    """Refuse a parameter that looks like something that the framework gives, and is not."""
    kind = plain(annotation)
    mapped = mapped_class_in(annotation)
    if isinstance(kind, type) and issubclass(kind, _CONNECTIONS):
        raise refuse(
            f"{name!r} is a {kind.__name__}, and what a handler is given is a session: take an AsyncSession (async "
            "def) or a Session (def), of sqlmodel or sqlalchemy, and its connection() where you need one"
        )
    if any(isinstance(part, type) and issubclass(part, AsyncSession | Session | Context) for part in get_args(kind)):
        raise refuse(f"{name!r} is always given: write its class alone, without None or a default")
    if mapped is not None and name != INPUT and _is_a(mapped, annotation):
        raise refuse(mapped_context_message(name, mapped))
    if name in _CONTEXTS:
        raise refuse(
            f"{name!r} is a {getattr(kind, '__name__', kind)}, and a context is a frozen dataclass that extends "
            "Context: class Member(Login), for example, with the fields that handlers need"
        )
    if name in _SESSIONS:
        raise refuse(
            f"{name!r} is a {getattr(kind, '__name__', kind)}, and looks like a session: annotate it as AsyncSession "
            "(async def) or Session (def); call an input otherwise"
        )
    if name.startswith("_"):
        raise refuse(f"{name!r} cannot be a field of an input: give it a name that does not begin with _")
    if name in _OF_MODELS:
        raise refuse(f"{name!r} cannot be a field of an input, as pydantic's models have it: call it otherwise")


def _is_a(mapped: type, annotation: Any) -> bool:
    kind = plain(annotation)
    return kind is mapped or mapped in map(plain, get_args(kind))


def _annotation_for(name: str) -> str:
    if name in _SESSIONS:
        return "say AsyncSession (async def) or Session (def)"
    if name in _CONTEXTS:
        return "say which context it is, Login for example"
    if name == INPUT:
        return "give it a pydantic model, whose fields are what callers give"
    return "say its type, callers are typed by it"


def _context(kind: type[Context], refuse: Refuse) -> type[Context]:
    fault = context_fault(kind)
    if fault is not None:
        raise refuse(f"its context cannot be part of a cache key: {fault}")
    return kind


def _model(
    function: Callable[..., Any], hints: dict[str, Any], inputs: dict[str, inspect.Parameter], refuse: Refuse
) -> type[BaseModel] | None:
    if not inputs:
        return None
    if INPUT in inputs:
        others = sorted(inputs.keys() - {INPUT})
        if others:
            raise refuse(
                f"takes `input` and {others[0]!r}: either one model called input, whose fields are what callers give, "
                "or plain parameters"
            )
        return _given_model(plain(hints[INPUT]), refuse)
    return _made_model(function, dict(_fields(hints, inputs)), refuse)


def _given_model(model: Any, refuse: Refuse) -> type[BaseModel]:
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise refuse(f"input is {model!r}: a parameter of that name is a pydantic model, whose fields callers give")
    if issubclass(model, RootModel):
        raise refuse(f"input is the root model {model.__name__}: callers give fields by name, so give it some")
    if hasattr(model, "__table__"):
        raise refuse(
            f"input is the table {model.__name__}, and SQLModel does not validate tables: "
            "give it a model without table=True"
        )
    return model


def _fields(hints: dict[str, Any], inputs: dict[str, inspect.Parameter]) -> Iterator[tuple[str, Any]]:
    for name, parameter in inputs.items():
        yield name, (hints[name], ... if parameter.default is inspect.Parameter.empty else parameter.default)


def _made_model(function: Callable[..., Any], fields: dict[str, Any], refuse: Refuse) -> type[BaseModel]:
    name = "".join(part.capitalize() for part in function.__name__.split("_")) + "Input"
    # An input that nobody takes is a misspelt one; and a field may have the name of any method.
    config = ConfigDict(extra="forbid", protected_namespaces=())
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*shadows an attribute", category=UserWarning)
            model: type[BaseModel] = create_model(name, __config__=config, __module__=function.__module__, **fields)
    except (PydanticUserError, NameError, TypeError) as exc:
        place = next((f"input {name!r}" for name, (kind, _) in fields.items() if not has_schema(kind)), "its inputs")
        raise refuse(f"{place}: no schema can be made of it: {str(exc).strip().splitlines()[0]}") from exc
    return model


def has_schema(annotation: Any) -> bool:
    """Tell whether pydantic makes a schema of an annotation."""
    try:
        TypeAdapter(annotation)
    except Exception:  # a type's own functions may take part in it, and raise what they like
        return False
    return True
