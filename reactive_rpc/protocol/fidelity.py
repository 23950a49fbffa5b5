"""Whether a value comes back from JSON as it went in, which its type alone does not decide.

A union is the usual case: JSON spells a date as text, so a `datetime | str` comes back as one or the other. Two
things are done about it, alike on the server and in the client, which both stand on this module:

- `as_spelled`: in a union with `str`, a text is something else only if it is spelled exactly as that would be written.
  "2020", which pydantic alone reads as a moment of 1970, stays a text.
- `Inspector`: a value is first compared with the one that the other side will read. If it would arrive as another
  (the text "2020-01-01" in the place of a date or a text), the sender refuses it, with its place.

A float that is no number is found likewise: JSON has none, and pydantic writes null.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from decimal import Decimal
from math import isfinite
from typing import Any, Final, NamedTuple

from pydantic import BaseModel
from pydantic_core import (
    PydanticSerializationError,
    SchemaSerializer,
    SchemaValidator,
    ValidationError,
    core_schema,
)

__all__ = ["AsSpelled", "CoreSchema", "Inspector", "Unfit", "as_spelled", "is_same"]

CoreSchema = Mapping[str, Any]
"""A schema of pydantic-core; its kinds are named in `pydantic_core.core_schema`, whose own union of them no rule here
narrows."""

Check = Callable[[Any, str], "Unfit | None"]


class Unfit(NamedTuple):
    """A value that would not arrive: its place (`items[2].at`), and why."""

    where: str
    message: str


class AsSpelled:
    """In `Annotated[T | str, AsSpelled()]`: JSON's text is a T only if it is spelled exactly as a T is written.

    >>> from datetime import date
    >>> from typing import Annotated
    >>> from pydantic import TypeAdapter
    >>> either = TypeAdapter(Annotated[date | str, AsSpelled()])
    >>> either.validate_json('"2027-01-15"'), either.validate_json('"2027"')
    (datetime.date(2027, 1, 15), '2027')
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        return as_spelled(handler(source))


_APART: Final = frozenset({"metadata", "serialization", "cls", "config", "function", "default", "expected", "members"})
_TEXTS: Final = frozenset(
    {"datetime", "date", "time", "timedelta", "decimal", "uuid", "bytes", "fraction", "complex", "enum"}
)
_CLASSES: Final = ("model", "dataclass", "typed-dict", "definition-ref")
_MADE: Final = ("lax-or-strict", "function-wrap", "function-plain")
"""How pydantic makes paths, addresses and URLs, which are texts in JSON."""


def as_spelled(schema: Any) -> Any:
    """Return a core schema in which every union with `str` keeps its texts; the same object if there is none."""
    if isinstance(schema, list | tuple):
        parts = [as_spelled(part) for part in schema]
        return type(schema)(parts) if any(new is not old for new, old in zip(parts, schema, strict=True)) else schema
    if not isinstance(schema, dict):
        return schema
    changed = {key: part if key in _APART else as_spelled(part) for key, part in schema.items()}
    changed = changed if any(changed[key] is not part for key, part in schema.items()) else schema
    return _distinguished(changed) if changed.get("type") == "union" else changed


def _distinguished(union: Any) -> Any:
    """Have the union read a text of JSON as the first type that spells it exactly so, and else as pydantic does."""
    texts = [choice for choice in union["choices"] if _is_text(choice)]
    if not texts or not any(_bare(choice)["type"] == "str" for choice in union["choices"]):
        return union
    rest: Any = {**union, "choices": [choice for choice in union["choices"] if choice not in texts]}
    takes_numbers = not any(_bare(choice)["type"] in ("int", "float") for choice in rest["choices"])
    exact = [_only_as_spelled(choice, takes_numbers=takes_numbers) for choice in texts]
    written = core_schema.wrap_serializer_function_ser_schema(lambda value, write: write(value), schema=union)
    tried = core_schema.union_schema([*exact, rest], mode="left_to_right")
    return core_schema.json_or_python_schema(tried, union, serialization=written)


def _is_text(choice: Any) -> bool:
    kind = _bare(choice)["type"]
    return kind in _TEXTS or kind in _MADE


def _bare(choice: Any) -> CoreSchema:
    """Return the bare schema of one choice of a union: without its label, without checks around it."""
    schema: CoreSchema = choice[0] if isinstance(choice, tuple) else choice
    while schema["type"] in ("function-after", "function-before"):
        schema = schema["schema"]
    return schema


def _only_as_spelled(choice: Any, *, takes_numbers: bool) -> Any:
    """Return the schema of a choice that takes of JSON only its own spelling; a decimal takes numbers too."""
    schema = choice[0] if isinstance(choice, tuple) else choice
    takes_numbers = takes_numbers and _bare(schema)["type"] in ("decimal", "fraction")
    serializer = SchemaSerializer(schema, _ENCODING)

    def validate(value: Any, read: Callable[[Any], Any]) -> Any:
        result = read(value)
        if takes_numbers and isinstance(value, int | float):
            return result
        if not is_same(serializer.to_python(result, mode="json"), value):
            raise ValueError("it is spelled otherwise")
        return result

    return core_schema.no_info_wrap_validator_function(validate, schema)


_ENCODING: Final = core_schema.CoreConfig(ser_json_bytes="base64", val_json_bytes="base64")


class Inspector:
    """Looks through values of one type for those that would not arrive.

    Attributes:
        always: whether every value needs the look; else only one whose JSON holds a null, which a float that is no
            number is written as.
        is_needed: whether any value needs it.
    """

    def __init__(self, schema: CoreSchema) -> None:
        self._definitions: dict[str, CoreSchema] = {}
        self._checks: dict[str, Check | None] = {}
        self._kinds: set[str] = set()
        self._collect(schema)
        self._check = self._compile(schema, {})
        self.always = not self._kinds.isdisjoint(("any", "union"))
        self.is_needed = self._check is not None and not self._kinds.isdisjoint(("any", "union", "float"))

    def unfit(self, value: object) -> Unfit | None:
        """Return the first value that would not arrive."""
        return self._check(value, "") if self._check is not None else None

    def _collect(self, schema: Any) -> None:
        """Note the kinds of schema there are, and the definitions."""
        if isinstance(schema, list | tuple):
            for part in schema:
                self._collect(part)
        elif isinstance(schema, dict):
            if isinstance(schema.get("type"), str):
                self._kinds.add(schema["type"])
            if "ref" in schema:
                self._definitions[schema["ref"]] = schema
            for key, part in schema.items():
                if key not in _APART:
                    self._collect(part)

    def _compile(self, schema: CoreSchema, config: Mapping[str, Any]) -> Check | None:
        """Return the check of values of one schema; None if nothing in it can be wrong."""
        kind = schema["type"]
        if schema.get("serialization", {}).get("type") in ("function-plain", "to-string"):
            return None  # what is written is not the value: nothing to compare
        config = schema.get("config", {}) if kind in ("model", "dataclass", "typed-dict") else config
        rule = _RULES.get(kind)
        if rule is not None:
            return rule(self, schema, config)
        inner = schema.get("schema")
        return self._compile(inner, config) if isinstance(inner, Mapping) else None

    def _float(self, schema: CoreSchema, config: Mapping[str, Any]) -> Check | None:
        return None if config.get("ser_json_inf_nan") == "strings" else _check_float

    def _any(self, schema: CoreSchema, config: Mapping[str, Any]) -> Check | None:
        return _check_json

    def _reference(self, schema: CoreSchema, config: Mapping[str, Any]) -> Check | None:
        name = schema["schema_ref"]

        def check(value: Any, where: str) -> Unfit | None:
            if name not in self._checks:
                self._checks[name] = None
                self._checks[name] = self._compile(self._definitions[name], {})
            found = self._checks[name]
            return found(value, where) if found is not None else None

        return check

    def _nullable(self, schema: CoreSchema, config: Mapping[str, Any]) -> Check | None:
        inner = self._compile(schema["schema"], config)
        return None if inner is None else lambda value, where: None if value is None else inner(value, where)

    def _items(self, schema: CoreSchema, config: Mapping[str, Any]) -> Check | None:
        items = schema.get("items_schema")
        inner = self._compile(items if isinstance(items, Mapping) else {"type": "any"}, config)
        if inner is None:
            return None
        return lambda value, where: _first(
            inner(item, f"{where}[{number}]") for number, item in enumerate(_iterated(value))
        )

    def _tuple(self, schema: CoreSchema, config: Mapping[str, Any]) -> Check | None:
        inner = [self._compile(item, config) for item in schema["items_schema"]]
        if not any(inner):
            return None
        variadic = schema.get("variadic_item_index")

        def check(value: Any, where: str) -> Unfit | None:
            items = tuple(value)
            more = len(items) - len(inner)
            spread = (
                inner
                if variadic is None
                else [*inner[:variadic], *[inner[variadic]] * (more + 1), *inner[variadic + 1 :]]
            )
            return _first(
                one(item, f"{where}[{number}]")
                for number, (one, item) in enumerate(zip(spread, items, strict=False))
                if one is not None
            )

        return check

    def _mapping(self, schema: CoreSchema, config: Mapping[str, Any]) -> Check | None:
        keys = schema.get("keys_schema", {"type": "any"})
        inner = self._compile(schema.get("values_schema", {"type": "any"}), config)
        key = _check_key if keys["type"] == "any" else self._compile(keys, config)
        if inner is None and key is None:
            return None

        def check(value: Any, where: str) -> Unfit | None:
            return _first(
                found
                for name, item in value.items()
                for found in (key and key(name, where), inner and inner(item, f"{where}[{name!r}]"))
            )

        return check

    def _fields(self, schema: CoreSchema, config: Mapping[str, Any]) -> Check | None:
        fields = schema["fields"]
        pairs = fields.items() if isinstance(fields, Mapping) else [(one["name"], one) for one in fields]
        compiled = [
            (name, one)
            for name, field in pairs
            if not field.get("serialization_exclude") and (one := self._compile(field["schema"], config)) is not None
        ]
        if not compiled:
            return None

        def check(value: Any, where: str) -> Unfit | None:
            prefix = f"{where}." if where else ""
            return _first(
                one(found, f"{prefix}{name}")
                for name, one in compiled
                if (found := _field_of(value, name)) is not _ABSENT
            )

        return check

    def _model(self, schema: CoreSchema, config: Mapping[str, Any]) -> Check | None:
        inner = self._compile(schema["schema"], config)
        if inner is None or not schema.get("root_model"):
            return inner
        return lambda value, where: inner(value.root, where)

    def _union(self, schema: CoreSchema, config: Mapping[str, Any]) -> Check | None:
        choices = [*self._choices(schema)]
        classes = {cls: self._compile(one, config) for one in choices if (cls := self._class(one)) is not None}
        plain = [choice for choice in choices if not self._has_class(choice, set())]
        compare = _ValueComparison({**schema, "type": "union", "choices": plain}) if plain else None
        is_plain = len(plain) == len(choices)

        def check(value: Any, where: str) -> Unfit | None:
            if type(value) in classes:
                found = classes[type(value)]
                return found(value, where) if found is not None else None
            if compare is None or (not is_plain and (isinstance(value, _HOLDERS) or is_dataclass(value))):
                return None
            return compare(value, where)

        return check

    def _choices(self, schema: CoreSchema) -> Iterator[CoreSchema]:
        """Yield the choices of a union, and those of unions in it."""
        for choice in _listed(schema["choices"]):
            one = choice[0] if isinstance(choice, tuple) else choice
            if one["type"] in ("union", "tagged-union"):
                yield from self._choices(one)
            else:
                yield one

    def _class(self, schema: CoreSchema) -> type | None:
        if schema["type"] == "definition-ref":
            schema = self._definitions[schema["schema_ref"]]
        return schema.get("cls") if schema["type"] in ("model", "dataclass") else None

    def _has_class(self, schema: Any, seen: set[str]) -> bool:
        if isinstance(schema, list | tuple):
            return any(self._has_class(part, seen) for part in schema)
        if not isinstance(schema, dict):
            return False
        return schema.get("type") in _CLASSES or any(
            self._has_class(part, seen) for key, part in schema.items() if key not in _APART
        )


_RULES: Final[dict[str, Callable[[Inspector, CoreSchema, Mapping[str, Any]], Check | None]]] = {
    "float": Inspector._float,
    "any": Inspector._any,
    "definition-ref": Inspector._reference,
    "nullable": Inspector._nullable,
    "list": Inspector._items,
    "set": Inspector._items,
    "frozenset": Inspector._items,
    "deque": Inspector._items,
    "tuple": Inspector._tuple,
    "dict": Inspector._mapping,
    "ordered-dict": Inspector._mapping,
    "json-or-python": lambda inspector, schema, config: inspector._compile(schema["json_schema"], config),
    "model-fields": Inspector._fields,
    "dataclass-args": Inspector._fields,
    "typed-dict": Inspector._fields,
    "named-tuple": Inspector._fields,
    "model": Inspector._model,
    "union": Inspector._union,
    "tagged-union": Inspector._union,
}
_HOLDERS: Final = (list, tuple, set, frozenset, dict, BaseModel)
_ABSENT: Final = object()


class _ValueComparison:
    """Writes a value as one side does and reads it as the other does."""

    def __init__(self, schema: Any) -> None:
        self._serializer = SchemaSerializer(schema, _ENCODING)
        self._validator = SchemaValidator(as_spelled(schema), _ENCODING)

    def __call__(self, value: object, where: str) -> Unfit | None:
        try:
            written = self._serializer.to_json(value, warnings="error")
        except PydanticSerializationError:
            return None  # it belongs to a choice that is not compared
        try:
            if is_same(value, self._validator.validate_json(written)):
                return None
        except ValidationError:
            pass
        message = f"{value!r:.80} would arrive as another value: JSON spells types of this union alike"
        return Unfit(where, message)


def is_same(one: Any, other: Any) -> bool:
    """Tell whether two values are of one type and equal, and all that is in them.

    >>> is_same([1], [True]), is_same(float("nan"), float("nan")), is_same({"a": (1,)}, {"a": [1]})
    (False, True, False)
    """
    if type(one) is not type(other):
        return False
    if isinstance(one, float | Decimal):
        return repr(one) == repr(other)
    if isinstance(one, dict):
        pairs = zip(one.items(), other.items(), strict=False)
        return len(one) == len(other) and all(is_same(left, right) for left, right in pairs)
    if isinstance(one, set | frozenset):
        return one == other and Counter(map(type, one)) == Counter(map(type, other))
    if isinstance(one, list | tuple) or type(one).__name__ == "deque":
        return len(one) == len(other) and all(is_same(left, right) for left, right in zip(one, other, strict=True))
    if isinstance(one, BaseModel):
        return all(is_same(getattr(one, name), getattr(other, name)) for name in type(one).model_fields)
    if is_dataclass(one):
        return all(is_same(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))
    return bool(one == other)


def _check_float(value: Any, where: str) -> Unfit | None:
    if not isinstance(value, float) or isfinite(value):
        return None
    return Unfit(where, f"{value} is no number of JSON: make it None, or give the model ser_json_inf_nan='strings'")


def _check_json(value: Any, where: str) -> Unfit | None:
    """Hold a value that may be anything to the values that JSON has."""
    if type(value) is dict:
        return _first(
            found
            for name, item in value.items()
            for found in (_check_key(name, where), _check_json(item, f"{where}[{name!r}]"))
        )
    if type(value) is list:
        return _first(_check_json(item, f"{where}[{number}]") for number, item in enumerate(value))
    if type(value) is float:
        return _check_float(value, where)
    if value is None or type(value) in (str, int, bool):
        return None
    kind = type(value).__name__
    return Unfit(
        where,
        f"a {kind} stands where anything may, and would arrive as JSON's own type: annotate it as {kind}, in a model "
        "or a TypedDict, or say that JSON will do by pydantic_core.to_jsonable_python(...)",
    )


def _check_key(value: Any, where: str) -> Unfit | None:
    if type(value) is str:
        return None
    return Unfit(where, f"the key {value!r:.80} would arrive as text: annotate the keys' type")


def _first(found: Iterable[Unfit | None]) -> Unfit | None:
    return next((one for one in found if one is not None), None)


def _iterated(value: Any) -> Iterable[Any]:
    return value if isinstance(value, Iterable) else ()


def _field_of(value: Any, name: str) -> Any:
    return value.get(name, _ABSENT) if isinstance(value, dict) else getattr(value, name, _ABSENT)


def _listed(choices: Any) -> list[Any]:
    return [*choices.values()] if isinstance(choices, Mapping) else choices
