"""Tables of the unit tests of `reactive_rpc.sql`."""

from __future__ import annotations

import enum
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
    func,
)

from reactive_rpc.dependencies.schema import ColumnKind, View


class Status(enum.Enum):
    """Stored by name."""

    open = 1
    done = 2


class Cents(TypeDecorator[float]):
    """Stores hundredths."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Any) -> int | None:
        return None if value is None else round(value * 100)


class Lowered(TypeDecorator[str]):
    """Compares with what SQL makes of the parameter."""

    impl = String
    cache_ok = True

    def bind_expression(self, bindparam: Any) -> Any:
        return func.lower(bindparam)


METADATA: Final = MetaData()
TEAMS: Final = Table(
    "teams", METADATA, Column("id", Integer, primary_key=True), Column("name", String), Column("size", Integer)
)
TASKS: Final = Table(
    "tasks",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("team_id", Integer, ForeignKey("teams.id")),
    Column("title", String),
    Column("done", Boolean),
    Column("status", Enum(Status)),
    Column("due", Date),
    Column("at", DateTime),
    Column("token", Uuid),
    Column("price", Numeric(10, 2, asdecimal=False)),
    Column("weight", Float),
    Column("cents", Cents),
    Column("lowered", Lowered),
    Column("nocase", String(collation="NOCASE")),
    Column("data", JSON),
)
SECRETS: Final = Table("secrets", METADATA, Column("id", Integer, primary_key=True))

_KINDS: Final[dict[str, ColumnKind]] = {
    "id": "integer",
    "size": "integer",
    "team_id": "integer",
    "cents": "integer",
    "name": "text",
    "title": "text",
    "status": "text",
    "token": "text",
    "lowered": "text",
    "done": "numeric",
    "due": "numeric",
    "at": "numeric",
    "price": "numeric",
    "weight": "real",
}


_VIEWS: Final = {
    "open_tasks": View(frozenset({"tasks", "teams"})),
    "secret_names": View(frozenset({"secrets"})),
    "lucky_tasks": View(frozenset({"tasks"}), "calls random()"),
}


class Known:
    """Captures every table but `secrets`; a NOCASE and a JSON column have no kind. Every `id` is unique."""

    def table(self, name: str) -> str | None:
        canonical = name.removeprefix("main.")
        return canonical if canonical in METADATA.tables else None

    def view(self, name: str) -> View | None:
        return _VIEWS.get(name)

    def captured(self, table: str) -> bool:
        return table in ("teams", "tasks")

    def columns(self, table: str) -> frozenset[str]:
        return frozenset(METADATA.tables[table].columns.keys())

    def kind(self, table: str, column: str) -> ColumnKind | None:
        return _KINDS.get(column)

    def is_small(self, table: str, column: str) -> bool:
        return False

    def primary_key(self, table: str) -> tuple[str, ...]:
        return ("id",) if table in METADATA.tables else ()

    def is_unique(self, table: str, column: str) -> bool:
        return column == "id"

    def is_indexed(self, table: str, column: str) -> bool:
        return column in ("id", "team_id")

    def redefines(self, name: str) -> bool:
        return name == "mod"
