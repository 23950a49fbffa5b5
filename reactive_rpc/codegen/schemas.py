"""Mend the schemas before datamodel-code-generator reads them: each rule one function, in the order of `mend`.

- Only what the procedures reach stays: the document may hold the schemas of other routes.
- `title` goes: pydantic derives it from the name, and it drowns the fields in noise.
- A `Decimal` comes as text with pydantic's pattern, or as number or such text; both become `format: decimal`. Newer
  versions of pydantic leave the pattern out: then only a pair of twins betrays it.
- Members of an integer enum have no names in JSON Schema; without names of ours they are called `integer_1`.
- A text or number that may be null, or is one branch of a union, becomes a class of its own as soon as a bound is on
  it (`Description(RootModel[str])`), which nobody wants to write or read: with null alone the bounds move up beside
  the null, in any other union they go. The server checks them all the same.
- What the server returns has no bounds: a row that psql wrote longer than the model allows is still the truth, and
  refusing to show it helps nobody. An input that is not also returned keeps its bounds, and is refused unsent.
- FastAPI splits a model that is both taken and returned into `X-Input` and `X-Output`. Where the two say the same, or
  differ in `required` alone and a default fills what is absent, they become `X` again: a result can then be sent back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, cast

from reactive_rpc.codegen.document import Schema

__all__ = ["Components", "is_nullable", "mend"]

_REF: Final = "#/components/schemas/"
_DECIMAL: Final = "^(?!^[-+.]*$)[+-]?0*"
_NAMED: Final = ("properties", "$defs", "patternProperties", "dependentSchemas")
_SINGLE: Final = ("items", "additionalProperties", "not", "contains", "propertyNames", "if", "then", "else")
_LISTS: Final = ("anyOf", "oneOf", "allOf", "prefixItems")
_NUMBER_BOUNDS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_BOUNDS: Final = frozenset(
    {*_NUMBER_BOUNDS, "minLength", "maxLength", "pattern", "minItems", "maxItems", "minProperties", "maxProperties"}
)
_SCALARS: Final = ("string", "integer", "number", "boolean")

Components = dict[str, Schema]


def mend(components: Mapping[str, Schema], root: str, *, returned: Mapping[str, Schema]) -> Components:
    """Return what the component `root` reaches, itself included, as it should have been; change nothing in place.

    Args:
        components: `{name: schema}`.
        root: the name of the component that holds all inputs and outputs.
        returned: the outputs alone, `{any name: schema}`.
    """
    decimals = {name: _walk(schema, _decimal) for name, schema in _reachable(components, [components[root]]).items()}
    outputs = _reachable(components, returned.values())
    twins = {name: components[name] for name in _twin_names(outputs) if name in components}
    unbounded = {*outputs, *twins, *_reachable(components, twins.values())}
    reached = {
        name: _walk(schema, _without_bounds) if name in unbounded else schema for name, schema in decimals.items()
    }
    reached[root] = _walk(components[root], _decimal)
    return _join_twins({name: _walk(schema, _mend_node) for name, schema in reached.items()})


def _twin_names(outputs: Iterable[str]) -> Iterator[str]:
    """Yield the name that each of `outputs` has as an input."""
    for name in outputs:
        if name.endswith("-Output"):
            yield f"{name.removesuffix('-Output')}-Input"


def _reachable(components: Mapping[str, Schema], roots: Iterable[Schema]) -> Components:
    """Return the components that `roots` refer to, over any number of steps."""
    found: Components = {}
    pending = list(roots)
    while pending:
        for name in sorted(_references(pending.pop())):
            if name in components and name not in found:
                found[name] = components[name]
                pending.append(components[name])
    return found


def is_nullable(schema: Schema, components: Mapping[str, Schema]) -> bool:
    """Tell whether null fits `schema`; True where that cannot be told."""
    if "$ref" in schema:
        target = components.get(schema["$ref"].removeprefix(_REF))
        return target is None or ("properties" not in target and is_nullable(target, components))
    branches = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    if branches:
        return any(is_nullable(branch, components) for branch in branches)
    kinds = schema.get("type")
    if isinstance(kinds, list):
        return "null" in kinds
    if "enum" in schema or "const" in schema:
        return None in schema.get("enum", [schema.get("const", "")])
    return kinds in (None, "null") and "allOf" not in schema


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
    for rule in (_without_title, _named_integers, _nullable_scalar, _unbounded_union):
        schema = rule(schema)
    return schema


def _without_title(schema: dict[str, Any]) -> dict[str, Any]:
    schema.pop("title", None)
    return schema


def _decimal(schema: dict[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in schema.items() if key not in ("anyOf", "type", "pattern")}
    if _is_decimal_text(schema):
        return {**rest, "type": "string", "format": "decimal"}
    branches = schema.get("anyOf", [])
    decimals = [branch for branch in branches if branch.get("format") == "decimal"]
    numbers = [branch for branch in branches if branch.get("type") == "number"]
    if not (decimals and numbers):
        return schema
    others = [branch for branch in branches if branch not in decimals and branch not in numbers]
    if others:
        return {**rest, "anyOf": [*decimals, *others]}
    return {**rest, **decimals[0]}


def _is_decimal_text(schema: Schema) -> bool:
    pattern = schema.get("pattern")
    return schema.get("type") == "string" and isinstance(pattern, str) and pattern.startswith(_DECIMAL)


def _named_integers(schema: dict[str, Any]) -> dict[str, Any]:
    values = schema.get("enum")
    if values and all(type(value) is int for value in values):
        names = [f"VALUE_{value}".replace("-", "MINUS_") for value in values]
        schema.setdefault("x-enum-varnames", names)
    return schema


def _without_bounds(schema: dict[str, Any]) -> dict[str, Any]:
    if "prefixItems" in schema:
        return schema  # its bounds are what makes it a tuple
    return {key: value for key, value in schema.items() if key not in _BOUNDS}


def _nullable_scalar(schema: dict[str, Any]) -> dict[str, Any]:
    """Turn `anyOf: [{type: string, maxLength: 9}, {type: null}]` into `type: [string, null], maxLength: 9`."""
    branches = schema.get("anyOf", ())
    values = [branch for branch in branches if branch != {"type": "null"}]
    if len(values) != 1 or len(branches) != 2 or not _is_bounded_scalar(values[0]):
        return schema
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    return {**values[0], **rest, "type": [values[0]["type"], "null"]}


def _unbounded_union(schema: dict[str, Any]) -> dict[str, Any]:
    for key in ("anyOf", "oneOf"):
        if key in schema:
            schema[key] = [_without_bounds(one) if _is_bounded_scalar(one) else one for one in schema[key]]
    return schema


def _is_bounded_scalar(schema: Schema) -> bool:
    return schema.get("type") in _SCALARS and not _BOUNDS.isdisjoint(schema)


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
        return _merge_decimals(taken, returned) or _merge_objects(taken, returned)
    if isinstance(taken, list) and isinstance(returned, list) and len(taken) == len(returned):
        merged = [_merge(one, other) for one, other in zip(taken, returned, strict=True)]
        return _DIFFERENT if _DIFFERENT in merged else merged
    return _DIFFERENT


def _merge_decimals(taken: Schema, returned: Schema) -> Any:
    """Return a decimal where number or text is taken and text alone returned: only pydantic's `Decimal` is such."""
    bare = [{key: branch.get(key) for key in ("type",)} for branch in taken.get("anyOf", ())]
    null = [{"type": "null"}] if {"type": "null"} in bare else []
    if bare != [{"type": "number"}, {"type": "string"}, *null]:
        return None
    texts = returned.get("anyOf", [{"type": returned.get("type")}])
    if [{"type": branch.get("type")} for branch in texts] != [{"type": "string"}, *null]:
        return None
    rest = {key: value for key, value in taken.items() if key != "anyOf"}
    decimal = {"type": "string", "format": "decimal"}
    return {**rest, "anyOf": [decimal, *null]} if null else {**rest, **decimal}


def _merge_objects(taken: Schema, returned: Schema) -> Any:
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


def _renamed(schema: Schema, names: Mapping[str, str]) -> Schema:
    """Return `schema` with its references to `names` turned to their new names."""

    def change(node: dict[str, Any]) -> dict[str, Any]:
        old = str(node.get("$ref", "")).removeprefix(_REF)
        if old in names:
            node["$ref"] = _REF + names[old]
        return node

    return cast(Schema, _walk(schema, change))


def _references(schema: Schema) -> set[str]:
    """Return the names of the components that `schema` refers to."""
    found: set[str] = set()

    def collect(node: dict[str, Any]) -> dict[str, Any]:
        if str(node.get("$ref", "")).startswith(_REF):
            found.add(node["$ref"].removeprefix(_REF))
        return node

    _walk(schema, collect)
    return found
