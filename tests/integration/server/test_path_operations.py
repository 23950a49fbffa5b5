"""Path operations with `@reactive`: answered from the cache as their routes would answer, each caller with its own."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from sqlmodel import Session, select
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint

from benchmarks.path_counters import Counter
from reactive_rpc import Cache, DefinitionError, ReactiveRPC, now, reactive
from reactive_rpc.protocol.headers import STALE, STALE_SECONDS

from . import endpoints
from .endpoints import AsyncSessionDep, CurrentUser, Existing, Seat, SessionDep, User, existing, ran
from .test_outage import gone

pytestmark = pytest.mark.anyio

SEATS = "/api/v1/seats"


@pytest.fixture
async def app(file: Path, anyio_backend: str) -> AsyncIterator[Existing]:
    async with existing(file, application) as opened:
        yield opened


router = APIRouter(prefix="/more")


class SeatTaken(HTTPException):
    """An exception of the application's own, for which it has a handler."""

    def __init__(self, seat: int) -> None:
        super().__init__(409, "taken")
        self.seat = seat


class OddSeatError(Exception):
    """One that has nothing to do with HTTP."""


current: ContextVar[str] = ContextVar("current")


def of_state(request: Request) -> str:
    return str(request.state.user)


def marked(user: CurrentUser, response: Response, x_impersonate: Annotated[str | None, Header()] = None) -> User:
    """Note something on the row that is no column of it."""
    response.headers["x-user-org"] = user.org
    if x_impersonate is not None:
        user.__dict__["restricted_to"] = x_impersonate
    return user


@router.get("/moved/{id}")
@reactive
async def moved(session: AsyncSessionDep, id: int) -> str:
    ran.append("moved")
    if await session.get(Seat, id) is None:
        raise HTTPException(307, headers={"location": "/elsewhere", "Cache-Control": "max-age=1"})
    return "here"


@router.get("/taken/{id}")
@reactive
def taken(session: SessionDep, id: int) -> str:
    ran.append("taken")
    if session.get(Seat, id) is not None:
        raise SeatTaken(id)
    return "free"


@router.get("/failing/{status}")
@reactive
def failing(session: SessionDep, status: int) -> str:
    ran.append("failing")
    session.exec(select(Seat)).all()
    if status:
        raise HTTPException(status, "the printer burns", headers={"retry-after": "7"})
    raise OddSeatError("by accident")


@router.get("/middleware")
@reactive
def of_middleware(session: SessionDep) -> list[str]:
    """Read what a middleware has set for one caller, behind the key's back."""
    return list(session.exec(select(Seat.name).where(Seat.org == current.get())).all())


@router.get("/state")
@reactive
def from_state(session: SessionDep, org: Annotated[str, Depends(of_state)]) -> list[str]:
    ran.append("from_state")
    return list(session.exec(select(Seat.name).where(Seat.org == org)).all())


@router.get("/marked")
@reactive
def of_marked(session: SessionDep, user: Annotated[User, Depends(marked)]) -> list[str]:
    ran.append("of_marked")
    return list(session.exec(select(Seat.name).where(Seat.org == user.org)).all())


@router.get("/changing")
@reactive
def changing(session: SessionDep, user: CurrentUser, names: Annotated[list[str], Depends(lambda: NAMES)]) -> list[str]:
    """Change what it gets."""
    ran.append("changing")
    names.append("more")
    return [*names, *session.exec(select(Seat.name).where(Seat.org == user.org)).all()]


NAMES = ["first"]


@router.get("/writing")
@reactive
def writing(session: SessionDep) -> str:
    session.add(Seat(org="a", name="by a GET"))
    session.commit()
    return "written"


@router.get("/minute")
@reactive(cache=Cache(ttl_seconds=1000))
async def minute(session: AsyncSessionDep) -> str:
    ran.append("minute")
    await session.get(Seat, 1)
    return str(now(every=60))


@router.get("/dependent")
def dependent(seats: Annotated[list[Seat], Depends(endpoints.read_seats)]) -> int:
    return len(seats)


@router.get("/names")
@reactive
async def some_names(session: AsyncSessionDep, skip: int = 0, x_org: Annotated[str, Header()] = "a") -> list[str]:
    return list((await session.exec(select(Seat.name).where(Seat.org == x_org).offset(skip))).all())


@router.get("/by-token")
@reactive(cache=Cache(freshness="token"))
async def by_token(session: AsyncSessionDep) -> list[str]:
    return list((await session.exec(select(Seat.name))).all())


@router.get("/outage")
@reactive(cache=Cache(stale_if_error_seconds=600))
async def outage(session: AsyncSessionDep) -> list[str]:
    return list((await session.exec(select(Seat.name))).all())


async def name_user(request: Request, call_next: RequestResponseEndpoint) -> Response:
    current.set(request.headers.get("x-org", ""))
    request.state.user = request.headers.get("x-org", "")
    answer = await call_next(request)
    answer.headers["x-middleware"] = "ran"
    return answer


def application(rpc: ReactiveRPC) -> FastAPI:
    app = endpoints.application(rpc)
    app.include_router(router)
    app.add_middleware(BaseHTTPMiddleware, dispatch=name_user)

    @app.exception_handler(StarletteHTTPException)
    async def handle(request: Request, exc: StarletteHTTPException) -> Response:
        return JSONResponse({"said": exc.detail}, exc.status_code, {**(exc.headers or {}), "x-handler": "own"})

    @app.exception_handler(SeatTaken)
    async def handle_taken(request: Request, exc: SeatTaken) -> Response:
        return JSONResponse({"taken": exc.seat}, 409)

    @app.exception_handler(OddSeatError)
    async def handle_odd(request: Request, exc: OddSeatError) -> Response:
        return JSONResponse({"odd": str(exc)}, 500)

    return app


async def test_a_result_is_kept_until_the_application_writes(app: Existing) -> None:
    """Miss, hit, 304; a write by the application's own engine has it computed again, for a thread and a coroutine."""
    first = await app.get(SEATS)
    assert (first.status_code, first.json(), app.runs) == (200, [{"id": 1, "name": "one"}], ["read_seats"])
    assert first.headers["cache-control"] == "private, no-cache"
    again = await app.get(f"{SEATS}?skip=0")
    assert (again.content, again.headers["etag"], app.runs) == (first.content, first.headers["etag"], [])
    held = await app.get(SEATS, **{"if-none-match": first.headers["etag"]})
    assert (held.status_code, held.content, "content-type" in held.headers, app.runs) == (304, b"", False, [])
    assert held.headers["etag"] == first.headers["etag"]
    await app.get(f"{SEATS}/1")
    await app.client.post(SEATS, params={"name": "new"}, headers={"x-user": "ada"})
    assert ([each["name"] for each in (await app.get(SEATS)).json()], app.runs) == (["one", "new"], ["read_seats"])
    changed = await app.get(SEATS, **{"if-none-match": first.headers["etag"]})
    assert changed.status_code == 200
    assert ((await app.get(f"{SEATS}/1")).json()["name"], app.runs) == ("one", [])
    app.write(Seat(id=1, org="a", name="renamed"))
    assert ((await app.get(f"{SEATS}/1")).json()["name"], app.runs) == ("renamed", ["read_seat"])
    assert ((await app.get(f"{SEATS}/1")).json()["name"], app.runs) == ("renamed", [])


async def test_middlewares_and_dependencies_run_for_each_request(app: Existing) -> None:
    """A hit goes the way of every request: what they add is there, and what they refuse is refused."""
    for runs in (["of_marked"], []):
        answer = await app.get("/more/marked")
        assert (answer.headers["x-user-org"], answer.headers["x-middleware"], app.runs) == ("a", "ran", runs)
    app.delete(User, "ada")
    refused = await app.get("/more/marked")
    assert (refused.status_code, refused.headers["x-why"], app.runs) == (403, "no user", [])


async def test_a_row_counts_by_its_columns(app: Existing) -> None:
    """Another value of a column is another key; two callers with equal rows but for the primary key are two."""
    await app.get(SEATS)
    assert (len((await app.get(SEATS, "al")).json()), app.runs) == (1, ["read_seats"])
    assert ([each["name"] for each in (await app.get(SEATS, "bob")).json()], app.runs) == (["two"], ["read_seats"])
    with closing(sqlite3.connect(str(app.engine.url.database))) as connection, connection:
        connection.execute("UPDATE user SET is_superuser = 1 WHERE id = 'ada'")
    assert (len((await app.get(SEATS)).json()), app.runs) == (2, ["read_seats"])
    app.write(User(id="ada", org="a"))
    assert (len((await app.get(SEATS)).json()), app.runs) == (1, [])


async def test_a_refusal_is_kept_like_a_result(app: Existing) -> None:
    """404 and 403 are answered by the application's handlers each time, and computed again when a row appears."""
    for runs in (["read_seat"], []):
        missing = await app.get(f"{SEATS}/7")
        assert (missing.status_code, missing.json(), app.runs) == (404, {"said": "no such seat"}, runs)
        assert (missing.headers["x-handler"], missing.headers["cache-control"]) == ("own", "no-store")
    for runs in (["read_seat"], []):
        other = await app.get(f"{SEATS}/2")
        assert (other.status_code, other.json(), app.runs) == (403, {"said": {"reason": "another organization"}}, runs)
        assert other.headers["x-why"] == "rights"
    app.write(Seat(id=7, org="a", name="seven"))
    assert ((await app.get(f"{SEATS}/7")).json(), app.runs) == ({"id": 7, "name": "seven"}, ["read_seat"])


async def test_a_refusal_is_of_its_own_class_and_keeps_its_headers(app: Existing) -> None:
    """The handler of the application's own exception finds its attributes on a hit; a redirect is one, too."""
    for runs in (["taken"], []):
        assert ((await app.get("/more/taken/1")).json(), app.runs) == ({"taken": 1}, runs)
    for runs in (["moved"], []):
        answer = await app.get("/more/moved/9")
        assert (answer.status_code, answer.headers["location"], app.runs) == (307, "/elsewhere", runs)
        assert answer.headers.get_list("cache-control") == ["max-age=1"]


@pytest.mark.parametrize(
    ("status", "said"), [(503, "the printer burns"), (500, "the printer burns"), (0, "by accident")]
)
async def test_a_failure_is_not_kept(app: Existing, status: int, said: str) -> None:
    """It is answered by the application's own handlers, by everyone who waits for it, and tried again."""
    answers = await asyncio.gather(*(app.client.get(f"/more/failing/{status}") for _ in range(3)))
    assert {answer.status_code for answer in answers} == {status or 500}
    assert all(said in answer.text for answer in answers)
    if status:
        assert {(answer.headers["retry-after"], answer.headers["x-handler"]) for answer in answers} == {("7", "own")}
    for _ in range(2):
        await app.get(f"/more/failing/{status}")
        assert app.runs == ["failing"]


async def test_what_a_middleware_sets_is_not_seen_by_the_endpoint(app: Existing) -> None:
    """A ContextVar is no part of the key, so reading one fails, on a miss too: nobody is served another's rows."""
    for org in ("a", "b", "a"):
        answer = await app.get("/more/middleware", **{"x-org": org})
        assert (answer.status_code, "one" in answer.text) == (500, False)


async def test_request_state_counts_as_it_reaches_the_endpoint(app: Existing) -> None:
    """A dependency may read it, and its value then is an argument."""
    for org, names, runs in (("a", ["one"], ["from_state"]), ("b", ["two"], ["from_state"]), ("a", ["one"], [])):
        assert ((await app.get("/more/state", **{"x-org": org})).json(), app.runs) == (names, runs)


async def test_a_row_with_something_beside_its_columns_is_refused(app: Existing) -> None:
    """A copy would lack what the dependency noted: it fails, and says which attribute; without it all is well."""
    with pytest.raises(Exception, match="a User with the attribute 'restricted_to'"):
        await _raising(app, "/more/marked", {"x-user": "ada", "x-impersonate": "x"})
    assert (await app.get("/more/marked")).json() == ["one"]


async def test_an_endpoint_may_change_what_it_gets(app: Existing) -> None:
    """It gets copies: neither the next call, nor whoever made them, sees it."""
    for runs in (["changing"], []):
        answer = await app.get("/more/changing")
        assert (answer.json(), app.runs) == (["first", "more", "one"], runs)
    assert NAMES == ["first"]


async def test_an_endpoint_cannot_write(app: Existing) -> None:
    """A GET whose result is kept would write once in a while: it fails, and nothing is written."""
    with pytest.raises(Exception, match="may not write"):
        await _raising(app, "/more/writing", {})
    with Session(app.engine) as session:
        assert len(session.exec(select(Seat)).all()) == 2


async def test_it_is_a_query_in_all_else(app: Existing) -> None:
    """`now` is a dependency, and the time to live is kept to."""
    for runs in (["minute"], []):
        await app.get("/more/minute")
        assert app.runs == runs


async def test_two_that_ask_at_once_have_it_run_once(app: Existing) -> None:
    """As with procedures: they share the computation."""
    ran.clear()
    answers = await asyncio.gather(*(app.client.get(SEATS, headers={"x-user": "ada"}) for _ in range(5)))
    assert (len({answer.content for answer in answers}), ran) == (1, ["read_seats"])


async def test_it_is_the_same_on_postgresql(file: Path, postgresql_url: str, anyio_backend: str) -> None:
    """By sync and async sessions: kept, until a row changes that was read, for each user."""
    async with existing(file, url=postgresql_url) as app:
        for url, name in ((SEATS, "read_seats"), (f"{SEATS}/1", "read_seat")):
            first = await app.get(url)
            assert (first.status_code, app.runs) == (200, [name])
            await app.get(url)
            assert app.runs == []
            await app.get(url, "al")
            assert app.runs == [name]
            app.write(Seat(id=1, org="a", name=f"of {name}"))
            again = await app.get(url)
            assert (f"of {name}" in again.text, app.runs) == (True, [name])
        missing = [(await app.get(f"{SEATS}/7")).status_code, (await app.get(f"{SEATS}/7")).status_code]
        assert (missing, app.runs) == ([404, 404], [])


async def test_an_outage_is_bridged_if_the_endpoint_says_so(file: Path, anyio_backend: str) -> None:
    """Marked as stale; an endpoint that does not say so is answered 503 by the application's own handler."""
    async with existing(file, application) as app:
        for url in ("/more/outage", "/more/names"):
            await app.get(url)
        with gone(file):
            bridged, refused = [await app.get(url) for url in ("/more/outage", "/more/names")]
        assert (bridged.json(), bridged.headers[STALE], STALE_SECONDS in bridged.headers) == (
            ["one", "two"],
            "true",
            True,
        )
        assert (refused.status_code, refused.headers["retry-after"], refused.headers["x-handler"]) == (503, "1", "own")
        assert STALE not in (await app.get("/more/outage")).headers


async def test_a_hit_costs_one_look_at_the_log(file: Path, anyio_backend: str) -> None:
    """Beside FastAPI's own work: no session of ours, no task, no thread, and fewer calls than a procedure's hit."""
    counter = Counter()
    with counter.following_sqlite(), counter.following_calls():
        async with existing(file, application, settings={"poll_interval_seconds": 3600}) as app:
            for url in ("/more/names?skip=1", "/more/by-token") * 3:
                await app.get(url)
            with counter.counting() as passed:
                await app.get("/more/names?skip=1")
            with counter.counting() as passed_by_token:
                await app.get("/more/by-token")
    assert (passed.statements, passed.round_trips) == (["PRAGMA data_version"], 0)
    assert passed.functions <= 74  # a path of the application's own is none of a mount, either
    assert passed_by_token.statements == []


async def test_a_function_is_called_as_it_is(app: Existing) -> None:
    """By whoever imports it: a test, or another endpoint."""
    with Session(app.engine) as session:
        assert endpoints.read_seats(session, session.get_one(User, "bob"))[0].name == "two"
        assert [seat.name for seat in endpoints.read_seats(session=session, user=User(id="x", org="a"))] == ["one"]


async def test_an_endpoint_is_no_dependency(app: Existing) -> None:
    """FastAPI would give its response where its rows are expected: it is said, and the way out."""
    with pytest.raises(DefinitionError, match=r"read_seats .*: /more/dependent depends on it.* not decorated"):
        await _raising(app, "/more/dependent", {"x-user": "ada"})


async def _raising(app: Existing, url: str, headers: dict[str, str]) -> httpx.Response:
    """GET a URL, and have raised here whatever escapes the application."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app.app), base_url="http://test") as client:
        return await client.get(url, headers=headers)
