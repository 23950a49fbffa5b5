"""A model with a column of every kind, and columns that rules do not compare."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import CHAR, JSON, DateTime, ForeignKey, Numeric, String, Uuid
from sqlalchemy import Enum as EnumColumn
from sqlalchemy.dialects.postgresql import CITEXT
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator

__all__ = ["USER", "Base", "Client", "Engineer", "Job", "Manager", "Person", "Status", "Task", "Team"]


class Status(Enum):
    """What a job is."""

    OPEN = "open"
    DONE = "done"


class Lowered(TypeDecorator[str]):
    """Stores text in lower case, and says nothing of it."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Store lower case."""
        return None if value is None else value.lower()


class WronglyLowered(Lowered):
    """Says that texts are compared as they are stored, which is wrong."""

    cache_ok = True
    rule_kind: ClassVar[str] = "text"

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """Give back what is stored."""
        return value


class Base(DeclarativeBase):
    """The base of these models."""


class Client(Base):
    """Whose a job is."""

    __tablename__ = "client"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]


class Job(Base):
    """What rules speak of."""

    __tablename__ = "job"
    id: Mapped[str] = mapped_column(primary_key=True)
    client_id: Mapped[str] = mapped_column(ForeignKey("client.id"))
    user_id: Mapped[str | None]
    title: Mapped[str]
    priority: Mapped[int]
    archived: Mapped[bool]
    status: Mapped[Status]
    stored_status: Mapped[Status] = mapped_column(EnumColumn(Status, native_enum=False))
    label: Mapped[str] = mapped_column(EnumColumn("a", "b", name="label"))
    due: Mapped[date | None]
    at: Mapped[datetime | None]
    zoned: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    ref: Mapped[UUID | None]
    spelled: Mapped[str | None] = mapped_column(Uuid(as_uuid=False))
    budget: Mapped[Decimal | None] = mapped_column(Numeric(10, 2))
    rough: Mapped[float | None]
    padded: Mapped[str | None] = mapped_column(CHAR(3))
    folded: Mapped[str | None] = mapped_column(CITEXT)
    swedish: Mapped[str | None] = mapped_column(String(collation="sv-SE-x-icu"))
    lax: Mapped[str | None] = mapped_column(String(collation="ignore_case"))
    nocase: Mapped[str | None] = mapped_column(String(collation="NOCASE"))
    email: Mapped[str | None] = mapped_column(Lowered)
    alias: Mapped[str | None] = mapped_column(WronglyLowered)
    data: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    client: Mapped[Client] = relationship()
    tasks: Mapped[list[Task]] = relationship()


class Task(Base):
    """What a job has many of."""

    __tablename__ = "task"
    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"))
    user_id: Mapped[str | None]


class Team(Base):
    """What people are in, by associations with all of them and with some."""

    __tablename__ = "team"
    id: Mapped[int] = mapped_column(primary_key=True)
    people: Mapped[list[Person]] = relationship(viewonly=True)
    managers: Mapped[list[Manager]] = relationship(viewonly=True)
    engineers: Mapped[list[Engineer]] = relationship(viewonly=True)


class Person(Base):
    """A model that others inherit from."""

    __tablename__ = "person"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "person"}  # noqa: RUF012  # SQLAlchemy declares it so
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    user_id: Mapped[str | None]
    client_id: Mapped[str | None]
    team_id: Mapped[int | None] = mapped_column(ForeignKey("team.id"))
    boss_id: Mapped[int | None] = mapped_column(ForeignKey("person.id"))
    boss: Mapped[Manager | None] = relationship(foreign_keys=[boss_id], remote_side=[id])


class Manager(Person):
    """Stored in the same table."""

    __mapper_args__ = {"polymorphic_identity": "manager"}  # noqa: RUF012  # SQLAlchemy declares it so


class Engineer(Person):
    """Stored in two tables."""

    __tablename__ = "engineer"
    __mapper_args__ = {"polymorphic_identity": "engineer"}  # noqa: RUF012  # SQLAlchemy declares it so
    id: Mapped[int] = mapped_column(ForeignKey("person.id"), primary_key=True)
    level: Mapped[int]


USER: dict[str, Any] = {
    "id": str,
    "client_id": str | None,
    "role": str,
    "level": int,
    "admin": bool,
    "teams": list[str],
    "since": datetime,
    "status": Status,
}
"""The attributes of users."""
