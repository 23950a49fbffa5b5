"""Models with two columns of every kind that rules compare, with every kind of association."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, ClassVar
from uuid import UUID

from pydantic import AwareDatetime, NaiveDatetime
from sqlalchemy import BigInteger, Column, DateTime, ForeignKey, Integer, Numeric, String, Table
from sqlalchemy import Enum as EnumColumn
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator

__all__ = ["ANNOTATIONS", "COLUMNS", "Base", "Color", "Item", "MicroUnits", "UTCMoment"]


class Color(Enum):
    """A value that is another's name, and a number that is another's text."""

    RED = "red"
    BLUE = "RED"
    GREEN = 1
    GREY = "1"


class UTCMoment(TypeDecorator[datetime]):
    """A moment, stored as UTC on every database."""

    impl = DateTime
    cache_ok = True
    rule_kind: ClassVar[str] = "moment"

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store UTC."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give back UTC."""
        return None if value is None else value.replace(tzinfo=UTC)


class MicroUnits(TypeDecorator[Decimal]):
    """A decimal of six places, stored as a whole number."""

    impl = BigInteger
    cache_ok = True
    rule_kind: ClassVar[str] = "decimal"

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> int | None:
        """Store millionths."""
        return None if value is None else int(value.scaleb(6))

    def process_result_value(self, value: int | None, dialect: Dialect) -> Decimal | None:
        """Give back the number."""
        return None if value is None else Decimal(value).scaleb(-6)


AMOUNT = Numeric(20, 2).with_variant(MicroUnits(), "sqlite")
MOMENT = UTCMoment().with_variant(DateTime(timezone=True), "postgresql")
NAME = String().with_variant(String(collation="ucs_basic"), "postgresql")


class Base(DeclarativeBase):
    """The base of these models."""


class Columns:
    """Two columns of each kind that are stored alike, and a third one that is not."""

    text1: Mapped[str | None]
    text2: Mapped[str | None] = mapped_column(String(40))
    text3: Mapped[str | None] = mapped_column(NAME)
    int1: Mapped[int | None] = mapped_column(BigInteger)
    int2: Mapped[int | None] = mapped_column(Integer)
    bool1: Mapped[bool | None]
    bool2: Mapped[bool | None]
    decimal1: Mapped[Decimal | None] = mapped_column(AMOUNT)
    decimal2: Mapped[Decimal | None] = mapped_column(AMOUNT)
    moment1: Mapped[datetime | None] = mapped_column(MOMENT)
    moment2: Mapped[datetime | None] = mapped_column(MOMENT)
    moment3: Mapped[datetime | None] = mapped_column(UTCMoment)
    local1: Mapped[datetime | None]
    local2: Mapped[datetime | None]
    date1: Mapped[date | None]
    date2: Mapped[date | None]
    uuid1: Mapped[UUID | None]
    uuid2: Mapped[UUID | None]
    enum1: Mapped[Color | None]
    enum2: Mapped[Color | None]
    enum3: Mapped[Color | None] = mapped_column(EnumColumn(Color, native_enum=False))


COLUMNS: dict[str, str] = {name: name[:-1] for name in Columns.__annotations__}
"""`{column: its kind}`."""

ANNOTATIONS: dict[str, Any] = {
    "text": str,
    "int": int,
    "bool": bool,
    "decimal": Decimal,
    "moment": AwareDatetime,
    "local": NaiveDatetime,
    "date": date,
    "uuid": UUID,
    "enum": Color,
}
"""`{kind: the annotation of a user's attribute}`."""

item_tag = Table(
    "item_tag",
    Base.metadata,
    Column("item_id", ForeignKey("item.id"), primary_key=True),
    Column("tag_id", ForeignKey("tag.id"), primary_key=True),
)


class Group(Columns, Base):
    """What an item belongs to."""

    __tablename__ = "item_group"
    id: Mapped[int] = mapped_column(primary_key=True)


class Item(Columns, Base):
    """What rules speak of."""

    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    group_id: Mapped[int | None] = mapped_column(ForeignKey("item_group.id"))
    group: Mapped[Group | None] = relationship()
    parts: Mapped[list[Part]] = relationship(back_populates="item")
    tags: Mapped[list[Tag]] = relationship(secondary=item_tag)


class Part(Columns, Base):
    """What an item has many of."""

    __tablename__ = "part"
    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int | None] = mapped_column(ForeignKey("item.id"))
    item: Mapped[Item | None] = relationship(back_populates="parts")


class Tag(Columns, Base):
    """What items and tags share."""

    __tablename__ = "tag"
    id: Mapped[int] = mapped_column(primary_key=True)
