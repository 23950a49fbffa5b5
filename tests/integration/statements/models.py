"""Tables with every relation that SQLAlchemy loads: one to many, many to many, self, composite keys, inheritance."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import JSON, Date, ForeignKey, ForeignKeyConstraint, String, Table, func, literal, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, relationship

from reactive_rpc.changes.captured_schema import CaptureState, TableCapture
from reactive_rpc.dependencies.schema import ColumnKind, View

__all__ = ["Animal", "Base", "Cat", "Dog", "Engineer", "Member", "Note", "Person", "Task", "Team", "declared"]

NAME: Final = String().with_variant(String(collation="C"), "postgresql")


class Base(DeclarativeBase):
    """Maps the tables."""


class Team(Base):
    """Has tasks; a team may be part of another."""

    __tablename__ = "team"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(NAME)
    size: Mapped[int | None]
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("team.id"))
    tasks: Mapped[list[Task]] = relationship(order_by="Task.id", back_populates="team")
    parts: Mapped[list[Team]] = relationship(order_by="Team.id")

    @hybrid_property
    def is_large(self) -> Any:
        """Whether it has more than 10 members."""
        return self.size > 10  # type: ignore[operator]  # a column in a query


class Task(Base):
    """Belongs to a team, or to none."""

    __tablename__ = "task"
    id: Mapped[int] = mapped_column(primary_key=True)
    team_id: Mapped[int | None] = mapped_column(ForeignKey("team.id"))
    title: Mapped[str | None] = mapped_column(NAME)
    done: Mapped[bool | None]
    due: Mapped[datetime.date | None] = mapped_column(Date)
    data: Mapped[Any] = mapped_column(JSON().with_variant(JSONB(), "postgresql"))
    team: Mapped[Team | None] = relationship(back_populates="tasks")


class Member(Base):
    """A person's place in a team: a key of two columns."""

    __tablename__ = "member"
    team_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    place: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    role: Mapped[str | None] = mapped_column(NAME)
    notes: Mapped[list[Note]] = relationship(order_by="Note.id")


class Note(Base):
    """About a member."""

    __tablename__ = "note"
    __table_args__ = (ForeignKeyConstraint(["team_id", "place"], ["member.team_id", "member.place"]),)
    id: Mapped[int] = mapped_column(primary_key=True)
    team_id: Mapped[int | None]
    place: Mapped[int | None]
    text: Mapped[str | None] = mapped_column(NAME)


class Animal(Base):
    """Single-table inheritance."""

    __tablename__ = "animal"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(NAME)
    lives: Mapped[int | None]
    __mapper_args__: Mapping[str, Any] = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}


class Cat(Animal):
    """An animal."""

    __mapper_args__: Mapping[str, Any] = {"polymorphic_identity": "cat"}


class Dog(Animal):
    """An animal."""

    __mapper_args__: Mapping[str, Any] = {"polymorphic_identity": "dog"}


class Person(Base):
    """Joined inheritance."""

    __tablename__ = "person"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(NAME)
    name: Mapped[str | None] = mapped_column(NAME)
    __mapper_args__: Mapping[str, Any] = {"polymorphic_on": "kind", "polymorphic_identity": "person"}


class Engineer(Person):
    """A person."""

    __tablename__ = "engineer"
    id: Mapped[int] = mapped_column(ForeignKey("person.id"), primary_key=True)
    level: Mapped[int | None]
    __mapper_args__: Mapping[str, Any] = {"polymorphic_identity": "engineer"}


class Counted(Base):
    """A team with the number of its tasks."""

    __table__ = Team.__table__
    count = column_property(select(func.count(literal(1))).where(Task.team_id == Team.__table__.c.id).scalar_subquery())
    __mapper_args__: Mapping[str, Any] = {"include_properties": ["id", "name"]}


ROWS: Final[Mapping[str, list[dict[str, Any]]]] = {
    "team": [
        {"id": 1, "name": "red", "size": 5, "parent_id": None},
        {"id": 2, "name": "blue", "size": 20, "parent_id": 1},
        {"id": 3, "name": None, "size": None, "parent_id": 1},
    ],
    "task": [
        {"id": 1, "team_id": 1, "title": "a", "done": True, "due": "2024-01-01", "data": '{"k": 1, "tags": ["x"]}'},
        {"id": 2, "team_id": 1, "title": "b", "done": False, "due": "2024-02-01", "data": '{"k": 2, "tags": []}'},
        {"id": 3, "team_id": 2, "title": None, "done": None, "due": None, "data": '{"tags": ["x", "y"]}'},
        {"id": 4, "team_id": None, "title": "a", "done": True, "due": None, "data": "{}"},
    ],
    "member": [
        {"team_id": 1, "place": 1, "role": "lead"},
        {"team_id": 1, "place": 2, "role": "guest"},
        {"team_id": 2, "place": 1, "role": "lead"},
    ],
    "note": [
        {"id": 1, "team_id": 1, "place": 1, "text": "x"},
        {"id": 2, "team_id": 1, "place": 2, "text": "y"},
        {"id": 3, "team_id": 2, "place": 1, "text": "z"},
    ],
    "animal": [{"id": 1, "kind": "cat", "lives": 7}, {"id": 2, "kind": "dog", "lives": 1}],
    "person": [{"id": 1, "kind": "person", "name": "ann"}, {"id": 2, "kind": "engineer", "name": "bob"}],
    "engineer": [{"id": 2, "level": 3}],
}

VIEW: Final = "CREATE VIEW open_task AS SELECT id AS number, title AS label FROM task WHERE done = {false}"

_KINDS: Final[Mapping[str, ColumnKind]] = {"Integer": "integer", "String": "text"}


def declared(dialect: str) -> CaptureState:
    """Return what capture would say of these tables: whole numbers, booleans on PostgreSQL, and text compare."""
    tables = {name: _declared(table, dialect) for name, table in Base.metadata.tables.items()}
    views = {"open_task": View(frozenset({"task"}))}
    return CaptureState(epoch="1", schema_fingerprint=1, tables=tables, views=views)


def _declared(table: Table, dialect: str) -> TableCapture:
    kinds = {column.name: _KINDS.get(type(column.type).__name__) for column in table.columns}
    if "done" in kinds:
        kinds["done"] = "integer" if dialect == "postgresql" else "numeric"
    keys = tuple(column.name for column in table.primary_key.columns)
    return TableCapture(
        name=table.name,
        columns=tuple(table.columns.keys()),
        image=tuple(column for column, kind in kinds.items() if kind is not None),
        kinds=kinds,
        key_columns=keys,
        primary_key=keys,
        foreign_keys=(),
        unique=frozenset(keys if len(keys) == 1 else ()),
        indexed=frozenset(keys[:1]),
        captured=True,
    )
