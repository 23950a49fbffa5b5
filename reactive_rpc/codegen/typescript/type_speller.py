"""How a schema reads as a TypeScript type: by its marks (`protocol/marks.py`), never by patterns.

One schema is up to four types. An input may leave out each field that has a default; an output has every field. And
each is a type of values, in which a moment is a `Date`, or of the JSON that carries them, in which it is a string: a
client without our codec gets the latter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from reactive_rpc.codegen.document import REF, JSONSchema
from reactive_rpc.codegen.spelling import branches_of, values_of
from reactive_rpc.codegen.typescript.text import comment, key, literal
from reactive_rpc.protocol.marks import KEYS, MAY_LACK, NAIVE, TYPE

__all__ = ["MAPS", "SETS", "VIEWS", "Side", "TypeSpeller", "TypeView", "is_required"]

Side = Literal["output", "input"]


@dataclass(frozen=True, slots=True)
class TypeView:
    """Which of its types a schema is spelled as.

    Attributes:
        side: whether it is taken or returned.
        form: values, or the JSON that carries them.
    """

    side: Side
    form: Literal["value", "json"]


VIEWS: Final = tuple(TypeView(side, form) for form in ("value", "json") for side in ("output", "input"))
"""All, in the order in which they give a name to a type that several of them share."""

_TEXT: Final[JSONSchema] = {"type": "string"}
_VALUES: Final = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}
SETS: Final = ("set", "frozenset")
"""Marks of arrays that are a `Set`."""

MAPS: Final = ("map", "ordered-dict", "counter")
"""Marks of objects that are a `Map`."""


class TypeSpeller:
    """Spells schemas of one view.

    Args:
        components: `{name: schema}`.
        view: which of their types.
        name_of: returns how a component's type is called.
    """

    def __init__(self, components: Mapping[str, JSONSchema], view: TypeView, name_of: Callable[[str], str]) -> None:
        self._components = components
        self._is_value = view.form == "value"
        self._view = view
        self._name_of = name_of

    def spell(self, schema: JSONSchema) -> str:
        """Return the type; of a union, `null` is the last member."""
        return " | ".join(self._union(schema))

    def fields(self, schema: JSONSchema, *, documented: bool) -> list[str]:
        """Return the lines of an object's fields, in the order of the document."""
        lines: list[str] = []
        for name, field in schema.get("properties", {}).items():
            if documented:
                lines += comment(field.get("description", ""), self._tags(field))
            lines.append(f"{self._field(name, field, schema)};")
        rest = self._index(schema)
        return [*lines, *([f"{rest};"] if rest else [])]

    def _union(self, schema: JSONSchema) -> list[str]:
        """Return the members of the union that a schema is, itself alone if it is none."""
        members = list(dict.fromkeys(self._members(schema)))
        # In a union with `unknown`, TypeScript forgets the other members; so the types say it, too.
        if "unknown" in members:
            return ["unknown"]
        return [*(member for member in members if member != "null"), *(["null"] if "null" in members else [])]

    def _items(self, schema: JSONSchema) -> str:
        """Return the type of an array of such items."""
        union = self._union(schema)
        return f"({' | '.join(union)})[]" if len(union) > 1 else f"{union[0]}[]"

    def _members(self, schema: JSONSchema) -> Iterator[str]:
        for branch in branches_of(schema, self._components):
            yield from self._one(branch)

    def _one(self, schema: JSONSchema) -> Iterator[str]:
        if "$ref" in schema:
            yield self._name_of(schema["$ref"].removeprefix(REF))
        elif "enum" in schema or "const" in schema:
            yield from map(literal, schema.get("enum", [schema.get("const")]))
        else:
            yield self._typed(schema)

    def _typed(self, schema: JSONSchema) -> str:
        mark, kind = schema.get(TYPE, ""), schema.get("type")
        if kind == "array":
            return self._array(schema, mark)
        if kind == "object":
            return self._object(schema, mark)
        if schema.get("format") == "decimal":
            return "Decimal"
        if self._is_value and mark != NAIVE and schema.get("format") == "date-time":
            return "Date"
        if self._is_value and mark == "bigint":
            return "bigint"
        if self._is_value and mark == "bytes":
            return "Uint8Array"
        return _VALUES.get(kind or "", "unknown")

    def _array(self, schema: JSONSchema, mark: str) -> str:
        items = schema.get("items", {})
        if "prefixItems" in schema or mark == "tuple":
            return self._tuple(schema.get("prefixItems", []), items, schema.get("maxItems"))
        return f"Set<{self.spell(items)}>" if mark in SETS and self._is_value else self._items(items)

    def _tuple(self, first: list[JSONSchema], items: JSONSchema, most: int | None) -> str:
        if not first:
            return "[]" if most == 0 else self._items(items)
        rest = [] if most == len(first) else [f"...{self._items(items)}"]
        return f"[{', '.join([*map(self.spell, first), *rest])}]"

    def _object(self, schema: JSONSchema, mark: str) -> str:
        if "properties" in schema:
            fields = self.fields(schema, documented=False)
            return f"{{ {' '.join(fields).removesuffix(';')} }}" if fields else "{ [key: string]: never }"
        extra = values_of(schema)
        # Not `Record`, which is an alias: a type that refers to itself through one is refused as circular.
        values = self.spell(extra)
        if self._is_value and mark in MAPS:
            return f"Map<{self.map_key(schema.get(KEYS, _TEXT))}, {values}>"
        return f"{{ [key: string]: {values} }}"

    def map_key(self, schema: JSONSchema) -> str:
        """Return the type of a map's keys: of texts, as JSON has them, if no two values would be the same key."""
        union = self._union(schema)
        return "string" if {"Date", "Uint8Array"} & set(union) else " | ".join(union)

    def _tags(self, field: JSONSchema) -> dict[str, str]:
        tags = {"deprecated": ""} if field.get("deprecated") else {}
        default = None if "const" in field or self._view.side == "output" else field.get("default")
        return tags if default is None else {**tags, "default": json.dumps(default, ensure_ascii=False)}

    def _field(self, name: str, field: JSONSchema, schema: JSONSchema) -> str:
        spelled = self.spell(field)
        if is_required(name, schema, self._view):
            return f"{key(name)}: {spelled}"
        # Whoever calls may leave a field out by giving undefined, which JSON leaves out, too.
        given = f"{spelled} | undefined" if self._view.side == "input" and spelled != "unknown" else spelled
        return f"{key(name)}?: {given}"

    def _index(self, schema: JSONSchema) -> str | None:
        """Return the signature of further fields, whose type must include those of all fields."""
        extra = schema.get("additionalProperties")
        if not extra:
            return None
        # TypeScript refuses an interface of which a field does not fit its own signature of further fields.
        every = {"anyOf": [extra if isinstance(extra, Mapping) else {}, *schema.get("properties", {}).values()]}
        spelled = self.spell(every)
        return f"[key: string]: {spelled if spelled == 'unknown' else f'{spelled} | undefined'}"


def is_required(name: str, schema: JSONSchema, view: TypeView) -> bool:
    """Tell whether an object has a field in any case.

    An output has them all, those with defaults too, but for the few that are marked.
    """
    if view.side == "input":
        return name in schema.get("required", ())
    return not schema.get("properties", {}).get(name, {}).get(MAY_LACK)
