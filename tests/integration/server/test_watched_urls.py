"""Streams that watch URLs of the application: whoever may GET one may watch it, for as long as that is so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextvars import ContextVar
from itertools import count
from pathlib import Path
from typing import Annotated, Any, cast

import pytest
from fastapi import APIRouter, BackgroundTasks, Cookie, Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import create_engine
from sqlmodel import Session, select
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.types import ASGIApp, Receive, Scope, Send

from reactive_rpc import ReactiveRPC, define_reactive_function, reactive
from tests.support.waiting import until

from . import endpoints
from .endpoints import METADATA, Existing, Seat, SessionDep, User, existing, ran
from .in_process import InProcessStream

pytestmark = pytest.mark.anyio

SEATS = "/api/v1/seats"
QUICK = {"recheck_seconds": 0.05}
NEVER = {"recheck_seconds": 0.0}
"""Only what is noticed by itself has a stream asked again."""

revoked: set[str] = set()
"""Users whom the application lets in no more, as a set in its memory says."""

asked: list[str] = []
"""The URLs that the application was asked for, in order."""


def not_revoked(x_user: Annotated[str, Header()]) -> str:
    if x_user in revoked:
        raise HTTPException(403, "revoked")
    return x_user


def by_cookie(session: Annotated[str, Cookie()]) -> str:
    if session != "good":
        raise HTTPException(401, "log in")
    return session


def counted(tasks: BackgroundTasks, request: Request) -> None:
    tasks.add_task(ran.append, "task")
    if request.headers.get("x-busy") in BUSY:
        raise HTTPException(BUSY[request.headers["x-busy"]], "later")


BUSY: dict[str, int] = {}

router = APIRouter(prefix="/more")


@router.get("/guarded", dependencies=[Depends(not_revoked)])
@reactive
def guarded(session: SessionDep) -> list[str]:
    ran.append("guarded")
    return list(session.exec(select(Seat.name)).all())


@router.get("/cookie")
@reactive
def with_cookie(session: SessionDep, cookie: Annotated[str, Depends(by_cookie)]) -> list[str]:
    return list(session.exec(select(Seat.name)).all())


@router.get("/busy", dependencies=[Depends(counted)])
@reactive
def busy(session: SessionDep) -> list[str]:
    return list(session.exec(select(Seat.name)).all())


@router.get("/moved")
@reactive
def moved(session: SessionDep) -> str:
    raise HTTPException(307, headers={"location": session.get_one(Seat, 1).name})


valid: set[str] = set()
"""The tokens that the application knows."""

current: ContextVar[str | None] = ContextVar("current", default=None)


def by_middleware(request: Request) -> str:
    """Believe what a middleware has left, as a ContextVar and in `request.state`."""
    user = current.get() or getattr(request.state, "user", None)
    if user is None:
        raise HTTPException(401, "log in")
    return str(user)


@router.get("/believing")
@reactive
def believing(session: SessionDep, user: Annotated[str, Depends(by_middleware)]) -> list[str]:
    return [user, *session.exec(select(Seat.name)).all()]


def of_lifespan(request: Request) -> str:
    return str(request.state.greeting)


@router.get("/greeted")
@reactive
def greeted(session: SessionDep, greeting: Annotated[str, Depends(of_lifespan)]) -> list[str]:
    return [greeting, *session.exec(select(Seat.name)).all()]


def writing(session: SessionDep, x_user: Annotated[str, Header()]) -> str:
    """Note when the user was seen, as many applications do."""
    if session.get(User, x_user) is None:
        raise HTTPException(403, "who are you?")
    session.merge(User(id="seen", org=f"{x_user} {next(TIMES)}"))
    session.commit()
    return x_user


def hiding(session: SessionDep, x_user: Annotated[str, Header()]) -> str:
    """See more than the request, so that it fails where it is solved for a stream by itself."""
    if session.get(User, x_user) is None or PLACE.get() != "request":
        raise HTTPException(403, "who are you?")
    return x_user


TIMES = count()
PLACE: ContextVar[str] = ContextVar("place")


def vanishing(request: Request, session: SessionDep, x_user: Annotated[str, Header()]) -> str:
    """Lose the user in the very moment in which it was found."""
    if session.get(User, x_user) is None:
        raise HTTPException(403, "who are you?")
    with Session(request.app.state.engine) as other:
        other.delete(other.get_one(User, x_user))
        other.commit()
    return x_user


@router.get("/vanishing")
@reactive
def of_vanishing(session: SessionDep, user: Annotated[str, Depends(vanishing)]) -> list[str]:
    return list(session.exec(select(Seat.name)).all())


@router.get("/noted")
@reactive
def noted(session: SessionDep, user: Annotated[str, Depends(writing)]) -> list[str]:
    return list(session.exec(select(Seat.name)).all())


@router.get("/hiding")
@reactive
def of_hiding(session: SessionDep, user: Annotated[str, Depends(hiding)]) -> list[str]:
    return list(session.exec(select(Seat.name)).all())


@router.get("/failing")
@reactive
def failing(session: SessionDep) -> str:
    raise ValueError("by accident")


@router.get("/plain")
def plain() -> str:
    return "not kept"


@router.get("/endless")
async def endless() -> StreamingResponse:
    async def lines() -> AsyncIterator[bytes]:
        while True:
            yield b"."
            await asyncio.sleep(0)

    return StreamingResponse(lines())


@router.get("/files/{path:path}")
@reactive
def file_of(session: SessionDep, path: str) -> str:
    return path + session.get_one(Seat, 1).name


@define_reactive_function
def names(db: Session) -> list[str]:
    return list(db.exec(select(Seat.name)).all())


def application(rpc: ReactiveRPC) -> FastAPI:
    app = endpoints.application(rpc)
    app.include_router(router)
    secret = FastAPI()
    secret.state = app.state
    secret.include_router(router)
    app.mount("/secret", secret)

    async def gate(request: Request, call_next: RequestResponseEndpoint) -> Response:
        asked.append(str(request.url).removeprefix("http://test"))
        if request.url.path.startswith("/secret") and request.headers.get("x-gate") != "open":
            return Response("closed", 403)
        answer = await call_next(request)
        return Response("too late", 403) if request.headers.get("x-gate") == "late" and is_endpoint(request) else answer

    def is_endpoint(request: Request) -> bool:
        return not request.url.path.startswith("/rpc")

    app.add_middleware(BaseHTTPMiddleware, dispatch=gate)
    app.add_middleware(Naming)
    return app


class Naming:
    """A middleware that leaves who calls, if the token is good."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = dict(scope.get("headers", ())).get(b"x-token", b"").decode()
        PLACE.set("request")
        if token in valid:
            current.set(token)
            scope.setdefault("state", {})["user"] = token
        await self.app(scope, receive, send)


class Watching(InProcessStream[None]):
    """A stream of an application's that watches URLs, and what a test asks of it."""

    def __init__(self, app: Existing, *urls: str, user: str | None = "ada", **headers: str) -> None:
        named = {} if user is None else {"x-user": user}
        queries = [{"path": url} for url in urls]
        super().__init__(app.app, queries, {**named, **headers}, note=lambda: None)

    @property
    def connected(self) -> dict[str, Any]:
        """The first event."""
        assert self.names[0] == "connected", self.body
        said: dict[str, Any] = json.loads(self.sent[0][1].data)
        return said

    @property
    def keys(self) -> list[str | None]:
        """How events name each URL; None for one that is not watched."""
        keys: list[str | None] = self.connected["queries"]
        return keys

    @property
    def refusals(self) -> dict[str, tuple[str, str]]:
        """`{url: (code, message)}`."""
        return {each["path"]: (each["error"]["code"], each["error"]["message"]) for each in self.connected["errors"]}

    def invalidated(self) -> list[list[str]]:
        """Return the keys that each invalidation has named."""
        return [
            [each["key"] for each in json.loads(event.data)["affected"]]
            for _, event in self.sent
            if event.event == "invalidation"
        ]


@pytest.fixture
async def app(file: Path, anyio_backend: str) -> AsyncIterator[Existing]:
    revoked.clear()
    BUSY.clear()
    async with existing(file, application, functions={"seats": {"names": names}}, settings=NEVER) as opened:
        yield opened


async def test_a_url_is_watched_until_it_is_answered_otherwise(app: Existing) -> None:
    """Two spellings are one call; a write that the answer does not rest on says nothing; nothing runs to subscribe."""
    await app.get(SEATS)
    ran.clear()
    async with Watching(app, SEATS, f"{SEATS}?skip=0", f"{SEATS}/9", f"{SEATS}?skip=1") as stream:
        await until(lambda: stream.sent)
        one, same, missing, skipped = stream.keys
        assert one == same
        assert len({one, missing, skipped}) == 3
        assert (stream.refusals, "read_seats" in ran[:1]) == ({}, False)
        app.write(Seat(id=5, org="b", name="of others"))
        app.write(Seat(id=9, org="a", name="nine"))
        await until(lambda: {key for keys in stream.invalidated() for key in keys} >= {one, missing, skipped})
        assert (await app.get(f"{SEATS}/9")).json()["name"] == "nine"
        event = next(event for _, event in stream.sent if event.event == "invalidation")
        assert {each["path"] for each in json.loads(event.data)["affected"]} <= {
            "GET /api/v1/seats",
            "GET /api/v1/seats/{id}",
        }
        assert "skip" not in event.data
    async with Watching(app, SEATS, user="bob") as stream:
        await until(lambda: stream.sent)
        assert stream.keys != [one]


async def test_whoever_comes_back_is_told_of_what_was_missed(app: Existing) -> None:
    """By the cursor, or by the ETag of the answer that it holds, which is that of a GET."""
    etag = (await app.get(SEATS)).headers["etag"]
    async with Watching(app, SEATS) as stream:
        await until(lambda: stream.sent)
        cursor = stream.connected["cursor"]
    for written, is_stale in ((User(id="new", org="c"), False), (Seat(id=9, org="a", name="nine"), True)):
        app.write(written)
        for query, resumed in (({"path": SEATS}, {"cursor": cursor}), ({"path": SEATS, "etag": etag}, {})):
            said = await _connected(app, query, **resumed)
            assert [each["key"] for each in said["stale"]] == (said["queries"] if is_stale else []), said


async def _connected(app: Existing, query: dict[str, Any], **resumed: str) -> dict[str, Any]:
    """Open a stream of ada's that resumes, and return its first event."""
    async with InProcessStream(app.app, [query], {"x-user": "ada"}, note=lambda: None, **resumed) as again:
        await until(lambda: again.sent)
        said: dict[str, Any] = json.loads(again.sent[0][1].data)
        return said


async def test_a_redirect_elsewhere_is_another_answer(app: Existing) -> None:
    """All that a client is told counts, headers too."""
    async with Watching(app, "/more/moved") as stream:
        await until(lambda: stream.sent)
        app.write(Seat(id=1, org="a", name="elsewhere"))
        await until(lambda: stream.invalidated() == [stream.keys])


async def test_procedures_and_urls_share_a_stream(app: Existing) -> None:
    """Each is named as the client asked for it, in its order."""
    async with Watching(app, "seats.names", SEATS, "seats.nothing") as stream:
        await until(lambda: stream.sent)
        assert [key is None for key in stream.keys] == [False, False, True]
        app.write(Seat(id=9, org="a", name="nine"))
        await until(lambda: {key for keys in stream.invalidated() for key in keys} == {*stream.keys[:2]})


REFUSED: dict[str, tuple[str, str]] = {
    "/more/plain": ("PRECONDITION_FAILED", "answered by something else than an endpoint with @reactive"),
    "/more/endless": ("PRECONDITION_FAILED", "answered by something else"),
    "/docs": ("PRECONDITION_FAILED", "answered by something else"),
    f"{SEATS}/": ("PRECONDITION_FAILED", f"it is answered by a redirect: watch http://test{SEATS}"),
    "/nowhere": ("NOT_FOUND", "Not Found"),
    f"{SEATS}?skip=x": ("UNPROCESSABLE_CONTENT", "Unprocessable"),
    "/more/cookie": ("UNPROCESSABLE_CONTENT", "Unprocessable"),
    "/secret/more/guarded": ("FORBIDDEN", "Forbidden"),
    "/rpc/seats.names": ("PRECONDITION_FAILED", "answered by something else"),
    "/rpc/events?set=0": ("NOT_FOUND", ""),
    "/rpc/health": ("PRECONDITION_FAILED", "answered by something else"),
    "//evil.example/api/v1/seats": ("BAD_REQUEST", "names another host"),
    "/\\evil.example/api/v1/seats": ("BAD_REQUEST", "percent-encode"),
    "/%5cevil.example": ("BAD_REQUEST", "clients resolve"),
    "/api/../more/guarded": ("BAD_REQUEST", "clients resolve"),
    "/api/./v1/seats": ("BAD_REQUEST", "clients resolve"),
    "/api/%2e%2E/more/guarded": ("BAD_REQUEST", "clients resolve"),
    "/more/files/..%2fguarded": ("BAD_REQUEST", "clients resolve"),
    "/more/files/a%00b": ("BAD_REQUEST", "characters that no path has"),
    "/more/files/a%0d%0ab": ("BAD_REQUEST", "characters that no path has"),
    "/more/files/a%ffb": ("BAD_REQUEST", "characters that no path has"),
    "/more/files/a%zzb": ("BAD_REQUEST", "percent-encode"),
    "/more/files/a b": ("BAD_REQUEST", "percent-encode"),
    "/more/files/ä": ("BAD_REQUEST", "percent-encode"),
    f"{SEATS}#top": ("BAD_REQUEST", "leave out what follows a #"),
    f"{SEATS}?skip=0\r\nx-user: bob": ("BAD_REQUEST", "percent-encode"),
    "http://test/api/v1/seats": ("NOT_FOUND", ""),
}


async def test_what_cannot_be_watched_is_refused(app: Existing) -> None:
    """Each by itself, the others are none the worse for it; and nothing is left behind."""
    async with Watching(app, *REFUSED, f"/{'x' * 9000}", SEATS) as stream:
        await until(lambda: stream.sent)
        assert [key for key in stream.keys if key is not None] == stream.keys[-1:]
        for url, (code, said) in REFUSED.items():
            assert stream.refusals[url][0] == code, (url, stream.refusals[url])
            assert said in stream.refusals[url][1], (url, stream.refusals[url])
        assert any("longer than 8000 characters" in message for _, message in stream.refusals.values())
        assert app.rpc.admin.stats()["streams"] == 1
    assert app.rpc.admin.stats()["watched_queries"] == 0


async def test_a_stream_is_no_url_to_watch(app: Existing) -> None:
    """One that would ask for a URL itself is refused, and none is left open."""
    stored = await app.client.post("/rpc/events/sets", json={"queries": [{"path": SEATS}]}, headers={"x-user": "ada"})
    url = f"/rpc/events?set={stored.json()['set']}"
    asked.clear()
    async with Watching(app, url) as stream:
        await until(lambda: stream.sent)
        assert url in stream.refusals
        assert app.rpc.admin.stats()["streams"] == 1
    assert asked == ["/rpc/events", url]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"path": SEATS, "input": {"skip": 0}}, "BAD_REQUEST"),
        ({"path": "/more/failing"}, "INTERNAL_SERVER_ERROR"),
    ],
)
async def test_what_fails_is_said(app: Existing, query: dict[str, Any], code: str) -> None:
    """An input beside the URL, or an endpoint that fails: without a word of why that is no client's business."""
    async with InProcessStream(app.app, [query], {"x-user": "ada"}, note=lambda: None) as stream:
        await until(lambda: stream.sent)
        (refused,) = json.loads(stream.sent[0][1].data)["errors"]
        assert (refused["error"]["code"], "by accident" in str(refused)) == (code, False)


async def test_only_a_get_is_watched(app: Existing) -> None:
    """A URL that takes a POST alone is refused, and nothing is posted."""

    @app.app.post("/only-post")
    def only_post() -> str:
        raise AssertionError("it was posted")

    async with Watching(app, "/only-post") as stream:
        await until(lambda: stream.sent)
        assert stream.refusals["/only-post"][0] == "METHOD_NOT_SUPPORTED"


async def test_escapes_that_a_path_may_have_are_understood(app: Existing) -> None:
    """As a server decodes them: the call is that of the same GET."""
    urls = ("/more/files/a%20b%C3%A4.txt", "/more/files/%61%20b%c3%a4.txt", "/more/files/...", "/secret/more/files/x")
    async with Watching(app, *urls, **{"x-gate": "open"}) as stream:
        await until(lambda: stream.sent)
        assert stream.refusals == {}
        assert stream.keys[0] == stream.keys[1]


async def test_the_application_is_asked_with_the_credentials_of_the_stream(app: Existing) -> None:
    """Headers and cookies; whoever may not GET may not watch, and is told what a GET is."""
    async with Watching(app, SEATS, "/more/cookie", user=None, cookie="session=good") as stream:
        await until(lambda: stream.sent)
        assert stream.refusals == {SEATS: ("FORBIDDEN", "who are you?")}
    async with Watching(app, SEATS, "/more/cookie", cookie="session=bad") as stream:
        await until(lambda: stream.sent)
        assert stream.refusals == {"/more/cookie": ("UNAUTHORIZED", "log in")}
    async with Watching(app, f"{SEATS}/2") as stream:  # refused by the endpoint itself: an outcome like any other
        await until(lambda: stream.sent)
        app.write(User(id="ada", org="a", is_superuser=True))
        await until(stream.task.done)


async def test_a_refusal_after_the_endpoint_is_one_too(app: Existing) -> None:
    """A middleware may look at the answer first."""
    assert (await app.get(SEATS, **{"x-gate": "late"})).status_code == 403
    async with Watching(app, SEATS, **{"x-gate": "late"}) as stream:
        await until(lambda: stream.sent)
        assert stream.refusals == {SEATS: ("FORBIDDEN", "Forbidden")}


async def test_a_right_that_is_lost_ends_the_watch_before_anything_is_sent(app: Existing) -> None:
    """The commit that takes it away has the stream asked again at once; what it wrote besides is not told."""
    async with Watching(app, SEATS) as stream, Watching(app, SEATS, user="al") as other:
        await until(lambda: stream.sent and other.sent)
        with Session(app.engine) as session:
            session.delete(session.get_one(User, "ada"))
            session.add(Seat(id=9, org="a", name="nine"))
            session.commit()
        await until(stream.task.done)
        assert stream.names == ["connected"]
        await until(lambda: other.invalidated() == [other.keys])
        assert not other.task.done()
    async with Watching(app, SEATS) as stream:
        await until(lambda: stream.sent)
        assert stream.refusals == {SEATS: ("FORBIDDEN", "who are you?")}


async def test_a_right_that_is_lost_on_the_way_in_is_asked_for_again(app: Existing) -> None:
    """FastAPI let the caller in, and a moment later it is watched: in between it was lost."""
    async with Watching(app, "/more/vanishing") as stream:
        await until(lambda: stream.sent)
        assert stream.refusals == {"/more/vanishing": ("FORBIDDEN", "who are you?")}


async def test_a_right_that_nobody_can_watch_is_asked_for_again_and_again(file: Path, anyio_backend: str) -> None:
    """It is lost in the application's memory: the next recheck ends the stream."""
    revoked.clear()
    async with existing(file, application, settings=QUICK) as app, Watching(app, "/more/guarded") as stream:
        await until(lambda: stream.sent)
        await until(lambda: app.rpc.admin.stats()["rechecks"] > 2)
        assert not stream.task.done()
        revoked.add("ada")
        await until(stream.task.done)
        assert stream.names == ["connected"]
    revoked.clear()


async def test_what_a_middleware_has_left_is_not_believed_again(file: Path, anyio_backend: str) -> None:
    """The token is good no more; neither its ContextVar nor its `request.state` lives on in the stream."""
    valid.add("t")
    async with (
        existing(file, application, settings=QUICK) as app,
        InProcessStream(_with_state(app), [{"path": "/more/believing"}], {"x-token": "t"}, note=lambda: None) as stream,
    ):
        await until(lambda: stream.sent)
        assert json.loads(stream.sent[0][1].data)["errors"] == []
        await until(lambda: app.rpc.admin.stats()["rechecks"] > 2)
        assert not stream.task.done()
        valid.clear()
        await until(stream.task.done)


async def test_what_the_lifespan_yields_is_there(file: Path, anyio_backend: str) -> None:
    """`request.state`, as the server gives it with each request."""
    async with (
        existing(file, application) as app,
        InProcessStream(
            _with_state(app, greeting="hello"), [{"path": "/more/greeted"}], {}, note=lambda: None
        ) as stream,
    ):
        await until(lambda: stream.sent)
        assert json.loads(stream.sent[0][1].data)["errors"] == []


def _with_state(app: Existing, **state: str) -> FastAPI:
    """Give the application as a server calls it: with a copy of all that its lifespan has yielded."""

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        await app.app({**scope, "state": dict(state)}, receive, send)

    return cast(FastAPI, served)


@pytest.mark.parametrize("url", ["/more/noted", "/more/hiding"])
async def test_dependencies_that_cannot_be_solved_apart_are_asked_again(
    file: Path, url: str, caplog: pytest.LogCaptureFixture, anyio_backend: str
) -> None:
    """They are watched by rechecks alone; the log says why, once."""
    async with existing(file, application, settings=QUICK) as app:
        for _ in range(2):
            await _lose_right(app, url)
    assert caplog.text.count("cannot be solved on a session that is watched") == 1


async def _lose_right(app: Existing, url: str) -> None:
    """Watch a URL, be told of a write, and be shut out."""
    app.write(User(id="ada", org="a"))
    async with Watching(app, url) as stream:
        await until(lambda: stream.sent)
        assert stream.refusals == {}
        app.write(Seat(id=9, org="a", name="nine"))
        await until(stream.invalidated)
        app.delete(Seat, 9)
        assert not stream.task.done()
        app.delete(User, "ada")
        await until(stream.task.done)


@pytest.mark.parametrize("status", [503, 500])
async def test_an_application_that_fails_for_a_moment_ends_no_watch(
    file: Path, status: int, anyio_backend: str
) -> None:
    """The watch goes on, and what it missed is told."""
    BUSY.clear()
    async with (
        existing(file, application, settings=QUICK) as app,
        Watching(app, "/more/busy", **{"x-busy": "yes"}) as stream,
    ):
        await until(lambda: stream.sent)
        BUSY["yes"] = status
        await until(lambda: app.rpc.admin.stats()["recheck_failures"] > 0)
        BUSY.clear()
        app.write(Seat(id=9, org="a", name="nine"))
        await until(lambda: stream.invalidated() == [stream.keys])


async def test_a_url_is_watched_where_its_answers_are_kept(file: Path, tmp_path: Path, anyio_backend: str) -> None:
    """The other `ReactiveRPC` of an application knows of its own writes alone."""
    other = ReactiveRPC(
        f"sqlite+aiosqlite:///{tmp_path / 'other.db'}",
        functions={},
        metadata=METADATA,
        prefix="/other",
        trpc_prefix=None,
    )

    def make_app(rpc: ReactiveRPC) -> FastAPI:
        app = application(rpc)
        app.include_router(other.router)

        @app.get("/of-other")
        @reactive(rpc=lambda: other)
        def of_other(session: SessionDep) -> list[str]:
            return list(session.exec(select(Seat.name)).all())

        return app

    async with existing(file, make_app) as app, other.lifespan(app.app):
        async with Watching(app, "/of-other") as stream:
            await until(lambda: stream.sent)
            assert "watch it at the events of that one" in stream.refusals["/of-other"][1]
        async with InProcessStream(
            app.app, [{"path": "/of-other"}], {}, note=lambda: None, path="/other/events"
        ) as there:
            await until(lambda: there.sent)
            with Session(create_engine(f"sqlite:///{tmp_path / 'other.db'}")) as session:
                session.add(Seat(id=1, org="a", name="new"))
                session.commit()
            await until(lambda: "invalidation" in there.names)


async def test_work_that_a_dependency_leaves_belongs_to_an_answer(app: Existing) -> None:
    """It is done after a GET, and not when the application is asked for a stream."""
    await app.get("/more/busy")
    assert ran == ["task"]
    ran.clear()
    async with Watching(app, "/more/busy") as stream:
        await until(lambda: stream.sent)
    assert ran == []


async def test_a_set_and_a_poll_name_urls_too(app: Existing) -> None:
    """They are stored as they are, and asked for by whoever uses the set."""
    queries = [{"path": SEATS}]
    stored = await app.client.post("/rpc/events/sets", json={"queries": queries}, headers={"x-user": "ada"})
    name = stored.json()["set"]
    mine = await app.client.get("/rpc/events/poll", params={"set": name, "wait": 0}, headers={"x-user": "ada"})
    assert "connected" in mine.text
    assert "who are you?" not in mine.text
    stranger = await app.client.get("/rpc/events/poll", params={"set": name, "wait": 0})
    assert "who are you?" in stranger.text


async def test_a_ticket_carries_the_headers_that_endpoints_declare(app: Existing) -> None:
    """So that a browser's EventSource, which sends none, watches as its user."""
    stored = await app.client.post("/rpc/events/sets", json={"queries": [{"path": SEATS}]})
    issued = await app.client.post("/rpc/events/ticket", json={}, headers={"x-user": "ada", "x-other": "not declared"})
    parameters = {"set": stored.json()["set"], "ticket": issued.json()["ticket"], "wait": 0}
    polled = await app.client.get("/rpc/events/poll", params=parameters)
    assert "connected" in polled.text
    assert "who are you?" not in polled.text


async def test_nothing_but_its_middlewares_and_dependencies_is_asked(app: Existing) -> None:
    """One GET for each URL; its answer may be kept by nobody."""
    seen: list[tuple[int, str | None]] = []
    sent: list[str] = []

    class Seen:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def note(message: Any) -> None:
                if message["type"] == "http.response.start" and scope["path"] == SEATS:
                    seen.append((message["status"], dict(message["headers"]).get(b"cache-control", b"").decode()))
                await send(message)

            if scope["path"] == SEATS:
                sent.extend(sorted(name.decode() for name, _ in scope["headers"]))
            await self.inner(scope, receive, note)

    app.app.middleware_stack = Seen(app.app.middleware_stack)
    asked.clear()
    async with Watching(app, SEATS, **{"if-none-match": "*", "accept": "text/event-stream", "x-other": "1"}) as stream:
        await until(lambda: stream.sent)
    assert sent == ["x-other", "x-user"], "those that say something of the request for events stay there"
    assert (asked, seen) == (["/rpc/events", SEATS], [(204, "no-store")])
