"""Counts that cannot be noisy, of a hit, a miss, a mutation and an event: `python -m benchmarks.paths`.

For each: SQL statements, round trips to the database, calls of the package's functions, the modules that they stand in,
in order, and the peak of memory. The application is called as a server calls it, but without one, and its clock stands
still, so nothing happens beside.

    python -m benchmarks.paths                on SQLite
    python -m benchmarks.paths --postgresql   on a PostgreSQL server of its own; or give the URL of an empty database
    python -m benchmarks.paths --json         for tests/acceptance/test_path_counts.py, which holds the counts
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sqlite3
import sys
import tempfile
import textwrap
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psycopg
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import make_url
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from benchmarks.path_counters import Counter, Passed, Wire
from reactive_rpc import Login, define_reactive_function
from reactive_rpc.changes.wake_up import NoWakeUp
from reactive_rpc.testing import FakeClock
from reactive_rpc.testing.fakes import faked
from reactive_rpc.testing.postgresql import postgresql_server

WARM_UP = 3
"""So often each path is gone before it is counted: what is kept for good has been made by then."""

PASSES = 20
"""So often memory is measured."""

HITS = 1000
"""So many hits make one block that is kept of each tell from the few that come and go in an interpreter."""

OTHER_WORDS = "CASE text WHEN 'these' THEN 'those' ELSE 'these' END"


class Note(SQLModel, table=True):
    """A row to read, write and watch."""

    id: int | None = Field(default=None, primary_key=True)
    room: str = Field(index=True)
    text: str


class Room(BaseModel):
    """Which notes."""

    room: str


class NewNote(Room):
    """A note to add."""

    text: str


@define_reactive_function
async def get_all(db: AsyncSession, ctx: Login, input: Room) -> list[Note]:
    """Return the notes of a room."""
    return list((await db.exec(select(Note).where(Note.room == input.room))).all())


@define_reactive_function.mutation
async def add(db: AsyncSession, ctx: Login, input: NewNote) -> None:
    """Add a note."""
    db.add(Note(room=input.room, text=input.text))


async def context() -> Login:
    """Stand for a login check."""
    return Login(identity="ada", tenant="t")


@dataclass(frozen=True, slots=True)
class Counts:
    """One path.

    Attributes:
        statements: the SQL sent.
        round_trips: to the database, see `Passed`.
        functions: calls of the package's functions.
        modules: in order.
        peak_bytes: the most memory that was held at once beyond the beginning; 0 where it was not measured.
        kept_blocks: how many blocks of memory more are held after one pass; only of a hit, which should keep none.
    """

    statements: list[str]
    round_trips: int
    functions: int
    modules: list[str]
    peak_bytes: int = 0
    kept_blocks: float = 0.0


@dataclass(slots=True)
class Stream:
    """An open event stream: what it was sent."""

    chunks: list[bytes] = field(default_factory=list)

    @property
    def events(self) -> int:
        """How many events have come."""
        return b"".join(self.chunks).count(b"event: ")


class Server:
    """An open application, called by ASGI messages."""

    def __init__(self, app: FastAPI, clock: FakeClock, write: Callable[[str], None]) -> None:
        self.clock = clock
        self.write = write
        self._app = app

    async def call(self, method: str, path: str, *, body: bytes = b"", **query: str) -> bytes:
        """Return the body of an answer.

        Raises:
            RuntimeError: it is no 200.
        """
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self._app(_scope(method, path, query), _receiving(body), send)  # type: ignore[arg-type]
        answer = b"".join(message.get("body", b"") for message in sent)
        if sent[0]["status"] != 200:
            raise RuntimeError(f"{path} answers {sent[0]['status']}: {answer.decode()}")
        return answer

    @asynccontextmanager
    async def stream(self, room: str) -> AsyncIterator[Stream]:
        """Open a stream that watches a room."""
        stream = Stream()

        async def send(message: dict[str, Any]) -> None:
            stream.chunks.append(message.get("body", b""))

        body = json.dumps({"queries": [{"path": "notes.get_all", "input": {"room": room}}]}).encode()
        scope = _scope("POST", "/rpc/events", {})
        task = asyncio.create_task(self._app(scope, _receiving(body), send))  # type: ignore[arg-type]
        try:
            await until(lambda: stream.events == 1)
            yield stream
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _scope(method: str, path: str, query: dict[str, str]) -> dict[str, Any]:
    headers = [(b"host", b"test"), (b"content-type", b"application/json")]
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "scheme": "http",
        "method": method, "path": path, "raw_path": path.encode(), "root_path": "", "headers": headers,
        "query_string": urlencode(query).encode(), "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip


def _receiving(body: bytes) -> Callable[[], Awaitable[dict[str, Any]]]:
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop()

    return receive


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop go round until `condition` holds."""
    if condition():
        return
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # no event tells that tasks have ended
            await asyncio.sleep(0)


@asynccontextmanager
async def serving(url: str, write: Callable[[str], None]) -> AsyncIterator[Server]:
    """Open an application on a database."""
    clock = FakeClock()
    functions = {"notes": {"get_all": get_all, "add": add}}
    rpc = faked(clock=clock)(url, functions=functions, context=context, metadata=SQLModel.metadata)
    # Woken by the very commit, it would read before its reads are counted: it reads when the clock says so.
    rpc._follower._wake_up = NoWakeUp()
    app = FastAPI(lifespan=rpc.lifespan)
    app.include_router(rpc.router)
    async with _opened(app):
        yield Server(app, clock, write)


@asynccontextmanager
async def _opened(app: FastAPI) -> AsyncIterator[None]:
    """Open an application as a server does, by the messages of its lifespan: the shortcut is installed only then."""
    received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    task = asyncio.create_task(app(scope, received.get, sent.put))  # type: ignore[arg-type]
    await received.put({"type": "lifespan.startup"})
    answer = await sent.get()
    if answer["type"] != "lifespan.startup.complete":
        raise RuntimeError(f"the application did not open: {answer}")
    try:
        yield
    finally:
        await received.put({"type": "lifespan.shutdown"})
        await task


@dataclass(frozen=True, slots=True)
class Way:
    """A path, which is gone as often as one likes.

    Attributes:
        prepare: is not counted; takes the number of the pass, and so does `go`.
        go: is counted, until every task that it began has ended.
    """

    prepare: Callable[[Server, int], Awaitable[None]]
    go: Callable[[Server, int], Awaitable[None]]


async def _read(server: Server, room: str) -> None:
    await server.call("GET", "/rpc/notes.get_all", room=room)


async def _nothing(_: Server, __: int) -> None:
    pass


async def _mutate(server: Server, n: int) -> None:
    body = json.dumps({"room": f"written-{n}", "text": "some words"}).encode()
    await server.call("POST", "/rpc/notes.add", body=body)


async def _write_beside(server: Server, _: int) -> None:
    server.write("watched")


@asynccontextmanager
async def ways(server: Server) -> AsyncIterator[dict[str, Way]]:
    """Give the four paths, with a stream open that the last one needs.

    A hit reads a room that is stored, a miss one that is not. A mutation writes to a room that is stored. An event
    begins with the commit of another process and ends when the stream has been sent it and the query is computed again.
    """
    for room in ("stored", "watched"):
        await server.call("POST", "/rpc/notes.add", body=json.dumps({"room": room, "text": "some words"}).encode())
    async with server.stream("watched") as stream:

        async def hear(server: Server, _: int) -> None:
            events = stream.events
            server.clock.advance(0.02)
            await until(lambda: stream.events > events)

        yield {
            "hit": Way(lambda server, _: _read(server, "stored"), lambda server, _: _read(server, "stored")),
            "miss": Way(_nothing, lambda server, n: _read(server, f"missed-{n}")),
            "mutation": Way(lambda server, n: _read(server, f"written-{n}"), _mutate),
            "event": Way(_write_beside, hear),
        }


async def _gone(way: Way, server: Server, n: int) -> None:
    tasks, sleepers = asyncio.all_tasks(), server.clock.sleepers
    await way.go(server, n)
    await until(lambda: not asyncio.all_tasks() - tasks and server.clock.sleepers == sleepers)
    await asyncio.sleep(0)  # what the last of those tasks has left to the event loop


async def _pass(way: Way, server: Server, n: int, counter: Counter) -> Passed:
    await way.prepare(server, n)
    with counter.counting() as passed:
        await _gone(way, server, n)
    return passed


async def measure(url: str, write: Callable[[str], None], counter: Counter, *, with_memory: bool) -> dict[str, Counts]:
    """Return `{path: counts}` of an application on an empty database.

    Args:
        url: of the database, which `counter` sees the statements of.
        write: updates the rows of a room, as another process would.
        with_memory: measure that too. Where the database is reached through this process, it would be of both.
    """
    counts = {}
    async with AsyncExitStack() as stack:
        with counter.following_calls():  # of the threads too, which begin as the application is opened
            server = await stack.enter_async_context(serving(url, write))
            found = await stack.enter_async_context(ways(server))
            for name, way in found.items():
                passed = [await _pass(way, server, n, counter) for n in range(WARM_UP + 1)][-1]
                counts[name] = Counts(passed.statements, passed.round_trips, passed.functions, passed.modules)
        if with_memory:
            for name, way in found.items():
                counts[name] = replace(counts[name], peak_bytes=await _peak_bytes(way, server))
            counts["hit"] = replace(counts["hit"], kept_blocks=await _kept_blocks(found["hit"], server))
    return counts


async def _peak_bytes(way: Way, server: Server) -> int:
    """Return the lowest peak of several passes: that one met no dictionary that happened to grow."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        peaks = []
        for n in range(WARM_UP + 1, WARM_UP + 1 + PASSES):
            await way.prepare(server, n)
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            await _gone(way, server, n)
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
        return min(peaks)
    finally:
        tracemalloc.stop()
        gc.enable()


async def _kept_blocks(way: Way, server: Server) -> float:
    await _gone(way, server, 0)
    gc.collect()
    before = sys.getallocatedblocks()
    for n in range(HITS):
        await _gone(way, server, n)
    gc.collect()
    return (sys.getallocatedblocks() - before) / HITS


@asynccontextmanager
async def _reached(url: str, counter: Counter) -> AsyncIterator[str]:
    """Give the URL by which the application reaches a server, so that what it sends is counted."""
    parsed = make_url(url)
    async with Wire(counter, host=parsed.host or "", port=parsed.port or 5432).listening() as port:
        yield parsed.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)


async def on_sqlite() -> dict[str, Counts]:
    """Measure on a new file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "paths.db"

        def write(room: str) -> None:
            with closing(sqlite3.connect(path)) as connection, connection:
                connection.execute(f"UPDATE note SET text = {OTHER_WORDS} WHERE room = ?", (room,))

        counter = Counter()
        with counter.following_sqlite():
            return await measure(f"sqlite+aiosqlite:///{path}", write, counter, with_memory=True)


async def on_postgresql(url: str) -> dict[str, Counts]:
    """Measure on an empty database."""
    direct = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)

    def write(room: str) -> None:
        with psycopg.connect(direct) as connection:
            connection.execute(f"UPDATE note SET text = {OTHER_WORDS} WHERE room = %s", (room,))

    counter, parsed = Counter(), make_url(url)
    async with Wire(counter, host=parsed.host or "127.0.0.1", port=parsed.port or 5432).listening() as port:
        reached = parsed.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
        return await measure(reached, write, counter, with_memory=False)


def show(title: str, counts: dict[str, Counts]) -> None:
    """Print a table, and the way of each path."""
    print(f"{title}\n  {'':8} statements round trips functions modules peak, KiB")
    for name, one in counts.items():
        numbers = f"{len(one.statements):10} {one.round_trips:11} {one.functions:9} {len(one.modules):7}"
        print(f"  {name:8} {numbers} {one.peak_bytes / 1024:9.1f}")
    for name, one in counts.items():
        print(textwrap.fill(f"{name}: {' '.join(one.modules)}", 100, initial_indent="  ", subsequent_indent="    "))


def run(_: Path) -> None:
    """Measure and print."""
    show("What each path passes, on SQLite:", asyncio.run(on_sqlite()))


def main() -> None:
    """Measure where it is asked, and print."""
    parser = argparse.ArgumentParser(description="Count what a hit, a miss, a mutation and an event pass.")
    parser.add_argument("--json", action="store_true", help="print one JSON object, with every statement")
    parser.add_argument("--postgresql", nargs="?", const="", metavar="URL", help="measure on an empty database there")
    asked = parser.parse_args()
    with ExitStack() as stack:
        url: str | None = asked.postgresql
        if url == "":
            url = stack.enter_context(postgresql_server()).new_database()
        counts = asyncio.run(on_sqlite() if url is None else on_postgresql(url))
    if asked.json:
        print(json.dumps({name: asdict(one) for name, one in counts.items()}))
    else:
        show(f"What each path passes, on {'SQLite' if url is None else 'PostgreSQL'}:", counts)


if __name__ == "__main__":
    main()
