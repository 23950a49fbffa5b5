"""Every parameter of the public names is documented."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest

from reactive_rpc import Definer
from reactive_rpc.procedures.options import MutationOptions, ProcedureOptions, QueryOptions

MODULES = ("reactive_rpc", "reactive_rpc.client", "reactive_rpc.testing")
REFERS = re.compile(r"(?:arguments as for|arguments and errors as in|the rest as in|Do as) `")
"""A docstring may refer to that of another name, which documents the same parameters."""

OPTIONS = {field.name for field in dataclasses.fields(ProcedureOptions)} - {"kind", "where"}


def documented_functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the public functions, the classes (for their constructors) and their public methods, with their names."""
    for module in MODULES:
        for name in importlib.import_module(module).__all__:
            value = getattr(importlib.import_module(module), name)
            if inspect.isfunction(value):
                yield f"{module}.{name}", value
            elif inspect.isclass(value) and value.__module__.startswith("reactive_rpc"):
                if "__init__" in vars(value) and not is_protocol(value):
                    yield f"{module}.{name}", value
                for method, member in vars(value).items():
                    function = getattr(member, "__func__", member)
                    if inspect.isfunction(function) and not method.startswith("_"):
                        yield f"{module}.{name}.{method}", function


def is_protocol(class_: type) -> bool:
    """Tell whether nobody constructs the class."""
    return Protocol in class_.__bases__


def undocumented(function: Callable[..., Any], doc: str) -> list[str]:
    """Return which parameters a docstring does not name."""
    if REFERS.search(doc):
        return []
    named = [
        each.name
        for each in inspect.signature(function).parameters.values()
        if each.name not in ("self", "cls") and not (each.kind is each.VAR_KEYWORD or each.name.startswith("_"))
    ]
    return [name for name in named if not re.search(rf"\b{name}\b", doc)]


@pytest.mark.parametrize(("name", "function"), [*documented_functions()])
def test_every_parameter_is_documented(name: str, function: Callable[..., Any]) -> None:
    """By a line under Args or Attributes, or in a sentence."""
    assert undocumented(function, inspect.getdoc(function) or "") == [], name


def test_the_options_are_the_same_for_checkers_at_run_time_and_in_the_docstring() -> None:
    """The typed dictionaries type what `ProcedureOptions` holds, and `Definer` documents each."""
    typed = {*QueryOptions.__annotations__, *MutationOptions.__annotations__}
    assert typed == OPTIONS
    described = re.findall(r"^    ([a-z_]+): ", inspect.getdoc(Definer) or "", re.MULTILINE)
    assert set(described) == OPTIONS
    assert len(described) == len(OPTIONS)


def test_a_parameter_that_is_left_out_is_found() -> None:
    """The check can fail."""

    def double(number: int, times: int = 2) -> int:
        """Multiply a number."""
        return number * times

    assert undocumented(double, double.__doc__ or "") == ["times"]
