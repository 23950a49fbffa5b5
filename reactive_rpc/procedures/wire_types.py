"""Which types a procedure may take and return: those that come back from JSON as they went in, and no others.

pydantic can spell more in JSON than it can read back: a `re.Pattern` loses its flags, a `SecretStr` its text, bytes
become UTF-8 or an error. A procedure whose types cannot be carried is refused where it is defined, with the field and
a type to use in its place. What is looked at is pydantic's core schema, which says what is validated and serialized
whatever the annotation was spelled like; its kinds are named in `pydantic_core.core_schema`.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import PurePath
from typing import Any, Final, NamedTuple, cast

from pydantic import EncodedBytes, EncodedStr, Secret, SecretBytes, SecretStr, networks

from reactive_rpc.compat.fastapi import UploadFile
from reactive_rpc.protocol.fidelity import CoreSchema
from reactive_rpc.protocol.marks import ENUM_NAMES, NAIVE, TYPE, URL

__all__ = [
    "FORMATS",
    "MULTI_HOST_URLS",
    "Fault",
    "class_of",
    "declared_fields",
    "faults",
    "field_schemas",
    "is_written_otherwise",
    "mark_of",
]


class Fault(NamedTuple):
    """What cannot be carried: `where` is the path from the whole (`items[].at`), empty for the whole itself."""

    where: str
    message: str


_MARKS: Final[dict[str, dict[str, Any]]] = {
    "fraction": {TYPE: "fraction"},
    "complex": {TYPE: "complex"},
    "bytes": {TYPE: "bytes", "contentEncoding": "base64"},
    "set": {TYPE: "set"},
    "frozenset": {TYPE: "frozenset"},
    "tuple": {TYPE: "tuple"},
    "named-tuple": {TYPE: "tuple"},
    "deque": {TYPE: "deque"},
    "ordered-dict": {TYPE: "ordered-dict"},
    "counter": {TYPE: "counter"},
}
_CLASS_MARKS: Final[dict[type, dict[str, Any]]] = {
    ipaddress.IPv4Address: {"format": "ipv4"},
    ipaddress.IPv6Address: {"format": "ipv6"},
    ipaddress.IPv4Network: {TYPE: "ipv4-network"},
    ipaddress.IPv6Network: {TYPE: "ipv6-network"},
    ipaddress.IPv4Interface: {TYPE: "ipv4-interface"},
    ipaddress.IPv6Interface: {TYPE: "ipv6-interface"},
    cast(type, networks.IPvAnyAddress): {TYPE: "ip-address"},
    cast(type, networks.IPvAnyNetwork): {TYPE: "ip-network"},
    cast(type, networks.IPvAnyInterface): {TYPE: "ip-interface"},
    SecretStr: {TYPE: "secret"},
}
MULTI_HOST_URLS: Final = tuple(
    cls for name, cls in vars(networks).items() if isinstance(cls, type) and hasattr(cls, "hosts") and name[0] != "_"
)
"""URLs that name several hosts, which are no `AnyUrl`."""

FORMATS: Final = {
    "decimal": "decimal",
    "datetime": "date-time",
    "date": "date",
    "time": "time",
    "timedelta": "duration",
    "uuid": "uuid",
}
"""What generators read as a type, by the kind of core schema that it stands for."""

_ENUM_MARKS: Final = ((str, "str-enum"), (int, "int-enum"), (object, "enum"))
_SAFE_INTEGER: Final = 2**53 - 1


def mark_of(schema: CoreSchema) -> dict[str, Any]:
    """Return what the JSON schema of a core schema says beside pydantic; empty where JSON has the type itself."""
    kind = schema["type"]
    if kind == "enum":
        base = next(mark for base, mark in _ENUM_MARKS if issubclass(schema["cls"], base))
        return {ENUM_NAMES: [member.name for member in schema["members"]], TYPE: base}
    if kind == "int":
        bounds = [abs(schema[bound]) for bound in ("ge", "gt", "le", "lt") if schema.get(bound) is not None]
        return {TYPE: "bigint"} if max(bounds, default=0) > _SAFE_INTEGER else {}
    if kind == "datetime" and schema.get("tz_constraint") == "naive":
        return {TYPE: NAIVE}
    return _MARKS.get(kind) or _class_mark(class_of(schema))


def _class_mark(found: type | None) -> dict[str, Any]:
    if found is None:
        return {}
    if issubclass(found, PurePath):
        return {TYPE: "path"}
    if found.__module__ == networks.__name__ and issubclass(found, (networks.AnyUrl, *MULTI_HOST_URLS)):
        return {TYPE: f"{URL}:{found.__name__}"}
    return _CLASS_MARKS.get(found, {})


def class_of(schema: CoreSchema) -> type | None:
    """Return the class of which a schema that pydantic made makes instances; None if it makes none."""
    if schema["type"] == "lax-or-strict":
        return class_of(schema["strict_schema"])
    if schema["type"] in ("json-or-python", "chain"):
        return _instance_of(schema)
    if schema["type"] in ("function-wrap", "function-plain", "function-after"):
        own = schema["function"]["function"]
        functions = [own, *schema.get("metadata", {}).get("pydantic_js_functions", ())]
        owners = [getattr(function, "__self__", None) for function in functions]
        return next((one for one in owners if isinstance(one, type) and one.__module__ in _PYDANTIC), None)
    return None


def _instance_of(schema: CoreSchema) -> type | None:
    """Return the class in `json-or-python(_, is-instance)`, also where that stands first in a chain or a union."""
    while schema["type"] in ("json-or-python", "chain", "union"):
        parts = schema.get("steps") or schema.get("choices")
        schema = parts[0] if parts else schema["python_schema"]
    cls = schema.get("cls") if schema["type"] == "is-instance" else None
    return cls if isinstance(cls, type) else None


def field_schemas(schema: CoreSchema) -> Mapping[str, CoreSchema]:
    """Return the schemas of a model's fields, by name, out of the model's own core schema."""
    fields, shared = _model_fields(schema)
    return {name: _with_definitions(field["schema"], shared) for name, field in fields.items()}


def declared_fields(schema: CoreSchema) -> Mapping[str, CoreSchema]:
    """Return the same with what each field says beside its type: title, description, examples."""
    fields, shared = _model_fields(schema)
    return {name: _with_definitions(field, shared) for name, field in fields.items()}


def _model_fields(schema: CoreSchema) -> tuple[Mapping[str, CoreSchema], list[CoreSchema]]:
    definitions: dict[str, CoreSchema] = {}
    while schema["type"] != "model-fields":
        definitions |= {one["ref"]: one for one in schema.get("definitions", ())}
        schema = definitions[schema["schema_ref"]] if schema["type"] == "definition-ref" else schema["schema"]
    return schema["fields"], [*definitions.values()]


def _with_definitions(schema: CoreSchema, shared: list[CoreSchema]) -> CoreSchema:
    return {"type": "definitions", "schema": schema, "definitions": shared} if shared else schema


def faults(schema: CoreSchema, *, taken: bool) -> Iterator[Fault]:
    """Yield what in a core schema cannot be carried.

    Args:
        schema: of an input model, or of a result.
        taken: whether it is an input, which is read from JSON and validated; a result is written.
    """
    yield from _Walk(taken).walk(schema, "", _ENCODING)


_PYDANTIC: Final = ("pydantic.networks", "pydantic.types")
_ENCODING: Final = {"ser_json_bytes": "base64", "val_json_bytes": "base64"}
"""How the server and the client spell what stands in no class that says otherwise."""

_REFUSED: Final = {
    "json": "it is JSON within a text of JSON: take the type itself, without Json[...]",
    "generator": "an iterator can be read once and is not carried: use list[...]",
    "callable": "a function cannot be carried",
    "is-subclass": "a class cannot be carried: use its name, or an Enum",
    "call": "the arguments of a function cannot be carried, nor a NamedTuple before pydantic 2.14: use a model",
    "arguments": "the arguments of a function cannot be carried: use a model",
    "arguments-v3": "the arguments of a function cannot be carried: use a model",
    "frozendict": "JSON has no such type: use dict[...]",
    "is-instance": "pydantic does not know how it is spelled in JSON: use a type that pydantic documents, or a model",
}
# Until 2.14 pydantic makes these by functions of its own, out of which neither a mark nor the items can be told.
_SINCE_2_14: Final = (Fraction, Counter, OrderedDict, deque)
_REFUSED_CLASSES: Final[dict[type, str]] = {
    **dict.fromkeys(_SINCE_2_14, "it needs pydantic 2.14 or newer: upgrade it, or use str, list[...] or dict[...]"),
    SecretBytes: "secret bytes have no spelling in JSON: use SecretStr",
    Secret: "it is written as asterisks: use SecretStr in an input, and leave it out of a result",
    networks.NameEmail: "a client cannot make one: use a model with a name and an EmailStr",
    defaultdict: "JSON cannot carry its default: use dict[...]",
}
_INNER: Final = ("schema", "items_schema", "json_schema", "keys_schema", "values_schema", "strict_schema")
_WITH_FIELDS: Final = ("model-fields", "dataclass-args", "typed-dict", "named-tuple")
_TEMPORAL: Final = ("datetime", "date", "time", "timedelta")
_KEYS: Final = frozenset({"str", "int", "float", "bool", "decimal", "fraction", "uuid", *_TEMPORAL})
_ARRAYS: Final = frozenset({"list", "set", "frozenset", "deque", "tuple", "named-tuple"})


class _Walk:
    """One look at a core schema; a class that stands in it more than once is looked at once."""

    def __init__(self, taken: bool) -> None:
        self._taken = taken
        self._seen: set[str] = set()
        self._definitions: dict[str, CoreSchema] = {}

    def walk(self, schema: CoreSchema, where: str, config: Mapping[str, Any]) -> Iterator[Fault]:
        """Yield the faults of one schema and of those in it; `config` is that of the class around it."""
        if schema.get("ref") in self._seen:
            return
        self._seen |= {schema["ref"]} if "ref" in schema else set()
        if schema["type"] in ("model", "dataclass", "typed-dict"):
            config = schema.get("config", {})
        message = self._fault(schema, config)
        if message is not None:
            yield Fault(where, message)
        elif not self._taken and is_written_otherwise(schema):
            yield from self.walk(schema["serialization"].get("return_schema", _ANY), where, config)
        elif not _class_mark(class_of(schema)):
            yield from self._within(schema, where, config)

    def _within(self, schema: CoreSchema, where: str, config: Mapping[str, Any]) -> Iterator[Fault]:
        kind = schema["type"]
        self._definitions |= {one["ref"]: one for one in schema.get("definitions", ())}
        if kind == "definition-ref":
            yield from self.walk(self._definitions.get(schema["schema_ref"], _ANY), where, config)
        elif kind in _WITH_FIELDS:
            for name, field in self._written_fields(schema):
                yield from self.walk(field, f"{where}.{name}".lstrip("."), config)
        else:
            suffix = "[]" if kind in _ARRAYS else "[...]" if "values_schema" in schema else ""
            for part in _parts(schema):
                yield from self.walk(part, where + suffix, config)

    def _written_fields(self, schema: CoreSchema) -> Iterator[tuple[str, CoreSchema]]:
        for name, field in _fields(schema):
            yield name, field["schema"]
        for one in () if self._taken else schema.get("computed_fields", ()):
            yield one["property_name"], one["return_schema"]

    def _fault(self, schema: CoreSchema, config: Mapping[str, Any]) -> str | None:
        """Return why this very schema is refused."""
        kind, found = schema["type"], class_of(schema)
        if found is not None and (refused := _refusal_of(found)):
            return refused
        if found is SecretStr and not self._taken:
            return "a SecretStr is written as asterisks: return a str, or leave it out of the result"
        if kind in _REFUSED:
            return _REFUSED[kind]
        if kind == "json-or-python" and _writer_of(schema) == "pydantic.types":
            return _REFUSED_CLASSES[Secret]  # which leaves no trace of its class
        if kind in ("function-plain", "function-after"):
            return _function_fault(schema, found)
        if "keys_schema" in schema:
            return self._key_fault(schema["keys_schema"])
        if kind == "union":
            return self._union_fault(schema)
        if kind == "nullable" and any(member.value is None for member in _members(self._bare(schema["schema"]))):
            return "a member of the enum is None, which cannot be told from the None beside it: drop one of them"
        if kind in _WITH_FIELDS:
            return self._alias_fault(schema)
        return self._encoding_fault(kind, schema, config)

    def _encoding_fault(self, kind: str, schema: CoreSchema, config: Mapping[str, Any]) -> str | None:
        """Hold how the class around it wants a value spelled against how it can be read back."""
        if kind == "bytes" and any(config.get(key) != "base64" for key in _ENCODING):
            return (
                "bytes are spelled as UTF-8, which not all bytes are: give the model "
                "model_config = ConfigDict(ser_json_bytes='base64', val_json_bytes='base64')"
            )
        if kind == "decimal" and schema.get("allow_inf_nan"):
            return "a Decimal that is no number cannot be carried: take allow_inf_nan away, or use float"
        if self._taken:
            return None
        if kind in _TEMPORAL and config.get("ser_json_temporal", "iso8601") != "iso8601":
            return "ser_json_temporal spells it as a number, which loses digits: leave it at 'iso8601'"
        if kind == "timedelta" and config.get("ser_json_timedelta", "iso8601") != "iso8601":
            return "ser_json_timedelta spells it as a number, which loses digits: leave it at 'iso8601'"
        if kind == "float" and config.get("ser_json_inf_nan") == "constants":
            return "ser_json_inf_nan='constants' writes what is no JSON: use 'strings'"
        return None

    def _key_fault(self, keys: CoreSchema) -> str | None:
        kind = self._bare(keys)["type"]
        values = [getattr(value, "value", value) for value in _values_of(self._bare(keys))]
        is_text = bool(values) and all(isinstance(value, str) for value in values)
        if kind in _KEYS or is_text or (_class_mark(class_of(self._bare(keys)))):
            return None
        return "JSON's keys are texts, and this type cannot be read back from one: use a list of pairs"

    def _union_fault(self, schema: CoreSchema) -> str | None:
        kinds = {self._bare(choice)["type"] for choice in _choices(schema)}
        if len(arrays := sorted(kinds & _ARRAYS)) > 1:
            return f"JSON spells {' and '.join(arrays)} alike, as an array: use one of them, or a model for each"
        bare = [self._bare(choice) for choice in _choices(schema)]
        numbers = {type(member.value) for one in bare for member in _members(one)}
        texts = {str(_class_mark(class_of(one)).get(TYPE, one["type"])) for one in bare}
        if "str" in kinds and (alike := sorted(texts & {"bytes", "path", "secret"})):
            return f"JSON spells {alike[0]} as text, and any text could be that: take a model for each, or text alone"
        if (int in numbers and "int" in kinds) or (float in numbers and "float" in kinds):
            return "JSON spells the members of the enum and other numbers alike: use one of them"
        return None

    def _alias_fault(self, schema: CoreSchema) -> str | None:
        for name, field in _fields(schema) if self._taken else ():
            alias = field.get("validation_alias")
            paths = [alias] if isinstance(alias, list) and not isinstance(alias[0], list) else alias
            if isinstance(paths, list) and not any(len(path) == 1 for path in paths):
                return f"{name} is found by a path (AliasPath), which no document can say: give it a plain alias"
        return None

    def _bare(self, schema: CoreSchema) -> CoreSchema:
        """Return what a schema is about, without defaults and checks around it."""
        while True:
            if schema["type"] == "definition-ref":
                schema = self._definitions.get(schema["schema_ref"], _ANY)
            elif schema["type"] in _AROUND and class_of(schema) is None:
                schema = schema["schema"]
            else:
                return schema


_ANY: Final[CoreSchema] = {"type": "any"}
_AROUND: Final = ("default", "function-after", "function-before", "function-wrap", "custom-error")


def _writer_of(schema: CoreSchema) -> str | None:
    """Return the module of the function that writes what a schema is about."""
    module: str | None = getattr(schema.get("serialization", {}).get("function"), "__module__", None)
    return module


def _refusal_of(found: type) -> str | None:
    return next((message for cls, message in _REFUSED_CLASSES.items() if issubclass(found, cls)), None)


def _function_fault(schema: CoreSchema, found: type | None) -> str | None:
    """Refuse types of pydantic's own that only it can make, and what changes when it is validated again."""
    function = schema["function"]["function"]
    if isinstance(getattr(function, "__self__", None), EncodedBytes | EncodedStr):
        return (
            "it is decoded whenever it is validated, also where it is bytes already: use bytes, and give the model "
            "model_config = ConfigDict(ser_json_bytes='base64', val_json_bytes='base64')"
        )
    owner = getattr(function, "__self__", None)
    if isinstance(owner, type) and issubclass(owner, UploadFile):
        return (
            "a file goes beside the input, not in it: let the mutation take it as a parameter of its own, "
            "file: UploadFile"
        )
    module = getattr(function, "__module__", None) or ""
    if schema["type"] == "function-plain" and module.split(".")[0] == "pydantic" and not _class_mark(found):
        return "JSON does not carry all of it (a pattern's flags, an object's code): use str"
    return None


def is_written_otherwise(schema: CoreSchema) -> bool:
    """Tell whether a serializer of the application's own decides what is written."""
    own = schema.get("serialization", {}).get("type") in ("function-plain", "to-string")
    return own and class_of(schema) is None


def _parts(schema: CoreSchema) -> Iterator[CoreSchema]:
    """Yield what a schema of no fields is made of."""
    if "choices" in schema:
        yield from _choices(schema)
    elif schema["type"] == "tuple":
        yield from schema["items_schema"]
    elif schema["type"] == "chain":
        yield schema["steps"][-1]
    else:
        yield from (schema[key] for key in _INNER if isinstance(schema.get(key), Mapping))


def _choices(schema: CoreSchema) -> Iterator[CoreSchema]:
    choices = schema["choices"]
    for choice in choices.values() if isinstance(choices, Mapping) else choices:
        yield choice[0] if isinstance(choice, tuple) else choice


def _fields(schema: CoreSchema) -> Iterator[tuple[str, CoreSchema]]:
    fields = schema["fields"]
    return iter(fields.items()) if isinstance(fields, Mapping) else iter((one["name"], one) for one in fields)


def _members(schema: CoreSchema) -> list[Any]:
    return schema["members"] if schema["type"] == "enum" else []


def _values_of(schema: CoreSchema) -> list[Any]:
    return schema["expected"] if schema["type"] == "literal" else _members(schema)
