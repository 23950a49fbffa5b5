"""Two workers on one PostgreSQL that share results through Redis: a handler runs once, and nobody is answered stale."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Annotated, Any

import psycopg
import pytest
from fastapi import Depends, Header
from sqlalchemy import make_url
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import Login, define_reactive_function
from reactive_rpc.backends.postgresql.capture.backend import PostgreSQLCapture
from reactive_rpc.backends.postgresql.log import PostgreSQLLog
from reactive_rpc.backends.postgresql.url import libpq_url
from reactive_rpc.backends.redis.connection import connect_redis
from reactive_rpc.backends.redis.result_store import RedisResultStore
from reactive_rpc.cache import stored_results as module
from reactive_rpc.cache.reader import Reader
from reactive_rpc.cache.result import HandlerOutcome, ResultKey
from reactive_rpc.cache.store import MemoryStore
from reactive_rpc.cache.stored_results import StoredResults
from reactive_rpc.clock import RandomIds
from reactive_rpc.dependencies.change import Change
from reactive_rpc.dependencies.read_set import Constraint, Equals, ReadSet
from reactive_rpc.procedures.execution import Observation
from reactive_rpc.testing.redis import RedisServer
from tests.support.waiting import until

from .postgresql_rooms import Server, serving
from .rooms import ROOMS, InRoom, Note, who

pytestmark = pytest.mark.anyio

INSERT = "INSERT INTO note(tenant, room, text) VALUES ('t', %s, %s)"


@define_reactive_function
async def mine(db: AsyncSession, ctx: Login, input: InRoom) -> str:
    """Who asks, and how many notes there are in a room."""
    notes = (await db.exec(select(Note).where(Note.room == input.room))).all()
    return f"{ctx.identity}: {len(notes)}"


def language(accept_language: Annotated[str, Header()] = "en") -> str:
    return accept_language[:2]


@define_reactive_function
async def translated(db: AsyncSession, lang: Annotated[str, Depends(language)]) -> str:
    """In which language, and how many notes there are."""
    return f"{lang}: {len((await db.exec(select(Note))).all())}"


FUNCTIONS: Mapping[str, Any] = {**ROOMS, "mine": {"count": mine, "translated": translated}}


WAIT = module.WAIT_SECONDS


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a busy machine take its time; what is as quick as it must be, a test says itself."""
    monkeypatch.setattr(module, "ANSWER_SECONDS", 5.0)
    monkeypatch.setattr(module, "WRITE_SECONDS", 5.0)
    monkeypatch.setattr(module, "WAIT_SECONDS", (0.01,) * 1_000)


@dataclass
class Workers:
    """Applications on one database and one Redis, and how often their handlers have run.

    Attributes:
        runs: `{path of a procedure: how often}`, in all workers.
    """

    url: str
    redis_url: str
    namespace: str
    stack: AsyncExitStack
    runs: Counter[str] = field(default_factory=Counter)

    async def open(self, **settings: Any) -> Server:
        """Return one more worker."""
        shared = {"redis_url": self.redis_url, "redis_namespace": self.namespace, "build": "b1"}
        options: dict[str, Any] = {"functions": FUNCTIONS, "context": who, "settings": shared | settings}
        server = await self.stack.enter_async_context(serving(self.url, **options))
        server.client.headers["authorization"] = "Bearer ann@t"

        def count(observation: Observation) -> None:
            self.runs[observation.path] += 1

        server.rpc.admin.observe(count)
        return server

    async def texts(self, server: Server, room: str) -> list[str]:
        """Return what a worker answers."""
        return [note["text"] for note in await server.answer("notes.in_room", {"room": room})]

    async def keys(self, kind: str) -> list[str]:
        """Return the keys of Redis that hold records or leases."""
        client = connect_redis(self.redis_url)
        try:
            return [name.decode() async for name in client.scan_iter(match=f"{self.namespace}:{kind}:*")]
        finally:
            await client.aclose()

    async def is_shared(self, results: int) -> None:
        """Wait until so many results are there for others."""

        async def are_there() -> bool:
            return len(await self.keys("value")) >= results

        await until(are_there, "nothing was shared")


@pytest.fixture
async def workers(postgresql_url: str, redis_server_url: str, redis_namespace: str) -> AsyncIterator[Workers]:
    async with AsyncExitStack() as stack:
        yield Workers(postgresql_url, redis_server_url, redis_namespace, stack)


async def test_a_handler_runs_once_for_all_workers(workers: Workers) -> None:
    """What one has computed another answers, until somebody writes what it rests on; then one of them runs it again."""
    one, other = await workers.open(), await workers.open()
    one.write(INSERT, "a", "first")
    assert await workers.texts(one, "a") == ["first"]
    await workers.is_shared(1)
    assert await workers.texts(other, "a") == ["first"]
    one.write(INSERT, "b", "elsewhere")
    assert await workers.texts(other, "a") == ["first"]
    assert workers.runs["notes.in_room"] == 1
    for round in range(5):
        one.write(INSERT, "a", f"more {round}")
        answers = await asyncio.gather(*(workers.texts(server, "a") for server in (one, other)))
        assert answers == [["first", *(f"more {n}" for n in range(round + 1))]] * 2
        assert workers.runs["notes.in_room"] == round + 2
    stats = [server.rpc.admin.stats() for server in (one, other)]
    assert sum(stat["shared_hits"] for stat in stats) == 6
    assert sum(stat["shared_puts"] for stat in stats) == 6


async def test_an_etag_is_the_same_whoever_answers(workers: Workers) -> None:
    """A client that holds a result is told by any worker that nothing has changed."""
    one, other = await workers.open(), await workers.open()
    first = await one.client.get("/rpc/notes.in_room", params={"room": "a"})
    await workers.is_shared(1)
    again = await other.client.get(
        "/rpc/notes.in_room", params={"room": "a"}, headers={"if-none-match": first.headers["etag"]}
    )
    assert (first.status_code, again.status_code, workers.runs["notes.in_room"]) == (200, 304, 1)


async def test_headers_are_part_of_the_key_and_overrides_are_no_ones_but_this_process(workers: Workers) -> None:
    """Another worker is answered by the header's value, and never what was made with another function."""
    one, other = await workers.open(), await workers.open()
    one.write(INSERT, "a", "first")

    async def ask(server: Server, language: str) -> str:
        response = await server.client.get("/rpc/mine.translated", headers={"accept-language": language})
        return str(response.json())

    assert await ask(one, "de") == "de: 1"
    await workers.is_shared(1)
    assert await ask(other, "de") == "de: 1"
    assert workers.runs["mine.translated"] == 1
    assert await ask(other, "fr") == "fr: 1"
    one.app.dependency_overrides[language] = lambda: "xx"
    assert await ask(one, "de") == "xx: 1"
    assert await ask(one, "es") == "xx: 1"
    assert workers.runs["mine.translated"] == 3
    await workers.is_shared(2)
    assert await ask(other, "es") == "es: 1"


async def test_no_result_crosses_a_scope(workers: Workers) -> None:
    """Each identity's result is its own, in every worker; the same identity's is shared."""
    one, other = await workers.open(), await workers.open()
    for server in (one, other):
        for identity in ("ann", "bob"):
            response = await server.call("mine.count", {"room": "a"}, authorization=f"Bearer {identity}@t")
            assert response.json() == f"{identity}: 0"
        await workers.is_shared(2)
    assert workers.runs["mine.count"] == 2


async def test_another_build_computes_its_own(workers: Workers) -> None:
    """And a worker without a build shares nothing."""
    one, other, none = await workers.open(), await workers.open(build="b2"), await workers.open(build="")
    for number, server in enumerate((one, other, none), 1):
        await workers.texts(server, "a")
        assert workers.runs["notes.in_room"] == number
        await workers.is_shared(min(number, 2))
    assert len(await workers.keys("value")) == 2


async def test_damaged_records_are_not_answered(workers: Workers) -> None:
    """Cut, overwritten or exchanged for another query's: the handler runs, and the answer is right."""
    one, other = await workers.open(), await workers.open()
    one.write(INSERT, "a", "in a")
    for room in ("a", "b", "c"):
        await workers.texts(one, room)
    await workers.is_shared(3)
    client = connect_redis(workers.redis_url)
    names = await workers.keys("value")
    records: list[Any] = [await client.get(name) for name in names]
    await client.set(names[0], records[1])
    await client.set(names[1], records[0])
    await client.set(names[2], records[2][:-3] + b"'']")
    await client.aclose()
    assert [await workers.texts(other, room) for room in ("a", "b", "c")] == [["in a"], [], []]
    assert workers.runs["notes.in_room"] == 6


async def test_errors_and_what_cannot_be_told_are_not_shared(workers: Workers) -> None:
    """An error that a handler answers is each worker's own, and nobody waits for another's."""
    one, other = await workers.open(), await workers.open()
    for server in (one, other, one, other):
        assert (await server.call("notes.one", {"id": 7})).status_code == 404
    assert (workers.runs["notes.one"], await workers.keys("value"), await workers.keys("lease")) == (2, [], [])


@pytest.mark.parametrize("seed", range(2))
async def test_no_answer_is_stale_while_everybody_writes(
    workers: Workers, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rooms are written and read at random through two workers: what was acknowledged before a request is in it."""
    monkeypatch.setattr(module, "WAIT_SECONDS", WAIT)
    rng = random.Random(seed)
    servers = [await workers.open(cache_max_bytes=rng.choice([0, 64 * 1024 * 1024])), await workers.open()]
    written: Counter[str] = Counter()
    wrong = requests = 0

    async def read_on(times: int) -> None:
        enough = requests + times
        await until(lambda: requests >= enough, "nobody reads")

    async def write() -> None:
        with await asyncio.to_thread(servers[0].connect) as connection:
            for number in range(100):
                room = rng.choice("abc")
                await asyncio.to_thread(connection.execute, INSERT.encode(), (room, f"note {number}"))
                written[room] += 1
                await read_on(rng.randrange(4))

    async def read(server: Server) -> None:
        nonlocal wrong, requests
        while not writing.done():
            room = rng.choice("abc")
            expected = written[room]
            wrong += len(await workers.texts(server, room)) < expected
            requests += 1

    writing = asyncio.create_task(write())
    await asyncio.gather(writing, *(read(server) for server in servers for _ in range(3)))
    stats = [server.rpc.admin.stats() for server in servers]
    assert (wrong, requests > 0) == (0, True)
    assert sum(stat["shared_hits"] for stat in stats) > 0


@dataclass
class Count:
    """A query of the reader's: the number in a row, read over a connection of its own."""

    url: str
    row: int
    key: ResultKey = ("count", b"", b"")
    depth: int = 0
    keep: Callable[[Change], bool] | None = None
    computed: int = 0
    held_bytes: int = 0
    is_cached: bool = True
    is_shared: bool = True

    async def compute(self) -> HandlerOutcome:
        self.computed += 1
        condition = {"id": Equals(frozenset({self.row}))}
        return HandlerOutcome(await asyncio.to_thread(self._read), ReadSet((Constraint("t", None, dict(condition)),)))

    def _read(self) -> bytes:
        with psycopg.connect(self.url) as connection:
            row = connection.execute("SELECT n FROM t WHERE id = %s", [self.row]).fetchone()
            return b"null" if row is None else b"%d" % row[0]


async def test_answers_come_while_redis_hangs(
    postgresql_url: str, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the log is read from the database, a Redis that is stopped costs sharing and nothing else."""
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.1)
    url = make_url(postgresql_url)
    with psycopg.connect(libpq_url(url), autocommit=True) as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY, n int)")
        connection.execute("INSERT INTO t VALUES (1, 1), (2, 2)")
        log = PostgreSQLLog(PostgreSQLCapture(url, ids=RandomIds()), url)
        values = StoredResults(RedisResultStore(own_redis.url, "test"), build="b1", ttl_seconds=60)
        reader = Reader(log, MemoryStore(1_000_000), shared=values)
        log.subscribe(reader.apply)
        async with AsyncExitStack() as stack:
            for close in (reader.aclose, log.aclose, values.aclose):
                stack.push_async_callback(close)
            await log.open()
            await values.open()
            query = Count(libpq_url(url), 1)
            assert (await reader.get(query)).answer() == b"1"
            own_redis.pause()
            for n in range(2, 8):
                connection.execute("UPDATE t SET n = %s WHERE id = 1", [n])
                async with asyncio.timeout(60):
                    assert (await reader.get(query)).answer() == b"%d" % n
            assert (query.computed, reader.stats.stored) == (7, 7)
            own_redis.stop(how="kill")
            connection.execute("UPDATE t SET n = 9 WHERE id = 1")
            assert (await reader.get(query)).answer() == b"9"
