"""Dependencies in handlers: what each kind of procedure may take, and that a key holds all that a cached one sees."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import BackgroundTasks, Body, Cookie, Depends, FastAPI, Header, HTTPException, Query, Request, Response
from fastapi import Security as Secured
from fastapi.middleware.cors import CORSMiddleware
from fastapi.security import APIKeyCookie, APIKeyHeader, HTTPBearer, OAuth2PasswordBearer, SecurityScopes
from fastapi.security.http import HTTPAuthorizationCredentials
from sqlmodel import Field, Session, col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import HTTPConnection

from reactive_rpc import (
    BadRequestError,
    Cache,
    DefinitionError,
    Login,
    NotFoundError,
    ReactiveRPC,
    define_reactive_function,
)
from reactive_rpc.testing import running

from .rooms import Base, Server, error_of, rpc_on, serving
from .streams import DEADLINE_SECONDS, heard

pytestmark = pytest.mark.anyio

define = define_reactive_function


class Book(Base, table=True):
    id: int | None = Field(default=None, primary_key=True)
    owner: str
    title: str


class KeyHolder(Base, table=True):
    name: str = Field(primary_key=True)
    key: str
    level: int = 0


@dataclass(frozen=True, kw_only=True)
class Member(Login):
    level: int


class Runs:
    """What ran, in order."""

    def __init__(self) -> None:
        self.noted: list[str] = []

    def note(self, name: str) -> None:
        self.noted.append(name)

    def of(self, name: str) -> int:
        return self.noted.count(name)


RUNS = Runs()


@pytest.fixture(autouse=True)
def runs() -> Runs:
    """Count anew."""
    RUNS.noted.clear()
    return RUNS


def get_db() -> AsyncSession:
    raise AssertionError("the application's own session is never asked for")


def get_sync_db() -> Session:
    raise AssertionError("the application's own session is never asked for")


Db = Annotated[AsyncSession, Depends(get_db)]
SyncDb = Annotated[Session, Depends(get_sync_db)]


def titles(owner: str) -> Any:
    return select(Book.title).where(Book.owner == owner).order_by(col(Book.title))


class Greeter:
    def __init__(self) -> None:
        RUNS.note("greeter")

    def greet(self, name: str) -> str:
        return f"hello {name}"


def get_greeter() -> Greeter:
    return Greeter()


async def get_greeter_async() -> Greeter:
    return Greeter()


def language(accept_language: Annotated[str, Header()] = "en") -> str:
    RUNS.note("language")
    return accept_language[:2]


def tongue(x_tongue: Annotated[str, Header()] = "la") -> str:
    return x_tongue


def needed_tongue(x_tongue: Annotated[str, Header()]) -> str:
    return x_tongue


def theme(theme: Annotated[str | None, Cookie()] = None) -> str:
    return theme or "light"


api_key = APIKeyHeader(name="X-API-Key")
session_cookie = APIKeyCookie(name="session")
bearer = HTTPBearer()
oauth2 = OAuth2PasswordBearer(tokenUrl="token", scopes={"books": "read books"})


async def account(key: Annotated[str, Depends(api_key)], db: Db) -> KeyHolder:
    RUNS.note("account")
    found = (await db.exec(select(KeyHolder).where(KeyHolder.key == key))).first()
    if found is None:
        raise HTTPException(401, "no such key", headers={"www-authenticate": "Key"})
    return found


def account_sync(key: Annotated[str, Depends(api_key)], db: SyncDb) -> KeyHolder:
    RUNS.note("account")
    found = db.exec(select(KeyHolder).where(KeyHolder.key == key)).first()
    if found is None:
        raise NotFoundError("no such key")
    return found


class Shelf:
    """A class that holds the session, as repositories do."""

    def __init__(self, db: Db) -> None:
        self.db = db

    async def titles(self, owner: str) -> list[str]:
        return list((await self.db.exec(titles(owner))).all())


class ShelfSync:
    def __init__(self, db: SyncDb) -> None:
        self.db = db

    def titles(self, owner: str) -> list[str]:
        return list(self.db.exec(titles(owner)).all())


@dataclass
class Pages:
    """A class whose fields are headers, by the short spelling of Depends."""

    x_limit: Annotated[int, Header()] = 10


def one() -> int:
    RUNS.note("one")
    return 1


def two(one: Annotated[int, Depends(one)]) -> int:
    return one + 1


def alone(one: Annotated[int, Depends(one, use_cache=False)]) -> int:
    return one


def scoped(scopes: SecurityScopes, token: Annotated[str, Depends(oauth2)]) -> str:
    return f"{token}:{scopes.scope_str}"


async def keeping() -> AsyncIterator[str]:
    RUNS.note("begin")
    try:
        yield "kept"
    finally:
        RUNS.note("end")


def keeping_sync() -> Iterator[str]:
    RUNS.note("begin")
    try:
        yield "kept"
    finally:
        RUNS.note("end")


# Queries, each by both spellings, from coroutines and from plain functions.


@define
async def greet(db: AsyncSession, greeter: Annotated[Greeter, Depends(get_greeter)], name: str) -> str:
    RUNS.note("handler")
    return greeter.greet(name) + "".join((await db.exec(titles(name))).all())


@define
async def greet_default(db: AsyncSession, name: str, greeter: Greeter = Depends(get_greeter_async)) -> str:  # noqa: B008
    RUNS.note("handler")
    return greeter.greet(name) + "".join((await db.exec(titles(name))).all())


@define
def greet_sync(db: Session, greeter: Annotated[Greeter, Depends(get_greeter_async)], name: str) -> str:
    RUNS.note("handler")
    return greeter.greet(name) + "".join(db.exec(titles(name)).all())


@define
def greet_sync_default(db: Session, name: str, *, greeter: Greeter = Depends(get_greeter)) -> str:  # noqa: B008
    RUNS.note("handler")
    return greeter.greet(name) + "".join(db.exec(titles(name)).all())


GREETERS = ["greet", "greet_default", "greet_sync", "greet_sync_default"]


@define
async def in_language(db: AsyncSession, lang: Annotated[str, Depends(language)], name: str) -> str:
    RUNS.note("handler")
    return f"{lang}:{','.join((await db.exec(titles(name))).all())}"


@define
def in_language_sync(db: Session, name: str, lang: str = Depends(language)) -> str:
    RUNS.note("handler")
    return f"{lang}:{','.join(db.exec(titles(name)).all())}"


@define
async def in_theme(db: AsyncSession, look: Annotated[str, Depends(theme)]) -> str:
    RUNS.note("handler")
    return f"{look}:{len((await db.exec(select(Book))).all())}"


@define
async def mine(db: AsyncSession, current: Annotated[KeyHolder, Depends(account)]) -> list[str]:
    RUNS.note("handler")
    return list((await db.exec(titles(current.name))).all())


@define
def mine_sync(db: Session, current: Annotated[KeyHolder, Depends(account_sync)]) -> list[str]:
    RUNS.note("handler")
    return list(db.exec(titles(current.name)).all())


@define
async def my_level(current: Annotated[KeyHolder, Depends(account)]) -> int:
    RUNS.note("handler")
    return current.level


@define
async def on_shelf(shelf: Annotated[Shelf, Depends()], owner: str) -> list[str]:
    RUNS.note("handler")
    return await shelf.titles(owner)


@define
def on_shelf_sync(shelf: Annotated[ShelfSync, Depends(ShelfSync)], owner: str) -> list[str]:
    RUNS.note("handler")
    return shelf.titles(owner)


@define
async def by_session(db: Db, session: Annotated[str, Secured(session_cookie)]) -> str:
    RUNS.note("handler")
    return f"{session}:{len((await db.exec(select(Book))).all())}"


@define
async def by_scopes(db: Db, who: Annotated[str, Secured(scoped, scopes=["books"])]) -> str:
    return f"{who}:{len((await db.exec(select(Book))).all())}"


@define
async def by_pages(db: Db, pages: Annotated[Pages, Depends()]) -> int:
    return pages.x_limit + len((await db.exec(select(Book))).all())


@define
async def counted(db: Db, a: Annotated[int, Depends(one)], b: Annotated[int, Depends(two)]) -> int:
    return a + b + len((await db.exec(select(Book))).all())


@define
async def counted_alone(db: Db, a: Annotated[int, Depends(one)], b: Annotated[int, Depends(alone)]) -> int:
    return a + b + len((await db.exec(select(Book))).all())


@define
async def kept(db: Db, value: Annotated[str, Depends(keeping)]) -> str:
    RUNS.note("handler")
    return f"{value}:{len((await db.exec(select(Book))).all())}"


@define
def kept_sync(db: SyncDb, value: Annotated[str, Depends(keeping)], other: str = Depends(keeping_sync)) -> str:
    RUNS.note("handler")
    return f"{value}:{other}:{len(db.exec(select(Book)).all())}"


# Uncached queries and mutations, which see all of the request.


def page(request: Request, response: Response, q: Annotated[str, Query(alias="name")] = "") -> str:
    response.headers["x-page"] = "1"
    response.set_cookie("seen", "yes")
    return f"{request.method}:{q}"


@define(cache=False)
async def seen(page: Annotated[str, Depends(page)], request: Request, name: str = "") -> str:
    return f"{page}:{request.headers['x-marked']}"


@define(cache=False)
def seen_sync(request: Request, name: str = "", page: str = Depends(page)) -> str:
    return f"{page}:{request.headers['x-marked']}"


@define(cache=False)
async def uncached(
    db: AsyncSession, tasks: BackgroundTasks, lang: Annotated[str, Depends(language)], response: Response, name: str
) -> str:
    RUNS.note("handler")
    response.status_code = 203
    tasks.add_task(RUNS.note, "background")
    return f"{lang}:{','.join((await db.exec(titles(name))).all())}"


def whole_body(title: Annotated[str, Body(embed=True)]) -> str:
    return title.upper()


@define.mutation
async def add(
    db: AsyncSession,
    lang: Annotated[str, Depends(language)],
    shelf: Annotated[Shelf, Depends(Shelf)],
    *,
    shouted: Annotated[str, Depends(whole_body)],
    request: Request,
    tasks: BackgroundTasks,
    owner: str,
    title: str,
) -> str:
    assert shelf.db is db
    tasks.add_task(RUNS.note, "background")
    db.add(Book(owner=owner, title=title))
    await db.flush()
    if title == "refused":
        raise NotFoundError("refused")
    return f"{lang}:{shouted}:{request.method}:{len(await shelf.titles(owner))}"


@define.mutation
def add_sync(db: Session, owner: str, title: str, *, tasks: BackgroundTasks, shelf: ShelfSync = Depends()) -> int:  # noqa: B008
    assert shelf.db is db
    tasks.add_task(RUNS.note, "background")
    db.add(Book(owner=owner, title=title))
    db.flush()
    return len(shelf.titles(owner))


async def audited(db: Db) -> AsyncIterator[None]:
    yield
    db.add(Book(owner="audit", title="done"))


@define.mutation
async def add_audited(
    db: AsyncSession, owner: str, title: str, _trail: Annotated[None, Depends(audited)] = None
) -> None:
    db.add(Book(owner=owner, title=title))


async def refusing_at_its_end() -> AsyncIterator[None]:
    yield
    raise HTTPException(409, "too late")


@define.mutation
async def add_refused(db: AsyncSession, trail: Annotated[None, Depends(refusing_at_its_end)], title: str) -> None:
    db.add(Book(owner="nobody", title=title))


@define
async def read_refused(db: AsyncSession, trail: Annotated[None, Depends(refusing_at_its_end)]) -> int:
    RUNS.note("handler")
    return len((await db.exec(select(Book))).all())


async def keeping_back() -> AsyncIterator[None]:
    try:
        yield
    except NotFoundError:
        RUNS.note("kept back")


@define
async def lost(db: AsyncSession, trail: Annotated[None, Depends(keeping_back)]) -> int:
    raise NotFoundError("nobody is told")


def account_name(db: SyncDb) -> str:
    return str(db.exec(select(KeyHolder.name)).first())


@define
async def first_name(name: Annotated[str, Depends(account_name)]) -> str:
    RUNS.note("handler")
    return name


class Other(AsyncSession):
    """One of two sessions."""


class Another(AsyncSession):
    """The other."""


def taking_another(db: Annotated[Another, Depends(get_db)]) -> None: ...


async def of_two_sessions(db: Other, value: Annotated[None, Depends(taking_another)]) -> None: ...


# Attacks.

SEEN: ContextVar[str] = ContextVar("seen_user")


def from_context_var() -> str:
    return SEEN.get()


@define
async def leaking(db: AsyncSession, who: Annotated[str, Depends(from_context_var)]) -> list[str]:
    return list((await db.exec(titles(who))).all())


class Snooping(HTTPBearer):
    """A scheme of the application's own, which reads what no key holds."""

    async def __call__(self, request: HTTPConnection) -> HTTPAuthorizationCredentials | None:
        found = await super().__call__(request)
        RUNS.note(f"snooped {request.headers.get('x-marked')} {getattr(request.state, 'user', None)}")
        RUNS.note(f"{sorted(request.cookies)} {sorted(request.query_params)} {request.client}")
        return found


@define
async def snooped(db: AsyncSession, token: Annotated[Any, Depends(Snooping())]) -> int:
    return len((await db.exec(select(Book))).all())


LOCAL = threading.local()


def from_thread_local() -> str:
    who = getattr(LOCAL, "user", "nobody")
    LOCAL.user = "somebody"
    return who


@define
async def by_thread(db: AsyncSession, who: Annotated[str, Depends(from_thread_local)], number: int) -> str:
    return f"{who}:{len((await db.exec(select(Book))).all())}"


QUERIES: dict[str, Any] = {
    each.name: each
    for each in (
        greet, greet_default, greet_sync, greet_sync_default, in_language, in_language_sync, in_theme, mine, mine_sync,
        my_level, on_shelf, on_shelf_sync, by_session, by_scopes, by_pages, counted, counted_alone, kept, kept_sync,
        seen, seen_sync, uncached, add, add_sync, add_audited, add_refused, read_refused, lost, leaking, snooped,
        by_thread,
    )
}  # fmt: skip


def app_of(rpc: ReactiveRPC) -> FastAPI:
    app = FastAPI(lifespan=rpc.lifespan)
    app.add_middleware(CORSMiddleware, allow_origins=["https://there.test"])

    @app.middleware("http")
    async def user(request: Request, call_next: Callable[[Request], Any]) -> Any:
        SEEN.set(request.headers.get("x-user", "nobody"))
        request.state.user = request.headers.get("x-user", "nobody")
        return await call_next(request)

    app.include_router(rpc.router)
    return app


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """Serve books of ada and bob, who have keys."""
    async with _serving(tmp_path) as found:
        yield found


@asynccontextmanager
async def _serving(path: Path) -> AsyncIterator[Server]:
    async with serving(path / "books.db", {"b": QUERIES}, make_app=app_of) as found:
        for owner, title in (("ada", "A"), ("ada", "B"), ("bob", "C")):
            found.write("INSERT INTO book (owner, title) VALUES (?, ?)", owner, title)
        for name in ("ada", "bob"):
            found.write("INSERT INTO keyholder (name, key, level) VALUES (?, ?, 0)", name, f"key-{name}")
        yield found


async def read(server: Server, name: str, /, headers: dict[str, str] | None = None, **input: str) -> Any:
    response = await server.client.get(f"/rpc/b.{name}", params=input, headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


def varied_by(response: httpx.Response) -> set[str]:
    """Return the names in `Vary`; the middleware for CORS adds `Origin` to each answer."""
    return {name.strip().lower() for name in response.headers["vary"].split(",")}


@pytest.mark.parametrize("name", GREETERS)
async def test_a_dependency_that_sees_no_request_runs_with_the_handler_alone(server: Server, name: str) -> None:
    """On a miss, by both spellings; a hit calls neither."""
    for _ in range(3):
        assert await read(server, name, name="ada") == "hello adaAB"
    assert (RUNS.of("greeter"), RUNS.of("handler")) == (1, 1)
    server.write("INSERT INTO book (owner, title) VALUES ('ada', 'Z')")
    assert await read(server, name, name="ada") == "hello adaABZ"
    assert (RUNS.of("greeter"), RUNS.of("handler")) == (2, 2)


@pytest.mark.parametrize("name", ["in_language", "in_language_sync"])
async def test_headers_are_part_of_the_key(server: Server, name: str) -> None:
    """Each value has its own result, and nothing of the request but the declared header tells callers apart."""
    for _ in range(2):
        assert await read(server, name, {"accept-language": "de-DE", "x-other": "1"}, name="ada") == "de:A,B"
        assert await read(server, name, {"accept-language": "fr-FR", "x-other": "2"}, name="ada") == "fr:A,B"
        assert await read(server, name, {"accept-language": "de-DE", "x-other": "3"}, name="ada") == "de:A,B"
    assert (RUNS.of("language"), RUNS.of("handler")) == (2, 2)


async def test_cookies_are_part_of_the_key_each_by_its_name(server: Server) -> None:
    """Another cookie of the same header changes nothing."""
    assert await read(server, "in_theme", {"cookie": "a=1; theme=dark; b=2"}) == "dark:3"
    assert await read(server, "in_theme", {"cookie": "theme=dark; session=xyz"}) == "dark:3"
    assert RUNS.of("handler") == 1
    assert await read(server, "in_theme", {"cookie": "themes=dark"}) == "light:3"
    assert await read(server, "in_theme") == "light:3"
    assert RUNS.of("handler") == 2


@pytest.mark.parametrize("name", ["mine", "mine_sync"])
async def test_security_schemes_are_part_of_the_key(server: Server, name: str) -> None:
    """Two callers never share what one of them may see."""
    for _ in range(2):
        assert await read(server, name, {"x-api-key": "key-ada"}) == ["A", "B"]
        assert await read(server, name, {"x-api-key": "key-bob"}) == ["C"]
    assert (RUNS.of("account"), RUNS.of("handler")) == (2, 2)


async def test_a_cookie_scheme_and_security_are_taken_as_depends(server: Server) -> None:
    """`Security(...)` is `Depends(...)` with scopes, which `SecurityScopes` tells."""
    assert await read(server, "by_session", {"cookie": "session=one"}) == "one:3"
    assert await read(server, "by_session", {"cookie": "session=two"}) == "two:3"
    assert await read(server, "by_scopes", {"authorization": "Bearer t"}) == "t:books:3"
    refused = await server.client.get("/rpc/b.by_session")
    assert error_of(refused)["code"] in ("FORBIDDEN", "UNAUTHORIZED")
    refused = await server.client.get("/rpc/b.by_scopes")
    assert error_of(refused)["code"] == "UNAUTHORIZED"
    assert refused.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("name", ["mine", "my_level"])
async def test_what_a_dependency_reads_counts_as_read(server: Server, name: str) -> None:
    """It is given the handler's own session, and `get_db` is never called."""
    await read(server, name, {"x-api-key": "key-ada"})
    await read(server, name, {"x-api-key": "key-ada"})
    assert RUNS.of("handler") == 1
    server.write("UPDATE keyholder SET level = 1 WHERE name = 'ada'")
    await read(server, name, {"x-api-key": "key-ada"})
    assert RUNS.of("handler") == 2
    server.write("UPDATE keyholder SET level = 1 WHERE name = 'bob'")
    await read(server, name, {"x-api-key": "key-ada"})
    assert RUNS.of("handler") == 2


@pytest.mark.parametrize("name", ["on_shelf", "on_shelf_sync"])
async def test_a_class_that_takes_the_session_gets_ours(server: Server, name: str) -> None:
    """Also where the handler itself takes none: what it reads by it counts."""
    assert await read(server, name, owner="ada") == ["A", "B"]
    server.write("UPDATE book SET title = 'D' WHERE title = 'C'")
    assert await read(server, name, owner="ada") == ["A", "B"]
    assert RUNS.of("handler") == 1
    server.write("UPDATE book SET title = 'E' WHERE title = 'A'")
    assert await read(server, name, owner="ada") == ["B", "E"]


async def test_classes_are_called_and_values_shared_as_fastapi_does(server: Server) -> None:
    """One call a function, unless it says `use_cache=False`; a class may declare headers in its fields."""
    assert await read(server, "counted") == 6
    assert RUNS.of("one") == 1
    assert await read(server, "counted_alone") == 5
    assert RUNS.of("one") == 3
    assert await read(server, "by_pages", {"x-limit": "20"}) == 23
    assert await read(server, "by_pages") == 13
    wrong = await server.client.get("/rpc/b.by_pages", headers={"x-limit": "many"})
    assert error_of(wrong)["code"] == "BAD_REQUEST"
    assert "x-limit" in error_of(wrong)["message"]


@pytest.mark.parametrize("name", ["kept", "kept_sync"])
async def test_yield_dependencies_end_before_the_answer_is_stored(server: Server, name: str) -> None:
    """Generators and async generators, for both sorts of handlers; a hit runs none."""
    await read(server, name)
    noted = list(RUNS.noted)
    assert noted.index("handler") < noted.index("end")
    assert noted.count("begin") == noted.count("end")
    await read(server, name)
    assert RUNS.noted == noted


async def test_what_a_dependency_refuses_is_an_outcome_like_the_handlers(server: Server) -> None:
    """An `HTTPException` has its code and its headers; an `RPCError` its code. Both are kept until rows change."""
    for _ in range(2):
        refused = await server.client.get("/rpc/b.mine", headers={"x-api-key": "key-eve"})
        assert error_of(refused)["code"] == "UNAUTHORIZED"
        assert refused.headers["www-authenticate"] == "Key"
    assert RUNS.of("account") == 1
    server.write("INSERT INTO keyholder (name, key, level) VALUES ('eve', 'key-eve', 0)")
    assert await read(server, "mine", {"x-api-key": "key-eve"}) == []
    refused = await server.client.get("/rpc/b.mine_sync", headers={"x-api-key": "key-mallory"})
    assert error_of(refused)["code"] == "NOT_FOUND"


async def test_a_dependency_that_refuses_at_its_end_is_the_outcome(server: Server) -> None:
    """A query answers it, and a mutation writes nothing."""
    refused = await server.client.get("/rpc/b.read_refused")
    assert error_of(refused)["code"] == "CONFLICT"
    refused = await server.call("b.add_refused", {"title": "X"})
    assert error_of(refused)["code"] == "CONFLICT"
    assert server.rows("SELECT count(*) FROM book WHERE title = 'X'") == [(0,)]


async def test_a_dependency_that_keeps_an_error_back_is_told_of(server: Server) -> None:
    """There is no result then, and nobody is given another in its place."""
    refused = await server.client.get("/rpc/b.lost")
    assert error_of(refused)["code"] == "INTERNAL_SERVER_ERROR"
    assert RUNS.of("kept back") == 1


@pytest.mark.parametrize("name", ["seen", "seen_sync"])
async def test_an_uncached_query_sees_all_of_the_request(server: Server, name: str) -> None:
    """And what is set on the response goes with its answer."""
    response = await server.client.get(f"/rpc/b.{name}", params={"name": "n"}, headers={"x-marked": "m"})
    assert response.json() == "GET:n:m"
    assert response.headers["x-page"] == "1"
    assert response.cookies["seen"] == "yes"
    assert response.headers["content-length"] == str(len(response.content))


async def test_an_uncached_query_calls_dependencies_each_time(server: Server) -> None:
    """It may leave work in the background, and set the status."""
    for number in (1, 2):
        response = await server.client.get("/rpc/b.uncached", params={"name": "ada"}, headers={"accept-language": "de"})
        assert (response.status_code, response.json()) == (203, "de:A,B")
        assert (RUNS.of("language"), RUNS.of("handler"), RUNS.of("background")) == (number, number, number)


async def test_a_mutation_sees_all_of_the_request_in_its_transaction(server: Server) -> None:
    """Its dependencies share its session; background tasks run after the commit, and not at all without one."""
    done = await server.call("b.add", {"owner": "ada", "title": "New"}, **{"accept-language": "de"})
    assert done.json() == "de:NEW:POST:3"
    assert RUNS.of("background") == 1
    refused = await server.call("b.add", {"owner": "ada", "title": "refused"})
    assert error_of(refused)["code"] == "NOT_FOUND"
    assert RUNS.of("background") == 1
    done = await server.call("b.add_sync", {"owner": "bob", "title": "New"})
    assert done.json() == 2
    assert RUNS.of("background") == 2


async def test_what_a_yield_dependency_writes_at_its_end_is_committed(server: Server) -> None:
    """It is part of the mutation's transaction."""
    done = await server.call("b.add_audited", {"owner": "ada", "title": "New"})
    assert done.status_code == 200, done.text
    assert server.rows("SELECT owner FROM book WHERE title IN ('New', 'done') ORDER BY id") == [("ada",), ("audit",)]


async def test_an_answer_says_what_it_varies_by(server: Server) -> None:
    """`Vary` names the headers, with a result, a 304 and an error, beside those of middlewares."""
    there = {"origin": "https://there.test"}
    answer = await server.client.get("/rpc/b.in_language", params={"name": "ada"}, headers=there)
    assert varied_by(answer) == {"accept-language", "origin"}
    assert answer.headers["cache-control"] == "private, no-cache"
    again = await server.client.get(
        "/rpc/b.in_language", params={"name": "ada"}, headers={"if-none-match": answer.headers["etag"]}
    )
    assert (again.status_code, varied_by(again)) == (304, {"accept-language", "origin"})
    themed = await server.client.get("/rpc/b.in_theme")
    assert varied_by(themed) == {"cookie", "origin"}
    refused = await server.client.get("/rpc/b.mine", headers={"x-api-key": "no"})
    assert varied_by(refused) == {"x-api-key", "origin"}
    assert varied_by(await server.client.get("/rpc/b.greet", params={"name": "ada"})) == {"origin"}


async def test_a_proxy_that_keeps_by_vary_gives_each_caller_their_own(server: Server) -> None:
    """RFC 9111: what is stored is revalidated, and chosen by the headers that `Vary` names."""
    stored: dict[tuple[str | None, ...], tuple[str, Any]] = {}

    async def through_proxy(headers: dict[str, str]) -> Any:
        key = tuple(headers.get(name) for name in ("accept-language",))
        asked = dict(headers) | ({"if-none-match": stored[key][0]} if key in stored else {})
        answer = await server.client.get("/rpc/b.in_language", params={"name": "ada"}, headers=asked)
        assert varied_by(answer) == {"accept-language", "origin"}
        if answer.status_code == 304:
            return stored[key][1]
        stored[key] = answer.headers["etag"], answer.json()
        return answer.json()

    for _ in range(2):
        assert await through_proxy({"accept-language": "de"}) == "de:A,B"
        assert await through_proxy({"accept-language": "fr"}) == "fr:A,B"


async def test_a_context_var_of_the_application_is_hidden_from_dependencies(server: Server) -> None:
    """It is in no key: the read fails loudly, whoever asks."""
    for who in ("ada", "bob"):
        refused = await server.client.get("/rpc/b.leaking", headers={"x-user": who})
        assert error_of(refused)["code"] == "INTERNAL_SERVER_ERROR"


async def test_a_security_scheme_of_ones_own_sees_its_header_alone(server: Server) -> None:
    """Neither other headers, nor cookies, nor the state of the request are there to be read."""
    headers = {"authorization": "Bearer t", "x-marked": "secret", "x-user": "ada", "cookie": "a=1"}
    assert await read(server, "snooped", headers) == 3
    assert RUNS.noted == ["snooped None None", "[] [] None"]


async def test_nothing_stays_in_a_thread(server: Server) -> None:
    """A plain dependency runs in a thread of its own: the next call finds nothing there."""
    assert [await read(server, "by_thread", number=str(number)) for number in range(3)] == ["nobody:3"] * 3


async def test_overrides_of_the_application_count_and_nobody_gets_a_result_made_without_them(server: Server) -> None:
    """Neither while they hold, nor afterwards; the header that the other function declares is in the key."""
    german = {"accept-language": "de"}
    assert await read(server, "in_language", german, name="ada") == "de:A,B"
    server.app.dependency_overrides[language] = tongue
    assert await read(server, "in_language", german, name="ada") == "la:A,B"
    assert await read(server, "in_language", {"x-tongue": "gr"}, name="ada") == "gr:A,B"
    assert await read(server, "in_language", german, name="ada") == "la:A,B"
    server.app.dependency_overrides[language] = lambda: "xx"
    assert await read(server, "in_language", german, name="ada") == "xx:A,B"
    in_process: Any = server.rpc.caller()
    assert await in_process(in_language, name="ada") == "xx:A,B"
    server.app.dependency_overrides.clear()
    assert await read(server, "in_language", german, name="ada") == "de:A,B"


async def test_an_override_that_no_key_could_hold_is_refused(server: Server) -> None:
    """As a definition would be: a cached query never sees the whole request."""

    def whole(request: Request) -> str:
        return request.headers.get("x-user", "")

    server.app.dependency_overrides[language] = whole
    refused = await server.client.get("/rpc/b.in_language", params={"name": "ada"})
    assert error_of(refused)["code"] == "INTERNAL_SERVER_ERROR"


async def test_a_caller_replaces_dependencies_in_its_own_calls(server: Server) -> None:
    """Others, and other callers, get nothing of it; `rpc.overrides` is for all calls."""
    call: Any = server.rpc.caller(overrides={language: lambda: "zz"})
    assert await call(in_language, name="ada") == "zz:A,B"
    assert await call(in_language, name="ada") == "zz:A,B"
    assert RUNS.of("handler") == 1
    others: Any = server.rpc.caller()
    assert await others(in_language, name="ada") == "en:A,B"
    assert await read(server, "in_language", name="ada") == "en:A,B"
    server.rpc.overrides[language] = lambda: "all"
    assert await read(server, "in_language", name="ada") == "all:A,B"
    assert await call(in_language, name="ada") == "zz:A,B"
    server.rpc.overrides.clear()
    assert await read(server, "in_language", name="ada") == "en:A,B"


async def test_a_caller_replaces_steps_too(tmp_path: Path) -> None:
    """Also those with a session, of which outcomes are kept: others are never given those."""

    async def none(ctx: Login, db: AsyncSession) -> Member:
        return Member(identity=ctx.identity, level=(await db.exec(select(KeyHolder.level))).first() or 0)

    async def best(ctx: Login, db: AsyncSession) -> Member:
        RUNS.note("best")
        await db.exec(select(KeyHolder))
        return Member(identity=ctx.identity, level=9)

    async def of_another(ctx: Login) -> Login:
        return ctx

    @define.use(none).query
    async def level(db: AsyncSession, ctx: Member) -> int:
        return ctx.level + 10 * len((await db.exec(select(Book))).all())

    @define.use(none).mutation
    async def raise_level(ctx: Member) -> int:
        return ctx.level

    async def who(x_user: Annotated[str, Header()]) -> Login:
        return Login(identity=x_user)

    functions = {"b": {"level": level, "raise_level": raise_level}}
    async with serving(tmp_path / "x.db", functions, context=who) as server:
        ada = Login(identity="ada")
        call: Any = server.rpc.caller(ada, overrides={none: best})
        assert [await call(level), await call(level), await call(raise_level)] == [9, 9, 9]
        assert RUNS.of("best") == 2
        assert await server.rpc.caller(ada)(level) == 0
        assert await read(server, "level", {"x-user": "ada"}) == 0
        server.rpc.overrides[none] = best
        assert await read(server, "level", {"x-user": "ada"}) == 9
        with pytest.raises(DefinitionError, match="cannot stand in the place of"):
            await server.rpc.caller(ada, overrides={none: of_another})(level)


async def test_in_process_there_is_no_header_and_the_error_says_so(server: Server) -> None:
    """A default of the header holds; a header, or a request, that is needed is an error with the way out."""
    call: Any = server.rpc.caller()
    assert await call(in_language, name="ada") == "en:A,B"
    with pytest.raises(BadRequestError, match="a call in this process has none"):
        await call(seen)
    needed: Any = server.rpc.caller(overrides={language: needed_tongue})
    with pytest.raises(BadRequestError, match=r"x-tongue.*overrides"):
        await needed(in_language, name="ada")
    assert await call(add_sync, owner="ada", title="New") == 3
    assert RUNS.of("background") == 1
    with pytest.raises(TypeError, match="'lang' is a dependency"):
        await call(in_language, name="ada", lang="de")


async def test_dependencies_are_no_inputs_and_are_documented(server: Server) -> None:
    """Their headers, cookies and security schemes stand at the operation."""
    document = (await server.client.get("/openapi.json")).json()
    operation = document["paths"]["/rpc/b.in_language"]["get"]
    assert {(each["in"], each["name"]) for each in operation["parameters"]} == {
        ("query", "name"),
        ("header", "accept-language"),
    }
    operation = document["paths"]["/rpc/b.mine"]["get"]
    assert operation["security"] == [{"APIKeyHeader": []}]
    operation = document["paths"]["/rpc/b.by_scopes"]["get"]
    assert operation["security"] == [{"OAuth2PasswordBearer": ["books"]}]
    body = document["paths"]["/rpc/b.add"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(document["components"]["schemas"][body["$ref"].rpartition("/")[2]]["properties"]) == {"owner", "title"}
    refused = await server.client.get("/rpc/b.in_language", params={"name": "ada", "lang": "de"})
    assert error_of(refused)["code"] == "BAD_REQUEST"


async def test_the_session_of_a_default_is_ours_too() -> None:
    """`db: AsyncSession = Depends(get_db)` is the session, and a context by Depends is a dependency."""

    async def who(x_user: Annotated[str, Header()]) -> Login:
        return Login(identity=x_user)

    @define
    async def spelled(db: AsyncSession = Depends(get_db), me: Login = Depends(who)) -> str:  # noqa: B008
        return ""

    assert spelled.handler.session is AsyncSession
    assert spelled.handler.context is None
    assert spelled.plans is not None
    assert spelled.plans.plain.headers == {"x-user"}


async def test_a_plain_dependency_of_a_coroutine_reads_by_the_sync_side(tmp_path: Path) -> None:
    """One session, and what it reads counts."""
    async with serving(tmp_path / "x.db", {"b": {"first_name": first_name}}) as server:
        server.write("INSERT INTO keyholder (name, key, level) VALUES ('ada', 'k', 0)")
        assert await read(server, "first_name") == "ada"
        server.write("UPDATE keyholder SET name = 'eve'")
        assert await read(server, "first_name") == "eve"
        assert RUNS.of("handler") == 2


def test_two_session_classes_that_none_can_be_are_refused() -> None:
    """There is one session a call."""
    with pytest.raises(DefinitionError, match="they are given one session"):
        define(of_two_sessions)


IN_LANGUAGE = {"queries": [{"path": "b.in_language", "input": {"name": "ada"}}]}


def test_a_stream_watches_with_its_own_headers(tmp_path: Path) -> None:
    """Each is sent the result for its headers, also after a write, and with those that a ticket carries."""
    functions = {"b": {"in_language": define(cache=Cache(push="result"))(in_language.function), "add": add_sync}}
    with running(app_of(rpc_on(tmp_path / "x.db", functions))) as url:

        def write(title: str) -> None:
            given = {"owner": "ada", "title": title}
            assert httpx.post(f"{url}/rpc/b.add", json=given, timeout=DEADLINE_SECONDS).status_code == 200

        named = httpx.post(f"{url}/rpc/events/sets", json=IN_LANGUAGE, timeout=DEADLINE_SECONDS).json()["set"]
        ticket = httpx.post(
            f"{url}/rpc/events/ticket", json={}, headers={"accept-language": "it"}, timeout=DEADLINE_SECONDS
        ).json()["ticket"]
        with (
            heard(url, json=IN_LANGUAGE, headers={"accept-language": "de"}) as german,
            heard(url, json=IN_LANGUAGE, headers={"accept-language": "fr"}) as french,
            heard(f"{url}/rpc/events?set={named}&ticket={ticket}", "GET") as italian,
        ):
            streams = {"de": german, "fr": french, "it": italian}
            for stream in streams.values():
                assert stream.next()[0] == "connected"
            write("A")
            for language, stream in streams.items():
                name, data, _ = stream.next()
                assert (name, data["data"]) == ("result", f"{language}:A")
