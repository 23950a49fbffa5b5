"""The module `codecs.ts`: for each procedure whose values JSON has not, how they are read and written.

A schema has a codec exactly if it reads otherwise as values than as JSON, so that the two cannot disagree. Only the
fields that need one are named, and each codec is made when its procedure is called for the first time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, cast

from reactive_rpc.codegen.document import REF, Document, JSONSchema, Operation
from reactive_rpc.codegen.names import TakenNames, camel_case
from reactive_rpc.codegen.schemas import reachable
from reactive_rpc.codegen.spelling import branches_of, target_of, values_of
from reactive_rpc.codegen.typescript.models import NamedTypes
from reactive_rpc.codegen.typescript.text import key, literal, texts
from reactive_rpc.codegen.typescript.type_speller import MAPS, SETS, Side, TypeView, is_required
from reactive_rpc.protocol.marks import KEYS, NAIVE, TYPE

__all__ = ["render_codecs"]

_KEYS: Final = {"number": "number", "boolean": "boolean", "bigint": "bigint"}
_WHOLE: Final = {True: "whole(true)", False: "whole(false)"}
_PLAIN: Final = {"integer": "number", "number": "number", "boolean": "boolean"}
_IMPORTS: Final[dict[str, tuple[str, ...]]] = {
    "codec": (
        "bytes",
        "date",
        "list",
        "map",
        "number",
        "obj",
        "open",
        "opt",
        "record",
        "set",
        "tuple",
    ),
    "choices": ("array", "binary", "boolean", "dictionary", "either", "model", "moment", "plain", "whole"),
    "exact": ("bigint", "exact"),
}
"""What each module of the runtime has."""


def render_codecs(document: Document, models: NamedTypes) -> str:
    """Return the module's source, without a header; empty if JSON has all values of all procedures."""
    return _Codecs(document, models).render()


class _Codecs:
    def __init__(self, document: Document, models: NamedTypes) -> None:
        sides: tuple[Side, ...] = ("input", "output")
        self._document = document
        self._components = document.components
        self._views = {
            side: (
                models.speller(TypeView(side, "value")),
                models.speller(TypeView(side, "json")),
                TypeView(side, "json"),
            )
            for side in sides
        }
        reserved = [name for names in _IMPORTS.values() for name in names]
        self._taken = TakenNames([*reserved, "Codec", "ProcedureCodecs", "codecs", "lazily", "once"])
        self._names: dict[tuple[str, str], str] = {}
        self._made: dict[str, str] = {}

    def render(self) -> str:
        lines = [line for operation in self._document.operations for line in self._procedure(operation)]
        if not lines:
            return ""
        shared = [f"const {name} = once((): Codec<unknown> => {made});" for name, made in sorted(self._made.items())]
        body = "\n".join(
            [*shared, "", "/** By the procedures' paths. */", "export const codecs = lazily({", *lines, "});"]
        )
        imports = [_import(module, body) for module in _IMPORTS if _used(module, body)]
        head = (
            "/** How values that JSON has not are read and written: one codec a procedure, made when it is called. */"
        )
        types = [
            "import type { Codec } from './runtime/codec.ts';",
            "import type { ProcedureCodecs } from './runtime/index.ts';",
        ]
        return "\n".join([head, "", *imports, *types, _LAZILY, body]) + "\n"

    def _procedure(self, operation: Operation) -> Iterator[str]:
        """Yield the line of a procedure, if it needs one."""
        parts = []
        taken = None if operation.input is None else self._codec(operation.input, "input")
        returned = None if operation.is_binary else self._codec(operation.output, "output")
        if taken is not None:
            parts.append(f"input: {self._called(taken)}")
        if returned is not None:
            # Only so are integers read with all their digits.
            whole = f"exact({self._called(returned)})" if self._has_bigint(operation.output) else self._called(returned)
            parts.append(f"output: {whole}")
        if parts:
            yield f"  {literal(operation.path)}: () => ({{ {', '.join(parts)} }}),"

    def _called(self, codec: str) -> str:
        return f"{codec}()" if codec in self._made else codec

    def _has_bigint(self, schema: JSONSchema) -> bool:
        schemas = [schema, *reachable(self._components, [schema]).values()]
        return any(f'"{TYPE}": "bigint"' in json.dumps(one) for one in schemas)

    def _codec(self, schema: JSONSchema, side: Side) -> str | None:
        """Return the expression of a schema's codec; None if JSON is the value."""
        values, carried, _ = self._views[side]
        if values.spell(schema) == carried.spell(schema):
            return None
        branches = list(branches_of(schema, self._components))
        others = [one for one in branches if not _is_null(one)]
        made = self._one(others[0], side) if len(others) == 1 else self._either(others, side)
        return f"opt({made})" if len(others) < len(branches) else made

    def _one(self, schema: JSONSchema, side: Side) -> str:
        if "$ref" in schema:
            return self._component(schema["$ref"].removeprefix(REF), side)
        mark, kind = schema.get(TYPE, ""), schema.get("type")
        if kind == "array":
            return self._array(schema, mark, side)
        if kind != "object":
            return {"bigint": "bigint", "bytes": "bytes"}.get(mark, "date")
        if "properties" in schema:
            return self._object(schema, side)
        values = self._codec(values_of(schema), side)
        if mark not in MAPS:
            return f"record({values})"
        return f"map({self._key_codec(schema)}, {values or 'null'})"

    def _component(self, component: str, side: Side) -> str:
        """Return the name of the codec that all schemas share which refer to a component."""
        name = self._names.get((component, side))
        if name is None:
            wish = camel_case(component, fallback="Model")
            self._names[component, side] = name = self._taken.take(f"{wish[0].lower()}{wish[1:]}")
            self._made[name] = ""
            # A component is asked for only if its two types have different names, so it has a codec.
            self._made[name] = self._called(cast(str, self._codec(self._components[component], side)))
        return name

    def _array(self, schema: JSONSchema, mark: str, side: Side) -> str:
        if "prefixItems" in schema:
            places = [self._codec(item, side) or "null" for item in schema["prefixItems"]]
            rest = None if schema.get("maxItems") == len(places) else self._codec(schema.get("items", {}), side)
            return f"tuple([{', '.join(places)}]{f', {rest}' if rest else ''})"
        items = self._codec(schema.get("items", {}), side)
        return f"set({items or 'null'})" if mark in SETS else f"list({items})"

    def _key_codec(self, schema: JSONSchema) -> str:
        keys = self._views["output"][0].map_key(schema.get(KEYS, {"type": "string"}))
        kinds = {"number" if one.lstrip("-")[:1].isdigit() else one for one in keys.split(" | ")}
        return _KEYS.get(kinds.pop(), "null") if len(kinds) == 1 else "null"

    def _object(self, schema: JSONSchema, side: Side) -> str:
        fields, extra = self._fields(schema, side), schema.get("additionalProperties")
        rest = self._codec(extra, side) if isinstance(extra, Mapping) else None
        return f"obj({fields})" if rest is None else f"open({fields}, {texts(schema['properties'])}, {rest})"

    def _fields(self, schema: JSONSchema, side: Side) -> str:
        parts = []
        for name, field in schema["properties"].items():
            made = self._codec(field, side)
            if made is not None:
                is_there = is_required(name, schema, self._views[side][2]) or made.startswith("opt(")
                # In an object, `__proto__: x` would be its prototype.
                spelled = "['__proto__']" if name == "__proto__" else key(name)
                parts.append(f"{spelled}: {made if is_there else f'opt({made})'}")
        return f"{{ {', '.join(parts)} }}" if parts else "{}"

    def _either(self, branches: Iterable[JSONSchema], side: Side) -> str:
        """Return the codec of a union: the members that demand most are tried first."""
        found = sorted(set(self._choices(branches, side)), key=lambda choice: (-choice[0], choice[1]))
        made = [one.replace("whole()", _WHOLE[(0, "plain('string')") in found]) for _, one in found]
        return f"either({', '.join(made)})"

    def _choices(self, branches: Iterable[JSONSchema], side: Side) -> Iterator[tuple[int, str]]:
        """Yield how much each member demands, and its expression."""
        for branch in branches:
            target = target_of(branch, self._components)
            inner = [one for one in branches_of(target, self._components) if not _is_null(one)]
            if len(inner) > 1:
                yield from self._choices(inner, side)
            elif "enum" in target or "const" in target:
                for value in target.get("enum", [target.get("const")]):
                    yield 0, f"plain({literal(_kind_of(value))})"
            else:
                yield self._choice(branch, target, side)

    def _choice(self, branch: JSONSchema, target: JSONSchema, side: Side) -> tuple[int, str]:
        codec, mark, kind = self._codec(branch, side) or "null", target.get(TYPE, ""), target.get("type")
        if kind == "array":
            return 1, f"array({codec})"
        if kind == "object" and "properties" in target:
            return self._model_choice(codec, target, side)
        if kind == "object":
            return 1, f"dictionary({codec})"
        if mark == "bigint":
            return 1, "whole()"
        if mark == "bytes":
            return 1, "binary"
        if target.get("format") == "date-time" and mark != NAIVE:
            return 2, "moment"
        return (
            0,
            f"plain({literal(_PLAIN.get(kind or '', 'string'))})",
        )

    def _model_choice(self, codec: str, schema: JSONSchema, side: Side) -> tuple[int, str]:
        fields = schema["properties"]
        required = [name for name in fields if is_required(name, schema, self._views[side][2])]
        constants = {name: field["const"] for name, field in fields.items() if "const" in field}
        spelled = ", ".join(f"{key(name)}: {literal(value)}" for name, value in constants.items())
        return 10 + len(required), f"model({codec}, {texts(required)}, {{ {spelled} }})".replace("{  }", "{}")


def _kind_of(value: object) -> str:
    return "boolean" if isinstance(value, bool) else "number" if isinstance(value, int | float) else "string"


def _is_null(schema: JSONSchema) -> bool:
    return (
        schema.get("type") == "null" or ("const" in schema and schema["const"] is None) or schema.get("enum") == [None]
    )


def _used(module: str, body: str) -> list[str]:
    return [name for name in _IMPORTS[module] if re.search(rf"\b{name}\b", body)]


def _import(module: str, body: str) -> str:
    return f"import {{ {', '.join(_used(module, body))} }} from './runtime/{module}.ts';"


_LAZILY: Final = """
type Made = Readonly<Record<string, ProcedureCodecs>>;

/** Return an object that makes each of its values when it is asked for the first time. */
function lazily(makers: Readonly<Record<string, () => ProcedureCodecs>>): Made {
  const made: Record<string, ProcedureCodecs> = {};
  for (const [path, make] of Object.entries(makers)) {
    const get = once(make);
    Object.defineProperty(made, path, { get, enumerable: true });
  }
  return made;
}

/** Return a function that makes its value once. */
function once<T>(make: () => T): () => T {
  let made: { readonly value: T } | undefined;
  return () => {
    made ??= { value: make() };
    return made.value;
  };
}
"""
