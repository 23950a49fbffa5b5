"""The tables of the differential test: a column of every type that read sets treat in its own way."""

from __future__ import annotations

import datetime
import enum
import uuid
from typing import Any, Final

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Date,
    DateTime,
    Enum,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    TypeDecorator,
    Uuid,
)
from sqlalchemy.orm import registry, relationship

from reactive_rpc.reactive.schema import Kind

__all__ = ["FOREIGN_KEYS", "METADATA", "TABLES", "VALUES", "Child", "Declared", "Grandchild", "Parent"]


class Color(enum.Enum):
    """Stored by name, and the names sort otherwise than the values."""

    red = "z"
    green = "y"
    blue = "x"


class Doubled(TypeDecorator[int]):
    """Stores twice the number: what is bound is not what the statement holds."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Any) -> int | None:
        return None if value is None else value * 2

    def process_result_value(self, value: Any, dialect: Any) -> int | None:
        return None if value is None else value // 2


METADATA: Final = MetaData()
PARENTS: Final = Table(
    "parents",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("x", Integer),
    Column("s", String),
    Column("f", Boolean),
    Column("color", Enum(Color)),
    Column("day", Date),
    Column("token", Uuid),
    Column("price", Numeric(10, 2, asdecimal=False)),
    Column("data", JSON(none_as_null=True)),
)
CHILDREN: Final = Table(
    "children",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("parent_id", Integer, ForeignKey("parents.id", ondelete="CASCADE")),
    Column("y", Integer),
    Column("s", String),
    Column("at", DateTime),
    Column("weight", Float),
    Column("doubled", Doubled),
)
GRANDCHILDREN: Final = Table(
    "grandchildren",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("child_id", Integer, ForeignKey("children.id", ondelete="SET NULL")),
    Column("z", Integer),
    Column("n", String(collation="NOCASE")),
)
TABLES: Final = {table.name: table for table in (PARENTS, CHILDREN, GRANDCHILDREN)}
FOREIGN_KEYS: Final = (("children", "parent_id", "parents"), ("grandchildren", "child_id", "children"))

_STRINGS: Final = ("p", "P", "q", "", "pq", "1")
VALUES: Final[dict[type, tuple[Any, ...]]] = {
    Integer: (0, 1, 2, 3),
    Doubled: (0, 1, 2),
    String: _STRINGS,
    Boolean: (False, True),
    Enum: tuple(Color),
    Date: tuple(datetime.date(2024, 1, day) for day in (1, 2, 10)),
    DateTime: tuple(datetime.datetime(2024, 1, 2, hour, microsecond=micro) for hour in (0, 9) for micro in (0, 5)),
    Uuid: tuple(uuid.UUID(int=number) for number in (0, 1, 255)),
    Numeric: (0.5, 1, 2.25, 3),
    Float: (0.5, 1, 2.25),
    JSON: ({}, {"k": 1}, [1]),
}
"""`{type: values}`; few, so that queries and writes meet."""

_KINDS: Final[dict[str, dict[str, Kind]]] = {
    "parents": {
        "id": "integer",
        "x": "integer",
        "s": "text",
        "f": "numeric",
        "color": "text",
        "day": "numeric",
        "token": "text",
        "price": "numeric",
    },
    "children": {
        "id": "integer",
        "parent_id": "integer",
        "y": "integer",
        "s": "text",
        "at": "numeric",
        "weight": "real",
        "doubled": "integer",
    },
    "grandchildren": {"id": "integer", "child_id": "integer", "z": "integer"},
}


class Declared:
    """The schema as SQLite's affinities make it of the declared types; `n` collates NOCASE, so it has no kind."""

    def captured(self, table: str) -> bool:
        return table in TABLES

    def columns(self, table: str) -> frozenset[str]:
        return frozenset(TABLES[table].columns.keys())

    def kind(self, table: str, column: str) -> Kind | None:
        return _KINDS[table].get(column)


class Parent:
    """ORM class of `parents`."""

    id: Any
    x: Any
    s: Any
    f: Any
    children: Any


class Child:
    """ORM class of `children`."""

    id: Any
    y: Any
    parent: Any
    grandchildren: Any


class Grandchild:
    """ORM class of `grandchildren`."""

    id: Any
    z: Any


_MAPPER: Final = registry(metadata=METADATA)
_MAPPER.map_imperatively(
    Parent, PARENTS, properties={"children": relationship(Child, back_populates="parent", passive_deletes=True)}
)
_MAPPER.map_imperatively(
    Child,
    CHILDREN,
    properties={
        "parent": relationship(Parent, back_populates="children"),
        "grandchildren": relationship(Grandchild, passive_deletes=True),
    },
)
_MAPPER.map_imperatively(Grandchild, GRANDCHILDREN)
