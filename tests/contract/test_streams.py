"""One contract for every way to hear events: streams by POST and by GET, with header, cookie or ticket, and long poll.

A transport opens a *watch*: `connected` first, then the events of its queries. A long poll's watch polls again by
itself; what a resumed poll calls stale is what a stream would have told meanwhile, so the watch says it as that.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import Cache, ForbiddenError, Login, ReactiveRPC, Settings, define_reactive_function
from reactive_rpc.protocol.sse import ServerSentEvent, SSEDecoder
from reactive_rpc.testing import running

DEADLINE_SECONDS = 30.0


class Base(SQLModel, registry=registry()):
    """Keeps these tables out of the metadata that all of a test run's modules share."""


class Note(Base, table=True):
    id: int | None = Field(default=None, primary_key=True)
    room: str
    text: str


class InRoom(BaseModel):
    room: str


class NewNote(BaseModel):
    room: str
    text: str


@define_reactive_function
async def in_room(db: AsyncSession, input: InRoom) -> list[str]:
    """The texts of a room, oldest first."""
    return list((await db.exec(select(Note.text).where(Note.room == input.room).order_by(Note.id))).all())  # type: ignore[arg-type]  # a column


@define_reactive_function(cache=Cache(push="result"))
async def pushed(db: AsyncSession, input: InRoom) -> list[str]:
    """The same, pushed."""
    return list((await db.exec(select(Note.text).where(Note.room == input.room).order_by(Note.id))).all())  # type: ignore[arg-type]  # a column


@define_reactive_function
async def secret(db: AsyncSession, ctx: Login) -> list[str]:
    """What only the chief may see."""
    if ctx.identity != "chief":
        raise ForbiddenError("for the chief alone")
    return list((await db.exec(select(Note.text))).all())


@define_reactive_function.mutation
async def add(db: AsyncSession, input: NewNote) -> None:
    """Add a note."""
    db.add(Note(room=input.room, text=input.text))


FUNCTIONS = {"notes": {"in_room": in_room, "pushed": pushed, "secret": secret, "add": add}}

bearer = HTTPBearer(auto_error=False)
session = APIKeyCookie(name="session", auto_error=False)


def who(
    token: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    cookie: Annotated[str | None, Depends(session)],
) -> Login:
    """Read the name from a token or a cookie."""
    name = token.credentials if token is not None else cookie
    if name is None:
        raise HTTPException(401, "log in")
    return Login(identity=name, tenant="t")


@dataclass
class Worker:
    """One of the workers on a database."""

    url: str
    rpc: ReactiveRPC

    def fetch(self, path: str, **input: Any) -> httpx.Response:
        """Call a query."""
        answer = httpx.post(f"{self.url}/rpc/notes.{path}", json=input, headers=token("ann"), timeout=DEADLINE_SECONDS)
        assert answer.status_code == 200, answer.text
        return answer


@contextmanager
def working(database: Path) -> Iterator[Worker]:
    """Serve the application on a database."""
    settings = Settings(stream_opens_per_second=100.0, drain_seconds=0.1)
    rpc = ReactiveRPC(
        f"sqlite+aiosqlite:///{database}",
        functions=FUNCTIONS, context=who, metadata=Base.metadata, settings=settings,
    )  # fmt: skip
    app = FastAPI(lifespan=rpc.lifespan)
    app.include_router(rpc.router)

    @app.post("/revoke/{identity}")
    async def revoke(identity: str) -> None:
        await rpc.revoke(identity)

    with running(app) as url:
        yield Worker(url, rpc)


def write(database: Path, room: str, text: str) -> None:
    """Write a note by a connection that no worker knows of."""
    with closing(sqlite3.connect(database, timeout=DEADLINE_SECONDS)) as connection, connection:
        connection.execute("INSERT INTO note(room, text) VALUES (?, ?)", (room, text))


def token(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {name}"}


def room(name: str, path: str = "in_room", **ref: Any) -> dict[str, Any]:
    return {"path": f"notes.{path}", "input": {"room": name}, **ref}


@dataclass
class Event:
    name: str
    data: dict[str, Any]
    id: str = ""

    @property
    def rooms(self) -> list[str]:
        """The rooms that an invalidation names."""
        return [affected["input"]["room"] for affected in self.data["affected"]]


class Watch(ABC):
    """What a client hears of one set.

    Attributes:
        connected: the first event.
        cursor: where the client stands.
    """

    connected: Event
    cursor: str

    @abstractmethod
    def next(self) -> Event | None:
        """Return the next event; None where the watch has ended."""

    @property
    def stale(self) -> list[str]:
        """The rooms that `connected` says are stale."""
        return [affected["input"]["room"] for affected in self.connected.data["stale"]]


class Streamed(Watch):
    def __init__(self, response: httpx.Response) -> None:
        self._chunks = response.iter_bytes()
        self._decoder = SSEDecoder()
        self._events: deque[ServerSentEvent] = deque()
        first = self.next()
        assert first is not None
        self.connected = first

    def next(self) -> Event | None:
        while not self._events:
            chunk = next(self._chunks, None)
            if chunk is None:
                return None
            self._events.extend(self._decoder.feed(chunk))
        event = self._events.popleft()
        self.cursor = event.id
        return Event(event.event, json.loads(event.data), event.id)


class LongPolled(Watch):
    """Has a poll under way all the time, in a thread, from the first answer on, until it is closed."""

    def __init__(self, client: httpx.Client, queries: Sequence[dict[str, Any]], cursor: str | None) -> None:
        self._client = client
        self._queries = list(queries)
        self._answer: dict[str, Any] | None = None
        self._answered = threading.Event()
        first = self._poll(cursor)
        self._events = deque(self._events_of(first)[1:])
        self.connected = self._events_of(first)[0]
        self._next_cursor = self.cursor = first["cursor"]
        self._is_over = False
        self._ask()

    def close(self) -> None:
        """Wait for the last poll."""
        assert self._answered.wait(DEADLINE_SECONDS)

    def next(self) -> Event | None:
        while not self._events:
            if self._is_over:
                return None
            assert self._answered.wait(DEADLINE_SECONDS)
            if self._answer is None:
                return None
            connected, *events = self._events_of(self._answer)
            self._next_cursor = self._answer["cursor"]
            if connected.data["stale"]:
                affected = {"affected": connected.data["stale"], "cursor": connected.id}
                self._events.append(Event("invalidation", affected, connected.id))
            self._events.extend(events)
            self._is_over = any(event.name == "revoked" for event in events)
            if not self._is_over:
                self._ask()
        event = self._events.popleft()
        self.cursor = event.id or self.cursor
        return event

    def _ask(self) -> None:
        self._answered.clear()
        threading.Thread(target=self._wait, args=(self._next_cursor,), daemon=True).start()

    def _wait(self, cursor: str) -> None:
        try:
            self._answer = self._poll(cursor)
        except (httpx.HTTPError, RuntimeError):  # the server, or the client, has been closed
            self._answer = None
        self._answered.set()

    def _poll(self, cursor: str | None) -> dict[str, Any]:
        answer = self._client.post("/rpc/events/poll", json={"queries": self._queries, "cursor": cursor, "wait": 1})
        if answer.status_code != 200:
            raise RuntimeError(answer.text)
        polled: dict[str, Any] = answer.json()
        return polled

    @staticmethod
    def _events_of(answer: dict[str, Any]) -> list[Event]:
        return [Event(event["event"], event["data"], event["id"] or "") for event in answer["events"]]


Opened = Iterator[Watch]
Transport = Callable[..., Any]


@contextmanager
def by_post(
    worker: Worker, queries: Sequence[dict[str, Any]], *, cursor: str | None = None, name: str = "ann"
) -> Opened:
    """A stream whose request carries the set."""
    body = {"queries": list(queries), "cursor": cursor}
    with httpx.stream(
        "POST", f"{worker.url}/rpc/events", json=body, headers=token(name), timeout=DEADLINE_SECONDS
    ) as response:
        assert response.status_code == 200, response.read()
        yield Streamed(response)


def _store(worker: Worker, queries: Sequence[dict[str, Any]], headers: dict[str, str]) -> str:
    answer = httpx.post(
        f"{worker.url}/rpc/events/sets", json={"queries": list(queries)}, headers=headers, timeout=DEADLINE_SECONDS
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["set"])


@contextmanager
def by_cookie(
    worker: Worker, queries: Sequence[dict[str, Any]], *, cursor: str | None = None, name: str = "ann"
) -> Opened:
    """A browser's EventSource with a cookie: the set is stored before, the cursor comes as `Last-Event-ID`."""
    headers = {"cookie": f"session={name}"}
    parameters = {"set": _store(worker, queries, headers)}
    if cursor is not None:
        headers["last-event-id"] = cursor
    with httpx.stream(
        "GET", f"{worker.url}/rpc/events", params=parameters, headers=headers, timeout=DEADLINE_SECONDS
    ) as response:
        assert response.status_code == 200, response.read()
        yield Streamed(response)


@contextmanager
def by_ticket(
    worker: Worker, queries: Sequence[dict[str, Any]], *, cursor: str | None = None, name: str = "ann"
) -> Opened:
    """A browser's EventSource without a cookie: everything is in the URL."""
    ticket = httpx.post(f"{worker.url}/rpc/events/ticket", json={}, headers=token(name), timeout=DEADLINE_SECONDS)
    parameters = {"set": _store(worker, queries, token(name)), "ticket": ticket.json()["ticket"]}
    if cursor is not None:
        parameters["cursor"] = cursor
    with httpx.stream("GET", f"{worker.url}/rpc/events", params=parameters, timeout=DEADLINE_SECONDS) as response:
        assert response.status_code == 200, response.read()
        yield Streamed(response)


@contextmanager
def by_poll(
    worker: Worker, queries: Sequence[dict[str, Any]], *, cursor: str | None = None, name: str = "ann"
) -> Opened:
    """One poll after another."""
    with httpx.Client(base_url=worker.url, headers=token(name), timeout=DEADLINE_SECONDS) as client:
        polled = LongPolled(client, queries, cursor)
        try:
            yield polled
        finally:
            polled.close()


TRANSPORTS = [by_post, by_cookie, by_ticket, by_poll]
WITH_ETAGS = [by_post, by_poll]


@pytest.fixture(params=TRANSPORTS, ids=lambda transport: transport.__name__)
def watching(request: pytest.FixtureRequest) -> Transport:
    transport: Transport = request.param
    return transport


@dataclass
class Site:
    """Two workers on one database."""

    database: Path
    here: Worker
    there: Worker


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    database = tmp_path_factory.mktemp("site") / "notes.db"
    with working(database) as here, working(database) as there:
        yield Site(database, here, there)


def name_of(watching: Transport, test: str) -> str:
    """Return a room of this test's and transport's own."""
    return f"{test} {watching.__name__}"


def test_connected_names_every_query_and_nothing_stale(site: Site, watching: Transport) -> None:
    """Keys in the request's order; without ETag or cursor nothing can be stale."""
    a, b = name_of(watching, "first a"), name_of(watching, "first b")
    with watching(site.here, [room(a), room(b), room(a)]) as watch:
        assert watch.connected.name == "connected"
        keys = watch.connected.data["queries"]
        assert (len(keys), keys[0] == keys[2], keys[0] == keys[1]) == (3, True, False)
        assert (watch.stale, watch.connected.data["errors"]) == ([], [])
        assert watch.connected.data["cursor"] == watch.connected.id == watch.cursor


@pytest.mark.parametrize("watching_by", WITH_ETAGS, ids=lambda transport: transport.__name__)
def test_an_etag_tells_what_is_stale(site: Site, watching_by: Transport) -> None:
    """The one that differs from the current result's, and only that."""
    a, b = name_of(watching_by, "etag a"), name_of(watching_by, "etag b")
    etag = site.here.fetch("in_room", room=a).headers["etag"]
    with watching_by(site.here, [room(a, etag=etag), room(b, etag='"old"')]) as watch:
        assert watch.stale == [b]


def test_each_write_is_told_in_order(site: Site, watching: Transport) -> None:
    """A write by any process, each with the rooms that it touched, and a cursor that never goes back."""
    a, b, other = (name_of(watching, f"order {n}") for n in "abc")
    with watching(site.here, [room(a), room(b)]) as watch:
        cursors = [watch.cursor]
        for n, written in enumerate([a, b, b, a]):
            write(site.database, other, "not watched")
            write(site.database, written, str(n))
            notice = watch.next()
            assert (notice.name, notice.rooms) == ("invalidation", [written])
            cursors.append(watch.cursor)
        versions = [int(cursor.split(":")[1]) for cursor in cursors]
        assert (versions, versions[0] < versions[-1]) == (sorted(versions), True)


def test_a_result_is_pushed(site: Site, watching: Transport) -> None:
    """With the ETag and the data that a call would have."""
    a = name_of(watching, "result")
    written: list[str] = []
    give_up_at = time.monotonic() + DEADLINE_SECONDS
    with watching(site.here, [room(a, "pushed")]) as watch:
        while True:
            assert time.monotonic() < give_up_at
            written.append(str(len(written)))
            write(site.database, a, written[-1])
            notice = watch.next()
            if notice.name == "result":
                break
            # Between two polls nobody is there to push to, and a result that takes too long is not waited for.
            assert (notice.name, notice.rooms) == ("invalidation", [a])
        answer = site.here.fetch("pushed", room=a)
        assert (notice.data["data"], notice.data["input"]) == (written, {"room": a})
        assert (notice.data["etag"], notice.data["key"]) == (answer.headers["etag"], watch.connected.data["queries"][0])


@pytest.mark.parametrize("cursor", ["another:1", "another:1:5:6"])
def test_a_cursor_that_means_nothing_here_is_a_gap(site: Site, watching: Transport, cursor: str) -> None:
    """Of another epoch: everything is stale."""
    a, b = name_of(watching, "gap a"), name_of(watching, "gap b")
    with watching(site.here, [room(a), room(b)], cursor=cursor) as watch:
        assert watch.stale == [a, b]


def test_a_cursor_resumes_at_another_worker(site: Site, watching: Transport) -> None:
    """What changed in between is stale there, what did not is not, and what comes next is told."""
    a, b = name_of(watching, "resume a"), name_of(watching, "resume b")
    with watching(site.here, [room(a), room(b)]) as watch:
        write(site.database, b, "heard")
        assert watch.next().rooms == [b]
        cursor = watch.cursor
    write(site.database, a, "missed")
    with watching(site.there, [room(a), room(b)], cursor=cursor) as watch:
        assert watch.stale == [a]
        write(site.database, b, "heard again")
        assert watch.next().rooms == [b]


def test_a_cursor_resumes_after_a_restart(tmp_path: Path, watching: Transport) -> None:
    """The server ends, the stream ends, something is written, and the next server knows what."""
    database = tmp_path / "notes.db"
    with ExitStack() as stack:
        with working(database) as worker:
            watch = stack.enter_context(watching(worker, [room("a"), room("b")]))
            cursor = watch.cursor
        write(database, "b", "while nobody listened")
        with working(database) as worker, watching(worker, [room("a"), room("b")], cursor=cursor) as watch:
            assert watch.stale == ["b"]


def test_refused_queries_are_named_and_the_others_watched(site: Site, watching: Transport) -> None:
    """Unknown, forbidden, a mutation, a wrong input: each with its code, in its place."""
    a = name_of(watching, "refused")
    refused = [
        {"path": "notes.nope"},
        {"path": "notes.secret"},
        {"path": "notes.add", "input": {"room": "a", "text": "b"}},
        {"path": "notes.in_room", "input": {"room": 1}},
    ]
    with watching(site.here, [*refused, room(a)]) as watch:
        assert [key is None for key in watch.connected.data["queries"]] == [True] * 4 + [False]
        codes = [(error["path"], error["error"]["code"]) for error in watch.connected.data["errors"]]
        assert codes == [
            ("notes.nope", "NOT_FOUND"),
            ("notes.secret", "FORBIDDEN"),
            ("notes.add", "METHOD_NOT_SUPPORTED"),
            ("notes.in_room", "BAD_REQUEST"),
        ]
        write(site.database, a, "x")
        assert watch.next().rooms == [a]


def test_revoked_is_the_last_word(site: Site, watching: Transport) -> None:
    """By whichever worker the identity is revoked; another identity's watch goes on."""
    a, ann = name_of(watching, "revoked"), name_of(watching, "ann").replace(" ", "-")
    with watching(site.here, [room(a)], name=ann) as anns, watching(site.here, [room(a)], name="bob") as bobs:
        answer = httpx.post(f"{site.there.url}/revoke/{ann}", timeout=DEADLINE_SECONDS)
        assert answer.status_code == 200
        notice = anns.next()
        assert (notice.name, bool(notice.data["reason"])) == ("revoked", True)
        assert anns.next() is None
        write(site.database, a, "x")
        assert bobs.next().name == "invalidation"


@dataclass
class Reader:
    """A client that fetches what it is told to, and nothing else."""

    worker: Worker
    seen: dict[str, list[str]] = field(default_factory=dict)

    def fetch(self, rooms: Sequence[str]) -> None:
        for name in rooms:
            self.seen[name] = self.worker.fetch("in_room", room=name).json()


def test_a_set_can_change_while_writes_go_on(site: Site, watching: Transport) -> None:
    """Each new watch takes the cursor over before the old one ends, at either worker: no write is missed."""
    rooms = [name_of(watching, f"takeover {n}") for n in "abc"]
    reader = Reader(site.here)
    counts = dict.fromkeys(rooms, 0)
    is_over = threading.Event()

    def keep_writing() -> None:
        while not is_over.wait(0.02):
            for name in rooms:
                counts[name] += 1
                write(site.database, name, str(counts[name]))

    with ExitStack() as stack:
        writer = threading.Thread(target=keep_writing)
        stack.callback(writer.join)
        stack.callback(is_over.set)
        opened = ExitStack()
        watch = opened.enter_context(watching(site.here, [room(name) for name in rooms]))
        reader.fetch(rooms)
        writer.start()
        for n in range(3):
            successor = ExitStack()
            queries = [room(name) for name in (*rooms, f"more {n}")]
            watch = successor.enter_context(watching((site.there, site.here)[n % 2], queries, cursor=watch.cursor))
            opened.close()
            opened = stack.enter_context(successor)
            reader.fetch([name for name in watch.stale if name in rooms])
            reader.fetch([name for name in watch.next().rooms if name in rooms])
        is_over.set()
        writer.join()
        expected = {name: [str(n + 1) for n in range(counts[name])] for name in rooms}
        give_up_at = time.monotonic() + DEADLINE_SECONDS
        while reader.seen != expected:
            assert time.monotonic() < give_up_at
            reader.fetch([name for name in watch.next().rooms if name in rooms])
