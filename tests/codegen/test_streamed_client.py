"""Subscriptions and streamed queries in the generated client: typed iterators, against a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import httpx
import pytest
from fastapi import FastAPI, Header
from pydantic import BaseModel

from reactive_rpc import (
    DeclaredError,
    DefinitionError,
    Login,
    ReactiveRPC,
    Tracked,
    UnauthorizedError,
    define_reactive_function,
    tracked,
)
from reactive_rpc.codegen import generate
from reactive_rpc.errors import ConnectionFailedError, NotFoundError
from tests.support.golden import check_against
from tests.support.waiting import until, wait_until

from .generated import TypeCheckers, served

GOLDEN = Path(__file__).with_name("streamed_client.txt")

ROWS = 20_000
"""So many that they fit into no buffer on the way."""


class Seat(BaseModel):
    """A seat."""

    number: int
    taken_by: str | None = None


class Missing(DeclaredError, code="NOT_FOUND"):
    """no row {row}"""

    row: str


class Calls:
    """What the handlers have noticed."""

    def __init__(self) -> None:
        self.open = 0
        self.resumed_from: list[str | None] = []
        self.yielded = 0
        self.callers: list[str | None] = []


CALLS = Calls()


async def get_login(authorization: Annotated[str, Header()] = "") -> Login:
    """The caller whose name the token is."""
    if not authorization.startswith("Bearer "):
        raise UnauthorizedError("log in")
    return Login(identity=authorization.removeprefix("Bearer "))


procedure = define_reactive_function.defaults(raises=[Missing])


@procedure.subscription
async def events(
    ctx: Login, row: str, upto: int | None = None, last_event_id: str | None = None
) -> AsyncIterator[Tracked[Seat]]:
    """The seats of a row as they are taken."""
    CALLS.resumed_from.append(last_event_id)
    CALLS.callers.append(ctx.identity)
    CALLS.open += 1
    try:
        if row == "none":
            raise Missing(row=row)
        number = 0 if last_event_id is None else int(last_event_id)
        while upto is None or number < upto:
            number += 1
            yield tracked(str(number), Seat(number=number))
            if row == "slow":
                await asyncio.Event().wait()
        if row == "broken":
            raise Missing(row=row)
    finally:
        CALLS.open -= 1


@procedure.query(cache=False)
async def export(ctx: Login, rows: list[str] | None = None, count: int = 3, fails: bool = False) -> AsyncIterator[Seat]:
    """All seats."""
    CALLS.open += 1
    try:
        for number in range(count):
            CALLS.yielded = number
            yield Seat(number=number, taken_by=rows[0] if rows else None)
        if fails:
            raise Missing(row="Z")
    finally:
        CALLS.open -= 1


@procedure.subscription
async def ticks() -> AsyncIterator[int | None]:
    """Numbers, and nothing."""
    yield 1
    yield None


USE = """
from __future__ import annotations
from collections.abc import AsyncIterator, Iterator
from typing import assert_type
from reactive_rpc.client import EventIterator, ItemIterator, SyncEventIterator, SyncItemIterator
from hall_client import Missing, Seat, Hall, SyncHall

async def use(hub: Hall) -> None:
    async for seat in hub.seats.events(row="A"):
        assert_type(seat, Seat)
    async with hub.seats.events(row="A", last_event_id="4") as live:
        assert_type(live, EventIterator[Seat])
        assert_type(await anext(live), Seat)
        assert_type(live.last_event_id, str | None)
    async for number in hub.seats.ticks():
        assert_type(number, int | None)
    try:
        async for seat in hub.seats.export(rows=["A"], count=4):
            assert_type(seat.taken_by, str | None)
    except Missing as error:
        assert_type(error.row, str)
    assert_type(hub.seats.export(), ItemIterator[Seat])
    plain: AsyncIterator[Seat] = hub.seats.export()

def use_sync(hub: SyncHall) -> None:
    for seat in hub.seats.events(row="A"):
        assert_type(seat, Seat)
    with hub.seats.events(row="A") as live:
        assert_type(live, SyncEventIterator[Seat])
        assert_type(next(live), Seat)
        assert_type(live.last_event_id, str | None)
    assert_type(hub.seats.export(), SyncItemIterator[Seat])
    plain: Iterator[Seat] = hub.seats.export()
"""
MISUSE = """
from __future__ import annotations
from hall_client import Hall, SyncHall

async def misuse(hub: Hall, sync: SyncHall) -> None:
    await hub.seats.export()
    hub.seats.events()
    hub.seats.events(row=1)
    hub.seats.export.watch()
    hub.seats.export().last_event_id
    for seat in hub.seats.export(): ...
    async for seat in sync.seats.export(): ...
"""


def application(file: Path) -> FastAPI:
    functions = {"seats": {"events": events, "export": export, "ticks": ticks}}
    rpc = ReactiveRPC(f"sqlite+aiosqlite:///{file}", functions=functions, context=get_login)
    app = FastAPI(title="Hall", lifespan=rpc.lifespan)
    app.include_router(rpc.router)

    @app.post("/revoke/{identity}", include_in_schema=False)
    async def revoke(identity: str) -> None:
        await rpc.revoke(identity)

    return app


class Office:
    """A served application of seats, and its generated client."""

    def __init__(self, url: str, client: ModuleType) -> None:
        self.url = url
        self.client = client

    def hub(self, token: str = "ada", **options: Any) -> Any:
        return self.client.Hall(self.url, token=token, **options)

    def sync_hub(self, token: str = "ada") -> Any:
        return self.client.SyncHall(self.url, token=token)


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    folder = tmp_path_factory.mktemp("hall")
    app = application(folder / "seats.db")
    with served(app, folder, "hall_client") as (url, client):
        yield Office(url, client)


@pytest.fixture(autouse=True)
def calls() -> Iterator[Calls]:
    """Nothing is left of another test's; afterwards no handler runs."""
    CALLS.resumed_from.clear()
    CALLS.callers.clear()
    yield CALLS
    wait_until(lambda: CALLS.open == 0)


def test_what_is_generated(office: Office) -> None:
    """The module of the client, as it stands; `REACTIVE_WRITE_GOLDEN=1` writes it anew."""
    written = (Path(str(office.client.__file__)).parent / "client.py").read_text()
    check_against(GOLDEN, written)


def test_the_iterators_are_strictly_typed(office: Office, type_checkers: TypeCheckers) -> None:
    """mypy --strict and pyright accept the package and its right use; each wrong use is an error."""
    assert type_checkers.faults_of(office.client, USE) == ""
    for said in type_checkers.said_of_misuse(office.client, MISUSE):
        wrong = {line for line in range(6, 13) if f"misuse.py:{line}:" in said}
        assert wrong == set(range(6, 13)), said


@pytest.mark.anyio
async def test_a_subscription_is_iterated_over(office: Office, calls: Calls) -> None:
    """Until the handler returns; another one goes on after an id."""
    Seat = office.client.Seat
    async with office.hub() as hub:
        assert [seat async for seat in hub.seats.events(row="A", upto=2)] == [Seat(number=1), Seat(number=2)]
        later = hub.seats.events(row="A", upto=4, last_event_id="2")
        assert [seat.number async for seat in later] == [3, 4]
        assert later.last_event_id == "4"
        assert [value async for value in hub.seats.ticks()] == [1, None]
    assert calls.resumed_from == [None, "2"]


@pytest.mark.anyio
async def test_a_streamed_query_is_iterated_over(office: Office) -> None:
    """By GET; and by POST, if the input is too large for a URL."""
    async with office.hub() as hub:
        assert [seat.number async for seat in hub.seats.export(count=4)] == [0, 1, 2, 3]
        large = "r" * 20_000
        assert [seat.taken_by async for seat in hub.seats.export(rows=[large], count=1)] == [large]
        assert [seat async for seat in hub.seats.export(count=0)] == []


async def read(seats: AsyncIterator[Any]) -> tuple[list[int], str]:
    """Return the numbers of the seats, and the error after them."""
    numbers = []
    try:
        async for seat in seats:
            numbers.append(seat.number)
    except NotFoundError as error:
        return numbers, f"{type(error).__name__}: {error.message}"
    return numbers, ""


@pytest.mark.anyio
async def test_declared_errors_are_raised_as_their_classes(office: Office) -> None:
    """Before the first value, and after the last."""
    client = office.client
    async with office.hub() as hub:
        with pytest.raises(client.Missing) as found:
            await anext(hub.seats.events(row="none"))
        assert (found.value.row, isinstance(found.value, NotFoundError)) == ("none", True)
        assert await read(hub.seats.events(row="broken", upto=2)) == ([1, 2], "Missing: no row broken")
        assert await read(hub.seats.export(fails=True)) == ([0, 1, 2], "Missing: no row Z")


@pytest.mark.anyio
async def test_nobody_is_let_through_without_a_token(office: Office, calls: Calls) -> None:
    """As a call is refused; no handler has run."""
    async with office.client.Hall(office.url) as hub:
        for iterator in (hub.seats.events(row="A"), hub.seats.export()):
            with pytest.raises(UnauthorizedError, match="log in"):
                await anext(iterator)
    assert calls.resumed_from == []


@pytest.mark.anyio
async def test_a_loop_that_is_left_ends_the_handler(office: Office, calls: Calls) -> None:
    """Of a subscription that waits, and of an export that is far from its end."""
    async with office.hub() as hub:
        async for seat in hub.seats.events(row="slow"):
            assert seat.number == 1
            assert calls.open == 1
            break
        await until(lambda: calls.open == 0)
        async for _ in hub.seats.export(count=10 * ROWS):
            assert calls.open == 1
            break
        await until(lambda: calls.open == 0)


@pytest.mark.anyio
async def test_a_slow_consumer_slows_the_handler_down(office: Office, calls: Calls) -> None:
    """It does not run ahead of what is taken, but for what fits into the buffers on the way."""
    async with office.hub() as hub, hub.seats.export(count=100 * ROWS) as rows:
        await anext(rows)
        last = -1

        def stands() -> bool:
            nonlocal last
            before, last = last, calls.yielded
            return before == last

        await until(stands)
        assert calls.yielded < 10 * ROWS


@pytest.mark.anyio
async def test_a_right_that_is_lost_ends_the_subscription(office: Office) -> None:
    """By the refusal that the next connection is answered with; one that is let through goes on."""
    async with office.hub("eve") as hub, hub.seats.events(row="slow") as live:
        assert (await anext(live)).number == 1
        await asyncio.to_thread(httpx.post, f"{office.url}/revoke/eve")
        assert (await anext(live)).number == 2
    assert CALLS.callers == ["eve", "eve"]
    assert CALLS.resumed_from == [None, "1"]


def test_the_sync_client_iterates_too(office: Office, calls: Calls) -> None:
    """Over values, errors and a loop that is left."""
    client = office.client
    with office.sync_hub() as hub:
        assert [seat.number for seat in hub.seats.events(row="A", upto=3)] == [1, 2, 3]
        assert [seat.number for seat in hub.seats.export()] == [0, 1, 2]
        with pytest.raises(client.Missing, match="no row Z"):
            list(hub.seats.export(fails=True))
        for _ in hub.seats.events(row="slow"):
            assert calls.open == 1
            break
        wait_until(lambda: calls.open == 0)


def test_a_document_of_a_newer_release_is_refused(office: Office, tmp_path: Path) -> None:
    """One that has another kind of procedure, or streams in another format, names the way out."""
    document = application(tmp_path / "x.db").openapi()
    other = deepcopy(document)
    other["paths"]["/rpc/seats.events"]["get"]["x-reactive-rpc"]["kind"] = "socket"
    with pytest.raises(DefinitionError, match=r"'query', 'mutation', 'subscription'.*with that release"):
        generate(other, tmp_path / "client")
    content = document["paths"]["/rpc/seats.export"]["post"]["responses"]["200"]["content"]
    content["application/cbor-seq"] = content.pop("application/jsonl")
    with pytest.raises(DefinitionError, match=r"no schema of 'application/jsonl'.*generate with that release"):
        generate(document, tmp_path / "client")


@pytest.mark.anyio
async def test_a_server_that_is_gone_is_said(office: Office) -> None:
    """By the first value; nobody waits for a server that was never there."""
    async with office.client.Hall("http://127.0.0.1:9", token="ada") as hub:
        for iterator in (hub.seats.events(row="A"), hub.seats.export()):
            with pytest.raises(ConnectionFailedError):
                await anext(iterator)
