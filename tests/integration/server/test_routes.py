"""The router as part of a FastAPI application: dependencies, overrides, mounts, methods, ETags, OpenAPI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import date
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import httpx
import pytest
from fastapi import (
    APIRouter,
    BackgroundTasks,
    Depends,
    FastAPI,
    Header,
    HTTPException,
    Request,
    Response,
    Security,
)
from fastapi.security import APIKeyHeader
from pydantic import BaseModel, Field
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import Login, ReactiveRPC, define_reactive_function
from reactive_rpc.codegen.document import read_document

from .rooms import NoteId, Server, Visit, app_of, error_of, in_room, one, rpc_on, serving, who

pytestmark = pytest.mark.anyio

ROOM_A: dict[str, Any] = {"params": {"room": "a"}}
ANSWER_SECONDS = 60.0


async def test_a_result_that_has_not_changed_is_not_sent_again(server: Server) -> None:
    """The ETag of an answer brings 304 and no body, until a write changes the result."""
    first = await server.client.get("/rpc/notes.in_room?room=a")
    etag = first.headers["etag"]
    again = await server.client.get("/rpc/notes.in_room?room=a", headers={"if-none-match": f'"x", W/{etag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    server.write("INSERT INTO note(tenant, room, text) VALUES ('t', 'a', 'new')")
    changed = await server.client.get("/rpc/notes.in_room?room=a", headers={"if-none-match": etag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != etag
    assert changed.headers["cache-control"] == "private, no-cache"


async def test_get_and_post_answer_alike(server: Server) -> None:
    """If the input fits a query string, either way gives the same result under the same ETag; the second is a hit."""
    await server.call("notes.add", {"room": "a", "text": "x"})
    got = await server.client.get("/rpc/notes.in_room", **ROOM_A)
    posted = await server.call("notes.in_room", {"room": "a"})
    assert (got.content, got.headers["etag"]) == (posted.content, posted.headers["etag"])
    assert (server.rpc.admin.stats()["misses"], server.rpc.admin.stats()["hits"]) == (1, 1)


class Level(IntEnum):
    LOW = 1


class Everything(BaseModel):
    number: Annotated[int, Field(ge=1)]
    ratio: float
    on: bool
    day: date
    id: UUID
    level: Level
    kind: Literal["a", "b"] = "a"
    spelled: Annotated[str, Field(alias="as-it-is")] = "default"
    maybe: int | None = None


@define_reactive_function
async def echo(input: Everything) -> Everything:
    """Give back what came."""
    return input


async def test_every_scalar_travels_in_a_url(file: Path) -> None:
    """Each kind of field is read from text; what is not given has its default."""
    sent = {
        "number": "3", "ratio": "0.5", "on": "true", "day": "2026-01-31", "level": "1", "as-it-is": "a&b=c é",
        "id": "9d7ab55e-0d4b-4d5c-8d6e-0e3a8cbb3f6b",
    }  # fmt: skip
    async with serving(file, {"test": {"echo": echo}}) as server:
        answer = await server.client.get("/rpc/test.echo", params=sent)
        posted = await server.call("test.echo", answer.json())
        refused = await server.client.get("/rpc/test.echo", params={**sent, "number": "0", "maybe": "x"})
    assert answer.json() == {
        "number": 3, "ratio": 0.5, "on": True, "day": "2026-01-31", "level": 1, "kind": "a", "as-it-is": "a&b=c é",
        "id": sent["id"], "maybe": None,
    }  # fmt: skip
    assert posted.json() == answer.json()
    assert [fault["loc"] for fault in error_of(refused)["details"]] == [["number"], ["maybe"]]


def locked() -> None:
    raise HTTPException(403, "closed today")


def under_a_prefix(rpc: ReactiveRPC) -> FastAPI:
    app = FastAPI(lifespan=rpc.lifespan)
    app.include_router(rpc.router, prefix="/v1", dependencies=[Depends(locked)])
    return app


def under_two_routers(rpc: ReactiveRPC) -> FastAPI:
    app, inner, outer = FastAPI(lifespan=rpc.lifespan), APIRouter(), APIRouter(dependencies=[Depends(locked)])
    inner.include_router(rpc.router, prefix="/v1")
    outer.include_router(inner)
    app.include_router(outer)
    return app


def under_an_application(rpc: ReactiveRPC) -> FastAPI:
    app = FastAPI(lifespan=rpc.lifespan, dependencies=[Depends(locked)])
    app.include_router(rpc.router, prefix="/v1")
    return app


@pytest.mark.parametrize("make_app", [under_a_prefix, under_two_routers, under_an_application])
async def test_what_the_router_is_included_with_is_enforced(file: Path, make_app: Any) -> None:
    """`dependencies=[...]`, wherever it stands above the router, guards every procedure, every stream and every ack."""
    async with serving(file, make_app=make_app) as server:
        for path in ("notes.in_rooms", "notes.in_room", "notes.add", "events", "events/sets", "events/ack"):
            body = {"room": "a", "text": "x", "queries": []}
            answer = await server.client.post(f"/v1/rpc/{path}", json=body)
            assert (answer.status_code, error_of(answer)["message"]) == (403, "closed today"), path
        assert server.rows() == []
        assert (await server.client.get("/rpc/notes.in_room", **ROOM_A)).status_code == 404


async def test_a_dependency_may_read_the_body(file: Path) -> None:
    """A dependency that reads the request's body (to check a signature) leaves it to the procedure."""
    bodies: list[bytes] = []

    async def signed(request: Request) -> None:
        bodies.append(await request.body())

    def make_app(rpc: ReactiveRPC) -> FastAPI:
        app = FastAPI(lifespan=rpc.lifespan)
        app.include_router(rpc.router, dependencies=[Depends(signed)])
        return app

    async with serving(file, make_app=make_app) as server, asyncio.timeout(ANSWER_SECONDS):
        answer = await server.call("notes.add", {"room": "a", "text": "x"})
    assert answer.status_code == 200
    assert bodies == [b'{"room":"a","text":"x"}']


async def test_one_router_in_two_places_keeps_their_guards_apart(file: Path) -> None:
    """The same procedures, open under one prefix and guarded under another."""

    def make_app(rpc: ReactiveRPC) -> FastAPI:
        app = under_a_prefix(rpc)
        app.include_router(rpc.router, prefix="/open")
        return app

    async with serving(file, make_app=make_app) as server:
        assert (await server.client.get("/v1/rpc/notes.in_room", **ROOM_A)).status_code == 403
        assert (await server.client.get("/open/rpc/notes.in_room", **ROOM_A)).status_code == 200


async def test_a_router_included_after_the_first_request_is_served(server: Server) -> None:
    """The table of paths follows the application."""
    assert (await server.client.get("/late/rpc/notes.in_room", **ROOM_A)).status_code == 404
    server.app.include_router(server.rpc.router, prefix="/late")
    assert (await server.client.get("/late/rpc/notes.in_room", **ROOM_A)).status_code == 200
    assert (await server.client.get("/rpc/notes.in_room", **ROOM_A)).status_code == 200


async def test_a_router_that_takes_the_place_of_another_is_served(server: Server) -> None:
    """As many routes as before say nothing: the new prefix is served, and the old one no more."""
    assert (await server.call("notes.in_room", {"room": "a"})).status_code == 200
    routes = server.app.router.routes
    count, kept = len(routes), [*routes]
    server.app.include_router(server.rpc.router, prefix="/v2")
    added = [route for route in routes if not any(route is each for each in kept)]
    removed = kept[-len(added) :]
    routes[:] = [route for route in routes if not any(route is each for each in removed)]
    assert len(routes) == count
    answers = [await server.client.get(f"{prefix}/rpc/notes.in_room?room=a") for prefix in ("/v2", "")]
    assert [answer.status_code for answer in answers] == [200, 404]


async def test_the_context_can_be_overridden(file: Path) -> None:
    """`dependency_overrides` replaces the context, as in any FastAPI test."""
    async with serving(file, context=who) as server:
        assert (await server.call("notes.in_room", {"room": "a"})).status_code == 401
        server.app.dependency_overrides[who] = lambda: Login(identity="test", tenant="t")
        assert (await server.call("notes.in_room", {"room": "a"})).status_code == 200


@define_reactive_function
async def whoami(db: AsyncSession, ctx: Login) -> str:
    """Name the caller, if there are no visits."""
    return "" if (await db.exec(select(Visit))).all() else str(ctx.identity)


async def test_a_context_with_yield_is_closed_after_the_call(file: Path) -> None:
    """What a context holds open is open during the call and closed after it, also when the call fails."""
    seen: list[str] = []

    async def context() -> AsyncIterator[Login]:
        seen.append("open")
        try:
            yield Login(identity="u", tenant="t")
        finally:
            seen.append("closed")

    functions = {"test": {"whoami": whoami, "echo": echo}}
    async with serving(file, functions, context=context) as server:
        assert (await server.client.get("/rpc/test.whoami")).json() == "u"
        assert seen == ["open", "closed"]
        assert (await server.call("test.echo", {})).status_code == 400
        assert seen == ["open", "closed"] * 2


async def test_a_context_may_set_cookies_and_leave_work_behind(file: Path) -> None:
    """`Response` and `BackgroundTasks` work in a context as in any FastAPI route: a sliding session needs them."""
    done: list[str] = []

    def context(response: Response, tasks: BackgroundTasks) -> Login:
        response.set_cookie("session", "renewed")
        tasks.add_task(done.append, "seen")
        return Login(identity="u", tenant="t")

    async with serving(file, context=context) as server:
        answer = await server.client.get("/rpc/notes.in_room", **ROOM_A)
    assert answer.status_code == 200
    assert answer.cookies.get("session") == "renewed"
    assert done == ["seen"]


def level_of(x_level: Annotated[int, Header()]) -> int:
    return x_level


def keyed(
    key: Annotated[str | None, Security(APIKeyHeader(name="x-key", auto_error=False))],
    level: Annotated[int, Depends(level_of)],
) -> Iterator[Login]:
    yield Login(identity=f"{key} {level}", tenant="t")


async def test_a_context_has_dependencies_of_its_own(file: Path) -> None:
    """Headers, security schemes and sub-dependencies of a context work; a header that does not fit answers 400."""

    async with serving(file, {"test": {"whoami": whoami}}, context=keyed) as server:
        good = await server.client.get("/rpc/test.whoami", headers={"x-key": "k", "x-level": "2"})
        bad = await server.client.get("/rpc/test.whoami", headers={"x-level": "two"})
        schemes = server.app.openapi()["components"]["securitySchemes"]
    assert good.json() == "k 2"
    assert (bad.status_code, error_of(bad)["code"]) == (400, "BAD_REQUEST")
    assert schemes == {"APIKeyHeader": {"type": "apiKey", "in": "header", "name": "x-key"}}


async def test_callers_do_not_share_results_that_depend_on_them(file: Path) -> None:
    """A handler that takes ctx answers each caller for itself, and each from the cache the second time."""
    async with serving(file, {"test": {"whoami": whoami}}, context=who) as server:
        for name in ("ann", "bob", "ann", "bob"):
            answer = await server.client.get("/rpc/test.whoami", headers={"authorization": f"Bearer {name}@t"})
            assert answer.json() == name
        assert (server.rpc.admin.stats()["misses"], server.rpc.admin.stats()["hits"]) == (2, 2)


async def test_a_public_query_asks_nobody(file: Path) -> None:
    """`public=True` does without the context, in a call and in a stream's set of such queries alone."""

    @define_reactive_function(public=True)
    async def hello() -> str:
        return "hello"

    async with serving(file, {"test": {"hello": hello, "whoami": whoami}}, context=who) as server:
        assert (await server.client.get("/rpc/test.hello")).json() == "hello"
        both = {"queries": [{"path": "test.hello"}, {"path": "test.whoami"}]}
        assert (await server.call("events", both)).status_code == 401


async def test_a_mounted_application_serves_under_its_root_path(file: Path) -> None:
    """Procedures of an application that is mounted below another, with its own unknown paths."""
    rpc = rpc_on(file)
    inner, outer = app_of(rpc), FastAPI()
    outer.mount("/team", inner)
    transport = httpx.ASGITransport(app=outer)
    async with rpc.lifespan(inner), httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/team/rpc/notes.in_room", **ROOM_A)).json() == []
        assert (await client.get("/rpc/notes.in_room", **ROOM_A)).status_code == 404
        assert error_of(await client.get("/team/rpc/nope"))["path"] == "nope"


async def test_a_proxy_that_strips_its_prefix_is_understood(file: Path) -> None:
    """With `root_path`, the path may come with the prefix or without."""
    rpc = rpc_on(file)
    app = app_of(rpc)
    transport = httpx.ASGITransport(app=app, root_path="/behind")
    async with rpc.lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/behind/rpc/notes.in_room", **ROOM_A)).json() == []
        assert (await client.get("/rpc/notes.in_room", **ROOM_A)).json() == []


async def test_other_routes_of_the_application_work(file: Path) -> None:
    """The router takes what stands under its prefix and nothing else."""

    def make_app(rpc: ReactiveRPC) -> FastAPI:
        app = app_of(rpc)
        app.get("/rpcs")(lambda: "mine")
        app.get("/rpc-health")(lambda: "mine")
        return app

    async with serving(file, make_app=make_app) as server:
        for path in ("/rpcs", "/rpc-health"):
            assert (await server.client.get(path)).json() == "mine"
        assert (await server.client.get("/docs")).status_code == 200


async def test_the_router_at_the_root_leaves_other_routes_alone(file: Path) -> None:
    """With prefix="" a route that the application adds later is still found."""

    def make_app(rpc: ReactiveRPC) -> FastAPI:
        app = app_of(rpc)
        app.get("/health")(lambda: "well")
        return app

    async with serving(file, make_app=make_app, prefix="") as server:
        answer = await server.client.get("/health")
    assert answer.json() == "well"


async def test_a_prefix_that_repeats_leaves_other_routes_alone(file: Path) -> None:
    """Under `/rpc/v1/rpc` only what begins so is the router's; `/rpc/health` is the application's."""

    def make_app(rpc: ReactiveRPC) -> FastAPI:
        app = FastAPI(lifespan=rpc.lifespan)
        app.include_router(rpc.router, prefix="/rpc/v1")
        app.get("/rpc/health")(lambda: "well")
        return app

    async with serving(file, make_app=make_app) as server:
        answer = await server.client.get("/rpc/health")
        unknown = await server.client.get("/rpc/v1/rpc/notes.nope")
    assert answer.json() == "well"
    assert error_of(unknown)["path"] == "notes.nope"


async def test_openapi_types_every_procedure(server: Server) -> None:
    """Each procedure is documented with its own input and output, its docstring, and the envelope of its errors."""
    document = server.app.openapi()
    procedures = {path.removeprefix("/rpc/"): item for path, item in document["paths"].items() if "." in path}
    assert set(procedures) == set(server.rpc.functions)
    for path, item in procedures.items():
        [(method, operation)] = item.items()
        assert operation["operationId"] == path
        assert operation["summary"]
        assert operation["responses"]["200"]["content"]["application/json"]["schema"], path
        envelope = operation["responses"]["default"]["content"]["application/json"]["schema"]
        assert envelope == {"$ref": "#/components/schemas/ErrorEnvelope"}
        assert operation["x-reactive-rpc"] == {"kind": "mutation" if path == "notes.add" else "query", "path": path}
        assert method == ("post" if path in {"notes.add", "notes.in_rooms"} else "get")
    [room] = procedures["notes.in_room"]["get"]["parameters"]
    assert (room["name"], room["in"], room["required"], room["schema"]["type"]) == ("room", "query", True, "string")
    body = procedures["notes.add"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/NewNote"}


@define_reactive_function.mutation
async def touch() -> str:
    """Take nothing."""
    return "touched"


async def test_a_mutation_without_input_can_be_tried_out(file: Path) -> None:
    """Its body means nothing and is documented all the same, as a docs page sends no content type of what is not; to
    clients it takes nothing.
    """
    async with serving(file, {"test": {"touch": touch, "one": one}}) as server:
        document = server.app.openapi()
        body = tried_out(document["paths"]["/rpc/test.touch"]["post"])
        answer = await server.client.post("/rpc/test.touch", json=body)
    assert (answer.status_code, answer.json()) == (200, "touched")
    assert {each.path: each.input is None for each in read_document(document).operations} == {
        "test.touch": True,
        "test.one": False,
    }


def tried_out(operation: dict[str, Any]) -> object:
    """Return the body that the docs page fills in: the first example, or what the schema alone would have it make."""
    content = operation["requestBody"]["content"]["application/json"]
    return next(iter(content["examples"].values()))["value"] if "examples" in content else {}


@pytest.mark.parametrize("functions", [{"notes": {"in_room": in_room, "one": one}}, {"test": {"whoami": whoami}}, {}])
async def test_what_the_docs_page_fills_in_for_events_is_a_valid_request(file: Path, functions: Any) -> None:
    """Whatever procedures there are: the example is taken as it stands."""
    async with serving(file, functions, context=Login) as server:
        document = server.app.openapi()
        for path in ("/rpc/events/poll", "/rpc/events/sets", "/rpc/events/ticket", "/rpc/events/ack", "/rpc/events"):
            body = tried_out(document["paths"][path]["post"])
            # What a stream asks for is what a poll asks for, and a poll has an end.
            target = "/rpc/events/poll" if path == "/rpc/events" else path
            answer = await server.client.post(target, json=body)
            assert answer.status_code in (200, 204), (path, body, answer.text)
            if path == "/rpc/events" and functions:
                assert body["queries"]  # type: ignore[index]  # an object


async def test_the_example_of_events_is_a_query_whose_input_is_known(file: Path) -> None:
    """Of several queries, one that can be watched as it stands in the example."""

    @define_reactive_function(examples=[{"id": 3}])
    async def known(db: AsyncSession, input: NoteId) -> int:
        return len((await db.exec(select(Visit))).all())

    async with serving(file, {"notes": {"in_room": in_room, "known": known}}) as server:
        body = tried_out(server.app.openapi()["paths"]["/rpc/events"]["post"])
        assert body == {"queries": [{"path": "notes.known", "input": {"id": 3}}]}
        [connected] = (await server.call("events/poll", body)).json()["events"]
        assert connected["data"]["errors"] == []
