"""FastAPI's private names still mean what `compat/fastapi.py` says."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack
from functools import wraps
from typing import Annotated, Any, get_type_hints

import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, Body, Cookie, Depends, FastAPI, Header, HTTPException, Query, Security
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_dependant, solve_dependencies
from fastapi.routing import iter_route_contexts
from fastapi.security import (
    APIKeyCookie,
    APIKeyHeader,
    APIKeyQuery,
    HTTPBasic,
    HTTPBearer,
    OAuth2PasswordBearer,
    OpenIdConnect,
    SecurityScopes,
)
from pydantic import AliasChoices, BaseModel
from pydantic import Field as PydanticField
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from reactive_rpc.compat import fastapi as compat_fastapi


def test_generators_of_dependencies_are_closed_by_our_stacks() -> None:
    """FastAPI finds both stacks in the scope: one ends with the function, the other with the request."""

    async def main() -> None:
        ended: list[str] = []

        async def of_request() -> Any:
            yield 1
            ended.append("request")

        async def of_function() -> Any:
            yield 2
            ended.append("function")

        solved_for: list[tuple[int, int]] = []

        def context(
            one: int = Depends(of_request, scope="request"), two: int = Depends(of_function, scope="function")
        ) -> None:
            solved_for.append((one, two))

        request = Request({"type": "http", "headers": [], "query_string": b"", "path": "/", "method": "GET"})
        async with AsyncExitStack() as request_stack:
            async with AsyncExitStack() as function_stack:
                compat_fastapi.put_exit_stacks(request, request_stack, function_stack)
                solved = await solve_dependencies(
                    request=request,
                    dependant=Dependant(path="/", dependencies=[get_dependant(path="/", call=context)]),
                    async_exit_stack=request_stack,
                    embed_body_fields=False,
                )
                assert solved.errors == []
                assert solved_for == [(1, 2)]
                assert ended == []
            assert ended == ["function"]
        assert ended == ["function", "request"]

    asyncio.run(main())


def test_fastapi_is_told_of_a_route() -> None:
    """Where this FastAPI has telemetry, its function takes what we give it; where it is off, nobody is told."""
    compat_fastapi.notify_route({"type": "http"}, "/a")
    notified: list[dict[str, Any]] = []
    before = compat_fastapi._notify
    compat_fastapi._notify = lambda **given: notified.append(given)
    try:
        compat_fastapi.notify_route({"fastapi.telemetry": object()}, "/a")
        compat_fastapi.notify_route({}, "/b")
    finally:
        compat_fastapi._notify = before
    assert [given["path"] for given in notified] == ["/a"]


def test_what_a_function_takes_of_a_request_is_told_by_its_parameters() -> None:
    """Headers and cookies by name, also those of security schemes and of models; all else by what it is."""

    class Agent(BaseModel):
        user_agent: str = ""

    def takes(
        *,
        x_user: Annotated[str, Header()],
        agent: Annotated[Agent, Header()],
        theme: Annotated[str, Cookie()],
        request: Request,
        page: Annotated[int, Query()],
        title: Annotated[str, Body()],
        tasks: BackgroundTasks,
    ) -> None: ...

    takes.__annotations__ = get_type_hints(takes, localns={"Agent": Agent}, include_extras=True)
    found = compat_fastapi.request_parameters(takes)
    assert {"x-user", "user-agent"} <= found.headers
    assert found.cookies == {"theme"}
    assert found.others == ["Request", "BackgroundTasks", "Query()", "Body()"]
    assert found.takes_body
    by_scheme = {
        HTTPBearer(): ({"authorization"}, set(), []),
        HTTPBasic(): ({"authorization"}, set(), []),
        OAuth2PasswordBearer(tokenUrl="t"): ({"authorization"}, set(), []),
        OpenIdConnect(openIdConnectUrl="t"): ({"authorization"}, set(), []),
        APIKeyHeader(name="X-Key"): ({"x-key"}, set(), []),
        APIKeyCookie(name="key"): (set(), {"key"}, []),
        APIKeyQuery(name="key"): (set(), set(), ["Query()"]),
    }
    for scheme, expected in by_scheme.items():
        read = compat_fastapi.request_parameters(scheme)  # type: ignore[arg-type]  # schemes are called as FastAPI does
        assert (read.headers, read.cookies, read.others) == expected
        assert read.has_credentials


def test_parameters_are_read_as_fastapi_reads_them() -> None:
    """Values are validated, faults have their places, and the body is embedded where FastAPI embeds it."""

    def takes(
        x_limit: Annotated[int, Header()], theme: Annotated[str, Cookie()], page: Annotated[int, Query()] = 1
    ) -> None: ...

    found = compat_fastapi.request_parameters(takes)
    headers = [(b"x-limit", b"3"), (b"cookie", b"theme=dark")]
    scope = {"type": "http", "headers": headers, "query_string": b"page=2", "path": "/", "method": "GET"}
    assert found.read(Request(scope)) == ({"x_limit": 3, "theme": "dark", "page": 2}, [])
    _, faults = found.read(Request({**scope, "headers": [(b"x-limit", b"many")]}))
    assert [fault["loc"] for fault in faults] == [("header", "x-limit"), ("cookie", "theme")]

    def whole(payload: Annotated[dict[str, int], Body()]) -> None: ...

    def parts(a: Annotated[int, Body()], b: Annotated[int, Body()]) -> None: ...

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b'{"a": 1, "b": 2}', "more_body": False}

    for function, expected in ((whole, {"payload": {"a": 1, "b": 2}}), (parts, {"a": 1, "b": 2})):
        read = compat_fastapi.request_parameters(function)
        assert asyncio.run(read.read_body(Request(scope, receive))) == (expected, [])


def test_a_marked_function_is_awaited_on_the_event_loop() -> None:
    """Not in a thread: it returns something to await, at once."""
    threads = []

    def endpoint() -> Any:
        threads.append(threading.get_ident())
        return _plain()

    compat_fastapi.as_coroutine_function(endpoint)
    app = FastAPI()
    app.get("/")(endpoint)
    assert (_get(app, "/").json(), threads) == ("plain", [threading.get_ident()])


async def _plain() -> str:
    return "plain"


class OtherResponse(JSONResponse): ...


class Name(BaseModel):
    first_name: str = PydanticField(alias="firstName")
    secret: str = "s"


def test_the_route_that_serves_is_the_one_that_stands_there() -> None:
    """With all that its routers add, the same each time; by it, a result is written as FastAPI writes it."""
    found: list[Any] = []
    router = APIRouter()

    @router.get("/a", response_model=Name, response_model_exclude={"secret"}, status_code=203)
    async def a(request: Request) -> Any:
        found.append(compat_fastapi.effective_route(request.scope))
        return {"firstName": "ada", "secret": "x"}

    app = FastAPI()
    app.include_router(router, prefix="/x")
    app.include_router(router, prefix="/y", default_response_class=OtherResponse)
    stands = {each.path: compat_fastapi.effective_route_of(each) for each in iter_route_contexts(app.routes)}
    for url in ("/x/a", "/x/a", "/y/a"):
        answer = _get(app, url)
        assert found[-1] is stands[url]
        if url == "/x/a":
            written = compat_fastapi.response_by(found[-1], {"firstName": "ada", "secret": "x"})
            assert (written.status_code, written.body) == (answer.status_code, answer.content)
    assert [compat_fastapi.response_class_of(stands[url]) for url in ("/x/a", "/y/a")] == [
        JSONResponse, OtherResponse,
    ]  # fmt: skip


def test_a_model_is_documented_as_json_whatever_its_route_answers() -> None:
    """Without `JSONContent`, FastAPI documents it under the media type of the route."""

    class Fault(BaseModel):
        text: str

    class Lines(JSONResponse):
        media_type = "application/jsonl"

    app = FastAPI()
    faults: dict[int | str, dict[str, Any]] = {
        404: {"model": Fault, "content": compat_fastapi.JSONContent()}, 409: {"model": Fault},
    }  # fmt: skip

    @app.get("/", response_class=Lines, responses=faults)
    async def endpoint() -> int:
        return 1

    responses = app.openapi()["paths"]["/"]["get"]["responses"]
    fault = {"schema": {"$ref": "#/components/schemas/Fault"}}
    assert responses["404"]["content"] == {"application/json": fault}
    assert responses["409"]["content"] == {"application/jsonl": fault}
    assert list(responses["200"]["content"]) == ["application/jsonl"]


def test_dependencies_are_solved_once_more() -> None:
    """From within the request, with its overrides; one that refuses raises, and one that does not fit is told."""
    again: list[Any] = []
    refuses: list[int] = []

    def number(response: Response, x_number: Annotated[int, Header()]) -> int:
        if refuses:
            raise HTTPException(403)
        response.headers["x-number"] = str(x_number)
        return x_number

    async def endpoint(request: Request, number: int = Depends(number)) -> None:
        route = compat_fastapi.effective_route(request.scope)
        solved = await compat_fastapi.solve_again(request, route)
        assert solved is not None
        again.append((solved[0]["number"], solved[1].headers["x-number"]))
        request.scope["headers"] = []
        again.append(await compat_fastapi.solve_again(Request(request.scope), route))
        refuses.append(1)
        request.scope["headers"] = [(b"x-number", b"2")]
        with pytest.raises(HTTPException):
            await compat_fastapi.solve_again(Request(request.scope), route)

    app = FastAPI()
    app.get("/")(endpoint)
    assert _get(app, "/", {"x-number": "1"}).status_code == 200
    assert again == [(1, "1"), None]


def _get(app: FastAPI, url: str, headers: dict[str, str] | None = None) -> httpx.Response:
    async def main() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.get(url, headers=headers)

    return asyncio.run(main())


def dependant_of(function: Any) -> Dependant:
    """Return what FastAPI knows of a function."""
    return get_dependant(path="", call=function)


def test_how_fastapi_calls_a_function_is_told() -> None:
    """Also of one that is marked, and of a wrapper around a generator, which FastAPI looks into."""

    async def awaited() -> None: ...

    def threaded() -> None: ...

    def marked() -> None: ...

    def yields() -> Any:
        yield 1

    @wraps(yields)
    async def wrapping() -> None: ...

    compat_fastapi.as_coroutine_function(marked)
    ways = [
        compat_fastapi.way_of_call(dependant_of(each))
        for each in (awaited, threaded, marked, yields, wrapping, HTTPBearer())
    ]
    assert ways == ["awaited", "threaded", "awaited", "generator", "generator", "awaited"]


def test_calls_that_fastapi_makes_once_have_one_key() -> None:
    """A function that takes scopes has one for each set of them, any other has one alone."""

    def plain() -> None: ...

    def scoped(scopes: SecurityScopes) -> None: ...

    def asks(
        one: Annotated[None, Security(plain, scopes=[])],
        two: Annotated[None, Depends(plain)],
        three: Annotated[None, Security(scoped, scopes=["b", "a"])],
        four: Annotated[None, Security(scoped, scopes=["a", "b"])],
        five: Annotated[None, Security(scoped, scopes=["a"])],
    ) -> None: ...

    asks.__annotations__ = get_type_hints(asks, localns={"plain": plain, "scoped": scoped}, include_extras=True)
    one, two, three, four, five = map(compat_fastapi.cache_key_of, dependant_of(asks).dependencies)
    assert one == two
    assert three == four != five
    assert compat_fastapi.oauth_scopes_of(dependant_of(asks).dependencies[2]) == ["b", "a"]


def test_a_parameter_has_the_name_by_which_it_is_read() -> None:
    """None if there may be several."""

    def takes(
        x_user: Annotated[str, Header()],
        named: Annotated[str, Header(alias="X-Name")],
        several: Annotated[str, Query(validation_alias=AliasChoices("one", "two"))],
    ) -> None: ...

    takes.__annotations__ = get_type_hints(takes, include_extras=True)
    found = dependant_of(takes)
    names = [compat_fastapi.request_name_of(field) for field in (*found.header_params, *found.query_params)]
    assert names == ["x-user", "X-Name", None]
    assert compat_fastapi.concurrency_of(found) is None


def test_the_layers_around_the_middlewares_are_known() -> None:
    """All that FastAPI puts there, without a limit of bodies; where there is one, there is a layer more."""
    known = compat_fastapi.own_layers()

    def layers(app: FastAPI) -> set[Any]:
        found: set[Any] = set()
        layer: Any = app.build_middleware_stack()
        while not isinstance(layer, ExceptionMiddleware):
            found.add(type(layer))
            layer = layer.app
        return found

    assert layers(FastAPI()) == known
    limited = getattr(FastAPI(), "max_body_size", ...)
    if limited is not ...:  # an older FastAPI has no such limit
        assert layers(FastAPI(max_body_size=10)) > known
