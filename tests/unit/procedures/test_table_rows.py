"""Rows of table models come back from JSON as they went in: every type of column, in everything that holds a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from ipaddress import IPv4Address, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, cast
from uuid import UUID

import pytest
from pydantic import VERSION, AnyUrl, BaseModel, ConfigDict, create_model, field_validator, model_validator
from sqlalchemy import JSON, Column, String, inspect
from sqlalchemy.orm import registry
from sqlmodel import Field, Relationship, SQLModel
from typing_extensions import TypedDict

from reactive_rpc.procedures.table_rows import with_typed_rows
from reactive_rpc.procedures.wire_codec import OutputCodec
from reactive_rpc.protocol.fidelity import is_same


class Base(SQLModel, registry=registry()):
    """The tables here are in no other test's metadata."""


class Encoded(Base):
    model_config = cast(Any, ConfigDict(ser_json_bytes="base64", val_json_bytes="base64"))


class Color(Enum):
    RED = "red"


class Word(StrEnum):
    A = "a"


class Level(IntEnum):
    LOW = 1


class Point(NamedTuple):
    x: int
    y: Decimal


class Options(TypedDict):
    at: datetime
    more: list[Decimal]


class Address(BaseModel):
    street: str
    since: date


_UNION: Any = Union  # types are values here, which type checkers do not follow

COLUMNS: dict[str, tuple[Any, Any]] = {
    "int": (int, 2**60),
    "float": (float, 1.0),
    "str": (str, "2026-01-02"),
    "bool": (bool, True),
    "decimal": (Decimal, Decimal("9.90")),
    "bounded": (Annotated[Decimal, Field(max_digits=5, decimal_places=2)], Decimal("9.90")),
    "datetime": (datetime, datetime(2026, 1, 2, 3, 4, 5, 678901)),
    "aware": (datetime, datetime(2026, 1, 2, tzinfo=UTC)),
    "date": (date, date(2026, 1, 2)),
    "time": (time, time(1, 2, 3, 4)),
    "timedelta": (timedelta, timedelta(days=-1, microseconds=1)),
    "uuid": (UUID, UUID(int=7)),
    "bytes": (bytes, b"\xff\x00"),
    "enum": (Color, Color.RED),
    "str_enum": (Word, Word.A),
    "int_enum": (Level, Level.LOW),
    "literal": (Literal["a", "b"], "b"),
    "address": (IPv4Address, IPv4Address("1.2.3.4")),
    "network": (IPv6Network, IPv6Network("::/64")),
    "url": (AnyUrl, AnyUrl("ftp://a/b?c=d")),
    "path": (Path, Path("a/b")),
    "list": (list[Decimal], [Decimal("1.50")]),
    "dict": (dict[int, date], {1: date(2026, 1, 2)}),
    "set": (set[int], {1, 2}),
    "tuple": (tuple[int, Decimal], (1, Decimal("2.0"))),
    "typed_dict": (Options, {"at": datetime(2026, 1, 2), "more": [Decimal("1.0")]}),
    "model": (Address, Address(street="a", since=date(2026, 1, 2))),
    "moment_or_text": (datetime | str, "2026"),
    "json": (Any, {"a": [1, None, "2026-01-02"]}),
}
if tuple(map(int, VERSION.split(".")[:2])) >= (2, 14):  # before, pydantic has no such result
    COLUMNS["named_tuple"] = Point, Point(1, Decimal("2.50"))


def table_of(name: str, annotation: Any, **options: Any) -> Any:
    """Return a table model with a column of a type, twice: once as it is, and once where it may be missing."""
    kind: Any = create_model(
        f"Row_{name}",
        __base__=Encoded,
        __cls_kwargs__={"table": True},
        __module__=__name__,
        id=(int | None, Field(default=None, primary_key=True)),
        value=(annotation, Field(sa_column=Column(JSON), **options)),
        maybe=(_UNION[annotation, None], Field(default=None, sa_column=Column(JSON))),
    )
    return kind


TABLES = {name: (table_of(name, annotation), value) for name, (annotation, value) in COLUMNS.items()}
"""`{column: (table model, value)}`"""


class Other(BaseModel):
    other: int


def held(kind: Any) -> Iterator[tuple[str, Any, Callable[[Any], Any]]]:
    """Yield what may hold a row: a name, the annotation, and what makes it of a row."""
    box = create_model(f"Box_{kind.__name__}", rows=(list[kind], ...), first=(kind | None, None))
    yield "alone", kind, lambda row: row
    yield "optional", kind | None, lambda row: row
    yield "list", list[kind], lambda row: [row, row]
    yield "dict", dict[str, kind], lambda row: {"a": row}
    yield "tuple", tuple[kind, int], lambda row: (row, 1)
    yield "or_other", _UNION[Other, kind], lambda row: row
    yield "or_text", _UNION[str, kind], lambda row: row
    yield "model", box, lambda row: box(rows=[row], first=row)
    yield "nested", dict[str, list[box]], lambda row: {"a": [box(rows=[row])]}


def there_and_back(annotation: Any, value: object) -> Any:
    """Write a value as the server does, and read it as a caller in this process does."""
    codec = OutputCodec(annotation)
    return codec.from_json(codec.adapter.dump_json(value, by_alias=True, warnings="error"))


@pytest.mark.parametrize("column", COLUMNS)
def test_a_row_comes_back_as_it_went_in(column: str) -> None:
    """Value and type of each column, in each holder; with a value in both columns, and in one."""
    kind, value = TABLES[column]
    for name, annotation, hold in held(kind):
        for given in ({"value": value, "maybe": value}, {"value": value}):
            expected = hold(kind(id=1, **given))
            assert is_same(there_and_back(annotation, expected), expected), name


class Team(Base, table=True):
    __tablename__ = "table_rows_team"
    id: int = Field(primary_key=True)


class Member(Base, table=True):
    __tablename__ = "table_rows_member"
    id: int = Field(primary_key=True)
    pay: Decimal = Field(ge=0, max_digits=4)
    nick: str = Field(default="nobody", max_length=3, sa_column=Column(String))
    secret: str = Field(exclude=True)
    team_id: int | None = Field(default=None, foreign_key="table_rows_team.id")
    team: Team = Relationship()

    @field_validator("nick", mode="after")
    @classmethod
    def short(cls, value: str) -> str:
        """Say otherwise than what is stored."""
        return value.upper()

    @model_validator(mode="before")
    @classmethod
    def refuse(cls, value: Any) -> Any:
        """Refuse."""
        raise ValueError("asked")


def test_a_row_is_not_held_to_what_it_was_never_held_to() -> None:
    """A table model's constraints and validators are not asked when it is loaded, so they are not when it is read."""
    row = Member(id=1, pay=Decimal("-123456.5"), nick="longer", secret="s", team_id=None)
    read = there_and_back(list[Member], [row])[0]
    assert (read.pay, read.nick, type(read)) == (Decimal("-123456.5"), "longer", Member)


def test_the_instance_can_be_used() -> None:
    """It has SQLAlchemy's state, its relationships are not loaded, and a column that is not sent is not set."""
    read = there_and_back(Member, Member(id=1, pay=Decimal("1.5"), secret="s", team_id=3))
    assert inspect(read).transient
    assert inspect(read).unloaded >= {"team", "secret"}
    assert read.model_dump() == {"id": 1, "pay": Decimal("1.5"), "nick": "nobody", "team_id": 3}
    read.pay = Decimal("2.5")
    assert inspect(read).attrs.pay.history.added == [Decimal("2.5")]


class Cat(Base, table=True):
    __tablename__ = "table_rows_cat"
    kind: Literal["cat"] = Field(default="cat", sa_column=Column(String))
    id: int = Field(primary_key=True)
    weight: Decimal


class Dog(Base, table=True):
    __tablename__ = "table_rows_dog"
    kind: Literal["dog"] = Field(default="dog", sa_column=Column(String))
    id: int = Field(primary_key=True)
    born: date


@pytest.mark.parametrize("annotation", [Cat | Dog, Annotated[Cat | Dog, Field(discriminator="kind")]])
def test_a_union_of_tables_is_told_apart(annotation: Any) -> None:
    """By the columns, or by the discriminator."""
    for row in (Cat(id=1, weight=Decimal("2.0")), Dog(id=1, born=date(2026, 1, 2))):
        assert is_same(there_and_back(annotation, row), row)


class Plain(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    at: datetime


def test_a_schema_without_tables_is_left_alone() -> None:
    """It is the same object, so pydantic's own validator reads it."""
    schema = OutputCodec(dict[str, Plain]).adapter.core_schema
    assert with_typed_rows(schema) is schema
