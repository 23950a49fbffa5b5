"""`reactive-rpc functions`: each procedure with its context, its steps, and each option with the line that set it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Final, Literal

import typer
from rich.console import RenderableType
from rich.text import Text
from sqlalchemy import Table

from reactive_rpc.app import ReactiveRPC
from reactive_rpc.cli.reports import table_of, write
from reactive_rpc.cli.shared import FormatOption, Rpc, failure, load
from reactive_rpc.procedures.cache_options import Cache
from reactive_rpc.procedures.options import OPTIONS
from reactive_rpc.procedures.procedure import AnyProcedure, place_of
from reactive_rpc.procedures.steps import Step
from reactive_rpc.procedures.topics import KeyedTopic, Topic
from reactive_rpc.settings import Settings

__all__ = ["FunctionsReport", "functions"]

Path = Annotated[str, typer.Argument(help="Of one procedure, or of a group: notes.get_all, notes. All if left out.")]

_OF_SETTINGS: Final = frozenset({"cache.freshness", "isolation"})
"""The options that the settings say where nobody else does."""


@dataclass(frozen=True, kw_only=True)
class OptionLine:
    """An effective option of a procedure.

    Attributes:
        value: as JSON has it; functions and models by their names.
        set_by: `lines`: those of `where`; else `settings`, or `default`.
    """

    name: str
    value: Any
    set_by: Literal["lines", "settings", "default"]
    where: Sequence[str] = ()

    @property
    def origin(self) -> str:
        """Where it was set, for people."""
        if self.set_by == "settings":
            return f"Settings.{self.name.rpartition('.')[2]}"
        return ", ".join(self.where) or self.set_by


@dataclass(frozen=True, kw_only=True)
class FunctionLine:
    """A procedure as it is defined.

    Attributes:
        where: the file and the line of the function.
        root: the class of the context that calls begin with.
        context: that of the context that the handler gets; None if it gets none.
        steps: the steps and wrappers, in order.
    """

    path: str
    kind: str
    where: str
    root: str
    context: str | None
    steps: Sequence[str]
    options: Sequence[OptionLine]


@dataclass(frozen=True, kw_only=True)
class FunctionsReport:
    """The procedures of an application."""

    functions: Sequence[FunctionLine]

    @property
    def ok(self) -> bool:
        """It is a list, in which nothing can be wrong."""
        return True

    def lines(self) -> Iterator[RenderableType]:
        """Yield of each procedure a few lines and a table."""
        for each in self.functions:
            yield Text(f"{each.path}  {each.kind}, {each.where}")
            yield Text(f"  context  {each.root}, of which the handler gets {each.context or 'nothing'}")
            for number, step in enumerate(each.steps):
                yield Text(f"  {'steps' if number == 0 else '':8} {step}")
            rows = ((option.name, _spelled(option.value), option.origin) for option in each.options)
            yield table_of("", ("option", "value", "set by"), rows)


def functions(rpc: Rpc, path: Path = "", format: FormatOption = "text") -> None:
    """Print each procedure with its kind, context, steps and options, and which line has set each option.

    No database is opened.
    """
    found: ReactiveRPC = load(rpc, ReactiveRPC)
    chosen = {
        name: procedure
        for name, procedure in found.functions.items()
        if not path or name == path or name.startswith(f"{path}.")
    }
    if not chosen:
        raise failure(f"{rpc} has no procedure and no group {path!r}: it has {', '.join(found.functions) or 'none'}")
    lines = [_line(name, procedure, found.admin.settings) for name, procedure in chosen.items()]
    write(FunctionsReport(functions=lines), format)


def _line(path: str, procedure: AnyProcedure, settings: Settings) -> FunctionLine:
    context = procedure.handler.context
    return FunctionLine(
        path=path,
        kind=procedure.kind,
        where=f"{procedure.name} ({place_of(procedure.function)})",
        root="nobody (public)" if procedure.options.public else procedure.chain.root.__name__,
        context=None if context is None else context.__name__,
        steps=[_step(part) for part in procedure.chain.parts],
        options=list(_options(path, procedure, settings)),
    )


def _step(part: Any) -> str:
    if isinstance(part, Step):
        return part.name if part.gives is None else f"{part.name} -> {part.gives.__name__}"
    around = "each call" if part.on == "call" else "each run of the handler"
    return f"{part.function.__module__}.{part.function.__qualname__}, around {around}"


def _options(path: str, procedure: AnyProcedure, settings: Settings) -> Iterator[OptionLine]:
    """Yield the effective options of a procedure; `cache` part by part."""
    options = procedure.options
    values = {name: getattr(options, name) for name in sorted(OPTIONS[procedure.kind])}
    values["tags"] = values["tags"] or [path.rpartition(".")[0]]
    if "cache" in values and values["cache"] is not False:
        cache = values.pop("cache") or Cache()
        values |= {f"cache.{field.name}": getattr(cache, field.name) for field in fields(Cache)}
    for name, value in values.items():
        where = options.where.get(name.partition(".")[0], ())
        if value is None and name in _OF_SETTINGS:
            effective = getattr(settings, name.rpartition(".")[2])
            yield OptionLine(name=name, value=effective, set_by="settings")
        else:
            yield OptionLine(name=name, value=_named(value), set_by="lines" if where else "default", where=where)


def _named(value: Any) -> Any:
    """Return a value as JSON has it: what it has no type for by its name."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(_named(key)): _named(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_named(item) for item in value]
    if isinstance(value, KeyedTopic):
        return f"topic {value.topic.name}, by a key"
    if isinstance(value, Topic):
        return f"topic {value.name}"
    if isinstance(value, Table):
        return value.fullname
    return getattr(value, "__name__", repr(value))


def _spelled(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_spelled, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_spelled(item)}" for name, item in value.items()) or "none"
    if value is None or isinstance(value, bool):
        return "none" if value is None else "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
