"""An application with one of everything that a TypeScript type can say, for the generator's golden file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NotRequired, TypeVar

from fastapi import FastAPI, File, UploadFile
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from reactive_rpc import DeclaredError, ReactiveRPC, Tracked, define_reactive_function, tracked

__all__ = ["theatre"]

T = TypeVar("T")


class Rank(StrEnum):
    """Where a seat is."""

    STALLS = "stalls"
    CIRCLE = "circle"


class Floor(IntEnum):
    GROUND = 0
    FIRST = 1


class Cash(BaseModel):
    kind: Literal["cash"] = "cash"
    amount: Decimal


class Card(BaseModel):
    kind: Literal["card"] = "card"
    digits: str = Field(description="The last four.")
    checked_at: datetime | None = None


class Note(TypedDict):
    """What somebody wrote of a seat."""

    text: str
    at: NotRequired[datetime]


class Seat(BaseModel):
    """A seat, with all that is known of it."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    id: str
    rank: Rank = Rank.STALLS
    floor: Floor | None = None
    price: Decimal = Field(default=Decimal("10.00"), description="In euros.")
    serial: Annotated[int, Field(le=2**62)] = 0
    ticket: bytes = b""
    tags: set[str] = set()
    sold: dict[int, date] = Field(default_factory=dict)
    paid_by: Annotated[Cash | Card, Field(discriminator="kind")] | None = None
    place: tuple[int, str] = (1, "a")
    beside: list[Seat] = []
    notes: list[Note] = []
    more: dict[str, Any] = {}
    old_name: str | None = Field(default=None, deprecated=True)
    class_: str = Field(default="a", alias="class")
    a_b: str = Field(default="", alias="a-b")


class Page(BaseModel, Generic[T]):
    """Some of many."""

    items: list[T]
    next: str | None = None


class Settings(BaseModel):
    """Whatever somebody has set."""

    model_config = ConfigDict(extra="allow")

    theme: str = "dark"


class SeatTaken(DeclaredError, code="CONFLICT"):
    """seat {seat} is taken"""

    seat: str
    since: datetime


class NoSuchSeat(DeclaredError, code="NOT_FOUND"):
    """no seat {seat}"""

    seat: str


@define_reactive_function
async def get_all(rank: Rank | None = None, since: datetime | None = None, limit: int = 20) -> Page[Seat]:
    """The seats, by number.

    All of them, unless a rank is given.
    """
    return Page(items=[])


@define_reactive_function(raises=[NoSuchSeat])
async def get_one(seat_id: str) -> Seat | None:
    """One seat."""
    return Seat(id=seat_id)


@define_reactive_function.mutation(raises=[SeatTaken, NoSuchSeat])
async def book(seat: Seat, at: datetime, paid: Cash | Card | None = None) -> Seat:
    """Book a seat."""
    return seat


@define_reactive_function.mutation
async def delete(seat_id: str) -> None:
    """Take a seat out."""


@define_reactive_function.mutation
async def add_plan(
    plan: Annotated[UploadFile, File(description="A drawing.")],
    photos: list[UploadFile],
    title: str = "",
    cover: UploadFile | None = None,
) -> str:
    """Keep a plan."""
    return title


@define_reactive_function(cache=False)
async def plan() -> Response:
    """The plan as a file."""
    return Response(b"")


@define_reactive_function.query(cache=False)
async def export(rank: Rank = Rank.STALLS) -> AsyncIterator[Seat]:
    """All seats, one after another."""
    yield Seat(id="1")


@define_reactive_function.subscription(raises=[NoSuchSeat])
async def events(last_event_id: str | None = None) -> AsyncIterator[Tracked[Seat]]:
    """The seats as they are taken."""
    yield tracked("1", Seat(id="1"))


@define_reactive_function.subscription
async def ticks() -> AsyncIterator[int]:
    """Numbers."""
    yield 1


@define_reactive_function
async def ping() -> datetime:
    """The time."""
    return datetime(2026, 1, 2, tzinfo=UTC)


@define_reactive_function.mutation
async def set_settings(settings: Settings) -> Settings:
    return settings


def theatre(file: Path) -> FastAPI:
    """Return the application, on a database in `file`."""
    seats = {
        "get_all": get_all, "get_one": get_one, "book": book, "delete": delete, "export": export, "events": events,
        "ticks": ticks, "plans": {"add": add_plan, "get": plan},
    }  # fmt: skip
    functions = {"time": {"now": ping}, "seats": seats, "function": {"set": set_settings}}
    rpc = ReactiveRPC(f"sqlite+aiosqlite:///{file}", functions=functions)
    app = FastAPI(title="Theatre", lifespan=rpc.lifespan)
    app.include_router(rpc.router)
    return app
