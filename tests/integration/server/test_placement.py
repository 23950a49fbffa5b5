"""Where procedures are placed and who opens them: what could not work says so, by name and with the way out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from reactive_rpc import (
    DefinitionError,
    ReactiveRPC,
    ReactiveRPCError,
    RPCError,
    combine_lifespans,
    define_reactive_function,
    topic,
)
from tests.support.calls import by_path

from .rooms import app_of, error_of, opened, rpc_on

pytestmark = pytest.mark.anyio

ROOM: dict[str, Any] = {"params": {"room": "a"}}


async def nothing() -> str:
    return "mine"


def of_one_prefix(one: ReactiveRPC, two: ReactiveRPC) -> FastAPI:
    app = FastAPI(lifespan=combine_lifespans(one.lifespan, two.lifespan))
    app.include_router(one.router)
    app.include_router(two.router)
    return app


def of_one_prefix_in_the_end(one: ReactiveRPC, two: ReactiveRPC) -> FastAPI:
    app = FastAPI(lifespan=one.lifespan)
    app.include_router(one.router, prefix="/api")
    app.include_router(two.router, prefix="/api")
    return app


def one_below_another(one: ReactiveRPC, two: ReactiveRPC) -> FastAPI:
    app = FastAPI(lifespan=one.lifespan)
    app.include_router(one.router)
    app.include_router(two.router, prefix="/rpc/admin")
    return app


def a_route_below(one: ReactiveRPC, _two: ReactiveRPC) -> FastAPI:
    app = app_of(one)
    app.get("/rpc/status")(nothing)
    return app


def a_mount_below(one: ReactiveRPC, _two: ReactiveRPC) -> FastAPI:
    app = app_of(one)
    app.mount("/rpc/files", FastAPI())
    return app


def a_route_of_a_path_of_ours(one: ReactiveRPC, _two: ReactiveRPC) -> FastAPI:
    app = FastAPI(lifespan=one.lifespan)
    app.get("/rpc/health")(nothing)
    app.include_router(one.router)
    return app


def in_a_mounted_application(one: ReactiveRPC, two: ReactiveRPC) -> FastAPI:
    app = FastAPI(lifespan=one.lifespan)
    app.mount("/inner", of_one_prefix(one, two))
    return app


def below_a_parameter(one: ReactiveRPC, _two: ReactiveRPC) -> FastAPI:
    app = FastAPI(lifespan=one.lifespan)
    app.include_router(one.router, prefix="/org/{org}")
    return app


@pytest.mark.parametrize(
    ("make_app", "fault"),
    [
        (of_one_prefix, "two ReactiveRPCs are included below '/rpc/'"),
        (of_one_prefix_in_the_end, "two ReactiveRPCs are included below '/api/rpc/'"),
        (one_below_another, "two ReactiveRPCs are included below '/rpc/'"),
        (in_a_mounted_application, "two ReactiveRPCs are included below '/rpc/'"),
        (a_route_below, "'/rpc/status' stands below '/rpc/'"),
        (a_route_of_a_path_of_ours, "'/rpc/health' is declared by the application and by the procedures"),
        (a_mount_below, "'/rpc/files' stands below '/rpc/'"),
        (below_a_parameter, "'/org/{org}/rpc/notes.in_room', which has a parameter"),
    ],
)
async def test_what_could_never_be_reached_stops_the_start(
    tmp_path: Path, make_app: Callable[[ReactiveRPC, ReactiveRPC], FastAPI], fault: str
) -> None:
    """The application does not start, and the message names the path."""
    one, two = rpc_on(tmp_path / "one.db"), rpc_on(tmp_path / "two.db")
    app = make_app(one, two)
    with pytest.raises(DefinitionError) as raised:
        async with app.router.lifespan_context(app):
            pass
    assert fault in str(raised.value)


async def test_two_in_one_application_serve_side_by_side(tmp_path: Path) -> None:
    """Each below a prefix of its own, opened and closed by one lifespan; a route declared before them stays."""
    one = rpc_on(tmp_path / "one.db")
    two = rpc_on(tmp_path / "two.db", prefix="/admin", trpc_prefix="/admin/trpc")
    app = FastAPI(lifespan=combine_lifespans(one.lifespan, two.lifespan))
    app.get("/rpc/status")(nothing)
    for rpc in (one, two):
        app.include_router(rpc.router)
    async with app.router.lifespan_context(app), client_of(app) as client:
        added = await client.post("/rpc/notes.add", json={"room": "a", "text": "x"})
        assert added.status_code == 200
        assert len((await client.get("/rpc/notes.in_room", **ROOM)).json()) == 1
        assert (await client.get("/admin/notes.in_room", **ROOM)).json() == []
        assert (await client.get("/rpc/status")).json() == "mine"
        room = {"input": '{"room":"a"}'}
        assert len((await client.get("/trpc/notes.in_room", params=room)).json()["result"]["data"]) == 1
        assert (await client.get("/admin/trpc/notes.in_room", params=room)).json() == {"result": {"data": []}}
        document = (await client.get("/openapi.json")).json()  # a name that is there twice would be warned of
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names))
    assert {"notes.add", "admin.notes.add", "events", "admin.events"} <= set(names)


class Folder(BaseModel):
    """Contains itself, so its schema is not made anew wherever it is used."""

    name: str
    folders: list[Folder] = []


@define_reactive_function(public=True)
async def folder(given: Folder) -> Folder:
    """Answer with the folder."""
    return given


async def test_applications_that_are_made_anew_leave_models_as_they_were(tmp_path: Path) -> None:
    """As tests of users do, one for each: a model's schema must not grow with each of them."""
    lengths = set()
    for number in range(4):
        rpc = ReactiveRPC(f"sqlite+aiosqlite:///{tmp_path}/{number}.db", functions={"folders": {"folder": folder}})
        app = FastAPI()
        app.include_router(rpc.router)
        lengths.add((len(str(Folder.__pydantic_core_schema__).split("Marked")), json.dumps(app.openapi())))
    assert len(lengths) == 1


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


def without_lifespan(rpc: ReactiveRPC) -> FastAPI:
    app = FastAPI()
    app.include_router(rpc.router)
    return app


def with_that_of_a_mounted_application(rpc: ReactiveRPC) -> FastAPI:
    outer, inner = FastAPI(), app_of(rpc)
    outer.mount("/inner", inner)
    return outer


@pytest.mark.parametrize(("make_app", "base"), [(without_lifespan, ""), (with_that_of_a_mounted_application, "/inner")])
async def test_what_was_never_opened_says_how_it_is_opened(file: Path, make_app: Any, base: str) -> None:
    """Every path answers 503 with the words to type; a mutation does nothing at all."""
    rpc = rpc_on(file)
    app = make_app(rpc)
    async with app.router.lifespan_context(app), client_of(app) as client:
        for path in (
            "notes.in_room", "notes.add", "notes.nope", "events", "events/poll", "events/sets", "events/ticket",
            "events/ack", "health", "health/live",
        ):  # fmt: skip
            answer = await client.post(f"{base}/rpc/{path}", json={"room": "a", "text": "x"})
            assert answer.status_code == 503, path
            assert "FastAPI(lifespan=rpc.lifespan)" in error_of(answer)["message"]
    assert not file.exists()  # noqa: ASYNC240  # nothing else runs here


async def test_calls_in_this_process_need_it_open(file: Path) -> None:
    """A caller and an announcement say the same, before it is opened and after it is closed."""
    rpc = rpc_on(file)
    call = by_path(rpc)
    for _ in range(2):
        for use in (lambda: call("notes.in_room", room="a"), lambda: rpc.invalidate(topic("weather"))):
            with pytest.raises(RPCError, match="ReactiveRPC is not open"):
                await use()
        async with opened(rpc, app_of):
            assert await call("notes.in_room", room="a") == []


async def test_it_is_open_once(file: Path) -> None:
    """A second opening is refused and leaves the first as it is; so does one that fails."""
    rpc = rpc_on(file)
    async with opened(rpc, app_of) as first:
        with pytest.raises(ReactiveRPCError, match="is open already"):
            await rpc.admin.open()
        assert (await first.client.get("/rpc/notes.in_room", **ROOM)).status_code == 200
    broken = rpc_on(file.parent / "nowhere" / "rooms.db")
    for _ in range(2):
        with pytest.raises(ReactiveRPCError, match="cannot be made"):
            await broken.admin.open()


async def test_it_belongs_to_the_loop_that_opened_it(file: Path) -> None:
    """A call on another event loop is refused, instead of waiting for ever for connections of the first."""
    rpc = rpc_on(file)
    async with opened(rpc, app_of):

        def elsewhere() -> object:
            return asyncio.run(by_path(rpc)("notes.in_room", room="a"))

        with pytest.raises(RPCError, match="opened on another event loop"):
            await asyncio.to_thread(elsewhere)


async def test_lifespans_are_entered_in_order_and_left_in_reverse() -> None:
    """What they yield is merged; one that fails to start has those before it closed."""
    steps: list[str] = []

    def named(name: str, state: dict[str, Any] | None) -> Any:
        @asynccontextmanager
        async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Any] | None]:
            steps.append(f"+{name}")
            try:
                yield state
            finally:
                steps.append(f"-{name}")

        return lifespan

    @asynccontextmanager
    async def failing(_app: FastAPI) -> AsyncIterator[None]:
        raise ValueError("no")
        yield

    app = FastAPI()
    combined = combine_lifespans(named("a", {"x": 1, "y": 1}), named("b", None), named("c", {"y": 2}))
    async with combined(app) as state:
        assert state == {"x": 1, "y": 2}
    assert steps == ["+a", "+b", "+c", "-c", "-b", "-a"]
    async with combine_lifespans(named("d", None))(app) as state:
        assert state is None
    with pytest.raises(ValueError, match="no"):
        async with combine_lifespans(named("e", None), failing)(app):
            pass
    assert steps[-2:] == ["+e", "-e"]
