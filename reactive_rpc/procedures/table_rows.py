"""Rows read back from JSON as instances of their table models.

SQLModel validates no table model: its constructor takes each value as it is, so the "9.99" that JSON spells would stay
a text in a column of decimals. Here the columns are read by their types first, and the instance is made of these.

They are read by their types alone. The constraints and validators of a table model were never asked when the row was
loaded, so a row may well break them, and it is not for whoever reads it back to find out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from pydantic_core import core_schema

from reactive_rpc.protocol.fidelity import CoreSchema

__all__ = ["with_typed_rows"]

_APART: Final = frozenset({"metadata", "serialization", "cls", "config", "function", "default", "expected", "members"})
"""What a core schema holds beside other schemas."""

_CONSTRAINTS: Final = frozenset(
    {
        "gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "max_digits", "decimal_places", "pattern",
        "strip_whitespace", "to_lower", "to_upper", "strict", "now_op", "now_utc_offset", "tz_constraint",
    }
)  # fmt: skip
_VALIDATORS: Final = ("function-after", "function-before", "function-wrap")


def with_typed_rows(schema: Any) -> Any:
    """Return a core schema in which table models are made of typed values; the same object if there is none."""
    if isinstance(schema, list | tuple):
        parts = [with_typed_rows(part) for part in schema]
        return type(schema)(parts) if any(new is not old for new, old in zip(parts, schema, strict=True)) else schema
    if not isinstance(schema, dict):
        return schema
    changed = {key: part if key in _APART else with_typed_rows(part) for key, part in schema.items()}
    changed = changed if any(changed[key] is not part for key, part in schema.items()) else schema
    return _typed(changed) if changed.get("type") == "model" and hasattr(changed["cls"], "__mapper__") else changed


def _typed(model: CoreSchema) -> Any:
    """Return the schema that reads the columns of a table model, and calls its constructor with them."""
    cls = model["cls"]
    inner = model["schema"]
    while inner["type"] != "model-fields":  # a validator of the model, which its constructor does not ask either
        inner = inner["schema"]
    asked = frozenset(decorator.func for decorator in cls.__pydantic_decorators__.field_validators.values())
    fields = {name: _column(field, asked) for name, field in inner["fields"].items()}
    read = core_schema.typed_dict_schema(fields, config=model.get("config"))
    spelled = {name: cls.model_fields[name].alias or name for name in fields}

    def make(values: dict[str, Any]) -> Any:
        return cls(**{spelled[name]: value for name, value in values.items()})

    ref = {"ref": model["ref"]} if "ref" in model else {}
    return core_schema.no_info_after_validator_function(make, read) | ref


def _column(field: CoreSchema, asked: frozenset[Any]) -> Any:
    """Return the field of one column, without a default, which the constructor knows; a hidden one may be missing."""
    schema, required = field["schema"], not field.get("serialization_exclude", False)
    if schema["type"] == "default":
        schema, required = schema["schema"], False
    alias = {"validation_alias": field["validation_alias"]} if "validation_alias" in field else {}
    return core_schema.typed_dict_field(_loosened(schema, asked), required=required) | alias


def _loosened(schema: Any, asked: frozenset[Any]) -> Any:
    """Return the schema of a column's type without the constraints and validators of its field."""
    if isinstance(schema, list | tuple):
        return type(schema)(_loosened(part, asked) for part in schema)
    if not isinstance(schema, Mapping) or schema.get("type") in ("model", "dataclass"):
        return schema  # instances of these have passed their own constructors
    if schema.get("type") in _VALIDATORS and _is_check(schema["function"]["function"], asked):
        return _loosened(schema["schema"], asked)
    return {
        key: part if key in _APART else _loosened(part, asked)
        for key, part in schema.items()
        if key not in _CONSTRAINTS
    }


def _is_check(function: Callable[..., Any], asked: frozenset[Any]) -> bool:
    """Tell whether a function is a field's validator, or stands for a constraint; else it is how a type is made."""
    return function in asked or (isinstance(function, partial) and function.func.__module__.startswith("pydantic."))
