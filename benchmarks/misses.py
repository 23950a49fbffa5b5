"""A miss and a mutation beside the same in plain FastAPI and SQLModel: CPU time, in one process, turn and turn about.

Each side is called as a server calls it, but without one: through FastAPI's whole stack, by one caller. The reactive
side computes each result, stores it and finds the rows that it read; its mutation is captured. Their databases are
alike, and apart. Each round has a block of calls of each side; a round's ratio is one of its two blocks.

    python -m benchmarks.run misses                on SQLite, and on a PostgreSQL server of its own
    python -m benchmarks.misses sqlite [rounds]    on SQLite alone
    python -m benchmarks.misses postgresql [rounds]
"""

from __future__ import annotations

import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import uvloop
from fastapi import Depends, FastAPI
from pydantic import BaseModel
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import ReactiveRPC, define_reactive_function
from reactive_rpc.testing.postgresql import PostgreSQLServer, postgresql_server

ROWS = 20_000
ROUNDS = 9
CALLS = 40
WARM_UP = 2
KINDS = ("miss", "mutation")


class Item(SQLModel, table=True):
    """A row to read and to add."""

    id: int | None = Field(default=None, primary_key=True)
    owner: str = Field(index=True)
    n: int = 0


class One(BaseModel):
    """Which row."""

    id: int


class Add(BaseModel):
    """A row to add."""

    owner: str
    n: int


@define_reactive_function(public=True)
async def one(db: AsyncSession, input: One) -> Item | None:
    """Return one row."""
    return (await db.exec(select(Item).where(Item.id == input.id))).first()


@define_reactive_function.mutation(public=True)
async def add(db: AsyncSession, input: Add) -> Item:
    """Add a row."""
    item = Item(owner=input.owner, n=input.n)
    db.add(item)
    return item


@dataclass(slots=True)
class Side:
    """An application, and where it takes the two calls.

    Attributes:
        calls: how many it has taken; each reads another row, so none is answered from a cache.
    """

    app: FastAPI
    paths: dict[str, str]
    calls: int = 0

    async def block(self, kind: str, count: int) -> float:
        """Return the seconds of CPU time of so many calls, in all threads of this process."""
        began = time.process_time()
        for _ in range(count):
            self.calls += 1
            await self._call(kind)
        return time.process_time() - began

    async def _call(self, kind: str) -> None:
        if kind == "miss":
            status = await call(self.app, "GET", self.paths[kind], query=f"id={self.calls % ROWS + 1}")
        else:
            status = await call(self.app, "POST", self.paths[kind], body=b'{"owner": "a", "n": %d}' % self.calls)
        if status != 200:
            raise RuntimeError(f"{self.paths[kind]} answered {status}")


async def call(app: FastAPI, method: str, path: str, *, query: str = "", body: bytes = b"") -> int:
    """Call an application by ASGI, and return the status of its answer."""
    headers = [(b"host", b"bench"), (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "root_path": "", "query_string": query.encode(), "headers": headers,
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "state": {},
    }  # fmt: skip
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await app(scope, receive, send)
    return statuses[0]


@asynccontextmanager
async def reactive(url: str) -> AsyncIterator[Side]:
    """Serve the two as procedures."""
    rpc = ReactiveRPC(url, functions={"items": {"one": one, "add": add}}, metadata=SQLModel.metadata)
    app = FastAPI()
    app.include_router(rpc.router)
    async with rpc.lifespan(app):
        yield Side(app, {"miss": "/rpc/items.one", "mutation": "/rpc/items.add"})


@asynccontextmanager
async def plain(url: str) -> AsyncIterator[Side]:
    """Serve the two as FastAPI's documentation has them."""
    engine = create_async_engine(url)
    sessions = async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)
    app = FastAPI()

    async def session() -> AsyncIterator[AsyncSession]:
        async with sessions() as opened:
            yield opened

    @app.get("/one")
    async def one(id: int, db: AsyncSession = Depends(session)) -> Item | None:  # noqa: B008  # FastAPI's own spelling
        return (await db.exec(select(Item).where(Item.id == id))).first()

    @app.post("/add")
    async def add(input: Add, db: AsyncSession = Depends(session)) -> Item:  # noqa: B008
        item = Item(owner=input.owner, n=input.n)
        db.add(item)
        await db.commit()
        return item

    yield Side(app, {"miss": "/one", "mutation": "/add"})
    await engine.dispose()


@dataclass(slots=True)
class Measured:
    """The CPU time of one kind of call, in microseconds, a round each."""

    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        ratios = sorted(a / b for a, b in zip(self.ours, self.theirs, strict=True))
        ours, theirs = statistics.median(self.ours), statistics.median(self.theirs)
        spread = f"{ratios[len(ratios) // 4]:.2f} to {ratios[-1 - len(ratios) // 4]:.2f}"
        return f"{ours:6.0f} us, plain {theirs:6.0f} us, ratio {statistics.median(ratios):.2f} ({spread})"


async def measure(urls: tuple[str, str], *, rounds: int, calls: int) -> dict[str, Measured]:
    """Return the times by kind of call; `urls` name the database of each side."""
    found = {kind: Measured() for kind in KINDS}
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(reactive(urls[0]))
        theirs = await stack.enter_async_context(plain(urls[1]))
        for number in range(-WARM_UP, rounds):
            for kind in KINDS:
                for side, times in ((ours, found[kind].ours), (theirs, found[kind].theirs)):
                    seconds = await side.block(kind, calls)
                    if number >= 0:
                        times.append(seconds / calls * 1e6)
    return found


def file_at(path: Path) -> str:
    """Make a SQLite database with rows, and return its URL."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE item (id INTEGER NOT NULL PRIMARY KEY, owner VARCHAR NOT NULL, n INTEGER)")
        connection.execute("CREATE INDEX ix_item_owner ON item (owner)")
        connection.executemany("INSERT INTO item VALUES (?, ?, ?)", [(i, f"o{i % 50}", i) for i in range(1, ROWS + 1)])
    return f"sqlite+aiosqlite:///{path}"


def database_on(server: PostgreSQLServer) -> str:
    """Make a PostgreSQL database with rows, and return its URL."""
    url = server.new_database()
    libpq = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(libpq, autocommit=True) as connection:
        connection.execute("CREATE TABLE item (id serial PRIMARY KEY, owner varchar NOT NULL, n integer NOT NULL)")
        connection.execute("CREATE INDEX ix_item_owner ON item (owner)")
        connection.execute(f"INSERT INTO item (owner, n) SELECT 'o' || i % 50, i FROM generate_series(1, {ROWS}) AS i")
        connection.execute("ANALYZE item")
    return url


def print_measured(where: str, urls: tuple[str, str], *, rounds: int) -> None:
    """Measure on one database, and print."""
    for kind, measured in uvloop.run(measure(urls, rounds=rounds, calls=CALLS)).items():
        print(f"  {kind:9} on {where:11} {measured}")


def on_sqlite(folder: Path, *, rounds: int = ROUNDS) -> None:
    """Measure on SQLite."""
    print_measured("SQLite", (file_at(folder / "ours.db"), file_at(folder / "plain.db")), rounds=rounds)


def on_postgresql(*, rounds: int = ROUNDS) -> None:
    """Measure on PostgreSQL; its own CPU time is not counted."""
    with postgresql_server() as server:
        print_measured("PostgreSQL", (database_on(server), database_on(server)), rounds=rounds)


def run(folder: Path) -> None:
    """Measure and print."""
    print("CPU time of a call, beside plain FastAPI + SQLModel (medians, quartiles of the ratio):")
    on_sqlite(folder)
    on_postgresql()


if __name__ == "__main__":
    wanted, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else ROUNDS
    if wanted == "postgresql":
        on_postgresql(rounds=rounds)
    else:
        with tempfile.TemporaryDirectory() as folder:
            on_sqlite(Path(folder), rounds=rounds)
