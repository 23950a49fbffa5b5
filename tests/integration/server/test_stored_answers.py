"""The short way of calls by GET: what is stored answers whoever has the right to it at this moment, and nobody else.

Each scenario is held twice: as it is, and with the bug put in that would break it.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Header
from sqlmodel import Field, select
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reactive_rpc import Context, Login, ReactiveRPC, UnauthorizedError
from reactive_rpc import define_reactive_function as define
from reactive_rpc.cache.freshness import Freshness
from reactive_rpc.cache.reader import Reader
from reactive_rpc.compat.fastapi import own_layers
from reactive_rpc.compat.uvicorn import write_answer
from reactive_rpc.procedures import calls
from reactive_rpc.procedures.canonical import canonical
from reactive_rpc.testing import FakeClock
from reactive_rpc.web.routing import shortcut, stored_answers
from reactive_rpc.web.routing.shortcut import _OuterShortcut
from reactive_rpc.web.routing.stored_answers import ReadyAnswer, StoredAnswers
from tests.support.waiting import until

from .in_process import InProcessStream
from .rooms import Base, Note, Server, app_of, rpc_on, serving, write

pytestmark = pytest.mark.anyio


class Badge(Base, table=True):
    id: str = Field(primary_key=True)
    role: str


@dataclass(frozen=True, kw_only=True)
class Bearer(Login):
    role: str


@dataclass(frozen=True, kw_only=True)
class Levelled(Login):
    level: int


async def who(caller: Annotated[str, Header()] = "") -> Login:
    return Login(identity=caller)


async def bearer(ctx: Login, db: AsyncSession) -> Bearer:
    found = await db.get(Badge, ctx.identity)
    if found is None:
        raise UnauthorizedError("no badge")
    return Bearer(identity=found.id, role=found.role)


async def bearer_of_header(caller: Annotated[str, Header()], db: AsyncSession) -> Bearer:
    return await bearer(Login(identity=caller), db)


async def texts(db: AsyncSession) -> list[str]:
    return list((await db.exec(select(Note.text).order_by(Note.text))).all())


async def role(db: AsyncSession, ctx: Bearer) -> str:
    await db.exec(select(Note))
    return ctx.role


ON_THE_WAY: list[str] = []
"""Paths of the answers that were given by the short way."""


@pytest.fixture(autouse=True)
def on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Note them."""
    ON_THE_WAY.clear()
    begin = StoredAnswers.begin

    async def noted(self: StoredAnswers, scope: Scope, dependencies: Any) -> Any:
        begun = await begin(self, scope, dependencies)
        if isinstance(begun, ReadyAnswer):
            ON_THE_WAY.append(scope["path"])
        return begun

    monkeypatch.setattr(StoredAnswers, "begin", noted)


async def asked(server: Server, path: str, caller: str = "ann", **headers: str) -> httpx.Response:
    """Ask three times, and return the last answer, which was stored if it can be."""
    for _ in range(3):
        answer = await server.client.get(f"/rpc/{path}", headers={"caller": caller, **headers})
    return answer


def said(answer: httpx.Response) -> object:
    """Return the result that an answer holds, or the message of its error."""
    body = answer.json()
    return body if answer.status_code == 200 else body["error"]["message"]


LOSES = ("DELETE FROM badge", "INSERT INTO note(room, tenant, text) VALUES ('a', 't', 'secret')")


async def a_right_that_another_process_takes(file: Path, guarded: Any) -> None:
    """It is taken in the commit that writes a secret: whoever had it is answered neither that nor what was stored."""
    async with serving(file, {"n": {"texts": guarded.query(texts)}}, context=who) as server:
        write(file, "INSERT INTO badge VALUES ('ann', 'chief')")
        assert said(await asked(server, "n.texts")) == []
        assert ON_THE_WAY
        write(file, *LOSES)
        assert said(await server.client.get("/rpc/n.texts", headers={"caller": "ann"})) == "no badge"


async def a_context_that_loses_its_right(file: Path) -> None:
    """Of a context that reads the database."""
    await a_right_that_another_process_takes(file, define.context(bearer_of_header))


async def a_step_that_loses_its_right(file: Path) -> None:
    """Of a step that does."""
    await a_right_that_another_process_takes(file, define.use(bearer))


async def a_context_that_becomes_another(file: Path) -> None:
    """The result is found by the context as it is now, by a step and by a context that is a query."""
    functions = {"n": {"a": define.context(bearer_of_header).query(role), "b": define.use(bearer).query(role)}}
    async with serving(file, functions, context=who) as server:
        write(file, "INSERT INTO badge VALUES ('ann', 'chief')")
        for expected in ("chief", "clerk"):
            write(file, f"UPDATE badge SET role = '{expected}'")
            for path in ("n.a", "n.b"):
                assert said(await asked(server, path)) == expected
        assert set(ON_THE_WAY) == {"/rpc/n.a", "/rpc/n.b"}


async def callers_that_are_merely_equal(file: Path) -> None:
    """`True` is `1`, and no handler takes one for the other."""

    async def levelled(level: Annotated[str, Header()]) -> Levelled:
        return Levelled(level=True if level == "true" else int(level))

    async def shown(db: AsyncSession, ctx: Levelled) -> str:
        await db.exec(select(Note))
        return repr(ctx.level)

    async with serving(file, {"n": {"shown": define.context(levelled).query(shown)}}, context=who) as server:
        for _ in range(2):
            for level, expected in (("true", "True"), ("1", "1"), ("0", "0")):
                assert said(await asked(server, "n.shown", level=level)) == expected
        assert ON_THE_WAY


async def a_result_that_callers_share(file: Path) -> None:
    """Its handler asks for nobody: each caller is told of its own scope, the first and each that follows."""
    async with serving(file, {"n": {"texts": define.query(texts)}}, context=who) as server:
        scopes = [(await asked(server, "n.texts", caller)).headers["reactive-scope"] for caller in ("ann", "bob")]
        assert len(set(scopes)) == 2
        assert ON_THE_WAY


async def a_login_that_expires(file: Path) -> None:
    """Though nothing is written."""
    clock = FakeClock()
    end = datetime.fromtimestamp(clock.time() + 10, UTC)

    async def until_then(caller: Annotated[str, Header()]) -> Login:
        return Login(identity=caller, expires_at=end)

    async with serving(file, {"n": {"texts": define.query(texts)}}, context=until_then, clock=clock) as server:
        assert said(await asked(server, "n.texts")) == []
        assert ON_THE_WAY
        clock.advance(11)
        assert said(await asked(server, "n.texts")) == "the login has expired"


async def a_call_within_a_call(file: Path) -> None:
    """A handler that asks by HTTP, within this process, has read what that call reads."""
    servers: list[Server] = []

    @define.query(public=True)
    async def outer(db: AsyncSession) -> list[str]:
        await db.exec(select(Badge))
        found: list[str] = (await servers[0].client.get("/rpc/n.inner")).json()
        return found

    async with serving(file, {"n": {"inner": define.query(public=True)(texts), "outer": outer}}) as server:
        servers.append(server)
        assert said(await asked(server, "n.inner")) == []
        assert said(await asked(server, "n.outer")) == []
        write(file, "INSERT INTO note(room, tenant, text) VALUES ('a', 't', 'new')")
        assert said(await asked(server, "n.outer")) == ["new"]


async def a_step_that_is_overridden(file: Path) -> None:
    """For one request as for the next, also of a procedure that begins with no context."""

    async def while_there_is_a_chief(ctx: Context, db: AsyncSession) -> None:
        if await db.get(Badge, "chief") is None:
            raise UnauthorizedError("closed")

    async def never(ctx: Context, db: AsyncSession) -> None:
        raise UnauthorizedError("closed for ever")

    functions = {"n": {"texts": define.use(while_there_is_a_chief).query(public=True)(texts)}}
    async with serving(file, functions) as server:
        write(file, "INSERT INTO badge VALUES ('chief', '')")
        for overrides, expected in (({}, []), ({while_there_is_a_chief: never}, "closed for ever"), ({}, [])):
            server.app.dependency_overrides = overrides
            assert said(await asked(server, "n.texts")) == expected
        assert ON_THE_WAY


class Counting:
    """A middleware of the application's own."""

    counted = 0

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count a request."""
        Counting.counted += scope["type"] == "http"
        await self.app(scope, receive, send)


async def a_middleware_of_the_applications(file: Path) -> None:
    """It sees each request, those too that are answered by what is stored."""
    Counting.counted = 0

    def make_app(rpc: ReactiveRPC) -> FastAPI:
        app = app_of(rpc)
        app.add_middleware(Counting)
        return app

    async with serving(file, {"n": {"texts": define.query(public=True)(texts)}}, make_app=make_app) as server:
        await asked(server, "n.texts")
        assert ON_THE_WAY
        assert Counting.counted == 3


async def an_answer_that_cannot_be_sent(file: Path) -> None:
    """The application's handler of exceptions hears of it, and the server: as where a middleware stands between."""
    seen: list[str] = []

    async def hears(request: Request, exc: Exception) -> PlainTextResponse:
        seen.append(f"{request.url.path}: {exc}")
        return PlainTextResponse("unheard", 500)

    async def broken(messages: list[str], message: Message) -> None:
        messages.append(message["type"])
        if message["type"] == "http.response.body":
            raise OSError("the client is gone")

    for number, middlewares in enumerate(((), (Counting,))):

        def make_app(rpc: ReactiveRPC, middlewares: tuple[Any, ...] = middlewares) -> FastAPI:
            app = app_of(rpc)
            app.exception_handlers[Exception] = hears
            for each in middlewares:
                app.add_middleware(each)
            return app

        functions = {"n": {"texts": define.query(public=True)(texts)}}
        async with serving(file.with_name(f"{number}.db"), functions, make_app=make_app) as server:
            await asked(server, "n.texts")
            messages: list[str] = []
            scope = {
                "type": "http", "method": "GET", "path": "/rpc/n.texts", "query_string": b"", "headers": [],
                "server": ("test", 80), "scheme": "http", "root_path": "", "http_version": "1.1",
            }  # fmt: skip
            with pytest.raises(OSError, match="the client is gone"):
                await server.app(scope, receive_nothing, partial(broken, messages))
            assert messages == ["http.response.start", "http.response.body"]
            assert seen == ["/rpc/n.texts: the client is gone"]
            seen.clear()


async def receive_nothing() -> Message:
    """Return the end of a request without a body."""
    return {"type": "http.request", "body": b"", "more_body": False}


Scenario = Callable[[Path], Awaitable[None]]
Bug = Callable[[pytest.MonkeyPatch], None]


def the_log_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is stored is right."""

    async def not_read(self: Freshness, **_: Any) -> int:
        return 0

    monkeypatch.setattr(Freshness, "sync_to_head", not_read)


def what_was_found_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An outcome is looked up before the log is read, or once and for all."""
    peek = Reader.peek
    found: dict[Any, Any] = {}

    def peeked(self: Reader, key: Any) -> Any:
        if found.get(key) is None:
            result = peek(self, key)
            found[key] = None if result is None else result.detached(None)
        return found[key]

    monkeypatch.setattr(Reader, "peek", peeked)


def equal_contexts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their canonical form is remembered by the context itself."""
    monkeypatch.setattr(stored_answers, "distinct", lambda ctx: (ctx,))


def scopes_are_remembered_with_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """The headers of an answer are those of the caller who came first."""
    first: list[Any] = []

    def mark(ctx: object) -> Any:
        first.append(canonical(ctx))
        return ((b"reactive-scope", first[0]),)

    monkeypatch.setattr(stored_answers, "scope_mark", mark)


def logins_last_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A context that was let in once is let in."""
    monkeypatch.setattr(calls, "valid_at", lambda time, ctx: ctx)


def calls_within_calls_are_anybodys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The short way is gone wherever a request comes from."""
    monkeypatch.setattr(stored_answers, "current_call", lambda: None)


def nothing_is_overridden(monkeypatch: pytest.MonkeyPatch) -> None:
    """The outcome of a step is that of the function which it was defined with."""
    monkeypatch.setattr(StoredAnswers, "_is_overridden", lambda self, scope: False)


def every_layer_is_fastapis(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stored answer is given outside of all middlewares."""
    own = own_layers
    monkeypatch.setattr(shortcut, "own_layers", lambda: own() | {Counting})


def nobody_hears_of_what_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer fails where it is given."""

    async def sent(self: Any, answer: ReadyAnswer, scope: Scope, *, receive: Receive, send: Send) -> None:
        await answer(send)

    monkeypatch.setattr(_OuterShortcut, "_answer", sent)


BUGS: list[tuple[Bug, Scenario]] = [
    (the_log_is_not_read, a_context_that_loses_its_right),
    (the_log_is_not_read, a_step_that_loses_its_right),
    (what_was_found_is_found_again, a_context_that_loses_its_right),
    (what_was_found_is_found_again, a_step_that_loses_its_right),
    (what_was_found_is_found_again, a_context_that_becomes_another),
    (equal_contexts_are_the_same, callers_that_are_merely_equal),
    (scopes_are_remembered_with_results, a_result_that_callers_share),
    (logins_last_for_ever, a_login_that_expires),
    (calls_within_calls_are_anybodys, a_call_within_a_call),
    (nothing_is_overridden, a_step_that_is_overridden),
    (every_layer_is_fastapis, a_middleware_of_the_applications),
    (nobody_hears_of_what_is_not_sent, an_answer_that_cannot_be_sent),
]


@pytest.mark.parametrize("scenario", dict.fromkeys(scenario for _, scenario in BUGS), ids=lambda each: each.__name__)
async def test_the_short_way_lets_in_whom_the_long_one_does(file: Path, scenario: Scenario) -> None:
    """As the scenario says."""
    await scenario(file)


@pytest.mark.seeded_bug
@pytest.mark.parametrize(("bug", "scenario"), BUGS, ids=lambda each: each.__name__)
async def test_a_seeded_bug_is_found(file: Path, bug: Bug, scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its scenario, and not by a failure of another kind."""
    bug(monkeypatch)
    with pytest.raises(AssertionError):
        await scenario(file)


async def test_a_result_that_the_client_holds_is_not_sent_again(file: Path) -> None:
    """Both ways answer alike, whole and not, before and after a write."""
    async with serving(file, {"n": {"texts": define.query(texts)}}, context=who) as server:
        seen = []
        for number in range(2):
            etag = (await asked(server, "n.texts")).headers["etag"]
            for headers in ({}, {"if-none-match": f'W/"x", {etag}'}, {"if-none-match": '"x"'}):
                short = await asked(server, "n.texts", **headers)
                long = await server.client.post(
                    "/rpc/n.texts", headers={"caller": "ann", "content-type": "application/json", **headers}
                )
                assert (short.status_code, short.headers.raw, short.content) == (
                    long.status_code, long.headers.raw, long.content,
                )  # fmt: skip
                seen.append((short.status_code, short.headers["etag"]))
            write(file, f"INSERT INTO note(room, tenant, text) VALUES ('a', 't', 'new {number}')")
        assert [status for status, _ in seen] == [200, 304, 200] * 2
        assert len({etag for _, etag in seen}) == 2
        assert len(ON_THE_WAY) > 6


async def test_a_stream_of_a_mounted_application_passes_its_middlewares(file: Path) -> None:
    """Also where the application that it is mounted in serves procedures, and has none."""
    sent: list[str] = []

    class Watching(Counting):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            async def noted(message: Message) -> None:
                sent.append(message["type"])
                await send(message)

            await self.app(scope, receive, noted)

    outer, inner = rpc_on(file), rpc_on(file.with_name("inner.db"))
    app, mounted = app_of(outer), app_of(inner)
    mounted.add_middleware(Watching)
    app.mount("/inner", mounted)
    async with outer.lifespan(app), inner.lifespan(mounted):
        query = {"path": "notes.in_room", "input": {"room": "a"}}
        headers = {"authorization": "Bearer ann@t"}
        async with InProcessStream(app, [query], headers, note=lambda: None, path="/inner/rpc/events") as stream:
            await until(lambda: stream.names)
            assert sent == ["http.response.start", "http.response.body"]


async def received_of(app: ASGIApp, requests: bytes) -> bytes:
    """Return all that uvicorn sends over one connection, but for dates."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(app, http="httptools", lifespan="off", log_config=None, ws="none", access_log=False)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        writer.write(requests)
        received = await reader.read()
        writer.close()
        server.should_exit = True
        await serving
    return b"\r\n".join(line for line in received.split(b"\r\n") if not line.startswith(b"date:"))


@pytest.mark.parametrize("middlewares", [(), (Counting,)])
async def test_a_server_sends_the_same_bytes_whoever_writes_them(file: Path, middlewares: tuple[Any, ...]) -> None:
    """An answer that is written in one go is the one that `send` makes, whole or held, before and after a write."""
    written: list[bool] = []

    def noted(*arguments: Any) -> bool:
        written.append(write_answer(*arguments))
        return written[-1]

    def make_app(rpc: ReactiveRPC) -> FastAPI:
        app = app_of(rpc)
        for each in middlewares:
            app.add_middleware(each)
        return app

    async with serving(file, {"n": {"texts": define.query(texts)}}, context=who, make_app=make_app) as server:

        async def around(scope: Scope, receive: Receive, send: Send) -> None:
            async def sent(message: Message) -> None:
                await send(message)

            await server.app(scope, receive, sent)

        for number in range(2):
            etag = (await asked(server, "n.texts")).headers["etag"].encode()
            line = b"GET /rpc/n.texts HTTP/1.1\r\nhost: x\r\ncaller: ann\r\n"
            requests = b"".join(
                [line + b"\r\n", line + b"if-none-match: " + etag + b"\r\n\r\n", line + b"\r\n",
                 line + b"connection: close\r\n\r\n"]
            )  # fmt: skip
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(shortcut, "write_answer", noted)
                patched.setattr(stored_answers, "write_answer", noted)
                written.clear()
                own = await received_of(server.app, requests)
                assert written == [*[not middlewares] * 3, False]
                assert own == await received_of(around, requests)
                assert re.findall(rb"HTTP/1\.1 (\d+)", own) == [b"200", b"304", b"200", b"200"]
            write(file, f"INSERT INTO note(room, tenant, text) VALUES ('a', 't', 'new {number}')")
