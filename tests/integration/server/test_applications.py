"""The router inside applications as people write them: each answers calls and streams, and documents them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.middleware.httpsredirect import HTTPSRedirectMiddleware
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from starlette.authentication import AuthenticationBackend
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from reactive_rpc import ReactiveRPC

from .rooms import rpc_on

pytestmark = pytest.mark.anyio


class Made(NamedTuple):
    """An application: where its procedures are, and where they are documented, if they are."""

    app: FastAPI
    base: str = "/rpc"
    document: str | None = "/openapi.json"


CELLS: dict[str, Callable[[ReactiveRPC], Made]] = {}


def cell(make: Callable[[ReactiveRPC], Made]) -> Callable[[ReactiveRPC], Made]:
    CELLS[make.__name__] = make
    return make


def settings_cell(name: str, *, included: dict[str, Any] | None = None, **settings: Any) -> None:
    """Add the application that these settings make, and these options of `include_router`."""

    def make(rpc: ReactiveRPC) -> Made:
        app = FastAPI(lifespan=rpc.lifespan, **settings)
        app.include_router(rpc.router, **(included or {}))
        is_documented = (included or {}).get("include_in_schema", True)
        return Made(app, f"{(included or {}).get('prefix', '')}/rpc", app.openapi_url if is_documented else None)

    CELLS[name] = make


def by_first_tag(route: APIRoute) -> str:
    """Name operations as the full-stack template does."""
    return f"{route.tags[0]}-{route.name}"


def by_anything(route: APIRoute) -> str:
    """Name operations in a way that none of ours can be named."""
    raise LookupError(f"{route.path} has no name")


class Tag(Enum):
    RPC = "procedures"


async def allow() -> None: ...


class PureASGI:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def named(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-served-by", b"pure")]
            await send(message)

        await self.app(dict(scope), receive, named)


class Timing(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["x-served-by"] = "base"
        return response


class ReadsBody(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        await request.body()
        return await call_next(request)


class Nobody(AuthenticationBackend):
    async def authenticate(self, _connection: HTTPConnection) -> None:
        return None


settings_cell("plain")
settings_cell("template's names", generate_unique_id_function=by_first_tag)
settings_cell("names that raise", generate_unique_id_function=by_anything)
settings_cell("names of the include", included={"generate_unique_id_function": by_first_tag})
settings_cell("no slashes redirected", redirect_slashes=False)
settings_cell("root path", root_path="/api")
settings_cell("root path and servers", root_path="/api", servers=[{"url": "/api"}], root_path_in_servers=False)
settings_cell("html by default", default_response_class=HTMLResponse)
settings_cell("text by include", included={"default_response_class": PlainTextResponse})
settings_cell("no document", openapi_url=None)
settings_cell("no docs page", docs_url=None, redoc_url=None)
settings_cell("document elsewhere", openapi_url="/api/v1/openapi.json")
settings_cell("one schema for both", separate_input_output_schemas=False)
settings_cell("not in schema", included={"include_in_schema": False})
settings_cell("debug", debug=True)
settings_cell("dependencies", dependencies=[Depends(allow)], included={"dependencies": [Depends(allow)]})
settings_cell("tags and answers", included={"tags": [Tag.RPC], "responses": {404: {"description": "Gone."}}})
settings_cell("answers above", responses={418: {"description": "Tea."}}, deprecated=True)
settings_cell("prefix", included={"prefix": "/api/v1"})
settings_cell("lax content types", strict_content_type=False)

for name, middleware in {
    "pure": Middleware(PureASGI),
    "base": Middleware(Timing),
    "base that reads bodies": Middleware(ReadsBody),
    "gzip": Middleware(GZipMiddleware, minimum_size=1),
    "cors": Middleware(CORSMiddleware, allow_origins=["*"]),
    "hosts": Middleware(TrustedHostMiddleware, allowed_hosts=["test"]),
    "https": Middleware(HTTPSRedirectMiddleware),
    "authentication": Middleware(AuthenticationMiddleware, backend=Nobody()),
}.items():
    settings_cell(f"middleware: {name}", middleware=[middleware])
settings_cell(
    "middlewares", middleware=[Middleware(Timing), Middleware(GZipMiddleware), Middleware(PureASGI), Middleware(Timing)]
)


@cell
def several_routers(rpc: ReactiveRPC) -> Made:
    app, users, api = FastAPI(lifespan=rpc.lifespan), APIRouter(prefix="/users", tags=["users"]), APIRouter()
    users.get("/{user_id}")(lambda user_id: user_id)
    api.include_router(users)
    api.include_router(rpc.router, prefix="/v1")
    app.include_router(api, prefix="/api")
    return Made(app, "/api/v1/rpc")


@cell
def the_full_stack_template(rpc: ReactiveRPC) -> Made:
    """Its main.py and api/main.py, with the procedures beside its routers."""
    app = FastAPI(
        title="Full stack",
        openapi_url="/api/v1/openapi.json",
        generate_unique_id_function=by_first_tag,
        lifespan=rpc.lifespan,
    )
    app.add_middleware(
        CORSMiddleware,
        allow_origins=["http://localhost:5173"],
        allow_credentials=True,
        allow_methods=["*"],
        allow_headers=["*"],
    )
    api, items = APIRouter(), APIRouter(prefix="/items", tags=["items"])
    items.get("/", name="read_items")(allow)
    api.include_router(items)
    api.include_router(rpc.router)
    app.include_router(api, prefix="/api/v1")
    return Made(app, "/api/v1/rpc", "/api/v1/openapi.json")


@cell
def a_router_that_takes_everything(rpc: ReactiveRPC) -> Made:
    app = FastAPI(lifespan=rpc.lifespan)
    app.include_router(rpc.router)
    app.get("/{path:path}")(lambda path: path)
    return Made(app)


@cell
def a_custom_route_class(rpc: ReactiveRPC) -> Made:
    class Timed(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Any]:
            return super().get_route_handler()

    app, api = FastAPI(lifespan=rpc.lifespan), APIRouter(route_class=Timed)
    app.router.route_class = Timed
    api.get("/mine")(allow)
    api.include_router(rpc.router)
    app.include_router(api)
    return Made(app)


@cell
def static_files_at_the_root(rpc: ReactiveRPC) -> Made:
    app = FastAPI(lifespan=rpc.lifespan)
    app.include_router(rpc.router)
    app.mount("/", StaticFiles(directory=Path(__file__).parent, check_dir=False))
    return Made(app)


@cell
def a_mounted_application(rpc: ReactiveRPC) -> Made:
    outer, inner = FastAPI(lifespan=rpc.lifespan), FastAPI(generate_unique_id_function=by_first_tag)
    inner.include_router(rpc.router)
    outer.mount("/team", inner)
    return Made(outer, "/team/rpc", "/team/openapi.json")


@cell
def a_mounted_application_in_another(rpc: ReactiveRPC) -> Made:
    outer, middle, inner = FastAPI(lifespan=rpc.lifespan), FastAPI(), FastAPI()
    inner.include_router(rpc.router, prefix="/v1")
    middle.mount("/b", inner)
    outer.mount("/a", middle)
    return Made(outer, "/a/b/v1/rpc", "/a/b/openapi.json")


@cell
def a_document_of_its_own(rpc: ReactiveRPC) -> Made:
    app = FastAPI(lifespan=rpc.lifespan)
    app.include_router(rpc.router)

    def openapi() -> dict[str, Any]:
        return get_openapi(title="Mine", version="2", routes=app.routes)

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation tells people to
    return Made(app)


@cell
def handlers_of_its_own(rpc: ReactiveRPC) -> Made:
    async def teapot(_request: Request, _error: Exception) -> Response:
        return JSONResponse({"mine": True}, 418)

    handlers: Any = {Exception: teapot, 404: teapot, 422: teapot}
    app = FastAPI(lifespan=rpc.lifespan, exception_handlers=handlers)
    app.include_router(rpc.router)
    return Made(app)


@cell
def a_lifespan_of_its_own(rpc: ReactiveRPC) -> Made:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with rpc.lifespan(app):
            yield {"mine": True}

    app = FastAPI(lifespan=lifespan)
    app.include_router(rpc.router)
    return Made(app)


@cell
def middleware_by_decorator(rpc: ReactiveRPC) -> Made:
    app = FastAPI(lifespan=rpc.lifespan)
    app.include_router(rpc.router)

    @app.middleware("http")
    async def timed(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.set_cookie("seen", "yes")
        return response

    return Made(app)


@cell
def the_router_of_the_application_itself(rpc: ReactiveRPC) -> Made:
    app = FastAPI(lifespan=rpc.lifespan)
    app.router.include_router(rpc.router)
    return Made(app)


@asynccontextmanager
async def started(app: ASGIApp) -> AsyncIterator[None]:
    """Start and stop an application as a server does, by the messages of ASGI."""
    received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    sent: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
    received.put_nowait({"type": "lifespan.startup"})
    scope: dict[str, Any] = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    running = asyncio.create_task(_lifespan(app, scope, received.get, sent.put))
    message = await sent.get()
    assert message["type"] == "lifespan.startup.complete", message
    yield
    received.put_nowait({"type": "lifespan.shutdown"})
    message = await sent.get()
    assert message["type"] == "lifespan.shutdown.complete", message
    await running


async def _lifespan(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


async def connected(app: ASGIApp, path: str, content: object) -> str:
    """Open a stream, return its first event, and go."""
    first: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    gone = asyncio.Event()
    body = iter([json.dumps(content).encode()])
    streamed = b""

    async def receive() -> MutableMapping[str, Any]:
        for part in body:
            return {"type": "http.request", "body": part, "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal streamed
        if message["type"] == "http.response.start":
            assert message["status"] == 200, message
            headers = dict(message["headers"])
            assert headers[b"content-type"].startswith(b"text/event-stream"), headers
        streamed += message.get("body", b"")
        if b"\n\n" in streamed and not first.done():
            first.set_result(streamed.decode())

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "https",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "client": ("test", 1),
        "server": ("test", 443), "headers": [(b"host", b"test"), (b"content-type", b"application/json")],
    }  # fmt: skip
    serving: Awaitable[None] = asyncio.ensure_future(app(scope, receive, send))
    async with asyncio.timeout(30):
        await asyncio.wait([first, serving], return_when=asyncio.FIRST_COMPLETED)  # type: ignore[type-var]  # futures
        gone.set()
        await serving
    return first.result()


@pytest.mark.filterwarnings("ignore::fastapi.exceptions.FastAPIDeprecationWarning")  # of root_path, which people set
@pytest.mark.parametrize("name", CELLS)
async def test_the_router_serves_in_every_application(tmp_path: Path, name: str) -> None:
    """A query, a mutation, a stream's first event, an unknown path, health, metrics, and the OpenAPI document."""
    rpc = rpc_on(tmp_path / "rooms.db")
    app, base, document = CELLS[name](rpc)
    transport = httpx.ASGITransport(app=app)
    async with started(app), httpx.AsyncClient(transport=transport, base_url="https://test") as client:
        added = await client.post(f"{base}/notes.add", json={"room": "a", "text": "x"})
        assert added.status_code == 200, added.text
        for _ in range(2):
            notes = await client.get(f"{base}/notes.in_room", params={"room": "a"})
            assert [note["text"] for note in notes.json()] == ["x"]
            assert notes.headers["content-type"] == "application/json"
        assert rpc.admin.stats()["hits"] == 1
        watched = {"queries": [{"path": "notes.in_room", "input": {"room": "a"}}]}
        assert "event: connected" in await connected(app, f"{base}/events", watched)
        unknown = await client.post(f"{base}/notes.nope", json={})
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "NOT_FOUND")
        for path in ("health", "health/live", "health/ready", "metrics"):
            assert (await client.get(f"{base}/{path}")).status_code == 200, path
        operations = await documented(client, document or app.openapi_url)
    assert len(operations) == (len(rpc.functions) if document else 0)
    for operation in operations:
        assert "application/json" in operation["responses"]["200"]["content"]


async def documented(client: httpx.AsyncClient, url: str | None) -> list[dict[str, Any]]:
    """Return the operations that are procedures; no two operations may have one name."""
    if url is None:
        return []
    answer = await client.get(url)
    assert answer.status_code == 200, answer.text
    operations = [operation for path in answer.json()["paths"].values() for operation in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    return [operation for operation in operations if "x-reactive-rpc" in operation]
