"""Every type that pydantic's documentation lists, with values that are hard to carry, and what they may stand in."""

from __future__ import annotations

import collections
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from dataclasses import fields as dataclass_fields
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from fractions import Fraction
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from math import inf
from pathlib import Path
from re import Pattern
from typing import Annotated, Any, Literal, NamedTuple, Union, cast
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import (
    UUID4,
    AnyUrl,
    AwareDatetime,
    Base64Bytes,
    BaseModel,
    ByteSize,
    ConfigDict,
    EmailStr,
    Field,
    FutureDate,
    HttpUrl,
    ImportString,
    IPvAnyAddress,
    Json,
    JsonValue,
    NaiveDatetime,
    NameEmail,
    PastDate,
    PositiveInt,
    PostgresDsn,
    RedisDsn,
    RootModel,
    Secret,
    SecretBytes,
    SecretStr,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    create_model,
)
from typing_extensions import TypeAliasType, TypedDict

__all__ = ["LEAVES", "WRAPPERS", "Cell", "Leaf", "as_client", "cells", "input_of"]


class Color(Enum):
    RED = "red"
    GREEN = "green"


class Word(StrEnum):
    A = "a"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Mixed(Enum):
    ONE = 1
    TEXT = "1"
    NOTHING = None


class Point(NamedTuple):
    x: int
    y: Decimal


class Options(TypedDict):
    at: datetime
    more: list[Decimal]


@dataclass(frozen=True)
class Pair:
    left: UUID
    right: set[int]


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    weight: Decimal


Day = date


class Shadowing(BaseModel):
    """Its fields are called like their types, and like what every class of pydantic's has."""

    date: Day | None = None  # spelled `date`, it would be None here too
    Decimal: Any = None
    list: str = ""
    class_: int = Field(default=1, alias="class")
    copy_: int = Field(default=2, alias="copy")
    strange: int = Field(default=3, alias="a-b c")
    under: int = Field(default=4, alias="_x")


NAMES = (
    "date", "datetime", "time", "UUID", "Decimal", "Any", "Field", "list", "dict", "str", "int", "float", "bool",
    "set", "tuple", "frozenset", "bytes", "BaseModel", "Model", "Literal", "Annotated", "ConfigDict", "self",
    "cls", "copy", "json", "schema", "construct", "validate", "model_config", "model_dump", "model_fields",
    "class", "from", "match", "type", "Names", "Cat", "Color", "_private", "__dunder", "a-b", "a_b", "1a", "é",
    "annotations", "default_of", "models", "print", "Path", "property", "super", "object", "UNSET", "Procedure",
    "client", "call",
)  # fmt: skip
_KINDS: list[tuple[Any, Any]] = [
    (date, date(2026, 1, 2)), (datetime, datetime(2026, 1, 2)), (time, time(1)), (UUID, UUID(int=3)),
    (Decimal, Decimal("1.0")), (Any, [1]), (list[int], [1]), (dict[str, int], {"a": 1}), (str, "s"), (int, 1),
    (float, 1.5), (bool, True), (set[int], {1}), (tuple[int, str], (1, "a")), (frozenset[int], frozenset({1})),
    (Color, Color.RED), (Literal["x"], "x"),
]  # fmt: skip
Names = create_model(
    "Names",
    **{
        f"field_{number}": (_KINDS[number % len(_KINDS)][0] | None, Field(default=None, alias=name))
        for number, name in enumerate(NAMES)
    },
)  # type: ignore[call-overload]  # names that only a dict can hold
"""A model whose fields are called like types, like what pydantic has, and like nothing that Python can spell."""


class Node(BaseModel):
    name: str
    inner: list[Node] = []
    when: datetime | None = None


U4 = UUID("b26779c1-9b4c-4177-a5d5-7a645b30125d")


class Said(BaseModel):
    """Formats that are for people to read."""

    text: str = Field(json_schema_extra={"format": "uuid"})
    maybe: str | None = Field(default=None, json_schema_extra={"format": "date"})
    at: datetime = Field(json_schema_extra={"format": "local"})
    cost: Decimal = Field(default=Decimal("1.0"), json_schema_extra={"format": "money"})
    id: UUID4 | None = Field(default=None, json_schema_extra={"format": "text"})


class Numbers(RootModel[list[Decimal]]):
    pass


Tree = TypeAliasType("Tree", "list[Tree] | int")


@dataclass(frozen=True)
class Leaf:
    """One type, with values of it; none where it is refused."""

    name: str
    annotation: Any
    values: tuple[Any, ...] = ()


LEAVES = [
    Leaf("str", str, ("", "a", "2020", "1", "null", "\x00 %&=+#é😀", "2020-01-01")),
    Leaf("bounded", Annotated[str, Field(min_length=1, max_length=9, pattern="^(?:a|b)+$")], ("ab",)),
    Leaf("email", EmailStr, ("ada+x@example.org", "2020@example.org")),
    Leaf("bool", bool, (True, False)),
    Leaf("int", int, (0, -1, 2**53 + 1, -(2**70))),
    Leaf("bigint", Annotated[int, Field(le=2**62)], (2**62, 1)),
    Leaf("float", float, (0.0, -0.0, 1.5, 1e22, 5e-324)),
    Leaf("decimal", Decimal, (Decimal("99999999999999.99"), Decimal("1.10"), Decimal("-0"), Decimal("1E+5"))),
    Leaf("fraction", Fraction, (Fraction(1, 3), Fraction(-2))),
    Leaf("complex", complex, (1 + 2j, complex(-0.0, inf))),
    Leaf("bytes", bytes, (b"", b"a", b"\xff\x00\xfe>?")),
    Leaf("datetime", datetime, (
        datetime(2026, 1, 2, 3, 4, 5, 6), datetime(2026, 1, 2, tzinfo=UTC), datetime.max, datetime.min,
        datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
        datetime(2026, 7, 2, tzinfo=ZoneInfo("Europe/Paris")),
    )),
    Leaf("aware", AwareDatetime, (datetime(2026, 1, 2, tzinfo=UTC),)),
    Leaf("naive", NaiveDatetime, (datetime(2026, 1, 2),)),
    Leaf("date", date, (date.min, date.max, date(2026, 1, 2))),
    Leaf("past", PastDate, (date(2020, 1, 2),)),
    Leaf("future", FutureDate, (date(9020, 1, 2),)),
    Leaf("time", time, (time(1), time(1, 2, 3, 4), time(1, tzinfo=UTC))),
    Leaf("timedelta", timedelta, (
        timedelta(1), timedelta(-1, 1), timedelta(microseconds=1), timedelta.max, timedelta.min,
    )),
    Leaf("uuid", UUID, (UUID(int=0), UUID(int=2**128 - 1))),
    Leaf("uuid4", UUID4, (U4,)),
    Leaf("ipv4", IPv4Address, (IPv4Address("1.2.3.4"),)),
    Leaf("ipv6", IPv6Address, (IPv6Address("::1"),)),
    Leaf("ipv4net", IPv4Network, (IPv4Network("10.0.0.0/8"),)),
    Leaf("ipv6net", IPv6Network, (IPv6Network("::/64"),)),
    Leaf("ipv4if", IPv4Interface, (IPv4Interface("1.2.3.4/8"),)),
    Leaf("ipv6if", IPv6Interface, (IPv6Interface("::1/64"),)),
    Leaf("anyip", IPvAnyAddress, (IPv4Address("1.2.3.4"), IPv6Address("::1"))),
    Leaf("url", AnyUrl, (AnyUrl("ftp://a/b?c=d"),)),
    Leaf("http", HttpUrl, (HttpUrl("http://example.org/a%20b"),)),
    Leaf("redis", RedisDsn, (RedisDsn("redis://h:1/0"),)),
    Leaf("postgres", PostgresDsn, (PostgresDsn("postgres://u:p@a,b/c"),)),
    Leaf("path", Path, (Path("a/b"), Path())),
    Leaf("literal", Literal["month", "year"], ("month",)),
    Leaf("mixed_literal", Literal[1, "1", True, None], ("1", None)),
    Leaf("color", Color, (Color.RED,)),
    Leaf("word", Word, (Word.A,)),
    Leaf("level", Level, (Level.HIGH,)),
    Leaf("mixed", Mixed, (Mixed.ONE, Mixed.TEXT, Mixed.NOTHING)),
    Leaf("byte_size", ByteSize, (ByteSize(5),)),
    Leaf("positive", PositiveInt, (3,)),
    Leaf("strict_int", StrictInt, (3,)),
    Leaf("strict_str", StrictStr, ("3",)),
    Leaf("strict_bool", StrictBool, (True,)),
    Leaf("strict_float", StrictFloat, (3.0,)),
    Leaf("none", None, (None,)),
    Leaf("any", Any, ({"a": [1, None, "x", 1.5, True]}, "2020-01-01", None)),
    Leaf("json_value", JsonValue, ({"a": [1, None, "x", 1.5, True]}, [])),
    Leaf("sequence", Sequence[Decimal], ([Decimal("1.5")],)),
    Leaf("mapping", Mapping[str, date], ({"a": date(2026, 1, 2)},)),
    Leaf("deque", collections.deque[int], (collections.deque([1, 2]),)),
    Leaf("ordered", collections.OrderedDict[str, int], (collections.OrderedDict(b=1, a=2),)),
    Leaf("counter", collections.Counter[str], (collections.Counter("aab"),)),
    Leaf("pairs", list[tuple[str, int]], ([("a", 1), ("b", 2)], [])),
    Leaf("empty_tuple", tuple[()], ((),)),
    Leaf("named_tuple", Point, (Point(1, Decimal("2.50")),)),
    Leaf("typed_dict", Options, ({"at": datetime(2026, 1, 2), "more": [Decimal("1.0")]},)),
    Leaf("dataclass", Pair, (Pair(UUID(int=1), {1, 2}),)),
    Leaf("model", Node, (Node(name="a", inner=[Node(name="b")], when=datetime(2026, 1, 2)),)),
    Leaf("shadowing", Shadowing, (
        Shadowing.model_validate({"date": date(2026, 1, 2), "list": "x", "class": 5, "copy": 6, "a-b c": 7, "_x": 8}),
    )),
    Leaf("names", Names, (
        Names.model_validate({name: _KINDS[number % len(_KINDS)][1] for number, name in enumerate(NAMES)}),
        Names(),
    )),
    Leaf("said", Said, (
        Said(text="x", maybe="y", at=datetime(2026, 1, 2), cost=Decimal("1.10"), id=U4),
        Said(text="x", at=datetime(2026, 1, 2)),
    )),
    Leaf("root_model", Numbers, (Numbers([Decimal("1.0")]),)),
    Leaf("tree", Tree, ([1, [2, []]], 3)),
    Leaf("pets", Annotated[Cat | Dog, Field(discriminator="kind")], (Cat(lives=9), Dog(weight=Decimal("2.0")))),
    Leaf("secret", SecretStr, (SecretStr("s3cret"),)),
    Leaf("refused_secret_bytes", SecretBytes),
    Leaf("refused_secret_int", Secret[int]),
    Leaf("refused_name_email", NameEmail),
    Leaf("refused_pattern", Pattern[str]),
    Leaf("refused_compiled", re.Pattern),
    Leaf("refused_import", ImportString),
    Leaf("refused_callable", Callable[[], int]),
    Leaf("refused_class", type[int]),
    Leaf("refused_iterable", Iterable[int]),
    Leaf("refused_hashable", Hashable),
    Leaf("refused_json", Json[int]),
    Leaf("refused_base64", Base64Bytes),
    Leaf("refused_defaultdict", collections.defaultdict[str, int]),
]  # fmt: skip

# Types are values here, which type checkers do not follow.
_LIST, _DICT, _TUPLE, _SET, _FROZENSET = (cast(Any, kind) for kind in (list, dict, tuple, set, frozenset))
_UNION: Any = Union

WRAPPERS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "alone": (lambda kind: kind, lambda value: value),
    "optional": (lambda kind: _UNION[kind, None], lambda value: value),
    "list": (lambda kind: _LIST[kind], lambda value: [value, value]),
    "dict": (lambda kind: _DICT[str, kind], lambda value: {"k": value}),
    "keys": (lambda kind: _DICT[kind, int], lambda value: {value: 1}),
    "tuple": (lambda kind: _TUPLE[kind, int], lambda value: (value, 1)),
    "tuples": (lambda kind: _TUPLE[kind, ...], lambda value: (value,)),
    "set": (lambda kind: _SET[kind], lambda value: {value}),
    "frozenset": (lambda kind: _FROZENSET[kind] | None, lambda value: frozenset({value})),
    "or_int": (lambda kind: _UNION[kind, int], lambda value: value),
    "or_str": (lambda kind: _UNION[kind, str], lambda value: value),
    "or_list": (lambda kind: _UNION[_LIST[kind], kind, None], lambda value: [value]),
}

ENCODED = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")


@dataclass(frozen=True)
class Cell:
    """A type in the matrix."""

    name: str
    annotation: Any
    values: tuple[Any, ...]


def cells() -> Iterator[Cell]:
    """Yield each leaf in each wrapper that Python itself allows."""
    for leaf in LEAVES:
        for wrapper, (annotate, wrap) in WRAPPERS.items():
            try:
                values = tuple(wrap(value) for value in leaf.values)
            except TypeError:
                continue  # not hashable
            yield Cell(f"{leaf.name}_{wrapper}", annotate(leaf.annotation), values)


def input_of(name: str, annotation: Any) -> type[BaseModel]:
    """Return a model with one field, whose bytes are spelled as base64."""
    return create_model(f"In_{name}", __config__=ENCODED, value=(annotation, ...))


def as_client(value: Any, models: Any) -> Any:
    """Return a value as the generated client has it: enums and classes are those of its module."""
    if isinstance(value, Enum):
        return getattr(models, type(value).__name__)[value.name]
    if isinstance(value, RootModel):
        return as_client(value.root, models)
    if isinstance(value, BaseModel):
        named = {field.alias or name: getattr(value, name) for name, field in type(value).model_fields.items()}
        return _made(models, type(value).__name__, named)
    if is_dataclass(value):
        named = {field.name: getattr(value, field.name) for field in dataclass_fields(value)}
        return _made(models, type(value).__name__, named)
    if isinstance(value, dict) and value.keys() == Options.__annotations__.keys():
        return _made(models, "Options", value)
    if isinstance(value, dict):
        pairs = [(as_client(key, models), as_client(item, models)) for key, item in value.items()]
        return type(value)(dict(pairs))
    if isinstance(value, Point):
        return tuple(as_client(item, models) for item in value)
    if isinstance(value, list | tuple | set | frozenset | collections.deque):
        return type(value)(as_client(item, models) for item in value)
    return int(value) if isinstance(value, ByteSize) else value


def _made(models: Any, name: str, named: dict[str, Any]) -> Any:
    model = next(getattr(models, one) for one in (name, f"{name}Input") if hasattr(models, one))
    return model.model_validate({alias: as_client(item, models) for alias, item in named.items()})
