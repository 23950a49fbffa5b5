"""Who listens: clients that show results, and bare readers of streams that keep books."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import httpx

from reactive_rpc.client.async_client import AsyncClient
from reactive_rpc.client.procedure import Procedure
from reactive_rpc.client.watch import Watch
from reactive_rpc.errors import ReactiveRPCError
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.protocol.events import Connected, Event, Gap, Invalidation, Result, decode_event
from reactive_rpc.protocol.sse import SSEDecoder
from tests.support.waiting import idle

from .books import Commit, Kind, Query, Record, Shown, Verdict, backwards, disorder, longest_lie, longest_silence, lost
from .books import outdated as outdated_results
from .queries import ABOVE, OF_GROUP, PUSHED, QUERIES, Above, Group

__all__ = ["Audience", "audience"]

CLIENTS = 2
REQUEST_SECONDS = 5.0
SILENCES_MISSED = 2.5
"""A stream is given up after so many heartbeats that did not come; the Python client does the same."""

JITTER = 0.1
"""Of the client's own backoff, which is made for servers that stay away for longer than these do."""


class Screen:
    """One watch, and what it showed when."""

    def __init__(self, query: Query, watch: Watch[dict[int, int]]) -> None:
        self.query = query
        self.states: list[Shown] = []
        self._watch = watch

    async def look(self) -> None:
        """Write down each state until the watch is over."""
        async for state in self._watch:
            self.states.append(Shown(time.monotonic(), state.is_stale, state.data or {}))

    def is_right(self, truth: dict[int, int] | None) -> bool:
        """Tell whether the state written down last shows a fresh result, and this one if it is given."""
        if not self.states or self.states[-1].is_stale:
            return False
        return truth is None or self.states[-1].data == {row: truth[row] for row in self.query.rows}


class Reader:
    """A bare reader of one stream, opened again and again, that keeps books on every event."""

    def __init__(self, url: str, queries: Sequence[Query], rng: random.Random, *, acks: bool) -> None:
        self.queries = tuple(queries)
        self.records: list[Record] = []
        self.connections = 0
        self._url = f"{url}/rpc/events"
        self._rng = rng
        self._acks = acks
        self._cursor: str | None = None
        self._seen: set[str] = set()

    async def read(self, http: httpx.AsyncClient) -> None:
        """Read until it is cancelled; whatever ends a stream, resume by cursor on another."""
        while True:
            with suppress(httpx.HTTPError, ReactiveRPCError, TimeoutError):
                await self._read_one(http)
            await idle(self._rng.uniform(0.05, 0.25), because="a client pauses before it opens another stream")

    async def _read_one(self, http: httpx.AsyncClient) -> None:
        request = {
            "queries": [{"path": query.path, "input": dict(query.input)} for query in self.queries],
            "cursor": self._cursor,
            "acks": self._acks,
        }
        decoder, silence_seconds = SSEDecoder(), REQUEST_SECONDS
        async with http.stream("POST", self._url, json=request, timeout=REQUEST_SECONDS) as response:
            response.raise_for_status()
            chunks = response.aiter_bytes()
            while True:
                async with asyncio.timeout(silence_seconds):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    return
                for one in decoder.feed(chunk):
                    event = decode_event(one)
                    if isinstance(event, Connected):
                        silence_seconds = SILENCES_MISSED * (event.heartbeat_seconds or REQUEST_SECONDS)
                        stream = event.stream
                    if event is not None and one.id:
                        self._note(event, Cursor.parse(one.id).version)
                        self._cursor = one.id
                if self._acks and self._cursor is not None and self.records:
                    await self._acknowledge(http, stream)

    async def _acknowledge(self, http: httpx.AsyncClient, stream: str) -> None:
        with suppress(httpx.HTTPError):
            await http.post(
                f"{self._url}/ack", json={"stream": stream, "cursor": self._cursor}, timeout=REQUEST_SECONDS
            )

    def _note(self, event: Event, version: int) -> None:
        now, connection = time.monotonic(), self.connections
        match event:
            case Connected():
                self.connections = connection = connection + 1
                named = frozenset(self._named(one.path, one.input) for one in event.stale)
                self.records.append(Record(now, version, named, "connected", connection))
            case Gap():
                kind = self._kind(f"gap {event.cursor}", new="gap")
                self.records.append(Record(now, version, None, kind, connection, reason=event.reason))
            case Invalidation():
                named = frozenset(self._named(one.path, one.input) for one in event.affected)
                kind = self._kind(event.event_id)
                self.records.append(Record(now, version, named, kind, connection))
            case Result():
                named = frozenset({self._named(event.path, event.input)})
                data = {int(row): n for row, n in event.data.items()}
                self.records.append(Record(now, version, named, self._kind(event.event_id), connection, data))

    def _kind(self, event_id: str, new: Kind = "event") -> Kind:
        """Tell whether an event is new: one that is sent again may never have been read."""
        if event_id in self._seen:
            return "again"
        self._seen.add(event_id)
        return new

    def _named(self, path: str, input: Any) -> Query:
        return next(query for query in self.queries if query.path == path and dict(query.input) == input)


class Audience:
    """All who listen in one trial."""

    def __init__(self) -> None:
        self.screens: list[Screen] = []
        self.readers: list[Reader] = []

    def is_listening(self) -> bool:
        """Tell whether every watch shows a fresh result, and every stream is up."""
        return all(screen.is_right(None) for screen in self.screens) and all(one.records for one in self.readers)

    def behind(self, truth: dict[int, int], commits: Sequence[Commit]) -> list[str]:
        """Return who does not show the truth, and what streams have not been told of."""
        wrong = [f"{screen.query} shows {screen.states[-1]}" for screen in self.screens if not screen.is_right(truth)]
        return wrong + [found for one in self.readers for found in lost(one.records, one.queries, commits)[1]]

    def verdict(self, commits: Sequence[Commit]) -> Verdict:
        """Return what the books say."""
        verdict = Verdict(commits=len(commits))
        for reader in self.readers:
            expected, missed = lost(reader.records, reader.queries, commits)
            verdict.expected += expected
            verdict.lost += missed
            verdict.disorder += disorder(reader.records) + outdated_results(reader.records, commits)
            verdict.events += len(reader.records)
            verdict.reconnections += reader.connections - 1
        for screen in self.screens:
            silence = longest_silence(screen.states, screen.query, commits)
            verdict.silence_seconds = max(verdict.silence_seconds, silence)
            verdict.lie_seconds = max(verdict.lie_seconds, longest_lie(screen.states, screen.query, commits))
            verdict.disorder += backwards(screen.states, screen.query)
        return verdict


@asynccontextmanager
async def audience(url: str, rng: random.Random) -> AsyncIterator[Audience]:
    """Give clients and readers of the server at `url`."""
    listening = Audience()
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        limits = httpx.Limits(max_connections=None)
        http = await stack.enter_async_context(httpx.AsyncClient(limits=limits, timeout=REQUEST_SECONDS))
        running: list[asyncio.Task[None]] = []
        for _ in range(CLIENTS):
            client = await stack.enter_async_context(
                AsyncClient(url, timeout_seconds=REQUEST_SECONDS, random=lambda: rng.random() * JITTER)
            )
            for query in QUERIES:
                watch = await stack.enter_async_context(client.watch(_procedure(query), dict(query.input)))
                screen = Screen(query, watch)
                listening.screens.append(screen)
                running.append(tasks.create_task(screen.look()))
        sets = [
            (QUERIES, True),
            (QUERIES, False),
            *(((query,), False) for query in (OF_GROUP[0], OF_GROUP[-1], PUSHED[0])),
        ]
        for queries, acks in sets:
            reader = Reader(url, queries, rng, acks=acks)
            listening.readers.append(reader)
            running.append(tasks.create_task(reader.read(http)))
        try:
            yield listening
        finally:
            for task in running:
                task.cancel()


def _procedure(query: Query) -> Procedure[dict[int, int]]:
    model = Above if query is ABOVE else Group
    return Procedure(query.path, f"/rpc/{query.path}", "GET", model, dict[int, int])
