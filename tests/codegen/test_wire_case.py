"""A server with names in camel case, and a generated client with Python's: calls, watches, files, errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fastapi import FastAPI, UploadFile
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from reactive_rpc import ConflictError, DeclaredError, ReactiveRPC, define_reactive_function

from .generated import TypeCheckers, served

pytestmark = pytest.mark.anyio


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class SeatState(Camel):
    seat_id: str
    line1: str = ""
    is_free: bool = True


class SeatTaken(DeclaredError, code="CONFLICT"):
    """seat {seat_id} is taken"""

    seat_id: str


@define_reactive_function
async def get_all(free_only: bool, near: SeatState | None = None) -> list[SeatState]:
    """List them.

    Some of them.
    """
    return [SeatState(seat_id="1", line1=str(free_only)), *([near] if near else [])]


@define_reactive_function.mutation(raises=[SeatTaken])
async def book_seat(seat_id: str) -> None:
    raise SeatTaken(seat_id=seat_id)


@define_reactive_function.mutation
async def add_plan(floor_plan: UploadFile, room_name: str = "") -> str:
    return f"{room_name} {(await floor_plan.read()).decode()}"


USE = """
from __future__ import annotations
from typing import assert_type
from cased_client import Cased, errors, models

async def use(hub: Cased) -> None:
    assert_type((await hub.team_seats.get_all(free_only=True))[0].seat_id, str)
    hub.team_seats.get_all.watch(free_only=True, near=models.SeatState(seat_id="1", is_free=False))
    await hub.team_seats.add_plan(floor_plan=b"", room_name="attic")
    try:
        await hub.team_seats.book_seat(seat_id="1")
    except errors.SeatTaken as error:
        assert_type(error.seat_id, str)
"""


def application(file: Path) -> FastAPI:
    functions = {"team_seats": {"get_all": get_all, "book_seat": book_seat, "add_plan": add_plan}}
    rpc = ReactiveRPC(f"sqlite+aiosqlite:///{file}", functions=functions, wire_case="camel")
    app = FastAPI(title="Cased", lifespan=rpc.lifespan)
    app.include_router(rpc.router)
    return app


@pytest.fixture(scope="module")
def cased(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ModuleType]]:
    folder = tmp_path_factory.mktemp("cased")
    app = application(folder / "cased.db")
    with served(app, folder, "cased_client") as (url, client):
        yield url, client


def test_names_are_pythons(cased: tuple[str, ModuleType], type_checkers: TypeCheckers) -> None:
    """Of namespaces, procedures, arguments, fields and errors, as checkers see them."""
    assert type_checkers.faults_of(cased[1], USE) == ""


async def test_calls_and_watches(cased: tuple[str, ModuleType]) -> None:
    """Whatever is sent has its name on the wire, and whatever comes back Python's."""
    url, client = cased
    near = client.models.SeatState(seat_id="2", is_free=False)
    async with client.Cased(url) as hub:
        found = await hub.team_seats.get_all(free_only=True, near=near)
        assert [(each.seat_id, each.line1, each.is_free) for each in found] == [("1", "True", True), ("2", "", False)]
        assert await hub.team_seats.add_plan(floor_plan=b"x", room_name="attic") == "attic x"
        with pytest.raises(client.errors.SeatTaken) as raised:
            await hub.team_seats.book_seat(seat_id="1")
        error: Any = raised.value
        assert isinstance(error, ConflictError)
        assert (vars(error)["seat_id"], error.details) == ("1", {"seatId": "1"})
