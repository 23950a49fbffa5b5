"""A hub on a scripted log, and listeners that read its streams as the web layer does."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

from reactive_rpc.changes.ephemeral_store import EphemeralStore
from reactive_rpc.changes.memory_store import InMemoryEphemeralStore
from reactive_rpc.procedures.call import QueryCall
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.protocol.events import Connected, Invalidation, QueryRef, decode_event
from reactive_rpc.protocol.sse import SSEDecoder
from reactive_rpc.subscriptions.holdings import Bounds
from reactive_rpc.subscriptions.hub import Hub
from reactive_rpc.subscriptions.stream import Stream
from reactive_rpc.subscriptions.watched_query import RequestedQuery
from reactive_rpc.testing import FakeClock, SequentialIds
from tests.unit.cache.scripted import RowQuery, ScriptedLog, ScriptedReader, until

ROOM = Bounds(
    max_watched_queries=1_000_000,
    max_watched_queries_per_identity=1_000_000,
    max_watched_bytes=1_000_000_000,
    max_watched_bytes_per_identity=1_000_000_000,
)
"""Bounds that no test meets by accident."""


@dataclass
class Listener:
    """One stream, the frames that its reader has got, and the events they spell."""

    stream: Stream
    connected: Connected
    log: ScriptedLog
    frames: list[bytes] = field(default_factory=list)
    fetched: dict[str, int] = field(default_factory=dict)
    reading: asyncio.Task[None] | None = None

    @property
    def events(self) -> list[Any]:
        decoder = SSEDecoder()
        return [decode_event(event) for frame in self.frames for event in decoder.feed(frame)]

    @property
    def heard(self) -> list[list[str]]:
        """The keys that each event names."""
        return [[affected.key for affected in event.affected] for event in self.events]

    def read(self) -> None:
        """Begin to read, as the web layer does."""

        async def send(frame: bytes) -> None:
            self.frames.append(frame)
            for event in map(decode_event, SSEDecoder().feed(frame)):
                if isinstance(event, Invalidation):
                    # A client that hears of a key fetches it, and sees what is committed by then.
                    self.fetched |= {affected.key: self.log.committed for affected in event.affected}

        self.reading = asyncio.create_task(self.stream.write_to(send))


class ScriptedHub(ScriptedReader):
    """A hub on a scripted log."""

    def __init__(
        self,
        *,
        max_events: int = 8,
        max_bytes: int = 1_000_000,
        store: EphemeralStore | None = None,
        log: ScriptedLog | None = None,
        clock: FakeClock | None = None,
        bounds: Bounds = ROOM,
        max_resumed_changes: int = 1_000,
        **options: Any,
    ) -> None:
        self.clock = clock or FakeClock()
        super().__init__(log=log, max_bytes=max_bytes, clock=self.clock)
        self.hub = Hub(
            self.reader,
            self.log,
            clock=self.clock,
            ids=SequentialIds(),
            ephemeral_store=store or InMemoryEphemeralStore(self.clock),
            max_events=max_events,
            max_bytes=100_000,
            bounds=bounds,
            max_resumed_changes=max_resumed_changes,
            **options,
        )
        self.listeners: list[Listener] = []

    def row(self, *rows: int, scope: str = "") -> RowQuery:
        return RowQuery(self.log, rows, scope=scope)

    async def connect(
        self,
        *queries: RowQuery,
        cursor: Cursor | None = None,
        acks: bool = False,
        etag: str | None = None,
        identity: str | None = None,
        request_bytes: int = 0,
    ) -> Listener:
        """Open a stream on `queries` and read it."""
        subscriptions = [
            RequestedQuery(QueryRef(path=query.path, input=query.wire_input, etag=etag), cast(QueryCall, query))
            for query in queries
        ]
        stream, frame = await self.hub.connect(
            subscriptions, cursor, acks=acks, identity=identity, request_bytes=request_bytes
        )
        [event] = SSEDecoder().feed(frame)
        connected = decode_event(event)
        assert isinstance(connected, Connected)
        assert event.id == connected.cursor
        listener = Listener(stream, connected, self.log)
        listener.read()
        self.listeners.append(listener)
        return listener

    async def settled(self) -> None:
        """Apply what was committed and wait until the hub has computed everything again."""
        self.log.apply()
        await until(
            lambda: not self.hub._tasks and not self.hub._reconciler.refresher.waiting and not self.reader.computing
        )

    async def write(self, *rows: int) -> None:
        """Commit, apply, and wait until the hub has computed everything again."""
        self.log.write(*rows)
        await self.settled()

    async def leave(self, listener: Listener) -> None:
        """Go away as a client does: the task that reads is cancelled, then the stream is forgotten."""
        self.listeners.remove(listener)
        if listener.reading is not None:
            listener.reading.cancel()
            await asyncio.gather(listener.reading, return_exceptions=True)
        self.hub.disconnect(listener.stream)
        self.hub.disconnect(listener.stream)

    async def aclose(self) -> None:
        """End the hub; every stream then ends by itself."""
        await self.hub.aclose()
        async with asyncio.timeout(60):
            for listener in self.listeners:
                if listener.reading is not None:
                    await listener.reading
                self.hub.disconnect(listener.stream)
        await self.reader.aclose()
