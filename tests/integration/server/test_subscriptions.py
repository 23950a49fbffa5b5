"""Subscriptions: values with ids as server-sent events, for as long as client, handler and right last."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Header, Request
from sqlmodel import Field, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import (
    DeclaredError,
    DefinitionError,
    ForbiddenError,
    Login,
    NotFoundError,
    ReactiveRPC,
    Tracked,
    UnauthorizedError,
    current_caller,
    define_reactive_function,
    rate_limit,
    tracked,
)
from reactive_rpc.testing import FakeClock, running
from tests.support.processes import Uvicorn
from tests.support.waiting import forever, until, wait_until

from .rooms import JSON, Base, Note, app_of, error_of, rpc_on, serving, write
from .streams import DEADLINE_SECONDS, Heard
from .yielding import SEEN, get_login, noted

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("seen")]


class Guest(Base, table=True):
    name: str = Field(primary_key=True)
    role: str


@dataclass(frozen=True, kw_only=True)
class Member(Login):
    role: str


class Full(DeclaredError, code="CONFLICT"):
    """room {room} is full"""

    room: str


async def member(ctx: Login, db: AsyncSession) -> Member:
    guest = await db.get(Guest, ctx.identity)
    if guest is None:
        raise ForbiddenError("for guests")
    return Member(identity=guest.name, role=guest.role)


members = define_reactive_function.use(member)


@members.query
async def texts(db: AsyncSession, ctx: Member, room: str) -> list[Note]:
    return list((await db.exec(select(Note).where(Note.room == room).order_by(Note.id))).all())  # type: ignore[arg-type]  # a column


@members.subscription
async def added(ctx: Member, room: str, last_event_id: str | None = None) -> AsyncIterator[Tracked[Note]]:
    """The notes of a room, and those that are added to it."""
    last = int(last_event_id or 0)
    try:
        async for notes in current_caller().live(texts, room=room):
            for note in notes:
                if (note.id or 0) > last:
                    last = note.id or 0
                    yield tracked(str(last), note)
    finally:
        SEEN.append("added ended")


@define_reactive_function.wrap(noted).subscription(public=True, raises=[Full])
async def numbers(upto: int, fault: str = "", last_event_id: str | None = None) -> AsyncIterator[Tracked[int]]:
    """Count, and fail in the end."""
    for number in range(int(last_event_id or 0) + 1, upto + 1):
        yield tracked(str(number), number)
    if fault == "declared":
        raise Full(room="a")
    if fault == "accident":
        raise ValueError("the password is hunter2")
    if fault == "no number":
        yield tracked("x", "x")  # type: ignore[arg-type]  # it is refused at run time, too
    if fault == "no id":
        yield 7  # type: ignore[misc]  # it is refused at run time, too


@define_reactive_function.subscription(public=True)
async def large(count: int, size: int) -> AsyncIterator[str]:
    """Texts that fill what stands between server and client."""
    try:
        for number in range(count):
            SEEN.append(f"made {number}")
            yield f"{number} ".ljust(size, "x")
    finally:
        SEEN.append("large ended")


@define_reactive_function.subscription(public=True)
async def silent() -> AsyncIterator[int]:
    """Say nothing."""
    try:
        await forever()
        yield 1
    finally:
        SEEN.append("silent ended")


@define_reactive_function.use(rate_limit(2)).subscription
async def limited() -> AsyncIterator[int]:
    yield 1


def language(accept_language: Annotated[str, Header()] = "en") -> str:
    return accept_language


def address(request: Request) -> str:
    return request.url.path


def held() -> Iterator[str]:
    SEEN.append("held")
    try:
        yield "held"
    finally:
        SEEN.append("let go")


@define_reactive_function.subscription(public=True)
async def by_dependencies(
    request: Request,
    spoken: Annotated[str, Depends(language)],
    path: Annotated[str, Depends(address)],
    what: Annotated[str, Depends(held)],
    count: int,
) -> AsyncIterator[str]:
    for _ in range(count):
        SEEN.append("yields")
        yield f"{spoken} {path} {what} {request.method}"


def machine(x_machine: Annotated[str, Header()]) -> Login:
    return Login(identity=f"machine {x_machine}")


@define_reactive_function.context(machine).subscription
async def of_machine(ctx: Login) -> AsyncIterator[str]:
    yield str(ctx.identity)


@define_reactive_function.mutation(public=True)
async def add(db: AsyncSession, room: str, text: str) -> Note:
    note = Note(room=room, text=text)
    db.add(note)
    return note


FUNCTIONS = {
    "s": {
        "texts": texts,
        "added": added,
        "numbers": numbers,
        "large": large,
        "silent": silent,
        "limited": limited,
        "of_machine": of_machine,
        "add": add,
        "by_dependencies": by_dependencies,
    }
}
ADA = {"authorization": "Bearer ada"}


def rpc_with(file: Path, **options: Any) -> ReactiveRPC:
    return rpc_on(file, FUNCTIONS, **{"context": get_login, **options})


def note(text: str, room: str = "a") -> str:
    return f"INSERT INTO note(tenant, room, text) VALUES ('t', '{room}', '{text}')"


class Values(Heard):
    """A subscription that is open: its values are of any kind."""

    def next(self) -> tuple[str, Any, str]:
        """Return the next event."""
        return super().next()


@contextmanager
def subscribed(url: str, name: str, method: str = "GET", **request: Any) -> Iterator[Values]:
    """Open a subscription."""
    with httpx.stream(method, f"{url}/rpc/s.{name}", timeout=DEADLINE_SECONDS, **request) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        assert "no-store" in response.headers["cache-control"]
        yield Values(response)


@pytest.fixture
def url(file: Path) -> Iterator[str]:
    rpc = rpc_with(file, settings={"recheck_seconds": 3600})
    with running(app_of(rpc)) as url:
        write(file, "INSERT INTO guest VALUES ('ada', 'reader'), ('bob', 'reader')")
        yield url


def test_values_are_events_with_ids(url: str) -> None:
    """They have no name, so that `EventSource.onmessage` takes them; the handler's end is told."""
    with subscribed(url, "numbers", params={"upto": 2}) as stream:
        assert stream.next() == ("message", 1, "1")
        assert stream.next() == ("message", 2, "2")
        assert stream.next()[:2] == ("ended", None)
        assert stream.rest() == []
    raw = httpx.get(f"{url}/rpc/s.numbers?upto=1").text
    assert raw.startswith("retry: ")
    assert raw.endswith("\n\nid: 1\ndata: 1\n\nevent: ended\ndata: null\n\n")
    wait_until(lambda: SEEN == ["subscription s.numbers handler"] * 2, lambda: f"the wrapper saw {SEEN}")


@pytest.mark.parametrize("request_", [
    ("GET", {"params": {"upto": 4}, "headers": {"last-event-id": "2"}}),
    ("GET", {"params": {"upto": 4, "last_event_id": "2"}}),
    ("GET", {"params": {"upto": 4, "last_event_id": "1"}, "headers": {"last-event-id": "2"}}),
    ("POST", {"json": {"upto": 4, "last_event_id": "2"}}),
    ("POST", {"json": {"upto": 4}, "headers": {"last-event-id": "2"}}),
])  # fmt: skip
def test_a_client_that_comes_back_names_its_last_id(url: str, request_: tuple[str, dict[str, Any]]) -> None:
    """By the header, which browsers send, or as an input; the header is the later one."""
    with subscribed(url, "numbers", request_[0], **request_[1]) as stream:
        assert [stream.next()[1], stream.next()[1]] == [3, 4]
        assert stream.next()[0] == "ended"


@pytest.mark.parametrize(("fault", "code", "type", "says"), [
    ("declared", "CONFLICT", "Full", "room a is full"),
    ("accident", "INTERNAL_SERVER_ERROR", None, "something went wrong"),
    ("no number", "INTERNAL_SERVER_ERROR", None, "numbers returned what its annotation does not allow"),
    ("no id", "INTERNAL_SERVER_ERROR", None, "says that it yields tracked(id, data)"),
])  # fmt: skip
def test_a_failure_is_the_last_event(url: str, fault: str, code: str, type: str | None, says: str) -> None:
    """It is an error's envelope, and tells nothing of an accident."""
    with subscribed(url, "numbers", params={"upto": 1, "fault": fault}) as stream:
        assert stream.next()[1] == 1
        name, data, _ = stream.next()
        assert name == "failed"
        assert (data["error"]["code"], data["error"]["type"]) == (code, type)
        assert says in data["error"]["message"]
        assert "hunter2" not in json.dumps(data)
        assert stream.rest() == []


@pytest.mark.parametrize(("name", "request_", "status", "code"), [
    ("added", {"params": {"room": "a"}}, 401, "UNAUTHORIZED"),
    ("added", {"params": {"room": "a"}, "headers": {"authorization": "Bearer eve"}}, 403, "FORBIDDEN"),
    ("added", {"params": {"room": "a", "x": "1"}, "headers": ADA}, 400, "BAD_REQUEST"),
    ("numbers", {"params": {"upto": "many"}}, 400, "BAD_REQUEST"),
    ("numbers", {}, 400, "BAD_REQUEST"),
])  # fmt: skip
def test_a_refusal_before_the_start_is_an_ordinary_answer(
    url: str, name: str, request_: dict[str, Any], status: int, code: str
) -> None:
    """With a status, so that a client need not read a stream to know."""
    answer = httpx.get(f"{url}/rpc/s.{name}", **request_)
    assert (answer.status_code, error_of(answer)["code"]) == (status, code)


def test_it_follows_what_others_write(file: Path, url: str) -> None:
    """A query is followed through the cache, by the rights of whoever subscribed; other rooms are silent."""
    write(file, note("one"))
    with subscribed(url, "added", params={"room": "a"}, headers=ADA) as stream:
        assert stream.next()[1]["text"] == "one"
        write(file, note("elsewhere", room="b"))
        write(file, note("two"))
        assert stream.next()[1]["text"] == "two"
        httpx.post(f"{url}/rpc/s.add", json={"room": "a", "text": "three"})
        _, data, id = stream.next()
        assert (data["text"], id) == ("three", str(data["id"]))
    with subscribed(url, "added", params={"room": "a"}, headers={**ADA, "last-event-id": id}) as stream:
        write(file, note("four"))
        assert stream.next()[1]["text"] == "four"


def test_a_client_that_goes_ends_its_handler(file: Path, url: str) -> None:
    """Where it stands: what it followed is watched no longer, and its place in the limits is free."""
    for _ in range(3):
        with subscribed(url, "added", params={"room": "a"}, headers=ADA) as stream:
            write(file, "DELETE FROM note", note("x"))
            assert stream.next()[1]["text"] == "x"
    wait_until(lambda: SEEN.count("added ended") == 3)
    with subscribed(url, "silent"):
        pass
    wait_until(lambda: "silent ended" in SEEN)
    wait_until(lambda: "\nreactive_rpc_streams 0.0\n" in httpx.get(f"{url}/rpc/metrics").text)


def test_no_value_leaves_under_a_lost_right(file: Path, url: str) -> None:
    """The commit that adds a note shuts ada out: she is told that, and not of the note; bob goes on."""
    bob = {"authorization": "Bearer bob"}
    with (
        subscribed(url, "added", params={"room": "a"}, headers=ADA) as adas,
        subscribed(url, "added", params={"room": "a"}, headers=bob) as bobs,
    ):
        write(file, note("one"))
        assert (adas.next()[1]["text"], bobs.next()[1]["text"]) == ("one", "one")
        write(file, note("two"), "DELETE FROM guest WHERE name = 'ada'")
        assert bobs.next()[1]["text"] == "two"
        ((name, data),) = adas.rest()
        assert (name, data["reason"]) == ("revoked", "for guests")
    wait_until(lambda: SEEN.count("added ended") == 2)


def test_another_context_begins_anew(file: Path, url: str) -> None:
    """A changed role is another context: what was yielded for the old one is not mixed with that of the new one."""
    with subscribed(url, "added", params={"room": "a"}, headers=ADA) as stream:
        write(file, note("one"))
        assert stream.next()[1]["text"] == "one"
        write(file, note("two"), "UPDATE guest SET role = 'writer' WHERE name = 'ada'")
        rest = [data["text"] for name, data in stream.rest() if name == "message"]
        assert rest == []
    with subscribed(url, "added", params={"room": "a"}, headers={**ADA, "last-event-id": "1"}) as stream:
        assert stream.next()[1]["text"] == "two"


def test_a_slow_client_slows_the_handler_down(url: str) -> None:
    """It is not run ahead of, however much it yields, and then loses nothing."""
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((host, int(port)))
        connection.sendall(b"GET /rpc/s.large?count=60&size=400000 HTTP/1.1\r\nhost: t\r\n\r\n")
        wait_until(lambda: len(SEEN) > 1)
        # The neighbour's answers come while nothing of this one is taken.
        for _ in range(20):
            assert httpx.get(f"{url}/rpc/s.numbers?upto=1").status_code == 200
        made = len([each for each in SEEN if each.startswith("made")])
        assert made < 40
        found = bytearray()
        connection.settimeout(DEADLINE_SECONDS)
        while b"event: ended" not in found[-200:]:
            found += connection.recv(1_000_000)
    assert found.count(b'xxx"\n\n') == 60


def test_a_value_may_be_larger_than_what_streams_may_hold(file: Path) -> None:
    """A stream's bound is for events that pile up; a value waits for nobody."""
    rpc = rpc_with(file, settings={"stream_queue_bytes": 10_000})
    with running(app_of(rpc)) as url, subscribed(url, "large", params={"count": 3, "size": 500_000}) as stream:
        assert [len(stream.next()[1]) for _ in range(3)] == [500_000] * 3


def test_a_ticket_opens_one(file: Path, url: str) -> None:
    """A page has an EventSource, which sends no headers of its own."""
    ticket = httpx.post(f"{url}/rpc/events/ticket", json={}, headers=ADA).json()["ticket"]
    with subscribed(url, "added", params={"room": "a", "ticket": ticket}) as stream:
        write(file, note("one"))
        assert stream.next()[1]["text"] == "one"
    again = httpx.get(f"{url}/rpc/s.added", params={"room": "a", "ticket": ticket})
    assert again.status_code == 401


def test_it_counts_among_the_callers_streams(file: Path) -> None:
    """One too many is refused, and a place is free again where one has ended."""
    rpc = rpc_with(file, settings={"max_streams_per_identity": 2})
    with running(app_of(rpc)) as url:
        write(file, "INSERT INTO guest VALUES ('ada', 'reader'), ('bob', 'reader')")
        asked: dict[str, Any] = {"params": {"room": "a"}, "headers": ADA}
        with subscribed(url, "added", **asked), subscribed(url, "added", **asked):
            refused = httpx.get(f"{url}/rpc/s.added", **asked)
            assert (refused.status_code, error_of(refused)["code"]) == (429, "TOO_MANY_REQUESTS")
        wait_until(lambda: SEEN.count("added ended") == 2)

        def is_let_in() -> bool:
            with httpx.stream("GET", f"{url}/rpc/s.added", timeout=DEADLINE_SECONDS, **asked) as answer:
                return answer.status_code == 200

        wait_until(is_let_in)


def test_steps_stand_before_it(url: str) -> None:
    """A limit counts subscriptions, and another context is its own."""
    for _ in range(2):
        with subscribed(url, "limited", headers=ADA) as stream:
            assert stream.next()[1] == 1
    assert httpx.get(f"{url}/rpc/s.limited", headers=ADA).status_code == 429
    with subscribed(url, "of_machine", headers={"x-machine": "7"}) as stream:
        assert stream.next()[1] == "machine 7"
    assert httpx.get(f"{url}/rpc/s.of_machine", headers=ADA).status_code == 400


def test_it_takes_dependencies(url: str) -> None:
    """Of headers, of the whole request, and with an end: solved once, and let go of when it has ended."""
    with subscribed(url, "by_dependencies", params={"count": 2}, headers={"accept-language": "de"}) as stream:
        assert [stream.next()[1] for _ in range(2)] == ["de /rpc/s.by_dependencies held GET"] * 2
        assert stream.next()[0] == "ended"
    assert SEEN == ["held", "yields", "yields", "let go"]


def test_silence_is_told_apart_from_a_dead_connection(file: Path) -> None:
    """Comments come where no value does, and a header says how often."""
    rpc = rpc_with(file, settings={"heartbeat_seconds": 0.05})
    with (
        running(app_of(rpc)) as url,
        httpx.stream("GET", f"{url}/rpc/s.silent", timeout=DEADLINE_SECONDS) as response,
    ):
        assert float(response.headers["reactive-heartbeat-seconds"]) == 0.05
        chunks = response.iter_raw()
        assert next(chunks).startswith(b"retry:")
        assert next(chunks).startswith(b":")


def test_other_methods_are_refused(url: str) -> None:
    """Events have no HEAD, and are not put."""
    for method in ("PUT", "DELETE", "HEAD"):
        answer = httpx.request(method, f"{url}/rpc/s.numbers?upto=1")
        assert answer.status_code == 405, method
        assert answer.headers["allow"] == "GET, POST"


def test_it_is_documented(url: str) -> None:
    """By the schema of a value, as an event stream; its errors as JSON, which they are."""
    paths = httpx.get(f"{url}/openapi.json").json()["paths"]
    operation = paths["/rpc/s.added"]["get"]
    assert operation["x-reactive-rpc"]["kind"] == "subscription"
    content = operation["responses"]["200"]["content"]
    assert list(content) == ["text/event-stream"]
    assert content["text/event-stream"]["schema"]["$ref"].endswith("/Note")
    assert list(operation["responses"]["default"]["content"]) == ["application/json"]
    declared = paths["/rpc/s.numbers"]["get"]["responses"]["409"]["content"]
    assert declared["application/json"]["schema"]["$ref"].endswith("/FullEnvelope")
    assert list(declared) == ["application/json"]


def test_a_stopping_server_ends_it_and_another_goes_on(tmp_path: Path) -> None:
    """Without `ended`, so the client comes back with its last id: it misses nothing and gets nothing twice."""
    environment = {"ROOMS_DB": str(tmp_path / "rooms.db")}
    servers = [
        Uvicorn(f"{__name__}:make_app", "--factory", log=tmp_path / f"{name}.log", environment=environment)
        for name in "ab"
    ]
    with servers[0], servers[1]:
        write(tmp_path / "rooms.db", "INSERT INTO guest VALUES ('ada', 'reader')")
        with subscribed(servers[0].url, "added", params={"room": "a"}, headers=ADA) as stream:
            write(tmp_path / "rooms.db", note("one"))
            _, data, id = stream.next()
            assert data["text"] == "one"
            servers[0].end(signal.SIGTERM)
            assert stream.rest() == []
        write(tmp_path / "rooms.db", note("two"))
        back = {**ADA, "last-event-id": id}
        with subscribed(servers[1].url, "added", params={"room": "a"}, headers=back) as stream:
            assert stream.next()[1]["text"] == "two"
    assert "Traceback" not in (tmp_path / "a.log").read_text()


def make_app() -> FastAPI:
    """Return the application on the file that `ROOMS_DB` names."""
    import os

    return app_of(rpc_with(Path(os.environ["ROOMS_DB"])))


async def test_a_login_that_expires_ends_it(file: Path) -> None:
    """At that moment, by the server's clock: what comes after it is asked for anew."""
    clock = FakeClock()
    expiring = define_reactive_function.context(lambda: Login(identity="ada"))
    assert expiring is not None
    async with serving(file, FUNCTIONS, context=get_login, clock=clock) as server:
        server.write("INSERT INTO guest VALUES ('ada', 'reader')")
        import datetime

        soon = datetime.datetime.fromtimestamp(clock.time() + 60, datetime.UTC)
        call = server.rpc.caller(Login(identity="ada", expires_at=soon))
        found: list[str] = []

        async def follow() -> None:
            async for value in call.stream(added, room="a"):
                found.append(value.data.text)

        following = asyncio.create_task(follow())
        server.write(note("one"))
        await until(lambda: found == ["one"])
        clock.advance(61)
        server.write(note("two"))
        with pytest.raises(UnauthorizedError):
            await following
        assert found == ["one"]


async def test_in_this_process(file: Path) -> None:
    """As over the wire: typed values with their ids, refusals raised, the handler ended with the loop."""
    async with serving(file, FUNCTIONS, context=get_login) as server:
        server.write("INSERT INTO guest VALUES ('ada', 'reader')")
        server.write(note("one"))
        call = server.rpc.caller(Login(identity="ada"))
        async with aclosing(call.stream(added, room="a")) as values:
            async for value in values:
                assert isinstance(value, Tracked)
                assert isinstance(value.data, Note)
                assert (value.id, value.data.text) == ("1", "one")
                break
        assert SEEN == ["added ended"]
        assert [each.data async for each in call.stream(numbers, upto=3, last_event_id="1")] == [2, 3]
        with pytest.raises(Full) as raised:
            [each async for each in call.stream(numbers, upto=1, fault="declared")]
        assert raised.value.room == "a"
        with pytest.raises(ForbiddenError):
            await anext(server.rpc.caller(Login(identity="eve")).stream(added, room="a"))
        with pytest.raises(DefinitionError, match=r"async for \.\.\. in call\.stream"):
            await call(added, room="a")  # type: ignore[call-overload]  # refused at run time, too
        with pytest.raises(DefinitionError, match=r"await call\("):
            await anext(call.stream(texts, room="a"))  # type: ignore[arg-type]  # refused at run time, too
        with pytest.raises(DefinitionError, match="current_caller"):
            current_caller()


async def test_a_query_is_followed_in_this_process(file: Path) -> None:
    """Its result now, and each that is another; a slow taker gets the latest; a lost right ends it."""
    async with serving(file, FUNCTIONS, context=get_login) as server:
        server.write("INSERT INTO guest VALUES ('ada', 'reader')")
        call = server.rpc.caller(Login(identity="ada"))
        async with aclosing(call.live(texts, room="a")) as results:
            assert await anext(results) == []
            server.write(note("one"))
            assert [each.text for each in await anext(results)] == ["one"]
            for number in range(5):
                server.write(note(str(number)))
            server.write(note("elsewhere", room="b"))
            while len(latest := await anext(results)) < 6:
                pass
            assert [each.text for each in latest] == ["one", *"01234"]
            server.write("DELETE FROM guest")
            with pytest.raises(ForbiddenError):
                await anext(results)
        assert len(server.rpc._ongoing.followers) == 0  # nothing is watched for nobody


async def test_a_refusal_of_the_handler_ends_what_follows_it(file: Path) -> None:
    """It is told, as what a client watches would be."""

    @define_reactive_function
    async def one(db: AsyncSession, id: int) -> Note:
        found = await db.get(Note, id)
        if found is None:
            raise NotFoundError(f"no note {id}")
        return found

    async with serving(file, {"n": {"one": one}}) as server:
        server.write(note("one"))
        async with aclosing(server.rpc.caller(Login()).live(one, id=1)) as results:
            assert (await anext(results)).text == "one"
            server.write("DELETE FROM note")
            with pytest.raises(NotFoundError):
                await anext(results)


async def test_a_form_of_another_site_opens_none(file: Path) -> None:
    """A POST must say that it is JSON."""
    async with serving(file, FUNCTIONS, context=get_login) as server:
        answer = await server.client.post("/rpc/s.numbers", content=b"{}")
        assert answer.status_code == 415
        assert (await server.client.post("/rpc/s.numbers", content=b"{", headers=JSON)).status_code == 400
