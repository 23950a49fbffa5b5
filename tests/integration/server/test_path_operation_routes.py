"""What a route says of an endpoint with `@reactive` holds, wherever it stands, or is refused at start.

The model is the same application without the decorator: each case is answered alike, on a miss and on a hit.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from sqlalchemy import create_engine
from sqlmodel import Session, select

from reactive_rpc import DefinitionError, ReactiveRPC, reactive

from .endpoints import (
    METADATA,
    AsyncSessionDep,
    CurrentUser,
    Seat,
    SeatPublic,
    SessionDep,
    existing,
    get_current_user,
    get_db,
    ran,
)

pytestmark = pytest.mark.anyio

Decorator = Callable[[Any], Any]


class Wide(BaseModel):
    seat_id: int = Field(alias="seatId")
    note: str | None = None
    count: int = 3
    at: datetime = datetime(2026, 1, 1, tzinfo=UTC)


class Shouting(JSONResponse):
    """A response class of the application's own."""

    media_type = "application/vnd.shout+json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content).upper().encode()


class Named(APIRoute):
    """A class of routes that wraps the handler."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handle = super().get_route_handler()

        async def named(request: Request) -> Response:
            answer = await handle(request)
            answer.headers["x-route"] = self.path
            return answer

        return named


def say(response: Response, tasks: BackgroundTasks) -> None:
    response.headers["x-said"] = "by a dependency"
    response.set_cookie("seen", "yes")
    tasks.add_task(ran.append, "task")


def accept(response: Response, status: int = 202) -> None:
    response.status_code = status


def make_router(mark: Decorator) -> APIRouter:
    """Return every way to say what goes out, each with the decorator that is given."""
    router = APIRouter()

    def wide(session: SessionDep) -> Any:
        seat = session.get_one(Seat, 1)
        return Wide(seatId=seat.id or 0, note=None)

    ways: dict[str, dict[str, Any]] = {
        "plain": {"response_model": Wide},
        "include": {"response_model": Wide, "response_model_include": {"seat_id", "count"}},
        "exclude": {"response_model": Wide, "response_model_exclude": {"at"}},
        "unset": {"response_model": Wide, "response_model_exclude_unset": True},
        "defaults": {"response_model": Wide, "response_model_exclude_defaults": True},
        "none": {"response_model": Wide, "response_model_exclude_none": True},
        "names": {"response_model": Wide, "response_model_by_alias": False},
        "created": {"response_model": Wide, "status_code": 201},
        "empty": {"status_code": 204, "response_model": None},
        "shouting": {"response_model": Wide, "response_class": Shouting},
        "untyped": {},
        "unmodelled": {"response_model": None},
        "said": {"dependencies": [Depends(say)]},
        "accepted": {"dependencies": [Depends(accept)]},
        "insists": {"dependencies": [Depends(accept)], "status_code": 201},
        "documented": {
            "summary": "S", "description": "D", "operation_id": "one", "responses": {418: {"description": "tea"}},
            "deprecated": True, "openapi_extra": {"x-mark": 1}, "tags": ["t"], "name": "named",
        },
    }  # fmt: skip
    for path, options in ways.items():
        router.add_api_route(f"/{path}", mark(wide), methods=["GET"], **options)

    @router.get("/hidden", response_model=list[SeatPublic])
    @mark
    def hidden(session: SessionDep) -> Any:
        """Say all of it, of which the model lets out a part."""
        return [{**seat.model_dump(), "name": seat.name} for seat in session.exec(select(Seat)).all()]

    @router.get("/annotated")
    @mark
    async def annotated(
        session: AsyncSessionDep, names: Annotated[list[str] | None, Query()] = None
    ) -> list[SeatPublic]:
        found = select(Seat).order_by(Seat.id)  # type: ignore[arg-type]  # a column, not an int
        return [SeatPublic.model_validate(seat, from_attributes=True) for seat in (await session.exec(found)).all()]

    @router.get("/invalid", response_model=Wide)
    @mark
    def invalid(session: SessionDep) -> Any:
        return {"seatId": session.get_one(Seat, 1).name}

    @router.get("/own", response_class=HTMLResponse)
    @mark
    def own(session: SessionDep) -> Response:
        name = session.get_one(Seat, 1).name
        return PlainTextResponse(name, 203, {"x-own": "1", "cache-control": "max-age=5", "etag": '"own"'})

    @router.get("/redirect", response_class=RedirectResponse)
    @mark
    def redirect(session: SessionDep) -> Any:
        return f"/to/{session.get_one(Seat, 1).name}"

    @router.get("/html", response_class=HTMLResponse)
    @mark
    def html(session: SessionDep) -> Any:
        return f"<b>{session.get_one(Seat, 1).name}</b>"

    @router.api_route("/head", methods=["GET", "HEAD"])
    @mark
    def head(session: SessionDep) -> Any:
        return session.get_one(Seat, 1).name

    return router


CASES = [route.path for route in make_router(lambda function: function).routes if isinstance(route, APIRoute)]


def _application(mark: Decorator, rpc: ReactiveRPC) -> FastAPI:
    app = FastAPI(lifespan=rpc.lifespan)
    app.include_router(make_router(mark), prefix="/v1")
    app.include_router(make_router(mark), prefix="/v2", default_response_class=Shouting)
    nested = APIRouter(prefix="/deep", route_class=Named, dependencies=[Depends(get_current_user)])
    nested.include_router(make_router(mark), prefix="/er")
    routed = APIRouter(route_class=Named)

    @routed.get("/routed/{id}")
    @mark
    def routed_one(session: SessionDep, user: CurrentUser, id: int) -> str:
        return session.get_one(Seat, id).name

    nested.include_router(routed)
    app.include_router(nested)
    app.mount("/sub", _sub_application(mark, app))
    return app


def _sub_application(mark: Decorator, app: FastAPI) -> FastAPI:
    sub = FastAPI()
    sub.state = app.state
    sub.include_router(make_router(mark))
    return sub


PLACES = ("/v1", "/v2", "/deep/er", "/sub")


def _said(answer: httpx.Response) -> dict[str, Any]:
    """Return all that a client is told, but for what we add: the tag, how to keep the answer, and the cursor."""
    ours = {"etag", "cache-control", "reactive-cursor", "reactive-version"}
    headers = sorted((name, value) for name, value in answer.headers.multi_items() if name not in ours)
    return {"status": answer.status_code, "headers": headers, "body": answer.content}


URLS = [
    *(f"{place}{path}" for place in PLACES for path in CASES),
    "/deep/routed/1", "/deep/routed/x", "/v1/annotated?names=a&names=b", "/v1/nowhere",
]  # fmt: skip
DOCUMENTS = ("/openapi.json", "/sub/openapi.json")


async def test_each_route_is_answered_as_without(file: Path, tmp_path: Path) -> None:
    """Status, headers and body are the same byte for byte, on a miss and on a hit, and the document is, too."""
    expected = {}
    async with existing(tmp_path / "model.db", partial(_application, lambda function: function)) as model:
        for url in URLS:
            expected[url] = [_said(await model.get(url, user)) for user in ("ada", None)]
        documents = [(await model.get(path)).content for path in DOCUMENTS]
    async with existing(file, partial(_application, reactive)) as kept:
        for url in URLS:
            for _ in ("a miss", "a hit"):
                assert [_said(await kept.get(url, user)) for user in ("ada", None)] == expected[url], url
        assert [(await kept.get(path)).content for path in DOCUMENTS] == documents


async def test_an_answer_of_the_endpoint_itself_is_sent_as_it_is(file: Path) -> None:
    """HEAD has no body, an ETag of its own is the ETag, and a model hides what it hides."""
    async with existing(file, partial(_application, reactive)) as app:
        head = await app.client.head("/v1/head")
        assert (head.status_code, head.headers["content-length"]) == (200, "5")
        own = await app.get("/v1/own", **{"if-none-match": '"own"'})
        assert (own.status_code, own.headers.get_list("etag")) == (304, ['"own"'])
        assert own.headers["cache-control"] == "max-age=5"
        assert (await app.get("/v1/hidden")).json() == [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}]


async def test_work_that_a_dependency_leaves_is_done_on_a_hit(file: Path) -> None:
    """It runs for each request, so its tasks do."""
    async with existing(file, partial(_application, reactive)) as app:
        for _ in range(2):
            await app.get("/v1/said")
            assert ran == ["task"]
            ran.clear()


async def test_overrides_hold(file: Path) -> None:
    """`dependency_overrides` gives another user; the session stays the one that is watched."""
    async with existing(file) as app:
        await app.get("/api/v1/seats", "bob")
        app.app.dependency_overrides[get_current_user] = lambda: SeatlessUser(id="x", org="a")
        assert [each["name"] for each in (await app.get("/api/v1/seats", None)).json()] == ["one"]
        assert app.runs == ["read_seats"]
        app.app.dependency_overrides.clear()
        assert (await app.get("/api/v1/seats", None)).status_code == 403


class SeatlessUser(BaseModel):
    """A user as a test makes it: no row, and what it has is compared all the same."""

    id: str
    org: str
    is_superuser: bool = False


def _bare(session: Annotated[Session, Depends(get_db)]) -> list[str]:
    return list(session.exec(select(Seat.name)).all())


def _above(app: FastAPI) -> None:
    reactive(app.get("/above")(_own_function()))


def _post(app: FastAPI) -> None:
    app.post("/post")(reactive(_bare))


def _both(app: FastAPI) -> None:
    app.api_route("/both", methods=["GET", "DELETE"])(reactive(_bare))


def _streamed(app: FastAPI) -> None:
    app.get("/streamed", response_class=StreamingResponse)(reactive(_bare))


def _mounted(app: FastAPI) -> None:
    sub = FastAPI()
    sub.post("/post")(reactive(_bare))
    app.mount("/sub", sub)


def _in_router(app: FastAPI) -> None:
    router = APIRouter(prefix="/inner")
    router.put("/put")(reactive(_bare))
    app.include_router(router, prefix="/outer")


def _own_function() -> Callable[..., Any]:
    def above(session: SessionDep) -> str:
        raise NotImplementedError

    return above


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (_above, r"above \(.*\): @reactive stands above the decorator of its route, so /above is .*: write @reactive "),
        (_post, r"_bare \(.*\): @reactive keeps what it answers to POST /post, and only a GET .*: leave @reactive out"),
        (_both, r"@reactive keeps what it answers to DELETE, GET /both, and only a GET"),
        (_streamed, r"/streamed has response_class=StreamingResponse, which is streamed .*: take one with a body, or "),
        (_mounted, r"POST /post, and only a GET"),
        (_in_router, r"PUT /outer/inner/put, and only a GET"),
    ],
)
async def test_a_route_that_cannot_be_kept_is_refused_at_start(
    file: Path, place: Callable[[FastAPI], None], said: str, anyio_backend: str
) -> None:
    """Wherever it stands; the message names it, and the way out."""
    rpc = ReactiveRPC(f"sqlite+aiosqlite:///{file}", functions={}, metadata=METADATA)
    app = FastAPI(lifespan=rpc.lifespan)
    place(app)
    with pytest.raises(DefinitionError, match=said):
        async with app.router.lifespan_context(app):
            raise AssertionError("it has started")


async def test_an_endpoint_finds_the_one_that_is_open(file: Path, tmp_path: Path, anyio_backend: str) -> None:
    """None is open, or two are: it says so, and the way out; named, the other one keeps the answers."""
    one, other = (
        ReactiveRPC(f"sqlite+aiosqlite:///{path}", functions={}, metadata=METADATA, prefix=prefix)
        for path, prefix in ((file, "/rpc"), (tmp_path / "other.db", "/other"))
    )
    app = FastAPI()
    app.state.engine = None

    app.get("/bare")(reactive(_bare))
    app.get("/named")(reactive(rpc=lambda: other)(_bare))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        with pytest.raises(DefinitionError, match=r"there are 0: give its lifespan, FastAPI\(lifespan=rpc.lifespan\)"):
            await client.get("/bare")
        async with one.lifespan(app):
            with pytest.raises(DefinitionError, match="which is not open: open it by its lifespan"):
                await client.get("/named")
            assert (await client.get("/bare")).json() == []
            async with other.lifespan(app):
                with pytest.raises(DefinitionError, match=r"there are 2: say which, @reactive\(rpc=lambda: rpc\)"):
                    await client.get("/bare")
                with Session(create_engine(f"sqlite:///{tmp_path / 'other.db'}")) as session:
                    session.add(Seat(id=1, org="a", name="of the other"))
                    session.commit()
                assert (await client.get("/named")).json() == ["of the other"]
            assert (await client.get("/bare")).json() == []
        with pytest.raises(DefinitionError, match="there are 0"):
            await client.get("/bare")
