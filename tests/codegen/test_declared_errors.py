"""Errors that procedures declare, in the generated client: exceptions with typed fields, raised and shown."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from copy import deepcopy
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import ModuleType

import pytest
import schemathesis
from fastapi import FastAPI
from pydantic import BaseModel, Field
from sqlalchemy.orm import registry
from sqlmodel import Field as Column
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import (
    ConflictError,
    DeclaredError,
    DefinitionError,
    NotFoundError,
    ReactiveRPC,
    RPCError,
    Settings,
    define_reactive_function,
)
from reactive_rpc.codegen import generate
from tests.support.golden import check_against
from tests.support.waiting import until

from .generated import TypeCheckers, served

GOLDEN = Path(__file__).with_name("declared_errors_client.txt")


class Base(SQLModel, registry=registry()):
    """Keeps the table out of the shared metadata."""


class Seat(Base, table=True):
    id: str = Column(primary_key=True)
    taken_by: str | None = None


class Offer(BaseModel):
    seat: str
    price: Decimal


class SeatTaken(DeclaredError, code="CONFLICT"):
    """seat {seat} is taken"""

    seat: str
    taken_by: str | None = None
    since: datetime = datetime(2026, 1, 2, tzinfo=UTC)
    price: Decimal = Decimal("1.50")
    others: list[Offer] = Field(default_factory=list)
    copy: int = 1


class TooLate(DeclaredError, code="NOT_IMPLEMENTED"):
    """too late"""


class ConflictingError(DeclaredError, code="CONFLICT"):
    """it conflicts"""

    str: str


class Closed(DeclaredError, code="FORBIDDEN"):
    """closed: {reason}"""

    reason: str


procedure = define_reactive_function.defaults(raises=[Closed])


@procedure(raises=[SeatTaken, NotFoundError])
async def reserve(db: AsyncSession, seat: str) -> str:
    """The seat's name, if it is free."""
    found = await db.get(Seat, seat)
    if found is None:
        raise NotFoundError(f"no seat {seat}")
    if found.taken_by is not None:
        raise SeatTaken(seat=seat, taken_by=found.taken_by, others=[Offer(seat="1", price=Decimal("0.10"))])
    return found.id


@procedure.mutation(raises=[SeatTaken, TooLate, ConflictingError])
async def book(db: AsyncSession, seat: str, by: str) -> None:
    """Book a seat."""
    found = await db.get(Seat, seat)
    if found is None:
        raise TooLate
    if found.taken_by is not None:
        raise SeatTaken(seat=seat, taken_by=found.taken_by)
    found.taken_by = by


@procedure
def closed() -> str:
    """Never."""
    raise Closed(reason="it rains")


USE = """
from __future__ import annotations
from datetime import datetime
from decimal import Decimal
from typing import assert_type
from reactive_rpc.errors import ConflictError
from seats_client import Closed, Seats, SeatTaken, SyncSeats, errors, models

async def use(hub: Seats) -> None:
    try:
        await hub.seats.book(seat="4B", by="ada")
    except SeatTaken as error:
        assert_type(error.seat, str)
        assert_type(error.taken_by, str | None)
        assert_type(error.since, datetime)
        assert_type(error.price, Decimal)
        assert_type(error.others, list[models.Offer])
        plain: ConflictError = error
        print(plain.code, plain.details)
    except errors.Closed as error:
        assert_type(error.reason, str)
    async with hub.seats.reserve.watch(seat="4B") as live:
        async for state in live:
            if isinstance(state.error, SeatTaken):
                assert_type(state.error.seat, str)

def use_sync(hub: SyncSeats) -> None:
    try:
        hub.seats.book(seat="4B", by="ada")
    except (SeatTaken, Closed) as error:
        assert_type(error, SeatTaken | Closed)
"""
MISUSE = """
from __future__ import annotations
from seats_client import SeatTaken

def misuse(error: SeatTaken) -> None:
    print(error.row)
    seat: int = error.seat
"""


class Office:
    """A served application of seats, and its generated client."""

    def __init__(self, url: str, file: Path, client: ModuleType) -> None:
        self.url = url
        self.client = client
        self._file = file

    def write(self, statement: str, *values: object) -> None:
        """Write to the file by another connection."""
        with closing(sqlite3.connect(self._file)) as connection, connection:
            connection.execute(statement, values)


def application(file: Path) -> FastAPI:
    functions = {"seats": {"reserve": reserve, "book": book, "closed": closed}}
    url = f"sqlite+aiosqlite:///{file}"
    rpc = ReactiveRPC(url, functions=functions, metadata=Base.metadata, settings=Settings(busy_timeout_seconds=0.2))
    app = FastAPI(title="Seats", lifespan=rpc.lifespan)
    app.include_router(rpc.router)
    return app


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    folder = tmp_path_factory.mktemp("seats")
    app = application(folder / "seats.db")
    with served(app, folder, "seats_client") as (url, client):
        yield Office(url, folder / "seats.db", client)


@pytest.fixture(autouse=True)
def seats(office: Office) -> None:
    """One free seat, and one that bob has taken."""
    office.write("DELETE FROM seat")
    office.write("INSERT INTO seat VALUES ('1', NULL), ('2', 'bob')")


def test_the_document_is_valid(tmp_path: Path) -> None:
    """OpenAPI 3.1, as Schemathesis says, and each schema of it JSON Schema."""
    document = application(tmp_path / "x.db").openapi()
    assert document["openapi"].startswith("3.1")
    schemathesis.openapi.from_dict(document).validate()
    broken = deepcopy(document)
    broken["paths"]["/rpc/seats.book"]["post"]["responses"]["409"].pop("description")
    with pytest.raises(Exception, match="description"):
        schemathesis.openapi.from_dict(broken).validate()


def test_what_is_generated(office: Office) -> None:
    """The module of the errors, as it stands; `REACTIVE_WRITE_GOLDEN=1` writes it anew."""
    written = (Path(str(office.client.__file__)).parent / "errors.py").read_text()
    check_against(GOLDEN, written)


def test_the_errors_are_strictly_typed(office: Office, type_checkers: TypeCheckers) -> None:
    """mypy --strict and pyright accept the package and its right use; each wrong use is an error."""
    assert type_checkers.faults_of(office.client, USE) == ""
    for said in type_checkers.said_of_misuse(office.client, MISUSE):
        assert said.count("error:") == 2
        assert ":6" in said
        assert ":7" in said


@pytest.mark.anyio
async def test_a_call_raises_the_error_of_its_name(office: Office) -> None:
    """With its fields, of the class of its code; whoever declares no such error has the code's class."""
    client = office.client
    async with client.Seats(office.url) as hub:
        await hub.seats.book(seat="1", by="ada")
        with pytest.raises(client.SeatTaken) as found:
            await hub.seats.book(seat="1", by="bob")
        error = found.value
        assert issubclass(type(error), ConflictError)
        assert (error.seat, error.taken_by, error.price, error.copy_) == ("1", "ada", Decimal("1.50"), 1)
        assert error.since == datetime(2026, 1, 2, tzinfo=UTC)
        assert (error.code, error.type, error.path) == ("CONFLICT", "SeatTaken", "seats.book")
        assert error.message == "seat 1 is taken"
        assert error.request_id
        with pytest.raises(client.SeatTaken) as found:
            await hub.seats.reserve(seat="2")
        assert found.value.others == [client.Offer(seat="1", price=Decimal("0.10"))]
        with pytest.raises(client.TooLate) as late:
            await hub.seats.book(seat="9", by="ada")
        assert late.value.code == "NOT_IMPLEMENTED"
        with pytest.raises(client.Closed, match="closed: it rains"):
            await hub.seats.closed()
        with pytest.raises(NotFoundError):
            await hub.seats.reserve(seat="9")


@pytest.mark.anyio
async def test_a_copy_is_the_same_error(office: Office) -> None:
    """As a task group's or a queue's may be."""
    async with office.client.Seats(office.url) as hub:
        with pytest.raises(office.client.SeatTaken) as found:
            await hub.seats.reserve(seat="2")
    copy = deepcopy(found.value)
    assert (type(copy), copy.seat, copy.taken_by) == (office.client.SeatTaken, "2", "bob")


@pytest.mark.anyio
async def test_a_watch_shows_the_error_of_its_name(office: Office) -> None:
    """And the next one, which differs by a field alone; then the result."""
    async with office.client.Seats(office.url) as hub, hub.seats.reserve.watch(seat="2") as live:
        await until(lambda: isinstance(live.state.error, office.client.SeatTaken))
        assert live.state.error.taken_by == "bob"
        office.write("UPDATE seat SET taken_by = 'eve' WHERE id = '2'")
        await until(lambda: getattr(live.state.error, "taken_by", None) == "eve")
        office.write("UPDATE seat SET taken_by = NULL WHERE id = '2'")
        await until(lambda: live.state.data == "2")
        assert live.state.error is None


@pytest.mark.anyio
async def test_a_watch_shows_why_it_is_refused(office: Office) -> None:
    """A query that reads nothing, and refuses."""
    async with office.client.Seats(office.url) as hub, hub.seats.closed.watch() as live:
        await until(lambda: isinstance(live.state.error, office.client.Closed))
        assert live.state.error.reason == "it rains"


def test_the_sync_client_raises_the_same(office: Office) -> None:
    """Calls and watches."""
    client = office.client
    with client.SyncSeats(office.url) as hub:
        with pytest.raises(client.SeatTaken) as found:
            hub.seats.book(seat="2", by="ada")
        assert found.value.taken_by == "bob"
        with hub.seats.reserve.watch(seat="2") as live:
            error = next(state.error for state in live if state.error is not None)
        assert isinstance(error, client.SeatTaken)


def test_fields_of_another_server_leave_the_codes_class(office: Office) -> None:
    """A client that was generated from an older document still knows the code."""
    newer = ConflictError("taken", details={"row": 4})
    newer.type = "SeatTaken"
    procedure = office.client.client._SEATS_BOOK
    assert procedure.typed_error(newer) is newer
    other = RPCError("no", code="CONFLICT")
    other.type = "Unknown"
    assert procedure.typed_error(other) is other


def test_an_error_that_is_described_in_two_ways_is_refused(tmp_path: Path) -> None:
    """A client has one class for it."""
    document = application(tmp_path / "x.db").openapi()
    response = deepcopy(document["components"]["schemas"]["SeatTakenBody"])
    response["properties"]["code"]["const"] = "FORBIDDEN"
    schema = {"type": "object", "properties": {"error": response}}
    operation = document["paths"]["/rpc/seats.book"]["post"]
    operation["responses"]["409"] = {"content": {"application/json": {"schema": schema}}}
    with pytest.raises(DefinitionError, match="'SeatTaken' is described otherwise elsewhere"):
        generate(document, tmp_path / "client")
