"""The whole server on a real file: what it answers and what a stream's client holds, against the truth.

Queries are made of seeds by handlers, so that they are cached like any other; writes come through mutations, plain
engines (one without foreign keys, like the sqlite3 shell) and another process, some of them while queries run. After
each write, every answer must equal what a fresh connection reads, and so must what a client holds that fetches again
only when its stream tells it to.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Engine
from sqlalchemy.orm import Session as PlainSession
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import ReactiveRPC, Settings, define_reactive_function
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.protocol.events import Connected, Invalidation, QueryRef, decode_event
from reactive_rpc.protocol.sse import SSEDecoder
from reactive_rpc.subscriptions.watched_query import RequestedQuery
from tests.support.calls import by_path

from .generator import Generator
from .model import METADATA, TABLES
from .windows import WindowGenerator
from .writers import OtherProcess, plain_engine, write_by

__all__ = ["MEANS", "EndToEnd", "WrongError"]

MEANS = ("mutation", "engine", "shell", "process")


BETWEEN: list[Callable[[], Awaitable[None]]] = []
"""What the next async handler that runs does in its middle, once; no `ContextVar`, which queries do not see."""


PAGE = "page "
"""The seed of a page begins with it."""


class WrongError(AssertionError):
    """Something stale was served, or a stream's client was not told; the message says how to see it again."""


class Seed(BaseModel):
    """What a query or a write is made of."""

    seed: str


def ask(session: PlainSession, seed: str) -> str:
    """Return the result of the query that `seed` stands for."""
    query = _query(seed)
    if callable(query):
        return repr(query(session))
    rows = [tuple(row) for row in session.execute(query)]
    return repr(rows if getattr(query, "_limit_clause", None) is not None else sorted(rows, key=repr))


def _query(seed: str) -> Any:
    if seed.startswith(PAGE):
        return WindowGenerator(random.Random(f"query {seed}")).query()
    generator = Generator(random.Random(f"query {seed}"))
    return generator.orm() if generator.chance(5) else generator.core()


@define_reactive_function
async def ask_async(db: AsyncSession, input: Seed) -> str:
    """Ask by an async session, twice; what is to happen between, happens: the snapshot must not notice."""
    first = await db.run_sync(lambda session: ask(session, input.seed))
    if BETWEEN:
        await BETWEEN.pop()()
    second = await db.run_sync(lambda session: ask(session, input.seed))
    return f"{first} {second}"


@define_reactive_function
def ask_sync(db: Session, input: Seed) -> str:
    """Ask by a sync session, in a worker thread."""
    answer = ask(db, input.seed)
    return f"{answer} {answer}"


@define_reactive_function.mutation
def write(db: Session, input: Seed) -> None:
    """Do the write that the seed stands for."""
    Generator(random.Random(f"write {input.seed}")).write()(db.connection())


class Client:
    """Holds results and fetches again only what its stream names."""

    def __init__(self, rpc: ReactiveRPC, queries: list[tuple[str, str]]) -> None:
        self.queries = queries
        self.held: dict[tuple[str, str], str] = {}
        self._rpc = rpc
        self._names: dict[str, tuple[str, str]] = {}
        self._stale: set[tuple[str, str]] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Fetch everything and listen."""
        hub, caller, log = self._rpc._hub, self._rpc._calls, self._rpc._log
        cursor = Cursor(log.epoch, await log.sync_to_head())
        for path, seed in self.queries:
            self.held[path, seed] = await by_path(self._rpc)(path, seed=seed)
        calls = [await caller.subscribe(path, {"seed": seed}, None) for path, seed in self.queries]
        self._names = {call.wire_key: query for call, query in zip(calls, self.queries, strict=True)}
        refs = [QueryRef(path=path, input={"seed": seed}) for path, seed in self.queries]
        subscriptions = [RequestedQuery(ref, call=call) for ref, call in zip(refs, calls, strict=True)]
        self._stream, first = await hub.connect(subscriptions, cursor, acks=False)
        self._hear(first)
        listener = asyncio.create_task(self._listen())
        try:
            yield
        finally:
            hub.disconnect(self._stream)
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)

    async def _listen(self) -> None:
        async def hear(frame: bytes) -> None:
            self._hear(frame)

        await self._stream.write_to(hear)

    def _hear(self, frame: bytes) -> None:
        for event in map(decode_event, SSEDecoder().feed(frame)):
            if isinstance(event, Connected | Invalidation):
                named = event.stale if isinstance(event, Connected) else event.affected
                self._stale.update(self._names[affected.key] for affected in named)

    async def settle(self) -> None:
        """Fetch what is stale until nothing is, and the hub has nothing left to do."""
        while self._stale or self._stream._waiting or self._rpc._hub._tasks:
            while self._stale:
                path, seed = self._stale.pop()
                self.held[path, seed] = await by_path(self._rpc)(path, seed=seed)
            await asyncio.sleep(0)


class EndToEnd:
    """One server on one file.

    Attributes:
        counters: `answers` compared, how many came as `hits`, how many `changed`, `told` or not.
    """

    def __init__(self, folder: Path) -> None:
        self.counters: Counter[str] = Counter()
        self._path = folder / "end_to_end.db"
        functions = {"generated": {"ask_async": ask_async, "ask_sync": ask_sync, "write": write}}
        settings = Settings(heartbeat_seconds=0)  # `settle` waits until the hub has nothing left to do
        self.rpc = ReactiveRPC(f"sqlite:///{self._path}", functions=functions, metadata=METADATA, settings=settings)
        self._engines = {
            "engine": plain_engine(self._path),
            "shell": plain_engine(self._path, foreign_keys=False),
        }

    async def run(self, seed: int, cases: int) -> None:
        """Run so many cases.

        Raises:
            WrongError: a stale answer, or a client that was not told.
        """
        await self.rpc.admin.open()
        other = OtherProcess(self._path)
        try:
            for case in range(cases):
                await self._run_case(f"{seed}:{case}", other)
        finally:
            other.close()
            await self.rpc.admin.aclose()
            for engine in self._engines.values():
                engine.dispose()
        self.counters.update(hits=int(self.rpc.admin.stats()["hits"]))

    async def _run_case(self, name: str, other: OtherProcess) -> None:
        choices = random.Random(name)
        self._fill(Generator(random.Random(f"rows {name}")))
        queries = self._queries(name, choices)
        client = Client(self.rpc, queries)
        before = self._truths(queries)

        async def interrupt() -> None:
            await write_by(choices.choice(MEANS), f"{name}:between", by_path(self.rpc), self._engines, other)
            await self.rpc._log.sync_to_head()  # as any other request would
            self.counters.update(interrupted=1)

        BETWEEN[:] = [interrupt]
        async with client.listening():
            BETWEEN.clear()
            truth = self._truths(queries)
            self.counters.update(changed=sum(before[query] != truth[query] for query in queries))
            await self._compare(f"case {name}, write during the first query", client, truth)
            for number in range(choices.randint(8, 12)):
                means, concurrent = choices.choice(MEANS), choices.random() < 0.5
                write = write_by(means, f"{name}:{number}", by_path(self.rpc), self._engines, other)
                asked = [self._ask(query) for query in queries] if concurrent else []
                await asyncio.gather(write, *asked)
                before, truth = truth, self._truths(queries)
                self.counters.update(changed=sum(before[query] != truth[query] for query in queries))
                await self._compare(f"case {name}, write {number} by {means}", client, truth)

    def _queries(self, name: str, choices: random.Random) -> list[tuple[str, str]]:
        """Return up to four queries and two pages, those first that find something, which a write then changes."""
        paths = ("generated.ask_async", "generated.ask_sync")
        candidates = [(choices.choice(paths), f"{name}:{number}") for number in range(12)]
        pages = [(paths[number % 2], f"{PAGE}{name}:{number}") for number in range(6)]
        answers = self._truths([*candidates, *pages])
        best = [sorted(each, key=lambda query: answers[query] == "[] []") for each in (candidates, pages)]
        return [*best[0][:4], *best[1][:2]]

    async def _compare(self, name: str, client: Client, truth: dict[tuple[str, str], str]) -> None:
        for query in client.queries:
            self.counters.update(answers=1)
            answer = await self._ask(query)
            if answer != truth[query]:
                raise WrongError(f"STALE: {name}: {query} answered {answer}, the database says {truth[query]}")
        await client.settle()
        for query in client.queries:
            if client.held[query] != truth[query]:
                raise WrongError(f"NOT TOLD: {name}: {query} shows {client.held[query]}, not {truth[query]}")

    async def _ask(self, query: tuple[str, str]) -> str:
        path, seed = query
        answer: str = await by_path(self.rpc)(path, seed=seed)
        return answer

    def _truths(self, queries: list[tuple[str, str]]) -> dict[tuple[str, str], str]:
        """Ask a connection that nothing is cached on."""
        with PlainSession(self._engines["engine"]) as session:
            answers = {query: ask(session, query[1]) for query in queries}
        return {query: f"{answer} {answer}" for query, answer in answers.items()}

    def _fill(self, generator: Generator) -> None:
        engine: Engine = self._engines["engine"]
        with engine.begin() as connection:
            for table in reversed(TABLES.values()):
                connection.execute(table.delete())
            for name, rows in generator.tables().items():
                if rows:
                    connection.execute(TABLES[name].insert(), rows)
