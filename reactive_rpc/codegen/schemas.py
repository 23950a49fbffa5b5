"""Mend the schemas before classes are made of them: each rule one function, in the order of `mend`.

- Only what the procedures reach stays: the document may hold the schemas of other routes.
- What a result may lack is not marked: Python's classes take every field that has a default as one that may be.
- `title` goes: pydantic derives it from the name, and it drowns the fields in noise.
- What is marked as a decimal or a fraction is one type, however many spellings of it the server takes.
- An object that stands within another schema, and not under a name, gets one: that of where it stands.
- What the server returns has no bounds: a row that psql wrote longer than the model allows is still the truth, and
  refusing to show it helps nobody. An input that is not also returned keeps its bounds, and is refused unsent. A
  pattern goes always: other languages, and other engines of this one, read it otherwise.
- FastAPI splits a model that is both taken and returned into `X-Input` and `X-Output`. Where the two say the same, or
  differ in `required` alone and a default fills what is absent, they become `X` again: a result can then be sent back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, cast

from reactive_rpc.codegen.document import REF, JSONSchema
from reactive_rpc.codegen.names import TakenNames, camel_case
from reactive_rpc.protocol.marks import KEYS, MAY_LACK, TYPE

__all__ = ["BOUNDS", "Components", "mend", "reachable"]

_NAMED: Final = ("properties", "$defs", "patternProperties", "dependentSchemas")
_SINGLE: Final = ("items", "additionalProperties", "not", "contains", "propertyNames", "if", "then", "else", KEYS)
_LISTS: Final = ("anyOf", "oneOf", "allOf", "prefixItems")
BOUNDS: Final = {
    "minimum": "ge",
    "maximum": "le",
    "exclusiveMinimum": "gt",
    "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
    "minLength": "min_length",
    "maxLength": "max_length",
    "minItems": "min_length",
    "maxItems": "max_length",
    "minProperties": "min_length",
    "maxProperties": "max_length",
}
"""The bounds of JSON Schema, and pydantic's names for them."""

Components = dict[str, JSONSchema]


def mend(components: Mapping[str, JSONSchema], root: str, *, returned: Iterable[str]) -> Components:
    """Return what the component `root` reaches, itself included, as it should have been; change nothing in place.

    Args:
        components: `{name: schema}`.
        root: the name of the component that holds all inputs and outputs.
        returned: which of the root's properties are outputs.
    """
    named = _name_objects(components)
    plain = {name: _walk(schema, _mend_node) for name, schema in reachable(named, [named[root]]).items()}
    outputs = reachable(named, [named[root]["properties"][name] for name in returned])
    twins = {name: named[name] for name in _twin_names(outputs) if name in named}
    unbounded = {*outputs, *twins, *reachable(named, twins.values())}
    reached = {name: _walk(schema, _without_bounds) if name in unbounded else schema for name, schema in plain.items()}
    reached[root] = _walk(named[root], _mend_node)
    return _join_twins(reached)


def _name_objects(components: Mapping[str, JSONSchema]) -> Components:
    """Return the components with each object that stands within another schema as one more of them."""
    named: Components = dict(components)
    names = TakenNames([*components, *(camel_case(name) for name in components)])
    for name, schema in components.items():
        named[name] = _walk_inside(schema, camel_case(name), named, names)
    return named


def _walk_inside(schema: JSONSchema, where: str, named: Components, names: TakenNames) -> JSONSchema:
    """Return `schema` with the objects in it named by `where` they stand; itself it stays."""

    def outside(inner: Any, place: str) -> Any:
        if not isinstance(inner, Mapping):
            return inner
        walked = _walk_inside(inner, place, named, names)
        if "properties" not in walked:
            return walked
        name = names.take(place)
        named[name] = walked
        return {"$ref": REF + name}

    copy = dict(schema)
    for key in _NAMED:
        if isinstance(copy.get(key), Mapping):
            copy[key] = {name: outside(inner, where + camel_case(name)) for name, inner in copy[key].items()}
    for key in _SINGLE:
        if key in copy:
            copy[key] = outside(copy[key], where + camel_case(key))
    for key in _LISTS:
        if key in copy:
            copy[key] = [outside(inner, where) for inner in copy[key]]
    return copy


def _twin_names(outputs: Iterable[str]) -> Iterator[str]:
    """Yield the name that each of `outputs` has as an input."""
    for name in outputs:
        if name.endswith("-Output"):
            yield f"{name.removesuffix('-Output')}-Input"


def reachable(components: Mapping[str, JSONSchema], roots: Iterable[JSONSchema]) -> Components:
    """Return the components that `roots` refer to, over any number of steps."""
    found: Components = {}
    pending = list(roots)
    while pending:
        for name in sorted(_references(pending.pop())):
            if name in components and name not in found:
                found[name] = components[name]
                pending.append(components[name])
    return found


def _walk(schema: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """Return `schema` with `change` applied to every schema in it, inner ones first."""
    if not isinstance(schema, Mapping):
        return schema
    copy = dict(schema)
    for key in _NAMED:
        if isinstance(copy.get(key), Mapping):
            copy[key] = {name: _walk(inner, change) for name, inner in copy[key].items()}
    for key in _SINGLE:
        if key in copy:
            copy[key] = _walk(copy[key], change)
    for key in _LISTS:
        if key in copy:
            copy[key] = [_walk(inner, change) for inner in copy[key]]
    return change(copy)


def _mend_node(schema: dict[str, Any]) -> dict[str, Any]:
    schema.pop("title", None)
    schema.pop("pattern", None)
    schema.pop(MAY_LACK, None)
    if schema.get("format") == "decimal" or schema.get(TYPE) == "fraction":
        schema.pop("anyOf", None)
        schema["type"] = "string"
    return schema


def _without_bounds(schema: dict[str, Any]) -> dict[str, Any]:
    if "prefixItems" in schema or schema.get(TYPE) == "tuple":
        return schema  # its bounds are what makes it a tuple
    return {key: value for key, value in schema.items() if key not in BOUNDS}


def _join_twins(components: Components) -> Components:
    """Join each pair of twins that says the same; pairs refer to pairs, so drop some until all that are left can be."""
    pairs = {name.removesuffix("-Input") for name in components if name.endswith("-Input")}
    pairs = {name for name in pairs if f"{name}-Output" in components and name not in components}
    while True:
        twins = {f"{name}{suffix}": name for name in pairs for suffix in ("-Input", "-Output")}
        merged = {name: _merge_pair(components, name, twins) for name in pairs}
        if _DIFFERENT not in merged.values():
            break
        pairs = {name for name, schema in merged.items() if schema is not _DIFFERENT}
    rest = {name: _renamed(schema, twins) for name, schema in components.items() if name not in twins}
    return {**rest, **merged}


_DIFFERENT: Final[Any] = object()


def _merge_pair(components: Components, name: str, twins: Mapping[str, str]) -> Any:
    taken, returned = (_renamed(components[f"{name}{suffix}"], twins) for suffix in ("-Input", "-Output"))
    return _merge(taken, returned)


def _merge(taken: Any, returned: Any) -> Any:
    """Return the schema that serves both ways; `_DIFFERENT` where there is none."""
    if taken == returned:
        return taken
    if isinstance(taken, dict) and isinstance(returned, dict):
        return _merge_objects(taken, returned)
    if isinstance(taken, list) and isinstance(returned, list) and len(taken) == len(returned):
        merged = [_merge(one, other) for one, other in zip(taken, returned, strict=True)]
        return _DIFFERENT if _DIFFERENT in merged else merged
    return _DIFFERENT


def _merge_objects(taken: JSONSchema, returned: JSONSchema) -> Any:
    """Merge key by key; what only one side requires must have a default, so that it is never absent in Python."""
    if {*taken, "required"} != {*returned, "required"}:
        return _DIFFERENT
    merged = {key: _merge(taken[key], returned[key]) for key in taken if key != "required"}
    if any(value is _DIFFERENT for value in merged.values()):
        return _DIFFERENT
    required = taken.get("required", [])
    properties = taken.get("properties", {})
    one_sided = set(required) ^ set(returned.get("required", []))
    if any("default" not in properties.get(name, {}) for name in one_sided):
        return _DIFFERENT
    return {**merged, "required": [name for name in required if name not in one_sided]} if required else merged


def _renamed(schema: JSONSchema, names: Mapping[str, str]) -> JSONSchema:
    """Return `schema` with its references to `names` turned to their new names."""

    def change(node: dict[str, Any]) -> dict[str, Any]:
        old = str(node.get("$ref", "")).removeprefix(REF)
        if old in names:
            node["$ref"] = REF + names[old]
        return node

    return cast(JSONSchema, _walk(schema, change))


def _references(schema: JSONSchema) -> set[str]:
    """Return the names of the components that `schema` refers to."""
    found: set[str] = set()

    def collect(node: dict[str, Any]) -> dict[str, Any]:
        if str(node.get("$ref", "")).startswith(REF):
            found.add(node["$ref"].removeprefix(REF))
        return node

    _walk(schema, collect)
    return found
