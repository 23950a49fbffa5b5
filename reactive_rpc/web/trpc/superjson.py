"""The format of superjson, as far as types of this wire need it: `{"json": X, "meta": {"values": T, "v": 1}}`.

T says by the path of a value (`a.0.b`) of which type it is in JavaScript: `["Date"]`, `["bigint"]`, `["set", {...}]`.
Results are annotated by the marks of their schema, in the vocabulary of `protocol/marks.py`, and so arrive as the
values that a generated client makes of them. Inputs are annotated by the client, and need no schema.

Source: superjson 2, `src/plainer.ts`, `src/transformer.ts` and `src/pathstringifier.ts`. Rejected: references to equal
objects (`dedupe: true`), which JSON of ours never has; they are refused in inputs.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from reactive_rpc.errors import BadRequestError
from reactive_rpc.protocol.marks import KEYS, TYPE

__all__ = ["Annotator", "Tree", "annotator_of", "plain_input", "prefixed", "wrapped"]

Tree = Any
"""`[type]`, `[type, {path: Tree}]` or `{path: Tree}`; None if nothing is annotated."""

Annotator = Callable[[Any], tuple[Any, Tree]]
"""Returns a value of JSON as superjson writes it, and its annotations."""

_BYTES: Final = ["typed-array", "Uint8Array"]
_SETS: Final = ("set", "frozenset")
_MAPS: Final = ("map", "ordered-dict", "counter")


def wrapped(value: bytes, tree: Tree) -> bytes:
    """Return a value that is JSON already, with its annotations.

    >>> wrapped(b'"2027-01-15T08:00:00Z"', ["Date"])
    b'{"json":"2027-01-15T08:00:00Z","meta":{"values":["Date"],"v":1}}'
    """
    if tree is None:
        return b'{"json":%b}' % value
    return b'{"json":%b,"meta":{"values":%b,"v":1}}' % (value, json.dumps(tree, separators=(",", ":")).encode())


def prefixed(tree: Tree, path: str) -> Tree:
    """Return annotations of a value as those of the value that has it at a path."""
    if tree is None:
        return None
    if isinstance(tree, list):
        return {path: tree}
    return {f"{path}.{key}": each for key, each in tree.items()}


def annotator_of(schema: Mapping[str, Any]) -> Annotator | None:
    """Return what annotates values of a JSON schema with our marks; None if nothing in them needs it."""
    return _Compiler(schema.get("$defs", {})).annotator(schema)


class _Compiler:
    """Makes annotators of schemas; a definition that holds itself is made once.

    Args:
        definitions: the schemas that references name.
    """

    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self._definitions = definitions
        self._made: dict[str, list[Annotator | None]] = {}

    def annotator(self, schema: Mapping[str, Any]) -> Annotator | None:
        """Return the annotator of a schema."""
        if "$ref" in schema:
            return self._of_reference(schema["$ref"].rpartition("/")[2])
        mark = str(schema.get(TYPE, "")).partition(":")[0]
        if schema.get("format") == "date-time":
            return _date
        if mark in _SIMPLE:
            return _SIMPLE[mark]
        if mark in _SETS:
            return _composite("set", self._items(schema))
        if mark in _MAPS:
            return self._map(schema)
        branches = schema.get("anyOf") or schema.get("oneOf")
        if branches:
            return self._of_branches(branches)
        return self._of_container(schema)

    def _of_reference(self, name: str) -> Annotator | None:
        if name in self._made:
            made = self._made[name]
            return made[0] if made else _later(made)
        slot = self._made[name] = []
        slot.append(self.annotator(self._definitions[name]))
        return slot[0]

    def _of_container(self, schema: Mapping[str, Any]) -> Annotator | None:
        if schema.get("type") == "array":
            return self._items(schema)
        if schema.get("type") != "object":
            return None
        fields = {name: made for name, each in schema.get("properties", {}).items() if (made := self.annotator(each))}
        further = schema.get("additionalProperties")
        rest = self.annotator(further) if isinstance(further, Mapping) else None
        return _fields(fields, rest) if fields or rest else None

    def _items(self, schema: Mapping[str, Any]) -> Annotator | None:
        first = [self.annotator(each) for each in schema.get("prefixItems", ())]
        items = schema.get("items")
        rest = self.annotator(items) if isinstance(items, Mapping) else None
        return _elements(first, rest) if any(first) or rest else None

    def _map(self, schema: Mapping[str, Any]) -> Annotator:
        keys = schema.get(KEYS, {})
        further = schema.get("additionalProperties")
        values = self.annotator(further) if isinstance(further, Mapping) else None
        pair = _elements([self.annotator(keys), values], None)
        is_text = keys.get("type", "string") == "string"

        def annotate(value: Any) -> tuple[Any, Tree]:
            if not isinstance(value, dict):
                return value, None
            entries = [[key if is_text else json.loads(key), each] for key, each in value.items()]
            return _composite("map", _elements([], pair))(entries)

        return annotate

    def _of_branches(self, branches: list[Mapping[str, Any]]) -> Annotator | None:
        made = [(self._resolved(each), self.annotator(each)) for each in branches]
        if not any(annotator for _, annotator in made):
            return None

        def annotate(value: Any) -> tuple[Any, Tree]:
            fitting = [annotator for schema, annotator in made if _fits(schema, value)]
            # Of several that a value fits, none is chosen: a text that might be a date stays a text.
            annotator = fitting[0] if len(fitting) == 1 else None
            return (value, None) if annotator is None else annotator(value)

        return annotate

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        while "$ref" in schema:
            schema = self._definitions[schema["$ref"].rpartition("/")[2]]
        return schema


def _fits(schema: Mapping[str, Any], value: Any) -> bool:
    """Tell whether a value may be of a schema, by its type and, of an object, by its fields."""
    kind = schema.get("type")
    types = _TYPES.get(str(kind))
    if types is not None and (not isinstance(value, types) or (isinstance(value, bool) and kind != "boolean")):
        return False
    if kind == "object" and isinstance(value, dict):
        constants = {name: each["const"] for name, each in schema.get("properties", {}).items() if "const" in each}
        return value.keys() >= set(schema.get("required", ())) and all(
            value.get(name) == constant for name, constant in constants.items()
        )
    return "const" not in schema or schema["const"] == value


_TYPES: Final[Mapping[str, Any]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}


def _date(value: Any) -> tuple[Any, Tree]:
    """Annotate a moment; one without an offset is left a text, as JavaScript would put it into its own zone."""
    if not isinstance(value, str):
        return value, None
    try:
        is_moment = datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return value, None
    return value, ["Date"] if is_moment else None


def _bigint(value: Any) -> tuple[Any, Tree]:
    return (str(value), ["bigint"]) if isinstance(value, int) else (value, None)


def _bytes(value: Any) -> tuple[Any, Tree]:
    return (list(urlsafe_b64decode(value)), [_BYTES]) if isinstance(value, str) else (value, None)


_SIMPLE: Final[Mapping[str, Annotator]] = {"bigint": _bigint, "bytes": _bytes}


def _later(made: list[Annotator | None]) -> Annotator:
    def annotate(value: Any) -> tuple[Any, Tree]:
        annotator = made[0]
        return (value, None) if annotator is None else annotator(value)

    return annotate


def _composite(kind: str, inner: Annotator | None) -> Annotator:
    def annotate(value: Any) -> tuple[Any, Tree]:
        if not isinstance(value, list):
            return value, None
        value, tree = (value, None) if inner is None else inner(value)
        return value, [kind] if tree is None else [kind, tree]

    return annotate


def _elements(first: list[Annotator | None], rest: Annotator | None) -> Annotator:
    def annotate(value: Any) -> tuple[Any, Tree]:
        if not isinstance(value, list):
            return value, None
        annotators = [*first, *[rest] * (len(value) - len(first))]
        return _gathered(value, enumerate(annotators[: len(value)]), list(value))

    return annotate


def _fields(fields: Mapping[str, Annotator], rest: Annotator | None) -> Annotator:
    def annotate(value: Any) -> tuple[Any, Tree]:
        if not isinstance(value, dict):
            return value, None
        annotators = ((name, fields.get(name, rest)) for name in value)
        return _gathered(value, annotators, dict(value))

    return annotate


def _gathered(value: Any, annotators: Iterator[tuple[Any, Annotator | None]], copy: Any) -> tuple[Any, Tree]:
    """Return a container whose parts are written, and their annotations by their paths."""
    tree: dict[str, Tree] = {}
    for key, annotator in annotators:
        if annotator is not None:
            copy[key], inner = annotator(value[key])
            tree |= prefixed(inner, _escaped(str(key))) or {}
    return copy, tree or None


def _escaped(key: str) -> str:
    return key.replace("\\", "\\\\").replace(".", "\\.")


def plain_input(text: bytes) -> bytes:
    """Return the JSON of an input that superjson has written; nothing if it is `undefined`.

    >>> plain_input(b'{"json":{"n":"7","at":"2027-01-15T08:00:00Z"},"meta":{"values":{"n":["bigint"],"at":["Date"]}}}')
    b'{"n": 7, "at": "2027-01-15T08:00:00Z"}'

    Raises:
        BadRequestError: it is none, or holds values that no procedure takes.
    """
    if not text:
        return b""
    try:
        payload = json.loads(text)
        if not isinstance(payload, dict) or "json" not in payload:
            raise ValueError("there is no json in it")
        holder = {"": payload["json"]}
        meta = payload.get("meta") or {}
        _require_spelled_out(meta.get("referentialEqualities"), payload["json"])
        if meta.get("values") is not None:
            _apply(meta["values"], holder, [""])
        return json.dumps(holder[""]).encode() if "" in holder else b""
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as exc:
        raise BadRequestError("the input is none that superjson has written, or is nested too deeply") from exc


def _require_spelled_out(equalities: Any, value: Any) -> None:
    """Let an input through in which equal objects are spelled out, each in its place, as superjson does by itself.

    Raises:
        ValueError: all but the first were left out (`dedupe: true`), or it is part of itself.
    """
    if isinstance(equalities, list):
        raise ValueError("an input that is part of itself is no JSON")
    for paths in (equalities or {}).values():
        for path in paths:
            found = value
            for step in _steps(path):
                found = found[_index(found, step)]
            if found is None:
                raise ValueError("equal objects are to be spelled out: leave dedupe: true out")


def _apply(tree: Tree, holder: Any, path: list[str]) -> None:
    """Turn annotated values, which stand below `holder`, into our JSON: the inner ones first."""
    children = tree if isinstance(tree, dict) else tree[1] if len(tree) > 1 else {}
    for key, each in children.items():
        _apply(each, holder, [*path, *_steps(key)])
    if isinstance(tree, list):
        parent = holder
        for step in path[:-1]:
            parent = parent[_index(parent, step)]
        _replace(parent, _index(parent, path[-1]), tree[0])


def _replace(parent: Any, index: Any, kind: Any) -> None:
    if kind == "undefined" and isinstance(parent, dict):
        del parent[index]
    elif kind == "undefined":
        parent[index] = None
    else:
        parent[index] = _READ[kind[0] if isinstance(kind, list) else kind](parent[index])


def _index(parent: Any, step: str) -> Any:
    return int(step) if isinstance(parent, list) else step


def _steps(key: str) -> Iterator[str]:
    """Yield the steps of a path; a dot in a name is escaped."""
    step, rest = "", iter(key)
    for letter in rest:
        if letter == "\\":
            step += next(rest, "")
        elif letter == ".":
            yield step
            step = ""
        else:
            step += letter
    yield step


def _spelled_key(key: Any) -> str:
    return key if isinstance(key, str) else json.dumps(key)


_READ: Final[Mapping[str, Callable[[Any], Any]]] = {
    "Date": str,
    "bigint": int,
    "number": lambda value: -0.0 if value == "-0" else str(value),
    "set": list,
    "map": lambda entries: {_spelled_key(key): value for key, value in entries},
    "typed-array": lambda value: urlsafe_b64encode(bytes(value)).decode(),
    "URL": str,
    "regexp": str,
}
"""How values that JSON has not are spelled in it; of any other type none is taken."""
