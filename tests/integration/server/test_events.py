"""Events: what each names, and that none is missing after a resume or while writes go on without a pause."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import define_reactive_function
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.protocol.events import Connected, Invalidation, QueryRef, decode_event
from reactive_rpc.protocol.sse import SSEDecoder
from reactive_rpc.subscriptions.stream import Stream
from reactive_rpc.subscriptions.watched_query import RequestedQuery
from reactive_rpc.testing import running
from tests.support.waiting import DEADLINE_SECONDS, until

from .rooms import ROOMS, InRoom, Note, Server, Visit, app_of, in_room, lines, rpc_on, serving
from .streams import heard

pytestmark = pytest.mark.anyio

INSERT = "INSERT INTO note(tenant, room, text) VALUES ('t', ?, ?)"


@define_reactive_function
async def visits(db: AsyncSession) -> list[str]:
    return [visit.who for visit in (await db.exec(select(Visit))).all()]


def test_an_event_names_no_table_that_only_others_watch(file: Path) -> None:
    """One commit writes two tables: a stream that shows one of them does not learn that the other was written."""
    rpc = rpc_on(file, {"notes": {"in_room": in_room}, "visits": {"all": visits}})
    notes, others = {"path": "notes.in_room", "input": {"room": "a"}}, {"path": "visits.all"}
    with (
        running(app_of(rpc)) as url,
        heard(url, json={"queries": [others]}) as theirs,
        heard(url, json={"queries": [notes]}) as mine,
    ):
        assert [stream.next()[0] for stream in (theirs, mine)] == ["connected"] * 2
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute(INSERT, ("a", "x"))
            connection.execute("INSERT INTO visit(who) VALUES ('ann')")
        name, data, _ = mine.next()
    assert name == "invalidation"
    assert [affected["path"] for affected in data["affected"]] == ["notes.in_room"]
    assert data["tables"] == ["note"]


@pytest.mark.parametrize(
    ("path", "model"),
    [("events", "SubscriptionRequest"), ("events/poll", "PollRequest"), ("events/sets", "QuerySet")],
)
async def test_a_body_without_queries_is_refused(file: Path, path: str, model: str) -> None:
    """One that names a query in another way would be told of nothing for ever, and not why."""
    async with serving(file, ROOMS) as server:
        body = {"path": "notes.in_room", "input": {"room": "a"}}
        async with asyncio.timeout(DEADLINE_SECONDS):  # a stream, which is no refusal, does not end
            refused = await server.client.post(f"/rpc/{path}", json=body)
    assert refused.status_code == 400
    assert refused.json()["error"]["message"] == f"the body is no {model}: queries"
    assert refused.json()["error"]["details"][0]["message"] == "Field required"


async def connect(server: Server, *queries: QueryRef, cursor: str | None = None) -> tuple[Stream, Connected]:
    """Open a stream that is not acknowledged, and return it with its first event."""
    rpc = server.rpc
    subscriptions = [RequestedQuery(ref, call=await rpc._calls.subscribe(ref.path, ref.input, None)) for ref in queries]
    stream, frame = await rpc._hub.connect(subscriptions, Cursor.parse(cursor) if cursor else None, acks=False)
    connected = decode_event(SSEDecoder().feed(frame)[0])
    assert isinstance(connected, Connected)
    return stream, connected


@asynccontextmanager
async def written(stream: Stream) -> AsyncIterator[list[Invalidation]]:
    """Let a stream write, and give the list to which each of its events is added."""
    events: list[Any] = []

    async def write(frame: bytes) -> None:
        events.extend(decode_event(event) for event in SSEDecoder().feed(frame))

    task = asyncio.create_task(stream.write_to(write))
    try:
        yield events
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Pace:
    """Lets a handler through one run at a time, and counts how many runs began."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.runs = 0

    async def through(self) -> None:
        self.runs += 1
        await self.open.wait()


def slow_in_room(pace: Pace) -> Any:
    @define_reactive_function
    async def slow(db: AsyncSession, input: InRoom) -> list[str]:
        notes = (await db.exec(select(Note).where(Note.room == input.room))).all()
        await pace.through()
        return [note.text for note in notes]

    return slow


async def test_resuming_by_cursor_finds_what_was_still_being_computed(file: Path) -> None:
    """A cursor covers no change of a query that is being computed again: whoever resumes from it is sent that query."""
    pace = Pace()
    async with serving(file, {"n": {"slow": slow_in_room(pace)}, **ROOMS}) as server:
        slow = QueryRef(path="n.slow", input={"room": "a"})
        quick = QueryRef(path="notes.in_room", input={"room": "a"})
        stream, _ = await connect(server, slow, quick)
        async with written(stream) as events:
            pace.open.clear()
            server.write(INSERT, "a", "1")
            await until(lambda: len(events) >= 1 and pace.runs == 2)
            server.write(INSERT, "a", "2")
            await until(lambda: any("notes.in_room" in [a.path for a in e.affected] for e in events[1:]))
            last = events[-1].cursor
            assert "n.slow" not in [affected.path for affected in events[-1].affected]
        server.rpc._hub.disconnect(stream)
        pace.open.set()
        _, connected = await connect(server, slow, quick, cursor=last)
        assert "n.slow" in [affected.path for affected in connected.stale]


async def test_an_etag_older_than_the_cursor_proves_nothing(file: Path) -> None:
    """A stored set keeps its ETags while EventSource resumes by cursor: A, then B, then A again is stale for B."""
    async with serving(file) as server:
        answer = await server.client.get("/rpc/notes.in_room", params={"room": "a"})
        ref = QueryRef(path="notes.in_room", input={"room": "a"}, etag=answer.headers["etag"])
        stream, _ = await connect(server, ref)
        async with written(stream) as events:
            server.write(INSERT, "a", "x")
            await until(lambda: len(events) == 1)
        assert list(lines(await server.client.get("/rpc/notes.in_room", params={"room": "a"}))) == ["x"]
        server.rpc._hub.disconnect(stream)
        server.write("DELETE FROM note")
        _, connected = await connect(server, ref, cursor=events[-1].cursor)
        assert [affected.path for affected in connected.stale] == ["notes.in_room"]


@dataclass
class Overtaking:
    """A query that a write overtakes in each of its next `left` runs."""

    left: int = 0
    look: Callable[[], object] = lambda: None
    seen: list[object] = field(default_factory=list)
    server: Server | None = None

    def procedure(self) -> Any:
        @define_reactive_function
        async def slow(db: AsyncSession, input: InRoom) -> list[str]:
            notes = (await db.exec(select(Note).where(Note.room == input.room))).all()
            if self.left and self.server is not None:
                self.left -= 1
                self.server.write(INSERT, "a", f"overtaking {self.left}")
                await self.server.rpc._log.sync_to_head()
                self.seen.append(self.look())
            return [note.text for note in notes]

        return slow


async def test_a_stream_hears_of_later_commits_under_steady_writes(file: Path) -> None:
    """If each write overtakes the computation, its streams still hear of later commits, or of a gap."""
    overtaking = Overtaking()
    async with serving(file, {"n": {"slow": overtaking.procedure()}}) as server:
        stream, _ = await connect(server, QueryRef(path="n.slow", input={"room": "a"}))
        async with written(stream) as events:
            overtaking.server, overtaking.left, overtaking.look = server, 30, lambda: len(events)
            server.write(INSERT, "a", "first")
            await until(lambda: overtaking.left == 0)
            assert overtaking.seen[-1] != 1


async def test_a_stream_opens_under_steady_writes(file: Path) -> None:
    """`connected` comes although each write overtakes the computation of a query of the set."""
    overtaking = Overtaking(left=30)
    async with serving(file, {"n": {"slow": overtaking.procedure()}}) as server:
        overtaking.server = server
        opening = asyncio.create_task(connect(server, QueryRef(path="n.slow", input={"room": "a"})))
        overtaking.look = opening.done
        await until(lambda: overtaking.left == 0 or opening.done())
        await opening
        assert len(overtaking.seen) < 30 or overtaking.seen[-1]
