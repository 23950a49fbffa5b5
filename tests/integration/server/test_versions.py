"""`reactive-version`: what an answer shows is what the database held at that version, exactly; and `reactive-scope`."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg
import pytest
from pydantic import BaseModel
from sqlmodel import Session, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import Cache, Capture, Login, NotFoundError, ReactiveRPC, define_reactive_function, topic
from reactive_rpc.backends.sqlite.capture.backend import POSITION
from reactive_rpc.procedures.registry import Functions
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.protocol.headers import CURSOR, SCOPE, VERSION
from tests.support.calls import by_path
from tests.support.waiting import until

from . import postgresql_rooms, rooms
from .rooms import InRoom, Note, Opened, who

pytestmark = pytest.mark.anyio

ROOM_NAMES: Final = ("a", "b", "c")
CALLS: Final = 240
MAX_CALLS: Final = 10_000
SEED: Final = 8
_SNAPSHOT: Final = """
SELECT pg_snapshot_xmax(s)::text::bigint - (SELECT count(*) FROM pg_snapshot_xip(s)) FROM pg_current_snapshot() AS s
"""


class Slow(BaseModel):
    """A call that lets others commit after it has read."""

    room: str
    commits: int


class Writer:
    """Somebody else who writes, alone: what each room held, and from which version on.

    It commits as often as it is let: `let` does not wait, so that a commit may come at any moment of a call.
    """

    def __init__(self, connect: Callable[[], _Session]) -> None:
        self.commits = 0
        self.history: dict[str, list[tuple[int, int, str | None]]] = {room: [(-1, -1, None)] for room in ROOM_NAMES}
        self._connect = connect
        self._allowed = threading.Semaphore(0)
        self._stop = False
        self._random = random.Random(SEED)

    def let(self, commits: int) -> None:
        """Allow so many further commits."""
        self._allowed.release(commits) if commits else None

    def truth(self, room: str, version: int) -> set[str | None]:
        """Return what the room may have held at a version: one text, but where the version of a commit is not sure."""
        known = [n for n, (_, last, _) in enumerate(self.history[room]) if last <= version]
        return {text for first, _, text in self.history[room][known[-1] :] if first <= version}

    def start(self) -> None:
        """Write in a thread from now on."""
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        """Write no more; idempotent. From then on the history is whole."""
        self._stop = True
        self.let(1)
        self._thread.join()

    def _run(self) -> None:
        with self._connect() as session:
            while self._allowed.acquire() and not self._stop:
                room = self._random.choice(ROOM_NAMES)
                text = None if self._random.random() < 0.2 else f"{room}{self.commits}"
                self.history[room].append((*session.put(room, text), text))
                self.commits += 1


@dataclass
class _Session:
    """One connection of the writer's; `put` returns the first and the last version that may be the commit's."""

    put: Callable[[str, str | None], tuple[int, int]]
    close: Callable[[], object]

    def __enter__(self) -> _Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sqlite_session(path: Path) -> _Session:
    """Write to a file; within the transaction SQLite tells the version that it will be."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=30)

    def put(room: str, text: str | None) -> tuple[int, int]:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM note WHERE room = ?", (room,))
        if text is not None:
            connection.execute("INSERT INTO note(tenant, room, text) VALUES ('t', ?, ?)", (room, text))
        (version,) = connection.execute(POSITION).fetchone()
        connection.execute("COMMIT")
        return version, version

    return _Session(put, connection.close)


def postgresql_session(url: str) -> _Session:
    """Write to a database; whoever else ends a transaction meanwhile makes the version of the commit unsure."""
    connection = psycopg.connect(postgresql_rooms.with_driver(url, "postgresql"), autocommit=True)

    def version() -> int:
        return int(connection.execute(_SNAPSHOT).fetchall()[0][0])

    def put(room: str, text: str | None) -> tuple[int, int]:
        before = version()
        with connection.transaction():
            connection.execute("DELETE FROM note WHERE room = %s", (room,))
            if text is not None:
                connection.execute("INSERT INTO note(tenant, room, text) VALUES ('t', %s, %s)", (room, text))
        after = version()
        return min(before + 1, after), after  # one that deletes nothing is no transaction of the log

    return _Session(put, connection.close)


@dataclass
class WrittenServer:
    """A server, and the one who writes beside it."""

    server: Opened
    writer: Writer


def functions_with(writer: Callable[[], Writer]) -> Functions:
    """Return the procedures; `slow` returns when so many commits were made since it read."""

    async def texts(db: AsyncSession, room: str) -> str:
        found = (await db.exec(select(Note.text).where(Note.room == room))).first()
        if found is None:
            raise NotFoundError(f"{room} is empty")
        return found

    @define_reactive_function
    async def quick(db: AsyncSession, input: InRoom) -> str:
        return await texts(db, input.room)

    @define_reactive_function
    def quick_sync(db: Session, input: InRoom) -> str:
        found = db.exec(select(Note.text).where(Note.room == input.room)).first()
        if found is None:
            raise NotFoundError(f"{input.room} is empty")
        return found

    @define_reactive_function
    async def slow(db: AsyncSession, input: Slow) -> str:
        found = await texts(db, input.room)
        wanted = writer().commits + input.commits
        writer().let(input.commits)
        await until(lambda: writer().commits >= wanted)
        return found

    @define_reactive_function(cache=Cache(push="result"))
    async def pushed(db: AsyncSession, input: InRoom) -> str:
        return await texts(db, input.room)

    return {"notes": {"quick": quick, "quick_sync": quick_sync, "slow": slow, "pushed": pushed}}


@pytest.fixture(params=["sqlite", "postgresql"])
async def world(request: pytest.FixtureRequest, file: Path, anyio_backend: str) -> AsyncIterator[WrittenServer]:
    """A server on each database, with a writer."""
    found: list[Writer] = []
    functions = functions_with(lambda: found[0])
    async with _served(request, file, functions) as (server, connect):
        found.append(Writer(connect))
        found[0].start()
        try:
            yield WrittenServer(server, found[0])
        finally:
            found[0].stop()


@asynccontextmanager
async def _served(
    request: pytest.FixtureRequest, file: Path, functions: Functions
) -> AsyncIterator[tuple[Opened, Callable[[], _Session]]]:
    if request.param == "sqlite":
        async with rooms.serving(file, functions, settings={"busy_timeout_seconds": 30}) as server:
            yield server, lambda: sqlite_session(file)
    else:
        url = request.getfixturevalue("postgresql_url")
        async with postgresql_rooms.serving(url, functions) as opened:
            yield opened, lambda: postgresql_session(url)


@dataclass
class Seen:
    """What the answers of a run said: `(of what, room, version, text)`, to be held against the history."""

    said: list[tuple[str, str, int, str | None]] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)

    def answer(self, room: str, held: str | None, answer: httpx.Response) -> str | None:
        """Note an answer and return the text that its holder then has."""
        assert answer.status_code in {200, 304, 404}, answer.text
        text = str(answer.json()) if answer.status_code == 200 else held if answer.status_code == 304 else None
        self.kinds[str(answer.status_code)] += 1
        self.kinds["overtaken"] += answer.headers.get(VERSION) not in (None, answer.headers[CURSOR])
        for name in (VERSION, CURSOR):
            if name in answer.headers:
                self.kinds[name] += 1
                self.said.append((name, room, Cursor.parse(answer.headers[name]).version, text))
        return text

    def result(self, event: dict[str, Any]) -> None:
        """Note a result that an event brings."""
        self.kinds["pushed"] += 1
        self.said.append(("pushed", event["input"]["room"], Cursor.parse(event["version"]).version, event["data"]))

    @property
    def is_complete(self) -> bool:
        """Whether all that the test is about has occurred."""
        return all(self.kinds[kind] for kind in ("200", "304", "404", "overtaken", "pushed"))

    def wrong(self, writer: Writer) -> Counter[str]:
        """Count what is not the truth of its version, by what it was said of."""
        return Counter(name for name, room, version, text in self.said if text not in writer.truth(room, version))


async def test_an_answer_shows_what_the_database_held_at_its_version(world: WrittenServer) -> None:
    """Hits, misses, overtaken, joined and unchanged results, errors, and pushed results, while somebody writes: each
    is the truth of its version. The cursor, taken for a version, is found to lie: this test can fail.
    """
    seen = Seen()
    done = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        polling = group.create_task(_poll(world, seen, done))
        callers = [group.create_task(_call(world, seen, random.Random(SEED + n), CALLS // 3)) for n in range(3)]
        await asyncio.gather(*callers)
        done.set()
        await polling
    world.writer.stop()
    wrong = seen.wrong(world.writer)
    assert (wrong[VERSION], wrong["pushed"]) == (0, 0)
    assert wrong[CURSOR] > 0
    assert seen.kinds[VERSION] == seen.kinds[CURSOR], "an answer that rests on rows alone always has a version"
    assert seen.is_complete, seen.kinds
    assert world.server.rpc.admin.stats()["hits"] > 0


async def _call(world: WrittenServer, seen: Seen, dice: random.Random, calls: int) -> None:
    held: dict[tuple[str, str], tuple[str, str | None]] = {}
    for number in count():
        if number >= calls and (seen.is_complete or number >= MAX_CALLS):
            return
        name, room, commits = dice.choice(("quick", "quick_sync", "slow")), dice.choice(ROOM_NAMES), dice.randrange(3)
        if name != "slow":
            world.writer.let(commits)
        input = {"room": room, "commits": commits} if name == "slow" else {"room": room}
        etag, text = held.get((name, room), ("", None))
        answer = await world.server.call(f"notes.{name}", input, **({"if-none-match": etag} if etag else {}))
        text = seen.answer(room, text, answer)
        if answer.status_code == 200:
            held[name, room] = answer.headers["etag"], text


async def _poll(world: WrittenServer, seen: Seen, done: asyncio.Event) -> None:
    queries = [{"path": "notes.pushed", "input": {"room": room}} for room in ROOM_NAMES]
    cursor: str | None = None
    while not done.is_set():
        asked = {"queries": queries, "cursor": cursor, "wait": 0.05}
        answer = await world.server.call("events/poll", asked)
        assert answer.status_code == 200, answer.text
        cursor = answer.json()["cursor"]
        for event in answer.json()["events"]:
            if event["event"] == "result":
                seen.result(event["data"])


@define_reactive_function
async def outside(db: AsyncSession) -> int:
    """Rest on something that is no row."""
    return 1


@define_reactive_function(dependencies=[topic("weather"), Note])
async def weather(db: AsyncSession) -> int:
    """Rest on a topic."""
    return len((await db.exec(select(Note.id))).all())


async def test_what_nobody_can_place_has_no_version(file: Path) -> None:
    """A result that reads no table, one that rests on a topic, and one of a session: none, hit or not."""
    functions: Functions = {"notes": {"outside": outside, "weather": weather}}
    async with rooms.serving(file, functions) as server:
        for name in ("notes.outside", "notes.weather", "notes.weather"):
            answer = await server.call(name)
            assert (answer.status_code, CURSOR in answer.headers, VERSION in answer.headers) == (200, True, False)
    async with rooms.serving(file, rooms.ROOMS, capture=Capture(mode="session")) as server:
        for _ in range(2):
            answer = await server.call("notes.in_room", {"room": "a"})
            assert (answer.status_code, VERSION in answer.headers) == (200, False)


async def test_an_error_that_lasts_has_an_etag(file: Path) -> None:
    """It is an outcome, which a stream compares like a result; an error of the request is none."""
    async with rooms.serving(file) as server:
        missing = await server.call("notes.one", {"id": 1})
        assert (missing.status_code, VERSION in missing.headers, "etag" in missing.headers) == (404, True, True)
        asked = {"queries": [{"path": "notes.one", "input": {"id": 1}, "etag": missing.headers["etag"]}], "wait": 0}
        stale = (await server.call("events/poll", asked)).json()["events"][0]["data"]["stale"]
        server.write("INSERT INTO note(id, tenant, room, text) VALUES (1, 't', 'a', 'x')")
        then = (await server.call("events/poll", asked)).json()["events"][0]["data"]["stale"]
        assert (stale, [affected["path"] for affected in then]) == ([], ["notes.one"])
        for wrong in (await server.call("notes.one", {"id": "x"}), await server.call("notes.none")):
            assert "etag" not in wrong.headers


async def test_a_result_with_a_call_inside_has_a_version_unless_it_was_overtaken(file: Path) -> None:
    """The inner call has a snapshot of its own: only while nothing touches either are both of one version."""
    gate: list[Callable[[], None]] = []

    @define_reactive_function
    async def outer(db: AsyncSession, input: InRoom) -> int:
        own = len((await db.exec(select(Note.id).where(Note.room == input.room))).all())
        for write in gate:
            write()
        inner = await by_path(rpc)("notes.in_room", room=input.room)
        return own + len(inner)

    functions: Functions = {"notes": {"outer": outer, "in_room": rooms.in_room}}
    async with rooms.serving(file, functions) as server:
        rpc = server.rpc
        quiet = await server.call("notes.outer", {"room": "a"})
        assert quiet.headers[VERSION] == quiet.headers[CURSOR]
        gate.append(lambda: server.write("INSERT INTO note(tenant, room, text) VALUES ('t', 'b', 'x')"))
        torn = await server.call("notes.outer", {"room": "b"})
        assert torn.json() == 1, "half of it from before the write, half from after: no version shows that"
        assert VERSION not in torn.headers


@define_reactive_function
async def mine(db: AsyncSession, ctx: Login, input: InRoom) -> int:
    """Count, for one caller."""
    return len((await db.exec(select(Note.id).where(Note.room == input.room, Note.tenant == ctx.tenant))).all())


@define_reactive_function
async def refused(db: AsyncSession, ctx: Login, input: InRoom) -> int:
    """Find nothing."""
    raise NotFoundError(f"{input.room} of {ctx.tenant}")


async def test_the_scope_tells_callers_apart_and_nothing_else(file: Path, tmp_path: Path) -> None:
    """The same for identity and tenant on each answer and in `connected`, by any server; another for another caller;
    none where nobody was asked who calls.
    """
    functions: Functions = {"notes": {"mine": mine, "refused": refused, "open": rooms.in_room, "add": rooms.add}}
    found: dict[str, set[str | None]] = {}

    def rpc_on(path: Path) -> ReactiveRPC:
        return rooms.rpc_on(path, functions, context=who)

    for path in (file, tmp_path / "other.db"):
        async with rooms.opened(rpc_on(path), rooms.app_of) as server:
            for caller in ("u@t", "u@other", "v@t"):
                held = found.setdefault(caller, set())
                token = {"authorization": f"Bearer {caller}"}
                for name in ("notes.mine", "notes.mine", "notes.refused"):
                    held.add((await server.call(name, {"room": "a"}, **token)).headers.get(SCOPE))
                note = {"room": "a", "text": f"{caller} was here"}
                held.add((await server.call("notes.add", note, **token)).headers.get(SCOPE))
                queries = [{"path": "notes.mine", "input": {"room": "a"}}]
                polled = await server.call("events/poll", {"queries": queries, "wait": 0}, **token)
                held.add(polled.json()["events"][0]["data"].get("scope"))
    assert all(len(scopes) == 1 for scopes in found.values()), found
    assert len({scope for scopes in found.values() for scope in scopes if scope}) == 3, found
    async with rooms.serving(file) as server:
        assert SCOPE not in (await server.call("notes.in_room", {"room": "a"})).headers
