"""Streamed queries: lines of JSON of one snapshot, for as long as client and right last; on both databases."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, aclosing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import httpx
import psycopg
import pytest
from fastapi import Depends, Header
from sqlmodel import Field, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import (
    DefinitionError,
    ForbiddenError,
    Login,
    NotFoundError,
    ReactiveRPC,
    RPCError,
    ServiceUnavailableError,
    UnauthorizedError,
    current_caller,
    define_reactive_function,
)
from reactive_rpc.procedures import execution
from reactive_rpc.procedures.rights import RightGuard
from reactive_rpc.testing import running
from reactive_rpc.testing.postgresql import PostgreSQLServer
from reactive_rpc.web.streams import streamed_calls
from tests.support.waiting import idle, wait_until

from . import postgresql_rooms
from .rooms import Base, Note, app_of, error_of, opened, rpc_on, serving, write
from .streams import DEADLINE_SECONDS
from .yielding import SEEN, get_login, noted

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("seen")]


class Keeper(Base, table=True):
    name: str = Field(primary_key=True)


@dataclass(frozen=True, kw_only=True)
class Member(Login):
    pass


async def keeper(ctx: Login, db: AsyncSession) -> Member:
    if await db.get(Keeper, ctx.identity) is None:
        raise ForbiddenError("for keepers")
    return Member(identity=ctx.identity)


@define_reactive_function.wrap(noted).query(cache=False, public=True)
async def export(db: AsyncSession, fault: str = "", after: int = 0) -> AsyncIterator[Note]:
    """All notes."""
    if fault and not after:
        raise NotFoundError("no such room")
    try:
        count = 0
        async for row in await db.stream_scalars(select(Note).order_by(col(Note.id))):
            yield row
            count += 1
            if fault == "refused" and count == after:
                raise NotFoundError("gone meanwhile")
            if fault == "accident" and count == after:
                raise ValueError("the password is hunter2")
    finally:
        SEEN.append("export ended")


@define_reactive_function.use(keeper).query(cache=False)
async def guarded(db: AsyncSession, ctx: Member, count: int, size: int = 1) -> AsyncIterator[str]:
    """Texts for keepers."""
    try:
        for number in range(count):
            SEEN.append(f"made {number}")
            yield f"{number} ".ljust(size, "x")
    finally:
        SEEN.append("guarded ended")


@define_reactive_function.query(cache=False, public=True)
async def objects(db: AsyncSession) -> AsyncIterator[dict[str, int]]:
    """Values that look like errors, and a wrong one."""
    yield {"error": 1}
    yield {"errors": 2}
    yield {"error": "three"}  # type: ignore[dict-item]  # refused at run time, too


@define_reactive_function.query(public=True)
async def count(db: AsyncSession) -> int:
    return len((await db.exec(select(Note.id))).all())


@define_reactive_function.query(cache=False)
async def counted(ctx: Login) -> AsyncIterator[int]:
    """Read by other queries."""
    yield await current_caller()(count)


def newest(session: Annotated[AsyncSession, Depends(lambda: None)]) -> int:
    SEEN.append("session")
    return id(session)


def held(x_name: Annotated[str, Header()] = "nobody") -> Iterator[str]:
    try:
        yield x_name
    finally:
        SEEN.append("let go")


@define_reactive_function.query(cache=False, public=True)
async def by_dependencies(
    db: AsyncSession, of_session: Annotated[int, Depends(newest)], name: Annotated[str, Depends(held)]
) -> AsyncIterator[str]:
    SEEN.append("yields")
    yield f"{name} {of_session == id(db)}"


FUNCTIONS = {
    "s": {
        "export": export,
        "guarded": guarded,
        "objects": objects,
        "count": count,
        "counted": counted,
        "by": by_dependencies,
    },
}
ADA = {"authorization": "Bearer ada"}


@dataclass(frozen=True)
class Database:
    """A database of a test's own, and somebody else who writes to it."""

    kind: str
    where: str

    def rpc(self, **settings: Any) -> ReactiveRPC:
        """Return the procedures on it, with few connections and no rechecks."""
        settings = {"recheck_seconds": 3600, "pool_size": 4, "pool_timeout_seconds": 5, **settings}
        if self.kind == "sqlite":
            return rpc_on(Path(self.where), FUNCTIONS, context=get_login, settings=settings)
        url = postgresql_rooms.with_driver(self.where, self.kind)
        return postgresql_rooms.rpc_on(url, FUNCTIONS, context=get_login, settings=settings)

    def write(self, *statements: str) -> None:
        """Write in one transaction."""
        if self.kind == "sqlite":
            write(Path(self.where), *statements)
            return
        with psycopg.connect(postgresql_rooms.with_driver(self.where, "postgresql")) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def add_notes(self, count: int) -> None:
        """Add notes, numbered from 0."""
        self.write(*(f"INSERT INTO note(tenant, room, text) VALUES ('t', 'a', '{number}')" for number in range(count)))


@pytest.fixture(params=["sqlite", *postgresql_rooms.DRIVERS])
def database(request: pytest.FixtureRequest, file: Path) -> Database:
    """Return each of them."""
    if request.param == "sqlite":
        return Database("sqlite", str(file))
    return Database(request.param, request.getfixturevalue("postgresql_url"))


@pytest.fixture
def url(database: Database) -> Iterator[str]:
    with running(app_of(database.rpc())) as url:
        database.write("INSERT INTO keeper VALUES ('ada')")
        yield url


@contextmanager
def lines_of(
    url: str, name: str, method: str = "GET", **request: Any
) -> Iterator[tuple[httpx.Response, Iterator[str]]]:
    """Begin a streamed query."""
    with httpx.stream(method, f"{url}/rpc/s.{name}", timeout=DEADLINE_SECONDS, **request) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"] == "application/jsonl"
        assert "no-store" in response.headers["cache-control"]
        yield response, response.iter_lines()


def rest_of(lines: Iterator[str]) -> list[Any]:
    """Return the values that come until the connection is cut, which it must be."""
    found: list[Any] = []
    with pytest.raises(httpx.RemoteProtocolError):
        found.extend(map(json.loads, lines))
    return found


def test_each_value_is_a_line(database: Database, url: str) -> None:
    """Of rows as they come from the database; nothing of it is kept."""
    database.add_notes(300)
    for method in ("GET", "POST"):
        with lines_of(url, "export", method, **({"json": {}} if method == "POST" else {})) as (response, lines):
            assert [json.loads(line)["text"] for line in lines] == [str(number) for number in range(300)]
            assert "etag" not in response.headers
    wait_until(lambda: SEEN == ["export ended", "query s.export handler"] * 2, lambda: str(SEEN))


def test_no_row_is_no_line(url: str) -> None:
    """And the whole answer."""
    with lines_of(url, "export") as (_, lines):
        assert list(lines) == []


def test_they_are_one_snapshot(database: Database, url: str) -> None:
    """What others write meanwhile is not among them."""
    database.add_notes(2000)
    with lines_of(url, "export") as (_, lines):
        assert json.loads(next(lines))["text"] == "0"
        database.write("UPDATE note SET text = 'late ' || text WHERE id > 1000")
        assert not any("late" in line for line in lines)


@pytest.mark.parametrize(("request_", "status", "code"), [
    ({"params": {"fault": "refused"}}, 404, "NOT_FOUND"),
    ({"params": {"x": "1"}}, 400, "BAD_REQUEST"),
])  # fmt: skip
def test_a_failure_before_the_first_value_has_a_status(
    url: str, request_: dict[str, Any], status: int, code: str
) -> None:
    """An ordinary answer."""
    answer = httpx.get(f"{url}/rpc/s.export", **request_)
    assert (answer.status_code, error_of(answer)["code"]) == (status, code)


@pytest.mark.parametrize(("fault", "code"), [("refused", "NOT_FOUND"), ("accident", "INTERNAL_SERVER_ERROR")])
def test_a_failure_after_it_is_the_last_line(database: Database, url: str, fault: str, code: str) -> None:
    """And the connection is cut, so that nobody takes what came for the whole."""
    database.add_notes(5)
    with lines_of(url, "export", params={"fault": fault, "after": 3}) as (_, lines):
        *values, last = rest_of(lines)
    assert [value["text"] for value in values] == ["0", "1", "2"]
    assert last["error"]["code"] == code
    assert "hunter2" not in json.dumps(last)


def test_a_value_is_told_from_an_error(url: str) -> None:
    """By its first character: a space, which JSON does not count."""
    with lines_of(url, "objects") as (response, _):
        found: list[bytes] = []
        with pytest.raises(httpx.RemoteProtocolError):
            found.extend(response.iter_raw())
    first, second, last = b"".join(found).splitlines()
    assert (first, second) == (b' {"error":1}', b'{"errors":2}')
    assert last.startswith(b'{"error":{"code":"INTERNAL_SERVER_ERROR"')


def test_a_lost_right_ends_it(database: Database, url: str) -> None:
    """Before the next value; who never had it is refused."""
    assert httpx.get(f"{url}/rpc/s.guarded?count=1").status_code == 401
    eve = httpx.get(f"{url}/rpc/s.guarded?count=1", headers={"authorization": "Bearer eve"})
    assert eve.status_code == 403
    # Each value is larger than what lies between server and client.
    asked: dict[str, Any] = {"params": {"count": 40, "size": 4_000_000}, "headers": ADA}
    with lines_of(url, "guarded", **asked) as (_, lines):
        next(lines)
        database.write("DELETE FROM keeper")
        *values, last = rest_of(lines)
    assert len(values) < 30
    assert last["error"]["code"] == "FORBIDDEN"
    wait_until(lambda: SEEN[-1] == "guarded ended")


def test_a_client_that_goes_ends_its_handler(database: Database, url: str) -> None:
    """And gives its connection back: more clients go than there are connections."""
    database.add_notes(5000)
    for gone in range(1, 11):
        with lines_of(url, "export") as (_, lines):
            next(lines)
        wait_until(lambda: SEEN.count("export ended") == gone, lambda: str(SEEN))  # noqa: B023  # waited for right here
    assert httpx.get(f"{url}/rpc/s.count").json() == 5000


def test_a_client_that_takes_nothing_is_given_up(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it holds no connection of the database for ever."""
    monkeypatch.setattr(streamed_calls, "READER_STALLED_SECONDS", 0.2)
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((host, int(port)))
        connection.sendall(
            b"GET /rpc/s.guarded?count=100&size=1000000 HTTP/1.1\r\nhost: t\r\nauthorization: Bearer ada\r\n\r\n"
        )
        wait_until(lambda: "guarded ended" in SEEN)
    assert len(SEEN) < 60


@contextmanager
def deaf(url: str, who: str) -> Iterator[None]:
    """Ask for a long answer, and take nothing of it."""
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((host, int(port)))
        request = (
            f"GET /rpc/s.guarded?count=100&size=1000000 HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {who}\r\n\r\n"
        )
        connection.sendall(request.encode())
        yield


def test_one_caller_does_not_take_every_connection(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller reads two at a time; all of them together half of the connections, and whoever waits is told so."""
    monkeypatch.setattr(execution, "STREAMED_WAIT_SECONDS", 0.2)
    rpc = database.rpc()
    places = int(rpc._executor._streamed_at_once.total_tokens)
    with running(app_of(rpc)) as url, ExitStack() as stack:
        names = ["ada", "ada", *(f"keeper-{number}" for number in range(2, places)), "bob"]
        database.write(*(f"INSERT INTO keeper VALUES ('{name}')" for name in set(names)))
        for name in names[:-1]:
            stack.enter_context(deaf(url, name))
        wait_until(lambda: SEEN.count("made 0") == places)
        for name, refusal in (("ada", (429, "TOO_MANY_REQUESTS")), ("bob", (503, "SERVICE_UNAVAILABLE"))):
            headers = {"authorization": f"Bearer {name}"}
            answer = httpx.get(f"{url}/rpc/s.guarded?count=1", headers=headers, timeout=DEADLINE_SECONDS)
            assert (answer.status_code, error_of(answer)["code"]) == refusal
        for _ in range(5):
            assert httpx.get(f"{url}/rpc/s.count", timeout=DEADLINE_SECONDS).status_code == 200
        stack.close()
        wait_until(lambda: SEEN.count("guarded ended") == places)
        ask = partial(httpx.get, f"{url}/rpc/s.guarded?count=1", headers=ADA, timeout=DEADLINE_SECONDS)
        wait_until(lambda: ask().status_code == 200)
        assert ask().text.splitlines() == ['"0 "']


def test_it_reads_by_its_caller(database: Database, url: str) -> None:
    """Other queries, on behalf of the same."""
    database.add_notes(3)
    with lines_of(url, "counted", headers=ADA) as (_, lines):
        assert list(lines) == ["3"]


def test_it_takes_dependencies(url: str) -> None:
    """Of headers, with its own session, and with an end."""
    with lines_of(url, "by", headers={"x-name": "ada"}) as (_, lines):
        assert [json.loads(line) for line in lines] == ["ada True"]
    wait_until(lambda: SEEN == ["session", "yields", "let go"], lambda: str(SEEN))


def test_it_is_documented(url: str) -> None:
    """By the schema of a value, as lines; its errors as JSON, which they are."""
    operation = httpx.get(f"{url}/openapi.json").json()["paths"]["/rpc/s.export"]["get"]
    assert operation["x-reactive-rpc"] == {"kind": "query", "path": "s.export", "streams": True}
    content = operation["responses"]["200"]["content"]
    assert list(content) == ["application/jsonl"]
    assert content["application/jsonl"]["schema"]["$ref"].endswith("/Note")
    errors = operation["responses"]["default"]["content"]
    assert list(errors) == ["application/json"]
    assert errors["application/json"]["schema"]["$ref"].endswith("/ErrorEnvelope")


def test_it_is_not_watched(url: str) -> None:
    """A stream that names it is told so, and others of its queries live."""
    body = {"queries": [{"path": "s.export"}, {"path": "s.count"}]}
    with httpx.stream("POST", f"{url}/rpc/events", json=body, headers=ADA, timeout=DEADLINE_SECONDS) as response:
        text = ""
        for chunk in response.iter_text():
            text += chunk
            if "s.export" in text and "\n\n" in text:
                break
    assert "PRECONDITION_FAILED" in text


async def exhaust(values: AsyncIterator[object]) -> None:
    """Take all there is, which ends by raising."""
    async for _ in values:
        await idle(0, because="the log is read in between")


async def test_in_this_process(file: Path) -> None:
    """Typed rows; leaving the loop ends the handler; a right is asked for before each value."""
    async with serving(file, FUNCTIONS, context=get_login) as server:
        server.write("INSERT INTO keeper VALUES ('ada')")
        server.write("INSERT INTO note(tenant, room, text) VALUES ('t', 'a', 'x'), ('t', 'a', 'y')")
        call = server.rpc.caller(Login(identity="ada"))
        assert [each.text async for each in call.stream(export)] == ["x", "y"]
        with pytest.raises(NotFoundError):
            await anext(call.stream(export, fault="refused"))
        async with aclosing(call.stream(guarded, count=10**9)) as values:
            assert await anext(values) == "0 "
            server.write("DELETE FROM keeper")
            with pytest.raises(ForbiddenError):
                await exhaust(values)
        assert SEEN[-1] == "guarded ended"
        with pytest.raises(DefinitionError, match=r"async for \.\.\. in call\.stream"):
            await call(export)  # type: ignore[call-overload]  # refused at run time, too


@pytest.mark.seeded_bug
async def test_a_guard_that_never_asks_is_found(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values go on long after the right is gone, which the test before would tell."""
    monkeypatch.setattr(RightGuard, "_holds", lambda self: True)
    async with serving(file, FUNCTIONS, context=get_login) as server:
        server.write("INSERT INTO keeper VALUES ('ada')")
        async with aclosing(server.rpc.caller(Login(identity="ada")).stream(guarded, count=10**9)) as values:
            await anext(values)
            server.write("DELETE FROM keeper")
            await server.client.get("/rpc/s.count")  # reads the log
            assert await anext(values)
            assert await anext(values)


async def test_a_revocation_asks_for_the_right_again(file: Path) -> None:
    """Whoever is told to go is asked for before the next value, if a step can say no."""
    revoked: list[str] = []

    def admitted(ctx: Login) -> None:
        if ctx.identity in revoked:
            raise UnauthorizedError("revoked")

    @define_reactive_function.use(admitted).query(cache=False)
    async def numbers(ctx: Login) -> AsyncIterator[int]:
        for number in range(10**9):
            yield number

    async with (
        serving(file, {"n": {"numbers": numbers}}, context=get_login) as server,
        aclosing(server.rpc.caller(Login(identity="ada")).stream(numbers)) as values,
    ):
        assert await anext(values) == 0
        revoked.append("ada")
        await server.rpc.revoke("ada")
        with pytest.raises(UnauthorizedError):
            await exhaust(values)


async def test_what_is_followed_ends_with_the_database(own_postgresql: PostgreSQLServer) -> None:
    """Nobody could tell any more whether the result, or the right to it, still holds: nothing looks fresh for ever."""
    database = Database(postgresql_rooms.DRIVERS[0], own_postgresql.new_database())
    rpc = database.rpc()
    async with opened(rpc, app_of):
        database.write("INSERT INTO keeper VALUES ('ada')")
        call = rpc.caller(Login(identity="ada"))
        async with aclosing(call.live(count)) as results, aclosing(call.stream(guarded, count=10**9)) as values:
            assert await anext(results) == 0
            assert await anext(values)
            own_postgresql.stop(how="kill")
            with pytest.raises(ServiceUnavailableError):
                await anext(results)
            with pytest.raises(RPCError):
                await exhaust(values)
