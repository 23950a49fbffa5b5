"""A FastAPI application with one of everything that a signature can hold: its document feeds the generator's tests."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

from fastapi import Depends, FastAPI, Query
from fastapi.security import OAuth2PasswordBearer
from pydantic import BaseModel, Field

from reactive_rpc.web.routing.openapi_marks import Marked

__all__ = ["build_document"]

T = TypeVar("T")


class Color(Enum):
    """A text enum."""

    RED = "red"
    GREEN = "green"


class Level(IntEnum):
    """A number enum."""

    LOW = 1
    HIGH = 2


class Page(BaseModel, Generic[T]):
    """A generic model."""

    items: list[T]
    total: int


class Node(BaseModel):
    """A recursive model."""

    name: str
    children: list[Node] = []


class Cat(BaseModel):
    """A branch of a union."""

    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    """The other branch."""

    kind: Literal["dog"]
    good: bool


class Agent(BaseModel):
    """An agent: "quoted" and with a back\\slash."""

    id: UUID
    name: str = Field(min_length=1)
    color: Color = Color.RED
    level: Level = Level.LOW
    at: datetime
    day: date | None = None
    cost: Decimal
    tags: set[str] = set()
    extra: dict[str, int] = Field(default_factory=dict)
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] | None = None
    maybe: str | None
    class_: str = Field(alias="class", default="c")
    wait: timedelta = timedelta(seconds=1)
    pair: tuple[int, str] = (1, "a")
    root: Node | None = None


class Filter(BaseModel):
    """An input with names that Python keeps for itself."""

    from_: str | None = Field(default=None, alias="from")
    colors: list[Color] = []
    self: int = 1


def _procedure(kind: str, path: str) -> dict[str, Any]:
    return {"openapi_extra": {"x-reactive-rpc": {"kind": kind, "path": path}}}


def build_document() -> dict[str, Any]:
    """Return the OpenAPI document of an application with every kind of procedure."""
    app = FastAPI(title="team hub")
    login = OAuth2PasswordBearer(tokenUrl="auth/token")

    @app.get("/api/rpc/agents/get_all", summary="All agents", **_procedure("query", "agents.get_all"))
    def get_all(
        *,
        organization_id: str,
        limit: Annotated[int, Field(ge=1)] = 10,
        color: Color | None = None,
        level: Level = Level.LOW,
        since: datetime | None = None,
        deep: bool = False,
        interval: Literal["month", "year"] = "month",
        who: str = Depends(login),
    ) -> list[Agent]:
        raise NotImplementedError

    @app.post("/api/rpc/agents/search", **_procedure("query", "agents.search"))
    def search(body: Annotated[Filter, Marked()]) -> Page[Agent]:
        raise NotImplementedError

    @app.post("/api/rpc/agents/update", **_procedure("mutation", "agents.update"))
    def update(body: Agent) -> Agent | None:
        raise NotImplementedError

    @app.get("/api/rpc/ping", **_procedure("query", "ping"))
    def ping() -> str:
        raise NotImplementedError

    @app.post("/api/rpc/clear", **_procedure("mutation", "clear"))
    def clear() -> None:
        raise NotImplementedError

    @app.get("/api/rpc/deep/down/tree", **_procedure("query", "deep.down.tree"))
    def tree(class_: Annotated[str, Query(alias="class")]) -> dict[str, Node]:
        raise NotImplementedError

    @app.get("/other")
    def other() -> Page[int]:
        raise NotImplementedError

    document = app.openapi()
    # FastAPI declares "no result" as "anything"; the server of this project declares null.
    answer = document["paths"]["/api/rpc/clear"]["post"]["responses"]["200"]
    answer["content"]["application/json"]["schema"] = {"type": "null"}
    return document
