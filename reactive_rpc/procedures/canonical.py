"""Canonical bytes of a value: equal bytes mean that a handler cannot tell the values apart.

Made from the validated values themselves and not from their JSON, because a serializer may lose what a handler sees:
two `SecretStr` both dump as asterisks, and one entry would then answer two callers. Fields that were not set are
named too, because a handler can ask for `model_fields_set`.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from math import isfinite
from pathlib import PurePath
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson
from pydantic import AnyUrl, BaseModel, SecretBytes, SecretStr

from reactive_rpc.procedures.wire_types import MULTI_HOST_URLS

__all__ = ["SPELLED", "canonical", "distinct", "is_pure"]

SPELLED = (
    datetime, date, time, timedelta, Decimal, Fraction, UUID, IPv4Address, IPv6Address, IPv4Network, IPv6Network,
    PurePath, AnyUrl, *MULTI_HOST_URLS,
)  # fmt: skip


def canonical(value: object) -> bytes:
    """Return bytes that are equal only for values that no handler can tell apart.

    Raises:
        TypeError: a type that this module does not know is in it; the message names it.

    >>> canonical({"b": 1, "a": 2}) == canonical({"a": 2, "b": 1})  # a handler sees the order
    False
    >>> canonical(float("inf")) == canonical(float("-inf"))
    False
    """
    spelled = orjson.dumps(_plain(value), option=orjson.OPT_SORT_KEYS)
    # orjson keeps the room that the text might have needed, several times what it takes, and keys are kept for long.
    return memoryview(spelled).tobytes()


_DISTINCT: Final = frozenset({str, bytes, int, bool, type(None), UUID})
"""Types whose values are equal only if they are spelled alike, among those of the very same type."""


def distinct(value: object) -> tuple[object, ...] | None:
    """Return what two values have equal only if `canonical` spells them alike; None if that cannot be said of one.

    It is cheaper than the bytes, and serves to find them again. Equality itself does not: `True` is equal to `1`, a
    moment to the same one elsewhere, and a dataclass to another whose field with `compare=False` is not.

    >>> from reactive_rpc import Login
    >>> distinct(Login(identity="a")) == distinct(Login(identity="a")), distinct(Login(identity="a")) == distinct(None)
    (True, False)
    """
    kind = type(value)
    names = _held_fields_of(kind)  # type: ignore[arg-type]  # a class can be hashed
    if names is None:
        return None
    held = value.__dict__
    kinds = tuple(map(type, held.values()))
    if tuple(held) != names or not _DISTINCT.issuperset(kinds):
        return None
    return (kind, kinds, *held.values())


@lru_cache(maxsize=1024)
def _held_fields_of(kind: type) -> tuple[str, ...] | None:
    """Return the fields that instances of a dataclass hold in their `__dict__`, and that nothing else is read for."""
    fields = _shape_of(kind).fields
    if fields is None or any("__getattribute__" in vars(each) for each in kind.__mro__[:-1]):
        return None
    if any(hasattr(getattr(kind, name, None), "__get__") for name in fields):  # a property, or a slot
        return None
    return fields


def is_pure(model: type[BaseModel] | None) -> bool:
    """Tell whether validating the same text always gives the same input: no code of the application's own runs in it.

    A validator may look at the clock, and a default factory usually does.
    """
    return model is None or not _runs_code(model.__pydantic_core_schema__)


_PURE = frozenset({
    "any", "none", "bool", "int", "float", "decimal", "str", "bytes", "date", "time", "datetime", "timedelta",
    "literal", "enum", "uuid", "url", "multi-host-url", "list", "tuple", "set", "frozenset", "dict", "nullable",
    "union",
    "tagged-union", "default", "definitions", "definition-ref", "model", "model-fields", "model-field",
})  # fmt: skip
"""The kinds of pydantic-core schema whose validation runs nothing of the application's."""


def _runs_code(schema: object) -> bool:
    if isinstance(schema, dict):
        kind = schema.get("type")
        if isinstance(kind, str) and kind not in _PURE:
            return True
        if any(schema.get(hook) for hook in ("default_factory", "post_init", "custom_init", "missing")):
            return True
        if callable(schema.get("discriminator")):
            return True
        return any(_runs_code(part) for key, part in schema.items() if key not in ("serialization", "metadata"))
    return isinstance(schema, list | tuple) and any(_runs_code(part) for part in schema)


def _plain(value: Any) -> object:
    """Return `value` as JSON's own types; what JSON has no type for becomes `{"$type": spelling}`."""
    kind = type(value)
    if value is None or kind is str or kind is bool:
        return value
    if kind is int:
        return value if -(2**63) <= value < 2**63 else {"$int": str(value)}
    if kind is float:
        return value if isfinite(value) else {"$float": repr(value)}
    if kind is list:
        return [_plain(item) for item in value]
    if kind is dict:  # as below, for what a context is made of: on the way of each call that has one
        return {"$builtins.dict": [[_plain(key), _plain(item)] for key, item in value.items()]}
    shape = _shape_of(kind)  # type: ignore[arg-type]  # a class can be hashed
    if shape.fields is None:
        return {shape.tag: _content(value)}
    _require_nothing_beside(value, shape.names)
    return {shape.tag: [_plain(getattr(value, name)) for name in shape.fields]}


class _Shape(NamedTuple):
    """How values of a class are spelled.

    Attributes:
        fields: of a dataclass of its own, and nothing else, in order; None of any other class.
        names: the same.
    """

    tag: str
    fields: tuple[str, ...] | None
    names: frozenset[str]


@lru_cache(maxsize=1024)
def _shape_of(kind: type) -> _Shape:
    tag = f"${kind.__module__}.{kind.__qualname__}"
    # Of its own: a plain subclass may hold more than its fields.
    is_plain = "__dataclass_fields__" in vars(kind) and not issubclass(kind, _SPELLED_OTHERWISE)
    if not is_plain or hasattr(kind, "__mapper__"):
        return _Shape(tag, None, frozenset())
    fields = tuple(field.name for field in dataclasses.fields(kind))
    return _Shape(tag, fields, frozenset(fields))


def _content(value: Any) -> object:
    if hasattr(type(value), "__mapper__"):
        raise TypeError(
            f"{kind_of(value)} is a mapped class, whose attributes come and go: it cannot be part of a cache key. "
            "Use a frozen dataclass that extends Login, with the columns that handlers need"
        )
    if isinstance(value, BaseModel):
        return _model(value)
    if isinstance(value, Enum):
        return [value.name, _plain(value.value)]
    for kinds, spell in _SPELLINGS:
        if isinstance(value, kinds):
            return spell(value)
    if isinstance(value, set | frozenset):
        return sorted(canonical(item).decode() for item in value)
    _require_nothing_beside(value, frozenset())
    if isinstance(value, dict):
        return [[_plain(key), _plain(item)] for key, item in value.items()]
    if isinstance(value, list | tuple | deque):
        return [_plain(item) for item in value]
    for plain in (str, int, float):
        if isinstance(value, plain):
            return _plain(plain(value))
    raise TypeError(f"a {kind_of(value)} cannot be part of a cache key")


_SPELLINGS: tuple[tuple[Any, Callable[[Any], object]], ...] = (
    ((SecretStr, SecretBytes), lambda value: _plain(value.get_secret_value())),
    (SPELLED, str),
    (bytes, bytes.hex),
    (complex, lambda value: [_plain(value.real), _plain(value.imag)]),
)

_SPELLED_OTHERWISE: Final = (BaseModel, Enum, SecretStr, SecretBytes, *SPELLED, bytes, complex, set, frozenset)
"""A dataclass that is one of these too is spelled as that."""


_NOTHING: Final[dict[str, object]] = {}


def kind_of(value: object) -> str:
    """Return the name of a value's type."""
    return type(value).__qualname__


def _require_nothing_beside(value: object, names: frozenset[str]) -> None:
    beside = getattr(value, "__dict__", _NOTHING).keys() - names
    if beside:
        raise TypeError(
            f"{kind_of(value)} cannot be part of a cache key: it holds {sorted(beside)[0]!r} beside its fields"
        )


def _model(value: BaseModel) -> object:
    fields = {name: _plain(item) for name, item in value.__dict__.items() if name in type(value).model_fields}
    unset = sorted(type(value).model_fields.keys() - value.model_fields_set)
    return [fields, unset, _plain(value.__pydantic_extra__), _plain(value.__pydantic_private__)]
