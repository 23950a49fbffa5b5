"""The tables of the differential test: a column of every type that read sets treat in its own way.

The types differ between the two databases where a database has more to offer: on PostgreSQL enums are native, dates
know their zone, prices are exact, and one text column is in the collation C while the others are not.
"""

from __future__ import annotations

import datetime
import enum
import uuid
from decimal import Decimal
from typing import Any, Final, Literal

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
    event,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import registry, relationship

from reactive_rpc.dependencies.schema import ColumnKind, View

__all__ = [
    "CHILDREN",
    "FOREIGN_KEYS",
    "GRANDCHILDREN",
    "METADATA",
    "PARENTS",
    "TABLES",
    "VALUES",
    "VIEWS",
    "Child",
    "Color",
    "Declared",
    "Dialect",
    "Grandchild",
    "Parent",
    "Special",
]

Dialect = Literal["sqlite", "postgresql"]


class Color(enum.Enum):
    """Stored by name; the names sort otherwise than the values, and otherwise than PostgreSQL declares them."""

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
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("x", Integer, index=True),
    Column("s", String().with_variant(String(collation="C"), "postgresql")),
    Column("f", Boolean),
    Column("color", Enum(Color)),
    Column("day", Date),
    Column("badge", Uuid, unique=True),
    Column("price", Numeric(10, 2, asdecimal=False).with_variant(Numeric(10, 2), "postgresql")),
    Column("data", JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")),
)
CHILDREN: Final = Table(
    "children",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("parent_id", Integer, ForeignKey("parents.id", ondelete="CASCADE", onupdate="CASCADE"), index=True),
    Column("y", Integer, index=True),
    Column("s", String),
    Column("at", DateTime().with_variant(DateTime(timezone=True), "postgresql")),
    Column("weight", Float),
    Column("doubled", Doubled),
    Column("badge", Uuid),
)
GRANDCHILDREN: Final = Table(
    "grandchildren",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("child_id", Integer, ForeignKey("children.id", ondelete="SET NULL", onupdate="CASCADE"), index=True),
    Column("z", Integer),
    Column("n", String(collation="NOCASE").with_variant(String(), "postgresql")),
    Column("seen", DateTime),
    Column("total", Numeric(asdecimal=False).with_variant(Numeric(), "postgresql")),
)
SPECIALS: Final = Table(
    "specials",
    METADATA,
    Column("id", Integer, ForeignKey("parents.id", ondelete="CASCADE", onupdate="CASCADE"), primary_key=True),
    Column("note", Integer),
)
TABLES: Final = {table.name: table for table in (PARENTS, CHILDREN, GRANDCHILDREN, SPECIALS)}
FOREIGN_KEYS: Final = (
    ("children", "parent_id", "parents"),
    ("grandchildren", "child_id", "children"),
    ("specials", "id", "parents"),
)

_VIEWS: Final = {
    "bright": ("SELECT id, x, s FROM parents WHERE x > 0", frozenset({"parents"})),
    "family": (
        "SELECT c.id, c.y, b.x FROM children c LEFT JOIN bright b ON b.id = c.parent_id",
        frozenset({"parents", "children"}),
    ),
}
VIEWS: Final = {
    "bright": Table("bright", MetaData(), Column("id", Integer), Column("x", Integer), Column("s", String)),
    "family": Table("family", MetaData(), Column("id", Integer), Column("y", Integer), Column("x", Integer)),
}


@event.listens_for(METADATA, "after_create")
def _create_views(_target: Any, connection: Any, **_options: Any) -> None:
    create = "CREATE VIEW IF NOT EXISTS" if connection.dialect.name == "sqlite" else "CREATE OR REPLACE VIEW"
    for name, (text, _) in _VIEWS.items():
        connection.exec_driver_sql(f"{create} {name} AS {text}")


_LONG: Final = "p" * 60
"""Too long for an image: there it is unknown."""

_ZONE: Final = datetime.timezone(datetime.timedelta(hours=2))
VALUES: Final[dict[Any, tuple[Any, ...]]] = {
    Integer: (0, 1, 2, 3),
    Doubled: (0, 1, 2),
    String: ("p", "P", "q", "", "pq", "1", _LONG),
    Boolean: (False, True),
    Enum: tuple(Color),
    Date: tuple(datetime.date(2024, 1, day) for day in (1, 2, 10)),
    "zoned": (
        *(datetime.datetime(2024, 1, 2, hour, 0, 0, micro, datetime.UTC) for hour in (0, 9) for micro in (0, 5)),
        datetime.datetime(2024, 1, 2, 11, tzinfo=_ZONE),
    ),
    DateTime: tuple(datetime.datetime(1969, 1, 2, hour, microsecond=micro) for hour in (0, 9) for micro in (0, 5)),
    Uuid: tuple(uuid.UUID(int=number) for number in (0, 1, 2**100, 255, 2**127)),
    Numeric: (Decimal("0.5"), Decimal(1), Decimal("2.25"), Decimal("2.254"), Decimal(3)),
    Float: (0.5, 1.0, 2.25),
    JSON: ({}, {"k": 1}, [1]),
}
"""`{type: values}`; few, so that queries and writes meet."""

_SQLITE_KINDS: Final[dict[str, dict[str, ColumnKind]]] = {
    "parents": {
        "id": "integer",
        "x": "integer",
        "s": "text",
        "f": "numeric",
        "color": "text",
        "day": "numeric",
        "badge": "text",
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
        "badge": "text",
    },
    "grandchildren": {"id": "integer", "child_id": "integer", "z": "integer"},
    "specials": {"id": "integer", "note": "integer"},
}
_POSTGRESQL_KINDS: Final[dict[str, dict[str, ColumnKind]]] = {
    "parents": {
        "id": "integer",
        "x": "integer",
        "s": "text",
        "f": "integer",
        "color": "label",
        "day": "date",
        "badge": "uuid",
        "price": "decimal",
    },
    "children": {
        "id": "integer",
        "parent_id": "integer",
        "y": "integer",
        "s": "label",
        "at": "timestamptz",
        "weight": "real",
        "doubled": "integer",
        "badge": "uuid",
    },
    "grandchildren": {
        "id": "integer",
        "child_id": "integer",
        "z": "integer",
        "n": "label",
        "seen": "timestamp",
        "total": "decimal",
    },
    "specials": {"id": "integer", "note": "integer"},
}
_UNIQUE: Final = {("parents", "badge"), *((name, "id") for name in TABLES)}
_INDEXED: Final = _UNIQUE | {
    (name, column.name) for name, table in TABLES.items() for column in table.c if column.index
}


class Declared:
    """The schema as a database makes it of the declared types.

    On SQLite `n` collates NOCASE; a table's text has no kind where its DDL names a collation.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._kinds = _SQLITE_KINDS if dialect == "sqlite" else _POSTGRESQL_KINDS

    def table(self, name: str) -> str | None:
        return name if name in TABLES else None

    def view(self, name: str) -> View | None:
        return View(_VIEWS[name][1]) if name in _VIEWS else None

    def captured(self, table: str) -> bool:
        return table in TABLES

    def columns(self, table: str) -> frozenset[str]:
        return frozenset(TABLES[table].columns.keys())

    def kind(self, table: str, column: str) -> ColumnKind | None:
        return self._kinds[table].get(column)

    def is_small(self, table: str, column: str) -> bool:
        return False

    def primary_key(self, table: str) -> tuple[str, ...]:
        return ("id",)

    def is_unique(self, table: str, column: str) -> bool:
        return (table, column) in _UNIQUE

    def is_indexed(self, table: str, column: str) -> bool:
        return (table, column) in _INDEXED

    def redefines(self, name: str) -> bool:
        return False


class Parent:
    """ORM class of `parents`."""

    id: Any
    x: Any
    s: Any
    f: Any
    children: Any


class Special(Parent):
    """A parent with a row in `specials` (joined-table inheritance)."""

    note: Any


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
_MAPPER.map_imperatively(Special, SPECIALS, inherits=Parent)
_MAPPER.map_imperatively(
    Child,
    CHILDREN,
    properties={
        "parent": relationship(Parent, back_populates="children"),
        "grandchildren": relationship(Grandchild, passive_deletes=True),
    },
)
_MAPPER.map_imperatively(Grandchild, GRANDCHILDREN)
