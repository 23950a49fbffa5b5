"""`wire_case="camel"`: paths, inputs, files, faults, errors and the document in camel case; Python's names inside."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import UploadFile
from pydantic import BaseModel, ConfigDict
from pydantic import Field as PydanticField
from pydantic.alias_generators import to_camel
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import Answered, CallInfo, DeclaredError, DefinitionError, Next, define_reactive_function

from .rooms import JSON, Server, error_of, rpc_on, serving

pytestmark = pytest.mark.anyio

SEEN: list[tuple[str, object]] = []


class Base(SQLModel, registry=registry()):
    """Keeps these tables out of the metadata that all of a test run's modules share."""


class Seat(Base, table=True):
    model_config = ConfigDict(alias_generator=to_camel)  # type: ignore[assignment]  # SQLModel's own is wider

    id: str = Field(primary_key=True)
    taken_by: str | None = None


class Wish(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    near_window: bool


class SeatTaken(DeclaredError, code="CONFLICT"):
    """seat {seat_id} is taken"""

    seat_id: str
    taken_by: str | None = None


async def see(call: CallInfo, next: Next) -> Answered:
    SEEN.append((call.path, call.input))
    return await next()


@define_reactive_function.wrap(see).query(examples=[{"free_only": True}])
async def get_all(db: AsyncSession, free_only: bool = False, limit: int = 9) -> list[Seat]:
    found = select(Seat).order_by(col(Seat.id))
    return list((await db.exec(found.where(col(Seat.taken_by).is_(None)) if free_only else found)).all())


@define_reactive_function.mutation(raises=[SeatTaken])
async def book_seat(db: AsyncSession, seat_id: Annotated[str, PydanticField(min_length=1)], taken_by: str) -> Seat:
    row = await db.get(Seat, seat_id)
    if row is not None:
        raise SeatTaken(seat_id=seat_id, taken_by=row.taken_by)
    row = Seat(id=seat_id, taken_by=taken_by)
    db.add(row)
    return row


@define_reactive_function.mutation
async def send_wish(input: Wish) -> Wish:
    return input


@define_reactive_function.mutation
async def add_plan(floor_plan: UploadFile, room_name: str) -> str:
    return f"{room_name} {(await floor_plan.read()).decode()}"


SEATS: dict[str, Any] = {
    "team_seats": {"get_all": get_all, "book_seat": book_seat, "send_wish": send_wish, "add_plan": add_plan}
}


@pytest.fixture
async def seats(file: Path, anyio_backend: str) -> AsyncIterator[Server]:
    SEEN.clear()
    async with serving(file, SEATS, wire_case="camel") as opened:
        yield opened


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "seats.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE seat (id TEXT PRIMARY KEY NOT NULL, taken_by TEXT)")
    return path


async def book(server: Server, **fields: Any) -> Any:
    return await server.client.post("/rpc/teamSeats.bookSeat", json=fields, headers=JSON)


async def test_paths_inputs_and_results(seats: Server) -> None:
    """In a URL and in JSON."""
    assert (await book(seats, seatId="1", takenBy="ann")).json() == {"id": "1", "takenBy": "ann"}
    assert (await seats.client.get("/rpc/teamSeats.getAll?freeOnly=true&limit=2")).json() == []
    answer = await seats.client.post("/rpc/teamSeats.getAll", json={"freeOnly": False}, headers=JSON)
    assert answer.json() == [{"id": "1", "takenBy": "ann"}]
    answer = await seats.client.post("/rpc/teamSeats.sendWish", json={"nearWindow": True}, headers=JSON)
    assert answer.json() == {"nearWindow": True}


async def test_pythons_names_are_unknown_on_the_wire(seats: Server) -> None:
    """One name an input: the faults name those of the wire."""
    assert (await seats.client.get("/rpc/team_seats.get_all")).status_code == 404
    refused = error_of(await book(seats, seat_id="1", taken_by="ann"))
    assert {tuple(fault["loc"]) for fault in refused["details"]} == {
        ("seatId",), ("takenBy",), ("seat_id",), ("taken_by",),
    }  # fmt: skip
    refused = error_of(await book(seats, seatId="", takenBy="ann"))
    assert [fault["loc"] for fault in refused["details"]] == [["seatId"]]
    assert "teamSeats.bookSeat: seatId" in refused["message"]
    refused = error_of(await seats.client.get("/rpc/teamSeats.getAll?freeOnly=x"))
    assert [fault["loc"] for fault in refused["details"]] == [["freeOnly"]]


async def test_the_details_of_an_error(seats: Server) -> None:
    """Over HTTP and in this process; its attributes are Python's."""
    await book(seats, seatId="1", takenBy="ann")
    refused = error_of(await book(seats, seatId="1", takenBy="bob"))
    assert (refused["type"], refused["details"]) == ("SeatTaken", {"seatId": "1", "takenBy": "ann"})
    with pytest.raises(SeatTaken) as raised:
        await seats.rpc.caller(None)(book_seat, seat_id="1", taken_by="bob")
    assert (raised.value.seat_id, raised.value.details) == ("1", {"seatId": "1", "takenBy": "ann"})


async def test_calls_in_this_process(seats: Server) -> None:
    """By Python's names, as checkers know them; results are of the annotated class."""
    call = seats.rpc.caller(None)
    booked = await call(book_seat, seat_id="1", taken_by="ann")
    assert (type(booked), booked.taken_by) == (Seat, "ann")
    assert [seat.taken_by for seat in await call(get_all, free_only=False)] == ["ann"]
    assert await call(send_wish, Wish(near_window=True)) == Wish(near_window=True)
    assert await call(add_plan, UploadFile(io.BytesIO(b"x")), room_name="attic") == "attic x"


async def test_steps_and_wrappers_see_pythons_names(seats: Server) -> None:
    """In the input; the path is that of the wire."""
    await seats.client.get("/rpc/teamSeats.getAll?freeOnly=true")
    [(path, input)] = SEEN
    assert path == "teamSeats.getAll"
    assert isinstance(input, BaseModel)
    assert input.model_dump() == {"free_only": True, "limit": 9}


async def test_files(seats: Server) -> None:
    """A part has its parameter's name in camel case."""
    sent: list[tuple[str, Any]] = [
        ("floorPlan", ("a", b"abc")),
        ("input", (None, '{"roomName": "attic"}', "application/json")),
    ]
    assert (await seats.client.post("/rpc/teamSeats.addPlan", files=sent)).json() == "attic abc"
    refused = error_of(await seats.client.post("/rpc/teamSeats.addPlan", files=sent[1:]))
    assert [fault["loc"] for fault in refused["details"]] == [["floorPlan"]]


async def test_watching(seats: Server) -> None:
    """A watched query is named, and its input spelled, as in a call."""
    queries = {"queries": [{"path": "teamSeats.getAll", "input": {"freeOnly": True}}], "wait": 0}
    answer = (await seats.client.post("/rpc/events/poll", json=queries, headers=JSON)).json()
    assert answer["events"][0]["data"]["errors"] == []
    queries["queries"] = [{"path": "teamSeats.getAll", "input": {"free_only": True}}]
    answer = (await seats.client.post("/rpc/events/poll", json=queries, headers=JSON)).json()
    assert "BAD_REQUEST" in str(answer)


async def test_the_document(seats: Server) -> None:
    """Agrees with all of that, examples included."""
    document = seats.app.openapi()
    listed = document["paths"]["/rpc/teamSeats.getAll"]["get"]
    assert [each["name"] for each in listed["parameters"]][:2] == ["freeOnly", "limit"]
    assert listed["x-reactive-rpc"] == {"kind": "query", "path": "teamSeats.getAll", "case": "camel"}
    schemas = document["components"]["schemas"]
    assert list(schemas["BookSeatInput"]["properties"]) == ["seatId", "takenBy"]
    assert list(schemas["Seat"]["properties"]) == ["id", "takenBy"]
    assert list(schemas["SeatTakenDetails"]["properties"]) == ["seatId", "takenBy"]
    example = document["paths"]["/rpc/events/poll"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    assert example["a query"]["value"] == {"queries": [{"path": "teamSeats.getAll", "input": {"freeOnly": True}}]}


class Plain(BaseModel):
    near_window: bool


class Inside(BaseModel):
    plain: list[Plain]


class WithPlain(DeclaredError, code="CONFLICT"):
    inside: Plain


@define_reactive_function.mutation
async def takes_plain(input: Plain) -> None: ...


@define_reactive_function
async def returns_plain() -> Inside:
    raise NotImplementedError


@define_reactive_function.mutation
async def holds_plain(inside: Plain) -> None: ...


@define_reactive_function.mutation(raises=[WithPlain])
async def raises_plain() -> None: ...


@pytest.mark.parametrize("procedure", [takes_plain, returns_plain, holds_plain, raises_plain])
def test_a_model_without_names_of_its_own_is_refused(file: Path, procedure: Any) -> None:
    """At start, by its class and its field, with the way out; with Python's names it is taken."""
    functions = {"group": {procedure.name: procedure}}
    with pytest.raises(DefinitionError, match=r"Plain\.near_window would go out .*alias_generator=to_camel"):
        rpc_on(file, functions, wire_case="camel")
    rpc_on(file, functions)


def test_two_names_that_become_one_are_refused(file: Path) -> None:
    """One of them would never be reached."""
    with pytest.raises(DefinitionError, match="two functions are called 'group\\.getAll'"):
        rpc_on(file, {"group": {"get_all": get_all, "getAll": get_all}}, wire_case="camel")


def test_the_procedure_itself_keeps_its_names(file: Path) -> None:
    """It may be served by another application, by Python's names."""
    camel, python = rpc_on(file, SEATS, wire_case="camel"), rpc_on(file, SEATS)
    assert next(iter(camel.functions)) == "teamSeats.getAll"
    assert next(iter(python.functions)) == "team_seats.get_all"
    model = python.functions["team_seats.book_seat"].handler.input_model
    assert model is not None
    assert set(model.model_json_schema()["properties"]) == {"seat_id", "taken_by"}
