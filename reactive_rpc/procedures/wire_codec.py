"""Codecs of a procedure's input and output: validation and JSON. A type that JSON cannot carry stops the server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, cast

from pydantic import BaseModel, PydanticUserError, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import CoreConfig, CoreSchema, PydanticOmit, PydanticSerializationError, to_jsonable_python

from reactive_rpc.compat.pydantic import whole_validator
from reactive_rpc.procedures.table_rows import with_typed_rows
from reactive_rpc.procedures.wire_types import Fault, declared_fields, faults, field_schemas
from reactive_rpc.protocol.fidelity import Inspector, Unfit, as_spelled

__all__ = ["InputCodec", "OutputCodec", "UnsupportedTypeError"]

_Mode = Literal["validation", "serialization"]

_ENCODING: Final = CoreConfig(ser_json_bytes="base64", val_json_bytes="base64")


class UnsupportedTypeError(Exception):
    """A type cannot be carried; the message names the field, the fault and the way out."""


class InputCodec:
    """Reads a procedure's input.

    Attributes:
        model: of the inputs that a handler is given.
        core_schema: by which pydantic validates.
        fields: the same of each field, by its name in Python.

    Raises:
        UnsupportedTypeError: it cannot be read from JSON as it was.
    """

    def __init__(self, model: type[BaseModel]) -> None:
        adapter, schema = _adapter(model, "input")
        _require_supported(schema, "input", taken=True)
        _require_documented(model, schema, "input", "validation")
        self.model = model
        self.core_schema = schema
        self.fields = field_schemas(schema)
        self._validator = _validator(adapter, schema)

    def from_json(self, body: bytes) -> BaseModel:
        """Return the input that a body spells; pydantic's `ValidationError` where it spells none."""
        validated: BaseModel = self._validator.validate_json(body)
        return validated


class OutputCodec:
    """Writes a procedure's output.

    Args:
        annotation: its type.
        what: names it in messages.

    Attributes:
        adapter: validates and writes it.

    Raises:
        UnsupportedTypeError: it cannot be written so that a client reads the same, or not be documented.
    """

    def __init__(self, annotation: Any, *, what: str = "the result") -> None:
        _require_hash(annotation, what)
        self.adapter, schema = _adapter(annotation, what)
        _require_supported(schema, what, taken=False)
        _require_documented(annotation, schema, what, "serialization")
        self._inspector = Inspector(schema)
        self._validator = _validator(self.adapter, with_typed_rows(schema))

    def unfit(self, output: object, body: bytes) -> Unfit | None:
        """Return the first part of a validated result that would not arrive as it is; `body` is the result as JSON."""
        if self._inspector.is_needed and (self._inspector.always or b"null" in body):
            return self._inspector.unfit(output)
        return None

    def from_json(self, body: bytes) -> Any:
        """Return the result that a body spells, in the types of the annotation: rows of table models too."""
        return self._validator.validate_json(body)


def _adapter(annotation: Any, what: str) -> tuple[TypeAdapter[Any], Mapping[str, Any]]:
    try:
        adapter = _with_encoding(annotation)
        return adapter, adapter.core_schema
    except Exception as exc:  # a type's own functions may take part in it, and raise what they like
        where = next(_fields_without_schema(annotation), "")
        raise UnsupportedTypeError(f"{what}{where}: no schema can be made of it: {_first_line(exc)}") from exc


def _with_encoding(annotation: Any) -> TypeAdapter[Any]:
    """Return the adapter that writes bytes as base64; a class says itself how it writes them."""
    try:
        return TypeAdapter(annotation, config={"ser_json_bytes": "base64", "val_json_bytes": "base64"})
    except PydanticUserError as exc:
        if exc.code != "type-adapter-config-unused":
            raise
        return TypeAdapter(annotation)


def _fields_without_schema(annotation: Any) -> Iterator[str]:
    fields = getattr(annotation, "model_fields", None) or getattr(annotation, "__annotations__", {})
    for name, field in fields.items() if isinstance(fields, Mapping) else ():
        try:
            TypeAdapter(cast(Any, getattr(field, "annotation", field)))
        except Exception:  # as above
            yield f".{name}"


def _require_supported(schema: Mapping[str, Any], what: str, *, taken: bool) -> None:
    fault = next(faults(schema, taken=taken), None)
    if fault is not None:
        raise UnsupportedTypeError(_said(what, fault))


def _said(what: str, fault: Fault) -> str:
    place = "" if not fault.where else f"{fault.where}" if fault.where[0] == "[" else f".{fault.where}"
    return f"{what}{place}: {fault.message}"


def _require_hash(annotation: Any, what: str) -> None:
    """Refuse an annotation that FastAPI cannot document: it keeps those of results in sets."""
    try:
        hash(annotation)
    except TypeError as exc:
        raise UnsupportedTypeError(
            f"{what}: metadata of its annotation has no hash ({exc}), which FastAPI needs to document it: "
            "give it to a field of a model and return that, or leave it out"
        ) from exc


def _require_documented(annotation: Any, schema: Mapping[str, Any], what: str, mode: _Mode) -> None:
    where, cause = "", _undocumented(schema, mode)
    if cause is not None or mode == "validation":
        # A field that the document leaves out can be passed by no client; left out of a result, it is not missed.
        where, cause = next(_undocumented_fields(annotation, schema, mode), (where, cause))
    if cause is not None:
        raise UnsupportedTypeError(f"{what}{where}: {_fault_of_document(cause)}") from cause


def _fault_of_document(cause: Exception) -> str:
    if isinstance(cause, PydanticOmit):
        return (
            "it is left out of the OpenAPI document, so no client knows of it: "
            "take away SkipJsonSchema, or whatever else leaves it without a JSON schema"
        )
    way = (
        "what json_schema_extra, examples and the like say must be JSON"
        if isinstance(cause, PydanticSerializationError)
        else ""
    )
    return "; ".join(filter(None, [f"it has no place in an OpenAPI document: {_first_line(cause)}", way]))


def _undocumented(schema: Mapping[str, Any], mode: _Mode) -> Exception | None:
    """Return why a schema cannot be documented, or not as JSON; None where it can."""
    try:
        to_jsonable_python(GenerateJsonSchema().generate(cast(Any, schema), mode))
    except Exception as exc:  # as above
        return exc
    return None


def _undocumented_fields(annotation: Any, schema: Mapping[str, Any], mode: _Mode) -> Iterator[tuple[str, Exception]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in declared_fields(schema).items():
            cause = _undocumented(field, mode)
            if cause is not None:
                yield f".{name}", cause


def _validator(adapter: TypeAdapter[Any], schema: Mapping[str, Any]) -> Any:
    """Return the validator by a schema in which unions with text keep their texts: pydantic's own if that is it."""
    spelled = as_spelled(schema)
    if spelled is adapter.core_schema:
        return adapter.validator
    # A model in it would bring its own validator along, in which nothing has been changed.
    return whole_validator(cast(CoreSchema, spelled), _ENCODING)


def _first_line(exc: Exception) -> str:
    return str(exc).strip().split("\n")[0]
