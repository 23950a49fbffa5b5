"""Which inputs fit into a URL: models whose every field is one scalar that comes back from a text as it was.

A query with such an input is documented as GET with one typed parameter a field. Any other is a POST with a JSON
body: a list, a nested model or a union has no one spelling in a query string; `1` and `"1"` have the same; None has
none, and stands for a parameter that is left out; and a validator that is asked before pydantic's own would see a text
in one case and a number in the other.
"""

from __future__ import annotations

from typing import Final

from reactive_rpc.procedures.wire_codec import InputCodec
from reactive_rpc.protocol.fidelity import CoreSchema

__all__ = ["fits_query_string"]

_SCALARS: Final = frozenset({"str", "int", "float", "bool", "datetime", "date", "time", "timedelta", "decimal", "uuid"})


def fits_query_string(taken: InputCodec | None) -> bool:
    """Tell whether every field is a scalar, or an optional one whose default is None; no input fits too."""
    if taken is None:
        return True
    model = taken.model
    if model.model_config.get("extra") == "allow" or _is_prepared(taken.core_schema):
        return False
    return all(
        field.default_factory is None
        and (field.validation_alias is None or isinstance(field.validation_alias, str))
        and _fits(taken.fields[name], absent_is_none=not field.is_required() and field.default is None)
        for name, field in model.model_fields.items()
    )


def _is_prepared(schema: CoreSchema) -> bool:
    """Tell whether a validator of the application's own sees the whole input before it is validated."""
    while schema["type"] not in ("model-fields", "definitions"):
        if schema["type"] in ("function-before", "function-wrap", "function-plain", "definition-ref"):
            return True  # a reference is to a model that holds itself
        schema = schema["schema"]
    return schema["type"] == "definitions" and _is_prepared(schema["schema"])


def _fits(schema: CoreSchema, *, absent_is_none: bool) -> bool:
    kind = schema["type"]
    if kind in ("default", "definitions", "function-after"):
        return _fits(schema["schema"], absent_is_none=absent_is_none)
    if kind == "nullable":
        return absent_is_none and _fits(schema["schema"], absent_is_none=False)
    if kind == "enum":
        return issubclass(schema["cls"], int) or all(isinstance(member.value, str) for member in schema["members"])
    if kind == "literal":
        return all(type(value) is str for value in schema["expected"])
    return kind in _SCALARS
