"""Whether FastAPI can document a procedure.

FastAPI validates the document of a whole application when somebody first asks for it, and fails for all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, cast

from fastapi.openapi.models import Schema
from pydantic import ValidationError
from pydantic.json_schema import GenerateJsonSchema

from reactive_rpc.procedures.declared_errors import DeclaredError
from reactive_rpc.procedures.procedure import AnyProcedure

__all__ = ["require_documentable"]


def require_documentable(procedure: AnyProcedure) -> None:
    """Refuse a procedure whose JSON schemas would make the document of the whole application fail.

    Raises:
        DefinitionError: the message names the function, the place in the schema, and what FastAPI says of it.
    """
    for what, written in _json_schemas(procedure):
        try:
            Schema.model_validate(written)
        except ValidationError as exc:
            first = exc.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"] if part != "Schema")
            raise procedure.fault(
                f"{what}: FastAPI cannot document it: {place}: {first['msg']}; "
                "put right what Field(...), WithJsonSchema or json_schema_extra say"
            ) from exc


def _json_schemas(procedure: AnyProcedure) -> Iterator[tuple[str, dict[str, Any]]]:
    if procedure.input is not None:
        yield "input", _json_schema(procedure.input.core_schema, "validation")
    for error in procedure.raises:
        if issubclass(error, DeclaredError):
            yield f"{error.__name__} in raises", _json_schema(error.details_codec.adapter.core_schema, "serialization")
    yield "the result", _json_schema(procedure.output.adapter.core_schema, "serialization")


def _json_schema(schema: Mapping[str, Any], mode: Literal["validation", "serialization"]) -> dict[str, Any]:
    return GenerateJsonSchema().generate(cast(Any, schema), mode)
