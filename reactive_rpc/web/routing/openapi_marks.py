"""Marks in the OpenAPI document: what JSON Schema alone does not say of the types of our procedures.

FastAPI makes one document of all routes of an application with one generator of its own, and offers no way to give it
another. So what our routes declare is annotated with `Marked`, which is asked for its JSON schema in the course of
that: it turns the generator at work into one that writes marks, and has it write again what it has written before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from reactive_rpc.procedures.wire_types import FORMATS, class_of, is_written_otherwise, mark_of
from reactive_rpc.protocol.marks import KEYS, MAY_LACK, TYPE

__all__ = ["Marked", "marked_schema"]


class Marked:
    """In `Annotated[T, Marked()]`: document it with marks.

    Args:
        schema: the core schema to document in T's place. A parameter of a URL is validated by its model alone, so what
            FastAPI is told of its type need not be more than that it is a text.
    """

    def __init__(self, schema: Mapping[str, Any] | None = None) -> None:
        self._schema = schema

    @property
    def is_another(self) -> bool:
        """Whether another type is documented than what this stands at."""
        return self._schema is not None

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> dict[str, Any]:
        # INVARIANT (a model stays what it was): pydantic notes annotations in the schema that it gets, which of a model
        # that contains itself is the model's own; each application would add one to all before it, and go one deeper.
        schema: dict[str, Any] = handler(source)
        metadata = {key: [*value] if isinstance(value, list) else value for key, value in _metadata(schema).items()}
        return {**schema, "metadata": metadata}

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        generator: GenerateJsonSchema = handler.generate_json_schema
        if not isinstance(generator, _MarkingGenerator):
            generator.__class__ = cast(Any, type("MarkingGenerator", (_MarkingGenerator, type(generator)), {}))
            cast(_MarkingGenerator, generator).unmarked = set(generator.definitions)
        if self._schema is not None:
            return generator.generate_inner(cast(Any, self._schema))
        written: dict[str, Any] = handler(core_schema)
        if "$ref" in written:
            return written
        own = _with_own_format(written, core_schema, is_result=generator.mode == "serialization")
        return {**own, **mark_of(core_schema)}


def marked_schema(adapter: TypeAdapter[Any]) -> dict[str, Any]:
    """Return the JSON schema, with marks, of the values that an adapter writes."""
    generator = _MarkingGenerator()
    generator.unmarked = set()
    return generator.generate(adapter.core_schema, mode="serialization")


class _MarkingGenerator(GenerateJsonSchema):
    """Writes marks.

    Attributes:
        unmarked: the definitions that were written before it wrote marks. FastAPI's run comes past each of them again,
            as it goes over all there is twice, and each is then written anew.
    """

    unmarked: set[Any]

    def generate_inner(self, schema: Any) -> dict[str, Any]:
        written = self._written(schema)
        if _may_be_lacking(schema):
            return {**written, MAY_LACK: True}
        if self.mode == "serialization" and is_written_otherwise(schema):
            return written
        marks = mark_of(schema)
        keys = schema.get("keys_schema", {"type": "str"})
        if keys["type"] not in ("str", "any"):
            marks = {TYPE: "map", **marks, KEYS: self.generate_inner(keys)}
        if marks and "$ref" in written:
            self.resolve_ref_schema(written).update(marks)
            return written
        return {**_with_own_format(written, schema, is_result=self.mode == "serialization"), **marks}

    def _written(self, schema: Any) -> dict[str, Any]:
        name = self.core_to_defs_refs.get((schema.get("ref"), self.mode))
        if name is not None and name in self.unmarked:
            self.unmarked.discard(name)
            self.definitions.pop(name, None)
        return super().generate_inner(schema)


def _with_own_format(written: dict[str, Any], schema: Mapping[str, Any], *, is_result: bool) -> dict[str, Any]:
    """Return a JSON schema whose `format` is that of the type, whatever an author has said for people to read.

    pydantic itself says `uuid4` of a UUID4; a text of which `json_schema_extra` says `date` is a text all the same.
    """
    while schema["type"] in _FIELDS or (schema["type"] in _AFTER and class_of(schema) is None):
        schema = schema["schema"]
    if "$ref" in written or (is_result and is_written_otherwise(schema)) or _stands_for_another(schema):
        return written
    own = FORMATS.get(schema["type"])
    if own is not None and (written.get("type") == "string" or own == "decimal"):
        return {**written, "format": own}
    if schema["type"] in _FORMLESS and written.get("format") in FORMATS.values():
        return {name: value for name, value in written.items() if name != "format"}
    return written


def _may_be_lacking(schema: Mapping[str, Any]) -> bool:
    """Tell whether what is written may lack a field."""
    return schema.get("serialization_exclude_if") is not None or (
        schema["type"] == "typed-dict-field" and schema.get("required") is False
    )


def _stands_for_another(schema: Mapping[str, Any]) -> bool:
    """Tell whether `Marked` has documented another type in its place: a parameter of a URL."""
    metadata = _metadata(schema)
    functions = [*metadata.get("pydantic_js_functions", ()), *metadata.get("pydantic_js_annotation_functions", ())]
    owners = [getattr(function, "__self__", None) for function in functions]
    return any(isinstance(owner, Marked) and owner.is_another for owner in owners)


def _metadata(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return cast(Mapping[str, Any], schema.get("metadata") or {})


_FIELDS: Final = ("model-field", "dataclass-field", "typed-dict-field")
_AFTER: Final = ("default", "function-after", "custom-error")
_FORMLESS: Final = ("str", "nullable", "union", "tagged-union")
