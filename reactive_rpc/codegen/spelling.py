"""How a schema reads as a Python annotation: by its marks (`protocol/marks.py`), never by patterns.

datamodel-code-generator writes the classes, their names, docstrings and enums. It does not write their annotations: it
knows no marks, makes a class of its own of an array, a union or a literal that may be null, and writes `date: date`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from reactive_rpc.codegen.document import REF, JSONSchema
from reactive_rpc.protocol.marks import KEYS, PAGE, TYPE, URL

__all__ = ["Imports", "Speller", "docstring", "escaped", "item_of", "literal", "target_of", "values_of"]

_FORMATS: Final = {
    "decimal": "decimal.Decimal",
    "date-time": "datetime.datetime",
    "date": "datetime.date",
    "time": "datetime.time",
    "duration": "datetime.timedelta",
    "uuid": "uuid.UUID",
    "ipv4": "ipaddress.IPv4Address",
    "ipv6": "ipaddress.IPv6Address",
}
_TYPES: Final = {
    "bytes": "builtins.bytes",
    "complex": "builtins.complex",
    "fraction": "fractions.Fraction",
    "path": "pathlib.Path",
    "secret": "reactive_rpc.client.Secret",
    "ipv4-network": "ipaddress.IPv4Network",
    "ipv6-network": "ipaddress.IPv6Network",
    "ipv4-interface": "ipaddress.IPv4Interface",
    "ipv6-interface": "ipaddress.IPv6Interface",
    "ip-address": "pydantic.IPvAnyAddress",
    "ip-network": "pydantic.IPvAnyNetwork",
    "ip-interface": "pydantic.IPvAnyInterface",
}
_JSON_TYPES: Final = {
    "string": "builtins.str",
    "integer": "builtins.int",
    "number": "builtins.float",
    "boolean": "builtins.bool",
}
_ARRAYS: Final = {"set": "builtins.set", "frozenset": "builtins.frozenset", "deque": "collections.deque"}
_OBJECTS: Final = {"ordered-dict": "collections.OrderedDict"}


class Imports:
    """The imports of one module: a name that the module uses for something else is imported as `_name`.

    >>> imports = Imports(taken={"date", "list"})
    >>> imports.name("datetime.date"), imports.name("builtins.list"), imports.name("builtins.str")
    ('_date', '_list', 'str')
    >>> imports.lines()
    ['from builtins import list as _list', 'from datetime import date as _date']
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = frozenset(taken)
        self._used: dict[str, dict[str, str]] = {}

    def name(self, path: str) -> str:
        """Return how the module spells what is at `module.name`, and note that it is used."""
        module, _, name = path.rpartition(".")
        spelled = f"_{name}" if name in self._taken else name
        if module != "builtins" or spelled != name:
            self._used.setdefault(module, {})[name] = spelled
        return spelled

    def lines(self) -> list[str]:
        """Return the statements, sorted."""
        return [
            f"from {module} import {', '.join(_imported(name, spelled) for name, spelled in sorted(names.items()))}"
            for module, names in sorted(self._used.items())
        ]


def _imported(name: str, spelled: str) -> str:
    return name if name == spelled else f"{name} as {spelled}"


class Speller:
    """Spells schemas for one module.

    Args:
        components: `{name: schema}`.
        classes: how the module spells the class of a component; a component that has none is spelled by its content.
        imports: where what is used is noted.
        static: whether it is for type checkers alone: without what only validation needs.
    """

    def __init__(
        self, components: Mapping[str, JSONSchema], classes: Mapping[str, str], imports: Imports, *, static: bool
    ) -> None:
        self._components = components
        self._classes = classes
        self._imports = imports
        self._static = static

    def spell(self, schema: JSONSchema) -> str:
        """Return the annotation."""
        members = list(dict.fromkeys(self._members(schema)))
        if "None" in members:
            members = [*(member for member in members if member != "None"), "None"]
        union = " | ".join(members)
        if self._static or self._name("str") not in members or not self._has_other_text(schema):
            return union
        annotated, marker = map(self._imports.name, ("typing.Annotated", "reactive_rpc.client.AsSpelled"))
        return f"{annotated}[{union}, {marker}()]"

    def is_nullable(self, schema: JSONSchema) -> bool:
        """Tell whether null fits."""
        branches = branches_of(schema, self._components, self._classes)
        return any(None in _values(one) or one.get("type") == "null" or _is_anything(one) for one in branches)

    def values(self, schema: JSONSchema) -> str | None:
        """Return the values of an enum, or of one that may be null, as a literal; None where it is none."""
        targets = [target_of(branch, self._components) for branch in branches_of(schema, self._components)]
        enums = [one for one in targets if "enum" in one and one.get(TYPE, "").endswith("enum")]
        values = [value for one in enums for value in one["enum"] if isinstance(value, str | int)]
        return self._literal(values) if values else None

    def _members(self, schema: JSONSchema) -> Iterator[str]:
        """Yield the members of the union that a schema is, one where it is none."""
        for branch in branches_of(schema, self._components, self._classes):
            yield from self._one(branch)

    def _one(self, schema: JSONSchema) -> Iterator[str]:
        if "$ref" in schema:
            yield self._classes[schema["$ref"].removeprefix(REF)]
        elif "enum" in schema or "const" in schema:
            values = _values(schema)
            if any(value is not None for value in values):
                yield self._literal([value for value in values if value is not None])
            yield from ["None"] if None in values else []
        else:
            yield self._typed(schema)

    def _typed(self, schema: JSONSchema) -> str:
        mark, kind = schema.get(TYPE, ""), schema.get("type")
        if mark.startswith(f"{URL}:"):
            return self._imports.name(f"pydantic.{mark.removeprefix(f'{URL}:')}")
        if mark in _TYPES:
            return self._imports.name(_TYPES[mark])
        if schema.get("format") in _FORMATS and kind in ("string", None):
            return self._imports.name(_FORMATS[schema["format"]])
        if kind == "array":
            return self._array(schema, mark)
        if kind == "object":
            return self._object(schema, mark)
        if kind == "null":
            return "None"
        return self._name("str") if kind == "string" else self._imports.name(_JSON_TYPES.get(kind or "", "typing.Any"))

    def _array(self, schema: JSONSchema, mark: str) -> str:
        items = self.spell(schema.get("items", {}))
        first = [self.spell(item) for item in schema.get("prefixItems", ())]
        if mark == "tuple" or first:
            name = self._name("tuple")
            if not first:
                return f"{name}[()]" if schema.get("maxItems") == 0 else f"{name}[{items}, ...]"
            rest = [] if schema.get("maxItems") == len(first) else [f"*{name}[{items}, ...]"]
            return f"{name}[{', '.join([*first, *rest])}]"
        return f"{self._imports.name(_ARRAYS.get(mark, 'builtins.list'))}[{items}]"

    def _object(self, schema: JSONSchema, mark: str) -> str:
        keys = self.spell(schema[KEYS]) if KEYS in schema else self._name("str")
        if mark == PAGE:
            return f"{self._imports.name('reactive_rpc.client.Page')}[{self.spell(item_of(schema))}]"
        if mark == "counter":
            return f"{self._imports.name('collections.Counter')}[{keys}]"
        values = self.spell(values_of(schema))
        return f"{self._imports.name(_OBJECTS.get(mark, 'builtins.dict'))}[{keys}, {values}]"

    def _literal(self, values: list[Any]) -> str:
        return f"{self._imports.name('typing.Literal')}[{', '.join(map(literal, values))}]"

    def _has_other_text(self, schema: JSONSchema) -> bool:
        """Tell whether a union with text has another type that JSON spells as text."""
        for branch in branches_of(schema, self._components):
            one = target_of(branch, self._components)
            if one.get("type") == "string" and (TYPE in one or one.get("format") in _FORMATS):
                return True
            if one.get(TYPE, "").endswith("enum") and any(isinstance(value, str) for value in one.get("enum", ())):
                return True
        return False

    def _name(self, builtin: str) -> str:
        return self._imports.name(f"builtins.{builtin}")


def branches_of(
    schema: JSONSchema, components: Mapping[str, JSONSchema], classes: Mapping[str, str] | None = None
) -> Iterator[JSONSchema]:
    """Yield the branches of the union that a schema is, itself where it is none.

    References are followed to components that have no class; with `classes` left out, to none.
    """
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(REF)
        if classes is not None and name not in classes and name in components:
            yield from branches_of(components[name], components, classes)
        else:
            yield {"$ref": schema["$ref"]} if name in components else {}
    elif schema.get("anyOf") or schema.get("oneOf"):
        if schema.get("format") in _FORMATS or schema.get(TYPE) in _TYPES:
            yield {**schema, "type": "string"}
            return
        for branch in [*schema.get("anyOf", ()), *schema.get("oneOf", ())]:
            yield from branches_of(branch, components, classes)
    elif len(schema.get("allOf", ())) == 1:
        yield from branches_of(schema["allOf"][0], components, classes)
    elif isinstance(schema.get("type"), list):
        yield from ({**schema, "type": kind} for kind in schema["type"])
    else:
        yield schema


def target_of(schema: JSONSchema, components: Mapping[str, JSONSchema]) -> JSONSchema:
    """Return the component that a schema refers to, itself where it refers to none."""
    while "$ref" in schema:
        schema = components.get(schema["$ref"].removeprefix(REF), {})
    return schema


def values_of(schema: JSONSchema) -> JSONSchema:
    """Return the schema of the values of an object with any names; their pattern, which pydantic says, is left out.

    >>> values_of({"patternProperties": {"^[a-z]+$": {"type": "integer"}}})
    {'type': 'integer'}
    """
    patterns = list(schema.get("patternProperties", {}).values())
    extra = patterns[0] if len(patterns) == 1 else schema.get("additionalProperties", {})
    return extra if isinstance(extra, Mapping) else {}


def item_of(page: JSONSchema) -> JSONSchema:
    """Return the schema of the rows of a page."""
    item: JSONSchema = page.get("properties", {}).get("items", {}).get("items", {})
    return item


def _values(schema: JSONSchema) -> list[Any]:
    return schema["enum"] if "enum" in schema else [schema["const"]] if "const" in schema else []


def _is_anything(schema: JSONSchema) -> bool:
    return not {"$ref", "enum", "const", "type", "allOf", TYPE} & schema.keys()


def literal(value: Any) -> str:
    """Return a value of JSON as Python source.

    >>> literal('a"b'), literal(True), literal([1, None])
    ('\\'a"b\\'', 'True', '[1, None]')
    """
    return repr(value)


def docstring(text: str, indent: int) -> list[str]:
    """Return `text` as the lines of a docstring."""
    lines = escaped(text).splitlines() or [""]
    closed = [f'"""{lines[0]}"""'] if len(lines) == 1 else [f'"""{lines[0]}', *lines[1:], '"""']
    return textwrap.indent("\n".join(line.rstrip() for line in closed), " " * indent).splitlines()


def escaped(text: str) -> str:
    """Return `text` so that it can stand between triple quotes."""
    return text.replace("\\", "\\\\").replace('"', "'")
