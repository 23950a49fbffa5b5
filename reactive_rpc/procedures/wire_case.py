"""Names on the wire: Python's own, or in camel case.

In camel case a procedure is registered as a copy whose path, inputs and files have other names for callers; its handler
keeps Python's. Models of the application's own say their names themselves: those that leave one as it is are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import replace
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from pydantic.json_schema import GenerateJsonSchema

from reactive_rpc.procedures.declared_errors import DeclaredError
from reactive_rpc.procedures.procedure import AnyProcedure
from reactive_rpc.procedures.wire_codec import InputCodec

__all__ = ["camel_path", "in_camel_case", "to_camel", "with_camel_names"]


def camel_path(path: str) -> str:
    """Return a path with each of its parts in camel case.

    >>> camel_path("team_rooms.get_all")
    'teamRooms.getAll'
    """
    return ".".join(to_camel(part) for part in path.split("."))


def with_camel_names(model: type[BaseModel]) -> type[BaseModel]:
    """Return the model with names in camel case on the wire, where its fields do not say others."""
    attributes = {
        "__module__": model.__module__,
        "__doc__": model.__doc__,
        "model_config": ConfigDict(alias_generator=to_camel),
    }
    made: Any = type(model)
    return cast(type[BaseModel], made(model.__name__, (model,), attributes))


def in_camel_case(path: str, procedure: AnyProcedure) -> AnyProcedure:
    """Return a copy of a procedure with names in camel case on the wire.

    Args:
        path: of the copy, for messages.

    Raises:
        DefinitionError: a model of the application's own has a name that would go out as Python has it.
    """
    made = copy(procedure)
    handler = made.handler
    files = tuple(replace(each, part=to_camel(each.name)) for each in handler.files)
    made.handler = replace(handler, files=files)
    if handler.fields and handler.input_model is not None:
        model = with_camel_names(handler.input_model)
        aliases = {name: field.validation_alias or name for name, field in model.model_fields.items()}
        made.handler = replace(made.handler, input_model=model, aliases=cast(Mapping[str, str], aliases))
        made.input = InputCodec(model)
    made.wire_case = "camel"
    for where in _python_names(made):
        raise procedure.fault(
            f"{path} has names in camel case on the wire, and {where} would go out as it is: give its class "
            "model_config = ConfigDict(alias_generator=to_camel), or the field an alias"
        )
    return made


def _python_names(procedure: AnyProcedure) -> Iterator[str]:
    """Yield the fields that have an underscore on the wire, with their classes."""
    if procedure.input is not None:
        yield from _names_in(procedure.input.core_schema, "validation")
    for error in procedure.raises:
        if issubclass(error, DeclaredError):
            made = with_camel_names(error.details_model)
            yield from _names_in(made.__pydantic_core_schema__, "serialization")
    yield from _names_in(procedure.output.adapter.core_schema, "serialization")


def _names_in(schema: Mapping[str, Any], mode: Literal["validation", "serialization"]) -> Iterator[str]:
    written = GenerateJsonSchema().generate(cast(Any, schema), mode)
    for one in (written, *written.get("$defs", {}).values()):
        yield from (f"{one.get('title', 'a field')}.{name}" for name in one.get("properties", {}) if "_" in name)
